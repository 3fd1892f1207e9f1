"""Becoming a member of a cluster: from a token that anybody may have to a certificate that only this node has.

The bootstrap kubeconfig's identity is good for one thing, asking for a certificate (TLS bootstrapping). Once that is
approved, a kubeconfig that shows it is written, and from then on there is no need of the token.
"""

from __future__ import annotations

import base64
import logging
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.kubeconfig import ClientConfig, ConfigError, load_config
from shipwheel.kubelet.certificate_requests import Wanted, issue
from shipwheel.kubelet.certificates import (
    CLIENT_SIGNER,
    CLIENT_USAGES,
    CertificateError,
    CertificateStore,
    Pair,
    new_key,
)
from shipwheel.kubelet.machine import hostname
from shipwheel.kubelet.settings import KubeletConfig

log = logging.getLogger(__name__)

CLIENT_PURPOSE = "kubelet-client"
PATIENCE = 3600.0
SERVER_PATIENCE = 60.0
_PENDING_KEY = "kubelet-client.key.tmp"


async def join(config: KubeletConfig, clock: Clock) -> None:
    """See to it that there is a kubeconfig that can be used. NotIssued, ApiError, ConnectionFailed, ConfigError."""
    if not config.bootstrap_kubeconfig or _usable(config.kubeconfig, clock):
        return
    log.info("using the bootstrap kubeconfig to get a client certificate")
    directory = Path(config.cert_dir)
    store = CertificateStore(directory, CLIENT_PURPOSE)
    key = _pending_key(directory)
    node = config.hostname_override or hostname()
    bootstrap = load_config(config.bootstrap_kubeconfig)
    async with Client(bootstrap, user_agent="kubelet", clock=clock) as client:
        pair = await _ask(client, Wanted(node, CLIENT_SIGNER, CLIENT_USAGES), key)
    store.keep(pair, clock.now())
    _write_kubeconfig(Path(config.kubeconfig), bootstrap, store.current_path)
    (directory / _PENDING_KEY).unlink()


def _usable(kubeconfig: str, clock: Clock) -> bool:
    """Whether a kubeconfig has an identity that the server will still accept."""
    try:
        config = load_config(kubeconfig)
        if not config.client_cert_data:
            return bool(config.token or config.token_file or config.exec_plugin)
        return Pair(config.client_cert_data, config.client_key_data).valid(clock.now())
    except FileNotFoundError:
        return False
    except (ConfigError, CertificateError) as error:
        log.warning("the kubeconfig %s cannot be used: %s", kubeconfig, error)
        return False


def _pending_key(directory: Path) -> bytes:
    """The key of a request that was broken off, so that its approval is not lost; else a new one."""
    file = directory / _PENDING_KEY
    if file.exists():
        return file.read_bytes()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    key = new_key()
    file.write_bytes(key)
    return key


async def _ask(client: Client, wanted: Wanted, key: bytes) -> Pair:
    """Ask for a certificate; the server may need a moment to be there."""
    deadline = client.clock.monotonic() + SERVER_PATIENCE
    while True:
        try:
            return await issue(client, wanted, key, patience=PATIENCE, again=True)
        except ConnectionFailed as error:
            if client.clock.monotonic() >= deadline:
                raise
            log.info("waiting for the API server: %s", error)
            await client.clock.sleep(1)


def _write_kubeconfig(path: Path, bootstrap: ClientConfig, pair: Path) -> None:
    import yaml

    cluster: Obj = {"server": bootstrap.server}
    if bootstrap.ca_data:
        cluster["certificate-authority-data"] = base64.b64encode(bootstrap.ca_data).decode()
    if bootstrap.insecure:
        cluster["insecure-skip-tls-verify"] = True
    if bootstrap.tls_server_name:
        cluster["tls-server-name"] = bootstrap.tls_server_name
    user = {"client-certificate": str(pair.absolute()), "client-key": str(pair.absolute())}
    made = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": cluster}],
        "users": [{"name": "default-auth", "user": user}],
        "contexts": [
            {
                "name": "default-context",
                "context": {"cluster": "default-cluster", "user": "default-auth", "namespace": "default"},
            }
        ],
        "current-context": "default-context",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(made, sort_keys=False))
