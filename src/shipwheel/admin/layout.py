"""Where a cluster keeps what on disk, and the choices it was made with.

Everything a cluster has lies in its data directory, so that removing that directory removes it. The exception
are sockets and the mounts of running containers: their paths must be short, and they are gone after a reboot.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

import msgspec

from shipwheel.admin.pki import write_private

RuntimeKind = Literal["containerd", "simulated"]
StoreKind = Literal["sqlite", "etcd"]

RUN = Path("/run/shipwheel")
KUBELET, POD_LOGS, CONTAINER_LOGS = (Path("/var", each) for each in ("lib/kubelet", "log/pods", "log/containers"))
"""What every kubelet has of its own on a machine that is a node and nothing else."""


class LayoutError(Exception):
    """What is on disk does not fit; the message says what to do."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """A node of the cluster, as it shall be."""

    name: str
    address: str = ""
    """Its own, when it lives in namespaces of its own; empty for one that is this machine itself."""
    stopped: bool = False
    """By `node stop`; it stays so until `node start`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a cluster was made with. It is written down at the first start, and when its nodes change.

    What is added here needs a default, for the clusters that older versions made."""

    name: str
    runtime: RuntimeKind
    store: StoreKind
    port: int
    address: str
    """This machine's address, as nodes and pods see it."""
    service_cidr: str = "10.96.0.0/16"
    pod_cidr: str = "10.244.0.0/16"
    domain: str = "cluster.local"
    simulated_nodes: int = 0
    """Lightweight ones, besides the others."""
    stages: str = ""
    """The file by which their pods live; empty for the default stages."""
    node_cidr: str = "10.112.0.0/24"
    """Addresses of the nodes in namespaces of their own; the first is the machine's."""
    nodes: tuple[NodeSettings, ...] = (NodeSettings("node-1"),)
    ports: dict[str, int] = field(default_factory=dict)
    """The other ports on this machine that its components listen on, by purpose."""

    @property
    def context(self) -> str:
        """The name of its context, cluster and user in kubeconfig files."""
        return f"shipwheel-{self.name}"

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def gateway(self) -> str:
        """This machine's address, as nodes in namespaces of their own see it."""
        return str(ip_network(self.node_cidr)[1])

    @property
    def running_nodes(self) -> tuple[NodeSettings, ...]:
        return tuple(each for each in self.nodes if not each.stopped)

    @property
    def machine_is_node(self) -> bool:
        return any(not each.address for each in self.nodes)

    def node(self, name: str) -> NodeSettings | None:
        return next((each for each in self.nodes if each.name == name), None)

    def server_for(self, node: NodeSettings) -> str:
        """The API server's URL, as a node sees it."""
        return f"https://{self.gateway}:{self.port}" if node.address else self.server


