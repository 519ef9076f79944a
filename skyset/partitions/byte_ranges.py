"""Byte ranges of a file on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

import h5py
import numpy as np

from skyset.files import opened_hdf5

#: Most buffers that one ``preadv`` takes (IOV_MAX on Linux).
_MAX_BUFFERS = 1024
_DIGEST_BYTES = 8 << 20


class LocalFile:
    """A file on this machine, read at known offsets; notices when somebody writes to it meanwhile.

    The time of the last change of a file's status tells of a write whose own time was set back, and of a backup that makes a
    hard link, too. Where it alone is another one, the checksum says which it was; where none is known, it was a write unless
    links, owner or permissions are others.

    Args:
        path: of the file.
        sha256: its checksum, hexadecimal; empty where none is known.

    Attributes:
        stamp: device, inode, bytes and time of the last write.
        touched: the same, and the time of the last change of status: for what is kept of a file, and cheaply made again.
    """

    #: What HDF5 does not tell itself; a disk's errors it tells.
    failure: BaseException | None = None

    def __init__(self, path: str, sha256: str = ""):
        self.path, self._sha256 = path, sha256
        self._stack = contextlib.ExitStack()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # not to wait at a named pipe
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self.close()
            raise OSError("not a regular file")
        self._status = os.fstat(self._descriptor)
        self.size = self._status.st_size

    @property
    def stamp(self) -> tuple:
        return _written(self._status)

    @property
    def written(self) -> int:
        """Time of the last write, ns."""
        return self._status.st_mtime_ns

    @property
    def touched(self) -> tuple:
        return *_written(self._status), self._status.st_ctime_ns

    def _check(self) -> None:
        """Raise OSError where somebody has written to the file since it was looked at last."""
        now, before = os.fstat(self._descriptor), self._status
        if _written(now) == _written(before):
            if now.st_ctime_ns == before.st_ctime_ns:
                return
            if self._digest() == self._sha256 if self._sha256 else _handled(now) != _handled(before):
                self._status = now
                return
        raise OSError("the file was changed while it was being read")

    def _digest(self) -> str:
        digest, offset = hashlib.sha256(), 0
        while data := os.pread(self._descriptor, _DIGEST_BYTES, offset):
            digest.update(data)
            offset += len(data)
        return digest.hexdigest()

    def hdf5(self) -> h5py.File:
        return self._stack.enter_context(opened_hdf5(self._descriptor))

    def bytes(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def holding(self, ranges: Iterable[tuple[int, int]]) -> contextlib.AbstractContextManager:
        """A block that reads these stretches, (offset, bytes), one after the other: on a disk they are near."""
        return contextlib.nullcontext()

    def read(self, parts: Sequence[tuple[int, np.ndarray]]) -> None:
        """Fill arrays, each from one stretch of bytes at an offset; the rows of an array may lie apart from each other."""
        for offset, out in parts:
            self._scatter(offset, out)
        self._check()

    def _scatter(self, offset: int, out: np.ndarray) -> None:
        buffers = deque(memoryview(row).cast("B") for row in ([out] if out.flags.c_contiguous else out))
        while buffers:
            count = os.preadv(self._descriptor, list(islice(buffers, _MAX_BUFFERS)), offset)
            if count == 0:
                raise EOFError("the file ends before them")
            offset += count
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.popleft())
            if count:
                buffers[0] = buffers[0][count:]

    def close(self) -> None:
        self._stack.close()
        os.close(self._descriptor)


def _written(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _handled(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_nlink, status.st_mode, status.st_uid, status.st_gid
