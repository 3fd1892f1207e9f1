"""Views of shared caches that the storage controllers need."""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.meta import Obj, key_of, name_of, namespace_of
from shipwheel.client.informer import Informer
from shipwheel.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from shipwheel.controllers.framework import Context, version_of
from shipwheel.kinds.claims import claims_of, class_of


def claims_used(pod: Obj) -> list[str]:
    """The keys of the claims that a pod uses."""
    return [f"{namespace_of(pod)}/{name}" for name in claims_of(pod)]


def classes(obj: Obj) -> tuple[str, ...]:
    return (class_of(obj),)


def reservations(volume: Obj) -> Iterable[str]:
    """The claim that a volume names."""
    reference = volume["spec"].get("claimRef")
    return (f"{reference.get('namespace', '')}/{reference.get('name', '')}",) if reference else ()


def pods_of_claims(ctx: Context) -> Informer:
    """All pods, with the index `claim`."""
    pods = ctx.pods()
    pods.add_indexers({"claim": claims_used})
    return pods


def volumes(ctx: Context) -> Informer:
    """All volumes, with the indexes `class` and `claim`."""
    return ctx.informer(PERSISTENT_VOLUMES, {"class": classes, "claim": reservations})


def claims(ctx: Context) -> Informer:
    """All claims, with the index `class`."""
    return ctx.informer(PERSISTENT_VOLUME_CLAIMS, {"class": classes})


class Newest:
    """A cache, and on top of it what we wrote that it does not show yet.

    The binder decides about one claim after the other. Without its own last decisions it would give the same
    volume to several claims, to be told so by a conflict each time.
    """

    def __init__(self, informer: Informer) -> None:
        self._informer = informer
        self._written: dict[str, Obj] = {}

    def wrote(self, obj: Obj) -> Obj:
        """Take note of an object as the server answered it; returns it."""
        self._written[key_of(obj)] = obj
        return obj

    def get(self, namespace: str, name: str) -> Obj | None:
        cached = self._informer.get(namespace, name)
        return self._newest(cached) if cached is not None else None

    def by_index(self, index: str, value: str) -> Iterable[Obj]:
        return [self._newest(obj) for obj in self._informer.by_index(index, value)]

    def _newest(self, cached: Obj) -> Obj:
        written = self._written.get(key_of(cached)) if self._written else None
        if written is None:
            return cached
        if version_of(cached) < version_of(written) and name_of(cached) == name_of(written):
            return written
        del self._written[key_of(cached)]
        return cached

    def forget(self, obj: Obj) -> None:
        """The object is gone."""
        self._written.pop(key_of(obj), None)
