"""What must be done next for a pod: a pure function of its specification and of what was observed.

`decide` is called again after everything that happens, so it never plans further than the next step. It reads no
clock: whether a container must wait before it is started again is asked (see `backoff`) when the start is carried
out, because the answer is an event and a reason, not a different plan.

The order in which a plan is carried out is fixed: kill, make the sandbox, start ephemeral containers, then init
containers, resize, then start regular containers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from shipwheel.api.meta import Obj, is_being_deleted
from shipwheel.kubelet import podspec
from shipwheel.kubelet.observed import ContainerObservation, PodObservation

ProbeResult = Literal["Unknown", "Success", "Failure"]
KillReason = Literal["", "StartupProbe", "LivenessProbe", "FailedPostStartHook", "RestartAllContainers", "Unknown"]


@dataclass(frozen=True, slots=True)
class ProbeResults:
    """The last settled outcome of each probe, by container id. Nothing is known of an id that is missing."""

    startup: Mapping[str, ProbeResult] = field(default_factory=dict)
    liveness: Mapping[str, ProbeResult] = field(default_factory=dict)
    readiness: Mapping[str, ProbeResult] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kill:
    container_id: str
    name: str
    message: str
    reason: KillReason = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """Remove a container, stopping it first if it runs, so that the whole pod begins anew in its sandbox."""

    container_id: str
    name: str
    running: bool


@dataclass(frozen=True, slots=True)
class Actions:
    """The next step. Containers to start are named in the order in which they are to be started."""

    kill_pod: bool = False
    """Stop every container and the sandbox."""
    create_sandbox: bool = False
    sandbox_id: str = ""
    """The sandbox to start containers in; with `create_sandbox`, the one that it replaces."""
    attempt: int = 0
    """The number of the sandbox to create, or of the one there is."""
    kill: tuple[Kill, ...] = ()
    reset: tuple[Reset, ...] = ()
    start_ephemeral: tuple[str, ...] = ()
    start_init: tuple[str, ...] = ()
    start: tuple[str, ...] = ()

    @property
    def starts(self) -> tuple[str, ...]:
        return self.start_ephemeral + self.start_init + self.start

    @property
    def nothing(self) -> bool:
        return not (self.kill_pod or self.create_sandbox or self.kill or self.reset or self.starts)


def decide(
    pod: Obj,
    observed: PodObservation,
    probes: ProbeResults | None = None,
    *,
    restart_all: bool = False,
    resize_restarts: frozenset[str] = frozenset(),
) -> Actions:
    """The next step for a pod that is to run.

    `restart_all`: a container's restart rule asked for the whole pod to begin anew (KEP-5532).
    `resize_restarts`: ids of running containers that must be started again to get their new resources.
    """
    probes = probes or ProbeResults()
    changed, attempt, sandbox_id = sandbox_changed(pod, observed)
    if restart_all:
        return Actions(kill_pod=changed, create_sandbox=changed, sandbox_id=sandbox_id, attempt=attempt,
                       reset=_resets(pod, observed))  # fmt: skip
    if changed:
        return _begin(pod, observed, attempt, sandbox_id)

    base = Actions(
        sandbox_id=sandbox_id,
        attempt=attempt,
        start_ephemeral=tuple(
            each["name"] for each in podspec.ephemeral_containers(pod) if observed.latest(each["name"]) is None
        ),
    )
    init = _decide_init(pod, observed, probes, resize_restarts)
    planned = replace(base, kill_pod=init.failed, kill=tuple(init.kill), start_init=tuple(init.start))
    if init.failed or not init.initialized:
        return planned

    kept = 0
    start: list[str] = []
    kill = list(planned.kill)
    for container in podspec.containers(pod):
        name = container["name"]
        seen = observed.latest(name)
        if seen is None or not seen.running:
            if wants_start(pod, container, observed):
                start.append(name)
                if seen is not None and seen.state == "UNKNOWN":
                    # It may be running after all: never risk two of the same.
                    text = 'Container is in "unknown" state, try killing it before restart'
                    kill.append(Kill(seen.id, name, text, "Unknown"))
            continue
        reason, message, again = _why_stop(pod, container, seen, probes)
        if message and again:
            message += ", will be restarted"
            start.append(name)
        elif not message and seen.id in resize_restarts:
            message = RESIZE_RESTART.format(name)
            start.append(name)
        elif not message:
            kept += 1
            continue
        kill.append(Kill(seen.id, name, message, reason))

    if not kept and not start:
        # Nothing is left to run: sidecars must not keep the pod alive.
        return replace(planned, kill_pod=True, kill=tuple(kill), start_init=())
    return replace(planned, kill=tuple(kill), start=tuple(start))


def sandbox_changed(pod: Obj, observed: PodObservation) -> tuple[bool, int, str]:
    """(a new sandbox is needed, its or the current one's attempt, the current one's id)."""
    if not observed.sandboxes:
        return True, 0, ""
    newest = observed.sandboxes[0]
    ready = sum(each.ready for each in observed.sandboxes)
    if ready > 1 or not newest.ready:
        return True, newest.attempt + 1, newest.id
    host = podspec.is_host_network(pod)
    if newest.namespaces.network != ("NODE" if host else "POD"):
        return True, newest.attempt + 1, ""
    if not host and not newest.ips:
        return True, newest.attempt + 1, newest.id
    return False, newest.attempt, newest.id


def wants_start(pod: Obj, container: Obj, observed: PodObservation) -> bool:
    """Whether policy wants a container started that does not run now."""
    if is_being_deleted(pod):
        return False
    seen = observed.latest(container["name"])
    if seen is None:
        return True
    if seen.running:
        return False
    if seen.state in ("UNKNOWN", "CREATED"):
        return True
    return podspec.should_restart(pod, container, seen.exit_code)


def any_regular_created(pod: Obj, observed: PodObservation) -> bool:
    """Whether a regular container exists, which proves that initialization is over."""
    for container in podspec.containers(pod):
        seen = observed.latest(container["name"])
        if seen is not None and seen.state != "UNKNOWN":
            return True
    return False


def _begin(pod: Obj, observed: PodObservation, attempt: int, sandbox_id: str) -> Actions:
    """The step for a pod without a usable sandbox."""
    give_up = Actions(kill_pod=True, sandbox_id=sandbox_id, attempt=attempt)
    if not podspec.may_restart_pod(pod) and attempt and observed.containers:
        return give_up
    start = [
        each["name"]
        for each in podspec.containers(pod)
        if not (
            (each.get("restartPolicy") or podspec.restart_policy(pod)) == "OnFailure"
            and _succeeded(observed.latest(each["name"]))
        )
    ]
    if not start and any_regular_created(pod, observed):
        return give_up
    fresh = replace(give_up, create_sandbox=True)
    inits = podspec.init_containers(pod)
    if inits:
        return replace(fresh, start_init=(inits[0]["name"],))
    return replace(fresh, start=tuple(start))


def _succeeded(seen: ContainerObservation | None) -> bool:
    return seen is not None and seen.exited and seen.exit_code == 0


@dataclass(slots=True)
class _Init:
    initialized: bool = False
    failed: bool = False
    """An init container failed and may not run again: the pod is over."""
    start: list[str] = field(default_factory=list)
    kill: list[Kill] = field(default_factory=list)


def _decide_init(pod: Obj, observed: PodObservation, probes: ProbeResults, resize_restarts: frozenset[str]) -> _Init:
    """How far initialization is, and the init containers to start or stop.

    It looks from the last init container back, since those that ended long ago may have been removed: the last one
    that is known tells how far the pod came. Sidecars before it are kept running.
    """
    inits = podspec.init_containers(pod)
    plan = _Init(initialized=not inits)
    if not inits:
        return plan
    plan.initialized = any(
        (seen := observed.latest(each["name"])) is not None and seen.state in ("CREATED", "RUNNING")
        for each in podspec.containers(pod)
    )
    passed = plan.initialized
    """A later init container, or a regular one, is known to have been started."""

    for index in range(len(inits) - 1, -1, -1):
        container = inits[index]
        name = container["name"]
        sidecar = podspec.is_sidecar(container)
        seen = observed.latest(name)
        if seen is None:
            if passed and sidecar:
                plan.start.append(name)
            continue
        if passed and not sidecar:
            continue

        done = False
        match seen.state:
            case "CREATED":
                # Created and not started is what a failed start leaves behind.
                plan.start.append(name)
            case "RUNNING":
                done = sidecar and _tend_sidecar(container, seen, probes, plan, resize_restarts)
            case "EXITED":
                if sidecar:
                    plan.start.append(name)
                elif seen.exit_code == 0:
                    done = True
                elif wants_start(pod, container, observed):
                    plan.start.append(name)
                else:
                    return _Init(failed=True)
            case _:
                if not sidecar and not podspec.may_restart_container(pod, container):
                    return _Init(failed=True)
                text = 'Init container is in "unknown" state, try killing it before restart'
                plan.kill.append(Kill(seen.id, name, text, "Unknown"))
                plan.start.append(name)

        if done and index == len(inits) - 1:
            plan.initialized = True
        elif done and not passed:
            plan.start.append(inits[index + 1]["name"])
        passed = True

    if not passed:
        plan.start.append(inits[0]["name"])
    # Collected from the last to the first, to be started from the first to the last.
    order = {each["name"]: index for index, each in enumerate(inits)}
    plan.start.sort(key=order.__getitem__)
    return plan


def _tend_sidecar(
    container: Obj,
    seen: ContainerObservation,
    probes: ProbeResults,
    plan: _Init,
    resize_restarts: frozenset[str],
) -> bool:
    """Stop and restart a running sidecar that needs it; returns whether it has started, so that the next init
    container may run."""
    name = container["name"]
    if container.get("startupProbe"):
        startup = probes.startup.get(seen.id)
        if startup != "Success":
            if startup == "Failure":
                text = f"Init container {name} failed startup probe"
                plan.kill.append(Kill(seen.id, name, text, "StartupProbe"))
                plan.start.append(name)
            return False
    if _definition_changed(container, seen):
        plan.kill.append(Kill(seen.id, name, f"Init container {name} definition changed"))
        plan.start.append(name)
    elif container.get("livenessProbe") and probes.liveness.get(seen.id) == "Failure":
        text = f"Init container {name} failed liveness probe"
        plan.kill.append(Kill(seen.id, name, text, "LivenessProbe"))
        plan.start.append(name)
    elif seen.id in resize_restarts:
        plan.kill.append(Kill(seen.id, name, RESIZE_RESTART.format(name)))
        plan.start.append(name)
    return True


def _why_stop(
    pod: Obj, container: Obj, seen: ContainerObservation, probes: ProbeResults
) -> tuple[KillReason, str, bool]:
    """(reason, message, start again) for a running container that must be stopped; an empty message to keep it."""
    name = container["name"]
    again = podspec.may_restart_container(pod, container)
    if _definition_changed(container, seen):
        # Whatever the policy says: the container that was asked for has not run yet.
        return "", f"Container {name} definition changed", True
    if probes.liveness.get(seen.id) == "Failure":
        return "LivenessProbe", f"Container {name} failed liveness probe", again
    if probes.startup.get(seen.id) == "Failure":
        return "StartupProbe", f"Container {name} failed startup probe", again
    return "", "", False


def _definition_changed(container: Obj, seen: ContainerObservation) -> bool:
    return bool(seen.hash) and seen.hash != podspec.container_hash(container)


def _resets(pod: Obj, observed: PodObservation) -> tuple[Reset, ...]:
    """Every container of the pod, those whose exit asked for it last, so that the cause stays visible until all
    others are gone."""
    ordered: list[Reset] = []
    causes: list[Reset] = []
    for specs in (podspec.containers(pod), podspec.init_containers(pod)):
        for container in specs:
            for seen in observed.containers:
                if seen.name != container["name"]:
                    continue
                reset = Reset(seen.id, seen.name, running=not seen.exited)
                cause = seen.exited and podspec.triggers_restart_of_all(container, seen.exit_code)
                (causes if cause else ordered).append(reset)
    return (*ordered, *causes)


def should_restart_all(pod: Obj, observed: PodObservation, status: Obj | None) -> bool:
    """Whether the pod is to begin anew: that was already decided (its condition says so), or a container's exit
    matches a rule with that action."""
    if not podspec.could_restart_all(pod):
        return False
    status = status or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "AllContainersRestarting" and condition.get("status") == "True":
            return True
    reported = {
        each["name"]: each
        for field_name in ("initContainerStatuses", "containerStatuses")
        for each in status.get(field_name) or ()
    }
    for container in (*podspec.init_containers(pod), *podspec.containers(pod)):
        seen = observed.latest(container["name"])
        if seen is None or not seen.exited:
            continue
        if podspec.triggers_restart_of_all(container, seen.exit_code):
            return True
        terminated = ((reported.get(container["name"]) or {}).get("state") or {}).get("terminated")
        if terminated and podspec.triggers_restart_of_all(container, terminated.get("exitCode", 0)):
            return True
    return False


def termination_order(pod: Obj, running: set[str]) -> dict[str, set[str]]:
    """For each running container the names it waits for when the pod ends: sidecars end after all regular
    containers, and each after the sidecars that were started after it."""
    waits: dict[str, set[str]] = {name: set() for name in running}
    main = {each["name"] for each in podspec.containers(pod)} & running
    later: set[str] = set()
    for container in reversed(podspec.init_containers(pod)):
        name = container["name"]
        if not podspec.is_sidecar(container) or name not in running:
            continue
        waits[name] = main | later
        later = later | {name}
    return waits


def stop_grace(pod: Obj, container: Obj, reason: KillReason) -> int:
    """Seconds a container gets to end: the pod's deletion decides, else the failed probe, else the pod's spec."""
    deletion = pod["metadata"].get("deletionGracePeriodSeconds")
    if deletion is not None:
        return deletion
    declared = pod["spec"].get("terminationGracePeriodSeconds")
    if declared is None:
        return MINIMUM_GRACE
    probe = {"StartupProbe": "startupProbe", "LivenessProbe": "livenessProbe"}.get(reason)
    if probe:
        own = (container.get(probe) or {}).get("terminationGracePeriodSeconds")
        if own is not None:
            return own
    return declared


RESIZE_RESTART = "Container {} resize requires restart"
MINIMUM_GRACE = 2
"""Seconds any container gets at least, so that it is not killed at once when its hook used up the time."""
