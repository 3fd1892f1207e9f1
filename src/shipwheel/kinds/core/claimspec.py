"""What a claim asks for: the spec of a PersistentVolumeClaim, also as a template in pods and stateful sets."""

from __future__ import annotations

from shipwheel.api.errors import forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_dns1123_subdomain, name_is_dns_label, name_is_dns_subdomain
from shipwheel.api.objectmeta import validate_annotations, validate_label_selector, validate_labels
from shipwheel.api.quantity import parse
from shipwheel.kinds.checks import NOT_POSITIVE, Errors, check_only, check_rule
from shipwheel.kinds.core.resources import check_resource_quantity, default_resource_list

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")


def default_claim_spec(spec: Obj) -> None:
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    resources = spec.get("resources")
    if resources:
        default_resource_list(resources.get("limits"))
        default_resource_list(resources.get("requests"))


def check_access_modes(modes: list[str], path: str, errors: Errors) -> None:
    for mode in modes:
        if mode not in ACCESS_MODES:
            errors.append(not_supported(path, mode, ACCESS_MODES))
    known = set(modes) & set(ACCESS_MODES)
    if "ReadWriteOncePod" in known and len(known) > 1:
        errors.append(forbidden(path, "may not use ReadWriteOncePod with other access modes"))


def check_claim_template(template: Obj, path: str, errors: Errors) -> None:
    """A claim that will be made for somebody: of its metadata only labels and annotations are taken."""
    metadata = template.get("metadata") or {}
    errors += validate_annotations(metadata.get("annotations") or {}, f"{path}.metadata.annotations")
    errors += validate_labels(metadata.get("labels"), f"{path}.metadata.labels")
    check_only(metadata, ("annotations", "labels"), "cannot be set", f"{path}.metadata", errors)
    check_claim_spec(template.get("spec") or {}, f"{path}.spec", errors)


def check_claim_spec(spec: Obj, path: str, errors: Errors) -> None:
    modes = spec.get("accessModes") or []
    if not modes:
        errors.append(required(f"{path}.accessModes", "at least 1 access mode is required"))
    errors += validate_label_selector(spec.get("selector"), f"{path}.selector")
    check_access_modes(modes, f"{path}.accessModes", errors)
    _check_size(spec, f"{path}.resources[storage]", errors)
    for field in ("storageClassName", "volumeAttributesClassName"):
        if spec.get(field):
            check_rule(name_is_dns_subdomain, spec[field], f"{path}.{field}", errors)
    mode = spec.get("volumeMode")
    if mode is not None and mode not in VOLUME_MODES:
        errors.append(not_supported(f"{path}.volumeMode", mode, VOLUME_MODES))
    _check_data_sources(spec, path, errors)


def _check_size(spec: Obj, path: str, errors: Errors) -> None:
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        errors.append(required(path))
    elif parse(size).nanos <= 0:
        errors.append(invalid(path, size, NOT_POSITIVE))
    else:
        check_resource_quantity("storage", size, path, errors)


def _check_data_sources(spec: Obj, path: str, errors: Errors) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    for field, each in (("dataSource", source), ("dataSourceRef", reference)):
        if each is not None:
            _check_data_source(each, f"{path}.{field}", errors)
    if source is None or reference is None:
        return
    if reference.get("namespace"):
        detail = "may not be specified when dataSourceRef.namespace is specified"
        errors.append(invalid(path, f"{path}.dataSource", detail))
    elif any(source.get(field) != reference.get(field) for field in ("apiGroup", "kind", "name")):
        errors.append(invalid(path, f"{path}.dataSource", "must match dataSourceRef"))


def _check_data_source(source: Obj, path: str, errors: Errors) -> None:
    for field in ("name", "kind"):
        if not source.get(field):
            errors.append(required(f"{path}.{field}"))
    group = source.get("apiGroup") or ""
    if not group and source.get("kind") != "PersistentVolumeClaim":
        detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        errors.append(invalid(path, source.get("kind", ""), detail))
    if group:
        check_rule(is_dns1123_subdomain, group, f"{path}.apiGroup", errors)
    if source.get("namespace"):
        check_rule(name_is_dns_label, source["namespace"], f"{path}.namespace", errors)


def claim_spec_warnings(spec: Obj, path: str) -> list[str]:
    resources = spec.get("resources") or {}
    return [
        f'{path}.resources.{field}[storage]: fractional byte value "{amount}" is invalid, must be an integer'
        for field in ("requests", "limits")
        if (amount := (resources.get(field) or {}).get("storage")) and parse(amount).milli_value() % 1000
    ]
