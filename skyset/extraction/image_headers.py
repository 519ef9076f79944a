"""The headers of catalogues and check images, made from the measured image's own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from skyset.extraction.config import Configuration
from skyset.extraction.plan import Plan

if TYPE_CHECKING:
    from skyset.extraction.mosaic import Extension


def image_header(extension: Extension, configuration: Configuration, plan: Plan, sources: int) -> fits.Header:
    """The image's header with the keywords that SExtractor adds, and that PSFEx and SCAMP read (SEXBKDEV, SEXGAIN, ...)."""
    from skyset.versions import __version__

    measured, settings, header = extension.measured, extension.settings, extension.header.copy()
    now = time.strftime("%d/%m/%Y|%H:%M:%S", time.gmtime()).split("|")
    filtered = settings.kernel is not None
    added = [
        ("FITSFILE", plan.image.name, "File name of the analysed image"),
        ("FITSEXT", extension.number, "FITS Extension number"),
        ("FITSNEXT", len(plan.chosen.every), "Number of FITS image extensions in file"),
        ("SEXVERS", f"skyset {__version__}", "Extraction software"),
        ("SEXENGIN", measured.engine, "What found and measured the sources"),
        ("SEXDATE", now[0], "Extraction date"),
        ("SEXTIME", now[1], "Extraction time"),
        ("SEXBKGND", float(measured.background), "Median background level (ADU)"),
        ("SEXBKDEV", float(measured.rms), "Median background RMS (ADU)"),
        ("SEXTHLD", float(measured.threshold), "Extraction threshold (ADU)"),
        ("SEXATHLD", float(measured.analysis_threshold), "Analysis threshold (ADU)"),
        ("SEXNFIN", sources, "Final number of extracted sources"),
        ("SEXNPARA", len(plan.columns), "Number of parameters per source"),
        ("SEXPXSCL", settings.pixel_scale or 1.0, "Pixel scale used for measurements (arcsec)"),
        ("SEXSFWHM", float(measured.seeing), "Source FWHM used for measurements (arcsec)"),
        ("SEXNNWF", plan.classifier.name if plan.classifier else "skyset", "S/G classification"),
        ("SEXGAIN", settings.gain, "Gain used (e-/ADU)"),
        ("SEXFLTR", filtered, "Detection filtering activated (flag)"),
        ("SEXFILTN", configuration.filter_name if filtered else "", "Filter filename"),
        ("SEXMINAR", settings.minarea, "Minimum area used for detection (pixels)"),
        ("SEXDBLDN", settings.deblend_nthresh, "Number of deblending thresholds"),
        ("SEXDBLDC", settings.deblend_cont, "Minimum contrast used for deblending"),
        ("SEXCLN", settings.clean is not None, "Cleaning activated (flag)"),
        ("SEXCLNPA", settings.clean or 0.0, "Cleaning parameter"),
        *(
            (f"SEXAPED{i}", diameter, f"Fixed photometric aperture #{i} (pixels)")
            for i, diameter in enumerate(settings.apertures, 1)
        ),
        ("SEXAUTP1", settings.kron[0], "Kron factor of automatic magnitudes"),
        ("SEXAUTP2", settings.kron[1], "Least radius of automatic magnitudes"),
        ("SEXPETP1", settings.petrosian[0], "Factor of Petrosian magnitudes"),
        ("SEXPETP2", settings.petrosian[1], "Least radius of Petrosian magnitudes"),
        ("SEXSATLV", settings.saturation, "Saturation level used for flagging (ADU)"),
        ("SEXMGZPT", settings.zero_point, "Zero-point used for magnitudes"),
        ("SEXBKGSX", settings.back_size[0], "Mesh width of the background (pixels)"),
        ("SEXBKGSY", settings.back_size[1], "Mesh height of the background (pixels)"),
        ("SEXBKGFX", settings.back_filter[0], "Width of the background's filter"),
        ("SEXBKGFY", settings.back_filter[1], "Height of the background's filter"),
    ]
    for keyword, value, comment in added:
        header[keyword] = (value if not isinstance(value, float) or np.isfinite(value) else f"{value}", comment)
    return header


def without_storage(header: fits.Header) -> fits.Header:
    """Without what says how the input's pixels were stored."""
    header = header.copy()
    for keyword in ("TFIELDS", "NAXIS", "NAXIS1", "NAXIS2"):  # strip() counts up to them, whatever they are
        header.remove(keyword, ignore_missing=True, remove_all=True)
    header.strip()
    for keyword in ("BSCALE", "BZERO", "BLANK", "DATAMIN", "DATAMAX", "CHECKSUM", "DATASUM", "ZHECKSUM", "ZDATASUM"):
        header.remove(keyword, ignore_missing=True, remove_all=True)
    return header
