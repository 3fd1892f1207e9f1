"""Jobs: pods that shall end well."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.ages import human_duration
from shipwheel.api.clock import parse_time
from shipwheel.api.errors import FieldError, invalid, required
from shipwheel.api.meta import Obj, is_condition_true
from shipwheel.api.names import is_dns1123_label
from shipwheel.api.objectmeta import validate_label_selector
from shipwheel.api.resource import Column, Resource, WriteContext, keep
from shipwheel.api.selectors import SelectorError, from_label_selector
from shipwheel.kinds.batch.jobspec import check_job_spec, default_job_spec, is_indexed, job_spec_warnings
from shipwheel.kinds.batch.jobstatus import check_job_status
from shipwheel.kinds.checks import Errors, check_immutable
from shipwheel.kinds.columns import AGE, NAME, label_selector, pod_template_columns
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.strategies import BuiltinStrategy
from shipwheel.kinds.workload import drop_disabled_in_template, name_warnings

_UID_LABELS = ("controller-uid", "batch.kubernetes.io/controller-uid")
_NAME_LABELS = ("job-name", "batch.kubernetes.io/job-name")
_SAID_LAST = ("Suspended", "FailureTarget", "SuccessCriteriaMet")


class JobStrategy(BuiltinStrategy):
    def default(self, job: Obj) -> None:
        spec = job.setdefault("spec", {})
        default_job_spec(spec)
        labels = (spec["template"].get("metadata") or {}).get("labels")
        if labels and not job["metadata"].get("labels"):
            # The very same labels: those that are generated for the template become the job's as well.
            job["metadata"]["labels"] = labels

    def prepare_for_create(self, job: Obj, ctx: WriteContext) -> None:
        if not job["spec"].get("manualSelector"):
            _generate_selector(job)
        super().prepare_for_create(job, ctx)
        drop_disabled_in_template(job["spec"].get("template"))

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        drop_disabled_in_template(new["spec"].get("template"))

    def validate(self, job: Obj) -> list[FieldError]:
        return self._validate(job, prefixed=True)

    def _validate(self, job: Obj, *, prefixed: bool) -> list[FieldError]:
        """`prefixed`: the labels of today are wanted, not only those of jobs from before them."""
        errors: Errors = []
        spec = job["spec"]
        if not spec.get("manualSelector") and spec.get("selector") is not None:
            _check_generated_selector(job, prefixed, errors)
        _check_spec(spec, errors)
        completions = spec.get("completions") or 0
        if is_indexed(spec) and completions > 0:
            name = job["metadata"].get("name", "")
            last = f"{name}-{completions - 1}"
            if is_dns1123_label(last):
                detail = f"will not able to create pod with invalid DNS label: {last}"
                errors.append(invalid("metadata.name", name, detail))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        had = _labels(old["spec"].get("template"))
        errors = self._validate(new, prefixed=_UID_LABELS[1] in had and _NAME_LABELS[1] in had)
        spec, before = new["spec"], old["spec"]
        _check_completions_change(spec, before, errors)
        check_immutable(spec.get("selector"), before.get("selector"), "spec.selector", errors)
        _check_template_change(new, old, errors)
        for field in (
            "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy",
        ):  # fmt: skip
            if spec.get(field) != before.get(field):
                check_immutable(spec.get(field), before.get(field), f"spec.{field}", errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return check_job_status(new, old)

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        if old is not None and new["metadata"].get("generation") == old["metadata"].get("generation"):
            return []
        warnings = job_spec_warnings(new["spec"], "spec")
        return warnings if old is not None else name_warnings(new) + warnings


def _labels(template: Obj | None) -> Obj:
    return ((template or {}).get("metadata") or {}).get("labels") or {}


def _generate_selector(job: Obj) -> None:
    """Select by the job's own uid, so that no other job's pods are ever taken for its."""
    metadata, spec = job["metadata"], job["spec"]
    template = spec["template"]
    of_template = template.setdefault("metadata", {})
    labels = of_template.setdefault("labels", {})
    for label in _NAME_LABELS:
        labels.setdefault(label, metadata.get("name", ""))
    for label in _UID_LABELS:
        labels.setdefault(label, metadata.get("uid", ""))
    if not metadata.get("labels"):
        metadata["labels"] = labels
    selector = spec.get("selector") or {}
    wanted = {_UID_LABELS[1]: metadata.get("uid", ""), **(selector.get("matchLabels") or {})}
    spec["selector"] = {**selector, "matchLabels": wanted}


def _check_generated_selector(job: Obj, prefixed: bool, errors: Errors) -> None:
    metadata, spec = job["metadata"], job["spec"]
    uid, name = metadata.get("uid", ""), metadata.get("name", "")
    if not uid:
        errors.append(required("metadata.uid"))
    expected = {_UID_LABELS[0]: uid, _NAME_LABELS[0]: name}
    if prefixed:
        expected |= {_UID_LABELS[1]: uid, _NAME_LABELS[1]: name}
    labels = _labels(spec.get("template"))
    for key, value in expected.items():
        path = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            errors.append(required(path, f"must be '{value}'"))
        elif labels[key] != value:
            errors.append(invalid(path, labels, f"must be '{value}'"))
    try:
        selector = from_label_selector(spec["selector"])
    except SelectorError:
        return
    if not selector.matches(expected):
        errors.append(invalid("spec.selector", spec["selector"], "`selector` not auto-generated"))


def _check_spec(spec: Obj, errors: Errors) -> None:
    check_job_spec(spec, "spec", errors)
    selector = spec.get("selector")
    if selector is None:
        errors.append(required("spec.selector"))
    else:
        errors += validate_label_selector(selector, "spec.selector")
    try:
        compiled = from_label_selector(selector)
    except SelectorError:
        return
    labels = _labels(spec.get("template"))
    if not compiled.matches(labels):
        detail = "`selector` does not match template `labels`"
        errors.append(invalid("spec.template.metadata.labels", labels, detail))


def _check_completions_change(spec: Obj, before: Obj, errors: Errors) -> None:
    """An indexed job that runs all its indexes at once may grow and shrink (KEP-3715)."""
    completions = spec.get("completions")
    if completions == before.get("completions"):
        return
    if is_indexed(spec):
        if completions is not None and completions != spec.get("parallelism"):
            detail = "can only be modified in tandem with spec.parallelism"
            errors.append(invalid("spec.completions", completions, detail))
        return
    check_immutable(completions, before.get("completions"), "spec.completions", errors)


def _check_template_change(new: Obj, old: Obj, errors: Errors) -> None:
    """The pods stay as they are; of a suspended job that has none, where they may run and what they get can change
    (KEP-2926, KEP-5440)."""
    template, before = (job["spec"].get("template") or {} for job in (new, old))
    if template == before:
        return
    status = old.get("status") or {}
    suspended = bool(old["spec"].get("suspend"))
    idle = not status.get("startTime") or is_condition_true(old, "Suspended")
    if suspended and idle and not status.get("active"):
        before = _with_new_directives(before, template)
        spec = template.get("spec") or {}
        allowed = _with_new_resources(before.get("spec") or {}, spec)
        check_immutable(spec, allowed, "spec.template.spec", errors)
        return
    check_immutable(template, before, "spec.template", errors)


def _with_new_directives(old: Obj, new: Obj) -> Obj:
    """The old template with the new one's labels, annotations and scheduling."""
    metadata, spec = dict(old.get("metadata") or {}), dict(old.get("spec") or {})
    keep(metadata, new.get("metadata") or {}, "labels", "annotations")
    wanted = new.get("spec") or {}
    keep(spec, wanted, "nodeSelector", "tolerations", "schedulingGates")
    affinity = dict(spec.get("affinity") or {})
    keep(affinity, wanted.get("affinity") or {}, "nodeAffinity")
    if affinity or wanted.get("affinity") is not None:
        spec["affinity"] = affinity
    else:
        spec.pop("affinity", None)
    return {**old, "metadata": metadata, "spec": spec}


