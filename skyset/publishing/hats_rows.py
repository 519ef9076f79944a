"""The rows of one file of a HATS catalogue: out of partitions in the order of the sky, in the form that was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from datasets.features.features import _ArrayXD

from skyset.errors import UserError
from skyset.loading.arrow import arrow_table, features_of, needed_columns
from skyset.loading.reader import Piece, PieceReader, row_bytes
from skyset.partitions.manifest import FileEntry
from skyset.partitions.partition import Partition
from skyset.publishing.hats_groups import plain_array, plain_type, tables_in
from skyset.publishing.hats_plan import INDEX
from skyset.publishing.parquet import ROW_GROUP_BYTES, Written, write_parquet
from skyset.publishing.preview import pixels_of
from skyset.publishing.source import Source
from skyset.survey import Feature, Survey

#: How arrays are stored: as `datasets` has them (its extension of nested lists), as nested lists, or as Arrow's tensors.
IMAGES = ("array", "list", "tensor")
SPLIT = "split"
#: No file has so many: each is one piece.
WHOLE = 1 << 62
#: Of rows that are read at a time.
_BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Form:
    """What a catalogue's files are like: how arrays are stored, whether rows tell their split, how files are compressed."""

    images: str = "array"
    with_split: bool = False
    compression: str = "zstd"
    row_group_bytes: int = ROW_GROUP_BYTES

    def features(self, survey: Survey) -> datasets.Features:
        """The catalogue's: the index, those of the survey, and the split unless the survey has a column of that name."""
        named = features_of(survey)
        if INDEX in named:
            raise UserError(f"{survey.name} has a column {INDEX} of its own, which a catalogue adds")
        split = {SPLIT: datasets.Value("string")} if self.with_split and SPLIT not in named else {}
        return datasets.Features({INDEX: datasets.Value("int64"), **named, **split})

    def schema(self, survey: Survey) -> pa.Schema:
        """Of the files, with the features in its metadata, and units and meanings in those of its fields."""
        features = self.features(survey)
        fields = []
        for field in features.arrow_schema:
            kind = self._stored(field.type, features[field.name])
            fields.append(pa.field(field.name, kind, metadata=_described(survey).get(field.name)))
        return pa.schema(fields, metadata=features.arrow_schema.metadata)

    def _stored(self, kind: pa.DataType, feature) -> pa.DataType:
        if not isinstance(feature, _ArrayXD):
            return plain_type(kind)
        if self.images == "array":
            return kind
        if self.images == "list":
            return kind.storage_type
        return pa.fixed_shape_tensor(datasets.Value(feature.dtype).pa_type, feature.shape)

    def stored(self, column: pa.Array, feature) -> pa.Array:
        """A column in the form that the files have it in."""
        if not isinstance(feature, _ArrayXD):
            return plain_array(column)
        if self.images == "array":
            return column
        if self.images == "list":
            return column.storage
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(pixels_of(column, feature)))


def _described(survey: Survey) -> dict[str, dict[str, str]]:
    columns = {f.name: survey.column(f.source) for f in survey.features if isinstance(f, Feature)}
    texts = {name: {"unit": c.unit, "description": c.description} for name, c in columns.items()}
    return {name: {key: text for key, text in each.items() if text} for name, each in texts.items()}


@dataclass(frozen=True)
class Job:
    """A file to write.

    Args:
        path: its place.
        survey: the declaration of the rows.
        pieces: the partitions that have rows of it, whole.
        splits: of each of them.
        rows: int64 (n,), numbers of its rows among those of ``pieces`` one after the other, in the file's order.
        index: int64 (n,), their ``_healpix_29``.
        form: what the file is like.
    """

    path: Path
    survey: Survey
    pieces: list[Piece]
    splits: list[str]
    rows: np.ndarray
    index: np.ndarray
    form: Form


def write(job: Job) -> Written:
    """Write a file of a catalogue, a few rows at a time.

    Raises:
        PartitionError: a partition cannot be read.
        UserError: the file cannot be written.
    """
    return write_parquet(
        job.path,
        job.form.schema(job.survey),
        _batches(job),
        job.form.compression,
        job.form.row_group_bytes,
        sorted_by=INDEX,
    )


