"""``written.npy``: when each file of columns of a tree was last written to, as it was adopted.

An array beside the manifest, uint64 (2, files): the first row has 64 bits of the hash of each file's path below the tree, in
ascending order, the second the time of its last write, ns. It is memory-mapped: to look up one file of a million reads a
few pages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from skyset.errors import PartitionError
from skyset.files import replacing
from skyset.partitions.twice import digests

WRITTEN = "written.npy"
_DTYPE = np.dtype("<u8")


def write_times(path: Path, times: Mapping[str, int]) -> None:
    """Write ``written.npy``, whole or not at all.

    Args:
        path: of the file.
        times: by path below the tree, ns.
    """
    keys = digests(times)
    order = np.argsort(keys, kind="stable")
    table = np.stack([keys[order], np.array(list(times.values()), np.int64).view(_DTYPE)[order]])
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, table, allow_pickle=False)


class WrittenFile:
    """``written.npy`` of an index.

    Args:
        path: of the file.

    Attributes:
        stamp: device, inode, bytes and time of the last write.

    Raises:
        PartitionError: it is missing, or no such file.
    """

    def __init__(self, path: str) -> None:
        try:
            status = os.stat(path)
            self.stamp = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
            table = np.load(path, mmap_mode="r", allow_pickle=False)
            if table.dtype != _DTYPE or table.ndim != 2 or len(table) != 2:
                raise ValueError(f"{table.dtype} of {table.shape}")
        except FileNotFoundError:
            raise PartitionError(f"{path}: no such file: run `skyset adopt` again") from None
        except (OSError, ValueError, EOFError, OverflowError, SyntaxError) as error:
            raise PartitionError(f"{path} is damaged: {error}: run `skyset adopt` again") from error
        self._keys, self._times = table

    def time_of(self, path: str) -> int | None:
        """When a file was last written to, ns, by its path below the tree; None of one that was not adopted."""
        key = digests([path])[0]
        place = int(np.searchsorted(self._keys, key))
        if place == len(self._keys) or self._keys[place] != key:
            return None
        return int(self._times[place].astype(np.int64))
