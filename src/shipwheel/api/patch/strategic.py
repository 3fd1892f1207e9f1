"""Strategic merge patch: a merge patch that knows from the schema how lists are to be merged.

A list whose strategy is `merge` is a map in disguise, keyed by its merge key, or a set when its items are scalars.
All other lists are replaced whole. A patch may also hold directives:

- `$patch: replace` in an object takes the patch as it is; in a list's item, the list.
- `$patch: delete` empties an object; in a list's item, it takes that item away.
- `$deleteFromPrimitiveList/NAME` takes items from the list NAME of scalars.
- `$setElementOrder/NAME` orders the list NAME; items it does not mention keep their place among the others.
- `$retainKeys` takes away what it does not mention.

What the patch does not touch is in the result as it is in the original, not copied. Errors are upstream's, those it
answers with 500 too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from shipwheel.api.errors import ApiError, bad_request
from shipwheel.api.meta import Obj
from shipwheel.api.patch.values import clone, json_type, same, show

if TYPE_CHECKING:
    from shipwheel.api.schema.model import Schema

_DIRECTIVE = "$patch"
_RETAIN_KEYS = "$retainKeys"
_DELETE_ITEMS = "$deleteFromPrimitiveList"
_SET_ORDER = "$setElementOrder"

_BAD_DELETE_ITEMS = "invalid patch format of primitive list"
_BAD_RETAIN_KEYS = "invalid patch format of retainKeys"
_BAD_SET_ORDER = "invalid patch format of setElementOrder list"

_GO_TYPES = {
    "null": "%!s(<nil>)", "bool": "bool", "string": "string", "object": "map[string]interface {}",
    "array": "[]interface {}",
}  # fmt: skip


def apply_strategic(original: Obj, patch: Any, schema: Schema) -> Obj:
    """`original` with `patch` merged in, by the patch strategies that `schema` declares.

    Raises ApiError: 400 or 422 for a bad patch, 500 where upstream makes no difference between it and a fault.
    """
    if not isinstance(patch, dict):
        raise bad_request(f"json: cannot unmarshal {json_type(patch)} into Go value of type map[string]interface {{}}")
    return _merge_objects(original, clone(patch), schema)


def _fault(message: str) -> ApiError:
    """An error that upstream did not classify."""
    return ApiError(500, "", message)


def _merge_objects(original: Obj, patch: Obj, schema: Schema | None) -> Obj:
    if _DIRECTIVE in patch:
        return _directed(patch)
    original = dict(original)
    _retain_keys(original, patch)
    for key in [key for key in patch if key.startswith(_SET_ORDER)]:
        _merge_ordered(original, patch, key, schema)
    for key, change in patch.items():
        if key.startswith(_DELETE_ITEMS):
            _delete_items(original, _named(key, _DELETE_ITEMS), change, schema)
        elif change is None:
            original.pop(key, None)
        else:
            _merge_field(original, key, change, schema)
    return original


def _directed(patch: Obj) -> Obj:
    match patch.pop(_DIRECTIVE):
        case "replace":
            return patch
        case "delete":
            return {}
        case other:
            raise _fault(f"unknown patch type: {show(other)} in map: {show({**patch, _DIRECTIVE: other})}")


def _merge_field(original: Obj, key: str, change: Any, schema: Schema | None) -> None:
    value = original.get(key)
    if isinstance(value, dict) and isinstance(change, dict):
        field = _field(schema, key)
        replaced = _strategy(field) == "replace"
        original[key] = change if replaced else _merge_objects(value, change, field)
    elif isinstance(value, list) and isinstance(change, list):
        field = _field(schema, key)
        original[key] = _merge_lists(value, change, field) if _strategy(field) == "merge" else change
    elif isinstance(change, dict) and _DIRECTIVE in change:
        original.pop(key, None)
    else:
        original[key] = _plain(change)


def _field(schema: Schema | None, key: str) -> Schema | None:
    """The schema of a field; None where nothing is known, so that objects merge and lists are replaced."""
    if schema is None:
        return None
    return schema.properties.get(key) or schema.additional


def _strategy(field: Schema | None) -> str:
    """How the field is merged. `retainKeys` may stand beside it, and is told by the patch itself."""
    return next((each for each in field.patch_strategy if each != "retainKeys"), "") if field else ""


def _named(key: str, directive: str) -> str:
    """The field that a directive is about: what follows the slash."""
    prefix, slash, name = key.partition("/")
    if not slash or prefix != directive:
        raise bad_request(_BAD_DELETE_ITEMS if directive == _DELETE_ITEMS else _BAD_SET_ORDER)
    return name


def _plain(value: Any) -> Any:
    """A value for a place where there was none: without nulls and without what directives are about."""
    text = orjson.dumps(value)
    return _stripped(value) if b"null" in text or _DIRECTIVE.encode() in text else value


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _stripped(each)
            for key, each in value.items()
            if each is not None and not (isinstance(each, dict) and _DIRECTIVE in each)
        }
    if isinstance(value, list):
        return [_stripped(each) for each in value if not (isinstance(each, dict) and _DIRECTIVE in each)]
    return value


def _retain_keys(original: Obj, patch: Obj) -> None:
    if _RETAIN_KEYS not in patch:
        return
    retained = patch.pop(_RETAIN_KEYS)
    if not isinstance(retained, list):
        raise bad_request(_BAD_RETAIN_KEYS)
    for key, value in patch.items():
        if value is not None and not key.startswith((_DELETE_ITEMS, _SET_ORDER)) and key not in retained:
            raise bad_request(_BAD_RETAIN_KEYS)
    for key in [key for key in original if key not in retained]:
        del original[key]


# Lists.


def _delete_items(original: Obj, key: str, unwanted: Any, schema: Schema | None) -> None:
    if unwanted is None:
        original.pop(key, None)
        return
    items = original.get(key)
    if not isinstance(items, list) or not isinstance(unwanted, list) or not (items or unwanted):
        return
    if isinstance(_item_of(items, unwanted), dict):
        original[key] = _merge_lists(items, unwanted, _field(schema, key))
    else:
        original[key] = [item for item in items if not _contains(unwanted, item)]


def _merge_lists(original: list[Any], patch: list[Any], field: Schema | None) -> list[Any]:
    if not original and not patch:
        return original
    merge_key = field.patch_merge_key if field else ""
    if not isinstance(_item_of(original, patch), dict):
        merged = _unique([*original, *patch])
        return _arranged(merged, patch, original, "")
    if not merge_key:
        raise _fault("cannot merge lists without merge key for struct")
    original, patch = _directed_items(original, patch, merge_key)
    merged = list(original)
    for item in patch:
        found = _position(merged, _key_of(item, merge_key), merge_key)
        if found is None:
            merged.append(item)
        else:
            merged[found] = _merge_objects(merged[found], item, field.items if field else None)
    return _arranged(merged, patch, original, merge_key)


def _directed_items(original: list[Obj], patch: list[Obj], merge_key: str) -> tuple[list[Obj], list[Obj]]:
    """Both lists after the items of the patch that are directives have done their work."""
    plain = []
    replace = False
    for item in patch:
        match item.get(_DIRECTIVE, ""):
            case "":
                plain.append(item)
            case "delete":
                unwanted = _key_of(item, merge_key)
                original = [each for each in original if not same(each.get(merge_key), unwanted)]
            case "replace":
                replace = True
            case "merge":
                raise _fault("merging lists cannot yet be specified in the patch")
            case other:
                raise _fault(f"unknown patch type: {show(other)} in map: {show(item)}")
    return (plain, []) if replace else (original, plain)


def _merge_ordered(original: Obj, patch: Obj, directive: str, schema: Schema | None) -> None:
    """Merge the list that `$setElementOrder` is about, and bring it in that order. The patch is used up."""
    order = patch.pop(directive)
    key = _named(directive, _SET_ORDER)
    field = _field(schema, key)
    if schema is not None and field is None:
        raise _fault(f'unable to find api field in struct {schema.name.rpartition(".")[2]} for the json field "{key}"')
    for each in (order, original.get(key, []), patch.get(key, [])):
        if not isinstance(each, list):
            raise _fault(f"expected a []interface {{}}, but received a {_go_type(each)}")
    merge_key = field.patch_merge_key if field else ""
    wanted = patch.pop(key, None)
    present = original.get(key)
    _check_order(wanted or [], order, merge_key)
    if present is None and wanted is None:
        return
    if present is None:
        merged = _plain(wanted)
    elif wanted is None:
        merged = present
    else:
        merged = _merge_lists(present, wanted, field) if _strategy(field) == "merge" else wanted
    _item_of(present or [], wanted or [])
    live = _order_of_the_live(present or [], wanted or [], merge_key) if merge_key else present or []
    original[key] = _arranged(merged, order, live, merge_key)


def _check_order(patch: list[Any], order: list[Any], merge_key: str) -> None:
    """The items of the patch must be in the order's list, and follow one another as there."""
    pending = [item for item in patch if not (merge_key and _directive_of(item) == "delete")] if order else []
    for each in order:
        while pending and _directive_of(pending[0]):
            del pending[0]
        if not pending:
            break
        if same(_identity(pending[0], merge_key), _identity(each, merge_key)):
            del pending[0]
    if pending:
        raise _fault(f"The order in patch list:\n{show(patch)}\n doesn't match {_SET_ORDER} list:\n{show(order)}\n")


