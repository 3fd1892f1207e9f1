"""Pods' traffic through somebody else's firewall.

Docker, for one, has the machine drop whatever it forwards and does not know. No rule of our own nftables table can
undo another table's drop, so on such a machine, and only there, the pods' ranges are let through at the head of the
chain that drops. The rules bear the network's name, and are removed by it.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterable

CHAIN = "FORWARD"


async def let_through(name: str, cidrs: Iterable[str]) -> None:
    """Accept what pods in these ranges send and get, where it would be dropped."""
    for command, rules in by_command(name, cidrs).items():
        listed = await _run(command, "-S", CHAIN)
        if drops(listed):
            known = rules_of(listed, name)
            for rule in rules:
                if not any(set(rule) <= set(each) for each in known):
                    await _run(command, "-I", CHAIN, *rule)


async def forget(name: str) -> None:
    """Remove the rules of `let_through`."""
    for command in ("iptables", "ip6tables"):
        for rule in rules_of(await _run(command, "-S", CHAIN), name):
            await _run(command, "-D", CHAIN, *rule)


def by_command(name: str, cidrs: Iterable[str]) -> dict[str, list[list[str]]]:
    """The rules that are wanted: command -> arguments after the chain's name."""
    wanted: dict[str, list[list[str]]] = {}
    for cidr in cidrs:
        rules = wanted.setdefault("ip6tables" if ":" in cidr else "iptables", [])
        for direction in ("-s", "-d"):
            rules.append([direction, cidr, "-m", "comment", "--comment", name, "-j", "ACCEPT"])
    return wanted


def drops(listed: str) -> bool:
    """Whether a chain (`iptables -S`) drops what no rule of its accepts."""
    return f"-P {CHAIN} DROP" in listed.splitlines()


def rules_of(listed: str, name: str) -> list[list[str]]:
    """The arguments of the rules that bear a network's name."""
    lines = (shlex.split(line) for line in listed.splitlines())
    return [words[2:] for words in lines if words[0] == "-A" and name in words]


async def _run(command: str, *arguments: str) -> str:
    """What it prints; nothing where it fails, or where there is no iptables: then nobody drops by it either."""
    try:
        process = await asyncio.create_subprocess_exec(
            command, "-w", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except FileNotFoundError:
        return ""
    output, _ = await process.communicate()
    return output.decode() if process.returncode == 0 else ""
