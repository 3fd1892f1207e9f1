"""Volumes that are mounted for real: in memory, by subPath, and taken away again."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.kubelet.downward import PodFacts
from shipwheel.kubelet.runtime.base import Mount
from shipwheel.kubelet.volumes.base import Host, VolumesFailed
from shipwheel.kubelet.volumes.manager import VolumeManager
from shipwheel.kubelet.volumes.mounting import Mounter, MountError
from tests.kubelet.volumes.test_volumes import Given, data_of, pod_with

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root"),
]
MIB = 1 << 20


class Node:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = Given()
        self.mounter = Mounter()
        host = Host(
            objects=self.objects,
            mounter=self.mounter,
            clock=ManualClock(),
            facts=lambda pod: PodFacts(),
            memory_capacity=64 * MIB,
        )
        self.manager = VolumeManager(host, root)

    def at(self, plugin: str, name: str) -> Path:
        return self.root / "pods" / "uid-1" / "volumes" / plugin / name


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    for point in node.mounter.mount_points(tmp_path):
        node.mounter.unmount(point, lazily=True)


def size_of(path: Path) -> int:
    info = os.statvfs(path)
    return info.f_blocks * info.f_frsize


def text_at(mount: Mount) -> str:
    return Path(mount.host_path).read_text()


def kind_of(path: Path) -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4] == str(path):
            return line.partition(" - ")[2].split()[0]
    return ""


@pytest.mark.parametrize(
    ("source", "limits", "size"),
    [
        ({"medium": "Memory"}, {}, 64 * MIB),
        ({"medium": "Memory", "sizeLimit": "8Mi"}, {}, 8 * MIB),
        ({"medium": "Memory", "sizeLimit": "8Mi"}, {"memory": "4Mi"}, 4 * MIB),
        ({"medium": "Memory"}, {"memory": "16Mi"}, 16 * MIB),
    ],
)
async def test_an_empty_directory_in_memory(node: Node, source: dict, limits: dict, size: int) -> None:
    pod = pod_with({"name": "e", "emptyDir": source})
    pod["spec"]["containers"][0]["resources"] = {"limits": limits}
    await node.manager.mount_pod(pod)
    volume = node.at("kubernetes.io~empty-dir", "e")
    assert (kind_of(volume), size_of(volume)) == ("tmpfs", size)
    assert volume.stat().st_mode & 0o777 == 0o777
    (volume / "kept").write_text("x")
    await node.manager.mount_pod(pod)
    assert (volume / "kept").read_text() == "x", "mounting again changes nothing"
    await node.manager.unmount_pod("uid-1")
    assert not volume.exists()


async def test_secrets_never_reach_the_disk(node: Node) -> None:
    node.objects.secrets["s"] = {"data": data_of(a="1")}
    pod = pod_with({"name": "s", "secret": {"secretName": "s"}}, securityContext={"fsGroup": 4321})
    await node.manager.mount_pod(pod)
    volume = node.at("kubernetes.io~secret", "s")
    assert kind_of(volume) == "tmpfs"
    file = (volume / "a").stat()
    assert (file.st_gid, stat.S_IMODE(file.st_mode)) == (4321, 0o644)
    await node.manager.refresh(pod)
    assert len(node.mounter.mount_points(volume)) == 1


async def test_a_sub_path_is_what_was_opened(node: Node, tmp_path: Path) -> None:
    mounts = [{"name": "e", "mountPath": "/m", "subPath": "a/b"}]
    pod = pod_with({"name": "e", "emptyDir": {}}, mounts=mounts)
    await node.manager.mount_pod(pod)
    container = pod["spec"]["containers"][0]
    [mount] = node.manager.mounts_for(pod, container)
    assert mount.host_path == str(tmp_path / "pods/uid-1/volume-subpaths/e/main/0")
    volume = node.at("kubernetes.io~empty-dir", "e")
    (volume / "a" / "b" / "file").write_text("x")
    assert (Path(mount.host_path) / "file").read_text() == "x"

    # The pod swaps its directory for a link to the node's: the container still has the directory.
    (volume / "a").rename(volume / "kept")
    (volume / "a").symlink_to("/etc")
    assert (Path(mount.host_path) / "file").read_text() == "x"
    await node.manager.unmount_pod("uid-1")
    assert node.mounter.mount_points(tmp_path) == []
    assert not (tmp_path / "pods/uid-1/volume-subpaths").exists()


async def test_a_sub_path_may_be_a_file_and_follows_updates(node: Node) -> None:
    node.objects.config_maps["cm"] = {"data": {"key": "1"}}
    mounts = [{"name": "c", "mountPath": "/etc/key", "subPath": "key"}]
    pod = pod_with({"name": "c", "configMap": {"name": "cm"}}, mounts=mounts)
    await node.manager.mount_pod(pod)
    container = pod["spec"]["containers"][0]
    [mount] = node.manager.mounts_for(pod, container)
    assert text_at(mount) == "1"
    [again] = node.manager.mounts_for(pod, container)
    assert again == mount and len(node.mounter.mount_points(Path(mount.host_path))) == 1
    node.objects.config_maps["cm"] = {"data": {"key": "2"}}
    await node.manager.refresh(pod)
    [mount] = node.manager.mounts_for(pod, container)
    assert text_at(mount) == "2", "a container that starts anew gets what is true now"


async def test_what_is_still_mounted_is_not_deleted(node: Node, tmp_path: Path) -> None:
    pod = pod_with({"name": "e", "emptyDir": {}})
    await node.manager.mount_pod(pod)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    inner = node.at("kubernetes.io~empty-dir", "e") / "inner"
    inner.mkdir()
    node.mounter.bind(str(precious), str(inner))
    held = os.open(inner, os.O_RDONLY)
    try:
        with pytest.raises(VolumesFailed, match="device or resource busy"):
            await node.manager.unmount_pod("uid-1")
        assert not node.manager.remove_pod_directory("uid-1")
    finally:
        os.close(held)
    await node.manager.unmount_pod("uid-1")
    assert (precious / "file").read_text() == "x"


def test_a_failed_mount_says_why(node: Node, tmp_path: Path) -> None:
    with pytest.raises(MountError, match="no such file or directory"):
        node.mounter.bind("/nowhere", str(tmp_path))
    with pytest.raises(MountError, match="invalid argument"):
        node.mounter.unmount(str(tmp_path))
