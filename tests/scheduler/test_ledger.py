"""Which devices are taken while the watch lags behind what was written."""

from __future__ import annotations

from typing import Any

from shipwheel.scheduler.devices.ledger import Ledger
from shipwheel.scheduler.listers import Listers

DEVICE = ("gpu.example.com", "pool", "a")


def claim(name: str, version: int, *, allocated: bool = False) -> dict[str, Any]:
    driver, pool, device = DEVICE
    result = {"request": "r", "driver": driver, "pool": pool, "device": device}
    allocation = {"allocation": {"devices": {"results": [result]}}} if allocated else {}
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata, "status": allocation}


def taken(ledger: Ledger) -> bool:
    return ledger.in_use().has(DEVICE)


def test_what_was_written_counts_before_the_watch_shows_it() -> None:
    listers = Listers()
    ledger = Ledger(listers)
    listers.resource_claims.put(claim("a", 1))
    ledger.written(claim("a", 2, allocated=True))
    assert taken(ledger)
    ledger.written(claim("made", 4, allocated=True))
    listers.resource_claims.put(claim("a", 3))
    assert taken(ledger), "by the one that was made"
    listers.resource_claims.put(claim("made", 5))
    assert not taken(ledger)


def test_a_claim_that_is_deleted_before_its_allocation_was_seen() -> None:
    listers = Listers()
    ledger = Ledger(listers)
    listers.resource_claims.put(claim("a", 1))
    ledger.written(claim("a", 2, allocated=True))
    listers.resource_claims.remove("default", "a")
    assert not taken(ledger)
    assert ledger.claim("default", "a") is None


def test_a_claim_that_comes_and_goes_unseen() -> None:
    listers = Listers()
    ledger = Ledger(listers)
    ledger.written(claim("made", 2, allocated=True))
    assert taken(ledger), "the watch may not be there yet"
    listers.resource_claims.put(claim("b", 3))
    assert not taken(ledger), "the watch has passed it by"
