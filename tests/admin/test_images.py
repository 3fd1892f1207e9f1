"""Images put together from files: what is in the archive, and that it is always the same."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import signal
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from shipwheel.admin import images
from shipwheel.admin.images import File, ImageSpec, archive, pause_program

SPEC = ImageSpec(
    name="shipwheel.local/x:1",
    files={"bin/tool": File(b"#!", 0o755), "bin/link": File(link="tool"), "tmp": File(mode=0o1777)},
    entrypoint=["/bin/tool"],
    ports=["80/tcp"],
)


def members(raw: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return {member.name: member for member in tar.getmembers()}


def content(raw: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_every_part_is_named_by_its_digest() -> None:
    raw = archive([SPEC], arch="amd64")
    blobs = [name for name in members(raw) if name.startswith("blobs/sha256/") and len(name) > 20]
    assert len(blobs) == 3
    for name in blobs:
        assert hashlib.sha256(content(raw, name)).hexdigest() == name.rpartition("/")[2]


def test_an_archive_leads_from_its_index_to_its_files() -> None:
    raw = archive([SPEC], arch="arm64")

    def blob(descriptor: dict) -> bytes:
        found = content(raw, "blobs/" + descriptor["digest"].replace(":", "/"))
        assert len(found) == descriptor["size"]
        return found

    assert json.loads(content(raw, "oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    [entry] = json.loads(content(raw, "index.json"))["manifests"]
    assert entry["annotations"] == {"io.containerd.image.name": "shipwheel.local/x:1"}
    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    assert (config["architecture"], config["config"]["Entrypoint"]) == ("arm64", ["/bin/tool"])
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    layer = members(blob(manifest["layers"][0]))
    assert {name: (m.mode, m.type) for name, m in layer.items()} == {
        "bin": (0o755, tarfile.DIRTYPE),
        "bin/tool": (0o755, tarfile.REGTYPE),
        "bin/link": (0o644, tarfile.SYMTYPE),
        "tmp": (0o1777, tarfile.DIRTYPE),
    }
    assert (layer["bin/link"].linkname, layer["bin/tool"].mtime, layer["bin/tool"].uid) == ("tool", 0, 0)


def test_the_same_files_make_the_same_archive() -> None:
    turned = ImageSpec(**{**{f: getattr(SPEC, f) for f in SPEC.__slots__}, "files": dict(reversed(SPEC.files.items()))})
    assert archive([SPEC], arch="amd64") == archive([turned], arch="amd64")


@pytest.mark.parametrize(("arch", "machine"), [("amd64", 62), ("arm64", 183)])
def test_the_pause_program_is_an_elf_file(arch: str, machine: int) -> None:
    program = pause_program(arch)
    assert program[:4] == b"\x7fELF"
    kind, found = struct.unpack_from("<HH", program, 16)
    assert (kind, found) == (2, machine)
    assert images._is_static(program)
    offset, address, size = (
        *struct.unpack_from("<Q", program, 72),
        *struct.unpack_from("<QQ", program, 80)[:1],
        len(program),
    )
    assert (offset, struct.unpack_from("<Q", program, 96)[0]) == (0, size)
    assert address == 0x400000


@pytest.mark.skipif(platform.machine() != "x86_64" or os.name != "posix", reason="runs a program for x86-64")
def test_the_pause_program_waits_and_reaps(tmp_path: Path) -> None:
    path = tmp_path / "pause"
    path.write_bytes(pause_program("amd64"))
    path.chmod(0o755)
    process = subprocess.Popen([path])
    try:
        status = Path(f"/proc/{process.pid}/status")
        while "Name:\tpause" not in status.read_text():
            pass
        deadline = 200
        while not int(_line(status, "SigIgn"), 16) >> (signal.SIGCHLD - 1) & 1 and deadline:
            deadline -= 1
            os.sched_yield()
        assert int(_line(status, "SigIgn"), 16) >> (signal.SIGCHLD - 1) & 1
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def _line(status: Path, name: str) -> str:
    return next(line for line in status.read_text().splitlines() if line.startswith(name)).split()[1]


def test_a_program_that_needs_an_interpreter_is_not_static() -> None:
    program = bytearray(pause_program("amd64"))
    assert images._is_static(bytes(program))
    struct.pack_into("<I", program, 64, 3)
    assert not images._is_static(bytes(program))
    assert not images._is_static(b"#!/bin/sh")