def _order_of_the_live(present: list[Any], wanted: list[Any], merge_key: str) -> list[Any]:
    """The live list as an order: items that the patch adds stand at its end, as many as it takes away."""
    keys = [item.get(merge_key) for item in wanted if isinstance(item, dict) and _directive_of(item) == "delete"]
    kept = [item for item in present if not (isinstance(item, dict) and _contains(keys, item.get(merge_key)))]
    room = len(present) - len(kept)
    if not room:
        return present
    left = [_identity(item, merge_key) for item in kept]
    added = [
        item for item in wanted
        if not _directive_of(item) and not _contains(left, _identity(item, merge_key))
    ]  # fmt: skip
    return kept + added[:room]


def _directive_of(item: Any) -> Any:
    return item.get(_DIRECTIVE, "") if isinstance(item, dict) else ""


def _arranged(items: list[Any], order: list[Any], live: list[Any], merge_key: str) -> list[Any]:
    """Items that `order` has follow it; the others keep the order of `live`; and the two are interleaved as
    in `live`, as far as that can be told."""
    mentioned = _Positions(order, merge_key)
    before = _Positions(live, merge_key)
    ordered = sorted((item for item in items if mentioned.of(item) is not None), key=mentioned.rank)
    others = sorted((item for item in items if mentioned.of(item) is None), key=before.rank)
    result = []
    rest = iter(others)
    other = next(rest, None)
    for item in ordered:
        place = before.of(item)
        while other is not None and place is not None and before.rank(other) < place:
            result.append(other)
            other = next(rest, None)
        result.append(item)
    if other is not None:
        result.append(other)
    return [*result, *rest]


