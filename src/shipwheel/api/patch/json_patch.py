"""JSON patch (RFC 6902), with the liberties that upstream's library (evanphx/json-patch v4) takes.

It is laxer than the RFC where clients have come to rely on it: `replace` of a member that does not exist adds it,
`add` without a value adds null, and negative indices count from the end. It is stricter in what it may cost: the
number of operations and the size of what `copy` adds are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from shipwheel.api.errors import ApiError, bad_request, too_large
from shipwheel.api.meta import Obj
from shipwheel.api.patch.values import clone, json_type, same

MAX_OPERATIONS = 10_000
MAX_COPY_BYTES = 3 * 1024 * 1024

_Container = dict[str, Any] | list[Any]
_INDEX = re.compile("[+-]?[0-9]{1,18}").fullmatch

_MISSING = "missing value"
_BAD_INDEX = "invalid index referenced"


class JsonPatchError(ValueError):
    """Why a patch does not apply. Clients are not told (upstream hides it); it is the ApiError's cause."""


def apply_json_patch(original: Obj, patch: Any) -> Any:
    """The document that the operations of `patch` make of `original`.

    Raises ApiError: 400 for what is no patch, 413 for one that is too long, 422 for one that does not apply.
    """
    if patch is None:
        patch = []
    if not isinstance(patch, list):
        raise bad_request(f"json: cannot unmarshal {json_type(patch)} into Go value of type jsonpatch.Patch")
    for operation in patch:
        if not isinstance(operation, dict | None):
            raise bad_request(
                f"json: cannot unmarshal {json_type(operation)} into Go value of type jsonpatch.Operation"
            )
    if len(patch) > MAX_OPERATIONS:
        raise too_large(f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}")
    document = _Document(clone(original))
    try:
        for operation in patch:
            document.apply(operation or {})
    except JsonPatchError as error:
        raise ApiError(
            422, "Invalid", "the server rejected our request due to an error in our request", details={}
        ) from error
    return document.root


