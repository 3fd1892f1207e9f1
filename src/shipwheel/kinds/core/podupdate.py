"""What may be changed about a pod that exists, and by which way: little of its spec in general; ephemeral
containers (KEP-277) and resources (KEP-1287) by subresources of their own."""

from __future__ import annotations

from typing import Any

from shipwheel.api.errors import forbidden, invalid, required
from shipwheel.api.meta import Obj
from shipwheel.kinds.checks import MAX_INT32, Errors, check_range
from shipwheel.kinds.core.affinity import check_tolerations
from shipwheel.kinds.core.podmeta import MIRROR
from shipwheel.kinds.core.qos import qos_class
from shipwheel.kinds.diff import changes

_UPDATABLE = ",".join(
    (
        "`spec.containers[*].image`",
        "`spec.initContainers[*].image`",
        "`spec.activeDeadlineSeconds`",
        "`spec.tolerations` (only additions to existing tolerations)",
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
    )
)
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def check_update(new: Obj, old: Obj, errors: Errors) -> None:
    """An update of the pod itself."""
    spec, old_spec = new["spec"], old["spec"]
    if spec == old_spec:
        return
    for field in ("containers", "initContainers"):
        if not _check_images(spec.get(field) or [], old_spec.get(field) or [], f"spec.{field}", errors):
            return
    _check_deadline(spec.get("activeDeadlineSeconds"), old_spec.get("activeDeadlineSeconds"), errors)
    _check_added_tolerations(spec.get("tolerations") or [], old_spec.get("tolerations") or [], errors)
    _check_removed_gates(spec.get("schedulingGates") or [], old_spec.get("schedulingGates") or [], errors)
    munged = _without_allowed_changes(spec, old_spec)
    if old_spec.get("schedulingGates"):
        _check_gated_changes(munged, old_spec, errors)
    if munged != old_spec:
        shown = changes(old_spec, munged)
        errors.append(forbidden("spec", f"pod updates may not change fields other than {_UPDATABLE}\n{shown}"))


def _check_images(new: list[Obj], old: list[Obj], path: str, errors: Errors) -> bool:
    if len(new) != len(old):
        errors.append(forbidden(path, "pod updates may not add or remove containers"))
        return False
    for index, container in enumerate(new):
        image = container.get("image", "")
        if not image:
            errors.append(required(f"{path}[{index}].image"))
        if image.strip() != image:
            detail = "must not have leading or trailing whitespace"
            errors.append(invalid(f"{path}[{index}].image", image, detail))
    return True


def _check_deadline(new: int | None, old: int | None, errors: Errors) -> None:
    path = "spec.activeDeadlineSeconds"
    if new is not None:
        check_range(new, 0, MAX_INT32, path, errors)
        if old is not None and old < new:
            errors.append(invalid(path, new, "must be less than or equal to previous value"))
    elif old is not None:
        errors.append(invalid(path, None, "must not update from a positive integer to nil value"))


def _check_added_tolerations(new: list[Obj], old: list[Obj], errors: Errors) -> None:
    path = "spec.tolerations"

    def but_time(toleration: Obj) -> Obj:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    kept = [but_time(each) for each in new]
    for toleration in old:
        if but_time(toleration) not in kept:
            detail = "existing toleration can not be modified except its tolerationSeconds"
            errors.append(forbidden(path, detail))
    check_tolerations(new, path, errors)


def _check_removed_gates(new: list[Obj], old: list[Obj], errors: Errors) -> None:
    known = {gate.get("name") for gate in old}
    for index, gate in enumerate(new):
        if gate.get("name") not in known:
            detail = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            errors.append(forbidden(f"spec.schedulingGates[{index}].name", detail))


def _without_allowed_changes(new: Obj, old: Obj) -> Obj:
    """The new spec, but with what may change as it was: what still differs is not allowed."""
    munged = dict(new)
    for field in ("containers", "initContainers"):
        if field in new:
            pairs = zip(new[field], old.get(field) or (), strict=False)
            munged[field] = [_with(container, "image", was.get("image")) for container, was in pairs]
    for field in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        munged = _with(munged, field, old.get(field))
    grace = old.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0 and munged.get("terminationGracePeriodSeconds") == 1:
        munged["terminationGracePeriodSeconds"] = grace
    return munged


def _with(obj: Obj, field: str, value: Any) -> Obj:
    changed = dict(obj)
    if value is None:
        changed.pop(field, None)
    else:
        changed[field] = value
    return changed


