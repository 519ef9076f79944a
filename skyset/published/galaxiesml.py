"""GalaxiesML as its authors published it (Zenodo record 11117528): its keys, and the survey's columns made of them.

``5x127x127_{training,validation,testing}_with_morphology.hdf5`` and the same of ``5x64x64``: one dataset a key, row = axis
0, ``image`` float32 (5, S, S) in g, r, i, z, y; a CSV of the same name has the rest. Three things are not what their names
say, and are put right here, both ways: a band in which the galaxy was not found has 0.0 in all its shape columns (NaN for
us), ``peak_surface_brightness`` is MU_MAX at magnitude zero point 0 (27 is added), ``petro_rad`` is PETRO_RADIUS, a factor
of A_IMAGE of which half is the radius. Of positions in the stamp there are three datasets, named by merges of tables:
``x_coord`` (rows,) is the y band's, ``x_coord_x`` (rows, 2) has z and g, ``x_coord_y`` (rows, 2) has i and r.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from skyset.errors import PartitionError, RecordError
from skyset.partitions.adopted import AdoptedFile, Form, Lying, stored_in, warn_of_equal_planes
from skyset.published.table import AdoptedTable, table_keys, table_rows
from skyset.published.writer import KeyedWriter
from skyset.sky import healpix_cell
from skyset.survey import Column

BANDS = "grizy"
#: The splits as the files' names have them.
SPLITS = {"train": "training", "validation": "validation", "test": "testing"}
SIZES = (127, 64)
ZERO_POINT = 27.0
#: PETRO_RADIUS is a multiple of A_IMAGE, up to which SExtractor sums: twice the Petrosian radius (PHOT_PETROPARAMS 2.0).
PETROSIAN = 2.0
#: What SExtractor writes for a magnitude that it has not.
_NO_MAGNITUDE = 99.0

#: Zero, all of them, where a galaxy was not found.
SHAPES = (
    "ellipticity",
    "half_light_radius",
    "isophotal_area",
    "major_axis",
    "minor_axis",
    "peak_surface_brightness",
    "petro_rad",
    "pos_angle",
    "sersic_index",
)
COUNTS = tuple(f"central_image_pop_{radius}px_rad" for radius in (5, 10, 15))
#: Which dataset has a band's position, and its column there; None where it has one number a row.
PLACES = {"y": ("", None), "z": ("_x", 0), "g": ("_x", 1), "i": ("_y", 0), "r": ("_y", 1)}
_TEXT = {"coord": "S96", "skymap_id": "S20", "specz_name": "S256"}
_NUMBERS = ("specz_redshift_err", "specz_redshift", "specz_mag_i", "specz_ra", "specz_dec", "ra", "dec")


def file_name(size: int, split: str, suffix: str = ".hdf5") -> str:
    """``5x127x127_training_with_morphology.hdf5`` of a size and one of ours: train, validation, test."""
    return f"5x{size}x{size}_{SPLITS[split]}_with_morphology{suffix}"


def keys(size: int | None) -> tuple[Column, ...]:
    """The datasets of a file as they are published, in the order of the authors' catalogue; without a size, of the CSV.

    Text has shape (1,), in as many bytes as the longest row.
    """
    table = [
        Column("object_id", "int64"),
        *(Column(name, "float64") for name in _NUMBERS[:3]),
        Column("specz_name", _TEXT["specz_name"], (1,)),
        *(Column(name, "float64") for name in _NUMBERS[3:5]),
        Column("specz_flag_homogeneous", "bool"),
        *(Column(name, "float64") for name in _NUMBERS[5:]),
        *(Column(name, _TEXT[name], (1,)) for name in ("coord", "skymap_id")),
        *(Column(f"{band}_{name}", "float64") for name in ("cmodel_mag", "cmodel_magsigma") for band in BANDS),
    ]
    for band in BANDS:
        table += [Column(f"{band}_{name}", "int64") for name in COUNTS]
        table += [Column(f"{band}_{name}", "float64") for name in SHAPES]
    for axis in "xy":
        table += [
            Column(f"{axis}_coord{which}", "float64", shape) for which, shape in (("", ()), ("_x", (2,)), ("_y", (2,)))
        ]
    return (*table, *([Column("image", "float32", (5, size, size))] if size else []))


# --- From their keys to our columns ---------------------------------------------------------------

_Stored = Mapping[str, np.ndarray]


def _flat(values: np.ndarray) -> np.ndarray:
    """One value a row: text has a second axis of one."""
    return values.reshape(len(values)) if values.ndim > 1 else values


def _same(key: str) -> Callable[[_Stored], np.ndarray]:
    return lambda stored: _flat(stored[key])


def _count(key: str) -> Callable[[_Stored], np.ndarray]:
    def make(stored: _Stored) -> np.ndarray:
        values = _flat(stored[key])
        if (other := values[(values != np.round(values)) & (values == values)]).size:
            raise RecordError(f"{key} is {other[0]}, which is no number of pixels")
        return values

    return make


def _text(key: str) -> Callable[[_Stored], np.ndarray]:
    def make(stored: _Stored) -> np.ndarray:
        values = _flat(stored[key])
        if values.dtype.kind == "S" and values.size and np.ascontiguousarray(values).view(np.uint8).max() > 127:
            bad = next(each for each in values.tolist() if not each.isascii())
            raise RecordError(f"{key} is {bad.decode('utf-8', 'replace')!r}, which is not ASCII")
        return values

    return make


def _id(stored: _Stored) -> np.ndarray:
    values = _flat(stored["object_id"])
    if values.dtype.kind == "S" and not (whole := np.char.isdigit(values)).all():
        raise RecordError(f"object_id is {values[int(np.argmin(whole))][:60]!r}, not an integer")
    return values if values.dtype.kind == "S" else values.astype("S20")


def _flag(stored: _Stored) -> np.ndarray:
    values = _flat(stored["specz_flag_homogeneous"])
    if (other := values[(values != 0) & (values != 1) & (values == values)]).size:
        raise RecordError(f"specz_flag_homogeneous is {other[0]}, which is neither 0 nor 1")
    return values == 1  # NaN is not secure


def _cell(stored: _Stored) -> np.ndarray:
    ra, dec = (_flat(stored[name]).astype(float) for name in ("ra", "dec"))
    on_sky = (ra >= 0) & (ra <= 360) & (abs(dec) <= 90)
    return np.where(on_sky, healpix_cell(np.where(on_sky, ra, 0), np.where(on_sky, dec, 0)), -1)


def _not_found(stored: _Stored, band: str) -> np.ndarray:
    return np.logical_and.reduce([_flat(stored[f"{band}_{name}"]) == 0 for name in SHAPES])


def _shape(band: str, name: str) -> Callable[[_Stored], np.ndarray]:
    def make(stored: _Stored) -> np.ndarray:
        values = np.array(_flat(stored[f"{band}_{name}"]), float)
        absent = _not_found(stored, band)
        if name == "peak_surface_brightness":
            absent |= values == _NO_MAGNITUDE
            values += ZERO_POINT
        if name == "petro_rad":
            values *= _flat(stored[f"{band}_major_axis"]) / PETROSIAN
        if name in ("petro_rad", "half_light_radius"):
            absent |= values <= 0
        return np.where(absent, np.nan, values)

    return make


def _position(band: str, axis: str) -> Callable[[_Stored], np.ndarray]:
    which, column = PLACES[band]

    def make(stored: _Stored) -> np.ndarray:
        x, y = (np.asarray(stored[f"{each}_coord{which}"], float) for each in "xy")
        x, y = (_flat(values) if column is None else values[:, column] for values in (x, y))
        return np.where((x == 0) & (y == 0), np.nan, x if axis == "x" else y)

    return make


def _makers() -> dict[str, tuple[tuple[str, ...], Callable[[_Stored], np.ndarray]]]:
    """Of each column: the keys it is made of, and how."""
    made: dict[str, tuple[tuple[str, ...], Callable[[_Stored], np.ndarray]]] = {
        "object_id": (("object_id",), _id),
        "healpix": (("ra", "dec"), _cell),
        "specz_flag_homogeneous": (("specz_flag_homogeneous",), _flag),
    }
    made["image"] = ("image",), lambda stored: stored["image"]
    plain = [*_NUMBERS, *(f"{b}_{name}" for b in BANDS for name in ("cmodel_mag", "cmodel_magsigma"))]
    made |= {name: ((name,), _text(name)) for name in _TEXT}
    made |= {name: ((name,), _same(name)) for name in plain}
    made |= {name: ((name,), _count(name)) for name in (f"{b}_{name}" for b in BANDS for name in COUNTS)}
    for band in BANDS:
        shapes = tuple(f"{band}_{name}" for name in SHAPES)
        made |= {f"{band}_{name}": (shapes, _shape(band, name)) for name in SHAPES}
        for name in ("peak_surface_brightness", "petro_rad"):
            made[f"{band}_{name}_raw"] = (f"{band}_{name}",), _same(f"{band}_{name}")
        which = PLACES[band][0]
        for axis in "xy":
            made[f"{band}_{axis}_image"] = (f"x_coord{which}", f"y_coord{which}"), _position(band, axis)
    return made


_MAKERS = _makers()


def convert(stored: _Stored, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The survey's columns of a slab of published rows.

    Args:
        stored: arrays by key, (rows, *shape), in the file's dtypes.
        names: of the columns wanted.

    Returns:
        arrays by name, in the dtypes that they come in.

    Raises:
        RecordError: the keys have shapes that they are not published with.
    """
    try:
        return {name: _MAKERS[name][1](stored) for name in names}
    except (ValueError, IndexError, TypeError) as error:
        raise RecordError(f"the keys have other shapes than published ones: {error}") from error


