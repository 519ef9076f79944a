"""A ``.sex`` file and the command line's ``-KEYWORD VALUE`` as checked words and numbers; `config` says what they mean.

How the file is read (separators, quotes, variables, continued lines, what stands twice) was seen with SExtractor 2.25.0.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from skyset.errors import UserError
from skyset.extraction import columns as known
from skyset.extraction.settings import read_lines

#: Where installed SExtractors keep their filters and networks; looked at last.
STANDARD_FOLDERS = [
    Path(folder) for folder in ("/usr/share/source-extractor", "/usr/share/sextractor", "/usr/local/share/sextractor")
]


def _number(word: str) -> float:
    value = float(word)
    if math.isnan(value) or "_" in word:
        raise ValueError
    return value


def _whole(word: str) -> int:
    """``5``, and as a script prints it: ``5.0``, ``5.``, ``1e3``."""
    value = _number(word)
    if not value.is_integer() or abs(value) > 1e15:
        raise ValueError
    return int(value)


def _number_or_auto(word: str) -> float:
    """0 where AUTO stands: to be measured."""
    return 0.0 if word.upper() == "AUTO" else _number(word)


@dataclass(frozen=True)
class Numbers:
    """A keyword with numbers that is a field of Settings."""

    field: str
    parse: Callable[[str], float]
    least: int = 1
    most: int = 1


NUMBERS = {
    "DETECT_MINAREA": Numbers("minarea", _whole),
    "DETECT_MAXAREA": Numbers("maxarea", _whole),
    "DEBLEND_NTHRESH": Numbers("deblend_nthresh", _whole),
    "DEBLEND_MINCONT": Numbers("deblend_cont", _number),
    "CLEAN_PARAM": Numbers("clean", _number),
    "BACK_SIZE": Numbers("back_size", _whole, 1, 2),
    "BACK_FILTERSIZE": Numbers("back_filter", _whole, 1, 2),
    "BACK_FILTTHRESH": Numbers("back_filter_threshold", _number),
    "BACK_VALUE": Numbers("back_value", _number, 1, 2),
    "PHOT_APERTURES": Numbers("apertures", _number, 1, 32),
    "PHOT_AUTOPARAMS": Numbers("kron", _number, 2, 2),
    "PHOT_PETROPARAMS": Numbers("petrosian", _number, 2, 2),
    "PHOT_AUTOAPERS": Numbers("least_apertures", _number, 2, 2),
    "PHOT_FLUXFRAC": Numbers("fractions", _number, 1, 32),
    "SATUR_LEVEL": Numbers("saturation", _number),
    "GAIN": Numbers("gain", _number),
    "PIXEL_SCALE": Numbers("pixel_scale", _number),
    "MAG_ZEROPOINT": Numbers("zero_point", _number),
    "SEEING_FWHM": Numbers("seeing", _number_or_auto),
    "WEIGHT_THRESH": Numbers("weight_threshold", _number, 0, 2),
    "DETECT_THRESH": Numbers("threshold", _number, 1, 2),
    "ANALYSIS_THRESH": Numbers("analysis_threshold", _number, 1, 2),
}

_YES = ("Y", "N", "YES", "NO")
#: Keywords that name files to be read.
INPUTS = (
    "PARAMETERS_NAME",
    "FILTER_NAME",
    "STARNNW_NAME",
    "WEIGHT_IMAGE",
    "FLAG_IMAGE",
    "ASSOC_NAME",
    "PSF_NAME",
    "SOM_NAME",
    "DGEO_IMAGE",
)
#: Keywords with words; those of CHECKIMAGE_TYPE that are not made here too.
_WORDS = {
    "CATALOG_TYPE": ("NONE", "ASCII", "ASCII_HEAD", "ASCII_SKYCAT", "ASCII_VOTABLE", "FITS_1.0", "FITS_LDAC"),
    "DETECT_TYPE": ("CCD", "PHOTO"),
    "THRESH_TYPE": ("RELATIVE", "ABSOLUTE"),
    "FILTER": _YES,
    "CLEAN": _YES,
    "MASK_TYPE": ("NONE", "BLANK", "CORRECT"),
    "WEIGHT_TYPE": ("NONE", "BACKGROUND", "MAP_RMS", "MAP_VAR", "MAP_WEIGHT"),
    "RESCALE_WEIGHTS": _YES,
    "WEIGHT_GAIN": _YES,
    "FLAG_TYPE": ("OR", "AND", "MIN", "MAX", "MOST"),
    "BACK_TYPE": ("AUTO", "MANUAL"),
    "BACKPHOTO_TYPE": ("GLOBAL", "LOCAL"),
    "CHECKIMAGE_TYPE": (
        "NONE",
        *known.CHECKS,
        "IDENTICAL",
        "ASSOC",
        "PSFS",
        "-PSFS",
        "MODELS",
        "-MODELS",
        "SPHEROIDS",
        "-SPHEROIDS",
        "DISKS",
        "-DISKS",
        "SYMMETRIES",
        "PATTERNS",
        "MAPSOM",
        "OTHER",
    ),
    "DGEO_TYPE": ("NONE", "PIXEL"),
    "VERBOSE_TYPE": ("QUIET", "NORMAL", "WARN", "FULL"),
    "WRITE_XML": _YES,
    "FITS_UNSIGNED": _YES,
    "INTERP_TYPE": ("NONE", "VAR_ONLY", "ALL"),
    "ASSOC_TYPE": ("FIRST", "NEAREST", "MEAN", "MAG_MEAN", "SUM", "MAG_SUM", "MIN", "MAX"),
    "ASSOCSELEC_TYPE": ("ALL", "MATCHED", "-MATCHED"),
    "ASSOCCOORD_TYPE": ("PIXEL", "WORLD"),
}
#: Keywords with any text, used by name below.
_TEXTS = (
    "CATALOG_NAME",
    "PARAMETERS_NAME",
    "FILTER_NAME",
    "FILTER_THRESH",
    "WEIGHT_IMAGE",
    "FLAG_IMAGE",
    "SATUR_KEY",
    "GAIN_KEY",
    "STARNNW_NAME",
    "CHECKIMAGE_NAME",
    "HEADER_SUFFIX",
)
#: Keywords of both kinds that take several values.
_LISTS = (
    "WEIGHT_TYPE",
    "WEIGHT_IMAGE",
    "FLAG_TYPE",
    "FLAG_IMAGE",
    "BACK_TYPE",
    "CHECKIMAGE_TYPE",
    "CHECKIMAGE_NAME",
    "INTERP_TYPE",
    "FILTER_THRESH",
)
#: Nothing of what is measured here depends on these: how SExtractor works inside, or of use to columns that are refused.
_WITHOUT_EFFECT = (
    "MEMORY_OBJSTACK",
    "MEMORY_PIXSTACK",
    "MEMORY_BUFSIZE",
    "NTHREADS",
    "XML_NAME",
    "XSL_URL",
    "MAG_GAMMA",
    "BACKPHOTO_THICK",
    "ASSOC_NAME",
    "ASSOC_DATA",
    "ASSOC_PARAMS",
    "ASSOC_RADIUS",
    "DGEO_IMAGE",
    "INTERP_MAXXLAG",
    "INTERP_MAXYLAG",
    "PSF_NAME",
    "PSF_NMAX",
    "PSF_RECENTER",
    "PSFDISPLAY_TYPE",
    "PATTERN_TYPE",
    "SOM_NAME",
)
KEYWORDS = (*NUMBERS, *_WORDS, *_TEXTS, *_WITHOUT_EFFECT)
#: Keywords whose empty value says something.
_MAY_BE_EMPTY = ("FILTER_THRESH", "WEIGHT_THRESH", *_WITHOUT_EFFECT)
#: How much of what stands again and again is said.
MOST_SAID = 20


@dataclass(frozen=True)
class Value:
    """The words of a keyword, and where they stand: file and line, or the command line."""

    words: tuple[str, ...]
    where: str


class SexFile:
    """The keywords of a file and of the command line, and what is to be said of them.

    Attributes:
        path: of the file, or None.
        values: what counts, by keyword.
        warnings: one line each; who asks for values adds what follows from them.

    Raises:
        UserError: no keyword of SExtractor in the file, an unknown one on the command line, or a word that cannot be meant.
    """

    def __init__(self, path: Path | None, overrides: Iterable[tuple[str, str]]) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.values: dict[str, Value] = {}
        unknown: dict[str, list[str]] = {}
        twice = 0
        for key, value in self._read(path) if path is not None else ():
            before = self.values.get(key)
            if key not in KEYWORDS:
                unknown.setdefault(key, []).append(value.where)
            elif before is not None and before.words != value.words:
                twice += 1
                if twice > MOST_SAID:
                    self.values[key] = value
                    continue
                self.warnings.append(
                    f"{value.where}: {key} stands twice: {value_text(value)} counts, "
                    f"not the {value_text(before)} of {before.where.rpartition(', ')[2]}"
                )
            self.values[key] = value
        if twice > MOST_SAID:
            self.warnings.append(f"{path}: {twice - MOST_SAID} more keywords stand twice: the last of each counts")
        if path is not None and unknown and not any(key in KEYWORDS for key in self.values):
            raise UserError(f"{path}: no keyword of SExtractor in it: no .sex configuration")
        for key, text in overrides:
            key = key.upper()
            if key not in KEYWORDS:
                raise UserError(f"-{key}: {_unknown_keyword(key)}")
            self.values[key] = Value(tuple(_words(f"{key} {text}", f"-{key}")[1:]), "the command line")
        for key, wheres in list(unknown.items())[:MOST_SAID]:
            again = "".join(f" and {where.rpartition(', ')[2]}" for where in wheres[1:MOST_SAID])
            again += f" and {len(wheres) - MOST_SAID} more" * (len(wheres) > MOST_SAID)
            self.warnings.append(f"{wheres[0]}{again}: {key} is passed over: {_unknown_keyword(key)}")
        if len(unknown) > MOST_SAID:
            self.warnings.append(f"{path}: {len(unknown) - MOST_SAID} more unknown keywords are passed over")
        for key, value in self.values.items():
            self._check_words(key, value)

    @staticmethod
    def _read(path: Path) -> Iterable[tuple[str, Value]]:
        lines = read_lines(path, "a .sex configuration")
        number = 0
        while number < len(lines):
            start, parts = number + 1, [without_comment(lines[number]).rstrip()]
            while parts[-1].endswith("\\"):
                number += 1
                parts[-1] = parts[-1][:-1]
                parts.append(without_comment(lines[number] if number < len(lines) else "").rstrip())
            number += 1
            where = f"{path}, line {start}"
            if words := _words(" ".join(parts), where):
                yield words[0].upper(), Value(tuple(words[1:]), where)

    def _check_words(self, key: str, value: Value) -> None:
        if key in KEYWORDS and not value.words and key not in _MAY_BE_EMPTY:
            raise UserError(f"{value.where}: {key} has no value")
        if len(value.words) > 1 and key in _WORDS and key not in _LISTS:
            raise UserError(f"{value.where}: {key} has {len(value.words)} values ({value_text(value)}): it takes 1")
        if len(value.words) > 1 and key in _TEXTS and key not in _LISTS:
            self.say(key, f"it takes one value: {value.words[0]} counts")
        for word in value.words if key in _WORDS else ():
            if word.upper() not in _WORDS[key]:
                allowed = [one for one in _WORDS[key] if one not in ("YES", "NO")]
                raise UserError(f"{value.where}: {key} {word}: it is {', '.join(allowed[:-1])} or {allowed[-1]}")

    def words(self, key: str, default: str) -> list[str]:
        return [word.upper() for word in self.values[key].words] if key in self.values else default.split()

    def word(self, key: str, default: str) -> str:
        return self.words(key, default)[0]

    def yes(self, key: str, default: str) -> bool:
        return self.word(key, default).startswith("Y")

    def text(self, key: str) -> str | None:
        return self.values[key].words[0] if key in self.values and self.values[key].words else None

    def numbers(self, key: str) -> list[float] | None:
        """None where the keyword is not given or empty."""
        spec, value = NUMBERS[key], self.values.get(key)
        if value is None:
            return None
        least, most = spec.least, spec.most
        if not least <= len(value.words) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise UserError(f"{value.where}: {key} has {len(value.words)} values ({value_text(value)}): it takes {wanted}")
        try:
            return [spec.parse(word) for word in value.words] or None
        except ValueError:
            kind = "whole number" if spec.parse is _whole else "number"
            raise UserError(f"{value.where}: {key} {value_text(value)}: a {kind} is meant") from None

    def say(self, key: str, text: str) -> None:
        value = self.values.get(key)
        self.warnings.append(f"{value.where}: {key} {value_text(value)}: {text}" if value else f"{key} is not given: {text}")

    def where(self, key: str) -> str:
        return self.values[key].where if key in self.values else str(self.path)

    def looked(self) -> str:
        folder = self.path.parent if self.path is not None else None
        return f" in {folder} or here" if folder is not None and folder.resolve() != Path.cwd() else " here"


def find(name: str, beside: Path | None, standard: bool = True) -> Path | None:
    """A file of a configuration: beside the ``.sex`` file, in the current folder, with ``standard`` where SExtractor is
    installed; None where it is nowhere."""
    path = Path(name).expanduser()
    folders = [Path()] if path.is_absolute() else [*([beside.parent] if beside is not None else []), Path()]
    folders += STANDARD_FOLDERS if standard else []
    try:
        return next((folder / path for folder in folders if (folder / path).is_file()), None)
    except (OSError, ValueError):  # a name that no file can have
        return None


def without_comment(line: str) -> str:
    """The line up to a # that does not stand in quotes."""
    found = re.match(r"""(?:[^#"']|"[^"]*"|'[^']*'|["'])*""", line)
    return found[0] if found else ""


def _words(text: str, where: str) -> list[str]:
    """Values between blanks, commas, semicolons and equals signs; quotes keep them together; $VARIABLES replaced."""
    words = []
    for match in re.finditer(r""""([^"]*)"|'([^']*)'|((?:[^\s,;="'\[]|\[[^\[\]\s"']*\]|\[)+)""", text):
        word = next(group for group in match.groups() if group is not None)
        word = os.path.expandvars(word) if match[2] is None else word
        words.append(word)
        if match[2] is None and words[0].upper() in KEYWORDS and (left := re.search(r"\$\{?(\w+)", word)):
            raise UserError(f"{where}: the environment variable {left[1]} is not set")
    return words


def value_text(value: Value) -> str:
    return ",".join(value.words) or "(no value)"


def near_names(name: str, names: Iterable[str], likeness: float = 0.75) -> str:
    near = difflib.get_close_matches(name, list(names), 2, likeness)
    return f"is {' or '.join(near)} meant?" if near else ""


def _unknown_keyword(key: str) -> str:
    if key in known.COLUMNS:
        return "it is a column's name, for a .param file"
    return f"SExtractor has no such keyword{f'; {near}' if (near := near_names(key, KEYWORDS)) else ''}"
