"""Rules for the parts that objects of every kind share: metadata, labels, selectors, conditions.

Each `validate_*` takes a part of an object and its path, and returns what is wrong with it in upstream's words
(`k8s.io/apimachinery/pkg/api/validation` and `apis/meta/v1/validation`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shipwheel.api.errors import (
    FieldError,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
)
from shipwheel.api.meta import Obj
from shipwheel.api.names import (
    NameRule,
    byte_length,
    is_qualified_name,
    is_valid_label_value,
    name_is_dns_label,
    regex_complaint,
)

TOTAL_ANNOTATION_SIZE_LIMIT = 256 * 1024
FIELD_MANAGER_MAX_LENGTH = 128
ORPHAN_DEPENDENTS = "orphan"
DELETE_DEPENDENTS = "foregroundDeletion"
_STANDARD_FINALIZERS = frozenset(("kubernetes", ORPHAN_DEPENDENTS, DELETE_DEPENDENTS))
IMMUTABLE = "field is immutable"

_CONDITION_REASON = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_condition_reason = re.compile(_CONDITION_REASON).fullmatch


# Labels, selectors, conditions.


def validate_label_name(name: str, path: str) -> list[FieldError]:
    return [invalid(path, name, complaint) for complaint in is_qualified_name(name)]


def validate_labels(labels: Mapping[str, str] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, value in (labels or {}).items():
        errors += validate_label_name(key, path)
        errors += [invalid(path, value, complaint) for complaint in is_valid_label_value(value)]
    return errors


def validate_label_selector(
    selector: Obj | None,
    path: str,
    *,
    allow_invalid_values: bool = False,
    allow_unknown_operators: bool = False,
) -> list[FieldError]:
    """A `metav1.LabelSelector`. Invalid values are allowed where old objects hold them."""
    if not selector:
        return []
    errors = validate_labels(selector.get("matchLabels"), f"{path}.matchLabels")
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        errors += validate_label_requirement(
            expression,
            f"{path}.matchExpressions[{index}]",
            allow_invalid_values=allow_invalid_values,
            allow_unknown_operators=allow_unknown_operators,
        )
    return errors


def validate_label_requirement(
    requirement: Obj,
    path: str,
    *,
    allow_invalid_values: bool = False,
    allow_unknown_operators: bool = False,
) -> list[FieldError]:
    """A `metav1.LabelSelectorRequirement`."""
    errors: list[FieldError] = []
    operator, values = requirement.get("operator", ""), requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden(f"{path}.values", detail))
    elif not allow_unknown_operators:
        errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    errors += validate_label_name(requirement.get("key", ""), f"{path}.key")
    if not allow_invalid_values:
        for position, value in enumerate(values):
            here = f"{path}.values[{position}]"
            errors += [invalid(here, value, complaint) for complaint in is_valid_label_value(value)]
    return errors


def validate_conditions(conditions: Iterable[Obj] | None, path: str) -> list[FieldError]:
    """A list of `metav1.Condition`."""
    errors: list[FieldError] = []
    seen = set()
    for index, condition in enumerate(conditions or ()):
        here = f"{path}[{index}]"
        kind = condition.get("type", "")
        if kind in seen:
            errors.append(duplicate(f"{here}.type", kind))
        seen.add(kind)
        errors += _validate_condition(condition, here)
    return errors


def _validate_condition(condition: Obj, path: str) -> list[FieldError]:
    errors = validate_label_name(condition.get("type", ""), f"{path}.type")
    if (status := condition.get("status", "")) not in ("True", "False", "Unknown"):
        errors.append(not_supported(f"{path}.status", status, ("False", "True", "Unknown")))
    if (observed := condition.get("observedGeneration", 0)) < 0:
        errors.append(invalid(f"{path}.observedGeneration", observed, "must be greater than or equal to zero"))
    if not condition.get("lastTransitionTime"):
        errors.append(required(f"{path}.lastTransitionTime"))
    reason = condition.get("reason", "")
    if not reason:
        errors.append(required(f"{path}.reason"))
    else:
        if not _condition_reason(reason):
            complaint = regex_complaint(
                "a condition reason must start with alphabetic character, optionally followed by a string of "
                "alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
                _CONDITION_REASON,
                *("my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"),
            )
            errors.append(invalid(f"{path}.reason", reason, complaint))
        if byte_length(reason) > 1024:
            errors.append(too_long(f"{path}.reason", 1024))
    if byte_length(condition.get("message", "")) > 32 * 1024:
        errors.append(too_long(f"{path}.message", 32 * 1024))
    return errors


# Metadata.


def validate_object_meta(
    meta: Obj,
    *,
    namespaced: bool,
    name_rule: NameRule,
    path: str = "metadata",
    qualified_finalizers: bool = True,
) -> list[FieldError]:
    """The metadata of an object to be created, its name already generated.

    `qualified_finalizers`: of built-in kinds, whose finalizers have a domain or are well known.
    """
    errors: list[FieldError] = []
    if prefix := meta.get("generateName"):
        errors += [invalid(f"{path}.generateName", prefix, each) for each in name_rule(prefix, True)]
    if name := meta.get("name"):
        errors += [invalid(f"{path}.name", name, each) for each in name_rule(name, False)]
    else:
        errors.append(required(f"{path}.name", "name or generateName is required"))

    namespace = meta.get("namespace") or ""
    if namespaced and not namespace:
        errors.append(required(f"{path}.namespace"))
    elif namespaced:
        errors += [invalid(f"{path}.namespace", namespace, each) for each in name_is_dns_label(namespace)]
    elif namespace:
        errors.append(forbidden(f"{path}.namespace", "not allowed on this type"))

    if (generation := meta.get("generation", 0)) < 0:
        errors.append(invalid(f"{path}.generation", generation, "must be greater than or equal to 0"))
    errors += _validate_common(meta, path)
    finalizers = meta.get("finalizers") or ()
    errors += validate_finalizers(finalizers, f"{path}.finalizers")
    if qualified_finalizers:
        errors += _validate_qualified(finalizers, f"{path}.finalizers")
    return errors


def validate_object_meta_update(
    new: Obj, old: Obj, path: str = "metadata", *, qualified_finalizers: bool = True
) -> list[FieldError]:
    """What may become of metadata. `resourceVersion` and `generation` must be filled in already."""
    errors: list[FieldError] = []
    if old.get("deletionTimestamp"):
        added = sorted(set(new.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if added:
            shown = ", ".join(f'"{each}"' for each in added)
            errors.append(
                forbidden(
                    f"{path}.finalizers",
                    "no new finalizers can be added if the object is being deleted, found new finalizers "
                    f"[]string{{{shown}}}",
                )
            )
    if not new.get("resourceVersion"):
        errors.append(invalid(f"{path}.resourceVersion", "", "must be specified for an update"))
    if (generation := new.get("generation", 0)) < old.get("generation", 0):
        errors.append(invalid(f"{path}.generation", generation, "must not be decremented"))
    for field, absent in _IMMUTABLE_FIELDS:
        was, now = old.get(field), new.get(field)
        if was != now and not (was in (None, absent) and now in (None, absent)):
            errors.append(invalid(f"{path}.{field}", absent if now is None else now, IMMUTABLE))
    errors += _validate_common(new, path)
    if qualified_finalizers:
        errors += _validate_qualified(new.get("finalizers") or (), f"{path}.finalizers")
    return errors


_IMMUTABLE_FIELDS: tuple[tuple[str, Any], ...] = (
    ("name", ""),
    ("namespace", ""),
    ("uid", ""),
    ("creationTimestamp", None),
    ("deletionTimestamp", None),
    ("deletionGracePeriodSeconds", None),
)


def _validate_common(meta: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if labels := meta.get("labels"):
        errors += validate_labels(labels, f"{path}.labels")
    if annotations := meta.get("annotations"):
        errors += validate_annotations(annotations, f"{path}.annotations")
    if owners := meta.get("ownerReferences"):
        errors += validate_owner_references(owners, f"{path}.ownerReferences")
    if entries := meta.get("managedFields"):
        errors += validate_managed_fields(entries, f"{path}.managedFields")
    return errors


def validate_annotations(annotations: Mapping[str, str], path: str) -> list[FieldError]:
    errors = []
    total = 0
    for key, value in annotations.items():
        total += byte_length(key) + byte_length(value)
        errors += [invalid(path, key, complaint) for complaint in is_qualified_name(key.lower())]
    if total > TOTAL_ANNOTATION_SIZE_LIMIT:
        errors.append(too_long(path, TOTAL_ANNOTATION_SIZE_LIMIT))
    return errors


def validate_finalizers(finalizers: Sequence[str], path: str) -> list[FieldError]:
    errors = [
        invalid(path, finalizer, complaint) for finalizer in finalizers for complaint in is_qualified_name(finalizer)
    ]
    if ORPHAN_DEPENDENTS in finalizers and DELETE_DEPENDENTS in finalizers:
        errors.append(
            invalid(
                path,
                list(finalizers),
                f"finalizer {ORPHAN_DEPENDENTS} and {DELETE_DEPENDENTS} cannot be both set",
            )
        )
    return errors


def _validate_qualified(finalizers: Sequence[str], path: str) -> list[FieldError]:
    return [
        invalid(
            f"{path}[{index}]",
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        )
        for index, finalizer in enumerate(finalizers)
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS
    ]


def dedup_owner_references(meta: Obj) -> list[str]:
    """Take out references that occur twice; returns the UIDs of those taken out, for a warning."""
    references = meta.get("ownerReferences") or ()
    if len(references) < 2:
        return []
    kept: list[Obj] = []
    duplicates = []
    for reference in references:
        if reference in kept:
            duplicates.append(reference.get("uid", ""))
        else:
            kept.append(reference)
    if duplicates:
        meta["ownerReferences"] = kept
    return duplicates


def validate_owner_references(references: Sequence[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    controller = ""
    for reference in references:
        api_version, kind = reference.get("apiVersion", ""), reference.get("kind", "")
        group, _, version = api_version.rpartition("/")
        if not version or "/" in group:
            errors.append(invalid(f"{path}.apiVersion", api_version, "version must not be empty"))
        for field in ("kind", "name", "uid"):
            if not reference.get(field):
                errors.append(invalid(f"{path}.{field}", "", "must not be empty"))
        if (group, version, kind) == ("", "v1", "Event"):
            errors.append(invalid(path, reference, "/v1, Kind=Event is disallowed from being an owner"))
        if reference.get("controller"):
            this = f"{kind}/{reference.get('name', '')}"
            if controller:
                errors.append(
                    invalid(
                        path,
                        list(references),
                        'Only one reference can have Controller set to true. Found "true" in references for '
                        f"{controller} and {this}",
                    )
                )
            else:
                controller = this
    return errors


def validate_managed_fields(entries: Iterable[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, entry in enumerate(entries):
        here = f"{path}[{index}]"
        operation = entry.get("operation", "")
        if operation not in ("Apply", "Update"):
            errors.append(invalid(f"{here}.operation", operation, "must be `Apply` or `Update`"))
        fields_type = entry.get("fieldsType", "")
        if fields_type and fields_type != "FieldsV1":
            errors.append(invalid(f"{here}.fieldsType", fields_type, "must be `FieldsV1`"))
        errors += validate_field_manager(entry.get("manager", ""), f"{here}.manager")
        if byte_length(entry.get("subresource", "")) > 256:
            errors.append(too_long(f"{here}.subresource", 256))
    return errors


def validate_field_manager(manager: str, path: str) -> list[FieldError]:
    """The `fieldManager` option of a write, or of an entry of `managedFields`."""
    errors = []
    if byte_length(manager) > FIELD_MANAGER_MAX_LENGTH:
        errors.append(too_long(path, FIELD_MANAGER_MAX_LENGTH))
    if not manager.isprintable():
        for index, letter in enumerate(manager):
            if not letter.isprintable():
                position = byte_length(manager[:index])
                detail = f"invalid character U+{ord(letter):04X} (at position {position})"
                errors.append(invalid(path, manager, detail))
    return errors
