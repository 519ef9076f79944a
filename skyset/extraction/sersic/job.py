"""What users give, checked, and the results as they come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from skyset.extraction.sersic.psf import Psf, one_each
from skyset.extraction.sersic.results import SersicFits, SersicFlag

#: Sides of the square stamps that are fitted.
SIDES = (48, 64, 80, 96, 112, 125, 160, 192, 240, 320, 448, 640, 896, 1280, 1792, 2560)


class Job:
    """Checked input, and the results as they come."""

    def __init__(self, images, psf, x, y, r_e, q, pa, n, sigma, ivar, mask):
        self.images = _as_images(images, "images")
        count = len(self.images)
        self.psf = Psf(psf, count)
        self.masks = _companions(mask, self.images, "mask")
        self.ivars = _companions(ivar, self.images, "ivar")
        if sigma is not None and ivar is not None:
            raise ValueError("sigma and ivar are both given; one of them says how noisy the pixels are")
        self.x, self.y = one_each(x, count, "x"), one_each(y, count, "y")
        self.sized = r_e is not None
        self.r_e, self.q = one_each(2.0 if r_e is None else r_e, count, "r_e"), one_each(1.0 if q is None else q, count, "q")
        self.pa, self.n = one_each(0.0 if pa is None else pa, count, "pa"), one_each(1.5 if n is None else n, count, "n")
        # A start that is not a number is a start all the same: x and y are not, without them there is no object.
        for values, default in ((self.r_e, 2.0), (self.q, 1.0), (self.pa, 0.0), (self.n, 1.5)):
            values[~np.isfinite(values)] = default
        self.r_e, self.q = np.clip(self.r_e, 0.3, 1e4), np.clip(self.q, 0.2, 1.0)
        self.n = np.clip(self.n, 0.5, 6.0)
        self.shapes = np.array([image.shape for image in self.images]).reshape(count, 2)
        self.sigma = np.full(count, np.nan) if sigma is None else one_each(sigma, count, "sigma")
        if sigma is not None and not (self.sigma > 0).all():
            raise ValueError("sigma must be above 0 for every object")
        inside = (self.x >= -0.5) & (self.x < self.shapes[:, 1] - 0.5)
        self.usable = inside & (self.y >= -0.5) & (self.y < self.shapes[:, 0] - 0.5)
        self.values = {each.name: np.full(count, np.nan) for each in fields(SersicFits)}
        self.values["covariance"] = np.full((count, 7, 7), np.nan)
        self.values["flags"] = np.full(count, int(SersicFlag.NOT_MEASURED))
        self.values["iterations"] = np.zeros(count, np.int64)
        self.values["sigma_pixel"] = self.sigma

    def pixels(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """An image and its weights (inverse variances, or 1), float64, 0 where not used."""
        image = np.ma.asarray(self.images[i])
        pixels = np.ma.getdata(image).astype(np.float64)
        used = np.isfinite(pixels)
        if np.ma.is_masked(image):
            used &= ~np.ma.getmaskarray(image)
        if self.masks is not None:
            used &= ~self.masks[i]
        weight = used.astype(np.float64)
        if self.ivars is not None:
            ivar = np.asarray(self.ivars[i], np.float64)
            if np.nanmin(ivar, initial=0.0) < 0:
                raise ValueError(f"an inverse variance of image {i} is negative")
            weight = np.where(used & np.isfinite(ivar), ivar, 0.0)
        return np.where(weight > 0, pixels, 0.0), weight

    def noise(self, i: int, pixels: np.ndarray, weight: np.ndarray) -> float:
        if self.ivars is not None:
            return 1 / math.sqrt(weight.max()) if weight.max() > 0 else math.nan
        if math.isnan(self.sigma[i]):
            self.sigma[i] = clipped_noise(pixels[weight > 0])
        return self.sigma[i]

    def first_sides(self) -> np.ndarray:
        sides = side_for(np.where(self.sized, self.r_e, 3.0), self.n, self.psf.fwhm)
        return np.minimum(sides, self.largest_sides())

    def largest_sides(self) -> np.ndarray:
        """A quarter beyond the image: enough that what leaves the stamp stays away from the image."""
        return _at_least(1.25 * self.shapes.max(axis=1, initial=1))

    def sides_wanted(self, members: np.ndarray) -> np.ndarray:
        """Sides for what was found; 0 where nothing was."""
        r_e, n = (self.values[name][members] for name in ("r_e", "n"))
        found = np.isfinite(r_e)
        sides = side_for(np.where(found, r_e, 1.0), np.where(found, n, 1.0), self.psf.fwhm[members])
        return np.where(found, np.minimum(sides, self.largest_sides()[members]), 0)

    def result(self) -> SersicFits:
        return SersicFits(**self.values)


def _as_images(images, what: str) -> list[np.ndarray]:
    """Images one by one, as they came."""
    if isinstance(images, np.ndarray) or not isinstance(images, Sequence):
        images = images if isinstance(images, np.ndarray) else np.asarray(images)
        if images.ndim not in (2, 3):
            raise ValueError(f"{what} have shape {images.shape}; (count, rows, columns) or (rows, columns) is needed")
        images = [images] if images.ndim == 2 else list(images)
    images = [image if isinstance(image, np.ndarray) else np.asarray(image) for image in images]
    for i, image in enumerate(images):
        if image.ndim != 2 or image.size == 0:
            raise ValueError(f"{what}: number {i} has shape {image.shape}; (rows, columns) is needed")
        if image.dtype.kind not in "fiub":
            raise ValueError(f"{what}: number {i} holds {image.dtype}, not real numbers")
    return images


def _companions(given, images: list[np.ndarray], what: str) -> list[np.ndarray] | None:
    """Masks or inverse variances, one per image."""
    if given is None:
        return None
    given = _as_images(given, what)
    if len(given) == 1:
        given = given * len(images)
    if len(given) != len(images):
        raise ValueError(f"{len(images)} images, but {len(given)} of {what}")
    for i, (image, each) in enumerate(zip(images, given, strict=True)):
        if image.shape != each.shape:
            raise ValueError(f"image {i} has shape {image.shape}, its {what} {each.shape}")
    return [each.astype(bool) for each in given] if what == "mask" else given


def clipped_noise(pixels: np.ndarray, clip: float = 3.0) -> float:
    """Standard deviation of the sky from the median absolute deviation, without what is far from the median."""
    sigma = math.nan
    for _ in range(8):
        if not len(pixels):
            break
        middle = np.median(pixels)
        before, sigma = sigma, 1.4826 * float(np.median(np.abs(pixels - middle)))
        if sigma == 0 or sigma == before:
            break
        pixels = pixels[np.abs(pixels - middle) < clip * sigma]
    return sigma


def _at_least(size: np.ndarray) -> np.ndarray:
    """The smallest of ``SIDES`` that is not less, or the largest."""
    return np.array(SIDES)[np.minimum(np.searchsorted(SIDES, size), len(SIDES) - 1)]


def side_for(r_e: np.ndarray, n: np.ndarray, fwhm: np.ndarray) -> np.ndarray:
    """Side of a stamp for a galaxy: the wings beyond it, which wrap around in the model, change n by 1.5 % at most."""
    return _at_least((3 + 4 * n) * r_e + 5 * fwhm + 4)
