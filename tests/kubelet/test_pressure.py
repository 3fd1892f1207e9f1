"""Eviction: thresholds, conditions over time, and who has to go; garbage; rotating logs."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.kubelet import eviction
from shipwheel.kubelet.eviction import Observation, PodUsage, PressureState, ThresholdError
from shipwheel.kubelet.garbage import ImagePolicy, ImageRecord, images_to_remove, note_images, remains
from shipwheel.kubelet.log_rotation import rotate
from shipwheel.kubelet.pod_worker import Ending
from shipwheel.kubelet.pressure import Pressure
from shipwheel.kubelet.runtime.base import Image
from shipwheel.kubelet.usage import memory_available, observe_node
from tests.kubelet.builders import container, observe, pod, sandbox, seen

MI = 1 << 20
HARD = eviction.parse_thresholds({"memory.available": "100Mi", "nodefs.available": "10%"}, {}, {}, {})


def test_thresholds() -> None:
    found = eviction.parse_thresholds(
        {"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "0%"},
        {"memory.available": "300Mi"},
        {"memory.available": "1m30s"},
        {"nodefs.available": "5%"},
    )
    assert [(each.signal, each.amount, each.share, each.grace, each.reclaim_share) for each in found] == [
        ("memory.available", 100 * MI, 0, None, 0),
        ("nodefs.available", 0, 0.1, None, 0.05),
        ("memory.available", 300 * MI, 0, 90.0, 0),
    ]


@pytest.mark.parametrize(
    ("hard", "soft", "grace", "message"),
    [
        ({"x.available": "1"}, {}, {}, "unsupported eviction signal x.available"),
        ({"memory.available": "lots"}, {}, {}, "quantities must match"),
        ({"memory.available": "110%"}, {}, {}, "must be >= 0% and <= 100%: 110%"),
        (
            {},
            {"memory.available": "1Gi"},
            {},
            "grace period must be specified for the soft eviction threshold",
        ),
        ({}, {"memory.available": "1Gi"}, {"memory.available": "-1s"}, "must be a positive value"),
    ],
)
def test_wrong_thresholds(hard: Obj, soft: Obj, grace: Obj, message: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        eviction.parse_thresholds(hard, soft, grace, {})
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
    soft = eviction.parse_thresholds({}, {"memory.available": "300Mi"}, {"memory.available": "60s"}, {})
    state, held, due = eviction.look(soft, PressureState(), memory(200), transition=0, now=0)
    assert (held, due) == ({"MemoryPressure"}, [])
    state, _, due = eviction.look(soft, state, memory(200), transition=0, now=59)
    assert due == []
    broken, _, due = eviction.look(soft, state, memory(400), transition=0, now=60)
    assert (due, broken.first_seen) == ([], {})
    _, _, due = eviction.look(soft, state, memory(200), transition=0, now=60)
    assert [each.signal for each in due] == ["memory.available"]


def test_a_minimum_must_be_reclaimed_before_it_is_over() -> None:
    thresholds = eviction.parse_thresholds({"memory.available": "100Mi"}, {}, {}, {"memory.available": "50Mi"})
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
    order = [each["metadata"]["name"] for each in eviction.rank(pods, usage, "memory")]
    assert order == ["unknown", "greedy", "modest", "important", "within"]


def test_who_has_to_go_for_processes() -> None:
    usage = {"a": PodUsage(processes=5), "b": PodUsage(processes=50), "c": PodUsage(processes=500)}
    order = [each["metadata"]["name"] for each in eviction.rank([named("a"), named("b"), named("c", 9)], usage, "pids")]
    assert order == ["b", "a", "c"]


def test_what_an_evicted_pod_is_told() -> None:
    threshold = HARD[0]
    used = PodUsage(memory=200 * MI, containers={"c": 200 * MI})
    assert eviction.message(
        named("a", requests={"memory": "100Mi"}), threshold, memory(50)["memory.available"], used
    ) == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container c was using 200Mi, request is 100Mi, has larger consumption of memory. "
    )


@pytest.mark.parametrize(
    ("owner", "used", "why"),
    [
        (
            pod(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]),
            PodUsage(volumes={"v": 2 * MI}),
            'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ',
        ),
        (
            pod(container(resources={"limits": {"ephemeral-storage": "1Mi"}})),
            PodUsage(disk=2 * MI),
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
        ),
        (
            pod(container(resources={"limits": {"ephemeral-storage": "1Mi"}}), container("d")),
            PodUsage(disk=9 * MI, container_disks={"c": 2 * MI}),
            'Container c exceeded its local ephemeral storage limit "1Mi". ',
        ),
        (pod(volumes=[{"name": "v", "emptyDir": {}}]), PodUsage(volumes={"v": 1 << 40}), ""),
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


async def test_one_pod_goes_at_a_time() -> None:
    clock, ended, changes = ManualClock(), [], []
    signals: list[str] = []
    running = [named("a"), named("b")]

    async def nothing() -> int:
        return 0

    pressure = Pressure(
        clock, HARD, 300, 0, lambda: memory(1), Sampled(), lambda: running, nothing,  # type: ignore[arg-type]
        lambda uid, ending: ended.append((uid, ending)), lambda *args: None, lambda *args: None,
        lambda: changes.append(1), signals.append,
    )  # fmt: skip
    await pressure.look()
    await pressure.look()
    assert [uid for uid, _ in ended] == ["b"]
    ending: Ending = ended[0][1]
    assert (ending.reason, ending.grace) == ("Evicted", 1)
    assert (ending.condition or {})["reason"] == "TerminationByKubelet"
    assert pressure.conditions == {"MemoryPressure"}
    assert changes == [1]
    running.pop()
    await pressure.look()
    assert [uid for uid, _ in ended] == ["b", "a"]
    assert signals == ["memory.available"] * 2


def test_this_machine_can_be_observed(tmp_path: Path) -> None:
    found = observe_node(tmp_path, None, 1 << 40)
    assert found["nodefs.available"].capacity > 0
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
    assert swept(0, everything=True) == ["d", "b", "c", "a"]
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
