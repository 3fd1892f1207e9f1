"""Can the file be trusted? Asked before it is opened, and without changing a byte of it.

SQLite heals silently what it takes for the end of its log: from the first frame of the write-ahead log (`-wal`) whose
checksum does not fit, all that follows is dropped. After a crash that is right, because there it is one transaction
that nobody was told of. When acknowledged transactions follow, it is damage, and only we can tell, because only we
know that each transaction is synced before the next one begins.

Formats: https://sqlite.org/fileformat2.html (the file, section 1.3; the log, section 4), https://sqlite.org/walformat.html
(the shared index, section 2.1).
"""

from __future__ import annotations

import os
import sqlite3
import struct
from urllib.parse import quote

from shipwheel.store.base import Damaged, StoreError
from shipwheel.store.history import APPLICATION_ID, SCHEMA_VERSION

_MAGIC = b"SQLite format 3\0"
_LOG_HEADER = struct.Struct(">8I")
"""magic, format, page size, checkpoint number, two salts, two checksum words."""
_FRAME_HEADER = struct.Struct(">6I")
"""page number, pages after commit (0: not a commit), the log's two salts, two checksum words."""
_LOG_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}
_INDEX_LAST_FRAME = struct.Struct("=16xI")


def check(path: str) -> None:
    """Raise `Damaged` when `path`, or the log beside it, is not a store or not whole. It must be locked.

    Reads everything once: about 1 GB a second from the page cache.
    """
    log = f"{path}-wal"
    log_size = os.path.getsize(log) if os.path.exists(log) else 0
    if os.path.getsize(path) == 0:
        if log_size:
            raise Damaged(f"{path}: the file is empty, but its log {log} is not")
        return  # created, and then the machine stopped
    _check_header(path)
    if log_size:
        _check_log_header(log)
    frames = _check_content(path)
    if log_size:
        _check_log_end(log, frames)


def _check_header(path: str) -> None:
    with open(path, "rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise Damaged(f"{path}: not an SQLite database")
    version, application = struct.unpack(">I4xI", header[60:72])
    if application != APPLICATION_ID and (application or version):
        raise Damaged(f"{path}: a database of another program (application id {application:#x})")
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path}: written by a newer version (schema {version}, this one knows {SCHEMA_VERSION})")


def _check_content(path: str) -> int:
    """Have SQLite look through all pages. Returns how many frames of the log are valid and committed."""
    index = f"{path}-shm"
    existed = os.path.exists(index)
    db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None, timeout=0)
    try:
        problems = [row[0] for row in db.execute("PRAGMA quick_check(3)")]
        frames = _last_frame(index)
    except sqlite3.Error as error:
        raise Damaged(f"{path}: {error}") from error
    finally:
        db.close()
        if not existed and os.path.exists(index):
            os.unlink(index)
    if problems != ["ok"]:
        raise Damaged(f"{path}: {'; '.join(problems)}")
    return frames


def _last_frame(index: str) -> int:
    try:
        with open(index, "rb") as file:
            return _INDEX_LAST_FRAME.unpack(file.read(_INDEX_LAST_FRAME.size))[0]
    except FileNotFoundError:
        return 0


def _check_log_header(log: str) -> None:
    with open(log, "rb") as file:
        header = file.read(_LOG_HEADER.size)
    if not header.strip(b"\0"):
        return  # the machine stopped before the log's beginning reached the disk
    words = _LOG_HEADER.unpack(header) if len(header) == _LOG_HEADER.size else (0,) * 8
    order = _LOG_MAGICS.get(words[0])
    if order is None or _checksum(header[:24], order) != words[6:]:
        raise Damaged(f"{log}: the header of the log does not match its checksum")


def _checksum(data: bytes, order: str) -> tuple[int, int]:
    first = second = 0
    for even, odd in struct.iter_unpack(f"{order}2I", data):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _check_log_end(log: str, valid: int) -> None:
    """Behind the last valid frame there may be a part of one transaction, but nothing that came after it."""
    with open(log, "rb") as file:
        _, _, page_size, _, *salts, _, _ = _LOG_HEADER.unpack(file.read(_LOG_HEADER.size))
        frame_size = _FRAME_HEADER.size + page_size
        ended = False
        for frame in range(valid, (os.path.getsize(log) - _LOG_HEADER.size) // frame_size):
            file.seek(_LOG_HEADER.size + frame * frame_size)
            _, commit, *frame_salts, _, _ = _FRAME_HEADER.unpack(file.read(_FRAME_HEADER.size))
            if frame_salts != salts:
                continue
            if ended:
                raise Damaged(f"{log}: frame {valid + 1} is damaged, and acknowledged writes follow it")
            ended = commit != 0
