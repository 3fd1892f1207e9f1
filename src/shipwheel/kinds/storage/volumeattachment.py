"""Volume attachments: a volume at a node."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, forbidden, invalid, required, too_long
from shipwheel.api.meta import Obj
from shipwheel.api.names import byte_length, name_is_dns_subdomain
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import MAX_INT32, Errors, check_immutable, check_rule
from shipwheel.kinds.columns import AGE, NAME, dig, text
from shipwheel.kinds.core.persistentvolume import check_inline_volume
from shipwheel.kinds.core.volumesources import check_csi_driver_name
from shipwheel.kinds.declare import STATUS, older, served

_MAX_METADATA = 256 * 1024
_MAX_MESSAGE = 1024
_ONE_OF = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"


class VolumeAttachmentStrategy(Strategy):
    returns_deleted = True
    allow_unconditional_update = False
    tracks_generation = False

    def validate(self, attachment: Obj) -> list[FieldError]:
        errors: Errors = []
        spec, status = attachment.get("spec") or {}, attachment.get("status") or {}
        check_csi_driver_name(spec.get("attacher", ""), "spec.attacher", errors)
        _check_source(spec.get("source") or {}, "spec.source", errors)
        check_rule(name_is_dns_subdomain, spec.get("nodeName", ""), "spec.nodeName", errors)
        _check_status(status, errors)
        volume = (spec.get("source") or {}).get("persistentVolumeName")
        if volume is not None:
            check_rule(name_is_dns_subdomain, volume, "spec.source.persistentVolumeName", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        check_immutable(new.get("spec"), old.get("spec"), "spec", errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self.validate_update(new, old)


def _check_source(source: Obj, path: str, errors: Errors) -> None:
    inline, volume = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
    if inline is None and volume is None:
        errors.append(required(path, _ONE_OF))
    elif inline is not None and volume is not None:
        errors.append(forbidden(path, _ONE_OF))
    elif inline is not None:
        check_inline_volume(inline, f"{path}.inlineVolumeSpec", errors)
    elif not volume:
        detail = "must specify non empty persistentVolumeName"
        errors.append(required(f"{path}.persistentVolumeName", detail))


def _check_status(status: Obj, errors: Errors) -> None:
    metadata = status.get("attachmentMetadata") or {}
    if sum(byte_length(key) + byte_length(value) for key, value in metadata.items()) > _MAX_METADATA:
        errors.append(too_long("status.attachmentMetadata", _MAX_METADATA))
    for field in ("attachError", "detachError"):
        error, path = status.get(field) or {}, f"status.{field}"
        if byte_length(error.get("message", "")) > _MAX_MESSAGE:
            errors.append(too_long(f"{path}.message", _MAX_METADATA))  # the limit that upstream names
        code = error.get("errorCode")
        if code is not None and code < 0:
            errors.append(invalid(f"{path}.errorCode", code, f"must be between 0 and {MAX_INT32}, inclusive"))


RESOURCES = (
    Resource(
        kind="VolumeAttachment",
        plural="volumeattachments",
        singular="volumeattachment",
        namespaced=False,
        versions=(
            served("storage.k8s.io", "v1", "VolumeAttachment"),
            older(
                "storage.k8s.io",
                "v1beta1",
                "VolumeAttachment",
                since="1.19",
                until="1.22",
                replacement="storage.k8s.io/v1",
            ),
        ),
        strategy=VolumeAttachmentStrategy(),
        columns=(
            NAME,
            Column("Attacher", text("spec", "attacher"), format="name"),
            Column("PV", text("spec", "source", "persistentVolumeName")),
            Column("Node", text("spec", "nodeName")),
            Column("Attached", lambda obj, now: bool(dig(obj, "status", "attached")), type="boolean"),
            AGE,
        ),
        subresources=(STATUS,),
    ),
)
