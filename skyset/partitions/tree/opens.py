"""What opens the files of an adopted tree, as ``Partition`` does ours: what ``Survey.opens`` is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from skyset.errors import PartitionError
from skyset.partitions.tree.columns import TreeColumns
from skyset.partitions.tree.file import TreeFile
from skyset.partitions.tree.form import COLUMNS, OBJECTS, TreeForm
from skyset.partitions.tree.objects import TreeObjects
from skyset.partitions.tree.units import UNITS, UnitsFile
from skyset.partitions.tree.written import WRITTEN, WrittenFile
from skyset.survey import Column


@dataclass(frozen=True)
class OpensTree:
    """Opens an entry of the index of a tree.

    Args:
        form: of the tree.
        index: the folder of the index's manifest.
    """

    form: TreeForm
    index: str

    @property
    def in_groups(self) -> bool:
        """Whether a row costs as much as those beside it: shuffled reading holds whole pieces."""
        return self.form.packed

    @property
    def one_by_one(self) -> bool:
        """Whether each row is opened by itself: its small columns are read with the others then, not in runs before them."""
        return self.form.kind != COLUMNS

    def files(self, path: str) -> list[str]:
        """The files that an entry is made of; PartitionError where the index is damaged."""
        if self.form.kind != OBJECTS:
            return [path]
        rows = _units(f"{self.index}/{UNITS}").rows_of(os.path.relpath(path, self.form.tree))
        return [f"{self.form.tree}/{file}" for file in dict.fromkeys(rows.files)]

    def __call__(
        self,
        path: str,
        columns: Sequence[Column],
        trusted_rows: int | None = None,
        trusted_bytes: int | None = None,
        sha256: str | None = None,
    ) -> TreeFile:
        if missing := [column.name for column in columns if column.name not in self.form.sources]:
            raise PartitionError(f"{path}: column {missing[0]} is not made of anything there")
        if self.form.kind == COLUMNS:
            written = _written(f"{self.index}/{WRITTEN}")
            time = written.time_of(os.path.relpath(path, self.form.tree)) if written is not None else None
            return TreeColumns(path, columns, trusted_rows, trusted_bytes, self.form, time)
        return TreeObjects(path, columns, trusted_rows, trusted_bytes, self.form, _units(f"{self.index}/{UNITS}"))


_T = TypeVar("_T", UnitsFile, WrittenFile)
_units_open: dict[str, UnitsFile] = {}
_written_open: dict[str, WrittenFile] = {}


def _units(path: str) -> UnitsFile:
    """The list of objects of an index."""
    return _kept(path, UnitsFile, _units_open)


def _written(path: str) -> WrittenFile | None:
    """The times of the files of an index; None of one without them."""
    return _kept(path, WrittenFile, _written_open) if os.path.exists(path) else None


def _kept(path: str, opens: Callable[[str], _T], known: dict[str, _T]) -> _T:
    """A file of an index, which stays open; one that is written anew is opened anew."""
    found = known.get(path)
    try:
        status = os.stat(path)
    except OSError:
        return opens(path)  # which says what is wrong
    if found is None or found.stamp != (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns):
        if len(known) > 100:
            known.clear()
        found = known[path] = opens(path)
    return found
