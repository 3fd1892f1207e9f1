"""Pods: what everything else is about."""

from __future__ import annotations

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import FieldError, forbidden
from shipwheel.api.meta import GroupVersionKind, Obj
from shipwheel.api.names import is_dns1123_label
from shipwheel.api.resource import Resource, Strategy, Subresource, WriteContext, keep
from shipwheel.kinds import catalog
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.conditions import set_condition
from shipwheel.kinds.core.affinity import merge_label_keys
from shipwheel.kinds.core.containers import check_image_padding
from shipwheel.kinds.core.podcalls import attach, bind, evict, exec_, log, portforward, proxy
from shipwheel.kinds.core.podcolumns import POD_COLUMNS, ended
from shipwheel.kinds.core.podmeta import (
    MIRROR,
    check_annotation_updates,
    check_pod_annotations,
    check_profiles_agree,
    copy_apparmor_annotations,
)
from shipwheel.kinds.core.podresources import default_pod_resources
from shipwheel.kinds.core.podspec import check_pod_spec, default_pod_spec, drop_disabled
from shipwheel.kinds.core.podstatus import agree_on_address, check_status_update
from shipwheel.kinds.core.podupdate import (
    check_ephemeral_update,
    check_resize,
    check_update,
    take_resize,
)
from shipwheel.kinds.core.podwarnings import pod_warnings
from shipwheel.kinds.core.proxy import proxy_subresource
from shipwheel.kinds.core.qos import qos_class
from shipwheel.kinds.core.resources import default_requests_to_limits
from shipwheel.kinds.declare import READ_WRITE, STATUS, STREAM, served
from shipwheel.kinds.strategies import keep_metadata

BINDING = GroupVersionKind("", "v1", "Binding")
EVICTION = GroupVersionKind("policy", "v1", "Eviction")
_OLDER_EVICTIONS = (GroupVersionKind("policy", "v1beta1", "Eviction"),)


