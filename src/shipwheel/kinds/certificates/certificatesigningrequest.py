"""Certificate signing requests."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.ages import human_duration
from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import name_is_path_segment
from shipwheel.api.resource import Column, Resource, Strategy, Subresource, WriteContext, keep
from shipwheel.kinds.certificates.contents import certificate_complaint, request_complaint, signer_of_kubelet
from shipwheel.kinds.certificates.signername import check_signer_name
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import AGE, NAME, NONE, text
from shipwheel.kinds.declare import READ_WRITE, STATUS, older, served
from shipwheel.kinds.diff import changes

LEGACY_SIGNER = "kubernetes.io/legacy-unknown"
_SHORTEST = 600
_USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_OUTCOMES = ("Approved", "Denied", "Failed")
_STATUSES = ("False", "True", "Unknown")


class CertificateSigningRequestStrategy(Strategy):
    """A request says who asks, by whom it was sent, and never changes; `approval` and `status` decide about it."""

    tracks_generation = False
    name_rule = staticmethod(name_is_path_segment)

    may_decide = False
    """Approved and Denied may be set."""
    may_issue = False
    """The certificate may be set."""

    def prepare_for_create(self, request: Obj, ctx: WriteContext) -> None:
        spec = request.setdefault("spec", {})
        user = ctx.user
        for field in ("username", "uid", "groups", "extra"):
            spec.pop(field, None)
        asked_by = {
            "username": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
        }
        spec.update({field: value for field, value in asked_by.items() if value})
        request["status"] = {}

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "spec", "status")

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "spec")
        for kind in ("Approved", "Denied"):
            _keep_conditions(new, old, kind)
        _fill_times(new, old, ctx)

    def validate(self, request: Obj) -> list[FieldError]:
        return self._validate(request, None)

    def _validate(self, request: Obj, old: Obj | None) -> list[FieldError]:
        errors: Errors = []
        if old is None:
            _check_spec(request.get("spec") or {}, errors)
        _check_conditions(_conditions(request), _conditions(old or {}), errors)
        certificate = (request.get("status") or {}).get("certificate")
        if certificate and certificate != ((old or {}).get("status") or {}).get("certificate"):
            complaint = certificate_complaint(certificate)
            if complaint:
                errors.append(invalid("status.certificate", "<certificate data>", complaint))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self._validate(new, old)
        for kind in _OUTCOMES:
            if len(_of_kind(new, kind)) < len(_of_kind(old, kind)):
                detail = f'updates may not remove a condition of type "{kind}"'
                errors.append(forbidden("status.conditions", detail))
        if not self.may_decide:
            _check_undecided(new, old, errors)
        certificate, before = ((each.get("status") or {}).get("certificate") for each in (new, old))
        if certificate != before:
            if not self.may_issue:
                errors.append(forbidden("status.certificate", "updates may not set certificate content"))
            elif before:
                detail = "updates may not modify existing certificate content"
                errors.append(forbidden("status.certificate", detail))
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return _ISSUING.validate_update(new, old)


class _IssuingStrategy(CertificateSigningRequestStrategy):
    may_issue = True


class _ApprovalStrategy(CertificateSigningRequestStrategy):
    may_decide = True

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        _fill_times(new, old, ctx)
        conditions = _conditions(new)
        keep(new, old, "spec", "status")
        new["status"] = {**(new.get("status") or {}), "conditions": conditions}
        if not conditions:
            del new["status"]["conditions"]


_ISSUING = _IssuingStrategy()


def _conditions(request: Obj) -> list[Obj]:
    return (request.get("status") or {}).get("conditions") or []


def _of_kind(request: Obj, kind: str) -> list[Obj]:
    return [each for each in _conditions(request) if each.get("type") == kind]


def _keep_conditions(new: Obj, old: Obj, kind: str) -> None:
    """Where there are as many conditions of the kind as before, they are what they were."""
    before = _of_kind(old, kind)
    if len(before) != len(_of_kind(new, kind)):
        return
    kept = iter(before)
    status = new.get("status") or {}
    if status.get("conditions"):
        status["conditions"] = [next(kept) if each.get("type") == kind else each for each in status["conditions"]]


def _fill_times(new: Obj, old: Obj, ctx: WriteContext) -> None:
    now = rfc3339(ctx.now)
    for condition in _conditions(new):
        if not condition.get("lastUpdateTime"):
            condition["lastUpdateTime"] = now
        if not condition.get("lastTransitionTime"):
            same = (
                each["lastTransitionTime"]
                for each in _of_kind(old, condition.get("type", ""))
                if each.get("status") == condition.get("status") and each.get("lastTransitionTime")
            )
            condition["lastTransitionTime"] = next(same, now)


def _check_spec(spec: Obj, errors: Errors) -> None:
    complaint = request_complaint(spec.get("request", ""))
    if complaint:
        errors.append(invalid("spec.request", spec.get("request", ""), complaint))
    usages = spec.get("usages") or []
    if not usages:
        errors.append(required("spec.usages"))
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            errors.append(not_supported(f"spec.usages[{index}]", usage, _USAGES))
    for index, usage in enumerate(usages):
        if usage in usages[:index]:
            errors.append(duplicate(f"spec.usages[{index}]", usage))
    signer, seconds = spec.get("signerName", ""), spec.get("expirationSeconds")
    if signer != LEGACY_SIGNER:
        check_signer_name(signer, "spec.signerName", errors)
    if seconds is not None and seconds < _SHORTEST:
        detail = f"may not specify a duration less than {_SHORTEST} seconds (10 minutes)"
        errors.append(invalid("spec.expirationSeconds", seconds, detail))


def _check_conditions(conditions: list[Obj], before: list[Obj], errors: Errors) -> None:
    """What was wrong in the stored object may stay."""
    path = "status.conditions"
    kinds, old_kinds = [each.get("type", "") for each in conditions], [each.get("type", "") for each in before]
    for index, condition in enumerate(conditions):
        kind, status = kinds[index], condition.get("status")
        if not kind and "" not in old_kinds:
            errors.append(required(f"{path}[{index}].type"))
        allowed = ("True",) if kind in _OUTCOMES else _STATUSES
        if not status:
            errors.append(required(f"{path}[{index}].status"))
        elif status not in allowed:
            errors.append(not_supported(f"{path}[{index}].status", status, allowed))
        other = {"Approved": "Denied", "Denied": "Approved"}.get(kind)
        if other in kinds[:index] and not {"Approved", "Denied"} <= set(old_kinds):
            errors.append(invalid(path, kind, "Approved and Denied conditions are mutually exclusive"))
        if kind in kinds[:index] and len(set(old_kinds)) == len(old_kinds):
            errors.append(duplicate(f"{path}[{index}].type", kind))


def _check_undecided(new: Obj, old: Obj, errors: Errors) -> None:
    for kind in ("Approved", "Denied"):
        conditions, before = _of_kind(new, kind), _of_kind(old, kind)
        if len(conditions) > len(before):
            detail = f'updates may not add a condition of type "{kind}"'
            errors.append(forbidden("status.conditions", detail))
        elif len(conditions) == len(before) and conditions != before:
            detail = f'updates may not modify a condition of type "{kind}"\n{changes(before, conditions)}'
            errors.append(forbidden("status.conditions", detail))


def _check_v1(new: Obj, old: Obj | None) -> list[FieldError]:
    signer = (new.get("spec") or {}).get("signerName")
    if old is not None or signer != LEGACY_SIGNER:
        return []
    return [invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version")]


def _of_v1beta1(request: Obj) -> Obj:
    """v1beta1 knew signers late: who says nothing gets the kubelets' or the one of old."""
    spec = request.setdefault("spec", {})
    if spec.get("usages") is None:
        spec["usages"] = ["digital signature", "key encipherment"]
    if spec.get("signerName") is None:
        spec["signerName"] = signer_of_kubelet(spec.get("request", ""), spec["usages"]) or LEGACY_SIGNER
    for condition in _conditions(request):
        if not condition.get("status"):
            condition["status"] = "True"
    return request


