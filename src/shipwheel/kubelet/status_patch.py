"""The smallest strategic merge patch that turns one pod status into another. Pure.

Conditions merge by their type, so those of other writers are never touched; addresses are replaced as a whole.
"""

from __future__ import annotations

from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.kubelet.status import OWNED_CONDITIONS, SHARED_CONDITIONS

_REPLACED = ("podIPs", "hostIPs")
"""Lists with a merge key whose old entries are not to stay."""


def status_patch(uid: str, old: Obj, new: Obj) -> Obj | None:
    """A patch for the status subresource; None when nothing differs. The uid makes the server refuse it for another
    pod of the same name."""
    changes: Obj = {}
    for name in {**old, **new}:
        before, after = _bare(old.get(name)), _bare(new.get(name))
        if before == after:
            continue
        if name == "conditions":
            changes["conditions"] = _conditions(before or [], after or [])
        elif after is None:
            changes[name] = None
        elif name in _REPLACED:
            changes[name] = [*after, {"$patch": "replace"}]
        elif isinstance(after, dict):
            changes[name] = {**dict.fromkeys(before or ()), **after}
        else:
            changes[name] = after
    if not changes.get("conditions", True):
        del changes["conditions"]
    return {"metadata": {"uid": uid}, "status": changes} if changes else None


def _conditions(old: list[Obj], new: list[Obj]) -> list[Obj]:
    """The entries that are to change: ours that differ, and removals of ours that are not there any more."""
    ours = OWNED_CONDITIONS | SHARED_CONDITIONS
    before = {each["type"]: each for each in old}
    after = {each["type"] for each in new}
    changed: list[Obj] = []
    for each in new:
        last = before.get(each["type"])
        if each["type"] in ours and each != last:
            # What is left out of an entry would stay as it was.
            gone = {key: None for key in last or () if key not in each}
            changed.append({**gone, **each})
    removed = [{"type": kind, "$patch": "delete"} for kind in before if kind in OWNED_CONDITIONS and kind not in after]
    return changed + removed


def _bare(value: Any) -> Any:
    """Without what a server leaves out: nulls and empty values say the same as nothing."""
    if isinstance(value, dict):
        found = {key: _bare(each) for key, each in value.items()}
        return {key: each for key, each in found.items() if each is not None}
    if isinstance(value, list):
        return [_bare(each) for each in value] or None
    return value if value not in ("", None) else None


def same(old: Obj, new: Obj) -> bool:
    """Whether two statuses say the same."""
    return _bare(old) == _bare(new)
