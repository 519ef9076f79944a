"""Sources of an image, with SExtractor's quantities under its names: `extract`, `measure`, and `extract_file` for mosaics.

    from skyset.extraction.detect import extract
    sources = extract(image, threshold=2.5, gain=1.6, pixel_scale=0.187, zero_point=26.0, seeing=0.7)

Bertin & Arnouts 1996 (A&AS 117, 393) and the SExtractor manual (https://sextractor.readthedocs.io) define what is measured;
``background``, ``segments``, ``isophotes`` and ``apertures`` beside this file compute it, compiled with numba.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from skyset.errors import UserError
from skyset.extraction import apertures
from skyset.extraction import classifier as stars
from skyset.extraction import columns as names
from skyset.extraction import images
from skyset.extraction import isophotes
from skyset.extraction import segments
from skyset.extraction.background import UNUSABLE
from skyset.extraction.background import Background
from skyset.extraction.background import measure_background
from skyset.extraction.columns import CHECKS
from skyset.extraction.compiled import jit
from skyset.extraction.settings import Settings
from skyset.extraction.world import celestial_wcs
from skyset.extraction.world import pixel_scale

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.table import QTable
    from astropy.wcs import WCS

#: A magnitude where the flux is not positive.
NO_MAGNITUDE = 99.0
_NONE = np.zeros((0, 0), np.float32)
_NO_MASK = np.zeros((0, 0), np.bool_)


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found in one image.

    ``columns``: by name, arrays with a row a source, dtypes and units as ``columns.COLUMNS`` has them. ``background``,
    ``rms``: medians over the image, counts; ``threshold``, ``analysis_threshold``: counts above the background; ``shape``:
    of the image; ``check``: the check images asked for, by type, float32 (SEGMENTATION int32: 0, or NUMBER); ``seeing``: of
    the settings, or measured from the stars, arcsec, where CLASS_STAR was wanted; NaN where there were none.
    """

    columns: dict[str, np.ndarray]
    background: float
    rms: float
    threshold: float
    analysis_threshold: float
    shape: tuple[int, int]
    check: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    seeing: float = 0.0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, eq=False)
class Extension:
    """One image of a file: ``number`` among all those of the file with an image, from 1, its header, what was found, and
    the settings that it was measured with."""

    number: int
    header: fits.Header
    measured: Measured
    settings: Settings


def extract(
    image: np.ndarray,
    *,
    settings: Settings | None = None,
    columns: Sequence[str] | None = None,
    mask: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    flag_image: np.ndarray | None = None,
    wcs: WCS | None = None,
    classifier: str | Path | None = None,
    output: str = "astropy",
    **changes: object,
) -> QTable | pa.Table:
    """Find the sources of an image and measure them.

    Args:
        image: (rows, columns), counts; any real dtype and byte order; NaN, infinite and masked pixels are not used.
        settings: how; ``changes`` are fields of `Settings` that differ from it: ``threshold=3, minarea=5, kernel=weights,
            deblend_nthresh=32, deblend_cont=0.005, back_size=64, back_filter=3, gain=1.6, pixel_scale=0.168,
            zero_point=27.0, seeing=0.6, saturation=60000`` and so on. Without ``pixel_scale`` it is that of the WCS.
        columns: SExtractor's names (`columns.COLUMNS` lists them); default: `columns.DEFAULT`, with a WCS the position
            too. What is not asked for is not computed: without FLUX_AUTO and the like the time halves.
        mask: bool (rows, columns), True where a pixel is bad.
        weight: (rows, columns), as ``weight_type`` says: relative inverse variances, variances or rms.
        flag_image: integers (rows, columns) for IMAFLAGS_ISO.
        wcs: for ALPHA_J2000 and other world coordinates; 0-based pixels, as astropy has them.
        classifier: a user's ``default.nnw`` for CLASS_STAR; None: our own network.
        output: ``"astropy"`` for a QTable with units, ``"arrow"`` for a pyarrow.Table with them in the fields' metadata.

    Returns:
        One row a source, in the order in which a scan from the first row meets them; positions as FITS counts: the first
        pixel's centre is (1, 1). Background, rms and thresholds are in the table's ``meta`` (schema metadata).

    Raises:
        ValueError: the image is not two-dimensional or not of numbers, mask or weight has another shape, a setting cannot
            be meant.
        UserError: a column is not known, or needs something that was not given (a WCS, a flag image).

    An image without usable pixels, or without noise, has no sources, and a warning says so. CLASS_STAR needs ``seeing`` (a
    number, or ``"auto"``) and ``pixel_scale`` or a WCS: without them 1.2 and 1 arcsec are taken, with a `NotGivenWarning`.
    """
    if output not in ("astropy", "arrow"):
        raise ValueError(f"output is {output!r}: it is 'astropy' or 'arrow'")
    how = dataclasses.replace(settings, **changes) if settings is not None else Settings(**changes)
    wanted = names.check(columns if columns is not None else [*names.DEFAULT, *(names.DEFAULT_WORLD if wcs else ())])
    found = measure(image, how, wanted, mask=mask, weight=weight, flag_image=flag_image, wcs=wcs, classifier=classifier)
    from skyset.extraction.output import as_arrow
    from skyset.extraction.output import as_table

    table = as_table(found.columns, wanted)
    table.meta |= {key: getattr(found, key) for key in ("background", "rms", "threshold", "analysis_threshold")}
    return table if output == "astropy" else as_arrow(table)


