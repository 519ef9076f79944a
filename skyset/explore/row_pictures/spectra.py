"""Drawing a spectrum: flux over wavelength with its error, what is masked faint, and lines where a redshift puts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skyset.explore.row_pictures.fields import shown
from skyset.explore.row_pictures.found import Spectrum
from skyset.explore.row_pictures.words import axis_label, unit_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Rest wavelengths of the lines that are marked, Angstrom in vacuum; those emitted, and those absorbed.
EMITTED = {
    r"Ly$\alpha$": (1215.67,),
    "C IV": (1549.06,),
    "C III]": (1908.73,),
    "Mg II": (2799.12,),
    "[O II]": (3728.48,),
    r"H$\beta$": (4862.68,),
    "[O III]": (4960.30, 5008.24),
    r"H$\alpha$": (6564.61,),
    "[S II]": (6718.29, 6732.67),
}
ABSORBED = {"Ca K, H": (3934.78, 3969.59), "Mg b": (5176.6,), "Na D": (5895.6,)}
_LINE, _ERROR, _MASKED, _EMITTED, _ABSORBED = "#17365c", "#b9bec6", "#c9d3de", "#bf1d2d", "#8a6d00"
#: Angstrom: between these, numbers without a unit are taken for wavelengths in it.
_USUAL = (900, 30_000)
#: Percentiles of the good flux between which the axis is laid, and the share of this that is left free above and below.
_WITHIN, _FREE = (0.3, 99.8), 0.12
#: Flux below so many of its errors is drawn pale under its means of so many pixels, where there are many.
_FAINT, _MEAN, _MANY = 4.0, 9, 1000
#: Steps of wavelength that are no step but a gap, and the least number of pixels of a part between two.
_GAP = 15


def draw_spectrum(axes: Axes, spectrum: Spectrum) -> None:
    """Draw a spectrum.

    Args:
        axes: matplotlib's. Its lines are labelled ``masked`` (all pixels), ``flux`` (NaN where masked) and, of faint
            spectra, ``mean of 9 pixels``; marks of spectral lines have the label of the line.
        spectrum: what to draw.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    x, flux, bad, error = _in_order(spectrum)
    title = spectrum.name + (f", {spectrum.note}" if spectrum.note else "")
    axes.set_title(shown(title) + ("" if spectrum.redshift is None else f", z = {spectrum.redshift:.5g}"), fontsize=10)
    unit = spectrum.x_unit or ("" if spectrum.is_energy or not _is_usual(x) else "by its values")
    name = "energy" if spectrum.is_energy else "wavelength"
    axes.set_xlabel(f"{name} (Å, by its values)" if unit == "by its values" else axis_label(name, unit))
    axes.set_ylabel(axis_label("flux", spectrum.flux_unit))
    if bad.all():
        axes.text(0.5, 0.5, "no pixel that is not masked", ha="center", va="center", color="0.4", transform=axes.transAxes)
        if not np.isfinite(flux).any():
            axes.set(xticks=[], yticks=[])
            return
    # A spectrum that is masked throughout has its range from what is there.
    used = ~bad if (~bad).any() else np.isfinite(flux)
    _set_limits(axes, x[used], flux[used])
    good = np.where(bad, np.nan, flux)
    if error is not None:
        sigma = np.where(bad, np.nan, error)
        axes.fill_between(x, good - sigma, good + sigma, color=_ERROR, lw=0, alpha=0.8, label="error")
    if (bad & np.isfinite(flux)).any():
        axes.plot(x, flux, color=_MASKED, lw=0.6, label="masked")
    faint = error is not None and len(x) >= _MANY and _signal_to_noise(good, error) < _FAINT
    mark = "." if len(x) < 40 else None
    axes.plot(x, good, color=_LINE, lw=0.7, alpha=0.35 if faint else 1, marker=mark, label="flux")
    if faint:
        axes.plot(x, _means(good, np.asarray(error)), color=_LINE, lw=0.9, label=f"mean of {_MEAN} pixels")
    if spectrum.redshift is not None and not spectrum.is_energy:
        _mark_lines(axes, spectrum.redshift, spectrum.x_unit, x[np.isfinite(x)])
    if spectrum.is_energy and x[used].min() > 0 and x[used].max() > 8 * x[used].min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    handles, labels = axes.get_legend_handles_labels()
    kept = [(handle, label) for handle, label in zip(handles, labels, strict=True) if label in _KEY or "mean" in label]
    if len(kept) > 1:
        axes.legend(
            *zip(*kept, strict=True), loc="lower right", fontsize=8, ncols=len(kept), framealpha=0.7, edgecolor="none"
        )
    axes.margins(x=0.01)
    axes.grid(alpha=0.2, lw=0.5)


