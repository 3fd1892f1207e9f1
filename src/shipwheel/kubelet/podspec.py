"""The few questions that everything in the kubelet asks of a pod's specification.

All of them are plain functions of the decoded object. Restart rules follow KEP-5307 (container restart rules)
and KEP-5532 (restart all containers); sidecars KEP-753.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Literal

from shipwheel.api.meta import Obj, annotations_of

CONFIG_SOURCE = "kubernetes.io/config.source"
CONFIG_MIRROR = "kubernetes.io/config.mirror"
CONFIG_HASH = "kubernetes.io/config.hash"
CONFIG_SEEN = "kubernetes.io/config.seen"

TERMINAL_PHASES = ("Succeeded", "Failed")
SYSTEM_CRITICAL_PRIORITY = 2_000_000_000
NODE_CRITICAL_CLASS = "system-node-critical"


def containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("containers") or []


def init_containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("initContainers") or []


def ephemeral_containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("ephemeralContainers") or []


def all_containers(pod: Obj) -> Iterator[Obj]:
    """Init containers first, then regular ones, then ephemeral ones."""
    yield from init_containers(pod)
    yield from containers(pod)
    yield from ephemeral_containers(pod)


def find_container(pod: Obj, name: str) -> Obj | None:
    return next((each for each in all_containers(pod) if each["name"] == name), None)


def container_kind(pod: Obj, name: str) -> Literal["init", "regular", "ephemeral"]:
    """Which list of the pod a container stands in; `regular` when in none."""
    if any(each["name"] == name for each in init_containers(pod)):
        return "init"
    if any(each["name"] == name for each in ephemeral_containers(pod)):
        return "ephemeral"
    return "regular"


def field_path(pod: Obj, name: str) -> str:
    """How an event's `involvedObject.fieldPath` names a container: `spec.containers{web}`."""
    lists = {"init": "initContainers", "regular": "containers", "ephemeral": "ephemeralContainers"}
    return f"spec.{lists[container_kind(pod, name)]}{{{name}}}"


def is_sidecar(container: Obj) -> bool:
    """A restartable init container. Meaningful for init containers only."""
    return container.get("restartPolicy") == "Always"


def sidecars(pod: Obj) -> list[Obj]:
    return [each for each in init_containers(pod) if is_sidecar(each)]


def restart_policy(pod: Obj) -> str:
    return pod["spec"].get("restartPolicy") or "Always"


def matching_restart_rule(container: Obj, exit_code: int) -> Obj | None:
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes")
        if not codes:
            continue
        listed = exit_code in (codes.get("values") or ())
        if (codes.get("operator") == "In" and listed) or (codes.get("operator") == "NotIn" and not listed):
            return rule
    return None


def should_restart(pod: Obj, container: Obj, exit_code: int) -> bool:
    """Whether policy wants a container that ended with `exit_code` to run again: its own rules first, then its
    own policy, then the pod's."""
    own = container.get("restartPolicy")
    if own:
        rule = matching_restart_rule(container, exit_code)
        if rule and rule.get("action") in ("Restart", "RestartAllContainers"):
            return True
    return _by_policy(own or restart_policy(pod), exit_code)


def _by_policy(policy: str, exit_code: int) -> bool:
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def may_restart_pod(pod: Obj) -> bool:
    """Whether the pod's own policy lets anything run a second time."""
    return restart_policy(pod) != "Never"


def may_restart_container(pod: Obj, container: Obj) -> bool:
    """Whether a container stopped by us (so without an exit code that rules could judge) runs again."""
    return (container.get("restartPolicy") or restart_policy(pod)) != "Never"


def triggers_restart_of_all(container: Obj, exit_code: int) -> bool:
    rule = matching_restart_rule(container, exit_code)
    return rule is not None and rule.get("action") == "RestartAllContainers"


def could_restart_all(pod: Obj) -> bool:
    return any(
        rule.get("action") == "RestartAllContainers"
        for container in (*init_containers(pod), *containers(pod))
        for rule in container.get("restartPolicyRules") or ()
    )


def may_end(pod: Obj) -> bool:
    """Whether the pod is meant to end by itself some day."""
    return restart_policy(pod) != "Always"


def is_host_network(pod: Obj) -> bool:
    return bool(pod["spec"].get("hostNetwork"))


def is_static(pod: Obj) -> bool:
    """The pod came from a file or a URL, not from the API server."""
    return annotations_of(pod).get(CONFIG_SOURCE, "api") != "api"


def is_mirror(pod: Obj) -> bool:
    """The pod is the API server's image of a static pod; the kubelet never runs it."""
    return CONFIG_MIRROR in annotations_of(pod)


def is_terminal(phase: str | None) -> bool:
    return phase in TERMINAL_PHASES


def phase_of(pod: Obj) -> str:
    return (pod.get("status") or {}).get("phase") or "Pending"


def is_critical(pod: Obj) -> bool:
    """Not to be evicted, and admitted at the cost of others."""
    return is_static(pod) or is_mirror(pod) or (pod["spec"].get("priority") or 0) >= SYSTEM_CRITICAL_PRIORITY


def is_node_critical(pod: Obj) -> bool:
    return is_critical(pod) and pod["spec"].get("priorityClassName") == NODE_CRITICAL_CLASS


def grace_period(pod: Obj) -> int:
    """Seconds the pod's containers get to end, as the object says: those of its deletion, else of its spec."""
    deletion = pod["metadata"].get("deletionGracePeriodSeconds")
    if deletion is not None:
        return deletion
    declared = pod["spec"].get("terminationGracePeriodSeconds")
    return 30 if declared is None else declared


def container_hash(container: Obj) -> str:
    """Changes when the container must be replaced to follow its specification: its image is the only field that
    can be changed so."""
    return f"{zlib.crc32(container['image'].encode(), zlib.crc32(container['name'].encode())):x}"


def describe(pod: Obj) -> str:
    """`name_namespace(uid)`, as messages name a pod."""
    meta = pod["metadata"]
    return f"{meta['name']}_{meta.get('namespace', '')}({meta.get('uid', '')})"
