"""Pairs of objects of two catalogues: by position within a radius, or by equal keys; and the table of the pairs.

Positions are matched by zones (Gray, Nieto-Santisteban & Szalay 2006, MSR-TR-2006-52): the sky is cut into stripes of equal
declination, and the objects of a stripe are sorted by right ascension. No pair within a separation r can be lost, because
two inequalities hold for it everywhere on the sphere, at the poles and across RA = 0 too::

    |dec2 - dec1| <= r        |ra2 - ra1| <= arcsin(sin r / cos dec1), or anything where dec1 is within r of a pole

They give the candidates of an object as one run of sorted objects in each of at most two stripes. Neighbouring HEALPix cells
would be nine runs, and their shapes, largest near the poles and with only seven neighbours at some corners, have no bound
as short as these.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import PartitionError, RecordError, UserError
from skyset.files import replaced_by
from skyset.messages import plain
from skyset.partitions.layout import partition_path
from skyset.partitions.manifest import Manifest, describe_file
from skyset.partitions.partition import Partition
from skyset.partitions.writer import PartitionWriter
from skyset.sky import healpix_cell
from skyset.survey import Survey
from skyset.tables.match import Pairs, is_text, separation_arcsec
from skyset.tables.numeric_text import floats_of_text

#: Usual names, in any case, of the column of objects' names: the first that a catalogue has.
NAMES = ("object_id", "iauname", "id_str", "objid", "source_id", "id", "name", "number")
#: Usual names, in any case, of right ascension and declination in degrees: of catalogues, of VizieR, of SExtractor.
POSITIONS = (
    ("ra", "dec"),
    ("raj2000", "dej2000"),
    ("raj2000", "decj2000"),
    ("_raj2000", "_dej2000"),
    ("ra_icrs", "de_icrs"),
    ("ra_icrs", "dec_icrs"),
    ("ra_j2000", "dec_j2000"),
    ("ra_deg", "dec_deg"),
    ("radeg", "decdeg"),
    ("radeg", "dedeg"),
    ("alphawin_j2000", "deltawin_j2000"),
    ("alpha_j2000", "delta_j2000"),
    ("alphawin_sky", "deltawin_sky"),
    ("alpha_sky", "delta_sky"),
    ("alphawin_world", "deltawin_world"),
    ("alpha_world", "delta_world"),
    ("right_ascension", "declination"),
)
#: Degrees of a unit of angle, by its names.
_DEGREES = {
    **dict.fromkeys(("", "deg", "degree", "degrees"), 1.0),
    **dict.fromkeys(("h", "hr", "hour", "hours", "hourangle"), 15.0),
    **dict.fromkeys(("rad", "radian", "radians"), math.degrees(1)),
}
#: What pairs are written as, by the ending of the file.
ENDINGS = (".parquet", ".csv", ".csv.gz", ".fits", ".vot")


# --- Catalogues and the table of pairs ------------------------------------------------------------


def catalogue_of(
    source: str | Path,
    columns: Sequence[str] = (),
    object_id: str = "object_id",
    ra: str = "ra",
    dec: str = "dec",
    positions: bool = True,
    units: tuple[str, str] = ("", ""),
) -> pa.Table:
    """Names and positions of all objects; no pixel is read.

    Args:
        source: a folder of skyset partitions (or the URL of one), or a file that ``skyset.tables.open.open_catalog`` reads.
        columns: further columns, one value a row.
        object_id, ra, dec: what these columns are called there.
        positions: whether a file has to have them; where it has not, they are null.
        units: of ra and dec, see ``in_degrees``.

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
    table = (_read_folder if partitions else _read_file)(str(source), names)
    for name in wanted.values() if not positions else ():
        if name not in table.schema.names:
            table = table.append_column(pa.field(name, pa.float64()), pa.nulls(table.num_rows, pa.float64()))
    _check_ids(table, object_id, source)
    fields = [table.schema.field(name).with_name(new) for new, name in wanted.items()]
    table = pa.table([table[name] for name in wanted.values()], schema=pa.schema(fields))
    for name, unit in zip(("ra", "dec"), units, strict=True):
        table = in_degrees(table, name, str(source), unit)
    return table.combine_chunks()


