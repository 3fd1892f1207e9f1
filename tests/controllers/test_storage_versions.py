"""Storage versions: servers that have gone are taken out of them."""

from __future__ import annotations

from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import LEASES, STORAGE_VERSIONS
from shipwheel.controllers.storage_versions import StorageVersionGarbageCollector, with_servers
from tests.controllers.world import World


def version(*servers: tuple[str, str]) -> Obj:
    entries = [{"apiServerID": name, "encodingVersion": encoding} for name, encoding in servers]
    return {"metadata": {"name": "apps.deployments"}, "status": {"storageVersions": entries}}


def test_what_the_servers_agree_on():
    agreed = with_servers(version(), version(("a", "v1"), ("b", "v1"))["status"]["storageVersions"], "now")
    assert agreed["commonEncodingVersion"] == "v1"
    assert condition({"status": agreed}, "AllEncodingVersionsEqual")["reason"] == "CommonEncodingVersionSet"
    differ = with_servers(version(), version(("a", "v1"), ("b", "v2"))["status"]["storageVersions"], "now")
    assert "commonEncodingVersion" not in differ
    assert condition({"status": differ}, "AllEncodingVersionsEqual")["status"] == "False"


async def test_servers_that_have_gone_are_taken_out():
    cluster = World((StorageVersionGarbageCollector,))
    for name in ("a", "b"):
        labels = {"apiserver.kubernetes.io/identity": "kube-apiserver"}
        cluster.api.create(LEASES, {"metadata": {"name": name, "namespace": "kube-system", "labels": labels}})
    cluster.api.create(STORAGE_VERSIONS, version(("a", "v1"), ("b", "v2")))
    async with cluster.running():
        await cluster.settle(2)
        assert len(cluster.api.get(STORAGE_VERSIONS, "apps.deployments")["status"]["storageVersions"]) == 2
        cluster.api.delete(LEASES, "b", "kube-system")
        await cluster.settle(2)
        status = cluster.api.get(STORAGE_VERSIONS, "apps.deployments")["status"]
        assert [each["apiServerID"] for each in status["storageVersions"]] == ["a"]
        assert status["commonEncodingVersion"] == "v1"
        cluster.api.delete(LEASES, "a", "kube-system")
        await cluster.until(lambda: not cluster.api.get(STORAGE_VERSIONS, "apps.deployments"))
