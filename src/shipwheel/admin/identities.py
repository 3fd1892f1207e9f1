"""Who the components are: a kubeconfig for each, its client certificate inline, as kubeadm writes them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509

from shipwheel.admin import pki
from shipwheel.admin.addons import DNS_USER, SIMULATED_NODES_USER
from shipwheel.admin.layout import Layout, Settings
from shipwheel.client.kubeconfig import ClientConfig, ConfigError, load_config, to_kubeconfig, write_file


def ensure(layout: Layout, settings: Settings, now: datetime) -> None:
    """Make or renew every kubeconfig of the cluster, and the kubelets' serving certificates.

    Raises `pki.PkiError` when the cluster's authority is damaged."""
    authority = pki.load(layout.pki / "ca")
    users = {
        "admin": pki.ADMIN,
        "controller-manager": pki.CONTROLLER_MANAGER,
        "scheduler": pki.SCHEDULER,
        "kube-proxy": pki.PROXY,
        "dns": pki.user(DNS_USER),
    }
    for who, leaf in users.items():
        name = settings.context if who == "admin" else settings.name
        _ensure_kubeconfig(layout.kubeconfig(who), settings.server, name, authority, leaf, now)
    if settings.simulated_nodes:
        user, file = pki.user(SIMULATED_NODES_USER), layout.kubeconfig("simulated-nodes")
        _ensure_kubeconfig(file, settings.server, settings.name, authority, user, now)
        leaf = pki.node_server("simulated-nodes", ("localhost", "127.0.0.1", settings.address))
        pki.ensure_leaf(layout.pki / "simulated-nodes", authority, leaf, now)
    for node in settings.nodes:
        user, file = pki.node_user(node.name), layout.kubeconfig(node.name)
        _ensure_kubeconfig(file, settings.server_for(node), settings.name, authority, user, now)
        leaf = pki.node_server(node.name, ("localhost", "127.0.0.1", node.address or settings.address))
        pki.ensure_leaf(layout.node(node.name) / "pki" / "kubelet", authority, leaf, now)


def _ensure_kubeconfig(
    path: Path, server: str, name: str, authority: pki.KeyPair, leaf: pki.Leaf, now: datetime
) -> None:
    if _serves(path, server, authority, leaf, now):
        return
    pair = pki.issue(authority, leaf, now)
    config = ClientConfig(
        server=server,
        ca_data=authority.certificate_pem,
        client_cert_data=pair.certificate_pem,
        client_key_data=pair.key_pem,
    )
    user = name if leaf == pki.ADMIN else leaf.common_name
    write_file(path, to_kubeconfig(config, name, user=user))


def _serves(path: Path, server: str, authority: pki.KeyPair, leaf: pki.Leaf, now: datetime) -> bool:
    """Whether the file is there and what it says will do. One that cannot be read is simply written anew: it
    holds nothing that the authority could not give again."""
    try:
        config = load_config(path)
        certificate = x509.load_pem_x509_certificate(config.client_cert_data)
    except (ConfigError, OSError, ValueError):
        return False
    return (
        config.server == server
        and config.ca_data == authority.certificate_pem
        and pki.says(certificate, authority, leaf, now)
    )
