"""Webhooks that take part in admission."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, duplicate, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_dns1035_label, is_fully_qualified_name
from shipwheel.api.objectmeta import validate_label_selector
from shipwheel.api.resource import Column, Resource, Strategy, Version
from shipwheel.kinds.admissionregistration.rules import (
    FAILURE_POLICIES,
    MATCH_POLICIES,
    REINVOCATION_POLICIES,
    check_match_conditions,
    check_operations_rule,
    default_matching,
    default_rules,
    static_name_warnings,
)
from shipwheel.kinds.checks import Errors, check_rule
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.declare import older, served
from shipwheel.kinds.webhookclient import check_client_config, default_client_config

_GROUP = "admissionregistration.k8s.io"
_SIDE_EFFECTS = ("None", "NoneOnDryRun", "Some", "Unknown")
_NO_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_REVIEW_VERSIONS = ("v1", "v1beta1")
_TIMEOUT = 10
_TIMEOUT_RANGE = (1, 30)


class WebhookStrategy(Strategy):
    allow_unconditional_update = False

    def __init__(self, *, mutating: bool) -> None:
        self._mutating = mutating

    def default(self, configuration: Obj) -> None:
        for hook in configuration.get("webhooks") or ():
            if hook.get("failurePolicy") is None:
                hook["failurePolicy"] = "Fail"
            default_matching(hook)
            if hook.get("timeoutSeconds") is None:
                hook["timeoutSeconds"] = _TIMEOUT
            if self._mutating and hook.get("reinvocationPolicy") is None:
                hook["reinvocationPolicy"] = "Never"
            default_rules(hook.get("rules"))
            default_client_config(hook.get("clientConfig"))

    def validate(self, configuration: Obj) -> list[FieldError]:
        return self._validate(configuration, None)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self._validate(new, old)

    def _validate(self, configuration: Obj, old: Obj | None) -> list[FieldError]:
        errors: Errors = []
        hooks, before = configuration.get("webhooks") or [], (old or {}).get("webhooks") or []
        known_version = all(_has_known_version(hook) for hook in before)
        same_conditions = old is not None and _conditions(hooks) == _conditions(before)
        for index, hook in enumerate(hooks):
            path = f"webhooks[{index}]"
            self._check_hook(hook, path, errors)
            if not same_conditions:
                check_match_conditions(hook.get("matchConditions") or [], f"{path}.matchConditions", errors)
            _check_versions(hook, known_version, f"{path}.admissionReviewVersions", errors)
        return errors

    def _check_hook(self, hook: Obj, path: str, errors: Errors) -> None:
        errors += is_fully_qualified_name(hook.get("name", ""), f"{path}.name")
        for index, rule in enumerate(hook.get("rules") or ()):
            check_operations_rule(rule, f"{path}.rules[{index}]", errors)
        choices = [("failurePolicy", FAILURE_POLICIES), ("matchPolicy", MATCH_POLICIES)]
        for field, possible in choices:
            if hook.get(field) is not None and hook[field] not in possible:
                errors.append(not_supported(f"{path}.{field}", hook[field], possible))
        timeout = hook.get("timeoutSeconds")
        least, most = _TIMEOUT_RANGE
        if timeout is not None and not least <= timeout <= most:
            detail = f"the timeout value must be between {least} and {most} seconds"
            errors.append(invalid(f"{path}.timeoutSeconds", timeout, detail))
        for field in ("namespaceSelector", "objectSelector"):
            errors += validate_label_selector(hook.get(field), f"{path}.{field}")
        policy = hook.get("reinvocationPolicy")
        if self._mutating and policy is not None and policy not in REINVOCATION_POLICIES:
            errors.append(not_supported(f"{path}.reinvocationPolicy", policy, REINVOCATION_POLICIES))
        check_client_config(hook.get("clientConfig") or {}, f"{path}.clientConfig", errors)

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        return static_name_warnings(new)


def _check_v1beta1(new: Obj, old: Obj | None) -> list[FieldError]:
    return [
        not_supported(f"webhooks[{index}].sideEffects", hook.get("sideEffects", ""), _SIDE_EFFECTS)
        for index, hook in enumerate(new.get("webhooks") or ())
        if hook.get("sideEffects") not in _SIDE_EFFECTS
    ]


def _check_v1(new: Obj, old: Obj | None) -> list[FieldError]:
    """v1 wants names of their own and no side effects that a dry run would have. Where a stored webhook lacks that
    already, nothing is said of the others."""
    errors: Errors = []
    hooks, before = new.get("webhooks") or [], (old or {}).get("webhooks") or []
    effects = _NO_SIDE_EFFECTS if all(map(_is_free_of_effects, before)) else _SIDE_EFFECTS
    names = [hook.get("name", "") for hook in hooks]
    old_names = [hook.get("name", "") for hook in before]
    for index, hook in enumerate(hooks):
        path, effect, name = f"webhooks[{index}]", hook.get("sideEffects"), names[index]
        if effect is None:
            errors.append(required(f"{path}.sideEffects", f"must specify one of {', '.join(effects)}"))
        elif effect not in effects:
            errors.append(not_supported(f"{path}.sideEffects", effect, effects))
        if name and name in names[:index] and len(set(old_names)) == len(old_names):
            errors.append(duplicate(f"{path}.name", name))
    return errors


def _of_v1beta1(configuration: Obj) -> Obj:
    for hook in configuration.get("webhooks") or ():
        for field, value in _DEFAULTS_OF_V1BETA1.items():
            if hook.get(field) is None:
                hook[field] = value
        if not hook.get("admissionReviewVersions"):
            hook["admissionReviewVersions"] = ["v1beta1"]
    return configuration


_DEFAULTS_OF_V1BETA1 = {
    "failurePolicy": "Ignore",
    "matchPolicy": "Exact",
    "sideEffects": "Unknown",
    "timeoutSeconds": 30,
}


def _versions(kind: str) -> tuple[Version, ...]:
    return (
        served(_GROUP, "v1", kind, check=_check_v1),
        older(
            _GROUP,
            "v1beta1",
            kind,
            since="1.16",
            until="1.22",
            replacement=f"{_GROUP}/v1",
            to_storage=_of_v1beta1,
            check=_check_v1beta1,
        ),
    )


def _is_free_of_effects(hook: Obj) -> bool:
    return hook.get("sideEffects") in _NO_SIDE_EFFECTS


def _has_known_version(hook: Obj) -> bool:
    return any(version in _REVIEW_VERSIONS for version in hook.get("admissionReviewVersions") or ())


def _conditions(hooks: list[Obj]) -> list[list[Obj]]:
    return [hook.get("matchConditions") or [] for hook in hooks]


def _check_versions(hook: Obj, known_wanted: bool, path: str, errors: Errors) -> None:
    versions, known = hook.get("admissionReviewVersions") or [], ", ".join(_REVIEW_VERSIONS)
    if not versions:
        errors.append(required(path, f"must specify one of {known}"))
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errors.append(invalid(f"{path}[{index}]", version, "duplicate version"))
        else:
            check_rule(is_dns1035_label, version, f"{path}[{index}]", errors)
    if known_wanted and not _has_known_version(hook):
        errors.append(invalid(path, versions, f"must include at least one of {known}"))


_COLUMNS = (NAME, Column("Webhooks", lambda obj, now: len(obj.get("webhooks") or ()), type="integer"), AGE)

RESOURCES = (
    Resource(
        kind="MutatingWebhookConfiguration",
        plural="mutatingwebhookconfigurations",
        singular="mutatingwebhookconfiguration",
        categories=("api-extensions",),
        namespaced=False,
        versions=_versions("MutatingWebhookConfiguration"),
        strategy=WebhookStrategy(mutating=True),
        columns=_COLUMNS,
    ),
    Resource(
        kind="ValidatingWebhookConfiguration",
        plural="validatingwebhookconfigurations",
        singular="validatingwebhookconfiguration",
        categories=("api-extensions",),
        namespaced=False,
        versions=_versions("ValidatingWebhookConfiguration"),
        strategy=WebhookStrategy(mutating=False),
        columns=_COLUMNS,
    ),
)
