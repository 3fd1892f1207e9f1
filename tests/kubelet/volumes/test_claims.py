"""Claims, and the volumes behind them: found, refused, mounted, given as devices."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.errors import not_found
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.kubelet.downward import PodFacts
from shipwheel.kubelet.volumes.base import Host, VolumesFailed
from shipwheel.kubelet.volumes.manager import MountsFailed, VolumeManager
from shipwheel.kubelet.volumes.mounting import Mounter, MountError, NoMounter
from tests.kubelet.volumes.test_volumes import Given, pod_with


class Stored:
    """A `Cluster` that a test fills."""

    def __init__(self) -> None:
        self.claims: dict[str, Obj] = {}
        self.volumes: dict[str, Obj] = {}
        self.attachments: dict[str, Obj] = {}
        self.drivers: dict[str, Obj] = {}
        self.secrets: dict[str, Obj] = {}
        self.grown: list[tuple[str, str]] = []
        self.growing: list[tuple[str, str, str]] = []

    def bind(self, claim: str, source: Obj, **spec: Any) -> None:
        """A claim bound to a volume of the same name with `pv-` before it."""
        self.claims[claim] = {
            "metadata": {"name": claim, "namespace": "ns", "uid": f"uid-of-{claim}"},
            "spec": {"volumeName": f"pv-{claim}"},
            "status": {"phase": "Bound"},
        }
        self.volumes[f"pv-{claim}"] = {
            "metadata": {"name": f"pv-{claim}"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "1Gi"},
                "claimRef": {"uid": f"uid-of-{claim}"},
                **source,
                **spec,
            },
        }

    def _get(self, resource: str, found: dict[str, Obj], name: str) -> Obj:
        if name not in found:
            raise not_found(GroupResource("", resource), name)
        return found[name]

    async def claim(self, namespace: str, name: str) -> Obj:
        return self._get("persistentvolumeclaims", self.claims, name)

    async def volume(self, name: str) -> Obj:
        return self._get("persistentvolumes", self.volumes, name)

    async def attachment(self, name: str) -> Obj:
        return self._get("volumeattachments", self.attachments, name)

    async def csi_driver(self, name: str) -> Obj | None:
        return self.drivers.get(name)

    async def secret_of(self, namespace: str, name: str) -> Obj:
        return self._get("secrets", self.secrets, name)

    async def resized(self, claim: Obj, capacity: str) -> None:
        self.grown.append((claim["metadata"]["name"], capacity))

    async def resizing(self, claim: Obj, state: str, error: str = "") -> None:
        self.growing.append((claim["metadata"]["name"], state, error))


class Recorder(NoMounter):
    """Mounts nothing, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, list[str]]] = []
        self.fails = ""

    async def mount_by_helper(self, source: str, target: str, kind: str, options: list[str]) -> None:
        if self.fails:
            raise MountError(32, self.fails)
        self.asked.append((source, target, kind, options))


class Node:
    def __init__(self, root: Path, mounter: Mounter) -> None:
        self.root = root
        self.cluster = Stored()
        self.mounter = mounter
        self.manager = VolumeManager(
            Host(
                objects=Given(),
                mounter=mounter,
                clock=ManualClock(),
                facts=lambda pod: PodFacts(),
                cluster=self.cluster,
                node_name="node-1",
            ),
            root,
        )

    def at(self, plugin: str, name: str) -> Path:
        return self.root / "pods" / "uid-1" / "volumes" / plugin / name


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "kubelet", Recorder())


def claiming(name: str = "data", **options: Any) -> Obj:
    return pod_with({"name": "v", "persistentVolumeClaim": {"claimName": name, **options}})


async def mount_of(node: Node, pod: Obj) -> Any:
    await node.manager.mount_pod(pod)
    [mount] = node.manager.mounts_for(pod, pod["spec"]["containers"][0])
    return mount


async def test_a_claim_stands_for_its_volume(node: Node, tmp_path: Path) -> None:
    node.cluster.bind("data", {"hostPath": {"path": str(tmp_path / "disk"), "type": "DirectoryOrCreate"}})
    mount = await mount_of(node, claiming())
    assert (mount.host_path, mount.readonly) == (str(tmp_path / "disk"), False)
    assert (tmp_path / "disk").is_dir()
    assert (await mount_of(node, claiming(readOnly=True))).readonly


