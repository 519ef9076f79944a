"""MegaCam image quality: from exposures to sources, a map of them, and one representative image a CCD."""
