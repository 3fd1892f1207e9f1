"""iSCSI, with an initiator and a kernel that a test makes up: what is asked of them, and what is left in the end."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.kubelet.downward import PodFacts
from shipwheel.kubelet.volumes import disk, iscsi
from shipwheel.kubelet.volumes.base import Host, VolumesFailed
from shipwheel.kubelet.volumes.iscsi import IscsiVolumes, Machine, disk_of
from shipwheel.kubelet.volumes.manager import PLUGINS, VolumeManager
from shipwheel.kubelet.volumes.mounting import NoMounter
from tests.kubelet.volumes.test_claims import Stored
from tests.kubelet.volumes.test_volumes import Given, pod_with

IQN = "iqn.2003-01.org.example:disk"
SOURCE: Obj = {"targetPortal": "10.0.0.1", "iqn": IQN, "lun": 2, "fsType": "ext4"}


@pytest.mark.parametrize(
    ("source", "portals", "interface"),
    [
        ({"targetPortal": "10.0.0.1"}, ("10.0.0.1:3260",), "default"),
        (
            {"targetPortal": "10.0.0.1:9", "portals": ["10.0.0.2", "10.0.0.1:9"]},
            ("10.0.0.1:9", "10.0.0.2:3260"),
            "default",
        ),
        ({"targetPortal": "[fd00::1]"}, ("[fd00::1]:3260",), "default"),
        ({"targetPortal": "fd00::1"}, ("[fd00::1]:3260",), "default"),
        ({"targetPortal": "[fd00::1]:99", "iscsiInterface": "eth"}, ("[fd00::1]:99",), "eth"),
        ({"targetPortal": "10.0.0.1", "initiatorName": "iqn.x"}, ("10.0.0.1:3260",), "10.0.0.1:3260:v"),
    ],
)  # fmt: skip
def test_reading_a_source(source: Obj, portals: tuple[str, ...], interface: str) -> None:
    found = disk_of({**source, "iqn": IQN, "lun": 2}, "v")
    assert (tuple(found.portals), found.interface, found.lun) == (portals, interface, 2)


class Recorder(NoMounter):
    def __init__(self) -> None:
        self.mounted: dict[str, str] = {}

    def is_mount_point(self, path: Path) -> bool:
        return str(path) in self.mounted

    def mount_points(self, directory: Path) -> list[str]:
        return [each for each in self.mounted if Path(each).is_relative_to(directory)]

    async def mount_by_helper(self, source: str, target: str, kind: str, options: list[str]) -> None:
        self.mounted[target] = source

    def mount(self, source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
        self.mounted[target] = source

    def unmount(self, target: str, *, lazily: bool = False) -> None:
        del self.mounted[target]


class Storage:
    """A target, and the node's side of it: sessions appear by logging in, disks by scanning."""

    def __init__(self, directory: Path) -> None:
        self.machine = Machine(directory / "sys", directory / "dev")
        self.asked: list[str] = []
        self.fails = ""
        self.sessions: set[str] = set()
        self.host = directory / "sys/devices/platform/host7/session1"
        self.host.mkdir(parents=True)
        scan = directory / "sys/class/scsi_host/host7"
        scan.mkdir(parents=True)
        for name in ("iscsi_session", "iscsi_connection"):
            (directory / "sys/class" / name).mkdir(parents=True)
        self.scanned = scan / "scan"
        self.delete = directory / "sys/block/sdz/device/delete"
        self.delete.parent.mkdir(parents=True)
        self.delete.write_text("")

    async def run(self, *command: str) -> tuple[int, str]:
        if command[0] != "iscsiadm":
            return 0, "TYPE=ext4"
        text = " ".join(command[2:])
        self.asked.append(text)
        if self.fails and self.fails in text:
            return 8, f"iscsiadm: {self.fails} refused"
        if text.endswith("--login"):
            self._log_in(command[command.index("-p") + 1])
        if text.endswith("-o show"):
            return 0, "iface.transport_name = tcp\niface.initiatorname = <empty>\niface.mtu = 0"
        return 0, ""

    def _log_in(self, portal: str) -> None:
        classes = self.machine.sys / "class"
        link = classes / "iscsi_session/session1"
        if not link.exists():
            link.symlink_to(self.host)
        (self.host / "targetname").write_text(IQN)
        connection = classes / "iscsi_connection/connection1:0"
        connection.mkdir(exist_ok=True)
        address, _, port = portal.rpartition(":")
        (connection / "persistent_address").write_text(address)
        (connection / "persistent_port").write_text(port)
        by_path = self.machine.dev / "disk/by-path"
        by_path.mkdir(parents=True, exist_ok=True)
        (self.machine.dev / "sdz").touch()
        device = by_path / f"ip-{portal}-iscsi-{IQN}-lun-2"
        if not device.is_symlink():
            device.symlink_to(self.machine.dev / "sdz")


