"""How wide requests are thought to be."""

from __future__ import annotations

from typing import Any

import pytest

from shipwheel.apiserver.flowcontrol.places import TooMany
from shipwheel.apiserver.flowcontrol.queueset import NARROW, Width
from shipwheel.apiserver.flowcontrol.retries import RetryAfter
from shipwheel.apiserver.flowcontrol.watches import Watches
from shipwheel.apiserver.flowcontrol.width import Stored, width_of_list, width_of_write
from shipwheel.apiserver.requestinfo import RequestInfo, request_info
from shipwheel.client.httpserver import Request

MANY = Stored(1000, 2_000_000)
HUGE = Stored(10_000, 100_000_000)


def get(target: str) -> tuple[RequestInfo, Request]:
    connection: Any = None
    request = Request(connection, "GET", target.encode(), [], True)
    return request_info(request), request


@pytest.mark.parametrize(
    ("target", "stored", "most", "seats"),
    [
        ("/api/v1/pods", MANY, 0, 10),
        ("/api/v1/pods", MANY, 4, 4),
        ("/api/v1/pods", None, 0, 1),
        ("/api/v1/pods", Stored(0, 0), 0, 1),
        ("/api/v1/pods?limit=100", MANY, 0, 2),
        ("/api/v1/pods?limit=500", MANY, 0, 10),
        ("/api/v1/pods?fieldSelector=metadata.name%3Dx", MANY, 0, 1),
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dx", Stored(1000, 300_000), 0, 3),
        ("/api/v1/pods?resourceVersion=5&resourceVersionMatch=Exact", HUGE, 0, 100),
        ("/api/v1/pods?resourceVersion=5&resourceVersionMatch=NotOlderThan", HUGE, 0, 10),
        ("/api/v1/pods?resourceVersion=5&limit=100", HUGE, 0, 10),
        ("/api/v1/pods?continue=x&limit=500", HUGE, 0, 50),
        ("/api/v1/pods?continue=x&limit=500&labelSelector=a", HUGE, 0, 100),
        ("/api/v1/pods?limit=many", MANY, 0, 10),
        ("/api/v1/pods?watch=1", MANY, 0, 10),
        ("/api/v1/pods?watch=1&resourceVersion=0", MANY, 0, 10),
        ("/api/v1/pods?watch=1&resourceVersion=7", MANY, 0, 1),
        ("/api/v1/pods?watch=1&resourceVersion=7&sendInitialEvents=true", MANY, 0, 10),
    ],
)
def test_lists_and_watches(target: str, stored: Stored | None, most: int, seats: int) -> None:
    assert width_of_list(*get(target), stored, most).seats == seats


WRITE = RequestInfo("update", "/x", True, "", "v1", "ns", "pods", "", "p")


@pytest.mark.parametrize(
    ("watches", "most", "expected"),
    [
        (0, 0, NARROW),
        (9, 0, NARROW),
        (10, 0, Width(1, 1, 0.005)),
        (25, 0, Width(1, 3, 0.005)),
        (200, 0, Width(1, 10, 0.01)),
        (200, 4, Width(1, 4, 0.025)),
    ],
)
def test_writes(watches: int, most: int, expected: Width) -> None:
    assert width_of_write(WRITE, watches, most) == expected


def test_tokens_are_watched_by_nobody() -> None:
    token = RequestInfo("create", "/x", True, "", "v1", "ns", "serviceaccounts", "token", "default")
    assert width_of_write(token, 1000, 0) is NARROW


def test_who_watches_what() -> None:
    watches = Watches()
    targets = (
        "/api/v1/pods?watch=1",
        "/api/v1/namespaces/ns/pods?watch=1",
        "/api/v1/namespaces/ns/pods/p?watch=1",
        "/api/v1/namespaces/ns/pods?watch=1&fieldSelector=metadata.name%3Dp",
        "/api/v1/namespaces/other/pods?watch=1",
        "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn",
        "/api/v1/nodes?watch=1",
    )
    ends = [watches.begin(*get(target)) for target in targets]
    assert watches.running == 7
    assert watches.interested(WRITE) == 4
    assert watches.interested(RequestInfo("create", "/x", True, "", "v1", "ns", "pods")) == 2
    for end in ends:
        end()
    assert (watches.running, watches.interested(WRITE)) == (0, 0)


def test_too_many_watches() -> None:
    watches = Watches(1)
    end = watches.begin(*get("/api/v1/pods?watch=1"))
    with pytest.raises(TooMany):
        watches.begin(*get("/api/v1/pods?watch=1"))
    end()
    watches.begin(*get("/api/v1/pods?watch=1"))


def test_who_is_sent_away_often_is_told_to_wait_longer() -> None:
    retry = RetryAfter()
    told = []
    for second in range(100, 140):
        for _ in range(50):
            retry.note(second)
        told.append(retry.seconds)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (1, 32)
    for second in range(1000, 4000, 90):
        retry.note(second)
    assert retry.seconds == 1
