"""What the machine is: read once from the kernel's files, or from Python where one is missing (not Linux)."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class Machine:
    cpus: int
    memory: int
    """Bytes."""
    storage: int
    """Bytes of the file system that holds the kubelet's directory."""
    hugepages: dict[str, int]
    """Bytes reserved, by page size as resources name it (`2Mi`)."""
    swap: int
    machine_id: str
    system_uuid: str
    boot_id: str
    kernel: str
    os_image: str
    operating_system: str
    architecture: str
    hostname: str
    cgroup_v2: bool


def read_machine(root: Path) -> Machine:
    """`root` is the kubelet's directory."""
    directory = next(each for each in (root, *root.parents) if each.exists())
    machine_id = _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id")
    return Machine(
        cpus=_cpus(),
        memory=_memory("MemTotal") or _memory_elsewhere(),
        storage=shutil.disk_usage(directory).total,
        hugepages=_hugepages(),
        swap=_memory("SwapTotal"),
        machine_id=machine_id,
        system_uuid=_read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id") or machine_id,
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=_os_image(),
        operating_system="linux",
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        hostname=hostname(),
        cgroup_v2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _memory(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _memory_elsewhere() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _hugepages() -> dict[str, int]:
    pages: dict[str, int] = {}
    for directory in Path("/sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        kilobytes = int(directory.name.removeprefix("hugepages-").removesuffix("kB"))
        count = int(_read(str(directory / "nr_hugepages")) or 0)
        size = f"{kilobytes >> 20}Gi" if kilobytes >= 1 << 20 else f"{kilobytes >> 10}Mi"
        pages[size if kilobytes >= 1 << 10 else f"{kilobytes}Ki"] = count * kilobytes * 1024
    return pages


def _os_image() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', _read("/etc/os-release"), re.MULTILINE)
    return found[1] if found else platform.platform()


def hostname() -> str:
    """The machine's name, as node names are written."""
    return socket.gethostname().lower()


def default_address() -> str:
    """The address of the interface that the default route leaves by; the loopback address without one."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        # Nothing is sent: connecting a datagram socket only chooses the route.
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]
    except OSError:
        return "127.0.0.1"
    finally:
        probe.close()


def process_limit() -> int:
    """How many processes there can be; 0 where the kernel does not tell."""
    limits = [_read(f"/proc/sys/kernel/{name}") for name in ("pid_max", "threads-max")]
    return min((int(each) for each in limits if each.isdigit()), default=0)


def apparmor_enabled() -> bool:
    return _read("/sys/module/apparmor/parameters/enabled") == "Y"


def selinux_enabled() -> bool:
    return Path("/sys/fs/selinux/enforce").exists()


def swap_in_use() -> bool:
    """Whether the machine swaps; the first line of the list is its heading."""
    return len(_read("/proc/swaps").splitlines()) > 1


def cgroup_v2() -> bool:
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def set_oom_score(value: int) -> str:
    """Have the kernel spare this process, or not; returns why it refused. Lower than it is takes CAP_SYS_RESOURCE."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(value))
    except OSError as error:
        return f"the kernel refuses an oom_score_adj of {value}: {error.strerror}"
    return ""


def allow_files(number: int) -> str:
    """Let this process open so many files; returns why it may not."""
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, max(number, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    except (OSError, ValueError) as error:
        return f"this process may not open {number} files: {error}"
    return ""
