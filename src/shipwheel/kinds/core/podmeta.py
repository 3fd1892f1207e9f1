"""Annotations by which pods were told what fields tell them today, and a few that still have a meaning."""

from __future__ import annotations

import json
import re

from shipwheel.api.errors import forbidden, invalid
from shipwheel.api.meta import Obj
from shipwheel.kinds.checks import Errors, check_relative_path
from shipwheel.kinds.core.affinity import check_tolerations
from shipwheel.kinds.core.podspec import all_containers, containers_with_paths
from shipwheel.kinds.core.security import check_apparmor_profile

MIRROR = "kubernetes.io/config.mirror"
"""On the pod that shows a static pod in the API."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
TOLERATIONS = "scheduler.alpha.kubernetes.io/tolerations"
SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"

_integer = re.compile(r"[-+]?(0|[1-9][0-9]*)").fullmatch
_LOCALHOST = "localhost/"
_APPARMOR_TYPES = {"runtime/default": "RuntimeDefault", "unconfined": "Unconfined"}


def check_pod_annotations(annotations: Obj, spec: Obj, path: str, errors: Errors) -> None:
    if MIRROR in annotations and not spec.get("nodeName"):
        detail = "must set spec.nodeName if mirror pod annotation is set"
        errors.append(invalid(f"{path}[{MIRROR}]", annotations[MIRROR], detail))
    if annotations.get(TOLERATIONS):
        _check_tolerations_annotation(annotations[TOLERATIONS], path, errors)
    cost = annotations.get(DELETION_COST)
    if cost is not None and not _is_deletion_cost(cost):
        errors.append(invalid(f"{path}[{DELETION_COST}]", cost, "must be a 32bit integer"))
    for key, value in annotations.items():
        if key == SECCOMP_POD or key.startswith(SECCOMP_CONTAINER):
            _check_seccomp_annotation(value, f"{path}.{key}", errors)
    for key, value in annotations.items():
        if key.startswith(APPARMOR):
            name = key.removeprefix(APPARMOR)
            if not any(container.get("name") == name for container in all_containers(spec)):
                errors.append(invalid(f"{path}[{key}]", name, "container not found"))
            if value and value not in _APPARMOR_TYPES and not value.startswith(_LOCALHOST):
                detail = f"invalid AppArmor profile name: {json.dumps(value)}"
                errors.append(invalid(f"{path}[{key}]", value, detail))


def _is_deletion_cost(text: str) -> bool:
    return bool(_integer(text)) and not text.startswith("+") and -(2**31) <= int(text) < 2**31


def _check_tolerations_annotation(text: str, path: str, errors: Errors) -> None:
    try:
        tolerations = json.loads(text)
    except ValueError as error:
        errors.append(invalid(path, TOLERATIONS, str(error)))
        return
    check_tolerations(tolerations, f"{path}.{TOLERATIONS}", errors)


def _check_seccomp_annotation(profile: str, path: str, errors: Errors) -> None:
    if profile in ("runtime/default", "docker/default", "unconfined"):
        return
    if profile.startswith(_LOCALHOST):
        check_relative_path(profile.removeprefix(_LOCALHOST), path, errors)
    else:
        errors.append(invalid(path, profile, "must be a valid seccomp profile"))


def check_annotation_updates(new: Obj, old: Obj, path: str, errors: Errors) -> None:
    """AppArmor and mirror annotations stay as they were when the pod was made."""
    for key, value in old.items():
        if new.get(key) != value:
            if key.startswith(APPARMOR):
                errors.append(forbidden(f"{path}[{key}]", "may not remove or update AppArmor annotations"))
            if key == MIRROR:
                errors.append(forbidden(f"{path}[{key}]", "may not remove or update mirror pod annotation"))
    for key in new:
        if key not in old:
            if key.startswith(APPARMOR):
                errors.append(forbidden(f"{path}[{key}]", "may not add AppArmor annotations"))
            if key == MIRROR:
                errors.append(forbidden(f"{path}[{key}]", "may not add mirror pod annotation"))


# Annotations and fields that say the same


def check_profiles_agree(annotations: Obj, spec: Obj, path: str, errors: Errors) -> None:
    """Seccomp and AppArmor profiles by annotation are those by field, where both are given."""
    of_pod = spec.get("securityContext") or {}
    seccomp = of_pod.get("seccompProfile")
    if seccomp is not None and SECCOMP_POD in annotations:
        here = f"{path}.securityContext.seccompProfile"
        _check_agreement("seccomp", seccomp, annotations[SECCOMP_POD], here, errors)
    windows = (spec.get("os") or {}).get("name") == "windows"
    for here, container in containers_with_paths(spec, path):
        own = container.get("securityContext") or {}
        name = container.get("name", "")
        if own.get("seccompProfile") is not None and SECCOMP_CONTAINER + name in annotations:
            value = annotations[SECCOMP_CONTAINER + name]
            where = f"{here}.securityContext.seccompProfile"
            _check_agreement("seccomp", own["seccompProfile"], value, where, errors)
        apparmor = own.get("appArmorProfile") or of_pod.get("appArmorProfile")
        if apparmor is not None and APPARMOR + name in annotations and not windows:
            where = f"{here}.securityContext.appArmorProfile"
            _check_agreement("apparmor", apparmor, annotations[APPARMOR + name], where, errors)


_ANNOTATED = {
    "Unconfined": ("unconfined",),
    "RuntimeDefault": ("runtime/default", "docker/default"),
}


def _check_agreement(what: str, profile: Obj, annotation: str, path: str, errors: Errors) -> None:
    kind = profile.get("type")
    if kind == "Localhost":
        if not annotation.startswith(_LOCALHOST):
            errors.append(forbidden(f"{path}.type", f"{what} type in annotation and field must match"))
        elif annotation.removeprefix(_LOCALHOST) != profile.get("localhostProfile"):
            detail = f"{what} profile in annotation and field must match"
            errors.append(forbidden(f"{path}.localhostProfile", detail))
    elif kind in _ANNOTATED and annotation not in _ANNOTATED[kind]:
        errors.append(forbidden(f"{path}.type", f"{what} type in annotation and field must match"))


def apparmor_from_annotation(annotation: str) -> Obj | None:
    """The profile field that says what an annotation says; None for none, or a bad one."""
    if annotation in _APPARMOR_TYPES:
        return {"type": _APPARMOR_TYPES[annotation]}
    if annotation.startswith(_LOCALHOST) and annotation != _LOCALHOST:
        return {"type": "Localhost", "localhostProfile": annotation.removeprefix(_LOCALHOST)}
    return None


def copy_apparmor_annotations(pod: Obj) -> None:
    """Turn AppArmor annotations into fields (KEP-24), where no field says otherwise."""
    annotations, spec = pod["metadata"].get("annotations") or {}, pod["spec"]
    if (spec.get("os") or {}).get("name") == "windows":
        return
    of_pod = (spec.get("securityContext") or {}).get("appArmorProfile")
    for container in all_containers(spec):
        annotation = annotations.get(APPARMOR + container.get("name", ""))
        context = container.get("securityContext") or {}
        if annotation is None or context.get("appArmorProfile") is not None:
            continue
        profile = apparmor_from_annotation(annotation)
        if profile is not None and profile != of_pod:
            wrong: Errors = []
            check_apparmor_profile(profile, "", wrong)
            if not wrong:
                container["securityContext"] = {**context, "appArmorProfile": profile}
