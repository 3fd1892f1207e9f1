"""Priority: a pod's class becomes its number; there is at most one default class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shipwheel.api.meta import GroupResource, Obj
from shipwheel.apiserver.admission.chain import Attempt, Plugin


class Priority(Plugin):
    name = "Priority"
    kinds = frozenset({GroupResource("", "pods"), GroupResource("scheduling.k8s.io", "priorityclasses")})

    def __init__(self, classes: Callable[[], Sequence[Obj]]) -> None:
        self._classes = classes

    async def mutate(self, attempt: Attempt) -> None:
        pod = attempt.obj
        if pod is None or not attempt.concerns("", "pods"):
            return
        if attempt.operation == "UPDATE":
            _keep(pod, attempt.old)
        if attempt.operation != "CREATE":
            return
        spec = pod.setdefault("spec", {})
        chosen: Obj | None = None
        name = spec.get("priorityClassName")
        if name:
            chosen = next((each for each in self._classes() if each["metadata"]["name"] == name), None)
            if chosen is None:
                raise attempt.forbid(f"no PriorityClass with name {name} was found")
        else:
            chosen = self._default()
            if chosen is not None:
                spec["priorityClassName"] = chosen["metadata"]["name"]
        value = int(chosen.get("value", 0)) if chosen is not None else 0
        policy = (chosen or {}).get("preemptionPolicy") or "PreemptLowerPriority"
        if spec.get("priority") is not None and spec["priority"] != value:
            raise attempt.forbid(
                f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority "
                f"admission controller computed {value} from the given PriorityClass name"
            )
        if spec.get("preemptionPolicy") is not None and spec["preemptionPolicy"] != policy:
            raise attempt.forbid(
                f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
                f"priority admission controller computed {policy} from the given PriorityClass name"
            )
        spec["priority"] = value
        spec["preemptionPolicy"] = policy

    def _default(self) -> Obj | None:
        """The global default; of several, the lowest."""
        defaults = [each for each in self._classes() if each.get("globalDefault")]
        return min(defaults, key=lambda each: int(each.get("value", 0)), default=None)

    async def validate(self, attempt: Attempt) -> None:
        new = attempt.obj
        if new is None or not attempt.concerns("scheduling.k8s.io", "priorityclasses") or not new.get("globalDefault"):
            return
        for each in self._classes():
            if each.get("globalDefault") and each["metadata"]["name"] != new["metadata"].get("name"):
                raise attempt.forbid(
                    f"PriorityClass {each['metadata']['name']} is already marked as default. Only one default can exist"
                )


def _keep(pod: Obj, old: Obj | None) -> None:
    """An update that leaves out what was decided at creation does not undo it."""
    spec, was = pod.setdefault("spec", {}), (old or {}).get("spec") or {}
    for field in ("priority", "preemptionPolicy"):
        if spec.get(field) is None and was.get(field) is not None:
            spec[field] = was[field]
