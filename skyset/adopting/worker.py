"""Look at files of a tree, each opened once; what worker processes run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from skyset.adopting import checks
from skyset.adopting.fields import Field, Names, fields_of, kind_of, names_of, of_rows
from skyset.adopting.look import EXAMPLES, NOTHING, Finding, Ids, Look
from skyset.adopting.plan import Plan, blocks, examine, misfit_of_labels, note_flags, plan_of, row_bytes
from skyset.adopting.reading import TreeHDF5, columns_at
from skyset.adopting.scan import TreeFile, cell_number
from skyset.adopting.sky import FACTORS, in_degrees, possible, unit_of
from skyset.errors import PartitionError
from skyset.partitions.manifest import keys_digest
from skyset.partitions.partition import decoded
from skyset.partitions.tree.form import COLUMNS, GROUPS, OBJECTS
from skyset.partitions.tree.structure import DAMAGE, Unit, reason_of
from skyset.partitions.tree.units import cells_of
from skyset.partitions.twice import digests

#: Cells of nside 16.
CELLS = 12 * 16**2
#: An array of an object, or of a row, that has more bytes is passed over.
_LARGE = 16 << 20
#: Objects of a file of groups that are looked at.
_OBJECTS = 4
#: Records of a large table that are looked at, and those side by side where it is compressed.
_RECORDS, _PACKED_RECORDS = 32, 4
#: Of places spread over a table by this share of it, no two lie in the same column of a picture's points.
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Asked:
    """How files are looked at.

    Attributes:
        root: the folder of their dataset, absolute.
        names: the fields of id and position; None: by their usual names.
        all_values: every value of the arrays that tell something, not a sample of rows.
    """

    root: str
    names: Names | None = None
    all_values: bool = False


#: A file, and what its folder's name says of its cell.
Part = tuple[TreeFile, str | None]


@dataclass
class _Rows:
    """Positions and ids of a file's rows, as they are stored."""

    look: Look
    cell: str | None
    ra: np.ndarray
    dec: np.ndarray
    ids: np.ndarray | None
    own: np.ndarray | None = None


def look_at(asked: Asked, files: Sequence[Part]) -> list[Look]:
    """Look at some files, one after the other; what cannot be read is noted with its reason."""
    rows = [_look(asked, file, cell) for file, cell in files]
    judge([each for each in rows if each.look.rows])
    return [each.look for each in rows]


def _look(asked: Asked, file: TreeFile, cell: str | None) -> _Rows:
    look = Look(file)
    nothing = np.zeros(0)
    try:
        with TreeHDF5(os.path.join(asked.root, file.path)) as opened:
            fields = opened.fields()
            look.kind = kind_of(fields)
            if look.kind == COLUMNS:
                fields = _readable(look, opened, fields)
                look.kind = kind_of(fields)
            if not look.kind:
                look.error = NOTHING
            elif look.kind == COLUMNS:
                return _columns(look, cell, opened, fields, asked)
            else:
                return _objects(look, cell, opened, asked)
    except MemoryError:
        look = Look(file, error="more values than there is memory for")
    except (PartitionError, *DAMAGE) as error:  # nothing counts of what was noted before
        look = Look(file, error=str(error) if isinstance(error, PartitionError) else reason_of(error))
    return _Rows(look, cell, nothing, nothing, None)


def _readable(look: Look, file: TreeHDF5, fields: dict[str, Field]) -> dict[str, Field]:
    """The fields of a file of columns that can be streamed; what stands against the others is noted.

    Raises:
        PartitionError: positions are not among them.
    """
    names = names_of(fields)
    for name, field in fields.items():
        if reason := file.unreadable(field):
            look.left_out[name] = reason
            if names is not None and name in (names.ra, names.dec):
                raise PartitionError(reason)
    return {name: field for name, field in fields.items() if name not in look.left_out}


def _columns(look: Look, cell: str | None, file: TreeHDF5, fields: dict[str, Field], asked: Asked) -> _Rows:
    """A file of columns."""
    names = asked.names or names_of(fields)
    assert names is not None
    if names.ra not in fields or names.dec not in fields:
        raise PartitionError(f"has no {names.ra} and {names.dec}, which its fellows have positions in")
    rows = fields[names.ra].dims[0]
    if rows == 0:
        raise PartitionError("has no rows")
    if names.id in fields and not fields[names.id].can_be_id:
        look.left_out[names.id] = f"{fields[names.id].dtype}, where ids are text or integers"
        fields = {name: field for name, field in fields.items() if name != names.id}
    columns, others = of_rows(fields.values(), rows)
    look.left_out |= {each.name: f"{each.dims[0] if each.dims else 'no'} rows, not {rows}" for each in others}
    look.names, look.rows = names, rows
    look.fields = [_described(file, field) if file.says(field.name) or field.any_length else field for field in columns]
    by_name = {field.name: field for field in look.fields}
    ids = _read_ids(file, by_name, names, rows)
    found = _Rows(look, cell, file.read(by_name[names.ra]), file.read(by_name[names.dec]), ids)
    if (own := by_name.get("healpix")) is not None and own.is_integer and not own.dims:
        found.own = file.read(own)
    look.said = unit_of(by_name[names.ra].unit)
    zero = _note_positions(found)
    stem = os.path.splitext(look.file.path)[0]
    texts = texts_of(ids) if ids is not None else [f"{stem}:{row}" for row in range(rows)]
    _note_ids(look, ids, texts, zero)
    look.keys = keys_digest(texts)
    plan = plan_of(by_name)
    note_flags(look, plan, {name: file.read(by_name[name]) for name in plan.flags})
    arrays = {name: by_name[name] for name in plan.arrays if asked.all_values or row_bytes(by_name[name]) <= _LARGE}
    for numbers in blocks(rows, list(arrays.values()), asked.all_values):
        examine(look, plan, columns_at(file, arrays, numbers), numbers, [texts[row] for row in numbers])
    look.is_whole = asked.all_values
    return found


