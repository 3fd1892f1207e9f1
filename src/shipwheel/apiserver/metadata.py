"""The metadata that every kind shares: what the server fills in, what must match, what can never change."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from datetime import datetime
from itertools import count

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError, bad_request, conflict
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Resource, Strategy

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels, nor what looks like another character: what upstream generates names from."""

_FIXED, _VERSION_4 = 0xF << 76 | 0x3 << 62, 0x4 << 76 | 0x2 << 62
"""The bits of a UUID that are not random, and what they are."""


def generate_name(resource: Resource, base: str) -> str:
    """`base` and five random characters, cut to what the kind allows."""
    room = resource.strategy.generate_name_max - 5
    return base[:room] + "".join(secrets.choice(_ALPHABET) for _ in range(5))


def match_namespace(resource: Resource, metadata: Obj, namespace: str) -> None:
    """The namespace of the path counts; ApiError 400 when the object says another."""
    if not resource.namespaced:
        metadata.pop("namespace", None)
        return
    sent = metadata.get("namespace")
    if sent and sent != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace


def match_name(metadata: Obj, name: str) -> None:
    """The name of the path counts; ApiError 400 when the object says another."""
    sent = metadata.get("name")
    if sent and sent != name:
        raise bad_request(f"the name of the object ({sent}) does not match the name on the URL ({name})")
    metadata["name"] = name


def new_uid() -> str:
    """A random UUID (RFC 9562, version 4)."""
    number = int.from_bytes(os.urandom(16)) & ~_FIXED | _VERSION_4
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def serial_uids() -> Iterator[str]:
    """UUIDs that nobody need not guess: one random beginning, and a number that counts up."""
    beginning = new_uid()[:24]
    for number in count(secrets.randbits(40)):
        yield f"{beginning}{number:012x}"


def fill_new_metadata(metadata: Obj, now: datetime) -> None:
    """What the server alone says of a new object."""
    metadata["uid"] = new_uid()
    metadata["creationTimestamp"] = rfc3339(now)
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(key, None)


def keep_system_metadata(metadata: Obj, old: Obj) -> None:
    """What a client may leave out of an update, and what it can never take back."""
    if not metadata.get("uid") and "uid" in old:
        metadata["uid"] = old["uid"]
    if "creationTimestamp" in old:
        metadata["creationTimestamp"] = old["creationTimestamp"]
    metadata.pop("selfLink", None)
    if "deletionTimestamp" in old:
        metadata["deletionTimestamp"] = old["deletionTimestamp"]
        if "deletionGracePeriodSeconds" in old:
            metadata.setdefault("deletionGracePeriodSeconds", old["deletionGracePeriodSeconds"])
    if "generateName" in old:
        metadata.setdefault("generateName", old["generateName"])
    if "generation" in old:
        metadata["generation"] = old["generation"]
    else:
        metadata.pop("generation", None)


def count_generation(strategy: Strategy, new: Obj, old: Obj) -> None:
    """`generation` counts the changes of everything but metadata and status."""
    if not strategy.tracks_generation:
        return
    for key in new.keys() | old.keys():
        if key not in ("metadata", "status", "kind", "apiVersion") and new.get(key) != old.get(key):
            break
    else:
        if not strategy.annotations_count or _annotations(new) == _annotations(old):
            return
    new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


def _annotations(obj: Obj) -> Obj:
    return obj["metadata"].get("annotations") or {}


def is_finished(strategy: Strategy, obj: Obj) -> bool:
    """Whether the last thing that kept a deleted object has gone with this update."""
    metadata = obj["metadata"]
    return (
        bool(metadata.get("deletionTimestamp"))
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not strategy.holds_deletion(obj)
    )


def require_name(metadata: Obj, name: str) -> None:
    """A body that takes the place of an object says which; ApiError 400 when it says none or another."""
    if not metadata.get("name"):
        raise bad_request(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
    match_name(metadata, name)


def check_uid(resource: Resource, name: str, wanted: Obj, old: Obj | None) -> None:
    """409 when a body names the UID of another object than the one that is there."""
    metadata = wanted.get("metadata")
    given = metadata.get("uid") if isinstance(metadata, dict) else None
    if given and old is not None and given != old["metadata"].get("uid"):
        raise precondition_failed(resource, name, "UID", given, old["metadata"].get("uid"))


def precondition_failed(resource: Resource, name: str, what: str, wanted: object, found: object) -> ApiError:
    """409 for an object that is another than the client thinks."""
    why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
    return conflict(resource.group_resource, name, why)


def check_preconditions(resource: Resource, obj: Obj, wanted: Obj) -> None:
    """`DeleteOptions.preconditions`: the UID and the resource version that must still be those of the object."""
    metadata = obj["metadata"]
    for key, label, changed in (
        ("uid", "UID", "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "modified"),
    ):
        expected = wanted.get(key)
        if expected is not None and expected != metadata.get(key):
            why = (
                f"the {label} in the precondition ({expected}) does not match the {label} in record "
                f"({metadata.get(key)}). The object might have been {changed}"
            )
            raise conflict(GroupResource(resource.group, resource.kind), metadata["name"], why)
