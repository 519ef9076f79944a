"""Step 3: the sources of a CCD with what is measured of them, their cutouts, and what holds for the CCD."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS

from skyset.build_scripts.megacam_iqa.detector import Frame
from skyset.build_scripts.megacam_iqa.frames import Ccd
from skyset.build_scripts.megacam_iqa.known import taken
from skyset.build_scripts.megacam_iqa.limits import mask_absurd
from skyset.errors import RecordError, UserError
from skyset.extraction.config import Configuration
from skyset.extraction.detect import Measured, measure
from skyset.extraction.quantities import NotGivenWarning
from skyset.extraction.settings import Settings
from skyset.extraction.source_stamps import source_stamps
from skyset.extraction.world import celestial_wcs, pixel_scale
from skyset.published.megacam_iqa import FEATURES

#: The published configuration, in keywords of SExtractor.
PUBLISHED = {
    "DETECT_THRESH": "5",
    "DETECT_MINAREA": "5",
    "FILTER": "N",
    "DEBLEND_MINCONT": "0",
    "SEEING_FWHM": "1.2",
}
#: What is measured: the features, and what SCAMP needs.
COLUMNS = (
    *("NUMBER", "X_IMAGE", "Y_IMAGE", "ISO0", "ELONGATION", "ELLIPTICITY", "CLASS_STAR", "BACKGROUND", "FLAGS"),
    *("FWHM_IMAGE", "FLUX_ISO", "FLUXERR_ISO", "ERRA_IMAGE", "ERRB_IMAGE", "ERRTHETA_IMAGE", "ALPHA_J2000", "DELTA_J2000"),
)
SKY = COLUMNS[-2:]
#: Of FLAGS: a neighbour in an aperture, an aperture that is cut. They are there only where apertures are measured, and a
#: source is to be the same with and without these.
_OF_APERTURES = 1 | 16
#: What PSFEx asks for, and SCAMP by itself: 5 kB a source.
FOR_PSFEX = (
    *("VIGNET", "FLUX_RADIUS", "SNR_WIN", "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_APER", "FLUXERR_APER"),
    *("XWIN_IMAGE", "YWIN_IMAGE", "ERRAWIN_IMAGE", "ERRBWIN_IMAGE", "ERRTHETAWIN_IMAGE"),
)
#: Of a source, as it is staged.
ROW = np.dtype(
    [
        ("ccd", "i2"),
        ("X", "f4"),
        ("Y", "f4"),
        ("ra", "f8"),
        ("dec", "f8"),
        *((name, "f4") for name in FEATURES),
        ("FLAGS", "i2"),
    ]
)


@dataclass(frozen=True, eq=False)
class How:
    """How a CCD is measured.

    Attributes:
        configuration: of the extraction.
        columns: of SExtractor, for the LDAC file.
        stamp: pixels of a cutout's side.
    """

    configuration: Configuration
    columns: tuple[str, ...] = COLUMNS
    stamp: int = 24


@dataclass(frozen=True, eq=False)
class CcdSources:
    """What a CCD gave.

    Attributes:
        rows: `ROW`, one a source.
        stamps: float16 (sources, stamp, stamp), ADU, background subtracted; 0 beyond the edge and in bad pixels.
        facts: of the CCD, for JSON.
        header, columns, settings, measured: for an LDAC file; ``measured`` is None where the sources are of such a file.
        said: warnings.
    """

    rows: np.ndarray
    stamps: np.ndarray
    facts: dict[str, Any]
    header: fits.Header
    settings: Settings | None = None
    measured: Measured | None = None
    said: tuple[str, ...] = field(default=())


def measure_ccd(ccd: Ccd, how: How, known: QTable | None = None, known_header: fits.Header | None = None) -> CcdSources:
    """The sources of one CCD: found, or those of a catalogue that is there.

    Args:
        ccd: of an exposure.
        how: configuration, columns, size of cutouts.
        known, known_header: a catalogue of SExtractor's of this CCD, and the image's header in it.

    Raises:
        RecordError: the file is damaged, or the catalogue cannot be used.
    """
    frame = ccd.frame()
    facts: dict[str, Any] = {
        "ccd": frame.ccd,
        "usable": frame.usable,
        "notes": list(frame.notes),
        **{name: float(getattr(frame, name)) for name in ("gain", "read_noise", "saturation")},
    }
    if not frame.usable:
        return CcdSources(np.zeros(0, ROW), np.zeros((0, how.stamp, how.stamp), np.float16), facts, frame.header)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            wcs = celestial_wcs(frame.header)
            settings = settings_for(how.configuration, frame, wcs)
            if known is None:
                made = _found(frame, how, settings, wcs)
            else:
                made = None, *taken(frame, ccd, settings, known, known_header or fits.Header())
        except (UserError, ValueError) as error:
            raise RecordError(f"ccd{frame.ccd:02d}: {error}") from None
    measured, columns, image, levels = made
    rows = _rows(frame, columns, wcs)
    facts |= _facts(frame, rows, levels, wcs)
    facts["masked"] = mask_absurd({name: rows[name] for name in FEATURES})
    said = tuple(str(each.message) for each in caught if not issubclass(each.category, NotGivenWarning))
    stamps = source_stamps(image, rows["X"], rows["Y"], how.stamp)
    return CcdSources(rows, stamps, facts, frame.header, settings, measured, said)


def settings_for(configuration: Configuration, frame: Frame, wcs: WCS | None) -> Settings:
    """The settings of a frame: its header's gain and saturation. The WCS, which takes long to make, is made once."""
    keys = (configuration.gain_key, configuration.saturation_key)
    header = fits.Header({key: frame.header[key] for key in keys if key in frame.header})
    if configuration.settings.pixel_scale == 0 and wcs is not None:
        settings = replace(configuration.settings, pixel_scale=pixel_scale(wcs, frame.pixels.shape))
        configuration = replace(configuration, settings=settings)
    return configuration.for_header(header)


