"""Lists whose items are decoded once."""

from __future__ import annotations

from typing import Any

import pytest

from shipwheel.api.protobuf import encode, parse_tables
from shipwheel.kubelet.runtime.base import RuntimeFault
from shipwheel.kubelet.runtime.listing import Listing

ITEM = parse_tables("Item name=1:string state=2:int32 labels=3:{string:string}")["Item"]


def wire(name: str, state: int = 0) -> bytes:
    return encode(ITEM, {"name": name, "state": state})


class Formed:
    """Remembers what it was asked to make."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, item: dict[str, Any]) -> tuple[str, int]:
        self.asked.append(item["name"])
        return item["name"], item["state"]


def test_only_what_is_new_is_decoded() -> None:
    form = Formed()
    listing = Listing(ITEM, form)
    assert listing.read([wire("a"), wire("b")]) == [("a", 0), ("b", 0)]
    assert listing.read([wire("b"), wire("a")]) == [("b", 0), ("a", 0)]
    assert form.asked == ["a", "b"]
    assert listing.read([wire("a", 1), wire("b")]) == [("a", 1), ("b", 0)]
    assert form.asked == ["a", "b", "a"]


def test_entries_of_maps_come_in_any_order() -> None:
    form = Formed()
    listing = Listing(ITEM, form)
    one, other = ({"x": "1"}, {"y": "2"})
    first = wire("a") + encode(ITEM, {"labels": one}) + encode(ITEM, {"labels": other})
    second = wire("a") + encode(ITEM, {"labels": other}) + encode(ITEM, {"labels": one})
    assert first != second
    assert listing.read([first]) == listing.read([second]) == [("a", 0)]
    assert form.asked == ["a"]


def test_what_went_is_forgotten() -> None:
    form = Formed()
    listing = Listing(ITEM, form)
    listing.read([wire("a")])
    assert listing.read([]) == []
    listing.read([wire("a")])
    assert form.asked == ["a", "a"]


def test_a_malformed_item_fails_the_list_and_nothing_is_lost() -> None:
    form = Formed()
    listing = Listing(ITEM, form)
    listing.read([wire("a")])
    with pytest.raises(RuntimeFault, match="reaches beyond"):
        listing.read([wire("a"), b"\x0a\x05x"])
    assert listing.read([wire("a")]) == [("a", 0)]
    assert form.asked == ["a"]
