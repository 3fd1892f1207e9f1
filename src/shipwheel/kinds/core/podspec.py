"""The spec of a pod, as pods have it and as templates have it: defaults and validation.

Templates and pods differ a little: what only makes sense for a pod that runs (`is_pod`) is not asked of templates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from shipwheel.api.errors import duplicate, forbidden, invalid, not_supported, required, too_long
from shipwheel.api.memo import remembered
from shipwheel.api.meta import Obj
from shipwheel.api.names import (
    is_dns1123_subdomain_with_underscore,
    is_qualified_name,
    name_is_dns_subdomain,
)
from shipwheel.api.objectmeta import validate_labels
from shipwheel.kinds.checks import (
    MAX_INT32,
    Errors,
    check_enum,
    check_ip,
    check_label,
    check_range,
    check_rule,
    check_subdomain,
)
from shipwheel.kinds.core.affinity import check_affinity, check_tolerations, check_topology_spread
from shipwheel.kinds.core.containers import (
    PodFacts,
    check_containers,
    check_ephemeral_containers,
    check_init_containers,
    default_container,
)
from shipwheel.kinds.core.env import check_file_key_volumes
from shipwheel.kinds.core.podresources import check_pod_resources
from shipwheel.kinds.core.resources import check_resource_requirements, default_resource_list
from shipwheel.kinds.core.security import (
    check_host_process,
    check_operating_system,
    check_pod_security_context,
)
from shipwheel.kinds.core.volumes import check_volumes, default_volumes

CONTAINER_FIELDS = ("initContainers", "containers", "ephemeralContainers")
_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MAX_NAMESERVERS = 3
_MAX_SEARCHES = 32
_MAX_SEARCH_CHARACTERS = 2048
_MAX_HOSTNAME = 64


def containers_with_paths(spec: Obj, path: str) -> list[tuple[str, Obj]]:
    """All containers: init, regular, ephemeral; with where they stand."""
    return [
        (f"{path}.{field}[{index}]", container)
        for field in CONTAINER_FIELDS
        for index, container in enumerate(spec.get(field) or ())
    ]


def all_containers(spec: Obj) -> Iterator[Obj]:
    for field in CONTAINER_FIELDS:
        yield from spec.get(field) or ()


# Defaults


def default_pod_spec(spec: Obj) -> None:
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if not spec.get("restartPolicy"):
        spec["restartPolicy"] = "Always"
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    if not spec.get("schedulerName"):
        spec["schedulerName"] = "default-scheduler"
    _keep_service_account_names_equal(spec)
    if spec.get("volumes"):
        default_volumes(spec["volumes"])
    for field in CONTAINER_FIELDS:
        for container in spec.get(field) or ():
            default_container(container)
    if spec.get("overhead"):
        default_resource_list(spec["overhead"])
    if spec.get("resources"):
        default_resource_list(spec["resources"].get("limits"))
        default_resource_list(spec["resources"].get("requests"))


def _keep_service_account_names_equal(spec: Obj) -> None:
    """`serviceAccount` is the old name of `serviceAccountName`; both are written."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def drop_disabled(spec: Obj) -> None:
    """Take out the fields of features that are off by default in this release (alpha ones and some betas)."""
    spec.pop("schedulingGroup", None)  # GenericWorkload
    for volume in spec.get("volumes") or ():
        projected = volume.get("projected")
        for source in (projected or {}).get("sources") or ():
            source.pop("clusterTrustBundle", None)  # ClusterTrustBundleProjection
            source.pop("podCertificate", None)  # PodCertificateRequest
    for field in CONTAINER_FIELDS:
        for container in spec.get(field) or ():
            if container.get("lifecycle"):
                container["lifecycle"].pop("stopSignal", None)  # ContainerStopSignals


# Validation


def check_pod_spec(
    spec: Obj, path: str, errors: Errors, *, pod_name: str = "", is_pod: bool = False, is_mirror: bool = False
) -> None:
    """`pod_name`: of the pod, where its claims will be named after it. `is_mirror`: it shows a static pod."""
    claims_named = any("ephemeral" in volume for volume in spec.get("volumes") or ())
    errors += _pod_spec_errors(spec, path, pod_name if claims_named else "", is_pod, is_mirror)