class _Document:
    """The document while it is changed. Operations see what those before them did."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._copied = 0
        self._operations: dict[str, Callable[[Obj], None]] = {
            "add": self._add,
            "remove": self._remove,
            "replace": self._replace,
            "move": self._move,
            "copy": self._copy,
            "test": self._test,
        }

    def apply(self, operation: Obj) -> None:
        kind = operation.get("op")
        kind = kind if isinstance(kind, str) else "unknown"
        if kind not in self._operations:
            raise JsonPatchError(f"Unexpected kind: {kind}")
        self._operations[kind](operation)

    def _find(self, path: str) -> tuple[_Container | None, str]:
        """What holds the value at `path`, None when there is nothing; and the last step to it."""
        _, *steps = path.split("/")
        if not steps:
            return None, ""
        place = self.root
        for step in steps[:-1]:
            try:
                place = _get(place, _decode(step))
            except JsonPatchError:
                return None, ""
            if not isinstance(place, dict | list):
                return None, ""
        return place, _decode(steps[-1])

    def _add(self, operation: Obj) -> None:
        path = _pointer(operation, "path", "add operation failed to decode path", hide=True)
        place, key = self._find(path)
        if place is None:
            raise JsonPatchError(f'add operation does not apply: doc is missing path: "{path}": {_MISSING}')
        try:
            _insert(place, key, clone(operation.get("value")))
        except JsonPatchError as error:
            raise JsonPatchError(f"error in add for path: '{path}': {error}") from None

    def _remove(self, operation: Obj) -> None:
        path = _pointer(operation, "path", "remove operation failed to decode path", hide=True)
        place, key = self._find(path)
        if place is None:
            raise JsonPatchError(f'remove operation does not apply: doc is missing path: "{path}": {_MISSING}')
        try:
            _delete(place, key)
        except JsonPatchError as error:
            raise JsonPatchError(f"error in remove for path: '{path}': {error}") from None

    def _replace(self, operation: Obj) -> None:
        path = _pointer(operation, "path", "replace operation failed to decode path")
        value = clone(operation.get("value"))
        if path == "":
            if not isinstance(value, dict | list):
                raise JsonPatchError("replace operation value must be object or array")
            self.root = value
            return
        place, key = self._find(path)
        if place is None:
            raise JsonPatchError(f"replace operation does not apply: doc is missing path: {path}: {_MISSING}")
        if isinstance(place, dict):
            place[key] = value
            return
        try:
            place[_index(place, key)] = value
        except JsonPatchError:
            raise JsonPatchError(f"replace operation does not apply: doc is missing key: {path}: {_MISSING}") from None

    def _move(self, operation: Obj) -> None:
        source = _pointer(operation, "from", "move operation failed to decode from")
        place, key = self._find(source)
        if place is None:
            raise JsonPatchError(f"move operation does not apply: doc is missing from path: {source}: {_MISSING}")
        try:
            value = _get(place, key)
            _delete(place, key)
        except JsonPatchError as error:
            raise JsonPatchError(f"error in move for path: '{key}': {error}") from None
        path = _pointer(operation, "path", "move operation failed to decode path")
        place, key = self._find(path)
        if place is None:
            raise JsonPatchError(f"move operation does not apply: doc is missing destination path: {path}: {_MISSING}")
        try:
            _insert(place, key, value)
        except JsonPatchError as error:
            raise JsonPatchError(f"error in move for path: '{path}': {error}") from None

    def _copy(self, operation: Obj) -> None:
        source = _pointer(operation, "from", "copy operation failed to decode from")
        place, key = self._find(source)
        if place is None:
            raise JsonPatchError(f"copy operation does not apply: doc is missing from path: {source}: {_MISSING}")
        try:
            value = _get(place, key)
        except JsonPatchError as error:
            raise JsonPatchError(f"error in copy for from: '{source}': {error}") from None
        path = _pointer(operation, "path", "copy operation failed to decode path", hide=True)
        place, key = self._find(path)
        if place is None:
            raise JsonPatchError(f"copy operation does not apply: doc is missing destination path: {path}: {_MISSING}")
        self._copied += len(orjson.dumps(value)) if value is not None else 0
        if self._copied > MAX_COPY_BYTES:
            raise JsonPatchError(
                f"Unable to complete the copy, the accumulated size increase of copy is {self._copied}, "
                f"exceeding the limit {MAX_COPY_BYTES}"
            )
        try:
            _insert(place, key, clone(value))
        except JsonPatchError as error:
            raise JsonPatchError(f"error while adding value during copy: {error}") from None

    def _test(self, operation: Obj) -> None:
        path = _pointer(operation, "path", "test operation failed to decode path")
        if path == "":
            value = self.root
        else:
            place, key = self._find(path)
            if place is None:
                raise JsonPatchError(f"test operation does not apply: is missing path: {path}: {_MISSING}")
            try:
                value = _get(place, key)
            except JsonPatchError as error:
                raise JsonPatchError(f"error in test for path: '{path}': {error}") from None
        if not same(value, operation.get("value")):
            raise JsonPatchError(f"testing value {path} failed: test failed")


def _pointer(operation: Obj, field: str, complaint: str, *, hide: bool = False) -> str:
    """A path of the operation; with `hide` the complaint does not say what exactly is wrong."""
    pointer = operation.get(field)
    if isinstance(pointer, str):
        return pointer
    if hide:
        detail = _MISSING
    elif pointer is None:
        comma = "," if field == "from" else ""
        detail = f"operation{comma} missing {field} field: {_MISSING}"
    else:
        detail = f"json: cannot unmarshal {json_type(pointer)} into Go value of type string"
    raise JsonPatchError(f"{complaint}: {detail}")


def _decode(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")


def _number(text: str) -> int:
    if not _INDEX(text):
        raise JsonPatchError(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _index(items: list[Any], key: str) -> int:
    """The position of an existing item."""
    index = _number(key)
    if not -len(items) <= index < len(items):
        raise JsonPatchError(f"Unable to access invalid index: {index}: {_BAD_INDEX}")
    return index


def _get(place: _Container, key: str) -> Any:
    """A member that an object lacks is null; an item that an array lacks is an error."""
    return place.get(key) if isinstance(place, dict) else place[_index(place, key)]


def _insert(place: _Container, key: str, value: Any) -> None:
    if isinstance(place, dict):
        place[key] = value
        return
    if key == "-":
        place.append(value)
        return
    try:
        index = _number(key)
    except JsonPatchError as error:
        raise JsonPatchError(f"value was not a proper array index: '{key}': {error}") from None
    size = len(place) + 1
    if not -size <= index < size:
        raise JsonPatchError(f"Unable to access invalid index: {index}: {_BAD_INDEX}")
    place.insert(index if index >= 0 else index + size, value)


def _delete(place: _Container, key: str) -> None:
    if isinstance(place, list):
        del place[_index(place, key)]
    elif key in place:
        del place[key]
    else:
        raise JsonPatchError(f"Unable to remove nonexistent key: {key}: {_MISSING}")
