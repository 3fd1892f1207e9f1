"""Service CIDRs: the ranges that service addresses come from (KEP-1880)."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, invalid, required
from shipwheel.api.ip import is_valid_cidr, parse_cidr
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import IMMUTABLE, Errors, check_rule
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.declare import STATUS, served

_PATH = "spec.cidrs"


class ServiceCIDRStrategy(Strategy):
    tracks_generation = False

    def validate(self, service_cidr: Obj) -> list[FieldError]:
        errors: Errors = []
        ranges = _ranges(service_cidr)
        if not ranges:
            errors.append(required(_PATH, "at least one CIDR required"))
        if len(ranges) > 2:
            errors.append(invalid(_PATH, service_cidr["spec"], "may only hold up to 2 values"))
        for index, text in enumerate(ranges):
            check_rule(is_valid_cidr, text, f"{_PATH}[{index}]", errors)
        families = [parsed[0].version for text in ranges if (parsed := parse_cidr(text)) is not None]
        if len(ranges) == 2 and len(families) == 2 and families[0] == families[1]:
            detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            errors.append(invalid(_PATH, ranges, detail))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        """A range of the other family may be added, and that is all."""
        ranges, before = _ranges(new), _ranges(old)
        errors: Errors = []
        grows = len(before) == 1 and len(ranges) == 2
        if len(ranges) != len(before) and not grows:
            return [invalid(_PATH, ranges, IMMUTABLE)]
        for index, (text, was) in enumerate(zip(ranges, before, strict=False)):
            if text != was:
                errors.append(invalid(f"{_PATH}[{index}]", text, IMMUTABLE))
        return errors + self.validate(new) if grows else errors


def _ranges(service_cidr: Obj) -> list[str]:
    return (service_cidr.get("spec") or {}).get("cidrs") or []


RESOURCES = (
    Resource(
        kind="ServiceCIDR",
        plural="servicecidrs",
        singular="servicecidr",
        namespaced=False,
        versions=(served("networking.k8s.io", "v1", "ServiceCIDR"),),
        strategy=ServiceCIDRStrategy(),
        columns=(
            NAME,
            Column("CIDRs", lambda obj, now: ",".join((obj.get("spec") or {}).get("cidrs") or ())),
            AGE,
        ),
        subresources=(STATUS,),
    ),
)
