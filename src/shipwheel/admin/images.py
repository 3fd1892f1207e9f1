"""Container images put together on the spot, so that a cluster needs no registry to start.

Two images are made: `pause`, which holds a pod's namespaces, and `web`, a small web server (Debian's static
busybox) that says which pod answers. An image is a set of files and how to run them; an archive is an OCI image
layout in a tar file, every part of it named by its digest, so the same input gives the same bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import platform
import struct
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAUSE = "shipwheel.local/pause:1"
WEB = "shipwheel.local/web:1"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class ImageError(Exception):
    """An image cannot be made or imported; the message says why."""


@dataclass(frozen=True, slots=True)
class File:
    """One entry of an image's file system; `link` makes it a symbolic link, neither content nor link a
    directory."""

    content: bytes | None = None
    mode: int = 0o644
    link: str = ""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What an image holds. `name` is a full reference: `registry.example/name:tag`."""

    name: str
    files: Mapping[str, File]
    """By path without a leading slash."""
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    env: Sequence[str] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    user: str = ""
    working_dir: str = "/"
    ports: Sequence[str] = ()
    """As `8080/tcp`."""
    labels: Mapping[str, str] = field(default_factory=dict)


def architecture() -> str:
    """This machine's, as images name it; ImageError when none of the images here runs on it."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise ImageError(f"no image can be made for machines of type {machine}")
    return _ARCHITECTURES[machine]


# --- Images


def pause_image(arch: str) -> ImageSpec:
    return ImageSpec(name=PAUSE, files={"pause": File(pause_program(arch), 0o755)}, entrypoint=["/pause"])


_CODE = {
    # rt_sigaction(SIGCHLD, {SIG_IGN}, NULL, 8); for (;;) pause();
    "amd64": (62, "b80d000000bf11000000488d351300000031d241ba080000000f05b8220000000f05ebf7"),
    # the same, with ppoll(NULL, 0, NULL, NULL, 0) for pause()
    "arm64": (
        183,
        "c81080d2200280d281010010020080d2030180d2010000d4"
        "280980d2000080d2010080d2020080d2030080d2040080d2010000d4f9ffff17",
    ),
}


def pause_program(arch: str) -> bytes:
    """A static Linux program of 200 bytes that does nothing for ever. As the first process of a shared PID
    namespace it must also reap what dies there: the kernel does so by itself for who ignores SIGCHLD."""
    machine, code = _CODE[arch]
    ignore = struct.pack("<QQQQ", 1, 0, 0, 0)  # struct sigaction: SIG_IGN, flags, restorer, mask
    body = bytes.fromhex(code) + ignore
    base, headers = 0x400000, 64 + 56
    size = headers + len(body)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    elf = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000)
    return elf + segment + body


_APPLETS = """
[ awk base64 basename cat chmod chown cmp cp cut date dd df diff dirname du echo egrep env expr false find
free grep gunzip gzip head hexdump hostname httpd id ifconfig ip kill ln ls md5sum mkdir mkfifo mktemp
mount mv nc netstat nproc nslookup od ping printf ps pwd readlink realpath rm rmdir route sed seq sh
sha256sum sleep sort stat stty sync tail tar tee telnet test time timeout top touch tr traceroute true tty
umount uname uniq uptime vi watch wc wget which whoami xargs yes zcat
"""

_PAGE = b"""#!/bin/sh
echo "Content-Type: text/plain"
echo
echo "Hello from ${POD_NAME:-$(hostname)}"
"""


def web_image(busybox: bytes) -> ImageSpec:
    """`busybox` is a statically linked busybox."""
    files = {
        "bin/busybox": File(busybox, 0o755),
        "etc/passwd": File(b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        "etc/group": File(b"root:x:0:\nnogroup:x:65534:\n"),
        "root": File(mode=0o700),
        "tmp": File(mode=0o1777),
        "www/cgi-bin/index.cgi": File(_PAGE, 0o755),
    }
    files |= {f"bin/{name}": File(link="busybox", mode=0o777) for name in _APPLETS.split()}
    return ImageSpec(
        name=WEB,
        files=files,
        # The first process of a container gets only the signals it asks for, and httpd asks for none.
        command=["/bin/sh", "-c", "trap 'exit 0' TERM; echo serving on port 80; httpd -f -p 80 -h /www & wait"],
        ports=["80/tcp"],
    )


def host_busybox() -> bytes:
    """The machine's static busybox (Debian's package `busybox-static`); ImageError when there is none."""
    for path in (Path("/bin/busybox"), Path("/usr/bin/busybox"), Path("/bin/busybox.static")):
        if path.is_file():
            program = path.read_bytes()
            if _is_static(program):
                return program
    raise ImageError("no static busybox on this machine; install the package busybox-static")


def _is_static(elf: bytes) -> bool:
    """A program is static when it names no interpreter (a program header of type PT_INTERP)."""
    if elf[:5] != b"\x7fELF\x02":
        return False
    offset, size, count = *struct.unpack_from("<Q", elf, 32), *struct.unpack_from("<HH", elf, 54)
    return all(struct.unpack_from("<I", elf, offset + size * index)[0] != 3 for index in range(count))


# --- OCI image layout


def archive(specs: Iterable[ImageSpec], *, arch: str) -> bytes:
    """An OCI image layout (image-spec v1) with these images, as a tar file."""
    blobs: dict[str, bytes] = {}

    def put(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return f"sha256:{digest}"

    manifests = []
    for spec in specs:
        layer = _layer(spec.files)
        layer_digest = put(layer)
        config = _json(_config(spec, arch, layer_digest))
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": put(config),
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": layer_digest,
                        "size": len(layer),
                    }
                ],
            }
        )
        manifests.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": put(manifest),
                "size": len(manifest),
                "platform": {"architecture": arch, "os": "linux"},
                "annotations": {"io.containerd.image.name": spec.name},
            }
        )
    files = {
        "oci-layout": File(_json({"imageLayoutVersion": "1.0.0"})),
        "index.json": File(_json({"schemaVersion": 2, "manifests": manifests})),
    }
    files |= {f"blobs/sha256/{digest}": File(content) for digest, content in blobs.items()}
    return _layer(files)


def _config(spec: ImageSpec, arch: str, layer_digest: str) -> dict[str, Any]:
    run = {
        "User": spec.user,
        "ExposedPorts": {port: {} for port in spec.ports},
        "Env": list(spec.env),
        "Entrypoint": list(spec.entrypoint),
        "Cmd": list(spec.command),
        "WorkingDir": spec.working_dir,
        "Labels": dict(spec.labels),
    }
    return {
        "architecture": arch,
        "os": "linux",
        "config": {key: value for key, value in run.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    }


def _layer(files: Mapping[str, File]) -> bytes:
    """A tar file with the files and the directories above them, all root's and of time zero."""
    directories = {str(parent) for path in files for parent in Path(path).parents} - {".", *files}
    entries = sorted([*files.items(), *((path, File(mode=0o755)) for path in directories)])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, file in entries:
            entry = tarfile.TarInfo(path)
            entry.mode = file.mode
            if file.link:
                entry.type, entry.linkname = tarfile.SYMTYPE, file.link
                tar.addfile(entry)
            elif file.content is None:
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                entry.size = len(file.content)
                tar.addfile(entry, io.BytesIO(file.content))
    return out.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# --- Into a runtime


async def import_archive(content: bytes, *, socket: Path, snapshotter: str = "overlayfs") -> None:
    """Give the images of an archive to the containerd at `socket`, in CRI's namespace. Raises ImageError."""
    command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "import"]
    try:
        ctr = await asyncio.create_subprocess_exec(
            *command,
            *("--snapshotter", snapshotter, "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise ImageError("ctr, containerd's client program, is not installed") from None
    output, _ = await ctr.communicate(content)
    if ctr.returncode:
        raise ImageError(f"ctr images import: {output.decode(errors='replace').strip()}")