def check(stored: Mapping[str, Column]) -> None:
    """Raise RecordError where keys cannot be what they are published as."""
    if missing := [key for key in ("object_id", "ra", "dec") if key not in stored]:
        raise RecordError(f"has no {', '.join(missing)}: not a file of GalaxiesML")
    if (ids := stored["object_id"]).stored_dtype.kind not in "iuS":
        raise RecordError(f"object_id is stored as {ids.stored_dtype}: 17 digits do not go through floating point unchanged")
    wanted = {column.name: column for column in keys(None)}
    for key, column in stored.items():
        if key not in wanted:
            continue
        kinds = "S" if key == "object_id" and column.is_text else "SOiu" if key in _TEXT else "biuf"
        size = int(np.prod(column.shape, dtype=int))
        if column.stored_dtype.kind not in kinds + "iu" * (key == "object_id") or size != max(1, *wanted[key].shape, 1):
            raise RecordError(
                f"{key} is {column.stored_dtype}{('rows', *column.shape)}".replace("'", "") + ", which it cannot be"
            )


FORM = Form(
    "galaxiesml", {name: needs for name, (needs, _) in _MAKERS.items()}, convert, check, plain=("image",), image="image"
)
#: Without these a file of images is none.
ESSENTIAL = ("object_id", "ra", "dec", "healpix")


