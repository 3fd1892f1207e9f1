"""Custom resource definitions: kinds that users bring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from shipwheel.api.errors import FieldError, forbidden, invalid, required
from shipwheel.api.meta import Obj, annotations_of, is_condition_true
from shipwheel.api.names import is_dns1035_label, is_dns1123_subdomain
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext, keep
from shipwheel.api.schema.formats import effective
from shipwheel.kinds.apiextensions.olderdefinition import of_v1beta1, to_v1beta1
from shipwheel.kinds.apiextensions.openapischema import (
    Demands,
    check_defaults,
    check_openapi_schema,
    has_anywhere,
    has_unpruned_defaults,
)
from shipwheel.kinds.apiextensions.printing import check_columns, check_selectable, check_subresources
from shipwheel.kinds.apiextensions.rulechecking import check_rules
from shipwheel.kinds.apiextensions.structural import check_structural, is_structural, subschemas
from shipwheel.kinds.checks import Errors, check_enum, check_fixed, check_rule
from shipwheel.kinds.columns import NAME, text
from shipwheel.kinds.declare import STATUS, older, served
from shipwheel.kinds.webhookclient import check_client_config, default_client_config

_APPROVED = "api-approved.kubernetes.io"
_SEE = "see https://github.com/kubernetes/enhancements/pull/1111"
_REVIEW_VERSIONS = ("v1", "v1beta1")
_MAX_WARNING = 256
_AT_ROOT = (
    "Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum",
    "MaxLength", "MinLength", "Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items",
    "Properties", "ExternalDocs", "Example", "XPreserveUnknownFields", "XValidations",
)  # fmt: skip
_NAMES_AT_ROOT = {"x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"} | {
    name[0].lower() + name[1:] for name in _AT_ROOT
}


class CustomResourceDefinitionStrategy(Strategy):
    allow_unconditional_update = False

    def default(self, crd: Obj) -> None:
        spec = crd.setdefault("spec", {})
        names = spec.setdefault("names", {})
        if not names.get("singular"):
            names["singular"] = names.get("kind", "").lower()
        if not names.get("listKind") and names.get("kind"):
            names["listKind"] = f"{names['kind']}List"
        if spec.get("conversion") is None:
            spec["conversion"] = {"strategy": "None"}
        webhook = spec["conversion"].get("webhook") or {}
        default_client_config(webhook.get("clientConfig"))
        status = crd.setdefault("status", {})
        if not status.get("storedVersions"):
            _note_stored(crd)

    def prepare_for_create(self, crd: Obj, ctx: WriteContext) -> None:
        super().prepare_for_create(crd, ctx)
        _note_stored(crd)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        new["status"] = dict(new.get("status") or {})
        _note_stored(new)

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "spec")

    def validate(self, crd: Obj) -> list[FieldError]:
        name, spec = crd["metadata"].get("name", ""), crd["spec"]
        errors: Errors = []
        if name and name != f"{spec.get('names', {}).get('plural', '')}.{spec.get('group', '')}":
            errors.append(invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
        return errors + self._validate(crd, None)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self._validate(new, old)
        if is_condition_true(old, "Established"):
            check_fixed(new, old, "spec.scope", errors)
            check_fixed(new, old, "spec.names.kind", errors)
        check_fixed(new, old, "spec.group", errors)
        check_fixed(new, old, "spec.names.plural", errors)
        return errors

    def _validate(self, crd: Obj, old: Obj | None) -> Errors:
        errors: Errors = []
        _check_spec(crd, old, errors)
        _check_names((crd.get("status") or {}).get("acceptedNames") or {}, "status.acceptedNames", errors)
        _check_stored_versions(crd, "status.storedVersions", errors)
        _check_approval(crd, old, errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        _check_names((new.get("status") or {}).get("acceptedNames") or {}, "status.acceptedNames", errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        known = set(_unknown_formats(old)) if old is not None else set()
        return [f'unrecognized format "{each}"' for each in _unknown_formats(new) if each not in known]


def _note_stored(crd: Obj) -> None:
    """The storage version is one that objects may be stored in from now on."""
    status = crd["status"]
    for version in crd["spec"].get("versions") or ():
        if version.get("storage"):
            stored = status.get("storedVersions") or []
            if version["name"] not in stored:
                status["storedVersions"] = [*stored, version["name"]]
            return


# Schemas


class _Declared(NamedTuple):
    """A schema, and where upstream would say that it stands: what all versions have alike is moved to the top."""

    path: str
    schema: Obj
    has_status: bool


def _shared(spec: Obj, field: str) -> tuple[bool, Any]:
    """Whether all versions say the same under `field`, and what."""
    said = [version.get(field) for version in spec.get("versions") or ()]
    same = bool(said) and all(each == said[0] for each in said)
    return same, said[0] if same else None


def _schema(version: Obj) -> Obj | None:
    return (version.get("schema") or {}).get("openAPIV3Schema")


def _has_status(version: Obj) -> bool:
    return (version.get("subresources") or {}).get("status") is not None


def _declared(spec: Obj) -> Iterator[_Declared]:
    versions = spec.get("versions") or []
    if _shared(spec, "schema")[0]:
        schema = _schema(versions[0])
        if schema is not None:
            yield _Declared("spec.validation.openAPIV3Schema", schema, any(map(_has_status, versions)))
        return
    for index, version in enumerate(versions):
        schema = _schema(version)
        if schema is not None:
            yield _Declared(f"spec.versions[{index}].schema.openAPIV3Schema", schema, _has_status(version))


def _schemas(crd: Obj) -> list[Obj]:
    return [each.schema for each in _declared(crd["spec"])]


def _check_schemas(crd: Obj, old: Obj | None, errors: Errors) -> None:
    before = _schemas(old) if old is not None else []

    def still(demand: str) -> bool:
        return not any(has_anywhere(schema, demand) for schema in before)

    demands = Demands(known_types=still("known_types"), atomic_sets=still("atomic_sets"), map_keys=still("map_keys"))
    spec = crd["spec"]
    must_be_structural = not spec.get("preserveUnknownFields") or all(map(is_structural, before))
    if old is None and spec.get("preserveUnknownFields"):
        must_be_structural = False  # only definitions of v1beta1 come like this; see there
    pruned = not any(map(has_unpruned_defaults, before))
    for path, schema, has_status in _declared(spec):
        _check_root(schema, has_status, path, errors)
        found: Errors = []
        if must_be_structural:
            check_structural(schema, path, found)
            if not found:
                check_defaults(schema, path, found, pruned=pruned)
        check_openapi_schema(schema, path, found, demands)
        if not found:
            check_rules(schema, path, found, limited=schema not in before)
        errors += found


def _check_root(schema: Obj, has_status: bool, path: str, errors: Errors) -> None:
    if has_status:
        if schema.get("type", "") not in ("", "object"):
            detail = (
                'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
            )
            errors.append(invalid(f"{path}.type", schema["type"], detail))
        elif not set(schema) <= _NAMES_AT_ROOT:
            detail = (
                f"only [{' '.join(_AT_ROOT)}] fields are allowed at the root of the schema if the status subresource "
                "is enabled"
            )
            errors.append(invalid(path, schema, detail))
    if schema.get("nullable"):
        errors.append(forbidden(f"{path}.nullable", "nullable cannot be true at the root"))


def _unknown_formats(crd: Obj) -> list[str]:
    def walk(schema: Obj) -> Iterator[str]:
        if schema.get("format") and not effective(schema.get("type", ""), schema["format"]):
            yield schema["format"]
        for _, each in subschemas(schema):
            yield from walk(each)

    return [each for schema in _schemas(crd) for each in walk(schema)]


# Everything else of the spec


def _check_spec(crd: Obj, old: Obj | None, errors: Errors) -> None:
    spec = crd["spec"]
    group = spec.get("group", "")
    if not group:
        errors.append(required("spec.group"))
    elif complaints := is_dns1123_subdomain(group):
        errors.append(invalid("spec.group", group, ",".join(complaints)))
    elif "." not in group:
        errors.append(invalid("spec.group", group, "should be a domain with at least one dot"))
    check_enum(spec.get("scope"), ("Cluster", "Namespaced"), "spec.scope", errors)
    _check_schemas(crd, old, errors)
    _check_versions(spec, old, errors)
    names = spec.get("names") or {}
    for field in ("plural", "singular", "kind", "listKind"):
        if not names.get(field):
            errors.append(required(f"spec.names.{field}"))
    _check_names(names, "spec.names", errors)
    _check_conversion(spec, old, "spec.conversion", errors)


def _check_versions(spec: Obj, old: Obj | None, errors: Errors) -> None:
    versions = spec.get("versions") or []
    names = [version.get("name", "") for version in versions]
    if len(set(names)) != len(names):
        errors.append(invalid("spec.versions", versions, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        detail = "must have exactly one version marked as storage version"
        errors.append(invalid("spec.versions", versions or None, detail))
    if versions and names[0] and (complaints := is_dns1035_label(names[0])):
        errors.append(invalid("spec.version", names[0], ",".join(complaints)))  # the older field with the first name
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        if complaints := is_dns1035_label(names[index]):
            errors.append(invalid(f"{path}.name", names[index], ",".join(complaints)))
        for complaint in _warning_complaints(version):
            errors.append(invalid(f"{path}.deprecationWarning", version.get("deprecationWarning"), complaint))
    for field, check in (
        ("subresources", check_subresources),
        ("additionalPrinterColumns", check_columns),
    ):
        shared, said = _shared(spec, field)
        if shared:
            check(said, f"spec.{field}", errors)
            continue
        for index, version in enumerate(versions):
            check(version.get(field), f"spec.versions[{index}].{field}", errors)
    before = {version.get("name"): version for version in ((old or {}).get("spec") or {}).get("versions") or ()}
    shared = _shared(spec, "selectableFields")[0]
    for index, version in enumerate(versions):
        fields, path = version.get("selectableFields") or [], f"spec.versions[{index}].selectableFields"
        same = fields == (before.get(version.get("name")) or {}).get("selectableFields")
        check_selectable(fields, _schema(version), "spec.selectableFields" if shared else path, errors, as_many=same)
        if shared:
            return


def _warning_complaints(version: Obj) -> list[str]:
    warning = version.get("deprecationWarning")
    if warning is None:
        return []
    if not version.get("deprecated"):
        return ["can only be set for deprecated versions"]
    complaints = []
    if len(warning.encode()) > _MAX_WARNING:
        complaints.append("must be <= 256 characters long")
    if not warning:
        complaints.append("must not be an empty string")
    unprintable = next((index for index, each in enumerate(warning) if not each.isprintable()), None)
    if unprintable is not None:
        at = len(warning[:unprintable].encode())
        complaints.append(f"must only contain printable UTF-8 characters; non-printable character found at index {at}")
    return complaints


def _check_names(names: Obj, path: str, errors: Errors) -> None:
    for field in ("plural", "singular"):
        if names.get(field) and (complaints := is_dns1035_label(names[field])):
            errors.append(invalid(f"{path}.{field}", names[field], ",".join(complaints)))
    for field in ("kind", "listKind"):
        if names.get(field) and (complaints := is_dns1035_label(names[field].lower())):
            detail = f"may have mixed case, but should otherwise match: {','.join(complaints)}"
            errors.append(invalid(f"{path}.{field}", names[field], detail))
    for field in ("shortNames", "categories"):
        for index, name in enumerate(names.get(field) or ()):
            if complaints := is_dns1035_label(name):
                errors.append(invalid(f"{path}.{field}[{index}]", name, ",".join(complaints)))
    if names.get("kind") and names["kind"] == names.get("listKind"):
        errors.append(invalid(f"{path}.listKind", names["listKind"], "kind and listKind may not be the same"))


def _check_conversion(spec: Obj, old: Obj | None, path: str, errors: Errors) -> None:
    conversion = spec.get("conversion") or {}
    strategy, webhook = conversion.get("strategy", ""), conversion.get("webhook")
    if strategy != "None" and spec.get("preserveUnknownFields"):
        detail = "must be None if spec.preserveUnknownFields is true"
        errors.append(invalid(f"{path}.strategy", strategy, detail))
    check_enum(strategy, ("None", "Webhook"), f"{path}.strategy", errors)
    client, versions = (webhook or {}).get("clientConfig"), (webhook or {}).get("conversionReviewVersions") or []
    if strategy == "Webhook":
        if client is None:
            detail = "required when strategy is set to Webhook"
            errors.append(required(f"{path}.webhookClientConfig", detail))
        else:
            check_client_config(client, f"{path}.webhookClientConfig", errors)
        _check_review_versions(versions, _must_be_known(old), f"{path}.conversionReviewVersions", errors)
        return
    for field, value in (("webhookClientConfig", client), ("conversionReviewVersions", versions)):
        if value:
            errors.append(forbidden(f"{path}.{field}", "should not be set when strategy is not set to Webhook"))


def _must_be_known(old: Obj | None) -> bool:
    """Of the review versions one must be known, unless none was in the stored definition."""
    conversion = ((old or {}).get("spec") or {}).get("conversion") or {}
    versions = (conversion.get("webhook") or {}).get("conversionReviewVersions") or []
    return not versions or any(version in _REVIEW_VERSIONS for version in versions)


def _check_review_versions(versions: list[str], known_wanted: bool, path: str, errors: Errors) -> None:
    if not versions:
        errors.append(required(path))
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errors.append(invalid(f"{path}[{index}]", version, "duplicate version"))
        else:
            check_rule(is_dns1035_label, version, f"{path}[{index}]", errors)
    if known_wanted and not set(versions) & set(_REVIEW_VERSIONS):
        detail = f"must include at least one of {', '.join(_REVIEW_VERSIONS)}"
        errors.append(invalid(path, versions, detail))


def _check_stored_versions(crd: Obj, path: str, errors: Errors) -> None:
    stored = (crd.get("status") or {}).get("storedVersions") or []
    if not stored:
        errors.append(invalid(path, None, "must have at least one stored version"))
        return
    left = set(stored)
    for version in crd["spec"].get("versions") or ():
        name = version.get("name", "")
        if version.get("storage") and name not in left:
            errors.append(invalid(path, stored, f"must have the storage version {name}"))
        left.discard(name)
    for index, name in enumerate(stored):
        if name in left:
            detail = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
                f"{name} from status.storedVersions"
            )
            errors.append(invalid(f"{path}[{index}]", name, detail))


def _check_approval(crd: Obj, old: Obj | None, errors: Errors) -> None:
    """Groups of the community's are for APIs that it has approved (KEP-1111)."""
    group = "." + crd["spec"].get("group", "")
    if not group.endswith((".k8s.io", ".kubernetes.io")):
        return
    state, path = _approval(crd), f"metadata.annotations[{_APPROVED}]"
    if old is not None and _approval(old) == state:
        return
    if state == "missing":
        errors.append(required(path, f'protected groups must have approval annotation "{_APPROVED}", {_SEE}'))
    elif state == "invalid":
        detail = (
            f'protected groups must have approval annotation "{_APPROVED}" with either a URL or a reason starting '
            f'with "unapproved", {_SEE}'
        )
        errors.append(invalid(path, annotations_of(crd)[_APPROVED], detail))


