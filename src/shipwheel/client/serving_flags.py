"""The flags of components that serve their health and metrics, as all of the control plane's do, and what they come to.

They are declared once; a component says under which name and on which port it serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shipwheel.client.fixed_flags import Fixed
from shipwheel.client.flags import Flag, Type
from shipwheel.client.serving import FrontProxy, ServingConfig

_SECTIONS: Mapping[str, tuple[tuple[str, Type, Any, str], ...]] = {
    "Secure serving": (
        ("bind-address", "ip", "0.0.0.0", "Address to serve health, metrics and configuration on."),
        ("secure-port", "int", 0, "Port to serve HTTPS on; 0: do not serve."),
        ("tls-cert-file", "string", "", "Serving certificate; without it one is made."),
        ("tls-private-key-file", "string", "", "Key of --tls-cert-file."),
        ("cert-dir", "string", "", "Directory where a certificate that is made is kept, and found again."),
        ("tls-min-version", "string", "", "Minimum TLS version: VersionTLS12 or VersionTLS13."),
        ("tls-cipher-suites", "stringSlice", (), "Cipher suites of TLS 1.2, by their IANA names."),
        ("permit-port-sharing", "bool", False, "Let others listen on the same port (SO_REUSEPORT)."),
    ),
    "Authentication": (
        ("authentication-kubeconfig", "string", "", "kubeconfig to ask the API server with who a token is of."),
        ("authentication-skip-lookup", "bool", False, "Do not look up in the cluster what flags do not say."),
        ("authentication-tolerate-lookup-failure", "bool", True, "Go on when that lookup fails."),
        ("authentication-token-webhook-cache-ttl", "duration", 10.0, "How long it is remembered who a token is of."),
        ("client-ca-file", "string", "", "CA of client certificates; without it, the cluster's."),
        ("requestheader-client-ca-file", "string", "", "CA of proxies that say in headers whom they speak for."),
        ("requestheader-allowed-names", "stringSlice", (), "Common names of those proxies; empty: all of that CA."),
        ("requestheader-username-headers", "stringSlice", ("x-remote-user",), "Headers that may hold the name."),
        ("requestheader-group-headers", "stringSlice", ("x-remote-group",), "Headers that may hold the groups."),
        ("requestheader-uid-headers", "stringSlice", (), "Headers that may hold the UID."),
        ("requestheader-extra-headers-prefix", "stringSlice", ("x-remote-extra-",), "Prefixes of other headers."),
    ),
    "Authorization": (
        ("authorization-kubeconfig", "string", "", "kubeconfig to ask the API server with who may do what."),
        ("authorization-always-allow-paths", "stringSlice", ("/healthz", "/readyz", "/livez"), "Open to all."),
        ("authorization-webhook-cache-authorized-ttl", "duration", 10.0, "How long a yes is remembered."),
        ("authorization-webhook-cache-unauthorized-ttl", "duration", 10.0, "How long a no is remembered."),
    ),
}

FIXED: tuple[Fixed, ...] = (
    Fixed("", "disable-http2-serving", "bool", False, moot="HTTP/2 is never served"),
    Fixed("", "http2-max-streams-per-connection", "int", 0, moot="HTTP/2 is never served"),
    Fixed("", "permit-address-sharing", "bool", False, moot="SO_REUSEADDR is always set"),
    Fixed("", "tls-curve-preferences", "stringSlice", ()),
    Fixed("", "tls-sni-cert-key", "stringArray", ()),
    Fixed("", "profiling", "bool", False),
    Fixed("", "contention-profiling", "bool", False),
    Fixed("", "kube-api-content-type", "string", "application/json"),
    Fixed("", "leader-elect-resource-lock", "string", "leases"),
    Fixed("", "emulated-version", "stringSlice", (), also=(("1.36",), ("kube=1.36",))),
    Fixed("", "min-compatibility-version", "stringSlice", (), also=(("1.35",), ("kube=1.35",))),
    Fixed("", "allow-metric-labels", "mapStringString", {}),
    Fixed("", "allow-metric-labels-manifest", "string", ""),
    Fixed("", "show-hidden-metrics-for-version", "string", "", also=("1.35",)),
    Fixed("", "log-flush-frequency", "duration", "5s", moot="every line is written at once"),
    Fixed("", "log-json-info-buffer-size", "string", "0"),
    Fixed("", "log-json-split-stream", "bool", False),
    Fixed("", "log-text-info-buffer-size", "string", "0"),
    Fixed("", "log-text-split-stream", "bool", False),
)
"""What the scheduler and the controller manager share with upstream's by name only (to be `check`ed)."""

OTHERS: tuple[Flag, ...] = (
    Flag("feature-gates", "mapStringBool", {}, "Features; nothing but what is so anyway can be asked for."),
    Flag("disabled-metrics", "stringSlice", (), "Metrics not to show, by their full names.", group="Metrics"),
)


def flags(port: int) -> tuple[Flag, ...]:
    """Of a component that serves on this port if nothing else is said."""
    declared = (
        Flag(name, kind, port if name == "secure-port" else default, text, group=section)
        for section, rows in _SECTIONS.items()
        for name, kind, default, text in rows
    )
    return (*declared, *OTHERS, *(each.as_flag() for each in FIXED))


def from_flags(values: Mapping[str, Any], name: str) -> ServingConfig:
    """What the flags come to; `name` is the component's. OSError for files that cannot be read."""
    ca = values["requestheader-client-ca-file"]
    return ServingConfig(
        name=name,
        bind_address=values["bind-address"],
        port=values["secure-port"],
        cert_file=values["tls-cert-file"],
        key_file=values["tls-private-key-file"],
        cert_dir=values["cert-dir"],
        tls_min_version=values["tls-min-version"],
        tls_cipher_suites=values["tls-cipher-suites"],
        permit_port_sharing=values["permit-port-sharing"],
        authentication_kubeconfig=values["authentication-kubeconfig"],
        authorization_kubeconfig=values["authorization-kubeconfig"],
        client_ca_file=values["client-ca-file"],
        skip_lookup=values["authentication-skip-lookup"],
        tolerate_lookup_failure=values["authentication-tolerate-lookup-failure"],
        front_proxy=FrontProxy(
            ca=Path(ca).read_text() if ca else "",
            allowed_names=values["requestheader-allowed-names"],
            username_headers=values["requestheader-username-headers"],
            group_headers=values["requestheader-group-headers"],
            uid_headers=values["requestheader-uid-headers"],
            extra_prefixes=values["requestheader-extra-headers-prefix"],
        ),
        token_seconds=values["authentication-token-webhook-cache-ttl"],
        authorized_seconds=values["authorization-webhook-cache-authorized-ttl"],
        unauthorized_seconds=values["authorization-webhook-cache-unauthorized-ttl"],
        always_allow_paths=values["authorization-always-allow-paths"],
    )
