"""What a folder of images and a table hold, as the declaration of a survey."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.building.image_folder import FITS, Names, fits_image, image_stem, images_in
from skyset.building.imagefiles import Images
from skyset.errors import RecordError, UserError
from skyset.explore.catalogue import catalogue_of, name_in, positions_in
from skyset.survey import HEALPIX, Column
from skyset.tables.numeric_text import is_text
from skyset.tables.open import open_catalog

#: A column of text with no more words than this, each twice on average, is one of classes.
MOST_CLASSES = 30
#: Images that are looked at: the commonest kind is the survey's.
LOOKED_AT = 20
DESCRIBE = "describe me"
_FLAGS = {"true", "false"}
_TAKEN = ("object_id", "ra", "dec", "healpix", "image", "image_end")


@dataclass(frozen=True)
class Declared:
    """What a survey of these files declares.

    Attributes:
        columns: of all of it.
        classes: names of the values of columns that are text in the table, by column.
        names: what the table calls the columns that every survey has.
        rows: of the table.
        pictured: those of them that have an image.
        notes: what is left out and why, a line each.
    """

    columns: tuple[Column, ...]
    classes: dict[str, tuple[str, ...]]
    names: Names
    rows: int
    pictured: int
    notes: tuple[str, ...]


def look(folder: Path, table: Path, object_id: str = "", ra: str = "", dec: str = "") -> Declared:
    """Look at somebody's files.

    Args:
        folder: of images, at any depth.
        table: a row an object.
        object_id, ra, dec: what the table calls these; by default the usual words for them are looked for.

    Raises:
        UserError: one of them cannot be read, has no names or positions that can be used, or no image is named in the table.
    """
    images, catalog = images_in(folder), open_catalog(table)
    if not images.places:
        raise UserError(f"{folder}: no images in it (PNG, JPEG or FITS)")
    rows = catalog.table()
    if not rows.num_rows:
        raise UserError(f"{table}: no rows")
    object_id, (ra, dec) = _usual_name(table, object_id), positions_in(table, ra, dec)
    image, pictured = _column_of_images(rows, images, object_id, f"{table} names an image of {folder}")
    names = Names(object_id or image, ra, dec, image)
    catalogue_of(table, (), names.object_id, ra, dec)  # refuses positions that are none, and names that lost digits
    columns, notes = [], [*catalog.notes]
    classes: dict[str, tuple[str, ...]] = {}
    for name in rows.schema.names:
        if name in (names.object_id, ra, dec):
            continue
        try:
            column, words = _column(rows, name)
        except UserError as error:
            notes.append(f"{table}: column {name!a} is left out: {error}")
            continue
        columns.append(column)
        classes |= {name: words} if words else {}
    width = _width(rows[names.object_id])
    first = (
        Column("object_id", f"S{width}", (), "", "name of the object"),
        Column("ra", "float64", (), "deg", "right ascension (ICRS)"),
        Column("dec", "float64", (), "deg", "declination (ICRS)"),
        HEALPIX,
        _image_column(images),
    )
    return Declared((*first, *columns), classes, names, rows.num_rows, pictured, tuple(notes))


def _usual_name(table: Path, wanted: str) -> str:
    """The column of names; "" where none has a usual name: the one that names images will do."""
    try:
        return name_in(table, wanted)
    except UserError:
        if wanted:
            raise
        return ""


def _column_of_images(rows: pa.Table, images: Images, object_id: str, what: str) -> tuple[str, int]:
    """The column that names most images, and how many; that of the objects' names where it does as well as another."""
    counts = {}
    for name in sorted(rows.schema.names, key=lambda name: name != object_id):
        kind = rows.schema.field(name).type
        if is_text(kind) or pa.types.is_integer(kind):
            texts = (str(value) for value in rows[name].to_pylist() if value is not None)
            counts[name] = len({stem for text in texts if (stem := image_stem(text)) in images.places})
    best = max(counts, key=lambda name: counts[name], default="")
    if not best or not counts[best]:
        stems = ", ".join(islice(images.places, 3))
        raise UserError(f"no column of {what}, such as {stems}: it has to hold the files' names, with or without .jpg")
    return best, counts[best]


