"""Which keys come twice among any number of rows, in bounded memory: digests first, on disk where they are many."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

#: A row's digest, and the number of the file it is in.
_ROW = np.dtype([("digest", "<u8"), ("file", "<u4")])
#: Rows that are held in memory; more go to a temporary file, in as many parts as a byte has values.
HELD = 1 << 22
_PARTS = 256


def digests(keys: Iterable[str]) -> np.ndarray:
    """64 bits that tell a key from others, but for one of some 1e19 pairs; uint64 (n,)."""
    found = b"".join(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest() for key in keys)
    return np.frombuffer(found, "<u8")


class Digests:
    """The digests of rows, file by file; 12 bytes each, on disk (in ``TMPDIR``) where there are more than ``HELD``."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._held = 0
        self._spilled: BinaryIO | None = None
        self._parts: list[np.ndarray] = []  # of each spill, where its parts begin and end, rows from the file's begin on

    def __enter__(self) -> Digests:
        return self

    def __exit__(self, *_) -> None:
        if self._spilled is not None:
            self._spilled.close()

    def add(self, file: int, found: np.ndarray) -> None:
        rows = np.empty(len(found), _ROW)
        rows["digest"], rows["file"] = found, file
        self._rows.append(rows)
        self._held += len(rows)
        if self._held >= HELD:
            self._spill()

    def _spill(self) -> None:
        if self._spilled is None:
            self._spilled = tempfile.TemporaryFile(prefix="skyset-")  # noqa: SIM115 (closed with this)
        rows = np.concatenate(self._rows)
        part = _part(rows)
        rows = rows[np.argsort(part, kind="stable")]
        begin = self._spilled.seek(0, 2) // _ROW.itemsize
        self._parts.append(begin + np.concatenate([[0], np.cumsum(np.bincount(part, minlength=_PARTS))]))
        self._spilled.write(rows.tobytes())
        self._rows, self._held = [], 0

    def _in_parts(self) -> Iterator[np.ndarray]:
        """All rows; those of one digest together."""
        if self._spilled is None:
            yield np.concatenate([np.empty(0, _ROW), *self._rows])
            return
        if self._rows:
            self._spill()
        for number in range(_PARTS):
            found = []
            for bounds in self._parts:
                self._spilled.seek(int(bounds[number]) * _ROW.itemsize)
                size = int(bounds[number + 1] - bounds[number]) * _ROW.itemsize
                found.append(np.frombuffer(self._spilled.read(size), _ROW))
            yield np.concatenate(found)

    def twice(self) -> tuple[set[int], list[int]]:
        """Digests that several rows have, and the numbers of the files that these rows are in, ascending."""
        common: set[int] = set()
        files: set[int] = set()
        for rows in self._in_parts():
            rows = rows[np.argsort(rows["digest"], kind="stable")]
            same = rows["digest"][1:] == rows["digest"][:-1]
            both = np.append(same, False) | np.append(False, same) if len(rows) else same
            common.update(rows["digest"][both].tolist())
            files.update(rows["file"][both].tolist())
        return common, sorted(files)


def _part(rows: np.ndarray) -> np.ndarray:
    return (rows["digest"] >> np.uint64(56)).astype(np.int64)


def repeated(keys: Sequence[str], common: set[int]) -> Iterator[str]:
    """Those of some keys whose digest is one of ``common``."""
    return (key for key, digest in zip(keys, digests(keys).tolist(), strict=True) if digest in common)
