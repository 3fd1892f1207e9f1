"""Random operations, and a model that says what must come of them."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from storehelpers import EtcdServer, events, watching

from shipwheel.api.clock import SystemClock
from shipwheel.store.base import ABSENT, Compacted, Event, FutureRevision, KeyValue, Mismatch, Store
from shipwheel.store.etcd import EtcdStore
from shipwheel.store.sqlite import SqliteStore

KEYS = st.sampled_from(["/a", "/a/1", "/a/2", "/a/é", "/b/1", "/b/\U0001f511", "/b0"])
PREFIXES = st.sampled_from(["", "/", "/a", "/a/", "/b/", "/c"])
VALUES = st.binary(max_size=20) | st.integers(0, 12_000).map(bytes)
CHANCE = st.floats(0, 1)


class Model:
    """A store as simple as can be: all events ever."""

    def __init__(self, revision: int) -> None:
        self.base = self.compacted = revision
        self.events: list[Event] = []

    @property
    def revision(self) -> int:
        return self.events[-1].revision if self.events else self.base

    def at(self, revision: int) -> dict[str, KeyValue]:
        state: dict[str, KeyValue | None] = {}
        for event in self.events:
            if event.revision <= revision:
                state[event.key] = event.current
        return {key: state[key] for key in sorted(state) if state[key] is not None}  # type: ignore[misc]

    def current(self, key: str) -> KeyValue | None:
        return self.at(self.revision).get(key)

    def put(self, key: str, value: bytes) -> KeyValue:
        before, revision = self.current(key), self.revision + 1
        after = KeyValue(key, value, revision, before.create_revision if before else revision)
        self.events.append(Event(revision, key, after, before))
        return after

    def delete(self, key: str) -> KeyValue | None:
        before, revision = self.current(key), self.revision + 1
        if before is None:
            return None
        self.events.append(Event(revision, key, None, before))
        return KeyValue(key, before.value, revision, before.create_revision)

    def between(self, low: int, high: int, chance: float) -> int:
        return low + round((high - low) * chance)


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to the model."""

    store: Store
    model: Model

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(asyncio.wait_for(work, 20))

    def make_store(self) -> Store:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.store = self.make_store()
        self.run(self.store.open())
        self.model = Model(self.run(self.store.revision()))
        self.run(self.store.compact(self.model.revision))

    @rule(key=KEYS, value=VALUES)
    def put(self, key: str, value: bytes) -> None:
        assert self.run(self.store.put(key, value)) == self.model.put(key, value)

    @rule(key=KEYS, value=VALUES, which=CHANCE, deletes=st.booleans())
    def compare_and_swap(self, key: str, value: bytes, which: float, deletes: bool) -> None:
        current = self.model.current(key)
        revision = current.mod_revision if current else ABSENT
        wrong = self.model.between(0, self.model.revision + 3, which)
        expected = revision if which < 0.6 else wrong
        work = self.store.delete(key, expected=expected) if deletes else self.store.put(key, value, expected=expected)
        if expected == revision:
            assert self.run(work) == (self.model.delete(key) if deletes else self.model.put(key, value))
        else:
            with pytest.raises(Mismatch) as mismatch:
                self.run(work)
            assert mismatch.value.current == current

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        assert self.run(self.store.delete(key)) == self.model.delete(key)

    @rule(writes=st.lists(st.tuples(KEYS, st.none() | VALUES), max_size=8))
    def write_at_once(self, writes: list[tuple[str, bytes | None]]) -> None:
        """Each exactly once, in an order that only the store decides."""

        async def work() -> list[KeyValue | None]:
            return await asyncio.gather(
                *(self.store.delete(key) if value is None else self.store.put(key, value) for key, value in writes)
            )

        outcomes = self.run(work())
        done = sorted((outcome.mod_revision, index) for index, outcome in enumerate(outcomes) if outcome is not None)
        for _, index in done:
            key, value = writes[index]
            expected = self.model.delete(key) if value is None else self.model.put(key, value)
            assert outcomes[index] == expected

    @rule(chance=CHANCE)
    def compact(self, chance: float) -> None:
        revision = self.model.between(self.model.compacted, self.model.revision, chance)
        self.run(self.store.compact(revision))
        self.model.compacted = max(self.model.compacted, revision)

    @rule(prefix=PREFIXES, chance=CHANCE, limit=st.integers(0, 4), start=st.none() | KEYS)
    def read(self, prefix: str, chance: float, limit: int, start: str | None) -> None:
        low = max(1, self.model.compacted - 3)
        revision = self.model.between(low, self.model.revision + 1, chance)
        work = self.store.range(prefix, start=start, limit=limit, revision=revision)
        if revision < self.model.compacted:
            with pytest.raises(Compacted) as compacted:
                self.run(work)
            assert compacted.value.oldest == self.model.compacted
        elif revision > self.model.revision:
            with pytest.raises(FutureRevision):
                self.run(work)
        else:
            page = self.run(work)
            found = [
                kv for kv in self.model.at(revision).values() if kv.key.startswith(prefix) and kv.key >= (start or "")
            ]
            assert page.items == (found[:limit] if limit else found)
            assert page.remaining == len(found) - len(page.items)
            assert page.revision == revision

    @rule(prefix=PREFIXES, chance=CHANCE)
    def watch(self, prefix: str, chance: float) -> None:
        after = self.model.between(self.model.compacted, self.model.revision, chance)
        due = [event for event in self.model.events if event.revision > after and event.key.startswith(prefix)]

        async def work() -> list[Event]:
            async with watching(self.store, prefix, after) as progress:
                return await events(progress, len(due))

        assert self.run(work()) == due

    @rule()
    def look(self) -> None:
        current = self.model.at(self.model.revision)
        page = self.run(self.store.range(""))
        assert list(page.items) == list(current.values())
        assert page.revision == self.model.revision == self.run(self.store.revision())
        for key in ("/a", "/a/1", "/none"):
            assert self.run(self.store.get(key)) == current.get(key)

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.store = self.make_store()
        self.run(self.store.open())
        self.look()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.store.close())
        self.runner.close()


