"""The unit of work: a partition from its list of objects, by a pure function free of any engine."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from skyset.errors import PartitionError, RecordError
from skyset.files import opened_hdf5
from skyset.partitions.manifest import FileEntry, describe_file
from skyset.partitions.partition import Partition, row_sources
from skyset.partitions.writer import PartitionWriter
from skyset.sky import healpix_cell
from skyset.survey import Survey


@dataclass(frozen=True, slots=True)
class Item:
    """One object to build.

    Args:
        key: the row's unique name (``Survey.key``).
        file: name of its raw file in the archive, or the path of a local one.
        healpix: the cell its catalogue position falls in.
        checksum: ``"sha1:<hex>"``, where the archive publishes one.
        made_of: what tells of the contents that the row is made of; ``checksum`` by default. A row that an earlier build
            made of other contents is made again.
        address: two numbers by which ``read`` finds the object in a file of many, such as its first byte and its length.
        split: the split it belongs to.
    """

    key: str
    file: str
    healpix: int
    checksum: str | None = None
    address: tuple[int, int] | None = None
    split: str = "train"
    made_of: str | None = None

    @property
    def source(self) -> int:
        """Digest of what the row is made of; 0 where nothing is known of it."""
        text = self.made_of or self.checksum
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) if text else 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """An object that did not get in, and why: a row of ``rejected.csv``."""

    key: str
    file: str
    reason: str


@dataclass
class Found:
    """What there is to build.

    Args:
        items: the objects.
        rejected: those that cannot be built.
        survey: the declaration as this build shapes it, where it does (``Survey.shaped_by_build``).
        sources: where the data come from; by default the folder or address of the options.
        notes: added to the manifest's ``build``.
        made_of: digest of what the rows are made of beside the raw files, such as a catalogue; rows that an earlier build
            made of something else are made again. It is an attribute of the partition files.
        complete: called when all partitions are there, before the manifest is written.
        fetch: called with raw files that rows have to be made of and that are not there.
    """

    items: Sequence[Item]
    rejected: Sequence[Rejected] = ()
    survey: Survey | None = None
    sources: Sequence[str] = ()
    notes: Mapping = field(default_factory=dict)
    made_of: str = ""
    complete: Callable[[], object] = lambda: None
    fetch: Callable[[set[Path]], object] = lambda files: None


@dataclass(frozen=True, slots=True)
class RawFiles(Sequence[Path]):
    """Where the raw files of some objects lie: paths that are made when they are asked for, of millions of objects."""

    folder: Path
    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, number: int) -> Path: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Path]: ...
    def __getitem__(self, number: int | slice) -> Path | Sequence[Path]:
        if isinstance(number, slice):
            return RawFiles(self.folder, self.items[number])
        return self.folder / self.items[number].file


#: Why an object does not get in: it cannot be used, or the row of an earlier build that it is made of is damaged.
Unfit = RecordError | PartitionError
UNFIT = (RecordError, PartitionError)


@dataclass(frozen=True)
class ReadTogether:
    """A ``read`` that takes some objects at a time, where that is faster than one after the other.

    Args:
        read: importable; given files and addresses, it yields for each object, in their order, the columns' values, or the
            error that says why it cannot be used.
        objects: at a time, at most.
    """

    read: Callable[[Sequence[tuple[Path, tuple[int, int] | None]]], Iterable[Mapping | Unfit]]
    objects: int


#: Reads an object: its file, and its address in it where it has one, to the columns' values.
Read = Callable[..., Mapping] | ReadTogether


@dataclass(frozen=True)
class Task:
    """One partition file to write: the pure function's argument."""

    root: Path
    path: str
    split: str
    healpix: int
    items: tuple[Item, ...]
    files: Sequence[Path]
    reuse: tuple[str, ...]
    survey: Survey
    read: Read
    compression: str
    made_of: str = ""

    @property
    def keys(self) -> list[str]:
        return [item.key for item in self.items]


@dataclass(frozen=True)
class Written:
    """What became of a task: the manifest's entry (None if no row was fit) and what was rejected."""

    entry: FileEntry | None
    rejected: tuple[Rejected, ...]