def _approval(crd: Obj) -> str:
    annotation = annotations_of(crd).get(_APPROVED)
    if not annotation:
        return "missing"
    if annotation.startswith("unapproved"):
        return "bypassed"
    try:
        url = urlsplit(annotation)
    except ValueError:
        return "invalid"
    return "approved" if url.scheme and url.netloc else "invalid"


def _check_v1(new: Obj, old: Obj | None) -> list[FieldError]:
    """v1 wants a schema of every version, where they were not missing before."""
    errors: Errors = []
    versions = new["spec"].get("versions") or []
    before = ((old or {}).get("spec") or {}).get("versions") or []
    if all(_schema(version) is not None for version in before):
        for index, version in enumerate(versions):
            if _schema(version) is None:
                errors.append(required(f"spec.versions[{index}].schema.openAPIV3Schema"))
    if new["spec"].get("preserveUnknownFields") and not ((old or {}).get("spec") or {}).get("preserveUnknownFields"):
        detail = (
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        )
        errors.append(invalid("spec.preserveUnknownFields", True, detail))
    return errors


RESOURCES = (
    Resource(
        kind="CustomResourceDefinition",
        plural="customresourcedefinitions",
        singular="customresourcedefinition",
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        namespaced=False,
        versions=(
            served("apiextensions.k8s.io", "v1", "CustomResourceDefinition", check=_check_v1),
            older(
                "apiextensions.k8s.io",
                "v1beta1",
                "CustomResourceDefinition",
                since="1.16",
                until="1.22",
                replacement="apiextensions.k8s.io/v1",
                to_storage=of_v1beta1,
                from_storage=to_v1beta1,
            ),
        ),
        strategy=CustomResourceDefinitionStrategy(),
        columns=(NAME, Column("Created At", text("metadata", "creationTimestamp"), type="date")),
        subresources=(STATUS,),
        storage_prefix="apiextensions.k8s.io/customresourcedefinitions",
    ),
)
