"""Forms of trees made by hand, file by file with plain h5py, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from skyset.partitions.tree.form import Source, TreeForm
from skyset.partitions.tree.opens import OpensTree
from skyset.partitions.tree.structure import units_in
from skyset.partitions.tree.units import UNITS, write_units
from skyset.survey import ANY, Column

IDS = ("object_id", "source_id", "targetid", "candid", "ID", "TARGETID")


def paths_in(group: h5py.Group, below: str = "") -> dict[str, bool]:
    """The paths of all datasets, and of the members of compounds, with whether each is a member."""
    found: dict[str, bool] = {}
    for name, thing in group.items():
        if isinstance(thing, h5py.Group):
            found |= paths_in(thing, f"{below}{name}/")
        elif names := thing.dtype.names:
            found |= {f"{below}{name}/{member}": True for member in names}
        else:
            found[f"{below}{name}"] = False
    return found


def stored(group: h5py.Group, path: str) -> np.ndarray | None:
    """All values of a dataset or member as plain h5py gives them; texts as bytes."""
    above, _, member = path.rpartition("/")
    if path in group:
        values, base = np.asarray(group[path][()]), group[path].dtype
    elif above in group and isinstance(group[above], h5py.Dataset):
        values, base = np.asarray(group[above][()][member]), group[above].dtype[member]
    else:
        return None
    return values.astype("S") if values.dtype.kind == "O" and h5py.check_vlen_dtype(base) is None else values


def _kind(groups: list[h5py.Group], path: str, axis: int) -> tuple[str, tuple[int, ...]]:
    """(dtype, shape of a row) of a dataset over all files."""
    dtypes, shapes = [], set()
    for group in groups:
        values = stored(group, path)
        if values is None:
            continue
        if values.dtype.kind == "O":  # numbers of any length
            dtypes.append(np.asarray(values.ravel()[0]).dtype if values.shape else values[()].dtype)
            shapes.add((ANY,))
            continue
        dtypes.append(values.dtype.newbyteorder("="))
        shapes.add(values.shape[axis:])
    if len(shapes) > 1:
        shapes = {tuple(sizes[0] if len(set(sizes)) == 1 else ANY for sizes in zip(*shapes, strict=True))}
    shape = shapes.pop()
    dtype = np.result_type(*dtypes)
    return dtype.name if dtype.kind != "S" else f"S{dtype.itemsize}", shape if shape.count(ANY) < 2 else (ANY,)


def by_hand(tree: Path, files: list[str], kind: str, **more: tuple[Column, Source]) -> tuple[TreeForm, list[Column]]:
    """The form of a tree, and all columns of it."""
    opened = [h5py.File(tree / file) for file in files]
    groups = opened if kind != "groups" else [group for file in opened for group in file.values()]
    columns, sources = {}, {}
    paths = {path: member for group in groups for path, member in paths_in(group).items()}
    for path, member in paths.items():
        dtype, shape = _kind(groups, path, 1 if kind == "columns" else 0)
        name = path.replace("/", ".")
        columns[name], sources[name] = Column(name, dtype, shape), Source((path,), "member" if member else "stored")
    names = {name.lower(): name for name in reversed(columns)}
    key = next((name for name in IDS if name in columns), "")
    columns["object_id"] = Column("object_id", "S40")
    sources["object_id"] = Source((key,), "text") if key else Source((), "name")
    for axis in ("ra", "dec"):
        columns[axis], sources[axis] = Column(axis, "float64"), Source((names[axis],))
    columns["healpix"], sources["healpix"] = Column("healpix", "int64"), Source((), "cell")
    for name, (column, source) in more.items():
        columns[name], sources[name] = column, source
    for file in opened:
        file.close()
    form = TreeForm(str(tree), kind, sources)
    form.check(columns.values())
    return form, list(columns.values())


def opens_by_hand(index: Path, form: TreeForm, columns: list[Column], entries: dict[str, list[str]]) -> OpensTree:
    """What opens the entries of a tree; of objects each has some files."""
    if form.kind != "columns":
        units = [[unit for file in files for unit in units_in(form.tree, file, form.kind)] for files in entries.values()]
        write_units(index / UNITS, form, columns, list(entries), units)
    return OpensTree(form, str(index))


def expected(form: TreeForm, column: Column, row: np.ndarray | None) -> np.ndarray:
    """A row of a column of what plain h5py gave of it, ragged ones flat."""
    if row is None:
        return np.full(0 if column.is_ragged else column.shape, column.missing, column.stored_dtype)
    source = form.sources[column.name]
    if source.how == "part":
        row = np.take(row, source.argument[1], axis=source.argument[0])
    if source.how == "text" and row.dtype.kind in "iu":
        row = np.array(str(row.item()).encode())
    if source.how == "scaled":
        row = row.astype(np.float64) * source.argument
    values = np.asarray(row).astype(column.stored_dtype)
    return values.reshape(-1) if column.is_ragged else values.reshape(column.shape)