def find(folder: Path, config: str) -> Lying | None:
    """The published files of a config that lie in a folder, to be read there; None where there is none.

    The table is taken from HDF5, where that is there. Warns of keys that a file has not, and of images whose bands are
    alike.

    Raises:
        PartitionError: a file cannot be read, is cut short, or lacks what a row needs.
    """
    for size, suffix in _kinds(config):
        files = {split: Path(folder) / file_name(size, split, suffix) for split in SPLITS}
        files = {split: path for split, path in files.items() if path.is_file()}
        if files:
            return _lying(files, size if config != "tabular" else None)
    return None


def _kinds(config: str) -> list[tuple[int, str]]:
    if config != "tabular":
        return [(int(config), ".hdf5")]
    return [(size, suffix) for suffix in (".hdf5", ".csv") for size in SIZES]


def _lying(files: Mapping[str, Path], size: int | None) -> Lying:
    stored = {
        split: table_keys(path, keys(None), check) if _is_csv(path) else stored_in(path, FORM)
        for split, path in files.items()
    }
    for split, path in files.items():
        essential = (*ESSENTIAL, *(("image",) if size else ()))
        if missing := [name for name in essential if name not in FORM.available(stored[split])]:
            raise PartitionError(f"{path}: has no {', '.join(missing)}")
        if lacking := [column.name for column in keys(None) if column.name not in stored[split]]:
            _warn_lacking(path, lacking)
    # In every split the same columns, or rows could not be put together.
    columns = [name for name in FORM.needs if all(name in FORM.available(each) for each in stored.values())]
    if not size:
        columns.remove("image") if "image" in columns else None
    opens = (
        functools.partial(AdoptedTable, keys=keys(None), form=FORM)
        if _is_csv(next(iter(files.values())))
        else open_published
    )
    rows = {}
    for split, path in files.items():
        if _is_csv(path):
            rows[split] = table_rows(path)
            continue
        with AdoptedFile(path, _columns(("object_id", *(("image",) if size else ())), size), form=FORM) as file:
            rows[split] = file.rows
        if size and file.rows:
            sample = sorted({int(place * (file.rows - 1)) for place in (0, 0.25, 0.5, 0.75, 1)})
            warn_of_equal_planes(path, stored[split]["image"], BANDS, sample)
    return Lying(files, rows, columns, opens)


