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

import os
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import PartitionError
from skyset.errors import RecordError
from skyset.errors import UserError
from skyset.files import replaced_by
from skyset.partitions.layout import partition_path
from skyset.partitions.manifest import Manifest
from skyset.partitions.manifest import describe_file
from skyset.partitions.partition import Partition
from skyset.partitions.writer import PartitionWriter
from skyset.sky import healpix_cell
from skyset.survey import Survey

#: Pairs that one call gives at most: 24 bytes each, and as much again for a moment while they are put together.
MAX_PAIRS = 200_000_000
MAX_RADIUS_ARCSEC = 90 * 3600.0
#: Usual names, in any case, of the column of objects' names: the first that a catalogue has.
NAMES = ("object_id", "iauname", "id_str", "objid", "source_id", "id", "name", "number")
#: Usual names, in any case, of right ascension and declination in degrees: of catalogues, of VizieR, of SExtractor.
POSITIONS = (
    ("ra", "dec"), ("raj2000", "dej2000"), ("raj2000", "decj2000"), ("_raj2000", "_dej2000"), ("ra_icrs", "de_icrs"),
    ("ra_icrs", "dec_icrs"), ("ra_j2000", "dec_j2000"), ("ra_deg", "dec_deg"), ("radeg", "decdeg"), ("radeg", "dedeg"),
    ("alphawin_j2000", "deltawin_j2000"), ("alpha_j2000", "delta_j2000"), ("alphawin_sky", "deltawin_sky"),
    ("alpha_sky", "delta_sky"), ("alphawin_world", "deltawin_world"), ("alpha_world", "delta_world"),
    ("right_ascension", "declination"),
)  # fmt: skip
#: What pairs are written as, by the ending of the file.
ENDINGS = (".parquet", ".csv", ".csv.gz", ".fits", ".vot")
#: Added to the radius where candidates are looked up, in degrees: far more than rounding could lose.
_SLACK_DEG = 1e-6
#: A stripe's number and the right ascension in units of 360 / 2**34 degrees (0.08 mas) make one sorted int64.
_RA_BITS = 34
_RA_UNITS = 2**_RA_BITS / 360.0
#: Candidates that are looked at together; an object with more than these makes a chunk alone.
_CHUNK = 1 << 18


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of rows of two catalogues, sorted by the left row.

    Attributes:
        left, right: int64 (pairs,), row numbers in the two catalogues.
        separation: float64 (pairs,), arcsec; None where positions were not looked at.
    """

    left: np.ndarray
    right: np.ndarray
    separation: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.left)

    def where(self, keep: np.ndarray) -> Pairs:
        """Those for which ``keep``, bool (pairs,), is true."""
        return Pairs(self.left[keep], self.right[keep], None if self.separation is None else self.separation[keep])


# --- By position ----------------------------------------------------------------------------------


def match_positions(ra1, dec1, ra2, dec2, radius_arcsec: float, max_pairs: int = MAX_PAIRS) -> Pairs:
    """All pairs whose separation, as given in the answer, is not larger than the radius.

    Args:
        ra1, dec1: left positions, (n,), degrees; any right ascension is taken modulo 360.
        ra2, dec2: right positions, (m,), degrees.
        radius_arcsec: 0 (the same position) to 90 degrees.
        max_pairs: more than these are an error. Where there could be more, they are counted before any is kept.

    Returns:
        Pairs sorted by left row, separation and right row.

    Raises:
        UserError: a position is missing, NaN or not on the sky, the radius is out of range, or there are too many pairs.
        ValueError: ra and dec are not one-dimensional and of one length.
    """
    if not 0 <= radius_arcsec <= MAX_RADIUS_ARCSEC:
        raise UserError(f"radius is {radius_arcsec} arcsec; it must be from 0 to {MAX_RADIUS_ARCSEC:g} (90 degrees)")
    left, right = _positions(ra1, dec1, "left"), _positions(ra2, dec2, "right")
    runs, right_order = _candidates(*left, *right, radius_arcsec / 3600)

    def found() -> Iterator[Pairs]:
        for pairs in _chunks(runs, right_order):
            separation = separation_arcsec(*(x[pairs.left] for x in left), *(x[pairs.right] for x in right))
            close = separation <= radius_arcsec
            yield Pairs(pairs.left[close], pairs.right[close], separation[close])

    if runs.counts.sum() > max_pairs:
        _check_count((len(pairs) for pairs in found()), max_pairs, f"within {radius_arcsec:g} arcsec")
    return _joined(map(_sorted, found()))


def separation_arcsec(ra1, dec1, ra2, dec2) -> np.ndarray:
    """Great-circle separations, float64, of positions in degrees, by the haversine formula.

    Differences are taken in degrees before any rounding, so that small separations are as accurate as the positions
    (relative error some 1e-15; near 180 degrees 1e-8).
    """
    ra = np.abs(np.subtract(ra1, ra2, dtype=np.float64))
    ra = np.minimum(ra, np.abs(360.0 - ra))
    dec = np.subtract(dec1, dec2, dtype=np.float64)
    cosines = np.cos(np.radians(dec1, dtype=np.float64)) * np.cos(np.radians(dec2, dtype=np.float64))
    square = np.sin(np.radians(dec / 2)) ** 2 + cosines * np.sin(np.radians(ra / 2)) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.minimum(square, 1.0)))) * 3600


def _positions(ra, dec, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Checked degrees, float64, with 0 <= ra <= 360; masked values count as NaN."""
    ra, dec = (np.ma.filled(np.ma.asarray(x).astype(np.float64), np.nan) for x in (ra, dec))
    if ra.ndim != 1 or ra.shape != dec.shape:
        raise ValueError(f"{side} ra has shape {ra.shape}, dec {dec.shape}")
    if bad := int(np.count_nonzero(~(np.isfinite(ra) & np.isfinite(dec)))):
        raise UserError(f"{bad} of {len(ra)} positions of the {side} catalogue are missing (NaN or infinite)")
    if bad := int(np.count_nonzero(np.abs(dec) > 90)):
        raise UserError(f"{bad} of {len(ra)} positions of the {side} catalogue are not on the sky: dec beyond +-90 degrees")
    return np.mod(ra, 360.0), dec


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of candidates, sorted by ``rows``: the left row, where the run starts in the right order, and its length."""

    rows: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


def _candidates(ra1, dec1, ra2, dec2, radius_deg: float) -> tuple[_Runs, np.ndarray]:
    """Runs of all right objects that may lie within the radius of each left one, and the right rows' order, int64."""
    reach = radius_deg + _SLACK_DEG
    height = 2.5 * reach  # more than the 2 that a circle is high: it touches two stripes at most, whatever is rounded
    keys = _zone_keys(_stripe(dec2, height), ra2)
    right_order = np.argsort(keys)
    keys = np.append(keys[right_order], np.iinfo(np.int64).max)  # a last one that no search goes beyond
    # Left objects in the order of the right ones look at neighbouring memory.
    order = np.argsort(_zone_keys(_stripe(dec1, height), ra1))
    ra1, dec1 = ra1[order], dec1[order]
    low, high = _stripe(dec1 - reach, height), _stripe(dec1 + reach, height)
    runs = []
    for rows, west, east in _ra_ranges(ra1, dec1, reach):
        runs.append(_look_up(keys, rows, low[rows], west, east))
        two = high[rows] > low[rows]
        runs.append(_look_up(keys, rows[two], high[rows[two]], west[two], east[two]))
    rows, starts, counts = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    rows = order[rows]
    by_row = np.argsort(rows, kind="stable")
    return _Runs(rows[by_row], starts[by_row], counts[by_row]), right_order