class _Positions:
    """Where items stand in a list, by merge key or by value."""

    def __init__(self, items: list[Any], merge_key: str) -> None:
        self._merge_key = merge_key
        self._places: dict[Any, int] = {}
        for place, item in enumerate(items):
            self._places.setdefault(self._hashable(item), place)

    def _hashable(self, item: Any) -> Any:
        value = _key_of(item, self._merge_key) if self._merge_key else item
        if isinstance(value, dict | list):
            raise bad_request(_BAD_SET_ORDER)
        return type(value), value

    def of(self, item: Any) -> int | None:
        return self._places.get(self._hashable(item))

    def rank(self, item: Any) -> int:
        place = self.of(item)
        return len(self._places) if place is None else place


def _identity(item: Any, merge_key: str) -> Any:
    return _key_of(item, merge_key) if merge_key else item


def _key_of(item: Any, merge_key: str) -> Any:
    if not isinstance(item, dict):
        raise _fault(f"expected a map[string]interface {{}}, but received a {_go_type(item)}")
    if merge_key not in item:
        raise _fault(f"map: {show(item)} does not contain declared merge key: {merge_key}")
    return item[merge_key]


def _position(items: list[Obj], value: Any, merge_key: str) -> int | None:
    return next((i for i, each in enumerate(items) if same(each.get(merge_key), value)), None)


def _item_of(*lists: list[Any]) -> Any:
    """Any item, after checking that all are of one type."""
    items = [item for each in lists for item in each]
    if not items:
        raise _fault("no elements in any of the given slices")
    if isinstance(items[0], list):
        raise ApiError(422, "Invalid", "the server rejected our request due to an error in our request", details={})
    if any(type(item) is not type(items[0]) for item in items):
        raise _fault(f"list element types are not identical: {show(list(lists))}")
    return items[0]


def _unique(items: list[Any]) -> list[Any]:
    return list({(type(item), item): item for item in items}.values())


def _contains(items: list[Any], wanted: Any) -> bool:
    return any(same(item, wanted) for item in items)


def _go_type(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "int64" if isinstance(value, int) else "float64"
    return _GO_TYPES[json_type(value)]
