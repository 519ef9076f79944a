"""What can be drawn in a row: images in bands, spectra and light curves, by the names and shapes of its arrays.

The names are those that surveys and MultimodalUniverse's loaders use, in a group (``row["spectrum"]["flux"]``), with the
group's name before them (``spectrum_flux``) or without any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skyset.explore.row_pictures.fields import (
    BANDS,
    IVAR,
    LABELS,
    MASK,
    Fields,
    as_numbers,
    bad_pixels,
    errors_of,
    flat,
    groups_of,
    is_coloured,
    is_plane,
    redshift_of,
    scale_of,
    texts,
)
from skyset.survey import Column, Layers, Survey

_WAVELENGTH = ("lambda", "wavelength", "wavelengths", "wave", "wl", "loglam")
_ENERGY = ("ene_center_bin", "energy", "ene")
_FLUX = ("flux", "array", "flux_density", "pdcsap_flux", "kspsap_flux", "psf_flux", "sap_flux", "aper_flux")
_MAGNITUDE = ("mag", "magnitude", "magnitudes")
_TIME = ("time", "mjd", "jd", "bjd", "hjd", "times", "t")
_PIXELS, _PIXELS_ALONE = ("array", "flux", "triplet", "image", "images", "pixels"), ("image", "images", "flux", "pixels")
_VIEWS = 5
#: What ZTF's alerts have.
_TRIPLET = ("science", "reference", "difference")


@dataclass(frozen=True)
class Stack:
    """Images of one object.

    Args:
        name: of the group or column.
        planes: (bands, H, W) numbers.
        bands: names of the planes.
        bad: bool (bands, H, W), True where pixels are masked or no numbers.
        scale: arcsec a pixel; None where it is not known.
        are_bands: the names are filters', and not those of views or maps.
    """

    name: str
    planes: np.ndarray
    bands: tuple[str, ...]
    bad: np.ndarray
    scale: float | None = None
    are_bands: bool = True


@dataclass(frozen=True)
class Other:
    """An image that is no band: uint8 (H, W, 3), which has its colours, or (H, W) numbers; where its row 0 is drawn."""

    name: str
    pixels: np.ndarray
    origin: str = "upper"


@dataclass(frozen=True)
class Spectrum:
    """A spectrum: all arrays (L,); ``error`` is one standard deviation or None; ``bad``, where it is masked.

    ``x`` is a wavelength, or an energy where ``is_energy``; ``redshift`` is None where the row has none.
    """

    name: str
    x: np.ndarray
    flux: np.ndarray
    error: np.ndarray | None
    bad: np.ndarray
    x_unit: str = ""
    flux_unit: str = ""
    is_energy: bool = False
    redshift: float | None = None
    note: str = ""


@dataclass(frozen=True)
class LightCurve:
    """Measurements at times: all arrays (n,), without padding; ``error`` may be None; ``band`` is text."""

    name: str
    time: np.ndarray
    value: np.ndarray
    error: np.ndarray | None
    band: np.ndarray
    is_magnitude: bool
    what: str
    time_name: str = "time"
    time_unit: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Found:
    """What a row has to draw, in this order, and the fields (``group.key``) that are in it."""

    stacks: list[Stack] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    spectra: list[Spectrum] = field(default_factory=list)
    curves: list[LightCurve] = field(default_factory=list)
    used: set[str] = field(default_factory=set)


def pictures_of(row: Mapping, units: Mapping[str, str] | None = None) -> Found:
    """All that can be drawn of a row.

    Args:
        row: one row with numpy formatting.
        units: of its values, by ``name`` or ``group.key``.
    """
    found, units = Found(), units or {}
    for fields in groups_of(row):
        for look in (_add_spectrum, _add_curve, _add_stack):
            look(fields, row, units, found)
    sides = {stack.planes.shape[1:] for stack in found.stacks}
    arrays = [(name, as_numbers(value)) for name, value in flat(row).items() if name not in found.used]
    planes = [_planes(name, array) for name, array in arrays]
    for name, plane in (each for part in (slice(1), slice(1, None)) for of in planes for each in of[part]):
        found.others.append(Other(name, plane, "lower" if plane.shape[:2] in sides else "upper"))
    return found


def are_declared(survey: Survey) -> bool:
    """Whether a survey's features are of names and shapes of which rows have something to draw."""
    row: dict[str, Any] = {}
    for feature in survey.features:
        if isinstance(feature, Layers):
            whole = {key: source for key, source in feature.fields.items() if isinstance(source, str)}
            row[feature.name] = {key: survey.column(source) for key, source in whole.items()}
        else:
            row[feature.name] = survey.column(feature.source)
    if any(_may_be_pictures(column) for column in flat(row).values()):
        return True
    for fields in groups_of(row):
        arrays = {key for key, (_, column) in fields.values.items() if column.shape and not column.is_text}
        spectrum = arrays & {*_WAVELENGTH, *_ENERGY} and arrays & {*_FLUX}
        if spectrum or (arrays & {*_TIME} and arrays & {*_FLUX, *_MAGNITUDE}):
            return True
    return False


def _may_be_pictures(column: Column) -> bool:
    """Whether rows have two axes that are a picture's."""
    sides = column.shape
    if len(sides) not in (2, 3) or column.is_text:
        return False
    return is_plane(sides[-2:]) or (sides[-1] in range(1, _VIEWS) and is_plane(sides[:2]))


