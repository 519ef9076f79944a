"""Square parts of images about their objects, in units of the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from skyset.extraction.hankel import N_MAX, N_MIN
from skyset.extraction.sersic.job import Job
from skyset.extraction.sersic.minimise import R_MIN, Box
from skyset.extraction.sersic.theta import N, R, X, Y

#: Weights count as uneven on the core within so many FWHM of the PSF from where the fit starts.
CORE = 3.0
#: Half the side of the part in the middle where holes in the light are filled from their rims.
_HOLE = 8
#: Where weights are below 1: nowhere, in the outskirts, on the core.
EVEN, OUTSKIRTS, ON_CORE = range(3)


@dataclass(frozen=True, eq=False)
class Stamps:
    """Square parts of images about their objects.

    Attributes:
        members: of the job, int64 (count,).
        pixels, weights: (count, side, side), 0 where not used. The levels are taken off and the noise is made 1, whatever an
            image's offset and unit.
        corners: their rows and columns in the images, int64 (count, 2).
        level, sigma: what was taken off, and the noise, (count,).
    """

    members: np.ndarray
    pixels: np.ndarray
    weights: np.ndarray
    corners: np.ndarray
    level: np.ndarray
    sigma: np.ndarray

    def __len__(self) -> int:
        return len(self.members)

    @property
    def side(self) -> int:
        return self.pixels.shape[1]

    def of(self, which: np.ndarray) -> Stamps:
        return self if which.all() else Stamps(**{name: values[which] for name, values in vars(self).items()})


def weight_kinds(job: Job, stamps: Stamps) -> np.ndarray:
    """``EVEN``, ``OUTSKIRTS`` or ``ON_CORE``, (count,)."""
    kinds = np.where((stamps.weights < 1).any(axis=(1, 2)), OUTSKIRTS, EVEN)
    for place in np.flatnonzero(kinds):
        i = stamps.members[place]
        reach = math.ceil(CORE * job.psf.fwhm[i])
        y, x = (round(value) for value in (job.y[i] - stamps.corners[place, 0], job.x[i] - stamps.corners[place, 1]))
        near = stamps.weights[place, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        if (near < 1).any():
            kinds[place] = ON_CORE
    return kinds


def cut_stamps(job: Job, members: np.ndarray, side: int) -> Stamps:
    pixels, weights = np.zeros((2, len(members), side, side))
    corners, (level, sigma) = np.zeros((len(members), 2), np.int64), np.zeros((2, len(members)))
    for place, i in enumerate(members):
        image, weight = job.pixels(i)
        sigma[place] = job.noise(i, image, weight)
        if job.ivars is not None and sigma[place] > 0:
            weight = weight * sigma[place] ** 2
            weight[weight > 1 - 1e-12] = 1.0
        corner = np.round([job.y[i], job.x[i]]).astype(np.int64) - side // 2
        low, high = np.maximum(corner, 0), np.minimum(corner + side, image.shape)
        there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        here = tuple(slice(a, b) for a, b in zip(low - corner, high - corner, strict=True))
        pixels[place][here], weights[place][here] = image[there], weight[there]
        corners[place] = corner
        used = weight[there] > 0
        if not used.any() or np.ptp(image[there][used]) == 0:
            sigma[place] = np.nan
            continue
        level[place] = image[there][used].mean()
        pixels[place][here][used] -= level[place]
        # An image without noise: some noise all the same, at what rounding leaves of it.
        sigma[place] = max(sigma[place], 1e-9 * np.abs(pixels[place]).max())
        pixels[place] /= sigma[place]
    return Stamps(members, pixels, weights, corners, level, sigma)


def bounds(job: Job, stamps: Stamps) -> Box:
    members, side = stamps.members, stamps.side
    low, high = np.full((len(members), 7), -np.inf), np.full((len(members), 7), np.inf)
    low[:, R], high[:, R] = math.log(R_MIN), math.log(side)
    low[:, N], high[:, N] = math.log(N_MIN), math.log(N_MAX)
    for place, start, axis in ((X, job.x, 1), (Y, job.y, 0)):
        low[:, place] = np.maximum(start[members] - side / 8, -0.5) - stamps.corners[:, axis]
        high[:, place] = np.minimum(start[members] + side / 8, job.shapes[members, axis] - 0.5) - stamps.corners[:, axis]
    return Box(low, high)


def filled(stamps: Stamps) -> np.ndarray:
    """Pixels with a first guess for those not used: the one opposite of the middle; else, near the middle, what lies around;
    else the median of the stamp."""
    pixels = stamps.pixels.copy()
    middle = stamps.side // 2
    near = slice(middle - _HOLE, middle + _HOLE + 1)
    for image, weight in zip(pixels, stamps.weights, strict=True):
        unused = weight == 0
        if unused.any():
            image[unused] = np.median(image[~unused])
            image[unused] = np.roll(image[::-1, ::-1], 1 - len(image) % 2, (0, 1))[unused]
            alone = unused & np.roll(unused[::-1, ::-1], 1 - len(image) % 2, (0, 1))
            _inpaint(image[near, near], alone[near, near].copy())
    return pixels


def _inpaint(image: np.ndarray, holes: np.ndarray) -> None:
    """Holes become, from their rims inwards, the mean of the neighbours."""
    while holes.any() and not holes.all():
        known = np.pad(~holes, 1).astype(float)
        light = np.pad(np.where(holes, 0, image), 1)
        steps = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)]
        known, light = (np.sum([np.roll(each, step, (0, 1)) for step in steps], 0) for each in (known, light))
        rim = holes & (known[1:-1, 1:-1] > 0)
        image[rim] = (light[1:-1, 1:-1][rim]) / known[1:-1, 1:-1][rim]
        holes &= ~rim