def build_partition(task: Task) -> Written:
    """Write one partition. Rows that an earlier build wrote are copied; the others are read from their raw files."""
    rejected: list[Rejected] = []
    options: dict[str, str | int] = {"survey": task.survey.name, "healpix": task.healpix}
    if task.made_of:
        options["made_of"] = task.made_of
    with contextlib.ExitStack() as stack:
        old = existing_rows(task, stack)
        writer = stack.enter_context(
            PartitionWriter(task.root / task.path, task.survey.columns, len(task.items), options, task.compression)
        )
        for item, values in _read(task, old):
            try:
                if item.key in old:
                    writer.append(*old[item.key]())
                else:
                    writer.append(_row(task, item, values), item.source)
            except UNFIT as error:
                rejected.append(Rejected(item.key, item.file, str(error)))
        rows = writer.rows
    entry = describe_file(task.root, task.path, task.survey, task.split) if rows else None
    return Written(entry, tuple(rejected))


def existing_rows(task: Task, stack: contextlib.ExitStack) -> dict[str, Callable]:
    """Functions that give the rows already written in this cell, each with the digest of its source, by key."""
    rows: dict[str, Callable] = {}
    wanted = {item.key: item.source for item in task.items}
    for path in task.reuse:
        if not is_made_of(task.root / path, task.made_of):
            continue
        try:
            old = stack.enter_context(Partition(task.root / path, task.survey.columns))
            for number, (key, source) in enumerate(zip(old.text(task.survey.key), old.sources(), strict=True)):
                if _may_be_same(source, wanted.get(key, 0)):
                    rows[key] = functools.partial(_row_and_source, old, number, source)
        except PartitionError:
            continue  # damaged, or of another version: its objects are read again from the archive
    return rows


def _row_and_source(partition: Partition, row: int, source: int) -> tuple[Mapping, int]:
    return partition.record(row), source


def _may_be_same(source: int, wanted: int) -> bool:
    return 0 in (source, wanted) or source == wanted


def is_made_of(path: Path, made_of: str, items: Sequence[Item] = ()) -> bool:
    """Whether a partition's rows may be taken over into a build of these sources; True where nothing is said of them.

    Args:
        made_of: see ``Found``.
        items: the objects of all of its rows, in their order, to look at each one's source too.
    """
    wanted = [item.source for item in items]
    if not made_of and not any(wanted):
        return True
    try:
        with opened_hdf5(path) as file:
            known = row_sources(file.attrs) or [0] * len(wanted)
            return str(file.attrs.get("made_of", "")) == made_of and all(map(_may_be_same, known, wanted))
    except (OSError, RuntimeError, ValueError, LookupError, TypeError):
        return False  # damaged: built again


def _read(task: Task, old: Container[str]) -> Iterator[tuple[Item, Mapping | Unfit]]:
    """Each object, with what was read of it, or why nothing was; nothing of those that an earlier build wrote."""
    read = task.read if isinstance(task.read, ReadTogether) else ReadTogether(functools.partial(_one_by_one, task.read), 1)
    pairs = list(zip(task.items, task.files, strict=True))
    for start in range(0, len(pairs), read.objects):
        some = pairs[start : start + read.objects]
        there = [(file, item.address) for item, file in some if item.key not in old and file.exists()]
        values = iter(read.read(there))
        for item, file in some:
            if item.key in old:
                yield item, {}
            elif (file, item.address) in there:
                yield item, next(values)
            else:
                yield item, RecordError("the raw file is gone")


def _one_by_one(read: Callable[..., Mapping], objects: Sequence[tuple]) -> Iterator[Mapping | Unfit]:
    for file, address in objects:
        try:
            yield read(file, *address) if address else read(file)
        except UNFIT as error:
            yield error


def _row(task: Task, item: Item, values: Mapping | Unfit) -> Mapping:
    if isinstance(values, UNFIT):
        raise values
    row = task.survey.record({**values, task.survey.key: item.key, "healpix": task.healpix})
    cell = int(healpix_cell(row["ra"], row["dec"]))
    if cell != task.healpix:
        raise RecordError(f"its own position falls in HEALPix cell {cell}, the catalogue's in {task.healpix}")
    return row
