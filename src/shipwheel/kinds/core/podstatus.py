"""What a pod's status may become: containers that ended stay ended unless they are restarted."""

from __future__ import annotations

import ipaddress

from shipwheel.api.errors import (
    FieldError,
    FieldErrorType,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
)
from shipwheel.api.meta import Obj
from shipwheel.api.names import (
    is_dns1123_label,
    is_qualified_name,
    is_valid_group_id,
    is_valid_user_id,
    name_is_dns_subdomain,
)
from shipwheel.api.quantity import parse
from shipwheel.kinds.checks import Errors, check_immutable, check_ip, check_rule
from shipwheel.kinds.core.resources import is_native

_STATUSES = {
    "containerStatuses": "containers",
    "initContainerStatuses": "initContainers",
    "ephemeralContainerStatuses": "ephemeralContainers",
}
_OWN_CONDITIONS = ("PodScheduled", "Ready", "Initialized")
_HEALTH = ("Healthy", "Unhealthy", "Unknown")
_MAX_HEALTH_MESSAGE = 1024
_NOT_NEGATIVE = "must be a non-negative integer"


def check_status_update(new: Obj, old: Obj, errors: Errors) -> None:
    status, old_status, spec = new.get("status") or {}, old.get("status") or {}, old["spec"]
    get = status.get
    for index, condition in enumerate(get("conditions") or ()):
        here = f"status.conditions[{index}]"
        if condition.get("observedGeneration", 0) < 0:
            observed = condition["observedGeneration"]
            errors.append(invalid(f"{here}.observedGeneration", observed, _NOT_NEGATIVE))
        if condition.get("type") not in _OWN_CONDITIONS:
            check_rule(is_qualified_name, condition.get("type", ""), f"{here}.Type", errors)
    _check_nomination(get("nominatedNodeName"), old_status.get("nominatedNodeName"), spec, errors)
    if get("observedGeneration", 0) < 0:
        errors.append(invalid("status.observedGeneration", get("observedGeneration"), _NOT_NEGATIVE))
    check_immutable(get("qosClass"), old_status.get("qosClass"), "status.qosClass", errors)
    for field in _STATUSES:
        if field in status or field in old_status:
            _check_containers(status, old_status, spec, field, errors)
    if get("resourceClaimStatuses"):
        _check_claim_statuses(status, spec, errors)
    if get("extendedResourceClaimStatus"):
        _check_extended_claim(status["extendedResourceClaimStatus"], spec, errors)
    if get("nodeAllocatableResourceClaimStatuses"):
        _check_allocatable_claims(status, spec, errors)
    _check_addresses(status, "podIPs", errors)
    if get("hostIPs"):
        first = status["hostIPs"][0].get("ip", "")
        if get("hostIP", "") != first:
            errors.append(invalid("status.hostIPs[0].ip", first, "must be equal to `hostIP`"))
        _check_addresses(status, "hostIPs", errors)


def agree_on_address(status: Obj) -> None:
    """Let `podIP` be the first of `podIPs`; where a client sends others there, the one is what it means."""
    single, several = status.get("podIP"), status.get("podIPs")
    if single and (not several or several[0].get("ip") != single):
        status["podIPs"] = [{"ip": single}]
    elif several and not single:
        status["podIP"] = several[0].get("ip", "")


def _check_nomination(new: str | None, old: str | None, spec: Obj, errors: Errors) -> None:
    if not new or new == old:
        return
    path = "status.nominatedNodeName"
    check_rule(name_is_dns_subdomain, new, path, errors)
    if spec.get("nodeName"):
        errors.append(forbidden(path, "may not be set on pods that are already bound to a node"))


def _check_addresses(status: Obj, field: str, errors: Errors) -> None:
    addresses = [each.get("ip", "") for each in status.get(field) or ()]
    for index, address in enumerate(addresses):
        check_ip(address, f"status.{field}[{index}]", errors)
    if len(addresses) > 1:
        bad = next((index for index, each in enumerate(addresses) if not _is_address(each)), None)
        if bad is not None:
            why = f"failed to check for dual stack with error:invalid IP[{bad}]: {addresses[bad]}"
            errors.append(FieldError(FieldErrorType.INTERNAL, f"status.{field}", why))
        families = {ipaddress.ip_address(each).version for each in addresses if _is_address(each)}
        if len(families) != len(addresses):
            detail = "may specify no more than one IP for each IP family"
            errors.append(invalid(f"status.{field}", status[field], detail))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# Containers


