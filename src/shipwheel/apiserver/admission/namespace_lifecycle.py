"""NamespaceLifecycle: nothing is made in a namespace that does not exist or is going away; some never go."""

from __future__ import annotations

from collections.abc import Callable

from shipwheel.api.errors import not_found
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.apiserver.admission.chain import Attempt, Plugin

NAMESPACES = GroupResource("", "namespaces")
IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


class NamespaceLifecycle(Plugin):
    name = "NamespaceLifecycle"
    operations = frozenset({"CREATE", "UPDATE", "DELETE"})

    def __init__(self, namespace: Callable[[str], Obj | None]) -> None:
        self._namespace = namespace

    async def validate(self, attempt: Attempt) -> None:
        if attempt.operation == "DELETE":
            if attempt.concerns("", "namespaces") and attempt.name in IMMORTAL:
                raise attempt.forbid("this namespace may not be deleted")
            return
        if not attempt.resource.namespaced or attempt.operation != "CREATE":
            return
        namespace = self._namespace(attempt.namespace)
        if namespace is None:
            raise not_found(NAMESPACES, attempt.namespace)
        if namespace["metadata"].get("deletionTimestamp") or (
            (namespace.get("status") or {}).get("phase") == "Terminating"
        ):
            error = attempt.forbid(
                f"unable to create new content in namespace {attempt.namespace} because it is being terminated"
            )
            error.details = {
                **(error.details or {}),
                "causes": [
                    {
                        "reason": "NamespaceTerminating",
                        "message": f"namespace {attempt.namespace} is being terminated",
                        "field": "metadata.namespace",
                    }
                ],
            }
            raise error
