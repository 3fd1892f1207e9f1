"""Which requests belong together, and how many of them run at a time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from shipwheel.api.meta import Obj, condition
from shipwheel.api.resource import Column, Resource
from shipwheel.kinds.columns import AGE, NAME, NONE, Value, dig, number, text
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.flowcontrol.flowschema import FlowSchemaStrategy
from shipwheel.kinds.flowcontrol.prioritylevel import PriorityLevelStrategy

_GROUP = "flowcontrol.apiserver.k8s.io"


def _missing_level(schema: Obj, now: datetime) -> str:
    dangling = condition(schema, "Dangling")
    return "?" if dangling is None else dangling.get("status", "")


def _number(*path: str) -> Value:
    def value(level: Obj, now: datetime) -> Any:
        found = dig(level, "spec", "limited", *path)
        return NONE if found is None else found

    return value


RESOURCES = (
    Resource(
        kind="FlowSchema",
        plural="flowschemas",
        singular="flowschema",
        namespaced=False,
        versions=(served(_GROUP, "v1", "FlowSchema"),),
        strategy=FlowSchemaStrategy(),
        columns=(
            NAME,
            Column("PriorityLevel", text("spec", "priorityLevelConfiguration", "name")),
            Column("MatchingPrecedence", number("spec", "matchingPrecedence")),
            Column("DistinguisherMethod", text("spec", "distinguisherMethod", "type", absent=NONE)),
            AGE,
            Column("MissingPL", _missing_level),
        ),
        subresources=(STATUS,),
    ),
    Resource(
        kind="PriorityLevelConfiguration",
        plural="prioritylevelconfigurations",
        singular="prioritylevelconfiguration",
        namespaced=False,
        versions=(served(_GROUP, "v1", "PriorityLevelConfiguration"),),
        strategy=PriorityLevelStrategy(),
        columns=(
            NAME,
            Column("Type", text("spec", "type")),
            Column("NominalConcurrencyShares", _number("nominalConcurrencyShares")),
            Column("Queues", _number("limitResponse", "queuing", "queues")),
            Column("HandSize", _number("limitResponse", "queuing", "handSize")),
            Column("QueueLengthLimit", _number("limitResponse", "queuing", "queueLengthLimit")),
            AGE,
        ),
        subresources=(STATUS,),
    ),
)
