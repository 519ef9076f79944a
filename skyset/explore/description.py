"""A galaxy described without training: its light over radius and angle, whichever way it is turned.

The outline of the object in the middle (an ellipse) says how large, how flat and how turned the galaxy is. Along rings of
that shape the light is averaged (profile and colours), compared with its smooth course (a ring of stars is a bump in it),
and split into Fourier modes (a bar is m = 2, lopsidedness m = 1). numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skyset.pixels import as_array

#: Rings, points on a ring, and the outermost ring in units of the ellipse's semi-major axis.
RADII, ANGLES, EXTENT = 32, 64, 3.0
#: Counts (of 255) below which the scale of brightness is linear; above, logarithmic: about the sky's noise.
SOFTENING = 8.0
MODES = 8
#: In units of the ellipse: where the middle of a galaxy ends, and its outskirts.
MIDDLE, OUTSKIRTS = 0.75, 2.0


@dataclass(frozen=True)
class Ellipse:
    """The second moments of an object: semi-axes in pixels (one standard deviation), position angle from the x axis."""

    major: float
    ratio: float
    angle: float


def as_bands(image) -> np.ndarray:
    """A PIL image or an array as float64 (height, width, 3); grey images have three equal bands.

    Raises:
        ValueError: not an image of one, three or four bands.
    """
    pixels = as_array(image).astype(np.float64)
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or min(pixels.shape[:2]) < 8:
        raise ValueError(f"not an image with one or three bands: shape {pixels.shape}")
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def reduce_by(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Means of ``factor`` x ``factor`` pixels; what is left over at the edges is cut off evenly."""
    height, width = (size // factor for size in pixels.shape[:2])
    top, left = (pixels.shape[0] - height * factor) // 2, (pixels.shape[1] - width * factor) // 2
    cut = pixels[top : top + height * factor, left : left + width * factor]
    return cut.reshape(height, factor, width, factor, *pixels.shape[2:]).mean(axis=(1, 3))


def central_object(grey: np.ndarray, sigmas: float = 2.0, floor: float = 4.0) -> np.ndarray:
    """Pixels connected with the middle that are brighter than the sky's noise.

    Args:
        grey: (height, width).
        sigmas: in robust standard deviations of the whole image.
        floor: counts above the sky, at least.

    Returns:
        bool (height, width); the innermost pixels alone where nothing stands out.
    """
    sky = np.median(grey)
    noise = 1.4826 * np.median(np.abs(grey - sky))
    bright = grey > sky + max(sigmas * noise, floor)
    rows, columns = grey.shape
    found = np.zeros_like(bright)
    found[rows // 2 - 2 : rows // 2 + 2, columns // 2 - 2 : columns // 2 + 2] = True
    seed = found & bright
    if not seed.any():
        return found
    size = 0
    while seed.sum() > size:
        size = seed.sum()
        grown = seed.copy()
        grown[1:] |= seed[:-1]
        grown[:-1] |= seed[1:]
        grown[:, 1:] |= grown[:, :-1]
        grown[:, :-1] |= grown[:, 1:]
        seed = grown & bright
    return seed


def outline(bands: np.ndarray) -> Ellipse:
    """The ellipse with the second moments of the object in the middle, about the middle.

    Pixels weigh by the square root of their light, so that the disc counts beside the bulge.
    """
    factor = max(1, min(bands.shape[:2]) // 106)
    grey = reduce_by(bands.mean(axis=2), factor)
    member = central_object(grey)
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    y, x = y - (grey.shape[0] - 1) / 2, x - (grey.shape[1] - 1) / 2
    weight = np.where(member, np.sqrt(np.clip(grey - np.median(grey), 0, None)), 0) + 1e-9 * member
    weight /= weight.sum()
    xx, yy, xy = (weight * x * x).sum(), (weight * y * y).sum(), (weight * x * y).sum()
    mean, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    major = np.sqrt(mean + half)
    minor = np.sqrt(max(mean - half, 0.0))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    return Ellipse(float(max(major, 1.0) * factor), float(np.clip(minor / max(major, 1e-9), 0.2, 1.0)), float(angle))


def unwrap(
    bands: np.ndarray, ellipse: Ellipse, radii: int = RADII, angles: int = ANGLES, extent: float = EXTENT
) -> np.ndarray:
    """The light on rings shaped like the ellipse.

    Args:
        bands: float (height, width, bands).

    Returns:
        float64 (bands, radii, angles), from the middle outwards, counter-clockwise from the major axis; bilinear between
        pixels, which are averaged first where rings lie several pixels apart.
    """
    factor = max(1, round(ellipse.major * extent / radii))
    small = reduce_by(bands, factor)
    middle = (np.array(small.shape[:2]) - 1) / 2
    radius = (np.arange(radii)[:, None] + 0.5) / radii * extent * ellipse.major / factor
    turn = np.arange(angles)[None, :] * (2 * np.pi / angles)
    along, across = radius * np.cos(turn), radius * np.sin(turn) * ellipse.ratio
    x = middle[1] + along * np.cos(ellipse.angle) - across * np.sin(ellipse.angle)
    y = middle[0] + along * np.sin(ellipse.angle) + across * np.cos(ellipse.angle)
    x, y = np.clip(x, 0, small.shape[1] - 1.001), np.clip(y, 0, small.shape[0] - 1.001)
    left, top = x.astype(int), y.astype(int)
    dx, dy = (x - left)[..., None], (y - top)[..., None]
    rows = (1 - dx) * small[top, left] + dx * small[top, left + 1]
    below = (1 - dx) * small[top + 1, left] + dx * small[top + 1, left + 1]
    return ((1 - dy) * rows + dy * below).transpose(2, 0, 1)


def smooth(values: np.ndarray, sigma: float, axis: int, circular: bool = False, order: int = 0) -> np.ndarray:
    """Convolved with a Gaussian (or its first or second derivative) along one axis; ends repeat the last value, or wrap."""
    reach = int(4 * sigma + 0.5)
    offset = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    kernel /= kernel.sum()
    if order == 1:
        kernel *= -offset / sigma**2
    if order == 2:
        kernel *= (offset**2 - sigma**2) / sigma**4
    moved = np.moveaxis(values, axis, -1)
    padded = np.pad(moved, [(0, 0)] * (moved.ndim - 1) + [(reach, reach)], mode="wrap" if circular else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=-1)
    return np.moveaxis(windows @ kernel[::-1], -1, axis)


def describe(image) -> np.ndarray:
    """What an image looks like, whatever way it is turned.

    Args:
        image: PIL image, or array of 8-bit counts (height, width[, bands]); the object is in the middle.

    Returns:
        float32 vector; its parts are those of ``parts``.
    """
    return np.concatenate([part.ravel() for part in parts(image).values()]).astype(np.float32)


def parts(image) -> dict[str, np.ndarray]:
    """The parts of the description by name; brightness is arcsinh(counts / 8)."""
    bands = as_bands(image)
    return parts_of(bands, outline(bands))


def parts_of(bands: np.ndarray, ellipse: Ellipse) -> dict[str, np.ndarray]:
    """As ``parts``, on rings of a given ellipse."""
    light = unwrap(bands, ellipse)
    scaled = np.arcsinh(light / SOFTENING)
    mean_light = light.mean(axis=0)
    grey = np.arcsinh(mean_light / SOFTENING)
    profiles = np.median(scaled, axis=2)
    profile = np.median(grey, axis=1)
    level = mean_light.mean(axis=1, keepdims=True) + 3
    modes = np.abs(np.fft.rfft(mean_light, axis=1))[:, 1 : MODES + 1] / mean_light.shape[1] / level
    bend = smooth(smooth(grey, 1.5, 0, order=2), 2, 1, circular=True)
    texture = []
    for scale in (1, 2, 4):
        detail = np.abs(grey - smooth(smooth(grey, scale, 0), scale, 1, circular=True))
        texture.append(detail.reshape(8, -1).mean(axis=1))
    return {
        "profiles": profiles,
        "colours": np.stack([profiles[0] - profiles[2], profiles[0] - profiles[1]]),
        "bumps": profile - smooth(profile, 3, 0),
        "slope": smooth(profile, 1, 0, order=1),
        "curvature": smooth(profile, 1.2, 0, order=2),
        "modes": np.log(modes + 0.01).T,
        "bend": np.stack([bend.mean(axis=1), (bend < -0.02).mean(axis=1)]),
        "texture": np.array(texture),
        "asymmetry": np.abs(grey - np.roll(grey, grey.shape[1] // 2, axis=1)).mean(axis=1),
        "scatter": grey.std(axis=1),
        "shape": np.array([np.log(ellipse.major / min(bands.shape[:2])), ellipse.ratio, ellipse.ratio**2]),
    }


def look(image) -> dict[str, np.ndarray]:
    """What a person would compare two galaxies by: colour, size, shape, concentration, clumps; and the finer parts.

    Returns:
        ``colour`` (4,): ln of the light of the first band over the last, and over the second, in the middle and in the
        outskirts; ``size`` (1,): ln of the ellipse's semi-major axis in pixels; ``concentration`` (2,): ln of the ratios of
        the radii that hold 90 and 50, 50 and 20 % of the light; ``flatness`` (1,): the ellipse's axis ratio; ``clumps``
        (2,): ln of the light off the smooth profile, and off its mirror image, over all; ``brightness`` (1,): ln of the
        mean counts in the middle; ``profiles, bend, modes`` as in `parts`.
    """
    bands = as_bands(image)
    ellipse = outline(bands)
    finer = parts_of(bands, ellipse)
    light = unwrap(bands, ellipse) - _sky(bands)[:, None, None]
    radius = (np.arange(RADII) + 0.5) / RADII * EXTENT
    flux = np.clip(light.mean(axis=2), 0, None) * radius  # of each ring, by its length
    middle, outskirts = radius < MIDDLE, (radius >= MIDDLE) & (radius < OUTSKIRTS)
    inner, outer = (flux[:, rings].sum(axis=1) + 1 for rings in (middle, outskirts))
    total = np.cumsum(flux.sum(axis=0) + 1e-9)
    r20, r50, r90 = np.interp([0.2, 0.5, 0.9], total / total[-1], radius)
    grey = light.mean(axis=0)[radius < OUTSKIRTS + MIDDLE / 3]
    profile, length = np.median(grey, axis=1, keepdims=True), radius[: len(grey), None]
    smooth_light = (np.abs(profile) * length).sum() * ANGLES + 1
    off_profile = (np.abs(grey - profile) * length).sum() + 1
    off_mirror = (np.abs(grey - np.roll(grey, ANGLES // 2, axis=1)) * length).sum() + 1
    return {
        "colour": np.log([x[0] / x[k] for x in (inner, outer) for k in (2, 1)]),
        "size": np.log([ellipse.major]),
        "concentration": np.log([r90 / r50, r50 / r20]),
        "flatness": np.array([ellipse.ratio]),
        "clumps": np.log([off_profile / smooth_light, off_mirror / smooth_light]),
        "brightness": np.log([max(1.0, profile[: np.count_nonzero(middle)].mean())]),
        **{name: finer[name] for name in ("profiles", "bend", "modes")},
    }


def _sky(bands: np.ndarray) -> np.ndarray:
    """The median of each band in the corners, float64 (bands,)."""
    y, x = (np.abs(np.linspace(-1, 1, size)) for size in bands.shape[:2])
    return np.median(bands[np.hypot(y[:, None], x[None]) > 0.7], axis=0)
