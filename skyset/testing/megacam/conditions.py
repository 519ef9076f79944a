"""What went well or wrong with an exposure, by class: drawn continuously, so that classes overlap as real ones do."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

#: Good, bad seeing, a background problem, bad tracking, really bad tracking.
LABELS = ("GOOD", "B_SEEING", "BGP", "BT", "RBT")
_FILTERS = {
    "r.MP9601": (26.05, 20.8),
    "g.MP9401": (26.45, 21.7),
    "i.MP9702": (25.70, 19.9),
}  # zero point, sky (mag/arcsec^2)
_EXPTIMES = (60.0, 120.0, 287.0, 468.0, 600.0)


class Conditions(NamedTuple):
    """An exposure's conditions.

    Attributes:
        labels: one or two of `LABELS`, as a person would give them.
        severity: 0 (hardly seen) to 1, of the first label; of GOOD too, where it is what is left of everything.
        exptime, filter, zero_point, sky: seconds; name; magnitude of 1 ADU a second; magnitudes per square arcsec.
        seeing: FWHM of the atmosphere and the optics in the middle of the field, arcsec.
        guiding: what the guide star did: ``trail``, ``jump``, ``double``, ``wander``.
        length, angle: of its track, arcsec and degrees from west over north.
        share: of the time that it stood at the second place, for jumps and doubles.
        background: ``steps``, ``scattered``, ``fringes``, or nothing.
        amplitude: of that, as a fraction of the sky.
        gradient: of the sky across the mosaic to the west and to the north, as fractions.
    """

    labels: tuple[str, ...]
    severity: float
    exptime: float
    filter: str
    zero_point: float
    sky: float
    seeing: float
    guiding: str
    length: float
    angle: float
    share: float
    background: str
    amplitude: float
    gradient: tuple[float, float]

    def track(self, seed: int) -> np.ndarray:
        """Where the stars stood: float64 (n, 3), arcsec to the west and to the north of their mean, share of the time."""
        along = np.array([math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))])
        if self.guiding in ("jump", "double"):
            places, shares = np.array([0.0, self.length])[:, None] * along, np.array([1 - self.share, self.share])
        else:
            steps = np.linspace(-0.5, 0.5, max(2, math.ceil(self.length / 0.1)))
            places = self.length * steps[:, None] * along
            if self.guiding == "wander":
                rng = np.random.default_rng(seed)
                places = places + 0.25 * self.length * np.sin(rng.uniform(3, 7) * steps)[:, None] * along[::-1] * (1, -1)
            shares = np.full(len(places), 1 / len(places))
        return np.column_stack([places - shares @ places, shares])


def draw(rng: np.random.Generator, label: str, doubles: float = 0.1, severity: float | None = None) -> Conditions:
    """An exposure whose first label is given.

    Args:
        rng: what it is drawn from.
        label: of `LABELS`.
        doubles: how often a second label is added to one that is not GOOD.
        severity: 0 to 1; default: drawn evenly.

    Raises:
        ValueError: no such label.
    """
    if label not in LABELS:
        raise ValueError(f"label {label!r}: there are {', '.join(LABELS)}")
    # The same draws in the same order for all classes: a class changes what they mean, not what comes after.
    drawn, second, seeing, angle, share, amplitude = rng.random(6)
    severity = drawn if severity is None else severity
    pick, kind, other = rng.integers(0, 1 << 30, 3)
    name = tuple(_FILTERS)[(0, 0, 1, 2)[pick % 4]]
    gradient = rng.uniform(-0.03, 0.03, 2)
    others = {"B_SEEING": ("BT",), "BT": ("B_SEEING",), "BGP": ("B_SEEING",), "RBT": ("B_SEEING",)}.get(label, ())
    labels = (label, others[other % len(others)]) if others and second < doubles else (label,)
    strength = {each: severity if each == label else 0.3 + 0.4 * share for each in labels}
    fwhm = float(np.clip(0.62 * math.exp(0.17 * _normal(seeing)), 0.42, 1.05))
    if "B_SEEING" in strength:
        fwhm = 0.95 + 1.15 * strength["B_SEEING"]
    guiding, length = "trail", 0.3 * severity * share
    if "BT" in strength:
        guiding = ("trail", "jump", "wander")[kind % 3]
        length = (0.45 if guiding != "jump" else 0.8) + 1.1 * strength["BT"]
    elif "RBT" in strength:
        guiding = ("trail", "double", "wander")[kind % 3]
        length = 1.2 + 4.0 * strength["RBT"]
    background, size = "", 0.0
    if "BGP" in strength:
        background = ("steps", "scattered", "fringes")[kind % 3]
        size = (0.04 + 0.36 * strength["BGP"]) * (0.5 if background == "fringes" else 1.0)
    elif name.startswith("i"):
        background, size = "fringes", 0.01 * amplitude
    return Conditions(
        labels=labels,
        severity=float(severity),
        exptime=_EXPTIMES[pick // 4 % len(_EXPTIMES)] + round(float(share), 3),
        filter=name,
        zero_point=_FILTERS[name][0],
        sky=_FILTERS[name][1] - 0.8 * float(amplitude) ** 2,
        seeing=fwhm,
        guiding=guiding,
        length=float(length),
        angle=float(360 * angle),
        share=float(0.12 + 0.2 * share if guiding == "jump" else 0.3 + 0.2 * share),
        background=background,
        amplitude=float(size),
        gradient=(float(gradient[0]), float(gradient[1])),
    )


def _normal(uniform: float) -> float:
    """A normal deviate from a uniform one (logistic: within 0.02)."""
    return math.log(max(uniform, 1e-9) / max(1 - uniform, 1e-9)) / 1.702


def background(conditions: Conditions, x: np.ndarray, y: np.ndarray, seed: int, halves: np.ndarray) -> np.ndarray:
    """The sky over a CCD in units of its mean level.

    Args:
        conditions: the exposure's.
        x, y: the mosaic's coordinates of columns (1, n) and rows (n, 1), -1 to 1.
        seed: of the exposure: the pattern is one over the mosaic.
        halves: for each column (n,) which amplifier of the mosaic reads it, from 0.

    Returns:
        float32 (rows, columns).
    """
    rng = np.random.default_rng(seed)
    gradient = conditions.gradient
    sky = 1 + (0.5 * gradient[0] * x + 0.5 * gradient[1] * y).astype(np.float32)
    if not conditions.amplitude:
        return sky
    if conditions.background == "steps":
        levels = rng.normal(0, 1, 80) * (rng.random(80) < 0.7)
        row = rng.uniform(-0.6, 0.6)
        shape = levels[halves][None] + np.where(y > row, 0.5, -0.5) + 0.3 * np.sign(np.sin(9 * y + rng.uniform(0, 6)))
    elif conditions.background == "scattered":
        u, v, size = *rng.uniform(-0.7, 0.7, 2), rng.uniform(0.15, 0.5)
        r = np.hypot(x - u, y - v)
        shape = (
            np.exp(-(((r - size) / (0.35 * size)) ** 2)) + 0.8 * np.exp(-((r / (0.6 * size)) ** 2)) + 0.5 * (u * x + v * y)
        )
    else:
        k, phase = rng.uniform(110, 190), rng.uniform(0, 6, 3)
        warp = 1.6 * np.sin(14 * x + phase[0]) + 1.4 * np.sin(11 * y + 5 * x + phase[1])
        shape = np.sin(k * (0.8 * x + 0.45 * y) + 3 * warp + phase[2])
    return (sky + conditions.amplitude * shape).astype(np.float32).clip(0.05)
