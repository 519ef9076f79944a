"""What the headers of a MegaCam file say of the exposure."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path
from typing import NamedTuple

from astropy.io import fits

from skyset import headers
from skyset.errors import RecordError, UserError
from skyset.extraction import images
from skyset.raw import read_header

#: Site seeing (arcsec) of the tower's DIMM and MASS and the dome's DIMM, and SkyProbe's absorption (magnitudes): medians.
SEEING = ("WDSEEMED", "WMSEEMED", "DDSEEMED", "SPOZPMED")
_ID = re.compile(r"(?<![0-9A-Za-z])(\d{5,8})([a-z])(?![A-Za-z])")
#: What an exposure can be called: 12 letters of ``FITS_ID``, which name files too.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,11}")
#: CCDs that NEXTEND promises: whole CCDs, or amplifiers.
_PROMISED = {36: 36, 40: 40, 72: 36, 80: 40}


class Exposure(NamedTuple):
    """What the headers say of an exposure.

    Attributes:
        fits_id: ``979412p``: from the file's name, else from the header, else the file's name as it is.
        kind: ``o`` raw, ``p`` processed by Elixir, or another letter of CFHT's.
        exptime: seconds; NaN where there is none, which ``notes`` say.
        filter: as ``r.MP9601``.
        mjd, airmass: at the start; NaN where there is none.
        ra, dec: of the telescope, degrees; NaN where there is none.
        seeing: `SEEING`; NaN where it is missing or -9999.
        expected: numbers of the CCDs that the header promises; empty where it says nothing.
        header: the primary header, readable.
        notes: what was missing.
    """

    fits_id: str
    kind: str
    exptime: float
    filter: str
    mjd: float
    airmass: float
    ra: float
    dec: float
    seeing: dict[str, float]
    expected: tuple[int, ...]
    header: fits.Header
    notes: tuple[str, ...]


def exposure(path: str | Path) -> Exposure:
    """What an exposure is, from its first two headers.

    Raises:
        RecordError: the file cannot be read, is no FITS file, is cut short in a header, holds no image, or its name is none.
    """
    path = Path(path)
    try:
        with images.open_file(path) as file:
            primary = headers.parse(read_header(file))
        with contextlib.closing(images.walk(path)) as walk:
            image = next(walk, (None, None))[0]
    except (UserError, RecordError) as error:
        raise RecordError(f"{path}: {reason(path, error)}") from None
    if image is None:
        raise RecordError(f"{path}: no image in it")
    return _exposure(path, primary, image.header)


def _exposure(path: Path, primary: fits.Header, first: fits.Header) -> Exposure:
    def value(*keys: str) -> float:
        found = (headers.number(header.get(key)) for key in keys for header in (primary, first))
        return float(next((number for number in found if number is not None), math.nan))

    named = _ID.search(path.name)
    said = _ID.match(str(primary.get("FILENAME", first.get("FILENAME", ""))).strip())
    kind = (named or said)[2] if named or said else ""
    exptime, number = value("EXPTIME"), value("EXPNUM", "OBSID")
    notes = [] if math.isfinite(exptime) else ["the header has no EXPTIME"]
    if named and math.isfinite(number) and int(named[1]) != number:
        notes.append(f"the file is called {named[0]}, its EXPNUM is {number:.0f}")
    elif not named and said is None and not math.isfinite(number):
        notes.append("neither the file's name nor its header has the exposure's number")
    seeing = {key: value(key) for key in SEEING}
    promised = _PROMISED.get(int(value("NEXTEND"))) if math.isfinite(value("NEXTEND")) else None
    return Exposure(
        _name(path, named or said, number),
        kind,
        exptime,
        str(primary.get("FILTER", first.get("FILTER", ""))).strip(),
        value("MJD-OBS", "MJDATE"),
        value("AIRMASS"),
        value("RA_DEG", "CRVAL1"),
        value("DEC_DEG", "CRVAL2"),
        {key: math.nan if number < -9000 else number for key, number in seeing.items()},
        tuple(range(promised or 0)),
        primary,
        tuple(notes),
    )


def _name(path: Path, found: re.Match | None, number: float) -> str:
    """The exposure's name; what does not fit its column would be cut, and so be another's too."""
    plain = f"{number:.0f}" if math.isfinite(number) else path.name.partition(".")[0]
    name = found[0] if found else plain
    if not _NAME.fullmatch(name):
        raise RecordError(
            f"{path}: no exposure can be called {name!r}: rename the file, to a number and a letter such as 979412p, "
            "or to 12 letters, digits, _, + or - at most"
        )
    return name


def reason(path: Path, error: Exception) -> str:
    """Without the file's name, which the caller says."""
    return re.sub(rf"^{re.escape(str(path))}(\[\d+\])*: ", "", str(error))
