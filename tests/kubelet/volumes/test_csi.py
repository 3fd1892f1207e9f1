"""CSI volumes with a driver that only writes down what it is asked, and drivers that come and go."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.errors import ApiError, not_found
from shipwheel.api.meta import GroupResource, GroupVersionResource, Obj
from shipwheel.client.grpc.channel import GrpcError
from shipwheel.client.grpc.server import GrpcServer, Method
from shipwheel.client.resources import CSI_DRIVERS, CSI_NODES, NODES
from shipwheel.kubelet.downward import PodFacts
from shipwheel.kubelet.volumes.base import Host, VolumeError, VolumesFailed
from shipwheel.kubelet.volumes.csi import state
from shipwheel.kubelet.volumes.csi.driver import (
    CsiDriver,
    CsiDrivers,
    NodeInfo,
    VolumeOptions,
    capability_of,
)
from shipwheel.kubelet.volumes.csi.plugin import CsiVolumes
from shipwheel.kubelet.volumes.csi.registration import (
    RETRY_SECONDS,
    CsiHandler,
    PluginWatcher,
    announce_driver,
    csi_node_driver,
    forget_driver,
)
from shipwheel.kubelet.volumes.csi.tables import messages
from shipwheel.kubelet.volumes.manager import PLUGINS, VolumeManager
from shipwheel.kubelet.volumes.mounting import NoMounter
from tests.kubelet.volumes.test_claims import Stored, claiming, mount_of
from tests.kubelet.volumes.test_volumes import Given, data_of, pod_with

DRIVER = "disk.example.com"


class Driver:
    """The driver's side: makes directories where it should mount, and remembers every call."""

    def __init__(self, *capabilities: str) -> None:
        self.capabilities = capabilities
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.fails: dict[str, str] = {}
        self.limit = 8
        self.socket = ""

    def methods(self) -> dict[str, Method]:
        names = [
            "NodeGetInfo",
            "NodeGetCapabilities",
            "NodeStageVolume",
            "NodeUnstageVolume",
            "NodePublishVolume",
            "NodeUnpublishVolume",
            "NodeExpandVolume",
        ]
        tables = messages()

        def method(name: str) -> Method:
            async def handle(request: dict[str, Any]) -> dict[str, Any]:
                return self._answer(name, request)

            return Method(tables[f"{name}Request"], tables[f"{name}Response"], handle)

        return {f"/csi.v1.Node/{name}": method(name) for name in names}

    def _answer(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        if name == "NodeGetInfo":
            return {
                "node_id": "id-1",
                "max_volumes_per_node": self.limit,
                "accessible_topology": {"segments": {"zone": "z1"}},
            }
        if name == "NodeGetCapabilities":
            return {"capabilities": [{"rpc": {"type": each}} for each in self.capabilities]}
        self.calls.append((name, request))
        if name in self.fails:
            raise GrpcError(self.fails[name], "no")
        if name == "NodePublishVolume":
            Path(request["target_path"]).mkdir(exist_ok=True)
        if name == "NodeUnpublishVolume":
            Path(request["target_path"]).rmdir()
        return {}

    def asked(self) -> list[str]:
        return [name.removeprefix("Node").removesuffix("Volume") for name, _ in self.calls]

    def last(self, name: str) -> dict[str, Any]:
        return next(request for called, request in reversed(self.calls) if called == f"Node{name}Volume")


class Node:
    def __init__(self, root: Path, driver: Driver, drivers: CsiDrivers) -> None:
        self.root = root
        self.driver = driver
        self.drivers = drivers
        self.clock = ManualClock()
        self.cluster = Stored()
        self.objects = Given()
        host = Host(
            objects=self.objects,
            mounter=NoMounter(),
            clock=self.clock,
            facts=lambda pod: PodFacts(),
            cluster=self.cluster,
            node_name="node-1",
        )
        self.manager = VolumeManager(host, root, plugins=[*PLUGINS, CsiVolumes(drivers).plugin()])
        self.cluster.bind("data", {"csi": {"driver": DRIVER, "volumeHandle": "h1", "fsType": "ext4"}})
        self.attach("h1")

    def attach(self, handle: str) -> None:
        name = state.attachment_name(handle, DRIVER, "node-1")
        status = {"attached": True, "attachmentMetadata": {"lun": "7"}}
        self.cluster.attachments[name] = {"status": status}

    @property
    def volume(self) -> Path:
        return self.root / "pods/uid-1/volumes/kubernetes.io~csi/pv-data"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    with tempfile.TemporaryDirectory() as scratch:
        driver = Driver("STAGE_UNSTAGE_VOLUME", "EXPAND_VOLUME", "SINGLE_NODE_MULTI_WRITER")
        server = GrpcServer(driver.methods())
        await server.listen(f"{scratch}/csi.sock")
        drivers = CsiDrivers()
        await drivers.add(CsiDriver(DRIVER, f"unix://{scratch}/csi.sock"))
        yield Node(tmp_path / "kubelet", driver, drivers)
        await drivers.close()
        await server.close()


# --- A volume's way


async def test_a_volume_is_staged_then_published_and_the_way_back(node: Node) -> None:
    mount = await mount_of(node, claiming())  # type: ignore[arg-type]
    assert mount.host_path == str(node.volume / "mount")
    assert node.driver.asked() == ["Stage", "Publish"]
    staged, published = node.driver.last("Stage"), node.driver.last("Publish")
    assert staged["publish_context"] == published["publish_context"] == {"lun": "7"}
    assert published["staging_target_path"] == staged["staging_target_path"]
    assert staged["volume_capability"] == {
        "access_mode": {"mode": "SINGLE_NODE_MULTI_WRITER"},
        "mount": {"fs_type": "ext4", "volume_mount_group": ""},
    }
    assert state.volumes_in_use(node.root) == {f"kubernetes.io/csi/{DRIVER}^h1"}

    await node.manager.unmount_pod("uid-1")
    assert node.driver.asked() == ["Stage", "Publish", "Unpublish", "Unstage"]
    assert not node.volume.exists()
    assert state.volumes_in_use(node.root) == set()
    assert not Path(staged["staging_target_path"]).parent.exists()


async def test_mounting_again_asks_nothing(node: Node) -> None:
    await node.manager.mount_pod(claiming())
    await node.manager.mount_pod(claiming())
    await node.manager.refresh(claiming())
    assert node.driver.asked() == ["Stage", "Publish"]


async def test_the_last_pod_unstages(node: Node) -> None:
    other = claiming()
    other["metadata"] = {**other["metadata"], "uid": "uid-2"}
    await node.manager.mount_pod(claiming())
    await node.manager.mount_pod(other)
    node.driver.calls.clear()
    await node.manager.unmount_pod("uid-1")
    assert node.driver.asked() == ["Unpublish"]
    await node.manager.unmount_pod("uid-2")
    assert node.driver.asked() == ["Unpublish", "Unpublish", "Unstage"]


async def test_a_restarted_kubelet_can_take_away_what_it_did_not_mount(node: Node) -> None:
    await node.manager.mount_pod(claiming())
    host = node.manager._host
    later = VolumeManager(host, node.root, plugins=[*PLUGINS, CsiVolumes(node.drivers).plugin()])
    await later.unmount_pod("uid-1")
    assert node.driver.asked()[2:] == ["Unpublish", "Unstage"]


async def test_an_attachment_is_waited_for(node: Node) -> None:
    node.cluster.attachments.clear()
    import asyncio

    mounting = asyncio.create_task(node.manager.mount_pod(claiming()))
    await node.clock.advance(1)
    assert not mounting.done()
    node.attach("h1")
    await node.clock.advance(1)
    async with asyncio.timeout(60):
        await mounting


async def test_but_not_for_ever(node: Node) -> None:
    import asyncio

    node.cluster.attachments.clear()
    mounting = asyncio.create_task(node.manager.mount_pod(claiming()))
    await node.clock.advance(11)
    with pytest.raises(VolumesFailed, match=r"MountVolume\.WaitForAttach failed .* : volume h1 has GET error"):
        await mounting


async def test_drivers_that_attach_nothing(node: Node) -> None:
    node.cluster.attachments.clear()
    node.cluster.drivers[DRIVER] = {"spec": {"attachRequired": False}}
    await node.manager.mount_pod(claiming())
    assert "publish_context" not in node.driver.last("Publish")


@pytest.mark.parametrize(
    ("method", "code", "message", "left"),
    [
        ("NodeStageVolume", "INTERNAL", "MountVolume.MountDevice", False),
        ("NodePublishVolume", "INTERNAL", "MountVolume.SetUp", False),
        ("NodePublishVolume", "UNAVAILABLE", "MountVolume.SetUp", True),
    ],
)
async def test_failures(node: Node, method: str, code: str, message: str, left: bool) -> None:
    """What may be under way at the driver is remembered, so that it can be undone."""
    node.driver.fails[method] = code
    with pytest.raises(VolumesFailed) as failed:
        await node.manager.mount_pod(claiming())
    name = code.title()
    assert failed.value.messages == (f'{message} failed for volume "pv-data" : rpc error: code = {name} desc = no',)
    assert (node.volume / state.DATA).exists() is left


async def test_a_driver_that_will_not_let_go(node: Node) -> None:
    await node.manager.mount_pod(claiming())
    node.driver.fails["NodeUnpublishVolume"] = "INTERNAL"
    with pytest.raises(VolumesFailed, match=r'UnmountVolume\.TearDown failed for volume "pv-data"'):
        await node.manager.unmount_pod("uid-1")
    assert node.volume.exists() and not node.manager.remove_pod_directory("uid-1")
    node.driver.fails.clear()
    await node.manager.unmount_pod("uid-1")


async def test_a_driver_that_is_not_there(node: Node) -> None:
    await node.drivers.remove(DRIVER)
    with pytest.raises(VolumesFailed, match=f"driver name {DRIVER} not found in the list of registered CSI drivers"):
        await node.manager.mount_pod(claiming())


async def test_what_a_driver_wants_to_know_of_the_pod(node: Node) -> None:
    node.cluster.drivers[DRIVER] = {
        "spec": {
            "podInfoOnMount": True,
            "tokenRequests": [{"audience": "vault"}],
            "requiresRepublish": True,
        }
    }
    source = node.cluster.volumes["pv-data"]["spec"]["csi"]
    source |= {
        "volumeAttributes": {"a": "1"},
        "nodePublishSecretRef": {"namespace": "kube-system", "name": "s"},
    }
    node.cluster.secrets["s"] = {"data": data_of(password="pw")}
    await node.manager.mount_pod(claiming())
    request = node.driver.last("Publish")
    context = request["volume_context"]
    assert (context["a"], context["csi.storage.k8s.io/pod.name"]) == ("1", "p")
    assert context["csi.storage.k8s.io/ephemeral"] == "false"
    assert json.loads(context["csi.storage.k8s.io/serviceAccount.tokens"])["vault"]["token"] == "token-1"
    assert request["secrets"] == {"password": "pw"}
    await node.manager.refresh(claiming())
    assert node.driver.asked() == ["Stage", "Publish", "Stage", "Publish"], "it wants to be asked again"


async def test_a_secret_that_is_missing(node: Node) -> None:
    source = node.cluster.volumes["pv-data"]["spec"]["csi"]
    source["nodeStageSecretRef"] = {"namespace": "n", "name": "s"}
    with pytest.raises(VolumesFailed, match='fetching NodeStageSecretRef n/s failed: secrets "s" not found'):
        await node.manager.mount_pod(claiming())


async def test_inline_volumes(node: Node) -> None:
    pod = pod_with({"name": "v", "csi": {"driver": DRIVER, "volumeAttributes": {"a": "1"}, "readOnly": True}})
    with pytest.raises(VolumesFailed, match=r'volume mode "Ephemeral" not supported .* \(no CSIDriver object\)'):
        await node.manager.mount_pod(pod)
    node.cluster.drivers[DRIVER] = {"spec": {"volumeLifecycleModes": ["Persistent"]}}
    with pytest.raises(VolumesFailed, match=r'only supports \["Persistent"\]'):
        await node.manager.mount_pod(pod)
    node.cluster.drivers[DRIVER] = {"spec": {"volumeLifecycleModes": ["Ephemeral"]}}
    await node.manager.mount_pod(pod)
    request = node.driver.last("Publish")
    assert node.driver.asked() == ["Publish"]
    assert request["volume_id"] == state.ephemeral_handle("uid-1", "v") and request["readonly"]
    assert state.volumes_in_use(node.root) == set()
    await node.manager.unmount_pod("uid-1")
    assert node.driver.asked() == ["Publish", "Unpublish"]


async def test_a_volume_that_has_grown(node: Node) -> None:
    await node.manager.mount_pod(claiming())
    node.cluster.claims["data"]["status"]["capacity"] = {"storage": "1Gi"}
    node.cluster.volumes["pv-data"]["spec"]["capacity"] = {"storage": "2Gi"}
    await node.manager.refresh(claiming())
    assert node.driver.last("Expand")["capacity_range"] == {"required_bytes": 2 << 30}
    assert node.cluster.grown == [("data", "2Gi")]


def grow(node: Node, resize: str = "NodeResizePending") -> None:
    status = node.cluster.claims["data"]["status"]
    status["capacity"] = {"storage": "1Gi"}
    status["allocatedResourceStatuses"] = {"storage": resize}
    volume = node.cluster.volumes["pv-data"]["spec"]
    volume["capacity"] = {"storage": "2Gi"}
    volume["csi"]["nodeExpandSecretRef"] = {"namespace": "ns", "name": "grow"}
    node.cluster.secrets["grow"] = {"data": {"key": base64.b64encode(b"value").decode()}}


async def test_growth_is_told_step_by_step(node: Node) -> None:
    await node.manager.mount_pod(claiming())
    grow(node)
    await node.manager.refresh(claiming())
    assert node.driver.last("Expand")["secrets"] == {"key": "value"}
    assert node.cluster.growing == [("data", "NodeResizeInProgress", "")]
    assert node.cluster.grown == [("data", "2Gi")]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("INTERNAL", [("data", "", "rpc error: code = Internal desc = no")]),
        ("OUT_OF_RANGE", [("data", "NodeResizeInfeasible", "rpc error: code = OutOfRange desc = no")]),
        ("UNAVAILABLE", []),
    ],
)
async def test_growth_that_fails(node: Node, code: str, told: list[tuple[str, str, str]]) -> None:
    await node.manager.mount_pod(claiming())
    grow(node, "NodeResizeInProgress")
    node.driver.fails["NodeExpandVolume"] = code
    with pytest.raises(VolumesFailed, match=r"MountVolume\.NodeExpandVolume failed"):
        await node.manager.refresh(claiming())
    assert (node.cluster.growing, node.cluster.grown) == (told, [])


