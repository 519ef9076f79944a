"""The engine ``sep``: sources found and measured by the package sep (Barbary 2016, JOSS 1, 58), without compiling.

sep finds the background, the sources and their moments, and sums the light in apertures. From its segmentation map numpy
counts what sep does not give: isophotal areas and errors, the width of the core. ``docs/extraction_engines.md`` has the
table of columns, which engine gives them, and how closely the two agree.

What SExtractor and the engine ``compiled`` do otherwise: pixels below the junctions of blended sources are shared out at
random (the same for the same image), and a detection that is cleaned away is dropped, not added to its neighbour.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import sep

from skyset.errors import UserError
from skyset.extraction.columns import CHECKS
from skyset.extraction.definitions import (
    APERTURE_INCOMPLETE,
    BLENDED,
    CORE,
    CROWDED,
    FLATTEST,
    ISOPHOTE_INCOMPLETE,
    KRON_ZONE,
    NEIGHBOURS,
    OVERFLOW,
    TRUNCATED,
    WINDOW_FWHM,
)
from skyset.extraction.field import Field
from skyset.extraction.settings import Settings

TITLE = f"sep {sep.__version__}"
#: Where columns come from: sep's own fields and functions, numpy over sep's segmentation map, and arithmetic on these.
FROM_EXTRACT = (
    "X_IMAGE",
    "Y_IMAGE",
    "X_IMAGE_DBL",
    "Y_IMAGE_DBL",
    "XMIN_IMAGE",
    "YMIN_IMAGE",
    "XMAX_IMAGE",
    "YMAX_IMAGE",
    "XPEAK_IMAGE",
    "YPEAK_IMAGE",
    "X2_IMAGE",
    "Y2_IMAGE",
    "XY_IMAGE",
    "CXX_IMAGE",
    "CYY_IMAGE",
    "CXY_IMAGE",
    "A_IMAGE",
    "B_IMAGE",
    "THETA_IMAGE",
    "ELONGATION",
    "ELLIPTICITY",
    "POLAR_IMAGE",
    "ERRX2_IMAGE",
    "ERRY2_IMAGE",
    "ERRXY_IMAGE",
    "ERRA_IMAGE",
    "ERRB_IMAGE",
    "ERRTHETA_IMAGE",
    "ISOAREAF_IMAGE",
    "FLUX_ISO",
    "MAG_ISO",
    "FLUX_MAX",
    "MU_MAX",
)
COLUMNS: dict[str, tuple[str, ...]] = {
    "sep.extract": FROM_EXTRACT,
    "sep.Background": ("BACKGROUND", "THRESHOLD", "MU_THRESHOLD"),
    "sep.kron_radius": ("KRON_RADIUS",),
    "sep.sum_ellipse": ("FLUX_AUTO", "FLUXERR_AUTO", "MAG_AUTO", "MAGERR_AUTO"),
    "sep.sum_circle": ("FLUX_APER", "FLUXERR_APER", "MAG_APER", "MAGERR_APER"),
    "sep.flux_radius": ("FLUX_RADIUS",),
    "sep.winpos": ("XWIN_IMAGE", "YWIN_IMAGE"),
    "sep's segmentation map": (
        "ISOAREA_IMAGE",
        *(f"ISO{k}" for k in range(8)),
        "FWHM_IMAGE",
        "FLUXERR_ISO",
        "MAGERR_ISO",
        "IMAFLAGS_ISO",
        "NIMAFLAGS_ISO",
    ),
    "the columns above": ("NUMBER", "EXT_NUMBER", "FLAGS", "CLASS_STAR"),
    "the columns above and the WCS": (
        "X_WORLD",
        "Y_WORLD",
        "ALPHA_SKY",
        "DELTA_SKY",
        "ALPHA_J2000",
        "DELTA_J2000",
        "XWIN_WORLD",
        "YWIN_WORLD",
        "ALPHAWIN_J2000",
        "DELTAWIN_J2000",
        "A_WORLD",
        "B_WORLD",
        "THETA_J2000",
        "FWHM_WORLD",
        "ISOAREA_WORLD",
    ),
}
MEASURED = frozenset(name for some in COLUMNS.values() for name in some)
#: sep shows neither its meshes nor the filtered image.
MADE = tuple(kind for kind in CHECKS if kind not in ("MINIBACKGROUND", "MINIBACK_RMS", "FILTERED"))
#: SExtractor's bits for those of sep.extract; what is left of sep's (8: a line or a point) SExtractor does not tell.
_FLAGS = ((sep.OBJ_MERGED, BLENDED), (sep.OBJ_TRUNC, TRUNCATED), (sep.OBJ_DOVERFLOW, OVERFLOW))
#: Pixels above the threshold and parts of a blend that sep makes room for at first; doubled while they do not suffice.
_PIXELS, _PARTS, _MOST_PARTS = 300_000, 1024, 1 << 20
_ROOM = threading.Lock()


def refused(settings: Settings, weighted: bool) -> Iterable[str]:
    """What of the settings cannot be honoured, each in words."""
    if settings.maxarea:
        yield f"has no largest area (DETECT_MAXAREA {settings.maxarea})"
    kernel = settings.kernel
    if kernel is not None and not settings.normalise_kernel and abs(np.abs(kernel).sum() - 1) > 1e-5:
        yield "divides a filter's weights by the sum of their sizes (CONV NONORM)"
    if settings.absolute and weighted:
        yield "has thresholds that follow the noise where there are weights (THRESH_TYPE ABSOLUTE)"


# The background


@dataclass(frozen=True, eq=False)
class Background:
    """The background of an image: ``level`` and ``rms``, medians over sep's meshes; NaN where no pixel is usable, and rms 0
    where all are alike. ``size``: of a mesh (width, height). ``measured``: what the image has where ``level`` was given
    (BACK_TYPE MANUAL), None otherwise."""

    made: sep.Background | None
    level: float
    rms: float
    shape: tuple[int, int]
    size: tuple[int, int]
    measured: Background | None = None

    @cached_property
    def _map(self) -> np.ndarray:
        if self.measured is not None or self.made is None:
            return np.full(self.shape, self.level, np.float32)
        return self.made.back(dtype=np.float32)

    @cached_property
    def _rms_map(self) -> np.ndarray:
        return np.full(self.shape, self.rms, np.float32) if self.made is None else self.made.rms(dtype=np.float32)

    def map(self) -> np.ndarray:
        """The background of every pixel, float32 (rows, columns), counts."""
        return self._map.copy()

    def rms_map(self) -> np.ndarray:
        """The noise of every pixel, float32 (rows, columns), counts."""
        return self._rms_map.copy()

    def subtract(self, image: np.ndarray, out: np.ndarray) -> None:
        """``image`` less the background into ``out``, float32."""
        np.subtract(image, self._map, out=out)

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The background of some pixels by their 0-based whole coordinates, float32 (n,)."""
        return self._map[np.asarray(y, np.int64), np.asarray(x, np.int64)]

    @property
    def rms_mesh(self) -> np.ndarray:
        """The noise of each mesh, float64 (rows, columns of meshes): sep's map at their centres."""
        rows, columns = (
            np.minimum(np.arange(0, side, step) + step // 2, side - 1)
            for side, step in zip(self.shape, self.size[::-1], strict=True)
        )
        return self._rms_map[np.ix_(rows, columns)].astype(np.float64)


def measure_background(image: np.ndarray, settings: Settings, bad: np.ndarray | None = None) -> Background:
    """The background of an image, float32 (rows, columns); ``bad`` pixels (bool), which those without a number must be, are
    not used."""
    rows, columns = image.shape
    width, height = (min(size, side) for size, side in zip(settings.back_size, (columns, rows), strict=True))
    if bad is not None and bad.all():
        return Background(None, np.nan, np.nan, image.shape, (width, height))
    across, down = settings.back_filter
    image = np.require(image, requirements=["W"])  # sep takes no array that it could not write to
    made = sep.Background(image, mask=bad, bw=width, bh=height, fw=across, fh=down, fthresh=settings.back_filter_threshold)
    rms = float(made.globalrms)
    if rms == 1.0 and not (made.rms(dtype=np.float32) > 0).any():
        rms = 0.0  # where no mesh has any noise sep says 1
    found = Background(made, float(made.globalback), rms, image.shape, (width, height))
    if settings.back_value is None:
        return found
    return Background(made, float(settings.back_value), rms, image.shape, (width, height), found)


# The sources


class Seen:
    """The sources: isophotal numbers by the names of `isophotes.NAMES`, float64 (n,), 0-based, and ``segmentation``.

    They are in the order in which a scan from the first row meets their pixels."""

    def __init__(self, objects: np.ndarray, segmentation: np.ndarray, field: Field, settings: Settings) -> None:
        self.objects, self.segmentation, self.field, self.gain = objects, segmentation, field, settings.gain
        self._make = {
            "x": "x",
            "y": "y",
            "xpeak": "xcpeak",
            "ypeak": "ycpeak",
            "area_detected": "npix",
            "flux": "flux",
            **{
                name: name
                for name in (
                    "x2",
                    "y2",
                    "xy",
                    "cxx",
                    "cyy",
                    "cxy",
                    "a",
                    "b",
                    "errx2",
                    "erry2",
                    "errxy",
                    "xmin",
                    "xmax",
                    "ymin",
                    "ymax",
                    "peak",
                )
            },
        }

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, name: str) -> np.ndarray:
        if name == "theta":  # rounded up, it would be no angle that sep takes
            return np.clip(self.objects["theta"], -0.5 * np.pi, 0.5 * np.pi)
        if name in self._make:
            return self.objects[self._make[name]].astype(np.float64)
        if name == "area" or name.startswith("iso"):
            return self._areas[0 if name == "area" else int(name[3:])]
        return getattr(self, f"_{name}")

    @cached_property
    def _pixels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of each pixel of a source: the source's row, the pixel's column and row, its value."""
        inside = np.flatnonzero(self.segmentation)
        y, x = np.divmod(inside, self.segmentation.shape[1])
        return self.segmentation.ravel()[inside] - 1, x, y, self.field.image.ravel()[inside].astype(np.float64)

    def _sum(self, values: np.ndarray, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Sums over the pixels of each source, float64 (n,)."""
        weights = np.broadcast_to(values, self._pixels[0].shape)[chosen]
        return np.bincount(self._pixels[0][chosen], weights, len(self))

    @cached_property
    def _threshold(self) -> np.ndarray:
        """The analysis threshold, of the pixel of each source that has the least; counts."""
        least = np.full(len(self), np.inf)
        if not self.field.scale.size:
            least[:] = 1.0
        else:
            owner, x, y, _ = self._pixels
            np.minimum.at(least, owner, self.field.scale[y, x])
        return self.field.analysis * least

    @cached_property
    def _areas(self) -> list[np.ndarray]:
        """Pixels above eight levels, from the analysis threshold to the peak, float64 (n,) each."""
        owner, x, y, value = self._pixels
        scale = self.field.scale
        above = value > (self.field.analysis * scale[y, x] if scale.size else self.field.analysis)
        base, peak = self["threshold"], self["peak"]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(peak > base, np.log(peak / base) / 8, 0.0)
        areas = [self._sum(above)]
        for k in range(1, 8):
            areas.append(self._sum(above & (value > (base * np.exp(ratio * k))[owner])) * (ratio > 0))
        return areas

    @cached_property
    def _fluxvar(self) -> np.ndarray:
        _, x, y, value = self._pixels
        noise = self.field.noise
        variance = np.square(self.field.sigma * (noise[y, x].astype(np.float64) if noise.size else np.ones(1)))
        if self.gain > 0:
            variance = variance + np.maximum(value, 0) / self.gain
        return self._sum(variance)

    @cached_property
    def _fwhm(self) -> np.ndarray:
        """Of a Gaussian through the core: ln(value) on the squared distance, weights value^2 (see `isophotes`)."""
        owner, x, y, value = self._pixels
        level = np.maximum(CORE * self["peak"], self["threshold"])
        chosen = np.flatnonzero(value > level[owner])
        owner, value = owner[chosen], value[chosen]
        square = (x[chosen] - self["x"][owner]) ** 2 + (y[chosen] - self["y"][owner]) ** 2
        weight = (value / self["peak"][owner]) ** 2
        height = np.log(value)

        def sums(values: np.ndarray) -> np.ndarray:
            return np.bincount(owner, values, len(self))

        s, sx, sy = sums(weight), sums(weight * square), sums(weight * height)
        determinant = s * sums(weight * square * square) - sx * sx
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = -(s * sums(weight * square * height) - sx * sy) / determinant
            slope = np.maximum(slope, 1.0 / (FLATTEST * self["a"] * self["b"]))
            width = np.sqrt(np.maximum(4 * np.log(2.0) / slope - 0.5, 0.0))
        return np.where(np.abs(determinant) > 0, width, 0.0)

    @cached_property
    def _flags(self) -> np.ndarray:
        given = self.objects["flag"].astype(np.int64)
        flags = np.zeros(len(self), np.int64)
        for theirs, ours in _FLAGS:
            flags |= ours * ((given & int(theirs)) > 0)
        if self.field.bad.size:
            touched = self.segmentation[_grown(self.field.bad)]
            flags[np.unique(touched[touched > 0]) - 1] |= ISOPHOTE_INCOMPLETE
        return flags


