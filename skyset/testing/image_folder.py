"""Made-up objects of any survey that is a folder of images and a table (``skyset.building.image_folder``)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from skyset.building.image_folder import Names
from skyset.survey import Column, Survey

SIZE = 48


def write_objects(folder: Path, survey: Survey, names: Names, classes: Mapping[str, Sequence[str]], count: int) -> None:
    """Write ``photos/`` and ``catalogue.csv`` with ``count`` objects, a value for every column of the survey.

    Args:
        folder: where; it must be there.
        survey: the declaration; images are JPEG where its column of images is of bytes, else FITS of its shape.
        names: what the table calls the columns that every survey has.
        classes: names of the values of columns that are text in the table.
        count: how many objects; their names are ``object-0``, ... or numbers, their images' names the same.
    """
    (folder / "photos").mkdir()
    dice = np.random.default_rng(0)
    rows = []
    for number in range(count):
        row = {column.name: _value(column, number, dice) for column in survey.columns if not column.is_bytes}
        row |= {name: known[number % len(known)] for name, known in classes.items()}
        for ours in ("object_id", "ra", "dec", "healpix", "image"):
            row.pop(ours, None)
        name = f"o-{number}"
        row |= {names.ra: 150 + 0.25 * number, names.dec: 2 + 0.5 * number, names.image: name, names.object_id: name}
        rows.append(row)
        _write_image(folder / "photos" / name, survey.column("image"), dice)
    with open(folder / "catalogue.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _value(column: Column, number: int, dice: np.random.Generator) -> object:
    kind = np.dtype(column.dtype).kind
    if kind == "S":
        return "abc"[number % 3]
    if kind == "f":
        return np.dtype(column.dtype).type(dice.normal(20, 2)).item()
    return number % 2 if kind == "b" else number


def _write_image(path: Path, column: Column, dice: np.random.Generator) -> None:
    if column.is_bytes:
        pixels = dice.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(path.with_suffix(".jpg"), quality=90)
        return
    from astropy.io import fits

    fits.writeto(path.with_suffix(".fits"), dice.integers(0, 100, column.shape).astype(column.dtype))
