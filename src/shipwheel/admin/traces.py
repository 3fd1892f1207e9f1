"""What a cluster changes on the machine beyond its own processes and files, and how to put it back.

The CNI plugins switch forwarding on, and publish host ports by iptables chains that they leave behind. What was
there before is written down at the first start, so that taking the cluster away leaves the machine as it was.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from shipwheel.admin.layout import CONTAINER_LOGS, KUBELET, POD_LOGS
from shipwheel.admin.pki import write_private

CNI_CHAIN = re.compile(r"CNI-(HOSTPORT-\w+|DN-\w+|FORWARD|ADMIN)")
DIRECTORIES = (Path("/var/lib/cni"), Path("/run/containerd"))
"""Where CNI keeps results and every containerd keeps its shims' sockets, whatever its configuration says."""
MOUNT_POINTS = (KUBELET, POD_LOGS, CONTAINER_LOGS)
"""Nodes in namespaces have directories of their own there; the machine's stay empty."""
SYSCTLS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
COMMANDS = ("iptables", "ip6tables")
TABLES = ("nat", "filter")


@dataclass(frozen=True, slots=True)
class Before:
    """The machine as it was."""

    sysctls: dict[str, str]
    chains: list[str]
    """CNI's iptables chains, as `iptables/nat/CNI-HOSTPORT-DNAT`."""
    nft_tables: list[str]
    """As `ip nat`."""
    directories: list[str]
    """Those of `DIRECTORIES` and `MOUNT_POINTS` that were there."""


def record(path: Path, others: Iterable[Path] = ()) -> None:
    """Write down how things are, unless that was done before. `others` are the records of clusters that are there
    already: how things were before them is how they were."""
    if path.exists():
        return
    for other in others:
        write_private(path, other.read_bytes())
        return
    before = Before(
        sysctls={name: _sysctl(name) for name in SYSCTLS if Path("/proc/sys", name).exists()},
        chains=[chain for command in COMMANDS for table in TABLES for chain in _cni_chains(command, table)],
        nft_tables=_nft_tables(),
        directories=[str(each) for each in DIRECTORIES + MOUNT_POINTS if each.exists()],
    )
    write_private(path, json.dumps(asdict(before)).encode())


def erase(path: Path, *, others_run: bool) -> None:
    """Put things back. What other clusters on the machine need too is left to the last of them."""
    if others_run or not path.exists():
        return
    before = msgspec.json.decode(path.read_bytes(), type=Before)
    for command in COMMANDS:
        for table in TABLES:
            _remove_chains(command, table, keep=before.chains)
    for name in _nft_tables():
        if name not in before.nft_tables and name.split()[1] in TABLES and _is_empty(name):
            _run(["nft", "delete", "table", *name.split()])
    for name, value in before.sysctls.items():
        if _sysctl(name) != value:
            Path("/proc/sys", name).write_text(value)
    for directory in DIRECTORIES:
        if str(directory) not in before.directories and not _in_use(directory):
            shutil.rmtree(directory, ignore_errors=True)
    for directory in MOUNT_POINTS:
        if str(directory) not in before.directories:
            # What is in it is somebody else's.
            with contextlib.suppress(OSError):
                directory.rmdir()


def _in_use(directory: Path) -> bool:
    """Whether somebody else, meanwhile, has sockets in it."""
    return any(each.is_socket() for each in directory.rglob("*"))


def removal(saved: str, keep: Iterable[str]) -> list[list[str]]:
    """The iptables arguments that take CNI's chains out of a table, given its `iptables-save`, except `keep`."""
    lines = saved.splitlines()
    chains = [line[1:].split()[0] for line in lines if line.startswith(":")]
    doomed = [each for each in chains if CNI_CHAIN.fullmatch(each) and each not in set(keep)]
    commands: list[list[str]] = []
    for line in lines:
        words = _words(line)
        if line.startswith("-A ") and words[1] not in doomed and set(words) & set(doomed):
            commands.append(["-D", *words[1:]])
    commands += [["-F", each] for each in doomed]
    commands += [["-X", each] for each in doomed]
    return commands


def _remove_chains(command: str, table: str, *, keep: Iterable[str]) -> None:
    prefix = f"{command}/{table}/"
    kept = [each.removeprefix(prefix) for each in keep if each.startswith(prefix)]
    for arguments in removal(_saved(command, table), kept):
        _run([command, "-w", "-t", table, *arguments])


def _cni_chains(command: str, table: str) -> list[str]:
    chains = re.findall(r"^:(\S+)", _saved(command, table), re.MULTILINE)
    return [f"{command}/{table}/{chain}" for chain in chains if CNI_CHAIN.fullmatch(chain)]


def _saved(command: str, table: str) -> str:
    """The table's content; asking for one that does not exist would make it."""
    family = "ip6" if command == "ip6tables" else "ip"
    if f"{family} {table}" not in _nft_tables() and not _has_legacy(command, table):
        return ""
    return _run([f"{command}-save", "-t", table])


def _has_legacy(command: str, table: str) -> bool:
    names = Path("/proc/net", f"{command.replace('tables', '_tables')}_names")
    return names.exists() and table in names.read_text().split()


def _is_empty(table: str) -> bool:
    """Whether an nft table has chains at most that do nothing."""
    text = _run(["nft", "list", "table", *table.split()])
    inner = [line.strip() for line in text.splitlines()]
    harmless = re.compile(r"(table .*|chain \S+ )\{|type .* policy accept;|\}|")
    return all(harmless.fullmatch(line) for line in inner)


def _nft_tables() -> list[str]:
    return [line.removeprefix("table ") for line in _run(["nft", "list", "tables"]).splitlines()]


def _words(rule: str) -> list[str]:
    import shlex

    return shlex.split(rule)


def _sysctl(name: str) -> str:
    return Path("/proc/sys", name).read_text().strip()


def _run(command: Sequence[str]) -> str:
    """The output of a command; nothing where it fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""
