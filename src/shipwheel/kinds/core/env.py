"""Environment variables, and the downward API that feeds them: fields of the pod and amounts of its resources."""

from __future__ import annotations

import re
from collections.abc import Collection

from shipwheel.api.errors import invalid, not_found_field, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import (
    is_config_map_key,
    is_qualified_name,
    is_relaxed_env_var_name,
    name_is_dns_subdomain,
)
from shipwheel.api.quantity import parse
from shipwheel.kinds.checks import (
    Errors,
    check_label,
    check_no_backsteps,
    check_required,
    check_rule,
    check_subdomain,
)

ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
VOLUME_FIELDS = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)
_KNOWN_FIELDS = frozenset((*ENV_FIELDS, *VOLUME_FIELDS, "spec.restartPolicy", "spec.schedulerName", "status.phase"))
_RESOURCES = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_SUBSCRIPTED = re.compile(r"([^\[\]]+)\['(.*)'\]", re.DOTALL).fullmatch
_SIZES = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")


# Defaults


def default_env(container: Obj) -> None:
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if source:
            default_field_selector(source.get("fieldRef"))
            default_divisor(source.get("resourceFieldRef"))


def default_field_selector(selector: Obj | None) -> None:
    if selector is not None and not selector.get("apiVersion"):
        selector["apiVersion"] = "v1"


def default_divisor(selector: Obj | None) -> None:
    if selector is not None and selector.get("divisor") is None:
        selector["divisor"] = "0"


# Validation


def check_env(variables: list[Obj], path: str, errors: Errors) -> None:
    for index, variable in enumerate(variables):
        here = f"{path}[{index}]"
        check_required(is_relaxed_env_var_name, variable.get("name"), f"{here}.name", errors)
        source = variable.get("valueFrom")
        if source is not None:
            _check_value_from(source, variable.get("value"), f"{here}.valueFrom", errors)


def _check_value_from(source: Obj, value: str | None, path: str, errors: Errors) -> None:
    sources = 0
    if (field := source.get("fieldRef")) is not None:
        sources += 1
        check_field_selector(field, ENV_FIELDS, f"{path}.fieldRef", errors)
    if (resource := source.get("resourceFieldRef")) is not None:
        sources += 1
        check_resource_selector(resource, f"{path}.resourceFieldRef", errors)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if (key := source.get(kind)) is not None:
            sources += 1
            _check_key_selector(key, f"{path}.{kind}", errors)
    if (file := source.get("fileKeyRef")) is not None:
        sources += 1
        _check_file_key_selector(file, f"{path}.fileKeyRef", errors)
    if sources == 0:
        detail = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        )
        errors.append(invalid(path, "", detail))
    elif value:
        errors.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif sources > 1:
        errors.append(invalid(path, "", "may not have more than one field specified at a time"))


def check_field_selector(selector: Obj, supported: Collection[str], path: str, errors: Errors) -> None:
    """A reference to a field of the pod (`metadata.labels['app']`)."""
    version, field = selector.get("apiVersion", ""), selector.get("fieldPath", "")
    if not version:
        errors.append(required(f"{path}.apiVersion"))
        return
    if not field:
        errors.append(required(f"{path}.fieldPath"))
        return
    subscripted = _SUBSCRIPTED(field)
    label, subscript = (subscripted[1], subscripted[2]) if subscripted else (field, None)
    if version != "v1":
        problem = f"unsupported pod version: {version}"
    elif subscript is not None and label not in ("metadata.annotations", "metadata.labels"):
        problem = f"field label does not support subscript: {field}"
    elif subscript is None and label not in _KNOWN_FIELDS and label != "spec.host":
        problem = f"field label not supported: {field}"
    else:
        problem = ""
    if problem:
        errors.append(invalid(f"{path}.fieldPath", field, f"error converting fieldPath: {problem}"))
    elif subscript is not None:
        key = subscript.lower() if label == "metadata.annotations" else subscript
        check_rule(is_qualified_name, key, path, errors)
    elif (label := "spec.nodeName" if label == "spec.host" else label) not in supported:
        errors.append(not_supported(f"{path}.fieldPath", label, tuple(supported)))


def check_resource_selector(selector: Obj, path: str, errors: Errors, *, in_volume: bool = False) -> None:
    """A reference to what a container requests or is limited to. A volume has to say which container's."""
    resource = selector.get("resource", "")
    if in_volume and not selector.get("containerName"):
        errors.append(required(f"{path}.containerName"))
    elif not resource:
        errors.append(required(f"{path}.resource"))
    elif resource not in _RESOURCES and not resource.startswith(_HUGE_PAGES):
        errors.append(not_supported(f"{path}.resource", resource, _RESOURCES))
    divisor = selector.get("divisor")
    if divisor is not None and parse(divisor).nanos != 0:
        _check_divisor(resource, str(parse(divisor)), path, errors)


def _check_divisor(resource: str, divisor: str, path: str, errors: Errors) -> None:
    _, _, amount = resource.partition(".")
    if amount == "cpu":
        if divisor not in ("1m", "1"):
            detail = "only divisor's values 1m and 1 are supported with the cpu resource"
            errors.append(invalid(f"{path}.divisor", resource, detail))
        return
    names = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}
    name = "hugepages" if amount.startswith("hugepages-") else names.get(amount)
    if name and divisor not in _SIZES:
        detail = f"only divisor's values {', '.join(_SIZES)} are supported with the {name} resource"
        errors.append(invalid(f"{path}.divisor", resource, detail))


def _check_key_selector(selector: Obj, path: str, errors: Errors) -> None:
    check_subdomain(selector.get("name", ""), f"{path}.name", errors)
    check_required(is_config_map_key, selector.get("key"), f"{path}.key", errors)


def _check_file_key_selector(selector: Obj, path: str, errors: Errors) -> None:
    check_required(is_relaxed_env_var_name, selector.get("key"), f"{path}.key", errors)
    if volume := selector.get("volumeName"):
        check_label(volume, f"{path}.volumeName", errors)
    else:
        errors.append(required(f"{path}.volumeName"))
    if file := selector.get("path"):
        check_no_backsteps(file, f"{path}.path", errors)
    else:
        errors.append(required(f"{path}.path"))


def check_env_from(sources: list[Obj], path: str, errors: Errors) -> None:
    for index, source in enumerate(sources):
        here = f"{path}[{index}]"
        if prefix := source.get("prefix"):
            check_rule(is_relaxed_env_var_name, prefix, f"{here}.prefix", errors)
        given = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
        for kind in given:
            name = source[kind].get("name")
            check_required(_is_name_prefix, name, f"{here}.{kind}.name", errors)
        if not given:
            errors.append(invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            errors.append(invalid(path, "", "may not have more than one field specified at a time"))


def _is_name_prefix(name: str) -> list[str]:
    return name_is_dns_subdomain(name, True)


def check_file_key_volumes(container: Obj, volumes: dict[str, Obj], path: str, errors: Errors) -> None:
    """Files that variables are read from (KEP-3721) lie in volumes that the pod has, and of type emptyDir."""
    for index, variable in enumerate(container.get("env") or ()):
        reference = (variable.get("valueFrom") or {}).get("fileKeyRef")
        if reference is None:
            continue
        here = f"{path}.env[{index}].valueFrom.fileKeyRef.volumeName"
        name = reference.get("volumeName", "")
        if name not in volumes:
            errors.append(not_found_field(here, name))
        elif volumes[name].get("emptyDir") is None:
            errors.append(invalid(here, name, "referenced volume must be of type emptyDir"))
