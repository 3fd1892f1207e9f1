"""The API server's flags, under upstream's names, and what they come to."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shipwheel.client.flags import LOG_FLAGS, Flag, FlagError

_MODES = ("AlwaysAllow", "AlwaysDeny", "Node", "RBAC")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerConfig:
    """Paths are of PEM files. `etcd_servers` empty: the embedded store at `data_file`."""

    bind_address: str = "0.0.0.0"
    advertise_address: str = "127.0.0.1"
    secure_port: int = 6443
    tls_cert_file: str
    tls_private_key_file: str
    client_ca_file: str = ""
    requestheader_client_ca_file: str = ""
    requestheader_allowed_names: tuple[str, ...] = ()
    requestheader_username_headers: tuple[str, ...] = ("X-Remote-User",)
    requestheader_group_headers: tuple[str, ...] = ("X-Remote-Group",)
    requestheader_extra_headers_prefix: tuple[str, ...] = ("X-Remote-Extra-",)
    proxy_client_cert_file: str = ""
    proxy_client_key_file: str = ""
    kubelet_client_certificate: str = ""
    kubelet_client_key: str = ""
    kubelet_certificate_authority: str = ""
    kubelet_preferred_address_types: tuple[str, ...] = (
        "Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP",
    )  # fmt: skip
    service_account_issuer: tuple[str, ...] = ("https://kubernetes.default.svc.cluster.local",)
    service_account_key_file: tuple[str, ...] = ()
    service_account_signing_key_file: str = ""
    service_account_max_token_expiration: float = 0.0
    service_account_extend_token_expiration: bool = True
    service_account_jwks_uri: str = ""
    api_audiences: tuple[str, ...] = ()
    anonymous_auth: bool = True
    authorization_mode: tuple[str, ...] = ("Node", "RBAC")
    enable_admission_plugins: tuple[str, ...] = ()
    disable_admission_plugins: tuple[str, ...] = ()
    service_cluster_ip_range: tuple[str, ...] = ("10.96.0.0/12",)
    service_node_port_range: tuple[int, int] = (30000, 32767)
    data_file: str = ""
    etcd_servers: tuple[str, ...] = ()
    etcd_cafile: str = ""
    etcd_certfile: str = ""
    etcd_keyfile: str = ""
    etcd_prefix: str = "/registry"
    etcd_compaction_interval: float = 300.0
    max_requests_inflight: int = 400
    max_mutating_requests_inflight: int = 200
    max_watches_inflight: int = 10_000
    enable_priority_and_fairness: bool = True
    request_timeout: float = 60.0
    min_request_timeout: int = 1800
    event_ttl: float = 3600.0
    allow_privileged: bool = True
    serve_removed_api_versions: bool = True
    runtime_config: Mapping[str, str] = field(default_factory=dict)
    feature_gates: Mapping[str, bool] | None = None


FLAGS: tuple[Flag, ...] = (
    Flag("bind-address", "ip", "0.0.0.0", "The address to serve on.", group="Secure serving"),
    Flag("advertise-address", "ip", "", "The address at which the cluster reaches this server.", group="Generic"),
    Flag("secure-port", "int", 6443, "The port to serve HTTPS on.", group="Secure serving"),
    Flag("tls-cert-file", "string", "", "The serving certificate.", group="Secure serving"),
    Flag("tls-private-key-file", "string", "", "The key of --tls-cert-file.", group="Secure serving"),
    Flag("client-ca-file", "string", "", "The authorities of client certificates.", group="Authentication"),
    Flag("requestheader-client-ca-file", "string", "", "The authorities of front proxies.", group="Authentication"),
    Flag("requestheader-allowed-names", "stringSlice", (), "Common names of front proxies; empty: any.",
         group="Authentication"),
    Flag("requestheader-username-headers", "stringSlice", ("X-Remote-User",), "Headers of the user's name.",
         group="Authentication"),
    Flag("requestheader-group-headers", "stringSlice", ("X-Remote-Group",), "Headers of the user's groups.",
         group="Authentication"),
    Flag("requestheader-extra-headers-prefix", "stringSlice", ("X-Remote-Extra-",), "Prefixes of other headers.",
         group="Authentication"),
    Flag("proxy-client-cert-file", "string", "", "What the aggregator shows to API servers behind it."),
    Flag("proxy-client-key-file", "string", "", "The key of --proxy-client-cert-file."),
    Flag("kubelet-client-certificate", "string", "", "What the server shows to kubelets."),
    Flag("kubelet-client-key", "string", "", "The key of --kubelet-client-certificate."),
    Flag("kubelet-certificate-authority", "string", "", "The authorities of kubelets' serving certificates."),
    Flag("kubelet-preferred-address-types", "stringSlice",
         ("Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"),
         "Which of a node's addresses to use, in order."),
    Flag("service-account-issuer", "stringArray", (), "The issuer of service account tokens; repeated: accepted too.",
         group="Authentication"),
    Flag("service-account-key-file", "stringArray", (), "Keys that verify service account tokens.",
         group="Authentication"),
    Flag("service-account-signing-key-file", "string", "", "The key that signs service account tokens."),
    Flag("service-account-max-token-expiration", "duration", 0.0, "The longest a token may live; 0: no limit.",
         group="Authentication"),
    Flag("service-account-extend-token-expiration", "bool", True, "Let injected tokens live longer than they say.",
         group="Authentication"),
    Flag("service-account-jwks-uri", "string", "", "Where the discovery document says the keys are.",
         group="Authentication"),
    Flag("api-audiences", "stringSlice", (), "Audiences of tokens for this API; default: the issuer.",
         group="Authentication"),
    Flag("anonymous-auth", "bool", True, "Let requests without credentials through as system:anonymous.",
         group="Authentication"),
    Flag("authorization-mode", "stringSlice", ("AlwaysAllow",), f"Ordered list of {', '.join(_MODES)}.",
         group="Authorization"),
    Flag("enable-admission-plugins", "stringSlice", (), "Admission plugins beside the default ones.",
         group="Admission"),
    Flag("disable-admission-plugins", "stringSlice", (), "Default admission plugins to leave out.",
         group="Admission"),
    Flag("service-cluster-ip-range", "string", "10.0.0.0/24", "The addresses of services; two ranges: dual stack."),
    Flag("service-node-port-range", "string", "30000-32767", "The ports of NodePort services."),
    Flag("etcd-servers", "stringSlice", (), "etcd's URLs; none: the embedded store.", group="Etcd"),
    Flag("etcd-cafile", "string", "", "The authorities of etcd.", group="Etcd"),
    Flag("etcd-certfile", "string", "", "What the server shows to etcd.", group="Etcd"),
    Flag("etcd-keyfile", "string", "", "The key of --etcd-certfile.", group="Etcd"),
    Flag("etcd-prefix", "string", "/registry", "What all keys begin with.", group="Etcd"),
    Flag("etcd-compaction-interval", "duration", 300.0, "How often old revisions are forgotten; 0: never.",
         group="Etcd"),
    Flag("max-requests-inflight", "int", 400,
         "How many reads are served at once; with priority and fairness this and --max-mutating-requests-inflight "
         "together are the seats of all requests. Without, 0: no limit.", group="Generic"),
    Flag("max-mutating-requests-inflight", "int", 200,
         "How many writes are served at once; see --max-requests-inflight.", group="Generic"),
    Flag("enable-priority-and-fairness", "bool", True,
         "Queue and dispatch requests with priority and fairness, instead of just limiting how many are served.",
         group="Features"),
    Flag("max-watches-inflight", "int", 10_000, "How many watches are served at once; 0: no limit.",
         group="Generic"),
    Flag("request-timeout", "duration", 60.0, "How long a request may take that is no watch or the like.",
         group="Generic"),
    Flag("min-request-timeout", "int", 1800, "How many seconds a watch lasts at least whose client does not say.",
         group="Generic"),
    Flag("event-ttl", "duration", 3600.0, "How long events are kept."),
    Flag("serve-removed-api-versions", "bool", True,
         "Serve API versions that upstream has removed, with a warning; false: only those of the current release."),
    Flag("runtime-config", "mapStringString", {},
         "API versions to turn on or off: api/all, api/ga, api/beta, api/alpha, GROUP/VERSION[/RESOURCE]=true|false."),
    Flag("allow-privileged", "bool", True, "Whether privileged containers may be asked for."),
    Flag("data-file", "string", "", "The file of the embedded store (without --etcd-servers)."),
    Flag("feature-gates", "mapStringBool", {}, "Features to turn on or off."),
    *LOG_FLAGS,
)  # fmt: skip
_OF_LOGS = frozenset(flag.name for flag in LOG_FLAGS)
"""Told to whoever runs the server."""


def from_flags(values: Mapping[str, Any]) -> ApiServerConfig:
    """The configuration that a command line says. FlagError when it makes no sense."""
    given = {name.replace("-", "_"): value for name, value in values.items() if name not in _OF_LOGS}
    for name in ("tls-cert-file", "tls-private-key-file", "service-account-signing-key-file"):
        if not values[name]:
            raise FlagError(f"--{name} must be set")
    if not values["etcd-servers"] and not values["data-file"]:
        raise FlagError("--etcd-servers must be specified (or --data-file for the embedded store)")
    for mode in values["authorization-mode"]:
        if mode not in _MODES:
            raise FlagError(f'unknown authorization mode "{mode}": supported values: {", ".join(_MODES)}')
    low, dash, high = values["service-node-port-range"].partition("-")
    if not (dash and low.isdigit() and high.isdigit() and 0 < int(low) <= int(high) < 65536):
        raise FlagError(f'invalid value "{values["service-node-port-range"]}" for --service-node-port-range')
    given["service_node_port_range"] = (int(low), int(high))
    ranges = tuple(each.strip() for each in values["service-cluster-ip-range"].split(","))
    for each in ranges:
        try:
            ipaddress.ip_network(each)
        except ValueError as error:
            raise FlagError(f'invalid value "{each}" for --service-cluster-ip-range: {error}') from None
    given["service_cluster_ip_range"] = ranges
    if not given["service_account_issuer"]:
        raise FlagError("--service-account-issuer is a required flag")
    reads, writes = values["max-requests-inflight"], values["max-mutating-requests-inflight"]
    for name in ("max-requests-inflight", "max-mutating-requests-inflight"):
        if values[name] < 0:
            raise FlagError(f"--{name} can not be negative value")
    if values["enable-priority-and-fairness"] and reads + writes <= 0:
        raise FlagError(
            f"invalid configuration: MaxRequestsInFlight={reads} and MaxMutatingRequestsInFlight={writes}; they must "
            "add up to something positive"
        )
    if not given["advertise_address"]:
        given["advertise_address"] = (
            "127.0.0.1" if given["bind_address"] in ("0.0.0.0", "::") else given["bind_address"]
        )
    return ApiServerConfig(**given)
