"""Notes on Secrets with tokens of the old kind when they were last used (KEP-2799), so that those nobody uses any more
can be told and cleaned up. Once a day for each is enough, and no request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupResource, Obj, labels_of, name_of, namespace_of
from shipwheel.apiserver.bootstrap import LOOPBACK

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

log = logging.getLogger(__name__)

SECRETS = GroupResource("", "secrets")
LAST_USED = "kubernetes.io/legacy-token-last-used"


def label_to_write(secret: Obj, now: datetime) -> str:
    """The date to note; empty when it is noted (another server's clock may be a day ahead)."""
    today, tomorrow = _date(now), _date(now + timedelta(days=1))
    return "" if labels_of(secret).get(LAST_USED) in (today, tomorrow) else today


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


class TokenUses:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._used: asyncio.Queue[tuple[str, str, str]] = asyncio.Queue()
        self._noted: dict[tuple[str, str], str] = {}

    def note(self, secret: Obj) -> None:
        """A token has been used; never waits."""
        date = label_to_write(secret, self._server.clock.now())
        key = namespace_of(secret), name_of(secret)
        if date and self._noted.get(key) != date:
            self._noted[key] = date
            self._used.put_nowait((*key, date))

    async def run(self) -> None:
        """Write the notes until cancelled."""
        while True:
            namespace, name, date = await self._used.get()

            def labelled(secret: Obj, date: str = date) -> Obj:
                labels = {**labels_of(secret), LAST_USED: date}
                return {**secret, "metadata": {**secret["metadata"], "labels": labels}}

            try:
                await self._server.change(SECRETS, namespace, name, labelled, user=LOOPBACK)
            except ApiError as error:
                log.error(
                    "failed to label legacy service account token %s/%s with last-used date: %s", namespace, name, error
                )
                self._noted.pop((namespace, name), None)
