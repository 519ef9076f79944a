"""Positions matched stripe by stripe of declination, where several processes or a cluster do the work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skyset.errors import UserError
from skyset.runner import InlineExecutor, Pool, in_order
from skyset.tables.match import MAX_PAIRS, MAX_RADIUS_ARCSEC, Pairs, match_positions, merged

#: Rows of either side that one task compares: 6 MB go to a worker.
ROWS = 1 << 17
#: Added to the radius where a stripe's neighbours are looked for, in degrees.
_SLACK_DEG = 1e-6

Positions = tuple[np.ndarray, np.ndarray]


def match_in_stripes(pool: Pool, left: Positions, right: Positions, radius_arcsec: float) -> Pairs:
    """What ``match_positions`` gives of the same positions: ra, dec (rows,), degrees, all of them on the sky.

    Raises:
        UserError: the radius is out of range, or there are too many pairs.
    """
    if isinstance(pool, InlineExecutor) or not 0 <= radius_arcsec <= MAX_RADIUS_ARCSEC:
        return match_positions(*left, *right, radius_arcsec)
    parts, total = [], 0
    for stripe, found in in_order(pool, _compared, _stripes(left, right, radius_arcsec)):
        parts.append(Pairs(stripe.left_rows[found.left], stripe.right_rows[found.right], found.separation))
        total += len(found)
        if total > MAX_PAIRS:
            raise UserError(f"more than {MAX_PAIRS:,} pairs within {radius_arcsec:g} arcsec: ask for less")
    return merged(parts)


@dataclass(frozen=True, eq=False)
class _Stripe:
    """Some left positions, some right ones of about the same declinations, and the numbers of their rows."""

    left: Positions
    right: Positions
    left_rows: np.ndarray
    right_rows: np.ndarray
    radius_arcsec: float


def _compared(stripe: _Stripe) -> Pairs:
    return match_positions(*stripe.left, *stripe.right, stripe.radius_arcsec)


def _stripes(left: Positions, right: Positions, radius_arcsec: float) -> Iterator[_Stripe]:
    """Every left position with all right ones that may be near it, each once."""
    orders = [np.argsort(dec, kind="stable") for _, dec in (left, right)]
    sorted_right = right[1][orders[1]]
    reach = radius_arcsec / 3600 + _SLACK_DEG
    for rows in _cut(orders[0]):
        dec = left[1][rows]
        low, high = np.searchsorted(sorted_right, [dec[0] - reach, dec[-1] + reach])
        for others in _cut(orders[1][low:high]):
            sides = [(side[0][chosen], side[1][chosen]) for side, chosen in ((left, rows), (right, others))]
            yield _Stripe(sides[0], sides[1], rows, others, radius_arcsec)


def _cut(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + ROWS] for start in range(0, len(rows), ROWS))