async def test_growth_that_has_to_wait_for_the_volume_to_be_free(node: Node) -> None:
    await node.manager.mount_pod(claiming())
    grow(node)
    node.driver.fails["NodeExpandVolume"] = "FAILED_PRECONDITION"
    await node.manager.refresh(claiming())
    assert node.cluster.grown == []


async def test_growth_that_is_not_the_nodes_affair(node: Node) -> None:
    await node.manager.mount_pod(claiming())
    for resize in ("ControllerResizeInProgress", "NodeResizeInfeasible"):
        grow(node, resize)
        await node.manager.refresh(claiming())
    assert "Expand" not in node.driver.asked()


async def test_a_volume_for_one_pod_only(node: Node) -> None:
    node.cluster.volumes["pv-data"]["spec"]["accessModes"] = ["ReadWriteOncePod"]
    other = claiming()
    other["metadata"] = {**other["metadata"], "uid": "uid-2", "name": "other"}
    await node.manager.mount_pod(claiming())
    await node.manager.mount_pod(claiming())
    with pytest.raises(VolumesFailed) as caught:
        await node.manager.mount_pod(other)
    assert caught.value.messages == (
        'MountVolume.SetUp failed for volume "pv-data" : volume uses the ReadWriteOncePod access mode and is already '
        "in use by another pod",
    )
    await node.manager.unmount_pod("uid-1")
    await node.manager.mount_pod(other)


