"""What of etcd's v3 API the store uses: messages and methods.

Names and numbers are those of etcd's `rpc.proto` and `kv.proto`; fields that we neither set nor read are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from shipwheel.api.protobuf import Message, parse_tables

_MESSAGES = parse_tables(
    """
    Header revision=3:int64
    KeyValue key=1:bytes create_revision=2:int64 mod_revision=3:int64 value=5:bytes
    Event type=1:int32 kv=2:KeyValue prev_kv=3:KeyValue

    RangeRequest key=1:bytes range_end=2:bytes limit=3:int64 revision=4:int64 keys_only=8:bool count_only=9:bool
    RangeResponse header=1:Header kvs=2:[KeyValue] count=4:int64
    PutRequest key=1:bytes value=2:bytes lease=3:int64
    PutResponse header=1:Header
    DeleteRangeRequest key=1:bytes prev_kv=3:bool
    DeleteRangeResponse deleted=2:int64 prev_kvs=3:[KeyValue]
    RequestOp range=1:RangeRequest put=2:PutRequest delete_range=3:DeleteRangeRequest
    ResponseOp range=1:RangeResponse put=2:PutResponse delete_range=3:DeleteRangeResponse
    Compare result=1:int32 target=2:int32 key=3:bytes mod_revision=6:int64
    TxnRequest compare=1:[Compare] success=2:[RequestOp] failure=3:[RequestOp]
    TxnResponse header=1:Header succeeded=2:bool responses=3:[ResponseOp]
    CompactionRequest revision=1:int64
    CompactionResponse header=1:Header

    WatchCreateRequest key=1:bytes range_end=2:bytes start_revision=3:int64 progress_notify=4:bool prev_kv=6:bool
      fragment=8:bool
    WatchProgressRequest
    WatchRequest create=1:WatchCreateRequest progress=3:WatchProgressRequest
    WatchResponse header=1:Header watch_id=2:int64 created=3:bool canceled=4:bool compact_revision=5:int64
      cancel_reason=6:string fragment=7:bool events=11:[Event]

    LeaseGrantRequest ttl=1:int64
    LeaseGrantResponse id=2:int64
    StatusRequest
    StatusResponse version=2:string
    """.replace("\n    ", "\n")
)

COMPARE_EQUAL, COMPARE_MOD_REVISION = 0, 2
EVENT_DELETE = 1


@dataclass(frozen=True, slots=True)
class Method:
    path: str
    request: Message
    response: Message


def _method(service: str, name: str, messages: str) -> Method:
    return Method(f"/etcdserverpb.{service}/{name}", _MESSAGES[f"{messages}Request"], _MESSAGES[f"{messages}Response"])


RANGE = _method("KV", "Range", "Range")
TXN = _method("KV", "Txn", "Txn")
COMPACT = _method("KV", "Compact", "Compaction")
WATCH = _method("Watch", "Watch", "Watch")
LEASE_GRANT = _method("Lease", "LeaseGrant", "LeaseGrant")
STATUS = _method("Maintenance", "Status", "Status")