def _described(file: TreeHDF5, field: Field) -> Field:
    unit, description = file.told(field.name)
    dtype = f"S{file.longest(field)}" if field.is_text and field.any_length else field.dtype
    return replace(field, unit=unit, description=description, dtype=dtype)


def _read_ids(file: TreeHDF5, fields: Mapping[str, Field], names: Names, rows: int) -> np.ndarray | None:
    """The ids, integers or text; None where none are wanted; empty ones where this file lacks them."""
    if not names.id:
        return None
    if names.id not in fields:
        return np.zeros(rows, "S1")
    return file.read(fields[names.id])


def texts_of(ids: np.ndarray) -> list[str]:
    """Ids as the loader hands them out."""
    return list(map(str, ids.tolist())) if ids.dtype.kind in "iu" else decoded(ids)


def _note_ids(look: Look, ids: np.ndarray | None, texts: list[str], zero: np.ndarray) -> None:
    """What is known of ids; rows that were never filled (``zero``) have none that could be another's."""
    look.ids = Ids(width=max((len(text.encode()) for text in texts), default=1) or 1)
    if ids is None:
        return
    look.digests = digests(f"{look.file.path}:{row}" if zero[row] else text for row, text in enumerate(texts))
    if ids.dtype.kind in "iu" and len(ids):
        look.ids.integers = True
        look.ids.lowest, look.ids.highest = int(ids.min()), int(ids.max())
        look.ids.count_up = checks.counts_up(ids)


def _note_positions(found: _Rows) -> np.ndarray:
    """Bounds, the first position, rows that have none; gives back which rows were never filled, bool (rows,)."""
    look, ra, dec = found.look, found.ra.astype(np.float64), found.dec.astype(np.float64)
    numbers, texts = np.arange(len(ra)), texts_of(found.ids) if found.ids is not None else []
    good = checks.on_the_sky(ra, dec)
    if not good.any():
        raise PartitionError("no row has a position")
    zero = checks.all_zero(found.ids, ra, dec)
    what = "position 0, 0 and no id: a row that was never filled"
    look.note(checks.ALL_ZERO, zero, texts, what, numbers)
    look.note(checks.NO_POSITION, ~good, texts, "its position is not a number, or not on the sky", numbers)
    first = int(np.flatnonzero(good)[0])
    look.first = float(ra[first]), float(dec[first])
    look.ra = float(ra[good].min()), float(ra[good].max())
    look.dec = float(dec[good].min()), float(dec[good].max())
    return zero


def _objects(look: Look, cell: str | None, file: TreeHDF5, asked: Asked) -> _Rows:
    """A file that is an object, or has a group for each."""
    groups: dict[str, None] = {"": None} if look.kind == OBJECTS else {}
    for path in file.datasets if look.kind == GROUPS else ():
        group, slash, _ = path.partition("/")
        if slash:
            groups[group] = None
        else:
            look.left_out[path] = "beside the groups"
    found: list[tuple[float, float, np.generic | None]] = []
    for group in groups:
        values, arrays = file.held(f"{group}/" if group else "")
        names = asked.names or names_of({each.name: each for each in fields_of(arrays, values)})
        look.names = look.names or names
        where = [values[name] for name in (names.ra, names.dec) if name in values] if names else []
        if len(where) < 2 or not all(each.size == 1 and np.isfinite(each).all() for each in where):
            what = "its position is missing or no number: it is left out"
            look.note(checks.NO_POSITION, np.ones(1, bool), [group], what, np.array([-1]))
            continue
        id_ = values.get(names.id) if names and names.id else None
        if id_ is not None and (id_.size != 1 or id_.dtype.kind not in "iuS"):
            what = f"its id is {id_.dtype.name}, where ids are text or integers: it is left out"
            look.note(checks.UNFIT, np.ones(1, bool), [group], what, np.array([-1]))
            continue
        if what := misfit_of_labels(values, arrays):
            look.note(checks.UNFIT, np.ones(1, bool), [group], f"{what}: it is left out", np.array([-1]))
            continue
        look.units.append(Unit(look.file.path, look.file.bytes, look.file.mtime, group, values, arrays))
        found.append((float(where[0].item()), float(where[1].item()), None if id_ is None else id_.reshape(-1)[0]))
    look.rows = len(found)
    if not found:
        return _Rows(look, cell, np.zeros(0), np.zeros(0), None)
    return _of_objects(look, cell, file, found, asked)


