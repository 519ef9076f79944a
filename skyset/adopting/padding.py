"""How somebody's arrays are filled up to one length: recognised by the values, pure functions over arrays.

Spectra and light curves have as many values as the longest of their file. What is behind the end of a shorter one is told by
its wavelength (-1), its time (0, -99, NaN) or its mask. Families are arrays that run along the same wavelengths or times.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from skyset.adopting.fields import Field

WAVE, TIME, MASKED, PARTS = "wave", "time", "mask", "parts"
_RUNS = {WAVE: ("lambda", "wave", "wavelength", "loglam"), TIME: ("time", "mjd", "jd", "bjd", "hjd")}
_KEY = re.compile(r"((?:.*[_/])?)([A-Za-z]+)")
#: What stands behind the end: a name for what is counted, the value, whether it can only stand at the end.
NEGATIVE, NINETY_NINE, ZERO, NAN, INSIDE, END = "-1", "-99", "0", "nan", "inside", "end"


@dataclass(frozen=True)
class Family:
    """Arrays of the same shape that run along one of them.

    Attributes:
        by: the field of wavelengths, times or masks, or the one array of which they are parts.
        role: what that is: ``wave``, ``time``, ``mask`` or ``parts``.
        members: all fields of the family, with ``by``.
        beside: of a mask, its inverse variance and flux.
    """

    by: str
    role: str
    members: tuple[str, ...]
    beside: tuple[str, ...] = ()


def families(fields: Mapping[str, Field]) -> list[Family]:
    """The families among the fields of a row or object, in the order of the fields that they run along."""
    found: list[Family] = []
    for name, field in fields.items():
        prefix, key = _split(name)
        if is_parts(field):
            found.append(Family(name, PARTS, (name,)))
            continue
        role = next((role for role, keys in _RUNS.items() if key in keys), "")
        if role and _is_array(field) and not any(each.by.startswith(prefix) and each.role == role for each in found):
            found.append(Family(name, role, _alike(fields, name, prefix)))
    along = {member for family in found for member in family.members}
    for name, field in fields.items():
        prefix, key = _split(name)
        beside = tuple(prefix + each for each in ("ivar", "flux"))
        if key == "mask" and name not in along and all(each in fields for each in beside) and len(field.dims) == 1:
            members = _alike(fields, name, prefix)
            if set(beside) <= set(members):
                found.append(Family(name, MASKED, members, beside))
    return found


def is_parts(field: Field) -> bool:
    """Whether an array is a light curve of (bands, 3 of time, flux and its error, any number)."""
    return _split(field.name)[1] == "lightcurve" and len(field.dims) == 3 and field.dims[1] == 3


@lru_cache(1 << 16)
def _split(name: str) -> tuple[str, str]:
    match = _KEY.fullmatch(name)
    return (match[1], match[2].lower()) if match else ("", "")


def _is_array(field: Field) -> bool:
    if field.is_text or (field.any_length and field.dims):
        return False
    return field.any_length or len(field.dims) in (1, 2)


def _alike(fields: Mapping[str, Field], name: str, prefix: str) -> tuple[str, ...]:
    """The fields of the same prefix and shape, those of bytes of text left out."""
    like = fields[name]
    return tuple(
        each
        for each, field in fields.items()
        if each.startswith(prefix)
        and "/" not in each[len(prefix) :]
        and (field.dims, field.any_length) == (like.dims, like.any_length)
        and not field.is_text
    )


def evidence(family: Family, arrays: Mapping[str, np.ndarray]) -> Counter[str]:
    """How many of some rows have what padding looks like.

    Args:
        family: whose.
        arrays: its fields' values, (rows, *dims) by name.

    Returns:
        Rows by what they have: ``-1``, ``-99``, ``0`` (at the end), ``nan`` (at the end), ``end`` (masked), and ``inside``:
        a time of 0 that is not at the end, which is then a time.
    """
    by = arrays[family.by]
    if family.role == PARTS:
        by = by[:, :, 0]
    if by.dtype.kind == "O" or not by.size or by.shape[-1] < 2:
        return Counter()
    if family.role == MASKED:
        return +Counter({END: int(_masked_ends(by, *(arrays[name] for name in family.beside)).sum())})
    if by.dtype.kind not in "iuf":
        return Counter()
    counts = {NAN: _any(_at_end(np.isnan(by))) if by.dtype.kind == "f" else 0, ZERO: _any(_at_end(by == 0))}
    if family.role == WAVE:
        counts[NEGATIVE] = _any(by == -1)
    else:
        counts |= {NINETY_NINE: _any(by == -99), INSIDE: _any((by == 0) & ~_at_end(by == 0))}
    return +Counter(counts)


def _any(found: np.ndarray) -> int:
    """Rows that have any."""
    return int(found.reshape(len(found), -1).any(axis=1).sum())


def _at_end(found: np.ndarray) -> np.ndarray:
    """The same, but for those after which there is one that is not, along the last axis."""
    return np.logical_and.accumulate(found[..., ::-1], axis=-1)[..., ::-1]


def _masked_ends(mask: np.ndarray, ivar: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Rows that end in two values or more that are masked, of no weight and all the same: bool (rows,)."""
    same = np.zeros(flux.shape, bool)
    same[:, 1:] = flux[:, 1:] == flux[:, :-1]
    ends = _at_end((mask != 0) & (ivar == 0) & same)
    return np.asarray(ends.any(axis=-1) & ~ends[:, 1:].all(axis=-1))


def trimmed_by(role: str, counts: Mapping[str, int], flat: bool) -> tuple[tuple[float, ...], str]:
    """Which values tell padding, and whether it stands ``anywhere`` or only at the ``end`` of a row; none: ``()``.

    Args:
        role, counts: of a family and of ``evidence`` of all rows.
        flat: rows are several light curves one after the other, each with padding of its own.
    """
    if role == MASKED:
        return ((1.0,), "end") if counts.get(END) else ((), "end")
    end = "anywhere" if flat else "end"
    if role == WAVE:
        if counts.get(NEGATIVE):
            return (-1.0,), "anywhere"
        return tuple(value for name, value in ((ZERO, 0.0), (NAN, np.nan)) if counts.get(name)), end
    if counts.get(NINETY_NINE):
        return (-99.0,), "anywhere"
    zero = counts.get(ZERO, 0) > 0 and not counts.get(INSIDE)
    return (0.0,) * zero + (np.nan,) * bool(counts.get(NAN)), end
