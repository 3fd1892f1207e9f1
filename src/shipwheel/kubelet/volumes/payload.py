"""The files that ConfigMaps, Secrets and the downward API turn into. Pure functions."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.kubelet.downward import DownwardFault, PodFacts, field_value, resource_value
from shipwheel.kubelet.volumes.atomic import FileProjection
from shipwheel.kubelet.volumes.base import VolumeError

Files = dict[str, FileProjection]
DEFAULT_MODE = 0o644


def default_mode(source: Mapping[str, Any]) -> int:
    mode = source.get("defaultMode")
    return DEFAULT_MODE if mode is None else mode


def of_config_map(obj: Obj, items: list[Obj] | None, mode: int, *, optional: bool) -> Files:
    """`items` choose keys and their paths; without them every key is a file."""
    data = {key: text.encode() for key, text in (obj.get("data") or {}).items()}
    data |= {key: base64.b64decode(text) for key, text in (obj.get("binaryData") or {}).items()}
    return _chosen(data, items, mode, optional, "configmap references non-existent config key: ")


def of_secret(obj: Obj, items: list[Obj] | None, mode: int, *, optional: bool) -> Files:
    data = {key: base64.b64decode(text) for key, text in (obj.get("data") or {}).items()}
    return _chosen(data, items, mode, optional, "references non-existent secret key: ")


def _chosen(data: Mapping[str, bytes], items: list[Obj] | None, mode: int, optional: bool, complaint: str) -> Files:
    if not items:
        return {key: FileProjection(content, mode) for key, content in data.items()}
    files: Files = {}
    for item in items:
        key = item["key"]
        if key in data:
            files[item["path"]] = FileProjection(data[key], _mode(item, mode))
        elif not optional:
            raise VolumeError(complaint + key)
    return files


def of_downward(items: list[Obj], pod: Obj, facts: PodFacts, mode: int) -> Files:
    files: Files = {}
    for item in items:
        try:
            if "fieldRef" in item:
                text = field_value(pod, item["fieldRef"]["fieldPath"], facts)
            else:
                text = resource_value(pod, None, item["resourceFieldRef"], facts)
        except DownwardFault as error:
            raise VolumeError(str(error)) from error
        files[item["path"]] = FileProjection(text.encode(), _mode(item, mode))
    return files


def _mode(item: Obj, default: int) -> int:
    mode = item.get("mode")
    return default if mode is None else mode
