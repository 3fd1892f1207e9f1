"""An API server in memory, with faults, in the place of the client's transport.

It keeps what controllers rely on: resource versions, generations, uids, finalizers and graceful deletion,
optimistic concurrency, selectors, watches that resume. It has no validation and no defaults. Its faults are
those of real life: a request that fails before or after it was carried out, a conflict, a watch that lags behind
(so that those of two resources overtake each other), tells again what it has told, or breaks off and has to be
resumed or begun again; and a client that ends in the middle of things.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from shipwheel.api import errors
from shipwheel.api.clock import Clock, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupResource, GroupVersionResource, Obj
from shipwheel.api.selectors import parse_field_selector, parse_label_selector
from shipwheel.client.client import Client
from shipwheel.client.httpclient import ConnectionFailed, Headers, Response
from shipwheel.client.kubeconfig import ClientConfig
from tests.controllers.fakekinds import KINDS, FakeKind

_MERGE_KEYS = {
    "ownerReferences": "uid", "conditions": "type", "secrets": "name", "addresses": "type", "podIPs": "ip",
    "hostIPs": "ip", "reservedFor": "uid"}  # fmt: skip


@dataclass(slots=True)
class Faults:
    """Shares of requests and events that go wrong, 0 to 1, drawn with `seed`."""

    fail_before: float = 0.0
    """The connection breaks and nothing was done."""
    fail_after: float = 0.0
    """The connection breaks, but it was done."""
    conflict: float = 0.0
    """A write is refused as if somebody else had been faster."""
    break_watch: float = 0.0
    """A watch ends instead of giving an event."""
    expire: float = 0.0
    """A watch that is resumed is told that its version is gone."""
    lag: float = 0.0
    """An event waits up to a second, and all after it on its watch with it."""
    repeat: float = 0.0
    """After an event an earlier one comes once more."""
    kill: float = 0.0
    """After a write the manager is killed (see `World`), before it hears of the outcome."""
    seed: int = 0


@dataclass
class FakeApi:
    clock: Clock
    faults: Faults = field(default_factory=Faults)
    kinds: dict[GroupVersionResource, FakeKind] = field(default_factory=lambda: dict(KINDS))
    before_write: Callable[[str, str, Obj | None], None] | None = None
    """(method, path, body) of every write, before it is carried out; may raise ApiError or ConnectionFailed."""
    after_write: Callable[[], None] | None = None
    """Called when a write has been carried out (or refused), before its answer is on its way."""
    on_change: Callable[[GroupVersionResource, str, Obj, Obj | None], None] | None = None
    """(resource, type, object, what it was) of every change, as it happens; what it gets must not be changed."""
    intercept: Callable[[str, str, Obj | None], Obj | None] | None = None
    """Answers requests that are not about stored objects; None: it does not."""

    def __post_init__(self) -> None:
        self.revision = 0
        self.objects: dict[tuple[GroupVersionResource, str, str], Obj] = {}
        self.log: list[tuple[int, GroupVersionResource, str, Obj, Obj | None]] = []
        self.writes = 0
        self.requests: list[tuple[str, str]] = []
        self.random = random.Random(self.faults.seed)
        self.writer: Connection | None = None
        """Whose request is being carried out."""
        self._changed = asyncio.Event()

    def client(self) -> Client:
        return self.connect()[0]

    def connect(self) -> tuple[Client, Connection]:
        """A client, and the means to cut it off."""
        connection = Connection(self)
        return Client(
            ClientConfig("http://fake"), user_agent="test", clock=self.clock, transport=connection
        ), connection

    # What tests use directly

    def get(self, gvr: GroupVersionResource, name: str, namespace: str = "") -> Obj | None:
        found = self.objects.get((gvr, namespace, name))
        return _copy(found) if found else None

    def list(self, gvr: GroupVersionResource, namespace: str = "") -> list[Obj]:
        chosen = [key for key in self.objects if key[0] == gvr and namespace in ("", key[1])]
        return [_copy(self.objects[key]) for key in sorted(chosen, key=lambda key: key[1:])]

    def create(self, gvr: GroupVersionResource, obj: Obj, namespace: str = "") -> Obj:
        """Store an object with its status, as if it had always been there."""
        return self._create(gvr, _copy(obj), namespace or obj["metadata"].get("namespace", ""), status=True)

    def change(self, gvr: GroupVersionResource, name: str, namespace: str, change: Callable[[Obj], None]) -> Obj:
        """Let `change` alter an object, spec and status alike."""
        obj = _copy(self.objects[gvr, namespace, name])
        change(obj)
        return self._store(gvr, obj, self.objects[gvr, namespace, name])

    def delete(self, gvr: GroupVersionResource, name: str, namespace: str = "", **options: Any) -> None:
        self._delete(gvr, namespace, name, options)

    # Answers

    def respond(self, method: str, target: str, headers: Headers, body: bytes) -> Response:
        """Carry a request out, or let it fail."""
        self.requests.append((method, target))
        if self.happens(self.faults.fail_before):
            raise ConnectionFailed(f"{method} {target}: connection refused")
        try:
            answer = self._answer(method, target, dict(headers), orjson.loads(body) if body else None)
            response = Response(200, [], orjson.dumps(answer))
        except ApiError as error:
            response = Response(error.code, [], orjson.dumps(error.to_status()))
        if method != "GET":
            if self.after_write:
                self.after_write()
            if self.happens(self.faults.fail_after):
                raise ConnectionFailed(f"{method} {target}: EOF")
        return response

    def watch(self, target: str) -> _Watch:
        path, query = _split(target)
        gvr, namespace, _, _ = self._route(path)
        since = int(query.get("resourceVersion") or 0)
        if self.happens(self.faults.fail_before):
            raise ConnectionFailed(f"watch {target}: connection refused")
        return _Watch(
            self, gvr, namespace, since, _selection(query), expired=since > 0 and self.happens(self.faults.expire)
        )

    def happens(self, share: float) -> bool:
        return share > 0 and self.random.random() < share

    def _route(self, path: str) -> tuple[GroupVersionResource, str, str, str]:
        """(resource, namespace, name, subresource) of a path."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        gvr = GroupVersionResource(group, version, rest[0])
        if gvr not in self.kinds:
            raise errors.page_not_found()
        return gvr, namespace, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""

    def _answer(self, method: str, target: str, headers: dict[str, str], body: Any) -> Obj:
        path, query = _split(target)
        if method != "GET":
            self.writes += 1
            if self.before_write:
                self.before_write(method, path, body)
        if self.intercept:
            answer = self.intercept(method, path, body)
            if answer is not None:
                return answer
        if path in ("/api", "/apis"):
            return self._discovery(core=path == "/api")
        gvr, namespace, name, subresource = self._route(path)
        if method == "GET":
            return self._read(gvr, namespace, name, query)
        if method != "POST" and name and self.happens(self.faults.conflict):
            raise errors.conflict(gvr.group_resource, name, errors.MODIFIED)
        if method == "POST":
            return self._post(gvr, namespace, name, subresource, body)
        if method == "DELETE":
            if name:
                return self._delete(gvr, namespace, name, body or {})
            for obj in self.list(gvr, namespace):
                if _selection(query)(obj):
                    self._delete(gvr, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], body or {})
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        old = self._existing(gvr, namespace, name)
        if method == "PATCH":
            content = headers["Content-Type"]
            new = _patched(old, body, strategic="strategic" in content)
        else:
            new = body
            sent = new["metadata"].get("resourceVersion")
            if sent and sent != old["metadata"]["resourceVersion"]:
                raise errors.conflict(gvr.group_resource, name, errors.MODIFIED)
        return self._update(gvr, old, new, subresource)

    def _read(self, gvr: GroupVersionResource, namespace: str, name: str, query: dict[str, str]) -> Obj:
        if name:
            return self._existing(gvr, namespace, name)
        chosen = _selection(query)
        items = [obj for obj in self.list(gvr, namespace) if chosen(obj)]
        for obj in items:
            del obj["apiVersion"], obj["kind"]
        return {
            "apiVersion": str(gvr.group_version),
            "kind": f"{self.kinds[gvr].kind}List",
            "metadata": {"resourceVersion": str(self.revision)},
            "items": items,
        }

    def _existing(self, gvr: GroupVersionResource, namespace: str, name: str) -> Obj:
        obj = self.objects.get((gvr, namespace, name))
        if obj is None:
            raise errors.not_found(gvr.group_resource, name)
        return obj

    def _post(self, gvr: GroupVersionResource, namespace: str, name: str, subresource: str, body: Obj) -> Obj:
        if subresource == "binding":
            pod = _copy(self._existing(gvr, namespace, name))
            pod["spec"]["nodeName"] = body["target"]["name"]
            self._store(gvr, pod, self.objects[gvr, namespace, name])
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        if subresource == "eviction":
            self._delete(gvr, namespace, name, body.get("deleteOptions") or {})
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return self._create(gvr, body, namespace, status=False)

    def _create(self, gvr: GroupVersionResource, obj: Obj, namespace: str, *, status: bool) -> Obj:
        kind = self.kinds[gvr]
        meta = obj["metadata"]
        if kind.namespaced:
            meta["namespace"] = namespace
            owner = self.objects.get((_NAMESPACES, "", namespace))
            if owner and owner["metadata"].get("deletionTimestamp") and not status:
                why = f"unable to create new content in namespace {namespace} because it is being terminated"
                raise ApiError(
                    403, "Forbidden", why, details={"causes": [{"reason": "NamespaceTerminating", "message": why}]}
                )
        if not meta.get("name"):
            meta["name"] = f"{meta['generateName']}{self.random.getrandbits(40):010x}"
        if (gvr, namespace, meta["name"]) in self.objects:
            raise errors.already_exists(gvr.group_resource, meta["name"])
        obj["apiVersion"], obj["kind"] = str(gvr.group_version), kind.kind
        meta.setdefault("uid", str(uuid.UUID(int=self.random.getrandbits(128))))
        meta.setdefault("creationTimestamp", rfc3339(self.clock.now()))
        meta["generation"] = 1
        if kind.has_status:
            obj["status"] = obj.get("status", {}) if status else {}
        kind.default(obj)
        return self._store(gvr, obj, None)

    def _update(self, gvr: GroupVersionResource, old: Obj, new: Obj, subresource: str) -> Obj:
        new = _copy(new)
        meta, before = new["metadata"], old["metadata"]
        if meta.get("uid", before["uid"]) != before["uid"]:
            raise errors.conflict(gvr.group_resource, before["name"], "the UID in the precondition does not match")
        for key in ("uid", "creationTimestamp", "namespace", "name", "deletionTimestamp", "generation"):
            if key in before:
                meta[key] = before[key]
            else:
                meta.pop(key, None)
        if subresource in ("status", "approval"):
            kept = {
                **_copy(old),
                "metadata": {**_copy(before), "annotations": meta.get("annotations", {})},
            }
            if not kept["metadata"]["annotations"]:
                del kept["metadata"]["annotations"]
            new = {**kept, "status": new.get("status", {})}
        elif self.kinds[gvr].has_status:
            new["status"] = _copy(old.get("status", {}))
        return self._store(gvr, new, old)

    def _store(self, gvr: GroupVersionResource, obj: Obj, old: Obj | None) -> Obj:
        meta = obj["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        if old is not None:
            if _without_version(old) == _without_version(obj):
                return _copy(old)
            spec = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
            if spec != {key: value for key, value in old.items() if key not in ("metadata", "status")}:
                meta["generation"] = old["metadata"]["generation"] + 1
        finalizers = list(meta.get("finalizers") or ()) + (obj.get("spec") or {}).get("finalizers", [])
        if meta.get("deletionTimestamp") and not finalizers and not meta.get("deletionGracePeriodSeconds"):
            return self._remove(gvr, namespace, name, obj)
        self.revision += 1
        meta["resourceVersion"] = str(self.revision)
        self.objects[gvr, namespace, name] = obj
        self._tell(gvr, "ADDED" if old is None else "MODIFIED", obj, old)
        return _copy(obj)

    def _delete(self, gvr: GroupVersionResource, namespace: str, name: str, options: Obj) -> Obj:
        old = self._existing(gvr, namespace, name)
        preconditions = options.get("preconditions") or {}
        for key in ("uid", "resourceVersion"):
            if preconditions.get(key) and preconditions[key] != old["metadata"][key]:
                raise errors.conflict(gvr.group_resource, name, f"the {key} in the precondition does not match")
        obj = _copy(old)
        meta = obj["metadata"]
        policy = options.get("propagationPolicy")
        finalizers = [each for each in meta.get("finalizers") or () if each not in ("orphan", "foregroundDeletion")]
        if policy == "Foreground":
            finalizers.append("foregroundDeletion")
        elif policy == "Orphan":
            finalizers.append("orphan")
        elif policy is None:
            finalizers = list(meta.get("finalizers") or ())
        if finalizers:
            meta["finalizers"] = finalizers
        else:
            meta.pop("finalizers", None)
        grace = 0
        if gvr.resource == "pods" and obj["spec"].get("nodeName") and not _is_over(obj):
            grace = options.get("gracePeriodSeconds", obj["spec"].get("terminationGracePeriodSeconds", 30))
        meta.setdefault("deletionTimestamp", rfc3339(self.clock.now()))
        meta["deletionGracePeriodSeconds"] = min(grace, meta.get("deletionGracePeriodSeconds", grace))
        if gvr == _NAMESPACES:
            obj.setdefault("status", {})["phase"] = "Terminating"
        return self._store(gvr, obj, old)

    def _remove(self, gvr: GroupVersionResource, namespace: str, name: str, last: Obj) -> Obj:
        old = self.objects.pop((gvr, namespace, name))
        self.revision += 1
        last["metadata"]["resourceVersion"] = str(self.revision)
        self._tell(gvr, "DELETED", last, old)
        return _copy(last)

    def _tell(self, gvr: GroupVersionResource, kind: str, obj: Obj, old: Obj | None) -> None:
        self.log.append((self.revision, gvr, kind, _copy(obj), _copy(old)))
        if self.on_change:
            self.on_change(gvr, kind, obj, old)
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        await self._changed.wait()

    def _discovery(self, *, core: bool) -> Obj:
        groups: dict[str, dict[str, list[Obj]]] = {}
        for gvr, kind in self.kinds.items():
            if core != (gvr.group == ""):
                continue
            entry = {
                "resource": gvr.resource,
                "responseKind": {"kind": kind.kind, "group": gvr.group, "version": gvr.version},
                "scope": "Namespaced" if kind.namespaced else "Cluster",
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            }
            groups.setdefault(gvr.group, {}).setdefault(gvr.version, []).append(entry)
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": [
                {
                    "metadata": {"name": group},
                    "versions": [{"version": name, "resources": entries} for name, entries in versions.items()],
                }
                for group, versions in groups.items()
            ],
        }


