"""Deleting an object: at once, after a grace period, or when nothing holds it any more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from shipwheel.api.clock import Clock, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.api.patch.values import clone
from shipwheel.api.resource import Resource, Version, WriteContext
from shipwheel.apiserver.admission.chain import Admission, Attempt
from shipwheel.apiserver.entries import Entry
from shipwheel.apiserver.intake import WriteOptions
from shipwheel.apiserver.metadata import check_preconditions
from shipwheel.apiserver.storing import Storing, Written
from shipwheel.store.base import Mismatch


class Deleter:
    def __init__(self, storing: Storing, admission: Admission, clock: Clock, server: Any) -> None:
        self.storing = storing
        self.admission = admission
        self.clock = clock
        self.server = server

    async def delete(
        self, resource: Resource, version: Version, namespace: str, name: str, body: Obj, options: WriteOptions,
        *, admit: bool = True,
    ) -> Written:  # fmt: skip
        """Delete an object as `DeleteOptions` say: at once, after a grace period, or when its finalizers are gone."""
        while True:
            entry = await self.storing.current(resource, namespace, name)
            old = entry.decode()
            check_preconditions(resource, old, body.get("preconditions") or {})
            if admit:
                attempt = Attempt("DELETE", resource, version, namespace, name, options.user, None, old, "",
                                  options.dry_run, options.warnings)  # fmt: skip
                await self.admission.mutate(attempt)
                await self.admission.validate(attempt)
            refusal = resource.strategy.refuse_deletion(old)
            if refusal:
                raise ApiError(403, "Forbidden", refusal)
            try:
                return await self._delete(resource, version, entry, old, body, options)
            except Mismatch as mismatch:
                await self.storing.catch_up(mismatch)

    async def _delete(
        self, resource: Resource, version: Version, entry: Entry, old: Obj, body: Obj, options: WriteOptions
    ) -> Written:
        now = self.clock.now()
        strategy = resource.strategy
        new = clone(old)
        metadata = new["metadata"]
        finalizers = _deletion_finalizers(version, metadata.get("finalizers") or [], body)
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        requested = body.get("gracePeriodSeconds")
        grace = strategy.grace_period(old, requested)
        already = metadata.get("deletionTimestamp")
        if already and grace is not None:
            # A second deletion may only shorten the wait.
            known = metadata.get("deletionGracePeriodSeconds") or 0
            grace = min(grace, known)
        waits = bool(finalizers) or strategy.holds_deletion(new) or bool(grace)
        if waits and not already:
            metadata["deletionTimestamp"] = rfc3339(_after(now, grace or 0))
            metadata["deletionGracePeriodSeconds"] = grace or 0
            if strategy.tracks_generation and "generation" in metadata:
                metadata["generation"] += 1
            strategy.mark_deleted(new, WriteContext(options.user, now, resource, dry_run=options.dry_run))
        elif waits and grace is not None and grace < (metadata.get("deletionGracePeriodSeconds") or 0):
            metadata["deletionTimestamp"] = rfc3339(_after(now, grace))
            metadata["deletionGracePeriodSeconds"] = grace
        if options.dry_run:
            return Written(self.storing.imagined(resource, new, entry.revision), gone=not waits)
        if not waits:
            return await self.finish(resource, entry, new, changed=new != old)
        if new == old:
            return Written(entry)
        return Written(await self.storing.put(resource, new, entry.revision))

    async def finish(self, resource: Resource, entry: Entry, last: Obj, *, changed: bool = True) -> Written:
        """Remove an object that nothing holds any more, and give back what it had. `changed`: `last` is not what the
        entry says."""
        written = await self.storing.remove(resource, entry, last if changed else None)
        await resource.strategy.after_delete(last, self.server)
        return written


def _deletion_finalizers(version: Version, finalizers: list[str], body: Obj) -> list[str]:
    """The finalizers an object has once its deletion with these options has begun."""
    propagation = body.get("propagationPolicy")
    orphan = body.get("orphanDependents")
    wants_orphan = propagation == "Orphan" or orphan is True
    wants_foreground = propagation == "Foreground"
    if propagation is None and orphan is None:
        wants_orphan = "orphan" in finalizers or version.orphans
        wants_foreground = "foregroundDeletion" in finalizers and not wants_orphan
    kept = [each for each in finalizers if each not in ("orphan", "foregroundDeletion")]
    if wants_orphan:
        kept.append("orphan")
    elif wants_foreground:
        kept.append("foregroundDeletion")
    return kept


def _after(moment: datetime, seconds: int) -> datetime:
    return moment + timedelta(seconds=seconds)
