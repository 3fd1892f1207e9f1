"""Which ReplicaSet stands for which pod template, its revision number, and roll-back.

A ReplicaSet belongs to the template it has, compared field by field; the hash in its name and labels only has
to be the same for the same template, so ours need not be upstream's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from shipwheel.api.hashing import pod_template_hash
from shipwheel.api.meta import Obj, annotations_of, name_of, owner_reference
from shipwheel.controllers.deployment.sizing import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    fenceposts,
    new_set_size,
    replicas_of,
)
from shipwheel.controllers.templates import without_empty

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
ROLLBACK_TO = "deprecated.deployment.rollback.to"
TEMPLATE_HASH = "pod-template-hash"

_HISTORY_CHARACTERS = 2000
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        ROLLBACK_TO,
    }
)
_NAME_MAX = 253


def same_template(one: Obj, other: Obj) -> bool:
    """Equal pod templates, apart from the hash label and from what is empty."""
    return _bare(one) == _bare(other)


def _bare(template: Obj) -> Any:
    metadata = dict(template.get("metadata") or {})
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != TEMPLATE_HASH}
    metadata["labels"] = labels
    return without_empty({**template, "metadata": metadata})


def new_set(deployment: Obj, sets: Iterable[Obj]) -> Obj | None:
    """The oldest set with the Deployment's template."""
    template = _bare(deployment["spec"]["template"])
    matching = [rs for rs in sets if _bare(rs["spec"]["template"]) == template]
    return min(matching, key=_age, default=None)


def old_sets(sets: Iterable[Obj], new: Obj | None) -> list[Obj]:
    return [rs for rs in sets if new is None or rs["metadata"]["uid"] != new["metadata"]["uid"]]


def _age(rs: Obj) -> tuple[str, str]:
    return rs["metadata"].get("creationTimestamp") or "", name_of(rs)


def revision_of(rs: Obj) -> int:
    """0 when it has none, or no number."""
    text = annotations_of(rs).get(REVISION, "")
    return int(text) if text.isdecimal() else 0


def max_revision(sets: Iterable[Obj]) -> int:
    return max((revision_of(rs) for rs in sets), default=0)


def last_revision(sets: Iterable[Obj]) -> int:
    """The second highest: where an undo goes back to."""
    revisions = sorted((revision_of(rs) for rs in sets), reverse=True)
    return revisions[1] if len(revisions) > 1 else 0


def template_hash(template: Obj, collisions: int | None) -> str:
    """`collisions` makes it another one."""
    return pod_template_hash(_bare(template), collisions)


def make_set(deployment: Obj, old: Sequence[Obj]) -> Obj:
    """The ReplicaSet to create for a template that has none."""
    template = copy.deepcopy(deployment["spec"]["template"])
    hashed = template_hash(template, (deployment.get("status") or {}).get("collisionCount"))
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), TEMPLATE_HASH: hashed}
    selector = copy.deepcopy(deployment["spec"].get("selector") or {})
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), TEMPLATE_HASH: hashed}
    name = name_of(deployment)[: _NAME_MAX - 1 - len(hashed)]
    rs: Obj = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name}-{hashed}",
            "namespace": deployment["metadata"].get("namespace", ""),
            "labels": metadata["labels"],
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            "replicas": new_set_size(deployment, old, 0),
            "minReadySeconds": deployment["spec"].get("minReadySeconds") or 0,
            "selector": selector,
            "template": template,
        },
    }
    annotations = annotations_for(deployment, rs, max_revision(old) + 1)
    rs["metadata"]["annotations"] = {**annotations, **size_annotations(deployment)}
    return rs


def size_annotations(deployment: Obj) -> dict[str, str]:
    wanted = replicas_of(deployment)
    return {DESIRED_REPLICAS: str(wanted), MAX_REPLICAS: str(wanted + fenceposts(deployment).surge)}


def annotations_for(deployment: Obj, rs: Obj, revision: int) -> dict[str, str]:
    """The annotations that the new set should have: the Deployment's own, and a revision above all others. The
    revisions it had before (it is rolled back to) are kept as history."""
    annotations = dict(annotations_of(rs))
    for key, value in annotations_of(deployment).items():
        if key not in _NOT_COPIED:
            annotations[key] = value
    before = annotations.get(REVISION, "")
    if before and not before.isdecimal():
        return annotations
    if int(before or 0) < revision:
        annotations[REVISION] = str(revision)
        if before:
            history = [each for each in annotations.get(REVISION_HISTORY, "").split(",") if each]
            history.append(before)
            while len(",".join(history)) > _HISTORY_CHARACTERS:
                del history[0]
            annotations[REVISION_HISTORY] = ",".join(history)
    return annotations


def rollback_revision(deployment: Obj) -> int | None:
    """What the deprecated annotation asks to roll back to; 0: the last one; None: it does not ask."""
    text = annotations_of(deployment).get(ROLLBACK_TO, "")
    return int(text) if text.isdecimal() else None


def rolled_back(deployment: Obj, rs: Obj | None) -> Obj:
    """The Deployment without the request to roll back; with `rs`, with its template and annotations."""
    meta = deployment["metadata"]
    annotations = {key: value for key, value in annotations_of(deployment).items() if key != ROLLBACK_TO}
    if rs is None:
        return {**deployment, "metadata": {**meta, "annotations": annotations}}
    kept = {key: value for key, value in annotations.items() if key in _NOT_COPIED}
    taken = {key: value for key, value in annotations_of(rs).items() if key not in _NOT_COPIED}
    template = copy.deepcopy(rs["spec"]["template"])
    labels = (template.get("metadata") or {}).get("labels") or {}
    labels.pop(TEMPLATE_HASH, None)
    return {
        **deployment,
        "metadata": {**meta, "annotations": {**kept, **taken}},
        "spec": {**deployment["spec"], "template": template},
    }


def to_clean_up(deployment: Obj, old: Iterable[Obj]) -> list[Obj]:
    """The old sets beyond the history limit that have no pods."""
    limit = deployment["spec"].get("revisionHistoryLimit")
    if limit is None or limit == 2**31 - 1:
        return []
    alive = sorted(
        (rs for rs in old if not rs["metadata"].get("deletionTimestamp")),
        key=lambda rs: (revision_of(rs), *_age(rs)),
    )
    surplus = len(alive) - limit
    return [rs for rs in alive[: max(surplus, 0)] if _is_spent(rs)]


def _is_spent(rs: Obj) -> bool:
    status = rs.get("status") or {}
    observed = (rs["metadata"].get("generation") or 0) <= (status.get("observedGeneration") or 0)
    return replicas_of(rs) == 0 and not status.get("replicas") and observed
