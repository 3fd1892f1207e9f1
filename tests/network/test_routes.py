"""Which routes lead to other nodes' pods, and that the kernel comes to have just these."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.network.routes import Config, difference, wanted

CONFIG = Config(node_name="a", device="eth0", link="192.0.2.0/24")


def node(name: str, address: str = "", *cidrs: str) -> Obj:
    addresses = [{"type": "Hostname", "address": name}]
    if address:
        addresses.append({"type": "InternalIP", "address": address})
    return {"metadata": {"name": name}, "spec": {"podCIDRs": list(cidrs)}, "status": {"addresses": addresses}}


@pytest.mark.parametrize(
    ("nodes", "routes"),
    [
        ([], {}),
        ([node("a", "192.0.2.2", "10.0.0.0/24")], {}),
        ([node("b", "192.0.2.3", "10.0.1.0/24")], {"10.0.1.0/24": "192.0.2.3"}),
        ([node("b", "192.0.2.3", "10.0.1.0/24", "fd00::/64")], {"10.0.1.0/24": "192.0.2.3"}),
        # Not joined yet, without a range yet, off the link.
        ([node("b", "", "10.0.1.0/24"), node("c", "192.0.2.4"), node("d", "198.51.100.1", "10.0.2.0/24")], {}),
    ],
)
def test_wanted(nodes: list[Obj], routes: dict[str, str]) -> None:
    assert wanted(nodes, CONFIG) == routes


tables = st.dictionaries(st.sampled_from("abcde"), st.sampled_from("xyz"))


@given(have=tables, want=tables)
def test_the_difference_makes_the_one_from_the_other(have: dict[str, str], want: dict[str, str]) -> None:
    table = dict(have)
    for action, destination, *rest in difference(have, want):
        if action == "delete":
            del table[destination]
        else:
            assert rest[0] == "via"
            table[destination] = rest[1]
    assert table == want
    assert difference(want, want) == []
