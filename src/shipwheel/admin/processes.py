"""The processes of a cluster on one machine, each with the command line that upstream's would have.

One for the API server, one for the controllers and the scheduler, one agent a node (kubelet, service proxy, pod
network, DNS), and etcd where it is the store.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipwheel.admin import addons
from shipwheel.admin.commands import COMMANDS
from shipwheel.admin.layout import Layout, Settings
from shipwheel.admin.pki import write_private
from shipwheel.admin.runner import run_component
from shipwheel.admin.supervisor import Program

if TYPE_CHECKING:
    from shipwheel.admin.containerd import ContainerdConfig
    from shipwheel.network import cni

log = logging.getLogger(__name__)

CONTROL_PLANE = ("kube-controller-manager", "kube-scheduler")
POLL = 0.02
MAX_DELAY = 10.0
NO_RATE_LIMIT = ("--kube-api-qps=1000", "--kube-api-burst=1000")
"""Clients that are polite to a server far away would only be slow here; the server has limits of its own."""


def programs(layout: Layout, settings: Settings) -> list[Program]:
    """In the order of their start. Everything they need is imported now, before they are forked."""
    for node in settings.nodes:
        write_kubelet_configuration(layout, node)
    lines = command_lines(layout, settings)
    configs = {name: COMMANDS[name].parse(arguments)[0] for name, arguments in lines.items()}
    _preload(settings)
    found = [Program("kube-apiserver", partial(_component, "kube-apiserver", configs))]
    if settings.store == "etcd":
        found.insert(0, Program("etcd", partial(_exec, etcd_command(layout, settings))))
    found.append(Program("control-plane", partial(run_component, partial(_control_plane, layout, configs))))
    for node in settings.nodes:
        found.append(Program(node, partial(run_component, partial(_node, layout, settings, configs, node))))
    return found


def _component(name: str, configs: Mapping[str, Any]) -> None:
    run_component(partial(COMMANDS[name].run, configs[name]))


def command_lines(layout: Layout, settings: Settings) -> dict[str, list[str]]:
    """What each component is started with."""
    lines = {
        "kube-apiserver": list(_api_server(layout, settings)),
        "kube-controller-manager": list(_controller_manager(layout, settings)),
        "kube-scheduler": list(_scheduler(layout, settings)),
        "kubelet": list(_kubelet(layout, settings, settings.nodes[0])),
    }
    if settings.runtime == "containerd":
        lines["kube-proxy"] = list(_proxy(layout, settings, settings.nodes[0]))
    return lines


def _api_server(layout: Layout, settings: Settings) -> Iterator[str]:
    pki = layout.pki
    yield f"--bind-address={'0.0.0.0' if settings.runtime == 'containerd' else '127.0.0.1'}"
    yield f"--advertise-address={settings.address}"
    yield f"--secure-port={settings.port}"
    yield f"--tls-cert-file={pki}/apiserver.crt"
    yield f"--tls-private-key-file={pki}/apiserver.key"
    yield f"--client-ca-file={pki}/ca.crt"
    yield f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt"
    yield "--requestheader-allowed-names=front-proxy-client"
    yield f"--proxy-client-cert-file={pki}/front-proxy-client.crt"
    yield f"--proxy-client-key-file={pki}/front-proxy-client.key"
    yield f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt"
    yield f"--kubelet-client-key={pki}/apiserver-kubelet-client.key"
    yield f"--kubelet-certificate-authority={pki}/ca.crt"
    yield "--kubelet-preferred-address-types=InternalIP,Hostname"
    yield f"--service-account-issuer=https://kubernetes.default.svc.{settings.domain}"
    yield f"--service-account-key-file={pki}/sa.pub"
    yield f"--service-account-signing-key-file={pki}/sa.key"
    yield f"--service-cluster-ip-range={settings.service_cidr}"
    yield "--authorization-mode=Node,RBAC"
    yield "--enable-admission-plugins=NodeRestriction"
    if settings.store == "etcd":
        yield f"--etcd-servers=https://127.0.0.1:{settings.ports['etcd']}"
        yield f"--etcd-cafile={pki}/etcd/ca.crt"
        yield f"--etcd-certfile={pki}/apiserver-etcd-client.crt"
        yield f"--etcd-keyfile={pki}/apiserver-etcd-client.key"
    else:
        yield f"--data-file={layout.database}"


def _controller_manager(layout: Layout, settings: Settings) -> Iterator[str]:
    pki = layout.pki
    yield f"--kubeconfig={layout.kubeconfig('controller-manager')}"
    yield "--bind-address=127.0.0.1"
    yield f"--secure-port={settings.ports['controller-manager']}"
    yield f"--root-ca-file={pki}/ca.crt"
    yield f"--service-account-private-key-file={pki}/sa.key"
    yield f"--cluster-signing-cert-file={pki}/ca.crt"
    yield f"--cluster-signing-key-file={pki}/ca.key"
    yield "--use-service-account-credentials=true"
    yield "--allocate-node-cidrs=true"
    yield f"--cluster-cidr={settings.pod_cidr}"
    yield f"--service-cluster-ip-range={settings.service_cidr}"
    yield f"--cluster-name={settings.name}"
    yield "--leader-elect=false"
    yield from NO_RATE_LIMIT


def _scheduler(layout: Layout, settings: Settings) -> Iterator[str]:
    yield f"--kubeconfig={layout.kubeconfig('scheduler')}"
    yield "--bind-address=127.0.0.1"
    yield f"--secure-port={settings.ports['scheduler']}"
    # Whoever asks for too much is slowed down by the API server itself.
    yield "--kube-api-qps=-1"
    yield "--leader-elect=false"
    yield from NO_RATE_LIMIT


def _kubelet(layout: Layout, settings: Settings, node: str) -> Iterator[str]:
    home = layout.node(node)
    if settings.runtime == "containerd":
        yield f"--container-runtime-endpoint={containerd_config(layout, node).endpoint}"
        yield f"--cluster-dns={addons.dns_address(settings.service_cidr)}"
    else:
        yield "--container-runtime-endpoint=simulated"
    yield f"--kubeconfig={layout.kubeconfig(node)}"
    yield f"--hostname-override={node}"
    yield f"--node-ip={settings.address}"
    yield f"--root-dir={home}"
    yield f"--address={'0.0.0.0' if settings.runtime == 'containerd' else '127.0.0.1'}"
    yield f"--port={settings.ports['kubelet']}"
    yield f"--healthz-port={settings.ports['kubelet-healthz']}"
    yield f"--tls-cert-file={home}/pki/kubelet.crt"
    yield f"--tls-private-key-file={home}/pki/kubelet.key"
    yield f"--client-ca-file={layout.pki}/ca.crt"
    yield "--anonymous-auth=false"
    yield "--authentication-token-webhook=true"
    yield "--authorization-mode=Webhook"
    yield f"--cluster-domain={settings.domain}"
    yield "--container-logs-dir="
    yield from NO_RATE_LIMIT
    yield f"--cgroup-root=/{layout.network}"
    yield f"--config={home}/config.yaml"


def write_kubelet_configuration(layout: Layout, node: str) -> None:
    """What a kubelet can be told by a file only."""
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "podLogsDir": str(layout.node(node) / "logs"),
        # People's machines have swap.
        "failSwapOn": False,
    }
    write_private(layout.node(node) / "config.yaml", json.dumps(document, indent=2).encode() + b"\n")


def _proxy(layout: Layout, settings: Settings, node: str) -> Iterator[str]:
    yield f"--kubeconfig={layout.kubeconfig('kube-proxy')}"
    yield f"--hostname-override={node}"
    yield "--detect-local-mode=ClusterCIDR"
    yield f"--cluster-cidr={settings.pod_cidr}"
    yield f"--healthz-bind-address=0.0.0.0:{settings.ports['proxy-healthz']}"
    yield f"--metrics-bind-address=127.0.0.1:{settings.ports['proxy-metrics']}"
    # The machine is somebody's: its connection table is left as it is.
    yield "--conntrack-max-per-core=0"
    yield "--conntrack-tcp-timeout-established=0"
    yield "--conntrack-tcp-timeout-close-wait=0"
    yield from NO_RATE_LIMIT


def etcd_command(layout: Layout, settings: Settings) -> list[str]:
    pki = layout.pki / "etcd"
    client = f"https://127.0.0.1:{settings.ports['etcd']}"
    peer = f"https://127.0.0.1:{settings.ports['etcd-peer']}"
    return [
        "etcd",
        f"--name={settings.nodes[0]}",
        f"--data-dir={layout.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={settings.nodes[0]}={peer}",
        "--client-cert-auth=true",
        f"--trusted-ca-file={pki}/ca.crt",
        f"--cert-file={pki}/server.crt",
        f"--key-file={pki}/server.key",
        "--peer-client-cert-auth=true",
        f"--peer-trusted-ca-file={pki}/ca.crt",
        f"--peer-cert-file={pki}/peer.crt",
        f"--peer-key-file={pki}/peer.key",
        "--logger=zap",
        "--log-level=warn",
    ]


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


def _preload(settings: Settings) -> None:
    """Import what the components will need, so that they share it."""
    # gRPC would stop its threads at every fork; nobody here forks while it has any.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    modules = [
        "shipwheel.apiserver.server",
        "shipwheel.controllers.manager",
        "shipwheel.scheduler.scheduler",
        "shipwheel.kubelet.kubelet",
        "shipwheel.client.client",
    ]
    if settings.runtime == "containerd":
        modules += [
            "shipwheel.admin.containerd",
            "shipwheel.network.cni",
            "shipwheel.network.dns.server",
            "shipwheel.network.proxy.proxy",
        ]
    for module in modules:
        importlib.import_module(module)
    gc.collect()


async def _control_plane(layout: Layout, configs: Mapping[str, Any]) -> None:
    await _wait_for_api(layout, "controller-manager")
    async with asyncio.TaskGroup() as tasks:
        for name in CONTROL_PLANE:
            tasks.create_task(_kept(name, partial(COMMANDS[name].run, configs[name])))


async def _node(layout: Layout, settings: Settings, configs: Mapping[str, Any], node: str) -> None:
    """A node's agent. Containers do not end with it."""
    async with asyncio.TaskGroup() as tasks:
        if settings.runtime == "containerd":
            started = asyncio.get_running_loop().create_future()
            tasks.create_task(_kept("containerd", partial(_containerd, layout, node, started)))
            tasks.create_task(_kept("pod network", partial(_network, layout, settings, node)))
            tasks.create_task(_kept("kube-proxy", partial(_proxy_of, layout, configs["kube-proxy"])))
            await started
        await _wait_for_api(layout, node)
        tasks.create_task(_kept("kubelet", partial(COMMANDS["kubelet"].run, configs["kubelet"])))


