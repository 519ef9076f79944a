"""Rows into HDF5 files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from skyset.testing.mmu.layout import Layout, Storage
from skyset.testing.mmu.rows import LightCurve, Row, columns_of


def write_file(path: Path, layout: Layout, rows: Sequence[Row]) -> None:
    """Write one file; its folder is made.

    Args:
        path: of a file that is not there yet.
        layout: of the tree.
        rows: of the file; one, where a file is an object.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "x") as file:
        if layout.form == "columns":
            put_columns(file, datasets_of(rows, layout), layout.storage)
        elif layout.form == "objects":
            _put_object(file, rows[0], layout)
        else:
            _put_groups(file, rows)
    if layout.locks:
        path.with_name(path.name + ".lock").touch()


def datasets_of(rows: Sequence[Row], layout: Layout) -> dict[str, np.ndarray]:
    """Datasets of a file of columns, padded."""
    plain = [{name: value for name, value in row.items() if not isinstance(value, LightCurve)} for row in rows]
    columns = columns_of(plain, layout.pads)
    curves = [row["lightcurve"] for row in rows if "lightcurve" in row]
    if curves:
        longest = max(curve.longest for curve in curves)
        columns["lightcurve"] = np.stack(
            [np.stack([curve.padded(name, longest, 0.0) for name in curve.points], axis=1) for curve in curves]
        )
    return columns


def put_columns(file: h5py.File, columns: Mapping[str, np.ndarray], storage: Storage) -> None:
    """Write datasets."""
    for name, data in columns.items():
        options: dict[str, Any] = {}
        if data.dtype == object:
            options["dtype"] = h5py.vlen_dtype(np.dtype(data[0].dtype))
        elif data.dtype.kind == "S" and storage.encoding == "utf-8":
            data = _utf8(data)
        if storage.compression:
            options |= {"compression": storage.compression, "compression_opts": storage.level, "chunks": True}
            if storage.chunks:
                options["chunks"] = _chunks(data.shape, storage.chunks)
        if storage.resizable:
            options["maxshape"] = (None, *data.shape[1:])
        file.create_dataset(name, data=data, **options)


def _utf8(text: np.ndarray) -> np.ndarray:
    """Bytes marked as UTF-8 of that width, for HDF5."""
    return text.astype(h5py.string_dtype("utf-8", text.dtype.itemsize))


def _chunks(shape: tuple[int, ...], largest: tuple[int, ...]) -> tuple[int, ...]:
    """Of a table's one axis the last of `largest` counts, of more axes each its own."""
    if len(shape) == 1:
        return (min(largest[-1], shape[0]),)
    return tuple(min(size, most) for size, most in zip(shape, (*largest, *shape[len(largest) :]), strict=False))


def _put_object(file: h5py.File, row: Row, layout: Layout) -> None:
    for name, value in row.items():
        if isinstance(value, LightCurve):
            _put_curve(file, value, layout.pads)
        elif isinstance(value, bytes):
            file.create_dataset(name, data=np.bytes_(value))
        else:
            file.create_dataset(name, data=value)


def _put_curve(file: h5py.File, curve: LightCurve, pads: Mapping[str, Any]) -> None:
    if pads.get("bands") == "joined":
        file.create_dataset("bands", data=",".join(curve.bands))
    else:
        file.create_dataset("bands", data=_utf8(np.array([name.encode() for name in curve.bands])))
    for name in curve.points:
        file.create_dataset(name, data=curve.padded(name, curve.longest, pads.get(name, 0.0)))


def _put_groups(file: h5py.File, rows: Sequence[Row]) -> None:
    file.attrs.update({"project": "SDSS", "survey": "MaNGA", "release": "DR17"})
    for row in rows:
        group = file.create_group(row["object_id"], track_order=True)
        for name, value in row.items():
            group.create_dataset(name, data=value)
            if not isinstance(value, np.ndarray):
                group.attrs[name] = value
