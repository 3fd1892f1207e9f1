"""The components' log lines, in the form of upstream's klog: `I0131 12:00:00.000000 4711 proxy.py:93] text`."""

from __future__ import annotations

import json
import logging
import os
import time
from fnmatch import fnmatchcase
from pathlib import Path

LETTERS = {logging.DEBUG: "I", logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}
TAIL_BYTES = 1 << 16
_DETAILS = 4
"""The verbosity from which on debugging messages are shown."""


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


def configure(*, verbosity: int = 0, form: str = "text", modules: str = "") -> None:
    """Send the program's log to stderr. A verbosity of 4 and more shows what only helps in finding faults; `modules`
    (`proxy=4,rule*=2`) is about the source files of these names alone. ValueError when it cannot be read."""
    patterns = _patterns(modules)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    level = logging.DEBUG if verbosity >= _DETAILS else logging.INFO
    if patterns:
        handler.addFilter(lambda record: record.levelno >= _level_of(record, patterns, level))
        level = min(level, logging.DEBUG)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if verbosity < 8:
        for noisy in ("asyncio", "aiohttp.access", "grpc"):
            logging.getLogger(noisy).setLevel(logging.WARNING)


def _patterns(text: str) -> list[tuple[str, int]]:
    """(pattern, verbosity) of `pattern=N,...`."""
    found = []
    for part in filter(None, text.split(",")):
        pattern, equals, number = part.partition("=")
        if not (pattern and equals and number):
            raise ValueError("syntax error: expect comma-separated list of filename=N")
        found.append((pattern, int(number)))
    return found


def _level_of(record: logging.LogRecord, patterns: list[tuple[str, int]], otherwise: int) -> int:
    """From which level on a file's records are shown; the first pattern that matches counts."""
    name = Path(record.filename).stem
    for pattern, verbosity in patterns:
        if fnmatchcase(name, pattern):
            return logging.DEBUG if verbosity >= _DETAILS else logging.INFO
    return otherwise


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