def _read_folder(root: str, names: list[str]) -> pa.Table:
    from skyset.tables.catalog import require

    manifest, root = Manifest.load(root), root.rstrip("/")
    known = {column.name: column for column in manifest.columns}
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
    batches = []
    try:
        for entry in manifest.files:
            path = f"{root}/{entry.path}"
            with Partition(path, columns, trusted_rows=entry.rows, trusted_bytes=entry.bytes) as partition:
                values = {column.name: np.empty(partition.rows, column.dtype) for column in columns}
                partition.read_columns(values, 0, partition.rows)
            arrays = [pa.array(values[each.name]).cast(each.type) for each in schema]
            batches.append(pa.record_batch(arrays, schema=schema))
    except PartitionError as error:
        raise UserError(str(error)) from error
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: text that is none: {error}") from error
    return pa.Table.from_batches(batches, schema)


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
    return (name, unit) if name and unit.lower() in _DEGREES else (text, "")


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
        return [column.name for column in Manifest.load(source.rstrip("/")).columns]
    return column_names(source)


def units_in(source: str | Path) -> dict[str, str]:
    """Units of a catalogue's columns, by name; empty where it has none."""
    from skyset.tables.open import open_catalog

    if is_folder(source):
        return {column.name: column.unit for column in Manifest.load(str(source).rstrip("/")).columns}
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
    if said not in _DEGREES:
        raise UserError(f"{source}: {name} is in {said}; deg, hour and rad are known: --ra COLUMN:hour")
    values = table[name].cast(pa.float64())
    if _DEGREES[said] != 1:
        values = pc.multiply(values, _DEGREES[said])
    return table.set_column(place, pa.field(name, pa.float64(), metadata={"unit": "deg"}), values)


def unit_of(field: pa.Field) -> str:
    """The unit that a table has for a column, empty where it has none."""
    return (field.metadata or {}).get(b"unit", b"").decode()


def with_positions(table: pa.Table) -> tuple[pa.Table, int]:
    """Those rows of a table of ``catalogue_of`` that have a position on the sky, and how many have none."""
    ra, dec = (table[name].to_numpy() for name in ("ra", "dec"))
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    return table.filter(pa.array(good)), int((~good).sum())


def pairs_table(pairs: Pairs, left: pa.Table, right: pa.Table, suffixes: tuple[str, str] = ("_left", "_right")) -> pa.Table:
    """A row a pair: the columns of both catalogues, and how far apart the two positions are.

    Args:
        pairs: row numbers in ``left`` and ``right``.
        left, right: as ``catalogue_of`` gives them.
        suffixes: added to the names of the columns.

    Returns:
        Table of ``object_id_left, ra_left, dec_left, ..., object_id_right, ..., separation_arcsec`` (computed here for
        pairs that were matched by key), units in the fields' metadata.

    Raises:
        UserError: with these suffixes two columns would have one name.
    """
    return matches_table(np.stack([pairs.left, pairs.right]), [pairs.separation], (left, right), suffixes)


def matches_table(
    rows: np.ndarray, separations: Sequence[np.ndarray | None], tables: Sequence[pa.Table], suffixes: Sequence[str]
) -> pa.Table:
    """A row a match of two or more catalogues; see ``pairs_table``.

    Args:
        rows: int64 (catalogues, matches), row numbers in each; -1 where there is no match: its columns are null.
        separations: of all but the first catalogue, from the first, arcsec; None where they are yet to be computed.
        tables, suffixes: of each catalogue.

    Raises:
        UserError: see ``pairs_table``.
    """
    parts = [
        table.take(pa.array(numbers, mask=numbers < 0)).rename_columns([name + suffix for name in table.schema.names])
        for table, numbers, suffix in zip(tables, rows, suffixes, strict=True)
    ]
    columns = [column for part in parts for column in part.columns]
    fields = [field for part in parts for field in part.schema]
    for part, suffix, apart in zip(parts[1:], suffixes[1:], separations, strict=True):
        if apart is None:
            ends = (parts[0][f"ra{suffixes[0]}"], parts[0][f"dec{suffixes[0]}"], part[f"ra{suffix}"], part[f"dec{suffix}"])
            apart = separation_arcsec(*(end.to_numpy() for end in ends))
        name = "separation_arcsec" if len(parts) == 2 else f"separation_arcsec{suffix}"
        fields.append(pa.field(name, pa.float64(), metadata={"unit": "arcsec"}))
        columns.append(pa.chunked_array([pa.array(apart, mask=np.isnan(apart) if (rows < 0).any() else None)]))
    names = [field.name for field in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two columns would be called {', '.join(twice)}: choose other suffixes than {tuple(suffixes)}")
    return pa.table(columns, schema=pa.schema(fields))


def check_output(path: str | Path) -> str:
    """The ending of a file that pairs can be written to; before the work, rather than after it.

    Raises:
        UserError: another ending, or the file cannot be made there.
    """
    path = Path(path)
    ending = next((each for each in ENDINGS if path.name.lower().endswith(each)), None)
    if ending is None:
        raise UserError(f"{path}: pairs are written as {', '.join(ENDINGS)}")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    path = replaced_by(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: no permission for {path.parent}")
    return ending


def write_pairs(table: pa.Table, path: str | Path) -> None:
    """Write a table as ``.parquet``, ``.fits``, ``.vot`` (these with units), ``.csv`` or ``.csv.gz``, whole or not at all.

    Raises:
        UserError: another ending, or the file cannot be written.
    """
    from skyset.tables.delimited_writer import write_csv
    from skyset.tables.parquet import write_parquet

    path, ending = Path(path), check_output(path)
    try:
        if ending in (".fits", ".vot"):
            _write_astropy(table, path, ending)
        else:
            write = write_parquet if ending == ".parquet" else write_csv
            write(path, table.to_batches(max_chunksize=1 << 16), table.schema)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error


def _write_astropy(table: pa.Table, path: Path, ending: str) -> None:
    """FITS and VOTable, nulls as each has them."""
    from astropy.io import fits
    from astropy.io.votable import from_table
    from astropy.table import Table

    from skyset.files import replacing

    columns = []
    for field, values in zip(table.schema, table.columns, strict=True):
        try:
            columns.append(_astropy_column(field, _plain_type(values)))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"{path}: column {field.name} is {field.type}, which does not fit in: {error}") from error
    made = Table(columns)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        if ending == ".fits":
            fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(made)]).writeto(file)
        else:
            from_table(made).to_xml(file, tabledata_format="binary2")


