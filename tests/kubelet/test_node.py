"""The node: its settings, its status, its cgroups, its static pods, and seeing what the runtime has."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.client import features
from shipwheel.client.flags import FlagError, parse
from shipwheel.client.metrics import Metrics
from shipwheel.kubelet import config as configuration
from shipwheel.kubelet import node_status
from shipwheel.kubelet.cgroups import CgroupTree, larger, pod_path, v1_files, v2_files
from shipwheel.kubelet.config import FLAGS, ConfigError, from_flags, from_object, thresholds_of, validate
from shipwheel.kubelet.manifests import StaticPodFault, pods_of
from shipwheel.kubelet.measures import KubeletMetrics
from shipwheel.kubelet.messages import log_tail, termination_message
from shipwheel.kubelet.node_status import NodeFacts, Reservations
from shipwheel.kubelet.observed import MESSAGE_PATH, MESSAGE_POLICY
from shipwheel.kubelet.pleg import Pleg
from shipwheel.kubelet.resources import CgroupValues
from shipwheel.kubelet.runtime.base import (
    Container,
    Image,
    Mount,
    RuntimeCondition,
    RuntimeFault,
    Sandbox,
)
from shipwheel.kubelet.settings import KubeletConfig
from shipwheel.kubelet.static_pods import read_files
from shipwheel.kubelet.turnstile import Turnstile
from tests.kubelet.builders import container, pod
from tests.kubelet.world import MACHINE

NOW = datetime(2026, 1, 1, tzinfo=UTC)


# Settings

MEASURES = KubeletMetrics(Metrics(process=False))


def flags(*arguments: str) -> KubeletConfig:
    parsed = parse(FLAGS, arguments)
    return from_flags(parsed.values, parsed.given)


def file(directory: Path, text: str) -> str:
    path = directory / "kubelet.yaml"
    path.write_text("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n" + text)
    return str(path)


def test_defaults() -> None:
    config = flags()
    assert config == KubeletConfig()
    assert (config.max_pods, config.port, config.node_lease_duration_seconds) == (110, 10250, 40)
    validate(config)
    validate(dataclasses.replace(config, node_labels={"x.node.kubernetes.io/a": "b", "kubernetes.io/os": "l", "c": ""}))
    assert next(each.signal for each in thresholds_of(config)) == "memory.available"


def test_a_file_and_flags_that_override_it(tmp_path: Path) -> None:
    text = "maxPods: 5\nclusterDNS: [10.96.0.10]\nsyncFrequency: 0s\nauthentication: {anonymous: {enabled: true}}\n"
    text += "staticPodPath: manifests\nevictionHard: {memory.available: 1%}\nsystemReserved: {cpu: 100m}\n"
    config = flags("--config", file(tmp_path, text), "--max-pods=7", "--node-labels=a=b,c=d")
    assert (config.max_pods, config.cluster_dns, config.sync_frequency) == (7, ("10.96.0.10",), 60.0)
    assert config.anonymous_auth
    assert config.static_pod_path == str(tmp_path / "manifests")
    assert config.node_labels == {"a": "b", "c": "d"}
    assert config.eviction_hard == {"memory.available": "1%"}
    assert config.system_reserved == {"cpu": "100m"}


def test_drop_ins_come_after_the_file(tmp_path: Path) -> None:
    main = file(tmp_path, "maxPods: 5\npodsPerCore: 3\n")
    drop_ins = tmp_path / "drop"
    drop_ins.mkdir()
    for name, count in (("10.conf", 6), ("20.conf", 7)):
        text = f"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: {count}\n"
        (drop_ins / name).write_text(text)
    config = flags("--config", main, "--config-dir", str(drop_ins))
    assert (config.max_pods, config.pods_per_core) == (7, 3)


def test_zeros_are_what_was_not_set_but_for_those_that_mean_something(tmp_path: Path) -> None:
    text = "maxPods: 0\naddress: ''\nauthorization: {mode: ''}\ncontainerRuntimeEndpoint: ''\nsyncFrequency: 0s\n"
    text += "healthzPort: 0\nresolvConf: ''\nregistryPullQPS: 0\nlogging: {flushFrequency: 0, options: {json: {}}}\n"
    config = flags("--config", file(tmp_path, text))
    expected = dataclasses.replace(KubeletConfig(), healthz_port=0, resolv_conf="", registry_pull_qps=0)
    assert config == expected


def drop_in(directory: Path, name: str, text: str) -> str:
    place = directory / "drop" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{text}")
    return str(directory / "drop")


def test_drop_ins_merge_maps_and_take_back(tmp_path: Path) -> None:
    main = file(tmp_path, "evictionHard: {memory.available: 1%}\nclusterDNS: [1.1.1.1]\nmaxPods: 5\n")
    drop_in(tmp_path, "deeper/10.conf", "evictionHard: {nodefs.available: 2%}\nclusterDNS: [2.2.2.2, 3.3.3.3]\n")
    drop_in(tmp_path, "20.yaml", "maxPods: 77\n")
    where = drop_in(tmp_path, "30.conf", "maxPods: null\n")
    config = flags("--config", main, "--config-dir", where)
    assert config.eviction_hard == {"memory.available": "1%", "nodefs.available": "2%"}
    assert config.cluster_dns == ("2.2.2.2", "3.3.3.3")
    assert config.max_pods == 110


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("maxPods: 1\n", "no apiVersion/kind"),
        ("apiVersion: v1\nkind: Pod\n", "unknown apiVersion/kind: v1, Kind=Pod"),
        ("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nnope: 1\n", 'unknown field "nope"'),
        ("\t:", "found character"),
    ],
)
def test_wrong_drop_ins(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "a.conf").write_text(text)
    with pytest.raises(ConfigError, match="failed to load kubelet dropin file") as caught:
        flags("--config-dir", str(tmp_path))
    assert why in str(caught.value)


def test_a_directory_of_drop_ins_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or directory"):
        flags("--config-dir", str(tmp_path / "none"))


def test_every_flag_of_the_file_is_deprecated() -> None:
    warnings = parse(FLAGS, ["--max-pods=3", "--node-ip=1.2.3.4", "--cgroup-driver=cgroupfs", "--v=2"]).warnings
    assert [each.partition(" has been")[0] for each in warnings] == ["Flag --max-pods", "Flag --cgroup-driver"]


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("--read-only-port=10255", "--read-only-port: Unsupported value: 10255: only 0 is supported"),
        ("--hairpin-mode=hairpin-veth", "only 'promiscuous-bridge' is supported"),
        ("--manifest-url-header=X", "malformed pair, expect string:string: X"),
    ],
)
def test_flags_that_only_have_their_default(argument: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flags(argument)
    assert why in str(caught.value)
    flags("--read-only-port=0", "--cpu-manager-reconcile-period=10s", "--enforce-node-allocatable=pods")


def test_headers_for_the_manifests() -> None:
    config = flags("--manifest-url-header=A:1,B:2", "--manifest-url-header=A:3")
    assert config.static_pod_url_header == {"A": ["1", "3"], "B": ["2"]}


@pytest.mark.parametrize(
    ("gates", "why"),
    [
        ({"GracefulNodeShutdown": True, "MemoryQoS": False, "AllBeta": True}, ""),
        ({"NoSuchThing": True}, "unrecognized feature gate: NoSuchThing"),
        (
            {"GracefulNodeShutdown": False},
            "cannot set feature gate GracefulNodeShutdown to false, feature is locked to true",
        ),
    ],
)
def test_feature_gates(gates: dict[str, bool], why: str) -> None:
    assert features.refusal(gates) == why


def test_flags_of_their_own_form() -> None:
    config = flags(
        "--eviction-hard=memory.available<1Gi,nodefs.available<5%",
        "--register-with-taints=a=b:NoSchedule,c:NoExecute",
    )
    assert config.eviction_hard == {"memory.available": "1Gi", "nodefs.available": "5%"}
    assert config.register_with_taints == (
        {"key": "a", "value": "b", "effect": "NoSchedule"},
        {"key": "c", "effect": "NoExecute"},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "nope: 1\nauthentication: {nope: 2}\n",
            'strict decoding error: unknown field "nope", unknown field "authentication.nope"',
        ),
        ("maxPods: many\n", "maxPods: Invalid value: 'many': it is no whole number"),
        ("syncFrequency: soon\n", 'syncFrequency: Invalid value: \'soon\': time: invalid duration "soon"'),
        ("cgroupDriver: systemd\n", "cgroupDriver: Unsupported value: 'systemd': only 'cgroupfs' is supported"),
        (":\n  -", "failed to load kubelet config file"),
    ],
)  # fmt: skip
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flags("--config", file(tmp_path, text))
    assert message in str(caught.value)


def test_unknown_flags_are_refused() -> None:
    with pytest.raises(FlagError, match="unknown flag: --no-such-thing"):
        flags("--no-such-thing")


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match='no kind "Pod" is registered for version "v1"'):
        from_object({"kind": "Pod", "apiVersion": "v1"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_gc_high": 101}, "(--image-gc-high-threshold) 101 must be between 0 and 100"),
        ({"image_gc_low": 90}, "must be less than imageGCHighThresholdPercent"),
        ({"max_pods": -1}, "maxPods (--max-pods) -1 must not be a negative number"),
        ({"port": 0}, "port (--port) 0 must be between 1 and 65535, inclusive"),
        ({"authorization_mode": "Maybe"}, "unknown authorization-mode Maybe"),
        ({"max_parallel_image_pulls": 2}, "cannot be larger than 1 unless SerializeImagePulls"),
        ({"eviction_hard": {"x": "1"}}, "unsupported eviction signal x"),
        ({"oom_score_adj": -1001}, "oomScoreAdj (--oom-score-adj) -1001 must be between -1000 and 1000"),
        ({"registry_pull_qps": -1}, "registryPullQPS (--registry-qps) -1 must not be a negative number"),
        ({"container_log_max_files": 1}, "containerLogMaxFiles must be greater than 1"),
        ({"feature_gates": {"X": True}}, "unrecognized feature gate: X"),
        (
            {"node_labels": {"node-role.kubernetes.io/worker": ""}},
            "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [node-role.kubernetes.io/worker]",
        ),
        ({"node_labels": {"a b": "c"}}, "invalid node labels: 'a b' - "),
        ({"cloud_provider": "aws"}, 'unsupported cloud provider "aws"'),
    ],
)  # fmt: skip
def test_what_does_not_go_together(changes: Obj, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(dataclasses.replace(KubeletConfig(), **changes))
    assert message in str(caught.value)


def test_settings_are_told_as_they_are_read() -> None:
    config = dataclasses.replace(KubeletConfig(), max_pods=9, cluster_dns=("1.1.1.1",), sync_frequency=90.0)
    told = configuration.to_object(config)
    assert (told["maxPods"], told["syncFrequency"]) == (9, "1m30s")
    assert from_object(told) == config


# Status

FACTS = NodeFacts(MACHINE, ["192.168.0.1"], "node1", "containerd", "1.6")


def test_what_can_be_allocated() -> None:
    facts = dataclasses.replace(
        FACTS,
        reservations=Reservations({"cpu": "100m", "memory": "1Gi"}, {"cpu": "400m"}, {"memory": 100 << 20}),
        devices={"example.com/gpu": (2, 1)},
    )
    assert node_status.capacity(facts)["memory"] == f"{8 << 20}Ki"
    found = node_status.allocatable(facts)
    assert found["cpu"] == "3500m"
    assert found["memory"] == f"{(7 << 20) - 100 * 1024}Ki"
    assert found["pods"] == "110"
    assert (node_status.capacity(facts)["example.com/gpu"], found["example.com/gpu"]) == ("2", "1")


def test_conditions_of_a_node() -> None:
    good = node_status.node_status(FACTS, {}, now=NOW)
    assert {each["type"]: each["status"] for each in good["conditions"]} == {
        "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True",
    }  # fmt: skip
    bad = node_status.node_status(
        dataclasses.replace(FACTS, faults=["a", "b"], pressures=frozenset({"DiskPressure"})),
        good,
        now=NOW + timedelta(minutes=1),
    )
    by_type = {each["type"]: each for each in bad["conditions"]}
    assert (by_type["Ready"]["reason"], by_type["Ready"]["message"]) == ("KubeletNotReady", "[a, b]")
    assert by_type["DiskPressure"]["message"] == "kubelet has disk pressure"
    assert by_type["MemoryPressure"]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert by_type["Ready"]["lastTransitionTime"] == "2026-01-01T00:01:00Z"
    assert node_status.changed(good, bad)
    assert not node_status.changed(good, node_status.node_status(FACTS, good, now=NOW + timedelta(minutes=1)))


def test_resources_that_an_administrator_advertises_can_be_used() -> None:
    before = node_status.node_status(FACTS, {}, now=NOW)
    before["capacity"]["example.com/dongle"] = "4"
    before["capacity"]["unknown"] = "1"
    after = node_status.node_status(FACTS, before, now=NOW)
    assert after["allocatable"]["example.com/dongle"] == after["capacity"]["example.com/dongle"] == "4"
    assert "unknown" not in after["allocatable"]
    assert node_status.changed(before, after)


def test_the_largest_images_are_listed() -> None:
    images = [Image(str(size), (f"i{size}:1",), (f"i{size}@sha256:x", "<none>@<none>"), size) for size in (1, 3, 2)]
    status = node_status.node_status(dataclasses.replace(FACTS, images=images, max_images=2), {}, now=NOW)
    assert status["images"] == [
        {"names": ["i3@sha256:x", "i3:1"], "sizeBytes": 3},
        {"names": ["i2@sha256:x", "i2:1"], "sizeBytes": 2},
    ]


def test_what_the_runtime_says_of_itself() -> None:
    ready = RuntimeCondition("RuntimeReady", True)
    assert node_status.runtime_faults([ready, RuntimeCondition("NetworkReady", True)]) == ("", "")
    _, network = node_status.runtime_faults(
        [ready, RuntimeCondition("NetworkReady", False, "NetworkPluginNotReady", "no CNI")]
    )
    assert network == (
        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no CNI"
    )
    assert node_status.runtime_faults([])[0] == "container runtime not ready: <nil>"


# Cgroups


def test_where_a_pods_cgroup_is() -> None:
    assert pod_path("/", pod()) == "/kubepods/besteffort/poduid-1"
    assert pod_path("/x", pod(container(resources={"requests": {"cpu": "1"}}))) == "/x/kubepods/burstable/poduid-1"


def test_what_is_written_to_a_cgroup() -> None:
    values = CgroupValues(1024, 50_000, 100_000, 1 << 30, {"hugepages-2Mi": 2 << 20}, 100)
    assert v1_files(values) == {
        "cpu": {"cpu.shares": "1024", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
        "memory": {"memory.limit_in_bytes": str(1 << 30)},
        "pids": {"pids.max": "100"},
        "hugetlb": {"hugetlb.2MB.limit_in_bytes": str(2 << 20)},
    }
    assert v2_files(values) == {
        "cpu.weight": "39", "cpu.max": "50000 100000", "memory.max": str(1 << 30), "pids.max": "100",
        "hugetlb.2MB.max": str(2 << 20),
    }  # fmt: skip
    assert v2_files(CgroupValues(2, -1))["cpu.max"] == "max 100000"


def test_a_growing_cgroup_takes_the_larger_limits() -> None:
    assert larger(CgroupValues(2, 100, memory=5), CgroupValues(4, 50, memory=9)) == CgroupValues(4, 100, memory=9)
    assert larger(CgroupValues(2, 100, memory=5), CgroupValues(4)) == CgroupValues(4)


async def test_what_a_dead_runtime_left_in_a_cgroup_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "100")
    listing = tmp_path / "memory/kubepods/besteffort/poduid-1/container/cgroup.procs"
    listing.parent.mkdir(parents=True)
    listing.write_text(f"{process.pid}\n")
    # A real cgroup's files go with its directory, once no process is in it.
    monkeypatch.setattr(Path, "rmdir", lambda path: remove_cgroup(path, process.returncode is None))
    await CgroupTree(mount=tmp_path).remove("uid-1")
    assert not listing.parent.exists()
    assert process.returncode == -9


def remove_cgroup(path: Path, busy: bool) -> None:
    if busy:
        raise OSError(16, "Device or resource busy")
    shutil.rmtree(path)


async def test_a_tree_of_cgroups(tmp_path: Path) -> None:
    def controllers(directory: Path) -> None:
        (directory / "cgroup.controllers").write_text("cpu memory pids rdma")
        (directory / "cgroup.subtree_control").touch()

    controllers(tmp_path)
    make = Path.mkdir

    def mkdir(self: Path, *args: object, **options: object) -> None:
        make(self, *args, **options)  # type: ignore[arg-type]
        if self.is_relative_to(tmp_path):
            controllers(self)
            for name in ("cpu.weight", "cpu.max", "memory.max", "pids.max"):
                (self / name).touch()

    tree = CgroupTree("/", mount=tmp_path, v2=True, node=CgroupValues(2048, memory=1 << 30), pids=50)
    owner = pod(container(resources={"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "64Mi"}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "mkdir", mkdir)
        await tree.ensure(owner)
    home = tmp_path / "kubepods" / "burstable" / "poduid-1"
    assert (home / "cpu.max").read_text() == "100000 100000"
    assert (home / "memory.max").read_text() == str(64 << 20)
    assert (home / "pids.max").read_text() == "50"
    assert (tmp_path / "kubepods" / "memory.max").read_text() == str(1 << 30)
    assert (tmp_path / "kubepods" / "burstable" / "cpu.weight").read_text() == "20"
    assert (tmp_path / "kubepods" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids +rdma"
    assert tree.pods() == {"uid-1"}


# Static pods

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: a, image: nginx, resources: {limits: {cpu: 1}}, livenessProbe: {tcpSocket: {port: 80}}}
  - {name: b, image: "nginx:1"}
"""


