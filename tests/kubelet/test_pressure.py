"""Eviction: thresholds, conditions over time, and who has to go; garbage; rotating logs."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.client.metrics import Metrics
from shipwheel.kubelet import eviction
from shipwheel.kubelet.eviction import Observation, PodUsage, PressureState, Stored
from shipwheel.kubelet.garbage import ImagePolicy, ImageRecord, images_to_remove, note_images, remains
from shipwheel.kubelet.log_rotation import rotate
from shipwheel.kubelet.measures import KubeletMetrics
from shipwheel.kubelet.pod_worker import Ending
from shipwheel.kubelet.pressure import Pressure
from shipwheel.kubelet.runtime.base import Image
from shipwheel.kubelet.thresholds import ALLOCATABLE, Amount, Threshold, ThresholdError, parse_thresholds, reserved_by
from shipwheel.kubelet.usage import memory_available, observe_node, separate_images
from tests.kubelet.builders import container, observe, pod, sandbox, seen

MI = 1 << 20
HARD = parse_thresholds({"memory.available": "100Mi", "nodefs.available": "10%"}, {}, {}, {})


def test_thresholds() -> None:
    found = parse_thresholds(
        {
            "memory.available": "100Mi",
            "nodefs.available": "25%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "100%",
        },
        {"memory.available": "300M", "pid.available": "10"},
        {"memory.available": "1m30s", "pid.available": "0s"},
        {"nodefs.available": "50%", "memory.available": "1Gi"},
        allocatable=True,
    )
    reclaim = Amount(1 << 30)
    assert found == (
        Threshold("memory.available", Amount(100 * MI), None, reclaim),
        Threshold("nodefs.available", Amount(share=0.25), None, Amount(share=0.5)),
        Threshold("memory.available", Amount(300_000_000, format="DecimalSI"), 90.0, reclaim),
        Threshold("pid.available", Amount(10, format="DecimalSI"), None),
        Threshold(ALLOCATABLE, Amount(100 * MI), None, reclaim),
    )
    assert reserved_by(found, {"memory": 1 << 30, "ephemeral-storage": 1000}) == {
        "memory": 100 * MI, "ephemeral-storage": 250,
    }  # fmt: skip


def test_percentages_are_of_single_precision() -> None:
    """As upstream counts them: 5 % of 2**40 is not the 54975581388 of double precision."""
    (threshold,) = parse_thresholds({"nodefs.available": "5%"}, {}, {}, {})
    assert threshold.limit(1 << 40) == 54975582208
    assert threshold.shown(1000) == "50"


def test_what_has_the_containers_layers_follows_the_others() -> None:
    assert parse_thresholds({"containerfs.available": "5%"}, {"containerfs.inodesFree": "5"}, {}, {}) == ()


@pytest.mark.parametrize(
    ("hard", "soft", "grace", "reclaim", "message"),
    [
        ({"x.available": "1"}, {}, {}, {}, "unsupported eviction signal x.available"),
        ({"memory.available": "lots"}, {}, {}, {}, "quantities must match"),
        ({"memory.available": "0"}, {}, {}, {}, "eviction threshold memory.available must be positive: 0"),
        ({"memory.available": "110%"}, {}, {}, {}, "percentage threshold memory.available must be <= 100%: 110%"),
        ({"memory.available": "-1%"}, {}, {}, {}, "eviction percentage threshold memory.available must be >= 0%: -1%"),
        ({"memory.available": "a%"}, {}, {}, {}, 'strconv.ParseFloat: parsing "a": invalid syntax'),
        (
            {}, {"memory.available": "1Gi"}, {}, {},
            "grace period must be specified for the soft eviction threshold memory.available",
        ),
        (
            {}, {"memory.available": "1Gi"}, {"memory.available": "-1s"}, {},
            "invalid eviction grace period specified: -1s, must be a positive value",
        ),
        ({}, {}, {}, {"pid.available": "0%"}, "eviction percentage minimum reclaim pid.available must be positive: 0%"),
        ({}, {}, {}, {"pid.available": "-1"}, "negative eviction minimum reclaim specified for pid.available"),
        ({}, {}, {}, {"x": "1"}, "unsupported eviction signal x"),
    ],
)  # fmt: skip
def test_wrong_thresholds(hard: Obj, soft: Obj, grace: Obj, reclaim: Obj, message: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        parse_thresholds(hard, soft, grace, reclaim)
    assert message in str(caught.value)


def memory(available: int) -> dict[str, Observation]:
    return {"memory.available": Observation(available * MI, 1000 * MI)}


def test_a_hard_threshold_acts_at_once_and_its_condition_lingers() -> None:
    state, held, due = eviction.look(HARD, PressureState(), memory(50), transition=300, now=0)
    assert (held, [each.signal for each in due]) == ({"MemoryPressure"}, ["memory.available"])
    state, held, due = eviction.look(HARD, state, memory(500), transition=300, now=10)
    assert (held, due) == ({"MemoryPressure"}, [])
    state, held, due = eviction.look(HARD, state, memory(500), transition=300, now=299)
    assert held == {"MemoryPressure"}
    state, held, due = eviction.look(HARD, state, memory(500), transition=300, now=301)
    assert (held, state.last_pressed) == (frozenset(), {})


def test_a_soft_threshold_acts_after_its_grace_period() -> None:
    soft = parse_thresholds({}, {"memory.available": "300Mi"}, {"memory.available": "60s"}, {})
    state, held, due = eviction.look(soft, PressureState(), memory(200), transition=0, now=0)
    assert (held, due) == ({"MemoryPressure"}, [])
    state, _, due = eviction.look(soft, state, memory(200), transition=0, now=59)
    assert due == []
    broken, _, due = eviction.look(soft, state, memory(400), transition=0, now=60)
    assert (due, broken.first_seen) == ([], {})
    _, _, due = eviction.look(soft, state, memory(200), transition=0, now=60)
    assert [each.signal for each in due] == ["memory.available"]


def test_a_minimum_must_be_reclaimed_before_it_is_over() -> None:
    thresholds = parse_thresholds({"memory.available": "100Mi"}, {}, {}, {"memory.available": "50Mi"})
    state, _, due = eviction.look(thresholds, PressureState(), memory(90), transition=0, now=0)
    assert due
    state, _, due = eviction.look(thresholds, state, memory(120), transition=0, now=1)
    assert due
    _, _, due = eviction.look(thresholds, state, memory(160), transition=0, now=2)
    assert due == []


def test_memory_goes_before_disk() -> None:
    short = {**memory(1), "nodefs.available": Observation(1, 1000)}
    _, held, due = eviction.look(HARD, PressureState(), short, transition=0, now=0)
    assert held == {"MemoryPressure", "DiskPressure"}
    assert [each.signal for each in due] == ["memory.available", "nodefs.available"]


def named(name: str, priority: int = 0, requests: Obj | None = None, **spec: object) -> Obj:
    own = container(resources={"requests": requests} if requests else {})
    return pod(own, meta={"name": name, "uid": name}, priority=priority, **spec)


def test_who_has_to_go_for_memory() -> None:
    pods = [
        named("within", requests={"memory": "1Gi"}),
        named("important", 100),
        named("modest"),
        named("greedy"),
        named("unknown"),
        named("critical", 2_000_000_000),
    ]
    usage = {
        "within": PodUsage(memory=900 * MI),
        "important": PodUsage(memory=800 * MI),
        "modest": PodUsage(memory=10 * MI),
        "greedy": PodUsage(memory=500 * MI),
        "critical": PodUsage(memory=5000 * MI),
    }
    order = [each["metadata"]["name"] for each in eviction.rank(pods, usage, "memory.available")]
    assert order == ["unknown", "greedy", "modest", "important", "within"]


def test_who_has_to_go_for_processes() -> None:
    usage = {"a": PodUsage(processes=5), "b": PodUsage(processes=50), "c": PodUsage(processes=500)}
    pods = [named("a"), named("b"), named("c", 9)]
    order = [each["metadata"]["name"] for each in eviction.rank(pods, usage, "pid.available")]
    assert order == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("signal", "separate", "first"),
    [
        ("nodefs.available", False, "both"),
        ("imagefs.available", False, "both"),
        ("nodefs.available", True, "logs"),
        ("imagefs.available", True, "layers"),
        ("nodefs.inodesFree", True, "files"),
        ("imagefs.inodesFree", True, "layers"),
    ],
)
def test_who_has_to_go_for_room_on_a_disk(signal: str, separate: bool, first: str) -> None:
    """With a disk for images of its own, what is on the one does not help the other."""
    usage = {
        "both": PodUsage(layers={"c": Stored(30 * MI, 1)}, logs={"c": Stored(30 * MI, 1)}),
        "logs": PodUsage(logs={"c": Stored(40 * MI, 1)}, volumes={"v": Stored(5 * MI, 1)}),
        "layers": PodUsage(layers={"c": Stored(50 * MI, 5)}),
        "files": PodUsage(volumes={"v": Stored(1, 99)}),
        "asked": PodUsage(layers={"c": Stored(90 * MI)}, logs={"c": Stored(90 * MI)}),
    }
    pods = [named(name, requests={"ephemeral-storage": "1Gi"} if name == "asked" else None) for name in usage]
    assert eviction.rank(pods, usage, signal, separate=separate)[0]["metadata"]["name"] == first


def test_what_an_evicted_pod_is_told() -> None:
    used = PodUsage(memory=200 * MI, containers={"c": 200 * MI})
    text, annotations = eviction.message(
        named("a", requests={"memory": "100Mi"}), HARD[0], memory(50)["memory.available"], used
    )
    assert text == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container c was using 200Mi, request is 100Mi, has larger consumption of memory. "
    )
    assert annotations == {
        "offending_containers": "c", "offending_containers_usage": "200Mi", "starved_resource": "memory",
    }  # fmt: skip
    (inodes,) = parse_thresholds({"nodefs.inodesFree": "5%"}, {}, {}, {})
    text, _ = eviction.message(named("a"), inodes, eviction.counted(40, 1000), used)
    assert text == "The node was low on resource: inodes. Threshold quantity: 50, available: 40. "
    whole = pod(resources={"requests": {"memory": "1Mi"}}, meta={"name": "w"})
    text, annotations = eviction.message(whole, HARD[0], None, PodUsage(memory=2 * MI))
    assert text.endswith("Pod w was using 2Mi, request is 1Mi, has larger consumption of memory. ")
    assert annotations["offending_pod"] == "w"
    disk = PodUsage(layers={"c": Stored(MI)}, logs={"c": Stored(MI)})
    text, _ = eviction.message(named("a"), HARD[1], None, disk)
    assert "Container c was using 2Mi, request is 0, has larger consumption of ephemeral-storage. " in text


@pytest.mark.parametrize(
    ("owner", "used", "why"),
    [
        (
            pod(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]),
            PodUsage(volumes={"v": Stored(2 * MI)}),
            'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ',
        ),
        (
            pod(container(resources={"limits": {"ephemeral-storage": "1Mi"}})),
            PodUsage(logs={"c": Stored(2 * MI)}),
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
        ),
        (
            pod(
                container(resources={"limits": {"ephemeral-storage": "1Mi"}}),
                container("d", resources={"limits": {"ephemeral-storage": "9Mi"}}),
            ),
            PodUsage(layers={"c": Stored(MI)}, logs={"c": Stored(MI)}),
            'Container c exceeded its local ephemeral storage limit "1Mi". ',
        ),
        (
            pod(volumes=[{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]),
            PodUsage(in_memory={"v": Stored(2 * MI)}),
            'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ',
        ),
        (
            pod(container(resources={"limits": {"ephemeral-storage": "1Mi"}}), container("d")),
            PodUsage(logs={"d": Stored(2 * MI)}),
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
        ),
        (pod(volumes=[{"name": "v", "emptyDir": {}}]), PodUsage(volumes={"v": Stored(1 << 40)}), ""),
    ],
)
def test_limits_on_what_is_stored(owner: Obj, used: PodUsage, why: str) -> None:
    over = eviction.over_storage_limit(owner, used)
    assert (over[1] if over else "") == why


@pytest.mark.parametrize(
    ("conditions", "owner", "qos", "refused"),
    [
        (set(), pod(), "BestEffort", False),
        ({"MemoryPressure"}, pod(), "BestEffort", True),
        ({"MemoryPressure"}, pod(), "Burstable", False),
        (
            {"MemoryPressure"},
            pod(tolerations=[{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]),
            "BestEffort",
            False,
        ),
        ({"MemoryPressure"}, pod(tolerations=[{"key": "other", "operator": "Exists"}]), "BestEffort", True),
        ({"DiskPressure"}, pod(), "Guaranteed", True),
        ({"DiskPressure"}, pod(priority=2_000_000_000), "Guaranteed", False),
    ],
)
def test_a_node_under_pressure_is_choosy(conditions: set[str], owner: Obj, qos: str, refused: bool) -> None:
    assert bool(eviction.refuses(frozenset(conditions), owner, qos)) == refused


class Sampled:
    async def sample(self, *, max_age: float) -> object:
        from shipwheel.kubelet.server.cgroup_stats import CgroupUsage
        from shipwheel.kubelet.server.sampling import NodeSample, PodSample, Sample

        pods = [PodSample(named(name), CgroupUsage(working_set=size)) for name, size in (("a", MI), ("b", 9 * MI))]
        return Sample(0, NodeSample(CgroupUsage()), pods)


class Relief:
    """A `Pressure` and what it did. `free` is the memory that is there."""

    def __init__(self, *names: str, thresholds: Sequence[Threshold] = HARD, separate: bool = False) -> None:
        self.clock = ManualClock()
        self.free = {**memory(1), "nodefs.available": Observation(900, 1000)}
        self.running = [named(name) for name in names]
        self.ended: list[tuple[str, Ending]] = []
        self.changes = 0
        self.reclaimed = 0
        self.told: list[tuple[str, dict[str, str]]] = []
        self.metrics = Metrics(process=False)
        self.pressure = Pressure(
            clock=self.clock, thresholds=thresholds, transition=300, maximum_grace=0, observe=lambda: self.free,
            separate_images=lambda: separate, sampler=Sampled(),  # type: ignore[arg-type]
            pods=lambda: self.running, reclaim_disk=self.reclaim,
            end=lambda uid, ending: self.ended.append((uid, ending)),
            record=lambda pod, message, annotations: self.told.append((message, annotations)),
            record_node=lambda *args: None, changed=self.change, measures=KubeletMetrics(self.metrics),
        )  # fmt: skip

    def change(self) -> None:
        self.changes += 1

    async def reclaim(self) -> int:
        self.reclaimed += 1
        return 0


async def test_one_pod_goes_at_a_time() -> None:
    relief = Relief("a", "b")
    task = asyncio.ensure_future(relief.pressure.run())
    await relief.clock.advance(0.1)
    assert [uid for uid, _ in relief.ended] == ["b"]
    ending = relief.ended[0][1]
    assert (ending.reason, ending.grace) == ("Evicted", 1)
    assert (ending.condition or {})["reason"] == "TerminationByKubelet"
    assert relief.told[0][1]["starved_resource"] == "memory"
    assert (relief.pressure.conditions, relief.changes) == ({"MemoryPressure"}, 1)
    await relief.clock.advance(15)
    assert len(relief.ended) == 1, "it has not gone yet"
    relief.running.pop()
    await relief.clock.advance(1.1)
    assert [uid for uid, _ in relief.ended] == ["b", "a"]
    assert b'kubelet_evictions{eviction_signal="memory.available"} 2.0' in relief.metrics.exposition()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_pod_that_does_not_go_does_not_save_the_others() -> None:
    relief = Relief("a", "b")
    task = asyncio.ensure_future(relief.pressure.run())
    await relief.clock.advance(29)
    assert len(relief.ended) == 1
    await relief.clock.advance(3)
    assert len(relief.ended) == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("separate", "reclaimed"), [(False, 1), (True, 0)])
async def test_only_what_is_on_the_disk_is_removed(separate: bool, reclaimed: int) -> None:
    relief = Relief("a", separate=separate)
    relief.free = {"nodefs.available": Observation(1, 1000)}
    assert await relief.pressure.look() == ["a"]
    assert relief.reclaimed == reclaimed


async def test_no_pod_goes_when_garbage_was_enough() -> None:
    relief = Relief("a")
    relief.free = {"nodefs.available": Observation(1, 1000)}

    async def reclaim() -> int:
        relief.free = {"nodefs.available": Observation(900, 1000)}
        return 899

    relief.pressure.reclaim_disk = reclaim
    assert await relief.pressure.look() == ()
    assert relief.pressure.conditions == {"DiskPressure"}


def test_this_machine_can_be_observed(tmp_path: Path) -> None:
    found = observe_node(tmp_path, None, 1 << 40)
    assert found["nodefs.available"].capacity > 0
    assert not separate_images(tmp_path, tmp_path) and not separate_images(tmp_path, None)
    assert separate_images(tmp_path, Path("/proc"))
    available = memory_available(1 << 40)
    assert available is None or 0 < available <= 1 << 40


# Garbage

IMAGES = [Image(name, (f"{name}:1",), size=100) for name in ("a", "b", "c", "d")]


def swept(
    available: int,
    *,
    used: set[str] | None = None,
    policy: ImagePolicy | None = None,
    everything: bool = False,
) -> list[str]:
    records = {
        "a": ImageRecord(0, 500), "b": ImageRecord(0, 100), "c": ImageRecord(0, 300), "d": ImageRecord(990, 0),
    }  # fmt: skip
    sweep = images_to_remove(
        IMAGES, records, used or set(), policy or ImagePolicy(), available=available, capacity=1000, now=1000,
        everything=everything,
    )  # fmt: skip
    return list(sweep.remove)


def test_images_go_when_the_disk_is_full() -> None:
    assert swept(500) == []
    assert swept(161) == []
    assert swept(100) == ["b"]
    assert swept(0) == ["b", "c"]
    assert swept(0, used={"b:1"}) == ["c", "a"]
    assert swept(0, everything=True) == ["b", "c", "a"], "one is too young"
    assert swept(0, policy=ImagePolicy(high_percent=100)) == []
    assert swept(900, policy=ImagePolicy(maximum_age=600)) == ["b", "c"]


def test_too_young_an_image_stays() -> None:
    only = [IMAGES[3]]
    sweep = images_to_remove(
        only, {"d": ImageRecord(990, 0)}, set(), ImagePolicy(), available=0, capacity=1000, now=1000
    )
    assert (sweep.remove, sweep.wanted) == ([], 200)


def test_images_are_remembered() -> None:
    records = note_images({}, IMAGES[:2], {"a:1"}, 10)
    assert records == {"a": ImageRecord(10, 10), "b": ImageRecord(10, 0)}
    assert note_images(records, IMAGES[1:3], set(), 20) == {"b": ImageRecord(10, 0), "c": ImageRecord(20, 0)}


def test_only_the_newest_ended_container_stays() -> None:
    owner = pod(container("a"), container("b"))
    state = observe(
        *(seen(owner, "a", "EXITED", count=count) for count in range(3)),
        seen(owner, "a", count=3),
        seen(owner, "b", "EXITED", box="old"),
        boxes=(
            sandbox("s2", attempt=2),
            sandbox("old", attempt=1, ready=False),
            sandbox("older", ready=False),
        ),
    )
    left = remains(state)
    assert set(left.containers) == {"a-0", "a-1"}
    assert left.sandboxes == ("older",)


# Logs


def names_in(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


async def test_logs_are_rotated(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    now = datetime(2026, 1, 1, tzinfo=UTC)

    async def reopen() -> None:
        log.touch()

    for turn in range(5):
        log.write_text(f"turn {turn}\n" * 10)
        assert not await rotate(log, maximum=1000, files=3, now=now, reopen=reopen)
        assert await rotate(log, maximum=10, files=3, now=now + timedelta(hours=turn), reopen=reopen)
    assert names_in(tmp_path) == ["0.log", "0.log.20260101-030000.gz", "0.log.20260101-040000"]
    with gzip.open(tmp_path / "0.log.20260101-030000.gz") as file:
        assert file.read().startswith(b"turn 3\n")


async def test_a_log_stays_where_the_runtime_writes(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("x" * 100)

    async def refuse() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await rotate(log, maximum=10, files=3, now=datetime(2026, 1, 1, tzinfo=UTC), reopen=refuse)
    assert names_in(tmp_path) == ["0.log"]
    assert not await rotate(tmp_path / "none", maximum=10, files=3, now=datetime.now(UTC), reopen=refuse)
