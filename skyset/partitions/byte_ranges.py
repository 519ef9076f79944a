"""Byte ranges of a file, on the disk or behind a URL."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from collections.abc import Sequence
from itertools import islice

import h5py
import numpy as np

from skyset import remote
from skyset.files import opened_hdf5

#: Most buffers that one ``preadv`` takes (IOV_MAX on Linux).
_MAX_BUFFERS = 1024


class LocalFile:
    """A file on this machine, read at known offsets; notices when somebody writes to it meanwhile."""

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


class RemoteFile:
    """A file that fsspec reads by ranges (``https://``, ``hf://``): the columns of a piece in concurrent requests."""

    def __init__(self, url: str):
        with remote.os_errors():
            self._system, self._path = remote.opened(url)
            status = self._system.info(self._path)
            if status["type"] != "file":
                raise OSError("not a regular file")
            remote.check_parts(self._system, self._path)
        self.size = status.get("size")
        self.stamp = self.size, status.get("ETag") or status.get("etag"), str(status.get("mtime"))
        self._stream = None

    def hdf5(self) -> h5py.File:
        # HDF5 reads its structure in many small steps: blocks of 256 kB, kept, make them few requests.
        self._stream = self._system.open(self._path, "rb", cache_type="blockcache", block_size=256 << 10)
        return h5py.File(self._stream, "r")

    def bytes(self, offset: int, size: int) -> bytes:
        with remote.os_errors():
            data = self._system.cat_file(self._path, start=offset, end=offset + size)
        if len(data) > size:
            raise OSError(remote.NO_PARTS)
        return data

    def read(self, parts: Sequence[tuple[int, np.ndarray]]) -> None:
        """Fill arrays, each from one stretch of bytes at an offset."""
        starts = [offset for offset, _ in parts]
        ends = [offset + out.nbytes for offset, out in parts]
        with remote.os_errors():
            answers = self._system.cat_ranges([self._path] * len(parts), starts, ends, on_error="raise")
        for (_, out), data in zip(parts, answers, strict=True):
            if len(data) > out.nbytes:
                raise OSError(remote.NO_PARTS)
            if len(data) != out.nbytes:
                raise EOFError("the file ends before them")
            out[...] = np.frombuffer(data, out.dtype).reshape(out.shape)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
