"""How somebody's arrays are filled up to one length: recognised by the values, pure functions over arrays.

Spectra and light curves have as many values as the longest of their file. What is behind the end of a shorter one is told by
its wavelength (-1), its time (0, -99, NaN) or its mask; records of a table that are none by masks of one value, and
neighbours that are none by a type of 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from skyset.adopting.families import MASKED, NEIGHBOURS, PARTS, RECORDS, WAVE, Family

#: What stands behind the end: a name for what is counted, the value, whether it can only stand at the end.
NEGATIVE, NINETY_NINE, ZERO, NAN, INSIDE, END = "-1", "-99", "0", "nan", "inside", "end"
#: Records that are masked as a whole by one value: of nothing, and with values of which something is known.
_EMPTY, _KEPT = "empty ", "kept "
#: Values of masks that are noted.
_MOST_VALUES = 16


def evidence(family: Family, arrays: Mapping[str, np.ndarray]) -> Counter[str]:
    """How many of some rows have what padding looks like.

    Args:
        family: whose.
        arrays: its fields' values, (rows, *dims) by name.

    Returns:
        Rows by what they have: ``-1``, ``-99``, ``0`` (at the end), ``nan`` (at the end), ``end`` (masked), and ``inside``:
        a time of 0 that is not at the end, which is then a time. Of tables, records that are masked as a whole by the value
        1024: ``empty 1024`` without any flux or weight, ``kept 1024`` with some.
    """
    by = arrays[family.by]
    if family.role == RECORDS:
        return _masked_records(by, *(arrays[name] for name in family.beside))
    if family.role == NEIGHBOURS:
        return _no_neighbours(by, [arrays[name] for name in family.beside])
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


def _masked_records(mask: np.ndarray, ivar: np.ndarray, flux: np.ndarray) -> Counter[str]:
    """Rows by what they have of records (axis 1) whose mask is the same value, not 0, in all places."""
    if not mask.size or mask.dtype.kind not in "iub":
        return Counter()
    one = (mask == mask[..., :1]).all(axis=-1) & (mask[..., 0] != 0)
    empty = ((flux == 0) & (ivar == 0)).all(axis=-1)
    counts: Counter[str] = Counter()
    for value in np.unique(mask[..., 0][one])[:_MOST_VALUES].tolist():
        of_value = one & (mask[..., 0] == value)
        counts[f"{_EMPTY}{int(value)}"] = _any(of_value & empty)
        counts[f"{_KEPT}{int(value)}"] = _any(of_value & ~empty)
    return +counts


def _no_neighbours(kind: np.ndarray, others: Sequence[np.ndarray]) -> Counter[str]:
    """Rows whose catalogue ends in neighbours of type 0, of which all else is 0 too; ``inside``: with others of type 0."""
    if not kind.size:
        return Counter()
    ends = _at_end(kind == 0)
    nothing = np.all([other == 0 for other in others], axis=0) if others else np.ones(kind.shape, bool)
    return +Counter({ZERO: _any(ends), INSIDE: _any(((kind == 0) & ~ends) | (ends & ~nothing))})


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
    if role == RECORDS:
        return _record_values(counts), "anywhere"
    if role == NEIGHBOURS:
        return ((0.0,) if counts.get(ZERO) and not counts.get(INSIDE) else ()), "end"
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


def _record_values(counts: Mapping[str, int]) -> tuple[float, ...]:
    """The value of masks that most records of nothing have, and no others."""
    empty = {name.removeprefix(_EMPTY): count for name, count in counts.items() if name.startswith(_EMPTY)}
    alone = {value: count for value, count in empty.items() if not counts.get(f"{_KEPT}{value}")}
    return (float(max(alone, key=lambda value: alone[value])),) if alone else ()
