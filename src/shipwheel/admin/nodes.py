"""What a node of a cluster has on this machine: its containerd, its images, its network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shipwheel.admin.layout import Layout, Settings

if TYPE_CHECKING:
    from shipwheel.admin.containerd import ContainerdConfig
    from shipwheel.network import cni


def containerd_config(layout: Layout, node: str) -> ContainerdConfig:
    from shipwheel.admin.containerd import ContainerdConfig, default_cni_bin_dir

    return ContainerdConfig(
        root=layout.data / "containerd" / node,
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


async def import_images(config: ContainerdConfig, archive: bytes) -> None:
    """Give the images of an archive (OCI or Docker) to a node. Raises `ImageError`."""
    from shipwheel.admin.images import import_archive

    await import_archive(archive, socket=config.socket, snapshotter=snapshotter_of(config))


def snapshotter_of(config: ContainerdConfig) -> str:
    from shipwheel.admin.containerd import snapshotter_for
    from shipwheel.admin.kernel import filesystem_of

    return snapshotter_for(filesystem_of(config.root.resolve(), Path("/proc/self/mountinfo").read_text()))
