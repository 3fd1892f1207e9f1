"""A machine made of namespaces: what is its own, what goes on when its maker ends, and how it dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shipwheel.admin.kernel import alive
from shipwheel.admin.namespaces import Namespaces

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Namespaces]:
    made = Namespaces("other", tmp_path / "run")
    yield made
    made.kill()


def inside(machine: Namespaces, action: Callable[[], Any]) -> Any:
    """What an action in the namespaces gives."""
    end, start = os.pipe()
    pid = machine.fork()
    if not pid:
        try:
            machine.enter()
            os.write(start, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(start)
    with os.fdopen(end) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def facts() -> dict[str, Any]:
    return {
        "hostname": socket.gethostname(),
        "pid": os.getpid(),
        "first": Path("/proc/1/comm").read_text().strip(),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "cgroups": len(os.listdir("/sys/fs/cgroup")),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text(),
        "ns": {each: os.readlink(f"/proc/self/ns/{each}") for each in ("net", "mnt", "uts", "pid")},
    }


def test_what_is_its_own(machine: Namespaces, tmp_path: Path) -> None:
    before = facts()
    machine.boot(tmp_path / "identity")
    found = inside(machine, facts)
    assert (found["hostname"], found["first"], found["interfaces"]) == ("other", "sleep", ["lo"])
    assert found["pid"] < 10
    assert found["cgroups"] == before["cgroups"]
    assert all(found["ns"][each] != before["ns"][each] for each in before["ns"])
    assert found["boot"] != before["boot"]
    after = facts()
    assert (after["hostname"], after["ns"], after["boot"]) == (before["hostname"], before["ns"], before["boot"])


def test_directories_that_it_keeps(machine: Namespaces, tmp_path: Path) -> None:
    place, kept = tmp_path / "place", tmp_path / "kept"
    machine = replace(machine, kept={place: kept})
    note = place / "note"
    for there_before in (False, True):
        machine.boot(tmp_path / "identity")
        assert inside(machine, lambda: [note.exists(), note.write_text("kept")])[0] is there_before
        assert not note.exists(), "the real machine has nothing there"
        machine.kill()
    assert (kept / "note").read_text() == "kept"


def test_it_dies_at_once_and_comes_back_as_the_same_machine(machine: Namespaces, tmp_path: Path) -> None:
    machine.boot(tmp_path / "identity")
    identity = (tmp_path / "identity").read_text()
    boot = inside(machine, facts)["boot"]
    child = machine.fork()
    if not child:
        time.sleep(600)
        os._exit(0)
    # Nobody buries the child yet, as it is where the first process of a container does not do that.
    machine.kill()
    assert machine.first() is None
    assert not alive(child)
    machine.kill()
    with pytest.raises(ProcessLookupError):
        machine.fork()
    machine.boot(tmp_path / "identity")
    assert (tmp_path / "identity").read_text() == identity
    assert inside(machine, facts)["boot"] != boot


def test_orphans_are_buried(machine: Namespaces, tmp_path: Path) -> None:
    machine.boot(tmp_path / "identity")

    def leave_an_orphan() -> int:
        subprocess.run(["sh", "-c", "sleep 0 & true"], check=True)
        deadline = time.monotonic() + 30
        while len(found := [each for each in os.listdir("/proc") if each.isdigit()]) > 2:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return len(found)

    assert inside(machine, leave_an_orphan) == 2


def test_why_it_cannot_be(machine: Namespaces, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no namespaces for other: .*Is a directory"):
        machine.boot(identity=tmp_path)


def test_what_it_mounts_reaches_its_own_namespaces_and_not_the_real_machine(
    machine: Namespaces, tmp_path: Path
) -> None:
    machine.boot(tmp_path / "identity")
    place = tmp_path / "place"
    place.mkdir()

    def mount_and_look() -> dict[str, bool]:
        """A namespace made by whoever runs containers there receives what is mounted after it was made."""
        holder = subprocess.Popen(["unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo; sleep 600"],
                                  stdout=subprocess.PIPE)  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        subprocess.run(["mount", "-t", "tmpfs", "seen", str(place)], check=True)
        seen = str(place) in Path(f"/proc/{holder.pid}/mountinfo").read_text()
        holder.kill()
        holder.wait()
        return {"below": seen}

    assert inside(machine, mount_and_look) == {"below": True}
    assert str(place) not in Path("/proc/self/mountinfo").read_text()