async def _containerd(layout: Layout, node: str, started: asyncio.Future[None]) -> None:
    """Have containerd run, with the images that every pod needs; returns when it has ended."""
    from shipwheel.admin.containerd import Containerd

    containerd = Containerd(containerd_config(layout, node))
    await containerd.start()
    await _import_pause(containerd)
    _settle(started)
    pid = containerd.running_pid()
    if pid is not None:
        await _ended(pid)
        raise RuntimeError("containerd has ended")


async def _import_pause(containerd: Any) -> None:
    from shipwheel.admin import images
    from shipwheel.kubelet.runtime.cri import CriRuntime

    runtime = CriRuntime(containerd.config.endpoint)
    try:
        if await runtime.image_status(images.PAUSE) is not None:
            return
    finally:
        await runtime.close()
    arch = images.architecture()
    archive = images.archive([images.pause_image(arch)], arch=arch)
    await import_images(containerd.config, archive)


async def import_images(config: ContainerdConfig, archive: bytes) -> None:
    """Give the images of an archive (OCI or Docker) to a node. Raises `ImageError`."""
    from shipwheel.admin.images import import_archive

    await import_archive(archive, socket=config.socket, snapshotter=snapshotter_of(config))


def snapshotter_of(config: ContainerdConfig) -> str:
    from shipwheel.admin.containerd import snapshotter_for
    from shipwheel.admin.kernel import filesystem_of

    return snapshotter_for(filesystem_of(config.root.resolve(), Path("/proc/self/mountinfo").read_text()))


