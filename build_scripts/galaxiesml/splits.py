"""Which split a galaxy of GalaxiesML is in: 5/7, 1/7, 1/7 by its id, the same for all sizes, or as published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset import splits
from skyset.errors import UserError
from skyset.files import opened_hdf5
from skyset.messages import say
from skyset.tables.catalog import check_ids
from skyset.tables.match import match_positions
from skyset.tables.open import open_catalog

SHARES, SEED = (5 / 7, 1 / 7, 1 / 7), "galaxiesml"
#: Arcsec within which HSC's team takes two positions for one object.
RADIUS = 0.5
NAMES = {"train": "train", "training": "train", "validation": "validation", "val": "validation", "valid": "validation"}
NAMES |= {"test": "test", "testing": "test"}
_PUBLISHED = re.compile(r"(?:^|[_-])(training|validation|testing)(?:[_.-].*)?\.(csv|hdf5|h5)$")


def split_of(listed: Path | Iterable[pa.RecordBatch], published: Path | None = None) -> dict[str, str]:
    """The split of each row of a filtered list, by object_id as text, in the list's order.

    Rows with the same object_id or specz_name, or within 0.5 arcsec of each other, are on one side, that of the smallest
    object_id among them.

    Args:
        listed: a catalogue with object_id, specz_name, ra and dec, or its rows.
        published: a table with the columns object_id and split (CSV, FITS, Parquet, SQLite, HDF5), or a folder of the
            published files; what it names is in the split that it says, and what it does not goes with its duplicates or by
            the rule.

    Raises:
        UserError: ``published`` cannot be used, or names none of the rows.
    """
    needed = ["object_id", "specz_name", "ra", "dec"]
    batches = open_catalog(listed, needed).batches() if isinstance(listed, Path) else listed
    table = pa.Table.from_batches([batch.select(needed) for batch in batches])
    ids = table["object_id"].to_numpy()
    groups = _groups(ids, table["specz_name"], *(table[name].to_numpy() for name in ("ra", "dec")))
    smallest = np.full(len(ids), np.iinfo(np.int64).max)
    np.minimum.at(smallest, groups, ids)
    known = read_splits(published) if published else {}
    sides: dict[int, str] = {}
    for number, group in zip(ids.tolist(), groups.tolist(), strict=True):
        if number in known:
            sides.setdefault(group, known[number])
    found = {}
    for number, group in zip(ids.tolist(), groups.tolist(), strict=True):
        side = known.get(number) or sides.get(group)
        found[str(number)] = side or splits.split_of(str(smallest[group]), SEED, SHARES)
    if published:
        if not (here := len(known.keys() & set(ids.tolist()))) and len(ids):
            raise UserError(f"{published}: none of its {len(known):,} objects is among the {len(ids):,} that are built")
        say(f"{here:,} of {len(known):,} objects of {published} are here; {len(found) - here:,} others go by the rule")
    return found


def _groups(ids: np.ndarray, names: pa.ChunkedArray, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """A number for each row, the same for those that are to stay together: that of the first of them."""
    near = match_positions(ra, dec, ra, dec, RADIUS)
    links = [(near.left, near.right)]
    words = pc.fill_null(pc.index_in(names, pc.unique(names.drop_null())), -1).to_numpy()
    for values, rows in ((ids, np.arange(len(ids))), (words[words >= 0], np.flatnonzero(words >= 0))):
        _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        links.append((rows, rows[first[inverse]]))
    left, right = (np.concatenate(side) for side in zip(*links, strict=True))
    groups = np.arange(len(ids))
    while True:
        before = groups.copy()
        np.minimum.at(groups, left, before[right])
        np.minimum.at(groups, right, before[left])
        if np.array_equal(groups, before):
            return groups


def read_splits(path: Path) -> dict[int, str]:
    """Splits by object_id, as somebody published them; see ``split_of``.

    Raises:
        UserError: it is something else, names no split, or an object is in two.
    """
    found: dict[int, str] = {}
    for where, ids, names in _parts(path):
        for number, name in zip(ids.tolist(), names, strict=True):
            if (side := NAMES.get(str(name).strip().lower())) is None:
                raise UserError(f"{where}: the split of {number} is {name!r}, not one of {', '.join(NAMES)}")
            if found.setdefault(number, side) != side:
                raise UserError(f"{where}: {number} is in {side}, and elsewhere in {found[number]}")
    if not found:
        raise UserError(f"{path}: no published splits: neither object_id and split, nor files *_training_*.csv or .hdf5")
    return found


def _parts(path: Path) -> Iterator[tuple[Path, np.ndarray, list]]:
    """File, ids and names of splits, a part at a time."""
    if path.is_dir():
        for each in sorted(path.iterdir()):
            if match := _PUBLISHED.search(each.name):
                for ids, _ in _columns(each, ("object_id",)):
                    yield each, ids, [match[1]] * len(ids)
        return
    for ids, names in _columns(path, ("object_id", "split")):
        yield path, ids, names


def _columns(path: Path, names: tuple[str, ...]) -> Iterator[tuple[np.ndarray, list]]:
    """Ids, int64, and the values of the other column, if there is one."""
    if path.suffix.lower() in (".hdf5", ".h5"):
        yield _of_hdf5(path, names)
        return
    for batch in open_catalog(path, names).batches():
        check_ids(batch, "object_id")
        ids = batch["object_id"]
        if not pa.types.is_integer(ids.type) or ids.null_count:
            raise UserError(f"{path}: column object_id is not of integers")
        yield ids.to_numpy().astype(np.int64), batch[names[-1]].to_pylist()


def _of_hdf5(path: Path, names: tuple[str, ...]) -> tuple[np.ndarray, list]:
    try:
        with opened_hdf5(path) as file:
            values = [_dataset(file, name, path) for name in names]
    except OSError as error:
        raise UserError(f"{path}: cannot be read as HDF5: {error.strerror or error}") from error
    if values[0].dtype.kind not in "iu":
        raise UserError(f"{path}: object_id is {values[0].dtype}: ids that were floats cannot be repaired")
    return values[0].astype(np.int64), [each.decode() if isinstance(each, bytes) else each for each in values[-1].tolist()]


def _dataset(file: h5py.File, name: str, path: Path) -> np.ndarray:
    """A dataset of shape (rows,) or (rows, 1) that keeps its data inside of the file."""
    data = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if (
        not isinstance(data, h5py.Dataset)
        or data.external
        or data.is_virtual
        or data.shape not in ((data.size,), (data.size, 1))
    ):
        raise UserError(f"{path}: has no column {name} of its own")
    return data[()].ravel()
