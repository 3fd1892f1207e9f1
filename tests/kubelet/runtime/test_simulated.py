"""What simulated containers do as time passes: declared lives, scripts, images, addresses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.clock import ManualClock
from shipwheel.kubelet.runtime.base import (
    Container,
    ContainerConfig,
    LinuxResources,
    RuntimeFault,
    SandboxConfig,
)
from shipwheel.kubelet.runtime.simulated import SimulatedRuntime
from shipwheel.kubelet.runtime.simulated.addresses import AddressPool
from shipwheel.kubelet.runtime.simulated.images import Reference
from shipwheel.kubelet.runtime.simulated.life import (
    ANNOTATION,
    Life,
    LifeError,
    PodLife,
    Step,
    parse,
    seconds,
)
from shipwheel.kubelet.runtime.simulated.shell import program
from shipwheel.kubelet.runtime.simulated.syntax import Incomprehensible
from shipwheel.kubelet.runtime.simulated.syntax import parse as parse_script
from shipwheel.kubelet.runtime.simulated.terminal import Line, Terminal
from shipwheel.kubelet.runtime.simulated.world import Output, Sleep, World

# --- Declarations


def test_a_declaration_with_everything() -> None:
    life = parse(
        """
        pull: {delay: 2s, error: gone}
        sandbox: {delay: 1m30s}
        containers:
          web:
            start: {delay: 500ms, error: not now}
            run: 30s
            exit: 1
            message: why
            logs: [one, two]
            every: 2
            usage: {cpu: 100m, memory: 64Mi}
            stop: {delay: 2s, exit: 0}
            listens: false
          job: [{run: 1s, exit: 1}, {run: 5s}]
          "*": {exit: 3}
        """
    )
    assert (life.pull, life.sandbox) == (Step(2, "gone"), Step(90))
    assert life.of("web", 7) == Life(
        start=Step(0.5, "not now"),
        run=30,
        declared=True,
        exit=1,
        message="why",
        logs=("one", "two"),
        every=2,
        cpu=0.1,
        memory=64 << 20,
        stop_delay=2,
        stop_exit=0,
        listens=False,
    )
    assert [life.of("job", attempt).exit for attempt in (0, 1, 5)] == [1, 0, 0]
    assert life.of("another", 0).exit == 3


def test_nothing_declared() -> None:
    assert parse(" ") == PodLife()
    assert PodLife().of("x", 0) == Life()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("containers: {a: {runs: 3s}}", 'unknown field "runs"'),
        ("pull: {delay: soon}", "invalid duration 'soon'"),
        ("- a list", "expected fields pull, sandbox, containers"),
        ("a: [", "while parsing"),
        ("containers: {a: {usage: {memory: lots}}}", "quantit"),
    ],
)
def test_wrong_declarations_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(LifeError, match=message):
        parse(text)


@pytest.mark.parametrize(("text", "value"), [("1h2m3.5s", 3723.5), ("250ms", 0.25), (4, 4.0), (0.5, 0.5)])
def test_durations(text: object, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


# --- Lives


class Node:
    def __init__(self, logs: Path, *, finishes: bool = False) -> None:
        self.clock = ManualClock()
        self.runtime = SimulatedRuntime(self.clock, finishes=lambda uid: finishes)
        self.config = SandboxConfig(name="p", namespace="ns", uid="u", log_directory=str(logs))

    async def start(self, *command: str, life: str = "", attempt: int = 0, memory: int = 0) -> str:
        config = replace(self.config, annotations={ANNOTATION: life} if life else {})
        image = await self.runtime.pull_image("busybox", None, None)
        sandbox = await self.runtime.run_sandbox(config)
        container = await self.runtime.create_container(
            sandbox,
            ContainerConfig(
                name="main",
                image=image,
                command=command,
                attempt=attempt,
                log_path=f"{attempt}.log",
                resources=LinuxResources(memory_limit_bytes=memory),
            ),
            config,
        )
        await self.runtime.start_container(container)
        return container

    async def after(self, seconds: float, container: str) -> Container:
        await self.clock.advance(seconds)
        return await self.runtime.container_status(container)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_an_unknown_program_serves_for_ever(node: Node) -> None:
    container = await node.start("nginx", "-g", "daemon off;")
    assert (await node.after(1e7, container)).state == "RUNNING"
    assert node.runtime.answers(container) is True


async def test_or_finishes_where_that_is_meant(tmp_path: Path) -> None:
    node = Node(tmp_path, finishes=True)
    container = await node.start("perl", "-e", "print 42")
    assert (await node.after(0.9, container)).state == "RUNNING"
    status = await node.after(0.2, container)
    assert (status.state, status.exit_code, status.finished_at - status.started_at) == ("EXITED", 0, 10**9)
    assert node.runtime.answers(container) is False


async def test_a_declared_life(node: Node) -> None:
    life = "containers: {main: {run: 10s, exit: 7, message: tired, logs: [a, b], every: 4s}}"
    container = await node.start("sleep", "1", life=life)
    assert (await node.after(9.5, container)).state == "RUNNING"
    status = await node.after(1, container)
    assert (status.exit_code, status.reason, status.message) == (7, "Error", "tired")
    assert status.finished_at - status.started_at == 10 * 10**9
    log = (Path(node.config.log_directory) / "0.log").read_text()
    assert log == "2026-01-01T00:00:00.000000000Z stdout F a\n2026-01-01T00:00:04.000000000Z stdout F b\n"


async def test_each_attempt_has_its_own(node: Node) -> None:
    life = "containers: {main: [{exit: 1}, {run: 100s}]}"
    assert (await node.after(0, await node.start(life=life))).exit_code == 1
    assert (await node.after(50, await node.start(life=life, attempt=1))).state == "RUNNING"


async def test_too_much_memory_ends_in_oomkilled(node: Node) -> None:
    life = "containers: {main: {usage: {memory: 64Mi}}}"
    status = await node.after(0, await node.start(life=life, memory=32 << 20))
    assert (status.state, status.exit_code, status.reason) == ("EXITED", 137, "OOMKilled")


async def test_what_fails_fails_after_its_time(node: Node) -> None:
    starting = asyncio.create_task(node.start(life="containers: {main: {start: {delay: 5s, error: not now}}}"))
    await node.clock.advance(4)
    assert not starting.done()
    await node.clock.advance(2)
    with pytest.raises(RuntimeFault, match="not now"):
        await starting
    with pytest.raises(RuntimeFault, match="expected fields"):
        await node.start(life="nonsense")


async def test_stopping_takes_as_long_as_declared_and_no_longer_than_allowed(node: Node) -> None:
    life = "containers: {main: {stop: {delay: 10s, exit: 0}}}"
    patient, impatient = await node.start(life=life), await node.start(life=life, attempt=1)
    stopping = asyncio.gather(node.runtime.stop_container(patient, 30), node.runtime.stop_container(impatient, 2))
    await node.clock.advance(11)
    await stopping
    codes = [(await node.runtime.container_status(each)).exit_code for each in (patient, impatient)]
    assert codes == [0, 137]


async def test_a_signal_from_inside(node: Node) -> None:
    container = await node.start("nginx")
    await node.runtime.exec_sync(container, ["sh", "-c", "kill -9 1"], 5)
    assert (await node.after(0, container)).exit_code == 137


async def test_usage_grows_with_time(node: Node) -> None:
    container = await node.start(life="containers: {main: {usage: {cpu: 500m, memory: 1Mi}}}")
    await node.clock.advance(10)
    usage = (await node.runtime.usage())[container]
    assert (usage.cpu_nanoseconds, usage.memory_working_set) == (5 * 10**9, 1 << 20)


async def test_a_script_lives_in_the_clocks_time(node: Node) -> None:
    """The classic of probes: healthy for a while."""
    script = "touch /tmp/healthy; sleep 30; rm -f /tmp/healthy; sleep 600"
    container = await node.start("sh", "-c", script)

    async def healthy() -> bool:
        return (await node.runtime.exec_sync(container, ["cat", "/tmp/healthy"], 1)).exit_code == 0

    assert await healthy()
    await node.clock.advance(31)
    assert not await healthy()
    assert (await node.after(600, container)).state == "EXITED"


async def test_a_loop_without_end_costs_only_the_time_that_passes(node: Node) -> None:
    container = await node.start("sh", "-c", "i=0; while true; do echo $i; i=$((i+1)); sleep 1; done")
    await node.after(3.5, container)
    log = (Path(node.config.log_directory) / "0.log").read_text()
    assert [line.split()[-1] for line in log.splitlines()] == ["0", "1", "2", "3"]


async def test_images_of_registries_that_cannot_be(node: Node) -> None:
    with pytest.raises(RuntimeFault, match="no such host"):
        await node.runtime.pull_image("registry.invalid/x", None, None)
    await node.runtime.pull_image("nginx", None, None)
    image = await node.runtime.image_status("docker.io/library/nginx:latest")
    assert image is not None and image == await node.runtime.image_status("nginx:latest")
    assert await node.runtime.image_status("nginx:1.25") is None


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("user/app", "docker.io/user/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("nginx@sha256:ab", "docker.io/library/nginx@sha256:ab"),
        ("nginx:1@sha256:ab", "docker.io/library/nginx:1@sha256:ab"),
    ],
)
def test_references(short: str, full: str) -> None:
    assert str(Reference.parse(short)) == full


@given(st.lists(st.integers(0, 20), max_size=60))
def test_no_address_is_given_twice(moves: list[int]) -> None:
    pool = AddressPool("10.0.0.0/28")
    held: list[str] = []
    for move in moves:
        if move < 12 and len(held) < 13:
            address = pool.take()
            assert address not in held
            assert address not in ("10.0.0.0", "10.0.0.1", "10.0.0.15")
            held.append(address)
        elif held:
            assert pool.give_back(held.pop(move % len(held)))
    if len(held) == 13:
        with pytest.raises(RuntimeFault, match="no IP addresses available"):
            pool.take()


# --- The shell


def run(
    script: str, *, files: dict[str, bytes] | None = None, env: dict[str, str] | None = None
) -> tuple[str, int, float]:
    """(what was said, exit code, how long it took)"""
    world = World(env=env or {}, hostname="h", files=files if files is not None else {})
    running = program(["sh", "-c", script], world)
    assert running is not None, "not understood"
    said, passed = "", 0.0
    while True:
        try:
            event = next(running)
        except StopIteration as end:
            return said, end.value, passed
        if isinstance(event, Output):
            said += event.data.decode()
        elif isinstance(event, Sleep):
            passed += event.seconds


@pytest.mark.parametrize(
    ("script", "said", "code"),
    [
        ("echo a b  'c  d' \"e $X f\"", "a b c  d e 1 f\n", 0),
        ("echo -n a; printf '%s-%d\\n' x 3", "ax-3\n", 0),
        ("true && echo yes || echo no", "yes\n", 0),
        ("false && echo yes || echo no", "no\n", 0),
        ("! false; echo $?", "0\n", 0),
        ("exit 3; echo never", "", 3),
        ("(exit 3); echo $?", "3\n", 0),
        ("if [ $X -eq 1 ]; then echo one; elif true; then echo other; else echo none; fi", "one\n", 0),
        ("for i in 1 2 3; do [ $i = 2 ] && continue; echo $i; done", "1\n3\n", 0),
        ("i=0\nwhile [ $i -lt 3 ]\ndo\n  i=$((i+1)) # count\ndone\necho $i", "3\n", 0),
        ("until false; do break; done; echo out", "out\n", 0),
        ("while true; do break; done; echo out", "out\n", 0),
        ("echo one > f; echo two >> f; cat f | grep -c o", "2\n", 0),
        ("echo gone > /dev/null; echo err >&2", "err\n", 0),
        ("{ echo a; echo b; } | wc -l", "2\n", 0),
        ('X=2; echo $X ${X} ${Y:-none} "${Y:-two words}"', "2 2 none two words\n", 0),
        ("echo $(echo a; echo b) `echo c`", "a b c\n", 0),
        ("set -e; false; echo never", "", 1),
        ("set -e; if false; then :; fi; false || true; echo on", "on\n", 0),
        ('Y=5 env | grep Y; echo "[$Y]"', "Y=5\n[]\n", 0),
        ("sh -c 'echo inner; exit 4'; echo $?", "inner\n4\n", 0),
        ("exec echo last; echo never", "last\n", 0),
        ("cd /tmp && pwd", "/tmp\n", 0),
        ("test -f /etc/x || echo missing", "missing\n", 0),
        ("seq 3 | tail -n 1", "3\n", 0),
        ("echo $((2 + 3 * (4 - 1))) $((7 / 2)) $((X + 1))", "11 3 2\n", 0),
        ("nonsense", "sh: nonsense: not found\n", 127),
        ("echo a;# comment\necho b", "a\nb\n", 0),
        ('for w in $(echo x y); do echo "<$w>"; done', "<x>\n<y>\n", 0),
    ],
)
def test_scripts(script: str, said: str, code: int) -> None:
    assert run(script, env={"X": "1"})[:2] == (said, code)


def test_sleeping_takes_time() -> None:
    assert run("sleep 1.5; sleep 2m")[2] == pytest.approx(121.5)


def test_files_are_the_containers_own() -> None:
    files: dict[str, bytes] = {}
    run("mkdir /data; echo x > /data/f; cd /data; touch g", files=files)
    assert {"/data/f": b"x\n", "/data/g": b""}.items() <= files.items()


def test_files_can_be_copied_in_and_out() -> None:
    files = {"/data/a": b"1", "/data/sub/b": b"2", "/other": b"3"}
    there = World({}, "h", files)
    here = World({}, "h", {})
    sending = program(["tar", "cf", "-", "/data"], there)
    assert sending is not None
    archive = b"".join(event.data for event in sending if isinstance(event, Output))
    receiving = program(["tar", "-xmf", "-", "-C", "/tmp"], here, stdin=archive)
    assert receiving is not None and list(receiving) == []
    assert here.files == {"/tmp/data/a": b"1", "/tmp/data/sub/b": b"2"}


@pytest.mark.parametrize(
    "script",
    [
        "f() { :; }",
        "cat <<EOF",
        "sleep 1 &",
        "case x in x) ;; esac",
        "echo 'open",
        "if",
        "( a",
        "a | | b",
        "&&",
    ],
)
def test_what_is_not_understood_is_no_program(script: str) -> None:
    with pytest.raises(Incomprehensible):
        parse_script(script)
    assert program(["sh", "-c", script], World({}, "h", {})) is None


@given(st.text("ab $\"'`();|&<>{}=\n\\#1-", max_size=40))
def test_no_script_crashes_the_parser(script: str) -> None:
    try:
        parse_script(script)
    except Incomprehensible:
        return


# --- The terminal


def test_keys_become_lines_and_an_echo() -> None:
    terminal = Terminal(echoes=True)
    assert terminal.feed(b"lx\x7fs\r") == (b"lx\b \bs\r\n", [Line("ls")])
    assert terminal.feed(b"abc\x03") == (b"abc^C\r\n", ["interrupt"])
    assert terminal.feed(b"\x04") == (b"", ["end"])


def test_without_a_terminal_nothing_is_echoed() -> None:
    terminal = Terminal(echoes=False)
    assert terminal.feed(b"one\ntwo") == (b"", [Line("one")])
    assert terminal.rest() == "two"
