"""Other people's HDF5 files read as partitions: datasets as they are stored, and a survey's columns made of them.

A file has one dataset a key, row = axis 0, and keys of its own dtypes and shapes. `Form` says which of them a survey's
columns are made of. A column that is stored just as it is declared (the pixels) is read like one of ours, at its offset.
The others are small, and made anew at each read: they are best read in long runs of rows (``skyset.loading.runs``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skyset.errors import PartitionError, RecordError
from skyset.partitions.partition import Partition, decoded, stored_columns
from skyset.survey import Column, fitting


@dataclass(frozen=True)
class Form:
    """How files of somebody else's hold a survey's columns.

    Args:
        name: of the form.
        needs: of each column that can be there, the keys that it is made of. A column may be made of one key that is stored
            just as it is declared: then its bytes are handed out as they are.
        convert: makes columns of a slab: pure and importable, from arrays by key (rows, *shape), as they are stored, and the
            names of the columns wanted, to arrays by name. They may have other dtypes than declared, where values fit.
        check: looks at what is stored, by key, before any row is read; raises RecordError where it cannot be used.
        plain: columns that must be stored as they are declared: in another dtype or shape they are refused.
        image: the column of images (planes, H, W) that a row needs, or "".
    """

    name: str
    needs: Mapping[str, tuple[str, ...]]
    convert: Callable[[Mapping[str, np.ndarray], Sequence[str]], Mapping[str, np.ndarray]]
    check: Callable[[Mapping[str, Column]], None] = field(default=lambda stored: None)
    plain: tuple[str, ...] = ()
    image: str = ""

    def keys(self, names: Sequence[str]) -> list[str]:
        """Those that these columns are made of."""
        return list(dict.fromkeys(key for name in names for key in self.needs.get(name, ())))

    def available(self, stored: Mapping[str, Column]) -> list[str]:
        """The columns that can be made of what is stored."""
        return [name for name, keys in self.needs.items() if all(key in stored for key in keys)]


@dataclass(frozen=True)
class Lying:
    """Published files that lie in a folder.

    Args:
        files: by split.
        rows: by split.
        columns: names of the survey's columns that can be made of all of them.
        opens: opens one, as ``AdoptedFile(path, columns, rows, bytes, sha256)`` does.
    """

    files: Mapping[str, Path]
    rows: Mapping[str, int]
    columns: Sequence[str]
    opens: Callable


def stored_in(path: str | Path, form: Form) -> dict[str, Column]:
    """The keys of a form that a file has, as they are stored.

    Raises:
        PartitionError: the file cannot be read, is cut short, or what it has cannot be used.
    """
    try:
        stored = stored_columns(path, form.keys(list(form.needs)))
        form.check(stored)
    except RecordError as error:
        raise PartitionError(f"{path}: {error}") from error
    except PartitionError as error:
        if "truncated file" in str(error):
            size = Path(path).stat().st_size
            raise PartitionError(f"{path}: is cut short, {size:,} bytes are there: download it again ({error})") from error
        raise
    return stored


#: Why a row without an image is none.
NO_IMAGE = "the image of a band has no pixel that is a number, or is 0 everywhere"


def usable_images(images: np.ndarray) -> np.ndarray:
    """Which rows have an image (rows, planes, H, W) with a number other than 0 in every plane; most are seen at a glance."""
    planes = images.reshape(*images.shape[:2], -1)
    middle = planes[:, :, planes.shape[2] // 2]
    good = (np.isfinite(middle) & (middle != 0)).all(axis=1)
    for row in np.flatnonzero(~good):
        good[row] = (np.isfinite(planes[row]) & (planes[row] != 0)).any(axis=1).all()
    return good


class AdoptedFile:
    """A file of somebody else's, as ``PieceReader`` reads partitions.

    Args:
        path: local path.
        columns: the survey's that are wanted.
        trusted_rows, trusted_bytes: what was found when the folder was looked at.
        sha256: there is none.
        form: how the file holds them.
        checked: reading rows whose image is none (see ``usable_images``) raises PartitionError that names them.

    Raises:
        PartitionError: as ``Partition`` does; a column cannot be made of what the file has.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[Column],
        trusted_rows: int | None = None,
        trusted_bytes: int | None = None,
        sha256: str | None = None,
        *,
        form: Form,
        checked: bool = False,
    ):
        self._image = form.image if checked else ""
        self.path, self.columns, self._form = path, {column.name: column for column in columns}, form
        stored = _stored(path, form, form.keys(list(self.columns)))
        for name in self.columns:
            if name not in form.needs or any(key not in stored for key in form.needs[name]):
                raise PartitionError(f"{path}: column {name} cannot be made of what is there")
        self._direct = {name: form.needs[name][0] for name in columns_as_stored(self.columns, stored, form)}
        if others := [name for name in form.plain if name in self.columns and name not in self._direct]:
            there = stored[form.needs[others[0]][0]]
            raise PartitionError(f"{path}: {others[0]} is {_shown(there)}, not {_shown(self.columns[others[0]])}")
        self._file = Partition(path, tuple(stored.values()), trusted_rows, trusted_bytes, whole_rows=False)
        self._stored = stored
        self.rows = self._file.rows

    def read_columns(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        """Rows ``start:stop`` of several columns, each into its array (rows, *shape); PartitionError as ``Partition``."""
        direct = {self._direct[name]: out for name, out in outs.items() if name in self._direct}
        small = [name for name in outs if name not in self._direct]
        if direct:
            self._file.read_columns(direct, start, stop)
        if self._image in direct and not (good := usable_images(direct[self._image])).all():
            bad = ", ".join(map(str, np.flatnonzero(~good)[:10] + start))
            raise PartitionError(f"{self.path}: row {bad}: {NO_IMAGE}")
        if small:
            values = self._converted(small, start, stop)
            for name in small:
                outs[name][...] = values[name]

    def read_runs(self, runs: Sequence[tuple[Mapping[str, np.ndarray], int, int]]) -> None:
        """Several runs of rows, (outs, start, stop); PartitionError as ``Partition``."""
        for run in runs:
            self.read_columns(*run)

    @property
    def stamp(self) -> tuple:
        """Of the file: another one once somebody has written to it."""
        return self._file.stamp

    def _converted(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Columns of some rows, in their own dtypes; text in as many bytes as it takes."""
        keys = self._form.keys(names)
        raw = {key: np.empty((stop - start, *self._stored[key].shape), self._stored[key].dtype) for key in keys}
        self._file.read_columns(raw, start, stop)
        try:
            made = self._form.convert(raw, names)
            return {name: _as_declared(self.columns[name], made[name]) for name in names}
        except RecordError as error:
            if stop - start > 1:  # name the first row that is to blame
                half = (start + stop) // 2
                self._converted(names, start, half)
                self._converted(names, half, stop)
            raise PartitionError(f"{self.path}: row {start}: {error}") from error

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows ``start:stop`` of a column, (rows, *shape)."""
        column, stop = self.columns[name], self.rows if stop is None else stop
        out = np.empty((stop - start, *column.shape), column.dtype)
        self.read_columns({name: out}, start, stop)
        return out

    def text(self, name: str, start: int = 0, stop: int | None = None) -> list[str]:
        """Rows of a text column as Python strings."""
        return decoded(self.read(name, start, stop))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> AdoptedFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()


#: What is stored of a form's keys in files that were opened, by path and keys; a file that changed has another stamp.
_known: dict[tuple, dict[str, Column]] = {}


def _stored(path: str | Path, form: Form, keys: Sequence[str]) -> dict[str, Column]:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise PartitionError(f"{path}: {error.strerror}") from error
    stamp = str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, form.name
    if stamp not in _known:
        if len(_known) > 1000:
            _known.clear()
        _known[stamp] = stored_in(path, form)
    return {key: _known[stamp][key] for key in keys if key in _known[stamp]}


def columns_as_stored(columns: Mapping[str, Column], stored: Mapping[str, Column], form: Form) -> list[str]:
    """Names of the columns whose bytes are in the file as they are declared."""
    return [
        name
        for name, column in columns.items()
        if form.needs.get(name) == (name,)
        and column.shape
        and stored[name].stored_dtype == column.stored_dtype
        and stored[name].shape == column.shape
    ]


def _as_declared(column: Column, values: np.ndarray) -> np.ndarray:
    if column.is_text and values.dtype.kind == "S" and values.dtype.itemsize <= column.stored_dtype.itemsize:
        return values  # narrower: it is widened where it is handed out
    return fitting(column, values)


def _shown(column: Column) -> str:
    return f"{column.stored_dtype}{('rows', *column.shape)}".replace("'", "")


def equal_planes(path: str | Path, key: Column, rows: Sequence[int]) -> list[int]:
    """Rows of these whose planes all equal the first one, of images (planes, H, W) that are not blank.

    Args:
        path: the file.
        key: the dataset of images, as it is stored.
        rows: numbers of those to look at.
    """
    same = []
    with Partition(path, [key], whole_rows=False) as file:
        for row in rows:
            (image,) = file.read(key.name, row, row + 1)
            if np.any(image[0]) and all(np.array_equal(plane, image[0], equal_nan=True) for plane in image[1:]):
                same.append(row)
    return same


def warn_of_equal_planes(path: str | Path, key: Column, bands: Sequence[str], rows: Sequence[int]) -> None:
    """Warn, naming the file and the rows, where all bands of the sampled images are alike."""
    if same := equal_planes(path, key, rows):
        warnings.warn(
            f"{path}: {', '.join(bands[1:])} are the {bands[0]} image again in {len(same)} of {len(rows)} rows looked at "
            f"({', '.join(map(str, same))}): a known fault of one version of these files",
            stacklevel=2,
        )
