"""The small HTTPS server of a component: `/healthz`, `/livez`, `/readyz`, `/metrics`, `/configz`.

Who may read what is asked of the API server, as upstream's components do: a client certificate or a token
(TokenReview) says who, a SubjectAccessReview whether; answers are kept for a while. A front proxy may say in headers
whom it speaks for. The health paths are open to everybody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.api.resource import UserInfo
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.httpserver import HttpServer, Request, Response, server_tls
from shipwheel.client.kubeconfig import ConfigError, load_config
from shipwheel.client.metrics import CONTENT_TYPE, HealthMetrics, Metrics
from shipwheel.client.resources import CONFIG_MAPS, SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS

if TYPE_CHECKING:
    from shipwheel.client.x509 import FrontProxyAuthenticator, X509Authenticator

log = logging.getLogger(__name__)

Check = Callable[[], str]
"""What is wrong; empty when nothing is."""

_TEXT = "text/plain; charset=utf-8"
_BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_ANONYMOUS = UserInfo("system:anonymous", ("system:unauthenticated",))


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontProxy:
    """`--requestheader-*`: who may say in headers whom a request is from, and in which."""

    ca: str = ""
    """PEM of the authorities that sign such proxies' certificates; empty: there are none."""
    allowed_names: tuple[str, ...] = ()
    """Common names of these; empty: all that the authorities have signed."""
    username_headers: tuple[str, ...] = ("x-remote-user",)
    group_headers: tuple[str, ...] = ("x-remote-group",)
    uid_headers: tuple[str, ...] = ()
    extra_prefixes: tuple[str, ...] = ("x-remote-extra-",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """What `serving_flags` declares: how a component serves, and whom. Port 0: it does not."""

    bind_address: str = "0.0.0.0"
    port: int
    name: str = ""
    """What the files in `cert_dir` are called."""
    cert_file: str = ""
    key_file: str = ""
    """Without a certificate one is made for the occasion."""
    cert_dir: str = ""
    """Where it is kept then, if anywhere."""
    tls_min_version: str = ""
    tls_cipher_suites: tuple[str, ...] = ()
    permit_port_sharing: bool = False
    authentication_kubeconfig: str = ""
    authorization_kubeconfig: str = ""
    client_ca_file: str = ""
    """Without it, the cluster's is read from kube-system/extension-apiserver-authentication, and so is whatever is
    not said of front proxies."""
    skip_lookup: bool = False
    tolerate_lookup_failure: bool = True
    front_proxy: FrontProxy = field(default_factory=FrontProxy)
    token_seconds: float = 10.0
    authorized_seconds: float = 10.0
    unauthorized_seconds: float = 10.0
    """How long answers of reviews are kept."""
    always_allow_paths: tuple[str, ...] = ("/healthz", "/readyz", "/livez")


async def reviewer(kubeconfig: str, client: Client, stack: AsyncExitStack, *, user_agent: str) -> Client:
    """Who asks the API server about those who read from a component: by a kubeconfig of its own, or else `client`."""
    if not kubeconfig:
        return client
    return await stack.enter_async_context(Client(load_config(kubeconfig), user_agent=user_agent))


@dataclass(kw_only=True)
class ComponentServer:
    """What a component shows of itself. `name` is what its `/configz` calls the configuration."""

    metrics: Metrics
    client: Client
    """For reviews of who somebody is; with the component's own identity."""
    authorizer: Client | None = None
    """For reviews of what they may; None: the same one."""
    healthz: Mapping[str, Check] = field(default_factory=dict)
    livez: Mapping[str, Check] = field(default_factory=dict)
    readyz: Mapping[str, Check] = field(default_factory=dict)
    configz: Mapping[str, Obj] = field(default_factory=dict)
    before_metrics: Callable[[], None] | None = None
    """Called before `/metrics` is answered, to bring gauges up to date."""
    health: HealthMetrics = field(default_factory=HealthMetrics)

    async def run(self, config: ServingConfig, *, on_listening: Callable[[int], None] | None = None) -> None:
        """Serve until cancelled; `on_listening` is told the port. OSError when the address cannot be had."""
        if config.port == 0:
            return
        client_ca, front_proxy = await self._authorities(config)
        gate = _Gate(self.client, self.authorizer or self.client, config, client_ca, front_proxy)
        server = HttpServer(lambda request: self._handle(gate, request))
        with _certificate(config) as (cert, key):
            tls = server_tls(
                cert,
                key,
                client_ca=[pem for pem in (client_ca, front_proxy.ca) if pem],
                minimum=config.tls_min_version,
                ciphers=config.tls_cipher_suites,
            )
        sharing = config.permit_port_sharing
        port = await server.listen(config.bind_address, config.port, tls=tls, reuse_port=sharing)
        if on_listening:
            on_listening(port)
        try:
            await asyncio.Event().wait()
        finally:
            await server.close()

    async def _authorities(self, config: ServingConfig) -> tuple[str, FrontProxy]:
        """Whose client certificates are accepted (PEM), and which front proxies: what flags do not say the cluster
        does. OSError for files that cannot be read, and for a lookup that fails where that must not be."""
        ca, proxy = _read(config.client_ca_file), config.front_proxy
        if config.skip_lookup or (ca and proxy.ca):
            return ca, proxy
        try:
            published = await self.client.get(CONFIG_MAPS, "extension-apiserver-authentication", "kube-system")
        except (ApiError, ConnectionFailed, ConfigError) as error:
            message = f"unable to get configmap/extension-apiserver-authentication in kube-system: {error}"
            if not config.tolerate_lookup_failure:
                raise OSError(message) from error
            log.warning("%s; client certificates that only it can vouch for will not be accepted", message)
            return ca, proxy
        data = published.get("data") or {}
        return ca or data.get("client-ca-file", ""), proxy if proxy.ca else _published_proxy(data)

    async def _handle(self, gate: _Gate, request: Request) -> Response:
        refusal = await gate.refusal(request)
        if refusal is not None:
            return refusal
        path = request.path.rstrip("/")
        if path == "/metrics":
            if self.before_metrics:
                self.before_metrics()
            return Response(200, self.metrics.exposition(), content_type=CONTENT_TYPE)
        if path == "/metrics/slis":
            return Response(200, self.health.exposition(), content_type=CONTENT_TYPE)
        if path == "/configz":
            return Response(200, orjson.dumps(dict(self.configz)))
        if path == "/version":
            return Response(200, orjson.dumps(_version()))
        root, _, single = path.lstrip("/").partition("/")
        checks = {"healthz": self.healthz, "livez": self.livez, "readyz": self.readyz}.get(root)
        if checks is None:
            return Response(404, b"404 page not found\n", content_type=_TEXT)
        if single:
            if single not in checks and single != "ping":
                return Response(404, b"404 page not found\n", content_type=_TEXT)
            wrong = checks[single]() if single in checks else ""
            self.health.observe(single, root, ok=not wrong)
            body = f"internal server error: {wrong}\n" if wrong else "ok"
            return Response(500 if wrong else 200, body.encode(), content_type=_TEXT)
        excluded = {value for key, value in request.query if key == "exclude"}
        verbose = any(key == "verbose" for key, _ in request.query)
        return health_answer(root, checks, excluded=excluded, verbose=verbose, metrics=self.health)


def health_answer(
    name: str, checks: Mapping[str, Check], *, excluded: set[str], verbose: bool, metrics: HealthMetrics | None = None
) -> Response:
    """The answer of `/healthz` and the like: each check on a line when one fails or `verbose` asks for it.

    What is wrong is told to the log alone, and as upstream only where that is verbose: who waits for a component to
    start asks many times a second.
    """
    lines: list[str] = []
    failures: dict[str, str] = {}
    for check, run in {"ping": lambda: "", **checks}.items():
        if check in excluded:
            lines.append(f"[+]{check} excluded: ok")
            continue
        wrong = run()
        if metrics:
            metrics.observe(check, name, ok=not wrong)
        if wrong:
            failures[check] = wrong
            lines.append(f"[-]{check} failed: reason withheld")
        else:
            lines.append(f"[+]{check} ok")
    unknown = sorted(excluded - set(checks) - {"ping"})
    if unknown:
        shown = ",".join(f'"{each}"' for each in unknown)
        lines.append(f"warn: some health checks cannot be excluded: no matches for {shown}")
    if failures:
        reasons = "\n".join(f"[-]{check} failed: {wrong}" for check, wrong in failures.items())
        log.debug("%s check failed: %s\n%s", ",".join(failures), name, reasons)
        text = "\n".join([*lines, f"{name} check failed", ""])
        return Response(500, text.encode(), content_type=_TEXT)
    text = "\n".join([*lines, f"{name} check passed", ""]) if verbose else "ok"
    return Response(200, text.encode(), content_type=_TEXT)


class _Gate:
    """Lets requests pass that the API server allows."""

    def __init__(
        self, client: Client, authorizer: Client, config: ServingConfig, client_ca: str, front_proxy: FrontProxy
    ) -> None:
        self._client = client
        self._authorizer = authorizer
        self._config = config
        self._client_ca = client_ca
        self._front_proxy = front_proxy
        self._users: dict[str, tuple[float, UserInfo | None]] = {}
        self._rights: dict[tuple[Any, ...], tuple[float, bool]] = {}

    @cached_property
    def _certificates(self) -> X509Authenticator:
        from shipwheel.client.x509 import X509Authenticator, load_authorities

        return X509Authenticator(load_authorities(self._client_ca.encode()) if self._client_ca else [])

    @cached_property
    def _proxies(self) -> FrontProxyAuthenticator:
        from shipwheel.client.x509 import FrontProxyAuthenticator, load_authorities

        proxy = self._front_proxy
        return FrontProxyAuthenticator(
            load_authorities(proxy.ca.encode()) if proxy.ca else [],
            allowed_names=proxy.allowed_names,
            user_headers=proxy.username_headers,
            group_headers=proxy.group_headers,
            uid_headers=proxy.uid_headers,
            extra_prefixes=proxy.extra_prefixes,
        )

    async def refusal(self, request: Request) -> Response | None:
        """The answer to a request that may not be answered; None when it may."""
        path = request.path
        if any(path == each or path.startswith(f"{each}/") for each in self._config.always_allow_paths):
            return None
        try:
            user = await self._who(request)
            if user is None:
                return _status(ApiError(401, "Unauthorized", "Unauthorized"))
            if await self._may(user, request.method.lower(), path):
                return None
        except (ApiError, ConnectionFailed, ConfigError) as error:
            return _status(ApiError(500, "InternalError", f"Internal error occurred: {error}"))
        message = f'forbidden: User "{user.name}" cannot {request.method.lower()} path "{path}"'
        return _status(ApiError(403, "Forbidden", message))

    async def _who(self, request: Request) -> UserInfo | None:
        certificate = request.connection.peer_certificate()
        if certificate:
            user = self._proxies.authenticate(request, certificate) or self._certificates.authenticate(certificate)
            return _with_group(user, "system:authenticated") if user is not None else None
        kind, _, token = request.header("authorization").partition(" ")
        if kind.lower() != "bearer" or not token:
            return _ANONYMOUS
        now = self._client.clock.monotonic()
        until, user = self._users.get(token, (0.0, None))
        if until <= now:
            user = await self._review(token.strip())
            _forget_stale(self._users, now)
            self._users[token] = (now + self._config.token_seconds, user)
        return user

    async def _review(self, token: str) -> UserInfo | None:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        status = (await self._client.create(TOKEN_REVIEWS, review)).get("status") or {}
        if not status.get("authenticated"):
            return None
        user = status.get("user") or {}
        extra = {key: tuple(values) for key, values in (user.get("extra") or {}).items()}
        return UserInfo(user.get("username", ""), tuple(user.get("groups") or ()), user.get("uid", ""), extra)

    async def _may(self, user: UserInfo, verb: str, path: str) -> bool:
        if "system:masters" in user.groups:
            return True
        now = self._client.clock.monotonic()
        key = (user.name, verb, path, *user.groups, *sorted(user.extra.items()))
        until, allowed = self._rights.get(key, (0.0, False))
        if until <= now:
            spec: Obj = {"user": user.name, "groups": list(user.groups)}
            if user.uid:
                spec["uid"] = user.uid
            if user.extra:
                spec["extra"] = {key: list(values) for key, values in user.extra.items()}
            spec["nonResourceAttributes"] = {"path": path, "verb": verb}
            review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
            status = (await self._authorizer.create(SUBJECT_ACCESS_REVIEWS, review)).get("status") or {}
            allowed = bool(status.get("allowed"))
            _forget_stale(self._rights, now)
            kept = self._config.authorized_seconds if allowed else self._config.unauthorized_seconds
            self._rights[key] = (now + kept, allowed)
        return allowed


def certificate_user(der: bytes) -> UserInfo:
    """Who a client certificate names: its common name, and its organizations as groups."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_der_x509_certificate(der).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return UserInfo(
        str(names[0].value) if names else "",
        (*(str(group.value) for group in groups), "system:authenticated"),
    )


def _with_group(user: UserInfo, group: str) -> UserInfo:
    return user if group in user.groups else replace(user, groups=(*user.groups, group))


def _published_proxy(data: Mapping[str, str]) -> FrontProxy:
    """What the cluster says about front proxies; lists are JSON."""

    def names(key: str) -> tuple[str, ...]:
        return tuple(orjson.loads(data.get(key) or "[]"))

    return FrontProxy(
        ca=data.get("requestheader-client-ca-file", ""),
        allowed_names=names("requestheader-allowed-names"),
        username_headers=names("requestheader-username-headers"),
        group_headers=names("requestheader-group-headers"),
        uid_headers=names("requestheader-uid-headers"),
        extra_prefixes=names("requestheader-extra-headers-prefix"),
    )


def _read(path: str) -> str:
    return Path(path).read_text() if path else ""


def _forget_stale(cache: dict[Any, tuple[float, Any]], now: float) -> None:
    for key in [key for key, (until, _) in cache.items() if until <= now]:
        del cache[key]


def _status(error: ApiError) -> Response:
    return Response(error.code, orjson.dumps(error.to_status()))


def _version() -> Obj:
    from shipwheel import KUBERNETES_VERSION

    major, minor, *_ = KUBERNETES_VERSION.lstrip("v").split(".")
    return {"major": major, "minor": minor, "gitVersion": KUBERNETES_VERSION}


class _certificate:
    """A context in which there are files with the serving certificate and its key."""

    def __init__(self, config: ServingConfig) -> None:
        self._config = config
        self._scratch: Any = None

    def __enter__(self) -> tuple[str, str]:
        if self._config.cert_file:
            return self._config.cert_file, self._config.key_file
        if self._config.cert_dir:
            return self._kept(Path(self._config.cert_dir))
        import tempfile

        self._scratch = tempfile.NamedTemporaryFile()
        self._scratch.write(self_signed(self._config.bind_address))
        self._scratch.flush()
        return self._scratch.name, self._scratch.name

    def _kept(self, directory: Path) -> tuple[str, str]:
        """The pair that was made before, or a new one."""
        cert, key = directory / f"{self._config.name}.crt", directory / f"{self._config.name}.key"
        if not (cert.exists() and key.exists()):
            directory.mkdir(parents=True, exist_ok=True)
            private, begin, certificate = self_signed(self._config.bind_address).partition(_BEGIN_CERTIFICATE)
            key.touch(mode=0o600)
            key.write_bytes(private)
            cert.write_bytes(begin + certificate)
        return str(cert), str(key)

    def __exit__(self, *exception: object) -> None:
        if self._scratch:
            self._scratch.close()


def self_signed(host: str) -> bytes:
    """A key and a certificate for `host` and localhost, good for a year, as one PEM."""
    import ipaddress
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{host}@{int(now.timestamp())}")])
    alternatives: list[x509.GeneralName] = [
        x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