def test_a_static_pod_is_complete() -> None:
    (found,) = pods_of(MANIFEST, "node1", "file:/x", "file").values()
    meta, spec = found["metadata"], found["spec"]
    assert (meta["name"], meta["namespace"]) == ("web-node1", "default")
    assert meta["annotations"]["kubernetes.io/config.source"] == "file"
    assert meta["annotations"]["kubernetes.io/config.hash"] == meta["uid"]
    assert spec["nodeName"] == "node1"
    assert [each["imagePullPolicy"] for each in spec["containers"]] == ["Always", "IfNotPresent"]
    assert spec["containers"][0]["resources"]["requests"] == {"cpu": "1"}
    assert spec["containers"][0]["livenessProbe"]["periodSeconds"] == 10
    assert spec["tolerations"] == [{"operator": "Exists", "effect": "NoExecute"}]


def test_a_static_pods_identity_is_its_content() -> None:
    (first,) = pods_of(MANIFEST, "n", "file:/x", "file")
    (again,) = pods_of(MANIFEST, "n", "file:/x", "file")
    (edited,) = pods_of(MANIFEST.replace("nginx:1", "nginx:2"), "n", "file:/x", "file")
    (elsewhere,) = pods_of(MANIFEST, "m", "file:/x", "file")
    assert first == again
    assert len({first, edited, elsewhere}) == 3


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", ":{[", "kind: Service\napiVersion: v1", "kind: Pod\napiVersion: v1",
        "kind: Pod\napiVersion: v1\nmetadata: {name: x}\nspec: {containers: []}",
        "kind: Pod\napiVersion: v1\nmetadata: {}\nspec: {containers: [{name: a, image: b}]}",
        "kind: Pod\napiVersion: v1\nmetadata: {name: x}\n"
        "spec: {serviceAccountName: s, containers: [{name: a, image: b}]}",
        "kind: Pod\napiVersion: v1\nmetadata: {name: x}\n"
        "spec: {containers: [{name: a, image: b}], volumes: [{name: v, secret: {secretName: s}}]}",
    ],
)  # fmt: skip
def test_what_is_no_static_pod(text: str) -> None:
    with pytest.raises(StaticPodFault):
        pods_of(text, "n", "file:/x", "file")


_LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "10Mi", "A b", "/", "1s"])
_KEYS = st.sampled_from(
    ["name", "image", "containers", "volumes", "env", "resources", "limits", "cpu", "securityContext", "ports",
     "livenessProbe", "httpGet", "port", "hostPath", "path", "affinity", "tolerations", "labels", "annotations"]
)  # fmt: skip
_ANYTHING = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=4))


@given(metadata=_ANYTHING, spec=_ANYTHING, container=st.dictionaries(_KEYS, _ANYTHING, max_size=4))
def test_whatever_a_manifest_says_it_is_a_pod_or_refused(metadata: object, spec: object, container: Obj) -> None:
    if isinstance(spec, dict):
        spec = {"containers": [{"name": "a", "image": "b", **container}], **spec}
    if isinstance(metadata, dict):
        metadata = {"name": "x", **metadata}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    with contextlib.suppress(StaticPodFault):
        (made,) = pods_of(json.dumps(manifest), "n", "/x", "file").values()
        assert made["spec"]["nodeName"] == "n"


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("serviceAccountName: s", "serviceaccounts"),
        ("imagePullSecrets: [{name: s}]", "secrets"),
        ("volumes: [{name: v, configMap: {name: c}}]", "configmaps (via configmap volumes)"),
        ("volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", "persistentvolumeclaims"),
        ("volumes: [{name: v, projected: {sources: [{secret: {name: c}}]}}]", "secrets (via projected volumes)"),
    ],
)
def test_static_pods_stand_alone(spec: str, what: str) -> None:
    text = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: x}}\nspec:\n  containers: [{{name: a, image: b}}]\n  {spec}\n"
    with pytest.raises(StaticPodFault) as caught:
        pods_of(text, "n", "/x", "file")
    assert str(caught.value) == f"static pods may not reference {what}"