def _check_containers(status: Obj, old_status: Obj, spec: Obj, field: str, errors: Errors) -> None:
    statuses, path = status.get(field) or (), f"status.{field}"
    declared = {each.get("name"): each for each in spec.get(_STATUSES[field]) or ()}
    running = {each.get("name") for each in statuses if (each.get("state") or {}).get("terminated") is None}
    for index, was in enumerate(old_status.get(field) or ()):
        ended = (was.get("state") or {}).get("terminated")
        if ended is None or was.get("name") not in running:
            continue
        if not _may_restart(declared.get(was.get("name")), spec, field, ended.get("exitCode", 0)):
            detail = "may not be transitioned to non-terminated state"
            errors.append(forbidden(f"{path}[{index}].state", detail))
    os_name = (spec.get("os") or {}).get("name", "linux")
    for index, container in enumerate(statuses):
        here = f"{path}[{index}]"
        user = (container.get("user") or {}).get("linux")
        if user is not None:
            _check_user(user, os_name, f"{here}.user.linux", errors)
        resources = container.get("allocatedResourcesStatus")
        if resources:
            if field == "ephemeralContainerStatuses":
                detail = "must not be specified in container status"
                errors.append(forbidden(f"{here}.allocatedResourcesStatus", detail))
            else:
                where = f"{here}.allocatedResourcesStatus"
                _check_allocated(resources, declared.get(container.get("name")), where, errors)


def _may_restart(container: Obj | None, spec: Obj, field: str, exit_code: int) -> bool:
    """Whether a container that ended with this code can run again."""
    if field == "ephemeralContainerStatuses" or container is None:
        return False
    if _can_restart_everything(spec):
        return True
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        listed = exit_code in (codes.get("values") or ())
        if listed == (codes.get("operator") == "In"):
            return rule.get("action") in ("Restart", "RestartAllContainers")
    policy = container.get("restartPolicy") or spec.get("restartPolicy")
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def _can_restart_everything(spec: Obj) -> bool:
    return any(
        rule.get("action") == "RestartAllContainers"
        for field in ("containers", "initContainers")
        for container in spec.get(field) or ()
        for rule in container.get("restartPolicyRules") or ()
    )


def _check_user(user: Obj, os_name: str, path: str, errors: Errors) -> None:
    if os_name == "windows":
        errors.append(forbidden(path, "cannot be set for a windows pod"))
        return
    for complaint in is_valid_user_id(user.get("uid", 0)):
        errors.append(invalid(f"{path}.uid", user["uid"], complaint))
    for complaint in is_valid_group_id(user.get("gid", 0)):
        errors.append(invalid(f"{path}.gid", user["gid"], complaint))
    for index, gid in enumerate(user.get("supplementalGroups") or ()):
        for complaint in is_valid_group_id(gid):
            errors.append(invalid(f"{path}.supplementalGroups[{index}]", gid, complaint))


def _check_allocated(resources: list[Obj], container: Obj | None, path: str, errors: Errors) -> None:
    """Health of the devices that a container holds (KEP-4680)."""
    for index, resource in enumerate(resources):
        name = resource.get("name", "")
        if container is not None:
            _check_allocated_name(name, container.get("resources") or {}, f"{path}[{index}].name", errors)
        seen = set()
        for position, device in enumerate(resource.get("resources") or ()):
            here = f"{path}[{index}].resources[{position}]"
            if device.get("health") not in _HEALTH:
                errors.append(not_supported(f"{here}.health", device.get("health", ""), _HEALTH))
            message = device.get("message")
            if message == "":
                errors.append(required(f"{here}.message", "must be non-empty if specified"))
            elif message is not None and len(message) > _MAX_HEALTH_MESSAGE:
                errors.append(too_long(f"{here}.message", _MAX_HEALTH_MESSAGE))
            if device.get("resourceID") in seen:
                errors.append(duplicate(f"{here}.resourceID", device.get("resourceID")))
            seen.add(device.get("resourceID"))