def _condition(request: Obj, now: datetime) -> str:
    status = request.get("status") or {}
    types = {each.get("type") for each in status.get("conditions") or ()}
    word = "Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"
    if "Failed" in types:
        word += ",Failed"
    return word + ",Issued" if status.get("certificate") else word


def _duration(request: Obj, now: datetime) -> str:
    seconds = request["spec"].get("expirationSeconds")
    return NONE if seconds is None else human_duration(seconds)


RESOURCES = (
    Resource(
        kind="CertificateSigningRequest",
        plural="certificatesigningrequests",
        singular="certificatesigningrequest",
        short_names=("csr",),
        namespaced=False,
        versions=(
            served("certificates.k8s.io", "v1", "CertificateSigningRequest", check=_check_v1),
            older(
                "certificates.k8s.io",
                "v1beta1",
                "CertificateSigningRequest",
                since="1.19",
                until="1.22",
                replacement="certificates.k8s.io/v1",
                to_storage=_of_v1beta1,
            ),
        ),
        strategy=CertificateSigningRequestStrategy(),
        columns=(
            NAME,
            AGE,
            Column("SignerName", text("spec", "signerName", absent=NONE)),
            Column("Requestor", text("spec", "username")),
            Column("RequestedDuration", _duration),
            Column("Condition", _condition),
        ),
        subresources=(STATUS, Subresource("approval", READ_WRITE, strategy=_ApprovalStrategy())),
        selectable={"spec.signerName": lambda request: request["spec"].get("signerName", "")},
    ),
)