def test_garbage_keeps_no_other_file_from_being_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(":{[")
    (tmp_path / "b.yaml").write_text(MANIFEST)
    (tmp_path / ".hidden").write_text(MANIFEST.replace("web", "hidden"))
    (tmp_path / "c").write_bytes(b"\xff\xfe")
    assert [each["metadata"]["name"] for each in read_files(tmp_path, "n").values()] == ["web-n"]
    assert len(read_files(tmp_path / "b.yaml", "n")) == 1
    assert read_files(tmp_path / "none", "n") == {}


# Messages


def ended(tmp_path: Path, *, text: str | None, log: str = "", policy: str = "File", code: int = 1) -> Container:
    message, logs = tmp_path / "message", tmp_path / "0.log"
    if text is not None:
        message.write_text(text)
    logs.write_text(log)
    return Container(
        "id", "s", "c", 0, "i", "i", "EXITED", exit_code=code, log_path=str(logs),
        annotations={MESSAGE_PATH: "/dev/termination-log", MESSAGE_POLICY: policy},
        mounts=(Mount("/dev/termination-log", str(message)),),
    )  # fmt: skip


LOG = "2026-01-01T00:00:00.0Z stdout F one\n2026-01-01T00:00:01.0Z stderr P tw\n2026-01-01T00:00:01.0Z stderr F o\n"


