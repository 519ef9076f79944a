"""Words on axes: names with their units as formulas, and what a unit is in another."""

from __future__ import annotations

import warnings
from functools import lru_cache

from skyset.explore.row_pictures.fields import shown


def axis_label(name: str, unit: str = "") -> str:
    """``name (unit)``; units that FITS or astronomers know are typeset."""
    return f"{shown(name)} ({typeset(unit)})" if unit else shown(name)


@lru_cache(256)
def typeset(unit: str) -> str:
    r"""A unit for matplotlib: ``10**-17 erg / (s cm2 Angstrom)`` with its powers; anything else as it is written."""
    found = _unit(unit)
    if found is None:
        return shown(unit)
    from matplotlib.mathtext import MathTextParser

    try:
        text = found.to_string("latex_inline").replace(r"1 \times ", "").replace(r"\mathring{A}", "Å")
        MathTextParser("path").parse(text)
    except Exception:  # a unit that cannot be typeset; both may raise whatever the name leads them to
        return shown(unit)
    return text


def unit_in(unit: str, other: str) -> float:
    """How many of the other unit one of this is; 0 where it is none of that kind."""
    found, wanted = _unit(unit), _unit(other)
    try:
        return float(found.to(wanted)) if found is not None and wanted is not None else 0.0
    except ValueError:
        return 0.0


def _unit(unit: str):
    from astropy import units

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return units.Unit(unit)
        except (ValueError, TypeError, ZeroDivisionError, OverflowError):
            return None
