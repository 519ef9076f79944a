"""In which unit somebody's positions are: proved by what their datasets say, or by the cells that their folders name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from skyset.errors import UserError
from skyset.partitions.tree.making import wrapped
from skyset.tables.usual_names import DEGREES

DEG, HOUR, RAD = "deg", "hour", "rad"
#: Right ascension and declination times this are degrees.
FACTORS = {DEG: (1.0, 1.0), HOUR: (15.0, 1.0), RAD: (math.degrees(1), math.degrees(1))}
#: Positions that span more of these units, and go no further than the whole circle in them, may be in them.
_SPANS = {HOUR: (16.0, 24.0), RAD: (math.pi / 2, 2 * math.pi)}
#: A little more than the circle, for rounding.
_OVER = 1e-6


def unit_of(said: str) -> str:
    """What an attribute calls a unit of angle, as one of ours; ``""`` where it says none that is known."""
    factor = DEGREES.get(said.strip().lower()) if said.strip() else None
    return {1.0: DEG, 15.0: HOUR}.get(factor, RAD) if factor is not None else ""


def in_degrees(ra: np.ndarray, dec: np.ndarray, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions in degrees, float64; right ascensions below 0 as they are above."""
    factors = FACTORS[unit]
    return wrapped(ra.astype(np.float64) * factors[0]), dec.astype(np.float64) * factors[1]


def possible(ra: Sequence[float], dec: Sequence[float]) -> list[str]:
    """Units in which positions can be whose smallest and largest values are these, degrees first."""
    units = [DEG]
    if ra[0] >= -12 and ra[1] <= 24 * (1 + _OVER):
        units.append(HOUR)
    if ra[0] >= -math.pi and ra[1] <= 2 * math.pi * (1 + _OVER) and max(-dec[0], dec[1]) <= math.pi / 2 * (1 + _OVER):
        units.append(RAD)
    return units


@dataclass
class Sky:
    """What is known of the positions of some files.

    Attributes:
        ra, dec: smallest and largest values as they are stored, of those that are numbers.
        said: files by the unit that their attributes say.
        judged: rows in folders of cells.
        wrong: of those, rows in another cell than their folder's, by unit of position.
    """

    ra: tuple[float, float] = (math.inf, -math.inf)
    dec: tuple[float, float] = (math.inf, -math.inf)
    said: Counter[str] = field(default_factory=Counter)
    judged: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, ra: Sequence[float], dec: Sequence[float], said: str, judged: int, wrong: Mapping[str, int]) -> None:
        """One more file; of a unit that is not in ``wrong`` its positions cannot be, or nothing is judged."""
        self.ra = min(self.ra[0], ra[0]), max(self.ra[1], ra[1])
        self.dec = min(self.dec[0], dec[0]), max(self.dec[1], dec[1])
        self.said[said] += 1
        self.judged += judged
        for unit in FACTORS if judged else ():
            self.wrong[unit] += wrong.get(unit, judged)

    def unit(self, asked: str = "") -> str:
        """The unit of the positions.

        Args:
            asked: by the user, who knows best.

        Raises:
            UserError: they may be in degrees or in another unit, and nothing proves which.
        """
        if asked:
            return asked
        known = {unit: count for unit, count in self.said.items() if unit}
        if known:
            return max(known, key=lambda unit: known[unit])
        units = possible(self.ra, self.dec) if self.ra[0] <= self.ra[1] else [DEG]
        best = min(units, key=lambda unit: (self.wrong[unit], units.index(unit)))
        if self.judged and self.wrong[best] <= 0.5 * self.judged:
            return best
        for unit in units[1:]:
            if self.ra[1] - self.ra[0] > _SPANS[unit][0]:
                shown = f"ra from {self.ra[0]:.6g} to {self.ra[1]:.6g}, dec from {self.dec[0]:.6g} to {self.dec[1]:.6g}"
                raise UserError(
                    f"positions may be in degrees or in {unit} ({shown}), and neither attributes nor healpix= folders tell: "
                    f"say --position_unit deg, or --position_unit {unit}"
                )
        return DEG
