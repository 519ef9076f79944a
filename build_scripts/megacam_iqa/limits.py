"""What a feature of a source can be; what it cannot is counted, named and masked, and no map is trained on it.

The public catalogues have elongations of 35,720 and backgrounds of which 96 % are cut off at +2.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: Least and greatest, by feature: a star that fills a tenth of a CCD is none, nor is a trail of 18 arcsec.
LIMITS = {
    "ISO0": (1.0, 1e6),
    "ELONGATION": (1.0, 100.0),
    "ELLIPTICITY": (0.0, 1.0),
    "CLASS_STAR": (0.0, 1.0),
    "BACKGROUND": (-100.0, 100.0),
    "FWHM": (1e-3, 500.0),
}


def mask_absurd(columns: Mapping[str, np.ndarray], limits: Mapping[str, tuple[float, float]] = LIMITS) -> dict[str, int]:
    """Put NaN in place of what a feature cannot be, or what is not finite; how many of each, of those that have any.

    Args:
        columns: float arrays (rows,), changed.
        limits: least and greatest value by column; columns that are not there are passed over.
    """
    found = {}
    for name, (low, high) in limits.items():
        if name not in columns:
            continue
        values = columns[name]
        with np.errstate(invalid="ignore"):
            absurd = ~((values >= low) & (values <= high))
        if count := int(np.count_nonzero(absurd)):
            found[name] = count
            values[absurd] = np.nan
    return found


def added(*counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by name, added up."""
    return {name: sum(each.get(name, 0) for each in counts) for name in dict.fromkeys(k for each in counts for k in each)}