@pytest.mark.parametrize(
    ("text", "policy", "code", "message"),
    [
        ("why", "File", 1, "why"),
        ("x" * 5000, "File", 1, "x" * 4096),
        ("", "File", 1, ""),
        (None, "File", 1, ""),
        ("", "FallbackToLogsOnError", 1, "one\ntwo\n"),
        (None, "FallbackToLogsOnError", 1, "one\ntwo\n"),
        ("why", "FallbackToLogsOnError", 1, "why"),
        ("", "FallbackToLogsOnError", 0, ""),
    ],
)
def test_termination_messages(tmp_path: Path, text: str | None, policy: str, code: int, message: str) -> None:
    assert termination_message(ended(tmp_path, text=text, log=LOG, policy=policy, code=code)) == message


def test_the_end_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("".join(f"t stdout F line {number:05}\n" for number in range(10_000)))
    tail = log_tail(log)
    assert tail.splitlines() == [f"line {number:05}" for number in range(9920, 10_000)]


# Seeing


class Listed:
    """A runtime that only lists."""

    def __init__(self) -> None:
        self.boxes: dict[str, Sandbox] = {}
        self.inside: dict[str, Container] = {}
        self.during: Callable[[], None] = lambda: None

    def add(self, uid: str, name: str, state: str = "RUNNING") -> None:
        self.boxes[f"s-{uid}"] = Sandbox(f"s-{uid}", uid, "ns", uid, 0, True, 1, ips=("10.0.0.1",))
        self.inside[name] = Container(name, f"s-{uid}", name, 0, "i", "i", state, 2, {"io.kubernetes.pod.uid": uid})  # type: ignore[arg-type]

    async def sandboxes(self) -> list[Sandbox]:
        found = list(self.boxes.values())
        self.during()
        return found

    async def containers(self) -> list[Container]:
        return list(self.inside.values())

    async def sandbox_status(self, identity: str) -> Sandbox:
        return self._find(self.boxes, identity)

    async def container_status(self, identity: str) -> Container:
        return self._find(self.inside, identity)

    def _find(self, where: dict[str, Container] | dict[str, Sandbox], identity: str) -> object:  # type: ignore[no-untyped-def]
        if identity not in where:
            raise RuntimeFault("NOT_FOUND", identity)
        return where[identity]


