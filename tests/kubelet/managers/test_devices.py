"""Devices of a real plugin, over real sockets: registered, chosen, given, kept over restarts."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.client.grpc.channel import GrpcError
from shipwheel.kubelet.managers import checkpoint
from shipwheel.kubelet.managers.base import Refused
from shipwheel.kubelet.managers.device_manager import CHECKPOINT, GONE_SECONDS, DeviceManager
from shipwheel.kubelet.managers.device_table import DeviceTable, Given, from_checkpoint, to_checkpoint
from shipwheel.kubelet.managers.hints import Hint
from tests.kubelet.managers.machines import ANYWHERE, container, measures, names, pod
from tests.kubelet.managers.plugins import DevicePlugin

RESOURCE = "example.com/dev"


@pytest.fixture
def directory() -> Iterator[Path]:
    """The path of a socket is short."""
    with tempfile.TemporaryDirectory(prefix="shipwheel-") as made:
        yield Path(made)


class Node:
    """A device manager that runs, and what it told."""

    def __init__(self, directory: Path, clock: ManualClock, running: frozenset[str]) -> None:
        self.ill: list[str] = []
        self.measures = measures()

        async def ran_before(uid: str, name: str) -> bool:
            return uid in running

        self.manager = DeviceManager(
            directory, clock, self.measures, numa_nodes=[0, 1], health=self.ill.append, ran_before=ran_before
        )

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)

    async def give(self, wanted: Obj, hint: Hint = ANYWHERE) -> None:
        for each in (*wanted["spec"]["initContainers"], *wanted["spec"]["containers"]):
            await self.manager.allocate(wanted, each, hint)

    def ids(self, uid: str, name: str = "c") -> set[str]:
        found = self.manager.of_container(uid, name)
        return set(found[RESOURCE].ids) if found else set()


@asynccontextmanager
async def node(
    directory: Path, clock: ManualClock | None = None, running: set[str] | None = None
) -> AsyncIterator[Node]:
    made = Node(directory, clock or ManualClock(), running or set())
    task = asyncio.ensure_future(made.manager.run())
    try:
        await made.until((directory / "kubelet.sock").exists)
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def plugin(count: int = 4, **options: bool) -> DevicePlugin:
    return DevicePlugin(RESOURCE, {f"d{number}": ("Healthy", (number % 2,)) for number in range(count)}, **options)


def wants(count: int, uid: str = "u1", init: tuple[Obj, ...] = ()) -> Obj:
    return pod(container(**{"example.com__dev": count}), init=init, uid=uid)


async def test_registered_given_and_started(directory: Path) -> None:
    devices = plugin(pre_start_required=True)
    async with node(directory) as made:
        await devices.start(directory)
        await made.until(lambda: made.manager.capacity() == {RESOURCE: (4, 4)})
        wanted = wants(2)
        await made.give(wanted)
        assert made.ids("u1") == {"d0", "d1"}
        assert devices.made("Allocate") == [{"container_requests": [{"devices_ids": ["d0", "d1"]}]}]
        extras = await made.manager.extras(wanted, wanted["spec"]["containers"][0])
        assert devices.made("PreStartContainer") == [{"devices_ids": ["d0", "d1"]}]
        assert [(each.container_path, each.host_path, each.permissions) for each in extras.devices] == [
            ("/dev/d0", "/dev/null", "rw"), ("/dev/d1", "/dev/null", "rw"),
        ]  # fmt: skip
        assert extras.env == {"DEVICES": "d0,d1"} and extras.annotations == {"example.com/devices": "d0,d1"}
        assert [(each.container_path, each.readonly) for each in extras.mounts] == [("/driver", True)]
        assert extras.cdi_devices == ("example.com/dev=d0", "example.com/dev=d1")
        await devices.stop()


async def test_plugins_that_are_not_taken(directory: Path) -> None:
    async with node(directory) as made:
        old, odd = plugin(), DevicePlugin("kubernetes.io/dev", {})
        with pytest.raises(GrpcError, match='requested API version "v1alpha1" is not supported by kubelet') as refused:
            await old.start(directory, version="v1alpha1")
        assert refused.value.code == "UNKNOWN"
        await old.stop()
        with pytest.raises(GrpcError, match=r'the ResourceName "kubernetes.io/dev" is invalid'):
            await odd.start(directory)
        await odd.stop()
        assert made.manager.capacity() == {}


async def test_ill_devices_are_not_given(directory: Path) -> None:
    devices = plugin()
    async with node(directory) as made:
        await devices.start(directory)
        await made.until(made.manager.capacity)
        await made.give(wants(1))
        devices.change("d0", "Unhealthy")
        await made.until(lambda: made.manager.capacity() == {RESOURCE: (4, 3)})
        assert made.ill == ["u1"], "the pod that has it is told"
        assert made.manager.statuses("u1", "c") == [
            {"name": RESOURCE, "resources": [{"resourceID": "d0", "health": "Unhealthy"}]}
        ]
        with pytest.raises(Refused, match=r"requested number of devices unavailable for example.com/dev. Requested: 4, "
                                          "Available: 3"):  # fmt: skip
            await made.give(wants(4, uid="u2"))
        await made.give(wants(3, uid="u2"))
        assert made.ids("u2") == {"d1", "d2", "d3"}
        await devices.stop()


async def test_a_plugin_that_refuses(directory: Path) -> None:
    devices = plugin(pre_start_required=True)
    async with node(directory) as made:
        await devices.start(directory)
        await made.until(made.manager.capacity)
        devices.error = "no power"
        with pytest.raises(Refused) as refused:
            await made.give(wants(1))
        assert refused.value.reason == "UnexpectedAdmissionError"
        assert str(refused.value) == (
            "Allocate failed due to rpc error: code = Internal desc = no power, which is unexpected"
        )
        devices.error = ""
        wanted = wants(1)
        await made.give(wanted)
        devices.error = "no power"
        with pytest.raises(Refused, match=r"^device plugin PreStartContainer rpc failed with err: rpc error: code = "
                                          "Internal desc = no power$"):  # fmt: skip
            await made.manager.extras(wanted, wanted["spec"]["containers"][0])
        await devices.stop()


async def test_as_the_plugin_prefers(directory: Path) -> None:
    devices = plugin(get_preferred_allocation_available=True)
    devices.prefer = ["d3", "d1"]
    async with node(directory) as made:
        await devices.start(directory)
        await made.until(made.manager.capacity)
        await made.give(wants(2))
        assert made.ids("u1") == {"d1", "d3"}
        request = devices.made("GetPreferredAllocation")[0]["container_requests"][0]
        assert request == {"available_deviceIDs": ["d0", "d1", "d2", "d3"], "allocation_size": 2}
        await devices.stop()


async def test_near_the_nodes_that_were_chosen(directory: Path) -> None:
    devices = plugin()
    async with node(directory) as made:
        await devices.start(directory)
        await made.until(made.manager.capacity)
        one = container(**{"example.com__dev": 1})
        three = container(**{"example.com__dev": 3})
        nodes = {0: frozenset({0}), 1: frozenset({1}), 2: frozenset({0, 1})}
        assert made.manager.hints(pod(one), one) == {
            RESOURCE: [Hint(nodes[0]), Hint(nodes[1]), Hint(nodes[2], preferred=False)]
        }
        assert made.manager.hints(pod(three), three) == {RESOURCE: [Hint(nodes[2])]}
        many = container(**{"example.com__dev": 5})
        assert made.manager.hints(pod(many), many) == {RESOURCE: []}
        await made.give(wants(2), Hint(nodes[1]))
        assert made.ids("u1") == {"d1", "d3"}
        await made.give(wants(1, uid="u2"), Hint(nodes[1]))
        assert made.ids("u2") == {"d0"}, "there is none near any more"
        await devices.stop()


async def test_containers_after_init_containers_use_their_devices_again(directory: Path) -> None:
    devices = plugin()
    async with node(directory) as made:
        await devices.start(directory)
        await made.until(made.manager.capacity)
        await made.give(wants(2, init=(container("i", **{"example.com__dev": 3}),)))
        assert made.ids("u1") < made.ids("u1", "i")
        await made.give(wants(1, uid="u2"))
        made.manager.keep({"u2": names(wants(1))})
        assert not made.ids("u1")
        await made.give(wants(3, uid="u3"))
        await devices.stop()


async def test_kept_over_a_restart_of_the_kubelet(directory: Path) -> None:
    devices, again = plugin(), plugin()
    wanted = wants(2)
    async with node(directory) as made:
        await devices.start(directory)
        await made.until(made.manager.capacity)
        await made.give(wanted)
    await devices.stop()
    async with node(directory, running=frozenset({"u1"})) as made:
        assert made.manager.capacity() == {RESOURCE: (0, 0)}, "the plugin has not come back yet"
        assert made.manager.is_ours(RESOURCE)
        await made.give(wanted)
        assert made.ids("u1") == {"d0", "d1"}, "it runs, and has them"
        await again.start(directory)
        await made.until(lambda: made.manager.capacity() == {RESOURCE: (4, 4)})
        await made.give(wants(1, uid="u2"))
        assert made.ids("u2") == {"d2"}
    await again.stop()
    async with node(directory) as made:
        with pytest.raises(Refused, match="no healthy devices present; cannot allocate unhealthy devices"):
            await made.give(wanted)


async def test_a_plugin_that_went_away(directory: Path) -> None:
    clock, devices, again = ManualClock(), plugin(), plugin(count=2)
    async with node(directory, clock) as made:
        await devices.start(directory)
        await made.until(made.manager.capacity)
        await made.give(wants(1))
        await devices.stop()
        await made.until(lambda: made.manager.capacity() == {RESOURCE: (4, 0)})
        with pytest.raises(Refused, match="no healthy devices present"):
            await made.give(wants(1, uid="u2"))
        await clock.advance(GONE_SECONDS + 1)
        assert made.manager.capacity() == {RESOURCE: (0, 0)}, "the node's status must say that there are none"
        assert made.ids("u1"), "what runs keeps what it has"
        (directory / "dev.sock").unlink(missing_ok=True)
        await again.start(directory)
        await made.until(lambda: made.manager.capacity() == {RESOURCE: (2, 2)})
        await again.stop()


async def test_a_plugin_that_registers_again(directory: Path) -> None:
    devices, other = plugin(), plugin(count=1)
    async with node(directory) as made:
        await devices.start(directory)
        await made.until(made.manager.capacity)
        (directory / "dev.sock").unlink()
        await other.start(directory)
        await made.until(lambda: made.manager.capacity() == {RESOURCE: (1, 1)})
        await devices.stop()
        await asyncio.sleep(0)
        assert made.manager.capacity() == {RESOURCE: (1, 1)}
        await other.stop()


# --- On disk


def test_what_is_written_down() -> None:
    table = DeviceTable()
    table.give("u", "c", RESOURCE, Given({-1: ["a"], 1: ["b"]}, {"envs": {"A": "1"}}))
    content = json.loads(json.dumps(to_checkpoint(table)))
    entry = content["Data"]["PodDeviceEntries"][0]
    assert entry["DeviceIDs"] == {"-1": ["a"], "1": ["b"]} and entry["AllocResp"] == "CgYKAUESATE="
    read = from_checkpoint(content)
    assert read.given == table.given and read.in_use(RESOURCE) == {"a", "b"}
    content["Data"]["PodDeviceEntries"][0]["PodUID"] = "other"
    with pytest.raises(checkpoint.Corrupt):
        from_checkpoint(content)


async def test_a_damaged_file_is_left_behind(directory: Path) -> None:
    (directory / CHECKPOINT).write_text('{"Data":')
    async with node(directory) as made:
        assert made.manager.capacity() == {}
