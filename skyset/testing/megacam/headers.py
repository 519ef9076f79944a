"""Headers of simulated exposures: CFHT's cards in CFHT's order, with the values of the simulation where it has them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from astropy.io import fits

from skyset.testing.megacam.cards import keywords
from skyset.testing.megacam.conditions import Conditions
from skyset.testing.megacam.layout import OVERSCAN, Detector, mosaic, section
from skyset.testing.megacam.pixels import ADU_MAX, Amplifiers

#: What is no number of telemetry, which is -9999.9: a text, or a whole number.
_TEXTS = frozenset(
    "GUIOBJN GUIOBJN1 GUIOBJN2 GUIRA GUIRA1 GUIRA2 GUIDEC GUIDEC1 GUIDEC2 GUIRADEC GUIRADE1 GUIRADE2 GUINAME GUINAME1 "  # noqa: SIM905
    "GUINAME2 TCSGPSBC TCSRBUSS TCSEPICS TCSAMODE HSTTIME PATHNAME CONSWV DETSTAT HA HAEND SIDTIME LST-OBS LSTEND".split()
)
_WHOLE = frozenset("GUIFLUX GUIFLUX1 GUIFLUX2 SKYFLUX TCSENHA TCSENDEC FOCUSPOS TELFOCUS FSANMOVE WINDSCR".split())  # noqa: SIM905
_WHOLE_2016 = frozenset({"TCSINHA", "TCSINDEC"})
_OPEN = frozenset({"DOMESHUT", "MIRRCOV"})
#: The same in every exposure.
_FIXED: dict[str, Any] = {
    "INHERIT": False, "CMMTOBS": "N/A", "CMMTSEQ": "simulated by skyset", "OBSERVER": "skyset", "PI_NAME": "skyset",
    "RUNID": "00AS00", "QRUNID": "00AQ00", "CRUNID": "00Am00", "IMAGESWV": "skyset.testing.megacam",
    "DETECTOR": "MegaCam", "RASTER": "FULL", "CCDSUM": "1 1", "CCDBIN1": 1, "CCDBIN2": 1, "PIXSIZE1": 13.5,
    "PIXSIZE2": 13.5, "PIXSCAL1": 0.185, "PIXSCAL2": 0.185, "CCD": "Marconi/EEV CCD42-90", "MAXLIN": ADU_MAX,
    "MAXLINA": ADU_MAX, "MAXLINB": ADU_MAX, "SATURATE": ADU_MAX, "DARKCUR": 3.0,
    "QEPOINTS": "48%@350 86%@450 83%@550 78%@650 62%@750 38%@850 12%@950", "DETTEM": -133.2, "TIMESYS": "UTC",
    "OBSTYPE": "OBJECT", "EXPTYPE": "OBJECT", "ORIGIN": "skyset", "INSTRUME": "MegaPrime", "INSTMODE": "Normal",
    "REGMODE": "Normal", "RAOFF": 0.0, "DECOFF": 0.0, "BIASSEC": "[0:0,0:0]", "SHUTOPEN": 0.0, "SHUTCLOS": 0.0,
    "QOBSERVE": "skyset", "QCOORD": "skyset", "QID": 1, "QOBSEQID": 1, "QICSEQID": 1, "QOBITER": 1, "QOFFID": 1,
    "QOGLABEL": "OG1", "QOBLABEL": "OB1", "QICLABEL": "IC1", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
    "TELESCOP": "CFHT 3.6m", "LATITUDE": 19.825252, "LONGITUD": -155.468876, "TELSTAT": "auto_guide",
    "EQUINOX": 2000.0, "RADECSYS": "FK5", "INSTZRA": 15.0, "INSTZDEC": 15.0, "OBJMAG": 0.0, "OBJEQUIN": 2000.0,
    "OBJRADEC": "FK5", "NGUIDER": 2, "NGUISTAR": 2, "MOONUP": "False", "FOCUSID": "MegaPrime", "TELCONF": "MegaPrime",
    "ISUSTATE": "Full", "FSASTATE": "None", "VENTMODE": "MANUAL", "IMMODE": 1453, "IMMODEA": 1455, "IMMODEB": 1452,
    "IMRED_OP": "MASK_BP + OVERSCAN + BIAS + FLAT-FIELD", "IMRED_OV": "1DYMODEL_OVERSCAN", "IMRED_NF": True,
    "EL_SYS": "2.0", "NASTRO": 57, "CERROR": 0.1, "PHOT_CS": 0.017, "PHOT_NS": 16, "PHOT_NM": 4, "PHOT_X": 0.0,
    "PHOT_K": -0.1, "PHOT_C1": "g_SDSS", "PHOT_C2": "r_SDSS",
}  # fmt: skip


@dataclass(frozen=True)
class Observation:
    """An exposure as its headers know it: ``number`` 1000042, ``kind`` o or p, ``year`` 2008 (36 CCDs) or 2016 (40),
    pointing (degrees), start, ``ccds``, ``extensions`` of the file, ``site`` (seeing of DIMM and MASS, absorption)."""

    number: int
    kind: str
    year: int
    ra: float
    dec: float
    start: datetime
    airmass: float
    ccds: int
    extensions: int
    shape: tuple[int, int]
    site: tuple[float, float, float]
    conditions: Conditions

    @property
    def name(self) -> str:
        return f"{self.number}{self.kind}"

    @property
    def zero_point(self) -> float:
        return self.conditions.zero_point

    def values(self) -> dict[str, Any]:
        """What is the same in all headers of the exposure."""
        end = self.start + timedelta(seconds=self.conditions.exptime)
        days = (self.start - datetime(1858, 11, 17)).total_seconds() / 86400
        ra, dec = _sexagesimal(self.ra / 15), _sexagesimal(self.dec)
        width, height = mosaic(self.shape)
        found: dict[str, Any] = {"FILENAME": self.name, "OBJECT": "simulated", "OBJNAME": "simulated"}
        found |= {"DATE": f"{end:%Y-%m-%dT%H:%M:%S}", "DETSIZE": section((1, width), (1, height))}
        found |= dict.fromkeys(("EXPNUM", "OBSID"), self.number)
        found |= dict.fromkeys(("EXPTIME", "EXPMEAS"), self.conditions.exptime)
        found |= {key: float(round(self.conditions.exptime)) for key in ("EXPREQ", "DARKTIME")}
        found |= {"FILTER": self.conditions.filter, "FILTERID": 1305, "REL_DATE": f"{self.year + 1}-08-31T00:00:00"}
        found |= dict.fromkeys(("DATE-OBS", "DATEEND"), f"{self.start:%Y-%m-%d}")
        found |= dict.fromkeys(("UTIME", "UTC-OBS"), f"{self.start:%H:%M:%S}.00") | {"UTCEND": f"{end:%H:%M:%S}.00"}
        found |= {
            "MJDATE": round(days, 7),
            "MJD-OBS": round(days, 7),
            "MJDEND": round(days + self.conditions.exptime / 86400, 7),
        }
        found |= {
            "RA": ra,
            "DEC": dec,
            "OBJRA": ra,
            "OBJDEC": dec,
            "RA_DEG": round(self.ra, 6),
            "DEC_DEG": round(self.dec, 6),
        }
        found |= {"CRVAL1": round(self.ra, 5), "CRVAL2": round(self.dec, 5), "AIRMASS": round(self.airmass, 3)}
        found |= {"TELALT": round(math.degrees(math.asin(1 / self.airmass)), 2), "NCCDS": self.ccds, "NAMPS": 2 * self.ccds}
        found |= {"NEXTEND": self.extensions}
        for kind, value in zip(("WD", "WM"), self.site[:2], strict=True):
            found |= {f"{kind}SEE{what}": round(value, 2) for what in ("MEN", "MED", "MOD")} | {f"{kind}SEESTD": 0.0}
        found |= {f"SPOZP{what}": round(self.site[2], 2) for what in ("MEN", "MED", "MOD")} | {"SPOZPSTD": 0.05}
        if self.kind == "p":
            day = f"{end + timedelta(days=30):%Y-%m-%dT%H:%M:%S}"
            found |= {
                "IMRED_DT": f"skyset {day}",
                "DATEPROC": day,
                "IMRED_IF": f"{self.number}o.fits",
                "IMRED_OF": self.name,
            }
            found |= {"IMRED_MK": "mask.fits", "IMRED_BS": "bias.fits", "IMRED_FF": "flat.fits"}
            found |= {"PHOT_C": self.zero_point, "PHOT_C0": self.zero_point}
        return found


def primary(observation: Observation) -> fits.Header:
    """The header of the first HDU."""
    start = [("SIMPLE", True), ("BITPIX", 16), ("NAXIS", 0), ("EXTEND", True)]
    return _header(start, keywords(True, observation.year, observation.kind == "p"), observation.values(), observation.year)


def ccd(observation: Observation, detector: Detector, fixed: Amplifiers) -> fits.Header:
    """The header of a CCD's HDU."""
    values = observation.values() | detector.sections() | detector.wcs() | _amplifiers(fixed)
    number = f"{detector.ccd:02d}"
    values |= {"EXTNAME": f"ccd{number}", "EXTVER": detector.ccd, "AMPNAME": f"{number}a + {number}b", "AMPLIST": "A B"}
    values |= {"CCDNAME": f"simulated-{number}", "CCDNICK": f"ccd{number}", "BZERO": 32768.0, "BSCALE": 1.0}
    if observation.kind == "p":
        limit = round(fixed.stretch * ADU_MAX) - 100
        values |= dict.fromkeys(("SATURATE", "MAXLIN", "MAXLINA", "MAXLINB"), limit)
        values |= {"FILENAME": f"{observation.name}{number}", "IMRED_OF": f"{observation.name}{number}", "AMPLIST": "A"}
        values |= {"IMRED_SF": fixed.stretch, "BSCALE": fixed.stretch, "BZERO": round(32670 * fixed.stretch, 5)}
        values |= {"MAG_SAT": 14.5, "MAG_LIM": 24.3}
    return _header(
        _image(detector.frame), keywords(False, observation.year, observation.kind == "p"), values, observation.year
    )


