"""FITS headers as they are met: made readable card by card, before anything is taken from one as a number or as a WCS.

A header is always 80-character cards in blocks of 2,880 bytes (FITS standard 4.0, sections 3 and 4). What observatories and
programs put into them is not always legal, and some of what is legal (reals with a D exponent) misleads wcslib.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from skyset.errors import SkysetError

if TYPE_CHECKING:
    from astropy.io import fits

BLOCK = 2880
CARD = 80
_END = b"END".ljust(CARD)
#: Control characters are blanks, bytes beyond ASCII question marks.
_PRINTABLE = bytes(byte if 32 <= byte < 127 else 32 if byte < 32 or byte == 127 else 63 for byte in range(256))
_KEYWORD = re.compile(rb"[A-Z0-9_-]{1,8} *")
_COMMENTARY = (b"COMMENT ", b"HISTORY ", b"CONTINUE", b" " * 8)
_NUMBER = re.compile(rb"([+-]?) *((?:\d+\.?\d*|\.\d+)) *(?:[EeDd] *([+-]?) *(\d+))?")
_QUOTED = re.compile(rb"'(?:[^']|'')*' *(/.*)?")
_COMPLEX = re.compile(rb"\([^()/]*,[^()/]*\)")
#: Keywords of a WCS that hold a number.
_WCS_NUMBER = re.compile(r"(CRPIX|CRVAL|CDELT|CROTA)\d|(CD|PC|PV)\d_\d+|(LON|LAT)POLE|EQUINOX|[AB]P?_(ORDER|\d_\d)")

#: Keywords that a WCS of the sky can be made from: wcslib's of images, SIP's, and those of distortions in tables.
_OF_SKY = re.compile(
    r"NAXIS\d*|WCSAXES|WCSNAME|(CTYPE|CUNIT|CRVAL|CDELT|CRPIX|CROTA|CNAME)\d+|(PC|CD|PV|PS)\d+_\d+|PC\d{6}|(LON|LAT)POLE|"
    r"RADEC?SYS|EQUINOX|EPOCH|(DATE|MJD)-(OBS|AVG)|OBSGEO-[BHLXYZ]|RESTFREQ|RESTFRQ|RESTWAV|SPECSYS|VELREF|"
    r"[AB]P?_(ORDER|DMAX|\d+_\d+)|C[PQ](DIS|ERR)\d+|D[PQ]\d+|DVERR\d+|D2IM\w*|AXISCORR"
)
#: Without these a WCS says nothing; CDELT counts where there is no CD, PC where it stands.
_ESSENTIAL = re.compile(r"(CRPIX|CRVAL|CDELT)\d|(CD|PC)\d_\d")
_SYSTEMS = ("ICRS", "FK5", "FK4", "FK4-NO-E")
_SIP = re.compile(r"[AB]P?_(ORDER|DMAX|\d_\d)")


class HeaderError(SkysetError):
    """A header that does not say where its HDU ends: everything behind it in the file is out of reach."""


def clean(cards: bytes) -> bytes:
    """The same number of cards, each one that FITS allows.

    Control characters become blanks and bytes beyond ASCII question marks; exponents are written with E; a value that is
    none (``NaN``, ``1,5``) becomes a text; keywords are in capitals; a card whose keyword cannot be becomes a COMMENT.
    """
    text = cards.translate(_PRINTABLE)
    return b"".join(_clean_card(text[at : at + CARD].ljust(CARD)) for at in range(0, len(text), CARD))


def _clean_card(card: bytes) -> bytes:
    if card == _END or card[:8].upper() in _COMMENTARY:
        return card[:8].upper() + card[8:]
    if card[:9].upper() == b"HIERARCH ":
        name, equals, rest = card.partition(b"=")
        return (name + equals + b" " + _clean_value(rest)).ljust(CARD)[:CARD] if equals else _comment(card)
    keyword = card[:8].upper()
    if not _KEYWORD.fullmatch(keyword):
        return _comment(card)
    if card[8:9] != b"=":
        return keyword + card[8:]
    return (keyword + b"= " + _clean_value(card[9:])).ljust(CARD)[:CARD]


def _clean_value(field: bytes) -> bytes:
    """What follows ``= ``; the same text where it can be read as it stands."""
    value = field.strip()
    if value.startswith(b"'"):
        if _QUOTED.fullmatch(value):
            return field[1:] if field[:1] == b" " else value
        return _quoted(value[1:].partition(b" /")[0])
    value, slash, comment = value.partition(b"/")
    value = value.rstrip()
    if value in (b"", b"T", b"F") or _COMPLEX.fullmatch(value):
        return field[1:] if field[:1] == b" " else field.strip()
    if (number := _NUMBER.fullmatch(value)) is None:
        return _quoted(value) + (b" /" + comment if slash else b"")
    sign, digits, exponent_sign, exponent = number.groups()
    plain = sign + digits + (b"E" + exponent_sign + exponent if exponent else b"")
    if plain == value:
        return field[1:] if field[:1] == b" " else field.strip()
    return plain.rjust(20) + (b" /" + comment if slash else b"")


def _quoted(text: bytes) -> bytes:
    return b"'" + text.strip().replace(b"'", b"''")[:66].ljust(8) + b"'"


def _comment(card: bytes) -> bytes:
    return (b"COMMENT " + card.strip())[:CARD].ljust(CARD)


#: A card that astropy reads whatever else there is: the standard's forms, nothing unusual in them.
_PLAIN = re.compile(
    rb"(?=.{8}= )[A-Z][A-Z0-9_-]{0,7} *= "
    rb"(?: *[TF]| *[+-]?\d{1,15}| *[+-]?\d{1,15}\.\d{0,15}(?:E[+-]?\d\d?)?|'[A-Za-z0-9 .,:+_-]*') *"
    rb"(?:/ [A-Za-z0-9 .,:+_()/-]*)?",
)


def parse(cards: bytes) -> fits.Header:
    """Cards as a header of which every card can be read (see `clean`)."""
    from astropy.io import fits

    text = clean(cards)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = fits.Header.fromstring(text.decode("ascii"))
        faulty = []
        for index, card in enumerate(header.cards):
            if _PLAIN.fullmatch(_image(card)):
                continue  # astropy takes 50 us to look at one
            try:
                str(card), card.value, card.comment
            except Exception:  # astropy raises several kinds
                faulty.append(index)
        if faulty:
            broken = {_image(header.cards[index])[:CARD].rstrip() for index in faulty}
            parts = (text[at : at + CARD] for at in range(0, len(text), CARD))
            text = b"".join(_comment(part) if part.rstrip() in broken else part for part in parts)
            header = fits.Header.fromstring(text.decode("ascii"))
    return header


def readable(header: fits.Header) -> fits.Header:
    """A header that was made elsewhere, with cards that can all be read (see `clean`)."""
    return parse(b"".join(_raw(card) for card in header.cards))


def cards_of(header: fits.Header, wanted: Callable[[str], object]) -> bytes:
    """The cards whose keywords are wanted, as they stand in a header: astropy takes 50 us to read or to write one."""
    return b"".join(_raw(card) for card in header.cards if wanted(_keyword(card)))


def sky_cards(header: fits.Header) -> bytes:
    """The cards that a WCS of the sky can be made from, some thirty of hundreds."""
    return cards_of(header, _OF_SKY.fullmatch)


def _keyword(card) -> str:
    """A card's keyword in capitals, which is not asked of astropy where the card is as it was read."""
    text = "" if getattr(card, "_modified", True) else getattr(card, "_image", None) or ""
    plain = text[:8].rstrip()
    return (plain if plain and plain != "HIERARCH" else card.keyword).upper()


