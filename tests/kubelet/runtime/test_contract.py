"""What the kubelet relies on, of every runtime."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shipwheel.admin.images import WEB
from shipwheel.client.streams import portforward
from shipwheel.client.streams.channel import Channel, read_all
from shipwheel.client.streams.remotecommand import Endpoint, StreamOptions, open_spdy, open_websocket
from shipwheel.client.streams.spdy_session import SpdySession
from shipwheel.client.streams.wire import connect
from shipwheel.kubelet.runtime.base import (
    Container,
    ContainerConfig,
    LinuxResources,
    Mount,
    NamespaceModes,
    Runtime,
    RuntimeFault,
    SandboxConfig,
)
from tests.kubelet.runtime.conftest import SUBNET


class Pod:
    """A sandbox, and how to run something in it."""

    def __init__(self, runtime: Runtime, config: SandboxConfig, sandbox_id: str) -> None:
        self.runtime = runtime
        self.config = config
        self.id = sandbox_id

    async def start(self, *command: str, name: str = "main", **options: object) -> str:
        config = ContainerConfig(name=name, image=WEB, command=command, log_path=f"{name}/0.log", **options)  # type: ignore[arg-type]
        container = await self.runtime.create_container(self.id, config, self.config)
        await self.runtime.start_container(container)
        return container

    async def script(self, text: str, **options: object) -> str:
        return await self.start("sh", "-c", text, **options)

    async def ended(self, container_id: str) -> Container:
        async with asyncio.timeout(10):
            while (status := await self.runtime.container_status(container_id)).state != "EXITED":
                await asyncio.sleep(0.02)
        return status

    def log(self, name: str = "main") -> list[list[str]]:
        """[stream, tag, text] of each line."""
        lines = (Path(self.config.log_directory) / name / "0.log").read_text().splitlines()
        return [line.split(" ", 3)[1:] for line in lines]


MakePod = Callable[..., Awaitable[Pod]]


@pytest.fixture
def make_pod(runtime: Runtime, tmp_path: Path) -> MakePod:
    async def make(name: str = "p", **options: object) -> Pod:
        config = SandboxConfig(
            name=name,
            namespace="ns",
            uid=f"uid-{name}",
            hostname=name,
            log_directory=str(tmp_path / "logs" / name),
            labels={"io.kubernetes.pod.name": name},
            annotations={"a": "1"},
        )
        config = replace(config, **options)  # type: ignore[arg-type]
        return Pod(runtime, config, await runtime.run_sandbox(config))

    return make


async def test_it_says_what_it_is(runtime: Runtime) -> None:
    info = await runtime.info()
    assert info.name and info.version
    assert {each.kind: each.ok for each in (await runtime.status()).conditions} == {
        "RuntimeReady": True,
        "NetworkReady": True,
    }


async def test_a_sandbox_from_beginning_to_end(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    [listed] = [each for each in await runtime.sandboxes() if each.id == pod.id]
    assert (listed.name, listed.namespace, listed.uid, listed.ready) == ("p", "ns", "uid-p", True)
    assert (dict(listed.labels), dict(listed.annotations)) == ({"io.kubernetes.pod.name": "p"}, {"a": "1"})
    status = await runtime.sandbox_status(pod.id)
    assert ipaddress.ip_address(status.ips[0]) in ipaddress.ip_network(SUBNET)
    assert abs(status.created_at - asyncio.get_running_loop().time()) > 0

    await runtime.stop_sandbox(pod.id)
    await runtime.stop_sandbox(pod.id)
    assert not (await runtime.sandbox_status(pod.id)).ready
    await runtime.remove_sandbox(pod.id)
    await runtime.remove_sandbox(pod.id)
    with pytest.raises(RuntimeFault) as fault:
        await runtime.sandbox_status(pod.id)
    assert fault.value.code == "NOT_FOUND"


async def test_sandboxes_have_addresses_of_their_own(runtime: Runtime, make_pod: MakePod) -> None:
    pods = [await make_pod(f"p{number}") for number in range(3)]
    assert len({(await runtime.sandbox_status(pod.id)).ips[0] for pod in pods}) == 3


async def test_a_pod_on_the_hosts_network_has_no_address_of_its_own(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod(hostname="", namespaces=NamespaceModes(network="NODE"))
    status = await runtime.sandbox_status(pod.id)
    assert (list(status.ips), status.namespaces.network) == ([], "NODE")


async def test_a_container_from_beginning_to_end(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    config = ContainerConfig(
        name="main", image=WEB, command=["sleep", "100"], labels={"l": "1"}, annotations={"a": "2"}, attempt=3
    )
    created = await runtime.create_container(pod.id, config, pod.config)
    status = await runtime.container_status(created)
    assert (status.state, status.name, status.attempt, status.started_at) == ("CREATED", "main", 3, 0)
    await runtime.start_container(created)
    status = await runtime.container_status(created)
    assert status.state == "RUNNING"
    assert status.created_at <= status.started_at > 0
    [listed] = [each for each in await runtime.containers() if each.id == created]
    assert (listed.sandbox_id, listed.state, listed.attempt) == (pod.id, "RUNNING", 3)
    assert (dict(listed.labels), dict(listed.annotations)) == ({"l": "1"}, {"a": "2"})
    image = await runtime.image_status(WEB)
    assert image is not None and listed.image_ref == image.id

    await runtime.stop_container(created, 0)
    status = await runtime.container_status(created)
    assert (status.state, status.exit_code in (137, 143)) == ("EXITED", True)
    assert status.finished_at >= status.started_at
    await runtime.remove_container(created)
    await runtime.remove_container(created)
    await runtime.stop_container(created, 0)
    with pytest.raises(RuntimeFault) as fault:
        await runtime.container_status(created)
    assert fault.value.code == "NOT_FOUND"


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (3, "Error")])
async def test_exit_codes(make_pod: MakePod, code: int, reason: str) -> None:
    pod = await make_pod()
    status = await pod.ended(await pod.script(f"sleep 0.3; exit {code}"))
    assert (status.exit_code, status.reason) == (code, reason)
    assert status.finished_at > status.started_at


async def test_removing_a_sandbox_ends_its_containers(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    container = await pod.start("sleep", "100")
    await runtime.stop_sandbox(pod.id)
    assert (await runtime.container_status(container)).state == "EXITED"
    await runtime.remove_sandbox(pod.id)
    assert container not in [each.id for each in await runtime.containers()]


async def test_a_container_needs_its_sandbox_and_its_image(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    config = ContainerConfig(name="main", image="sha256:" + "0" * 64)
    with pytest.raises(RuntimeFault):
        await runtime.create_container(pod.id, config, pod.config)
    with pytest.raises(RuntimeFault) as fault:
        await runtime.create_container("0" * 64, replace(config, image=WEB), pod.config)
    assert fault.value.code == "NOT_FOUND"


async def test_logs_are_in_the_cri_format(make_pod: MakePod) -> None:
    pod = await make_pod()
    await pod.ended(await pod.script("echo one; echo two >&2; printf half"))
    assert sorted(line[0] + " " + line[-1] for line in pod.log()) == [
        "stderr two",
        "stdout half",
        "stdout one",
    ]
    assert [line[1] for line in pod.log() if line[-1] != "half"] == ["F", "F"]


async def test_a_rotated_log_is_reopened(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    container = await pod.script("echo before; sleep 0.3; echo after; sleep 100")
    log = Path(pod.config.log_directory) / "main" / "0.log"
    async with asyncio.timeout(60):
        while not (log.exists() and log.read_text()):
            await runtime.container_status(container)
            await asyncio.sleep(0.01)
        log.rename(log.with_suffix(".1"))
        await runtime.reopen_log(container)
        while "after" not in log.read_text():
            await runtime.container_status(container)
            await asyncio.sleep(0.02)
    assert "before" not in log.read_text()


async def test_the_environment_and_the_hostname(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    container = await pod.start("sleep", "100", env=[("GREETING", "good day"), ("odd-name.x", "1")])
    result = await runtime.exec_sync(container, ["env"], 5)
    assert {"GREETING=good day", "odd-name.x=1"} <= set(result.stdout.decode().splitlines())
    assert (await runtime.exec_sync(container, ["hostname"], 5)).stdout == b"p\n"


async def test_mounted_files(runtime: Runtime, make_pod: MakePod, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "key").write_text("value")
    pod = await make_pod()
    container = await pod.start(
        "sleep",
        "100",
        mounts=[
            Mount("/config", str(tmp_path / "config"), readonly=True),
            Mount("/data", str(tmp_path)),
        ],
    )
    assert (await runtime.exec_sync(container, ["cat", "/config/key"], 5)).stdout == b"value"
    result = await runtime.exec_sync(container, ["sh", "-c", "echo no > /config/new"], 5)
    assert result.exit_code != 0
    assert b"Read-only file system" in result.stderr
    await runtime.exec_sync(container, ["sh", "-c", "echo yes > /data/new"], 5)
    assert (tmp_path / "new").read_text() == "yes\n"


async def test_an_image_as_a_volume(runtime: Runtime, make_pod: MakePod) -> None:
    """Where there are files: what the image holds can be read and not be written."""
    pod = await make_pod()
    image = await runtime.image_status(WEB)
    assert image is not None
    mounts = [
        Mount("/image", "", readonly=True, image=image.id),
        Mount("/part", "", readonly=True, image=image.id, image_sub_path="www/cgi-bin"),
    ]
    container = await pod.start("sleep", "100", mounts=mounts)
    if await runtime.container_process(container):
        listed = await runtime.exec_sync(container, ["ls", "/image/bin/busybox", "/part"], 5)
        assert listed.stdout == b"/image/bin/busybox\n\n/part:\nindex.cgi\n"
        assert (await runtime.exec_sync(container, ["touch", "/image/x"], 5)).exit_code == 1
    await runtime.stop_sandbox(pod.id)
    await runtime.remove_sandbox(pod.id)


@pytest.mark.parametrize(
    ("command", "stdout", "stderr", "code"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 3"], b"out\n", b"err\n", 3),
        (["true"], b"", b"", 0),
        (["sh", "-c", "touch /tmp/x && test -e /tmp/x && rm /tmp/x && ! test -e /tmp/x"], b"", b"", 0),
        (["sh", "-c", "for i in 1 2 3; do echo $((i * 2)); done | grep -v 4"], b"2\n6\n", b"", 0),
        (["cat", "/nowhere"], b"", b"cat: can't open '/nowhere': No such file or directory\n", 1),
        (["sh", "-c", "nonsense"], b"", b"sh: nonsense: not found\n", 127),
    ],
)
async def test_commands(
    runtime: Runtime, make_pod: MakePod, command: list[str], stdout: bytes, stderr: bytes, code: int
) -> None:
    pod = await make_pod()
    result = await runtime.exec_sync(await pod.start("sleep", "100"), command, 5)
    assert (result.stdout, result.stderr, result.exit_code) == (stdout, stderr, code)


async def test_a_command_that_takes_too_long(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    with pytest.raises(RuntimeFault) as fault:
        await runtime.exec_sync(await pod.start("sleep", "100"), ["sleep", "30"], 1)
    assert fault.value.code == "DEADLINE_EXCEEDED"


async def test_a_command_that_is_not_there(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    container = await pod.start("sleep", "100")
    with pytest.raises(RuntimeFault, match='exec: "nonsense": executable file not found in \\$PATH'):
        await runtime.exec_sync(container, ["nonsense"], 5)


async def test_nothing_can_be_run_in_a_container_that_has_ended(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    container = await pod.script("exit 0")
    await pod.ended(container)
    with pytest.raises(RuntimeFault):
        await runtime.exec_sync(container, ["true"], 5)


async def test_resources_can_be_changed(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    container = await pod.start("sleep", "100", resources=LinuxResources(memory_limit_bytes=64 << 20))
    await runtime.update_resources(container, LinuxResources(memory_limit_bytes=128 << 20))
    assert (await runtime.container_status(container)).state == "RUNNING"


async def test_usage_is_told_of_what_runs(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    container = await pod.start("sleep", "100")
    async with asyncio.timeout(15):
        while not (usage := (await runtime.usage()).get(container)) or not usage.memory_working_set:
            await asyncio.sleep(0.1)
    assert usage.timestamp > 0


def of_process(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


async def test_processes_are_where_the_kernel_can_be_asked(runtime: Runtime, make_pod: MakePod) -> None:
    """A runtime without processes says 0 to both."""
    pod = await make_pod()
    container = await pod.start("sleep", "100")
    processes = [await runtime.sandbox_process(pod.id), await runtime.container_process(container)]
    if any(processes):
        assert container in of_process(processes[1], "cgroup")
        interfaces = of_process(processes[0], "net/dev")
        assert interfaces == of_process(processes[1], "net/dev") and "eth0" in interfaces
    else:
        assert processes == [0, 0]


async def test_images(runtime: Runtime) -> None:
    image = await runtime.image_status(WEB)
    assert image is not None
    assert WEB in image.repo_tags and image.size > 0
    assert image.id in [each.id for each in await runtime.images()]
    assert (await runtime.image_status(image.id)) == image
    assert await runtime.image_status("example.invalid/none:1") is None
    [filesystem] = await runtime.image_filesystems()
    assert filesystem.mountpoint.startswith("/")


async def test_an_image_that_cannot_be_pulled(runtime: Runtime) -> None:
    with pytest.raises(RuntimeFault, match=r'failed to pull and unpack image "registry\.invalid/x:1"'):
        await runtime.pull_image("registry.invalid/x:1", None, None)


# --- Streams


def endpoint(url: str) -> Endpoint:
    parts = urlsplit(url)
    return Endpoint(parts.hostname or "", parts.port or 80, parts.path)


async def at_least(channel: Channel, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await channel.read()):
        data += more
    return data


@pytest.mark.parametrize("way", ["spdy", "websocket"])
async def test_exec_streams(runtime: Runtime, make_pod: MakePod, way: str) -> None:
    pod = await make_pod()
    options = StreamOptions(stdout=True, stderr=True)
    url = await runtime.exec_url(
        await pod.start("sleep", "100"),
        ["sh", "-c", "echo out; echo err >&2; exit 4"],
        stdin=False,
        stdout=True,
        stderr=True,
        tty=False,
    )
    session_of = open_spdy if way == "spdy" else open_websocket
    async with asyncio.timeout(10), session_of(endpoint(url), options) as session:
        assert session.stdout and session.stderr
        status, out, err = await asyncio.gather(
            at_least(session.error, 1), at_least(session.stdout, 4), at_least(session.stderr, 4)
        )
    assert (out, err) == (b"out\n", b"err\n")
    assert b'"reason":"ExitCode","message":"4"' in status


async def test_stdin_reaches_the_command_and_its_end_too(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    options = StreamOptions(stdin=True, stdout=True)
    url = await runtime.exec_url(
        await pod.start("sleep", "100"), ["cat"], stdin=True, stdout=True, stderr=False, tty=False
    )
    async with asyncio.timeout(10), open_spdy(endpoint(url), options) as session:
        assert session.stdin and session.stdout
        await session.stdin.write(b"x" * 100_000)
        await session.stdin.close()
        status, out = await asyncio.gather(session.outcome(), read_all(session.stdout, 1 << 20))
    assert out == b"x" * 100_000
    assert b'"Success"' in status


async def test_a_shell_on_a_terminal(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    options = StreamOptions(stdin=True, stdout=True, tty=True)
    url = await runtime.exec_url(
        await pod.start("sleep", "100"), ["sh"], stdin=True, stdout=True, stderr=False, tty=True
    )
    async with asyncio.timeout(10), open_spdy(endpoint(url), options) as session:
        assert session.stdin and session.stdout and session.resize
        await session.resize.write(b'{"Width":80,"Height":24}')
        await session.stdin.write(b"X=4\recho $((X + 38))\rexit 5\r")
        shown, status = await asyncio.gather(read_all(session.stdout, 1 << 20), session.outcome())
    assert b"42\r\n" in shown
    assert b'"message":"5"' in status


async def test_attach_shows_what_comes(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    container = await pod.script("sleep 0.5; echo hello; sleep 0.2; exit 0")
    url = await runtime.attach_url(container, stdin=False, stdout=True, stderr=True, tty=False)
    async with (
        asyncio.timeout(10),
        open_spdy(endpoint(url), StreamOptions(stdout=True, stderr=True)) as session,
    ):
        assert session.stdout
        assert await at_least(session.stdout, 6) == b"hello\n"


async def test_a_forwarded_port(runtime: Runtime, make_pod: MakePod) -> None:
    pod = await make_pod()
    await pod.start()
    async with asyncio.timeout(30):
        # The container runs, but its server may not listen yet.
        while b"Hello from p" not in await ask_through_a_forwarded_port(runtime, pod.id):
            await asyncio.sleep(0.1)


async def ask_through_a_forwarded_port(runtime: Runtime, sandbox: str) -> bytes:
    url = urlsplit(await runtime.port_forward_url(sandbox, []))
    headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "SPDY/3.1"),
        ("X-Stream-Protocol-Version", portforward.PROTOCOL),
    ]
    upgraded = await connect(url.hostname or "", url.port or 80, url.path, headers, method="POST")
    session = SpdySession(upgraded.wire, server=False)
    reader = asyncio.create_task(session.run())
    async with asyncio.timeout(10):
        names = [("port", "80"), ("requestid", "0")]
        [error] = await session.open([("streamtype", "error"), *names])
        [data] = await session.open([("streamtype", "data"), *names])
        await data.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await read_all(data, 1 << 16)
        refused = await read_all(error, 1 << 16)
    assert bool(answer) != bool(refused)
    await session.close()
    await reader
    return answer
