"""Ranges of ids for pods with users of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipwheel.api.meta import Obj
from shipwheel.kubelet.runtime.base import RuntimeHandler
from shipwheel.kubelet.security import IdRange
from shipwheel.kubelet.user_namespaces import UNIT, NamespaceFault, UserNamespaces
from tests.kubelet.builders import pod


def able(pod: Obj) -> RuntimeHandler:
    return RuntimeHandler(user_namespaces=True)


def own(uid: str) -> Obj:
    return pod(meta={"uid": uid}, hostUsers=False)


@pytest.mark.parametrize("spec", [{}, {"hostUsers": True}, {"hostUsers": None}])
def test_most_pods_share_the_hosts_users(tmp_path: Path, spec: Obj) -> None:
    assert UserNamespaces(tmp_path, lambda pod: RuntimeHandler()).range_of(pod(**spec)) is None


def test_each_pod_has_its_own_range_and_keeps_it(tmp_path: Path) -> None:
    spaces = UserNamespaces(tmp_path, able)
    assert spaces.range_of(own("a")) == IdRange(UNIT, UNIT)
    assert spaces.range_of(own("b")) == IdRange(2 * UNIT, UNIT)
    assert spaces.range_of(own("a")) == IdRange(UNIT, UNIT)

    again = UserNamespaces(tmp_path, able)
    assert again.range_of(own("c")) == IdRange(3 * UNIT, UNIT)
    assert again.range_of(own("b")) == IdRange(2 * UNIT, UNIT)
    again.release("a")
    assert again.range_of(own("d")) == IdRange(UNIT, UNIT)


def test_there_are_only_so_many(tmp_path: Path) -> None:
    spaces = UserNamespaces(tmp_path, able, available=(10 * UNIT, 2 * UNIT))
    assert [spaces.range_of(own(uid)) for uid in "ab"] == [IdRange(10 * UNIT, UNIT), IdRange(11 * UNIT, UNIT)]
    with pytest.raises(NamespaceFault, match="could not find an empty slot"):
        spaces.range_of(own("c"))
    spaces.release("a")
    assert spaces.range_of(own("c")) == IdRange(10 * UNIT, UNIT)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "can't set `spec.hostUsers: false`, runtime does not support user namespaces"),
        ("gv", 'can\'t set `spec.hostUsers: false`, RuntimeClass handler "gv" does not support user namespaces'),
    ],
)
def test_a_runtime_that_cannot(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(NamespaceFault) as caught:
        UserNamespaces(tmp_path, lambda pod: RuntimeHandler(name)).range_of(own("a"))
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"uidMappings": [{"hostId": 1, "containerId": 0, "length": 5}]}'])
def test_a_range_that_cannot_be_read_is_given_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "userns").write_text(text)
    assert UserNamespaces(tmp_path, able).range_of(own("a")) == IdRange(UNIT, UNIT)
