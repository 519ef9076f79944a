"""Writing files as other people publish them: one HDF5 dataset a key, contiguous, and a CSV of all but the pixels."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from skyset.errors import RecordError, UserError
from skyset.files import Temporary, put_in_place, replaced_by
from skyset.partitions.layout import PIXELS_FROM
from skyset.partitions.writer import Disk
from skyset.survey import Column
from skyset.tables.delimited_writer import write_csv
from skyset.values import as_stored

#: Rows of a CSV file that are made text at a time.
_CSV_ROWS = 16_384


def refuse_csv(path: Path) -> None:
    """UserError where the CSV of a file that is to be written is there without the file: it is not ours."""
    if os.path.lexists(path.with_suffix(".csv")) and not path.exists():
        raise UserError(f"{path.with_suffix('.csv')} is there without {path.name}, and is left: choose another folder")


class KeyedWriter:
    """Write one file of keys, slab by slab: pixels go to the disk as they come, all else is held until the end.

    The files appear under their names when all rows are there; until then they are temporary ones, which are removed when
    anything fails.

    Args:
        path: of the HDF5 file.
        keys: the datasets, their dtypes and shapes (see ``skyset.published.galaxiesml.keys``); text is stored as wide as its
            longest row.
        rows: how many will come.
        csv: write a CSV of the same name too, without pixels; a key of two columns has its second as ``<key>.1``.
        chunks: shape of HDF5 chunks of the pixels, True for what h5py guesses; None stores them in one piece.
    """

    def __init__(
        self, path: str | Path, keys: Sequence[Column], rows: int, csv: bool = False, chunks: tuple | bool | None = None
    ):
        self.path, self.keys, self.csv, self._chunks = Path(path), tuple(keys), csv, chunks
        self.rows, self._capacity = 0, rows
        self._pixels = [key for key in self.keys if key.row_bytes >= PIXELS_FROM]
        self._small = [key for key in self.keys if key.row_bytes < PIXELS_FROM]
        self._values = {key.name: np.zeros((rows, *key.shape), key.dtype) for key in self._small}

    def __enter__(self) -> KeyedWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path = replaced_by(self.path)
        self._temporary = Temporary(self.path)
        try:
            with contextlib.ExitStack() as on_error:
                self._disk = on_error.enter_context(Disk(self._temporary.path, "w+"))
                self._file = on_error.enter_context(h5py.File(self._disk, "w"))
                for key in self._pixels:
                    options = {} if self._chunks is None else {"chunks": self._chunks}
                    self._file.create_dataset(key.name, (self._capacity, *key.shape), key.dtype, **options)
                on_error.pop_all()
        except BaseException:
            self._temporary.close()
            raise
        return self

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add rows.

        Args:
            rows: arrays (rows, *shape) by key; numbers are cast, text may lack its last axis. Absent small keys are 0, or
                empty.

        Raises:
            UserError: more rows than were announced, pixels are missing, arrays of different lengths, or values that a key
                cannot hold.
        """
        counts = {name: len(values) for name, values in rows.items() if name in {key.name for key in self.keys}}
        if missing := [key.name for key in self._pixels if key.name not in rows]:
            raise UserError(f"{self.path}: rows without {', '.join(missing)}")
        if len(set(counts.values())) != 1:
            raise UserError(f"{self.path}: keys of {sorted(set(counts.values()))} rows")
        start, stop = self.rows, self.rows + next(iter(counts.values()))
        if stop > self._capacity:
            raise UserError(f"{self.path}: {stop} rows came, {self._capacity} were announced")
        try:
            for key in self._small:
                if key.name in rows:
                    values = as_stored(key.name, np.asarray(rows[key.name]), key.stored_dtype)
                    self._values[key.name][start:stop] = values.reshape(stop - start, *key.shape)
        except (RecordError, ValueError) as error:
            raise UserError(f"{self.path}: {error}") from error
        for key in self._pixels:
            self._file[key.name][start:stop] = np.ascontiguousarray(rows[key.name], key.dtype)
        self._disk.check()
        self.rows = stop

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            with contextlib.suppress(OSError):  # the error of a full disk, again
                self._close()
            self._temporary.close()

    def _finish(self) -> None:
        if self.rows < self._capacity:
            raise UserError(f"{self.path}: {self.rows} rows came, {self._capacity} were announced")
        for key in self._small:
            values = self._values[key.name]
            if key.is_text:
                width = max(1, int(np.char.str_len(values).max(initial=0)))
                values = values.astype(f"S{width}")
            self._file.create_dataset(key.name, data=values)
        self._close()
        if not self.csv:
            put_in_place(self._temporary.path, self.path)
            return
        with Temporary(self.path.with_suffix(".csv")) as table:
            write_csv(table, self._batches(), self._schema())
            refuse_csv(self.path)
            put_in_place(self._temporary.path, self.path)  # first: a CSV without it is somebody else's
            put_in_place(table, self.path.with_suffix(".csv"))

    def _close(self) -> None:
        self._file.close()
        self._disk.close()
        self._disk.check()

    def _cells(self, start: int, stop: int) -> Iterator[tuple[str, np.ndarray]]:
        """Columns of a CSV."""
        for key in self._small:
            values = self._values[key.name][start:stop].reshape(stop - start, max(1, *key.shape, 1))
            for place in range(values.shape[1]):
                yield f"{key.name}.{place}" if place else key.name, values[:, place]

    def _schema(self) -> pa.Schema:
        kinds = {"S": pa.string()}
        return pa.schema([(n, kinds.get(v.dtype.kind) or pa.from_numpy_dtype(v.dtype)) for n, v in self._cells(0, 0)])

    def _batches(self) -> Iterator[pa.RecordBatch]:
        schema = self._schema()
        for start in range(0, self.rows, _CSV_ROWS):
            stop = min(start + _CSV_ROWS, self.rows)
            arrays = [
                pa.array([v.decode("ascii", "replace") for v in values.tolist()], pa.string())
                if values.dtype.kind == "S"
                else values
                for _, values in self._cells(start, stop)
            ]
            yield pa.RecordBatch.from_arrays([pa.array(each) for each in arrays], schema=schema)
