"""The annotation in which client-side `kubectl apply` keeps its last configuration.

When kubectl changes to applying on the server, what that annotation says kubectl owned is no conflict; and the
annotation is kept up, so that one can change back.
"""

from __future__ import annotations

from typing import Final

import orjson

from shipwheel.api.apply import fields as sets
from shipwheel.api.apply.check import check_configuration
from shipwheel.api.apply.compiled import merge_type
from shipwheel.api.apply.fields import Fields
from shipwheel.api.apply.types import MergeError
from shipwheel.api.meta import Obj
from shipwheel.api.names import byte_length
from shipwheel.api.objectmeta import TOTAL_ANNOTATION_SIZE_LIMIT
from shipwheel.api.schema.model import Schema

ANNOTATION: Final = "kubectl.kubernetes.io/last-applied-configuration"
MANAGER: Final = "kubectl"


def owned_by_annotation(live: Obj, schema: Schema, api_version: str) -> Fields:
    """The fields that the last client-side configuration set, and that still are as it set them."""
    text = (live["metadata"].get("annotations") or {}).get(ANNOTATION)
    if not text:
        return {}
    try:
        config = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(config, dict) or config.get("apiVersion") != api_version:
        return {}
    if check_configuration(config, schema):
        return {}
    kind = merge_type(schema)
    try:
        owned = kind.mentioned(config) or {}
        for changed in kind.compare(config, live):
            owned = sets.difference(owned, changed or {})
    except MergeError:
        return {}
    return owned


def keep_up(obj: Obj, config: Obj) -> None:
    """Write the configuration into the annotation, if the object has one and it stays small enough."""
    annotations = obj["metadata"].get("annotations") or {}
    if not annotations.get(ANNOTATION):
        return
    metadata = config.get("metadata") or {}
    if ANNOTATION in (metadata.get("annotations") or {}):
        kept = {name: value for name, value in metadata["annotations"].items() if name != ANNOTATION}
        config = {**config, "metadata": {**metadata, "annotations": kept}}
    annotations[ANNOTATION] = orjson.dumps(config, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    if sum(byte_length(name) + byte_length(value) for name, value in annotations.items()) > (
        TOTAL_ANNOTATION_SIZE_LIMIT
    ):
        del annotations[ANNOTATION]
