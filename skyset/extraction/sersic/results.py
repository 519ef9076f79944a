"""What a fit gives: `SersicFits`, and what `SersicFlag` has to say of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from astropy.table import QTable

#: The order of ``covariance``.
PARAMETERS = ("n", "r_e", "q", "pa", "flux", "x", "y")
UNITS = {"r_e": "pix", "pa": "deg", "x": "pix", "y": "pix"}


class SersicFlag(IntFlag):
    """What to know about a fit; 0 where there is nothing to say."""

    #: n is 0.3 or 8: the profile wants a flatter or a more peaked centre than these.
    N_AT_BOUND = 1
    #: r_c is 0.05 pixels (a point source), or as large as the stamp.
    R_E_AT_BOUND = 2
    #: q is 0.05: the minor axis is not resolved.
    Q_AT_BOUND = 4
    #: The centre ran to the edge of where it may be (an eighth of the stamp from the start, and within the image).
    POSITION_AT_BOUND = 8
    #: The values are those of the last iteration.
    NOT_CONVERGED = 16
    #: More than 10 % of the model's light on the stamp falls on pixels that were not used.
    MASKED = 32
    #: The flux is below 3 sigma.
    FAINT = 64
    #: The image ends within 4 r_e of the centre: background and outer light are hard to separate.
    TRUNCATED = 128
    #: All values are NaN: no pixel to use, nothing above the background, or more than half of the light unseen.
    NOT_MEASURED = 256
    #: The PSF is too narrow for the pixels, its FWHM below some 2.3: n of small galaxies comes out too low, by 1 % to 17 %.
    UNDERSAMPLED = 512


@dataclass(frozen=True, eq=False)
class SersicFits:
    """One row per object; NaN where not measured.

    Attributes:
        n: Sersic index.
        r_e: half-light radius along the major axis, pixels.
        q: axis ratio, minor to major.
        pa: degrees counter-clockwise from +x, in [-90, 90).
        flux: of the whole profile, to infinity; counts.
        x, y: pixels of the image, 0-based.
        background: counts per pixel, under the galaxy.
        covariance: (count, 7, 7), in the order of ``PARAMETERS``, for noise as given and independent between pixels; NaN in
            the rows of a parameter at its bound.
        chi2: reduced, over the pixels of the stamp that were used.
        flags: int64, bits of ``SersicFlag``.
        iterations: int64, of Levenberg-Marquardt.
        masked_fraction: of the model's light on the stamp, what lies on pixels not used.
        sigma_pixel: noise of a pixel, as given or measured.
        resolved: how much better the fit is than the best point source at its centre, in sigmas: the square root of the
            difference in chi2. Of simulated point sources
            at magnitude 20 to 24 (S/N 120 to 3) 99 % are below 3 and 90 % below 2.
    """

    n: np.ndarray
    r_e: np.ndarray
    q: np.ndarray
    pa: np.ndarray
    flux: np.ndarray
    x: np.ndarray
    y: np.ndarray
    background: np.ndarray
    covariance: np.ndarray
    chi2: np.ndarray
    flags: np.ndarray
    iterations: np.ndarray
    masked_fraction: np.ndarray
    sigma_pixel: np.ndarray
    resolved: np.ndarray

    def __len__(self) -> int:
        return len(self.n)

    def sigma(self, parameter: str) -> np.ndarray:
        """Standard error of one of ``PARAMETERS``, (count,); of ``pa`` by its derivative: large where a galaxy is round.

        Raises:
            ValueError: no such parameter.
        """
        if parameter not in PARAMETERS:
            raise ValueError(f"{parameter} is not a parameter of the fit; these are: {', '.join(PARAMETERS)}")
        place = PARAMETERS.index(parameter)
        return np.sqrt(self.covariance[:, place, place])

    @property
    def measured(self) -> np.ndarray:
        """bool (count,): there are values."""
        return (self.flags & SersicFlag.NOT_MEASURED) == 0

    def to_table(self) -> QTable:
        """Columns as the attributes, ``<name>_err`` for each parameter, with units (pix, deg)."""
        from astropy.table import QTable

        table = QTable()
        for name in (*PARAMETERS, "background"):
            for column in (name, f"{name}_err") if name in PARAMETERS else (name,):
                table[column] = getattr(self, name) if column == name else self.sigma(name)
                if name in UNITS:
                    table[column].unit = UNITS[name]
        for name in ("covariance", "chi2", "flags", "iterations", "masked_fraction", "sigma_pixel", "resolved"):
            table[name] = getattr(self, name)
        return QTable(table)
