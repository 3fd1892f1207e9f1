"""Stateful sets: pods with names and storage of their own."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, forbidden, invalid, not_supported, required
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.names import name_is_dns_label
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext, keep
from shipwheel.kinds.apps.deployment import ready_of_desired
from shipwheel.kinds.apps.older import stateful_set_of_v1beta1
from shipwheel.kinds.checks import Errors, check_label, check_nonnegative
from shipwheel.kinds.columns import AGE, NAME, pod_template_columns
from shipwheel.kinds.core.claimspec import check_claim_spec, claim_spec_warnings, default_claim_spec
from shipwheel.kinds.declare import STATUS, older, served
from shipwheel.kinds.scale import scale_subresource
from shipwheel.kinds.workload import (
    check_at_most_replicas,
    check_collision_count,
    check_counts,
    check_lasting_template,
    check_pod_template,
    check_selector,
    check_selector_matches,
    check_template_metadata,
    default_pod_template,
    drop_disabled_in_template,
    workload_warnings,
)

_MAY_CHANGE = (
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
)
_COUNTS = (
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
    "collisionCount",
)
_PARTS = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")


class StatefulSetStrategy(Strategy):
    name_rule = staticmethod(name_is_dns_label)

    def default(self, stateful_set: Obj) -> None:
        spec = stateful_set.setdefault("spec", {})
        if not spec.get("podManagementPolicy"):
            spec["podManagementPolicy"] = "OrderedReady"
        strategy = spec.setdefault("updateStrategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
            if strategy.get("rollingUpdate") is None:
                strategy["rollingUpdate"] = {}
        rolling = strategy.get("rollingUpdate")
        if strategy["type"] == "RollingUpdate" and rolling is not None and rolling.get("partition") is None:
            rolling["partition"] = 0
        retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
        spec["persistentVolumeClaimRetentionPolicy"] = retention
        for field in ("whenDeleted", "whenScaled"):
            if not retention.get(field):
                retention[field] = "Retain"
        if spec.get("replicas") is None:
            spec["replicas"] = 1
        if spec.get("revisionHistoryLimit") is None:
            spec["revisionHistoryLimit"] = 10
        default_pod_template(spec.setdefault("template", {}))
        for claim in spec.get("volumeClaimTemplates") or ():
            _default_claim(claim)

    def prepare_for_create(self, stateful_set: Obj, ctx: WriteContext) -> None:
        super().prepare_for_create(stateful_set, ctx)
        _drop_disabled(stateful_set["spec"], None)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        _drop_disabled(new["spec"], old["spec"])

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "spec")

    def validate(self, stateful_set: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = stateful_set["spec"]
        self._validate_spec(spec, errors)
        for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
            check_claim_spec(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{index}].spec", errors)
        if spec.get("serviceName"):
            check_label(spec["serviceName"], "spec.serviceName", errors)
        return errors

    def _validate_spec(self, spec: Obj, errors: Errors) -> None:
        policy = spec.get("podManagementPolicy")
        if not policy:
            errors.append(required("spec.podManagementPolicy"))
        elif policy not in ("OrderedReady", "Parallel"):
            detail = "must be 'OrderedReady' or 'Parallel'"
            errors.append(invalid("spec.podManagementPolicy", policy, detail))
        _check_strategy(spec.get("updateStrategy") or {}, errors)
        for field, value in (spec.get("persistentVolumeClaimRetentionPolicy") or {}).items():
            if value not in ("Retain", "Delete"):
                path = f"spec.persistentVolumeClaimRetentionPolicy.{field}"
                errors.append(not_supported(path, value, ("Retain", "Delete")))
        check_nonnegative(spec.get("replicas"), "spec.replicas", errors)
        check_nonnegative(spec.get("minReadySeconds"), "spec.minReadySeconds", errors)
        check_nonnegative((spec.get("ordinals") or {}).get("start"), "spec.ordinals.start", errors)
        check_selector(spec, "statefulset", errors)
        template = spec.get("template") or {}
        if check_selector_matches(spec.get("selector"), template, "spec", errors, wrong=""):
            check_pod_template(_with_claims(template, spec), "spec.template", errors)
            check_template_metadata(template, "spec.template", errors)  # said once more, as upstream does
        check_lasting_template(template, "StatefulSet", "spec.template", errors)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        self._validate_spec(new["spec"], errors)
        fixed = [{key: value for key, value in each["spec"].items() if key not in _MAY_CHANGE} for each in (new, old)]
        if fixed[0] != fixed[1]:
            detail = (
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
                "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
                "'minReadySeconds' are forbidden"
            )
            errors.append(forbidden("spec", detail))
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        status = new.get("status") or {}
        check_counts(status, _COUNTS, errors)
        check_at_most_replicas(status, _PARTS, errors, ready="status.readyReplicas")
        check_collision_count(status, old.get("status") or {}, errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        spec = new["spec"]
        warnings = workload_warnings(new, old, spec.get("template"), "spec.template", check_name=False)
        for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
            path = f"spec.volumeClaimTemplates[{index}]"
            warnings += claim_spec_warnings(claim.get("spec") or {}, path)
        if (spec.get("revisionHistoryLimit") or 0) < 0:
            detail = "a negative value retains all historical revisions; a value >= 0 is recommended"
            warnings.append(f"spec.revisionHistoryLimit: {detail}")
        return warnings


def _default_claim(claim: Obj) -> None:
    claim.setdefault("apiVersion", "v1")
    claim.setdefault("kind", "PersistentVolumeClaim")
    default_claim_spec(claim.setdefault("spec", {}))
    status = claim.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Pending"


def _drop_disabled(spec: Obj, old: Obj | None) -> None:
    """`maxUnavailable` is off by default in this release, and kept where it was set before."""
    drop_disabled_in_template(spec.get("template"))
    was = ((old or {}).get("updateStrategy") or {}).get("rollingUpdate") or {}
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate")
    if rolling and was.get("maxUnavailable") is None:
        rolling.pop("maxUnavailable", None)


def _check_strategy(strategy: Obj, errors: Errors) -> None:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    path = "spec.updateStrategy"
    if not kind:
        errors.append(required(path))
    elif kind == "OnDelete":
        if rolling is not None:
            detail = "only allowed for updateStrategy 'RollingUpdate'"
            errors.append(invalid(f"{path}.rollingUpdate", rolling, detail))
    elif kind == "RollingUpdate":
        partition = (rolling or {}).get("partition")
        check_nonnegative(partition, f"{path}.rollingUpdate.partition", errors)
    else:
        errors.append(invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'"))


def _with_claims(template: Obj, spec: Obj) -> Obj:
    """The template as its pods will be: with volumes for the claims, without a host name it may not choose."""
    pod = {key: value for key, value in (template.get("spec") or {}).items() if key not in ("subdomain", "hostname")}
    names = [(claim.get("metadata") or {}).get("name", "") for claim in spec.get("volumeClaimTemplates") or ()]
    if names:
        claims = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in dict.fromkeys(names)]
        others = [volume for volume in pod.get("volumes") or () if volume.get("name") not in names]
        pod["volumes"] = claims + others
    return {**template, "spec": pod}


RESOURCES = (
    Resource(
        kind="StatefulSet",
        plural="statefulsets",
        singular="statefulset",
        short_names=("sts",),
        categories=("all",),
        versions=(
            served("apps", "v1", "StatefulSet"),
            older("apps", "v1beta2", "StatefulSet", since="1.9", until="1.16", replacement="apps/v1", orphans=True),
            older(
                "apps",
                "v1beta1",
                "StatefulSet",
                since="1.8",
                until="1.16",
                replacement="apps/v1",
                to_storage=stateful_set_of_v1beta1,
                orphans=True,
            ),
        ),
        strategy=StatefulSetStrategy(),
        columns=(NAME, Column("Ready", ready_of_desired), AGE, *pod_template_columns("spec", "template")),
        subresources=(STATUS, scale_subresource(GroupResource("apps", "statefulsets"))),
    ),
)