class Connection:
    """A client's transport. When it is cut, nothing that is asked through it is done or answered any more: its client
    is as good as dead from one instruction to the next."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api
        self.cut = False
        self.refused = False
        """Its requests fail: it is at the wrong side of a broken network."""

    async def request(
        self, method: str, target: str, headers: Headers, body: bytes, *, timeout: float | None
    ) -> Response:
        await asyncio.sleep(0)
        await self._alive()
        self._api.writer = self
        try:
            response = self._api.respond(method, target, headers, body)
        finally:
            self._api.writer = None
        await self._alive()
        return response

    async def stream(self, method: str, target: str, headers: Headers, body: bytes, *, timeout: float | None) -> _Watch:
        await self._alive()
        return self._api.watch(target)

    async def close(self) -> None:
        pass

    async def _alive(self) -> None:
        if self.cut:
            await asyncio.Event().wait()
        if self.refused:
            raise ConnectionFailed("no route to host")


class _Watch:
    """A watch as a stream of lines."""

    def __init__(
        self,
        api: FakeApi,
        gvr: GroupVersionResource,
        namespace: str,
        since: int,
        chosen: Callable[[Obj], bool],
        *,
        expired: bool,
    ) -> None:
        self.status = 200
        self._api = api
        self._gvr = gvr
        self._namespace = namespace
        self._since = since
        self._chosen = chosen
        self._expired = expired
        self._closed = False

    def header(self, name: str) -> str:
        return ""

    def close(self) -> None:
        self._closed = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        api = self._api
        if self._expired:
            status = errors.expired(f"too old resource version: {self._since}").to_status()
            yield orjson.dumps({"type": "ERROR", "object": status}) + b"\n"
            return
        place = next((index for index, entry in enumerate(api.log) if entry[0] > self._since), len(api.log))
        told: list[bytes] = []
        while not self._closed:
            while place < len(api.log):
                _, gvr, kind, obj, old = api.log[place]
                place += 1
                if gvr != self._gvr or self._namespace not in ("", obj["metadata"].get("namespace", "")):
                    continue
                if api.happens(api.faults.break_watch):
                    return
                if api.happens(api.faults.lag):
                    await api.clock.sleep(api.random.random())
                event = self._as_seen(kind, obj, old)
                if event:
                    told.append(orjson.dumps({"type": event, "object": obj}) + b"\n")
                    yield told[-1]
                    if api.happens(api.faults.repeat):
                        yield api.random.choice(told[-10:])
            await api.changed()

    def _as_seen(self, kind: str, obj: Obj, old: Obj | None) -> str:
        """An object that begins or ceases to match a selector appears or disappears."""
        now, before = self._chosen(obj), old is not None and self._chosen(old)
        if kind == "DELETED":
            return kind if before else ""
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else ""


_NAMESPACES = GroupVersionResource("", "v1", "namespaces")


def _copy(obj: Any) -> Any:
    """A deep copy, faster than `copy.deepcopy`."""
    return orjson.loads(orjson.dumps(obj))


def _split(target: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(target)
    return parts.path, {key: values[0] for key, values in parse_qs(parts.query).items()}


def _selection(query: dict[str, str]) -> Callable[[Obj], bool]:
    labels = parse_label_selector(query.get("labelSelector", ""))
    fields = parse_field_selector(query.get("fieldSelector", ""))

    def chosen(obj: Obj) -> bool:
        values = {term: str(_dig(obj, term) or "") for term in fields.fields()}
        return labels.matches(obj["metadata"].get("labels") or {}) and fields.matches(values)

    return chosen


def _dig(obj: Obj, path: str) -> Any:
    value: Any = obj
    for part in path.split("."):
        value = (value or {}).get(part)
    return value


def _is_over(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _without_version(obj: Obj) -> Obj:
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}}


def _patched(old: Obj, patch: Obj, *, strategic: bool) -> Obj:
    sent = (patch.get("metadata") or {}).get("resourceVersion")
    if sent and sent != old["metadata"]["resourceVersion"]:
        raise errors.conflict(GroupResource("", "objects"), old["metadata"]["name"], errors.MODIFIED)
    uid = (patch.get("metadata") or {}).get("uid")
    if uid and uid != old["metadata"]["uid"]:
        raise errors.conflict(GroupResource("", "objects"), old["metadata"]["name"], "uid mismatch")
    return _merge(_copy(old), patch, strategic)


def _merge(target: Obj, patch: Obj, strategic: bool) -> Obj:
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            target[name] = [each for each in target.get(name) or () if each not in value]
        elif value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value, strategic)
        elif strategic and key in _MERGE_KEYS and isinstance(value, list):
            target[key] = _merge_list(target.get(key) or [], value, _MERGE_KEYS[key])
        elif strategic and key == "finalizers":
            target[key] = list(dict.fromkeys([*(target.get(key) or ()), *value]))
        else:
            target[key] = _copy(value)
    return target


def _merge_list(old: list[Obj], patch: list[Obj], key: str) -> list[Obj]:
    replaced = {"$patch": "replace"} in patch
    merged = {} if replaced else {each[key]: each for each in old}
    for each in patch:
        if each == {"$patch": "replace"}:
            continue
        if each.get("$patch") == "delete":
            merged.pop(each[key], None)
        elif each[key] in merged:
            both = {**merged[each[key]], **each}
            merged[each[key]] = {name: value for name, value in both.items() if value is not None}
        else:
            merged[each[key]] = each
    return list(merged.values())