def _of_objects(look: Look, cell: str | None, file: TreeHDF5, found: list, asked: Asked) -> _Rows:
    """What is noted of the objects of a file, all together."""
    names, first = look.names, look.units[0]
    assert names is not None
    ids: np.ndarray | None = None
    if names.id:
        given = [each[2] for each in found]
        integers = all(isinstance(each, np.integer) for each in given)
        ids = np.array(given) if integers else np.array([b"" if each is None else _as_bytes(each) for each in given], "S")
    rows = _Rows(look, cell, np.array([each[0] for each in found]), np.array([each[1] for each in found]), ids)
    own = [unit.values.get("healpix") for unit in look.units]
    if all(each is not None and each.size == 1 and each.dtype.kind in "iu" for each in own):
        rows.own = np.array([int(each.item()) for each in own if each is not None])
    prefix = f"{first.group}/" if first.group else ""
    look.said = unit_of(file.told(prefix + names.ra)[0]) if prefix + names.ra in file.datasets else ""
    look.told = {name: file.told(prefix + name) for name in first.arrays if file.says(prefix + name)}
    zero = _note_positions(rows)
    stem = os.path.splitext(os.path.basename(look.file.path))[0]
    texts = texts_of(ids) if ids is not None else [unit.group or stem for unit in look.units]
    _note_ids(look, ids, texts, zero)
    for number, unit in enumerate(look.units if asked.all_values else look.units[:_OBJECTS]):
        _examine_object(look, file, unit, number, texts[number], asked.all_values)
    look.is_whole = asked.all_values
    return rows


def _as_bytes(value: np.generic) -> bytes:
    return bytes(value) if isinstance(value, np.bytes_) else str(value.item()).encode()


def _examine_object(look: Look, file: TreeHDF5, unit: Unit, number: int, text: str, all_values: bool) -> None:
    fields = {field.name: field for field in fields_of(unit.arrays, unit.values)}
    plan: Plan = plan_of(fields)
    note_flags(look, plan, {name: unit.values[name] for name in plan.flags if name in unit.values})
    arrays: dict[str, np.ndarray] = {}
    for name in plan.arrays:
        field, dataset = fields[name], name.rpartition("/")[0] if fields[name].member else name
        stored = unit.arrays[dataset]
        size = int(np.prod(stored.dims, dtype=np.int64)) * stored.dtype.itemsize
        whole = replace(field, name=f"{unit.group}/{name}" if unit.group else name)
        if size <= _LARGE or all_values:
            arrays[name] = file.read(whole)[None]
        elif name in plan.records:
            runs = _some_records(stored.dims[0], field.packed)
            arrays[name] = np.concatenate([file.read(whole, start, stop) for start, stop in runs])[None]
    if arrays:
        examine(look, plan, arrays, np.array([number]), [text])


def _some_records(count: int, packed: bool) -> list[tuple[int, int]]:
    """Runs of a table's records that are looked at; where it is compressed its first, middle and last ones."""
    if packed:
        starts = (0, (count - _PACKED_RECORDS) // 2, count - _PACKED_RECORDS)
        return [(max(0, start), min(max(0, start) + _PACKED_RECORDS, count)) for start in starts]
    places = sorted({int(count * (number * _GOLDEN % 1)) for number in range(_RECORDS)})
    return [(place, place + 1) for place in places]


def judge(rows: Sequence[_Rows]) -> None:
    """Compare the cells of all rows of some files, in each unit that their positions can be in, with those of their folders
    and of their own columns: together, since to compute a few cells takes as long as to compute thousands.
    """
    trials = [
        (each, unit)
        for each in rows
        for unit in ([each.look.said] if each.look.said in FACTORS else possible(each.look.ra, each.look.dec))
    ]
    if not trials:
        return
    places = [in_degrees(each.ra, each.dec, unit) for each, unit in trials]
    cells = cells_of(np.concatenate([ra for ra, _ in places]), np.concatenate([dec for _, dec in places]))
    start = 0
    for each, unit in trials:
        _compare(each, unit, cells[start : start + len(each.ra)])
        start += len(each.ra)


def _compare(rows: _Rows, unit: str, cells: np.ndarray) -> None:
    look, folder = rows.look, cell_number(rows.cell, CELLS)
    filled = ~checks.all_zero(rows.ids, rows.ra, rows.dec) & checks.on_the_sky(rows.ra, rows.dec)
    if rows.own is not None:
        look.own[unit] = int(np.count_nonzero((rows.own == cells) | ~filled))
    if folder < 0:
        return
    look.judged = int(np.count_nonzero(filled))
    strays = np.flatnonzero(filled & (cells != folder))
    look.wrong[unit] = len(strays)
    some = strays[:EXAMPLES]
    texts = texts_of(rows.ids[some]) if rows.ids is not None else [""] * len(some)
    look.strays[unit] = [
        Finding(checks.WRONG_CELL, int(row), text, f"lies in cell {cells[row]}, its folder is healpix={rows.cell}")
        for row, text in zip(some.tolist(), texts, strict=True)
    ]