async def test_labels_of_files_where_the_kernel_has_them(tmp_path: Path) -> None:
    for selinux in (True, False):
        host = Node(tmp_path, Recorder()).manager._host
        manager = VolumeManager(host, tmp_path, selinux=selinux)
        found = {}
        for name, source in (("a", {"emptyDir": {}}), ("b", {"hostPath": {"path": str(tmp_path)}})):
            pod = pod_with({"name": "v", **source})
            pod["metadata"]["uid"] = name
            await manager.mount_pod(pod)
            [mount] = manager.mounts_for(pod, pod["spec"]["containers"][0])
            found[name] = mount.selinux_relabel
        assert found == {"a": selinux, "b": False}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.claims.clear(),
            'failed to fetch PVC from API server: persistentvolumeclaims "data" not found',
        ),
        (lambda c: c.claims["data"]["status"].update(phase="Pending"), "PVC is not bound"),
        (lambda c: c.claims["data"]["metadata"].update(deletionTimestamp="now"), "PVC is being deleted"),
        (lambda c: c.claims["data"]["spec"].clear(), "PVC has empty pvc.Spec.VolumeName"),
        (
            lambda c: c.volumes.clear(),
            'failed to fetch PV pv-data from API server: persistentvolumes "pv-data" not found',
        ),
        (
            lambda c: c.volumes["pv-data"]["spec"].pop("claimRef"),
            "found PV object pv-data but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim",
        ),
        (
            lambda c: c.volumes["pv-data"]["spec"].update(claimRef={"uid": "other"}),
            "found PV object pv-data but its pv.Spec.ClaimRef.UID other does not point to claim.UID uid-of-data",
        ),
    ],
)
async def test_claims_that_cannot_be_used(node: Node, change: Any, message: str) -> None:
    node.cluster.bind("data", {"hostPath": {"path": "/"}})
    change(node.cluster)
    with pytest.raises(VolumesFailed) as failed:
        await node.manager.mount_pod(claiming())
    assert failed.value.messages == (
        "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process "
        f"volumes=[v]: error processing PVC ns/data: {message}",
    )


async def test_a_claim_in_use_may_be_on_its_way_out(node: Node) -> None:
    node.cluster.bind("data", {"hostPath": {"path": "/"}})
    meta = node.cluster.claims["data"]["metadata"]
    meta |= {"deletionTimestamp": "now", "finalizers": ["kubernetes.io/pvc-protection"]}
    assert (await mount_of(node, claiming())).host_path == "/"


async def test_an_ephemeral_volume_must_be_the_pods_own(node: Node) -> None:
    pod = pod_with({"name": "v", "ephemeral": {"volumeClaimTemplate": {}}})
    node.cluster.bind("p-v", {"hostPath": {"path": "/"}})
    with pytest.raises(VolumesFailed, match=r"was not created for pod ns/p \(pod is not owner\)"):
        await node.manager.mount_pod(pod)
    owner = {"kind": "Pod", "uid": "uid-1", "controller": True}
    node.cluster.claims["p-v"]["metadata"]["ownerReferences"] = [owner]
    assert (await mount_of(node, pod)).host_path == "/"


async def test_a_volume_of_a_kind_nobody_has(node: Node) -> None:
    node.cluster.bind("data", {"glusterfs": {}})
    with pytest.raises(VolumesFailed, match="no volume plugin matched"):
        await node.manager.mount_pod(claiming())


async def test_nfs(node: Node) -> None:
    node.cluster.bind(
        "data", {"nfs": {"server": "fd00::1", "path": "/export", "readOnly": True}}, mountOptions=["vers=4", "ro"]
    )
    mount = await mount_of(node, claiming())
    target = str(node.at("kubernetes.io~nfs", "pv-data"))
    assert node.mounter.asked == [("[fd00::1]:/export", target, "nfs", ["ro", "vers=4"])]  # type: ignore[attr-defined]
    assert (mount.host_path, mount.readonly) == (target, True)
    await node.manager.unmount_pod("uid-1")
    assert not node.at("kubernetes.io~nfs", "pv-data").exists()


async def test_an_nfs_server_that_refuses(node: Node) -> None:
    node.mounter.fails = "mount failed: exit status 32\nOutput: access denied"  # type: ignore[attr-defined]
    pod = pod_with({"name": "v", "nfs": {"server": "s", "path": "/"}})
    with pytest.raises(VolumesFailed, match=r'(?s)MountVolume\.SetUp failed for volume "v" : mount failed:.*denied'):
        await node.manager.mount_pod(pod)
    assert not node.at("kubernetes.io~nfs", "v").exists()


async def test_local_volumes_must_be_there(node: Node) -> None:
    node.cluster.bind("data", {"local": {"path": "/nowhere"}})
    with pytest.raises(VolumesFailed, match='path "/nowhere" does not exist'):
        await node.manager.mount_pod(claiming())


async def test_modes_must_agree(node: Node) -> None:
    node.cluster.bind("data", {"local": {"path": "/dev/x"}}, volumeMode="Block")
    with pytest.raises(VolumesFailed, match="volume v has volumeMode Block, but is specified in volumeMounts"):
        await node.manager.mount_pod(claiming())
    node.cluster.bind("data", {"local": {"path": "/"}})
    pod = claiming()
    container = pod["spec"]["containers"][0]
    container["volumeDevices"] = [{"name": "v", "devicePath": "/dev/xda"}]
    container["volumeMounts"] = []
    with pytest.raises(VolumesFailed, match="volume v has volumeMode Filesystem, but is specified in volumeDevices"):
        await node.manager.mount_pod(pod)


