"""Controller revisions: what a daemon set or a stateful set looked like before."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, required
from shipwheel.api.meta import GroupVersion, Obj, controller_of
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors, check_immutable, check_nonnegative
from shipwheel.kinds.columns import AGE, NAME, NONE
from shipwheel.kinds.declare import older, served


class ControllerRevisionStrategy(Strategy):
    tracks_generation = False

    def validate(self, revision: Obj) -> list[FieldError]:
        errors = self._validate_number(revision)
        data = revision.get("data")
        if data is None:
            errors.append(required("data", "data is mandatory"))
        elif not isinstance(data, dict):
            errors.append(required("data", "data must be a valid JSON object"))
        return errors

    def _validate_number(self, revision: Obj) -> Errors:
        errors: Errors = []
        check_nonnegative(revision.get("revision"), "revision", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self._validate_number(new)
        check_immutable(new.get("data"), old.get("data"), "data", errors)
        return errors


def _controller(revision: Obj, now: datetime) -> str:
    owner = controller_of(revision)
    if owner is None:
        return NONE
    group = GroupVersion.parse(owner["apiVersion"]).group
    kind = f"{owner['kind']}.{group}" if group else owner["kind"]
    return f"{kind.lower()}/{owner['name']}"


RESOURCES = (
    Resource(
        kind="ControllerRevision",
        plural="controllerrevisions",
        singular="controllerrevision",
        versions=(
            served("apps", "v1", "ControllerRevision"),
            older("apps", "v1beta2", "ControllerRevision", since="1.9", until="1.16", replacement="apps/v1"),
            older("apps", "v1beta1", "ControllerRevision", since="1.8", until="1.16", replacement="apps/v1"),
        ),
        strategy=ControllerRevisionStrategy(),
        html_safe=True,
        columns=(
            NAME,
            Column("Controller", _controller),
            Column("Revision", lambda revision, now: revision.get("revision", 0)),
            AGE,
        ),
    ),
)