async def no_message(container: Container) -> str:
    return ""


async def test_changes_are_noticed_once() -> None:
    runtime, woken = Listed(), []
    pleg = Pleg(runtime, ManualClock(), woken.append, no_message, MEASURES)  # type: ignore[arg-type]
    runtime.add("u1", "a")
    await pleg.relist()
    await pleg.relist()
    assert woken == ["u1"]
    runtime.inside["a"] = dataclasses.replace(runtime.inside["a"], state="EXITED")
    await pleg.relist()
    assert woken == ["u1", "u1"]
    assert (await pleg.inspect("u1")).containers[0].exited
    runtime.boxes.clear()
    runtime.inside.clear()
    await pleg.relist()
    assert woken == ["u1"] * 3
    assert pleg.known() == []
    assert (await pleg.inspect("u1")).containers == ()


async def test_what_is_made_during_a_listing_is_not_forgotten() -> None:
    runtime = Listed()
    pleg = Pleg(runtime, ManualClock(), lambda uid: None, no_message, MEASURES)  # type: ignore[arg-type]
    await pleg.relist()

    def meanwhile() -> None:
        runtime.boxes["late"] = Sandbox("late", "u", "ns", "u", 0, True, 1, ips=("10.0.0.1",))
        pleg.note("u", sandbox_id="late")

    runtime.during = meanwhile
    await pleg.relist()
    assert [each.id for each in (await pleg.inspect("u")).sandboxes] == ["late"]
    runtime.during = lambda: None
    runtime.boxes.clear()
    await pleg.relist()
    await pleg.relist()
    assert (await pleg.inspect("u")).sandboxes == ()


async def test_without_listings_the_node_is_unwell() -> None:
    clock = ManualClock()
    pleg = Pleg(Listed(), clock, lambda uid: None, no_message, MEASURES)  # type: ignore[arg-type]
    assert pleg.healthy
    await clock.advance(181)
    assert not pleg.healthy
    await pleg.relist()
    assert pleg.healthy


async def test_what_was_begun_goes_before_what_is_new() -> None:
    gate, order = Turnstile(1), []

    async def pass_through(name: str, *, begun: bool) -> None:
        async with gate.passing(begun=begun):
            order.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name, begun in (("first", False), ("new", False), ("newer", False), ("begun", True)):
            group.create_task(pass_through(name, begun=begun))
        given_up = group.create_task(pass_through("given up", begun=True))
        await asyncio.sleep(0)
        given_up.cancel()
    assert order == ["first", "begun", "new", "newer"]
    async with asyncio.timeout(60), gate.passing(begun=False):
        pass
