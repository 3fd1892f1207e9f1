"""Replication controllers: the replica sets of old, with a plain map of labels for a selector."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, invalid, required
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Column, Resource, WriteContext, keep
from shipwheel.kinds.checks import Errors, check_nonnegative
from shipwheel.kinds.columns import AGE, NAME, format_labels, number, pod_template_columns
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.scale import map_selector, scale_subresource
from shipwheel.kinds.strategies import BuiltinStrategy
from shipwheel.kinds.workload import (
    check_at_most_replicas,
    check_counts,
    check_lasting_template,
    check_pod_template,
    default_pod_template,
    drop_disabled_in_template,
    workload_warnings,
)

_PARTS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
_COUNTS = ("replicas", *_PARTS, "observedGeneration")


class ReplicationControllerStrategy(BuiltinStrategy):
    def default(self, controller: Obj) -> None:
        spec = controller.setdefault("spec", {})
        template = spec.get("template")
        if template is None:
            return
        labels = (template.get("metadata") or {}).get("labels")
        if labels:
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            if not controller["metadata"].get("labels"):
                controller["metadata"]["labels"] = dict(labels)
        default_pod_template(template)

    def prepare_for_create(self, controller: Obj, ctx: WriteContext) -> None:
        super().prepare_for_create(controller, ctx)
        drop_disabled_in_template(controller["spec"].get("template"))

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        drop_disabled_in_template(new["spec"].get("template"))

    def validate(self, controller: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = controller["spec"]
        selector, template = spec.get("selector"), spec.get("template")
        check_nonnegative(spec.get("minReadySeconds"), "spec.minReadySeconds", errors)
        if not selector:
            errors.append(required("spec.selector"))
        if spec.get("replicas") is None:
            errors.append(required("spec.replicas"))
        else:
            check_nonnegative(spec["replicas"], "spec.replicas", errors)
        if template is None:
            errors.append(required("spec.template"))
            return errors
        labels = (template.get("metadata") or {}).get("labels")
        if selector and not selector.items() <= (labels or {}).items():
            detail = "`selector` does not match template `labels`"
            errors.append(invalid("spec.template.metadata.labels", labels, detail))
        check_pod_template(template, "spec.template", errors)
        check_lasting_template(template, "ReplicationController", "spec.template", errors)
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
        kind="ReplicationController",
        plural="replicationcontrollers",
        singular="replicationcontroller",
        short_names=("rc",),
        categories=("all",),
        versions=(served("", "v1", "ReplicationController", orphans=True),),
        strategy=ReplicationControllerStrategy(),
        columns=(
            NAME,
            Column("Desired", number("spec", "replicas"), type="integer"),
            Column("Current", number("status", "replicas"), type="integer"),
            Column("Ready", number("status", "readyReplicas"), type="integer"),
            AGE,
            *pod_template_columns(
                "spec", "template", selector=lambda rc, now: format_labels(rc["spec"].get("selector"))
            ),
        ),
        subresources=(STATUS, scale_subresource(GroupResource("", "replicationcontrollers"), map_selector)),
        selectable={"status.replicas": lambda rc: str((rc.get("status") or {}).get("replicas", 0))},
        storage_prefix="controllers",
    ),
)
