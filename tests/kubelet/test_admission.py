"""What the node takes, and what it refuses in the scheduler's words."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.kubelet.admission import Rules, admit
from tests.kubelet.builders import container, pod

ROOM = {"cpu": "4", "memory": "8Gi", "pods": "3", "ephemeral-storage": "100Gi"}


def node(labels: Obj | None = None, *taints: Obj) -> Obj:
    return {"metadata": {"name": "n1", "labels": labels or {}}, "spec": {"taints": list(taints)}}


def sized(cpu: str, name: str = "p", priority: int = 0, **fields: object) -> Obj:
    own = container(resources={"requests": {"cpu": cpu}}, **fields)
    return pod(own, meta={"name": name, "uid": name}, priority=priority)


def reason(owner: Obj, *others: Obj, on: Obj | None = None, rules: Rules | None = None) -> str:
    verdict = admit(owner, others, on or node(), ROOM, rules=rules)
    return verdict.reason if verdict else ""


def test_what_fits_is_taken() -> None:
    assert reason(sized("1"), sized("3", "q")) == ""


@pytest.mark.parametrize(
    ("owner", "others", "refused"),
    [
        (sized("2"), [sized("3", "q")], "OutOfcpu"),
        (sized("1m"), [sized("1m", "q"), sized("1m", "r"), sized("1m", "s")], "OutOfpods"),
        (pod(container(resources={"requests": {"memory": "9Gi"}})), [], "OutOfmemory"),
        (pod(container(resources={"requests": {"ephemeral-storage": "1Ti"}})), [], "OutOfephemeral-storage"),
        (pod(container(resources={"requests": {"hugepages-2Mi": "2Mi"}})), [], "OutOfhugepages-2Mi"),
        (pod(container(resources={"requests": {"example.com/unknown": "1"}})), [], ""),
    ],
)
def test_what_does_not_fit(owner: Obj, others: list[Obj], refused: str) -> None:
    assert reason(owner, *others) == refused


def term(*expressions: Obj, fields: tuple[Obj, ...] = ()) -> Obj:
    terms = [{"matchExpressions": list(expressions), "matchFields": list(fields)}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def need(key: str, operator: str, *values: str) -> Obj:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({"nodeSelector": {"disk": "ssd"}}, True),
        ({"nodeSelector": {"disk": "hdd"}}, False),
        ({"affinity": term(need("disk", "In", "ssd", "nvme"))}, True),
        ({"affinity": term(need("disk", "NotIn", "ssd"))}, False),
        ({"affinity": term(need("zone", "DoesNotExist"))}, True),
        ({"affinity": term(need("zone", "Exists"))}, False),
        ({"affinity": term(need("cores", "Gt", "8"))}, True),
        ({"affinity": term(need("cores", "Lt", "8"))}, False),
        ({"affinity": term(need("disk", "Gt", "8"))}, False),
        ({"affinity": term(fields=(need("metadata.name", "In", "n1"),))}, True),
        ({"affinity": term(fields=(need("metadata.name", "In", "n2"),))}, False),
        ({"affinity": term()}, False),
    ],
)
def test_affinity(spec: Obj, fits: bool) -> None:
    on = node({"disk": "ssd", "cores": "16"})
    verdict = admit(pod(**spec), [], on, ROOM)
    assert (verdict is None) == fits
    if verdict is not None:
        assert (verdict.reason, verdict.message) == (
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        )


@pytest.mark.parametrize(
    ("mine", "taken", "fits"),
    [
        ({"hostPort": 80}, {"hostPort": 80}, False),
        ({"hostPort": 80}, {"hostPort": 81}, True),
        ({"hostPort": 80, "protocol": "UDP"}, {"hostPort": 80}, True),
        ({"hostPort": 80, "hostIP": "1.1.1.1"}, {"hostPort": 80, "hostIP": "2.2.2.2"}, True),
        ({"hostPort": 80, "hostIP": "1.1.1.1"}, {"hostPort": 80}, False),
        ({"containerPort": 80}, {"containerPort": 80}, True),
    ],
)
def test_host_ports(mine: Obj, taken: Obj, fits: bool) -> None:
    verdict = admit(pod(container(ports=[mine])), [pod(container(ports=[taken]))], node(), ROOM)
    assert (verdict is None) == fits


@pytest.mark.parametrize(
    ("tolerations", "fits"),
    [
        ([], False),
        ([{"operator": "Exists"}], True),
        ([{"key": "down", "operator": "Exists", "effect": "NoExecute"}], True),
        ([{"key": "down", "operator": "Exists", "effect": "NoSchedule"}], False),
        ([{"key": "down", "value": "yes"}], True),
        ([{"key": "down", "value": "no"}], False),
    ],
)
def test_taints(tolerations: list[Obj], fits: bool) -> None:
    on = node({}, {"key": "down", "value": "yes", "effect": "NoExecute"}, {"key": "x", "effect": "NoSchedule"})
    assert reason(pod(tolerations=tolerations), on=on) == ("" if fits else "TaintToleration")


def test_a_critical_pod_makes_room() -> None:
    critical = sized("3", "critical", 2_000_000_000)
    verdict = admit(critical, [sized("1", "low"), sized("2", "high", 5), sized("1", "other", 9)], node(), ROOM)
    assert verdict is not None
    assert verdict.reason == ""
    assert set(verdict.victims) == {"low", "high"}
    assert verdict.ending is not None
    assert verdict.ending.reason == "Preempting"
    assert reason(sized("9", "critical", 2_000_000_000), sized("1", "low")) == "OutOfcpu"


@pytest.mark.parametrize(
    ("name", "spec", "refused"),
    [
        ("net.ipv4.tcp_syncookies", {}, ""),
        ("net/ipv4/tcp_syncookies", {}, ""),
        ("net.ipv4.tcp_syncookies", {"hostNetwork": True}, "SysctlForbidden"),
        ("kernel.shm_rmid_forced", {"hostIPC": True}, "SysctlForbidden"),
        ("kernel.msgmax", {}, "SysctlForbidden"),
        ("net.core.somaxconn", {}, ""),
        ("vm.swappiness", {}, "SysctlForbidden"),
    ],
)
def test_sysctls(name: str, spec: Obj, refused: str) -> None:
    owner = pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **spec)
    assert reason(owner, rules=Rules(allowed_sysctls=("net.core.*",))) == refused


def test_apparmor_must_be_enforceable() -> None:
    own = container(securityContext={"appArmorProfile": {"type": "RuntimeDefault"}})
    assert reason(pod(own), rules=Rules(apparmor=False)) == "AppArmor"
    assert reason(pod(own), rules=Rules(apparmor=True)) == ""
    own["securityContext"]["appArmorProfile"]["type"] = "Unconfined"
    assert reason(pod(own), rules=Rules(apparmor=False)) == ""


def test_what_this_node_is_not_for() -> None:
    assert reason(pod(os={"name": "linux"}, meta={"labels": {"kubernetes.io/os": "linux"}})) == ""
    assert reason(pod(os={"name": "windows"})) == "PodOSNotSupported"
    assert reason(pod(meta={"labels": {"kubernetes.io/os": "windows"}})) == "PodOSSelectorNodeLabelDoesNotMatch"


def test_groups_of_images_can_be_left_out_only_where_the_runtime_can() -> None:
    strict = pod(securityContext={"supplementalGroupsPolicy": "Strict"})
    assert reason(strict) == ""
    cannot = Rules(strict_groups=lambda: False)
    assert reason(strict, rules=cannot) == "SupplementalGroupsPolicyNotSupported"
    assert reason(pod(securityContext={"supplementalGroupsPolicy": "Merge"}), rules=cannot) == ""