def _check_gated_changes(munged: Obj, old: Obj, errors: Errors) -> None:
    """A gated pod (KEP-3838) may be told more closely where to run. `munged` gets the old values."""
    selector, old_selector = munged.get("nodeSelector") or {}, old.get("nodeSelector") or {}
    for key, value in old_selector.items():
        if selector.get(key) != value:
            detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
            errors.append(invalid("spec.nodeSelector", selector, detail))
    _put(munged, "nodeSelector", old.get("nodeSelector"))
    affinity, old_affinity = dict(munged.get("affinity") or {}), old.get("affinity") or {}
    nodes, old_nodes = affinity.get("nodeAffinity"), old_affinity.get("nodeAffinity")
    if nodes == old_nodes:
        return
    _check_added_terms(nodes or {}, old_nodes or {}, errors)
    _put(affinity, "nodeAffinity", old_nodes)
    _put(munged, "affinity", affinity or old.get("affinity"))


def _put(obj: Obj, field: str, value: Any) -> None:
    if value is None:
        obj.pop(field, None)
    else:
        obj[field] = value


def _check_added_terms(new: Obj, old: Obj, errors: Errors) -> None:
    path = f"spec.affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms"
    if not old.get(_REQUIRED):
        return
    old_terms = old[_REQUIRED].get("nodeSelectorTerms") or []
    terms = (new.get(_REQUIRED) or {}).get("nodeSelectorTerms") or []
    if old_terms and len(terms) != len(old_terms):
        detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        errors.append(invalid(path, terms, detail))
        return
    for index, (term, was) in enumerate(zip(terms, old_terms, strict=False)):
        if not _only_adds(term, was):
            detail = "only additions are allowed (no mutations or deletions)"
            errors.append(invalid(f"{path}[{index}]", term, detail))


def _only_adds(term: Obj, was: Obj) -> bool:
    fields = ("matchExpressions", "matchFields")
    if not any(was.get(field) for field in fields):
        return not any(term.get(field) for field in fields)
    return all((term.get(field) or [])[: len(was.get(field) or [])] == (was.get(field) or []) for field in fields)


# pods/ephemeralcontainers


def check_ephemeral_update(new: Obj, old: Obj, errors: Errors) -> None:
    path = "spec.ephemeralContainers"
    if MIRROR in (old["metadata"].get("annotations") or {}):
        errors[:] = [forbidden("", "static pods do not support ephemeral containers")]
        return
    by_name = {each.get("name"): each for each in new["spec"].get("ephemeralContainers") or ()}
    for container in old["spec"].get("ephemeralContainers") or ():
        name = container.get("name")
        if name not in by_name:
            detail = f'existing ephemeral containers "{name}" may not be removed\n'
            errors.append(forbidden(path, detail))
        elif by_name[name] != container:
            shown = changes(container, by_name[name])
            errors.append(forbidden(path, f'existing ephemeral containers "{name}" may not be changed\n{shown}'))


# pods/resize

_RESIZABLE = ("cpu", "memory")
_ONLY = "only cpu and memory resources are mutable"
_ONLY_OF_INIT = "only cpu and memory resources for init or sidecar containers are mutable"


def take_resize(new: Obj, old: Obj) -> Obj:
    """The spec of `old` with the resources of `new`. Where containers were added, removed or moved the new spec
    is left as it is, for validation to refuse."""
    spec, old_spec = new["spec"], old["spec"]
    merged = dict(old_spec)
    for field in ("containers", "initContainers"):
        ours, theirs = old_spec.get(field) or [], spec.get(field) or []
        if len(ours) != len(theirs):
            return spec
        if any(mine.get("name") != other.get("name") for mine, other in zip(ours, theirs, strict=True)):
            return spec
        if theirs:
            merged[field] = [_with_resources(mine, other) for mine, other in zip(ours, theirs, strict=True)]
    return _with(merged, "resources", spec.get("resources"))


def _with_resources(container: Obj, wanted: Obj) -> Obj:
    for field in ("resources", "resizePolicy"):
        container = _with(container, field, wanted.get(field))
    return container


