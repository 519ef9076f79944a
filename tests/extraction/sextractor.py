"""The real SExtractor, where it is installed (Debian: ``source-extractor``): what ours is compared with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from skyset.extraction.settings import Settings
from skyset.extraction.sex_file import STANDARD_FOLDERS

PROGRAM = shutil.which("source-extractor") or shutil.which("sex")
needs_program = pytest.mark.skipif(PROGRAM is None, reason="SExtractor is not installed (Debian's source-extractor)")
#: Within this share a value agrees.
CLOSE = 1e-3


def standard_file(name: str) -> Path:
    """A file of SExtractor's own configuration, such as ``default.nnw``; skips where the package put none."""
    for folder in STANDARD_FOLDERS:
        if (path := folder / name).is_file():
            return path
    pytest.skip(f"SExtractor's {name} is not installed")


def _pair(values) -> str:
    return ",".join(f"{value:.10g}" for value in values)


def run(
    image: np.ndarray, folder: Path, settings: Settings, columns: Sequence[str], *, check: Sequence[str] = (), **keywords
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Catalogue (record array) and check images of an image under the same settings; ``keywords`` are SExtractor's."""
    folder.mkdir(parents=True, exist_ok=True)
    fits.writeto(folder / "image.fits", image, overwrite=True)
    counts = {"FLUX_RADIUS": len(settings.fractions), "VIGNET": settings.vignet}
    counts |= {f"{name}_APER": len(settings.apertures) for name in ("FLUX", "FLUXERR", "MAG", "MAGERR")}
    lengths = {name: f"({_pair(np.atleast_1d(count))})" for name, count in counts.items()}
    wanted = dict.fromkeys((*columns, "X_IMAGE_DBL", "Y_IMAGE_DBL", "FLAGS"))
    (folder / "wanted.param").write_text("\n".join(name + lengths.get(name, "") for name in wanted))
    how = {
        "PARAMETERS_NAME": "wanted.param",
        "CATALOG_NAME": "out.fits",
        "CATALOG_TYPE": "FITS_1.0",
        "VERBOSE_TYPE": "QUIET",
        "DETECT_THRESH": settings.threshold,
        "ANALYSIS_THRESH": settings.analysis,
        "DETECT_MINAREA": settings.minarea,
        "THRESH_TYPE": "ABSOLUTE" if settings.absolute else "RELATIVE",
        "FILTER": "N",
        "DEBLEND_NTHRESH": settings.deblend_nthresh,
        "DEBLEND_MINCONT": settings.deblend_cont,
        "NTHREADS": 1,
        "CLEAN": "N" if settings.clean is None else "Y",
        "CLEAN_PARAM": settings.clean or 1,
        "MASK_TYPE": settings.mask_type.upper(),
        "BACK_SIZE": _pair(settings.back_size),
        "BACK_FILTERSIZE": _pair(settings.back_filter),
        "PHOT_APERTURES": _pair(settings.apertures),
        "PHOT_AUTOPARAMS": _pair(settings.kron),
        "PHOT_PETROPARAMS": _pair(settings.petrosian),
        "PHOT_FLUXFRAC": _pair(settings.fractions),
        "SATUR_LEVEL": settings.saturation,
        "GAIN": settings.gain,
        "PIXEL_SCALE": settings.pixel_scale,
        "MAG_ZEROPOINT": settings.zero_point,
        "SEEING_FWHM": settings.seeing,
        "MEMORY_PIXSTACK": 3000000,
        "MEMORY_OBJSTACK": 30000,
    }
    if settings.kernel is not None:
        rows = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in settings.kernel)
        norm = "NORM" if settings.normalise_kernel else "NONORM"
        (folder / "kernel.conv").write_text(f"CONV {norm}\n{rows}\n")
        how |= {"FILTER": "Y", "FILTER_NAME": "kernel.conv"}
    if "CLASS_STAR" in wanted:
        how["STARNNW_NAME"] = standard_file("default.nnw")
    files = {kind: f"check{k}.fits" for k, kind in enumerate(check)}
    if files:
        how |= {"CHECKIMAGE_TYPE": ",".join(files), "CHECKIMAGE_NAME": ",".join(files.values())}
    how |= keywords
    (folder / "config.sex").write_text("")
    command = [PROGRAM, "image.fits", "-c", "config.sex"]
    for key, value in how.items():
        command += [f"-{key}", str(value)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=250)
    table = fits.getdata(folder / "out.fits", 1) if (folder / "out.fits").exists() else None
    return table, {kind: fits.getdata(folder / file) for kind, file in files.items()}


def nearest(theirs: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of SExtractor's sources the nearest of ours, and its distance in pixels."""
    order = np.argsort(y, kind="stable")
    found, far = np.empty(len(theirs), np.int64), np.empty(len(theirs))
    for k, (one_x, one_y) in enumerate(zip(theirs["X_IMAGE_DBL"], theirs["Y_IMAGE_DBL"], strict=True)):
        first, last = np.searchsorted(y[order], (one_y - 3, one_y + 3))
        near = order[first:last]
        if not len(near):
            found[k], far[k] = 0, np.inf
            continue
        apart = np.hypot(x[near] - one_x, y[near] - one_y)
        found[k], far[k] = near[apart.argmin()], apart.min()
    return found, far


def share_close(theirs: np.ndarray, ours: np.ndarray, within: float = CLOSE) -> float:
    """The share of values that agree; of vectors all elements."""
    theirs, ours = np.asarray(theirs, float), np.asarray(ours, float)
    close = np.abs(ours - theirs) <= within * np.abs(theirs) + 1e-12
    return float(close.reshape(len(close), -1).all(1).mean())
