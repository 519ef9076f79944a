"""Drawing a light curve: points with errors, a colour for each band in the order of wavelengths, magnitudes upside down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skyset.explore.row_pictures.bands import MARKERS, colours, in_order
from skyset.explore.row_pictures.fields import shown
from skyset.explore.row_pictures.found import LightCurve
from skyset.explore.row_pictures.words import axis_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Days: between these, times without a unit are taken for modified Julian dates, and for Julian dates.
_MJD, _JD = (40_000, 80_000), (2_400_000, 2_500_000)
#: Points of a band that have errors and markers; more are dots.
_MOST_MARKED = 400
#: Of the range of most values, how far out a point may lie before it is left out of the axis: a supernova's peak may be far
#: above its many points before and after, but not so far. Of the axis, how long a bar may be that is drawn.
_FAR, _LONG = 1e4, 5.0
#: Of a value, what differs by less is all the same.
_FLAT = 1e-6
_NAMES = {"mag": "magnitude", "flux": "flux", "pdcsap_flux": "PDCSAP flux", "sap_flux": "SAP flux", "array": "flux"}
_TIMES = {"mjd": "MJD", "jd": "JD", "bjd": "BJD", "hjd": "HJD", "times": "time", "t": "time"}
_MOST_IN_KEY = 16


def draw_light_curve(axes: Axes, curve: LightCurve) -> None:
    """Draw a light curve.

    Args:
        axes: matplotlib's. Each band is a line of its name with markers; the first is the bluest. A magnitude's axis is
            inverted.
        curve: what to draw.
    """
    axes.set_title(shown(curve.name), fontsize=10)
    axes.set_xlabel(_time_label(curve))
    axes.set_ylabel(
        axis_label(_NAMES.get(curve.what, curve.what.replace("_", " ")), curve.unit or ("mag" * curve.is_magnitude))
    )
    if not curve.time.size:
        axes.text(0.5, 0.5, "no measurements", ha="center", va="center", color="0.4", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    names = in_order(curve.band.tolist())
    low, high = _limits(curve.value, curve.error)
    for number, (name, colour) in enumerate(zip(names, colours(len(names)), strict=True)):
        chosen = curve.band == name
        order = np.argsort(curve.time[chosen], kind="stable")
        time, value = curve.time[chosen][order], curve.value[chosen][order]
        error = None if curve.error is None else curve.error[chosen][order]
        if error is not None:  # no bar where it would be all that is seen
            error = np.where(error < _LONG * (high - low), error, np.nan)
        _draw_band(axes, time, value, error, name or "_", colour, MARKERS[number % len(MARKERS)])
    outside = int(((curve.value < low) | (curve.value > high)).sum())
    axes.set_ylim((high, low) if curve.is_magnitude else (low, high))
    if curve.time.min() == curve.time.max():
        beside = max(1.0, _FLAT * abs(curve.time[0]))
        axes.set_xlim(curve.time[0] - beside, curve.time[0] + beside)
    axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    if outside:
        text = f"{outside} point{'s' * (outside > 1)} outside"
        axes.text(0.99, 0.015, text, ha="right", va="bottom", fontsize=8, color="0.35", transform=axes.transAxes)
    if any(names):
        axes.legend(
            title="band",
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            fontsize=8,
            title_fontsize=8,
            frameon=False,
            ncols=-(-len(names) // _MOST_IN_KEY),
        )
    axes.grid(alpha=0.2, lw=0.5)


def _draw_band(axes: Axes, time, value, error, name: str, colour: str, marker: str) -> None:
    label = shown(name)
    if len(time) > _MOST_MARKED:
        axes.plot(
            time,
            value,
            ls="none",
            marker=".",
            ms=2 if len(time) > 5000 else 3,
            color=colour,
            alpha=0.6,
            label=label,
            rasterized=True,
        )
        return
    size = 5.5 if len(time) <= 60 else 4.0
    style = {"ls": "none", "marker": marker, "ms": size, "color": colour, "mec": "white", "mew": 0.4, "label": label}
    if error is None or not np.isfinite(error).any():
        axes.plot(time, value, **style)
    else:
        axes.errorbar(time, value, np.where(np.isfinite(error), error, 0), elinewidth=0.8, ecolor=colour, **style)


def _limits(value: np.ndarray, error: np.ndarray | None) -> tuple[float, float]:
    """Of the axis: all points, but those so far out that nothing could be seen of the others."""
    low, middle, high = np.percentile(value, [10, 50, 90])
    near = np.abs(value - middle) <= _FAR * ((high - low) or np.inf)
    # The bars of most points are in, and not one that is all error.
    known = np.empty(0) if error is None else error[near & np.isfinite(error)]
    low, high = float(value[near].min()), float(value[near].max())
    bars = float(np.median(known)) if known.size else 0.0
    bars = min(bars, 2 * (high - low) or bars)
    span = high - low + 2 * bars
    if span <= _FLAT * abs(high):
        span = abs(high) or 1.0
    return low - bars - 0.06 * span, high + bars + 0.06 * span


def _time_label(curve: LightCurve) -> str:
    name, unit = _TIMES.get(curve.time_name, curve.time_name), curve.time_unit
    if unit or name != "time" or not curve.time.size:
        return axis_label(name, "" if name.isupper() and unit in ("", "d", "day") else unit)
    first, last = float(curve.time.min()), float(curve.time.max())
    for (low, high), kind in ((_MJD, "MJD"), (_JD, "JD")):
        if low <= first and last <= high:
            return f"time ({kind}, by its values)"
    return "time"
