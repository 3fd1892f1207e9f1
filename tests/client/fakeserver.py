"""A little API server on loopback: any resource, resource versions, watches that resume, and faults on demand.

Real HTTP, so that the client's road from socket to handler is what is tested; no validation, no other semantics.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import orjson

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError, expired
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client
from shipwheel.client.httpserver import Answer, HttpServer, Request, Response, Stream, StreamWriter
from shipwheel.client.kubeconfig import ClientConfig


@dataclass
class FakeServer:
    objects: dict[str, Obj] = field(default_factory=dict)
    """By the path of each."""
    revision: int = 10
    compacted: int = 0
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and query of every request."""
    refuse: Callable[[Request], ApiError | None] = lambda request: None
    stalled: bool = False
    """Requests are carried out but never answered."""
    port: int = 0
    _history: list[tuple[int, str, str, Obj]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _watches: set[asyncio.Future[str]] = field(default_factory=set)

    # What a test does.

    def client(self, clock: Clock | None = None) -> Client:
        return Client(ClientConfig(server=f"http://127.0.0.1:{self.port}"), user_agent="test/1.0", clock=clock)

    def put(
        self, gvr: GroupVersionResource, name: str, *, namespace: str = "default", uid: str = "", **rest: str
    ) -> Obj:
        """Create or change an object."""
        path = gvr.path(namespace, name)
        old = self.objects.get(path)
        meta = {"name": name, "namespace": namespace, "uid": uid or (old["metadata"]["uid"] if old else f"uid-{name}")}
        return self._write(path, {"apiVersion": str(gvr.group_version), "kind": "Thing", "metadata": meta, **rest})

    def remove(self, gvr: GroupVersionResource, name: str, *, namespace: str = "default") -> None:
        path = gvr.path(namespace, name)
        self.revision += 1
        gone = copy.deepcopy(self.objects.pop(path))
        gone["metadata"]["resourceVersion"] = str(self.revision)
        self._tell("DELETED", path, gone)

    def compact(self) -> None:
        """Forget the past."""
        self.compacted = self.revision
        self._history.clear()

    def bookmark(self) -> None:
        """Tell all watches how far the world is, without a change to what they watch."""
        self.revision += 1
        self._tell("BOOKMARK", "", {"kind": "Thing", "metadata": {"resourceVersion": str(self.revision)}})

    def break_watches(self, how: str = "abort") -> None:
        """End all watches: "end" in order, "abort" in the middle, "expire" with a 410."""
        for each in list(self._watches):
            if not each.done():
                each.set_result(how)

    @property
    def watching(self) -> int:
        return len(self._watches)

    # What a client sees.

    async def handle(self, request: Request) -> Answer:
        query = dict(request.query)
        self.asked.append((request.method, request.path, query))
        body = orjson.loads(await request.body(1 << 20) or b"null")
        refusal = self.refuse(request)
        if refusal is not None:
            return Response(refusal.code, orjson.dumps(refusal.to_status()))
        try:
            answer = self._answer(request, query, body)
        except ApiError as error:
            return Response(error.code, orjson.dumps(error.to_status()))
        if self.stalled:
            await asyncio.Event().wait()
        return answer

    def _answer(self, request: Request, query: dict[str, str], body: Obj) -> Answer:
        path = request.path
        if query.get("watch"):
            since = int(query["resourceVersion"])
            if since < self.compacted:
                raise expired(f"too old resource version: {since} ({self.compacted})")
            return Stream(lambda writer: self._watch(writer, path, since))
        if request.method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                raise ApiError(409, "AlreadyExists", f"{path} already exists")
            return _json(201, self._write(path, body))
        if request.method == "GET" and path not in self.objects and path.rpartition("/")[2] in _PLURALS:
            everywhere = "/namespaces/" not in path
            items = [obj for at, obj in sorted(self.objects.items()) if everywhere or at.startswith(f"{path}/")]
            version = {"resourceVersion": str(self.revision)}
            return _json(200, {"kind": "ThingList", "apiVersion": "v1", "metadata": version, "items": items})
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        old = self.objects[path]
        if request.method == "GET":
            return _json(200, old)
        if request.method == "PATCH":
            return _json(200, self._write(path, {**old, **body}))
        sent = body["metadata"].get("resourceVersion")
        if sent and sent != old["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        return _json(200, self._write(path, body))

    def _write(self, path: str, obj: Obj) -> Obj:
        self.revision += 1
        kind = "MODIFIED" if path in self.objects else "ADDED"
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        self.objects[path] = obj
        self._tell(kind, path, obj)
        return obj

    def _tell(self, kind: str, path: str, obj: Obj) -> None:
        self._history.append((self.revision, kind, path, copy.deepcopy(obj)))
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self, writer: StreamWriter, path: str, since: int) -> None:
        ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watches.add(ending)
        try:
            while True:
                changed = self._changed
                for revision, kind, _, obj in self._history:
                    if revision > since:
                        writer.write(orjson.dumps({"type": kind, "object": obj}) + b"\n")
                        since = revision
                waiting = asyncio.ensure_future(changed.wait())
                await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if ending.done():
                    if ending.result() == "expire":
                        status = expired("too old resource version").to_status()
                        writer.write(orjson.dumps({"type": "ERROR", "object": status}) + b"\n")
                    elif ending.result() == "abort":
                        writer.abort()
                    return
        finally:
            self._watches.discard(ending)


_PLURALS = ("configmaps", "leases", "events", "pods")


def _json(status: int, obj: Obj) -> Response:
    return Response(status, orjson.dumps(obj))


@contextlib.asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    http = HttpServer(fake.handle)
    fake.port = await http.listen("127.0.0.1", 0)
    try:
        yield fake
    finally:
        await http.close()


async def until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Return when the condition holds; TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