def _batches(job: Job) -> Iterator[pa.RecordBatch]:
    features, schema = features_of(job.survey), job.form.schema(job.survey)
    step = max(1, _BATCH_BYTES // max(1, row_bytes(needed_columns(job.survey, features), job.pieces)))
    ends = np.cumsum([len(piece) for piece in job.pieces])
    for start, table in zip(range(0, len(job.rows), step), _tables(job, features, step), strict=True):
        columns: dict[str, pa.Array] = {
            name: job.form.stored(table.column(name).chunk(0), features[name]) for name in features
        }
        columns[INDEX] = pa.array(job.index[start : start + step])
        if SPLIT in schema.names and SPLIT not in features:
            owners = np.searchsorted(ends, job.rows[start : start + step], side="right").tolist()
            columns[SPLIT] = pa.array([job.splits[n] for n in owners])
        yield pa.RecordBatch.from_arrays([columns[field.name] for field in schema], schema=schema)


def _tables(job: Job, features: datasets.Features, step: int) -> Iterator[pa.Table]:
    """The rows in their order, ``step`` at a time."""
    with PieceReader(job.survey, list(features)) as reader:
        if getattr(job.survey.opens, "in_groups", False):
            yield from _of_groups(job, features, reader, step)
            return
        window = reader.window(job.pieces)
        for start in range(0, len(job.rows), step):
            yield arrow_table(reader.read_rows(window, job.rows[start : start + step]), features)


def _of_groups(job: Job, features: datasets.Features, reader: PieceReader, step: int) -> Iterator[pa.Table]:
    """Those of files in which a row costs as much as those beside it: each part of a file is read once, and all rows of
    the job are held.
    """
    order = np.argsort(job.rows, kind="stable")
    ascending, held, firsts = job.rows[order], [], [0]
    for piece, first in _parts(job, step):
        low, high = np.searchsorted(ascending, [first, first + len(piece)]).tolist()
        if low < high:
            table = arrow_table(reader.read([piece]), features)
            held.append(table.take(pa.array(ascending[low:high] - first)).combine_chunks())
            firsts.append(high)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    for start in range(0, len(place), step):
        wanted = place[start : start + step]
        owner = np.searchsorted(firsts, wanted, side="right") - 1
        parts = [held[n].take(pa.array(wanted[owner == n] - firsts[n])) for n in np.unique(owner).tolist()]
        back = np.argsort(np.argsort(owner, kind="stable"), kind="stable")
        yield pa.concat_tables(parts).combine_chunks().take(pa.array(back)).combine_chunks()


def _parts(job: Job, step: int) -> Iterator[tuple[Piece, int]]:
    """A few rows of a file at a time, and the number of the first of them among those of all files."""
    first = 0
    for whole in job.pieces:
        for start in range(whole.start, whole.stop, step):
            yield replace(whole, start=start, stop=min(start + step, whole.stop)), first + start - whole.start
        first += len(whole)


def positions(source: Source, files: list[FileEntry], verify: bool) -> Mapping[str, np.ndarray]:
    """Where the rows of some files are, and how many bytes each has.

    Returns:
        ``ra`` and ``dec`` in degrees, float64 (rows,), NaN where a row of a tree has none; ``bytes``, int64 (rows,), before
        padding is left out; and by the name of each group of ``tables_in`` whether its columns are of equal lengths, bool
        (files,).

    Raises:
        PartitionError: a file is gone, damaged, or not what the manifest says.
        UserError: a row has no position on the sky.
    """
    groups = tables_in(source.survey)
    parts = [_positions(source, piece, groups) for piece in source.pieces(files, WHOLE, verify)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _positions(source: Source, piece: Piece, groups: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    ragged = [column for column in source.columns if column.is_ragged]
    fixed = sum(column.row_bytes for column in source.columns if not column.is_ragged)
    wanted = [*(source.survey.column(name) for name in ("ra", "dec")), *ragged]
    with (source.survey.opens or Partition)(piece.path, wanted, piece.rows, piece.bytes, piece.sha256) as file:
        ra, dec = (file.read(name).astype(np.float64) for name in ("ra", "dec"))
        lengths = {column.name: np.diff(file.ends(column.name)) for column in ragged}
    sizes = np.full(len(ra), fixed, np.int64)
    for column in ragged:
        sizes += lengths[column.name] * column.stored_dtype.itemsize
    there = (ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90)
    if source.manifest.is_adopted:  # what somebody else wrote without a position is left out
        there |= np.isnan(ra) | np.isnan(dec)
    bad = np.flatnonzero(~there)
    if len(bad):
        raise UserError(f"{piece.path}: row {bad[0]} has no position on the sky: ra {ra[bad[0]]}, dec {dec[bad[0]]}")
    steps = {
        column.name: lengths[column.name] // max(1, column.step_bytes // column.stored_dtype.itemsize) for column in ragged
    }
    return {"ra": ra, "dec": dec, "bytes": sizes} | {
        name: np.array([all(np.array_equal(steps[one], steps[other]) for one, other in pairwise(members))])
        for name, members in groups.items()
    }
