"""Policies in CEL that take part in admission, and where they hold."""

from __future__ import annotations

import re
from datetime import datetime

from shipwheel.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import (
    byte_length,
    is_dns1035_label,
    is_dns1123_subdomain,
    is_path_segment_name,
    is_qualified_name,
    name_is_dns_subdomain,
)
from shipwheel.api.objectmeta import validate_conditions, validate_label_selector
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.admissionregistration.rules import (
    FAILURE_POLICIES,
    REINVOCATION_POLICIES,
    check_match_conditions,
    check_match_resources,
    check_only_mutable,
    default_matching,
    default_rules,
    static_name_warnings,
)
from shipwheel.kinds.checks import Errors, check_enum, check_one_of, check_required, check_rule
from shipwheel.kinds.columns import AGE, NAME, UNSET, Value, dig, format_selector, text
from shipwheel.kinds.declare import STATUS, served

_GROUP = "admissionregistration.k8s.io"
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_ACTIONS = ("Audit", "Deny", "Warn")
_PATCH_TYPES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
_NOT_FOUND_ACTIONS = ("Deny", "Allow")
_MAX_AUDIT_ANNOTATIONS = 20
_MAX_AUDIT_EXPRESSION = 5 * 1024
_IDENTIFIER = re.compile("[_a-zA-Z][_a-zA-Z0-9]*").fullmatch
_RESERVED = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if",
        "import", "let", "loop", "package", "namespace", "return", "var", "void", "while",
    )
)  # fmt: skip
_NEITHER = "validations or auditAnnotations must contain at least one item"
_EXCLUSIVE = "name and selector are mutually exclusive"


class _PolicyStrategy(Strategy):
    """What validating and mutating policies have in common."""

    allow_unconditional_update = False

    def default(self, policy: Obj) -> None:
        spec = policy.setdefault("spec", {})
        if spec.get("failurePolicy") is None:
            spec["failurePolicy"] = "Fail"
        _default_match(spec.get("matchConstraints"))

    def validate(self, policy: Obj) -> list[FieldError]:
        return self._validate(policy, None)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self._validate(new, old)

    def _validate(self, policy: Obj, old: Obj | None) -> list[FieldError]:
        errors: Errors = []
        spec = policy["spec"]
        check_one_of(spec.get("failurePolicy"), FAILURE_POLICIES, "spec.failurePolicy", errors)
        if spec.get("paramKind") is not None:
            _check_param_kind(spec["paramKind"], "spec.paramKind", errors)
        match = spec.get("matchConstraints")
        if match is None:
            errors.append(required("spec.matchConstraints"))
        else:
            check_match_resources(match, "spec.matchConstraints", errors)
            if not match.get("resourceRules"):
                errors.append(required("spec.matchConstraints.resourceRules"))
        if old is None or old["spec"] != spec:
            check_match_conditions(spec.get("matchConditions") or [], "spec.matchConditions", errors)
        for index, variable in enumerate(spec.get("variables") or ()):
            _check_variable(variable, f"spec.variables[{index}]", errors)
        self._check_effect(policy, spec, errors)
        return errors

    def _check_effect(self, policy: Obj, spec: Obj, errors: Errors) -> None:
        raise AssertionError("each kind of policy has its own")

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        return static_name_warnings(new)


class ValidatingPolicyStrategy(_PolicyStrategy):
    def _check_effect(self, policy: Obj, spec: Obj, errors: Errors) -> None:
        validations, annotations = spec.get("validations") or [], spec.get("auditAnnotations") or []
        if not validations and not annotations:
            errors += [required("spec.validations", _NEITHER), required("spec.auditAnnotations", _NEITHER)]
            return
        for index, validation in enumerate(validations):
            _check_validation(validation, f"spec.validations[{index}]", errors)
        if len(annotations) > _MAX_AUDIT_ANNOTATIONS:
            detail = f"must not have more than {_MAX_AUDIT_ANNOTATIONS} auditAnnotations"
            errors.append(invalid("spec.auditAnnotations", annotations, detail))
        keys: set[str] = set()
        for index, annotation in enumerate(annotations):
            path, key = f"spec.auditAnnotations[{index}]", annotation.get("key", "")
            _check_audit_annotation(annotation, policy["metadata"].get("name", ""), path, errors)
            if key in keys:
                errors.append(duplicate(f"{path}.key", key))
            keys.add(key)

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        status = new.get("status") or {}
        errors: Errors = []
        warnings = (status.get("typeChecking") or {}).get("expressionWarnings") or ()
        for index, warning in enumerate(warnings):
            path = f"status.typeChecking.expressionWarnings[{index}]"
            for field in ("warning", "fieldRef"):
                if not warning.get(field, "").strip():
                    errors.append(required(f"{path}.{field}"))
        return errors + validate_conditions(status.get("conditions"), "status.conditions")


