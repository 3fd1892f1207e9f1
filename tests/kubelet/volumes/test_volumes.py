"""Volumes as a pod's containers see them, without root: nothing is mounted, nothing changes its owner."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.errors import not_found
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.kubelet.downward import PodFacts
from shipwheel.kubelet.volumes.base import Host, VolumesFailed
from shipwheel.kubelet.volumes.manager import MountsFailed, VolumeManager
from shipwheel.kubelet.volumes.mounting import NoMounter, is_shared


class Given:
    """`Objects` that a test fills."""

    def __init__(self) -> None:
        self.config_maps: dict[str, Obj] = {}
        self.secrets: dict[str, Obj] = {}
        self.tokens_issued: list[tuple[str, int]] = []

    async def config_map(self, namespace: str, name: str) -> Obj:
        return self._get("configmap", self.config_maps, name)

    async def secret(self, namespace: str, name: str) -> Obj:
        return self._get("secret", self.secrets, name)

    def _get(self, kind: str, found: dict[str, Obj], name: str) -> Obj:
        if name not in found:
            raise not_found(GroupResource("", kind), name)
        return found[name]

    async def token(self, pod: Obj, *, audience: str, expiration_seconds: int) -> str:
        self.tokens_issued.append((audience, expiration_seconds))
        return f"token-{len(self.tokens_issued)}"

    async def trust_anchors(self, *, name: str, signer: str, selector: Obj | None, optional: bool) -> str:
        return f"anchors of {name or signer}"


class Node:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = Given()
        self.clock = ManualClock()
        self.manager = VolumeManager(
            Host(
                objects=self.objects,
                mounter=NoMounter(),
                clock=self.clock,
                facts=lambda pod: PodFacts(allocatable={"cpu": "2", "memory": "4Gi"}),
            ),
            root,
        )

    def at(self, pod: Obj, plugin: str, name: str) -> Path:
        return self.root / "pods" / pod["metadata"]["uid"] / "volumes" / plugin / name


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "kubelet")


def pod_with(*volumes: Obj, mounts: list[Obj] | None = None, **spec: Any) -> Obj:
    """A pod whose only container mounts each volume at /NAME, or as `mounts` say."""
    if mounts is None:
        mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
    container = {
        "name": "main",
        "image": "x",
        "volumeMounts": mounts,
        "resources": {"limits": {"cpu": "500m"}},
    }
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "uid-1", "labels": {"a": "1"}},
        "spec": {"containers": [container], "volumes": list(volumes), **spec},
    }


def data_of(**texts: str) -> dict[str, str]:
    return {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}


async def test_a_config_map_becomes_files_behind_an_atomic_link(node: Node) -> None:
    node.objects.config_maps["cm"] = {"data": {"a": "1", "b": "2"}, "binaryData": data_of(c="3")}
    pod = pod_with({"name": "v", "configMap": {"name": "cm", "defaultMode": 0o640}})
    await node.manager.mount_pod(pod)
    volume = node.at(pod, "kubernetes.io~configmap", "v")
    assert {name: (volume / name).read_text() for name in "abc"} == {"a": "1", "b": "2", "c": "3"}
    assert os.readlink(volume / "a") == "..data/a"
    assert stat.S_IMODE((volume / "a").stat().st_mode) == 0o640
    [mount] = node.manager.mounts_for(pod, pod["spec"]["containers"][0])
    assert (mount.container_path, mount.host_path, mount.readonly) == ("/v", str(volume), True)


async def test_an_update_is_seen_all_at_once_and_old_files_go(node: Node) -> None:
    node.objects.config_maps["cm"] = {"data": {"a": "1", "old": "x"}}
    pod = pod_with({"name": "v", "configMap": {"name": "cm"}})
    await node.manager.mount_pod(pod)
    volume = node.at(pod, "kubernetes.io~configmap", "v")
    first = os.readlink(volume / "..data")
    await node.manager.refresh(pod)
    assert os.readlink(volume / "..data") == first, "nothing changed, so nothing is written"

    node.objects.config_maps["cm"] = {"data": {"a": "2", "new": "y"}}
    await node.manager.refresh(pod)
    assert os.readlink(volume / "..data") != first
    assert sorted(p.name for p in volume.iterdir() if not p.name.startswith("..")) == ["a", "new"]
    assert (volume / "a").read_text() == "2"
    assert not (volume / first).exists()


async def test_items_choose_keys_paths_and_modes(node: Node) -> None:
    node.objects.secrets["s"] = {"data": data_of(user="me", password="pw")}
    items = [{"key": "password", "path": "deep/er/secret", "mode": 0o400}]
    pod = pod_with({"name": "v", "secret": {"secretName": "s", "items": items}})
    await node.manager.mount_pod(pod)
    volume = node.at(pod, "kubernetes.io~secret", "v")
    assert (volume / "deep/er/secret").read_text() == "pw"
    assert stat.S_IMODE((volume / "deep/er/secret").stat().st_mode) == 0o400
    assert not (volume / "user").exists()


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "y"}}, 'configmap "y" not found'),
        ({"secret": {"secretName": "y"}}, 'secret "y" not found'),
        (
            {"configMap": {"name": "cm", "items": [{"key": "no", "path": "p"}]}},
            "configmap references non-existent config key: no",
        ),
        (
            {"secret": {"secretName": "s", "items": [{"key": "no", "path": "p"}]}},
            "references non-existent secret key: no",
        ),
        (
            {"projected": {"sources": [{"configMap": {"name": "y"}}, {"secret": {"name": "z"}}]}},
            '[configmap "y" not found, secret "z" not found]',
        ),
        ({"hostPath": {"path": "/etc", "type": "File"}}, "hostPath type check failed: /etc is not a file"),
        (
            {"hostPath": {"path": "/nowhere", "type": "Socket"}},
            "hostPath type check failed: /nowhere is not a socket file",
        ),
        ({"emptyDir": {"medium": "Cloud"}}, 'unknown storage medium "Cloud"'),
    ],
)
async def test_failures_are_told_in_the_events_words(node: Node, volume: Obj, message: str) -> None:
    node.objects.config_maps["cm"] = {"data": {}}
    node.objects.secrets["s"] = {}
    with pytest.raises(VolumesFailed) as failed:
        await node.manager.mount_pod(pod_with({"name": "x", **volume}))
    assert failed.value.messages == (f'MountVolume.SetUp failed for volume "x" : {message}',)


async def test_a_volume_that_fails_does_not_keep_others_from_being_made(node: Node) -> None:
    pod = pod_with({"name": "bad", "configMap": {"name": "y"}}, {"name": "good", "emptyDir": {}})
    with pytest.raises(VolumesFailed):
        await node.manager.mount_pod(pod)
    assert node.at(pod, "kubernetes.io~empty-dir", "good").is_dir()


async def test_volumes_that_no_container_mounts_are_not_made(node: Node) -> None:
    await node.manager.mount_pod(pod_with({"name": "unused", "configMap": {"name": "y"}}, mounts=[]))


async def test_what_is_optional_may_be_missing(node: Node) -> None:
    node.objects.config_maps["cm"] = {"data": {"there": "1"}}
    items = [{"key": "there", "path": "there"}, {"key": "not", "path": "not"}]
    pod = pod_with(
        {"name": "a", "configMap": {"name": "y", "optional": True}},
        {"name": "b", "configMap": {"name": "cm", "optional": True, "items": items}},
        {"name": "c", "projected": {"sources": [{"secret": {"name": "z", "optional": True}}]}},
    )
    await node.manager.mount_pod(pod)
    assert [p.name for p in node.at(pod, "kubernetes.io~configmap", "b").glob("[!.]*")] == ["there"]


async def test_a_projected_volume_joins_its_sources(node: Node) -> None:
    node.objects.config_maps["kube-root-ca.crt"] = {"data": {"ca.crt": "CA"}}
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        {"clusterTrustBundle": {"name": "b", "path": "anchors"}},
    ]
    pod = pod_with({"name": "v", "projected": {"sources": sources, "defaultMode": 0o644}})
    await node.manager.mount_pod(pod)
    volume = node.at(pod, "kubernetes.io~projected", "v")
    files = {p.name: p.read_text() for p in volume.glob("[!.]*")}
    assert files == {"token": "token-1", "ca.crt": "CA", "namespace": "ns", "anchors": "anchors of b"}
    assert node.objects.tokens_issued == [("", 3607)]
    assert stat.S_IMODE((volume / "token").stat().st_mode) == 0o644


async def test_a_token_is_for_the_pods_user_only(node: Node) -> None:
    sources = [{"serviceAccountToken": {"path": "token"}}]
    pod = pod_with({"name": "v", "projected": {"sources": sources}}, securityContext={"runAsUser": 1000})
    await node.manager.mount_pod(pod)
    token = node.at(pod, "kubernetes.io~projected", "v") / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


async def test_the_downward_api_tells_labels_and_limits(node: Node) -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {
            "path": "cpu",
            "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"},
        },
    ]
    pod = pod_with({"name": "v", "downwardAPI": {"items": items}})
    await node.manager.mount_pod(pod)
    volume = node.at(pod, "kubernetes.io~downward-api", "v")
    assert ((volume / "labels").read_text(), (volume / "cpu").read_text()) == ('a="1"', "500")
    pod["metadata"]["labels"]["a"] = "2"
    await node.manager.refresh(pod)
    assert (volume / "labels").read_text() == 'a="2"'


async def test_group_ownership_opens_files_to_the_group(node: Node) -> None:
    node.objects.config_maps["cm"] = {"data": {"a": "1"}}
    pod = pod_with(
        {"name": "v", "configMap": {"name": "cm", "defaultMode": 0o400}},
        {"name": "e", "emptyDir": {}},
        securityContext={"fsGroup": 4000},
    )
    await node.manager.mount_pod(pod)
    file = (node.at(pod, "kubernetes.io~configmap", "v") / "a").stat()
    assert stat.S_IMODE(file.st_mode) == 0o440
    directory = node.at(pod, "kubernetes.io~empty-dir", "e").stat()
    assert stat.S_IMODE(directory.st_mode) == 0o777 | stat.S_ISGID


@pytest.mark.parametrize("kind", ["DirectoryOrCreate", "FileOrCreate", "Directory", "File", ""])
async def test_host_paths_are_made_or_found(node: Node, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "on-host" / "here" if kind == "DirectoryOrCreate" else tmp_path / "here"
    if kind == "Directory":
        path.mkdir()
    elif kind == "File":
        path.touch()
    pod = pod_with({"name": "v", "hostPath": {"path": str(path), "type": kind}})
    await node.manager.mount_pod(pod)
    assert path.is_dir() == (kind in ("Directory", "DirectoryOrCreate"))
    [mount] = node.manager.mounts_for(pod, pod["spec"]["containers"][0])
    assert (mount.host_path, mount.readonly) == (str(path), False)
    await node.manager.unmount_pod("uid-1")
    assert path.exists() == (kind != ""), "the node's own files stay"


async def test_unmounting_deletes_what_was_the_pods_own(node: Node) -> None:
    node.objects.config_maps["cm"] = {"data": {"a": "1"}}
    pod = pod_with({"name": "c", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}})
    await node.manager.mount_pod(pod)
    (node.at(pod, "kubernetes.io~empty-dir", "e") / "file").write_text("x")
    assert node.manager.pods_on_disk() == ["uid-1"]
    await node.manager.unmount_pod("uid-1")
    await node.manager.unmount_pod("uid-1")
    assert not (node.root / "pods/uid-1/volumes").exists()
    assert node.manager.remove_pod_directory("uid-1")
    assert node.manager.pods_on_disk() == []


# --- subPath


def sub_path_pod(**mount: Any) -> Obj:
    return pod_with({"name": "e", "emptyDir": {}}, mounts=[{"name": "e", "mountPath": "/m", **mount}])


async def mounted_at(node: Node, pod: Obj, env: dict[str, str] | None = None) -> str:
    await node.manager.mount_pod(pod)
    [mount] = node.manager.mounts_for(pod, pod["spec"]["containers"][0], env)
    return str(Path(mount.host_path).relative_to(node.at(pod, "kubernetes.io~empty-dir", "e").resolve()))


async def test_a_sub_path_is_made_when_missing(node: Node) -> None:
    assert await mounted_at(node, sub_path_pod(subPath="a/b")) == "a/b"


async def test_a_sub_path_may_be_an_expression(node: Node) -> None:
    pod = sub_path_pod(subPathExpr="logs/$(POD)")
    assert await mounted_at(node, pod, {"POD": "p-0"}) == "logs/p-0"
    with pytest.raises(MountsFailed, match="missing value for POD"):
        node.manager.mounts_for(pod, pod["spec"]["containers"][0])


async def test_a_link_inside_the_volume_may_be_followed(node: Node) -> None:
    pod = sub_path_pod(subPath="link/deep")
    await node.manager.mount_pod(pod)
    volume = node.at(pod, "kubernetes.io~empty-dir", "e")
    (volume / "real").mkdir()
    (volume / "link").symlink_to("real")
    assert await mounted_at(node, pod) == "real/deep"


@pytest.mark.parametrize("target", ["/etc", "../../../..", "/"])
async def test_a_link_out_of_the_volume_is_refused(node: Node, target: str) -> None:
    pod = sub_path_pod(subPath="link/x")
    await node.manager.mount_pod(pod)
    (node.at(pod, "kubernetes.io~empty-dir", "e") / "link").symlink_to(target)
    with pytest.raises(MountsFailed, match="not within volume path"):
        await mounted_at(node, pod)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/etc", "error SubPath `/etc` must not be an absolute path"),
        ("a/../..", "unable to provision SubPath `a/../..`: must not contain '..'"),
    ],
)
async def test_paths_that_leave_are_refused(node: Node, path: str, message: str) -> None:
    with pytest.raises(MountsFailed) as failed:
        await mounted_at(node, sub_path_pod(subPath=path))
    assert str(failed.value) == message


async def test_mounts_say_how_they_propagate(node: Node) -> None:
    pod = sub_path_pod(mountPropagation="Bidirectional", readOnly=True)
    await node.manager.mount_pod(pod)
    [mount] = node.manager.mounts_for(pod, pod["spec"]["containers"][0])
    assert (mount.propagation, mount.readonly) == ("BIDIRECTIONAL", True)


async def test_a_mount_without_a_volume(node: Node) -> None:
    pod = pod_with(mounts=[{"name": "nope", "mountPath": "/m"}])
    with pytest.raises(MountsFailed, match='cannot find volume "nope" to mount into container "main"'):
        node.manager.mounts_for(pod, pod["spec"]["containers"][0])


def test_which_mounts_are_shared() -> None:
    mountinfo = (
        "1 0 8:1 / / rw,relatime - ext4 /dev/sda rw\n"
        "2 1 8:1 /k /var/lib/kubelet rw,relatime shared:5 master:1 - ext4 /dev/sda rw\n"
        "3 2 0:5 / /var/lib/kubelet/private rw - tmpfs tmpfs rw\n"
    )
    assert not is_shared(Path("/var/lib"), mountinfo)
    assert is_shared(Path("/var/lib/kubelet"), mountinfo)
    assert is_shared(Path("/var/lib/kubelet/pods/x"), mountinfo)
    assert not is_shared(Path("/var/lib/kubelet/private/x"), mountinfo)