def _with_new_resources(old: Obj, new: Obj) -> Obj:
    """The old pod spec whose containers have the resources that those of the new one have."""
    merged = dict(old)
    for field in ("containers", "initContainers"):
        ours, theirs = old.get(field) or [], new.get(field) or []
        if len(ours) == len(theirs) and ours:
            merged[field] = [
                {**one, "resources": other.get("resources", {})} if one.get("name") == other.get("name") else one
                for one, other in zip(ours, theirs, strict=True)
            ]
    return merged


def _status(job: Obj, now: datetime) -> str:
    for condition in ("Complete", "Failed"):
        if is_condition_true(job, condition):
            return condition
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return next((each for each in _SAID_LAST if is_condition_true(job, each)), "Running")


def _completions(job: Obj, now: datetime) -> str:
    succeeded = (job.get("status") or {}).get("succeeded") or 0
    spec = job["spec"]
    if spec.get("completions") is not None:
        return f"{succeeded}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(job: Obj, now: datetime) -> str:
    status = job.get("status") or {}
    started, completed = status.get("startTime"), status.get("completionTime")
    if not started:
        return ""
    end = parse_time(completed) if completed else now
    return human_duration((end - parse_time(started)).total_seconds())


RESOURCES = (
    Resource(
        kind="Job",
        plural="jobs",
        singular="job",
        categories=("all",),
        versions=(served("batch", "v1", "Job", orphans=True),),
        strategy=JobStrategy(),
        columns=(
            NAME,
            Column("Status", _status),
            Column("Completions", _completions),
            Column("Duration", _duration),
            AGE,
            *pod_template_columns("spec", "template", selector=label_selector("spec", "selector")),
        ),
        subresources=(STATUS,),
        unknown_field='field label "{field}" not supported for Job',
        selectable={"status.successful": lambda job: str((job.get("status") or {}).get("succeeded", 0))},
    ),
)