def _column(rows: pa.Table, name: str) -> tuple[Column, tuple[str, ...]]:
    """A column of the table as one of the survey, and the names of its classes if it is one of classes.

    Raises:
        UserError: why it cannot be one.
    """
    field, values = rows.schema.field(name), rows[name]
    unit = (field.metadata or {}).get(b"unit", b"").decode()
    if name.lower() in _TAKEN:
        raise UserError("the survey has a column of this name")
    if not is_text(field.type):
        dtype, missing = _number(field.type, values)
        return _declared(name, dtype, unit, missing), ()
    texts = [text.strip() for text in pc.drop_null(values).to_pylist()]
    if not all(text.isascii() and text.isprintable() for text in texts):
        raise UserError("text that is not plain ASCII")
    words = sorted({text for text in texts if text})
    lacks = bool(values.null_count) or "" in texts
    if words and {word.lower() for word in words} <= _FLAGS:
        return _declared(name, "int8" if lacks else "bool", "", "-1" if lacks else ""), ()
    if 2 <= len(words) <= min(MOST_CLASSES, len(texts) / 2):
        return _declared(name, "int64", "", "-1" if lacks else ""), tuple(words)
    return _declared(name, f"S{_width(values)}", "", ""), ()


def _declared(name: str, dtype: str, unit: str, missing: str) -> Column:
    """A column to describe; ``missing`` is what stands for a value that is not given, "" where all are."""
    description = f"{DESCRIBE}; {missing} where not given" if missing else DESCRIBE
    try:
        return Column(name, dtype, (), unit if unit.isascii() else "", description)
    except ValueError as error:
        raise UserError(str(error)) from error


def _number(kind: pa.DataType, values: pa.ChunkedArray) -> tuple[str, str]:
    """The dtype of numbers and flags, and what stands for those that are missing ("" where none is)."""
    if pa.types.is_boolean(kind):
        return ("int8", "-1") if values.null_count else ("bool", "")
    if pa.types.is_null(kind):
        raise UserError("it is empty")
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise UserError(f"{kind} is neither number nor text")
    dtype = np.dtype(kind.to_pandas_dtype()).name
    if pa.types.is_floating(kind):
        lacks = values.null_count or pc.any(pc.is_nan(values)).as_py()
        return dtype, "NaN" if lacks else ""
    if not values.null_count:
        return dtype, ""
    return dtype, "0" if dtype.startswith("u") else "-1"


def _width(values: pa.ChunkedArray) -> int:
    """Room for the longest text, in steps of eight."""
    longest = max((len(str(value)) for value in values.to_pylist() if value is not None), default=1)
    return max(8, math.ceil(longest / 8) * 8)


def _image_column(images: Images) -> Column:
    """The commonest kind of image among the first: PNG and JPEG as they are, FITS as pixels of one shape."""
    paths = [place.path for place in islice(images.places.values(), LOOKED_AT)]
    fits = [path for path in paths if path.name.lower().endswith(FITS)]
    if 2 * len(fits) <= len(paths):
        size = sum(path.stat().st_size for path in paths) // len(paths)
        return Column("image", "bytes", (), "", "image, PNG or JPEG as it came", typical_bytes=max(1, size))
    problem = ""
    kinds: Counter = Counter()
    for path in fits:
        try:
            pixels = fits_image(path)
            kinds[pixels.dtype.name, pixels.shape] += 1
        except RecordError as error:
            problem = f"{path}: {error}"
    if not kinds:
        raise UserError(f"none of the FITS files that were looked at can be read; {problem}")
    (dtype, shape), _ = kinds.most_common(1)[0]
    return Column("image", dtype, shape, "", f"{DESCRIBE}; pixels of the first image of a FITS file")
