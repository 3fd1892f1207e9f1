"""NodeRestriction: a kubelet writes about its own node and its own pods, and cannot call itself something else."""

from __future__ import annotations

from collections.abc import Callable

from shipwheel.api.meta import Obj
from shipwheel.apiserver.admission.chain import Attempt, Plugin
from shipwheel.apiserver.authz.node import node_of, references
from shipwheel.kinds.core.nodelabels import may_label

_MIRROR = "kubernetes.io/config.mirror"


class NodeRestriction(Plugin):
    name = "NodeRestriction"
    operations = frozenset({"CREATE", "UPDATE", "DELETE"})

    def __init__(self, pod: Callable[[str, str], Obj | None]) -> None:
        self._pod = pod

    async def validate(self, attempt: Attempt) -> None:
        node = node_of(attempt.user.name, attempt.user.groups)
        if not node:
            return
        if attempt.resource.group == "" and attempt.resource.plural == "pods":
            self._pods(attempt, node)
        elif attempt.resource.group == "" and attempt.resource.plural == "nodes":
            self._nodes(attempt, node)
        elif attempt.concerns("coordination.k8s.io", "leases"):
            self._leases(attempt, node)
        elif attempt.concerns("", "serviceaccounts", "token"):
            self._tokens(attempt, node)
        elif attempt.concerns("storage.k8s.io", "csinodes") and attempt.name != node:
            raise attempt.forbid(f'can only access CSINode with the same name as the requesting node: "{node}"')

    def _pods(self, attempt: Attempt, node: str) -> None:
        obj, old = attempt.obj, attempt.old
        if attempt.subresource == "eviction":
            pod = self._pod(attempt.namespace, attempt.name)
            if pod is not None and pod["spec"].get("nodeName") != node:
                raise attempt.forbid(f'node "{node}" can only evict pods with spec.nodeName set to itself')
            return
        if attempt.subresource == "status":
            if old is not None and old["spec"].get("nodeName") != node:
                raise attempt.forbid(
                    f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
                )
            if obj is not None and old is not None and _labels(obj) != _labels(old):
                raise attempt.forbid(f'node "{node}" cannot update labels through pod status')
            return
        if attempt.subresource:
            raise attempt.forbid(f"unexpected pod subresource {attempt.subresource!r}")
        if attempt.operation == "DELETE":
            if old is not None and old["spec"].get("nodeName") != node:
                raise attempt.forbid(f'node "{node}" can only delete pods with spec.nodeName set to itself')
            return
        if attempt.operation != "CREATE" or obj is None:
            raise attempt.forbid(
                f'unexpected operation "{attempt.operation}", node "{node}" can only create and delete mirror pods'
            )
        if _MIRROR not in (obj["metadata"].get("annotations") or {}):
            raise attempt.forbid(f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods')
        if obj["spec"].get("nodeName") != node:
            raise attempt.forbid(f'node "{node}" can only create pods with spec.nodeName set to itself')
        owners = obj["metadata"].get("ownerReferences") or []
        if len(owners) != 1 or owners[0].get("kind") != "Node" or owners[0].get("name") != node:
            raise attempt.forbid(f'node "{node}" can only create pods with an owner reference set to itself')
        for resource, _, name in references({**obj, "metadata": {**obj["metadata"], "namespace": attempt.namespace}}):
            kind = {"secrets": "secrets", "configmaps": "configmaps", "serviceaccounts": "a service account"}.get(
                resource, "persistentvolumeclaims"
            )
            raise attempt.forbid(f'node "{node}" can not create pods that reference {kind} ("{name}")')

    def _nodes(self, attempt: Attempt, node: str) -> None:
        if attempt.name != node:
            raise attempt.forbid(f'node "{node}" is not allowed to modify node "{attempt.name}"')
        obj, old = attempt.obj, attempt.old
        if obj is None:
            return
        if (obj.get("spec") or {}).get("configSource") is not None and attempt.operation == "CREATE":
            raise attempt.forbid(f'node "{node}" is not allowed to create pods with a non-nil configSource')
        if attempt.operation == "UPDATE" and old is not None and not attempt.subresource:
            if (obj.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
                raise attempt.forbid(f'node "{node}" is not allowed to modify taints')
            if obj["metadata"].get("ownerReferences") != old["metadata"].get("ownerReferences"):
                raise attempt.forbid(f'node "{node}" is not allowed to modify ownerReferences')
        before = _labels(old) if old is not None else {}
        after = _labels(obj)
        changed = {key for key in after.keys() | before.keys() if after.get(key) != before.get(key)}
        refused = sorted(key for key in changed if not may_label(key))
        if refused:
            word = "set the following labels" if attempt.operation == "CREATE" else "modify labels"
            raise attempt.forbid(f"is not allowed to {word}: {', '.join(refused)}")

    def _leases(self, attempt: Attempt, node: str) -> None:
        if attempt.namespace != "kube-node-lease":
            raise attempt.forbid('can only access leases in the "kube-node-lease" system namespace')
        name = attempt.name or (attempt.obj or {}).get("metadata", {}).get("name", "")
        if name != node:
            raise attempt.forbid(f"can only access node lease with the same name as the requesting node: {node!r}")

    def _tokens(self, attempt: Attempt, node: str) -> None:
        reference = ((attempt.obj or {}).get("spec") or {}).get("boundObjectRef")
        if not reference:
            raise attempt.forbid("node requested token not bound to a pod")
        if reference.get("kind") != "Pod" or not reference.get("name") or not reference.get("uid"):
            raise attempt.forbid("node requested token bound to a pod without a name and uid")
        pod = self._pod(attempt.namespace, reference["name"])
        if pod is None or pod["metadata"]["uid"] != reference["uid"] or pod["spec"].get("nodeName") != node:
            raise attempt.forbid("node requested token bound to a pod scheduled on a different node")


def _labels(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}
