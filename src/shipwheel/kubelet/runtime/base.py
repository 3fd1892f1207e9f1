"""What a container runtime is to the kubelet: the Container Runtime Interface (CRI v1), as plain data.

`cri` speaks to containerd or any other CRI runtime over its socket; `simulated` starts no process and lets
containers live as their pods declare. One contract suite runs on both (tests/kubelet).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

NANOSECOND = 1e-9


class RuntimeFault(Exception):
    """The runtime refused or failed. `code` is the gRPC status's name (`NOT_FOUND`, `UNAVAILABLE`, ...) and
    the message what the runtime said. As text it is what events and statuses show: `rpc error: code = NotFound
    desc = ...`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        name = "OK" if self.code == "OK" else self.code.title().replace("_", "")
        return f"rpc error: code = {name} desc = {self.message}"


@dataclass(frozen=True, slots=True)
class NamespaceModes:
    """Which Linux namespaces a pod shares with whom (CRI NamespaceOption)."""

    network: Literal["POD", "NODE"] = "POD"
    pid: Literal["POD", "CONTAINER", "NODE", "TARGET"] = "CONTAINER"
    ipc: Literal["POD", "NODE"] = "POD"
    target_id: str = ""
    user: Literal["POD", "NODE"] = "NODE"
    uid_mappings: Sequence[tuple[int, int, int]] = ()
    """(host id, container id, length)"""
    gid_mappings: Sequence[tuple[int, int, int]] = ()


@dataclass(frozen=True, slots=True)
class SecurityProfile:
    kind: Literal["RuntimeDefault", "Unconfined", "Localhost"]
    localhost_ref: str = ""


@dataclass(frozen=True, slots=True)
class PortMapping:
    protocol: Literal["TCP", "UDP", "SCTP"]
    container_port: int
    host_port: int
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    name: str
    namespace: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    log_directory: str = ""
    dns_servers: Sequence[str] = ()
    dns_searches: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    port_mappings: Sequence[PortMapping] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    namespaces: NamespaceModes = field(default_factory=NamespaceModes)
    run_as_user: int | None = None
    run_as_group: int | None = None
    supplemental_groups: Sequence[int] = ()
    privileged: bool = False
    readonly_rootfs: bool = False
    seccomp: SecurityProfile | None = None
    selinux: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    container_path: str
    host_path: str
    readonly: bool = False
    propagation: Literal["PRIVATE", "HOST_TO_CONTAINER", "BIDIRECTIONAL"] = "PRIVATE"
    selinux_relabel: bool = False
    image: str = ""
    image_sub_path: str = ""
    recursive_read_only: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    container_path: str
    host_path: str
    permissions: str = "mrw"


@dataclass(frozen=True, slots=True)
class LinuxResources:
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    memory_limit_bytes: int = 0
    oom_score_adj: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    hugepage_limits: Mapping[str, int] = field(default_factory=dict)
    unified: Mapping[str, str] = field(default_factory=dict)
    memory_swap_limit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    name: str
    image: str
    """The reference to run: an image id or repo@digest that `image_status` or `pull_image` gave."""
    attempt: int = 0
    user_specified_image: str = ""
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    working_dir: str = ""
    env: Sequence[tuple[str, str]] = ()
    mounts: Sequence[Mount] = ()
    devices: Sequence[Device] = ()
    cdi_devices: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""
    """Relative to the sandbox's log directory."""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: LinuxResources = field(default_factory=LinuxResources)
    namespaces: NamespaceModes = field(default_factory=NamespaceModes)
    run_as_user: int | None = None
    run_as_username: str = ""
    run_as_group: int | None = None
    supplemental_groups: Sequence[int] = ()
    supplemental_groups_policy: Literal["Merge", "Strict"] = "Merge"
    privileged: bool = False
    readonly_rootfs: bool = False
    no_new_privs: bool = False
    add_capabilities: Sequence[str] = ()
    drop_capabilities: Sequence[str] = ()
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None
    selinux: Mapping[str, str] | None = None
    masked_paths: Sequence[str] = ()
    readonly_paths: Sequence[str] = ()
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`ips` and `namespaces` are filled by `sandbox_status` only."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    ready: bool
    created_at: int
    """Nanoseconds since 1970."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    runtime_handler: str = ""
    ips: Sequence[str] = ()
    namespaces: NamespaceModes = field(default_factory=NamespaceModes)


@dataclass(frozen=True, slots=True)
class Container:
    """Times are nanoseconds since 1970, 0 when it has not happened. What is below `state` but for
    filled by `container_status` only."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    image: str
    image_ref: str
    state: Literal["CREATED", "RUNNING", "EXITED", "UNKNOWN"]
    created_at: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    log_path: str = ""
    image_id: str = ""
    mounts: Sequence[Mount] = ()
    resources: LinuxResources | None = None
    user: tuple[int, int, Sequence[int]] | None = None
    """(uid, gid, supplementary groups) of the first process, if the runtime tells."""


