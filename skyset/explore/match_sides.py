"""What may be matched: a survey by its name, a folder or URL of partitions, a catalogue's file; each as a ``Side``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import UserError
from skyset.explore.catalogue import in_degrees, is_folder, positions_in, unit_of, with_unit
from skyset.loading import registry
from skyset.loading.found import Found, position_in
from skyset.loading.matched import Side
from skyset.loading.reader import Piece
from skyset.messages import say
from skyset.partitions.manifest import FileEntry
from skyset.survey import Column, Survey, plain_features
from skyset.tables.match import is_text
from skyset.tables.motion import Motion

_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


def is_catalogue(source: str) -> bool:
    """Whether this is a catalogue's file, rather than partitions or a survey's name."""
    return not registry.is_known(source) and not is_folder(source)


def names_of(sources: Sequence[str], found: Sequence[Found | None], wanted: Sequence[str] | None) -> list[str]:
    """What the columns of each side are named by: the surveys' names, the files' without their endings.

    Args:
        sources: as they were given.
        found: what ``opened`` gave of each; None of catalogues' files.
        wanted: the names that are asked for.

    Raises:
        UserError: two have the same, or one that is asked for cannot be a name.
    """
    if wanted is None:
        names = [_name_of(source, each) for source, each in zip(sources, found, strict=True)]
        advice = f"; give each a name: names={tuple('abcdefgh'[: len(names)])}"
    else:
        names, advice = [str(name) for name in wanted], ""
        if len(names) != len(sources):
            raise UserError(f"{len(sources)} surveys and {len(names)} names")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two surveys would be called {twice[0]}: their columns could not be told from each other{advice}")
    for name in names:
        if not _NAME.fullmatch(name) or name == "separation_arcsec":
            raise UserError(f"{name!r} cannot be a side's name: letters, digits and _, a letter first")
    return names


def _name_of(source: str, found: Found | None) -> str:
    name = re.sub(r"\W+", "_", found[2].survey if found else Path(source).name.split(".")[0], flags=re.ASCII).strip("_")
    return name if _NAME.fullmatch(name) else f"catalogue_{name}".rstrip("_")


def side_of_partitions(
    name: str, found: Found, split: str | None = None, verify: bool = False
) -> tuple[Side, list[FileEntry]]:
    """Partitions as one side, and what the manifest says of its files.

    Args:
        name: of the side.
        found: what ``opened`` gave.
        split: of its rows; all of them by default.
        verify: files' checksums are looked at as they are first read.

    Raises:
        UserError: there are none of this split.
    """
    root, survey, manifest = found
    entries = manifest.files if split is None else manifest.splits.get(split, [])
    if not entries:
        raise UserError(f"{root} has no rows of split {split!r}; it has {', '.join(manifest.splits) or 'none'}")
    files = [
        Piece(
            f"{root}/{entry.path}",
            0,
            entry.rows,
            entry.rows,
            entry.bytes or None,
            (verify and entry.sha256) or None,
            entry.sha256,
        )
        for entry in entries
    ]
    return Side(name, _with_lengths(survey, entries), tuple(files), position=position_in(found), source=root), list(entries)


def _with_lengths(survey: Survey, entries: Sequence[FileEntry]) -> Survey:
    """With what a row of a ragged column takes on the average, by the files' sizes."""
    ragged = [column.name for column in survey.columns if column.is_ragged]
    if not ragged or not all(entry.bytes for entry in entries):
        return survey
    rest = sum(column.row_bytes for column in survey.columns if not column.is_ragged)
    mean = sum(entry.bytes for entry in entries) // max(1, sum(entry.rows for entry in entries)) - rest
    size = min(max(1, mean // len(ragged)), 64 << 20)
    columns = tuple(replace(c, typical_bytes=size) if c.name in ragged else c for c in survey.columns)
    return replace(survey, columns=columns)


class Catalogue:
    """A catalogue's file: its positions, and later those of its rows that are wanted.

    Args:
        path: what ``skyset.tables.open.open_catalog`` reads.
        ra, dec: the columns, ``"RAJ2000"`` or, with their unit, ``"RAJ2000:hour"``; by default the first of the usual names.

    Attributes:
        ra, dec: float64 (rows,), degrees, of the rows that have a position.
    """

    def __init__(self, path: str, ra: str = "", dec: str = ""):
        from skyset.tables.open import open_catalog

        self.path = path
        (ra, ra_unit), (dec, dec_unit) = with_unit(ra), with_unit(dec)
        columns = positions_in(path, ra, dec)
        table = open_catalog(path, list(columns)).table()
        for name, unit in zip(columns, (ra_unit, dec_unit), strict=True):
            table = in_degrees(table, name, path, unit)
        values = [table[name].to_numpy() for name in columns]
        good = np.isfinite(values[0]) & (np.abs(values[1]) <= 90)
        self.ra, self.dec = self._at = values[0][good], values[1][good]
        self._rows = np.flatnonzero(good)  # in the file
        if len(self._rows) < len(good):
            say(f"{path}: {len(good) - len(self._rows):,} objects without a position are left out")

    def move(self, motion: Motion) -> None:
        """Take the positions to another epoch."""
        from skyset.tables.open import open_catalog

        table = open_catalog(self.path, motion.names).table()
        values = {name: table[name].to_numpy()[self._rows] for name in motion.names}
        self.ra, self.dec = motion.applied(self.ra, self.dec, values)

    def side(self, name: str, rows: np.ndarray) -> Side:
        """The file as a side of these of its rows, sorted numbers of those with a position.

        Missing values are as partitions have them: NaN, -1 (0 where there is no sign), empty text.

        Raises:
            UserError: the file was changed since its positions were read.
        """
        from skyset.tables.open import open_catalog

        catalog, wanted = open_catalog(self.path), self._rows[rows]
        if catalog.rows <= (wanted[-1] if len(wanted) else -1):
            raise UserError(f"{self.path}: was changed while it was being matched")
        batches, first = [], 0
        for batch in catalog.batches():
            low, high = np.searchsorted(wanted, [first, first + batch.num_rows])
            if low < high:
                batches.append(batch.take(pa.array(wanted[low:high] - first)))
            first += batch.num_rows
        table = pa.Table.from_batches(batches, catalog.schema).combine_chunks()
        names = _storable(table.schema.names, self.path)
        found = {names[field.name]: (field, _stored(table[field.name])) for field in table.schema}
        if odd := [each for each, (_, values) in found.items() if values is None]:
            say(f"{self.path}: left out, as no numbers or text: {', '.join(odd)}")
        columns, values = [], {}
        for each, (field, array) in found.items():
            if array is not None:
                columns.append(_column(each, array, unit_of(field), self.path))
                values[each] = array
        survey = Survey(
            name, Path(self.path).name, "", "", "", "", tuple(columns), plain_features(columns, {}, ()), columns[0].name
        )
        places = self._at[0][rows], self._at[1][rows]
        return Side(name, survey, values=values, places=places, numbers=wanted, source=self.path)


def _storable(names: Sequence[str], path: str) -> dict[str, str]:
    """What columns are called where partitions could not have their names: ``[Fe/H]`` becomes ``[Fe_H]``."""
    new: dict[str, str] = {}
    for name in names:
        other = name if name not in ("", ".", "..") else "_"
        other = re.sub(r"[^ -.0-~]", "_", other)
        while other != name and (other in names or other in new.values()):
            other += "_"
        new[name] = other
    if renamed := [f"{name!r} as {it}" for name, it in new.items() if name != it]:
        say(f"{path}: columns' names are ASCII without /, so there are {', '.join(renamed)}")
    return new


def _column(name: str, values: np.ndarray, unit: str, path: str) -> Column:
    try:
        return Column(name, values.dtype.str if values.dtype.kind == "S" else values.dtype.name, values.shape[1:], unit)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _stored(values: pa.ChunkedArray) -> np.ndarray | None:
    """A column of a table as partitions hold it, (rows, *shape); None where they cannot."""
    kind, rows = values.type, len(values)
    if pa.types.is_fixed_size_list(kind) and kind.list_size:
        flat = pc.list_flatten(pc.fill_null(values, pa.scalar([None] * kind.list_size, kind))) if values.null_count else None
        inner = _stored(pc.list_flatten(values) if flat is None else flat)
        return None if inner is None or inner.dtype.kind == "S" else inner.reshape(rows, kind.list_size, *inner.shape[1:])
    if pa.types.is_null(kind) or is_text(kind) or pa.types.is_dictionary(kind):
        text = ["" if each is None else each for each in values.to_pylist()]
        encoded = [each.encode() if isinstance(each, str) else each for each in text]
        return np.array(encoded, f"S{max(1, max(map(len, encoded), default=1))}")
    if pa.types.is_floating(kind):
        return np.array(values.cast(pa.float32() if kind == pa.float16() else kind).to_numpy())
    if pa.types.is_integer(kind):
        return np.array(values.fill_null(0 if pa.types.is_unsigned_integer(kind) else -1).to_numpy())
    return np.array(values.fill_null(False).to_numpy()) if pa.types.is_boolean(kind) else None