def measure(
    image: np.ndarray,
    settings: Settings,
    columns: Sequence[str],
    *,
    mask: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    flag_image: np.ndarray | None = None,
    wcs: WCS | None = None,
    classifier: str | Path | None = None,
    check: Sequence[str] = (),
    overwrite: bool = False,
) -> Measured:
    """As `extract`, without the table: for many small images, or where check images are wanted too (see `CHECKS`).

    overwrite: a float32 image in native order is used up, which saves a copy.
    """
    wanted = _wanted(columns, wcs, flag_image)
    if unknown := [kind for kind in check if kind not in CHECKS]:
        raise ValueError(f"check images are {', '.join(CHECKS)}; not {', '.join(unknown)}")
    pixels, bad, own = _pixels(image, mask)
    del image
    weight = _like(weight, pixels.shape, "weight")
    flag_image = _like(flag_image, pixels.shape, "flag image")
    if weight is not None:
        bad = _bad_weights(weight, settings, bad)
    background = measure_background(pixels, settings, bad)
    field = _Field.make(pixels, bad, own or overwrite, background, weight, settings)
    del pixels
    seen = _detect(field, settings, paint=bool(check) or _needs_map(wanted, classifier))
    values = _Values(field, settings, seen, background, wanted, wcs)
    if flag_image is not None:
        values.flag_image = flag_image
    if classifier is not None:
        values.network = _network(Path(classifier))
    table = {name: np.asarray(values[name], names.COLUMNS[name].dtype) for name in wanted}
    made = {kind: _check_image(kind, field, seen, background, values) for kind in check}
    levels = background.level, background.rms, field.threshold, field.analysis
    return Measured(table, *levels, field.image.shape, made, values.known.get("_seeing", settings.fwhm))


def _needs_map(wanted: Sequence[str], classifier: str | Path | None) -> bool:
    """Isophotes, and SExtractor's classifier, know their pixels; all else has to tell them from the neighbours'."""
    known = {"isophote"} if classifier is None else {"isophote", "classifier"}
    return any(
        names.COLUMNS[name].stage not in known and not (names.COLUMNS[name].stage == "world" and "WIN" not in name)
        for name in wanted
    )


def _wanted(columns: Sequence[str], wcs: WCS | None, flag_image: np.ndarray | None) -> list[str]:
    """The names of the columns, checked against what was given."""
    wanted = names.check(columns)
    for stage, given, need in (("world", wcs, "a WCS (wcs=)"), ("external", flag_image, "a flag image (flag_image=)")):
        asked = [name for name in wanted if names.COLUMNS[name].stage == stage]
        if asked and given is None:
            raise UserError(f"{', '.join(asked)}: needs {need}, and there is none")
        if asked and stage == "world" and not (given.naxis == 2 and given.has_celestial):
            kinds = ", ".join(str(kind) or "(none)" for kind in given.wcs.ctype)
            raise UserError(
                f"{', '.join(asked)}: needs a celestial WCS with two axes, and wcs= has {given.naxis} ({kinds})"
                + "; wcs.celestial has those of the sky" * given.has_celestial
            )
    return wanted


