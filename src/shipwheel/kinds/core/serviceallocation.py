"""What a service takes of the cluster's means: addresses of its own, ports on every node.

Everything is taken before the service is written and given back if the write fails; what an update no longer
needs is given back after it. The API server rebuilds the record of what is taken from the services themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shipwheel.api.errors import AllocationError, ApiError, FieldError, internal, invalid, invalid_object
from shipwheel.api.meta import Obj
from shipwheel.kinds.core.servicespec import (
    NONE,
    check_cluster_ips,
    family_of,
    has_node_ports,
    is_external_name,
    is_headless,
    needs_health_check,
)

Undo = Callable[[], None]


def addresses_of(spec: Obj) -> list[str]:
    """The cluster IPs that a service holds."""
    if is_external_name(spec):
        return []
    return [address for address in spec.get("clusterIPs") or () if address and address != NONE]


def ports_of(spec: Obj) -> set[int]:
    """The node ports that a service holds, that of its health check included."""
    ports = {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
    if needs_health_check(spec) and spec.get("healthCheckNodePort"):
        ports.add(spec["healthCheckNodePort"])
    return ports


class Allocation:
    """The means taken for one write, to be given back together if it fails."""

    def __init__(self, addresses: Any, ports: Any, name: str) -> None:
        self._addresses = addresses
        self._ports = ports
        self._name = name
        self._taken_addresses: list[str] = []
        self._taken_ports: list[int] = []

    def undo(self) -> None:
        for address in self._taken_addresses:
            self._addresses.release(address)
        for port in self._taken_ports:
            self._ports.release(port)
        self._taken_addresses, self._taken_ports = [], []

    def fill(self, spec: Obj, old: Obj | None) -> None:
        """Take what the service needs and the old one does not have. Raises ApiError when it cannot be had, after
        giving back what was taken already."""
        try:
            self._choose_families(spec, old)
            self._take_addresses(spec, old)
            self._take_ports(spec, old)
        except BaseException:
            self.undo()
            raise

    def _refuse(self, *errors: FieldError) -> ApiError:
        return invalid_object("", "Service", self._name, list(errors))

    # Families

    def _choose_families(self, spec: Obj, old: Obj | None) -> None:
        """Decide on `ipFamilyPolicy` and `ipFamilies`, by what the client said and what the cluster has."""
        if is_external_name(spec) or _is_unchanged_dual_stack(spec, old):
            return
        headless = spec.get("clusterIP") == NONE
        selectorless = headless and not spec.get("selector")
        if spec.get("ipFamilyPolicy") is None:
            kept = (old or {}).get("ipFamilyPolicy")
            spec["ipFamilyPolicy"] = kept or ("RequireDualStack" if selectorless else "SingleStack")
        errors: list[FieldError] = []
        check_cluster_ips(spec, errors)
        if errors:
            raise self._refuse(*errors)
        self._shrink_or_refuse(spec, old, errors)
        self._infer_families(spec, errors)
        if errors:
            raise self._refuse(*errors)
        self._complete_families(spec, selectorless)

    def _shrink_or_refuse(self, spec: Obj, old: Obj | None, errors: list[FieldError]) -> None:
        policy = spec["ipFamilyPolicy"]
        single = policy == "SingleStack"
        path = "spec.ipFamilyPolicy"
        lists = (("clusterIPs", "cluster IP", "cluster IPs"), ("ipFamilies", "IP family", "IP families"))
        for field, word, words in lists:
            new_list, old_list = spec.get(field) or [], (old or {}).get(field) or []
            if single and old is not None and new_list == old_list and len(new_list) > 1:
                spec[field] = new_list = new_list[:1]
            if not single and len(new_list) == 1 and len(old_list) == 2:
                detail = f"must be 'SingleStack' to release the secondary {word}"
                errors.append(invalid(path, policy, detail))
            if single and len(new_list) == 2:
                detail = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {words} are specified"
                errors.append(invalid(path, policy, detail))

    def _infer_families(self, spec: Obj, errors: list[FieldError]) -> None:
        families = list(spec.get("ipFamilies") or ())
        for index, address in enumerate(spec.get("clusterIPs") or ()):
            if address == NONE:
                break
            if index >= len(families):
                family = family_of(address)
                if family not in self._addresses.families:
                    detail = f"{family} is not configured on this cluster"
                    errors.append(invalid(f"spec.clusterIPs[{index}]", spec["clusterIPs"], detail))
                else:
                    families.append(family)
        if families:
            spec["ipFamilies"] = families

    def _complete_families(self, spec: Obj, selectorless: bool) -> None:
        available = self._addresses.families
        policy, families = spec["ipFamilyPolicy"], list(spec.get("ipFamilies") or ())
        if not selectorless:
            errors = []
            if policy == "RequireDualStack" and len(available) < 2:
                detail = "this cluster is not configured for dual-stack services"
                errors.append(invalid("spec.ipFamilyPolicy", policy, detail))
            errors += [
                invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
                for index, family in enumerate(families)
                if family not in available
            ]
            if errors:
                raise self._refuse(*errors)
        families = families or [available[0]]
        if policy != "SingleStack" and len(families) == 1 and (selectorless or len(available) == 2):
            families.append("IPv6" if families[0] == "IPv4" else "IPv4")
        spec["ipFamilies"] = families

    # Addresses

    def _take_addresses(self, spec: Obj, old: Obj | None) -> None:
        if is_external_name(spec) or is_headless(spec) or _is_unchanged_dual_stack(spec, old):
            return
        held = addresses_of(old) if old is not None else []
        addresses = list(spec.get("clusterIPs") or ())
        for index, family in enumerate(spec["ipFamilies"]):
            wanted = addresses[index] if index < len(addresses) else ""
            if wanted and wanted in held:
                continue
            address = self._take_address(wanted or None, family, spec)
            addresses[index : index + 1] = [address]
        spec["clusterIPs"] = addresses
        spec["clusterIP"] = addresses[0]

    def _take_address(self, wanted: str | None, family: str, spec: Obj) -> str:
        try:
            address: str = self._addresses.allocate(wanted, family=family)
        except AllocationError as error:
            shown = spec.get("clusterIPs") or []
            if wanted:
                detail = f"failed to allocate IP {wanted}: {error}"
                raise self._refuse(invalid("spec.clusterIPs", shown, detail)) from None
            if "full" in str(error):
                raise internal(f'failed to allocate a serviceIP for Service "{self._name}": {error}') from None
            raise self._refuse(invalid("spec.clusterIPs", shown, f"failed to allocate IP: {error}")) from None
        self._taken_addresses.append(address)
        return address

    # Ports

    def _take_ports(self, spec: Obj, old: Obj | None) -> None:
        held = ports_of(old) if old is not None else set()
        if has_node_ports(spec):
            self._take_node_ports(spec, held)
        if needs_health_check(spec):
            port = spec.get("healthCheckNodePort")
            if not port or port not in held:
                spec["healthCheckNodePort"] = self._take_health_port(port)

    def _take_node_ports(self, spec: Obj, held: set[int]) -> None:
        """A port number that serves several protocols has one node port for all of them."""
        chooses = spec["type"] == "NodePort" or bool(spec.get("allocateLoadBalancerNodePorts"))
        ports = spec.get("ports") or ()
        wanted_of = {port["port"]: port["nodePort"] for port in ports if port.get("nodePort")}
        chosen: dict[int, int] = {}
        for index, port in enumerate(ports):
            number, wanted = port["port"], port.get("nodePort")
            if not wanted and not chooses:
                continue
            if not wanted:
                wanted = chosen.get(number) or wanted_of.get(number)
            if wanted is None or (wanted not in held and wanted not in self._taken_ports):
                wanted = self._take_node_port(wanted, index)
            port["nodePort"] = chosen[number] = wanted

    def _take_node_port(self, wanted: int | None, index: int) -> int:
        try:
            port: int = self._ports.allocate(wanted)
        except AllocationError as error:
            if wanted is None:
                raise internal(f"failed to allocate a nodePort: {error}") from None
            path = f"spec.ports[{index}].nodePort"
            raise self._refuse(invalid(path, wanted, str(error))) from None
        self._taken_ports.append(port)
        return port

    def _take_health_port(self, wanted: int | None) -> int:
        try:
            port: int = self._ports.allocate(wanted or None)
        except AllocationError as error:
            what = "requested HealthCheck NodePort" if wanted else "a HealthCheck NodePort"
            raise internal(f"failed to allocate {what} {wanted or 0}: {error}") from None
        self._taken_ports.append(port)
        return port


def _is_unchanged_dual_stack(spec: Obj, old: Obj | None) -> bool:
    """A service that prefers two families is not touched because the cluster has changed meanwhile."""
    if old is None or spec.get("ipFamilyPolicy") != "PreferDualStack":
        return False
    return (
        old.get("ipFamilyPolicy") == "PreferDualStack"
        and spec.get("clusterIPs") == old.get("clusterIPs")
        and spec.get("ipFamilies") == old.get("ipFamilies")
    )