def check_resize(new: Obj, old: Obj, errors: Errors) -> None:
    spec, old_spec = new["spec"], old["spec"]
    if MIRROR in (old["metadata"].get("annotations") or {}):
        errors[:] = [forbidden("", "static pods cannot be resized")]
        return
    if (old_spec.get("os") or {}).get("name") == "windows":
        errors[:] = [forbidden("", "windows pods cannot be resized")]
        return
    status = old.get("status") or {}
    qos = status.get("qosClass") or qos_class(old)
    if qos != qos_class(new):
        detail = "Pod QOS Class may not change as a result of resizing"
        errors.append(invalid("spec", (new.get("status") or {}).get("qosClass", ""), detail))
    if not _node_can_resize(status):
        errors.append(forbidden("spec", "Pod running on node without support for resize"))
    if status.get("nodeAllocatableResourceClaimStatuses"):
        errors.append(forbidden("spec", "pods with node allocatable resource claims cannot be resized"))
    munged = dict(spec)
    _check_pod_resize(spec.get("resources"), old_spec.get("resources"), munged, errors)
    if not _check_same_containers(spec, old_spec, errors):
        return
    for field in ("initContainers", "containers"):
        for index, (container, was) in enumerate(zip(spec.get(field) or (), old_spec.get(field) or (), strict=True)):
            _check_removed_resources(container, was, f"spec.{field}[{index}].resources", errors)
    _check_container_resizes(munged, old_spec, errors)
    if not errors and munged != old_spec:
        errors.append(forbidden("spec", _ONLY))


def _node_can_resize(status: Obj) -> bool:
    for container in status.get("containerStatuses") or ():
        if (container.get("state") or {}).get("running") is not None:
            return container.get("resources") is not None
    return True


def _check_same_containers(spec: Obj, old: Obj, errors: Errors) -> bool:
    before = len(errors)
    for field in ("containers", "initContainers"):
        new_list, old_list = spec.get(field) or [], old.get(field) or []
        if len(new_list) != len(old_list):
            detail = f"{field} may not be added or removed on resize"
            errors.append(forbidden(f"spec.{field}", detail))
            continue
        for index, (container, was) in enumerate(zip(new_list, old_list, strict=True)):
            if container.get("name") != was.get("name"):
                detail = f"{field} may not be renamed or reordered on resize"
                errors.append(forbidden(f"spec.{field}[{index}].name", detail))
    return len(errors) == before


def _check_pod_resize(new: Obj | None, old: Obj | None, munged: Obj, errors: Errors) -> None:
    """Resources of the pod as a whole."""
    if not any((each or {}).get(kind) for each in (new, old) for kind in ("requests", "limits")):
        return
    if old is not None and new is None:
        errors.append(forbidden("spec.resources", "pod-level resources cannot be removed"))
        return
    if old is not None:
        for kind, word in (("requests", "requests"), ("limits", "limits")):
            if not (old.get(kind) or {}).keys() <= ((new or {}).get(kind) or {}).keys():
                detail = f"pod-level resource {word} cannot be removed"
                errors.append(forbidden(f"spec.resources.{kind}", detail))
    kept = _unresized(new or {}, old or {})
    _put(munged, "resources", kept if kept or old is not None else None)
    if munged.get("resources") != old:
        errors.append(forbidden("spec", "only cpu and memory resources are mutable at pod-level"))


def _unresized(new: Obj, old: Obj) -> Obj:
    """The new requirements with CPU and memory as they were."""
    kept: Obj = {key: value for key, value in new.items() if key not in ("requests", "limits")}
    for kind in ("requests", "limits"):
        amounts = {name: value for name, value in (new.get(kind) or {}).items() if name not in _RESIZABLE}
        amounts |= {name: value for name, value in (old.get(kind) or {}).items() if name in _RESIZABLE}
        if amounts:
            kept[kind] = amounts
    return kept


def _check_removed_resources(container: Obj, was: Obj, path: str, errors: Errors) -> None:
    new, old = container.get("resources") or {}, was.get("resources") or {}
    for kind in ("requests", "limits"):
        if not (old.get(kind) or {}).keys() <= (new.get(kind) or {}).keys():
            errors.append(forbidden(f"{path}.{kind}", f"resource {kind} cannot be removed"))


def _check_container_resizes(munged: Obj, old: Obj, errors: Errors) -> None:
    for field in ("containers", "initContainers"):
        if field not in munged:
            continue
        kept = []
        for index, (container, was) in enumerate(zip(munged[field], old[field], strict=True)):
            resources = _unresized(container.get("resources") or {}, was.get("resources") or {})
            unresized = _with(container, "resources", resources if resources or "resources" in was else None)
            if unresized != was:
                regular = field == "containers"
                path = "spec" if regular else f"spec.initContainers[{index}]"
                errors.append(forbidden(path, _ONLY if regular else _ONLY_OF_INIT))
            if field == "initContainers" and container != was and container.get("restartPolicy") != "Always":
                _check_init_resize(container, index, errors)
            kept.append(unresized)
        munged[field] = kept


def _check_init_resize(container: Obj, index: int, errors: Errors) -> None:
    for policy in container.get("resizePolicy") or ():
        if policy.get("restartPolicy") == "RestartContainer":
            detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
            errors.append(forbidden(f"spec.initContainers[{index}]", detail))