#: Opens a published HDF5 file, as ``Partition`` does.
open_published = functools.partial(AdoptedFile, form=FORM)


def _is_csv(path: Path) -> bool:
    return path.suffix == ".csv"


def _columns(names: Iterable[str], size: int | None) -> list[Column]:
    wanted = {"object_id": Column("object_id", "S20")}
    if size:
        wanted["image"] = Column("image", "float32", (5, size, size))
    return [wanted[name] for name in names]


def _warn_lacking(path: Path, lacking: Sequence[str]) -> None:
    import warnings

    more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
    warnings.warn(f"{path}: has no {', '.join(lacking[:5])}{more}: rows come without these", stacklevel=2)


# --- From our columns to their keys ---------------------------------------------------------------


def published_rows(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows as they are published, of the survey's columns.

    Args:
        columns: arrays (rows, *shape) by name, as the loader, partitions or ``measure_cutouts`` have them. Those that are
            absent give no keys.

    Returns:
        arrays by key for ``PublishedWriter.append``: a band that was not measured at all is 0.0, a number that alone is
        missing stays NaN; counts are 0 where they are NaN.
    """
    rows = len(next(iter(columns.values())))
    given = {name: np.asarray(values) for name, values in columns.items()}
    out = {
        name: given[name] for name in ("object_id", "image", "specz_flag_homogeneous", *_NUMBERS, *_TEXT) if name in given
    }
    places = {
        f"{axis}_coord{which}": np.full((rows, 2) if which else rows, np.nan) for axis in "xy" for which in ("", "_x", "_y")
    }
    for band in BANDS:
        for name in ("cmodel_mag", "cmodel_magsigma"):
            if f"{band}_{name}" in given:
                out[f"{band}_{name}"] = given[f"{band}_{name}"].astype(float)
        for name in COUNTS:
            if f"{band}_{name}" in given:
                out[f"{band}_{name}"] = np.nan_to_num(given[f"{band}_{name}"].astype(float)).astype(np.int64)
        shapes = {name: given[f"{band}_{name}"].astype(float) for name in SHAPES if f"{band}_{name}" in given}
        absent = np.logical_and.reduce([np.isnan(values) for values in shapes.values()]) if shapes else np.ones(rows, bool)
        if "petro_rad" in shapes and "major_axis" in shapes:
            shapes["petro_rad"] = shapes["petro_rad"] / shapes["major_axis"] * PETROSIAN
        if "peak_surface_brightness" in shapes:
            shapes["peak_surface_brightness"] = shapes["peak_surface_brightness"] - ZERO_POINT
        for name in ("petro_rad", "peak_surface_brightness"):
            if f"{band}_{name}_raw" in given:
                shapes[name] = given[f"{band}_{name}_raw"].astype(float)
        out |= {f"{band}_{name}": np.where(absent, 0.0, values) for name, values in shapes.items()}
        which, column = PLACES[band]
        for axis in "xy":
            values = given.get(f"{band}_{axis}_image", np.full(rows, np.nan)).astype(float)
            values = np.where(absent & np.isnan(values), 0.0, values)
            if column is None:
                places[f"{axis}_coord{which}"][:] = values
            else:
                places[f"{axis}_coord{which}"][:, column] = values
    return out | places


class PublishedWriter(KeyedWriter):
    """Write one published file of galaxies; ``append`` takes rows by key, see ``published_rows``.

    Args:
        path: such as ``folder / file_name(127, "train")``.
        size: pixels a side.
        rows: how many will come.
        csv, chunks: as in ``KeyedWriter``.
    """

    def __init__(self, path: str | Path, size: int, rows: int, csv: bool = True, chunks: tuple | bool | None = None):
        super().__init__(path, keys(size), rows, csv, chunks)