@dataclass(frozen=True, slots=True)
class Image:
    id: str
    repo_tags: Sequence[str] = ()
    repo_digests: Sequence[str] = ()
    size: int = 0
    uid: int | None = None
    username: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class ImageCredentials:
    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""


@dataclass(frozen=True, slots=True)
class ExecResult:
    stdout: bytes
    stderr: bytes
    exit_code: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container or a sandbox uses; times in nanoseconds since 1970, sizes in bytes."""

    id: str
    timestamp: int = 0
    cpu_nanoseconds: int = 0
    memory_working_set: int = 0
    memory_usage: int = 0
    memory_rss: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    filesystem_bytes: int = 0
    filesystem_inodes: int = 0


@dataclass(frozen=True, slots=True)
class FilesystemUsage:
    mountpoint: str
    timestamp: int
    used_bytes: int
    inodes_used: int


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    name: str
    version: str
    api_version: str = "v1"


@dataclass(frozen=True, slots=True)
class RuntimeCondition:
    kind: str
    """`RuntimeReady` or `NetworkReady`."""
    ok: bool
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeHandler:
    """What one of the runtime's handlers can do; the default one has no name."""

    name: str = ""
    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    conditions: Sequence[RuntimeCondition] = ()
    handlers: Sequence[RuntimeHandler] = ()
    """Empty where the runtime does not tell (before CRI 1.30): then none of it can be counted on."""
    supplemental_groups_policy: bool = False

    def handler(self, name: str) -> RuntimeHandler:
        return next((each for each in self.handlers if each.name == name), RuntimeHandler(name))


class Runtime(Protocol):
    """Every method may raise `RuntimeFault`. Stopping and removing what is gone already succeeds."""

    async def info(self) -> RuntimeInfo: ...

    async def status(self) -> RuntimeStatus: ...

    async def set_pod_cidr(self, cidr: str) -> None:
        """Tell the runtime the node's address range (`UpdateRuntimeConfig`)."""

    async def run_sandbox(self, config: SandboxConfig, *, runtime_handler: str = "") -> str:
        """Make a pod's sandbox, network included; returns its id."""

    async def stop_sandbox(self, sandbox_id: str) -> None: ...

    async def remove_sandbox(self, sandbox_id: str) -> None: ...

    async def sandboxes(self) -> list[Sandbox]: ...

    async def sandbox_status(self, sandbox_id: str) -> Sandbox: ...

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox_config: SandboxConfig
    ) -> str: ...

    async def start_container(self, container_id: str) -> None: ...

    async def stop_container(self, container_id: str, timeout: int) -> None:
        """Ask it to end, and kill it after `timeout` seconds."""

    async def remove_container(self, container_id: str) -> None: ...

    async def containers(self) -> list[Container]: ...

    async def container_status(self, container_id: str) -> Container: ...

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None: ...

    async def reopen_log(self, container_id: str) -> None: ...

    async def checkpoint(self, container_id: str, location: str, timeout: int) -> None:
        """Write the container's state to a file; seconds, 0 for the runtime's own limit."""

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        """Run a command to its end; RuntimeFault DEADLINE_EXCEEDED after `timeout` seconds (0: no limit)."""

    async def exec_url(
        self, container_id: str, command: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        """Where to stream the command's input and output (SPDY or WebSocket remotecommand)."""

    async def attach_url(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> str: ...

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str: ...

    async def sandbox_process(self, sandbox_id: str) -> int:
        """A process in the sandbox's cgroup and namespaces; 0 when there is none, or the runtime does not tell."""

    async def container_process(self, container_id: str) -> int:
        """The container's first process; 0 like `sandbox_process`."""

    def answers(self, container_id: str) -> bool | None:
        """Whether something answers at the container's ports; None: only connecting to them can tell."""

    async def usage(self) -> dict[str, Usage]:
        """By container id."""

    async def pull_image(self, image: str, credentials: ImageCredentials | None, sandbox: SandboxConfig | None) -> str:
        """Fetch an image; returns the reference to run it by."""

    async def images(self) -> list[Image]: ...

    async def image_status(self, image: str) -> Image | None: ...

    async def remove_image(self, image: str) -> None: ...

    async def image_filesystems(self) -> list[FilesystemUsage]: ...