def _found(frame: Frame, how: How, settings: Settings, wcs: WCS | None):
    columns = how.columns if wcs is not None else tuple(name for name in how.columns if name not in SKY)
    measured = measure(
        frame.pixels,
        settings,
        columns,
        mask=frame.bad,
        wcs=wcs,
        classifier=how.configuration.classifier,
        check=("-BACKGROUND",),
        overwrite=True,
    )
    return measured, measured.columns, measured.check.pop("-BACKGROUND"), (measured.background, measured.rms)


def _rows(frame: Frame, columns: dict[str, np.ndarray], wcs: WCS | None) -> np.ndarray:
    rows = np.zeros(len(columns["X_IMAGE"]), ROW)
    rows["ccd"], rows["X"], rows["Y"] = frame.ccd, columns["X_IMAGE"], columns["Y_IMAGE"]
    for name in FEATURES[:4]:
        rows[name] = columns[name]
    rows["FWHM"] = columns.get("FWHM_IMAGE", np.nan)
    rows["FLAGS"] = np.clip(columns["FLAGS"], -(2**15), 2**15 - 1) & ~_OF_APERTURES
    rows["BACKGROUND"] = relative(np.asarray(columns["BACKGROUND"], np.float64))
    if wcs is None:
        rows["ra"] = rows["dec"] = np.nan
    elif len(rows):
        rows["ra"], rows["dec"] = wcs.all_pix2world(columns["X_IMAGE"] - 1, columns["Y_IMAGE"] - 1, 0)
        rows["ra"] %= 360
    return rows


def relative(background: np.ndarray) -> np.ndarray:
    """Less its median, in units of 1.4826 x the median absolute deviation; of the standard deviation where that is 0."""
    if not len(background):
        return background
    away = background - np.nanmedian(background)
    return away / (1.4826 * np.nanmedian(np.abs(away)) or np.nanstd(away) or 1.0)


def _facts(frame: Frame, rows: np.ndarray, levels: tuple[float, float], wcs: WCS | None) -> dict[str, Any]:
    height, width = frame.pixels.shape
    centre = (np.nan, np.nan) if wcs is None else wcs.all_pix2world((width - 1) / 2, (height - 1) / 2, 0)
    return {
        "ra": float(centre[0]) % 360,
        "dec": float(centre[1]),
        "sources": len(rows),
        "background": float(levels[0]),
        "background_rms": float(levels[1]),
    }
