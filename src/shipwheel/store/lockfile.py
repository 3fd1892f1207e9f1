"""One process per file: a lock beside it, which the kernel lets go of when its holder ends, however it ends.

The lock file holds its holder's process id, for the error message. It is never removed: whoever removed it
could remove one that another process has just locked.
"""

from __future__ import annotations

import os

from shipwheel.store.base import StoreError


def lock(path: str) -> int:
    """Lock `path` for this process until the returned descriptor is closed. StoreError names who has it."""
    import fcntl

    lock_path = f"{path}.lock"
    fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        raise StoreError(f"{path}: in use by process {holder or '(unknown)'}") from None
    except BaseException:
        os.close(fd)
        raise
    return fd
