"""What each component of a cluster is started with: the command lines that upstream's would have."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

from shipwheel.admin import addons
from shipwheel.admin.choices import port_name
from shipwheel.admin.images import PAUSE
from shipwheel.admin.layout import KUBELET, POD_LOGS, Layout, NodeSettings, Settings
from shipwheel.admin.nodes import cgroup_of, containerd_config
from shipwheel.admin.pki import write_private

SYSTEMD_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")
NO_RATE_LIMIT = ("--kube-api-qps=1000", "--kube-api-burst=1000")
"""Clients that are polite to a server far away would only be slow here; the server has limits of its own."""


MACHINE = "machine"
"""What this machine is called where it is no node."""


def control_plane(layout: Layout, settings: Settings) -> dict[str, list[str]]:
    """What the components on this machine are started with; its service proxy, too, if no node's does that."""
    lines = {
        "kube-apiserver": list(_api_server(layout, settings)),
        "kube-controller-manager": list(_controller_manager(layout, settings)),
        "kube-scheduler": list(_scheduler(layout, settings)),
    }
    if settings.runtime == "containerd" and not settings.machine_is_node:
        lines["kube-proxy"] = list(_proxy(layout, settings, None))
    return lines


def simulated_nodes(layout: Layout, settings: Settings) -> dict[str, list[str]]:
    """What the process of the simulated nodes is started with."""
    return {"simulated-nodes": list(_simulated_nodes(layout, settings))}


def of_node(layout: Layout, settings: Settings, node: NodeSettings) -> dict[str, list[str]]:
    """What the components of a node are started with."""
    lines = {"kubelet": list(_kubelet(layout, settings, node))}
    if settings.runtime == "containerd":
        lines["kube-proxy"] = list(_proxy(layout, settings, node))
    return lines


def _api_server(layout: Layout, settings: Settings) -> Iterator[str]:
    pki = layout.pki
    yield f"--bind-address={'0.0.0.0' if settings.runtime == 'containerd' else '127.0.0.1'}"
    yield f"--advertise-address={settings.address if settings.runtime == 'containerd' else '127.0.0.1'}"
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
    yield f"--local-path-provisioner={layout.volumes}"
    yield f"--local-path-helper-image={PAUSE}"
    yield f"--local-path-helper-tools={','.join(_tools())}"
    for kind in ("nfs", "hostpath"):
        yield f"--pv-recycler-pod-template-filepath-{kind}={layout.recycler}"
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


def _kubelet(layout: Layout, settings: Settings, node: NodeSettings) -> Iterator[str]:
    home = layout.node(node.name)
    if settings.runtime == "containerd":
        yield f"--container-runtime-endpoint={containerd_config(layout, node.name).endpoint}"
        yield f"--cluster-dns={addons.dns_address(settings.service_cidr)}"
    else:
        yield "--container-runtime-endpoint=simulated"
    yield f"--kubeconfig={layout.kubeconfig(node.name)}"
    yield f"--hostname-override={node.name}"
    yield f"--node-ip={node.address or settings.address}"
    yield f"--root-dir={KUBELET if node.address else home}"
    yield f"--address={'0.0.0.0' if settings.runtime == 'containerd' else settings.address}"
    if not node.address:
        yield f"--port={settings.ports[port_name('kubelet', node)]}"
        yield f"--healthz-port={settings.ports[port_name('kubelet-healthz', node)]}"
        # The machine's own log collectors are not for what runs in clusters.
        yield "--container-logs-dir="
    yield f"--tls-cert-file={home}/pki/kubelet.crt"
    yield f"--tls-private-key-file={home}/pki/kubelet.key"
    yield f"--client-ca-file={layout.pki}/ca.crt"
    yield "--anonymous-auth=false"
    yield "--authentication-token-webhook=true"
    yield "--authorization-mode=Webhook"
    yield f"--cluster-domain={settings.domain}"
    yield from NO_RATE_LIMIT
    yield f"--cgroup-root=/{cgroup_of(layout, node.name)}"
    yield f"--config={home}/config.yaml"


def _tools() -> list[str]:
    """Where this machine, and so each node on it, has its programs and what they need to run."""
    return [path for path in ("/bin", "/lib", "/lib64", "/usr") if Path(path).exists()]


def write_recycler(layout: Layout) -> None:
    """The pod that empties volumes: with nothing but the image that every node has, and the node's own tools."""
    from shipwheel.controllers.volumes.errands import RECYCLER, with_tools

    pod = copy.deepcopy(RECYCLER)
    pod["spec"]["containers"][0] |= {"image": PAUSE, "imagePullPolicy": "IfNotPresent"}
    layout.recycler.write_text(json.dumps(with_tools(pod, _tools()), indent=1))


def _simulated_nodes(layout: Layout, settings: Settings) -> Iterator[str]:
    yield f"--kubeconfig={layout.kubeconfig('simulated-nodes')}"
    yield f"--nodes={settings.simulated_nodes}"
    if settings.stages:
        yield f"--stages={settings.stages}"
    if settings.runtime == "containerd":
        # Real pods are not to land on them by chance.
        yield "--register-with-taints=shipwheel.dev/simulated=true:NoSchedule"
    yield f"--node-ip={settings.address}"
    yield f"--address={settings.address}"
    yield f"--port={settings.ports['simulated-nodes']}"
    yield f"--tls-cert-file={layout.pki}/simulated-nodes.crt"
    yield f"--tls-private-key-file={layout.pki}/simulated-nodes.key"
    yield f"--client-ca-file={layout.pki}/ca.crt"


def write_kubelet_configuration(layout: Layout, node: NodeSettings) -> None:
    """What a kubelet can be told by a file only."""
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "podLogsDir": str(POD_LOGS if node.address else layout.node(node.name) / "logs"),
        # People's machines have swap.
        "failSwapOn": False,
    }
    if SYSTEMD_RESOLV_CONF.exists():
        # What /etc/resolv.conf names then is a resolver on the machine's own loopback, out of pods' reach.
        document["resolvConf"] = str(SYSTEMD_RESOLV_CONF)
    write_private(layout.node(node.name) / "config.yaml", json.dumps(document, indent=2).encode() + b"\n")


def _proxy(layout: Layout, settings: Settings, node: NodeSettings | None) -> Iterator[str]:
    yield f"--kubeconfig={layout.kubeconfig('kube-proxy')}"
    if node is not None and node.address:
        yield f"--master={settings.server_for(node)}"
    yield f"--hostname-override={node.name if node is not None else MACHINE}"
    yield "--detect-local-mode=ClusterCIDR"
    yield f"--cluster-cidr={settings.pod_cidr}"
    if node is None or not node.address:
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
        f"--name={settings.name}",
        f"--data-dir={layout.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={settings.name}={peer}",
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