async def test_a_block_device(node: Node) -> None:
    node.cluster.volumes["pv-data"]["spec"]["volumeMode"] = "Block"
    pod = claiming()
    container = pod["spec"]["containers"][0]
    container["volumeMounts"] = []
    container["volumeDevices"] = [{"name": "v", "devicePath": "/dev/xda"}]
    await node.manager.mount_pod(pod)
    assert node.driver.last("Publish")["volume_capability"]["block"] == {}
    [device] = node.manager.devices_for(pod, container)
    assert device.host_path == str(node.root / "pods/uid-1/volumeDevices/kubernetes.io~csi/pv-data/dev")
    await node.manager.unmount_pod("uid-1")
    assert node.driver.asked()[-2:] == ["Unpublish", "Unstage"]


@pytest.mark.parametrize(
    ("mode", "capabilities", "value"),
    [
        ("ReadWriteOnce", (), "SINGLE_NODE_WRITER"),
        ("ReadWriteOnce", ("SINGLE_NODE_MULTI_WRITER",), "SINGLE_NODE_MULTI_WRITER"),
        ("ReadWriteOncePod", (), "SINGLE_NODE_WRITER"),
        ("ReadWriteOncePod", ("SINGLE_NODE_MULTI_WRITER",), "SINGLE_NODE_SINGLE_WRITER"),
        ("ReadOnlyMany", (), "MULTI_NODE_READER_ONLY"),
        ("ReadWriteMany", (), "MULTI_NODE_MULTI_WRITER"),
    ],
)
def test_access_modes(mode: str, capabilities: tuple[str, ...], value: str) -> None:
    found = capability_of(VolumeOptions(access_mode=mode, group=7), frozenset(capabilities))
    assert found["access_mode"] == {"mode": value}
    assert found["mount"]["volume_mount_group"] == ""


