"""What a node of a cluster has on this machine: its namespaces, its containerd, its images, its network."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shipwheel.admin.kernel import remove_empty_cgroups
from shipwheel.admin.layout import RUN, Layout, NodeSettings, Settings

if TYPE_CHECKING:
    from shipwheel.admin.containerd import ContainerdConfig
    from shipwheel.admin.namespaces import Namespaces
    from shipwheel.network import cni


RESOLV_CONF = Path("/etc/resolv.conf")


def containerd_config(layout: Layout, node: str) -> ContainerdConfig:
    from shipwheel.admin.containerd import ContainerdConfig, default_cni_bin_dir

    return ContainerdConfig(
        root=layout.images(node),
        state=layout.run / node,
        cni_conf_dir=layout.node(node) / "cni",
        cni_bin_dir=default_cni_bin_dir(),
        log=layout.log(f"containerd-{node}"),
    )


def network_config(layout: Layout, settings: Settings, node: str) -> cni.Config:
    from shipwheel.network import cni

    return cni.Config(
        name=layout.network,
        node_name=node,
        configuration_dir=layout.node(node) / "cni",
        state_dir=layout.node(node) / "addresses",
        cluster_cidrs=(settings.pod_cidr,),
    )


def namespaces_of(layout: Layout, node: str) -> Namespaces:
    from shipwheel.admin.namespaces import Namespaces
    from shipwheel.admin.traces import DIRECTORIES

    # The mounts of other nodes' containers, of whichever cluster, are none of its affair.
    hidden = (RUN, layout.data / "nodes")
    return Namespaces(
        hostname=node,
        directory=layout.machine(node),
        hidden=hidden,
        fresh=DIRECTORIES,
        kept=layout.places(node),
    )


def boot(layout: Layout, settings: Settings, node: NodeSettings) -> Namespaces:
    """Have the machine of a node run: in its namespaces, tied to the bridge. What its containers were tied to is
    gone with them, as after any start of a machine. Raises OSError."""
    from shipwheel.admin import bridge

    namespaces = namespaces_of(layout, node.name)
    if namespaces.first() is None:
        for directory in (layout.run / node.name, network_config(layout, settings, node.name).state_dir):
            shutil.rmtree(directory, ignore_errors=True)
        bridge.ensure(layout, settings)
        files = {str(RESOLV_CONF): resolvers_of_nodes(read_text(RESOLV_CONF), settings.gateway)}
        first = replace(namespaces, files=files).boot(layout.node(node.name) / "machine-id")
        bridge.connect(layout, node, first)
    return namespaces


def resolvers_of_nodes(resolv_conf: str, gateway: str) -> str:
    """A resolv.conf as nodes in namespaces have it: what is on the machine's loopback is out of their reach, and the
    machine itself (`gateway`) asks in their place."""
    lines = [
        f"nameserver {gateway}" if line.startswith(("nameserver 127.", "nameserver ::1")) else line
        for line in resolv_conf.splitlines()
    ]
    return "\n".join(dict.fromkeys(lines))


def read_text(path: Path) -> str:
    """Empty where there is no such file."""
    return path.read_text() if path.exists() else ""


def kill(layout: Layout, node: str) -> None:
    """Have a machine in namespaces lose its power. Raises TimeoutError."""
    namespaces_of(layout, node).kill()
    remove_empty_cgroups(cgroup_of(layout, node))
    remove_empty_cgroups("k8s.io")
    shutil.rmtree(layout.run / node, ignore_errors=True)


def cgroup_of(layout: Layout, node: str) -> str:
    """Under which all pods of a node are."""
    return f"{layout.network}/{node}"


async def import_images(config: ContainerdConfig, archive: bytes) -> None:
    """Give the images of an archive (OCI or Docker) to a node. Raises `ImageError`."""
    from shipwheel.admin.images import import_archive

    await import_archive(archive, socket=config.socket, snapshotter=snapshotter_of(config))


def snapshotter_of(config: ContainerdConfig) -> str:
    from shipwheel.admin.containerd import snapshotter_for
    from shipwheel.admin.kernel import filesystem_of

    return snapshotter_for(filesystem_of(config.root.resolve(), Path("/proc/self/mountinfo").read_text()))
