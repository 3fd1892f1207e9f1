"""The end of a node: who ends when, what is told, and the conversation with logind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj, condition
from shipwheel.client import resources as r
from shipwheel.kubelet import logind
from shipwheel.kubelet.config import ConfigError, from_object, validate
from shipwheel.kubelet.logind import LogindError
from shipwheel.kubelet.settings import KubeletConfig
from shipwheel.kubelet.shutdown import STATE_FILE, Period, groups, periods
from tests.kubelet.builders import container, pod
from tests.kubelet.world import World, world


def configured(**fields: object) -> KubeletConfig:
    made = from_object({"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1", **fields})
    validate(made)
    return made


def test_how_much_time_there_is() -> None:
    assert periods(KubeletConfig()) == ()
    two = configured(shutdownGracePeriod="30s", shutdownGracePeriodCriticalPods="10s")
    assert periods(two) == (Period(0, 20), Period(2_000_000_000, 10))
    listed = [{"priority": 10, "shutdownGracePeriodSeconds": 5}, {"priority": -3, "shutdownGracePeriodSeconds": 7}]
    assert periods(configured(shutdownGracePeriodByPodPriority=listed)) == (Period(-3, 7), Period(10, 5))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"shutdownGracePeriodCriticalPods": "10s"}, "shutdownGracePeriodCriticalPods {10s} must be <= "),
        ({"shutdownGracePeriod": "100ms"}, "shutdownGracePeriod {100ms} must be either zero or otherwise >= 1 sec"),
        (
            {"shutdownGracePeriod": "1s", "shutdownGracePeriodByPodPriority": [{"priority": 1}]},
            "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time",
        ),
    ],
)
def test_what_makes_no_sense(fields: Obj, why: str) -> None:
    with pytest.raises(ConfigError, match="invalid configuration") as caught:
        configured(**fields)
    assert why in str(caught.value)


@given(st.lists(st.integers(-10, 10), min_size=1, max_size=5, unique=True), st.lists(st.integers(-20, 20)))
def test_everybody_belongs_to_one_group(floors: list[int], priorities: list[int]) -> None:
    listed = [Period(floor, 1) for floor in sorted(floors)]
    found = groups(listed, [pod(priority=each) for each in priorities])
    assert [period.priority for period, _ in found] == sorted({period.priority for period, _ in found})
    assert sum(len(members) for _, members in found) == len(priorities)
    for period, members in found:
        for each in members:
            fitting = [floor for floor in floors if floor <= each["spec"]["priority"]]
            assert period.priority == max(fitting, default=min(floors))


class FakeLock:
    def __init__(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False


class FakeLogind:
    def __init__(self) -> None:
        self.locks: list[FakeLock] = []
        self.seconds = 5.0
        self.told: asyncio.Queue[bool] = asyncio.Queue()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[FakeLogind]:
        yield self

    async def delay(self) -> float:
        return self.seconds

    async def raise_delay(self, seconds: float) -> None:
        self.seconds = seconds

    async def inhibit(self) -> FakeLock:
        self.locks.append(FakeLock())
        return self.locks[-1]

    async def shutdowns(self) -> AsyncIterator[bool]:
        while True:
            yield await self.told.get()


def is_ready(world: World) -> bool:
    return (condition(world.api.get(r.NODES, "node1") or {}, "Ready") or {}).get("status") == "True"


async def follow(world: World, fake: FakeLogind) -> None:
    world.start(shutdown_grace_period=30.0, shutdown_grace_period_critical_pods=10.0)
    world.kubelet.shutdown.connect = fake.connected
    await world.until(lambda: fake.locks and is_ready(world))


async def test_pods_end_in_order_and_the_machine_waits(tmp_path: Path) -> None:
    fake = FakeLogind()
    async with world(tmp_path, start=False) as made:
        await follow(made, fake)
        assert fake.seconds == 30
        made.create(pod(container("c"), meta={"name": "low"}))
        made.create(pod(container("c"), meta={"name": "high"}, priority=2_000_000_001))
        await made.until(lambda: all(made.phase(name) == "Running" for name in ("low", "high")))
        fake.told.put_nowait(True)
        await made.until(lambda: made.phase("low") == "Failed")
        low = made.pod("low")["status"]
        assert (low["reason"], low["message"]) == (
            "Terminated",
            "Pod was terminated in response to imminent node shutdown.",
        )
        assert (condition({"status": low}, "DisruptionTarget") or {})["reason"] == "TerminationByKubelet"
        await made.until(lambda: made.phase("high") == "Failed" and not fake.locks[0].held)
        ready = condition(made.api.get(r.NODES, "node1") or {}, "Ready") or {}
        assert (ready["status"], ready["message"]) == ("False", "node is shutting down")
        made.create(pod(container("c"), meta={"name": "late"}))
        await made.until(lambda: made.phase("late") == "Failed")
        assert made.pod("late")["status"]["reason"] == "NodeShutdown"
        state = json.loads((tmp_path / "root" / STATE_FILE).read_text())
        assert state["startTime"] <= state["endTime"]
        assert b"kubelet_graceful_shutdown_end_time_seconds 0.0" not in made.kubelet.exposition()


async def test_a_shutdown_that_is_called_off(tmp_path: Path) -> None:
    fake = FakeLogind()
    async with world(tmp_path, start=False) as made:
        await follow(made, fake)
        fake.told.put_nowait(True)
        await made.until(lambda: not fake.locks[0].held)
        fake.told.put_nowait(False)
        await made.until(lambda: len(fake.locks) == 2 and fake.locks[1].held and is_ready(made))
        messages = {each["message"] for each in made.api.list(r.EVENTS) if each["reason"] == "NodeShutdown"}
        assert messages == {
            "Shutdown manager detected shutdown event",
            "Shutdown manager detected shutdown cancellation",
        }


# --- D-Bus


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A bus of its own in place of the system's."""
    if not shutil.which("dbus-daemon"):
        pytest.skip("needs dbus-daemon")
    socket = tmp_path / "bus"
    config = tmp_path / "bus.conf"
    config.write_text(
        f"<busconfig><type>system</type><listen>unix:path={socket}</listen><policy context='default'>"
        "<allow send_destination='*'/><allow eavesdrop='true'/><allow own='*'/><allow receive_type='signal'/>"
        "<allow user='*'/></policy></busconfig>"
    )
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None and daemon.stdout.readline()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={socket}")
    try:
        yield
    finally:
        daemon.terminate()
        daemon.wait()
        daemon.stdout.close()


