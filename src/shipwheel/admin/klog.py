"""The components' log lines, in the form of upstream's klog: `I0131 12:00:00.000000 4711 proxy.py:93] text`."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

LETTERS = {logging.DEBUG: "I", logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}
TAIL_BYTES = 1 << 16


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        micro = int(record.created % 1 * 1_000_000)
        head = (
            f"{LETTERS.get(record.levelno, 'I')}{moment}.{micro:06d} {os.getpid():7d} "
            f"{record.filename}:{record.lineno}]"
        )
        text = f"{head} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """`--logging-format=json`: one object a line, with upstream's keys."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "ts": record.created * 1000,
            "caller": f"{record.filename}:{record.lineno}",
            "msg": record.getMessage(),
        }
        if record.levelno >= logging.ERROR:
            entry["err"] = self.formatException(record.exc_info) if record.exc_info else ""
        else:
            entry["v"] = 0
        return json.dumps(entry)


def configure(*, verbosity: int = 0, form: str = "text") -> None:
    """Send the program's log to stderr. `-v` of 4 and more shows what only helps in finding faults."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=logging.DEBUG if verbosity >= 4 else logging.INFO, handlers=[handler], force=True)
    if verbosity < 8:
        for noisy in ("asyncio", "aiohttp.access", "grpc"):
            logging.getLogger(noisy).setLevel(logging.WARNING)


def tail(log: Path, lines: int = 10) -> str:
    """The end of a log; nothing when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def last_words(log: Path) -> str:
    """The message of a log's last line."""
    line = tail(log, 1)
    return line.partition("] ")[2] or line