class MutatingPolicyStrategy(_PolicyStrategy):
    def _check_effect(self, policy: Obj, spec: Obj, errors: Errors) -> None:
        check_only_mutable(spec.get("matchConstraints") or {}, "spec.matchConstraints", errors)
        mutations = spec.get("mutations") or []
        if not mutations:
            errors.append(required("spec.mutations", "mutations must contain at least one item"))
        for index, mutation in enumerate(mutations):
            _check_mutation(mutation, f"spec.mutations[{index}]", errors)
        check_enum(spec.get("reinvocationPolicy"), REINVOCATION_POLICIES, "spec.reinvocationPolicy", errors)


class PolicyBindingStrategy(Strategy):
    allow_unconditional_update = False

    def __init__(self, *, mutating: bool) -> None:
        self._mutating = mutating

    def default(self, binding: Obj) -> None:
        _default_match((binding.get("spec") or {}).get("matchResources"))

    def validate(self, binding: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = binding.get("spec") or {}
        check_required(name_is_dns_subdomain, spec.get("policyName"), "spec.policyName", errors)
        if spec.get("paramRef") is not None:
            _check_param_ref(spec["paramRef"], "spec.paramRef", errors)
        match = spec.get("matchResources")
        if match is not None:
            check_match_resources(match, "spec.matchResources", errors)
        if self._mutating:
            check_only_mutable(match or {}, "spec.matchResources", errors)
        else:
            _check_actions(spec.get("validationActions") or [], "spec.validationActions", errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        return static_name_warnings(new)


def _default_match(match: Obj | None) -> None:
    if match is None:
        return
    default_matching(match)
    default_rules(match.get("resourceRules"))
    default_rules(match.get("excludeResourceRules"))


def _check_param_kind(param: Obj, path: str, errors: Errors) -> None:
    text, kind = param.get("apiVersion", ""), param.get("kind", "")
    if not text:
        errors.append(required(f"{path}.apiVersion"))
    elif text.count("/") > 1:
        errors.append(invalid(f"{path}.apiVersion", text, f"unexpected GroupVersion string: {text}"))
    else:
        group, _, version = text.rpartition("/")
        if group and (complaints := is_dns1123_subdomain(group)):
            errors.append(invalid(f"{path}.apiVersion", group, ",".join(complaints)))
        if not version:
            errors.append(invalid(f"{path}.apiVersion", text, "version must be specified"))
        elif complaints := is_dns1035_label(version):
            errors.append(invalid(f"{path}.apiVersion", version, ",".join(complaints)))
    if not kind:
        errors.append(required(f"{path}.kind"))
    elif complaints := is_dns1035_label(kind.lower()):
        detail = f"may have mixed case, but should otherwise match: {','.join(complaints)}"
        errors.append(invalid(f"{path}.kind", kind, detail))


def _check_variable(variable: Obj, path: str, errors: Errors) -> None:
    name = variable.get("name", "")
    if not name.strip():
        errors.append(required(f"{path}.name", "name is not specified"))
    elif not _IDENTIFIER(name) or name in _RESERVED:
        errors.append(invalid(f"{path}.name", name, "must be a valid CEL identifier"))
    if not variable.get("expression", "").strip():
        errors.append(required(f"{path}.expression", "expression is not specified"))


def _check_validation(validation: Obj, path: str, errors: Errors) -> None:
    if not validation.get("expression", "").strip():
        errors.append(required(f"{path}.expression", "expression is not specified"))
    message, expression = validation.get("message", ""), validation.get("messageExpression", "")
    if expression and not expression.strip():
        errors.append(invalid(f"{path}.messageExpression", expression, "must be non-empty if specified"))
    if message and not message.strip():
        errors.append(invalid(f"{path}.message", message, "must be non-empty if specified"))
    elif "\n" in message.strip() or "\r" in message.strip():
        errors.append(invalid(f"{path}.message", message, "must not contain line breaks"))
    reason = validation.get("reason")
    if reason is not None and reason not in _REASONS:
        errors.append(not_supported(f"{path}.reason", reason, _REASONS))


def _check_audit_annotation(annotation: Obj, policy: str, path: str, errors: Errors) -> None:
    key, expression = annotation.get("key", ""), annotation.get("valueExpression", "").strip()
    if policy:
        check_rule(is_qualified_name, f"{policy}/{key}", f"{path}.key", errors)
    else:
        errors.append(invalid(f"{path}.key", key, "requires metadata.name be non-empty"))
    if not expression:
        errors.append(required(f"{path}.valueExpression", "valueExpression is not specified"))
    elif byte_length(expression) > _MAX_AUDIT_EXPRESSION:
        detail = f"must not exceed {_MAX_AUDIT_EXPRESSION} bytes in length"
        errors.append(required(f"{path}.valueExpression", detail))


def _check_mutation(mutation: Obj, path: str, errors: Errors) -> None:
    kind = mutation.get("patchType", "")
    if not kind:
        errors.append(required(f"{path}.patchType"))
        return
    if kind not in _PATCH_TYPES:
        errors.append(not_supported(f"{path}.patchType", kind, tuple(_PATCH_TYPES)))
        return
    for each, field in _PATCH_TYPES.items():
        patch = mutation.get(field)
        if each == kind and patch is None:
            errors.append(required(f"{path}.{field}", f"must be specified when patchType is {kind}"))
        elif each == kind and not (patch or {}).get("expression", "").strip():
            errors.append(required(f"{path}.{field}.expression"))
        elif each != kind and patch is not None:
            detail = f"must not be specified when patchType is {kind}"
            errors.append(invalid(f"{path}.{field}", f"{{{field}}}", detail))


def _check_param_ref(reference: Obj, path: str, errors: Errors) -> None:
    name, selector = reference.get("name"), reference.get("selector")
    if name:
        check_rule(is_path_segment_name, name, f"{path}.name", errors)
        if selector is not None:
            errors.append(forbidden(f"{path}.name", _EXCLUSIVE))
    if selector is not None:
        errors += validate_label_selector(selector, f"{path}.selector")
        if name:
            errors.append(forbidden(f"{path}.selector", _EXCLUSIVE))
    if not name and selector is None:
        errors.append(required(path, "one of name or selector must be specified"))
    action = reference.get("parameterNotFoundAction")
    check_enum(action, _NOT_FOUND_ACTIONS, f"{path}.parameterNotFoundAction", errors)


def _check_actions(actions: list[str], path: str, errors: Errors) -> None:
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            errors.append(not_supported(f"{path}[{index}]", action, _ACTIONS))
        if action in actions[:index]:
            errors.append(duplicate(f"{path}[{index}]", action))
    if "Deny" in actions and "Warn" in actions:
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        errors.append(invalid(path, actions, detail))
    if not actions:
        errors.append(required(path, "at least one validation action is required"))


def _param_kind(policy: Obj, now: datetime) -> str:
    kind = dig(policy, "spec", "paramKind")
    return f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else UNSET


def _param_ref(binding: Obj, now: datetime) -> str:
    reference = dig(binding, "spec", "paramRef")
    if not reference:
        return UNSET
    if reference.get("name"):
        return f"{reference.get('namespace') or '*'}/{reference['name']}"
    return format_selector(reference["selector"]) if reference.get("selector") else UNSET


def _count(*path: str) -> Value:
    return lambda obj, now: len(dig(obj, *path) or ())


_BINDING_COLUMNS = (
    NAME,
    Column("PolicyName", text("spec", "policyName")),
    Column("ParamRef", _param_ref),
    AGE,
)


RESOURCES = (
    Resource(
        kind="ValidatingAdmissionPolicy",
        plural="validatingadmissionpolicies",
        singular="validatingadmissionpolicy",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served(_GROUP, "v1", "ValidatingAdmissionPolicy"),),
        strategy=ValidatingPolicyStrategy(),
        columns=(
            NAME,
            Column("Validations", _count("spec", "validations"), type="integer"),
            Column("ParamKind", _param_kind),
            AGE,
        ),
        subresources=(STATUS,),
    ),
    Resource(
        kind="ValidatingAdmissionPolicyBinding",
        plural="validatingadmissionpolicybindings",
        singular="validatingadmissionpolicybinding",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served(_GROUP, "v1", "ValidatingAdmissionPolicyBinding"),),
        strategy=PolicyBindingStrategy(mutating=False),
        columns=_BINDING_COLUMNS,
    ),
    Resource(
        kind="MutatingAdmissionPolicy",
        plural="mutatingadmissionpolicies",
        singular="mutatingadmissionpolicy",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served(_GROUP, "v1", "MutatingAdmissionPolicy"),),
        strategy=MutatingPolicyStrategy(),
        columns=(
            NAME,
            Column("Mutations", _count("spec", "mutations"), type="integer"),
            Column("ParamKind", _param_kind),
            AGE,
        ),
    ),
    Resource(
        kind="MutatingAdmissionPolicyBinding",
        plural="mutatingadmissionpolicybindings",
        singular="mutatingadmissionpolicybinding",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served(_GROUP, "v1", "MutatingAdmissionPolicyBinding"),),
        strategy=PolicyBindingStrategy(mutating=True),
        columns=_BINDING_COLUMNS,
    ),
)
