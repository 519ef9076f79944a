"""Sersic galaxies (1963, Bol. Asoc. Argent. Astron. 6, 41) fitted through the PSF, thousands at a time, in Fourier space.

There a convolution is a product and a shift is a phase. With H the Hankel transform of the profile (``hankel.py``), a galaxy
of flux F at (x, y) with the shear matrix A (an ellipse of area pi r_c^2) has the modes::

    M(k) = F H(|A k|, n) PSF(k) exp(-i k.(x, y)),      |A k|^2 = r_c^2 k^T expm([[e1, e2], [e2, -e1]]) k

with r_c = r_e sqrt(q) and (e1, e2) = -ln q (cos 2 PA, sin 2 PA). White noise in pixels is white noise in modes (Parseval),
so that least squares over the modes where the PSF lets something through, |PSF(k)| > 0.02, are least squares over the
pixels. Leaving out k = 0 fits a constant background along. Once the data are turned by the model's phase, x and y act on
imaginary parts and all else on real ones.

Pixels that are masked, outside the image or of less weight are filled with the model of the moment, w d + (1 - w) m: this
has the gradient of the weighted least squares, thus the same minimum. Their normal matrix is made from images near the
end, for quick convergence and right errors. Where such pixels lie on the core, modes down to |PSF(k)| = 0.001 are taken:
what the model lacks is no longer orthogonal there to what it has.

A stamp is periodic, and light that leaves it on one side comes in on the other. Where that light is not faint, the
difference to the same model on a stamp twice as large goes into the data, and the fit goes on from there.

The same Levenberg-Marquardt loop (``minimise``) drives two backends, numba (CPU) and torch (CPU or GPU), that differ only in
who computes the Jacobian's columns and their products, object after object or all at once.

Positions are 0-based, pixel centres at integers, x along the second axis; angles are degrees counter-clockwise from +x. The
pixel's extent is part of the PSF, as in a PSF measured from stars. No library fits stamps by the thousand like this:
astropy's models and scipy's least squares take one image at a time, without the PSF's modes.
"""

from __future__ import annotations

from skyset.extraction.sersic.fit import fit_sersic, model
from skyset.extraction.sersic.psf import Gaussian, Moffat
from skyset.extraction.sersic.results import PARAMETERS, UNITS, SersicFits, SersicFlag

__all__ = ["PARAMETERS", "UNITS", "Gaussian", "Moffat", "SersicFits", "SersicFlag", "fit_sersic", "model"]
