"""Positions at another epoch, from proper motions (ESA 1997, SP-1200 vol. 1, section 1.5.5: motion in a straight line)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skyset.errors import UserError

#: Where nothing says of which epoch positions are, in Julian years.
EPOCH = 2000.0
#: Usual names, in any case: pmra is that on the sky, with cos(dec) in it.
_MOTIONS = (("pmra", "pmdec"), ("pmra", "pmde"), ("pm_ra", "pm_dec"), ("pm_ra_cosdec", "pm_dec"), ("mu_ra", "mu_dec"))
_PARALLAXES, _VELOCITIES = ("parallax", "plx"), ("radial_velocity", "dr2_radial_velocity", "rv")
_EPOCHS = ("ref_epoch", "epoch", "refepoch")
#: mas/yr in a unit, as catalogues write it without blanks.
_UNITS = {
    **dict.fromkeys(("", "mas/yr", "mas.yr**-1", "masyr-1", "mas/year", "mas*yr**-1"), 1.0),
    **dict.fromkeys(("arcsec/yr", "arcsecyr-1", "arcsec.yr**-1"), 1e3),
    **dict.fromkeys(("deg/yr", "degyr-1"), 3.6e6),
}
#: km/s of one astronomical unit a year: turns radial velocity times parallax into mas/yr.
_AU_PER_YEAR = 4.740470446


def moved(ra, dec, pmra, pmdec, years, parallax=0.0, radial_velocity=0.0) -> tuple[np.ndarray, np.ndarray]:
    """Where objects are some years later: (ra, dec), float64 (n,), degrees, 0 <= ra < 360.

    Args:
        ra, dec: degrees, (n,).
        pmra, pmdec: mas a year; pmra with cos(dec) in it. Missing ones (NaN) are 0.
        years: Julian, a number or (n,).
        parallax: mas; with the radial velocity it says how the distance changes.
        radial_velocity: km/s.
    """
    across, along, approach = (
        np.nan_to_num(np.asarray(each, np.float64)) for each in (pmra, pmdec, np.multiply(parallax, radial_velocity))
    )
    a, d = np.radians(ra, dtype=np.float64), np.radians(dec, dtype=np.float64)
    out = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    east = np.stack([-np.sin(a), np.cos(a), np.zeros_like(a)])
    north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    radians = np.radians(np.asarray(years, np.float64) / 3.6e6)
    place = out * (1 + approach / _AU_PER_YEAR * radians) + (across * east + along * north) * radians
    later = np.degrees(np.arctan2(place[1], place[0])) % 360, np.degrees(np.arctan2(place[2], np.hypot(*place[:2])))
    still = (across == 0) & (along == 0)
    return np.where(still, ra, later[0]), np.where(still, dec, later[1])


@dataclass(frozen=True)
class Motion:
    """How the objects of a catalogue move.

    Args:
        pmra, pmdec: names of columns.
        parallax, radial_velocity, epoch: names, or "" where there is none.
        scale: mas/yr in the unit of the motions.
        at: the positions' epoch, Julian years, where no column says it.
        to: the epoch that is wanted.
    """

    pmra: str
    pmdec: str
    parallax: str
    radial_velocity: str
    epoch: str
    scale: float
    at: float
    to: float = EPOCH

    @property
    def names(self) -> list[str]:
        """Of all columns that are needed."""
        return [name for name in (self.pmra, self.pmdec, self.parallax, self.radial_velocity, self.epoch) if name]

    def applied(self, ra, dec, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Positions at the epoch wanted; ``values`` are the columns, (n,) each, those without a value NaN or masked."""
        given = {name: np.ma.filled(np.ma.asarray(each, np.float64), np.nan) for name, each in values.items()}
        epochs = np.nan_to_num(given[self.epoch], nan=self.at) if self.epoch else self.at
        across, along = (self.scale * given[name] for name in (self.pmra, self.pmdec))
        parallax, velocity = (given[name] if name else 0.0 for name in (self.parallax, self.radial_velocity))
        return moved(ra, dec, across, along, self.to - epochs, parallax, velocity)


def motion_in(units: Mapping[str, str], epoch: float | None, source: str) -> Motion | None:
    """The motions that a catalogue has; None where it has none.

    Args:
        units: of its columns, by name.
        epoch: of its positions, where that is told; else a column's (``ref_epoch``), else 2000.
        source: for messages.

    Raises:
        UserError: they are in a unit that is not known.
    """
    known = {name.lower(): name for name in units}
    pair = next((pair for pair in _MOTIONS if all(name in known for name in pair)), None)
    if pair is None:
        return None
    pmra, pmdec = (known[name] for name in pair)
    unit = units[pmra].replace(" ", "").lower()
    if unit not in _UNITS or units[pmdec] != units[pmra]:
        raise UserError(f"{source}: {pmra} and {pmdec} are in {unit or 'no unit'}: mas/yr, arcsec/yr, deg/yr are known")
    parallax, velocity, column = (_first(known, usual) for usual in (_PARALLAXES, _VELOCITIES, _EPOCHS))
    if not (parallax and velocity):
        parallax = velocity = ""
    return Motion(
        pmra, pmdec, parallax, velocity, column if epoch is None else "", _UNITS[unit], EPOCH if epoch is None else epoch
    )


def _first(known: Mapping[str, str], usual: Sequence[str]) -> str:
    return next((known[name] for name in usual if name in known), "")


def common_epoch(motions: Sequence[Motion | None], epochs: Sequence[float | None]) -> float:
    """The epoch that all are compared at: that of the catalogues whose objects stay where they are.

    Raises:
        UserError: none has motions, or those without have different epochs.
    """
    if not any(motions):
        raise UserError("--pm: none of the catalogues has proper motions (pmra, pmdec)")
    still = {
        EPOCH if epoch is None else float(epoch) for motion, epoch in zip(motions, epochs, strict=True) if motion is None
    }
    if len(still) > 1:
        raise UserError(
            f"--pm: catalogues without proper motions are of different epochs: {', '.join(map(str, sorted(still)))}"
        )
    return still.pop() if still else EPOCH
