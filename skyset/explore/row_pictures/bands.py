"""Filters by their names: which is redder, which three make a colour image, which colour a light curve has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

#: Effective wavelengths of filters in nm: UBVRIJHK of Johnson, Cousins and Bessell, ugrizy of SDSS and LSST, UVOT's, Gaia's.
#: The case means something: g is not G, i not I; where surveys write ugriz in capitals they mean those (`wavelength`).
_NM = {
    **{"FUV": 154, "UVW2": 193, "UVM2": 225, "NUV": 230, "UVW1": 260},
    **{"u": 356, "U": 360, "B": 440, "b": 440, "g": 475, "G": 480, "BP": 511, "V": 550, "v": 550, "w": 600},
    **{"r": 622, "R": 640, "i": 763, "RP": 777, "I": 800, "z": 905, "Z": 910, "y": 1000, "Y": 1020},
    **{"J": 1240, "H": 1640, "Ks": 2150, "K": 2190, "W1": 3400, "W2": 4600, "W3": 12000, "W4": 22000},
}
_ANY_CASE = {name.lower(): nm for name, nm in _NM.items() if len(name) > 1}
#: Of filters named by their wavelength (F814W, F444W): JWST's above 2.5 um, which have numbers as Hubble's of 0.3 to 0.5 um.
_LONG = {250, 277, 300, 322, 323, 335, 356, 360, 405, 410, 430, 444, 460, 466, 470, 480}
_NUMBERED = re.compile(r"f(\d{3,4})(?:w2?|m|n|lp|x)$", re.IGNORECASE)
#: A filter's letter and which of several such filters it is: r', ip, Jrc2, Ydw, V0.
_LETTER = re.compile(r"([uUBVgGrRiIzZyYJHK])(?:'|p|c|s|rc\d|dw|\d{1,5})$")
_PREFIXES = re.compile(r"^(?:ztf|lsst|sdss|hsc|des|decam|ps1|bessell|atlas)(?=[a-zA-Z]{1,2}$)", re.IGNORECASE)
#: Of light curves, from blue to red; between them, what lies between. Dark enough for white paper.
_COLOURS = ("#6a3d9a", "#2b6cc4", "#138d90", "#5a9e1f", "#d99a00", "#e2611c", "#bf1d2d", "#661a1a")
MARKERS = ("o", "s", "^", "D", "v", "<", ">", "p", "h", "d")
_MOST = 1e9


def wavelength(band: str) -> float | None:
    """About the effective wavelength of a filter, nm; None of a name that says none.

    Args:
        band: as surveys write it: ``r``, ``des-r``, ``hsc-g``, ``ztfr``, ``UVW2``, ``F814W``, ``Jrc2``, ``lsst_y``.
    """
    for name in (band.strip(), re.split(r"[-_.:/ ]+", band.strip())[-1]):
        if numbered := _NUMBERED.match(name):
            number = int(numbered[1])
            return number * 10.0 if number <= 200 or number in _LONG or len(numbered[1]) > 3 else float(number)
        for known in (name, _PREFIXES.sub("", name)):
            found = _NM.get(known) or _ANY_CASE.get(known.lower())
            if found is None and (letter := _LETTER.match(known)):
                found = _NM.get(letter[1])
            if found is not None:
                return float(found)
    return None


def in_order(bands: Iterable[str]) -> list[str]:
    """Each band once, the bluest first; of those without a known wavelength, numbers from the least, others as they come."""
    return sorted(dict.fromkeys(bands), key=lambda name: (wavelength(name) or _MOST, _number(name)))


def _number(name: str) -> float:
    return int(name) if name.isdecimal() and len(name) < 9 else _MOST


def colours(count: int) -> list[str]:
    """So many colours that can be told apart, from blue to red, of many from violet to dark red, ``#rrggbb``."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    if count == 1:
        return [_COLOURS[1]]
    scale = LinearSegmentedColormap.from_list("bands", _COLOURS if count > 3 else _COLOURS[1:-1])
    return [to_hex(scale(number / (count - 1))) for number in range(count)]


def of_colour_image(bands: Sequence[str], usable: Sequence[bool]) -> tuple[int, int, int] | None:
    """Which planes are to be red, green and blue.

    i, r, g where there are these, else z, r, g, else the reddest, the middle one and the bluest.

    Args:
        bands: the planes' names.
        usable: whether a plane has anything in it.

    Returns:
        places of red, green, blue; None where there are not three filters of known wavelengths.
    """
    known = [(nm, place) for place, band in enumerate(bands) if usable[place] and (nm := wavelength(band))]
    for red in ("i", "z"):
        wanted = [next((place for nm, place in known if nm in _like(letter)), None) for letter in (red, "r", "g")]
        if None not in wanted:
            return wanted[0], wanted[1], wanted[2]  # type: ignore[return-value]
    known = sorted({nm: (nm, place) for nm, place in reversed(known)}.values())
    if len(known) < 3:
        return None
    return known[-1][1], known[(len(known) - 1) // 2][1], known[0][1]


def _like(letter: str) -> tuple[float, float]:
    """A filter's wavelength in small and in capital letters: DES-G of one survey is des-g of another."""
    return float(_NM[letter]), float(_NM[letter.upper()])