def test_groups_are_the_drivers_where_it_can() -> None:
    found = capability_of(VolumeOptions(access_mode="", group=7), frozenset({"VOLUME_MOUNT_GROUP"}))
    assert found["mount"]["volume_mount_group"] == "7"


# --- Drivers that come and go


class Api:
    """A Node and its CSINode."""

    def __init__(self) -> None:
        self.node: Obj = {"metadata": {"name": "node-1", "uid": "n", "labels": {}}}
        self.csi_node: Obj | None = None
        self.conflicts = 0
        self.csi_driver: Obj = {"spec": {}}

    async def get(self, resource: GroupVersionResource, name: str) -> Obj:
        if resource == NODES:
            return self.node
        if resource == CSI_DRIVERS:
            return self.csi_driver
        assert resource == CSI_NODES
        if self.csi_node is None:
            raise not_found(GroupResource("storage.k8s.io", "csinodes"), name)
        return json.loads(json.dumps(self.csi_node))

    async def patch(self, resource: GroupVersionResource, name: str, namespace: str, patch: Obj) -> None:
        for part, values in patch["metadata"].items():
            found = self.node["metadata"].setdefault(part, {})
            for key, value in values.items():
                found.pop(key, None) if value is None else found.__setitem__(key, value)

    async def create(self, resource: GroupVersionResource, obj: Obj) -> None:
        self.csi_node = obj

    async def update(self, resource: GroupVersionResource, obj: Obj) -> None:
        if self.conflicts:
            self.conflicts -= 1
            raise ApiError(409, "Conflict", "again")
        self.csi_node = obj


