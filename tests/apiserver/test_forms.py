"""What is made of an object is made once, as long as there is room to keep it."""

from __future__ import annotations

from shipwheel.api.resource import Resource, Version
from shipwheel.api.schema import Schema
from shipwheel.apiserver.entries import Entry
from shipwheel.apiserver.forms import Forms

THINGS = Resource("Thing", "things", (Version("", "v1", Schema({})),))


def entry(name: str) -> Entry:
    return Entry(THINGS, f"ns/{name}", b'"metadata":{"name":"x"}}', 1)


def test_forms_go_when_there_are_too_many() -> None:
    entries = [entry(name) for name in "abc"]
    forms = Forms(lambda: entries, limit=100)
    forms.keep(entries[0], "row", b"0", 40)
    forms.keep(entries[0], "protobuf", b"1", 30)
    forms.keep(entries[1], "row", b"2", 30)
    assert entries[0].forms == {"row": b"0", "protobuf": b"1"} and entries[1].forms == {"row": b"2"}
    forms.keep(entries[2], "row", b"3", 1)
    assert [each.forms for each in entries] == [None, None, {"row": b"3"}]
    forms.keep(entries[1], "row", b"4", 99)
    assert entries[2].forms == {"row": b"3"}
