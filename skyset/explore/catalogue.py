"""Names and positions of the objects of a catalogue: of partitions, or of a file, under one of many usual names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import PartitionError, UserError
from skyset.loading.found import opened, position_in
from skyset.messages import plain
from skyset.partitions.manifest import FileEntry, grouped
from skyset.partitions.partition import Partition
from skyset.runner import InlineExecutor, Pool, in_order
from skyset.survey import Column
from skyset.tables.match import is_text
from skyset.tables.numeric_text import floats_of_text
from skyset.tables.usual_names import DEGREES, NAMES, POSITIONS

#: Of partitions whose small columns are read by one task.
_TASK_BYTES = 1 << 30


def catalogue_of(
    source: str | Path,
    columns: Sequence[str] = (),
    object_id: str = "object_id",
    ra: str = "ra",
    dec: str = "dec",
    positions: bool = True,
    units: tuple[str, str] = ("", ""),
    pool: Pool | None = None,
) -> pa.Table:
    """Names and positions of all objects; no pixel is read.

    Args:
        source: a folder of skyset partitions (or the URL of one), or a file that ``skyset.tables.open.open_catalog`` reads.
        columns: further columns, one value a row.
        object_id, ra, dec: what these columns are called there.
        positions: whether a file has to have them; where it has not, they are null.
        units: of ra and dec, see ``in_degrees``.
        pool: reads partitions; by default this process.

    Returns:
        Table of ``object_id``, ``ra``, ``dec`` (float64, degrees) and the further columns under their own names, with their
        ``unit`` in the fields' metadata. Rows are in the order of the manifest's files and of the rows in them.

    Raises:
        UserError: there is no such catalogue or column, it is damaged, a column has several values per row, identifiers went
            through floating point, or positions are no numbers or not in degrees.
    """
    wanted = {"object_id": object_id, "ra": ra, "dec": dec}
    for name in columns:
        if wanted.setdefault(name, name) != name:
            raise UserError(f"{source}: {wanted[name]} is to be called {name}, which is another column there")
    partitions = is_folder(source)
    names = list(dict.fromkeys(wanted.values()))
    if not partitions and not positions:
        names = [name for name in names if name not in (ra, dec) or name in _names_in(str(source))]
    table = _read_folder(str(source), names, pool or InlineExecutor()) if partitions else _read_file(str(source), names)
    for name in wanted.values() if not positions else ():
        if name not in table.schema.names:
            table = table.append_column(pa.field(name, pa.float64()), pa.nulls(table.num_rows, pa.float64()))
    _check_ids(table, object_id, source)
    fields = [table.schema.field(name).with_name(new) for new, name in wanted.items()]
    table = pa.table([table[name] for name in wanted.values()], schema=pa.schema(fields))
    for name, unit in zip(("ra", "dec"), units, strict=True):
        table = in_degrees(table, name, str(source), unit)
    return table.combine_chunks()


def _read_folder(root: str, names: list[str], pool: Pool) -> pa.Table:
    from skyset.tables.catalog import require

    root, survey, manifest = opened(root)
    known = {column.name: column for column in survey.columns}
    columns = [known[require(list(known), name, root)] for name in names]
    for column in columns:
        if column.shape or column.is_bytes:
            raise UserError(f"{root}: column {column.name} has no one value a row")
    schema = pa.schema(
        [
            pa.field(
                c.name,
                pa.string() if c.is_text else pa.from_numpy_dtype(c.dtype),
                metadata={"unit": c.unit} if c.unit else None,
            )
            for c in columns
        ]
    )
    read = partial(_read_files, survey.opens or Partition, root, columns, schema)
    try:
        batches = [batch for _, some in in_order(pool, read, grouped(manifest.files, _TASK_BYTES)) for batch in some]
    except PartitionError as error:
        raise UserError(str(error)) from error
    return pa.Table.from_batches(batches, schema)


def _read_files(
    opens: Callable, root: str, columns: Sequence[Column], schema: pa.Schema, files: Sequence[FileEntry]
) -> list[pa.RecordBatch]:
    """All rows of some files: their columns, as the schema has them."""
    batches = []
    for entry in files:
        path = f"{root}/{entry.path}"
        with opens(path, columns, entry.rows, entry.bytes or None) as partition:
            values = {column.name: np.empty(partition.rows, column.dtype) for column in columns}
            partition.read_columns(values, 0, partition.rows)
        try:
            arrays = [pa.array(values[each.name]).cast(each.type) for each in schema]
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: text that is none: {error}") from error
        batches.append(pa.record_batch(arrays, schema=schema))
    return batches


def _read_file(path: str, names: list[str]) -> pa.Table:
    from skyset.tables.open import open_catalog

    return open_catalog(path, names).table()


def name_in(source: str | Path, wanted: str = "") -> str:
    """What a catalogue calls its objects' names: ``wanted``, or else the first of the usual words for it (`NAMES`).

    Raises:
        UserError: there is no such column, or none of the usual ones.
    """
    known = _names_in(str(source))
    if wanted:
        return _named(known, wanted, source)
    found = next((name for usual in NAMES if (name := _alike(known, usual))), None)
    if found is None:
        raise UserError(f"{source}: which column names its objects? --ids COLUMN (there are: {', '.join(known[:60])})")
    return found


def positions_in(source: str | Path, ra: str = "", dec: str = "") -> tuple[str, str]:
    """What a catalogue calls right ascension and declination: as asked for, or else the first usual pair (`POSITIONS`).

    Raises:
        UserError: there are no such columns, or one alone is asked for.
    """
    known = _names_in(str(source))
    if bool(ra) != bool(dec):
        raise UserError(f"{source}: --ra and --dec belong together")
    if ra:
        return _named(known, ra, source), _named(known, dec, source)
    if is_folder(source):
        return position_in(opened(str(source)))
    for pair in POSITIONS:
        first, second = (_alike(known, usual) for usual in pair)
        if first and second:
            return first, second
    there = ", ".join(known[:60])
    raise UserError(f"{source}: which columns are the positions? --ra COLUMN --dec COLUMN (there are: {there})")


def _alike(known: Sequence[str], usual: str) -> str | None:
    """The column of this name, or of this name in other letters."""
    return usual if usual in known else next((name for name in known if name.lower() == usual), None)


def _named(known: Sequence[str], wanted: str, source: str | Path) -> str:
    from skyset.tables.catalog import require

    return require(list(known), wanted, str(source))


def with_unit(text: str) -> tuple[str, str]:
    """A column and its unit, of ``RAJ2000`` or ``RAJ2000:hour``: "" where none is told."""
    name, _, unit = text.rpartition(":")
    return (name, unit) if name and unit.lower() in DEGREES else (text, "")


def columns_in(sources: Sequence[str | Path], wanted: Sequence[str]) -> list[list[str]]:
    """Which of the further columns each catalogue has.

    Raises:
        UserError: a column that none has.
    """
    found = [[name for name in wanted if name in _names_in(str(source))] for source in sources]
    if missing := [name for name in wanted if not any(name in names for names in found)]:
        few = f"neither {sources[0]} nor {sources[1]}" if len(sources) == 2 else f"none of {', '.join(map(str, sources))}"
        raise UserError(f"{few} has a column {missing[0]}")
    return found


def is_folder(source: str | Path) -> bool:
    """Whether this is meant for partitions, rather than for a catalogue's file."""
    return "://" in str(source) or Path(source).is_dir() or not Path(source).suffix


