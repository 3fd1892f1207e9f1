"""Hands of queues."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from shipwheel.apiserver.flowcontrol.shuffle import deal, flow_hash


@given(st.integers(0, 2**64 - 1), st.integers(1, 512), st.data())
def test_a_hand_has_different_queues(entropy: int, queues: int, data: st.DataObject) -> None:
    hand = deal(entropy, queues=queues, hand=data.draw(st.integers(1, min(queues, 8))))
    assert len(set(hand)) == len(hand)
    assert all(0 <= card < queues for card in hand)


def test_every_hand_is_as_likely_as_any_other() -> None:
    hands = Counter(deal(entropy, queues=5, hand=3) for entropy in range(5 * 4 * 3))
    assert hands == Counter(permutations(range(5), 3))


def test_a_flow_has_the_same_hash_everywhere() -> None:
    assert flow_hash("global-default", "dora") == flow_hash("global-default", "dora")
    assert flow_hash("a", "b") != flow_hash("ab", "") != flow_hash("", "ab")
    assert 0 <= flow_hash("global-default", "dora") < 2**64