def _add_spectrum(fields: Fields, row: Mapping, units: Mapping[str, str], found: Found) -> None:
    flux_key = next((key for key in _FLUX if fields.array(key if key in fields.values else None).size), None)
    x_key = fields.first(_WAVELENGTH) or fields.first(_ENERGY)
    if flux_key is None or x_key is None or set(fields.full(flux_key, x_key)) & found.used:
        return
    flux, x = fields.array(flux_key), fields.array(x_key)
    if flux.ndim not in (1, 2) or not flux.size or x.shape not in (flux.shape, flux.shape[-1:]):
        return
    note = ""
    if flux.ndim == 2:  # those of a galaxy's parts, which may be ten thousand
        at = int(np.argmax(np.median(np.nan_to_num(flux[:, :: 1 + flux.shape[1] // 256]), axis=1)))
        note = f"the brightest of {len(flux):,}"
        found.used.update(fields.shaped(flux.shape))
        fields = fields.at(at, flux.shape)
        flux, x = fields.array(flux_key), fields.array(x_key)
    error, used = errors_of(fields, flux_key, flux.shape)
    mask_key = fields.first(MASK)
    weight = np.empty(0) if error is None else np.nan_to_num(error)  # more than 0 where there is one
    bad = bad_pixels(flux, fields.array(mask_key), weight)
    with np.errstate(over="ignore"):
        wave = np.power(10.0, x.astype(float)) if x_key == "loglam" else x.astype(float)
    found.spectra.append(
        Spectrum(
            fields.name or "spectrum",
            wave,
            flux.astype(float),
            error,
            bad | ~(wave > 0),
            "Angstrom" if x_key == "loglam" else fields.unit(units, x_key),
            fields.unit(units, flux_key),
            x_key in _ENERGY,
            redshift_of(row),
            note,
        )
    )
    found.used.update(fields.full(flux_key, x_key, mask_key), used)


def _add_curve(fields: Fields, row: Mapping, units: Mapping[str, str], found: Found) -> None:
    time_key = fields.first(_TIME)
    time = fields.array(time_key)
    if time_key is None or time.ndim not in (1, 2) or not time.size:
        return
    magnitude = next((key for key in _MAGNITUDE if key in fields.values and fields.array(key).shape == time.shape), None)
    key = magnitude or next((key for key in _FLUX if key in fields.values and fields.array(key).shape == time.shape), None)
    if key is None or set(fields.full(time_key, key)) & found.used:
        return
    value = fields.array(key).astype(float)
    error, used = errors_of(fields, key, time.shape)
    band_key = fields.first(BANDS)
    names = [] if band_key is None else texts(fields.values[band_key][1]) or _numbers(fields.array(band_key))
    bands = np.full(time.shape, "", object)
    if len(names) == len(time):
        bands = np.broadcast_to(np.asarray(names, object).reshape(-1, *[1] * (time.ndim - 1)), time.shape)
    times = time.astype(float)
    # Padding of trees whose light curves are stored side by side; and -99, 99, 999: no magnitude.
    there = np.isfinite(times) & (times != -99) & np.isfinite(value) & ~((times == 0) & (value == 0))
    if magnitude:
        there &= (np.abs(value) < 90) & ~((value == 0) & (error == 0 if error is not None else False))
    found.curves.append(
        LightCurve(
            fields.name or "light curve",
            times[there],
            value[there],
            None if error is None else error[there],
            bands[there],
            magnitude is not None,
            key,
            time_key,
            fields.unit(units, time_key),
            fields.unit(units, key),
        )
    )
    found.used.update(fields.full(time_key, key, band_key), used)


def _numbers(codes: np.ndarray) -> list[str]:
    """Bands that are numbers, as text."""
    return [str(code) for code in codes.tolist()] if codes.dtype.kind in "iu" and codes.ndim == 1 else []


def _add_stack(fields: Fields, row: Mapping, units: Mapping[str, str], found: Found) -> None:
    names = {key: texts(fields.values[key][1]) for key in (*BANDS, *LABELS) if key in fields.values}
    for key in _PIXELS if fields.name else _PIXELS_ALONE:
        planes = fields.array(key if key in fields.values else None)
        if planes.ndim != 3 or is_coloured(planes) or fields.values[key][0] in found.used:
            continue
        if planes.shape[2] < _VIEWS and is_plane(planes.shape[:2]):  # the views of an alert stand in its last axis
            planes = np.moveaxis(planes, 2, 0)
        fitting = [label for label, each in names.items() if len(each) == len(planes)]
        # The views of an alert are of one band.
        label = min(fitting, key=lambda label: len(set(names[label])) < len(planes), default=None)
        named = names[label] if label else [*_TRIPLET] if key == "triplet" and len(planes) == len(_TRIPLET) else []
        if not named or not is_plane(planes.shape[1:]):
            continue
        mask_key, ivar_key = fields.first(MASK), fields.first(IVAR)
        bad = bad_pixels(planes, fields.array(mask_key), fields.array(ivar_key))
        stack = Stack(fields.name or key, planes, tuple(named), bad, scale_of(fields, row), label in BANDS)
        found.stacks.append(stack)
        found.used.update(fields.full(key, label, mask_key, ivar_key))
        return


def _planes(name: str, array: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The pictures in an array: itself, or one for each of its first axis; of its last, where that is short."""
    if is_coloured(array):
        return [(name, array)]
    if array.ndim == 3 and array.shape[2] < _VIEWS and is_plane(array.shape[:2]):
        array = np.moveaxis(array, 2, 0)
    if array.ndim == 3 and is_plane(array.shape[1:]):
        return [(f"{name}[{number}]", plane) for number, plane in enumerate(array)]
    return [(name, array)] if array.ndim == 2 and is_plane(array.shape) else []
