"""The patches that say what is to change (JSON, merge, strategic merge), as functions of what is there.

A patch is read when its object is at hand: upstream finds out that there is none before it finds a patch wrong. What
comes out and cannot be decoded is told as a fault of the patch, together with the outcome.
"""

from __future__ import annotations

from typing import Any

import orjson

from shipwheel.api import codec
from shipwheel.api.errors import ApiError, bad_request, invalid, invalid_object
from shipwheel.api.meta import GroupVersionKind, Obj
from shipwheel.api.patch.json_patch import apply_json_patch
from shipwheel.api.patch.merge_patch import apply_merge_patch
from shipwheel.api.patch.strategic import apply_strategic
from shipwheel.api.patch.values import show
from shipwheel.api.schema import DecodeError, Schema
from shipwheel.api.schema.conform import kind_of
from shipwheel.api.schema.restoring import why_not_restored
from shipwheel.apiserver.bodies import cannot_handle, check_custom_kind, check_kind
from shipwheel.apiserver.intake import WriteOptions, report_strict

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_OPERATION = "handlers.jsonPatchOp"
_MAP = "map[string]interface {}"


class Patcher:
    """A patch of one of the three kinds; called with the current object it makes the wanted one."""

    def __init__(
        self, raw: bytes, media: str, gvk: GroupVersionKind, schema: Schema, options: WriteOptions, *, custom: bool
    ) -> None:
        self._raw = raw
        self._media = media
        self._gvk = gvk
        self._schema = schema
        self._options = options
        self._custom = custom
        self._patch: Any = None
        self._made: Any = None

    def __call__(self, old: Obj | None) -> Obj:
        assert old is not None
        if self._patch is None:
            self._patch = self._read()
        if self._media == JSON_PATCH:
            new = apply_json_patch(old, self._patch)
        elif self._media == MERGE_PATCH:
            new = apply_merge_patch(old, self._patch)
        else:
            new = apply_strategic(old, self._patch, self._schema)
        self._made = new
        if not isinstance(new, dict):
            raise bad_request("the patched object is no object any more")
        if self._media == STRATEGIC_PATCH:  # says nothing of the kind
            if not all(isinstance(new.get(name), str | None) for name in ("kind", "apiVersion")):
                raise self.explain("")
            return {**new, "kind": self._gvk.kind, "apiVersion": str(self._gvk.group_version)}
        try:
            (check_custom_kind if self._custom else check_kind)(new, self._gvk)
        except ApiError as error:
            if error.code != 400:
                raise
            raise self.explain(error.message.removeprefix(cannot_handle(new.get("kind"), self._gvk))) from None
        return new

    def explain(self, why: str) -> ApiError:
        """422: what the patch made cannot be decoded; `why` in the words of the decoder of JSON."""
        if self._media == STRATEGIC_PATCH:
            shown, why = show(self._patch), why_not_restored(self._schema, self._made) or why
        else:
            shown = orjson.dumps(self._made).decode()
        return invalid_object("", "", "", [invalid("patch", shown, why)])

    def _read(self) -> Any:
        prefix = "" if self._media == STRATEGIC_PATCH else "error decoding patch: "
        duplicates: list[str] | None = [] if self._options.field_validation != "Ignore" else None
        try:
            patch = codec.read_json(self._raw, strict_duplicates=duplicates)
        except DecodeError as error:
            raise bad_request(f"{prefix}{error}") from None
        if self._media == JSON_PATCH:
            if not isinstance(patch, list):
                raise bad_request(f"{prefix}{_cannot_unmarshal(patch)} []{_OPERATION}")
            if strange := [each for each in patch if not isinstance(each, dict | None)]:
                raise bad_request(f"{prefix}{_cannot_unmarshal(strange[0])} {_OPERATION}")
        elif patch is None and self._media == MERGE_PATCH:
            raise bad_request("Invalid JSON Patch")
        elif patch is None:
            patch = {}
        elif not isinstance(patch, dict):
            raise bad_request(f"{prefix}{_cannot_unmarshal(patch)} {_MAP}")
        if duplicates:
            report_strict(duplicates, self._options, "patch", self._gvk.kind)
        return patch


def _cannot_unmarshal(value: Any) -> str:
    return f"json: cannot unmarshal {kind_of(value)} into Go value of type"
