"""Matched rows as partitions of their own, pixels included: ``skyset crossmatch --partitions DIR --images``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyset.building.options import Options
from skyset.building.whole_files import Whole, build_slabs
from skyset.errors import UserError
from skyset.loading import registry
from skyset.loading.arrow import needed_columns
from skyset.loading.matched import Matched, Side
from skyset.loading.matched_reader import MatchedReader
from skyset.noted import notes_of
from skyset.partitions.layout import MAX_FILE_BYTES, SLAB_BYTES, slabs
from skyset.partitions.manifest import Manifest
from skyset.progress import progress_bar
from skyset.sky import healpix_cell
from skyset.survey import Column, Survey, plain_features

if TYPE_CHECKING:
    from skyset.block_cache import BlockCache
    from skyset.loading.matched_rows import MatchedRows
    from skyset.loading.stream import SurveyStream

#: The survey that they are, and its columns that are of no side.
SURVEY, OWN = "matched", ("object_id", "ra", "dec", "healpix")
#: Matches whose positions are looked at together.
_POSITIONS = 1 << 20
#: Of a name that is a number.
_DIGITS = 20


def to_partitions(
    stream: SurveyStream,
    folder: str | Path,
    *,
    compression: str = "none",
    overwrite: bool = False,
    command: Sequence[str] = (),
) -> Manifest:
    """Write the rows of a match as partitions, with the columns of all sides, pixels included.

    They load as ``skyset.load(folder)``, and ``skyset info``, ``verify``, ``show``, ``push`` and ``hats`` take them. Memory
    is that of the matches and of one slab of rows; what was interrupted goes on where it was, with the same call.

    Args:
        stream: what ``skyset.crossmatch`` gave, all of it or ``select_columns``, ``take`` and ``skip`` of it.
        folder: of the partitions: new, empty, or one that such rows were written to.
        compression: of the pixels, as for ``skyset build``.
        overwrite: replace what another match left there.
        command: what the manifest says made it.

    Returns:
        The manifest that was written.

    Raises:
        UserError: it is another kind of stream, rows lack a match (``how="left"``), a side's file cannot be read, or the
            folder cannot be used. What was written stays for the next attempt.
    """
    from skyset.loading.matched_rows import MatchedRows

    rows = getattr(stream, "_ex_iterable", None)
    if not isinstance(rows, MatchedRows):
        raise UserError("what is written as partitions is a match, skyset.crossmatch(...), with columns selected or not")
    return _Writer.of(rows).write(Options(Path(folder), compression=compression, overwrite=overwrite), command)


@dataclass(frozen=True)
class _Writer:
    """What is written.

    Args:
        matched: the sides with the columns that are wanted, as they are stored.
        survey: the declaration of the rows that are written.
        numbers: int64 (rows,), of the matches.
        cache: keeps on the disk what is read from afar.
    """

    matched: Matched
    survey: Survey
    numbers: np.ndarray
    cache: BlockCache | None

    @classmethod
    def of(cls, rows: MatchedRows) -> _Writer:
        matched = rows.matched
        if matched.missing is not None:
            raise UserError('rows without a match have no images to be written: match with how="inner" or "nearest"')
        if rows.images or rows.casts or any(name != source for name, source in rows._names.items()):
            raise UserError("columns are written as the surveys have them, neither cast nor renamed")
        columns = needed_columns(matched.survey, list(rows._names))
        numbers = [np.zeros(0, np.int64), *(np.arange(piece.start, piece.stop) for piece in rows.pieces)]
        survey = _declared(matched, list(rows._names), columns)
        return cls(_as_stored(matched, columns), survey, np.sort(np.concatenate(numbers)), rows.cache)

    def write(self, options: Options, command: Sequence[str]) -> Manifest:
        if not len(self.numbers):
            raise UserError("there are no matches to be written")
        groups = self._groups()
        own = {whole.name: numbers for whole, numbers in groups}
        keys = [f"{side.name}.{side.survey.key}" for side in self.matched.sides if _has_key(side)]
        names = {*self._position, *keys, *(column.name for column in self.survey.columns if column.name not in OWN)}
        reader = MatchedReader(self.matched, names, cache=self.cache)
        with reader:
            return build_slabs(
                self.survey,
                [whole for whole, _ in groups],
                lambda whole: (len(own[whole.name]), self._slabs(reader, own[whole.name], whole.healpix)),
                options,
                list(command),
                sources=[side.source for side in self.matched.sides],
                notes=notes_of(self.survey),
                progress=_shown,
            )

    @property
    def _position(self) -> list[str]:
        """The columns of positions of the first side; a catalogue's file has them in memory."""
        first = self.matched.sides[0]
        return [f"{first.name}.{name}" for name in first.position] if first.places is None else []

    def _positions(self, numbers: np.ndarray, raw: Mapping) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination of the first side's objects, degrees."""
        places = self.matched.sides[0].places
        if places is None:
            ra, dec = (np.asarray(raw[name], np.float64) for name in self._position)
        else:
            ra, dec = (each[self.matched.rows[0][numbers]] for each in places)
        return np.mod(ra, 360.0), dec

    def _cells(self) -> np.ndarray:
        """In which each match lies."""
        cells = np.empty(len(self.numbers), np.int64)
        reader = MatchedReader(self.matched, self._position, cache=self.cache)
        with reader:
            for start, stop in slabs(len(self.numbers), 1, slab_bytes=_POSITIONS):
                numbers = self.numbers[start:stop]
                raw = reader.stored(numbers) if self._position else {}
                cells[start:stop] = healpix_cell(*self._positions(numbers, raw))
        return cells

    def _groups(self) -> list[tuple[Whole, np.ndarray]]:
        """The files to be, each with the numbers of its matches."""
        cells, about = self._cells(), self._about()
        order = np.argsort(cells, kind="stable")
        size = max(1, MAX_FILE_BYTES // self.survey.row_bytes)
        ends = np.flatnonzero(np.append(np.diff(cells[order]) != 0, True)) + 1
        found = []
        for start, stop in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            for first in range(start, stop, size):
                numbers = self.numbers[order[first : min(first + size, stop)]]
                digest = hashlib.sha256(about + np.ascontiguousarray(self.matched.rows[:, numbers]).tobytes())
                cell, name = int(cells[order[first]]), f"{first - start:015d}"
                found.append((Whole(f"{cell} {name}", "train", cell, digest.hexdigest()[:16]), numbers))
        return found

    def _about(self) -> bytes:
        """What rows are made of besides their numbers: the columns, and the sides' files."""
        told = [repr(self.survey.columns)]
        for side in self.matched.sides:
            for piece in side.files:
                version = piece.digest or self.matched.stamps.get(piece.path)
                told.append(f"{'/'.join(piece.path.rsplit('/', 2)[1:])} {version}")
            for name, values in (side.values or {}).items():
                told.append(f"{name} {hashlib.sha256(np.ascontiguousarray(values)).hexdigest()}")
        return "\n".join(told).encode()

    def _slabs(self, reader: MatchedReader, numbers: np.ndarray, cell: int) -> Iterator[Mapping]:
        for start, stop in slabs(len(numbers), self.survey.row_bytes, slab_bytes=SLAB_BYTES):
            some = numbers[start:stop]
            raw = reader.stored(some)
            ra, dec = self._positions(some, raw)
            own = {"object_id": self._names(some, raw), "ra": ra, "dec": dec, "healpix": np.full(len(some), cell)}
            yield {c.name: own[c.name] if c.name in own else raw[c.name] for c in self.survey.columns}

    def _names(self, numbers: np.ndarray, raw: Mapping) -> np.ndarray:
        """The names of the sides' objects with a | between."""
        parts = [_names(side, rows[numbers], raw) for side, rows in zip(self.matched.sides, self.matched.rows, strict=True)]
        joined = ["|".join(each).encode("ascii", "replace") for each in zip(*parts, strict=True)]
        return np.array(joined, self.survey.column(self.survey.key).stored_dtype)


def _names(side: Side, rows: np.ndarray, raw: Mapping) -> list[str]:
    """The names of a side's objects; ``#`` and the row's number where no column is known to tell all from each other."""
    if not _has_key(side):
        return [f"#{row}" for row in (rows if side.numbers is None else side.numbers[rows]).tolist()]
    values = raw[f"{side.name}.{side.survey.key}"].tolist()
    return [each.decode("ascii", "replace") if isinstance(each, bytes) else str(each) for each in values]


def _has_key(side: Side) -> bool:
    """Whether a column names a side's objects, each another way: of our partitions, whose builds see to it."""
    column = side.survey.by_name.get(side.survey.key)
    ours = side.values is None and not getattr(side.survey.opens, "fill", False)
    return ours and column is not None and not column.shape and column.stored_dtype.kind in "Siu"


def _shown(paths: Sequence[str]) -> Iterator[str]:
    with progress_bar(total=len(paths), desc="matched rows", unit="file", leave=False) as bar:
        for path in paths:
            yield path
            bar.update(1)


def _as_stored(matched: Matched, columns: Sequence[Column]) -> Matched:
    """The same matches, with columns as they are stored for features: those that are wanted, positions and names."""
    wanted, sides = {column.name for column in columns}, []
    for side in matched.sides:
        always = (*side.position, side.survey.key)
        kept = tuple(c for c in side.survey.columns if f"{side.name}.{c.name}" in wanted or c.name in always)
        survey = replace(side.survey, columns=kept, features=plain_features(kept, {}, ()), image_axes={}, trims=())
        sides.append(replace(side, survey=survey))
    return replace(matched, sides=tuple(sides))


def _declared(matched: Matched, names: Sequence[str], columns: Sequence[Column]) -> Survey:
    """The declaration of the rows that are written: these features of the sides, and these columns."""
    every, survey = matched.survey, registry.survey(SURVEY)
    dtype = f"S{sum(_width(side) + 1 for side in matched.sides) - 1}"
    own = tuple(replace(column, dtype=dtype) if column.name == survey.key else column for column in survey.columns)
    axes = {name: axis for name, axis in every.image_axes.items() if any(f"{name}.".startswith(f"{n}.") for n in names)}
    return replace(
        survey,
        title=every.title,
        homepage=every.homepage,
        citation=every.citation,
        license=every.license or survey.license,
        columns=(*own, *columns),
        features=(*plain_features(own, {}, ()), *(feature for feature in every.features if feature.name in names)),
        image_axes=axes,
        trims=tuple(filter(None, (trim.within({column.name for column in columns}) for trim in every.trims))),
    )


def _width(side: Side) -> int:
    """Characters of a name."""
    if not _has_key(side):
        return _DIGITS + 1
    column = side.survey.column(side.survey.key)
    return column.stored_dtype.itemsize if column.is_text else _DIGITS
