"""Catalogues of SExtractor's that are there already: whose they are, and where their sources lie."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import QTable

from skyset.build_scripts.megacam_iqa import geometry
from skyset.build_scripts.megacam_iqa.detector import Frame
from skyset.build_scripts.megacam_iqa.frames import Ccd
from skyset.errors import RecordError, UserError
from skyset.extraction.engines import load_engine
from skyset.extraction.field import usable_pixels
from skyset.extraction.ldac import LdacExtension, read_ldac
from skyset.extraction.settings import Settings

NEEDED = ("X_IMAGE", "Y_IMAGE", "ISO0", "ELONGATION", "ELLIPTICITY", "CLASS_STAR", "BACKGROUND", "FLAGS")
SUFFIXES = (".ldac", ".cat", ".ldac.fits", "_ldac.fits", ".cat.fits")


def catalogue_of(folder: Path | None, fits_id: str) -> Path | None:
    """An exposure's catalogue in a folder: ``979412p.ldac``, ``.cat`` and so on; None where there is none."""
    if folder is None:
        return None
    return next((path for suffix in SUFFIXES if (path := folder / f"{fits_id}{suffix}").is_file()), None)


def extensions(path: Path, ccds: list[Ccd]) -> dict[int, LdacExtension]:
    """The catalogue of each CCD by its number: as its header says, else in the order of the file's images.

    Raises:
        RecordError: the file cannot be read, or has not as many catalogues as there are CCDs and does not say whose.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a FITS_1.0 file: that it has no headers
            found = read_ldac(path)
    except UserError as error:
        raise RecordError(str(error)) from None
    named = {}
    for each in found:
        try:
            named[geometry.identify(each.header)[0]] = each
        except ValueError:
            continue
    if len(named) == len(found):
        return named
    if len(found) != len(ccds):
        raise RecordError(f"{path}: {len(found)} catalogues of {len(ccds)} CCDs, and it does not say of which")
    return dict(zip((ccd.number for ccd in ccds), found, strict=True))


def taken(
    frame: Frame, ccd: Ccd, settings: Settings, known: QTable, header: fits.Header
) -> tuple[dict[str, np.ndarray], np.ndarray, tuple[float, float]]:
    """The sources of a catalogue as if they were found in the frame, the frame without its background, level and noise.

    Raises:
        UserError: the catalogue lacks a column.
    """
    if missing := [name for name in NEEDED if name not in known.colnames]:
        raise UserError(f"the catalogue has no {', '.join(missing)}")
    columns = {name: np.asarray(getattr(known[name], "value", known[name])) for name in known.colnames}
    x, y = in_frame(columns["X_IMAGE"], columns["Y_IMAGE"], frame, ccd, header)
    rows, width = frame.pixels.shape
    inside = (x >= 0.5) & (x < width + 0.5) & (y >= 0.5) & (y < rows + 0.5)
    columns = {name: values[inside] for name, values in columns.items()} | {"X_IMAGE": x[inside], "Y_IMAGE": y[inside]}
    pixels, bad, _ = usable_pixels(frame.pixels, frame.bad)
    background = load_engine(None).measure_background(pixels, settings, bad)
    background.subtract(pixels, pixels)
    if bad is not None:
        pixels[bad] = 0
    return columns, pixels, (background.level, background.rms)


def in_frame(x: np.ndarray, y: np.ndarray, frame: Frame, ccd: Ccd, header: fits.Header) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a catalogue in the frame: it may be of the image as stored, with overscan, or of the trimmed one.

    Args:
        x, y: counted from 1.
        frame, ccd: of the CCD.
        header: of the image that the catalogue was made of; an empty one is that of the file.
    """
    rows, width = frame.pixels.shape
    if (header.get("NAXIS1"), header.get("NAXIS2")) == (width, rows):
        turned = "CD1_1" in header and "CD1_1" in frame.header and header["CD1_1"] * frame.header["CD1_1"] < 0
    else:
        stored = ccd.header
        left, below = geometry.corner(stored, "DATASEC", (stored.get("NAXIS2", rows), stored.get("NAXIS1", width)))
        x, y, turned = x - left, y - below, frame.turned
    return (width + 1 - x, rows + 1 - y) if turned else (np.asarray(x), np.asarray(y))