class Registrar:
    """The socket beside a driver."""

    def __init__(self, endpoint: str, versions: list[str], kind: str = "CSIPlugin") -> None:
        self.info = {"type": kind, "name": DRIVER, "endpoint": endpoint, "supported_versions": versions}
        self.told: list[dict[str, Any]] = []

    def server(self) -> GrpcServer:
        tables = messages()

        async def info(request: dict[str, Any]) -> dict[str, Any]:
            return self.info

        async def status(request: dict[str, Any]) -> dict[str, Any]:
            self.told.append(request)
            return {}

        prefix = "/pluginregistration.Registration/"
        return GrpcServer(
            {
                f"{prefix}GetInfo": Method(tables["InfoRequest"], tables["PluginInfo"], info),
                f"{prefix}NotifyRegistrationStatus": Method(
                    tables["RegistrationStatus"], tables["RegistrationStatusResponse"], status
                ),
            }
        )


class Place:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.driver = Driver()
        self.drivers = CsiDrivers()
        self.api = Api()
        self.clock = ManualClock()
        handler = CsiHandler(self.drivers, self.api, "node-1")  # type: ignore[arg-type]
        self.watcher = PluginWatcher(directory, self.clock, {"CSIPlugin": handler})


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(Path(scratch) / "registry")
        place.directory.mkdir()
        place.driver.socket = f"{scratch}/csi.sock"
        server = GrpcServer(place.driver.methods())
        await server.listen(place.driver.socket)
        yield place
        await place.drivers.close()
        await server.close()


