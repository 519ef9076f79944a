"""SExtractor's columns by name, each worked out when it is first asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyset.extraction import classifier as stars
from skyset.extraction import columns as names
from skyset.extraction.definitions import BLENDED, NO_MAGNITUDE, SATURATED
from skyset.extraction.field import Field
from skyset.extraction.seeing import stellar_fwhm
from skyset.extraction.settings import Settings
from skyset.extraction.world import pixel_scale, world_columns

if TYPE_CHECKING:
    from skyset.extraction.engines import Light, Sources
    from skyset.extraction.field import Background

_APERTURE_FLAGS = {
    "kron": "_kron_flags",
    "petrosian": "_petrosian_flags",
    "aperture": "_circle_flags",
    "radius": "_radius_flags",
    "window": "_window_flags",
}


@lru_cache(maxsize=8)
def network(path: Path) -> stars.Nnw:
    return stars.read_nnw(path)


@lru_cache(maxsize=1)
def _own_network() -> stars.NeuralClassifier:
    return stars.load()


class Quantities(Mapping):
    """Columns by name, each worked out when it is first asked for."""

    def __init__(
        self, light: Light, seen: Sources, field: Field, settings: Settings, background: Background, columns, wcs
    ) -> None:
        self.light, self.seen, self.field, self.settings, self.background = light, seen, field, settings, background
        self.stages, self.wcs = {names.COLUMNS[name].stage for name in columns}, wcs
        self.network: stars.Nnw | None = None
        self.flag_image: np.ndarray | None = None
        #: The windowed columns of the sky that are wanted: the others do not need them.
        self.windowed = {name for name in columns if "WIN" in name and names.COLUMNS[name].stage == "world"}
        #: Petrosian ellipses are large: their light costs as much as all Kron ellipses.
        self.petrosian_flux = any(name.endswith("_PETRO") for name in columns)
        self.known: dict[str, np.ndarray] = {}
        #: The FWHM of a star, arcsec; measured, if it is to be, where a column needs it.
        self.seeing = settings.fwhm
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

    def radii(self, fractions: Sequence[float]) -> np.ndarray:
        """Radii with fractions of FLUX_AUTO, (rows, fractions); half the light, which others build on, is found once."""
        every = tuple(dict.fromkeys((0.5, *self.settings.fractions)))
        if "_radii" not in self.known:
            found, flags = self.light.radii(self["FLUX_AUTO"], np.array(every))
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
            f"FLUX_{name}": flux,
            f"FLUXERR_{name}": error,
            f"MAG_{name}": self.magnitude(flux),
            f"MAGERR_{name}": relative,
        }


def _isophotes(values: Quantities) -> dict[str, np.ndarray]:
    seen, background = values.seen, values.background
    rows = len(seen)
    out = {
        "NUMBER": np.arange(1, rows + 1),
        "EXT_NUMBER": np.ones(rows),
        "X_IMAGE": values.x + 1,
        "Y_IMAGE": values.y + 1,
        "X_IMAGE_DBL": values.x + 1,
        "Y_IMAGE_DBL": values.y + 1,
        "ISOAREA_IMAGE": seen["area"],
        "ISOAREAF_IMAGE": seen["area_detected"],
        "THETA_IMAGE": np.degrees(seen["theta"]),
        "FWHM_IMAGE": seen["fwhm"],
        "FLUX_MAX": seen["peak"],
        "BACKGROUND": _background(values, background.measured or background),
        "MU_MAX": values.magnitude(seen["peak"] / values.pixel_scale**2),
        "THRESHOLD": _threshold(values),
        "MU_THRESHOLD": values.magnitude(seen["threshold"] / values.pixel_scale**2),
    }
    out |= {f"{name.upper()}_IMAGE": seen[name] + 1 for name in ("xmin", "ymin", "xmax", "ymax", "xpeak", "ypeak")}
    out |= {f"ISO{k}": seen[f"iso{k}"] for k in range(8)}
    names_of = ("X2", "Y2", "XY", "CXX", "CYY", "CXY", "A", "B", "ERRX2", "ERRY2", "ERRXY")
    out |= {f"{name}_IMAGE": seen[name.lower()] for name in names_of}
    a, b = seen["a"], seen["b"]
    with np.errstate(divide="ignore"):
        out |= {"ELONGATION": a / b, "ELLIPTICITY": 1 - b / a, "POLAR_IMAGE": (a * a - b * b) / (a * a + b * b)}
    out |= _axes("ERR", "_IMAGE", seen["errx2"], seen["erry2"], seen["errxy"])
    return out | values.photometry("ISO", seen["flux"], seen["fluxvar"])


def _background(values: Quantities, background: Background) -> np.ndarray:
    if not len(values.x):
        return np.zeros(0, np.float32)
    return background.at(np.floor(values.x + 0.5), np.floor(values.y + 0.5))


def _threshold(values: Quantities) -> np.ndarray:
    return values.seen["threshold"] * (values.settings.threshold / values.settings.analysis)


def _axes(prefix: str, suffix: str, x2: np.ndarray, y2: np.ndarray, xy: np.ndarray) -> dict[str, np.ndarray]:
    """Axes and angle of ellipses by their second moments."""
    half, part = 0.5 * (x2 + y2), np.hypot(0.5 * (x2 - y2), xy)
    return {
        f"{prefix}A{suffix}": np.sqrt(np.maximum(half + part, 0)),
        f"{prefix}B{suffix}": np.sqrt(np.maximum(half - part, 0)),
        f"{prefix}THETA{suffix}": np.degrees(0.5 * np.arctan2(2 * xy, x2 - y2)),
    }


def _flags(values: Quantities) -> np.ndarray:
    flags = values.seen["flags"].astype(np.int64)
    with np.errstate(invalid="ignore"):
        measured = values.background.measured
        subtracted = values["BACKGROUND"] if measured is None else _background(values, values.background)
        flags |= (values.seen["peak"] + subtracted >= values.settings.saturation) * SATURATED
    # Those of apertures, as far as there are any: SExtractor sets them for what it was asked to measure.
    wanted = set(values.stages)
    if wanted & {"radius", "window"}:
        values.radii((0.5,))
    for stage, key in _APERTURE_FLAGS.items():
        if stage in wanted and stage in _STAGES:
            _STAGES[stage](values)
        flags |= values.known.get(key, 0)
    return flags


def _kron(values: Quantities) -> dict[str, np.ndarray]:
    if "_kron_flags" not in values.known:
        how = values.settings
        factor, least = map(float, how.kron)
        radius, flux, variance, flags = values.light.ellipses(factor, least, np.array(how.least_apertures, float))
        values.known |= {"KRON_RADIUS": radius, "_kron_flags": flags, **values.photometry("AUTO", flux, variance)}
    return values.known


def _petrosian(values: Quantities) -> dict[str, np.ndarray]:
    if "_petrosian_flags" not in values.known:
        factor, least = map(float, values.settings.petrosian)
        radius, flux, variance, flags = values.light.petrosian(factor, least, values.petrosian_flux)
        values.known |= {"PETRO_RADIUS": radius, "_petrosian_flags": flags}
        if values.petrosian_flux:
            values.known |= values.photometry("PETRO", flux, variance)
    return values.known


def _circles(values: Quantities) -> dict[str, np.ndarray]:
    if "_circle_flags" not in values.known:
        flux, variance, flags = values.light.circles(np.array(values.settings.apertures, float))
        if flux.shape[1] == 1:
            flux, variance = flux[:, 0], variance[:, 0]
        values.known |= {"_circle_flags": flags, **values.photometry("APER", flux, variance)}
    return values.known


def _flux_radius(values: Quantities) -> np.ndarray:
    radii = values.radii(values.settings.fractions)
    return radii[:, 0] if radii.shape[1] == 1 else radii


def _windowed(values: Quantities) -> dict[str, np.ndarray]:
    found, incomplete = values.light.windowed(values.radii((0.5,))[:, 0].copy())
    values.known["_window_flags"] = incomplete
    out = {"XWIN_IMAGE": found["x"] + 1, "YWIN_IMAGE": found["y"] + 1}
    if len(found) == 2:
        return out
    x2, y2, xy, ex, ey, exy, flux, variance = (
        found[name] for name in ("x2", "y2", "xy", "errx2", "erry2", "errxy", "flux", "fluxvar")
    )
    out |= {
        "X2WIN_IMAGE": x2,
        "Y2WIN_IMAGE": y2,
        "XYWIN_IMAGE": xy,
        "ERRX2WIN_IMAGE": ex,
        "ERRY2WIN_IMAGE": ey,
        "ERRXYWIN_IMAGE": exy,
        "FLAGS_WIN": found["flags"],
        **_axes("", "WIN_IMAGE", x2, y2, xy),
        **_axes("ERR", "WIN_IMAGE", ex, ey, exy),
        **values.photometry("WIN", flux, variance),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        out["SNR_WIN"] = np.where(variance > 0, flux / np.sqrt(variance), 0)
    return out


def _seeing(values: Quantities) -> float:
    """The FWHM of the image's stars, arcsec; NaN, and a warning, where there are none."""
    seen, flags = values.seen, values.seen["flags"].astype(np.int64)
    fwhm = stellar_fwhm(
        seen["fwhm"],
        seen["peak"] / seen["threshold"],
        1 - seen["b"] / seen["a"],
        (flags & ~BLENDED == 0) & (seen["peak"] + values["BACKGROUND"] < values.settings.saturation),
    )
    if np.isnan(fwhm):
        warnings.warn("the seeing cannot be measured: too few stars stand out; CLASS_STAR is NaN", stacklevel=2)
    return fwhm * values.pixel_scale


