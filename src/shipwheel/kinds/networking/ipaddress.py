"""IP addresses: one for each address a service holds (KEP-1880)."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, required
from shipwheel.api.ip import is_valid_ip
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.names import is_dns1123_subdomain, is_path_segment_name
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors, check_fixed, check_required, check_rule
from shipwheel.kinds.columns import NAME, NONE
from shipwheel.kinds.declare import served


def _name_is_address(name: str, prefix: bool) -> list[str]:
    return is_valid_ip(name)


class IPAddressStrategy(Strategy):
    tracks_generation = False
    name_rule = staticmethod(_name_is_address)

    def validate(self, address: Obj) -> list[FieldError]:
        errors: Errors = []
        parent, path = (address.get("spec") or {}).get("parentRef"), "spec.parentRef"
        if parent is None:
            return [required(path)]
        if parent.get("group"):
            check_rule(is_dns1123_subdomain, parent["group"], f"{path}.group", errors)
        for field in ("resource", "name"):
            check_required(is_path_segment_name, parent.get(field), f"{path}.{field}", errors)
        if parent.get("namespace"):
            check_rule(is_path_segment_name, parent["namespace"], f"{path}.namespace", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        check_fixed(new, old, "spec.parentRef", errors)
        return errors


def _parent(address: Obj, now: datetime) -> str:
    parent = (address.get("spec") or {}).get("parentRef")
    if not parent:
        return NONE
    resource = str(GroupResource(parent.get("group", ""), parent.get("resource", ""))).lower()
    namespace = f"/{parent['namespace']}" if parent.get("namespace") else ""
    return f"{resource}{namespace}/{parent.get('name', '')}"


RESOURCES = (
    Resource(
        kind="IPAddress",
        plural="ipaddresses",
        singular="ipaddress",
        short_names=("ip",),
        namespaced=False,
        versions=(served("networking.k8s.io", "v1", "IPAddress"),),
        strategy=IPAddressStrategy(),
        columns=(NAME, Column("ParentRef", _parent)),
    ),
)