@remembered
def _pod_spec_errors(spec: Obj, path: str, pod_name: str, is_pod: bool, is_mirror: bool) -> Errors:
    errors: Errors = []
    get = spec.get
    grace_period = get("terminationGracePeriodSeconds")
    if grace_period is None:
        errors.append(required(f"{path}.terminationGracePeriodSeconds"))
    volumes = get("volumes")
    good_volumes = (
        check_volumes(volumes, f"{path}.volumes", errors, pod_name=pod_name, is_pod=is_pod) if volumes else {}
    )
    claims = get("resourceClaims") or ()
    if claims:
        _check_resource_claims(claims, f"{path}.resourceClaims", errors, is_mirror)
    os = get("os")
    restart_policy = get("restartPolicy", "")
    facts = PodFacts(
        volumes=good_volumes,
        claims=[claim["name"] for claim in claims if claim.get("name")],
        grace_period=grace_period,
        restart_policy=restart_policy,
        os_name=None if os is None else os.get("name", ""),
        host_users=get("hostUsers") is not False,
    )
    containers = get("containers") or []
    check_containers(containers, facts, f"{path}.containers", errors)
    if init_containers := get("initContainers"):
        check_init_containers(init_containers, containers, facts, f"{path}.initContainers", errors)
    if get("ephemeralContainers"):
        check_ephemeral_containers(spec, facts, f"{path}.ephemeralContainers", errors)
    if get("hostNetwork"):
        _check_host_network_ports(containers, f"{path}.containers", errors, is_pod)
    check_enum(restart_policy, _RESTART_POLICIES, f"{path}.restartPolicy", errors)
    check_enum(get("dnsPolicy"), _DNS_POLICIES, f"{path}.dnsPolicy", errors)
    for field, check in _FIELDS.items():
        if field in spec and spec[field] not in _ABSENT:
            check(spec, f"{path}.{field}", errors)
    if volumes or os or "hostUsers" in spec or get("hostNetwork"):
        _check_across_containers(spec, path, errors)
    return errors


_ABSENT: tuple[Any, ...] = (None, "", [], {})


def _security_context(spec: Obj, path: str, errors: Errors) -> None:
    check_pod_security_context(spec, spec["securityContext"], path, errors)


def _node_selector(spec: Obj, path: str, errors: Errors) -> None:
    errors += validate_labels(spec["nodeSelector"], path)


def _affinity(spec: Obj, path: str, errors: Errors) -> None:
    check_affinity(spec["affinity"], path, errors)


def _dns_config(spec: Obj, path: str, errors: Errors) -> None:
    config = spec.get("dnsConfig") or {}
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if spec.get("dnsPolicy") == "None" and not servers:
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        errors.append(required(f"{path}.nameservers", detail))
        return
    if len(servers) > _MAX_NAMESERVERS:
        detail = f"must not have more than {_MAX_NAMESERVERS} nameservers"
        errors.append(invalid(f"{path}.nameservers", servers, detail))
    for index, server in enumerate(servers):
        check_ip(server, f"{path}.nameservers[{index}]", errors)
    if len(searches) > _MAX_SEARCHES:
        detail = f"must not have more than {_MAX_SEARCHES} search paths"
        errors.append(invalid(f"{path}.searches", searches, detail))
    if len(" ".join(searches)) > _MAX_SEARCH_CHARACTERS:
        detail = f"must not have more than {_MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        errors.append(invalid(f"{path}.searches", searches, detail))
    for index, search in enumerate(searches):
        if search != ".":
            check_rule(
                is_dns1123_subdomain_with_underscore,
                search.removesuffix("."),
                f"{path}.searches[{index}]",
                errors,
            )
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errors.append(required(f"{path}.options[{index}]", "must not be empty"))


def _dns_policy(spec: Obj, path: str, errors: Errors) -> None:
    if spec["dnsPolicy"] != "None":
        return
    here = f"{path.removesuffix('dnsPolicy')}dnsConfig"
    if spec.get("dnsConfig") is None:
        errors.append(required(here, "must provide `dnsConfig` when `dnsPolicy` is None"))
    elif not spec["dnsConfig"]:
        _dns_config(spec, here, errors)


def _readiness_gates(spec: Obj, path: str, errors: Errors) -> None:
    for index, gate in enumerate(spec["readinessGates"]):
        check_rule(is_qualified_name, gate.get("conditionType", ""), f"{path}[{index}].conditionType", errors)


def _scheduling_gates(spec: Obj, path: str, errors: Errors) -> None:
    seen = set()
    for index, gate in enumerate(spec["schedulingGates"]):
        name = gate.get("name", "")
        check_rule(is_qualified_name, name, f"{path}[{index}]", errors)
        if name in seen:
            errors.append(duplicate(f"{path}[{index}]", name))
        seen.add(name)


def _service_account(spec: Obj, path: str, errors: Errors) -> None:
    check_subdomain(spec["serviceAccountName"], path, errors)


def _node_name(spec: Obj, path: str, errors: Errors) -> None:
    check_rule(name_is_dns_subdomain, spec["nodeName"], path, errors)


def _tolerations(spec: Obj, path: str, errors: Errors) -> None:
    check_tolerations(spec["tolerations"], path, errors)


def _topology_spread(spec: Obj, path: str, errors: Errors) -> None:
    check_topology_spread(spec["topologySpreadConstraints"], path, errors)


def _hostname_override(spec: Obj, path: str, errors: Errors) -> None:
    name = spec["hostnameOverride"]
    if spec.get("setHostnameAsFQDN"):
        errors.append(forbidden(path, "may not be specified when setHostnameAsFQDN is true"))
    if spec.get("hostNetwork"):
        errors.append(forbidden(path, "may not be specified when hostNetwork is true"))
    if len(name) > _MAX_HOSTNAME:
        errors.append(too_long(path, _MAX_HOSTNAME))
    check_subdomain(name, path, errors)