class NotGivenWarning(UserWarning):
    """CLASS_STAR is worked out with a seeing or a pixel scale that nobody gave."""


def _say_what_is_not_given(values: Quantities) -> None:
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


def _class_star(values: Quantities) -> np.ndarray:
    # The classifiers want the analysis threshold, which is where ISO0 is counted.
    measured = {name: values[name] for name in stars.OWN_COLUMNS if name != "THRESHOLD"}
    measured["THRESHOLD"] = values.seen["threshold"]
    if len(values.x):
        _say_what_is_not_given(values)
    values.seeing = values.settings.fwhm or _seeing(values)
    how = {"seeing": values.seeing, "pixel_scale": values.pixel_scale}
    if not how["seeing"] > 0:
        return np.full(len(values.x), np.nan)
    if values.network is not None:
        return stars.class_star(measured, values.network, **how)
    diameters = np.array(stars.APERTURES) * how["seeing"] / how["pixel_scale"]
    measured["FLUX_APER"] = values.light.circles(diameters)[0]
    return _own_network().predict(stars.features(measured, **how))


def _world(values: Quantities) -> dict[str, np.ndarray]:
    return world_columns(values, values.wcs, windowed=values.windowed)


def _vignets(values: Quantities) -> np.ndarray:
    return values.light.vignets(*values.settings.vignet)


def _image_flags(values: Quantities) -> dict[str, np.ndarray]:
    """Flags of an image over the pixels of each source, combined as FLAG_TYPE says, and how many pixels have any."""
    flags, segmentation = values.flag_image, values.seen.segmentation
    assert flags is not None and segmentation is not None  # the column was refused without them
    _check_flags(flags)
    owner = segmentation.ravel()
    inside = np.flatnonzero(owner)
    owner, flag = owner[inside] - 1, flags.ravel()[inside].astype(np.int64)
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


_STAGES: dict[str, Callable] = {
    "isophote": _isophotes,
    "window": _windowed,
    "aperture": _circles,
    "kron": _kron,
    "petrosian": _petrosian,
    "world": _world,
    "external": _image_flags,
}
_WORK: dict[str, Callable] = {
    "FLAGS": _flags,
    "FLUX_RADIUS": _flux_radius,
    "CLASS_STAR": _class_star,
    "VIGNET": _vignets,
}
