"""Faults that trees have: those of MultimodalUniverse's builders, and those of folders at large."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from skyset.errors import UserError
from skyset.sky import healpix_cell
from skyset.testing.mmu.layout import Layout
from skyset.testing.mmu.rows import LightCurve, Piece, Planted, Row, id_of

RA = ("ra", "RA", "PLUG_RA", "TARGET_RA")
DEC = ("dec", "DEC", "PLUG_DEC", "TARGET_DEC")
#: What ``nan_to_num(1 / 0)`` is in float32.
LARGEST = np.finfo(np.float32).max

#: Changes a file before it is written: gives it back, with what was planted.
Spoil = Callable[[Piece, Layout], tuple[Piece, list[Planted]]]


@dataclass(frozen=True)
class Fault:
    """A fault that can be planted.

    Attributes:
        about: one line.
        forms: of trees that can have it.
        spoil: see `Spoil`; None where `skyset.testing.mmu.damage` does it to written files.
        needs: attributes of the layout that must not be empty.
    """

    about: str
    forms: tuple[str, ...] = ("columns", "objects", "groups")
    spoil: Spoil | None = None
    needs: tuple[str, ...] = ()


def check_faults(names: Collection[str], layout: Layout) -> None:
    """Raise UserError unless all of the faults exist and this survey's tree can have them."""
    for name in names:
        if name not in FAULTS:
            raise UserError(f"{name!r} is no fault that can be planted; these can: {', '.join(FAULTS)}")
        fault = FAULTS[name]
        if layout.form not in fault.forms or not any(getattr(layout, need) for need in fault.needs or ("name",)):
            raise UserError(f"a tree of {layout.name} cannot have the fault {name!r}: {fault.about}")


def spoil(piece: Piece, layout: Layout, faults: Collection[str]) -> tuple[Piece, list[Planted]]:
    """Plant faults in a file that is about to be written; those of whole files come later."""
    planted: list[Planted] = []
    for name, fault in FAULTS.items():
        change = fault.spoil
        if name in faults and change is not None:
            piece, new = change(piece, layout)
            planted += new
    return piece, planted


def move(row: Row, ra: float, dec: float) -> Row:
    """A row somewhere else; its `healpix` says so, as the builders' does."""
    moved = dict(row)
    for names, value in ((RA, ra), (DEC, dec)):
        moved |= {name: _like(row[name], value) for name in names if name in row}
    if "healpix" in row:
        moved["healpix"] = np.int64(healpix_cell(ra, dec))
    return moved


def _like(old: np.generic | np.ndarray, value: float) -> np.generic | np.ndarray:
    """A number of another's dtype, scalar or array of no axes as that is."""
    return np.array(value, old.dtype) if isinstance(old, np.ndarray) else old.dtype.type(value)


def _position(row: Row) -> tuple[float, float]:
    ra, dec = (next(float(row[name]) for name in names if name in row) for names in (RA, DEC))
    return ra, dec


def _every(piece: Piece, layout: Layout, name: str, what: str, change: Callable[[Row], Row]) -> tuple[Piece, list[Planted]]:
    """Change all rows of all files: planted once, in the first."""
    planted = [Planted(name, "", what=what)] if piece.number == 0 else []
    return replace(piece, rows=[change(dict(row)) for row in piece.rows]), planted


