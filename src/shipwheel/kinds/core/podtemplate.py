"""Pod templates: a pod to be, kept for whoever makes it."""

from __future__ import annotations

from shipwheel.api.errors import FieldError
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import NAME, dig, format_labels, pod_template_columns
from shipwheel.kinds.declare import served
from shipwheel.kinds.workload import (
    check_pod_template,
    default_pod_template,
    drop_disabled_in_template,
    workload_warnings,
)


class PodTemplateStrategy(Strategy):
    returns_deleted = True

    def default(self, obj: Obj) -> None:
        default_pod_template(obj.setdefault("template", {}))

    def prepare_for_create(self, obj: Obj, ctx: WriteContext) -> None:
        drop_disabled_in_template(obj.get("template"))

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        drop_disabled_in_template(new.get("template"))

    def validate(self, obj: Obj) -> list[FieldError]:
        errors: Errors = []
        check_pod_template(obj.get("template") or {}, "template", errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        return workload_warnings(new, old, new.get("template"), "template", check_name=False)


RESOURCES = (
    Resource(
        kind="PodTemplate",
        plural="podtemplates",
        singular="podtemplate",
        versions=(served("", "v1", "PodTemplate"),),
        strategy=PodTemplateStrategy(),
        columns=(
            NAME,
            *pod_template_columns("template", priority=0),
            Column("Pod Labels", lambda obj, now: format_labels(dig(obj, "template", "metadata", "labels"))),
        ),
    ),
)
