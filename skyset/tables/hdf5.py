"""Tables in HDF5 as RAIL and most simulations write them: one dataset of one dimension a column, all as long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import h5py
import pyarrow as pa

from skyset.errors import UserError
from skyset.files import opened_hdf5
from skyset.tables.catalog import Catalog, chosen_columns

#: What damage in an HDF5 file shows as.
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError)
#: As in tables' other formats: what Arrow has a plain type for.
_PLAIN = "biufSO"


def open_hdf5(path: str, columns: Sequence[str] | None) -> Catalog:
    """The columns at the file's root, or those of its only group of columns (RAIL's ``photometry``).

    Datasets of other shapes or kinds are left out with a note. Links and data that lead out of the file are refused.

    Args:
        path: the file.
        columns: those wanted, all by default.

    Raises:
        UserError: no table, columns that differ in length, several groups of columns, or damage.
    """
    with opened_hdf5(path) as file:
        try:
            where = _table(file, path)
            found = {name: _dataset(file[where], name, path) for name in file[where]}
            plain = {name: data for name, data in found.items() if data is not None and _is_column(data)}
            wanted = chosen_columns(list(plain), columns, path)
            lengths = {name: len(plain[name]) for name in wanted}
            schema = pa.schema([_field(name, plain[name]) for name in wanted])
            others = [(name, data) for name, data in found.items() if data is not None and name not in plain]
            notes = tuple(f"column {name} left out: it is {data.dtype}{list(data.shape or ())}" for name, data in others)
        except _DAMAGE as error:
            raise _damaged(path, error) from error
    if len(set(lengths.values())) > 1:
        longest, shortest = max(lengths, key=lengths.__getitem__), min(lengths, key=lengths.__getitem__)
        raise UserError(
            f"{path}: column {longest} has {lengths[longest]} rows, {shortest} has {lengths[shortest]}: this is no table"
        )
    count = next(iter(lengths.values()))
    return Catalog(path, schema, count, partial(_read, path, where, schema, count), notes)


def _damaged(path: str, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read as HDF5: {' '.join(str(error).split())[:200]}")


def _table(file: h5py.File, path: str) -> str:
    """The name of the group that holds the columns.

    Raises:
        UserError: there is none, or there are several.
    """
    groups = ["/", *(name for name in file if _is_hard(file, name) and isinstance(file[name], h5py.Group))]
    with_columns = [
        name for name in groups if any(_is_hard(file[name], each) and _is_column(file[name][each]) for each in file[name])
    ]
    if not with_columns:
        raise UserError(f"{path}: holds no table: no datasets of one dimension, neither at its root nor in a group of it")
    if len(with_columns) > 1:
        raise UserError(f"{path}: holds several tables ({', '.join(with_columns)}): keep one of them in a file of its own")
    return with_columns[0]


def _is_hard(group: h5py.Group, name: str) -> bool:
    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def _dataset(group: h5py.Group, name: str, path: str) -> h5py.Dataset | None:
    """A dataset that lies in this file; None for a group.

    Raises:
        UserError: it leads out of the file.
    """
    if not _is_hard(group, name):
        raise UserError(f"{path}: {name} is a soft or external link: refused")
    data = group[name]
    if not isinstance(data, h5py.Dataset):
        return None
    properties = data.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
        raise UserError(f"{path}: column {name} keeps its data in another file: refused")
    return data


def _is_column(data) -> bool:
    if not isinstance(data, h5py.Dataset) or data.ndim != 1:
        return False
    return data.dtype.kind in _PLAIN and (data.dtype.kind != "O" or h5py.check_string_dtype(data.dtype) is not None)


def _field(name: str, data: h5py.Dataset) -> pa.Field:
    kind = pa.string() if data.dtype.kind in "SO" else pa.from_numpy_dtype(data.dtype.newbyteorder("="))
    unit = data.attrs.get("unit", b"")
    text = unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
    return pa.field(name, kind, metadata={"unit": text} if text else None)


def _read(path: str, where: str, schema: pa.Schema, count: int, rows: int) -> Iterator[pa.RecordBatch]:
    with opened_hdf5(path) as file:
        for start in range(0, count, rows):
            try:
                values = [_array(file[where][name], slice(start, start + rows)) for name in schema.names]
            except _DAMAGE as error:
                raise _damaged(path, error) from error
            yield pa.record_batch(values, schema)


def _array(data: h5py.Dataset, rows: slice) -> pa.Array:
    if data.dtype.kind in "SO":
        return pa.array(data.asstr("utf-8", "replace")[rows], pa.string())
    values = data[rows]
    return pa.array(values.astype(values.dtype.newbyteorder("="), copy=False))
