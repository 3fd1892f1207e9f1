"""Kubeconfig files: finding, merging and reading them, and writing contexts into them.

What comes out is a `ClientConfig`: where the server is, whom to trust and who we are, with all files read.
The merge rule is kubectl's: of several files the first that says something about a name wins.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipwheel.api.meta import Obj

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LISTS = {"clusters": "cluster", "users": "user", "contexts": "context"}
_FILES = {
    "cluster": ("certificate-authority",),
    "user": ("client-certificate", "client-key", "tokenFile"),
}


class ConfigError(ValueError):
    """A kubeconfig that cannot be used, and why."""


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """A credential plugin (`client.authentication.k8s.io`): a command that prints an `ExecCredential`."""

    api_version: str
    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    install_hint: str = ""
    provide_cluster_info: bool = False


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """How to reach one API server as one identity. Certificates and keys are PEM."""

    server: str
    ca_data: bytes = b""
    client_cert_data: bytes = b""
    client_key_data: bytes = b""
    token: str = ""
    token_file: str = ""
    """Read again from time to time, and wins over `token`."""
    insecure: bool = False
    tls_server_name: str = ""
    namespace: str = ""
    """The context's default namespace; empty when it names none."""
    username: str = ""
    password: str = ""
    impersonate: tuple[tuple[str, str], ...] = ()
    """`Impersonate-*` headers."""
    exec_plugin: ExecPlugin | None = None


def default_paths(environ: Mapping[str, str] | None = None) -> list[Path]:
    """The files of `$KUBECONFIG`, or `~/.kube/config`."""
    environ = os.environ if environ is None else environ
    listed = environ.get("KUBECONFIG", "")
    if listed:
        return [Path(part) for part in listed.split(os.pathsep) if part]
    return [Path(environ.get("HOME") or str(Path.home())) / ".kube" / "config"]


def load_config(path: str | os.PathLike[str] | None = None, *, context: str = "", server: str = "") -> ClientConfig:
    """The configuration of `context` (else the current one) from one file, or from the default ones.

    `server` overrides the cluster's. Raises ConfigError, or FileNotFoundError when the file named is missing.
    """
    if path is not None:
        return client_config(read_file(Path(path)), context=context, server=server)
    found = [each for each in default_paths() if each.exists()]
    return client_config(merge([read_file(each) for each in found]), context=context, server=server)


def read_file(path: Path) -> Obj:
    """A kubeconfig with its relative file names made absolute; FileNotFoundError, ConfigError."""
    try:
        config = _parse(path.read_bytes())
    except ConfigError as error:
        raise ConfigError(f'error loading config file "{path}": {error}') from error
    for section, inner in _LISTS.items():
        for entry in config.get(section) or ():
            body = entry.get(inner) or {}
            for key in _FILES.get(inner, ()):
                if body.get(key):
                    body[key] = str(path.parent.resolve() / body[key])
    return config


def _parse(data: bytes) -> Obj:
    import yaml

    try:
        config = yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"yaml: {error}") from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ConfigError("not a mapping")
    if config.get("kind", "Config") != "Config" or config.get("apiVersion", "v1") != "v1":
        raise ConfigError(f'no kind "{config.get("kind")}" is registered for version "{config.get("apiVersion")}"')
    for section, inner in _LISTS.items():
        entries = config.get(section) or []
        if not isinstance(entries, list) or not all(
            isinstance(each, dict) and isinstance(each.get("name"), str) and isinstance(each.get(inner) or {}, dict)
            for each in entries
        ):
            raise ConfigError(f"{section}: not a list of names, each with its {inner}")
    return config


def merge(configs: Sequence[Obj]) -> Obj:
    """Several kubeconfigs as one: the first to name a cluster, user, context or current context wins."""
    merged: Obj = {"apiVersion": "v1", "kind": "Config", "current-context": ""}
    for section in _LISTS:
        entries: dict[str, Obj] = {}
        for config in configs:
            for entry in config.get(section) or ():
                entries.setdefault(entry["name"], entry)
        merged[section] = list(entries.values())
    merged["current-context"] = next(
        (config["current-context"] for config in configs if config.get("current-context")), ""
    )
    return merged


def client_config(config: Obj, *, context: str = "", server: str = "") -> ClientConfig:
    """What a (merged) kubeconfig says about a context; ConfigError when something is missing."""
    name = context or config.get("current-context") or ""
    if not name and not server:
        raise ConfigError("invalid configuration: no configuration has been provided, try setting KUBECONFIG")
    scene = _named(config, "contexts", name) if name else {}
    if scene is None:
        raise ConfigError(f'context "{name}" does not exist')
    cluster = _named(config, "clusters", scene.get("cluster", ""))
    if cluster is None:
        if not server:
            raise ConfigError(f'cluster "{scene.get("cluster", "")}" does not exist')
        cluster = {}
    user = _named(config, "users", scene.get("user", "")) if scene.get("user") else {}
    if user is None:
        raise ConfigError(f'auth info "{scene["user"]}" does not exist')
    if cluster.get("proxy-url"):
        raise ConfigError("proxy-url is not supported: the API server must be reachable directly")
    if user.get("auth-provider"):
        raise ConfigError("auth-provider is no longer supported (use an exec plugin)")
    address = server or cluster.get("server", "")
    if not address:
        raise ConfigError(f'cluster has no server defined: "{scene.get("cluster", "")}"')
    insecure = bool(cluster.get("insecure-skip-tls-verify"))
    ca = _material(cluster, "certificate-authority")
    if insecure and ca:
        raise ConfigError("specifying a root certificates file with the insecure flag is not allowed")
    certificate, key = _material(user, "client-certificate"), _material(user, "client-key")
    if bool(certificate) != bool(key):
        raise ConfigError("client-certificate and client-key must be given together")
    return ClientConfig(
        server=address,
        ca_data=ca,
        client_cert_data=certificate,
        client_key_data=key,
        token=user.get("token", ""),
        token_file=user.get("tokenFile", ""),
        insecure=insecure,
        tls_server_name=cluster.get("tls-server-name", ""),
        namespace=scene.get("namespace", ""),
        username=user.get("username", ""),
        password=user.get("password", ""),
        impersonate=_impersonation(user),
        exec_plugin=_exec_plugin(user.get("exec")),
    )


