"""Deployments: replica sets that follow one another as the pod template changes."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, forbidden, invalid, not_supported, required
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext, keep
from shipwheel.kinds.apps.older import (
    deployment_of_extensions,
    deployment_of_v1beta1,
    deployment_with_rollback,
    rollback_subresource,
)
from shipwheel.kinds.checks import Errors, check_immutable, check_nonnegative
from shipwheel.kinds.columns import AGE, NAME, dig, number, pod_template_columns, selector_text
from shipwheel.kinds.declare import STATUS, older, served
from shipwheel.kinds.scale import scale_subresource
from shipwheel.kinds.workload import (
    check_at_most_all,
    check_at_most_replicas,
    check_collision_count,
    check_counts,
    check_lasting_template,
    check_number_or_percent,
    check_pod_template,
    check_selector,
    check_selector_matches,
    default_pod_template,
    drop_disabled_in_template,
    number_of,
    workload_warnings,
)


class DeploymentStrategy(Strategy):
    annotations_count = True

    def default(self, deployment: Obj) -> None:
        spec = deployment.setdefault("spec", {})
        if spec.get("replicas") is None:
            spec["replicas"] = 1
        strategy = spec.setdefault("strategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.get("rollingUpdate") or {}
            strategy["rollingUpdate"] = rolling
            for field in ("maxUnavailable", "maxSurge"):
                if rolling.get(field) is None:
                    rolling[field] = "25%"
        if spec.get("revisionHistoryLimit") is None:
            spec["revisionHistoryLimit"] = 10
        if spec.get("progressDeadlineSeconds") is None:
            spec["progressDeadlineSeconds"] = 600
        default_pod_template(spec.setdefault("template", {}))

    def prepare_for_create(self, deployment: Obj, ctx: WriteContext) -> None:
        super().prepare_for_create(deployment, ctx)
        drop_disabled_in_template(deployment["spec"]["template"])

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        drop_disabled_in_template(new["spec"].get("template"))

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "spec")
        keep(new["metadata"], old["metadata"], "labels")

    def validate(self, deployment: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = deployment["spec"]
        check_nonnegative(spec.get("replicas"), "spec.replicas", errors)
        check_selector(spec, "deployment", errors)
        template = spec.get("template") or {}
        if check_selector_matches(spec.get("selector"), template, "spec", errors, wrong="invalid label selector"):
            check_pod_template(template, "spec.template", errors)
            check_lasting_template(template, "ReplicaSet", "spec.template", errors)
        _check_strategy(spec.get("strategy") or {}, errors)
        for field in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
            check_nonnegative(spec.get(field), f"spec.{field}", errors)
        deadline = spec.get("progressDeadlineSeconds")
        if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
            detail = "must be greater than minReadySeconds"
            errors.append(invalid("spec.progressDeadlineSeconds", deadline, detail))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        check_immutable(new["spec"].get("selector"), old["spec"].get("selector"), "spec.selector", errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        status = new.get("status") or {}
        check_counts(status, _COUNTS, errors)
        check_at_most_replicas(status, ("updatedReplicas", "readyReplicas", "availableReplicas"), errors)
        check_collision_count(status, old.get("status") or {}, errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        return workload_warnings(new, old, new["spec"].get("template"), "spec.template")


_SUBRESOURCES = frozenset(("status", "scale"))
"""Of the versions that cannot be asked to roll back."""

_COUNTS = (
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "terminatingReplicas",
    "collisionCount",
)


def _check_strategy(strategy: Obj, errors: Errors) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    path = "spec.strategy.rollingUpdate"
    if kind == "Recreate":
        if rolling is not None:
            errors.append(forbidden(path, "may not be specified when strategy `type` is 'Recreate'"))
    elif kind != "RollingUpdate":
        errors.append(not_supported("spec.strategy", strategy, ("Recreate", "RollingUpdate")))
    elif rolling is None:
        errors.append(required(path, "this should be defaulted and never be nil"))
    else:
        unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
        check_number_or_percent(unavailable, f"{path}.maxUnavailable", errors)
        check_number_or_percent(surge, f"{path}.maxSurge", errors)
        if number_of(unavailable) == 0 and number_of(surge) == 0:
            detail = "may not be 0 when `maxSurge` is 0"
            errors.append(invalid(f"{path}.maxUnavailable", unavailable, detail))
        check_at_most_all(unavailable, f"{path}.maxUnavailable", errors)


def ready_of_desired(obj: Obj, now: datetime) -> str:
    """`2/3`: how many pods are ready, and how many shall be."""
    return f"{dig(obj, 'status', 'readyReplicas') or 0}/{obj['spec'].get('replicas') or 0}"


RESOURCES = (
    Resource(
        kind="Deployment",
        plural="deployments",
        singular="deployment",
        short_names=("deploy",),
        categories=("all",),
        versions=(
            served("apps", "v1", "Deployment", subresources=_SUBRESOURCES),
            older(
                "apps",
                "v1beta2",
                "Deployment",
                since="1.9",
                until="1.16",
                replacement="apps/v1",
                subresources=_SUBRESOURCES,
            ),
            older(
                "apps",
                "v1beta1",
                "Deployment",
                since="1.8",
                until="1.16",
                replacement="apps/v1",
                to_storage=deployment_of_v1beta1,
                from_storage=deployment_with_rollback,
                orphans=True,
            ),
            older(
                "extensions",
                "v1beta1",
                "Deployment",
                since="1.8",
                until="1.16",
                replacement="apps/v1",
                to_storage=deployment_of_extensions,
                from_storage=deployment_with_rollback,
                orphans=True,
            ),
        ),
        strategy=DeploymentStrategy(),
        columns=(
            NAME,
            Column("Ready", ready_of_desired),
            Column("Up-to-date", number("status", "updatedReplicas")),
            Column("Available", number("status", "availableReplicas")),
            AGE,
            *pod_template_columns(
                "spec", "template", selector=lambda obj, now: selector_text(obj["spec"].get("selector"))
            ),
        ),
        subresources=(STATUS, scale_subresource(GroupResource("apps", "deployments")), rollback_subresource()),
    ),
)