@dataclass(frozen=True, slots=True)
class Layout:
    name: str
    data: Path

    @classmethod
    def of(cls, name: str, data_dir: Path | None = None) -> Layout:
        return cls(name, (data_dir or home() / ".shipwheel" / name).resolve())

    @property
    def pki(self) -> Path:
        return self.data / "pki"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def database(self) -> Path:
        return self.data / "store" / "state.db"

    @property
    def volumes(self) -> Path:
        """Of the built-in provisioner, on every node of this machine."""
        return self.data / "volumes"

    @property
    def recycler(self) -> Path:
        """The pod that empties volumes."""
        return self.data / "recycler.json"

    @property
    def etcd(self) -> Path:
        return self.data / "etcd"

    @property
    def lock(self) -> Path:
        return self.data / "supervisor.lock"

    @property
    def change_lock(self) -> Path:
        """Held by whoever changes the settings of a running cluster."""
        return self.data / "change.lock"

    @property
    def state(self) -> Path:
        return self.data / "supervisor.json"

    @property
    def settings(self) -> Path:
        return self.data / "cluster.json"

    @property
    def run(self) -> Path:
        """Sockets and mounts. The same name in two data directories is two clusters."""
        tag = hashlib.sha256(str(self.data).encode()).hexdigest()[:6]
        return RUN / f"{self.name}-{tag}"

    @property
    def network(self) -> str:
        """What the names of this cluster's rules and networks on the machine begin with."""
        return f"shipwheel-{self.run.name}"

    @property
    def network_namespace(self) -> Path:
        """Says in which one the cluster is up, as `/proc/PID/ns/net` does; there are its rules and routes."""
        return self.run / "network-namespace"

    @property
    def machine_before(self) -> Path:
        return self.data / "machine-before.json"

    def owned(self) -> list[Path]:
        """What is in the data directory and ours."""
        names = {"pki", "logs", "store", "etcd", "containerd", "nodes", "volumes"}
        files = {self.lock, self.change_lock, self.state, self.settings, self.machine_before, self.recycler}
        return [
            each
            for each in (self.data.iterdir() if self.data.is_dir() else ())
            if each.name in names or each in files or each.suffix == ".conf"
        ]

    def foreign(self) -> list[Path]:
        """What somebody else keeps in it."""
        return sorted(set(self.data.iterdir()) - set(self.owned())) if self.data.is_dir() else []

    def kubeconfig(self, who: str = "admin") -> Path:
        """`admin`, `controller-manager`, `scheduler`, `kube-proxy`, `dns`, `simulated-nodes`, or a node's name."""
        return self.data / f"{who}.conf"

    def node(self, node: str) -> Path:
        """What the kubelet of a node keeps."""
        return self.data / "nodes" / node

    def places(self, node: str) -> dict[Path, Path]:
        """What a node in namespaces keeps, by where it is there: where drivers and log collectors expect it on any
        machine."""
        home = self.node(node)
        return {KUBELET: home, POD_LOGS: home / "logs", CONTAINER_LOGS: home / "containers"}

    def images(self, node: str) -> Path:
        """What the containerd of a node keeps."""
        return self.data / "containerd" / node

    def machine(self, node: str) -> Path:
        """What is said in a node's namespaces of its machine, while that runs."""
        return self.run / f"{node}.machine"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def read_settings(self) -> Settings | None:
        """For whoever runs or changes the cluster. Raises `LayoutError` when the file is damaged, or says what only
        a newer version understands."""
        found = self._read()
        if found is None:
            return None
        settings, unknown = found
        if unknown:
            raise LayoutError(
                f"{self.settings} was made by a newer version of Shipwheel (this one does not know "
                f"{', '.join(unknown)}); use that version, or take the cluster down first"
            )
        return settings

    def known_settings(self) -> Settings | None:
        """What this version understands of them, which does for looking at a cluster and for taking it away. Raises
        `LayoutError` when the file is damaged."""
        found = self._read()
        return None if found is None else found[0]

    def _read(self) -> tuple[Settings, list[str]] | None:
        try:
            settings, unknown = decode(self.settings.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise LayoutError(f"{self.settings} is damaged: {error}") from error
        if settings.name != self.name:
            raise LayoutError(f'{self.data} has the cluster "{settings.name}", not "{self.name}"')
        return settings, unknown

    def write_settings(self, settings: Settings) -> None:
        write_private(self.settings, json.dumps(asdict(settings), indent=2).encode() + b"\n", mode=0o644)


def decode(text: bytes) -> tuple[Settings, list[str]]:
    """The settings in a file, and the paths of the fields that this version does not know. Raises ValueError, which
    says what is wrong and where."""
    raw = json.loads(text)
    settings = msgspec.convert(raw, Settings)
    for name in ("service_cidr", "pod_cidr", "node_cidr"):
        try:
            ip_network(getattr(settings, name))
        except ValueError as error:
            raise ValueError(f"{error} - at `$.{name}`") from None
    unknown = _unknown(raw, Settings, "")
    for number, node in enumerate(raw.get("nodes", ())):
        unknown += _unknown(node, NodeSettings, f"nodes[{number}].")
    return settings, unknown


def _unknown(raw: dict[str, Any], kind: type[Settings] | type[NodeSettings], where: str) -> list[str]:
    known = {each.name for each in fields(kind)}
    return [f'"{where}{name}"' for name in raw if name not in known]


def home() -> Path:
    """The home of whoever is at the keyboard: with sudo, not root's."""
    user = invoking_user()
    return Path(user.pw_dir) if user else Path.home()


def invoking_user() -> pwd.struct_passwd | None:
    """Who called sudo, if somebody did."""
    name = os.environ.get("SUDO_USER", "")
    if os.geteuid() != 0 or name in ("", "root"):
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def clusters() -> Iterator[tuple[Layout, Settings]]:
    """The clusters on this machine that are up, or were not taken down, and so keep something in `/run/shipwheel`;
    those whose settings cannot be read are passed over, for they are no other cluster's affair."""
    for link in RUN.glob("*/data"):
        layout = Layout.of(link.parent.name.rpartition("-")[0], link.resolve())
        with contextlib.suppress(LayoutError, OSError):
            settings = layout.known_settings()
            if settings is not None:
                yield layout, settings
