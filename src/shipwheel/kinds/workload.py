"""What the kinds that make pods have in common: a pod template, and mostly a selector of the pods that are theirs."""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.errors import forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_dns1123_label, is_valid_percent
from shipwheel.api.objectmeta import validate_annotations, validate_label_selector, validate_labels
from shipwheel.api.selectors import SelectorError, from_label_selector
from shipwheel.kinds.checks import Errors, check_nonnegative
from shipwheel.kinds.core.podmeta import check_pod_annotations, check_profiles_agree
from shipwheel.kinds.core.podspec import check_pod_spec, default_pod_spec, drop_disabled
from shipwheel.kinds.core.podwarnings import pod_warnings

_NOT_MATCHED = "`selector` does not match template `labels`"
_MORE_THAN_REPLICAS = "cannot be greater than status.replicas"


# The template


def default_pod_template(template: Obj) -> None:
    default_pod_spec(template.setdefault("spec", {}))


def drop_disabled_in_template(template: Obj | None) -> None:
    if template:
        drop_disabled(template.get("spec") or {})


def check_pod_template(template: Obj, path: str, errors: Errors) -> None:
    spec = template.get("spec") or {}
    check_template_metadata(template, path, errors)
    check_pod_spec(spec, f"{path}.spec", errors)
    annotations = (template.get("metadata") or {}).get("annotations")
    if annotations:
        check_profiles_agree(annotations, spec, f"{path}.spec", errors)
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        errors.append(forbidden(f"{path}.spec.ephemeralContainers", detail))


def check_template_metadata(template: Obj, path: str, errors: Errors) -> None:
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    if metadata.get("labels"):
        errors += validate_labels(metadata["labels"], f"{path}.labels")
    annotations = metadata.get("annotations")
    if annotations:
        errors += validate_annotations(annotations, f"{path}.annotations")
        check_pod_annotations(annotations, spec, f"{path}.annotations", errors)


def check_lasting_template(template: Obj, kind: str, path: str, errors: Errors) -> None:
    """A template of pods that are to run for ever: `kind` makes new ones when they end."""
    spec = template.get("spec") or {}
    policy = spec.get("restartPolicy", "")
    if policy != "Always":
        errors.append(not_supported(f"{path}.spec.restartPolicy", policy, ("Always",)))
    if spec.get("activeDeadlineSeconds") is not None:
        detail = f"activeDeadlineSeconds in {kind} is not Supported"
        errors.append(forbidden(f"{path}.spec.activeDeadlineSeconds", detail))


def template_warnings(template: Obj | None, path: str) -> list[str]:
    if not template:
        return []
    return pod_warnings(template.get("metadata") or {}, template.get("spec") or {}, path)


def workload_warnings(
    new: Obj, old: Obj | None, template: Obj | None, path: str, *, check_name: bool = True
) -> list[str]:
    """The template's warnings when it is new or anything else changed; and on create, what the name will do."""
    if old is not None:
        same = new["metadata"].get("generation") == old["metadata"].get("generation")
        return [] if same else template_warnings(template, path)
    warnings = template_warnings(template, path)
    return name_warnings(new) + warnings if check_name else warnings


def name_warnings(workload: Obj) -> list[str]:
    complaints = is_dns1123_label(workload["metadata"].get("name", ""))
    if not complaints:
        return []
    return [
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS "
        f"label is recommended: [{' '.join(complaints)}]"
    ]


# The selector


def check_selector(spec: Obj, word: str, errors: Errors, *, path: str = "spec") -> None:
    """A selector that is there and selects something. `word` is the kind in the message."""
    selector = spec.get("selector")
    if selector is None:
        errors.append(required(f"{path}.selector"))
        return
    errors += validate_label_selector(selector, f"{path}.selector")
    if is_empty(selector):
        errors.append(invalid(f"{path}.selector", selector, f"empty selector is invalid for {word}"))


def is_empty(selector: Obj) -> bool:
    return not selector.get("matchLabels") and not selector.get("matchExpressions")


def check_selector_matches(
    selector: Obj | None, template: Obj, path: str, errors: Errors, *, wrong: str | None = None
) -> bool:
    """The template's pods are selected. `wrong` is what to say of an unreadable selector (None: nothing).

    Returns whether the selector can be read. One that selects everything matches any template; none, no template.
    """
    try:
        compiled = from_label_selector(selector)
    except SelectorError:
        if wrong is not None:
            errors.append(invalid(f"{path}.selector", selector, wrong))
        return False
    labels = (template.get("metadata") or {}).get("labels")
    if not compiled.is_everything and not compiled.matches(labels or {}):
        errors.append(invalid(f"{path}.template.metadata.labels", labels, _NOT_MATCHED))
    return True


# Numbers


def check_counts(status: Obj, fields: Iterable[str], errors: Errors, *, path: str = "status") -> None:
    for field in fields:
        if field in status:
            check_nonnegative(status[field], f"{path}.{field}", errors)


def check_at_most_replicas(status: Obj, fields: Iterable[str], errors: Errors, *, ready: str = "readyReplicas") -> None:
    """Parts are not more than the whole. `ready` is how the message about readiness names the field."""
    replicas = status.get("replicas", 0)
    for field in fields:
        if status.get(field, 0) > replicas:
            errors.append(invalid(f"status.{field}", status.get(field, 0), _MORE_THAN_REPLICAS))
    if status.get("availableReplicas", 0) > status.get("readyReplicas", 0):
        detail = f"cannot be greater than {ready}"
        errors.append(invalid("status.availableReplicas", status.get("availableReplicas", 0), detail))


def check_collision_count(status: Obj, old: Obj, errors: Errors) -> None:
    """The count that makes names unique only grows."""
    count, was = status.get("collisionCount"), old.get("collisionCount")
    if was is not None and (count is None or count < was):
        errors.append(invalid("status.collisionCount", count or 0, "cannot be decremented"))


def check_number_or_percent(value: int | str, path: str, errors: Errors) -> None:
    if isinstance(value, str):
        for complaint in is_valid_percent(value):
            errors.append(invalid(path, value, complaint))
    else:
        check_nonnegative(value, path, errors)


def number_of(value: int | str) -> int:
    """The number, or that of the percentage; 0 when it is neither."""
    if isinstance(value, int):
        return value
    share = value.removesuffix("%")
    return int(share) if share.isdigit() else 0


def check_at_most_all(value: int | str, path: str, errors: Errors) -> None:
    if isinstance(value, str) and not is_valid_percent(value) and number_of(value) > 100:
        errors.append(invalid(path, value, "must not be greater than 100%"))