def _stripe(dec: np.ndarray, height: float) -> np.ndarray:
    return np.floor((dec + 90.0) / height).astype(np.int64)


def _zone_keys(stripe: np.ndarray, ra: np.ndarray) -> np.ndarray:
    """Sorted as stripe, then right ascension. Every step is monotonic: rounding cannot swap two objects."""
    return (stripe << _RA_BITS) + np.minimum((ra * _RA_UNITS).astype(np.int64), 2**_RA_BITS - 1)


def _ra_ranges(ra: np.ndarray, dec: np.ndarray, reach: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Where pairs can lie in right ascension: (rows, west, east) within 0..360, a second range where RA = 0 is crossed."""
    polar = np.abs(dec) + reach + _SLACK_DEG >= 90.0
    sine = np.sin(np.radians(reach)) / np.where(polar, 1.0, np.cos(np.radians(dec)))
    width = np.where(polar, 360.0, np.degrees(np.arcsin(np.minimum(sine, 1.0))))
    west, east = ra - width, ra + width
    yield np.arange(len(ra)), np.maximum(west, 0.0), np.minimum(east, 360.0)
    rows = np.flatnonzero((west < 0) & ~polar)
    yield rows, west[rows] + 360.0, np.full(len(rows), 360.0)
    rows = np.flatnonzero((east >= 360) & ~polar)
    yield rows, np.zeros(len(rows)), east[rows] - 360.0


def _look_up(keys: np.ndarray, rows: np.ndarray, stripe: np.ndarray, west: np.ndarray, east: np.ndarray) -> tuple:
    """Runs of ``keys`` between west and east in a stripe, of the rows that have any: (rows, starts, counts)."""
    first, last = _zone_keys(stripe, west), _zone_keys(stripe, east)
    starts = np.searchsorted(keys, first)
    some = np.flatnonzero(keys[starts] <= last)  # most objects of most catalogues have no candidate: no second search
    starts = starts[some]
    return rows[some], starts, np.searchsorted(keys, last[some], side="right") - starts


def _chunks(runs: _Runs, right_order: np.ndarray) -> Iterator[Pairs]:
    """Candidate pairs in pieces of about ``_CHUNK``, all those of a left row in one piece."""
    if not len(runs.rows):
        return
    ends = np.append(np.flatnonzero(np.diff(runs.rows)) + 1, len(runs.rows))  # of each left row's runs
    totals = np.append(0, np.cumsum(runs.counts)[ends - 1])  # candidates before each left row
    group = begin = 0
    while begin < len(runs.rows):
        group = max(group + 1, int(np.searchsorted(totals, totals[group] + _CHUNK, side="right")) - 1)
        piece = slice(begin, ends[group - 1])
        counts = runs.counts[piece]
        yield Pairs(np.repeat(runs.rows[piece], counts), right_order[_expanded(runs.starts[piece], counts)])
        begin = piece.stop


def _expanded(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``starts[0], starts[0] + 1, ...`` as many as ``counts[0]``, and so on."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _sorted(pairs: Pairs) -> Pairs:
    if len(pairs) < 2 or np.all(pairs.left[1:] > pairs.left[:-1]):
        return pairs
    return pairs.where(np.lexsort((pairs.right, pairs.separation, pairs.left)))


def _check_count(counts: Iterator[int] | Sequence[int], max_pairs: int, which: str) -> None:
    total = 0
    for count in counts:
        total += count
        if total > max_pairs:
            raise UserError(f"more than {max_pairs:,} pairs {which}: ask for less, or allow more (max_pairs)")


def _joined(parts: Iterator[Pairs]) -> Pairs:
    parts, empty = list(parts), Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(
        *(np.concatenate([getattr(part, name) for part in (empty, *parts)]) for name in ("left", "right", "separation"))
    )


def nearest(pairs: Pairs, one_to_one: bool = False) -> Pairs:
    """The nearest right row of each left row; of equally near ones the first.

    Args:
        pairs: as ``match_positions`` gives them.
        one_to_one: only those where the left row is also the nearest of the right one.

    Raises:
        UserError: the pairs have no separations.
    """
    if pairs.separation is None:
        raise UserError("pairs that were matched by key have no separations, so none is the nearest")
    chosen = _first_of(pairs.left)
    if one_to_one:
        order = np.lexsort((pairs.left, pairs.separation, pairs.right))
        back = np.zeros(len(pairs), bool)
        back[order] = _first_of(pairs.right[order])
        chosen &= back
    return pairs.where(chosen)


def _first_of(rows: np.ndarray) -> np.ndarray:
    """True where a run of equal rows begins."""
    return np.append(True, rows[1:] != rows[:-1])[: len(rows)]


# --- By key ---------------------------------------------------------------------------------------


def match_keys(left, right, max_pairs: int = MAX_PAIRS) -> Pairs:
    """All pairs of equal keys; a key that is repeated gives every combination.

    Keys are compared exactly: letter case, blanks and leading zeros matter, and 64-bit integers never pass through floating
    point. Integers on one side and text on the other are compared as written in decimal digits.

    Args:
        left, right: keys, (n,) and (m,): Arrow arrays, numpy arrays (S, U, integers, masked ones too), Series or lists.
            Missing, empty and blank ones match nothing.
        max_pairs: more than these are an error.

    Returns:
        Pairs sorted by left and right row, without separations.

    Raises:
        UserError: keys are neither text nor integers (floating point does not hold 64-bit identifiers), or there are too
            many pairs.
    """
    left, right = _keys(left, "left"), _keys(right, "right")
    if left.type != right.type:
        left, right = left.cast(pa.large_string()), right.cast(pa.large_string())
    codes = pa.concat_arrays([left, right]).dictionary_encode()
    distinct = len(codes.dictionary)
    # Missing keys get a number of their own, one beyond the last.
    numbers = pc.fill_null(codes.indices, distinct).to_numpy()
    left, right = numbers[: len(left)], numbers[len(left) :]
    counts = np.bincount(right, minlength=distinct + 1)
    order, starts = np.argsort(right, kind="stable"), np.cumsum(counts) - counts
    counts[distinct] = 0
    _check_count([int(counts[left].sum())], max_pairs, "of equal keys")
    rows = np.repeat(np.arange(len(left)), counts[left])
    return Pairs(rows, order[_expanded(starts[left], counts[left])])


def _keys(values, side: str) -> pa.Array:
    """Keys as one Arrow array, int64 or large_string; null where there is none."""
    try:
        if not isinstance(values, (pa.Array, pa.ChunkedArray)):
            values = pa.array(_native(values), from_pandas=True)
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_integer(values.type):
            return values.cast(pa.int64())
        if not _is_text(values.type):
            advice = "; floating point does not hold 64-bit identifiers" * pa.types.is_floating(values.type)
            raise UserError(f"keys of the {side} catalogue are {values.type}, neither text nor integers{advice}")
        values = values.cast(pa.large_string())
    except pa.ArrowException as error:
        raise UserError(f"keys of the {side} catalogue cannot be compared: {str(error)[:200]}") from error
    blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(values)), 0)
    return pc.if_else(blank, pa.scalar(None, values.type), values)


def _native(values):
    """Big-endian numbers, as FITS has them, in the byte order that Arrow takes."""
    if isinstance(values, np.ndarray) and not values.dtype.isnative:
        return values.astype(values.dtype.newbyteorder("="))
    return values


def _is_text(kind: pa.DataType) -> bool:
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary", "null")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


# --- Catalogues and the table of pairs ------------------------------------------------------------


def catalogue_of(
    source: str | Path,
    columns: Sequence[str] = (),
    object_id: str = "object_id",
    ra: str = "ra",
    dec: str = "dec",
    positions: bool = True,
) -> pa.Table:
    """Names and positions of all objects; no pixel is read.

    Args:
        source: a folder of skyset partitions (or the URL of one), or a file that ``skyset.catalog.open_catalog`` reads.
        columns: further columns, one value a row.
        object_id, ra, dec: what these columns are called there.
        positions: whether a file has to have them; where it has not, they are null.

    Returns:
        Table of ``object_id``, ``ra``, ``dec`` (float64, degrees) and the further columns under their own names, with their
        ``unit`` in the fields' metadata. Rows are in the order of the manifest's files and of the rows in them.

    Raises:
        UserError: there is no such catalogue or column, it is damaged, a column has several values a row, identifiers went
            through floating point, or positions are no numbers or not in degrees.
    """
    wanted = {"object_id": object_id, "ra": ra, "dec": dec}
    for name in columns:
        if wanted.setdefault(name, name) != name:
            raise UserError(f"{source}: {wanted[name]} is to be called {name}, which is another column there")
    is_folder = _is_folder(source)
    names = list(dict.fromkeys(wanted.values()))
    if not is_folder and not positions:
        names = [name for name in names if name not in (ra, dec) or name in _names_in(str(source))]
    table = (_read_folder if is_folder else _read_file)(str(source), names)
    for name in wanted.values() if not positions else ():
        if name not in table.schema.names:
            table = table.append_column(pa.field(name, pa.float64()), pa.nulls(table.num_rows, pa.float64()))
    _check_ids(table, object_id, source)
    fields = [table.schema.field(name).with_name(new) for new, name in wanted.items()]
    table = pa.table([table[name] for name in wanted.values()], schema=pa.schema(fields))
    for name in ("ra", "dec"):
        table = _in_degrees(table, name, str(source))
    return table.combine_chunks()


def _read_folder(root: str, names: list[str]) -> pa.Table:
    from skyset.catalog import require

    manifest, root = Manifest.load(root), root.rstrip("/")
    known = {column.name: column for column in manifest.columns}
    columns = [known[require(list(known), name, root)] for name in names]
    for column in columns:
        if column.shape or column.is_bytes:
            raise UserError(f"{root}: column {column.name} has no one value a row")
    schema = pa.schema([pa.field(c.name, pa.string() if c.is_text else pa.from_numpy_dtype(c.dtype),
                                 metadata={"unit": c.unit} if c.unit else None) for c in columns])  # fmt: skip
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
    from skyset.catalog import open_catalog

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
        found = tuple(_alike(known, usual) for usual in pair)
        if all(found):
            return found
    there = ", ".join(known[:60])
    raise UserError(f"{source}: which columns are the positions? --ra COLUMN --dec COLUMN (there are: {there})")


def _alike(known: Sequence[str], usual: str) -> str | None:
    """The column of this name, or of this name in other letters."""
    return usual if usual in known else next((name for name in known if name.lower() == usual), None)


def _named(known: Sequence[str], wanted: str, source: str | Path) -> str:
    from skyset.catalog import require

    return require(list(known), wanted, str(source))


def columns_in(sources: Sequence[str | Path], wanted: Sequence[str]) -> list[list[str]]:
    """Which of the further columns each catalogue has.

    Raises:
        UserError: a column that none has.
    """
    found = [[name for name in wanted if name in _names_in(str(source))] for source in sources]
    if missing := [name for name in wanted if not any(name in names for names in found)]:
        raise UserError(f"neither {sources[0]} nor {sources[1]} has a column {missing[0]}")
    return found


def _is_folder(source: str | Path) -> bool:
    return "://" in str(source) or Path(source).is_dir() or not Path(source).suffix


def _names_in(source: str) -> list[str]:
    from skyset.catalog import column_names

    if _is_folder(source):
        return [column.name for column in Manifest.load(source.rstrip("/")).columns]
    return column_names(source)


def _check_ids(table: pa.Table, name: str, source: str | Path) -> None:
    from skyset.catalog import check_ids

    try:
        check_ids(table, name)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _in_degrees(table: pa.Table, name: str, source: str) -> pa.Table:
    """The table with this column as float64, unit ``deg``."""
    place = table.schema.get_field_index(name)
    kind, unit = table.schema.field(place).type, _unit(table.schema.field(place))
    if table[name].null_count == table.num_rows:  # a CSV column without values has no type
        kind = pa.float64()
        table = table.set_column(place, pa.field(name, kind), pa.nulls(table.num_rows, kind))
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise UserError(f"{source}: {name} is {kind}; positions in decimal degrees are needed")
    if unit.lower() not in ("", "deg", "degree", "degrees"):
        raise UserError(f"{source}: {name} is in {unit}; degrees are needed")
    return table.set_column(place, pa.field(name, pa.float64(), metadata={"unit": "deg"}), table[name].cast(pa.float64()))


def _unit(field: pa.Field) -> str:
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
    tables = [
        table.take(pa.array(rows)).rename_columns([name + suffix for name in table.schema.names])
        for table, rows, suffix in zip((left, right), (pairs.left, pairs.right), suffixes, strict=True)
    ]
    separation = pairs.separation
    if separation is None:
        separation = separation_arcsec(*(tables[i][name + suffixes[i]].to_numpy() for i in (0, 1) for name in ("ra", "dec")))
    fields = [*tables[0].schema, *tables[1].schema, pa.field("separation_arcsec", pa.float64(), metadata={"unit": "arcsec"})]
    names = [field.name for field in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two columns would be called {', '.join(twice)}: choose other suffixes than {suffixes}")
    return pa.table([*tables[0].columns, *tables[1].columns, separation], schema=pa.schema(fields))


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
    from skyset.catalog import write_csv
    from skyset.catalog import write_parquet

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

    made = Table([_astropy_column(field, values) for field, values in zip(table.schema, table.columns, strict=True)])
    with replacing(path) as temporary, open(temporary, "wb") as file:
        if ending == ".fits":
            fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(made)]).writeto(file)
        else:
            from_table(made).to_xml(file, tabledata_format="binary2")


def _astropy_column(field: pa.Field, values: pa.ChunkedArray):
    """A column of an astropy table: missing text is empty, a missing float NaN, a missing integer masked."""
    from astropy.table import Column
    from astropy.table import MaskedColumn

    about = {"name": field.name, "unit": _unit(field) or None}
    if _is_text(field.type):
        return Column(np.array(pc.cast(values, pa.large_string()).fill_null("").to_pylist(), str), **about)
    if pa.types.is_floating(field.type) or not values.null_count:
        return Column(values.to_numpy(), **about)
    return MaskedColumn(values.fill_null(0).to_numpy(), mask=values.is_null().to_numpy(), **about)


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
