"""What is fitted in place of what users know: flux, ln r_c, the ellipse, ln n, and the position on the stamp."""

from __future__ import annotations

import numpy as np

from skyset.extraction.sersic.results import PARAMETERS

# What is fitted: flux, position on the stamp, ln r_c, the ellipse, ln n. x and y stand last, as they decouple.
F, R, E1, E2, N, X, Y = range(7)


def to_theta(n, r_e, q, pa, flux, x, y) -> np.ndarray:
    """What is fitted, (count, 7)."""
    eta = -np.log(q)
    twice = 2 * np.radians(pa)
    return np.stack([flux, np.log(r_e) - eta / 2, eta * np.cos(twice), eta * np.sin(twice), np.log(n), x, y], axis=1)


def from_theta(theta: np.ndarray, covariance: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters as users know them, and their covariance by the derivatives; ``x`` and ``y`` are still on the stamp."""
    flux, log_r, e1, e2, log_n, x, y = theta.T
    eta = np.maximum(np.hypot(e1, e2), 1e-9)
    n, r_e, q = np.exp(log_n), np.exp(log_r + eta / 2), np.exp(-eta)
    pa = np.degrees(0.5 * np.arctan2(e2, e1))
    pa = np.where(pa >= 90, pa - 180, pa)
    slopes = np.zeros((len(theta), 7, 7))
    slopes[:, 0, N] = n
    slopes[:, 1, R] = r_e
    for place, part in ((E1, e1), (E2, e2)):
        slopes[:, 1, place] = r_e * part / eta / 2
        slopes[:, 2, place] = -q * part / eta
    slopes[:, 3, E1], slopes[:, 3, E2] = (np.degrees(each / (2 * eta**2)) for each in (-e2, e1))
    slopes[:, 4, F] = slopes[:, 5, X] = slopes[:, 6, Y] = 1
    found = dict(zip(PARAMETERS, (n, r_e, q, pa, flux, x, y), strict=True))
    return found, slopes @ covariance @ slopes.transpose(0, 2, 1)