def in_cluster_config(environ: Mapping[str, str] | None = None, directory: Path = _SERVICE_ACCOUNT) -> ClientConfig:
    """The configuration of a pod: its service account's token and the cluster's CA; ConfigError outside one."""
    environ = os.environ if environ is None else environ
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigError(
            "unable to load in-cluster configuration, "
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
        )
    token, ca, namespace = directory / "token", directory / "ca.crt", directory / "namespace"
    if not token.exists():
        raise ConfigError(f"unable to load in-cluster configuration: open {token}: no such file or directory")
    return ClientConfig(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ca_data=ca.read_bytes() if ca.exists() else b"",
        token_file=str(token),
        namespace=namespace.read_text().strip() if namespace.exists() else "",
    )


def to_kubeconfig(config: ClientConfig, name: str, *, user: str = "") -> Obj:
    """A kubeconfig of one context called `name`, with everything inline."""
    cluster: Obj = {"server": config.server}
    if config.ca_data:
        cluster["certificate-authority-data"] = base64.b64encode(config.ca_data).decode()
    if config.insecure:
        cluster["insecure-skip-tls-verify"] = True
    if config.tls_server_name:
        cluster["tls-server-name"] = config.tls_server_name
    identity: Obj = {}
    if config.client_cert_data:
        identity["client-certificate-data"] = base64.b64encode(config.client_cert_data).decode()
        identity["client-key-data"] = base64.b64encode(config.client_key_data).decode()
    if config.token:
        identity["token"] = config.token
    if config.token_file:
        identity["tokenFile"] = config.token_file
    scene: Obj = {"cluster": name, "user": user or name}
    if config.namespace:
        scene["namespace"] = config.namespace
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": user or name, "user": identity}],
        "contexts": [{"name": name, "context": scene}],
        "current-context": name,
    }


def write_file(path: Path, config: Obj) -> None:
    """Write a kubeconfig that only its owner can read, in one step (a reader sees the old one or the new one)."""
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            yaml.safe_dump(config, file, sort_keys=False)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def merge_into_file(path: Path, addition: Obj) -> None:
    """Put the clusters, users and contexts of `addition` into a file, replacing those of the same names, and
    make its current context the file's."""
    config = _parse(path.read_bytes()) if path.exists() else {}
    config.setdefault("apiVersion", "v1")
    config.setdefault("kind", "Config")
    for section in _LISTS:
        added = {entry["name"]: entry for entry in addition.get(section) or ()}
        kept = [entry for entry in config.get(section) or () if entry["name"] not in added]
        config[section] = [*kept, *added.values()]
    if addition.get("current-context"):
        config["current-context"] = addition["current-context"]
    write_file(path, config)


def remove_from_file(path: Path, name: str) -> None:
    """Take the cluster, user and context called `name` out of a file, if there is one."""
    if not path.exists():
        return
    config = _parse(path.read_bytes())
    for section in _LISTS:
        config[section] = [entry for entry in config.get(section) or () if entry["name"] != name]
    if config.get("current-context") == name:
        config["current-context"] = ""
    write_file(path, config)


def _named(config: Obj, section: str, name: str) -> Obj | None:
    for entry in config.get(section) or ():
        if entry["name"] == name:
            return entry.get(_LISTS[section]) or {}
    return None


def _material(body: Obj, key: str) -> bytes:
    """PEM given inline as `KEY-data`, or in the file named by `KEY`."""
    inline = body.get(f"{key}-data")
    if inline:
        try:
            return base64.b64decode(inline, validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise ConfigError(f"{key}-data: illegal base64 data") from error
    if not body.get(key):
        return b""
    try:
        return Path(body[key]).read_bytes()
    except OSError as error:
        raise ConfigError(f"unable to read {key} {body[key]}: {error.strerror}") from error


def _impersonation(user: Obj) -> tuple[tuple[str, str], ...]:
    from urllib.parse import quote

    headers: list[tuple[str, str]] = []
    if user.get("as"):
        headers.append(("Impersonate-User", user["as"]))
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", user["as-uid"]))
    headers += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
    for key, values in (user.get("as-user-extra") or {}).items():
        headers += [(f"Impersonate-Extra-{quote(key, safe='')}", value) for value in values]
    return tuple(headers)


def _exec_plugin(spec: Any) -> ExecPlugin | None:
    if not spec:
        return None
    if not isinstance(spec, dict) or not spec.get("command"):
        raise ConfigError("exec plugin: command must be specified to use exec authentication plugin")
    version = spec.get("apiVersion", "")
    if version not in ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"):
        raise ConfigError(f'exec plugin: invalid apiVersion "{version}"')
    return ExecPlugin(
        api_version=version,
        command=spec["command"],
        args=tuple(spec.get("args") or ()),
        env=tuple((each["name"], each["value"]) for each in spec.get("env") or ()),
        install_hint=spec.get("installHint", ""),
        provide_cluster_info=bool(spec.get("provideClusterInfo")),
    )
