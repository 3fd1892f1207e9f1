"""What a new cluster contains besides what its API server brings along: the objects that kubeadm would make.

They are made when they are missing, and left alone when somebody has changed them.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from shipwheel.admin.layout import Settings
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client
from shipwheel.client.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    FLOW_SCHEMAS,
    ROLE_BINDINGS,
    ROLES,
    SERVICES,
    STORAGE_CLASSES,
)

DNS_USER = "system:shipwheel:dns"
SIMULATED_NODES_USER = "system:shipwheel:simulated-nodes"
KUBELET_CLIENT = "kube-apiserver-kubelet-client"
RBAC_GROUP = "rbac.authorization.k8s.io"
DNS_SERVICE_INDEX = 10


def dns_address(service_cidr: str) -> str:
    """The DNS service's, kubeadm's choice: the tenth of the range."""
    return str(ip_network(service_cidr)[DNS_SERVICE_INDEX])


def api_address(service_cidr: str) -> str:
    """The Service `default/kubernetes`: the first of the range."""
    return str(ip_network(service_cidr)[1])


async def install(client: Client, settings: Settings) -> None:
    """Make what is missing. Raises `ApiError`, `ConnectionFailed`."""
    for resource, obj in objects(settings):
        meta = obj["metadata"]
        try:
            await client.get(resource, meta["name"], meta.get("namespace", ""))
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            await client.create(resource, obj)


def objects(settings: Settings) -> Iterator[tuple[GroupVersionResource, Obj]]:
    yield from _kubelet_client()
    yield STORAGE_CLASSES, _default_class()
    if settings.runtime == "containerd":
        yield from _dns(settings)
    if settings.simulated_nodes:
        yield from _simulated_nodes()


def _kubelet_client() -> Iterator[tuple[GroupVersionResource, Obj]]:
    """Kubelets ask the API server who may use their API, so the API server itself needs the right."""
    yield (
        CLUSTER_ROLE_BINDINGS,
        _binding("ClusterRoleBinding", "kubeadm:apiserver-kubelet-client", "system:kubelet-api-admin", KUBELET_CLIENT),
    )


def _default_class() -> Obj:
    """Claims that name no class get a directory on the node of the first pod that uses them."""
    from shipwheel.controllers.volumes.plugins import LOCAL_PATH

    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": LOCAL_PATH,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
    }


def _simulated_nodes() -> Iterator[tuple[GroupVersionResource, Obj]]:
    """One process that is many nodes has the rights of all of them, as far as it uses them."""
    name = SIMULATED_NODES_USER
    rules = [
        _rule("", ["nodes"], ["create", "get", "list", "watch", "patch"]),
        _rule("", ["nodes/status", "pods/status"], ["patch"]),
        _rule("", ["pods"], ["get", "list", "watch", "delete"]),
        _rule("coordination.k8s.io", ["leases"], ["create", "get", "update"]),
    ]
    meta = {"name": name}
    yield CLUSTER_ROLES, {"apiVersion": f"{RBAC_GROUP}/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules}
    yield CLUSTER_ROLE_BINDINGS, _binding("ClusterRoleBinding", name, name, name)
    reviews = "system:auth-delegator"
    yield CLUSTER_ROLE_BINDINGS, _binding("ClusterRoleBinding", f"{name}:reviews", reviews, name)
    yield FLOW_SCHEMAS, _heartbeats(name)


def _heartbeats(user: str) -> Obj:
    """What nodes say of themselves does not wait behind others' requests: as `system-node-high` for those that are
    in the group of nodes."""
    everywhere = {"verbs": ["*"], "namespaces": ["*"]}
    return {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": "simulated-nodes"},
        "spec": {
            "priorityLevelConfiguration": {"name": "node-high"},
            "matchingPrecedence": 400,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [
                {
                    "subjects": [{"kind": "User", "user": {"name": user}}],
                    "resourceRules": [
                        {"apiGroups": [""], "resources": ["nodes", "nodes/status"], "clusterScope": True, **everywhere},
                        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], **everywhere},
                    ],
                }
            ],
        },
    }


def _dns(settings: Settings) -> Iterator[tuple[GroupVersionResource, Obj]]:
    yield (
        CLUSTER_ROLES,
        {
            "apiVersion": f"{RBAC_GROUP}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": DNS_USER},
            "rules": [
                _rule("", ["namespaces", "services"], ["list", "watch"]),
                _rule("discovery.k8s.io", ["endpointslices"], ["list", "watch"]),
            ],
        },
    )
    yield CLUSTER_ROLE_BINDINGS, _binding("ClusterRoleBinding", DNS_USER, DNS_USER, DNS_USER)
    yield (
        ROLES,
        {
            "apiVersion": f"{RBAC_GROUP}/v1",
            "kind": "Role",
            "metadata": {"name": DNS_USER, "namespace": "kube-system"},
            "rules": [_rule("discovery.k8s.io", ["endpointslices"], ["create", "get", "patch"])],
        },
    )
    yield ROLE_BINDINGS, _binding("RoleBinding", DNS_USER, DNS_USER, DNS_USER, namespace="kube-system")
    address = dns_address(settings.service_cidr)
    yield (
        SERVICES,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {
                    "k8s-app": "kube-dns",
                    "kubernetes.io/cluster-service": "true",
                    "kubernetes.io/name": "CoreDNS",
                },
            },
            "spec": {
                "clusterIP": address,
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                ],
            },
        },
    )


def _rule(group: str, resources: list[str], verbs: list[str]) -> Obj:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _binding(kind: str, name: str, role: str, user: str, *, namespace: str = "") -> Obj:
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": kind,
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {
            "apiGroup": RBAC_GROUP,
            "kind": "Role" if namespace else "ClusterRole",
            "name": role,
        },
        "subjects": [{"apiGroup": RBAC_GROUP, "kind": "User", "name": user}],
    }
