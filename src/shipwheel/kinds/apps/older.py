"""Workloads as `extensions/v1beta1`, `apps/v1beta1` and `apps/v1beta2` had them.

The forms hardly differ from today's; the defaults do, and must be filled in before those of today are. What had a
field of its own (a roll-back to be done, the generation of a template) is kept in an annotation.
"""

from __future__ import annotations

from typing import Any

from shipwheel.api.meta import GroupResource, GroupVersionKind, Obj
from shipwheel.api.resource import Call, Server, Subresource
from shipwheel.kinds import catalog
from shipwheel.kinds.checks import MAX_INT32

ROLLBACK_TO = "deprecated.deployment.rollback.to"
TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_ROLLBACK = GroupVersionKind("apps", "v1beta1", "DeploymentRollback")
_DEPLOYMENTS = GroupResource("apps", "deployments")


def _default(spec: Obj, field: str, value: Any) -> None:
    if spec.get(field) is None:
        spec[field] = value


def select_by_template(workload: Obj) -> Obj:
    """Selector and labels were those of the template when nothing else was said."""
    spec = workload.setdefault("spec", {})
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        if spec.get("selector") is None:
            spec["selector"] = {"matchLabels": dict(labels)}
        metadata = workload.setdefault("metadata", {})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    return workload


def _annotate(workload: Obj, annotation: str, value: Any) -> None:
    metadata = workload.setdefault("metadata", {})
    if value is not None:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), annotation: str(value)}


def _take_annotation(workload: Obj, annotation: str) -> tuple[Obj, int | None]:
    """The workload without the annotation, and its number."""
    annotations = workload["metadata"].get("annotations") or {}
    if annotation not in annotations:
        return workload, None
    kept = {key: value for key, value in annotations.items() if key != annotation}
    metadata = {key: value for key, value in workload["metadata"].items() if key != "annotations"}
    if kept:
        metadata["annotations"] = kept
    text = annotations[annotation]
    return {**workload, "metadata": metadata}, int(text) if text.lstrip("-").isdigit() else None


# Deployments


def deployment_of_extensions(deployment: Obj) -> Obj:
    """From extensions/v1beta1: one pod at a time, as many old replica sets as there are, no deadline."""
    spec = select_by_template(deployment)["spec"]
    strategy = spec.setdefault("strategy", {})
    if strategy.get("type") in (None, "", "RollingUpdate"):
        rolling = strategy.get("rollingUpdate") or {}
        strategy["rollingUpdate"] = rolling
        _default(rolling, "maxUnavailable", 1)
        _default(rolling, "maxSurge", 1)
    _default(spec, "progressDeadlineSeconds", MAX_INT32)
    _default(spec, "revisionHistoryLimit", MAX_INT32)
    return _note_rollback(deployment)


def deployment_of_v1beta1(deployment: Obj) -> Obj:
    """From apps/v1beta1: two old replica sets are kept."""
    _default(select_by_template(deployment)["spec"], "revisionHistoryLimit", 2)
    return _note_rollback(deployment)


def _note_rollback(deployment: Obj) -> Obj:
    wanted = deployment["spec"].pop("rollbackTo", None)
    if wanted is not None:
        _annotate(deployment, ROLLBACK_TO, wanted.get("revision", 0))
    return deployment


def deployment_with_rollback(deployment: Obj) -> Obj:
    """To extensions/v1beta1 and apps/v1beta1."""
    deployment, revision = _take_annotation(deployment, ROLLBACK_TO)
    if revision is None:
        return deployment
    return {**deployment, "spec": {**deployment["spec"], "rollbackTo": {"revision": revision} if revision else {}}}


async def _rollback(server: Server, call: Call) -> Obj:
    """`deployments/rollback`: have the controller bring an earlier template back."""
    request = call.body or {}
    revision = (request.get("rollbackTo") or {}).get("revision", 0)
    updated = request.get("updatedAnnotations") or {}

    def note(deployment: Obj) -> Obj:
        metadata = deployment["metadata"]
        annotations = {**(metadata.get("annotations") or {}), **updated, ROLLBACK_TO: str(revision)}
        return {**deployment, "metadata": {**metadata, "annotations": annotations}}

    await server.change(_DEPLOYMENTS, call.namespace, call.name, note, user=call.user, dry_run=call.dry_run)
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "message": f'rollback request for deployment "{call.name}" succeeded',
        "code": 200,
    }


def rollback_subresource() -> Subresource:
    return Subresource(
        "rollback",
        ("create",),
        kind=_ROLLBACK,
        schema=catalog.schema_for(_ROLLBACK),
        also=(GroupVersionKind("extensions", "v1beta1", "DeploymentRollback"),),
        call=_rollback,
    )


# Daemon sets


def daemon_set_of_extensions(daemon_set: Obj) -> Obj:
    """From extensions/v1beta1: pods are only replaced when they are deleted."""
    spec = select_by_template(daemon_set)["spec"]
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "OnDelete"
    _annotate(daemon_set, TEMPLATE_GENERATION, spec.pop("templateGeneration", None))
    return daemon_set


def daemon_set_to_extensions(daemon_set: Obj) -> Obj:
    daemon_set, generation = _take_annotation(daemon_set, TEMPLATE_GENERATION)
    if not generation:
        return daemon_set
    return {**daemon_set, "spec": {**daemon_set["spec"], "templateGeneration": generation}}


# Stateful sets


def stateful_set_of_v1beta1(stateful_set: Obj) -> Obj:
    """From apps/v1beta1: pods are only replaced when they are deleted."""
    strategy = select_by_template(stateful_set)["spec"].setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "OnDelete"
    return stateful_set
