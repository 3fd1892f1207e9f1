"""What can be asked of a pod beyond reading and writing it: bind it, evict it, talk to its containers.

Streams are the kubelet's: the API server says which container on which node is meant, and passes them on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import (
    ApiError,
    bad_request,
    conflict,
    forbidden,
    forbidden_error,
    invalid,
    invalid_object,
    not_supported,
    required,
    timeout,
    too_many_requests,
)
from shipwheel.api.meta import GroupResource, Obj, condition, is_condition_true
from shipwheel.api.resource import Call, Server
from shipwheel.api.selectors import SelectorError, from_label_selector
from shipwheel.kinds.conditions import set_condition
from shipwheel.kinds.core.proxy import require_proxyable, target_of

PODS = GroupResource("", "pods")
_BUDGETS = GroupResource("policy", "poddisruptionbudgets")
SUCCESS: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

_MAX_DISRUPTED_PODS = 2000
"""Evictions that the disruption controller has not seen yet, before further ones are refused."""
_EVICTION_ATTEMPTS = 20
_EVICTION_PAUSE = 0.5


# Containers


def _all_containers(pod: Obj) -> Iterator[Obj]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod["spec"].get(field) or ()


def _container_name(pod: Obj, wanted: str) -> str:
    """The container meant: the one wanted, or the only one. ApiError 400 when that is none."""
    name = pod["metadata"]["name"]
    if wanted:
        if any(container["name"] == wanted for container in _all_containers(pod)):
            return wanted
        raise bad_request(f"container {wanted} is not valid for pod {name}")
    containers = pod["spec"].get("containers") or []
    if len(containers) == 1:
        return containers[0]["name"]
    choices = " ".join(container["name"] for container in _all_containers(pod))
    raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{choices}]")


def _node_of(pod: Obj) -> str:
    node = pod["spec"].get("nodeName")
    if not node:
        raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    return node


# Streams


async def log(server: Server, call: Call) -> Any:
    """`pods/log`: what a container wrote, as plain text. An unscheduled pod has written nothing."""
    options = _log_options(call)
    pod = await server.get(PODS, call.namespace, call.name)
    container = _container_name(pod, call.option("container"))
    node = pod["spec"].get("nodeName")
    if not node:
        return ""
    path = f"/containerLogs/{call.namespace}/{call.name}/{container}"
    return await server.to_node(node, f"{path}?{urlencode(options)}" if options else path, call)


_LOG_FLAGS = ("follow", "previous", "timestamps")
_LOG_NUMBERS = ("sinceSeconds", "tailLines", "limitBytes")
_STREAMS = ("All", "Stdout", "Stderr")


def _log_options(call: Call) -> dict[str, str]:
    """The query for the kubelet; ApiError 422 when the client's options contradict themselves."""
    options = {flag: "true" for flag in _LOG_FLAGS if call.flag(flag)}
    errors = []
    numbers: dict[str, int] = {}
    for name in _LOG_NUMBERS:
        if text := call.option(name):
            try:
                numbers[name] = int(text)
            except ValueError:
                raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    tail, limit = numbers.get("tailLines"), numbers.get("limitBytes")
    seconds, since_time = numbers.get("sinceSeconds"), call.option("sinceTime")
    if tail is not None and tail < 0:
        errors.append(invalid("tailLines", tail, "must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        errors.append(invalid("limitBytes", limit, "must be greater than 0"))
    if seconds is not None and since_time:
        errors.append(forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif seconds is not None and seconds < 1:
        errors.append(invalid("sinceSeconds", seconds, "must be greater than 0"))
    stream = call.option("stream") or "All"
    if stream not in _STREAMS:
        errors.append(not_supported("stream", stream, _STREAMS))
    elif stream != "All" and tail is not None:
        errors.append(forbidden("", "`tailLines` and specific `stream` are mutually exclusive for now"))
    if errors:
        raise invalid_object("", "PodLogOptions", call.name, errors)
    options |= {name: str(number) for name, number in numbers.items()}
    if since_time:
        options["sinceTime"] = since_time
    options["stream"] = stream
    return options


async def exec_(server: Server, call: Call) -> Any:
    """`pods/exec`: run a command in a container."""
    return await _stream(server, call, "exec", [("command", each) for each in call.options("command")])


async def attach(server: Server, call: Call) -> Any:
    """`pods/attach`: join the streams of a container's own process."""
    return await _stream(server, call, "attach", [])


async def _stream(server: Server, call: Call, path: str, more: list[tuple[str, str]]) -> Any:
    pod = await server.get(PODS, call.namespace, call.name)
    container = _container_name(pod, call.option("container"))
    node = _node_of(pod)
    kubelet_flags = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    query = [(parameter, "1") for flag, parameter in kubelet_flags.items() if call.flag(flag)] + more
    return await server.to_node(node, f"/{path}/{call.namespace}/{call.name}/{container}?{urlencode(query)}", call)


async def portforward(server: Server, call: Call) -> Any:
    """`pods/portforward`: connections to ports of the pod, in one stream pair each."""
    pod = await server.get(PODS, call.namespace, call.name)
    node = _node_of(pod)
    ports = ",".join(call.options("ports"))
    query = f"?{urlencode({'port': ports})}" if ports else ""
    return await server.to_node(node, f"/portForward/{call.namespace}/{call.name}{query}", call)


async def proxy(server: Server, call: Call) -> Any:
    """`pods/proxy`: HTTP to a port of the pod, its first declared one unless the name says another."""
    scheme, name, port = target_of(call, "pod")
    pod = await server.get(PODS, call.namespace, name)
    if not port:
        port = next(
            (
                str(container["ports"][0]["containerPort"])
                for container in pod["spec"].get("containers") or ()
                if container.get("ports")
            ),
            "",
        )
    addresses = (pod.get("status") or {}).get("podIPs")
    address = addresses[0].get("ip", "") if addresses else ""
    require_proxyable(address)
    scheme = scheme or "http"
    return await server.to_address(scheme, address, int(port or (443 if scheme == "https" else 80)), call.target, call)


# Binding


async def bind(server: Server, call: Call) -> Obj:
    """`pods/binding`: give the pod its node, once. Labels and annotations of the Binding go to the pod."""
    binding = call.body or {}
    if (binding.get("metadata") or {}).get("name", "") != call.name:
        raise bad_request("name in URL does not match name in Binding object")
    return await bind_pod(server, call, binding)


async def bind_pod(server: Server, call: Call, binding: Obj) -> Obj:
    metadata = binding.get("metadata") or {}
    target = binding.get("target") or {}
    errors = []
    if target.get("kind") not in ("", None, "Node"):
        errors.append(not_supported("target.kind", target["kind"], ("Node", "<empty>")))
    if not target.get("name"):
        errors.append(required("target.name"))
    if errors:
        texts = [str(error) for error in errors]
        raise ApiError(500, "", texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]")
    name = metadata.get("name")
    if not name:
        raise bad_request("Name parameter required.")

    def assign(pod: Obj) -> Obj:
        _check_binding(pod, metadata)
        spec, own = pod["spec"], pod["metadata"]
        spec["nodeName"] = target["name"]
        status = pod.setdefault("status", {})
        status.pop("nominatedNodeName", None)
        for field in ("annotations", "labels"):
            if metadata.get(field):
                own[field] = {**(own.get(field) or {}), **metadata[field]}
        set_condition(status, {"type": "PodScheduled", "status": "True"}, now=rfc3339(server.clock.now()))
        return pod

    await server.change(PODS, call.namespace, name, assign, user=call.user, dry_run=call.dry_run, subresource="binding")
    return SUCCESS


def _check_binding(pod: Obj, binding_metadata: Obj) -> None:
    """Raise ApiError 409 when the pod cannot be bound (any more)."""
    metadata, name = pod["metadata"], pod["metadata"]["name"]
    uid, version = binding_metadata.get("uid"), binding_metadata.get("resourceVersion")
    if uid and uid != metadata.get("uid"):
        raise conflict(
            PODS,
            name,
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata.get('uid')}",
        )
    if version and version != metadata.get("resourceVersion"):
        raise conflict(
            PODS,
            name,
            f"Precondition failed: ResourceVersion in precondition: {version}, "
            f"ResourceVersion in object meta: {metadata.get('resourceVersion')}",
        )
    why = ""
    if metadata.get("deletionTimestamp"):
        why = f"pod {name} is being deleted, cannot be assigned to a host"
    elif pod["spec"].get("nodeName"):
        why = f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
    elif pod["spec"].get("schedulingGates"):
        why = f"pod {name} has non-empty .spec.schedulingGates"
    if why:
        raise conflict(GroupResource("", "pods/binding"), name, why)


# Eviction


async def evict(server: Server, call: Call) -> Obj:
    """`pods/eviction`: delete the pod if its disruption budget allows (KEP-85, KEP-3017)."""
    eviction = call.body or {}
    if (eviction.get("metadata") or {}).get("name", "") != call.name:
        raise bad_request("name in URL does not match name in Eviction object")
    options = dict(eviction.get("deleteOptions") or {})
    if options.get("ignoreStoreReadErrorWithClusterBreakingPotential"):
        error = invalid(
            "deleteOptions.ignoreStoreReadErrorWithClusterBreakingPotential",
            True,
            "can not be set for pod eviction, try after removing the option",
        )
        raise invalid_object("policy", "Eviction", call.name, [error])
    dry_run = call.dry_run or bool(options.get("dryRun"))
    pod, deleted = await _delete_if_unguarded(server, call, options, dry_run)
    if deleted:
        return SUCCESS
    guarded_by = [budget for budget in server.peek_all(_BUDGETS, call.namespace) if _guards(budget, pod)]
    if len(guarded_by) > 1:
        raise ApiError(
            500,
            "",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )
    pinned = False
    budget_name = ""
    if guarded_by:
        budget = guarded_by[0]
        budget_name = budget["metadata"]["name"]
        pinned = not is_condition_true(pod, "Ready") and _may_evict_unhealthy(budget)
        if not pinned:
            await _take_from_budget(server, call, budget_name, dry_run)
    try:
        await _mark_and_delete(
            server, call, _at_version(options, pod["metadata"]["resourceVersion"]) if pinned else options, dry_run
        )
    except ApiError as error:
        if error.code == 409 and pinned and not _wants_version(options):
            raise _still_processing(budget_name) from None
        raise
    return SUCCESS


async def _delete_if_unguarded(server: Server, call: Call, options: Obj, dry_run: bool) -> tuple[Obj, bool]:
    """Delete a pod that disturbs nobody any more (ended, ending, not yet begun), whatever its budget says."""
    attempts = 1 if _wants_version(options) else _EVICTION_ATTEMPTS
    for attempt in range(1, attempts + 1):
        pod = await server.get(PODS, call.namespace, call.name)
        phase = (pod.get("status") or {}).get("phase")
        ended = phase in ("Succeeded", "Failed") or bool(pod["metadata"].get("deletionTimestamp"))
        if not ended and phase != "Pending":
            return pod, False
        pinned = not ended and not _wants_version(options)
        try:
            await _mark_and_delete(
                server, call, _at_version(options, pod["metadata"]["resourceVersion"]) if pinned else options, dry_run
            )
        except ApiError as error:
            if error.code != 409 or attempt == attempts:
                raise
            await server.clock.sleep(_EVICTION_PAUSE)
        else:
            return pod, True
    raise AssertionError("unreachable")


def _guards(budget: Obj, pod: Obj) -> bool:
    try:
        selector = from_label_selector((budget.get("spec") or {}).get("selector"))
    except SelectorError:
        return False
    return selector.matches(pod["metadata"].get("labels") or {})


def _may_evict_unhealthy(budget: Obj) -> bool:
    status = budget.get("status") or {}
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    desired = status.get("desiredHealthy", 0)
    return desired > 0 and status.get("currentHealthy", 0) >= desired


async def _take_from_budget(server: Server, call: Call, budget_name: str, dry_run: bool) -> None:
    """Count one disruption against the budget; ApiError 429 when it has none left."""

    def take(budget: Obj) -> Obj:
        status = budget.setdefault("status", {})
        _check_budget(budget)
        status["disruptionsAllowed"] -= 1
        if status["disruptionsAllowed"] == 0:
            set_condition(
                status,
                {
                    "type": "DisruptionAllowed",
                    "status": "False",
                    "reason": "InsufficientPods",
                    "message": "",
                    "observedGeneration": status.get("observedGeneration", 0),
                },
                now=rfc3339(server.clock.now()),
            )
        disrupted = dict(status.get("disruptedPods") or {})
        disrupted[call.name] = rfc3339(server.clock.now())
        status["disruptedPods"] = disrupted
        return budget

    try:
        async with asyncio.timeout(_EVICTION_ATTEMPTS * _EVICTION_PAUSE):
            await server.change(
                _BUDGETS,
                call.namespace,
                budget_name,
                take,
                user=call.user,
                dry_run=dry_run,
                subresource="status",
            )
    except TimeoutError:
        raise timeout(f'couldn\'t update PodDisruptionBudget "{budget_name}" due to conflicts', 10) from None


def _check_budget(budget: Obj) -> None:
    """Raise unless the budget allows a disruption now."""
    name, status = budget["metadata"]["name"], budget["status"]
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        raise _still_processing(name)
    allowed = status.get("disruptionsAllowed", 0)
    resource = GroupResource("policy", "poddisruptionbudget")
    if allowed < 0:
        raise forbidden_error(resource, name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or ()) > _MAX_DISRUPTED_PODS:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise forbidden_error(resource, name, why)
    if allowed == 0:
        raise _violates(_why_none_allowed(budget), 0)


def _why_none_allowed(budget: Obj) -> str:
    name, status = budget["metadata"]["name"], budget["status"]
    current, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    state = condition(budget, "DisruptionAllowed") or {}
    message = state.get("message") if state.get("status") == "False" else ""
    if message and state.get("reason") == "SyncFailed":
        return f"The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}"
    if current <= desired:
        return f"The disruption budget {name} needs {desired} healthy pods and has {current} currently"
    if message:
        return f"The disruption budget {name} does not allow evicting pods currently ({state.get('reason')}): {message}"
    return f"The disruption budget {name} does not allow evicting pods currently"


def _still_processing(name: str) -> ApiError:
    return _violates(f"The disruption budget {name} is still being processed by the server.", 10)


def _violates(cause: str, retry_after: int) -> ApiError:
    error = too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", retry_after)
    error.details = {**(error.details or {}), "causes": [{"reason": "DisruptionBudget", "message": cause}]}
    if retry_after == 0:
        error.details.pop("retryAfterSeconds", None)
        error.headers = {}
    return error


def _wants_version(options: Obj) -> bool:
    return (options.get("preconditions") or {}).get("resourceVersion") is not None


def _at_version(options: Obj, version: str) -> Obj:
    """The options with the precondition that the pod is still of this resource version."""
    preconditions = {**(options.get("preconditions") or {}), "resourceVersion": version}
    return {**options, "preconditions": preconditions}


async def _mark_and_delete(server: Server, call: Call, options: Obj, dry_run: bool) -> None:
    """Say in the pod's status why it goes (KEP-3329), and delete it."""
    if not dry_run:
        preconditions = options.get("preconditions") or {}

        def mark(pod: Obj) -> Obj:
            _check_preconditions(pod, preconditions)
            set_condition(
                pod.setdefault("status", {}),
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "EvictionByEvictionAPI",
                    "message": "Eviction API: evicting",
                },
                now=rfc3339(server.clock.now()),
            )
            return pod

        marked = await server.change(PODS, call.namespace, call.name, mark, user=call.user, subresource="status")
        if _wants_version(options):
            options = _at_version(options, marked)
    await server.delete(PODS, call.namespace, call.name, options, user=call.user, dry_run=dry_run)


def _check_preconditions(pod: Obj, preconditions: Obj) -> None:
    metadata, kind = pod["metadata"], GroupResource("", "Pod")
    uid, version = preconditions.get("uid"), preconditions.get("resourceVersion")
    if uid and uid != metadata.get("uid"):
        raise conflict(
            kind,
            metadata["name"],
            f"the UID in the precondition ({uid}) does not match the UID in record ({metadata.get('uid')}). "
            "The object might have been deleted and then recreated",
        )
    if version and version != metadata.get("resourceVersion"):
        raise conflict(
            kind,
            metadata["name"],
            f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record "
            f"({metadata.get('resourceVersion')}). The object might have been modified",
        )
