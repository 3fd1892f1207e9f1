"""Replica sets: so many pods alike."""

from __future__ import annotations

from shipwheel.api.errors import FieldError
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext, keep
from shipwheel.kinds.apps.older import select_by_template
from shipwheel.kinds.checks import Errors, check_immutable, check_nonnegative
from shipwheel.kinds.columns import AGE, NAME, label_selector, number, pod_template_columns
from shipwheel.kinds.declare import STATUS, older, served
from shipwheel.kinds.scale import scale_subresource
from shipwheel.kinds.workload import (
    check_at_most_replicas,
    check_counts,
    check_lasting_template,
    check_pod_template,
    check_selector,
    check_selector_matches,
    default_pod_template,
    drop_disabled_in_template,
    workload_warnings,
)

_COUNTS = (
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "observedGeneration",
    "terminatingReplicas",
)
_PARTS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")


class ReplicaSetStrategy(Strategy):
    def default(self, replica_set: Obj) -> None:
        spec = replica_set.setdefault("spec", {})
        if spec.get("replicas") is None:
            spec["replicas"] = 1
        default_pod_template(spec.setdefault("template", {}))

    def prepare_for_create(self, replica_set: Obj, ctx: WriteContext) -> None:
        super().prepare_for_create(replica_set, ctx)
        drop_disabled_in_template(replica_set["spec"]["template"])

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        drop_disabled_in_template(new["spec"].get("template"))

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "spec")

    def validate(self, replica_set: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = replica_set["spec"]
        check_nonnegative(spec.get("replicas"), "spec.replicas", errors)
        check_nonnegative(spec.get("minReadySeconds"), "spec.minReadySeconds", errors)
        check_selector(spec, "deployment", errors)
        template = spec.get("template") or {}
        if check_selector_matches(spec.get("selector"), template, "spec", errors, wrong="invalid label selector"):
            check_pod_template(template, "spec.template", errors)
            check_lasting_template(template, "ReplicaSet", "spec.template", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        check_immutable(new["spec"].get("selector"), old["spec"].get("selector"), "spec.selector", errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        status = new.get("status") or {}
        check_counts(status, _COUNTS, errors)
        check_at_most_replicas(status, _PARTS, errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        return workload_warnings(new, old, new["spec"].get("template"), "spec.template")


RESOURCES = (
    Resource(
        kind="ReplicaSet",
        plural="replicasets",
        singular="replicaset",
        short_names=("rs",),
        categories=("all",),
        versions=(
            served("apps", "v1", "ReplicaSet"),
            older("apps", "v1beta2", "ReplicaSet", since="1.9", until="1.16", replacement="apps/v1", orphans=True),
            older(
                "extensions",
                "v1beta1",
                "ReplicaSet",
                since="1.8",
                until="1.16",
                replacement="apps/v1",
                to_storage=select_by_template,
                orphans=True,
            ),
        ),
        strategy=ReplicaSetStrategy(),
        columns=(
            NAME,
            Column("Desired", number("spec", "replicas"), type="integer"),
            Column("Current", number("status", "replicas"), type="integer"),
            Column("Ready", number("status", "readyReplicas"), type="integer"),
            AGE,
            *pod_template_columns("spec", "template", selector=label_selector("spec", "selector")),
        ),
        subresources=(STATUS, scale_subresource(GroupResource("apps", "replicasets"))),
    ),
)
