"""The entries of an adopted dataset's manifest, and the objects of each, from what is noted of its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice

import numpy as np

from skyset.adopting.look import Look
from skyset.adopting.scan import Places
from skyset.errors import RecordError, UserError
from skyset.partitions.manifest import FileEntry, keys_digest
from skyset.partitions.partition import decoded
from skyset.partitions.tree.form import COLUMNS, OBJECTS, SCALED, TreeForm
from skyset.partitions.tree.structure import Unit
from skyset.partitions.tree.units import FILES_OF_ENTRY, cells_of, kept_values
from skyset.survey import Survey

_NEEDED = ("object_id", "ra", "dec")
#: Entries whose cells are computed together.
_AT_A_TIME = 1024
#: An entry, and the position of its first row, degrees.
_Made = tuple[FileEntry, tuple[float, float]]


class Entries:
    """Makes entries.

    Args:
        survey, form: of the dataset.
        places: of the tree.
        folder: of the dataset, from the tree on.
    """

    def __init__(self, survey: Survey, form: TreeForm, places: Places, folder: str) -> None:
        self.survey, self.form, self.places = survey, form, places
        self._before = f"{folder}/" if folder else ""
        self._factors = [
            float(source.argument) if source.how == SCALED else 1.0 for source in (form.sources["ra"], form.sources["dec"])
        ]
        self._columns = [survey.column(name) for name in _NEEDED]
        self._needed = TreeForm(form.tree, form.kind, {name: form.sources[name] for name in _NEEDED})

    def runs(self, looks: Iterable[Look]) -> Iterator[list[Look]]:
        """The files of each entry: one, or of objects up to 1,024 that follow each other in a folder and split."""
        good = (look for look in looks if look.rows and look.kind == self.form.kind)
        if self.form.kind != OBJECTS:
            yield from ([look] for look in good)
            return
        for _, some in groupby(good, key=lambda look: (look.file.path.rpartition("/")[0], self._split(look))):
            run: list[Look] = []
            for look in some:
                run.append(look)
                if len(run) == FILES_OF_ENTRY:
                    yield run
                    run = []
            if run:
                yield run

    def _split(self, look: Look) -> str:
        return self.places.of(self._before + look.file.path).split

    def entries(self, looks: Iterable[Look]) -> Iterator[FileEntry]:
        """The entries of some files, in their order.

        Raises:
            UserError: an id or a position does not fit its column.
        """
        made = (self._of_columns(run[0]) if self.form.kind == COLUMNS else self._of_objects(run) for run in self.runs(looks))
        while some := list(islice(made, _AT_A_TIME)):
            ra = np.array([first[0] for _, first in some])
            dec = np.array([first[1] for _, first in some])
            cells = cells_of(np.mod(ra, 360.0), np.clip(dec, -90.0, 90.0))
            for (entry, _), cell in zip(some, cells.tolist(), strict=True):
                yield replace(entry, healpix=cell)

    def _of_columns(self, look: Look) -> _Made:
        ra, dec = self._factors
        first = look.first[0] * ra, look.first[1] * dec
        bounds = wrapped_bounds(look.ra[0] * ra, look.ra[1] * ra), (look.dec[0] * dec, look.dec[1] * dec)
        return self._entry([look], look.keys, *bounds), first

    def _of_objects(self, run: Sequence[Look]) -> _Made:
        try:
            kept = kept_values(self._needed, self._columns, units_of(run))
        except RecordError as error:
            raise UserError(f"{self.form.tree}: {error}: mend the declaration, or the file") from error
        ra, dec = kept["ra"], kept["dec"]
        bounds = (float(ra.min()), float(ra.max())), (float(dec.min()), float(dec.max()))
        return self._entry(run, keys_digest(decoded(kept["object_id"])), *bounds), (float(ra[0]), float(dec[0]))

    def _entry(self, run: Sequence[Look], keys: str, ra: tuple[float, float], dec: tuple[float, float]) -> FileEntry:
        return FileEntry(
            path=run[0].file.path,
            split=self._split(run[0]),
            healpix=0,  # until the cells of many are computed at once
            rows=sum(look.rows for look in run),
            bytes=sum(look.file.bytes for look in run),
            sha256="",
            keys=keys,
            ra=ra,
            dec=dec,
        )


def wrapped_bounds(low: float, high: float) -> tuple[float, float]:
    """Bounds of right ascensions in degrees, where those below 0 are handed out as they are above."""
    if low >= 0:
        return low, high
    return (low + 360, high + 360) if high < 0 else (0.0, 360.0)


def units_of(run: Sequence[Look]) -> list[Unit]:
    """The objects of some files, in their order."""
    return [unit for look in run for unit in look.units]
