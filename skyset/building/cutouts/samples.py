"""What lies in the archives: where each object is, whether it is of the row that it was archived with, and its values."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from skyset.building.cutouts.declaration import Cutouts
from skyset.building.cutouts.download import digest_of_members
from skyset.building.tars.read import Sample, TarError, index, read_sample
from skyset.building.task import Rejected
from skyset.errors import RecordError
from skyset.progress import progress_bar
from skyset.sky import check_position
from skyset.survey import Column

#: Rows that are made a batch.
_SOME = 4096
#: A name that names a file and nothing else, also where there is a file per object.
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*")


class Place(NamedTuple):
    """Where an object's sample is: file and address in it; its position in degrees, and what it is made of."""

    file: str
    address: tuple[int, int]
    position: tuple[float, float]
    made_of: str


@dataclass
class Samples:
    """What lies in TAR archives, by object, in the order of the archives.

    ``stale`` are objects whose row is another one in the catalogue now, ``damaged`` those that cannot be used,
    ``unreadable`` archives that end in the middle, ``rows`` what was kept of the objects, where splits need it.
    """

    items: dict[str, Place] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    damaged: dict[str, Path] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)
    rows: list[pa.RecordBatch] = field(default_factory=list)


def read_archives(cutouts: Cutouts, archives: Sequence[Path], wanted: Mapping[str, int] | None) -> Samples:
    """All samples, or those wanted whose digest is the one given; each object once."""
    samples, kept = Samples(), KeptRows(cutouts)
    for archive in progress_bar(archives, unit="archive", desc="index", disable=len(archives) < 20):
        try:
            for sample in index(archive):
                if wanted is None or sample.key in wanted:
                    row = _take(cutouts, samples, archive, sample, wanted)
                    if row is not None and wanted is None and cutouts.splits is not None:
                        kept.add(sample.key, row)
        except TarError as error:
            samples.unreadable[archive] = str(error)
            samples.rejected.append(Rejected(archive.name, str(archive), str(error)))
    samples.rows = kept.batches()
    return samples


class KeptRows:
    """Rows as they are kept beside images, as a list has them; a value that cannot stand there is null."""

    def __init__(self, cutouts: Cutouts) -> None:
        self._columns = cutouts.columns
        self._some: dict[str, list] = {name: [] for name in cutouts.columns.schema.names}
        self._batches: list[pa.RecordBatch] = []

    def add(self, key: str, row: Mapping) -> None:
        for name, values in self._some.items():
            values.append(int(key) if name == self._columns.key else row.get(name))
        if len(values) >= _SOME:
            self._flush()

    def batches(self) -> list[pa.RecordBatch]:
        self._flush()
        return self._batches

    def _flush(self) -> None:
        schema = self._columns.schema
        arrays = [_as_far_as_possible(self._some[field.name], field.type) for field in schema]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        self._some = {name: [] for name in schema.names}


