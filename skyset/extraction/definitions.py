"""Numbers by which SExtractor's quantities are defined, for whichever engine measures them.

Source: SExtractor manual (https://sextractor.readthedocs.io), chapters "Flagging", "Photometry", "Positions and shapes" and
"Windowed positional parameters".
"""

from __future__ import annotations

#: FLAGS.
NEIGHBOURS, BLENDED, SATURATED, TRUNCATED, APERTURE_INCOMPLETE, ISOPHOTE_INCOMPLETE, OVERFLOW = 1, 2, 4, 8, 16, 32, 64
#: Pixels from this value on are none: SExtractor marks them with -1e30.
UNUSABLE = 1e29
#: A magnitude where the flux is not positive.
NO_MAGNITUDE = 99.0
#: The Kron radius is measured within this many times A_IMAGE and B_IMAGE; so is the Petrosian one.
KRON_ZONE = 6.0
#: A source with more than this share of that zone in neighbours is flagged.
CROWDED = 0.1
#: FWHM of a Gaussian in its sigmas, rounded as SExtractor's windows have it.
WINDOW_FWHM = 2.35
#: Pixels above this share of the peak belong to a source's core; the square of its width is at most this, in units of A B.
CORE, FLATTEST = 0.2, 13.0
