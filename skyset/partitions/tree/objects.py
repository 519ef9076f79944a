"""Objects of an adopted tree that have a file, or a group, each: read as a partition by what ``units.arrow`` says of them.

Small columns come from there. Arrays are read where they lie: an object costs one ``open``, and a read for those of its
arrays that lie near each other. HDF5 reads only what is compressed, in chunks or of any length.
"""

from __future__ import annotations

import functools
import math
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from skyset.errors import PartitionError, RecordError
from skyset.partitions.tree.file import TreeFile, changed, gone, named
from skyset.partitions.tree.form import LABELS, MEMBER, PART, STORED, TreeForm
from skyset.partitions.tree.gather import Part, bytes_of, read_parts
from skyset.partitions.tree.making import labels_for, made, split_labels
from skyset.partitions.tree.raw_values import Place, raw_values
from skyset.partitions.tree.structure import DAMAGE, Stored, reason_of
from skyset.partitions.tree.units import Arrays, UnitsFile, is_kept
from skyset.survey import Column


class _Direct(NamedTuple):
    """A column whose values lie in the files as they are handed out, in most of them: where, by row; -1 where not so."""

    name: str
    offsets: list[int]
    sizes: list[int]


@dataclass(frozen=True)
class _Plan:
    """How some columns are read."""

    kept: list[str]
    labels: list[str]
    direct: list[_Direct]
    #: Columns of each row that are not as they are handed out.
    others: dict[int, list[str]]