def _as_far_as_possible(values: list, kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        parts = [[None] for _ in values] if len(values) == 1 else [[value] for value in values]
        return pa.concat_arrays([pa.nulls(0, kind), *(_as_far_as_possible(part, kind) for part in parts)])


def _take(
    cutouts: Cutouts, samples: Samples, archive: Path, sample: Sample, wanted: Mapping[str, int] | None
) -> dict | None:
    """Note a sample, and give what was kept beside its images; None where it cannot be used."""
    try:
        if sample.key in samples.items:
            raise RecordError(f"duplicate: the object is in {Path(samples.items[sample.key].file).name} too")
        if not _NAME.fullmatch(sample.key):
            raise RecordError("its name is not a plain one")
        if cutouts.splits is not None and not sample.key.isdecimal():
            raise RecordError(f"its name is not {cutouts.columns.key}, an integer")
        row, _ = read_row(archive, sample.start, sample.length)
        images = row.pop("sha256", "")
        ra, dec = (_value(row.get(name), cutouts.survey.column(name), made=True) for name in ("ra", "dec"))
        check_position(ra, dec)
    except RecordError as error:
        samples.rejected.append(Rejected(sample.key, str(archive), str(error)))
        samples.damaged.setdefault(sample.key, archive)
        return None
    digest = digest_of(row)
    if wanted is not None and digest != wanted[sample.key]:
        samples.stale.append(sample.key)
    address, made_of = (sample.start, sample.length), f"{images} {digest}"
    samples.items[sample.key] = Place(str(archive.absolute()), address, (ra, dec), made_of)
    return row


def digest_of(row: Mapping) -> int:
    """Says whether a sample was archived with this row; eight bytes, since there may be a million."""
    return int.from_bytes(hashlib.blake2b(json.dumps(row).encode(), digest_size=7).digest())


def read_row(path: Path, start: int, length: int) -> tuple[dict, dict[str, bytes]]:
    """What was kept of an object, and the files of its images by extension.

    Raises:
        RecordError: one of them is missing, or the images are not those that the row was archived with.
    """
    try:
        members = read_sample(path, start, length)
        row = json.loads(members.pop("json", b"null"))
    except (TarError, ValueError, RecursionError) as error:
        raise RecordError(f"no catalogue row in its JSON: {error}") from error
    if not isinstance(row, dict):
        raise RecordError("no catalogue row in its JSON")
    if not members:
        raise RecordError("no image among its members")
    if row.get("sha256", digest := digest_of_members(members)) != digest:
        raise RecordError("the image has changed since it was archived: its SHA-256 is another one")
    return row, members


def read_record(path: Path, start: int, length: int, *, cutouts: Cutouts) -> dict:
    """One sample of an archive as the survey's columns (all but the row's key and cell).

    Raises:
        RecordError: the sample has no image or no catalogue row, or they cannot be used.
    """
    values, members = _kept(cutouts, path, start, length)
    return values | cutouts.read(values, members)


def read_records(objects: Sequence[tuple[Path, tuple[int, int]]], *, cutouts: Cutouts) -> Iterator[dict | RecordError]:
    """`read_record` of some samples, those that can be used together where the survey can (``Cutouts.read_together``)."""
    found: list[tuple[dict, dict[str, bytes]] | RecordError] = []
    for path, address in objects:
        try:
            found.append(_kept(cutouts, path, *address))
        except RecordError as error:
            found.append(error)
    good = [each for each in found if not isinstance(each, RecordError)]
    made = iter(cutouts.read_together(good) if cutouts.read_together else _one_by_one(cutouts, good))
    for each in found:
        if isinstance(each, RecordError):
            yield each
        else:
            values = next(made)
            yield values if isinstance(values, RecordError) else each[0] | values


def _one_by_one(cutouts: Cutouts, objects: Sequence[tuple[dict, dict[str, bytes]]]) -> Iterator[dict | RecordError]:
    for values, members in objects:
        try:
            yield cutouts.read(values, members)
        except RecordError as error:
            yield error


def _kept(cutouts: Cutouts, path: Path, start: int, length: int) -> tuple[dict, dict[str, bytes]]:
    """What was kept of an object as columns have it, and the files of its images."""
    kept, members = read_row(path, start, length)
    catalogue, position = cutouts.columns.columns, ("ra", "dec")
    values = {column.name: _value(kept.get(column.name), column, column.name in position) for column in catalogue}
    values |= {column.name: _value(kept.get(column.name), column, made=True) for column in cutouts.made}
    return values, members


def _value(value, column: Column, made: bool):
    """A value as it may stand in JSON; -1, NaN or nothing where the catalogue has none, unless it was ``made`` here."""
    kind = column.stored_dtype.kind
    if value is None and not made and kind != "b":
        return -1 if kind in "iu" else "" if kind == "S" else np.nan
    if kind in "bS":
        if type(value) is (bool if kind == "b" else str):
            return value
    elif type(value) is int or (type(value) is float and kind == "f"):
        with contextlib.suppress(OverflowError):
            return value if kind in "iu" else float(value)
    raise RecordError(f"{column.name} is {str(value)[:40]!r} in its JSON, not of type {column.dtype}")
