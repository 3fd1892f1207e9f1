"""Memory of certain NUMA nodes: where, and what is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.api.quantity import parse
from shipwheel.kubelet.managers.base import Refused
from shipwheel.kubelet.managers.cpu_manager import StateError
from shipwheel.kubelet.managers.hints import Hint
from shipwheel.kubelet.managers.memory_manager import (
    STATE_FILE,
    Block,
    MemoryManager,
    NoMemoryManager,
    empty_state,
    fold,
    reserved_memory,
    wanted_by_pod,
)
from shipwheel.kubelet.managers.memory_manager import _checksum as checksum
from tests.kubelet.managers.machines import ANYWHERE, GIB, container, machine, measures, names, pod

NODES = machine(sockets=2).nodes
"""Two nodes of 8Gi, of which 1Gi each are huge pages."""
RESERVED = {0: {"memory": GIB}, 1: {"memory": GIB}}


def manager(directory: Path) -> MemoryManager:
    return MemoryManager(NODES, directory, measures(), reserved=RESERVED)


async def give(made: MemoryManager, wanted: Obj, hint: Hint = ANYWHERE) -> None:
    for each in (*wanted["spec"]["initContainers"], *wanted["spec"]["containers"]):
        await made.allocate(wanted, each, hint)


def guaranteed(uid: str = "u1", memory: str = "4Gi", **more: str) -> Obj:
    return pod(container(cpu="1", memory=memory, **more), uid=uid)


async def test_given_kept_and_taken_back(tmp_path: Path) -> None:
    made = manager(tmp_path)
    first, second = guaranteed("u1"), guaranteed("u2")
    await give(made, first, Hint(frozenset({0})))
    await give(made, second)
    assert made.blocks("u1", "c") == [Block((0,), "memory", 4 * GIB)]
    assert made.blocks("u2", "c") == [Block((1,), "memory", 4 * GIB)], "the first node has 2Gi left"
    again = manager(tmp_path)
    assert again.blocks("u2", "c") == made.blocks("u2", "c")
    again.keep({"u2": names(second)})
    assert not again.blocks("u1", "c")
    await give(again, guaranteed("u3", memory="6Gi"), Hint(frozenset({0})))
    stored = json.loads((tmp_path / STATE_FILE).read_text())
    assert stored["machineState"]["0"]["memoryMap"]["memory"] == {
        "total": 8 * GIB, "systemReserved": GIB, "allocatable": 6 * GIB, "reserved": 6 * GIB, "free": 0,
    }  # fmt: skip


async def test_huge_pages(tmp_path: Path) -> None:
    made = manager(tmp_path)
    await give(made, guaranteed(hugepages_2Mi="1Gi"))
    assert {each.kind: each.size for each in made.blocks("u1", "c")} == {"memory": 4 * GIB, "hugepages-2Mi": GIB}


async def test_a_node_used_with_another_is_not_used_alone(tmp_path: Path) -> None:
    made = manager(tmp_path)
    await give(made, guaranteed(memory="10Gi"))
    assert made.blocks("u1", "c")[0].nodes == (0, 1)
    small = container(cpu="1", memory="1Gi")
    hints = made.hints(pod(small, uid="u2"), small)
    assert hints == {"memory": [Hint(frozenset({0, 1}), preferred=False)]}
    with pytest.raises(Refused, match="failed to find the default preferred hint"):
        await give(made, pod(small, uid="u2"))
    await give(made, pod(small, uid="u2"), Hint(frozenset({0, 1}), preferred=False))


async def test_no_node_has_as_much(tmp_path: Path) -> None:
    made = manager(tmp_path)
    with pytest.raises(Refused, match="failed to get the default NUMA affinity") as refused:
        await give(made, guaranteed(memory="20Gi"))
    assert refused.value.reason == "UnexpectedAdmissionError"


async def test_containers_after_init_containers_use_their_memory_again(tmp_path: Path) -> None:
    made = manager(tmp_path)
    wanted = pod(container(cpu="1", memory="6Gi"), init=(container("i", cpu="1", memory="5Gi"),))
    await give(made, wanted, Hint(frozenset({0})))
    assert made.blocks("u1", "i") == [Block((0,), "memory", 0)]
    await give(made, guaranteed("u2", memory="6Gi"))
    manager(tmp_path)
    assert wanted_by_pod(wanted)["memory"] == 6 * GIB


def test_only_guaranteed_pods_take_part(tmp_path: Path) -> None:
    made = manager(tmp_path)
    burstable = container()
    burstable["resources"] = {"requests": {"memory": "1Gi"}}
    assert made.hints(pod(burstable), burstable) == {} == made.pod_hints(pod(burstable))


@given(st.lists(st.tuples(st.sampled_from([(0,), (1,), (0, 1)]), st.integers(0, 3 * GIB)), max_size=6))
def test_nothing_is_lost(given_: list[tuple[tuple[int, ...], int]]) -> None:
    state = fold(empty_state(NODES, RESERVED), [Block(nodes, "memory", size) for nodes, size in given_])
    for node in state.values():
        table = node.tables["memory"]
        assert table.free >= 0 and table.free + table.taken == 6 * GIB


def test_reserved_memory() -> None:
    declared = [{"numaNode": 0, "limits": {"memory": "1Gi"}}, {"numaNode": 1, "limits": {"memory": "512Mi"}}]
    found = reserved_memory(NODES, declared, {"memory": parse("1536Mi"), "cpu": parse("1")})
    assert found == {0: {"memory": GIB}, 1: {"memory": GIB // 2}}
    with pytest.raises(StateError, match='total amount "1536Mi" of type "memory" is not equal to the value "1Gi"'):
        reserved_memory(NODES, declared, {"memory": parse("1Gi")})
    with pytest.raises(StateError, match="NUMA node 7 that does not exist"):
        reserved_memory(NODES, [{"numaNode": 7}], {})
    with pytest.raises(StateError, match="you should specify the system reserved memory"):
        reserved_memory(NODES, [], {})


# --- On disk


def test_checksums_are_upstreams() -> None:
    table = {"total": 2048, "systemReserved": 512, "allocatable": 1536, "reserved": 512, "free": 1024}
    machine_state = {"0": {"numberOfAssignments": 0, "memoryMap": {"memory": table}, "cells": []}}
    entries = {"pod": {"container1": [{"numaAffinity": [0], "type": "memory", "size": 512}]}}
    assert checksum("static", machine_state, entries) == 4215593881


def test_no_policy_leaves_its_file(tmp_path: Path) -> None:
    NoMemoryManager(tmp_path)
    assert json.loads((tmp_path / STATE_FILE).read_text())["policyName"] == "None"
    NoMemoryManager(tmp_path)
    with pytest.raises(StateError, match='configured policy "Static" differs'):
        manager(tmp_path)


async def test_another_machine(tmp_path: Path) -> None:
    await give(manager(tmp_path), guaranteed())
    with pytest.raises(StateError, match="the expected machine state is different from the real one"):
        MemoryManager(machine(sockets=2, memory=4 * GIB).nodes, tmp_path, measures(), reserved=RESERVED)
