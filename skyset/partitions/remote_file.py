"""Byte ranges of a file behind a URL: what HDF5 wants of its structure in two requests, the rows in a few at a time."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait

import h5py
import numpy as np

from skyset import remote
from skyset.block_cache import BlockCache
from skyset.cached_file import CachedFile
from skyset.ranges import SPLIT, Changed, HttpFile, Lines, Version

#: HDF5 keeps the structure of a partition at its two ends, small columns among it.
HEAD = 64 << 10
#: What is read where the structure lies elsewhere.
_BLOCK = 256 << 10
#: Two stretches that are nearer to each other are one request: so many bytes take less time than one would.
GAP = 64 << 10
#: Bytes of structures that are kept in a process: a file whose checksum is known is looked at once.
_KEPT = 32 << 20


class _Structure:
    """Stretches of a file that were read on the way to its structure, by offset; and which version it is of."""

    def __init__(self, version: Version):
        self.version = version
        self.blocks: dict[int, bytes] = {}

    @property
    def bytes(self) -> int:
        return sum(map(len, self.blocks.values()))

    def find(self, offset: int, size: int) -> memoryview | None:
        for start, block in list(self.blocks.items()):
            if start <= offset and offset + size <= start + len(block):
                return memoryview(block)[offset - start : offset - start + size]
        return None


_structures: OrderedDict[tuple[str, str], _Structure] = OrderedDict()
_lock = threading.Lock()


def _begin_anew() -> None:
    """A process that was forked: no thread of its own holds the lock."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)


def _remember(key: tuple[str, str], structure: _Structure) -> None:
    if not key[1]:
        return  # nothing would tell whether the file is still the same
    with _lock:
        _structures[key] = structure
        while len(_structures) > 1 and sum(each.bytes for each in _structures.values()) > _KEPT:
            _structures.popitem(last=False)