def amplifier(observation: Observation, detector: Detector, fixed: Amplifiers, letter: str) -> fits.Header:
    """The header of an amplifier's HDU, before imsplice joins A and B (the inverse of what its HISTORY says)."""
    header = ccd(observation, detector, fixed)
    rows, columns = detector.frame
    number = 2 * detector.ccd + ((letter == "b") ^ detector.turned)
    cards: dict[str, Any] = {"EXTNAME": f"amp{number:02d}", "EXTVER": number, "AMPNAME": f"{detector.ccd:02d}{letter}"}
    cards |= {"AMPLIST": letter.upper(), "DETSEC": header[f"DETSEC{letter.upper()}"], "DATASEC": header["DSECA"]}
    cards |= {"BIASSEC": section((1, OVERSCAN), (1, rows)), "GAIN": header[f"GAIN{letter.upper()}"]}
    cards |= {"RDNOISE": header[f"RDNOISE{letter.upper()}"], "NAXIS1": columns // 2}
    if letter == "b":
        cards |= {"CRPIX1": columns + 1 - header["CRPIX1"], "CD1_1": -header["CD1_1"]}
    cut = [
        key for key in header if key[:-1] in ("ASEC", "BSEC", "CSEC", "DSEC", "TSEC", "DETSEC", "GAIN", "RDNOISE", "MAXLIN")
    ]
    for key in cut:
        if key[-1] in "AB":
            del header[key]
    if "EXTNAME" not in header:
        header.insert("EXTVER", ("EXTNAME", ""))
    header.update(cards)
    return header


def _amplifiers(fixed: Amplifiers) -> dict[str, Any]:
    gain, noise = fixed.gain, fixed.noise
    found: dict[str, Any] = {"GAIN": round(sum(gain) / 2, 4), "GAINA": gain[0], "GAINB": gain[1]}
    return found | {"RDNOISE": sum(noise) // 2, "RDNOISEA": noise[0], "RDNOISEB": noise[1]}


def _image(frame: tuple[int, int]) -> list[tuple]:
    sizes = [("NAXIS", 2), ("NAXIS1", frame[1]), ("NAXIS2", frame[0]), ("PCOUNT", 0), ("GCOUNT", 1)]
    return [("XTENSION", "IMAGE"), ("BITPIX", 16), *sizes]


def _header(start: list[tuple], keys: list[str], values: dict[str, Any], year: int) -> fits.Header:
    return fits.Header(start + [(key, values.get(key, _FIXED.get(key, _missing(key, year)))) for key in keys])


def _missing(key: str, year: int) -> Any:
    if key in _TEXTS:
        return "Null"
    if key.startswith("VENT") or key in ("DOMELOUV",):
        return "CLOSED:0:0:0" if key != "DOMELOUV" else "CLOSED"
    if key in _OPEN:
        return "OPEN"
    return -9999 if key in _WHOLE or (year == 2016 and key in _WHOLE_2016) else -9999.9


def _sexagesimal(value: float) -> str:
    hundredths = round(abs(value) * 360000)
    whole, rest = divmod(hundredths, 360000)
    minutes, seconds = divmod(rest, 6000)
    return f"{'-' if value < 0 else ''}{whole}:{minutes:02d}:{seconds / 100:05.2f}"
