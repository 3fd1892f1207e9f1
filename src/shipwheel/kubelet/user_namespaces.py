"""Which host ids the users of a pod are (KEP-127): pods with `hostUsers: false` get a range each that no other pod has.

The range is written into the pod's directory, in upstream's form, so that a kubelet that was restarted keeps to it.
"""

from __future__ import annotations

import json
import logging
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from shipwheel.api.meta import Obj
from shipwheel.kubelet.runtime.base import RuntimeHandler
from shipwheel.kubelet.security import IdRange

log = logging.getLogger(__name__)

UNIT = 65536
"""Ranges are multiples of this, and so long at least."""
_FILE = "userns"
_ALL_IDS = 1 << 32


_USER = "kubelet"
"""Whose subordinate ids pods get, if the machine knows such a user."""


class NamespaceFault(Exception):
    """The pod cannot have a user namespace."""


class UserNamespaces:
    """`root` is the directory of the pods' directories. `available` (first id, how many) is divided into ranges of
    `per_pod` ids; without it everything beyond the first such range, which is the host's own, is."""

    def __init__(
        self,
        root: Path,
        handler: Callable[[Obj], RuntimeHandler],
        *,
        per_pod: int = UNIT,
        available: tuple[int, int] | None = None,
    ) -> None:
        """`handler` tells what the pod's runtime handler can do."""
        self._root = root
        self._handler = handler
        self._per_pod = per_pod
        self._first, self._length = available or (per_pod, _ALL_IDS - per_pod)
        self._used: dict[str, int] = {}
        for file in root.glob(f"*/{_FILE}"):
            self._recall(file.parent.name)

    def range_of(self, pod: Obj) -> IdRange | None:
        """The pod's own range, which it gets with the first call; None for one that shares the host's users.
        NamespaceFault when it wants one and cannot have it."""
        if pod["spec"].get("hostUsers") is not False:
            return None
        handler = self._handler(pod)
        if not handler.user_namespaces:
            what = f'RuntimeClass handler "{handler.name}"' if handler.name else "runtime"
            raise NamespaceFault(f"can't set `spec.hostUsers: false`, {what} does not support user namespaces")
        uid = pod["metadata"]["uid"]
        first = self._used.get(uid)
        if first is None:
            first = self._allot(uid)
        return IdRange(first, self._per_pod)

    def release(self, uid: str) -> None:
        if self._used.pop(uid, None) is not None:
            self._file(uid).unlink(missing_ok=True)

    def _file(self, uid: str) -> Path:
        return self._root / uid / _FILE

    def _allot(self, uid: str) -> int:
        taken = set(self._used.values())
        possible = range(self._first, self._first + self._length - self._per_pod + 1, self._per_pod)
        first = next((each for each in possible if each not in taken), None)
        if first is None:
            raise NamespaceFault("create user namespace: could not find an empty slot to allocate a user namespace")
        mapping = [{"hostId": first, "containerId": 0, "length": self._per_pod}]
        file = self._file(uid)
        try:
            file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            file.write_text(json.dumps({"uidMappings": mapping, "gidMappings": mapping}))
        except OSError as error:
            raise NamespaceFault(f"create user namespace: {error}") from error
        self._used[uid] = first
        return first

    def _recall(self, uid: str) -> None:
        """Take over the range that a pod was given by a former kubelet."""
        try:
            (mapping,) = json.loads(self._file(uid).read_text())["uidMappings"]
            if mapping["length"] == self._per_pod and mapping["containerId"] == 0:
                self._used[uid] = mapping["hostId"]
                return
            log.warning("user namespace of pod %s: wrong user namespace length %s", uid, mapping["length"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("user namespace of pod %s: invalid user namespace mappings file: %s", uid, error)


def kubelet_ids() -> tuple[int, int] | None:
    """(first, how many): the ids that the machine's administrator set aside for pods. None where nothing is said;
    NamespaceFault for what cannot be used."""
    tool = shutil.which("getsubids")
    try:
        pwd.getpwnam(_USER)
    except KeyError:
        return None
    if tool is None:
        return None
    users, groups = (
        subprocess.run([tool, *options, _USER], capture_output=True, text=True, check=False).stdout
        for options in ((), ("-g",))
    )
    if users != groups:
        raise NamespaceFault(f'mismatched subuids and subgids for user "{_USER}"')
    try:
        # `0: kubelet 65536 7208960`
        ((_, _, first, length),) = (line.split() for line in users.splitlines())
        return int(first), int(length)
    except ValueError:
        raise NamespaceFault(f"error parsing subids: {users!r}") from None