async def _ended(pid: int) -> None:
    """Return when a process, which need not be a child, has ended."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        loop.add_reader(descriptor, _settle, ended)
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _proxy_of(layout: Layout, config: Any) -> None:
    from dataclasses import replace

    await _wait_for_api(layout, "kube-proxy")
    await COMMANDS["kube-proxy"].run(replace(config, table=layout.network, min_sync_period=0.1))


async def _network(layout: Layout, settings: Settings, node: str) -> None:
    """The pod network, and on its gateway address the cluster's DNS."""
    from shipwheel import __version__
    from shipwheel.api.clock import SystemClock
    from shipwheel.client.client import Client
    from shipwheel.client.kubeconfig import load_config
    from shipwheel.network import cni
    from shipwheel.network.dns import server
    from shipwheel.network.dns.publish import publish

    await _wait_for_api(layout, "kube-proxy")
    clock = SystemClock()
    loop = asyncio.get_running_loop()
    agent = f"shipwheel/v{__version__}"
    async with (
        Client(load_config(layout.kubeconfig("kube-proxy")), user_agent=agent, clock=clock) as watcher,
        Client(load_config(layout.kubeconfig("dns")), user_agent=agent, clock=clock) as client,
        asyncio.TaskGroup() as tasks,
    ):
        network_ready: asyncio.Future[tuple[str, ...]] = loop.create_future()
        config = network_config(layout, settings, node)
        tasks.create_task(cni.run(config, client=watcher, clock=clock, ready=network_ready))
        addresses = await network_ready
        dns_ready: asyncio.Future[int] = loop.create_future()
        dns = server.Config(addresses=addresses, domain=settings.domain)
        tasks.create_task(server.run(dns, client=client, clock=clock, ready=dns_ready))
        await publish(client, node, addresses, await dns_ready)


async def _kept(name: str, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a part of a process, again when it fails, so that the other parts need not end with it."""
    delay = 0.25
    while True:
        started = time.monotonic()
        try:
            await make()
            log.warning("%s has ended", name)
        except Exception:
            log.exception("%s failed", name)
        delay = 0.25 if time.monotonic() - started > MAX_DELAY else min(delay * 2, MAX_DELAY)
        await asyncio.sleep(delay)


async def _wait_for_api(layout: Layout, who: str) -> None:
    """Until the API server is ready: asking again is cheaper than to fail and back off."""
    from shipwheel.api.errors import ApiError
    from shipwheel.client.client import Client, ConnectionFailed
    from shipwheel.client.kubeconfig import load_config

    async with Client(load_config(layout.kubeconfig(who)), user_agent="shipwheel") as client:
        while True:
            try:
                await client.request("GET", "/readyz", timeout=2)
                return
            except (ApiError, ConnectionFailed):
                await asyncio.sleep(POLL)


def _exec(command: Sequence[str]) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(command[0])
    os.execv(program, list(command))