class SqliteMachine(StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="store-model-")
        self.path = Path(self.directory.name) / "store.db"

    def make_store(self) -> Store:
        return SqliteStore(str(self.path), clock=SystemClock())

    @rule(writes=st.lists(st.tuples(KEYS, VALUES), max_size=12), turns=st.integers(0, 6), chance=st.randoms())
    def crash(self, writes: list[tuple[str, bytes]], turns: int, chance: random.Random) -> None:
        """Stop in the midst of writes. What was acknowledged is there, and of the rest a part that makes sense."""

        async def work() -> list[KeyValue]:
            puts = [asyncio.ensure_future(self.store.put(key, value)) for key, value in writes]
            for _ in range(turns):
                await asyncio.sleep(chance.choice((0, 0.0002)))
            acknowledged = [put.result() for put in puts if put.done()]
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{self.path}{suffix}", f"{self.path}.crashed{suffix}")
            await asyncio.gather(*puts)
            return acknowledged

        acknowledged = self.run(work())
        self.run(self.store.close())
        for suffix in ("-wal", ""):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            Path(f"{self.path}.crashed{suffix}").rename(f"{self.path}{suffix}")
        self.store = self.make_store()
        self.run(self.store.open())
        happened = self.run(self.store.revision()) - self.model.revision
        assert len(acknowledged) <= happened <= len(writes)
        made = [self.model.put(key, value) for key, value in writes[:happened]]
        assert made[: len(acknowledged)] == acknowledged
        self.look()

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


class EtcdMachine(StoreMachine):
    server: ClassVar[EtcdServer]

    def make_store(self) -> Store:
        return EtcdStore([self.server.url])

    @initialize()
    def begin(self) -> None:
        self.server.ctl("del", "", "--from-key")
        super().begin()


SETTINGS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), stateful_step_count=30)


def test_sqlite() -> None:
    run_state_machine_as_test(SqliteMachine, settings=settings(SETTINGS, max_examples=120))


@pytest.mark.etcd
def test_etcd(etcd: EtcdServer) -> None:
    EtcdMachine.server = etcd
    run_state_machine_as_test(EtcdMachine, settings=settings(SETTINGS, max_examples=15))