class TreeObjects(TreeFile):
    """The objects of one entry of a tree of kind ``objects`` or ``groups``.

    Args:
        path: of the entry, absolute.
        columns: those of the survey that are wanted.
        trusted_rows, trusted_bytes: what the manifest says.
        form: how the tree holds them.
        units: where they lie.

    Raises:
        PartitionError: the list of objects is damaged, or not that of the manifest.
    """

    def __init__(
        self,
        path: str,
        columns: Sequence[Column],
        trusted_rows: int | None,
        trusted_bytes: int | None,
        form: TreeForm,
        units: UnitsFile,
    ):
        super().__init__(path, columns, form)
        self._stamp = units.stamp
        self._units = units.rows_of(os.path.relpath(path, form.tree))
        self.rows = self._units.rows
        sizes = dict(zip(self._units.files, self._units.sizes.tolist(), strict=True))
        found = self.rows, sum(sizes.values())
        for known, here, what in zip((trusted_rows, trusted_bytes), found, ("rows", "bytes"), strict=True):
            if known is not None and known != here:
                raise PartitionError(
                    f"{units.path}: {path} has {here} {what} there, {known} in the manifest: run `skyset adopt` again"
                )
        self._arrays: dict[str, Arrays] = {}
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._texts: dict[str, list[str]] = {}
        self._known = list(zip(self._units.sizes.tolist(), self._units.mtimes.tolist(), strict=True))
        self._open: tuple[str, int] = "", -1

    @property
    def stamp(self) -> tuple:
        """Of the list of objects: another one once the tree was adopted anew."""
        return self._stamp

    def close(self) -> None:
        if self._open[1] >= 0:
            os.close(self._open[1])
        self._open = "", -1

    # Where things lie.

    def _places(self, dataset: str) -> Arrays:
        if dataset not in self._arrays:
            try:
                self._arrays[dataset] = self._units.arrays(dataset)
            except DAMAGE as error:
                raise PartitionError(f"{self.path}: {dataset} in units.arrow: {error}: run `skyset adopt` again") from error
        return self._arrays[dataset]

    def _plan(self, names: tuple[str, ...]) -> _Plan:
        """How columns are read; noted, since rows are also read one by one."""
        if names in self._plans:
            return self._plans[names]
        kept = [name for name in names if is_kept(self.columns[name])]
        rest = [name for name in names if name not in kept]
        labels = [name for name in rest if self._form.sources[name].how == LABELS]
        arrays = [name for name in rest if name not in labels]
        direct: list[_Direct] = []
        others: dict[int, list[str]] = {}
        for name in arrays:
            lies, places = self._as_handed_out(name), self._places(self._form.sources[name].dataset)
            direct.append(_Direct(name, np.where(lies, places.offsets, -1).tolist(), places.bytes.tolist()))
            for row in np.flatnonzero(~lies).tolist():
                others.setdefault(row, []).append(name)
        plan = self._plans[names] = _Plan(kept, labels, direct, others)
        return plan

    def _as_handed_out(self, name: str) -> np.ndarray:
        """In which of the rows a column is stored as it is handed out, bool (rows,)."""
        source, column = self._form.sources[name], self.columns[name]
        places = self._places(source.dataset)
        alike = np.array([dtype == column.stored_dtype for dtype in places.dtypes], bool)[places.which]
        if not column.is_ragged:
            alike &= places.bytes == column.row_bytes
        return alike & (places.offsets >= 0) & (source.how == STORED)

    def _counts(self, name: str, start: int, stop: int) -> np.ndarray:
        source = self._form.sources[name]
        if source.how == LABELS:
            return self._counts(source.like, start, stop)
        places = self._places(source.dataset)
        counts = places.counts[start:stop]
        if source.how == PART:
            return counts // np.maximum(places.dims[start:stop, source.argument[0]], 1)
        if source.how == MEMBER:
            sizes = [
                math.prod(dtype[source.member].shape) if source.member in (dtype.names or ()) else 0
                for dtype in places.dtypes
            ]
            return counts * np.array(sizes, np.int64)[places.which[start:stop]]
        return counts

    # Reading.

    def _read(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        plan = self._plan(tuple(outs))
        for name in plan.kept:
            outs[name][...] = self._units.values(self.columns[name])[start:stop]
        for name in plan.labels:
            outs[name][...] = self._labels(name, start, stop).reshape(outs[name].shape)
        if not plan.direct:
            return
        whole = {each.name: np.ascontiguousarray(outs[each.name]) for each in plan.direct}
        targets = [_Target(each, bytes_of(whole[each.name])) for each in plan.direct]
        for row in range(start, stop):
            self._read_row(row, plan.others.get(row, ()), targets)
        for name, values in whole.items():
            if values is not outs[name]:
                outs[name][...] = values

    def _read_row(self, row: int, others: Sequence[str], targets: Sequence[_Target]) -> None:
        """One object's arrays."""
        parts: list[Part] = []
        for target in targets:
            offset, size = target.offsets[row], target.sizes[row]
            if offset >= 0 and size:
                parts.append((offset, target.take(size)))
        if not parts and not others:
            return
        try:
            descriptor = self._descriptor(row)
            parts.sort(key=_offset)
            read_parts(descriptor, parts)
            if others:
                self._read_others(descriptor, row, {each.name: each for each in targets if each.name in others})
        except PartitionError as error:
            raise named(error, self._where(row), self._form.tree) from error
        except (RecordError, EOFError, *DAMAGE) as error:
            raise PartitionError(f"{self._where(row)}: {reason_of(error)}") from error

    def _where(self, row: int) -> str:
        group = self._units.groups[row]
        return f"{self._form.tree}/{self._units.files[row]}{f', {group}' if group else ''}"

    def _descriptor(self, row: int) -> int:
        """The file of an object, open; the last one is kept."""
        file = self._units.files[row]
        if self._open[0] != file:
            self.close()
            path = f"{self._form.tree}/{file}"
            try:
                self._open = file, os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                raise gone(path, self._form.tree, error) from error
        status = os.fstat(self._open[1])
        if (status.st_size, status.st_mtime_ns) != self._known[row] or not stat.S_ISREG(status.st_mode):
            raise changed(f"{self._form.tree}/{file}", "has another size or time")
        return self._open[1]

    def _labels(self, name: str, start: int, stop: int) -> np.ndarray:
        """A label for each value of the column that they run along, (values,)."""
        source, dtype = self._form.sources[name], self.columns[name].stored_dtype
        if source.of and source.dataset not in self._texts:
            self._texts[source.dataset] = self._units.labels(source.dataset)
        fixed = ",".join(source.argument or ())
        texts = self._texts[source.dataset][start:stop] if source.of else [fixed] * (stop - start)
        try:
            each = [
                _labels(text, count, name, dtype)
                for text, count in zip(texts, self._counts(name, start, stop).tolist(), strict=True)
            ]
        except RecordError as error:
            raise PartitionError(f"{self.path}: {error}") from error
        return np.concatenate([np.zeros(0, dtype), *each])

    def _read_others(self, descriptor: int, row: int, targets: Mapping[str, _Target]) -> None:
        """Columns that are not stored as they are handed out."""
        datasets: dict[str, list[str]] = {}
        for name in targets:
            datasets.setdefault(self._form.sources[name].dataset, []).append(name)
        for dataset, names in datasets.items():
            where = self._places(dataset).stored(row)
            members = {name: self._form.sources[name].member for name in names}
            there = [name for name in names if where is not None and where.has(members[name])]
            straight = {name: self._straight(name, where, targets[name]) for name in there if where is not None}
            memory = {members[name]: array for name, array in straight.items() if array is not None}
            raw = {}
            if where is not None and there:
                one = Place(f"{self._form.tree}/{self._units.files[row]}", self._units.groups[row], dataset, where)
                raw = raw_values(descriptor, one, [members[name] for name in there], memory)
            for name in names:
                column = self.columns[name]
                if name not in there:
                    targets[name].put(np.full(0 if column.is_ragged else column.shape, column.missing, column.stored_dtype))
                elif straight[name] is None or raw[members[name]] is not straight[name]:
                    targets[name].put(made(column, self._form.sources[name], raw[members[name]][None]))

    def _straight(self, name: str, where: Stored, target: _Target) -> np.ndarray | None:
        """The reader's memory for a member that is handed out as it is stored: (records, *shape); None for others."""
        source, column = self._form.sources[name], self.columns[name]
        if source.how != MEMBER or where.offset < 0:
            return None
        base, shape = where.dtype[source.member].subdtype or (where.dtype[source.member], ())
        count = math.prod(where.dims)
        size = count * base.itemsize * math.prod(shape)
        if base != column.stored_dtype or not (column.is_ragged or size == column.row_bytes):
            return None
        return np.frombuffer(target.take(size), base).reshape(count, *shape)


class _Target:
    """The memory of a column's rows, which is filled one after the other.

    Args:
        direct: where the column's values lie, by row.
        view: the memory.
    """

    def __init__(self, direct: _Direct, view: memoryview):
        self.name, self.offsets, self.sizes = direct
        self._view, self._filled = view, 0

    def take(self, size: int) -> memoryview:
        """The next so many bytes."""
        first = self._filled
        self._filled = first + size
        return self._view[first : self._filled]

    def put(self, values: np.ndarray) -> None:
        """Copy values to the next bytes."""
        self.take(values.nbytes)[:] = bytes_of(np.ascontiguousarray(values))


def _offset(part: Part) -> int:
    return part[0]


@functools.lru_cache(4096)
def _labels(text: str, count: int, name: str, dtype: np.dtype) -> np.ndarray:
    return labels_for(split_labels(text), count, name, dtype)