class Login1(threading.Thread):
    """Answers as logind would: its delay follows the file once it is told to look, and once it is asked to wait for
    somebody it announces a shutdown."""

    def __init__(self, override: Path) -> None:
        super().__init__(daemon=True)
        self.override = override
        self.delay = 5_000_000
        self.pipe = os.pipe()
        self.ready = threading.Event()
        self.ends = threading.Event()
        self.asked = False

    def run(self) -> None:
        from jeepney import (
            DBusAddress,
            FileDescriptor,
            HeaderFields,
            MessageType,
            message_bus,
            new_method_return,
            new_signal,
        )
        from jeepney.io.blocking import open_dbus_connection

        emitter = DBusAddress("/org/freedesktop/login1", interface="org.freedesktop.login1.Manager")
        with open_dbus_connection("SYSTEM", enable_fds=True) as connection:
            for name in ("org.freedesktop.login1", "org.freedesktop.systemd1"):
                connection.send_and_get_reply(message_bus.RequestName(name))
            self.ready.set()
            while not self.ends.is_set():
                try:
                    message = connection.receive(timeout=0.1)
                except TimeoutError:
                    if self.asked:
                        connection.send(new_signal(emitter, "PrepareForShutdown", "b", (True,)))
                    continue
                if message.header.message_type is not MessageType.method_call:
                    continue
                match message.header.fields[HeaderFields.member]:
                    case "Get":
                        connection.send(new_method_return(message, "v", (("t", self.delay),)))
                    case "KillUnit":
                        self.delay = int(self.override.read_text().rpartition("=")[2]) * 1_000_000
                        connection.send(new_method_return(message))
                    case "Inhibit":
                        assert message.body == (
                            "shutdown",
                            "kubelet",
                            "Kubelet needs time to handle node shutdown",
                            "delay",
                        )
                        held = FileDescriptor(os.dup(self.pipe[1]))
                        connection.send(new_method_return(message, "h", (held,)))
                        os.close(self.pipe[1])
                        held.close()
                        self.asked = True


@pytest.fixture
def login1(bus: None, tmp_path: Path) -> Iterator[Login1]:
    made = Login1(tmp_path / "logind.conf.d" / "99-kubelet.conf")
    made.start()
    assert made.ready.wait(10)
    try:
        yield made
    finally:
        made.ends.set()
        made.join(10)
        os.close(made.pipe[0])


async def test_the_conversation_with_logind(login1: Login1) -> None:
    async with asyncio.timeout(30), logind.connected(login1.override) as found:
        assert await found.delay() == 5
        await found.raise_delay(45)
        assert await found.delay() == 45
        lock = await found.inhibit()
        async for begins in found.shutdowns():
            assert begins
            break
        os.set_blocking(login1.pipe[0], False)
        with pytest.raises(BlockingIOError):
            os.read(login1.pipe[0], 1)
        lock.release()
        lock.release()
        assert os.read(login1.pipe[0], 1) == b"", "nobody holds it any more"


async def test_without_a_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(LogindError):
        async with logind.connected():
            pass
