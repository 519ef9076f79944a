"""A survey of a folder of images, one per object, and a table of their values: what ``skyset new`` starts from."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skyset.building.imagefiles import SUFFIXES as PICTURES
from skyset.building.imagefiles import Images, Place, files_below, pixels_of, read_image
from skyset.building.task import Found, Item, Rejected
from skyset.errors import RecordError, UserError
from skyset.raw import open_fits
from skyset.sky import check_position, healpix_cell
from skyset.survey import Column
from skyset.tables.join import Source, digest, join

FITS = (".fits", ".fit", ".fits.gz", ".fit.gz")
SUFFIXES = (*PICTURES, *FITS)
#: How long a class's name or an image's may be.
_TEXT = "S255"
#: What a row calls its image, among the values of a table.
_FILE = "image file"


class Names(NamedTuple):
    """What a table calls the columns that every survey has; ``image`` holds the names of the image files, or their stems."""

    object_id: str
    ra: str
    dec: str
    image: str


@dataclass(frozen=True)
class Table:
    """A file of values, a row an object.

    Args:
        path: the file, of any kind that ``skyset.tables.open.open_catalog`` knows.
        names: what it calls the columns that every survey has.
        columns: of the survey; those of values have the same name in the file.
        classes: names of the values 0, 1, ... of columns that are text in the file, by column.
    """

    path: Path
    names: Names
    columns: tuple[Column, ...]
    classes: Mapping[str, tuple[str, ...]]

    @property
    def source(self) -> Source:
        """What is read of the file."""
        own = {c.name: c.name for c in self.columns if c.name not in ("object_id", "ra", "dec", "healpix", "image")}
        return Source(self.path, self.names.object_id, {**own, "ra": self.names.ra, "dec": self.names.dec})

    def row(self, number: int) -> dict:
        """The values of one row, by column; a process reads the file once.

        Raises:
            RecordError: a class that is none.
        """
        values = {name: array[number] for name, array in _rows(self).values.items() if name != _FILE}
        return values | {name: _class(name, values[name].decode(), known) for name, known in self.classes.items()}

    def find(self, folder: Path, limit: int | None = None) -> Found:
        """The objects to build: the first ``limit`` rows with a position and an image in this folder, at any depth.

        Raises:
            UserError: folder or table cannot be read, or no object is left.
        """
        images, rows = images_in(folder), _rows(self)
        chosen: list[int] = []
        paths: list[Path] = []
        rejected = [Rejected(*each) for each in rows.rejected]
        problems = {stem: (file, reason) for stem, file, reason in images.problems}
        for number, key in enumerate(rows.keys):
            if len(chosen) == limit:
                break
            ra, dec = (float(rows.values[name][number]) for name in ("ra", "dec"))
            stem = image_stem(rows.values[_FILE][number].decode())
            file, reason = problems.get(stem, ("", f"there is no image {stem!r}"))
            try:
                check_position(ra, dec)
            except RecordError as error:
                reason = str(error)
            else:
                if stem in images.places:
                    chosen.append(number)
                    paths.append(images.places[stem].path)
                    continue
            rejected.append(Rejected(key, file, reason))
        if not chosen:
            raise UserError(f"nothing to build: none of {len(rows.keys)} rows of {self.path} has a position and an image")
        cells = healpix_cell(rows.values["ra"][chosen], rows.values["dec"][chosen])
        items = [
            Item(rows.keys[number], str(path.absolute()), int(cell), address=(number, 0), made_of=_trait(path))
            for number, path, cell in zip(chosen, paths, cells, strict=True)
        ]
        made_of = digest([self.source], {name: [*words] for name, words in self.classes.items()})
        return Found(items, rejected, sources=[str(folder), str(self.path)], made_of=made_of)


def images_in(folder: Path) -> Images:
    """The images of a tree by their stems: PNG, JPEG and FITS, whatever is in them.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    images = Images()
    for path in files_below(folder):
        if path.name.lower().endswith(SUFFIXES):
            images.add(path.name.removesuffix(".gz"), Place(path))
    return images


def image_stem(name: str) -> str:
    """``a`` of ``a``, ``photos/a.jpg`` and ``a.fits.gz``: ``J0004+02.5`` keeps its end, which is none of a file."""
    name = name.replace("\\", "/").rpartition("/")[2]
    return name[: len(name) - max((len(suffix) for suffix in SUFFIXES if name.lower().endswith(suffix)), default=0)]


def image_value(path: Path, column: Column) -> bytes | np.ndarray:
    """What goes into a column of images: PNG and JPEG as they are, of a FITS file the pixels of its first image.

    Args:
        path: the file.
        column: of bytes for the former, of pixels for the latter.

    Raises:
        RecordError: damaged, or something else.
    """
    if column.is_bytes:
        data, kind = read_image(Place(path))
        pixels_of(data, kind)  # none gets in that cannot be decoded
        return data
    return fits_image(path)


def fits_image(path: Path) -> np.ndarray:
    """The pixels of a FITS file's first image, in the machine's own byte order.

    Raises:
        RecordError: damaged, or there is none.
    """
    with open_fits(path) as hdus:
        pixels = next((hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None), None)
        if pixels is None:
            raise RecordError("there is no image in it")
        return np.asarray(pixels, pixels.dtype.newbyteorder("="))


def _class(name: str, value: str, known: Sequence[str]) -> int:
    """The number of a class; -1 where a table does not say."""
    if value and value not in known:
        raise RecordError(f"{name} is {value!r}, none of {', '.join(known)}")
    return known.index(value) if value else -1


def _trait(path: Path) -> str:
    """What changes with a file, without reading it."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _rows(table: Table):
    status = os.stat(table.path) if table.path.exists() else None
    return _read(table.source.path, table.names, table.columns, tuple(table.classes), status and status.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read(path: Path, names: Names, columns: tuple[Column, ...], classes: tuple[str, ...], _: int | None):
    """``skyset.tables.join.Joined`` of all rows; classes are text, flags are numbers that may be missing."""
    source = Table(path, names, columns, {}).source
    taken = {column.name: column for column in columns if column.name in source.columns}
    taken |= {name: replace(column, dtype="int8") for name, column in taken.items() if column.dtype == "bool"}
    taken |= {name: Column(name, _TEXT) for name in (*classes, _FILE)}
    return join([replace(source, columns={**source.columns, _FILE: names.image})], taken)
