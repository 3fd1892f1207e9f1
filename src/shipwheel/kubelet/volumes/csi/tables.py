"""The messages of CSI's Node service (package `csi.v1`) and of plugin registration, as tables."""

from __future__ import annotations

from functools import cache

from shipwheel.api.protobuf import Message, parse_tables


@cache
def messages() -> dict[str, Message]:
    return parse_tables(_TABLES)


_TABLES = """
enum AccessModeValue UNKNOWN=0 SINGLE_NODE_WRITER=1 SINGLE_NODE_READER_ONLY=2 MULTI_NODE_READER_ONLY=3
    MULTI_NODE_SINGLE_WRITER=4 MULTI_NODE_MULTI_WRITER=5 SINGLE_NODE_SINGLE_WRITER=6 SINGLE_NODE_MULTI_WRITER=7
enum RpcType UNKNOWN=0 STAGE_UNSTAGE_VOLUME=1 GET_VOLUME_STATS=2 EXPAND_VOLUME=3 VOLUME_CONDITION=4
    SINGLE_NODE_MULTI_WRITER=5 VOLUME_MOUNT_GROUP=6
enum UsageUnit UNKNOWN=0 BYTES=1 INODES=2
NodeGetInfoRequest
NodeGetInfoResponse node_id=1:string max_volumes_per_node=2:int64 accessible_topology=3:Topology
Topology segments=1:{string:string}
NodeGetCapabilitiesRequest
NodeGetCapabilitiesResponse capabilities=1:[NodeServiceCapability]
NodeServiceCapability rpc=1:Rpc
Rpc type=1:RpcType
VolumeCapability block=1:BlockVolume mount=2:MountVolume access_mode=3:AccessMode
BlockVolume
MountVolume fs_type=1:string mount_flags=2:[string] volume_mount_group=3:string
AccessMode mode=1:AccessModeValue
NodeStageVolumeRequest volume_id=1:string publish_context=2:{string:string} staging_target_path=3:string
    volume_capability=4:VolumeCapability secrets=5:{string:string} volume_context=6:{string:string}
NodeStageVolumeResponse
NodeUnstageVolumeRequest volume_id=1:string staging_target_path=2:string
NodeUnstageVolumeResponse
NodePublishVolumeRequest volume_id=1:string publish_context=2:{string:string} staging_target_path=3:string
    target_path=4:string volume_capability=5:VolumeCapability readonly=6:bool secrets=7:{string:string}
    volume_context=8:{string:string}
NodePublishVolumeResponse
NodeUnpublishVolumeRequest volume_id=1:string target_path=2:string
NodeUnpublishVolumeResponse
NodeExpandVolumeRequest volume_id=1:string volume_path=2:string capacity_range=3:CapacityRange
    staging_target_path=4:string volume_capability=5:VolumeCapability secrets=6:{string:string}
NodeExpandVolumeResponse capacity_bytes=1:int64
CapacityRange required_bytes=1:int64 limit_bytes=2:int64
NodeGetVolumeStatsRequest volume_id=1:string volume_path=2:string staging_target_path=3:string
NodeGetVolumeStatsResponse usage=1:[VolumeUsage] volume_condition=2:VolumeCondition
VolumeUsage available=1:int64 total=2:int64 used=3:int64 unit=4:UsageUnit
VolumeCondition abnormal=1:bool message=2:string
InfoRequest
PluginInfo type=1:string name=2:string endpoint=3:string supported_versions=4:[string]
RegistrationStatus plugin_registered=1:bool error=2:string
RegistrationStatusResponse
"""
