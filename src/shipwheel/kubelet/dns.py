"""A pod's resolver configuration and its hosts file, as pure functions of its specification and the node's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec

MAXIMUM_NAMESERVERS = 3
MAXIMUM_SEARCHES = 32
MAXIMUM_SEARCH_CHARACTERS = 2048
MAXIMUM_DOMAIN = 253
MAXIMUM_HOSTNAME = 63

_HOSTS_HEADER = "# Kubernetes-managed hosts file.\n"
_HOSTS_HEADER_HOST_NETWORK = "# Kubernetes-managed hosts file (host network).\n"
_HOSTS_FIXED = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n"
)


class HostnameFault(Exception):
    """The pod's host name cannot be used."""


@dataclass(frozen=True, slots=True)
class Resolver:
    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """What the node contributes."""

    cluster_dns: Sequence[str] = ()
    cluster_domain: str = ""
    resolv_conf: Resolver | None = None
    """The node's own resolver; None when the kubelet was told to use none."""


def parse_resolv_conf(text: str) -> Resolver:
    """Read resolv.conf(5): servers add up, the last search line counts, an option's last value counts."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        match fields[0]:
            case "nameserver" if len(fields) > 1:
                servers.append(fields[1])
            case "search":
                searches = tuple(each.removesuffix(".") for each in fields[1:] if each != ".")
            case "options":
                options |= {each.partition(":")[0]: each for each in fields[1:]}
    return Resolver(tuple(servers), searches, tuple(options.values()))


def pod_resolver(pod: Obj, node: DnsSettings) -> tuple[Resolver, list[tuple[str, str]]]:
    """The pod's resolver, and warnings to record as events: (reason, message)."""
    warnings: list[tuple[str, str]] = []
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not podspec.is_host_network(pod))
    host = node.resolv_conf
    if policy == "None":
        resolver = Resolver()
    elif cluster and node.cluster_dns:
        resolver = Resolver(
            tuple(node.cluster_dns), _cluster_searches(pod, node, host.searches if host else ()), ("ndots:5",)
        )
    else:
        if cluster:
            text = (
                'kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. '
                'Falling back to "Default" policy.'
            )
            warnings.append(("MissingClusterDNS", f'pod: "{podspec.describe(pod)}". {text}'))
        resolver = host if host is not None else Resolver(("127.0.0.1",), (".",))
    resolver = _with_own(resolver, pod["spec"].get("dnsConfig") or {})
    return _within_limits(resolver, warnings), warnings


def _cluster_searches(pod: Obj, node: DnsSettings, host: Sequence[str]) -> tuple[str, ...]:
    if not node.cluster_domain:
        return tuple(host)
    namespace = pod["metadata"].get("namespace", "")
    domain = node.cluster_domain
    return _unique((f"{namespace}.svc.{domain}", f"svc.{domain}", domain, *host))


def _with_own(resolver: Resolver, own: Obj) -> Resolver:
    """Add what the pod itself asks for; its options override."""
    if not own:
        return resolver
    options = {each.partition(":")[0]: each for each in resolver.options}
    for option in own.get("options") or ():
        value = option.get("value")
        options[option["name"]] = f"{option['name']}:{value}" if value else option["name"]
    return Resolver(
        _unique((*resolver.servers, *(own.get("nameservers") or ()))),
        _unique((*resolver.searches, *(own.get("searches") or ()))),
        tuple(options.values()),
    )


def _unique(items: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _within_limits(resolver: Resolver, warnings: list[tuple[str, str]]) -> Resolver:
    servers = resolver.servers
    if len(servers) > MAXIMUM_NAMESERVERS:
        servers = servers[:MAXIMUM_NAMESERVERS]
        text = (
            "Nameserver limits were exceeded, some nameservers have been omitted, "
            f"the applied nameserver line is: {' '.join(servers)}"
        )
        warnings.append(("DNSConfigForming", text))
    searches = tuple(each for each in resolver.searches[:MAXIMUM_SEARCHES] if len(each) <= MAXIMUM_DOMAIN)
    while len(" ".join(searches)) > MAXIMUM_SEARCH_CHARACTERS:
        searches = searches[:-1]
    if searches != resolver.searches:
        text = (
            "Search Line limits were exceeded, some search paths have been omitted, "
            f"the applied search line is: {' '.join(searches)}"
        )
        warnings.append(("DNSConfigForming", text))
    return Resolver(servers, searches, resolver.options)


def hostname_and_domain(pod: Obj, cluster_domain: str) -> tuple[str, str]:
    """The pod's host name and, with a subdomain, the domain that its service gives it."""
    spec = pod["spec"]
    override = spec.get("hostnameOverride")
    if override:
        return _truncate(pod, override), ""
    hostname = _truncate(pod, spec.get("hostname") or pod["metadata"]["name"])
    subdomain = spec.get("subdomain")
    if not subdomain:
        return hostname, ""
    return hostname, f"{subdomain}.{pod['metadata'].get('namespace', '')}.svc.{cluster_domain}"


def _truncate(pod: Obj, hostname: str) -> str:
    if len(hostname) <= MAXIMUM_HOSTNAME:
        return hostname
    cut = hostname[:MAXIMUM_HOSTNAME].rstrip("-.")
    if not cut:
        raise HostnameFault(f'hostname for pod "{pod["metadata"]["name"]}" was invalid: "{hostname}"')
    return cut


def kernel_hostname(pod: Obj, cluster_domain: str) -> str:
    """What the kernel is told: the short name, or the whole one where the pod wants it."""
    hostname, domain = hostname_and_domain(pod, cluster_domain)
    if not (pod["spec"].get("setHostnameAsFQDN") and domain):
        return hostname
    whole = f"{hostname}.{domain}"
    if len(whole) > 64:
        raise HostnameFault(
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {whole} is too long "
            f"(64 characters is the max, {len(whole)} characters requested)"
        )
    return whole


def hosts_file(pod: Obj, pod_ips: Sequence[str], cluster_domain: str, node_hosts: str) -> str:
    """The text of the pod's /etc/hosts. `node_hosts` is the node's own, used on the host's network."""
    aliases = "".join(
        f"{each['ip']}\t{chr(9).join(each.get('hostnames') or ())}\n" for each in pod["spec"].get("hostAliases") or ()
    )
    if aliases:
        aliases = "\n# Entries added by HostAliases.\n" + aliases
    if podspec.is_host_network(pod):
        return _HOSTS_HEADER_HOST_NETWORK + node_hosts + aliases
    hostname, domain = hostname_and_domain(pod, cluster_domain)
    names = f"{hostname}.{domain}\t{hostname}" if domain else hostname
    return _HOSTS_HEADER + _HOSTS_FIXED + "".join(f"{ip}\t{names}\n" for ip in pod_ips) + aliases
