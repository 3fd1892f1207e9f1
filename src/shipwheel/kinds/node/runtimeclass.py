"""Runtime classes: ways a node can run a container."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, duplicate
from shipwheel.api.meta import Obj
from shipwheel.api.names import name_is_dns_label
from shipwheel.api.objectmeta import validate_labels
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors, check_fixed, check_required
from shipwheel.kinds.columns import AGE, NAME, text
from shipwheel.kinds.core.affinity import check_tolerations
from shipwheel.kinds.core.nodelabels import DEPRECATED
from shipwheel.kinds.core.resources import check_resource_requirements, default_resource_list
from shipwheel.kinds.declare import served


class RuntimeClassStrategy(Strategy):
    allow_create_on_update = True
    allow_unconditional_update = False
    tracks_generation = False

    def default(self, runtime_class: Obj) -> None:
        default_resource_list((runtime_class.get("overhead") or {}).get("podFixed"))

    def validate(self, runtime_class: Obj) -> list[FieldError]:
        errors: Errors = []
        check_required(name_is_dns_label, runtime_class.get("handler"), "handler", errors)
        overhead, scheduling = runtime_class.get("overhead"), runtime_class.get("scheduling")
        if overhead is not None:
            check_resource_requirements({"limits": overhead.get("podFixed")}, "overhead", errors)
        if scheduling is not None:
            if scheduling.get("nodeSelector"):
                errors += validate_labels(scheduling["nodeSelector"], "scheduling.nodeSelector")
            _check_tolerations(scheduling.get("tolerations") or [], "scheduling.tolerations", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        check_fixed(new, old, "handler", errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        selector = (new.get("scheduling") or {}).get("nodeSelector") or {}
        return [f"scheduling.nodeSelector: {label} is {DEPRECATED[label]}" for label in selector if label in DEPRECATED]


def _check_tolerations(tolerations: list[Obj], path: str, errors: Errors) -> None:
    check_tolerations(tolerations, path, errors)
    seen: set[tuple[str, ...]] = set()
    for index, toleration in enumerate(tolerations):
        key = tuple(toleration.get(field, "") for field in ("key", "operator", "value", "effect"))
        if key in seen:
            errors.append(duplicate(f"{path}[{index}]", toleration))
        seen.add(key)


RESOURCES = (
    Resource(
        kind="RuntimeClass",
        plural="runtimeclasses",
        singular="runtimeclass",
        namespaced=False,
        versions=(served("node.k8s.io", "v1", "RuntimeClass"),),
        strategy=RuntimeClassStrategy(),
        columns=(NAME, Column("Handler", text("handler")), AGE),
    ),
)