def _in_order(spectrum: Spectrum) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Wavelengths that rise, flux, what is bad, error; where some are left out, as between arms, a NaN ends the line."""
    order = np.argsort(spectrum.x, kind="stable")
    order = order[np.isfinite(spectrum.x[order])]
    x, flux = spectrum.x[order], spectrum.flux[order]
    bad = spectrum.bad[order] | ~np.isfinite(flux)
    error = None if spectrum.error is None else spectrum.error[order]
    steps = np.diff(x)
    gaps = np.flatnonzero(steps > _GAP * np.median(steps)) + 1 if len(x) > _GAP else np.empty(0, int)
    if not 0 < len(gaps) < len(x) / _GAP:
        return x, flux, bad, error
    split = None if error is None else np.insert(error, gaps, np.nan)
    return np.insert(x, gaps, x[gaps - 1]), np.insert(flux, gaps, np.nan), np.insert(bad, gaps, True), split


_KEY = ("error", "masked", "flux")


def _is_usual(x: np.ndarray) -> bool:
    """Whether numbers are what wavelengths in Angstrom are."""
    there = x[np.isfinite(x) & (x > 0)]
    return bool(there.size) and _USUAL[0] <= there.min() and there.max() <= _USUAL[1]


def _set_limits(axes: Axes, x: np.ndarray, flux: np.ndarray) -> None:
    low, high = np.percentile(flux, _WITHIN)
    top = float(np.max(flux))
    if top - low < 4 * (high - low):  # a line, which is wanted, and no cosmic ray
        high = top
    free = _FREE * (high - low) or abs(high) * _FREE or 1.0
    axes.set_ylim(low - free, high + 2 * free)
    there = x[np.isfinite(x)]
    if there.size and there.min() < there.max():
        margin = 0.01 * (there.max() - there.min())
        axes.set_xlim(there.min() - margin, there.max() + margin)


def _signal_to_noise(flux: np.ndarray, error: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = flux / error
    there = ratio[np.isfinite(ratio)]
    return float(np.median(there)) if there.size else np.inf


def _means(flux: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Means of `_MEAN` pixels around each, by their weights; NaN where there are none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(np.isfinite(flux) & (error > 0), 1 / error**2, 0.0)
        weight = np.where(np.isfinite(weight), weight, 0.0)
        kernel = np.ones(_MEAN)
        sums = np.convolve(np.nan_to_num(flux) * weight, kernel, "same")
        return np.where(np.isfinite(flux), sums / np.convolve(weight, kernel, "same"), np.nan)


def line_places(redshift: float, unit: str = "") -> list[tuple[str, bool, list[float]]]:
    """Where lines are seen: each line's name, whether it is emitted, and its observed wavelengths in the unit.

    Args:
        redshift: z.
        unit: of the wavelengths, a FITS standard string; without one, Angstrom.
    """
    scale = unit_in(unit, "Angstrom") if unit else 1.0
    if not scale:
        return []
    both = [(EMITTED, True), (ABSORBED, False)]
    return [
        (name, emitted, [rest * (1 + redshift) / scale for rest in wavelengths])
        for lines, emitted in both
        for name, wavelengths in lines.items()
    ]


def _mark_lines(axes: Axes, redshift: float, unit: str, x: np.ndarray) -> None:
    """Thin lines over the height of the axes, and their names along the top."""
    if not x.size or not (unit or _is_usual(x)):
        return
    for name, emitted, places in line_places(redshift, unit):
        inside = [place for place in places if x.min() < place < x.max()]
        colour = _EMITTED if emitted else _ABSORBED
        for place in inside:
            axes.axvline(place, color=colour, lw=0.6, ls="--" if emitted else ":", alpha=0.7, zorder=0.5, label=name)
        if inside:
            axes.annotate(
                name,
                (inside[-1], 0.985),
                (1, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                rotation=90,
                ha="left",
                va="top",
                fontsize=7.5,
                color=colour,
            )