def _check_allocated_name(name: str, resources: Obj, path: str, errors: Errors) -> None:
    if name.startswith("claim:"):
        uses = {
            f"claim:{claim['name']}" + (f"/{claim['request']}" if claim.get("request") else "")
            for claim in resources.get("claims") or ()
        }
        if name not in uses:
            detail = (
                "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or "
                "'claim:<claimName>' if request is empty"
            )
            errors.append(invalid(path, name, detail))
    elif name not in (resources.get("requests") or {}):
        errors.append(invalid(path, name, "must match one of the container's resource requests"))


# Resource claims


def _check_claim_statuses(status: Obj, spec: Obj, errors: Errors) -> None:
    known = {claim.get("name") for claim in spec.get("resourceClaims") or ()}
    seen = set()
    for index, claim in enumerate(status["resourceClaimStatuses"]):
        here = f"status.resourceClaimStatuses[{index}]"
        name = claim.get("name", "")
        if name not in known:
            detail = "must match the name of an entry in `spec.resourceClaims`"
            errors.append(invalid(f"{here}.name", name, detail))
        if name in seen:
            errors.append(duplicate(f"{here}.name", name))
        seen.add(name)
        if claim.get("resourceClaimName") is not None:
            path = f"{here}.resourceClaimName"
            check_rule(name_is_dns_subdomain, claim["resourceClaimName"], path, errors)


def _check_extended_claim(claim: Obj, spec: Obj, errors: Errors) -> None:
    """The claim that was made for extended resources (KEP-5004)."""
    path = "status.extendedResourceClaimStatus"
    containers = {
        each.get("name"): each for field in ("initContainers", "containers") for each in spec.get(field) or ()
    }
    mappings = claim.get("requestMappings") or ()
    if not mappings:
        errors.append(required(f"{path}.requestMappings", "at least one request mapping is required"))
    seen = set()
    for index, mapping in enumerate(mappings):
        here = f"{path}.requestMappings[{index}]"
        name, resource = mapping.get("containerName", ""), mapping.get("resourceName", "")
        request = mapping.get("requestName", "")
        if name not in containers:
            detail = "must match the name of an entry in spec.initContainers.name or spec.containers.name"
            errors.append(invalid(f"{here}.containerName", name, detail))
        elif resource not in ((containers[name].get("resources") or {}).get("requests") or {}):
            detail = (
                "must match the extended resource name of an entry in spec.initContainers.resources.requests or "
                "spec.containers.resources.requests"
            )
            errors.append(invalid(f"{here}.resourceName", resource, detail))
        check_rule(is_dns1123_label, request, f"{path}.requestName", errors)
        if (name, resource, request) in seen:
            for field in ("containerName", "resourceName", "requestName"):
                errors.append(duplicate(f"{here}.{field}", mapping.get(field, "")))
        seen.add((name, resource, request))
    if not claim.get("resourceClaimName"):
        errors.append(required(f"{path}.resourceClaimName"))
    else:
        where = f"{path}.resourceClaimName"
        check_rule(name_is_dns_subdomain, claim["resourceClaimName"], where, errors)


def _check_allocatable_claims(status: Obj, spec: Obj, errors: Errors) -> None:
    names = {
        claim.get("resourceClaimName")
        for claims in (spec.get("resourceClaims"), status.get("resourceClaimStatuses"))
        for claim in claims or ()
    }
    for index, each in enumerate(status["nodeAllocatableResourceClaimStatuses"]):
        here = f"status.nodeAllocatableResourceClaimStatuses[{index}]"
        name = each.get("resourceClaimName", "")
        if not name:
            errors.append(required(f"{here}.resourceClaimName", "must not be empty"))
        if name not in names:
            errors.append(invalid(f"{here}.resourceClaimName", name, "no mapping found in pod reference"))
        for field in ("containers", "resources"):
            if not each.get(field):
                errors.append(required(f"{here}.{field}", "must not be empty"))
        for resource, amount in (each.get("resources") or {}).items():
            path = f"{here}.resources[{resource}]"
            if not is_native(resource):
                errors.append(invalid(path, resource, "must be a node allocatable resource name"))
            if parse(amount).nanos < 0:
                errors.append(invalid(path, amount, "must be non-negative"))
