"""What every cluster has from its first start, and what a server puts right whenever it starts.

Namespaces, the default roles, the system priority classes, the default ServiceCIDR, the `kubernetes` service and its
endpoints, and the configuration that extension servers read. Everything goes through the registry like a client's
writes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupResource, Obj, condition
from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.authz.rules import default_objects

log = logging.getLogger(__name__)

SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease", "default")
LOOPBACK = UserInfo("system:apiserver", ("system:masters", "system:authenticated"))
_NAMESPACES = GroupResource("", "namespaces")
_PRIORITY_CLASSES = (
    (
        "system-node-critical",
        2000001000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2000000000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
)


async def ensure(server: Any, resource: GroupResource, obj: Obj, *, reconcile: bool = False) -> None:
    """Make the object if it is not there; with `reconcile`, add what its rules or subjects lack."""
    metadata = obj["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    known = server.peek(resource, namespace, name)
    if known is None:
        try:
            await server.create(resource, namespace, obj, user=LOOPBACK)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        return
    if (
        reconcile
        and (known["metadata"].get("annotations") or {}).get("rbac.authorization.kubernetes.io/autoupdate", "true")
        == "true"
    ):
        missing = {
            field: [each for each in obj.get(field) or () if not _covered(each, known.get(field) or ())]
            for field in ("rules", "subjects")
        }
        if missing["rules"] or missing["subjects"]:

            def add(current: Obj) -> Obj:
                for field, extra in missing.items():
                    if extra:
                        current[field] = [*(current.get(field) or ()), *extra]
                return current

            await server.change(resource, namespace, name, add, user=LOOPBACK)


def _covered(wanted: Obj, present: Sequence[Obj]) -> bool:
    """Whether a rule (or subject) is already there, or part of one that is."""
    for each in present:
        if each == wanted:
            return True
        if (
            "verbs" in wanted
            and all(
                set(wanted.get(field) or ()) <= set(each.get(field) or ())
                for field in ("verbs", "apiGroups", "resources", "nonResourceURLs")
            )
            and (each.get("resourceNames") or []) == (wanted.get("resourceNames") or [])
        ):
            return True
    return False


async def make_namespaces(server: Any) -> None:
    for name in SYSTEM_NAMESPACES:
        await ensure(server, _NAMESPACES, {"metadata": {"name": name}})


async def make_roles(server: Any) -> None:
    for obj in default_objects():
        resource = GroupResource("rbac.authorization.k8s.io", obj["kind"].lower() + "s")
        await ensure(server, resource, obj, reconcile=True)


async def make_priority_classes(server: Any) -> None:
    for name, value, description in _PRIORITY_CLASSES:
        await ensure(
            server,
            GroupResource("scheduling.k8s.io", "priorityclasses"),
            {"metadata": {"name": name}, "value": value, "description": description},
        )


async def make_service_range(server: Any, ranges: Sequence[str]) -> None:
    """The ServiceCIDR that says which addresses services are given (KEP-1880)."""
    resource = GroupResource("networking.k8s.io", "servicecidrs")
    await ensure(server, resource, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": list(ranges)}})
    known = server.peek(resource, "", "kubernetes")
    if known is None or condition(known, "Ready") is not None:
        return
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": rfc3339(server.clock.now()),
    }

    def change(current: Obj) -> Obj:
        current["status"] = {"conditions": [ready]}
        return current

    await server.change(resource, "", "kubernetes", change, user=LOOPBACK, subresource="status")


async def note_start_of_token_tracking(server: Any) -> None:
    """Since when the use of legacy service-account tokens is noted (KEP-2799); their cleaner counts from it."""
    since = server.clock.now().strftime("%Y-%m-%d")
    metadata = {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"}
    await ensure(server, GroupResource("", "configmaps"), {"metadata": metadata, "data": {"since": since}})


async def make_kubernetes_service(server: Any, service_ip: str, port: int) -> None:
    """The service through which pods find the API servers."""
    services = GroupResource("", "services")
    family = "IPv6" if ":" in service_ip else "IPv4"
    ports = [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]
    labels = {"component": "apiserver", "provider": "kubernetes"}
    await ensure(
        server,
        services,
        {
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {
                "clusterIP": service_ip,
                "clusterIPs": [service_ip],
                "ipFamilies": [family],
                "ipFamilyPolicy": "SingleStack",
                "ports": ports,
                "sessionAffinity": "None",
                "type": "ClusterIP",
            },
        },
    )


async def publish_endpoints(server: Any, addresses: Sequence[str], port: int) -> None:
    """Let the service `kubernetes` lead to these addresses."""
    family = "IPv6" if any(":" in address for address in addresses) else "IPv4"
    endpoint_ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    await _replace(
        server,
        GroupResource("", "endpoints"),
        {
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": [{"addresses": [{"ip": address} for address in addresses], "ports": endpoint_ports}],
        },
        "subsets",
    )
    await _replace(
        server,
        GroupResource("discovery.k8s.io", "endpointslices"),
        {
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family,
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
            "ports": endpoint_ports,
        },
        "endpoints",
        "ports",
    )


async def _replace(server: Any, resource: GroupResource, obj: Obj, *fields: str) -> None:
    metadata = obj["metadata"]
    known = server.peek(resource, metadata["namespace"], metadata["name"])
    if known is None:
        await ensure(server, resource, obj)
    elif any(known.get(field) != obj.get(field) for field in fields):

        def change(current: Obj) -> Obj:
            for field in fields:
                current[field] = obj[field]
            return current

        await server.change(resource, metadata["namespace"], metadata["name"], change, user=LOOPBACK)


async def publish_client_cas(server: Any, client_ca: str, front_proxy_ca: str, allowed_names: Sequence[str]) -> None:
    """kube-system/extension-apiserver-authentication: how other servers check our clients."""
    data: dict[str, str] = {}
    if client_ca:
        data["client-ca-file"] = client_ca
    if front_proxy_ca:
        data |= {
            "requestheader-client-ca-file": front_proxy_ca,
            "requestheader-allowed-names": json.dumps(list(allowed_names)),
            "requestheader-username-headers": '["X-Remote-User"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        }
    resource = GroupResource("", "configmaps")
    obj: Obj = {
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": data,
    }
    known = server.peek(resource, "kube-system", "extension-apiserver-authentication")
    if known is None:
        await ensure(server, resource, obj)
    elif (known.get("data") or {}) != data:

        def change(current: Obj) -> Obj:
            current["data"] = data
            return current

        await server.change(resource, "kube-system", "extension-apiserver-authentication", change, user=LOOPBACK)
