"""Which arrays of a file are looked at for padding and faults, and what is noted of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skyset.adopting import checks
from skyset.adopting.families import LABELS, PARTS, RECORDS, RUNS, TIME, Family, families
from skyset.adopting.fields import Field
from skyset.adopting.look import Look
from skyset.adopting.padding import evidence
from skyset.partitions.tree.making import split_labels
from skyset.partitions.tree.structure import Stored

#: An image has bands first, not more than so many, and sides of at least so many pixels.
_MOST_BANDS, _LEAST_SIDE = 32, 8
#: Rows of a file of columns whose arrays are looked at, and those that lie side by side where they are compressed.
_ROWS, _PACKED_ROWS = 6, 3
#: Bytes of arrays that are looked at: of a file, of a block of rows.
_SAMPLE_BYTES, _BLOCK_BYTES = 4 << 20, 16 << 20
_FLUXES = ("flux", "mag", "array", "image", "images")


@dataclass(frozen=True)
class Plan:
    """What to look at.

    Attributes:
        families: for padding.
        ivars: fields of inverse variances.
        masks: (mask, inverse variance).
        images: fields of (bands, height, width), whose empty bands are findings of a row.
        curves: fields whose first axis is of bands, of light curves: a band without values there is usual.
        flags: flags of failures.
    """

    families: tuple[Family, ...]
    ivars: tuple[str, ...]
    masks: tuple[tuple[str, str], ...]
    images: tuple[str, ...]
    curves: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def arrays(self) -> list[str]:
        """The fields that are read, each once."""
        names = [name for family in self.families for name in (family.by, *family.beside)]
        names += [*self.ivars, *self.images, *self.curves, *(name for pair in self.masks for name in pair)]
        return list(dict.fromkeys(names))

    @property
    def records(self) -> set[str]:
        """Those of tables that may be filled up with records of nothing: some of their records tell it."""
        return {name for family in self.families if family.role == RECORDS for name in (family.by, *family.beside)}


def plan_of(fields: Mapping[str, Field]) -> Plan:
    """What to look at in rows or objects of these fields."""
    found = families(fields)
    arrays = {name: field for name, field in fields.items() if field.dims and not field.is_text and not field.any_length}
    ivars = [name for name, field in arrays.items() if checks.IVAR.fullmatch(name) and field.dtype.startswith("float")]
    masks = [(name, ivar) for name in arrays if checks.MASK.fullmatch(name) and (ivar := _ivar_of(name, arrays))]
    images = [name for name, field in arrays.items() if _is_image(field)]
    along = {name for family in found if family.role == TIME for name in family.members}
    curves = [family.by for family in found if family.role == PARTS]
    curves += [name for name, field in arrays.items() if name in along and len(field.dims) == 2 and _key(name) in _FLUXES]
    flags = [name for name, field in fields.items() if checks.FAILED.fullmatch(name) and _is_flag(field)]
    return Plan(tuple(found), tuple(ivars), tuple(masks), tuple(images), tuple(curves), tuple(flags))


def _is_flag(field: Field) -> bool:
    return not field.dims and (field.dtype == "bool" or field.is_integer)


def _key(name: str) -> str:
    return name.replace("/", "_").rpartition("_")[2].lower()


def _is_image(field: Field) -> bool:
    if len(field.dims) != 3 or not field.dtype.startswith("float") or _key(field.name) not in _FLUXES:
        return False
    return field.dims[0] <= _MOST_BANDS and min(field.dims[1:]) >= _LEAST_SIDE


def _ivar_of(mask: str, arrays: Mapping[str, Field]) -> str:
    """The inverse variance that a mask belongs to: of its prefix, and its shape or with an axis of bands before it."""
    name = mask[: -len("mask")] + "ivar"
    if name not in arrays or arrays[mask].dims not in (arrays[name].dims, arrays[name].dims[1:]):
        return ""
    return name


def examine(look: Look, plan: Plan, arrays: Mapping[str, np.ndarray], rows: np.ndarray, ids: list[str]) -> None:
    """Note what is found in some rows.

    Args:
        look: of the file.
        plan: of its fields.
        arrays: their values, (rows, *dims) by name; of an object's file some may be absent.
        rows: their numbers in the file.
        ids: their ids, empty where there are none.
    """
    look.sampled += len(rows)
    for family in plan.families:
        if all(name in arrays for name in (family.by, *family.beside)):
            look.pads[family.by] = look.pads.get(family.by, Counter()) + evidence(family, arrays)
    for name in plan.ivars:
        if name in arrays:
            what = f"{name} has infinities (or the largest float32, 3.4e38)"
            look.note(checks.INFINITE, checks.infinite(arrays[name]), ids, what, rows)
    for mask, ivar in plan.masks:
        if mask in arrays and ivar in arrays:
            bad, what = _inverted(mask, ivar, arrays[mask], arrays[ivar])
            look.note(checks.INVERTED, bad, ids, what, rows)
    for name in (*plan.images, *plan.curves):
        if name in arrays and arrays[name].size:
            _note_bands(look, name, arrays[name], name in plan.images, rows, ids)


def _inverted(mask: str, ivar: str, masks: np.ndarray, ivars: np.ndarray) -> tuple[np.ndarray, str]:
    """Rows whose mask means the opposite of what masks of its kind do, and that in words.

    Those of MultimodalUniverse's images are set where a pixel is good, those of its spectra, and of most, where it is bad.
    """
    if mask.startswith("image_"):
        what = f"{mask} is set where {ivar} is 0 and not where it is positive: of images, True means good elsewhere"
        return checks.inverted(masks == 0, ivars), what
    what = f"{mask} is set where {ivar} is positive and not where it is 0: there, True means good"
    return checks.inverted(masks, ivars), what


def _note_bands(look: Look, name: str, values: np.ndarray, is_image: bool, rows: np.ndarray, ids: list[str]) -> None:
    """Bands that are empty: of images those that other rows at hand have."""
    empty = checks.empty_bands(values[:, :, 1:] if values.ndim == 4 and values.shape[2] == 3 and not is_image else values)
    before = look.bands.get(name, [])
    filled: list[bool] = np.asarray((~empty).any(axis=0)).tolist()
    if len(before) < len(filled):
        before = before + [False] * (len(filled) - len(before))
    look.bands[name] = [a or b for a, b in zip(before, filled + [False] * (len(before) - len(filled)), strict=True)]
    if is_image:
        odd = empty & np.array(filled)
        what = [f"{name}: band {', '.join(map(str, np.flatnonzero(each)))} of {empty.shape[1]} is empty" for each in odd]
        look.note(checks.EMPTY_BAND, odd.any(axis=1), ids, what, rows)


def note_flags(look: Look, plan: Plan, values: Mapping[str, np.ndarray]) -> None:
    """Count where flags of failures are set."""
    for name in plan.flags:
        if name in values:
            true, rows = look.flags.get(name, (0, 0))
            look.flags[name] = true + int(np.count_nonzero(values[name])), rows + values[name].size


def row_bytes(field: Field) -> int:
    return math.prod(field.dims) * np.dtype(field.dtype).itemsize


def blocks(rows: int, fields: Sequence[Field], all_values: bool) -> Iterator[np.ndarray]:
    """Numbers of the rows whose arrays are looked at, some at a time."""
    size = sum(map(row_bytes, fields))
    if not fields:
        return
    if all_values:
        step = max(1, _BLOCK_BYTES // max(1, size))
        yield from (np.arange(start, min(start + step, rows)) for start in range(0, rows, step))
        return
    packed = any(field.packed for field in fields)
    count = min(rows, max(1, min(_PACKED_ROWS if packed else _ROWS, _SAMPLE_BYTES // max(1, size))))
    if packed:  # rows of the same chunks
        first = (rows - count) // 2
        yield np.arange(first, first + count)
    else:
        yield np.unique(np.linspace(0, rows - 1, count).astype(np.int64))


def misfit_of_labels(values: Mapping[str, np.ndarray], arrays: Mapping[str, Stored]) -> str:
    """What is wrong where one text does not name as many bands as an object's light curves have; ``""`` where nothing is.

    Args:
        values: of the object's small datasets.
        arrays: all of its datasets.
    """
    for path, value in values.items():
        key = re.split(r"[_/]", path)[-1]
        if key.lower() not in LABELS or value.dtype.kind != "S" or value.size != 1:
            continue
        count = len(split_labels(value.reshape(-1)[0]))
        times = [path[: len(path) - len(key)] + time for time in RUNS[TIME]]
        for time in (time for time in times if time in arrays):
            dims = arrays[time].dims
            if len(dims) == 2 and count not in (1, dims[0]) and all(dims):
                return f"{path} names {count} bands, {time} has {dims[0]}"
    return ""