async def test_images_are_the_runtimes_to_mount(node: Node) -> None:
    pod = pod_with(
        {"name": "v", "image": {"reference": "r/model:1"}},
        mounts=[{"name": "v", "mountPath": "/m", "subPath": "in"}],
    )
    await node.manager.mount_pod(pod)
    [mount] = node.manager.mounts_for(pod, pod["spec"]["containers"][0], images={"v": "sha256:1"})
    assert (mount.image, mount.image_sub_path, mount.readonly, mount.host_path) == ("sha256:1", "in", True, "")


async def test_devices_without_a_volume(node: Node) -> None:
    pod = pod_with()
    pod["spec"]["containers"][0]["volumeDevices"] = [{"name": "no", "devicePath": "/dev/x"}]
    with pytest.raises(MountsFailed, match='cannot find volume "no" to pass into container "main"'):
        node.manager.devices_for(pod, pod["spec"]["containers"][0])


# --- With root: real directories and disks

needs_root = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "kubelet", Mounter())
    yield node
    for point in node.mounter.mount_points(tmp_path):
        node.mounter.unmount(point, lazily=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """An empty disk of 16 MiB."""
    if not shutil.which("mkfs.ext4"):
        pytest.skip("needs mkfs.ext4")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    found = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"no loop devices here: {found.stderr.strip()}")
    device = found.stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


class TestReal:
    pytestmark = needs_root

    async def test_a_local_directory_is_shown_and_stays(self, real: Node, tmp_path: Path) -> None:
        place = tmp_path / "place"
        place.mkdir()
        (place / "file").write_text("x")
        real.cluster.bind("data", {"local": {"path": str(place)}})
        pod = claiming()
        pod["spec"]["securityContext"] = {"fsGroup": 4321}
        mount = await mount_of(real, pod)
        assert mount.host_path == str(real.at("kubernetes.io~local-volume", "pv-data"))
        assert (Path(mount.host_path) / "file").read_text() == "x"
        assert (place / "file").stat().st_gid == 4321
        await real.manager.mount_pod(pod)
        assert len(real.mounter.mount_points(Path(mount.host_path))) == 1
        await real.manager.unmount_pod("uid-1")
        assert not real.at("kubernetes.io~local-volume", "pv-data").exists()
        assert (place / "file").read_text() == "x"

    async def test_an_empty_disk_is_formatted_once(self, real: Node, disk: str) -> None:
        real.cluster.bind("data", {"local": {"path": disk, "fsType": "ext4"}})
        mount = await mount_of(real, claiming())
        (Path(mount.host_path) / "file").write_text("kept")
        await real.manager.unmount_pod("uid-1")
        mount = await mount_of(real, claiming())
        assert (Path(mount.host_path) / "file").read_text() == "kept"
        assert len(real.mounter.mount_points(real.root)) == 2
        await real.manager.unmount_pod("uid-1")
        assert real.mounter.mount_points(real.root) == []

    async def test_a_disk_that_was_made_larger(self, real: Node, disk: str, monkeypatch: pytest.MonkeyPatch) -> None:
        real.cluster.bind("data", {"local": {"path": disk, "fsType": "ext4"}})
        claim, volume = real.cluster.claims["data"], real.cluster.volumes["pv-data"]
        claim["status"]["capacity"] = volume["spec"]["capacity"] = {"storage": "16Mi"}
        pod = claiming()
        await real.manager.mount_pod(pod)
        asked: list[str] = []

        async def run(*command: str) -> tuple[int, str]:
            """The kernel lets only those with CAP_SYS_RESOURCE resize what is mounted."""
            asked.append(" ".join(command))
            return (0, "ext4") if command[0] == "blkid" else (int(len(asked) < 3), "no room")

        monkeypatch.setattr("shipwheel.kubelet.volumes.disk.run", run)
        await real.manager.refresh(pod)
        assert asked == []
        volume["spec"]["capacity"] = {"storage": "48Mi"}
        claim["status"]["allocatedResourceStatuses"] = {"storage": "NodeResizePending"}
        with pytest.raises(VolumesFailed, match=r"NodeExpandVolume failed .* exit status 1\. Output: no room"):
            await real.manager.refresh(pod)
        assert (asked[1:], real.cluster.grown) == ([f"resize2fs {disk}"], [])
        await real.manager.refresh(pod)
        assert real.cluster.growing[0] == ("data", "NodeResizeInProgress", "")
        assert real.cluster.grown == [("data", "48Mi")]
        await real.manager.unmount_pod("uid-1")

    async def test_a_disk_as_a_device(self, real: Node, disk: str) -> None:
        real.cluster.bind("data", {"local": {"path": disk}}, volumeMode="Block")
        pod = claiming(readOnly=True)
        container = pod["spec"]["containers"][0]
        container["volumeMounts"] = []
        container["volumeDevices"] = [{"name": "v", "devicePath": "/dev/xda"}]
        await real.manager.mount_pod(pod)
        [device] = real.manager.devices_for(pod, container)
        assert (device.container_path, device.host_path, device.permissions) == ("/dev/xda", disk, "r")
        await real.manager.unmount_pod("uid-1")