def wrong_cell(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    """As jwst's builder does: half of the first file's rows lie on the other side of the sky."""
    if piece.number:
        return piece, []
    rows, planted = list(piece.rows), []
    for index in range(len(rows) // 2, len(rows)):
        ra, dec = _position(rows[index])
        rows[index] = move(rows[index], (ra + 180) % 360, -dec)
        object_id = id_of(rows[index], layout.key)
        planted.append(Planted("wrong_cell", piece.path, index, object_id, "lies on the other side of the sky"))
    return replace(piece, rows=rows), planted


def nan_position(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    if piece.number:
        return piece, []
    row = piece.rows[0] | {name: _like(piece.rows[0][name], np.nan) for name in RA if name in piece.rows[0]}
    planted = Planted("nan_position", piece.path, 0, id_of(row, layout.key), "right ascension is NaN")
    return replace(piece, rows=[row, *piece.rows[1:]]), [planted]


def hashed_ids(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    """As jwst's builder does: ``id + hash(mosaic)``, another number in every process."""
    rows = []
    for row in piece.rows:
        if not isinstance(row[layout.key], np.integer):
            raise UserError(f"ids of {layout.name} are text: there is nothing to add a hash to")
        rows.append(row | {layout.key: np.int64(row[layout.key]) + np.int64(-4611686018427387847)})
    planted = (
        [Planted("hashed_ids", "", what="ids are the archive's and Python's hash of a text")] if not piece.number else []
    )
    return replace(piece, rows=rows), planted


def restarting_ids(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    """As chandra's and legacysurvey's (gid) do: the number of the row in the file."""
    old = piece.rows[0][layout.key]
    rows = []
    for index, row in enumerate(piece.rows):
        rows.append(row | {layout.key: str(index).encode() if isinstance(old, bytes) else old.dtype.type(index)})
    planted = [Planted("restarting_ids", "", what="ids begin again with 0 in every file")] if not piece.number else []
    return replace(piece, rows=rows), planted


def duplicate_ids(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    """As legacysurvey's builder does when it runs again: rows appended that are there."""
    if piece.number:
        return piece, []
    again = piece.rows[:2]
    rows = [*piece.rows, *(dict(row) for row in again)]
    planted = [
        Planted("duplicate_ids", piece.path, len(piece.rows) + index, id_of(row, layout.key), f"is row {index} again")
        for index, row in enumerate(again)
    ]
    return replace(piece, rows=rows), planted


def zero_rows(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    """As gaia's builder does where parts overwrite each other: everything is 0. `tree` adds a file of them."""
    if piece.number:
        return piece, []
    row = zeroed(piece.rows[0])
    planted = Planted("zero_rows", piece.path, len(piece.rows), id_of(row, layout.key), "everything is 0")
    return replace(piece, rows=[*piece.rows, row]), [planted]


def zeroed(row: Row) -> Row:
    """A row of zeros of the same shapes and types."""
    out: Row = {}
    for name, value in row.items():
        if isinstance(value, LightCurve):
            points = {key: [np.zeros_like(part) for part in parts] for key, parts in value.points.items()}
            out[name] = LightCurve(value.bands, points)
        elif isinstance(value, bytes | str):
            out[name] = type(value)()
        else:
            out[name] = np.zeros_like(value) if isinstance(value, np.ndarray) else type(value)(0)
    return out


def empty_band(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    """As plasticc's builder does: the last band is there, and nothing in it."""

    def emptied(row: Row) -> Row:
        if "lightcurve" in row:
            curve = row["lightcurve"]
            row["lightcurve"] = LightCurve(
                curve.bands, {name: [*parts[:-1], parts[-1][:0]] for name, parts in curve.points.items()}
            )
            return row
        for name in ("image_array", "image_flux", "image_ivar"):
            if name in row:
                row[name] = row[name].copy()
                row[name][-1] = 0
        return row

    row = piece.rows[0]
    if "lightcurve" not in row and "image_band" not in row:
        raise UserError(f"a tree of {layout.name} cannot have the fault 'empty_band': it has no bands")
    last = row["lightcurve"].bands[-1] if "lightcurve" in row else row["image_band"][-1].decode()
    return _every(piece, layout, "empty_band", f"nothing in band {last}", emptied)


def inverted_mask(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    """As ``not bool(ZWARN)``: flags of 0, which is good, become 1; masks of good pixels those of bad ones."""

    def inverted(row: Row) -> Row:
        row |= {name: ~row[name] for name in layout.masks}
        return row | {name: _like(row[name], not row[name]) for name in layout.flags}

    return _every(piece, layout, "inverted_mask", ", ".join((*layout.masks, *layout.flags)), inverted)


def infinite_ivar(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    """As hsc's builder does: ``nan_to_num(1 / variance)`` of a variance of 0."""

    def largest(row: Row) -> Row:
        return row | {layout.ivar: np.where(row[layout.ivar] == 0, LARGEST, row[layout.ivar]).astype(np.float32)}

    return _every(piece, layout, "infinite_ivar", f"{layout.ivar} is {LARGEST:.4g} where it should be 0", largest)


def two_dtypes(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    if piece.number != 1:
        return piece, []
    name = _scalar(piece.rows[0], layout)
    wider = np.float64 if piece.rows[0][name].dtype.itemsize < 8 else np.float32
    planted = Planted("two_dtypes", piece.path, what=f"{name} is {np.dtype(wider)} here")
    return replace(piece, rows=[row | {name: wider(row[name])} for row in piece.rows]), [planted]


def clashing_dtypes(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    if piece.number != 1:
        return piece, []
    name = _scalar(piece.rows[0], layout)
    rows = [row | {name: f"{float(row[name]):.3f}".encode()} for row in piece.rows]
    return replace(piece, rows=rows), [Planted("clashing_dtypes", piece.path, what=f"{name} is text here")]


def missing_column(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    if piece.number != 1:
        return piece, []
    name = _scalar(piece.rows[0], layout)
    rows = [{key: value for key, value in row.items() if key != name} for row in piece.rows]
    return replace(piece, rows=rows), [Planted("missing_column", piece.path, what=f"{name} is not here")]


def _scalar(row: Row, layout: Layout) -> str:
    """The first number of the catalogue that is neither id nor position."""
    known = {layout.key, "healpix", *RA, *DEC}
    return next(name for name, value in row.items() if name not in known and _is_float(value))


def _is_float(value: object) -> bool:
    return isinstance(value, np.generic | np.ndarray) and value.ndim == 0 and value.dtype.kind == "f"


def not_healpix(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    if piece.number > 1:
        return piece, []
    folder = ("healpix=9999", "tract=9813")[piece.number]
    path = re.sub(r"healpix=\d+", folder, piece.path)
    return replace(piece, path=path), [Planted("not_healpix", path, what=f"{folder} is no cell of nside 16")]


def radians(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    def turned(row: Row) -> Row:
        return row | {name: _like(row[name], np.radians(float(row[name]))) for name in (*RA, *DEC) if name in row}

    return _every(piece, layout, "radians", "positions are radians", turned)


def hours(piece: Piece, layout: Layout) -> tuple[Piece, list[Planted]]:
    def turned(row: Row) -> Row:
        return row | {name: _like(row[name], float(row[name]) / 15) for name in RA if name in row}

    return _every(piece, layout, "hours", "right ascension is hours", turned)


TABLES = ("columns",)
#: By name, in the order in which they are planted: ids before what names them, rows that are added last. Those with a
#: survey in brackets are faults of MultimodalUniverse's builders.
FAULTS: dict[str, Fault] = {
    "hashed_ids": Fault("ids with Python's hash of a text added (jwst)", TABLES, hashed_ids),
    "restarting_ids": Fault("ids are numbers of rows, and begin again in every file (chandra)", TABLES, restarting_ids),
    "wrong_cell": Fault("rows of the first file lie in another cell (jwst)", spoil=wrong_cell),
    "empty_band": Fault("the last band has no points, or pixels (plasticc)", ("columns", "objects"), empty_band),
    "inverted_mask": Fault("masks and flags say the opposite (desi, sdss)", TABLES, inverted_mask, ("masks", "flags")),
    "infinite_ivar": Fault("ivar is 3.4e38 where it should be 0 (hsc)", TABLES, infinite_ivar, ("ivar",)),
    "nan_position": Fault("the first row's right ascension is NaN", spoil=nan_position),
    "two_dtypes": Fault("one column of the second file has another precision", spoil=two_dtypes),
    "clashing_dtypes": Fault("one column of the second file is text, elsewhere numbers", spoil=clashing_dtypes),
    "missing_column": Fault("one column is missing in the second file", spoil=missing_column),
    "not_healpix": Fault("folders of the first two files are no cells of nside 16", spoil=not_healpix),
    "radians": Fault("positions are radians", spoil=radians),
    "hours": Fault("right ascension is hours", spoil=hours),
    "zero_rows": Fault("rows of which everything is 0 (gaia)", TABLES, zero_rows),
    "duplicate_ids": Fault("rows that are there twice, by a second run (legacysurvey)", TABLES, duplicate_ids),
    "foreign_file": Fault("a text and a FITS file lie among them"),
    "foreign_hdf5": Fault("an HDF5 file of something else lies among them"),
    "not_hdf5": Fault("a file that is called .hdf5 and is none"),
    "truncated": Fault("the last file ends too early"),
    "tiny_files": Fault("every row is a file of its own"),
}
