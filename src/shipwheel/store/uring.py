"""The few lines of io_uring(7) that a file sync needs, through ctypes.

A ring is two queues in memory shared with the kernel. A request goes into the submission queue and is handed over
by one system call, during which the kernel reads it; the result appears in the completion queue, and an eventfd
becomes readable. The eventfd's own synchronisation orders what we read after it, so no memory barriers are needed.
System call numbers are the same on all architectures; structures are those of `linux/io_uring.h`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator

_SETUP, _ENTER, _REGISTER = 425, 426, 427
_OP_FSYNC, _FSYNC_DATASYNC = 3, 1
_REGISTER_EVENTFD = 4
_FEATURE_SINGLE_MMAP = 1
_OFFSET_SUBMISSIONS = 0x10000000

_PARAMS = struct.Struct("=30I")
"""entries of both queues, flags, cpu, idle, features, wq_fd, 3 reserved; then the submission queue's offsets of head,
tail, mask, entries, flags, dropped, array (and 3 words); then the completion queue's of head, tail, mask, entries,
overflow, entries' array (and 4 words)."""
_SUBMISSION = struct.Struct("=BBHiQQIIQ24x")
"""opcode, flags, priority, fd, offset, address, length, fsync flags, user data."""
_COMPLETION = struct.Struct("=QiI")
"""user data, result, flags."""
_WORD = struct.Struct("=I")


class Unsupported(Exception):
    """This system has no io_uring, or one too old."""


class Ring:
    """A ring for one request at a time. OSError when the kernel refuses."""

    completed: int
    """A file descriptor that becomes readable when `results` has something."""

    def __init__(self) -> None:
        if not hasattr(os, "eventfd"):
            raise Unsupported("no eventfd")
        self._libc = ctypes.CDLL(None, use_errno=True)
        params = ctypes.create_string_buffer(_PARAMS.size)
        self._fd = self._call(_SETUP, 1, params)
        self._slot = 0
        try:
            self._map(params.raw)
            self.completed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except BaseException:
            os.close(self._fd)
            raise
        try:
            self._call(_REGISTER, self._fd, _REGISTER_EVENTFD, ctypes.byref(ctypes.c_int(self.completed)), 1)
        except BaseException:
            self.close()
            raise

    def _map(self, params: bytes) -> None:
        words = _PARAMS.unpack(params)
        if not words[5] & _FEATURE_SINGLE_MMAP:
            raise Unsupported("the kernel is older than 5.4")
        submissions, completions = words[:2]
        _, self._tail, _, _, _, _, array = words[10:17]
        self._completion_head, self._completion_tail, self._completion_mask, _, _, self._completions = words[20:26]
        size = max(array + submissions * _WORD.size, self._completions + completions * _COMPLETION.size)
        self._queues = mmap.mmap(self._fd, size)
        self._requests = mmap.mmap(self._fd, submissions * _SUBMISSION.size, offset=_OFFSET_SUBMISSIONS)
        _WORD.pack_into(self._queues, array, 0)

    def submit_fdatasync(self, fd: int) -> None:
        """Begin `fdatasync(fd)`."""
        _SUBMISSION.pack_into(self._requests, 0, _OP_FSYNC, 0, 0, fd, 0, 0, 0, _FSYNC_DATASYNC, 0)
        self._slot = (self._slot + 1) & 0xFFFFFFFF
        _WORD.pack_into(self._queues, self._tail, self._slot)
        self._call(_ENTER, self._fd, 1, 0, 0, None, 0)

    def results(self) -> Iterator[int]:
        """What has completed: 0, or an errno below zero, for each."""
        os.eventfd_read(self.completed)
        (head,) = _WORD.unpack_from(self._queues, self._completion_head)
        (tail,) = _WORD.unpack_from(self._queues, self._completion_tail)
        (mask,) = _WORD.unpack_from(self._queues, self._completion_mask)
        while head != tail:
            _, result, _ = _COMPLETION.unpack_from(self._queues, self._completions + (head & mask) * _COMPLETION.size)
            head = (head + 1) & 0xFFFFFFFF
            _WORD.pack_into(self._queues, self._completion_head, head)
            yield result

    def close(self) -> None:
        self._requests.close()
        self._queues.close()
        os.close(self.completed)
        os.close(self._fd)

    def _call(self, number: int, *arguments: object) -> int:
        result = self._libc.syscall(number, *arguments)
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result