def _pixels(image: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """float32 pixels in native order, which of them are bad (None: none), and whether the array is ours to change."""
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
    bad = _like(mask, pixels.shape, "mask")
    if bad is not None:
        bad = np.ascontiguousarray(bad.astype(bool))
    if image.dtype.kind == "f" and _usable(pixels) < pixels.size:
        with np.errstate(invalid="ignore"):
            spoilt = ~(np.abs(pixels) < UNUSABLE)
        bad = spoilt if bad is None else bad | spoilt
    return pixels, bad if bad is not None and bad.any() else None, own


@jit
def _usable(pixels):
    """The number of pixels that are light and no marks (NaN, infinite, SExtractor's -1e30)."""
    count = 0
    for row in pixels:
        for value in row:
            count += np.abs(value) < UNUSABLE
    return count


def _like(other: np.ndarray | None, shape: tuple[int, int], what: str) -> np.ndarray | None:
    if other is None:
        return None
    other = np.asarray(other)
    if other.shape != shape:
        raise ValueError(f"the {what} has shape {other.shape}, the image {shape}")
    return other


def _bad_weights(weight: np.ndarray, settings: Settings, bad: np.ndarray | None) -> np.ndarray | None:
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
class _Field:
    """What the kernels look at. ``noise`` multiplies ``sigma``, ``scale`` the thresholds; (0, 0) where they are 1."""

    image: np.ndarray
    bad: np.ndarray
    noise: np.ndarray
    scale: np.ndarray
    sigma: float
    threshold: float
    analysis: float
    kernel: np.ndarray

    @classmethod
    def make(cls, pixels, bad, own, background: Background, weight, settings: Settings) -> _Field:
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
            out, _NO_MASK if bad is None else bad, noise, _NONE if settings.absolute else noise, sigma,
            settings.threshold * unit, settings.analysis * unit, np.ascontiguousarray(kernel, np.float32),
        )  # fmt: skip


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
    """Noise by weights, in counts or relative, float32; not finite or 0 where it cannot be told."""
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


@dataclass(frozen=True, eq=False)
class _Seen:
    """The sources: their isophotal numbers (rows as `isophotes.NAMES`), and a segmentation map where one is needed."""

    numbers: np.ndarray
    segmentation: np.ndarray | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self.numbers[:, isophotes.INDEX[name]]

    def shape(self) -> np.ndarray:
        return np.ascontiguousarray(self.numbers[:, [isophotes.INDEX[name] for name in ("cxx", "cyy", "cxy")]])


def _detect(field: _Field, settings: Settings, paint: bool) -> _Seen:
    shape = field.image.shape
    if not field.threshold > 0:
        return _Seen(np.zeros((0, len(isophotes.NAMES))), np.zeros(shape, np.int32) if paint else None)
    threshold = np.float32(field.threshold)
    found = segments.find(field.image, field.kernel, threshold, field.scale, settings.minarea, settings.maxarea)
    x, y, value, starts, centre = segments.deblend(
        *found, threshold, field.scale, settings.deblend_nthresh, settings.deblend_cont, settings.minarea
    )
    del found
    numbers = isophotes.measure(
        x, y, value, starts, centre, field.image, field.scale, field.noise, field.bad, field.threshold, field.analysis,
        field.sigma, float(settings.gain), settings.minarea,
    )  # fmt: skip
    into = np.arange(len(numbers))
    if settings.clean is not None and len(numbers) > 1:
        seen = _Seen(numbers)
        ellipse = np.stack([seen[name] for name in ("a", "b", "cxx", "cyy", "cxy")], 1)
        # The isophote of the detection, whatever the analysis looks at.
        base = seen["threshold"] * (settings.threshold / settings.analysis)
        into = segments.clean(
            seen["x"].copy(), seen["y"].copy(), ellipse, seen["area_detected"].copy(), seen["flux_filtered"].copy(),
            seen["faint"].copy(), base, float(settings.clean),
        )  # fmt: skip
        isophotes.merge(numbers, into)
    # An object of which no pixel is above the analysis threshold is none.
    kept = np.flatnonzero((into == np.arange(len(into))) & (numbers[:, isophotes.INDEX["area"]] > 0))
    number = np.full(len(into), -1)
    number[kept] = np.arange(len(kept))
    return _Seen(np.ascontiguousarray(numbers[kept]), segments.paint(x, y, starts, number[into], shape) if paint else None)


@lru_cache(maxsize=8)
def _network(path: Path) -> stars.Nnw:
    return stars.read_nnw(path)


@lru_cache(maxsize=1)
def _own_network() -> stars.NeuralClassifier:
    return stars.load()


