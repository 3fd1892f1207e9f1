"""Priority levels: how many requests run at a time, and what becomes of the others (KEP-1040)."""

from __future__ import annotations

import math

from shipwheel.api.errors import FieldError, forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj, annotations_of
from shipwheel.api.resource import Strategy
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.flowcontrol.conditions import check_conditions
from shipwheel.kinds.flowcontrol.mandatory import PRIORITY_LEVELS

_PRESERVE_ZERO = "flowcontrol.k8s.io/preserve-zero-concurrency-shares"
_MAX_QUEUES = 10_000_000
_MAX_HASH_BITS = 60
_SHARES = 30
_QUEUING = {"handSize": 8, "queues": 64, "queueLengthLimit": 50}


class PriorityLevelStrategy(Strategy):
    def default(self, level: Obj) -> None:
        spec = level.setdefault("spec", {})
        for field, shares in (("exempt", 0), ("limited", _SHARES)):
            part = spec.get(field)
            if part is None:
                continue
            if part.get("nominalConcurrencyShares") is None:
                part["nominalConcurrencyShares"] = shares
            if part.get("lendablePercent") is None:
                part["lendablePercent"] = 0
        queuing = ((spec.get("limited") or {}).get("limitResponse") or {}).get("queuing")
        if queuing is not None:
            for field, value in _QUEUING.items():
                if not queuing.get(field):
                    queuing[field] = value

    def validate(self, level: Obj) -> list[FieldError]:
        errors: Errors = []
        name, spec = level["metadata"].get("name", ""), level["spec"]
        if _PRESERVE_ZERO in annotations_of(level):
            errors.append(forbidden("metadata.annotations", f"annotation '{_PRESERVE_ZERO}' is forbidden"))
        _check_spec(name, spec, errors)
        _check_mandatory(name, spec, errors)
        check_conditions(level, errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_conditions(new, errors)
        return errors


def _check_mandatory(name: str, spec: Obj, errors: Errors) -> None:
    wanted = PRIORITY_LEVELS.get(name)
    if wanted is None:
        return
    if name == "exempt":
        if {**spec, "exempt": None} != {**wanted, "exempt": None}:
            detail = f"spec of '{name}' except the 'spec.exempt' field must equal the fixed value"
            errors.append(invalid("spec", spec, detail))
    elif spec != wanted:
        errors.append(invalid("spec", spec, f"spec of '{name}' must equal the fixed value"))


def _check_spec(name: str, spec: Obj, errors: Errors) -> None:
    kind, exempt, limited = spec.get("type", ""), spec.get("exempt"), spec.get("limited")
    if (name == "exempt") != (kind == "Exempt"):
        errors.append(invalid("spec.type", kind, "must be 'Exempt' if and only if `name` is 'exempt'"))
    if kind == "Exempt":
        if limited is not None:
            errors.append(forbidden("spec.limited", "must be nil if the type is not Limited"))
        if exempt is not None:
            _check_shares(exempt, "spec.exempt", errors)
    elif kind == "Limited":
        if exempt is not None:
            errors.append(forbidden("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            errors.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            _check_limited(limited, "spec.limited", errors)
    else:
        errors.append(not_supported("spec.type", kind, ("Exempt", "Limited")))


def _check_shares(part: Obj, path: str, errors: Errors) -> None:
    shares = part.get("nominalConcurrencyShares")
    if shares is not None and shares < 0:
        errors.append(invalid(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer"))
    _check_lendable(part, path, errors)


def _check_lendable(part: Obj, path: str, errors: Errors) -> None:
    lendable = part.get("lendablePercent")
    if lendable is not None and not 0 <= lendable <= 100:
        errors.append(invalid(f"{path}.lendablePercent", lendable, "must be between 0 and 100, inclusive"))


def _check_limited(limited: Obj, path: str, errors: Errors) -> None:
    shares, borrowing = limited.get("nominalConcurrencyShares") or 0, limited.get("borrowingLimitPercent")
    if shares < 0:
        errors.append(invalid(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer"))
    _check_response(limited.get("limitResponse") or {}, f"{path}.limitResponse", errors)
    _check_lendable(limited, path, errors)
    if borrowing is not None and borrowing < 0:
        detail = "if specified, must be a non-negative integer"
        errors.append(invalid(f"{path}.borrowingLimitPercent", borrowing, detail))


def _check_response(response: Obj, path: str, errors: Errors) -> None:
    kind, queuing = response.get("type", ""), response.get("queuing")
    if kind == "Reject":
        if queuing is not None:
            detail = "must be nil if limited.limitResponse.type is not Limited"
            errors.append(forbidden(f"{path}.queuing", detail))
    elif kind == "Queue":
        if queuing is None:
            detail = "must not be empty if limited.limitResponse.type is Limited"
            errors.append(required(f"{path}.queuing", detail))
        else:
            _check_queuing(queuing, f"{path}.queuing", errors)
    else:
        errors.append(not_supported(f"{path}.type", kind, ("Queue", "Reject")))


def _check_queuing(queuing: Obj, path: str, errors: Errors) -> None:
    length, queues, hand = (queuing.get(field, 0) for field in ("queueLengthLimit", "queues", "handSize"))
    if length <= 0:
        errors.append(invalid(f"{path}.queueLengthLimit", length, "must be positive"))
    if queues <= 0:
        errors.append(invalid(f"{path}.queues", queues, "must be positive"))
    elif queues > _MAX_QUEUES:
        errors.append(invalid(f"{path}.queues", queues, f"must not be greater than {_MAX_QUEUES}"))
    if hand <= 0:
        errors.append(invalid(f"{path}.handSize", hand, "must be positive"))
    elif hand > queues:
        errors.append(invalid(f"{path}.handSize", hand, f"should not be greater than queues ({queues})"))
    elif math.ceil(math.log2(queues) * hand) > _MAX_HASH_BITS:
        detail = (
            f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than "
            f"{_MAX_HASH_BITS}"
        )
        errors.append(invalid(f"{path}.handSize", hand, detail))
