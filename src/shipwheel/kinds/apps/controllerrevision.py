"""Controller revisions: what a daemon set or a stateful set looked like before."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import GroupVersion, Obj, controller_of
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, NONE
from shipwheel.kinds.declare import served


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
        versions=(served("apps", "v1", "ControllerRevision"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Controller", _controller),
            Column("Revision", lambda revision, now: revision.get("revision", 0)),
            AGE,
        ),
    ),
)