class _Values(Mapping):
    """Columns by name, each worked out when it is first asked for."""

    def __init__(self, field: _Field, settings: Settings, seen: _Seen, background: Background, columns, wcs) -> None:
        self.field, self.settings, self.seen, self.background = field, settings, seen, background
        self.stages, self.wcs = {names.COLUMNS[name].stage for name in columns}, wcs
        self.network: stars.Nnw | None = None
        self.flag_image: np.ndarray | None = None
        #: Whether the windowed positions on the sky are wanted: the others do not need them.
        self.windowed = any("WIN" in name and names.COLUMNS[name].stage == "world" for name in columns)
        #: Petrosian ellipses are large: their light costs as much as all Kron ellipses.
        self.petrosian_flux = any(name.endswith("_PETRO") for name in columns)
        self.known: dict[str, np.ndarray] = {}
        self.x, self.y = seen["x"].copy(), seen["y"].copy()
        #: Side of a pixel, arcsec; 0 where neither the settings nor a WCS tell it.
        self.known_scale = settings.pixel_scale or (pixel_scale(wcs, field.image.shape) if wcs is not None else 0.0)
        self.pixel_scale = self.known_scale or 1.0

    def __iter__(self):
        return iter(names.COLUMNS)

    def __len__(self) -> int:
        return len(names.COLUMNS)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.known:
            work = _WORK.get(name) or _STAGES[names.COLUMNS[name].stage]
            made = work(self)
            self.known.update(made if isinstance(made, dict) else {name: made})
        return self.known[name]

    @cached_property
    def aperture_field(self) -> tuple:
        """What the kernels of ``apertures`` take."""
        field, how = self.field, self.settings
        mask_type = apertures.MASKS[how.mask_type]
        return (field.image, self.seen.segmentation, field.bad, field.noise, field.sigma, float(how.gain), mask_type)

    def radii(self, fractions: Sequence[float]) -> np.ndarray:
        """Radii with fractions of FLUX_AUTO, (rows, fractions); half the light, which others build on, is found once."""
        every = tuple(dict.fromkeys((0.5, *self.settings.fractions)))
        if "_radii" not in self.known:
            a = self.seen["a"].copy()
            found, flags = apertures.radii(self.aperture_field, self.x, self.y, a, self["FLUX_AUTO"], np.array(every))
            self.known |= {"_radii": found, "_radius_flags": flags}
        return self.known["_radii"][:, [every.index(fraction) for fraction in fractions]]

    def magnitude(self, flux: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(flux > 0, self.settings.zero_point - 2.5 * np.log10(flux), NO_MAGNITUDE)

    def photometry(self, name: str, flux: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
        """Flux, magnitude and their errors under SExtractor's four names."""
        error = np.sqrt(variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(flux > 0, 2.5 / np.log(10) * error / flux, NO_MAGNITUDE)
        return {
            f"FLUX_{name}": flux, f"FLUXERR_{name}": error, f"MAG_{name}": self.magnitude(flux), f"MAGERR_{name}": relative,
        }  # fmt: skip


def _isophotes(values: _Values) -> dict[str, np.ndarray]:
    seen, background = values.seen, values.background
    rows = len(seen.numbers)
    out = {
        "NUMBER": np.arange(1, rows + 1), "EXT_NUMBER": np.ones(rows),
        "X_IMAGE": values.x + 1, "Y_IMAGE": values.y + 1, "X_IMAGE_DBL": values.x + 1, "Y_IMAGE_DBL": values.y + 1,
        "ISOAREA_IMAGE": seen["area"], "ISOAREAF_IMAGE": seen["area_detected"], "THETA_IMAGE": np.degrees(seen["theta"]),
        "FWHM_IMAGE": seen["fwhm"], "FLUX_MAX": seen["peak"],
        "BACKGROUND": _background(values, background.measured or background),
        "MU_MAX": values.magnitude(seen["peak"] / values.pixel_scale**2),
        "THRESHOLD": _threshold(values), "MU_THRESHOLD": values.magnitude(seen["threshold"] / values.pixel_scale**2),
    }  # fmt: skip
    out |= {f"{name.upper()}_IMAGE": seen[name] + 1 for name in ("xmin", "ymin", "xmax", "ymax", "xpeak", "ypeak")}
    out |= {f"ISO{k}": seen[f"iso{k}"] for k in range(8)}
    names_of = ("X2", "Y2", "XY", "CXX", "CYY", "CXY", "A", "B", "ERRX2", "ERRY2", "ERRXY")
    out |= {f"{name}_IMAGE": seen[name.lower()] for name in names_of}
    a, b = seen["a"], seen["b"]
    with np.errstate(divide="ignore"):
        out |= {"ELONGATION": a / b, "ELLIPTICITY": 1 - b / a, "POLAR_IMAGE": (a * a - b * b) / (a * a + b * b)}
    out |= _axes("ERR", "_IMAGE", seen["errx2"], seen["erry2"], seen["errxy"])
    return out | values.photometry("ISO", seen["flux"], seen["fluxvar"])


def _background(values: _Values, background: Background) -> np.ndarray:
    if not len(values.x):
        return np.zeros(0, np.float32)
    return background.at(np.floor(values.x + 0.5), np.floor(values.y + 0.5))


def _threshold(values: _Values) -> np.ndarray:
    return values.seen["threshold"] * (values.settings.threshold / values.settings.analysis)


def _axes(prefix: str, suffix: str, x2: np.ndarray, y2: np.ndarray, xy: np.ndarray) -> dict[str, np.ndarray]:
    """Axes and angle of ellipses by their second moments."""
    half, part = 0.5 * (x2 + y2), np.hypot(0.5 * (x2 - y2), xy)
    return {
        f"{prefix}A{suffix}": np.sqrt(np.maximum(half + part, 0)), f"{prefix}B{suffix}": np.sqrt(np.maximum(half - part, 0)),
        f"{prefix}THETA{suffix}": np.degrees(0.5 * np.arctan2(2 * xy, x2 - y2)),
    }  # fmt: skip


def _flags(values: _Values) -> np.ndarray:
    flags = values.seen["flags"].astype(np.int64)
    with np.errstate(invalid="ignore"):
        subtracted = _background(values, values.background)
        flags |= (values.seen["peak"] + subtracted >= values.settings.saturation) * isophotes.SATURATED
    # Those of apertures, as far as there are any: SExtractor sets them for what it was asked to measure.
    wanted = set(values.stages)
    if wanted & {"radius", "window"}:
        values.radii((0.5,))
    for stage, key in _APERTURE_FLAGS.items():
        if stage in wanted and stage in _STAGES:
            _STAGES[stage](values)
        flags |= values.known.get(key, 0)
    return flags


def _kron(values: _Values) -> dict[str, np.ndarray]:
    if "_kron_flags" not in values.known:
        how = values.settings
        radius, flux, variance, flags = apertures.ellipses(
            values.aperture_field, values.x, values.y, values.seen.shape(), *map(float, how.kron),
            np.array(how.least_apertures, float),
        )  # fmt: skip
        values.known |= {"KRON_RADIUS": radius, "_kron_flags": flags, **values.photometry("AUTO", flux, variance)}
    return values.known


def _petrosian(values: _Values) -> dict[str, np.ndarray]:
    if "_petrosian_flags" not in values.known:
        radius, flux, variance, flags = apertures.petrosian(
            values.aperture_field, values.x, values.y, values.seen.shape(), *map(float, values.settings.petrosian),
            values.petrosian_flux,
        )  # fmt: skip
        values.known |= {"PETRO_RADIUS": radius, "_petrosian_flags": flags}
        if values.petrosian_flux:
            values.known |= values.photometry("PETRO", flux, variance)
    return values.known


def _circles(values: _Values) -> dict[str, np.ndarray]:
    if "_circle_flags" not in values.known:
        flux, variance, flags = apertures.circles(
            values.aperture_field, values.x, values.y, np.array(values.settings.apertures, float)
        )
        if flux.shape[1] == 1:
            flux, variance = flux[:, 0], variance[:, 0]
        values.known |= {"_circle_flags": flags, **values.photometry("APER", flux, variance)}
    return values.known


def _flux_radius(values: _Values) -> np.ndarray:
    radii = values.radii(values.settings.fractions)
    return radii[:, 0] if radii.shape[1] == 1 else radii


def _windowed(values: _Values) -> dict[str, np.ndarray]:
    half_light = values.radii((0.5,))[:, 0].copy()
    isophotal = np.stack([values.seen[name] for name in ("x2", "y2", "xy", "errx2", "erry2", "errxy")], 1)
    moments, flags, incomplete = apertures.windowed(values.aperture_field, values.x, values.y, half_light, isophotal)
    values.known["_window_flags"] = incomplete
    x, y, x2, y2, xy, ex, ey, exy, flux, variance = moments.T
    out = {
        "XWIN_IMAGE": x + 1, "YWIN_IMAGE": y + 1, "X2WIN_IMAGE": x2, "Y2WIN_IMAGE": y2, "XYWIN_IMAGE": xy,
        "ERRX2WIN_IMAGE": ex, "ERRY2WIN_IMAGE": ey, "ERRXYWIN_IMAGE": exy, "FLAGS_WIN": flags,
        **_axes("", "WIN_IMAGE", x2, y2, xy), **_axes("ERR", "WIN_IMAGE", ex, ey, exy),
        **values.photometry("WIN", flux, variance),
    }  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        out["SNR_WIN"] = np.where(variance > 0, flux / np.sqrt(variance), 0)
    return out


def _seeing(values: _Values) -> float:
    """The FWHM of the image's stars, arcsec; NaN, and a warning, where there are none."""
    seen, flags = values.seen, values.seen["flags"].astype(np.int64)
    fwhm = isophotes.seeing(
        seen["fwhm"], seen["peak"] / seen["threshold"], 1 - seen["b"] / seen["a"],
        (flags & ~isophotes.BLENDED == 0) & (seen["peak"] + values["BACKGROUND"] < values.settings.saturation),
    )  # fmt: skip
    if np.isnan(fwhm):
        warnings.warn("the seeing cannot be measured: too few stars stand out; CLASS_STAR is NaN", stacklevel=2)
    return fwhm * values.pixel_scale


class NotGivenWarning(UserWarning):
    """CLASS_STAR is worked out with a seeing or a pixel scale that nobody gave."""


def _say_what_is_not_given(values: _Values) -> None:
    missing = []
    if values.settings.seeing is None:
        missing.append(
            f"no seeing is given, so {values.settings.fwhm:g} arcsec is taken "
            "(--seeing 0.7 or --seeing auto; in Python seeing=0.7 or seeing='auto')"
        )
    if not values.known_scale:
        missing.append("no pixel scale is known, so 1 arcsec is taken (-PIXEL_SCALE 0.187; in Python pixel_scale=0.187)")
    if missing:
        warnings.warn(f"CLASS_STAR cannot be relied on: {'; '.join(missing)}", NotGivenWarning, stacklevel=2)


def _class_star(values: _Values) -> np.ndarray:
    # The classifiers want the analysis threshold, which is where ISO0 is counted.
    measured = {name: values[name] for name in stars.OWN_COLUMNS if name != "THRESHOLD"}
    measured["THRESHOLD"] = values.seen["threshold"]
    if len(values.x):
        _say_what_is_not_given(values)
    values.known["_seeing"] = values.settings.fwhm or _seeing(values)
    how = {"seeing": values.known["_seeing"], "pixel_scale": values.pixel_scale}
    if not how["seeing"] > 0:
        return np.full(len(values.x), np.nan)
    if values.network is not None:
        return stars.class_star(measured, values.network, **how)
    diameters = np.array(stars.APERTURES) * how["seeing"] / how["pixel_scale"]
    measured["FLUX_APER"] = apertures.circles(values.aperture_field, values.x, values.y, diameters)[0]
    return _own_network().predict(stars.features(measured, **how))


def _world(values: _Values) -> dict[str, np.ndarray]:
    from skyset.extraction.world import world_columns

    return world_columns(values, values.wcs, windowed=values.windowed)


def _vignets(values: _Values) -> np.ndarray:
    width, height = values.settings.vignet
    return segments.cut(values.field.image, values.seen.segmentation, values.x, values.y, width, height)


def _image_flags(values: _Values) -> dict[str, np.ndarray]:
    """Flags of an image over the pixels of each source, combined as FLAG_TYPE says, and how many pixels have any."""
    _check_flags(values.flag_image)
    owner = values.seen.segmentation.ravel()
    inside = np.flatnonzero(owner)
    owner, flag = owner[inside] - 1, values.flag_image.ravel()[inside].astype(np.int64)
    rows, how = len(values.x), values.settings.flag_type
    if how in ("or", "and"):
        out = np.full(rows, 0 if how == "or" else -1, np.int64)
        (np.bitwise_or if how == "or" else np.bitwise_and).at(out, owner, flag)
    elif how in ("min", "max"):
        out = np.full(rows, np.iinfo(np.int64).max if how == "min" else np.iinfo(np.int64).min)
        (np.minimum if how == "min" else np.maximum).at(out, owner, flag)
    else:
        out = _most_frequent(owner, flag, rows)
    return {"IMAFLAGS_ISO": out, "NIMAFLAGS_ISO": np.bincount(owner[flag != 0], minlength=rows)}


def _check_flags(image: np.ndarray) -> None:
    """ValueError where IMAFLAGS_ISO could not hold the flags."""
    if image.dtype.kind not in "iub":
        raise ValueError(f"the flag image is of {image.dtype}: it must be of integers")
    column = np.dtype(names.COLUMNS["IMAFLAGS_ISO"].dtype)
    if not np.can_cast(image.dtype, column):
        limits = np.iinfo(column)
        for value in (int(image.min()), int(image.max())):
            if not limits.min <= value <= limits.max:
                raise ValueError(f"the flag image has {value}: IMAFLAGS_ISO holds {limits.min} to {limits.max}")


def _most_frequent(owner: np.ndarray, flag: np.ndarray, rows: int) -> np.ndarray:
    pairs, count = np.unique(np.stack([owner, flag], 1), axis=0, return_counts=True)
    out = np.zeros(rows, np.int64)
    order = np.argsort(count, kind="stable")
    out[pairs[order, 0]] = pairs[order, 1]
    return out


_APERTURE_FLAGS = {
    "kron": "_kron_flags", "petrosian": "_petrosian_flags", "aperture": "_circle_flags", "radius": "_radius_flags",
    "window": "_window_flags",
}  # fmt: skip
_STAGES: dict[str, Callable] = {
    "isophote": _isophotes, "window": _windowed, "aperture": _circles, "kron": _kron, "petrosian": _petrosian,
    "world": _world, "external": _image_flags,
}  # fmt: skip
_WORK: dict[str, Callable] = {
    "FLAGS": _flags, "FLUX_RADIUS": _flux_radius, "CLASS_STAR": _class_star, "VIGNET": _vignets,
}


def _check_image(kind: str, field: _Field, seen: _Seen, background: Background, values: _Values) -> np.ndarray:
    """A check image by SExtractor's name."""
    if kind == "SEGMENTATION":
        return seen.segmentation
    if kind == "MINIBACKGROUND":
        return (background.measured or background).mesh.astype(np.float32)
    if kind == "MINIBACK_RMS":
        return background.rms_mesh.astype(np.float32)
    if kind == "BACKGROUND":
        return background.map()
    if kind == "BACKGROUND_RMS":
        return background.rms_map()
    if kind == "FILTERED":
        return segments.filtered(field.image, field.kernel) if field.kernel.size else field.image
    if kind == "OBJECTS":
        return np.where(seen.segmentation > 0, field.image, np.float32(0))
    if kind == "-OBJECTS":
        return np.where(seen.segmentation > 0, np.float32(0), field.image)
    if kind == "APERTURES":
        return _draw_apertures(field.image + background.map(), values)
    return field.image


def _draw_apertures(image: np.ndarray, values: _Values) -> np.ndarray:
    """The image with the Kron ellipses drawn on it, as bright as its brightest percent."""
    rows, columns = image.shape
    level = np.nanpercentile(image, 99.9) if image.size else 0
    angle = np.radians(np.arange(0, 360, 0.5))
    kron = _kron(values)["KRON_RADIUS"]
    a, b, theta = (values.seen[name][:, None] for name in ("a", "b", "theta"))
    along, across = kron[:, None] * a * np.cos(angle), kron[:, None] * b * np.sin(angle)
    x = np.rint(values.x[:, None] + along * np.cos(theta) - across * np.sin(theta)).astype(np.int64)
    y = np.rint(values.y[:, None] + along * np.sin(theta) + across * np.cos(theta)).astype(np.int64)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    image[y[inside], x[inside]] = level
    return image


def extract_file(
    path: str | Path,
    settings: Settings | Callable[[fits.Header], Settings],
    columns: Sequence[str],
    *,
    extensions: Sequence[int] | None = None,
    weight: str | Path | None = None,
    flag_image: str | Path | None = None,
    classifier: str | Path | None = None,
    check: Sequence[str] = (),
    processes: int | None = None,
    progress: bool = False,
) -> Iterator[Extension]:
    """The sources of every two-dimensional image of a FITS file, in the file's order, several at once.

    Args:
        path: simple, multi-extension or tile-compressed (fpack) FITS, packed or not; any BITPIX, scaled or not. It may say
            which images are meant: ``file.fits[SCI,2]``, ``cube.fits[0][z]`` (see `images.choose`).
        settings: for all, or what gives them for an image's header (`config.Configuration.for_header`).
        columns: SExtractor's names.
        extensions: HDU numbers, from 0; None: those that ``path`` means: without brackets all two-dimensional images but
            masks, weights and the like (by EXTNAME or EXTTYPE); what is passed over is named in a warning.
        weight, flag_image: files with an image for each image of ``path``, whether it is chosen or not, or one for all; as
            ``path``, they may say which.
        classifier: a ``default.nnw``; None: our own.
        check: check images wanted, `columns.CHECKS`.
        processes: images at once, each in a process of its own; None: one a core. With more than one, a script must
            have its code below ``if __name__ == "__main__":``, and a function for ``settings`` must be one that other
            processes can import.
        progress: show a bar.

    Raises:
        UserError: a file is none of FITS, has no image, or weights and images do not belong together; a process ended.
        ValueError: ``processes`` is below 1, ``extensions`` is empty, ``settings`` cannot be given to other processes.

    Warnings while an image is measured come with its file and HDU, from other processes too; but that of a seeing or pixel
    scale which was not given (`NotGivenWarning`) is the same for all images.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"processes is {processes}: it must be at least 1")
    chosen = images.choose(path)
    if extensions is not None:
        numbers = [image.hdu for image in chosen.every]
        if missing := [number for number in extensions if number not in numbers]:
            raise UserError(f"{path}: HDU {missing[0]} holds no 2-D image; those that do: {', '.join(map(str, numbers))}")
        if not len(extensions):
            raise ValueError("extensions is empty: it names the HDUs to be measured")
        chosen = dataclasses.replace(chosen, images=[image for image in chosen.every if image.hdu in extensions], notes=[])
    for note in chosen.notes:
        warnings.warn(note, stacklevel=2)
    return extract_images(
        chosen, settings, columns, weight=weight, flag_image=flag_image, classifier=classifier, check=check,
        processes=processes, progress=progress,
    )  # fmt: skip


def extract_images(
    chosen: images.Chosen,
    settings: Settings | Callable[[fits.Header], Settings],
    columns: Sequence[str],
    *,
    weight: str | Path | None = None,
    flag_image: str | Path | None = None,
    classifier: str | Path | None = None,
    check: Sequence[str] = (),
    processes: int | None = None,
    progress: bool = False,
) -> Iterator[Extension]:
    """As `extract_file`, of images that are chosen already."""
    found = chosen.images
    pairs = [None if other is None else images.partners(other, chosen, what)
             for other, what in ((weight, "weights"), (flag_image, "flags"))]  # fmt: skip
    jobs = [
        _Job(image, settings, tuple(columns), *(pair and pair[k] for pair in pairs), classifier, tuple(check))
        for k, image in enumerate(found)
    ]
    processes = min(processes or os.cpu_count() or 1, len(jobs))
    if processes > 1:
        _check_picklable(settings)
    return _each(jobs, processes, progress)


def _each(jobs: list[_Job], processes: int, progress: bool) -> Iterator[Extension]:
    from skyset.progress import progress_bar

    bar = progress_bar(total=len(jobs), unit="image", desc="extracting", leave=False, disable=not progress)
    with bar:
        for job, (extension, said) in zip(jobs, _results(jobs, processes), strict=True):
            for text, category in said:
                # What was not given is missing for all images: the same words once, however many there are.
                warnings.warn(text if category is NotGivenWarning else f"{job.image}: {text}", category, stacklevel=2)
            yield extension
            bar.update()


def _results(jobs: list[_Job], processes: int) -> Iterator[_Result]:
    if processes == 1:
        yield from (job.run() for job in jobs)
        return
    # Not forked: numba and open files do not survive that everywhere. Ctrl-C is for the parent to act on.
    how = {"mp_context": get_context("spawn"), "initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    try:
        with ProcessPoolExecutor(processes, **how) as pool:
            # Few ahead: check images wait in memory until they are taken.
            running = [pool.submit(_Job.run, job) for job in jobs[: 2 * processes]]
            rest = iter(jobs[2 * processes :])
            try:
                while running:
                    yield running.pop(0).result()
                    if (job := next(rest, None)) is not None:
                        running.append(pool.submit(_Job.run, job))
            finally:
                for future in running:
                    future.cancel()
    except BrokenProcessPool:
        raise UserError(
            'a process that measures images ended: a script must have its code below `if __name__ == "__main__":`, and a '
            "function for settings in a module, or give processes=1; if they are so, the memory was too small for "
            f"{processes} processes: give fewer"
        ) from None


def _check_picklable(settings: object) -> None:
    try:
        pickle.dumps(settings)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"settings cannot be given to other processes ({error}): give a function of a module, or processes=1"
        ) from None


#: What an image gave, and the warnings meanwhile: text and category.
_Result = tuple[Extension, list[tuple[str, type[Warning]]]]


@dataclass(frozen=True)
class _Job:
    image: images.Image
    settings: Settings | Callable[[fits.Header], Settings]
    columns: tuple[str, ...]
    weight: images.Image | None
    flag_image: images.Image | None
    classifier: str | Path | None
    check: tuple[str, ...]

    def run(self) -> _Result:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            extension = self._extension()
        return extension, [(str(one.message), one.category) for one in caught]

    def _extension(self) -> Extension:
        header, image = self.image.header, self.image.pixels()
        how = self.settings(header) if callable(self.settings) else self.settings
        weight, flags = (None if other is None else other.pixels() for other in (self.weight, self.flag_image))
        stages = {names.COLUMNS[name].stage for name in names.check(self.columns)}
        wcs = celestial_wcs(header) if "world" in stages or how.pixel_scale == 0 else None
        try:
            measured = measure(
                image, how, self.columns, weight=weight, flag_image=flags, wcs=wcs, classifier=self.classifier,
                check=self.check, overwrite=True,
            )  # fmt: skip
        except (UserError, ValueError) as error:
            raise UserError(f"{self.image}: {error}") from None
        except MemoryError:
            raise UserError(f"{self.image}: its measurement does not fit into memory") from None
        if "EXT_NUMBER" in measured.columns:
            measured.columns["EXT_NUMBER"][:] = self.image.number
        return Extension(self.image.number, header, measured, how)
