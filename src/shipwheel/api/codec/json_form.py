"""Objects as JSON: what comes in is read as Go would read it, what goes out starts with kind, apiVersion and metadata.

Upstream looks for duplicate fields in every body, since it warns of them unless told not to. Here it costs next to
nothing: a body that comes out of the encoder as it went into the decoder, but for spaces, has none. Only others are
looked at closer, by a parser that sees the pairs.
"""

from __future__ import annotations

import json
import math
import re
from itertools import islice
from typing import Any

import orjson

from shipwheel.api.codec import go_json
from shipwheel.api.meta import Obj
from shipwheel.api.schema import DecodeError
from shipwheel.api.schema.conform import MAX_STRICT_ERRORS, kind_of

_HEAD = ("kind", "apiVersion", "metadata")
_SPACE = b" \n\r\t"
_SURROGATE = re.compile("[\ud800-\udfff]")
_PARSE = "couldn't get version/kind; json parse error: "
_FIND_KIND = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
MAX_DEPTH = 254
"""How deep orjson writes. Upstream takes 10,000 levels, but no kind has a use for more than some dozens."""


def decode_json(raw: bytes, *, strict_duplicates: list[str] | None = None) -> Obj:
    """The object that `raw` holds; `null` is an empty one.

    Fields that are given twice are appended to `strict_duplicates`, if given, as `duplicate field "spec.x"`; the
    last one counts. Raises DecodeError with upstream's message.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _decode_anyway(raw)
    _check_repeated(raw, value, strict_duplicates)
    return as_object(value)


def _check_repeated(raw: bytes, value: Any, strict_duplicates: list[str] | None) -> None:
    """Append to `strict_duplicates`, if given, what `raw` says twice, of which `value` is what it says. Raises
    DecodeError where it is nested too deep."""
    if strict_duplicates is not None:
        again = _encode_again(value)
        if raw != again and raw.translate(None, _SPACE) != again.translate(None, _SPACE):
            strict_duplicates.extend(f'duplicate field "{path}"' for path in find_duplicates(raw))
    elif raw.count(b"{") + raw.count(b"[") >= MAX_DEPTH:
        _encode_again(value)


def read_json(raw: bytes, *, strict_duplicates: list[str] | None = None) -> Any:
    """Any JSON value, as `decode_json` reads objects; DecodeError without its prefix."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            value = _decode_anyway(raw)
        except DecodeError as error:
            raise DecodeError(str(error).removeprefix(_PARSE)) from None
    _check_repeated(raw, value, strict_duplicates)
    return value


def _encode_again(value: Any) -> bytes:
    """What is nested deeper than the encoder goes is refused when it comes in."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise DecodeError(f"{_PARSE}exceeded max depth") from None


def as_object(value: Any) -> Obj:
    """Check what is asked of every object before its kind is known; DecodeError if it is not so."""
    if value is None:
        return {}
    if value.__class__ is not dict:
        raise DecodeError(f"{_PARSE}json: cannot unmarshal {kind_of(value)} into Go value of type {_FIND_KIND}")
    for field in ("apiVersion", "kind"):
        text = value.get(field)
        if text is not None and text.__class__ is not str:
            raise DecodeError(
                f"{_PARSE}json: cannot unmarshal {kind_of(text)} into Go struct field .{field} of type string"
            )
    return value


def _decode_anyway(raw: bytes) -> Any:
    """Go takes some texts that orjson refuses: broken UTF-8 and lone surrogates are replaced, numbers may be huge."""
    text = raw.decode("utf-8", "replace")
    message = go_json.complaint(text)
    if message is not None:
        raise DecodeError(_PARSE + message)
    try:
        return _without_surrogates(json.loads(text, parse_int=_integer, parse_float=_float))
    except RecursionError:
        raise DecodeError(f"{_PARSE}exceeded max depth") from None


def _integer(text: str) -> float:
    """What is no 64-bit number becomes a float, as with orjson."""
    return int(text) if len(text) < 20 else _float(text)


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise DecodeError(f"json: cannot unmarshal number {text} into Go value of type float64")
    return number


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


class _Pairs(list[tuple[str, Any]]):
    """An object with every field that was written."""


def find_duplicates(raw: bytes) -> list[str]:
    """Paths of the fields that are given more than once, in the order of the document."""
    text = raw.decode("utf-8", "replace")
    repeated = False

    def note(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeated
        repeated = repeated or len({key for key, _ in pairs}) != len(pairs)

    try:
        json.loads(text, object_pairs_hook=note, parse_int=str)
        if not repeated:
            return []
        paths = dict.fromkeys(_duplicates(json.loads(text, object_pairs_hook=_Pairs, parse_int=str), ""))
    except RecursionError:
        raise DecodeError(f"{_PARSE}exceeded max depth") from None
    return list(paths)[:MAX_STRICT_ERRORS]


def _duplicates(value: Any, path: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, _Pairs):
        seen = set()
        for key, item in value:
            here = f"{path}.{key}" if path else key
            if key in seen:
                found.append(here)
            seen.add(key)
            found += _duplicates(item, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _duplicates(item, f"{path}[{index}]")
    return found


_HTML = tuple((character.encode(), b"\\u%04x" % ord(character)) for character in "<>&\u2028\u2029")


def places(raw: bytes) -> dict[str, int]:
    """Where each complaint about a field of this document belongs in the order of all: an unknown one where it first
    stands, a duplicate where it stands again."""
    found: dict[str, int] = {}

    def visit(value: Any, path: str) -> None:
        if isinstance(value, _Pairs):
            seen = set()
            for key, item in value:
                here = f"{path}.{key}" if path else key
                what = "duplicate" if key in seen else "unknown"
                found.setdefault(f'{what} field "{here}"', len(found))
                seen.add(key)
                visit(item, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, f"{path}[{index}]")

    visit(json.loads(raw.decode("utf-8", "replace"), object_pairs_hook=_Pairs, parse_int=str), "")
    return found


def encode_json(obj: Obj) -> bytes:
    """Compact JSON with `kind`, `apiVersion` and `metadata` first, then the other fields as they are."""
    return orjson.dumps(ordered(obj))


def html_safe(json: bytes) -> bytes:
    """The same JSON as Go's encoder writes it, fit to stand in HTML. It matters where Go's clients compare bytes."""
    for plain, escaped in _HTML:
        json = json.replace(plain, escaped)
    return json


def ordered(obj: Obj) -> Obj:
    """The same object with its first fields in their place."""
    head = [key for key in _HEAD if key in obj]
    if list(islice(obj, len(head))) == head:
        return obj
    return {key: obj[key] for key in head} | obj