def _names_in(source: str) -> list[str]:
    from skyset.tables.open import column_names

    if is_folder(source):
        return [column.name for column in opened(source)[1].columns]
    return column_names(source)


def units_in(source: str | Path) -> dict[str, str]:
    """Units of a catalogue's columns, by name; empty where it has none."""
    from skyset.tables.open import open_catalog

    if is_folder(source):
        return {column.name: column.unit for column in opened(str(source))[1].columns}
    return {field.name: unit_of(field) for field in open_catalog(str(source)).schema}


def _check_ids(table: pa.Table, name: str, source: str | Path) -> None:
    from skyset.tables.catalog import check_ids

    try:
        check_ids(table, name)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def in_degrees(table: pa.Table, name: str, source: str, unit: str = "") -> pa.Table:
    """The table with this column as float64, unit ``deg``.

    Args:
        table: has it.
        name: of the column.
        source: for messages.
        unit: of its values, ``"deg"``, ``"hour"`` or ``"rad"``; by default what the table says, else degrees.

    Raises:
        UserError: it has no numbers, or another unit.
    """
    place = table.schema.get_field_index(name)
    kind = table.schema.field(place).type
    said = (unit or unit_of(table.schema.field(place))).strip().lower()
    if table[name].null_count == table.num_rows:  # a CSV column without values has no type
        kind = pa.float64()
        table = table.set_column(place, pa.field(name, kind), pa.nulls(table.num_rows, kind))
    elif is_text(kind):
        numbers, odd = floats_of_text(table[name])
        if numbers is None:
            raise UserError(f"{source}: {name} is text, {plain(odd, 40)}; positions in decimal degrees are needed")
        kind = pa.float64()
        table = table.set_column(place, pa.field(name, kind, metadata=table.schema.field(place).metadata), numbers)
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise UserError(f"{source}: {name} is {kind}; positions in decimal degrees are needed")
    if said not in DEGREES:
        raise UserError(f"{source}: {name} is in {said}; deg, hour and rad are known: --ra COLUMN:hour")
    values = table[name].cast(pa.float64())
    if DEGREES[said] != 1:
        values = pc.multiply(values, DEGREES[said])
    return table.set_column(place, pa.field(name, pa.float64(), metadata={"unit": "deg"}), values)


def unit_of(field: pa.Field) -> str:
    """The unit that a table has for a column, empty where it has none."""
    return (field.metadata or {}).get(b"unit", b"").decode()


def with_positions(table: pa.Table) -> tuple[pa.Table, int]:
    """Those rows of a table of ``catalogue_of`` that have a position on the sky, and how many have none."""
    ra, dec = (table[name].to_numpy() for name in ("ra", "dec"))
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    return table.filter(pa.array(good)), int((~good).sum())