def _plain_type(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers, booleans and text as they are; dates, times and categories as text, decimals as float64.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: this is nothing of the kind.
    """
    kind = values.type
    if is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return values
    return pc.cast(values, pa.float64() if pa.types.is_decimal(kind) else pa.large_string())


def _astropy_column(field: pa.Field, values: pa.ChunkedArray):
    """A column of an astropy table: missing text is empty, a missing float NaN, a missing integer masked."""
    from astropy.table import Column, MaskedColumn

    about = {"name": field.name, "unit": unit_of(field) or None}
    if is_text(values.type):
        return Column(np.array(pc.cast(values, pa.large_string()).fill_null("").to_pylist(), str), **about)
    if pa.types.is_floating(values.type) or not values.null_count:
        return Column(values.to_numpy(), **about)
    return MaskedColumn(values.fill_null(0).to_numpy(), mask=values.is_null().to_numpy(), **about)


def _filled(table: pa.Table, name: str) -> pa.Table:
    """What partitions have in place of nulls: NaN, and empty text."""
    column = table[name]
    if name.startswith("object_id"):
        column = pc.fill_null(pc.cast(column, pa.string()), "")
    elif pa.types.is_floating(column.type):
        column = pc.fill_null(column, float("nan"))
    return table.set_column(table.schema.get_field_index(name), name, column)


def write_partitions(
    table: pa.Table, root: Path, survey: Survey, command: Sequence[str], sources: Sequence[str]
) -> Manifest:
    """Write pairs as HEALPix partitions, in the cells of the left objects.

    Args:
        table: as ``pairs_table`` gives it, with the standard suffixes.
        root: a new or empty folder.
        survey: the declaration of the columns.
        command, sources: for the manifest.

    Raises:
        UserError: the folder has something in it, or a name is too long for its column.
    """
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise UserError(f"{root} is not empty: choose another folder")
    names = {"object_id": "object_id_left", "ra": "ra_left", "dec": "dec_left"}
    for name in table.schema.names:  # where the right one has no match
        if table[name].null_count:
            table = _filled(table, name)
    columns = {name: table[names.get(name, name)].to_numpy() for name in survey.by_name if name not in ("pair", "healpix")}
    ids = (pc.cast(table[f"object_id_{side}"], pa.string()) for side in ("left", "right"))
    columns["pair"] = pc.binary_join_element_wise(*ids, "|").to_numpy()
    columns["healpix"] = healpix_cell(columns["ra"], columns["dec"])
    order = np.lexsort((columns["pair"].astype(str), columns["healpix"]))
    cells, starts = np.unique(columns["healpix"][order], return_index=True)
    entries = []
    for cell, rows in zip(cells.tolist(), np.split(order, starts[1:]), strict=True):
        path = partition_path(cell)
        with PartitionWriter(root / path, survey.columns, len(rows), {"survey": survey.name, "healpix": cell}) as writer:
            for row in rows.tolist():
                try:
                    writer.append(survey.record({name: values[row] for name, values in columns.items()}))
                except RecordError as error:
                    raise UserError(f"pair {columns['pair'][row]}: {error}") from error
        entries.append(describe_file(root, path, survey, "train"))
    root.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(survey.name, list(survey.columns), survey.key, entries, list(sources), {"command": list(command)})
    manifest.save(root)
    return manifest
