"""Byte ranges of a file on the disk."""

from __future__ import annotations

import contextlib
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


class LocalFile:
    """A file on this machine, read at known offsets; notices when somebody writes to it meanwhile."""

    #: What HDF5 does not tell itself; a disk's errors it tells.
    failure: BaseException | None = None

    def __init__(self, path: str):
        self.path = path
        self._stack = contextlib.ExitStack()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # not to wait at a named pipe
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self.close()
            raise OSError("not a regular file")
        self.stamp = self._now()
        self.size = self.stamp[2]

    def _now(self) -> tuple:
        status = os.fstat(self._descriptor)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

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
        if self._now() != self.stamp:
            raise OSError("the file was changed while it was being read")

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
