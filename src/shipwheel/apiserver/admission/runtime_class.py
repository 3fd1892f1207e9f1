"""RuntimeClass: what running a pod in a sandbox of some class costs, and on which nodes it can be had (KEP-688)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shipwheel.api import quantity
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.apiserver.admission.chain import Attempt, Plugin


class RuntimeClass(Plugin):
    name = "RuntimeClass"
    kinds = frozenset({GroupResource("", "pods")})

    def __init__(self, find: Callable[[str], Obj | None]) -> None:
        self._find = find

    async def mutate(self, attempt: Attempt) -> None:
        pod = attempt.obj
        if attempt.operation != "CREATE" or not attempt.concerns("", "pods") or pod is None:
            return
        found = self._class_of(attempt, pod)
        if found is None:
            return
        spec = pod["spec"]
        overhead = _overhead(found)
        if overhead is not None:
            if spec.get("overhead") and not _same(spec["overhead"], overhead):
                raise attempt.forbid("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
            spec["overhead"] = dict(overhead)
        scheduling = found.get("scheduling") or {}
        for key, value in (scheduling.get("nodeSelector") or {}).items():
            own = spec.setdefault("nodeSelector", {}).setdefault(key, value)
            if own != value:
                raise attempt.forbid(
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                    f"pod.spec.nodeSelector[{key}] = {own}"
                )
        if scheduling.get("tolerations"):
            spec["tolerations"] = merge_tolerations([*(spec.get("tolerations") or ()), *scheduling["tolerations"]])

    async def validate(self, attempt: Attempt) -> None:
        pod = attempt.obj
        if attempt.operation != "CREATE" or not attempt.concerns("", "pods") or pod is None:
            return
        found = self._class_of(attempt, pod)
        overhead = _overhead(found) if found is not None else None
        own = pod["spec"].get("overhead")
        if overhead is not None:
            if not _same(own or {}, overhead):
                raise attempt.forbid("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        elif own is not None:
            raise attempt.forbid("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")

    def _class_of(self, attempt: Attempt, pod: Obj) -> Obj | None:
        name = pod["spec"].get("runtimeClassName")
        if name is None:
            return None
        found = self._find(name)
        if found is None:
            raise attempt.forbid(f'pod rejected: RuntimeClass "{name}" not found')
        return found


def _overhead(runtime_class: Obj) -> Obj | None:
    overhead = runtime_class.get("overhead")
    return None if overhead is None else overhead.get("podFixed") or {}


def _same(one: Obj, other: Obj) -> bool:
    return one.keys() == other.keys() and all(quantity.parse(one[name]) == quantity.parse(other[name]) for name in one)


def merge_tolerations(tolerations: Sequence[Obj]) -> list[Obj]:
    """Without those that others cover; of equal ones the first stays."""
    merged: list[Obj] = []
    for index, each in enumerate(tolerations):
        later = (other for other in tolerations[index + 1 :] if other != each)
        if not any(_covers(other, each) for other in (*merged, *later)):
            merged.append(each)
    return merged


def _covers(wide: Obj, narrow: Obj) -> bool:
    """Whether `wide` tolerates all that `narrow` does."""
    if wide == narrow:
        return True
    exists = wide.get("operator") == "Exists"
    if wide.get("key", "") != narrow.get("key", "") and (wide.get("key") or not exists):
        return False
    if wide.get("effect") and wide["effect"] != narrow.get("effect", ""):
        return False
    if wide.get("effect") == "NoExecute" and wide.get("tolerationSeconds") is not None:
        seconds = narrow.get("tolerationSeconds")
        if seconds is None or seconds > wide["tolerationSeconds"]:
            return False
    if exists:
        return True
    return narrow.get("operator") == "Equal" and wide.get("value", "") == narrow.get("value", "")
