"""Several API servers on one etcd, each as good as the others, and what they do when etcd is away."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from shipwheel.kinds.flowcontrol.mandatory import EVERYTHING
from shipwheel.store.etcd import EtcdStore
from tests.apiserver.world import Asker, World, config_for, running

sys.path.append(str(Path(__file__).parents[1] / "store"))
from storehelpers import EtcdServer

pytestmark = pytest.mark.etcd

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
ENDPOINTS = "/api/v1/namespaces/default/endpoints/kubernetes"


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EtcdServer]:
    if not shutil.which("etcd"):
        pytest.skip("etcd is not installed")
    server = EtcdServer(tmp_path / "etcd")
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


def serve(keys: Path, etcd: EtcdServer, address: str) -> AbstractAsyncContextManager[World]:
    config = replace(config_for(keys, Path("none")), advertise_address=address)
    return running(keys, Path("none"), config=config, store=EtcdStore([etcd.url]))


async def addresses(ask: Asker) -> list[str]:
    endpoints = orjson.loads((await ask("GET", ENDPOINTS)).body)
    return [each["ip"] for each in endpoints["subsets"][0]["addresses"]]


async def test_two_servers(keys: Path, etcd: EtcdServer) -> None:
    async with serve(keys, etcd, "192.0.2.1") as first:
        one = Asker(first.config("admin", "system:masters"))
        async with serve(keys, etcd, "192.0.2.2") as second:
            two = Asker(second.config("admin", "system:masters"))
            assert await addresses(one) == ["192.0.2.1", "192.0.2.2"]
            await what_one_writes_the_other_reads(one, two)
            await what_both_change_is_changed_by_both(one, two)
            dora = Asker(second.config("dora"))
            await by_what_one_is_told_of_flows_both_go(one, dora)
            await dora.close()
            await two.close()
        assert await addresses(one) == ["192.0.2.1"]
        await one.close()


async def what_one_writes_the_other_reads(one: Asker, two: Asker) -> None:
    for number in range(20):
        writer, reader = (one, two) if number % 2 else (two, one)
        assert (await writer("POST", CONFIG_MAPS, {"metadata": {"name": f"c{number}"}})).status == 201
        assert (await reader("GET", f"{CONFIG_MAPS}/c{number}")).status == 200
        listed = orjson.loads((await reader("GET", CONFIG_MAPS)).body)
        assert f"c{number}" in [each["metadata"]["name"] for each in listed["items"]]


async def by_what_one_is_told_of_flows_both_go(one: Asker, dora: Asker) -> None:
    path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
    rules = [{"subjects": [{"kind": "User", "user": {"name": "dora"}}], **EVERYTHING}]
    spec = {"priorityLevelConfiguration": {"name": "workload-low"}, "matchingPrecedence": 50, "rules": rules}
    made = orjson.loads((await one("POST", path, {"metadata": {"name": "of-dora"}, "spec": spec})).body)
    async with asyncio.timeout(60):
        while (await dora("GET", "/version")).header("X-Kubernetes-PF-FlowSchema-UID") != made["metadata"]["uid"]:
            await asyncio.sleep(0.02)


async def what_both_change_is_changed_by_both(one: Asker, two: Asker) -> None:
    await one("POST", CONFIG_MAPS, {"metadata": {"name": "count"}, "data": {"n": "0"}})

    async def count(ask: Asker, times: int) -> None:
        while times:
            found = orjson.loads((await ask("GET", f"{CONFIG_MAPS}/count")).body)
            found["data"]["n"] = str(int(found["data"]["n"]) + 1)
            answer = await ask("PUT", f"{CONFIG_MAPS}/count", found)
            assert answer.status in (200, 409)
            times -= answer.status == 200

    await asyncio.gather(*(count(ask, 10) for ask in (one, two, one, two)))
    assert orjson.loads((await one("GET", f"{CONFIG_MAPS}/count")).body)["data"] == {"n": "40"}


async def test_etcd_is_lost_and_comes_back(keys: Path, etcd: EtcdServer) -> None:
    async with serve(keys, etcd, "192.0.2.1") as world:
        ask = Asker(world.config("admin", "system:masters"))
        await ask("POST", CONFIG_MAPS, {"metadata": {"name": "before"}})
        await asyncio.to_thread(etcd.stop)
        assert (await ask("POST", CONFIG_MAPS, {"metadata": {"name": "meanwhile"}})).status == 500
        assert (await ask("GET", f"{CONFIG_MAPS}/before?resourceVersion=0")).status == 200
        assert (await ask("GET", "/livez")).status == 500
        await asyncio.to_thread(etcd.start)
        async with asyncio.timeout(60):
            while (await ask("POST", CONFIG_MAPS, {"metadata": {"generateName": "after-"}})).status != 201:
                await asyncio.sleep(0.1)
            while (await ask("GET", "/readyz")).status != 200:
                await asyncio.sleep(0.1)
        assert (await ask("GET", f"{CONFIG_MAPS}/before")).status == 200
        assert (await ask("GET", f"{CONFIG_MAPS}/meanwhile")).status == 404
        await ask.close()


async def test_keys_are_where_upstream_has_them(keys: Path, etcd: EtcdServer) -> None:
    async with serve(keys, etcd, "192.0.2.1"):
        stored = etcd.ctl("get", "/registry", "--prefix", "--keys-only").split()
    for key in (
        "/registry/namespaces/kube-system",
        "/registry/services/specs/default/kubernetes",
        "/registry/services/endpoints/default/kubernetes",
        "/registry/endpointslices/default/kubernetes",
        "/registry/clusterroles/cluster-admin",
        "/registry/configmaps/kube-system/extension-apiserver-authentication",
        "/registry/priorityclasses/system-node-critical",
        "/registry/servicecidrs/kubernetes",
    ):
        assert key in stored, key
