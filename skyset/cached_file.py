"""A file on a server whose blocks are kept on the disk."""

from __future__ import annotations

import io
from collections.abc import Iterator

from skyset.block_cache import BLOCK, BlockCache, fetching
from skyset.ranges import Changed, HttpFile, Lines, Version
from skyset.remote import FsspecFile


class CachedFile:
    """Reads as ``HttpFile.get`` does, from an offset that is not negative.

    Args:
        source: the file.
        cache: where blocks are kept.
        key: under what, see ``BlockCache.key``.
        size: what the manifest says the file has, bytes; one that has others is not kept.
        sha256: what the manifest says its checksum is.
    """

    def __init__(self, source: HttpFile | FsspecFile, cache: BlockCache, key: str, size: int, sha256: str):
        self._source, self._cache, self._key, self._size, self._sha256 = source, cache, key, size, sha256

    @property
    def version(self) -> Version | None:
        return self._source.version

    def get(self, start: int, out: memoryview, lines: Lines) -> int:
        """As ``HttpFile.get``.

        Raises:
            Changed: what is kept is of another version than the server has now; it is removed.
            OSError: as ``HttpFile.get``; the checksum of the whole file is not the manifest's.
        """
        stop = min(start + len(out), self._size)
        if start >= stop:
            return self._source.get(start, out, lines)
        numbers = range(start // BLOCK, -(-stop // BLOCK))
        missing, count = [], 0
        with fetching(self._key, numbers):
            for number in numbers:
                kept = self._source.version and self._cache.read(self._key, number, self._bytes(number))
                if kept:
                    count += _copy(kept, number * BLOCK, out, start)
                else:
                    missing.append(number)
            for first, last in _runs(missing):
                count += self._fetch(first, last, out, start, lines)
        if missing and not self._cache.check_whole(self._key, self._size, self._sha256):
            raise OSError(f"SHA-256 of what the server gives is not what the manifest says, {self._sha256[:12]}...")
        return count

    def _bytes(self, number: int) -> int:
        return min(BLOCK, self._size - number * BLOCK)

    def _fetch(self, first: int, last: int, out: memoryview, start: int, lines: Lines) -> int:
        """Get the blocks from ``first`` to ``last``, keep them, and copy what is wanted of them."""
        data = memoryview(bytearray(min((last + 1) * BLOCK, self._size) - first * BLOCK))
        try:
            came = self._source.get(first * BLOCK, data, lines)
        except Changed:
            self._cache.forget(self._key)
            raise
        version = self._source.version
        if came == len(data) and version is not None and version.size == self._size:
            numbers = range(first, last + 1)
            parts = ((n, data[(n - first) * BLOCK : (n - first) * BLOCK + self._bytes(n)]) for n in numbers)
            self._cache.write(self._key, version, parts)
        return _copy(data[:came], first * BLOCK, out, start)


class CachedStream(io.RawIOBase):
    """A cached file as one that others read by ``seek`` and ``read``; for the arguments see ``CachedFile``.

    Args:
        lines: that reads go over.

    Attributes:
        size: of the file on the server, bytes.
    """

    def __init__(self, source: HttpFile | FsspecFile, cache: BlockCache, key: str, size: int, sha256: str, lines: Lines):
        self._file, self._lines, self._place = CachedFile(source, cache, key, size, sha256), lines, 0
        self.size = size
        if source.version is None:
            self._file.get(0, memoryview(bytearray(1)), lines)
        self.size = source.version.size if source.version else 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence])
        return self._place

    def readinto(self, out) -> int:
        view = memoryview(out).cast("B")[: max(0, self.size - self._place)]
        count = self._file.get(self._place, view, self._lines) if len(view) else 0
        self._place += count
        return count


def _copy(data: memoryview, offset: int, out: memoryview, start: int) -> int:
    """Copy what ``out``, bytes from ``start`` on, wants of bytes from ``offset`` on; how many."""
    low, high = max(offset, start), min(offset + len(data), start + len(out))
    if low >= high:
        return 0
    out[low - start : high - start] = data[low - offset : high - offset]
    return high - low


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Numbers that follow each other: (first, last) each."""
    first = 0
    for place, number in enumerate(numbers):
        if place == 0 or numbers[place - 1] != number - 1:
            first = number
        if place + 1 == len(numbers) or numbers[place + 1] != number + 1:
            yield first, number
