"""Who may read what a component shows: client certificates, front proxies, and what the cluster says of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shipwheel.admin.pki import KeyPair, issue, new_authority, user
from shipwheel.api.errors import ApiError
from shipwheel.client.client import Client
from shipwheel.client.kubeconfig import ClientConfig
from shipwheel.client.metrics import Metrics
from shipwheel.client.resources import CONFIG_MAPS
from shipwheel.client.serving import ComponentServer, FrontProxy, ServingConfig

from .fakeserver import fake_server

NOW = datetime.now(UTC)
CLIENTS, PROXIES = (new_authority(name, NOW) for name in ("clients", "proxies"))
ALICE = issue(CLIENTS, user("alice", "system:masters"), NOW)
PROXY = issue(PROXIES, user("front"), NOW)
FORGED = issue(PROXIES, user("mallory", "system:masters"), NOW)
BOB = (("X-Remote-User", "bob"), ("X-Remote-Group", "system:masters"))


def _published() -> dict[str, Any]:
    data = {
        "client-ca-file": CLIENTS.certificate_pem.decode(),
        "requestheader-client-ca-file": PROXIES.certificate_pem.decode(),
        "requestheader-allowed-names": json.dumps(["front"]),
        "requestheader-username-headers": json.dumps(["X-Remote-User"]),
        "requestheader-group-headers": json.dumps(["X-Remote-Group"]),
        "requestheader-extra-headers-prefix": json.dumps(["X-Remote-Extra-"]),
    }
    return {"data": data}


@contextlib.asynccontextmanager
async def component(**more: Any) -> AsyncIterator[str]:
    """The address of a component that serves, beside a cluster that says whom to trust."""
    async with fake_server() as cluster, cluster.client() as client:
        cluster.put(CONFIG_MAPS, "extension-apiserver-authentication", namespace="kube-system", **_published())
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        server = ComponentServer(metrics=Metrics(process=False), client=client)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = ServingConfig(bind_address="127.0.0.1", port=port, **more)
        task = asyncio.create_task(server.run(config, on_listening=listening.set_result))
        try:
            await asyncio.wait((task, listening), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            yield f"https://127.0.0.1:{listening.result()}"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def status(address: str, pair: KeyPair | None, *headers: tuple[str, str]) -> int:
    """What `/metrics` is answered with."""
    shown = {"client_cert_data": pair.certificate_pem, "client_key_data": pair.key_pem} if pair is not None else {}
    async with Client(ClientConfig(address, insecure=True, **shown), user_agent="test") as client:
        try:
            return (await client.request("GET", "/metrics", headers=headers)).status
        except ApiError as error:
            return error.code


async def test_who_is_believed() -> None:
    async with component() as address:
        assert await status(address, ALICE) == 200
        assert await status(address, ALICE, *BOB) == 200, "as alice: clients speak for themselves"
        assert await status(address, PROXY, *BOB) == 200
        assert await status(address, PROXY) == 401, "a proxy is nobody itself"
        assert await status(address, FORGED) == 401, "its authority vouches for proxies only"
        assert await status(address, FORGED, *BOB) == 401, "it is not one of the proxies"


async def test_flags_say_which_proxies_there_are(tmp_path: Path) -> None:
    mine = FrontProxy(ca=PROXIES.certificate_pem.decode(), username_headers=("x-user",), group_headers=("x-group",))
    async with component(front_proxy=mine) as address:
        assert await status(address, FORGED, ("X-User", "bob"), ("X-Group", "system:masters")) == 200
        assert await status(address, PROXY, *BOB) == 401


async def test_without_the_lookup_nobody_is_known() -> None:
    async with component(skip_lookup=True, always_allow_paths=("/metrics",)) as address:
        assert await status(address, None) == 200


async def test_a_certificate_that_was_made_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        async with component(name="kube-scheduler", cert_dir=str(tmp_path / "pki")) as address:
            assert await status(address, ALICE) == 200
            made = {file.name: file.read_bytes() for file in (tmp_path / "pki").iterdir()}
    assert sorted(made) == ["kube-scheduler.crt", "kube-scheduler.key"]
    assert (tmp_path / "pki/kube-scheduler.crt").read_bytes() == made["kube-scheduler.crt"]
    assert (tmp_path / "pki/kube-scheduler.key").stat().st_mode & 0o777 == 0o600


async def test_a_lookup_that_fails_may_be_an_error() -> None:
    def refuse(request: Any) -> ApiError:
        return ApiError(403, "Forbidden", "no")

    async with fake_server() as cluster, cluster.client() as client:
        cluster.refuse = refuse
        server = ComponentServer(metrics=Metrics(process=False), client=client)
        with pytest.raises(OSError, match="extension-apiserver-authentication in kube-system: no"):
            await server.run(ServingConfig(port=1, tolerate_lookup_failure=False))
