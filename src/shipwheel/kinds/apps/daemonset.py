"""Daemon sets: a pod on each node."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.objectmeta import validate_label_selector
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext, keep
from shipwheel.kinds.apps.older import TEMPLATE_GENERATION, daemon_set_of_extensions, daemon_set_to_extensions
from shipwheel.kinds.checks import Errors, check_immutable, check_nonnegative
from shipwheel.kinds.columns import (
    AGE,
    NAME,
    dig,
    format_labels,
    label_selector,
    number,
    pod_template_columns,
)
from shipwheel.kinds.declare import STATUS, older, served
from shipwheel.kinds.workload import (
    check_at_most_all,
    check_collision_count,
    check_counts,
    check_lasting_template,
    check_number_or_percent,
    check_pod_template,
    check_selector_matches,
    default_pod_template,
    drop_disabled_in_template,
    is_empty,
    number_of,
    workload_warnings,
)

_COUNTS = (
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
)


class DaemonSetStrategy(Strategy):
    def default(self, daemon_set: Obj) -> None:
        spec = daemon_set.setdefault("spec", {})
        strategy = spec.setdefault("updateStrategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.get("rollingUpdate") or {}
            strategy["rollingUpdate"] = rolling
            if rolling.get("maxUnavailable") is None:
                rolling["maxUnavailable"] = 1
            if rolling.get("maxSurge") is None:
                rolling["maxSurge"] = 0
        if spec.get("revisionHistoryLimit") is None:
            spec["revisionHistoryLimit"] = 10
        default_pod_template(spec.setdefault("template", {}))

    def prepare_for_create(self, daemon_set: Obj, ctx: WriteContext) -> None:
        super().prepare_for_create(daemon_set, ctx)
        drop_disabled_in_template(daemon_set["spec"]["template"])
        _set_template_generation(daemon_set, max(1, template_generation(daemon_set)))

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        drop_disabled_in_template(new["spec"].get("template"))
        changed = new["spec"].get("template") != old["spec"].get("template")
        _set_template_generation(new, template_generation(old) + changed)

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "spec")

    def validate(self, daemon_set: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = daemon_set["spec"]
        selector, template = spec.get("selector"), spec.get("template") or {}
        errors += validate_label_selector(selector, "spec.selector")
        check_selector_matches(selector, template, "spec", errors)
        if selector is not None and is_empty(selector):
            errors.append(invalid("spec.selector", selector, "empty selector is invalid for daemonset"))
        check_pod_template(template, "spec.template", errors)
        check_lasting_template(template, "DaemonSet", "spec.template", errors)
        check_nonnegative(spec.get("minReadySeconds"), "spec.minReadySeconds", errors)
        _check_strategy(spec.get("updateStrategy") or {}, errors)
        check_nonnegative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_immutable(new["spec"].get("selector"), old["spec"].get("selector"), "spec.selector", errors)
        return errors + self.validate(new)

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_counts(new.get("status") or {}, _COUNTS, errors)
        check_collision_count(new.get("status") or {}, old.get("status") or {}, errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        return workload_warnings(new, old, new["spec"].get("template"), "spec.template", check_name=False)


def template_generation(daemon_set: Obj) -> int:
    text = (daemon_set["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _set_template_generation(daemon_set: Obj, generation: int) -> None:
    metadata = daemon_set["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), TEMPLATE_GENERATION: str(generation)}


def _check_strategy(strategy: Obj, errors: Errors) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    path = "spec.updateStrategy.rollingUpdate"
    if kind == "OnDelete":
        return
    if kind != "RollingUpdate":
        errors.append(not_supported("spec.updateStrategy", strategy, ("RollingUpdate", "OnDelete")))
        return
    if rolling is None:
        errors.append(required(path))
        return
    for field in ("maxUnavailable", "maxSurge"):
        check_number_or_percent(rolling.get(field, 0), f"{path}.{field}", errors)
    for field in ("maxUnavailable", "maxSurge"):
        check_at_most_all(rolling.get(field, 0), f"{path}.{field}", errors)
    unavailable, surge = number_of(rolling.get("maxUnavailable", 0)), number_of(rolling.get("maxSurge", 0))
    if unavailable and surge:
        detail = "may not be set when maxUnavailable is non-zero"
        errors.append(invalid(f"{path}.maxSurge", rolling["maxSurge"], detail))
    elif not unavailable and not surge:
        errors.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))


RESOURCES = (
    Resource(
        kind="DaemonSet",
        plural="daemonsets",
        singular="daemonset",
        short_names=("ds",),
        categories=("all",),
        versions=(
            served("apps", "v1", "DaemonSet"),
            older("apps", "v1beta2", "DaemonSet", since="1.9", until="1.16", replacement="apps/v1", orphans=True),
            older(
                "extensions",
                "v1beta1",
                "DaemonSet",
                since="1.8",
                until="1.16",
                replacement="apps/v1",
                to_storage=daemon_set_of_extensions,
                from_storage=daemon_set_to_extensions,
                orphans=True,
            ),
        ),
        strategy=DaemonSetStrategy(),
        columns=(
            NAME,
            Column("Desired", number("status", "desiredNumberScheduled"), type="integer"),
            Column("Current", number("status", "currentNumberScheduled"), type="integer"),
            Column("Ready", number("status", "numberReady"), type="integer"),
            Column("Up-to-date", number("status", "updatedNumberScheduled"), type="integer"),
            Column("Available", number("status", "numberAvailable"), type="integer"),
            Column(
                "Node Selector",
                lambda obj, now: format_labels(dig(obj, "spec", "template", "spec", "nodeSelector")),
            ),
            AGE,
            *pod_template_columns("spec", "template", selector=label_selector("spec", "selector")),
        ),
        subresources=(STATUS,),
    ),
)
