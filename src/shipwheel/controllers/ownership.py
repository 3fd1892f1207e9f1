"""Adopting orphans and releasing what no longer matches: who controls what, by selector and controller reference.

`sort_claims` decides; `Claims` acts. An orphan is adopted only after the server itself has confirmed that the
owner is not being deleted: the cache may not know yet, and an adopted object would be deleted with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    GroupVersionResource,
    Obj,
    controller_of,
    is_being_deleted,
    labels_of,
    name_of,
    namespace_of,
    uid_of,
)
from shipwheel.client.client import Client
from shipwheel.controllers.framework import Retry


@dataclass(frozen=True, slots=True)
class Sorted:
    owned: tuple[Obj, ...]
    adopt: tuple[Obj, ...]
    release: tuple[Obj, ...]


def sort_claims(owner: Obj, candidates: Iterable[Obj], matches: Callable[[dict[str, str]], bool]) -> Sorted:
    """What of the candidates (of the owner's namespace) is the owner's, should become so, or no longer be."""
    owned: list[Obj] = []
    adopt: list[Obj] = []
    release: list[Obj] = []
    leaving = is_being_deleted(owner)
    for obj in candidates:
        reference = controller_of(obj)
        if reference is not None:
            if reference["uid"] != uid_of(owner):
                continue
            if matches(labels_of(obj)):
                owned.append(obj)
            elif not leaving:
                release.append(obj)
        elif (
            not leaving
            and not is_being_deleted(obj)
            and namespace_of(obj) == namespace_of(owner)
            and matches(labels_of(obj))
        ):
            adopt.append(obj)
    return Sorted(tuple(owned), tuple(adopt), tuple(release))


async def claim(
    client: Client,
    owner: Obj,
    owner_resource: GroupVersionResource,
    resource: GroupVersionResource,
    candidates: Iterable[Obj],
    matches: Callable[[dict[str, str]], bool],
    *,
    add_finalizers: tuple[str, ...] = (),
) -> list[Obj]:
    """Adopt and release what `sort_claims` says; returns everything the owner now controls.

    Raises ApiError when somebody else was faster (to be tried again on a newer cache).
    """
    sorted_ = sort_claims(owner, candidates, matches)
    claimed = list(sorted_.owned)
    for obj in sorted_.release:
        await release(client, resource, obj, uid_of(owner), drop_finalizers=add_finalizers)
    if sorted_.adopt:
        await _confirm_alive(client, owner, owner_resource)
        for obj in sorted_.adopt:
            adopted = await adopt(client, resource, obj, owner, add_finalizers=add_finalizers)
            if adopted is not None:
                claimed.append(adopted)
    return claimed


async def _confirm_alive(client: Client, owner: Obj, resource: GroupVersionResource) -> None:
    name, namespace = name_of(owner), namespace_of(owner)
    fresh = await client.get(resource, name, namespace)
    if uid_of(fresh) != uid_of(owner):
        why = f"got uid {uid_of(fresh)}, wanted {uid_of(owner)}"
        raise Retry(f"original {owner.get('kind')} {namespace}/{name} is gone: {why}")
    if is_being_deleted(fresh):
        when = fresh["metadata"]["deletionTimestamp"]
        raise Retry(f"{namespace}/{name} has just been deleted at {when}")


async def adopt(
    client: Client,
    resource: GroupVersionResource,
    obj: Obj,
    owner: Obj,
    *,
    add_finalizers: tuple[str, ...] = (),
) -> Obj | None:
    """Make `owner` the controller of an orphan; None when that is gone."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata: dict[str, Any] = {"ownerReferences": [reference], "uid": uid_of(obj)}
    if add_finalizers:
        metadata["finalizers"] = list(add_finalizers)
    return await _patch(client, resource, obj, {"metadata": metadata})


async def release(
    client: Client,
    resource: GroupVersionResource,
    obj: Obj,
    owner_uid: str,
    *,
    drop_finalizers: tuple[str, ...] = (),
) -> Obj | None:
    """Take an owner reference away; None when the object is gone or is another one by now."""
    metadata: dict[str, Any] = {
        "ownerReferences": [{"$patch": "delete", "uid": owner_uid}],
        "uid": uid_of(obj),
    }
    if drop_finalizers:
        metadata["$deleteFromPrimitiveList/finalizers"] = list(drop_finalizers)
    try:
        return await _patch(client, resource, obj, {"metadata": metadata})
    except ApiError as error:
        if error.reason != "Invalid":
            raise
        return None


async def _patch(client: Client, resource: GroupVersionResource, obj: Obj, patch: Obj) -> Obj | None:
    try:
        return await client.patch(resource, name_of(obj), namespace_of(obj), patch, kind="strategic")
    except ApiError as error:
        if error.code != 404:
            raise
        return None
