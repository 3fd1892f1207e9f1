"""The kernel's side of the rules: `nft`, one transaction at a time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence

from shipwheel.network.proxy import ruleset
from shipwheel.network.proxy.ruleset import Family, Ruleset

log = logging.getLogger(__name__)


class NftError(Exception):
    """nft refused; the message is its own."""


class Table:
    """One table of ours, and what we know to be in it.

    The first `sync` replaces whatever is there; later ones send differences. After a failure the next one
    starts from nothing again, so that a table somebody has meddled with is put right.
    """

    def __init__(self, family: Family, name: str) -> None:
        self.family: Family = family
        self.name = name
        self._known: Ruleset | None = None
        self._stale: set[str] = set()

    async def sync(self, wanted: Ruleset) -> bool:
        """Make the table what is wanted; whether anything had to be done. Raises `NftError`."""
        known, self._known = self._known, None
        if known is None:
            script = ruleset.create(self.family, self.name, await self._with_memory(wanted))
            self._stale = set()
        else:
            script = ruleset.update(self.family, self.name, known, wanted)
            self._stale = (self._stale | ruleset.gone(known, wanted)) - set(wanted.chains)
        if script:
            await run(script)
        self._known = wanted
        return bool(script)

    @property
    def has_stale_chains(self) -> bool:
        return bool(self._stale)

    async def delete_stale_chains(self) -> None:
        """Remove the chains that `sync` left empty; best a second after, when no kernel clings to them."""
        stale, self._stale = self._stale, set()
        try:
            await run(ruleset.delete_chains(self.family, self.name, stale))
        except NftError:
            self._known = None
            raise

    def distrust(self) -> None:
        """Let the next `sync` write everything anew."""
        self._known = None

    async def delete(self) -> None:
        await run(ruleset.delete_table(self.family, self.name))
        self._known = None

    async def _with_memory(self, wanted: Ruleset) -> Ruleset:
        """Keep which clients belong to which endpoint over a restart of the proxy."""
        remembered = await self._affinities()
        elements = dict(wanted.elements)
        for name, clients in remembered.items():
            if name in wanted.containers:
                elements[name] = dict.fromkeys(clients, "")
        return Ruleset(wanted.chains, wanted.containers, elements)

    async def _affinities(self) -> dict[str, list[str]]:
        try:
            listing = json.loads(await run("", "-j", "list", "table", self.family, self.name))
        except NftError:
            return {}
        return affinities(listing)


def affinities(listing: Mapping[str, Sequence[Mapping]]) -> dict[str, list[str]]:
    """The elements of affinity sets, with the time they have left, from nft's JSON."""
    found: dict[str, list[str]] = {}
    for entry in listing.get("nftables", ()):
        declared = entry.get("set") or {}
        if not declared.get("name", "").startswith("affinity-"):
            continue
        elements = (each.get("elem") or {} for each in declared.get("elem") or () if isinstance(each, dict))
        found[declared["name"]] = [
            f"{each['val']} expires {each['expires']}s" for each in elements if each.get("expires")
        ]
    return found


async def run(script: str, *arguments: str) -> str:
    """Let nft run a script, or a command; its output. Raises `NftError`."""
    process = await asyncio.create_subprocess_exec(
        "nft",
        *(arguments or ("-f", "-")),
        stdin=asyncio.subprocess.PIPE if script else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(script.encode() if script else None)
    if process.returncode:
        raise NftError(errors.decode(errors="replace").strip())
    return output.decode()