def _active_deadline(spec: Obj, path: str, errors: Errors) -> None:
    check_range(spec["activeDeadlineSeconds"], 1, MAX_INT32, path, errors)


def _hostname(spec: Obj, path: str, errors: Errors) -> None:
    check_label(spec["hostname"], path, errors)


def _subdomain(spec: Obj, path: str, errors: Errors) -> None:
    check_label(spec["subdomain"], path, errors)


def _host_aliases(spec: Obj, path: str, errors: Errors) -> None:
    for index, alias in enumerate(spec["hostAliases"]):
        check_ip(alias.get("ip", ""), f"{path}[{index}].ip", errors)
        for position, name in enumerate(alias.get("hostnames") or ()):
            check_subdomain(name, f"{path}[{index}].hostnames[{position}]", errors)


def _priority_class(spec: Obj, path: str, errors: Errors) -> None:
    check_rule(name_is_dns_subdomain, spec["priorityClassName"], path, errors)


def _runtime_class(spec: Obj, path: str, errors: Errors) -> None:
    check_rule(name_is_dns_subdomain, spec["runtimeClassName"], path, errors)


def _preemption_policy(spec: Obj, path: str, errors: Errors) -> None:
    check_preemption_policy(spec["preemptionPolicy"], path, errors)


def check_preemption_policy(policy: str, path: str, errors: Errors) -> None:
    supported = ("PreemptLowerPriority", "Never")
    if not policy:
        errors.append(required(path))
    elif policy not in supported:
        errors.append(not_supported(path, policy, supported))


def _overhead(spec: Obj, path: str, errors: Errors) -> None:
    check_resource_requirements({"limits": spec["overhead"]}, path, errors)


def _resources(spec: Obj, path: str, errors: Errors) -> None:
    check_pod_resources(spec, path, errors)


# In the order in which upstream looks at them.
_FIELDS: dict[str, Callable[[Obj, str, Errors], None]] = {
    "resources": _resources,
    "nodeSelector": _node_selector,
    "securityContext": _security_context,
    "affinity": _affinity,
    "dnsPolicy": _dns_policy,
    "dnsConfig": _dns_config,
    "readinessGates": _readiness_gates,
    "schedulingGates": _scheduling_gates,
    "topologySpreadConstraints": _topology_spread,
    "hostnameOverride": _hostname_override,
    "serviceAccountName": _service_account,
    "nodeName": _node_name,
    "activeDeadlineSeconds": _active_deadline,
    "hostname": _hostname,
    "subdomain": _subdomain,
    "tolerations": _tolerations,
    "hostAliases": _host_aliases,
    "priorityClassName": _priority_class,
    "runtimeClassName": _runtime_class,
    "preemptionPolicy": _preemption_policy,
    "overhead": _overhead,
}


def _check_resource_claims(claims: list[Obj], path: str, errors: Errors, is_mirror: bool) -> None:
    if is_mirror:
        errors.append(forbidden("", "static pods do not support resource claims"))
        return
    names = set()
    for index, claim in enumerate(claims):
        here = f"{path}[{index}]"
        name = claim.get("name", "")
        if not name:
            errors.append(required(f"{here}.name"))
        elif name in names:
            errors.append(duplicate(f"{here}.name", name))
        else:
            check_label(name, f"{here}.name", errors)
            names.add(name)
        given = [each for each in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(each) is not None]
        if len(given) == 2:
            detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errors.append(invalid(here, claim, detail))
        if not given:
            detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            errors.append(invalid(here, claim, detail))
        for each in given:
            check_rule(name_is_dns_subdomain, claim[each], f"{here}.{each}", errors)


def _check_host_network_ports(containers: list[Obj], path: str, errors: Errors, is_pod: bool) -> None:
    for index, container in enumerate(containers):
        for position, port in enumerate(container.get("ports") or ()):
            host_port = port.get("hostPort", 0)
            if (is_pod or host_port) and host_port != port.get("containerPort"):
                detail = "must match `containerPort` when `hostNetwork` is true"
                errors.append(invalid(f"{path}[{index}].ports[{position}].hostPort", host_port, detail))


def _check_across_containers(spec: Obj, path: str, errors: Errors) -> None:
    """What the pod says as a whole, held against every container."""
    containers = containers_with_paths(spec, path)
    check_host_process(spec, containers, path, errors)
    if spec.get("hostUsers") is False:
        _check_own_users(spec, containers, path, errors)
    if spec.get("os") is not None:
        check_operating_system(spec, containers, path, errors)
    volumes = {volume.get("name", ""): volume for volume in spec.get("volumes") or ()}
    for here, container in containers:
        check_file_key_volumes(container, volumes, here, errors)


def _check_own_users(spec: Obj, containers: list[tuple[str, Obj]], path: str, errors: Errors) -> None:
    """A pod with users of its own (KEP-127) shares little else with the machine."""
    detail = "when `hostUsers` is false"
    for field, shown in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
        if spec.get(field):
            errors.append(forbidden(f"{path}.{shown}", detail))
    for here, container in containers:
        if container.get("volumeDevices"):
            errors.append(forbidden(f"{here}.volumeDevices", detail))
