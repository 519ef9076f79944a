"""What MegaCam's image quality has of each source; processes that measure need no more of the survey, and no datasets."""

from __future__ import annotations

#: What is measured of a source and not where it is; the map is made of the first five, by default.
FEATURES = ("ISO0", "ELONGATION", "ELLIPTICITY", "CLASS_STAR", "BACKGROUND", "FWHM")
