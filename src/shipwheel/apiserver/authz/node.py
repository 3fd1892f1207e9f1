"""What a kubelet may do: its own node, its own pods, and what these pods refer to (upstream's Node authorizer).

Secrets, config maps, claims and volumes are open to a node only while a pod bound to it uses them. The references of
each pod are noted as pods come and go, so that a question costs a look into a dictionary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Attributes, Decision
from shipwheel.apiserver.authz.policy import CLUSTER_ROLES
from shipwheel.apiserver.authz.rbac import allows
from shipwheel.apiserver.authz.rules import parse_rule
from shipwheel.apiserver.entries import Entry
from shipwheel.apiserver.watchcache import Change, ResourceCache, WatchCache

NODES_GROUP = "system:nodes"
_PREFIX = "system:node:"
_PODS = GroupResource("", "pods")

Reference = tuple[str, str, str]
"""(resource, namespace, name)"""


def node_of(user_name: str, groups: tuple[str, ...]) -> str:
    """The node a user is, empty when it is none."""
    if user_name.startswith(_PREFIX) and NODES_GROUP in groups:
        return user_name[len(_PREFIX) :]
    return ""


def selects(selector: str, field: str, value: str) -> bool:
    """Whether a field selector lets only this value through."""
    return any(part in (f"{field}={value}", f"{field}=={value}") for part in selector.split(","))


class NodeAuthorizer:
    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._rules = [parse_rule(text) for text in CLUSTER_ROLES["system:node"]]
        self._references: dict[str, Counter[Reference]] = {}
        cache.on_change(self._changed)

    def load(self) -> None:
        """Note what is in the cache already."""
        for entry in self._cache.caches[_PODS.resource].entries.values():
            self._note(entry, +1)

    def authorize(self, ask: Attributes) -> Decision:
        node = node_of(ask.user.name, ask.user.groups)
        if not node:
            return Decision(False)
        if ask.is_resource and ask.group == "":
            limited = self._limited(ask, node)
            if limited is not None:
                return limited
        if ask.is_resource and ask.group == "storage.k8s.io" and ask.resource == "volumeattachments":
            return self._attachment(ask, node)
        if ask.is_resource and ask.group == "coordination.k8s.io" and ask.resource == "leases":
            return self._lease(ask, node)
        if ask.is_resource and ask.resource == "csinodes" and ask.name not in ("", node):
            return Decision(False, "can only access CSINode with the same name as the requesting node")
        if any(allows(rule, ask) for rule in self._rules):
            return Decision(True)
        return Decision(False)

    def _limited(self, ask: Attributes, node: str) -> Decision | None:
        """Decisions on the kinds that a node sees only as far as its pods refer to them."""
        resource = ask.resource
        if resource in ("secrets", "configmaps"):
            if ask.verb not in ("get", "list", "watch") or ask.subresource:
                return Decision(False, "can only read resources of this type")
            if not ask.name:
                return Decision(False, "No Object name found")
            return self._related(ask, node)
        if resource in ("persistentvolumes", "persistentvolumeclaims"):
            if ask.verb == "get" and not ask.subresource:
                return self._related(ask, node)
            if resource == "persistentvolumeclaims" and ask.subresource == "status":
                return self._related(ask, node) if ask.verb in ("update", "patch", "get") else Decision(False)
            return Decision(False, "can only get individual resources of this type")
        if resource == "serviceaccounts":
            if ask.verb == "create" and ask.subresource == "token":
                return self._related(ask, node)
            if ask.verb == "get" and not ask.subresource:
                return self._related(ask, node)
            return Decision(False, "can only create tokens for individual service accounts")
        if resource == "nodes":
            if ask.verb in ("get", "list", "watch", "create", "update", "patch", "delete"):
                if ask.verb in ("create",) and not ask.subresource:
                    return Decision(True)
                if ask.name and ask.name != node:
                    return Decision(
                        False, f"node '{node}' cannot {ask.verb} node '{ask.name}', only its own Node object"
                    )
                wanted = ask.name == node or selects(ask.field_selector, "metadata.name", node)
                if ask.verb in ("list", "watch") and not wanted:
                    return Decision(False, "can only list or watch its own Node object")
                return Decision(ask.verb != "delete")
            return None
        if resource == "pods" and ask.verb in ("list", "watch", "get") and not ask.subresource:
            if ask.verb == "get":
                return Decision(self._runs(ask, node), f"no relationship found between node '{node}' and this object")
            wanted = selects(ask.field_selector, "spec.nodeName", node)
            return Decision(wanted, "can only list/watch pods with spec.nodeName field selector")
        return None

    def _runs(self, ask: Attributes, node: str) -> bool:
        entry = self._cache.caches[_PODS.resource].get(ask.namespace, ask.name)
        return entry is not None and entry.field("spec.nodeName") == node

    def _related(self, ask: Attributes, node: str) -> Decision:
        counted = self._references.get(node)
        reference = (ask.resource, ask.namespace, ask.name)
        if ask.resource == "persistentvolumes":
            if counted is not None and self._volume_is_claimed(ask.name, counted):
                return Decision(True)
        elif counted is not None and counted.get(reference):
            return Decision(True)
        return Decision(False, f"no relationship found between node '{node}' and this object")

    def _volume_is_claimed(self, volume: str, counted: Counter[Reference]) -> bool:
        claims = self._cache.caches["persistentvolumeclaims"]
        for resource, namespace, name in counted:
            if resource == "persistentvolumeclaims":
                entry = claims.get(namespace, name)
                if entry is not None and entry.peek().get("spec", {}).get("volumeName") == volume:
                    return True
        return False

    def _attachment(self, ask: Attributes, node: str) -> Decision:
        cache = self._cache.caches.get("volumeattachments")
        entry = cache.get("", ask.name) if cache is not None and ask.name else None
        mine = entry is not None and entry.peek().get("spec", {}).get("nodeName") == node
        return Decision(ask.verb == "get" and mine, f"no relationship found between node '{node}' and this object")

    def _lease(self, ask: Attributes, node: str) -> Decision:
        if ask.namespace != "kube-node-lease":
            return Decision(False, 'can only access leases in the "kube-node-lease" system namespace')
        if ask.verb not in ("get", "create", "update", "patch", "delete"):
            return Decision(False, "can only get, create, update, patch, or delete a node lease")
        if ask.verb != "create" and ask.name != node:
            return Decision(False, "can only access node lease with the same name as the requesting node")
        return Decision(True)

    def _changed(self, cache: ResourceCache, change: Change) -> None:
        if cache.resource.group_resource != _PODS:
            return
        before, after = change.before, None if change.deleted else change.after
        if before is not None and after is not None and _spec(before) == _spec(after):
            return
        if before is not None:
            self._note(before, -1)
        if after is not None:
            self._note(after, +1)

    def _note(self, entry: Entry, by: int) -> None:
        if b'"nodeName":"' not in entry.tail:
            return  # nobody's yet, which needs no decoding to see
        pod = entry.decode()
        node = pod.get("spec", {}).get("nodeName")
        if not node:
            return
        counted = self._references.setdefault(node, Counter())
        for reference in references(pod):
            counted[reference] += by
            if counted[reference] <= 0:
                del counted[reference]
        if not counted:
            del self._references[node]


def _spec(entry: Entry) -> bytes:
    """What a pod says after its metadata and, as a rule, before its status: there it says all that is noted of it here.
    A quote in a text would have a backslash before it, so these are the fields themselves."""
    tail = entry.tail
    start, end = tail.find(b',"spec":{'), tail.rfind(b',"status":{')
    return tail[start:end] if start < end else tail[start:]


def references(pod: Obj) -> Iterator[Reference]:
    """What a pod refers to that its node has to read."""
    namespace = pod["metadata"]["namespace"]
    spec = pod["spec"]
    if account := spec.get("serviceAccountName"):
        yield "serviceaccounts", namespace, account
    for each in spec.get("imagePullSecrets") or ():
        yield "secrets", namespace, each.get("name", "")
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            yield from _environment(container, namespace)
    for volume in spec.get("volumes") or ():
        yield from _volume(volume, namespace, pod)


def _environment(container: Obj, namespace: str) -> Iterator[Reference]:
    for each in container.get("env") or ():
        source = each.get("valueFrom") or {}
        if "secretKeyRef" in source:
            yield "secrets", namespace, source["secretKeyRef"].get("name", "")
        if "configMapKeyRef" in source:
            yield "configmaps", namespace, source["configMapKeyRef"].get("name", "")
    for each in container.get("envFrom") or ():
        if "secretRef" in each:
            yield "secrets", namespace, each["secretRef"].get("name", "")
        if "configMapRef" in each:
            yield "configmaps", namespace, each["configMapRef"].get("name", "")


def _volume(volume: Obj, namespace: str, pod: Obj) -> Iterator[Reference]:
    if "secret" in volume:
        yield "secrets", namespace, volume["secret"].get("secretName", "")
    if "configMap" in volume:
        yield "configmaps", namespace, volume["configMap"].get("name", "")
    if "persistentVolumeClaim" in volume:
        yield "persistentvolumeclaims", namespace, volume["persistentVolumeClaim"].get("claimName", "")
    if "ephemeral" in volume:
        yield "persistentvolumeclaims", namespace, f"{pod['metadata']['name']}-{volume['name']}"
    for source in (volume.get("projected") or {}).get("sources") or ():
        if "secret" in source:
            yield "secrets", namespace, source["secret"].get("name", "")
        if "configMap" in source:
            yield "configmaps", namespace, source["configMap"].get("name", "")
    for plugin in volume.values():
        if isinstance(plugin, dict):
            for key in ("secretRef", "nodePublishSecretRef"):
                if isinstance(plugin.get(key), dict) and plugin[key].get("name"):
                    yield "secrets", namespace, plugin[key]["name"]
