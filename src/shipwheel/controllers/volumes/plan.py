"""What to do about a claim, and about a volume: the binder's decisions.

Binding takes up to four writes (volume, its status, claim, its status), and the binder may be stopped after any of
them. So a decision depends on nothing but the objects as they are, and is the same one until all are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from shipwheel.api.meta import Obj, annotations_of, key_of, name_of
from shipwheel.kinds.claims import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    PROVISIONED_BY,
    SELECTED_NODE,
    best_match,
    class_of,
    is_reserved_for,
    mismatch,
    mode_of,
    says_class,
    waits_for_consumer,
)


@dataclass(frozen=True, slots=True)
class Event:
    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


# Claims


@dataclass(frozen=True, slots=True)
class Bind:
    """Make the claim and this volume name each other."""

    volume: Obj


@dataclass(frozen=True, slots=True)
class Pend:
    """Nothing can be done now."""

    event: Event | None = None


@dataclass(frozen=True, slots=True)
class Lose:
    """The claim was bound and its volume is gone; nobody can give it another."""

    event: Event


@dataclass(frozen=True, slots=True)
class AssignClass:
    """The claim names no class, and by now there is a default one."""

    name: str


@dataclass(frozen=True, slots=True)
class Provision:
    """Have a volume made for the claim."""


@dataclass(frozen=True, slots=True)
class Misbound:
    """We gave the claim a volume that another claim has: try again until one of them is corrected."""

    event: Event
    error: str


ClaimStep = Bind | Pend | Lose | AssignClass | Provision | Misbound


def plan_claim(
    claim: Obj,
    *,
    named: Obj | None,
    candidates: Iterable[Obj],
    storage_class: Obj | None,
    default_class: Obj | None,
    unscheduled: Sequence[str],
) -> ClaimStep:
    """What to do about a claim. `named` is the volume it names, if there is that, `candidates` those of its class
    or reserved for it, `unscheduled` the names of the pods that use it and have no node yet."""
    if BIND_COMPLETED in annotations_of(claim):
        return _keep(claim, named)
    if claim["spec"].get("volumeName"):
        return _take_named(claim, named)
    waits = waits_for_consumer(storage_class)
    match = best_match(claim, candidates, only_reserved=waits)
    if match is not None:
        return Bind(match)
    if not says_class(claim) and default_class is not None:
        return AssignClass(name_of(default_class))
    if waits and SELECTED_NODE not in annotations_of(claim):
        return Pend(_waiting(unscheduled))
    if class_of(claim):
        return Provision()
    message = "no persistent volumes available for this claim and no storage class is set"
    return Pend(Event("Normal", "FailedBinding", message))


def _keep(claim: Obj, volume: Obj | None) -> ClaimStep:
    if not claim["spec"].get("volumeName"):
        message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
        return Lose(Event("Warning", "ClaimLost", message))
    if volume is None:
        message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        return Lose(Event("Warning", "ClaimLost", message))
    reference = volume["spec"].get("claimRef")
    if not reference or reference.get("uid", "") == claim["metadata"]["uid"]:
        return Bind(volume)
    message = "Two claims are bound to the same volume, this one is bound incorrectly"
    return Lose(Event("Warning", "ClaimMisbound", message))


def _take_named(claim: Obj, volume: Obj | None) -> ClaimStep:
    if volume is None:
        return Pend()
    if not volume["spec"].get("claimRef"):
        if why := mismatch(volume, claim):
            message = f'Cannot bind to requested volume "{name_of(volume)}": {why}'
            return Pend(Event("Warning", "VolumeMismatch", message))
        return Bind(volume)
    if is_reserved_for(volume, claim):
        return Bind(volume)
    taken = Event("Warning", "FailedBinding", f'volume "{name_of(volume)}" already bound to a different claim.')
    if BOUND_BY_CONTROLLER not in annotations_of(claim):
        return Pend(taken)
    other = volume["spec"]["claimRef"]
    return Misbound(
        taken,
        f'invalid binding of claim "{key_of(claim)}" to volume "{name_of(volume)}": '
        f'volume already claimed by "{other.get("namespace", "")}/{other.get("name", "")}"',
    )


def _waiting(unscheduled: Sequence[str]) -> Event:
    if not unscheduled:
        message = "waiting for first consumer to be created before binding"
        return Event("Normal", "WaitForFirstConsumer", message)
    pods = f"pod {unscheduled[0]}" if len(unscheduled) == 1 else f"pods {','.join(unscheduled)}"
    return Event("Normal", "WaitForPodScheduled", f"waiting for {pods} to be scheduled")


# Volumes

VolumeStep = Literal["available", "bound", "bind", "mismatch", "release", "unbind"]
"""`available`, `bound`: that is its phase. `bind`: its claim is to take it. `mismatch`: its claim cannot.
`release`: its claim is gone, or has another volume and this one was made for it; reclaim it. `unbind`: its claim has
another volume, let go of it."""


def plan_volume(volume: Obj, claim: Obj | None) -> VolumeStep:
    """What to do about a volume; `claim` is the one it names (by its uid), if there is that."""
    reference = volume["spec"].get("claimRef")
    if not reference or not reference.get("uid"):
        return "available"
    if claim is None:
        return "release"
    chosen = claim["spec"].get("volumeName", "")
    if not chosen:
        return "mismatch" if mode_of(claim) != mode_of(volume) else "bind"
    if chosen == name_of(volume):
        return "bound"
    made_for_it = PROVISIONED_BY in annotations_of(volume)
    deletes = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    return "release" if made_for_it and deletes else "unbind"


def claim_status(claim: Obj, phase: str, volume: Obj | None) -> Obj:
    """The claim's status in a phase, bound to `volume` or to none; equal to what it was when nothing changes."""
    status = {**(claim.get("status") or {}), "phase": phase}
    if volume is None:
        for key in ("accessModes", "capacity", "currentVolumeAttributesClassName"):
            status.pop(key, None)
        return status
    status["accessModes"] = volume["spec"].get("accessModes") or []
    before = (claim.get("status") or {}).get("phase", "")
    if before != phase:
        # While bound, the capacity is for those who expand volumes to set.
        kept = annotations_of(volume).get("volume.alpha.kubernetes.io/pre-resize-capacity")
        storage = kept or (volume["spec"].get("capacity") or {}).get("storage", "0")
        status["capacity"] = {**(volume["spec"].get("capacity") or {}), "storage": storage}
    if before == "Pending" and phase == "Bound" and volume["spec"].get("volumeAttributesClassName"):
        status["currentVolumeAttributesClassName"] = volume["spec"]["volumeAttributesClassName"]
    return status