def _raw(card) -> bytes:
    """A card's text, 80 characters or a multiple (CONTINUE)."""
    if not getattr(card, "_modified", True) and _PLAIN.fullmatch(text := _image(card)):
        return text.ljust(CARD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = str(card).encode("latin-1", "replace")
        except Exception:  # astropy raises several kinds for a card that it cannot write
            data = _image(card)
    return data.ljust(-(-len(data) // CARD) * CARD)


def _image(card) -> bytes:
    """The text that a card was read from; astropy has no other name for it."""
    return (getattr(card, "_image", None) or "").encode("latin-1", "replace")


def number(value: object) -> int | float | None:
    """A card's value as a finite number, in quotes or not, whole ones exact; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        if not (match := _NUMBER.fullmatch(value.strip().encode("ascii", "replace"))):
            return None
        value = (
            b"".join(part or b"" for part in match.groups()[:2])
            + b"E"
            + b"".join(part or b"" for part in (match[3], match[4] or b"0"))
        )
    value = float(value)
    return value if math.isfinite(value) else None


def sky(header: fits.Header) -> fits.Header | None:
    """What astropy's WCS should be made from, without other cards; None where a number that it cannot do without is none.

    Other cards of the WCS that cannot be read, or that no axis of the image has, are left out; `sky_faults` names them.

    TAN with SCAMP's polynomials (PV terms of the latitude axis, which TAN has not) is TPV, and then without SIP, as
    SExtractor and SCAMP have it; PV terms that are all 0 mean nothing. PV terms of the longitude axis alone are the native
    pole (Calabretta & Greisen 2002, A&A 395, 1077, section 2.5). Where CD and PC stand together, CD counts, as with
    SExtractor.
    """
    header = parse(sky_cards(header))
    return header if _readable_sky(header)[0] else None


def sky_faults(header: fits.Header) -> list[str]:
    """What is said of a WCS that is not as its header has it: a sentence per card, and one if there is no sky at all."""
    header = parse(sky_cards(header))
    twice = [key for key in dict.fromkeys(header) if _ESSENTIAL.fullmatch(key) and header.count(key) > 1]
    said = [f"the header's {key} stands {header.count(key)} times: the last counts" for key in twice]
    whole, faults = _readable_sky(header)
    return said + faults + ([] if whole else ["the image has no sky, and its pixel scale is not known"])


def _readable_sky(header: fits.Header) -> tuple[bool, list[str]]:
    """Make the cards of the WCS what astropy reads, in place: whether there is a WCS, and what was wrong."""
    from astropy.io import fits

    if count := number(header.get("NAXIS")):
        beyond = "".join(str(axis) for axis in range(1, 10) if axis > count)
        _drop(header, re.compile(rf"(CRPIX|CRVAL|CDELT|CROTA|CTYPE|CUNIT)[{beyond}]" if beyond else "(?!)"))
    if any(re.fullmatch(r"CD\d_\d", key) for key in header):
        _drop(header, re.compile(r"PC\d_\d|CDELT\d|CROTA\d"))  # which CD replaces
    if any(re.fullmatch(r"PC\d_\d", key) for key in header):
        _drop(header, re.compile(r"CROTA\d"))
    whole, said = True, []
    for keyword in [key for key in dict.fromkeys(header) if _WCS_NUMBER.fullmatch(key)]:
        given = header[keyword]
        value = number(given) if keyword != "EQUINOX" else _equinox(given)
        if value is not None:
            if isinstance(given, str):
                header[keyword] = value
            continue
        blank = given is None or isinstance(given, fits.card.Undefined) or not str(given).strip()
        if _ESSENTIAL.fullmatch(keyword):
            whole = False
            said.append(f"the header's {keyword} is {'blank' if blank else repr(given)}, no number")
            continue
        if not blank:  # a card without a value is none
            said.append(f"the header's {keyword} is {given!r}, no number: it is left out of the WCS")
        del header[keyword]
    for keyword in ("RADESYS", "RADECSYS"):
        system = str(header.get(keyword, "")).strip().upper()
        if keyword in header and system not in _SYSTEMS:
            if system:
                said.append(f"the header's {keyword} is {header[keyword]!r}, no system of the sky: the usual one is taken")
            del header[keyword]
    matrix = [header[key] for key in header if re.fullmatch(r"CD\d_\d", key)]
    if whole and matrix and not any(matrix):
        whole = False
        said.append("the header's CD matrix is 0")
    elif whole and not matrix and not any(re.fullmatch(r"CDELT\d|PC\d_\d", key) for key in header) and "CTYPE1" in header:
        said.append("the header has neither CD nor CDELT: pixels of 1 degree are taken")
    if whole:
        _name_polynomials(header)
    return whole, said


def _equinox(value: object) -> float | None:
    """A year, also as ``J2000`` or ``B1950``."""
    return number(value.strip().lstrip("JBjb") if isinstance(value, str) else value)


def _name_polynomials(header: fits.Header) -> None:
    """CTYPE as the distortion's cards ask for it, and no cards of another one."""
    kinds = {axis: str(header.get(f"CTYPE{axis}", "")).strip().upper() for axis in range(1, 10)}
    if sum(kind.endswith("-TPV") for kind in kinds.values()) == 2:
        _drop(header, _SIP)
    axes = [axis for axis, kind in kinds.items() if kind.endswith("-TAN")]
    latitude = next((axis for axis in axes if kinds[axis].startswith("DEC") or kinds[axis][1:4] == "LAT"), None)
    if len(axes) != 2 or latitude is None:
        return
    terms = {key: axis for axis in axes for key in header if re.fullmatch(rf"PV{axis}_\d+", key)}
    name = "-SIP" if "A_ORDER" in header and "B_ORDER" in header else ""  # astropy would say a page about it
    if terms and not any(header[key] for key in terms):
        _drop(header, re.compile("|".join(terms)))
    elif any(int(key.partition("_")[2]) > 4 or (axis == latitude and header[key]) for key, axis in terms.items()):
        _drop(header, _SIP)
        name = "-TPV"
        for axis in axes:
            header.setdefault(f"PV{axis}_1", 1.0)  # its default, which wcslib does not know
    for axis in axes if name else ():
        header[f"CTYPE{axis}"] = kinds[axis].removesuffix("-TAN") + {"-SIP": "-TAN-SIP"}.get(name, name)


def _drop(header: fits.Header, keywords: re.Pattern) -> None:
    for key in [key for key in header if keywords.fullmatch(key)]:
        del header[key]


# What a header says of its HDU


def sides(header: fits.Header, prefix: str = "") -> tuple[int, ...]:
    """Lengths of the axes, the slowest first, as numpy has them; ``prefix`` Z is the image that a table holds.

    Raises:
        HeaderError: NAXIS or a length is missing or cannot be.
    """
    count = _whole(header, f"{prefix}NAXIS")
    if count > 999:
        raise HeaderError(f"{prefix}NAXIS is {count}: an HDU has at most 999 axes")
    return tuple(_whole(header, f"{prefix}NAXIS{axis}") for axis in range(count, 0, -1))


def _whole(header: fits.Header, key: str, default: int | None = None) -> int:
    value = number(header.get(key, default))
    if value is None or value != int(value) or value < 0:
        raise HeaderError(f"{key} is {header[key]!r}: a whole number is meant" if key in header else f"{key} is missing")
    return int(value)


def data_bytes(header: fits.Header) -> int:
    """Bytes of an HDU's data, without what fills their last block (FITS standard 4.0, equation 2).

    Raises:
        HeaderError: the header does not say.
    """
    if header.get("BITPIX") not in (8, 16, 32, 64, -32, -64):
        raise HeaderError(f"BITPIX is {header['BITPIX']!r}" if "BITPIX" in header else "BITPIX is missing")
    lengths = sides(header)
    if lengths and lengths[-1] == 0 and header.get("GROUPS") is True:
        lengths = lengths[:-1]
    values = math.prod(lengths) if lengths else 0
    return abs(header["BITPIX"]) // 8 * _whole(header, "GCOUNT", 1) * (_whole(header, "PCOUNT", 0) + values)
