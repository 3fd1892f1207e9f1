"""Ask an API server everything its own OpenAPI documents allow, and much that they almost allow.

Two kinds of requests take turns. Schemathesis makes some from the published documents; most are then mended (a real
namespace, a name that may exist, the right kind), so that they come past the first check. Others are good objects
(`seeds.yaml`) with one field changed, created, updated, patched and applied: they come much further.

Whatever is asked, no answer may be a 5xx (but for those that upstream gives, too), none may take long, and afterwards
nothing of it may be left: no task, no place in a flow.

    python -m tests.fuzz --seconds 600 --seed 7

prints each finding and fails if there was one. Not a part of the test suite: it takes as long as it is given.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import http.client
import json
import logging
import random
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import hypothesis
import orjson
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase

from tests.apiserver.world import World, make_keys, running

SLOW = 10.0
"""Seconds after which an answer counts as a hang."""
NAMES = ("a", "b", "default", "kubernetes", "kube-system", "v1.apps", "widgets.example.com")
AS_UPSTREAM = (
    b"target.name: Required value",
    b"failed to create typed patch object",
    b"failed to create typed live object",
    b"list element types are not identical",
    b"does not contain declared merge key",
    b"resourceVersion should not be set on objects to be created",
)
"""What upstream, too, answers with a 500 though it is the client's mistake."""
REMOTE = ("/proxy", "/exec", "/attach", "/portforward", "/log")
"""What is somebody else's to answer: 5xx are right when there is nobody."""


@dataclass
class Findings:
    wrong: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, finding: str) -> None:
        print(finding, flush=True)
        self.wrong.append(finding)