def _grown(bad: np.ndarray) -> np.ndarray:
    """The bad pixels and the eight around each."""
    out = bad.copy()
    out[1:] |= bad[:-1]
    out[:-1] |= bad[1:]
    lines = out.copy()
    out[:, 1:] |= lines[:, :-1]
    out[:, :-1] |= lines[:, 1:]
    return out


def find_sources(field: Field, settings: Settings, paint: bool = True) -> Seen:
    """The sources of a field; the map of their pixels is always there, whatever ``paint`` says.

    Raises:
        UserError: sep cannot hold the pixels or parts of a source, whatever room it is given.
    """
    if not field.threshold > 0:
        objects, segmentation = sep.extract(np.zeros((1, 1), np.float32), 1.0, segmentation_map=True)
        return Seen(objects, np.zeros(field.image.shape, np.int32), field, settings)
    how = {
        "minarea": settings.minarea,
        "filter_kernel": field.kernel if field.kernel.size else None,
        "filter_type": "conv",
        "deblend_nthresh": settings.deblend_nthresh,
        "deblend_cont": settings.deblend_cont,
        "clean": settings.clean is not None,
        "clean_param": settings.clean or 1.0,
        "segmentation_map": True,
    }
    image, unit = field.image, _unit(field)
    threshold, sigma, how["gain"] = field.threshold / unit, field.sigma / unit, settings.gain * unit or None
    if unit != 1:
        image = image / np.float32(unit)
    if sigma > 0:
        threshold /= sigma
        how["err"] = np.float32(sigma) * field.scale if field.scale.size else sigma
    with _ROOM:
        objects, segmentation = _with_room(lambda: sep.extract(image, threshold, **how), image.size)
    for name in ("flux", "cflux", "peak", "cpeak"):
        objects[name] *= unit
    every = Seen(objects, segmentation, field, settings)
    # An object of which no pixel is above the analysis threshold is none.
    return Seen(*_in_order(objects, segmentation, every["area"] > 0), field, settings)