class Node:
    def __init__(self, directory: Path) -> None:
        self.storage = Storage(directory)
        self.mounter = Recorder()
        self.cluster = Stored()
        self.objects = Given()
        self.clock = ManualClock()
        self.plugin_directory = directory / "kubelet/plugins/kubernetes.io/iscsi"
        plugins = [each for each in PLUGINS if each.source != "iscsi"]
        self.manager = VolumeManager(
            Host(
                objects=self.objects,
                mounter=self.mounter,
                clock=self.clock,
                facts=lambda pod: PodFacts(),
                cluster=self.cluster,
                node_name="n1",
            ),
            directory / "kubelet",
            plugins=[*plugins, IscsiVolumes(self.storage.machine).plugin()],
        )

    def has(self, words: str) -> bool:
        return any(words in each for each in self.storage.asked)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(tmp_path)
    monkeypatch.setattr(disk, "run", made.storage.run)
    return made


def using(uid: str = "uid-1", **source: object) -> Obj:
    made = pod_with({"name": "v", "iscsi": {**SOURCE, **source}})
    made["metadata"]["uid"] = uid
    return made


async def test_two_pods_share_a_disk_and_the_last_one_takes_it_away(node: Node) -> None:
    for uid in ("one", "two"):
        await node.manager.mount_pod(using(uid))
    [mount] = node.manager.mounts_for(using("one"), using("one")["spec"]["containers"][0])
    assert mount.host_path in node.mounter.mounted
    assert sum(each.endswith("--login") for each in node.storage.asked) == 1
    assert node.has("node.session.scan -v manual") and node.has("node.startup -v manual")
    assert node.storage.scanned.read_text() == "0 0 2"
    place = node.plugin_directory / f"iface-default/10.0.0.1:3260-{IQN}-lun-2"
    assert str(place) in node.mounter.mounted
    await node.manager.unmount_pod("one")
    assert str(place) in node.mounter.mounted and not node.has("--logout")
    await node.manager.unmount_pod("two")
    assert not node.mounter.mounted and not place.exists()
    assert node.storage.delete.read_text() == "1"
    assert node.has(f"node -p 10.0.0.1:3260 -T {IQN} -I default --logout")
    assert not list(node.plugin_directory.glob("volumes/*"))


async def test_names_and_passwords(node: Node) -> None:
    names = [*iscsi._DISCOVERY_KEYS[:2], *iscsi._SESSION_KEYS[:2]]
    node.objects.secrets["chap"] = {"data": {name: base64.b64encode(name[-8:].encode()).decode() for name in names}}
    await node.manager.mount_pod(using(chapAuthDiscovery=True, chapAuthSession=True, secretRef={"name": "chap"}))
    assert node.has("-n discovery.sendtargets.auth.authmethod -v CHAP")
    assert node.has("-n node.session.auth.password -v password")
    assert not node.has("username_in")


async def test_an_initiator_of_its_own(node: Node) -> None:
    await node.manager.mount_pod(using(initiatorName="iqn.2020-01.org.example:me"))
    assert node.has("iface -I 10.0.0.1:3260:v -o new")
    assert node.has("iface -I 10.0.0.1:3260:v -o update -n iface.initiatorname -v iqn.2020-01.org.example:me")
    await node.manager.unmount_pod("uid-1")
    assert node.has("iface -I 10.0.0.1:3260:v -o delete")


async def test_a_block_volume(node: Node) -> None:
    node.cluster.bind("data", {"iscsi": {**SOURCE, "secretRef": None}}, volumeMode="Block")
    pod = pod_with({"name": "v", "persistentVolumeClaim": {"claimName": "data"}})
    container = pod["spec"]["containers"][0]
    del container["volumeMounts"]
    container["volumeDevices"] = [{"name": "v", "devicePath": "/dev/xvda"}]
    await node.manager.mount_pod(pod)
    [device] = node.manager.devices_for(pod, container)
    assert os.path.realpath(device.host_path) == str(node.storage.machine.dev / "sdz")
    await node.manager.unmount_pod("uid-1")
    assert node.has("--logout")


@pytest.mark.parametrize("step", ["--discover", "--login"])
async def test_a_server_that_refuses(node: Node, step: str) -> None:
    node.storage.fails = step
    with pytest.raises(VolumesFailed) as caught:
        await node.manager.mount_pod(using())
    [message] = caught.value.messages
    assert message.startswith('MountVolume.WaitForAttach failed for volume "v" : failed to get any path for iscsi disk')
    assert f"{step} refused" in message
    assert node.has("-o delete")
    await node.manager.unmount_pod("uid-1")
    assert not list(node.plugin_directory.glob("volumes/*"))


async def test_a_node_without_an_initiator(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*command: str) -> tuple[int, str]:
        return disk.MISSING, f'exec: "{command[0]}": executable file not found in $PATH'

    monkeypatch.setattr(disk, "run", run)
    with pytest.raises(VolumesFailed, match='exec: "iscsiadm": executable file not found') as caught:
        await node.manager.mount_pod(using())
    assert caught.value.messages[0].startswith("MountVolume.WaitForAttach failed")
    await node.manager.unmount_pod("uid-1")
