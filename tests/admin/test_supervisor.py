"""The supervisor with real processes: what is killed comes back, what is stopped ends, nothing is left over."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from shipwheel.admin import status
from shipwheel.admin.kernel import alive
from shipwheel.admin.layout import Layout
from shipwheel.admin.supervisor import Lock, Program, Supervisor, back_off, daemonize, failures_in_a_row, read_state

TIMEOUT = 60.0


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def sleep_for_ever() -> None:
    while True:
        time.sleep(60)


def fail() -> None:
    raise RuntimeError("out of coffee")


class Cluster:
    def __init__(self, directory: Path, *programs: Program, later: Sequence[Program] | None = None) -> None:
        self.directory = directory
        self.state_file = directory / "state.json"
        reload = None if later is None else (lambda: later)
        supervisor = Supervisor(programs, log_file=self.log, state=self.state_file, reload=reload)
        self.pid = daemonize(supervisor.run, log_file=self.log("supervisor"))

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def component(self, name: str) -> dict[str, Any]:
        state = read_state(self.state_file) or {"components": []}
        return next((each for each in state["components"] if each["name"] == name), {})

    def pid_of(self, name: str) -> int:
        return self.component(name).get("pid", 0)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        wait_for(lambda: not alive(self.pid))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def make(*programs: Program, later: Sequence[Program] | None = None) -> Cluster:
        made.append(Cluster(tmp_path, *programs, later=later))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_what_is_killed_is_started_again(start: Callable[..., Cluster]) -> None:
    cluster = start(Program("one", sleep_for_ever), Program("two", sleep_for_ever))
    first, other = wait_for(lambda: cluster.pid_of("one")), cluster.pid_of("two")
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: cluster.pid_of("one") not in (0, first) and cluster.pid_of("one"))
    component = cluster.component("one")
    assert (component["restarts"], component["last_exit"]) == (1, "was killed by SIGKILL")
    assert alive(second)
    assert cluster.pid_of("two") == other


def test_a_program_that_fails_says_why(
    start: Callable[..., Cluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = start(Program("one", fail))
    wait_for(lambda: cluster.component("one").get("restarts", 0) >= 2)
    component = cluster.component("one")
    assert (component["last_exit"], component["last_error"]) == ("ended with code 1", "out of coffee")
    assert component["failures"] == component["restarts"]
    layout = Layout.of("x", tmp_path)
    state = read_state(cluster.state_file)
    assert state is not None
    layout.state.write_text(json.dumps(state))
    monkeypatch.setattr(status, "is_running", lambda _: True)
    assert [each.failing for each in status.components(layout)] == ["out of coffee"]
    for each in state["components"]:
        # As of an older version.
        del each["failures"], each["last_error"]
    layout.state.write_text(json.dumps(state))
    assert [each.failing for each in status.components(layout)] == [""]
    lines = cluster.log("one").read_text().splitlines()
    assert lines[-1].endswith("out of coffee")
    assert any("Traceback" in line for line in lines)


@pytest.mark.parametrize(
    ("before", "ran", "failed", "after"),
    [
        (0, 0.1, True, 1),
        (1, 0.1, True, 2),
        (1, 1.5, True, 2),
        (7, 29.0, True, 8),
        (7, 31.0, True, 1),
        (0, 0.1, False, 1),
        (1, 0.1, False, 2),
        (7, 1.5, False, 1),
    ],
)
def test_failures_count_until_a_program_runs_for_a_while(before: int, ran: float, failed: bool, after: int) -> None:
    assert failures_in_a_row(before, ran, failed=failed) == after


def test_the_first_failure_costs_nothing_and_more_of_them_ever_more() -> None:
    delays = [back_off(each, failed=True) for each in (1, 2, 3, 4, 5, 6, 7, 8, 9, 5000)]
    assert delays == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_who_is_killed_again_and_again_comes_back_soon() -> None:
    assert [back_off(each, failed=False) for each in (1, 2, 3, 5000)] == [0, 0.5, 0.5, 0.5]


def test_programs_end_in_reverse_order(start: Callable[..., Cluster], tmp_path: Path) -> None:
    order = tmp_path / "order"

    def note(name: str) -> Callable[[], None]:
        def work() -> None:
            def end(*_: object) -> None:
                with order.open("a") as file:
                    file.write(f"{name} ")
                os._exit(0)

            signal.signal(signal.SIGTERM, end)
            (tmp_path / f"{name}.ready").touch()
            sleep_for_ever()

        return work

    cluster = start(*(Program(name, note(name)) for name in ("a", "b", "c")))
    wait_for(lambda: len(list(tmp_path.glob("*.ready"))) == 3)
    cluster.close()
    assert order.read_text() == "c b a "
    assert not cluster.state_file.exists()


def test_what_shall_run_can_change(start: Callable[..., Cluster]) -> None:
    one, two, three = (Program(name, sleep_for_ever) for name in ("one", "two", "three"))
    cluster = start(one, two, later=(two, three))
    first, second = wait_for(lambda: cluster.pid_of("one")), cluster.pid_of("two")
    os.kill(cluster.pid, signal.SIGHUP)
    wait_for(lambda: cluster.pid_of("three"))
    assert not alive(first)
    assert cluster.component("one") == {}
    assert cluster.pid_of("two") == second, "what stays is left alone"


def test_a_process_that_cannot_be_made_is_tried_again(start: Callable[..., Cluster]) -> None:
    def refuse() -> int:
        raise OSError("no room")

    cluster = start(Program("one", sleep_for_ever, refuse), Program("two", sleep_for_ever))
    wait_for(lambda: cluster.component("one").get("restarts", 0) >= 2)
    assert cluster.component("one")["last_exit"] == "cannot be started: no room"
    assert alive(cluster.pid_of("two"))


def test_nobody_survives_a_killed_supervisor(start: Callable[..., Cluster]) -> None:
    cluster = start(Program("one", sleep_for_ever))
    pid = wait_for(lambda: cluster.pid_of("one"))
    wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "one\n")
    os.kill(cluster.pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))


def test_the_lock_is_held_as_long_as_any_process_lives(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    assert not lock.is_held
    assert lock.take()
    pid = daemonize(sleep_for_ever, log_file=tmp_path / "log")
    lock.release()
    assert Lock(tmp_path / "lock").is_held
    assert not Lock(tmp_path / "lock").take()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    assert not Lock(tmp_path / "lock").is_held
