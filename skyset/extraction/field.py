"""An image made ready for an engine: pixels and which of them are bad, the background taken away, noise and thresholds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from skyset.extraction.definitions import UNUSABLE
from skyset.extraction.settings import Settings

_NONE = np.zeros((0, 0), np.float32)
_NO_MASK = np.zeros((0, 0), np.bool_)


class Background(Protocol):
    """The background of an image: ``level`` and ``rms``, medians over its meshes (counts); ``measured``: what the image has
    where another level was given, else None; ``size``: of a mesh (width, height), ``rms_mesh``: the noise of each, ``mesh``:
    the level of each, where that is a check image."""

    level: float
    rms: float
    size: tuple[int, int]
    mesh: np.ndarray
    rms_mesh: np.ndarray
    measured: Background | None

    def subtract(self, image: np.ndarray, out: np.ndarray) -> None: ...

    def map(self) -> np.ndarray: ...

    def rms_map(self) -> np.ndarray: ...

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray: ...


def usable_pixels(image: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """float32 pixels in native order, which of them are bad (bool; None: none), and whether the array is ours to change.

    Raises:
        ValueError: the image has not two sides or no real numbers, or the mask another shape.
    """
    if isinstance(image, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(image)
        mask = hidden if mask is None else np.asarray(mask, bool) | hidden
        image = image.data
    image = np.asarray(getattr(image, "value", image))
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"the image has shape {image.shape}: it must have two sides, none of them 0")
    if image.dtype.kind not in "iufb":
        raise ValueError(f"the image is of {image.dtype}: it must be of real numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = np.ascontiguousarray(image, np.float32)
    own = not np.may_share_memory(pixels, image)
    bad = in_shape(mask, pixels.shape, "mask")
    if bad is not None:
        bad = np.ascontiguousarray(bad.astype(bool))
    # NaN is neither least nor greatest of anything, so that it fails the comparison as the marks do.
    if image.dtype.kind == "f" and not (pixels.min() > -UNUSABLE and pixels.max() < UNUSABLE):
        with np.errstate(invalid="ignore"):
            spoilt = ~(np.abs(pixels) < UNUSABLE)
        bad = spoilt if bad is None else bad | spoilt
    return pixels, bad if bad is not None and bad.any() else None, own


def in_shape(other: np.ndarray | None, shape: tuple[int, int], what: str) -> np.ndarray | None:
    """The array, or None; ValueError where it has not the image's shape."""
    if other is None:
        return None
    other = np.asarray(other)
    if other.shape != shape:
        raise ValueError(f"the {what} has shape {other.shape}, the image {shape}")
    return other


def bad_weights(weight: np.ndarray, settings: Settings, bad: np.ndarray | None) -> np.ndarray | None:
    """The bad pixels (bool; None: none) with those whose weights say that they are."""
    limit = settings.weight_threshold
    if settings.weight_type == "weight":
        poor = ~(weight > (0 if limit is None else limit))
    else:
        poor = ~((weight > 0) & (weight < (1e30 if limit is None else limit)))
    rms = _as_rms(weight, settings)
    poor |= ~((rms > 0) & np.isfinite(rms))
    if bad is not None:
        poor |= bad
    return poor if poor.any() else None


@dataclass(frozen=True, eq=False)
class Field:
    """What an engine looks at.

    ``image``: float32 (rows, columns), counts, background subtracted, 0 where bad; ``bad``: bool, (0, 0) where none is.
    ``noise``: what multiplies ``sigma`` (counts), and ``scale``: the thresholds (counts), float32 (rows, columns), (0, 0)
    where they are 1. ``kernel``: of the filter, float32, (0, 0): none.
    """

    image: np.ndarray
    bad: np.ndarray
    noise: np.ndarray
    scale: np.ndarray
    sigma: float
    threshold: float
    analysis: float
    kernel: np.ndarray

    @classmethod
    def make(cls, pixels, bad, own, background: Background, weight, settings: Settings) -> Field:
        sigma = background.rms
        if not np.isfinite(sigma):
            warnings.warn("the image has no usable pixels: no sources", stacklevel=4)
        elif sigma == 0 and not settings.absolute:
            warnings.warn("the background of the image has no noise (its pixels are alike): no sources", stacklevel=4)
        out = pixels if own else np.empty_like(pixels)
        if np.isfinite(background.level):
            background.subtract(pixels, out)
        else:
            out = np.zeros_like(pixels)
        if bad is not None:
            out[bad] = 0
        noise = _NONE if weight is None else _noise(weight, settings, bad, background)
        unit = 1.0 if settings.absolute else sigma
        kernel = _NONE
        if settings.kernel is not None:
            kernel = settings.kernel
            if settings.normalise_kernel:
                kernel = kernel / np.abs(kernel).sum()
        return cls(
            out,
            _NO_MASK if bad is None else bad,
            noise,
            _NONE if settings.absolute else noise,
            sigma,
            settings.threshold * unit,
            settings.analysis * unit,
            np.ascontiguousarray(kernel, np.float32),
        )


def _noise(weight: np.ndarray, settings: Settings, bad: np.ndarray | None, background: Background) -> np.ndarray:
    """The noise of each pixel in units of the background's median rms, float32."""
    rms = _as_rms(weight, settings)
    good = np.ones(rms.shape, bool) if bad is None else ~bad
    unit = background.rms
    if settings.weight_type == "weight" and good.any():
        # Relative weights say how the noise is spread; how much there is, the meshes of the background.
        variance = _mesh_means(np.where(good, rms, 0).astype(np.float64) ** 2, background)
        known = variance > 0
        share = _mesh_means(good.astype(np.float64), background)[known]
        unit /= float(np.median(background.rms_mesh[known] / np.sqrt(variance[known] / share))) or 1.0
    # A bad pixel has no light, but its neighbours' may reach it through the filter: it needs some threshold.
    return np.ascontiguousarray(np.where(good, rms / (unit or 1.0), 1), np.float32)


def _as_rms(weight: np.ndarray, settings: Settings) -> np.ndarray:
    """Noise by weights, in counts or relative, float32; not finite or 0 where it is unknown."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        rms = np.asarray(weight, np.float64)
        if settings.weight_type == "weight":
            rms = 1 / np.sqrt(rms)
        elif settings.weight_type == "variance":
            rms = np.sqrt(rms)
        return rms.astype(np.float32)


def _mesh_means(values: np.ndarray, background: Background) -> np.ndarray:
    """The mean in each mesh of the background."""
    width, height = background.size
    rows, columns = (np.arange(0, side, step) for side, step in zip(values.shape, (height, width), strict=True))
    sums = np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1)
    counts = np.diff([*rows, values.shape[0]])[:, None] * np.diff([*columns, values.shape[1]])
    return sums / counts