async def test_a_driver_registers_and_goes(place: Place) -> None:
    registrar = Registrar(place.driver.socket, ["1.0.0"])
    server = registrar.server()
    await server.listen(str(place.directory / "disk-reg.sock"))
    await place.watcher.look()
    assert registrar.told == [{"plugin_registered": True, "error": ""}]
    assert place.drivers.get(DRIVER).endpoint == place.driver.socket
    assert place.api.csi_node is not None
    assert place.api.csi_node["spec"]["drivers"] == [
        {"name": DRIVER, "nodeID": "id-1", "topologyKeys": ["zone"], "allocatable": {"count": 8}}
    ]
    meta = place.api.node["metadata"]
    assert (meta["labels"], meta["annotations"]["csi.volume.kubernetes.io/nodeid"]) == (
        {"zone": "z1"},
        f'{{"{DRIVER}":"id-1"}}',
    )
    await place.watcher.look()
    assert len(registrar.told) == 1

    await server.close()
    (place.directory / "disk-reg.sock").unlink()
    await place.watcher.look()
    with pytest.raises(VolumeError):
        place.drivers.get(DRIVER)
    assert place.api.csi_node["spec"]["drivers"] == []
    assert "csi.volume.kubernetes.io/nodeid" not in place.api.node["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("versions", "kind", "error"),
    [
        (["0.3.0"], "CSIPlugin", "None of the versions specified"),
        (["1.0.0"], "Toaster", "no handler registered for plugin type: Toaster"),
    ],
)
async def test_plugins_that_are_not_taken_are_told_why(
    place: Place, versions: list[str], kind: str, error: str
) -> None:
    registrar = Registrar(place.driver.socket, versions, kind)
    server = registrar.server()
    await server.listen(str(place.directory / "x.sock"))
    await place.watcher.look()
    await place.watcher.look()
    [told] = registrar.told
    assert "plugin_registered" not in told or not told["plugin_registered"]
    assert error in told["error"]
    await place.clock.advance(RETRY_SECONDS)
    await place.watcher.look()
    assert len(registrar.told) == 2
    await server.close()


async def test_a_socket_where_nobody_listens_disturbs_nobody(place: Place) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place.directory / "dead.sock"))
    await place.watcher.look()


async def test_others_may_write_the_csinode_meanwhile(place: Place) -> None:
    place.api.csi_node = {"metadata": {}, "spec": {"drivers": [{"name": "other", "nodeID": "x"}]}}
    place.api.conflicts = 2
    handler = CsiHandler(place.drivers, place.api, "node-1")  # type: ignore[arg-type]
    from shipwheel.kubelet.volumes.csi.registration import PluginInfo

    await handler.add(PluginInfo("CSIPlugin", DRIVER, place.driver.socket, ("v1.2.0",)))
    assert [each["name"] for each in place.api.csi_node["spec"]["drivers"]] == ["other", DRIVER]


async def test_limits_are_asked_for_again(place: Place) -> None:
    from shipwheel.kubelet.volumes.csi.registration import PluginInfo

    handler = CsiHandler(place.drivers, place.api, "node-1")  # type: ignore[arg-type]
    await handler.add(PluginInfo("CSIPlugin", DRIVER, place.driver.socket, ("v1.2.0",)))

    def limit() -> int:
        assert place.api.csi_node is not None
        return place.api.csi_node["spec"]["drivers"][0]["allocatable"]["count"]

    following = asyncio.ensure_future(handler.follow_limits(place.clock))
    place.driver.limit = 5

    await asyncio.sleep(0)
    await place.clock.advance(10)
    assert limit() == 8, "nobody asked for it"
    place.api.csi_driver = {"spec": {"nodeAllocatableUpdatePeriodSeconds": 10}}
    async with asyncio.timeout(10):
        while limit() != 5:
            await place.clock.advance(10)
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_every_node_has_a_csinode(place: Place) -> None:
    handler = CsiHandler(place.drivers, place.api, "node-1")  # type: ignore[arg-type]
    await handler.ensure_csi_node(place.clock)
    assert place.api.csi_node is not None
    assert place.api.csi_node["metadata"]["ownerReferences"][0]["kind"] == "Node"


def test_what_is_told_of_a_driver() -> None:
    assert csi_node_driver("d", NodeInfo("n", 2**40, {})) == {
        "name": "d",
        "nodeID": "n",
        "topologyKeys": [],
        "allocatable": {"count": 2**31 - 1},
    }
    node: Obj = {"metadata": {"labels": {"zone": "z2"}}}
    with pytest.raises(VolumeError, match="topology value collision"):
        announce_driver(node, "d", NodeInfo("n", 0, {"zone": "z1"}))
    told = announce_driver(node, "d", NodeInfo("n", 0, {"zone": "z2"}))
    assert told is not None
    node["metadata"]["annotations"] = told["metadata"]["annotations"]
    assert announce_driver(node, "d", NodeInfo("n", 0, {"zone": "z2"})) is None
    assert forget_driver(node, "e") is None
    assert forget_driver(node, "d") == {"metadata": {"annotations": {"csi.volume.kubernetes.io/nodeid": None}}}
