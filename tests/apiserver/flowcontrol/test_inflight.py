"""Plain limits: so many reads, so many writes, and nobody waits."""

from __future__ import annotations

from typing import Any

import pytest

from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.config import FLAGS, from_flags
from shipwheel.apiserver.flowcontrol.inflight import MaxInFlight
from shipwheel.apiserver.flowcontrol.places import TooMany
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.client.flags import FlagError, parse

USER = UserInfo("u", ("g",))
ADMIN = UserInfo("root", ("system:masters",))
LIST = RequestInfo("list", "/api/v1/pods", True, "", "v1", "", "pods")
CREATE = RequestInfo("create", "/api/v1/pods", True, "", "v1", "", "pods")
REQUEST: Any = None


def test_reads_and_writes_do_not_hinder_each_other() -> None:
    flow = MaxInFlight(reading=2, mutating=1)
    places = [flow.admit(info, USER, REQUEST) for info in (LIST, LIST, CREATE)]
    assert (flow.serving("readOnly"), flow.serving("mutating")) == (2, 1)
    for info in (LIST, CREATE):
        with pytest.raises(TooMany) as caught:
            flow.admit(info, USER, REQUEST)
        assert caught.value.retry_after == 1
    for place in places:
        place.leave()
        place.leave()
    assert (flow.serving("readOnly"), flow.serving("mutating")) == (0, 0)
    flow.admit(LIST, USER, REQUEST)


def test_administrators_always_get_through() -> None:
    flow = MaxInFlight(reading=1, mutating=1)
    flow.admit(LIST, USER, REQUEST)
    for _ in range(10):
        flow.admit(LIST, ADMIN, REQUEST)
    assert flow.serving("readOnly") == 1


@pytest.mark.parametrize("info", [
    RequestInfo("watch", "/api/v1/pods", True, "", "v1", "", "pods"),
    RequestInfo("create", "/api/v1/pods/p/exec", True, "", "v1", "ns", "pods", "exec", "p"),
])  # fmt: skip
def test_what_lasts_long_is_not_counted(info: RequestInfo) -> None:
    flow = MaxInFlight(reading=1, mutating=1)
    for _ in range(50):
        flow.admit(info, USER, REQUEST)
    assert (flow.serving("readOnly"), flow.serving("mutating")) == (0, 0)


def test_no_limit() -> None:
    flow = MaxInFlight(reading=0, mutating=0)
    for _ in range(100):
        flow.admit(LIST, USER, REQUEST)


BASE = [
    "--tls-cert-file=a", "--tls-private-key-file=b", "--service-account-signing-key-file=c", "--data-file=d",
    "--service-account-issuer=e",
]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--max-requests-inflight=0", "--max-mutating-requests-inflight=0"], "must add up"),
        (["--max-requests-inflight=-1"], "--max-requests-inflight can not be negative value"),
    ],
)  # fmt: skip
def test_flags_that_make_no_sense(flags: list[str], complaint: str) -> None:
    with pytest.raises(FlagError, match=complaint):
        from_flags(parse(FLAGS, [*BASE, *flags]).values)


def test_flags() -> None:
    config = from_flags(
        parse(FLAGS, [*BASE, "--enable-priority-and-fairness=false", "--max-requests-inflight=0"]).values
    )
    assert not config.enable_priority_and_fairness
    assert from_flags(parse(FLAGS, BASE).values).enable_priority_and_fairness
