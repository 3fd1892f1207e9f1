"""CPUs of their own: which, and what is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.kubelet.managers import cpusets
from shipwheel.kubelet.managers.base import Refused
from shipwheel.kubelet.managers.cpu_assignment import TooFew, distributed, packed
from shipwheel.kubelet.managers.cpu_manager import (
    STATE_FILE,
    CpuManager,
    NoCpuManager,
    Options,
    StateError,
    exclusive_cpus,
    parse_options,
    pod_exclusive_cpus,
    reserved_set,
)
from shipwheel.kubelet.managers.cpu_manager import _checksum as checksum
from shipwheel.kubelet.managers.hints import Hint, OptionError
from shipwheel.kubelet.managers.topology import Topology, read_topology
from tests.kubelet.managers.machines import ANYWHERE, container, machine, measures, names, pod

PLAIN = Options()
ONE = machine(cores=4)
"""Cores 0-3, their second threads 4-7."""
TWO = machine(sockets=2, cores=3)
"""Even CPUs are of socket 0, odd ones of socket 1; 6-11 are second threads."""


@pytest.mark.parametrize("text", ["", "0", "0-3", "0,2,4-6", "1,3"])
def test_sets_of_cpus(text: str) -> None:
    assert cpusets.shown(cpusets.parse(text)) == text


@pytest.mark.parametrize("text", ["a", "3-1", "1-"])
def test_no_sets_of_cpus(text: str) -> None:
    with pytest.raises(ValueError):
        cpusets.parse(text)


@pytest.mark.parametrize(
    ("topology", "free", "count", "taken"),
    [
        (ONE, "0-7", 0, ""),
        (ONE, "0-7", 1, "0"),
        (ONE, "0-7", 2, "0,4"),
        (ONE, "1,3,5-7", 1, "6"),  # the core of which only this one is left
        (ONE, "0,1,2,3,4,5,6", 2, "0,4"),
        (ONE, "0-7", 8, "0-7"),
        (TWO, "0-11", 6, "0,2,4,6,8,10"),  # a whole socket
        (TWO, "1-11", 6, "1,3,5,7,9,11"),  # the one that is whole
        (TWO, "0,2-11", 5, "3,9,5,11,7"),  # no socket is needed whole: begin where less is free
        (TWO, "0-11", 8, "0,2,4,6,8,10,1,7"),
    ],
)
def test_close_together(topology: Topology, free: str, count: int, taken: str) -> None:
    assert packed(topology, cpusets.parse(free), count) == cpusets.parse(taken)


def test_too_few() -> None:
    for take in (packed, distributed):
        with pytest.raises(TooFew, match="requested=3, available=2"):
            take(ONE, cpusets.parse("0-1"), 3)


def test_whole_caches_first() -> None:
    """Four caches of two cores each: what fits in one is not spread over two."""
    topology = machine(nodes=4, cores=2)
    free = topology.all_cpus - {0}
    assert len({cpu.cache for cpu in topology.cpus if cpu.id in packed(topology, free, 4, whole_caches=True)}) == 1
    assert len({cpu.cache for cpu in topology.cpus if cpu.id in packed(topology, free, 2, whole_caches=True)}) == 1


@pytest.mark.parametrize(("count", "by_node"), [(4, [4, 0]), (6, [6, 0]), (8, [4, 4]), (10, [5, 5])])
def test_spread_over_nodes(count: int, by_node: list[int]) -> None:
    taken = distributed(TWO, TWO.all_cpus, count)
    assert [len(taken & TWO.within("numa", [node])) for node in (0, 1)] == by_node


def test_spread_in_whole_cores() -> None:
    taken = distributed(TWO, TWO.all_cpus, 10, group=2)
    cores = {core for core in range(6) if TWO.within("core", [core]) <= taken}
    assert len(taken) == 10 and len(cores) == 5


@given(
    st.sampled_from([ONE, TWO, machine(sockets=2, nodes=2, cores=2), machine(threads=1), machine(nodes=4, cores=2)]),
    st.data(),
)
def test_as_many_as_asked_for_and_only_free_ones(topology: Topology, data: st.DataObject) -> None:
    free = frozenset(data.draw(st.sets(st.sampled_from(sorted(topology.all_cpus)))))
    count = data.draw(st.integers(0, len(free)))
    for taken in (
        packed(topology, free, count),
        packed(topology, free, count, whole_caches=True),
        distributed(topology, free, count),
        distributed(topology, free, count, group=topology.cpus_per_core),
    ):
        assert taken <= free and len(taken) == count


# --- Who gets them


def test_who_gets_own_cpus() -> None:
    memory = {"memory": "1Gi"}
    whole, part, burstable = container(cpu="2", **memory), container(cpu="1500m", **memory), container(cpu="2")
    assert [exclusive_cpus(pod(each), each) for each in (whole, part, burstable)] == [2, 0, 0]
    mixed = pod(whole, container("other", cpu="500m", **memory))
    assert pod_exclusive_cpus(mixed) == 2
    init = (container("i", cpu="4", **memory), container("s", sidecar=True, cpu="1", **memory))
    assert pod_exclusive_cpus(pod(whole, init=init)) == 4
    assert pod_exclusive_cpus(pod(whole, init=tuple(reversed(init)))) == 5
    whole_pod = pod(whole)
    whole_pod["spec"]["resources"] = {"limits": {"cpu": "2", "memory": "1Gi"}}
    assert exclusive_cpus(whole_pod, whole) == 0


def manager(directory: Path, topology: Topology = ONE, options: Options = PLAIN, reserved: str = "0") -> CpuManager:
    return CpuManager(topology, directory, measures(), reserved=cpusets.parse(reserved), options=options)


async def give(made: CpuManager, wanted: Obj, hint: Hint = ANYWHERE) -> None:
    for each in (*wanted["spec"]["initContainers"], *wanted["spec"]["containers"]):
        await made.allocate(wanted, each, hint)


async def test_given_kept_and_taken_back(tmp_path: Path) -> None:
    made = manager(tmp_path)
    wanted = pod(container(cpu="2", memory="1Gi"))
    await give(made, wanted)
    assert cpusets.shown(made.affinity("u1", "c")) == "1,5"
    assert cpusets.shown(made.affinity("u1", "other")) == "0,2-4,6-7", "the others share what is left"
    again = manager(tmp_path)
    assert again.exclusive("u1", "c") == {1, 5} and again.has_exclusive("u1")
    await give(again, wanted)
    assert again.exclusive("u1", "c") == {1, 5}
    again.keep({"u1": names(wanted)})
    assert again.has_exclusive("u1")
    again.keep({})
    assert not again.has_exclusive("u1") and again.affinity("u2", "c") == ONE.all_cpus
    stored = json.loads((tmp_path / STATE_FILE).read_text())
    assert (stored["policyName"], stored["defaultCpuSet"], "entries" in stored) == ("static", "0-7", False)


async def test_containers_after_init_containers_use_their_cpus_again(tmp_path: Path) -> None:
    made = manager(tmp_path)
    wanted = pod(container(cpu="4", memory="1Gi"), init=(container("i", cpu="6", memory="1Gi"),))
    await give(made, wanted)
    assert made.exclusive("u1", "c") < made.exclusive("u1", "i")
    assert len(made.affinity("u2", "x")) == 2
    made.keep({})
    assert made.affinity("u2", "x") == ONE.all_cpus


async def test_sidecars_keep_theirs(tmp_path: Path) -> None:
    made = manager(tmp_path)
    await give(made, pod(container(cpu="2", memory="1Gi"), init=(container("s", sidecar=True, cpu="2", memory="1Gi"),)))
    assert not made.exclusive("u1", "c") & made.exclusive("u1", "s")


async def test_near_the_nodes_that_were_chosen(tmp_path: Path) -> None:
    made = manager(tmp_path, TWO)
    await give(made, pod(container(cpu="2", memory="1Gi")), Hint(frozenset({1})))
    assert made.exclusive("u1", "c") <= TWO.within("numa", [1])


async def test_more_than_there_are(tmp_path: Path) -> None:
    made = manager(tmp_path)
    with pytest.raises(Refused) as refused:
        await give(made, pod(container(cpu="8", memory="1Gi")))
    assert refused.value.reason == "UnexpectedAdmissionError"
    assert str(refused.value) == (
        "Allocate failed due to not enough cpus available to satisfy request: requested=8, available=7, which is "
        "unexpected"
    )


@pytest.mark.parametrize(
    ("cpus", "message"),
    [
        ("3", "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2"),
        ("8", "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 6, requested CPUs = 8, "
              "CPUs per core = 2"),
    ],
)  # fmt: skip
async def test_only_whole_cores(tmp_path: Path, cpus: str, message: str) -> None:
    made = manager(tmp_path, options=Options(full_cores=True))
    with pytest.raises(Refused, match=message) as refused:
        await give(made, pod(container(cpu=cpus, memory="1Gi")))
    assert refused.value.reason == "SMTAlignmentError"


def test_hints_prefer_few_nodes(tmp_path: Path) -> None:
    made = manager(tmp_path, TWO, reserved="0,1")
    small, large = container(cpu="2", memory="1Gi"), container(cpu="6", memory="1Gi")
    one, other, both = frozenset({0}), frozenset({1}), frozenset({0, 1})
    assert made.hints(pod(small), small) == {"cpu": [Hint(one), Hint(other), Hint(both, preferred=False)]}
    assert made.hints(pod(large), large) == {"cpu": [Hint(both, preferred=False)]}, "a node would do, were it free"
    shared = container()
    assert made.hints(pod(shared), shared) == {}
    assert made.pod_hints(pod(small, container("d", cpu="2", memory="1Gi")))["cpu"][0] == Hint(one)  # type: ignore[index]


def test_strict_reservation(tmp_path: Path) -> None:
    made = manager(tmp_path, options=Options(strict=True), reserved="0,4")
    assert cpusets.shown(made.affinity("u", "c")) == "1-3,5-7"
    assert made.allocatable == cpusets.parse("1-3,5-7")


def test_reserved_cpus() -> None:
    assert reserved_set(ONE, 2, cpusets.NONE, Options()) == {0, 4}
    assert reserved_set(ONE, 2, frozenset({6, 7}), Options()) == {6, 7}
    with pytest.raises(StateError, match=r"unable to reserve the required amount of CPUs \(size of 6 did not equal 2"):
        reserved_set(ONE, 2, frozenset({6}), Options())


# --- On disk


@pytest.mark.parametrize(
    ("policy", "default", "entries", "expected"),
    [
        ("none", "", {}, 1353318690),
        ("none", "4-6", {}, 354655845),
        ("none", "1-3", {"pod": {"container1": "4-6", "container2": "1-3"}}, 3610638499),
    ],
)
def test_checksums_are_upstreams(policy: str, default: str, entries: Obj, expected: int) -> None:
    assert checksum(policy, default, entries) == expected


def test_no_policy_leaves_its_file(tmp_path: Path) -> None:
    made = NoCpuManager(tmp_path)
    assert made.affinity("u", "c") == cpusets.NONE
    text = (tmp_path / STATE_FILE).read_text()
    assert text == '{"policyName":"none","defaultCpuSet":"","checksum":1353318690}'
    NoCpuManager(tmp_path)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"policyName": "none", "defaultCpuSet": "", "checksum": 1353318690}, "differs from state checkpoint policy"),
        ({"policyName": "static", "defaultCpuSet": "0-7", "checksum": 1}, "checkpoint is corrupted"),
        ({"policyName": "static", "defaultCpuSet": "1-7", "entries": {}}, "not all reserved cpus"),
        ({"policyName": "static", "defaultCpuSet": "0-6"}, "doesn't match with CPUs in state"),
        ({"policyName": "static", "defaultCpuSet": "0-7", "entries": {"u": {"c": "1"}}}, "overlaps with default"),
        ({"policyName": "static", "defaultCpuSet": "", "entries": {"u": {"c": "1"}}}, "cannot be empty"),
    ],
)
def test_state_that_does_not_fit(tmp_path: Path, stored: Obj, message: str) -> None:
    stored.setdefault("checksum", checksum(stored["policyName"], stored["defaultCpuSet"], stored.get("entries") or {}))
    (tmp_path / STATE_FILE).write_text(json.dumps(stored))
    with pytest.raises(StateError, match=message):
        manager(tmp_path)


def test_options() -> None:
    given = {"full-pcpus-only": "true", "distribute-cpus-across-numa": "1", "strict-cpu-reservation": "f"}
    assert parse_options(given) == Options(full_cores=True, across_numa=True)
    for wrong, message in (
        ({"align-by-socket": "true"}, 'Alpha-level Options not enabled, but option "align-by-socket" provided'),
        ({"what": "true"}, 'unknown CPU Manager Policy option: "what"'),
        ({"full-pcpus-only": "maybe"}, 'bad value for option "full-pcpus-only"'),
        ({"prefer-align-cpus-by-uncorecache": "true", "distribute-cpus-across-numa": "true"}, "at the same time"),
    ):
        with pytest.raises(OptionError, match=message):
            parse_options(wrong)


# --- The machine


def test_reading_the_machine(tmp_path: Path) -> None:
    for cpu, core, package, node in ((0, "0,2", 0, 0), (1, "1,3", 1, 1), (2, "0,2", 0, 0), (3, "1,3", 1, 1)):
        place = tmp_path / f"cpu/cpu{cpu}"
        for file, text in (
            ("topology/thread_siblings_list", core),
            ("topology/physical_package_id", str(package)),
            ("cache/index3/id", str(node)),
        ):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text(f"{text}\n")
    for node, cpus in ((0, "0,2"), (1, "1,3")):
        place = tmp_path / f"node/node{node}"
        (place / "hugepages/hugepages-2048kB").mkdir(parents=True)
        (place / "hugepages/hugepages-2048kB/nr_hugepages").write_text("3\n")
        (place / "cpulist").write_text(cpus)
        (place / "meminfo").write_text(f"Node {node} MemTotal:       1024 kB\n")
        (place / "distance").write_text("10 21\n")
    found = read_topology(99, tmp_path)
    assert [(each.id, each.core, each.socket, each.numa) for each in found.cpus] == [
        (0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 0, 0), (3, 1, 1, 1),
    ]  # fmt: skip
    assert found.nodes[1].memory == 1 << 20 and found.nodes[1].hugepages == {"hugepages-2Mi": 3 << 21}
    assert found.nodes[0].distances == (10, 21)
    bare = read_topology(99, tmp_path / "nothing")
    assert [each.memory for each in bare.nodes] == [99]