def _unit(field: Field) -> float:
    """The counts that sep looks at an image in: a power of two, so that squares fit single precision; 1 for all but few."""
    level = field.sigma or field.threshold
    return 1.0 if 1e-9 < level < 1e9 else float(2.0 ** np.clip(np.round(np.log2(level)), -120, 120))


def _with_room(work: Callable, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """What ``work`` gives, with as much room for pixels and parts of blends as it needs: sep has no more than it is told."""
    before = sep.get_extract_pixstack(), sep.get_sub_object_limit()
    room, parts = max(_PIXELS, before[0]), max(_PARTS, before[1])
    try:
        while True:
            sep.set_extract_pixstack(room)
            sep.set_sub_object_limit(parts)
            try:
                return work()
            except MemoryError:
                raise
            except Exception as error:  # sep raises no narrower kind
                said = str(error)
                if "pixel buffer full" in said and room < 2 * pixels + _PIXELS:
                    room *= 2
                elif "deblending overflow" in said and parts < _MOST_PARTS:
                    parts *= 4
                else:
                    raise UserError(f"engine sep: {said}: a higher threshold, or engine compiled") from None
    finally:
        sep.set_extract_pixstack(before[0])
        sep.set_sub_object_limit(before[1])


def _in_order(objects: np.ndarray, segmentation: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those that are kept, in the order of their first pixels, and their map."""
    inside = np.flatnonzero(segmentation)
    first = np.full(len(objects) + 1, segmentation.size)
    first[segmentation.ravel()[inside[::-1]]] = inside[::-1]  # the last that is written counts: the first pixel
    order = np.argsort(first[1:], kind="stable")
    order = order[kept[order]]
    number = np.zeros(len(objects) + 1, np.int32)
    number[order + 1] = np.arange(1, len(order) + 1)
    return objects[order], number[segmentation]


# Their light


class Light:
    """Sums of light about each source; what becomes of its neighbours' and of bad pixels is MASK_TYPE's to say.

    Where such pixels reach into an aperture and MASK_TYPE is CORRECT, sep looks at a cutout in which each of them has the
    value of the one opposite of the source's centre (SExtractor manual, chapter "Photometry").
    """

    def __init__(self, field: Field, seen: Seen, settings: Settings) -> None:
        self.field, self.seen, self.settings = field, seen, settings
        self.x, self.y = seen["x"], seen["y"]
        #: In units of sigma: sep squares it in single precision.
        self.noise = field.noise if field.noise.size else 1.0
        self.number = np.arange(1, len(seen) + 1, dtype=np.int32)

    @cached_property
    def owner(self) -> np.ndarray:
        """Whose pixels are left out of other sources' sums: each source's own, and bad ones, which are nobody's."""
        owner = self.seen.segmentation if self.settings.mask_type != "none" else np.zeros_like(self.seen.segmentation)
        return np.where(self.field.bad, np.int32(len(self.seen) + 1), owner) if self.field.bad.size else owner

    def ellipses(self, factor: float, least: float, smallest: tuple[float, float]) -> tuple[np.ndarray, ...]:
        """Kron radii and the light in Kron ellipses: PHOT_AUTOPARAMS, PHOT_AUTOAPERS.

        Returns float64 (n,): radius in units of A and B (0: a circle of the smallest diameter), flux, its variance; int64
        (n,): flags."""
        a, b, theta = (self.seen[name] for name in ("a", "b", "theta"))
        root = np.sqrt(a * b)

        def shapes(round_: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            return np.where(round_, 1.0, a), np.where(round_, 1.0, b), theta

        small = KRON_ZONE * root <= 0.5 * smallest[0]
        zone, reach = shapes(small), np.where(small, 0.5 * smallest[0], KRON_ZONE)
        first, _ = sep.kron_radius(self.field.image, self.x, self.y, *zone, reach, **self._own)
        flags = self._zone_flags(*zone, reach)
        radius = np.maximum(factor * np.nan_to_num(first), least)
        small = radius * root <= 0.5 * smallest[1]
        shape = shapes(small)
        reach = np.where(small, 0.5 * smallest[1], radius)

        def summed(image, x, y, rows, **how):
            return sep.sum_ellipse(image, x, y, *(part[rows] for part in shape), reach[rows], subpix=1, **how)

        flux, variance = self._summed(summed, shape[0] * reach)
        return np.where(small, 0.0, radius), flux, variance, flags | self._zone_flags(*shape, reach)

    def circles(self, diameters: np.ndarray) -> tuple[np.ndarray, ...]:
        """The light in circles, its variance (float64 (n, diameters)), and flags, int64 (n,)."""
        flux, variance = (np.zeros((len(self.seen), len(diameters))) for _ in range(2))
        flags = np.zeros(len(self.seen), np.int64)
        for column, diameter in enumerate(diameters):
            radius = np.full(len(self.seen), 0.5 * diameter)

            def summed(image, x, y, rows, radius=radius, **how):
                return sep.sum_circle(image, x, y, radius[rows], subpix=5, **how)

            flux[:, column], variance[:, column] = self._summed(summed, radius)
            spoilt = self._bad(lambda bad, radius=radius: sep.sum_circle(bad, self.x, self.y, radius, subpix=5)[0])
            flags |= APERTURE_INCOMPLETE * (spoilt | self._cut(radius, radius))
        return flux, variance, flags

    def radii(self, flux: np.ndarray, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Radii of circles with fractions of ``flux``, pixels, float64 (n, fractions), 0 where it is not positive; flags."""
        reach = 6.0 * self.seen["a"]

        def found(image, x, y, rows, err=None, **how):
            radius, flag = sep.flux_radius(
                image, x, y, reach[rows], fractions, normflux=np.where(flux > 0, flux, 1.0)[rows], subpix=5, **how
            )
            return radius, np.zeros_like(radius), flag

        out, _ = self._summed(found, reach)
        out[~(flux > 0)] = 0.0
        return out, APERTURE_INCOMPLETE * ((flux > 0) & self._cut(reach + 1, reach + 1))

    def windowed(self, half_light: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Centres under a Gaussian window, ``x`` and ``y`` (0-based), and flags.

        One that moves further from the barycentre than the source is large follows a neighbour or the sky: the barycentre
        stands instead."""
        sigma = 2 * half_light / WINDOW_FWHM
        # The window moves with the centre: by no more than this, or the barycentre is taken.
        reach = 4 * sigma + np.sqrt(self.seen["x2"] + self.seen["y2"])

        def centred(image, x, y, rows, err=None, **how):
            new_x, new_y, _ = sep.winpos(image, x, y, np.maximum(sigma[rows], 1e-3))
            crowded = sep.sum_circle(image, x, y, reach[rows], subpix=1, **how)[2]
            return np.stack([new_x - x, new_y - y], 1), np.zeros((len(x), 2)), crowded

        step, _ = self._summed(centred, reach)
        away = (step**2).sum(1)
        step[~((sigma > 0) & (away <= self.seen["x2"] + self.seen["y2"]))] = 0.0
        flags = APERTURE_INCOMPLETE * self._cut(4 * sigma, 4 * sigma)
        return {"x": self.x + step[:, 0], "y": self.y + step[:, 1]}, flags

    @property
    def _own(self) -> dict[str, np.ndarray]:
        return {"segmap": self.owner, "seg_id": self.number}

    def _summed(self, work: Callable, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of ``work(image, x, y, rows, err, ...)`` for all sources, and their variances if they are fluxes; where
        pixels are to be replaced within ``reach`` (pixels), on cutouts."""
        value, error, flag = work(self.field.image, self.x, self.y, slice(None), err=self.noise, **self._own)
        if self.settings.mask_type == "correct":
            for n in np.flatnonzero(flag & sep.APER_HASMASKED):
                part, image = self._corrected(int(n), reach[n])
                noise = np.ascontiguousarray(self.noise[part]) if isinstance(self.noise, np.ndarray) else self.noise
                here = np.array([self.x[n] - part[1].start]), np.array([self.y[n] - part[0].start])
                one = work(image, *here, slice(n, n + 1), err=noise)
                value[n], error[n] = one[0][0], one[1][0]
        photons = np.maximum(value, 0) / self.settings.gain if self.settings.gain > 0 else 0.0
        return value, (self.field.sigma * error) ** 2 + photons

    def _corrected(self, n: int, reach: float) -> tuple[tuple[slice, slice], np.ndarray]:
        """The part of the image within reach of a source, neighbours' and bad pixels replaced by those opposite."""
        rows, columns = self.field.image.shape
        x, y, far = self.x[n], self.y[n], reach + 2
        part = (
            slice(max(int(y - far), 0), min(int(y + far) + 2, rows)),
            slice(max(int(x - far), 0), min(int(x + far) + 2, columns)),
        )
        image, owner = self.field.image[part].copy(), self.owner[part]
        j, i = np.nonzero((owner != 0) & (owner != n + 1))
        k = np.floor(2 * x - (i + part[1].start) + 0.5).astype(np.int64)
        m = np.floor(2 * y - (j + part[0].start) + 0.5).astype(np.int64)
        there = (k >= 0) & (k < columns) & (m >= 0) & (m < rows)
        k, m = k * there, m * there
        opposite = self.owner[m, k]
        good = there & ((opposite == 0) | (opposite == n + 1))
        image[j, i] = np.where(good, self.field.image[m, k], 0)
        return part, image

    def _zone_flags(self, a: np.ndarray, b: np.ndarray, theta: np.ndarray, radius: np.ndarray) -> np.ndarray:
        """FLAGS of ellipses: neighbours in more than a tenth of the pixels; bad pixels, or cut off by the border."""
        place, image = (self.x, self.y, a, b, theta, radius), self.field.image
        # The variance of a sum with unit errors is the number of its pixels.
        pixels = sep.sum_ellipse(image, *place, err=1.0, subpix=1)[1] ** 2
        own = {"segmap": self.seen.segmentation, "seg_id": self.number}
        crowded = pixels - sep.sum_ellipse(image, *place, err=1.0, subpix=1, **own)[1] ** 2
        spoilt = self._bad(lambda bad: sep.sum_ellipse(bad, *place, subpix=1)[0])
        cos, sin = np.cos(theta), np.sin(theta)
        cut = self._cut(radius * np.hypot(a * cos, b * sin), radius * np.hypot(a * sin, b * cos))
        return NEIGHBOURS * (crowded > CROWDED * pixels) | APERTURE_INCOMPLETE * (spoilt | cut)

    def _bad(self, work: Callable) -> np.ndarray:
        """Whether an aperture, summed by ``work``, has bad pixels, bool (n,)."""
        if not self.field.bad.size:
            return np.zeros(len(self.seen), bool)
        return work(self.field.bad.astype(np.float32)) > 0

    def _cut(self, reach_x: np.ndarray, reach_y: np.ndarray) -> np.ndarray:
        """Whether the image ends within reach of a source, bool (n,)."""
        rows, columns = self.field.image.shape
        x, y = self.x + 0.5, self.y + 0.5
        whole = (np.floor(x - reach_x) >= 0) & (np.floor(x + reach_x) < columns)
        return ~(whole & (np.floor(y - reach_y) >= 0) & (np.floor(y + reach_y) < rows))
