"""Shuffle sharding: each flow is dealt a hand of queues, so that few flows share all of theirs with a crowded one."""

from __future__ import annotations

import hashlib


def flow_hash(schema: str, distinguisher: str) -> int:
    """64 bits that a flow has on every server."""
    return int.from_bytes(hashlib.sha256(f"{schema}\0{distinguisher}".encode()).digest()[:8], "little")


def deal(entropy: int, *, queues: int, hand: int) -> tuple[int, ...]:
    """`hand` different numbers below `queues`, evenly chosen by `entropy`."""
    dealt: list[int] = []
    for position in range(hand):
        entropy, card = divmod(entropy, queues - position)
        # `card` counts the queues that are left: step over those dealt before it.
        for other in sorted(dealt):
            card += card >= other
        dealt.append(card)
    return tuple(dealt)
