"""Leases: who leads, and who is alive."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, forbidden, invalid, not_supported
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_qualified_name
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext
from shipwheel.kinds.checks import NEGATIVE, Errors, check_rule
from shipwheel.kinds.columns import AGE, NAME, text
from shipwheel.kinds.declare import older, served

_STRATEGIES = ("OldestEmulationVersion",)


class LeaseStrategy(Strategy):
    allow_create_on_update = True
    allow_unconditional_update = False
    tracks_generation = False

    def prepare_for_create(self, lease: Obj, ctx: WriteContext) -> None:
        _drop_election(lease, {})

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        _drop_election(new, old)

    def validate(self, lease: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = lease.get("spec") or {}
        seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
        if seconds is not None and seconds <= 0:
            errors.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
        if transitions is not None and transitions < 0:
            errors.append(invalid("spec.leaseTransitions", transitions, NEGATIVE))
        strategy = spec.get("strategy")
        if strategy is not None:
            _check_strategy(strategy, "spec.strategy.strategy", errors)
        if spec.get("preferredHolder") and not strategy:
            detail = "may only be specified if `strategy` is defined"
            errors.append(forbidden("spec.preferredHolder", detail))
        return errors


def _drop_election(lease: Obj, old: Obj) -> None:
    """Choosing a leader among candidates (KEP-4355) is off unless it is in use."""
    spec, before = lease.get("spec") or {}, old.get("spec") or {}
    for field in ("strategy", "preferredHolder"):
        if before.get(field) is None:
            spec.pop(field, None)


def _check_strategy(strategy: str, path: str, errors: Errors) -> None:
    """How a leader is chosen among candidates (KEP-4355): the one way there is, or somebody's own."""
    if "/" in strategy:
        check_rule(is_qualified_name, strategy, path, errors)
    elif strategy not in _STRATEGIES:
        errors.append(not_supported(path, strategy, _STRATEGIES))


RESOURCES = (
    Resource(
        kind="Lease",
        plural="leases",
        singular="lease",
        versions=(
            served("coordination.k8s.io", "v1", "Lease"),
            older(
                "coordination.k8s.io",
                "v1beta1",
                "Lease",
                since="1.19",
                until="1.22",
                replacement="coordination.k8s.io/v1",
            ),
        ),
        strategy=LeaseStrategy(),
        columns=(NAME, Column("Holder", text("spec", "holderIdentity")), AGE),
    ),
)