class PodStrategy(Strategy):
    """A pod is decided on when it is made: later only its status tells news."""

    returns_deleted = True

    def default(self, pod: Obj) -> None:
        spec = pod.setdefault("spec", {})
        for field in ("containers", "initContainers"):
            for container in spec.get(field) or ():
                if container.get("resources"):
                    default_requests_to_limits(container["resources"])
        if spec.get("resources"):
            default_pod_resources(spec)
        if spec.get("enableServiceLinks") is None:
            spec["enableServiceLinks"] = True
        if spec.get("hostNetwork"):
            _default_host_ports(spec)
        default_pod_spec(spec)
        if spec["terminationGracePeriodSeconds"] < 0:
            spec["terminationGracePeriodSeconds"] = 1

    def prepare_for_create(self, pod: Obj, ctx: WriteContext) -> None:
        spec = pod["spec"]
        drop_disabled(spec)
        pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod)}
        if spec.get("schedulingGates"):
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
            set_condition(pod["status"], condition, now=rfc3339(ctx.now))
        if spec.get("affinity") or spec.get("topologySpreadConstraints"):
            merge_label_keys(pod)
        if pod["metadata"].get("annotations"):
            copy_apparmor_annotations(pod)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        drop_disabled(new["spec"])

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "spec")
        keep(new["metadata"], old["metadata"], "deletionTimestamp", "ownerReferences")
        status, old_status = new.setdefault("status", {}), old.get("status") or {}
        if not status.get("qosClass"):
            keep(status, old_status, "qosClass")
        agree_on_address(status)
        _keep_observed_generations(status, old_status)

    def validate(self, pod: Obj) -> list[FieldError]:
        errors = self._validate_any(pod)
        spec = pod["spec"]
        if spec.get("ephemeralContainers"):
            errors.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
        if spec.get("nodeName") and spec.get("schedulingGates"):
            detail = "cannot be set until all schedulingGates have been cleared"
            errors.append(forbidden("spec.nodeName", detail))
        annotations = pod["metadata"].get("annotations")
        if annotations:
            check_profiles_agree(annotations, spec, "spec", errors)
        return errors

    def _validate_any(self, pod: Obj) -> Errors:
        """What holds on create and after each change."""
        errors: Errors = []
        metadata, spec = pod["metadata"], pod["spec"]
        annotations = metadata.get("annotations") or {}
        if annotations:
            check_pod_annotations(annotations, spec, "metadata.annotations", errors)
        name = metadata.get("name", "")
        check_pod_spec(spec, "spec", errors, pod_name=name, is_pod=True, is_mirror=MIRROR in annotations)
        if not spec.get("serviceAccountName") and spec.get("volumes"):
            _check_tokens_without_account(spec["volumes"], errors)
        for field in ("containers", "initContainers"):
            for index, container in enumerate(spec.get(field) or ()):
                check_image_padding(container, f"spec.{field}[{index}]", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self._validate_any(new) if new["spec"] != old["spec"] else []
        self._check_annotations(new, old, errors)
        check_update(new, old, errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        self._check_annotations(new, old, errors)
        check_status_update(new, old, errors)
        return errors

    def _check_annotations(self, new: Obj, old: Obj, errors: Errors) -> None:
        annotations = new["metadata"].get("annotations") or {}
        old_annotations = old["metadata"].get("annotations") or {}
        if annotations != old_annotations:
            check_annotation_updates(annotations, old_annotations, "metadata.annotations", errors)
            check_pod_annotations(annotations, new["spec"], "metadata.annotations", errors)

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        if old is not None:
            return []
        complaints = is_dns1123_label(new["metadata"].get("name", ""))
        warnings = pod_warnings(new["metadata"], new["spec"])
        if complaints:
            detail = (
                "this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is "
                "recommended"
            )
            warnings.insert(0, f"metadata.name: {detail}: [{' '.join(complaints)}]")
        return warnings

    def grace_period(self, pod: Obj, requested: int | None) -> int | None:
        """As asked, or as the pod says; at once when no kubelet would confirm its end."""
        spec = pod["spec"]
        seconds = requested
        if seconds is None:
            seconds = spec.get("terminationGracePeriodSeconds") or 0
        ended = (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
        if not spec.get("nodeName") or ended:
            return 0
        return 1 if seconds < 0 else seconds


def _default_host_ports(spec: Obj) -> None:
    """On the machine's network, a port of the container is that port of the machine."""
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            for port in container.get("ports") or ():
                if not port.get("hostPort") and port.get("containerPort"):
                    port["hostPort"] = port["containerPort"]


def _keep_observed_generations(status: Obj, old: Obj) -> None:
    """A kubelet too old to know `observedGeneration` does not take it away (KEP-5067)."""
    if not status.get("observedGeneration"):
        keep(status, old, "observedGeneration")
    known: dict[str, list[int]] = {}
    for condition in old.get("conditions") or ():
        known.setdefault(condition.get("type", ""), []).append(condition.get("observedGeneration", 0))
    for condition in status.get("conditions") or ():
        generations = known.get(condition.get("type", ""))
        generation = generations.pop(0) if generations else 0
        if generation and not condition.get("observedGeneration"):
            condition["observedGeneration"] = generation


def _check_tokens_without_account(volumes: list[Obj], errors: Errors) -> None:
    for index, volume in enumerate(volumes):
        for position, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
            if source.get("serviceAccountToken") is not None:
                path = f"spec.volumes[{index}].projected.sources[{position}].serviceAccountToken"
                detail = "must not be specified when serviceAccountName is not set"
                errors.append(forbidden(path, detail))


class _BindingStrategy(PodStrategy):
    """Binding changes what nobody else may: the node, and the condition that tells of it."""

    tracks_generation = False

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        pass

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return []


class _EphemeralContainersStrategy(PodStrategy):
    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        containers = new["spec"].get("ephemeralContainers")
        spec = dict(old["spec"])
        if containers:
            spec["ephemeralContainers"] = containers
        else:
            spec.pop("ephemeralContainers", None)
        drop_disabled(spec)
        new["spec"] = spec
        keep(new, old, "status")
        keep_metadata(new, old)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self._validate_any(new)
        check_ephemeral_update(new, old, errors)
        return errors


class _ResizeStrategy(PodStrategy):
    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        new["spec"] = take_resize(new, old)
        keep(new, old, "status")
        keep_metadata(new, old)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self._validate_any(new)
        check_resize(new, old, errors)
        return errors


def _options(kind: str) -> GroupVersionKind:
    return GroupVersionKind("", "v1", kind)


def _pod_ip(pod: Obj) -> str:
    addresses = pod["status"].get("podIPs") if "status" in pod else None
    return addresses[0].get("ip", "") if addresses else ""


RESOURCES = (
    Resource(
        kind="Pod",
        plural="pods",
        singular="pod",
        short_names=("po",),
        categories=("all",),
        versions=(served("", "v1", "Pod"),),
        strategy=PodStrategy(),
        columns=POD_COLUMNS,
        row_conditions=ended,
        subresources=(
            STATUS,
            Subresource("ephemeralcontainers", READ_WRITE, strategy=_EphemeralContainersStrategy()),
            Subresource("resize", READ_WRITE, strategy=_ResizeStrategy()),
            Subresource(
                "binding",
                ("create",),
                kind=BINDING,
                schema=catalog.schema_for(BINDING),
                strategy=_BindingStrategy(),
                call=bind,
            ),
            Subresource(
                "eviction",
                ("create",),
                kind=EVICTION,
                schema=catalog.schema_for(EVICTION),
                call=evict,
                also=_OLDER_EVICTIONS,
            ),
            Subresource("log", ("get",), call=log, connect=True),
            Subresource("exec", STREAM, kind=_options("PodExecOptions"), call=exec_, connect=True),
            Subresource("attach", STREAM, kind=_options("PodAttachOptions"), call=attach, connect=True),
            Subresource("portforward", STREAM, kind=_options("PodPortForwardOptions"), call=portforward, connect=True),
            proxy_subresource("PodProxyOptions", proxy),
        ),
        selectable={
            "spec.nodeName": lambda pod: pod["spec"].get("nodeName", ""),
            "spec.restartPolicy": lambda pod: pod["spec"].get("restartPolicy", ""),
            "spec.schedulerName": lambda pod: pod["spec"].get("schedulerName", ""),
            "spec.serviceAccountName": lambda pod: pod["spec"].get("serviceAccountName", ""),
            "spec.hostNetwork": lambda pod: "true" if pod["spec"].get("hostNetwork") else "false",
            "status.phase": lambda pod: (pod.get("status") or {}).get("phase", ""),
            "status.podIP": _pod_ip,
            "status.nominatedNodeName": lambda pod: (pod.get("status") or {}).get("nominatedNodeName", ""),
        },
    ),
)
