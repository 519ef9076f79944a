"""Faults of whole files: what is done to a tree once it is written."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np

from skyset.testing.mmu.rows import Planted, Truth

#: The beginning of a FITS file of no data.
FITS = b"".join(
    line.ljust(80) for line in (b"SIMPLE  =                    T", b"BITPIX  =                    8", b"NAXIS   = 0", b"END")
).ljust(2880)


def damage(truth: Truth, faults: Collection[str]) -> None:
    """Plant those of the faults that are about files; what was done is added to the truth."""
    first, last = next(iter(truth.files)), next(reversed(truth.files))
    beside = (truth.folder / first).parent
    if "foreign_file" in faults:
        _put(truth, "foreign_file", truth.folder / "notes.txt", b"to do: ask about the masks\n", "text")
        _put(truth, "foreign_file", beside / "catalog.fits", FITS, "FITS")
    if "foreign_hdf5" in faults:
        path = beside / "covariance.hdf5"
        with h5py.File(path, "x") as file:
            file.create_dataset("matrix", data=np.eye(3))
        truth.planted.append(Planted("foreign_hdf5", _relative(truth, path), what="one matrix, no objects"))
    if "not_hdf5" in faults:
        _put(truth, "not_hdf5", beside / "002-of-002.hdf5", b"<html>503 Service Unavailable</html>\n", "an error page")
    if "truncated" in faults:
        _truncate(truth, last)


def _put(truth: Truth, kind: str, path: Path, content: bytes, what: str) -> None:
    path.write_bytes(content)
    truth.planted.append(Planted(kind, _relative(truth, path), what=what))


def _truncate(truth: Truth, name: str) -> None:
    path = truth.folder / name
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 3 // 5)
    gone = truth.files.pop(name)
    truth.splits.pop(name)
    kept = {object_id for ids in truth.files.values() for object_id in ids}
    for object_id in set(gone) - kept:
        truth.rows.pop(object_id, None)
    truth.planted.append(Planted("truncated", name, what=f"{len(gone)} rows are lost"))


def _relative(truth: Truth, path: Path) -> str:
    return path.relative_to(truth.folder).as_posix()
