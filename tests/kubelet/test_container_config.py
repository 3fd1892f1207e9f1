"""What the runtime is told, and what it is refused to be told."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.kubelet import observed, security
from shipwheel.kubelet.container_config import (
    ConfigFault,
    NodeSettings,
    Start,
    container_config,
    restored,
    sandbox_config,
)
from shipwheel.kubelet.dns import Resolver
from shipwheel.kubelet.observed import observe_container
from shipwheel.kubelet.runtime.base import (
    Container,
    ContainerConfig,
    Image,
    PortMapping,
    SandboxConfig,
    SecurityProfile,
)
from tests.kubelet.builders import container, pod

NODE = NodeSettings(memory_capacity=10 << 30, seccomp_root="/profiles")
IMAGE = Image("sha256:1", uid=1000)


def sandbox_of(owner: Obj) -> SandboxConfig:
    return sandbox_config(
        owner, NODE, attempt=2, hostname="h", resolver=Resolver(("1.1.1.1",)), cgroup_parent="/kubepods/x"
    )


def config_of(own: Obj, image: Image | None = IMAGE, *, target: str = "", **spec: object) -> ContainerConfig:
    owner = pod(own, **spec)
    start = Start(3, "sha256:1", image, {"A": "1"}, target_id=target)
    return container_config(owner, own, NODE, start)


def test_a_sandbox() -> None:
    ports = [
        {"containerPort": 80, "protocol": "TCP"},
        {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "name": "dns"},
        {"containerPort": 54, "hostPort": 5354, "protocol": "UDP", "name": "dns"},
    ]
    owner = pod(
        container(ports=ports, securityContext={"privileged": True}),
        meta={"labels": {"app": "x"}, "annotations": {"note": "y"}},
        securityContext={
            "sysctls": [{"name": "net/core/somaxconn", "value": "1"}],
            "fsGroup": 7,
            "supplementalGroups": [8],
        },
        shareProcessNamespace=True,
    )
    made = sandbox_of(owner)
    assert (made.hostname, made.attempt, made.cgroup_parent) == ("h", 2, "/kubepods/x")
    assert made.log_directory == "/var/log/pods/ns_p_uid-1"
    assert made.port_mappings == (PortMapping("TCP", 80, 0), PortMapping("UDP", 53, 5353))
    assert made.labels[observed.POD_UID] == "uid-1"
    assert made.labels["app"] == "x"
    assert made.annotations == {"note": "y"}
    assert made.sysctls == {"net.core.somaxconn": "1"}
    assert made.supplemental_groups == (7, 8)
    assert made.namespaces.pid == "POD"
    assert made.privileged


def test_the_hosts_namespaces() -> None:
    made = sandbox_of(pod(hostNetwork=True, hostPID=True, hostIPC=True))
    assert (made.namespaces.network, made.namespaces.pid, made.namespaces.ipc) == ("NODE", "NODE", "NODE")
    assert made.hostname == ""


def test_a_container() -> None:
    own = container(
        command=["run", "$(A)", "$(B)"], args=["$$(A)"], workingDir="/w", tty=True, stdin=True,
        resources={"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"memory": "512Mi"}},
        terminationMessagePath="/dev/termination-log", ports=[{"containerPort": 80}],
    )  # fmt: skip
    made = config_of(own)
    assert (made.command, made.args) == (("run", "1", "$(B)"), ("$(A)",))
    assert (made.log_path, made.attempt, made.working_dir) == ("c/3.log", 3, "/w")
    assert (made.tty, made.stdin, made.stdin_once) == (True, True, False)
    assert (made.resources.cpu_quota, made.resources.memory_limit_bytes) == (50_000, 1 << 30)
    assert made.resources.oom_score_adj == 950
    assert (made.run_as_user, made.run_as_username) == (1000, "")
    assert made.masked_paths == security.MASKED_PATHS
    assert made.seccomp == SecurityProfile("Unconfined")
    assert made.env == (("A", "1"),)


def test_a_container_tells_its_successor_what_it_is() -> None:
    handler = {"exec": {"command": ["bye"]}}
    own = container(lifecycle={"preStop": handler}, ports=[{"containerPort": 80}], terminationMessagePolicy="File")
    made = config_of(own, terminationGracePeriodSeconds=45)
    again, restored_container = restored(made.labels, made.annotations)
    assert again["metadata"] == {"name": "p", "namespace": "ns", "uid": "uid-1"}
    assert again["spec"]["terminationGracePeriodSeconds"] == 45
    assert restored_container["lifecycle"] == {"preStop": handler}
    status = Container(
        "id", "s", "c", 3, "image:1", "sha256:1", "EXITED", labels=made.labels, annotations=made.annotations,
        exit_code=1, reason="Error", message="runtime says",
    )  # fmt: skip
    found = observe_container(status, message="program says")
    assert (found.restart_count, found.message) == (3, "runtime says: program says")
    assert found.hash == made.annotations[observed.CONTAINER_HASH]


def test_a_containers_settings_override_its_pods() -> None:
    own = container(securityContext={
        "runAsUser": 5, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False, "procMount": "Unmasked",
        "seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"},
        "appArmorProfile": {"type": "Localhost", "localhostProfile": "a"},
    })  # fmt: skip
    context = {
        "runAsUser": 4,
        "runAsGroup": 6,
        "seccompProfile": {"type": "RuntimeDefault"},
        "supplementalGroupsPolicy": "Strict",
    }
    made = config_of(own, securityContext=context)
    assert (made.run_as_user, made.run_as_group) == (5, 6)
    assert (made.add_capabilities, made.drop_capabilities) == (("NET_ADMIN",), ("ALL",))
    assert (made.readonly_rootfs, made.no_new_privs, made.masked_paths, made.readonly_paths) == (
        True,
        True,
        (),
        (),
    )
    assert made.seccomp == SecurityProfile("Localhost", "/profiles/p.json")
    assert made.apparmor == SecurityProfile("Localhost", "a")
    assert made.supplemental_groups_policy == "Strict"
    assert config_of(container(), securityContext=context).seccomp == SecurityProfile("RuntimeDefault")


def test_an_ephemeral_container_sees_its_targets_processes() -> None:
    assert config_of(container(), target="id-1").namespaces.pid == "TARGET"
    assert config_of(container(), target="id-1", shareProcessNamespace=True).namespaces.pid == "POD"


@pytest.mark.parametrize(
    ("context", "image", "message"),
    [
        ({"runAsNonRoot": True, "runAsUser": 0}, IMAGE, "container's runAsUser breaks non-root policy"),
        ({"runAsNonRoot": True}, Image("x", uid=0), "container has runAsNonRoot and image will run as root"),
        ({"runAsNonRoot": True}, Image("x"), "container has runAsNonRoot and image will run as root"),
        ({"runAsNonRoot": True}, None, "container has runAsNonRoot and image will run as root"),
        ({"runAsNonRoot": True}, Image("x", username="web"), "image has non-numeric user (web)"),
        ({"seccompProfile": {"type": "Localhost"}}, IMAGE, "localhostProfile must be set"),
    ],
)
def test_what_is_refused(context: Obj, image: Image | None, message: str) -> None:
    with pytest.raises(ConfigFault) as caught:
        config_of(container(securityContext=context), image)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("context", "image"),
    [
        ({"runAsNonRoot": True}, IMAGE),
        ({"runAsNonRoot": True, "runAsUser": 1}, Image("x", uid=0)),
    ],
)
def test_what_is_not_root_runs(context: Obj, image: Image) -> None:
    assert config_of(container(securityContext=context), image)


def test_the_kernel_may_not_allow_a_low_oom_score() -> None:
    own = container(resources={"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}})
    owner = pod(own)
    node = NodeSettings(memory_capacity=10 << 30, minimum_oom_score=0)
    made = container_config(owner, own, node, Start(0, "x", None, {}))
    assert made.resources.oom_score_adj == 0