class Client:
    """A plain, blocking client: the fuzzer runs in a thread of its own."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self._port = port
        self._tls = tls
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self._port, timeout=SLOW, context=self._tls)

    def ask(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
        """Status and body; OSError or HTTPException when there is no proper answer."""
        try:
            self._connection.request(method, target, body=body, headers=headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = self._connect()
            raise

    def close(self) -> None:
        self._connection.close()


def operations(client: Client) -> Iterator[Any]:
    """Every operation of every OpenAPI v3 document."""
    _, index = client.ask("GET", "/openapi/v3", {}, None)
    for place in orjson.loads(index)["paths"].values():
        _, document = client.ask("GET", place["serverRelativeURL"], {}, None)
        for found in schemathesis.openapi.from_dict(orjson.loads(document)).get_all_operations():
            operation = found.ok()
            if not any(part in operation.path for part in REMOTE) and "/watch/" not in operation.path:
                yield operation


def mend(case: Any, draw: random.Random) -> None:
    """Make a request more likely to be understood, in some of its parts."""
    parameters = case.path_parameters or {}
    for key in parameters:
        if draw.random() < 0.8:
            parameters[key] = "default" if key == "namespace" else draw.choice(NAMES)
    if case.query and draw.random() < 0.9:
        case.query.pop("watch", None)  # it takes a second
    body = case.body
    if isinstance(body, dict) and draw.random() < 0.9:
        schema = case.operation.definition.raw.get("x-kubernetes-group-version-kind") or {}
        if "kind" in schema:
            group, version = schema.get("group", ""), schema["version"]
            body.update(apiVersion=f"{group}/{version}" if group else version, kind=schema["kind"])
        metadata = body.get("metadata")
        if not isinstance(metadata, dict) or draw.random() < 0.7:
            body["metadata"] = metadata = {}
        metadata["name"] = parameters.get("name") or draw.choice(NAMES)


def target_of(case: Any) -> str:
    path = case.operation.path
    for key, value in (case.path_parameters or {}).items():
        path = path.replace(f"{{{key}}}", quote(str(value), safe=""))
    query = dict(case.query or {})
    if query.get("watch"):
        query["timeoutSeconds"] = 1
    return f"{path}?{urlencode(query, doseq=True)}" if query else path


def body_of(case: Any) -> bytes | None:
    if isinstance(case.body, bytes):
        return case.body
    try:
        return orjson.dumps(case.body)
    except TypeError:
        return None


def ask_case(client: Client, case: Any, findings: Findings) -> None:
    media = case.media_type if case.media_type not in (None, "*/*") else "application/json"
    ask(client, case.method.upper(), target_of(case), body_of(case), media, findings)


VALUES = (
    None, True, "", "a", "A b", "0", "-1", "1e400", "9" * 40, "é\x00\ud800", "%", "/", "..", "0.0.0.0/0", "::1/200",
    "2026-13-01T00:00:00Z", "0001-01-01T00:00:00Z", "1Ei", "1n", "100%", "-5%", "(", "[", "*", "!", "x" * 70000,
    0, -1, 1 << 31, (1 << 63) - 1, -(1 << 63), 1 << 64, 1.5, 1e308, [], [None], [[]], {}, {"": ""}, {"a": None},
    [{}, {}],
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the fields and items of an object are."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(seed: Any, draw: random.Random) -> Any:
    """An object with one field replaced, removed, or given to another."""
    obj = copy.deepcopy(seed)
    known = list(places(obj))
    *way, last = draw.choice(known)
    inner = obj
    for key in way:
        inner = inner[key]
    what = draw.random()
    if what < 0.1:
        del inner[last]
    elif what < 0.2 and isinstance(inner, list):
        inner.append(copy.deepcopy(inner[last]))
    elif what < 0.3:
        *_, other = draw.choice(known)
        if isinstance(inner, dict):
            inner[other] = inner[last]
    else:
        inner[last] = draw.choice(VALUES)
    return obj


MEDIA = {
    "POST": "application/json",
    "PUT": "application/json",
    "PATCH": "application/merge-patch+json",
    "STRATEGIC": "application/strategic-merge-patch+json",
    "APPLY": "application/apply-patch+yaml",
}


def ask_seed(client: Client, seed: Any, draw: random.Random, findings: Findings) -> None:
    group_version, kind = seed["apiVersion"], seed["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}es" if kind.endswith("s") else f"{kind}s"
    plural = "endpoints" if kind == "endpoints" else plural
    prefix = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
    path = f"{prefix}/namespaces/default/{plural}"
    way = draw.choice(list(MEDIA))
    obj = changed(seed, draw)
    if draw.random() < 0.2:
        obj = changed(obj, draw)
    query = {}
    if draw.random() < 0.3:
        query["dryRun"] = "All"
    if draw.random() < 0.5:
        query["fieldValidation"] = draw.choice(["Strict", "Warn", "Ignore"])
    if way == "APPLY":
        query.update(fieldManager="fuzz", force="true")
    name = seed["metadata"]["name"]
    target = path if way == "POST" else f"{path}/{name}{draw.choice(['', '', '', '/status'])}"
    method = "PATCH" if way in ("APPLY", "STRATEGIC") else way
    ask(client, method, f"{target}?{urlencode(query)}", _dump(obj), MEDIA[way], findings)
    if draw.random() < 0.2:
        ask(client, "DELETE", f"{path}/{name}?gracePeriodSeconds=0", None, "", findings)
        strip = b'{"metadata":{"finalizers":null}}'
        ask(client, "PATCH", f"{path}/{name}", strip, MEDIA["PATCH"], findings)
        ask(client, "POST", path, _dump(seed), MEDIA["POST"], findings)


def _dump(obj: Any) -> bytes:
    return json.dumps(obj).encode()


def ask(client: Client, method: str, target: str, body: bytes | None, media: str, findings: Findings) -> None:
    headers = {"Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = media
    started = time.monotonic()
    try:
        status, answer = client.ask(method, target, headers, body)
    except (OSError, http.client.HTTPException) as error:
        findings.add(f"NO ANSWER {method} {target}: {error!r}\n    {body!r:.1500}")
        return
    findings.statuses[status] += 1
    if status >= 500 and not any(each in answer for each in AS_UPSTREAM):
        findings.add(f"{status} {method} {target}\n    {body!r:.1500}\n    {answer[:500]!r}")
    if time.monotonic() - started > SLOW / 2:
        findings.add(f"SLOW {method} {target}: {time.monotonic() - started:.1f}s\n    {body!r:.1500}")


def fuzz(port: int, tls: ssl.SSLContext, seconds: float, seed: int) -> Findings:
    findings = Findings()
    client = Client(port, tls)
    draw = random.Random(seed)
    known = list(operations(client))
    seeds = yaml.safe_load(Path(__file__).with_name("seeds.yaml").read_text())
    for obj in seeds:
        ask_seed(client, obj, draw, findings)
    print(f"{len(known)} operations", flush=True)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        draw.shuffle(known)
        for operation in known:
            if time.monotonic() > deadline:
                break

            @hypothesis.seed(draw.random())
            @hypothesis.settings(
                max_examples=2,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy())
            def some(case: Any) -> None:
                mend(case, draw)
                ask_case(client, case, findings)

            some()
            for _ in range(40):
                ask_seed(client, draw.choice(seeds), draw, findings)
    client.close()
    return findings


async def leaks(world: World, before: set[asyncio.Task[Any]]) -> list[str]:
    """What is still there a while after the last client has gone."""
    flow = world.server.flow
    for _ in range(50):
        await asyncio.sleep(0.1)
        tasks = [task for task in asyncio.all_tasks() - before if not task.done() and not _of_the_store(task)]
        places = [flow.serving(kind) + flow.waiting(kind) for kind in ("readOnly", "mutating")]
        if not tasks and not any(places):
            return []
    return [f"LEFT places {places}, tasks {tasks}"]


def _of_the_store(task: asyncio.Task[Any]) -> bool:
    """It waits for the next lease to end as long as there is one."""
    return getattr(task.get_coro(), "__qualname__", "") in ("Expiry._change", "SystemClock.sleep")


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        make_keys(directory)
        async with running(directory, directory / "state.db") as world:
            config = world.config("admin", "system:masters")
            tls = ssl.create_default_context(cadata=config.ca_data.decode())
            pair = directory / "admin.pem"
            pair.write_bytes(config.client_key_data + config.client_cert_data)
            tls.load_cert_chain(pair)
            await asyncio.sleep(0.2)
            before = asyncio.all_tasks()
            findings = await asyncio.to_thread(fuzz, world.port, tls, options.seconds, options.seed)
            for leak in await leaks(world, before):
                findings.add(leak)
    print(f"answers by status: {dict(sorted(findings.statuses.items()))}; findings: {len(findings.wrong)}")
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