class RemoteFile:
    """A file that is read by ranges (``https://``, ``hf://``, what fsspec knows), several of them at a time.

    Args:
        url: where it is.
        size: what the manifest says of it, bytes.
        tail: bytes at its end that are likely to be wanted, those of the small columns.
        digest: what names this version of it: its checksum in the manifest.
        lines: to be used; else the file has its own.
        cache: keeps what is read; of files whose size and digest are known.

    Raises:
        OSError: it cannot be read, or not in parts.
    """

    def __init__(
        self,
        url: str,
        size: int | None = None,
        tail: int = 0,
        digest: str = "",
        lines: Lines | None = None,
        cache: BlockCache | None = None,
    ):
        self._key = url, digest
        self._held: dict[int, tuple[int, memoryview]] = {}
        self._stream: _Stream | None = None
        known = _structures.get(self._key)
        if known is not None and size not in (None, known.version.size):
            known = None
        self._lines, self._is_own = lines or Lines(), lines is None
        try:
            version = known.version if known else None
            if cache is not None and size is not None and digest:
                key = cache.key(url, digest)
                source = remote.found(url, version or cache.version(key))
                self._source: remote.FsspecFile | HttpFile | CachedFile = CachedFile(source, cache, key, size, digest)
            else:
                self._source = remote.found(url, version)
            self._structure = known or self._looked_at(size, max(HEAD, tail))
        except BaseException:
            self.close()
            raise
        self.stamp = self.touched = tuple(self._structure.version)
        self.size = self._structure.version.size

    def _looked_at(self, size: int | None, tail: int) -> _Structure:
        """Both ends of the file, asked for at once."""
        if size is not None and size <= HEAD + tail + GAP:
            asked = {0: size}
        elif size is not None:
            asked = {0: HEAD, size - tail: tail}
        else:
            asked = {0: HEAD, -tail: tail}
        ends = {start: memoryview(bytearray(length)) for start, length in asked.items() if length}
        counts = _done([self._lines.submit(self._get, start, out) for start, out in ends.items()])
        if self._source.version is None:
            raise OSError("the file is empty")
        structure = _Structure(self._source.version)
        for (start, out), count in zip(ends.items(), counts, strict=True):
            structure.blocks[start if start >= 0 else structure.version.size - count] = bytes(out[:count])
        _remember(self._key, structure)
        return structure

    @property
    def failure(self) -> BaseException | None:
        """Why HDF5 did not get what it wanted to read."""
        return self._stream.failure if self._stream else None

    def hdf5(self) -> h5py.File:
        self._stream = _Stream(self)
        return h5py.File(self._stream, "r")

    def _get(self, start: int, out: memoryview) -> int:
        try:
            return self._source.get(start, out, self._lines)
        except Changed:
            with _lock:
                _structures.pop(self._key, None)  # the next reader looks again
            raise

    def bytes(self, offset: int, size: int) -> bytes:
        """Bytes from an offset on, fewer where the file ends."""
        size = max(0, min(size, self.size - offset))
        if (known := self._known(offset, size)) is not None:
            return bytes(known)
        data = np.empty(size, np.uint8)
        self._fetch([(offset, data)])
        return data.tobytes()

    def structure(self, offset: int, size: int) -> memoryview:
        """As ``bytes``, and what lies around is kept: HDF5 reads its structure in many small steps."""
        size = max(0, min(size, self.size - offset))
        if (known := self._known(offset, size)) is None:
            start, stop = offset // _BLOCK * _BLOCK, min(-(-(offset + size) // _BLOCK) * _BLOCK, self.size)
            self._structure.blocks[start] = self.bytes(start, stop - start)
            known = self._structure.find(offset, size)
            assert known is not None
        return known

    def _known(self, offset: int, size: int) -> memoryview | None:
        for start, block in list(self._held.values()):
            if start <= offset and offset + size <= start + len(block):
                return block[offset - start : offset - start + size]
        return self._structure.find(offset, size)

    @contextlib.contextmanager
    def holding(self, ranges: Iterable[tuple[int, int]]) -> Iterator[None]:
        """A block that reads these stretches, (offset, bytes), one after the other: they are fetched at once."""
        arrays = [(offset, np.empty(size, np.uint8)) for offset, size in ranges if offset + size <= self.size]
        self._fetch(arrays)
        self._held |= {id(array): (offset, memoryview(array)) for offset, array in arrays}
        try:
            yield
        finally:
            for _, array in arrays:
                del self._held[id(array)]

    def read(self, parts: Sequence[tuple[int, np.ndarray]]) -> None:
        """Fill arrays, each from one stretch of bytes at an offset; the rows of an array may lie apart from each other."""
        missing = []
        for offset, out in parts:
            if (known := self._known(offset, out.nbytes)) is not None:
                out[...] = np.frombuffer(known, out.dtype).reshape(out.shape)
            else:
                missing.append((offset, out))
        self._fetch(missing)

    def _fetch(self, parts: Sequence[tuple[int, np.ndarray]]) -> None:
        jobs, buffers = [], []
        for group in grouped(parts):
            start, stop = group[0][0], max(offset + out.nbytes for offset, out in group)
            if len(group) == 1 and group[0][1].flags.c_contiguous:
                view = memoryview(group[0][1].reshape(-1).view(np.uint8))
            else:
                view = memoryview(bytearray(stop - start))
                buffers.append((start, view, group))
            jobs += [(low, view[low - start : high - start]) for low, high in self._cuts(start, stop)]
        counts = _done([self._lines.submit(self._get, start, view) for start, view in jobs])
        if any(count < len(view) for count, (_, view) in zip(counts, jobs, strict=True)):
            raise EOFError("the file ends before them")
        for start, view, group in buffers:
            for offset, out in group:
                data = view[offset - start : offset - start + out.nbytes]
                out[...] = np.frombuffer(data, out.dtype).reshape(out.shape)

    def _cuts(self, start: int, stop: int) -> list[tuple[int, int]]:
        """A stretch in requests of ``SPLIT`` bytes at most, (start, stop) each; blocks that are kept are not cut."""
        if isinstance(self._source, CachedFile):
            places = [start, *range((start // SPLIT + 1) * SPLIT, stop, SPLIT), stop]
            return list(itertools.pairwise(places)) if start < stop else []
        return [(start + low, start + high) for low, high in cuts(stop - start)]

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._is_own:
            self._lines.close()


def _done(futures: Sequence[Future]) -> list[int]:
    """What came of each, once all have ended: none of them writes into memory after that."""
    wait(futures)
    return [future.result() for future in futures]


def grouped(parts: Sequence[tuple[int, np.ndarray]]) -> list[list[tuple[int, np.ndarray]]]:
    """Stretches of bytes, (offset, array), by the requests that they are read in: those that lie near each other in one."""
    groups: list[list[tuple[int, np.ndarray]]] = []
    end = 0
    for offset, out in sorted((part for part in parts if part[1].nbytes), key=lambda part: part[0]):
        if groups and offset - end <= GAP:
            groups[-1].append((offset, out))
        else:
            groups.append([(offset, out)])
            end = 0
        end = max(end, offset + out.nbytes)
    return groups


def cuts(size: int) -> list[tuple[int, int]]:
    """``size`` bytes in requests of about the same length, (start, stop) each, of ``SPLIT`` at most."""
    count = -(-size // SPLIT)
    return [(size * k // count, size * (k + 1) // count) for k in range(count)]


class _Stream(io.RawIOBase):
    """The file as HDF5 reads it. HDF5 hides why a read failed: ``failure`` tells."""

    def __init__(self, file: RemoteFile):
        self._file, self._place = file, 0
        self.failure: BaseException | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer) -> int:
        try:
            data = self._file.structure(self._place, len(buffer))
        except Exception as error:  # out of here it would be printed, and lost
            self.failure = error
            return 0
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
