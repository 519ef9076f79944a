"""SExtractor's configuration: a ``.sex`` file with its ``.param``, ``.conv`` and ``.nnw`` as the settings of an extraction.

Nothing is passed over in silence: a keyword that changes SExtractor's result but not ours, an unknown keyword and one that
stands twice are named in ``Configuration.warnings``; a value that cannot be meant is a UserError with file and line.
Keywords and values are those of the SExtractor manual, "The configuration file"; how the file is read (separators, defaults,
header keywords before GAIN and SATUR_LEVEL, vectors in the .param file) was seen with SExtractor 2.25.0.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import warnings
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from astropy.io import fits

from skyset import headers
from skyset.errors import UserError
from skyset.extraction import columns as known
from skyset.extraction.images import split
from skyset.extraction.settings import DEFAULT_KERNEL
from skyset.extraction.settings import Settings
from skyset.extraction.settings import read_kernel
from skyset.extraction.settings import read_lines
from skyset.extraction.world import celestial_wcs
from skyset.extraction.world import pixel_scale as sky_scale
from skyset.extraction.world import sky_faults

#: Where installed SExtractors keep their filters and networks; looked at last.
STANDARD_FOLDERS = [Path(folder) for folder in ("/usr/share/source-extractor", "/usr/share/sextractor",
                                                "/usr/local/share/sextractor")]  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """What a configuration asks for.

    ``settings``: how to measure, before a header is known: use :meth:`for_header` for an image's own gain, saturation and
    pixel scale. ``columns``: the names wanted, or None where nobody said; as many apertures and fractions as they have room
    for are in ``settings``. ``classifier``: a ``.nnw`` file, or None for our own. ``catalogue``
    and ``catalogue_type``: CATALOG_NAME and CATALOG_TYPE where given. ``check``: file names by CHECKIMAGE_TYPE.
    ``weight``, ``flag_image``: files to be used, or None. ``warnings``: one line each.
    """

    settings: Settings
    columns: tuple[str, ...] | None = None
    classifier: Path | None = None
    catalogue: str | None = None
    catalogue_type: str | None = None
    check: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    #: Files, which may say which of their images: ``both.fits[WHT]``.
    weight: Path | None = None
    flag_image: Path | None = None
    gain_key: str = "GAIN"
    saturation_key: str = "SATURATE"
    header_suffix: str = ".head"
    #: Thresholds as (surface brightness in mag/arcsec2, zero point), where they are given so.
    surface_brightness: tuple[tuple[float, float] | None, tuple[float, float] | None] = (None, None)
    path: Path | None = None
    filter_name: str = "default.conv"
    warnings: tuple[str, ...] = ()
    #: Columns that cannot be had are left out.
    skip_unknown: bool = False
    #: The files that it names, itself too, used or not: no result may replace one.
    inputs: tuple[Path, ...] = ()

    def for_header(self, header: fits.Header) -> Settings:
        """The settings of one image: its header's GAIN_KEY and SATUR_KEY before GAIN and SATUR_LEVEL, as SExtractor does
        (the extension's own header: the primary one is not inherited); PIXEL_SCALE 0 from the WCS; thresholds in
        mag/arcsec2 as counts a pixel. A header's value that cannot be meant is named in a warning, and the configuration's
        used. Raises UserError where thresholds in mag/arcsec2 are none with that scale."""
        found: dict[str, object] = {}
        header = headers.readable(header)
        for field, key, least in (("gain", self.gain_key, 0), ("saturation", self.saturation_key, 1e-30)):
            if key not in header:
                continue
            value = headers.number(header[key])
            if value is not None and least <= value <= 1e30:
                found[field] = float(value)
            else:
                said = "no number" if value is None else "which cannot be meant"
                shown = "blank" if header[key] is None or isinstance(header[key], fits.card.Undefined) else repr(header[key])
                warnings.warn(f"the header's {key} is {shown}, {said}: {getattr(self.settings, field):g} is used",
                              stacklevel=2)  # fmt: skip
        for fault in sky_faults(header):
            warnings.warn(fault, stacklevel=2)
        if self.settings.pixel_scale == 0:
            found["pixel_scale"] = pixel_scale(header)
            if found["pixel_scale"] and not 1e-10 <= found["pixel_scale"] <= 1e10:
                warnings.warn(f"the WCS has pixels of {found['pixel_scale']:g} arcsec, which cannot be meant: 1 is used",
                              stacklevel=2)  # fmt: skip
                found["pixel_scale"] = 1.0
        scale = found.get("pixel_scale") or self.settings.pixel_scale
        found |= _counts(self.surface_brightness, scale or 1.0)
        try:
            return dataclasses.replace(self.settings, **found)
        except ValueError as error:
            raise UserError(f"with the image's header: {error}") from None


def pixel_scale(header: fits.Header) -> float:
    """Side of a pixel in arcsec (`world.pixel_scale`); 0 where the header has no celestial WCS."""
    wcs = celestial_wcs(header)
    rows, columns = (
        headers.number(header.get(f"ZNAXIS{axis}", header.get(f"NAXIS{axis}", 0))) or 0.0 for axis in (2, 1)
    )
    return sky_scale(wcs, (rows, columns)) if wcs is not None else 0.0


def read_config(
    path: str | Path | None = None,
    *,
    overrides: Iterable[tuple[str, str]] = (),
    parameters: str | Path | None = None,
    columns: Iterable[str] | None = None,
    skip_unknown: bool = False,
    weighted: bool = False,
) -> Configuration:
    """The configuration of a ``.sex`` file; without a path, of ``overrides`` alone.

    ``overrides``: keywords and values that come before the file's, as ``-DETECT_THRESH 3``. ``parameters``: a ``.param``
    file instead of PARAMETERS_NAME; ``columns``: names instead of both, such as ``FLUX_RADIUS(3)``. Relative names are
    looked up beside the ``.sex`` file, then in the current folder, then where SExtractor is installed.

    With a file, keywords that are not given have SExtractor's defaults (ANALYSIS_THRESH is then 1.5 whatever DETECT_THRESH
    is); without one, ANALYSIS_THRESH follows DETECT_THRESH. PIXEL_SCALE that neither gives is 0, from the WCS; without
    SEEING_FWHM, 1.2 is taken, and CLASS_STAR comes with a warning.

    ``weighted``: weights are given beside the configuration, so that WEIGHT_TYPE NONE is MAP_WEIGHT.

    Raises UserError, naming file and line, for a value that cannot be meant, a file that is not there, and a column that
    is not measured (with ``skip_unknown`` a warning, and the column is left out).
    """
    reader = _Reader(Path(path) if path is not None else None, overrides)
    return reader.configuration(parameters, columns, skip_unknown, weighted)


# What the keywords may be


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
class _Numbers:
    """A keyword with numbers that is a field of Settings."""

    field: str
    parse: Callable[[str], float]
    least: int = 1
    most: int = 1


_NUMBERS = {
    "DETECT_MINAREA": _Numbers("minarea", _whole), "DETECT_MAXAREA": _Numbers("maxarea", _whole),
    "DEBLEND_NTHRESH": _Numbers("deblend_nthresh", _whole), "DEBLEND_MINCONT": _Numbers("deblend_cont", _number),
    "CLEAN_PARAM": _Numbers("clean", _number), "BACK_SIZE": _Numbers("back_size", _whole, 1, 2),
    "BACK_FILTERSIZE": _Numbers("back_filter", _whole, 1, 2), "BACK_FILTTHRESH": _Numbers("back_filter_threshold", _number),
    "BACK_VALUE": _Numbers("back_value", _number, 1, 2), "PHOT_APERTURES": _Numbers("apertures", _number, 1, 32),
    "PHOT_AUTOPARAMS": _Numbers("kron", _number, 2, 2), "PHOT_PETROPARAMS": _Numbers("petrosian", _number, 2, 2),
    "PHOT_AUTOAPERS": _Numbers("least_apertures", _number, 2, 2), "PHOT_FLUXFRAC": _Numbers("fractions", _number, 1, 32),
    "SATUR_LEVEL": _Numbers("saturation", _number), "GAIN": _Numbers("gain", _number),
    "PIXEL_SCALE": _Numbers("pixel_scale", _number), "MAG_ZEROPOINT": _Numbers("zero_point", _number),
    "SEEING_FWHM": _Numbers("seeing", _number_or_auto), "WEIGHT_THRESH": _Numbers("weight_threshold", _number, 0, 2),
    "DETECT_THRESH": _Numbers("threshold", _number, 1, 2), "ANALYSIS_THRESH": _Numbers("analysis_threshold", _number, 1, 2),
}  # fmt: skip

_YES = ("Y", "N", "YES", "NO")
#: Keywords that name files to be read.
_INPUTS = ("PARAMETERS_NAME", "FILTER_NAME", "STARNNW_NAME", "WEIGHT_IMAGE", "FLAG_IMAGE", "ASSOC_NAME", "PSF_NAME",
           "SOM_NAME", "DGEO_IMAGE")  # fmt: skip
#: Keywords with words; those of CHECKIMAGE_TYPE that are not made here too.
_WORDS = {
    "CATALOG_TYPE": ("NONE", "ASCII", "ASCII_HEAD", "ASCII_SKYCAT", "ASCII_VOTABLE", "FITS_1.0", "FITS_LDAC"),
    "DETECT_TYPE": ("CCD", "PHOTO"), "THRESH_TYPE": ("RELATIVE", "ABSOLUTE"), "FILTER": _YES, "CLEAN": _YES,
    "MASK_TYPE": ("NONE", "BLANK", "CORRECT"),
    "WEIGHT_TYPE": ("NONE", "BACKGROUND", "MAP_RMS", "MAP_VAR", "MAP_WEIGHT"), "RESCALE_WEIGHTS": _YES, "WEIGHT_GAIN": _YES,
    "FLAG_TYPE": ("OR", "AND", "MIN", "MAX", "MOST"), "BACK_TYPE": ("AUTO", "MANUAL"), "BACKPHOTO_TYPE": ("GLOBAL", "LOCAL"),
    "CHECKIMAGE_TYPE": ("NONE", *known.CHECKS, "IDENTICAL", "ASSOC", "PSFS", "-PSFS", "MODELS", "-MODELS", "SPHEROIDS",
                        "-SPHEROIDS", "DISKS", "-DISKS", "SYMMETRIES", "PATTERNS", "MAPSOM", "OTHER"),
    "DGEO_TYPE": ("NONE", "PIXEL"), "VERBOSE_TYPE": ("QUIET", "NORMAL", "WARN", "FULL"), "WRITE_XML": _YES,
    "FITS_UNSIGNED": _YES, "INTERP_TYPE": ("NONE", "VAR_ONLY", "ALL"),
    "ASSOC_TYPE": ("FIRST", "NEAREST", "MEAN", "MAG_MEAN", "SUM", "MAG_SUM", "MIN", "MAX"),
    "ASSOCSELEC_TYPE": ("ALL", "MATCHED", "-MATCHED"), "ASSOCCOORD_TYPE": ("PIXEL", "WORLD"),
}  # fmt: skip
#: Keywords with any text, used by name below.
_TEXTS = ("CATALOG_NAME", "PARAMETERS_NAME", "FILTER_NAME", "FILTER_THRESH", "WEIGHT_IMAGE", "FLAG_IMAGE", "SATUR_KEY",
          "GAIN_KEY", "STARNNW_NAME", "CHECKIMAGE_NAME", "HEADER_SUFFIX")  # fmt: skip
#: Keywords of both kinds that take several values.
_LISTS = ("WEIGHT_TYPE", "WEIGHT_IMAGE", "FLAG_TYPE", "FLAG_IMAGE", "BACK_TYPE", "CHECKIMAGE_TYPE", "CHECKIMAGE_NAME",
          "INTERP_TYPE", "FILTER_THRESH")  # fmt: skip
#: Nothing of what is measured here depends on these: how SExtractor works inside, or of use to columns that are refused.
_WITHOUT_EFFECT = (
    "MEMORY_OBJSTACK", "MEMORY_PIXSTACK", "MEMORY_BUFSIZE", "NTHREADS", "XML_NAME", "XSL_URL", "MAG_GAMMA",
    "BACKPHOTO_THICK", "ASSOC_NAME", "ASSOC_DATA", "ASSOC_PARAMS", "ASSOC_RADIUS",
    "DGEO_IMAGE", "INTERP_MAXXLAG", "INTERP_MAXYLAG", "PSF_NAME",
    "PSF_NMAX", "PSF_RECENTER", "PSFDISPLAY_TYPE", "PATTERN_TYPE", "SOM_NAME",
)  # fmt: skip
KEYWORDS = (*_NUMBERS, *_WORDS, *_TEXTS, *_WITHOUT_EFFECT)
#: Keywords whose empty value says something.
_MAY_BE_EMPTY = ("FILTER_THRESH", "WEIGHT_THRESH", *_WITHOUT_EFFECT)
#: How much of what stands again and again is said: keywords, columns with a reason, columns by name.
_MOST_SAID = 20
_MOST_NAMED = 500
_LENGTHS = re.compile(r"[\s,]*(\d{1,9})(?:[\s,]+(\d{1,9}))?(?![\w.])")
#: Families of SExtractor's columns that need a fit, and where there is one.
_FITTED = re.compile(r"SPHEROID|DISK|MODEL|_PSF|PSF_|HYBRID|POINTSOURCE")


@dataclass(frozen=True)
class _Value:
    words: tuple[str, ...]
    where: str


class _Reader:
    """The keywords of a file and of the command line, and what is to be said of them."""

    def __init__(self, path: Path | None, overrides: Iterable[tuple[str, str]]) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.values: dict[str, _Value] = {}
        self.values_in_param: list[str] = []
        unknown: dict[str, list[str]] = {}
        twice = 0
        for key, value in self._read(path) if path is not None else ():
            before = self.values.get(key)
            if key not in KEYWORDS:
                unknown.setdefault(key, []).append(value.where)
            elif before is not None and before.words != value.words:
                twice += 1
                if twice > _MOST_SAID:
                    self.values[key] = value
                    continue
                self.warnings.append(f"{value.where}: {key} stands twice: {_said(value)} counts, "
                                     f"not the {_said(before)} of {before.where.rpartition(', ')[2]}")  # fmt: skip
            self.values[key] = value
        if twice > _MOST_SAID:
            self.warnings.append(f"{path}: {twice - _MOST_SAID} more keywords stand twice: the last of each counts")
        if path is not None and unknown and not any(key in KEYWORDS for key in self.values):
            raise UserError(f"{path}: no keyword of SExtractor in it: no .sex configuration")
        for key, value in overrides:
            key = key.upper()
            if key not in KEYWORDS:
                raise UserError(f"-{key}: {_unknown_keyword(key)}")
            self.values[key] = _Value(tuple(_words(f"{key} {value}", f"-{key}")[1:]), "the command line")
        for key, wheres in list(unknown.items())[:_MOST_SAID]:
            again = "".join(f" and {where.rpartition(', ')[2]}" for where in wheres[1:_MOST_SAID])
            again += f" and {len(wheres) - _MOST_SAID} more" * (len(wheres) > _MOST_SAID)
            self.warnings.append(f"{wheres[0]}{again}: {key} is passed over: {_unknown_keyword(key)}")
        if len(unknown) > _MOST_SAID:
            self.warnings.append(f"{path}: {len(unknown) - _MOST_SAID} more unknown keywords are passed over")
        for key, value in self.values.items():
            self._check_words(key, value)

    @staticmethod
    def _read(path: Path) -> Iterable[tuple[str, _Value]]:
        lines = read_lines(path, "a .sex configuration")
        number = 0
        while number < len(lines):
            start, parts = number + 1, [_without_comment(lines[number]).rstrip()]
            while parts[-1].endswith("\\"):
                number += 1
                parts[-1] = parts[-1][:-1]
                parts.append(_without_comment(lines[number] if number < len(lines) else "").rstrip())
            number += 1
            where = f"{path}, line {start}"
            if words := _words(" ".join(parts), where):
                yield words[0].upper(), _Value(tuple(words[1:]), where)

    def _check_words(self, key: str, value: _Value) -> None:
        if key in KEYWORDS and not value.words and key not in _MAY_BE_EMPTY:
            raise UserError(f"{value.where}: {key} has no value")
        if len(value.words) > 1 and key in _WORDS and key not in _LISTS:
            raise UserError(f"{value.where}: {key} has {len(value.words)} values ({_said(value)}): it takes 1")
        if len(value.words) > 1 and key in _TEXTS and key not in _LISTS:
            self.say(key, f"it takes one value: {value.words[0]} counts")
        for word in value.words if key in _WORDS else ():
            if word.upper() not in _WORDS[key]:
                allowed = [one for one in _WORDS[key] if one not in ("YES", "NO")]
                raise UserError(f"{value.where}: {key} {word}: it is {', '.join(allowed[:-1])} or {allowed[-1]}")

    # Values

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
        spec, value = _NUMBERS[key], self.values.get(key)
        if value is None:
            return None
        least, most = spec.least, spec.most
        if not least <= len(value.words) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise UserError(f"{value.where}: {key} has {len(value.words)} values ({_said(value)}): it takes {wanted}")
        try:
            return [spec.parse(word) for word in value.words] or None
        except ValueError:
            kind = "whole number" if spec.parse is _whole else "number"
            raise UserError(f"{value.where}: {key} {_said(value)}: a {kind} is meant") from None

    def say(self, key: str, text: str) -> None:
        value = self.values.get(key)
        self.warnings.append(f"{value.where}: {key} {_said(value)}: {text}" if value else f"{key} is not given: {text}")

    # What they mean

    def configuration(self, parameters, columns, skip_unknown: bool, weighted: bool) -> Configuration:
        wanted, lengths, dropped = self._columns(parameters, columns, skip_unknown)
        fields = self._simple_fields()
        self._vectors(fields, lengths)
        surface = self._thresholds(fields)
        if any(surface) and self.path is not None and "PIXEL_SCALE" not in self.values:
            self.say("PIXEL_SCALE", "thresholds in mag/arcsec2 are those of the WCS's pixels (SExtractor takes 1 arcsec)")
        fields |= _counts(surface, fields.get("pixel_scale") or 1.0)
        filter_name = self._kernel(fields)
        weight = self._weight(fields, weighted)
        flag_image = self._flag_image(fields, wanted)
        classifier = self._classifier(wanted)
        check = self._check()
        self._not_honoured(dropped)
        return Configuration(
            self._settings(fields), tuple(wanted) if wanted is not None else None, classifier, self.text("CATALOG_NAME"),
            self.word("CATALOG_TYPE", "") if "CATALOG_TYPE" in self.values else None, check, weight, flag_image,
            self.text("GAIN_KEY") or "GAIN", self.text("SATUR_KEY") or "SATURATE", self.text("HEADER_SUFFIX") or ".head",
            surface, self.path, filter_name, tuple(self.warnings), skip_unknown, tuple(self._inputs(parameters)),
        )  # fmt: skip

    def _inputs(self, parameters: str | Path | None) -> Iterator[Path]:
        yield from (Path(each) for each in (self.path, parameters) if each is not None)
        named = [word for key in _INPUTS for word in (self.values[key].words if key in self.values else ())]
        for name in named:
            yield from filter(None, (find(each, self.path) for each in {name, str(split(name)[0])}))

    def _settings(self, fields: dict) -> Settings:
        try:
            return Settings(**fields)
        except ValueError as error:
            field, _, rest = str(error).partition(" is ")
            for key, spec in _NUMBERS.items():
                if spec.field == field and key in self.values:
                    raise UserError(f"{self.values[key].where}: {key} is {rest}") from None
            raise UserError(f"{self.path or 'the command line'}: {error}") from None

    def _simple_fields(self) -> dict:
        special = ("DETECT_THRESH", "ANALYSIS_THRESH", "CLEAN_PARAM", "BACK_VALUE", "WEIGHT_THRESH")
        fields: dict = {}
        for key, spec in _NUMBERS.items():
            values = self.numbers(key)
            if key not in special and values is not None:
                one = len(values) == 1 and spec.most < 32
                fields[spec.field] = values[0] if one else tuple(values)
        fields["mask_type"] = self.word("MASK_TYPE", "CORRECT").lower()
        fields["flag_type"] = self.word("FLAG_TYPE", "OR").lower()
        fields["clean"] = (self.numbers("CLEAN_PARAM") or [1.0])[0] if self.yes("CLEAN", "Y") else None
        if self.word("BACK_TYPE", "AUTO") == "MANUAL":
            fields["back_value"] = (self.numbers("BACK_VALUE") or [0.0])[0]
        for key in ("BACK_TYPE", "BACK_VALUE"):
            said = self.words(key, "")
            if len(set(said)) > 1 and (key == "BACK_TYPE" or "back_value" in fields):
                self.say(key, f"one background serves detection and measurement: {said[0]} is used for both")
        return fields

    def _vectors(self, fields: dict, lengths: dict[str, int]) -> None:
        """As many apertures and fractions as the .param file has room for."""
        for field, key, column in (
            ("apertures", "PHOT_APERTURES", "FLUX_APER"),
            ("fractions", "PHOT_FLUXFRAC", "FLUX_RADIUS"),
        ):
            if field not in lengths:
                continue
            values = fields.get(field, Settings.__dataclass_fields__[field].default)
            if lengths[field] > len(values):
                said = ", ".join(f"{value:g}" for value in values)
                self.warnings.append(f"{column}({lengths[field]}) has room for more values than {key} gives: {said}")
            fields[field] = values[: lengths[field]]
        if "vignet" in lengths:
            fields["vignet"] = lengths["vignet"]

    def _thresholds(self, fields: dict) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
        """Both thresholds in one kind: units of the rms, or counts."""
        detect, analysis = self.numbers("DETECT_THRESH") or [1.5], self.numbers("ANALYSIS_THRESH")
        if analysis is None and self.path is not None:
            analysis = [1.5]
        absolute = self.word("THRESH_TYPE", "RELATIVE") == "ABSOLUTE"
        pairs = [tuple(values) if values is not None and len(values) == 2 else None for values in (detect, analysis)]
        if any(pairs) and not absolute:
            if pairs[0] and not pairs[1] and "ANALYSIS_THRESH" not in self.values:
                analysis = None
                if self.path is not None:
                    self.say(
                        "ANALYSIS_THRESH", "it follows DETECT_THRESH (SExtractor would take 1.5 sigma beside mag/arcsec2)"
                    )
            elif not all(pairs):
                key = "DETECT_THRESH" if pairs[0] else "ANALYSIS_THRESH"
                other = "ANALYSIS_THRESH" if pairs[0] else "DETECT_THRESH"
                raise UserError(f"{self.values[key].where}: {key} {_said(self.values[key])} is in mag/arcsec2, {other} in "
                                "units of the rms: give both in mag/arcsec2, or both in rms")  # fmt: skip
        fields["absolute"] = absolute or any(pairs)
        fields["threshold"] = detect[0]
        fields["analysis_threshold"] = analysis[0] if analysis is not None else None
        return pairs[0], pairs[1]

    def _kernel(self, fields: dict) -> str:
        name = self.text("FILTER_NAME") or "default.conv"
        if not self.yes("FILTER", "Y"):
            fields["kernel"] = None
            return ""
        path = find(name, self.path)
        if path is not None:
            fields["kernel"], fields["normalise_kernel"] = read_kernel(path), False  # the file has said NORM or NONORM
        elif Path(name).name != "default.conv":
            raise UserError(f"{self._where('FILTER_NAME')}: FILTER_NAME {name}: no such file{self._looked()}")
        else:
            fields["kernel"] = DEFAULT_KERNEL
            if "FILTER_NAME" in self.values:
                self.say("FILTER_NAME", f"no such file{self._looked()}; SExtractor's standard default.conv (1 2 1, 2 4 2, "
                         "1 2 1) is used")  # fmt: skip
        return Path(name).name

    def _weight(self, fields: dict, weighted: bool) -> Path | None:
        types, names = self.words("WEIGHT_TYPE", "NONE"), self.values.get("WEIGHT_IMAGE")
        if len(set(types)) > 1 or len(types) > 2:
            self.say("WEIGHT_TYPE", f"one weight serves detection and measurement: {types[0]} is used for both")
        kind = types[0]
        if weighted and not kind.startswith("MAP_"):
            kind = "MAP_WEIGHT"
        if kind == "BACKGROUND":
            self.say("WEIGHT_TYPE", "treated as NONE: the thresholds follow one rms for the whole image")
        if not kind.startswith("MAP_"):
            return None
        fields["weight_type"] = {"MAP_WEIGHT": "weight", "MAP_VAR": "variance", "MAP_RMS": "rms"}[kind]
        threshold = self.numbers("WEIGHT_THRESH")
        if threshold is not None:
            fields["weight_threshold"] = threshold[0]
            if len(set(threshold)) > 1:
                self.say("WEIGHT_THRESH", f"one weight serves detection and measurement: {threshold[0]:g} is used for both")
        if names is not None and len(set(names.words)) > 1:
            self.say("WEIGHT_IMAGE", f"one weight serves detection and measurement: {names.words[0]} is used for both")
        if self.path is None and not any(key in self.values for key in ("RESCALE_WEIGHTS", "WEIGHT_GAIN", "INTERP_TYPE")):
            return self._input_file("WEIGHT_IMAGE", "weight.fits")
        rescaled = kind == "MAP_WEIGHT"
        if self.yes("RESCALE_WEIGHTS", "Y") != rescaled:
            self.say("RESCALE_WEIGHTS", "relative weights are always scaled to the background's rms" if rescaled else
                     f"{kind} is taken as it stands, in counts, without scaling to the background's rms")  # fmt: skip
        if self.yes("WEIGHT_GAIN", "Y"):
            self.say("WEIGHT_GAIN", "one gain serves all pixels, whatever their weights")
        if set(self.words("INTERP_TYPE", "ALL")) != {"NONE"}:
            self.say("INTERP_TYPE", "pixels without weight are left out, not interpolated")
        return self._input_file("WEIGHT_IMAGE", "weight.fits")

    def _flag_image(self, fields: dict, wanted: list[str] | None) -> Path | None:
        if wanted is None or not any(known.COLUMNS[name].stage == "external" for name in wanted):
            return None
        names = self.values.get("FLAG_IMAGE")
        for key in ("FLAG_IMAGE", "FLAG_TYPE"):
            if key in self.values and len(self.values[key].words) > 1:
                self.say(key, f"one flag image is read: {self.values[key].words[0]}")
        if names is None:
            return None
        return self._input_file("FLAG_IMAGE", names.words[0])

    def _input_file(self, key: str, default: str) -> Path:
        """Where it should be, even if it is not there: the command line may give another."""
        given = self.text(key) or default
        name, image, plane = split(given)
        if not image:
            return find(given, self.path, standard=False) or Path(given)
        found = find(str(name), self.path, standard=False) or name
        return Path(f"{found}[{image}]" + (f"[{plane}]" if plane else ""))

    def _classifier(self, wanted: list[str] | None) -> Path | None:
        name = self.text("STARNNW_NAME")
        if name is None or (wanted is not None and "CLASS_STAR" not in wanted):
            return None
        path = find(name, self.path)
        if path is None:
            self.say("STARNNW_NAME", f"no such file{self._looked()}; CLASS_STAR is that of skyset's own classifier")
        return path

    def _check(self) -> dict[str, Path]:
        types = self.words("CHECKIMAGE_TYPE", "NONE")
        if set(types) == {"NONE"}:
            return {}
        names = list(self.values["CHECKIMAGE_NAME"].words) if "CHECKIMAGE_NAME" in self.values else ["check.fits"]
        if len(names) < len(types):
            where = self._where("CHECKIMAGE_TYPE")
            raise UserError(
                f"{where}: CHECKIMAGE_TYPE has {len(types)} images, CHECKIMAGE_NAME {len(names)}: {', '.join(names)}"
            )
        if len(names) > len(types):
            self.say("CHECKIMAGE_NAME", f"only {len(types)} images are wanted")
        wanted = {}
        for kind, name in zip(types, names, strict=False):
            if kind in known.CHECKS:
                wanted[kind] = Path(name)
            elif kind != "NONE":
                self.say("CHECKIMAGE_TYPE", f"no {kind} image is made here")
        return wanted

    def _not_honoured(self, dropped: list[str]) -> None:
        """Of keywords without a setting: what would differ from SExtractor's result."""
        for key, usual, text in (
            ("DETECT_TYPE", "CCD", "pixels are taken as linear, as of a CCD"),
            ("BACKPHOTO_TYPE", "GLOBAL", "the background of the map is subtracted, none is measured around each source"),
            ("DGEO_TYPE", "NONE", "no differential geometry map is applied"),
            ("FITS_UNSIGNED", "N", "whole numbers are what BITPIX and BZERO say"),
            ("WRITE_XML", "N", "no XML file is written"),
        ):
            if self.word(key, usual)[0] != usual[0]:
                self.say(key, text)
        if self.yes("FILTER", "Y") and self.values.get("FILTER_THRESH", _Value((), "")).words:
            self.say("FILTER_THRESH", "there are no retina filters here: every pixel is filtered")
        if any("ASSOC" in name for name in dropped):
            self.warnings.append("ASSOC_*: no list is associated, and no source is selected by it: the columns are left out")

    # Columns

    def _columns(self, parameters, columns, skip_unknown: bool) -> tuple[list[str] | None, dict, list[str]]:
        """Names wanted (None: nobody said), lengths of vectors by field of Settings, and names left out."""
        if columns is not None:
            lines = [("--columns", one) for one in columns]
            if not lines:
                raise UserError("--columns: no column is wanted; such as X_IMAGE,Y_IMAGE,MAG_AUTO")
        else:
            path = Path(parameters) if parameters is not None else self._parameters_file()
            if path is None:
                return None, {}, []
            lines = [(f"{path}, line {number}", text) for number, line in enumerate(read_lines(path, "a .param file"), 1)
                     if (text := _without_comment(line).strip())]  # fmt: skip
            if not lines:
                raise UserError(f"{path}: no column is wanted in it")
        wanted, lengths, unknown = [], {}, []
        for where, text in lines:
            name, sides, rest = _column(text, where)
            if name not in known.COLUMNS or (name == "VIGNET" and skip_unknown and not sides and not _LENGTHS.match(rest)):
                unknown.append((where, name))
                continue
            wanted.append(name)
            self._vector(where, name, sides, rest, lengths, columns is None)
        source = lines[0][0].rpartition(", ")[0] or lines[0][0]
        self._unknown_columns(source, unknown, skip_unknown)
        if not wanted:
            raise UserError(f"{source}: none of the columns in it is measured here")
        if said := self.values_in_param:
            more = f" and {len(said) - _MOST_SAID} more" * (len(said) > _MOST_SAID)
            self.warnings.append(f"{source}: values after names are passed over: {', '.join(said[:_MOST_SAID])}{more}")
        return known.check(wanted), lengths, [name for _, name in unknown]

    def _parameters_file(self) -> Path | None:
        name = self.text("PARAMETERS_NAME")
        if name is None:
            return None
        path = find(name, self.path, standard=False)
        if path is None:
            raise UserError(f"{self._where('PARAMETERS_NAME')}: PARAMETERS_NAME {name}: no such file{self._looked()}; give "
                            "-p FILE.param, or --columns X_IMAGE,Y_IMAGE")  # fmt: skip
        return path

    def _vector(self, where: str, name: str, sides: tuple[int, ...], rest: str, lengths: dict, from_file: bool) -> None:
        repeat = known.COLUMNS[name].repeat
        if repeat and not sides and (numbers := _LENGTHS.match(rest)):
            # SExtractor reads "FLUX_APER 3" as FLUX_APER(3).
            sides, rest = tuple(int(number) for number in numbers.groups() if number), rest[numbers.end() :]
        words = re.findall(r"[^\s,]+", rest)
        # Any other text is a description, as in SExtractor's own default.param without its comment signs.
        if words and all(word in known.COLUMNS or word in KEYWORDS or re.match(r"[+-]?\.?\d", word) for word in words):
            self.values_in_param.append(f"{name} {rest.strip()} ({where.rpartition(', ')[2]})")
        if sides and not repeat:
            self.warnings.append(f"{where}: {name} is one number: the length {sides} is passed over")
        elif repeat == "vignet" and (sides or from_file):
            if not 1 <= len(sides) <= 2:
                raise UserError(f"{where}: VIGNET has a width and a height, such as VIGNET(35,35)")
            lengths["vignet"] = (sides[0], sides[1] if len(sides) == 2 else 1)
        elif repeat and (sides or from_file):
            if len(sides) > 1:
                raise UserError(f"{where}: {name}{sides}: one length is meant")
            length = sides[0] if sides else 1
            if lengths.get(repeat, length) != length:
                longer = max(lengths[repeat], length)
                self.warnings.append(f"{where}: {name}({length}) and its like have one length here: {longer} values")
            lengths[repeat] = max(lengths.get(repeat, 0), length)

    def _unknown_columns(self, source: str, unknown: list[tuple[str, str]], skip: bool) -> None:
        if not unknown:
            return
        # Each search for a near name takes milliseconds.
        said = [(name, [where.rpartition(", ")[2]] * (", line " in where) + _why_unknown(name, near=place < _MOST_SAID))
                for place, (where, name) in enumerate(unknown[: _MOST_NAMED if skip else _MOST_SAID])]  # fmt: skip
        names = ", ".join(f"{name} ({'; '.join(why)})" if why else name for name, why in said)
        names += f" and {len(unknown) - len(said)} more" * (len(unknown) > len(said))
        if not skip:
            raise UserError(f"{source}: not measured here: {names}. --skip_unknown leaves them out")
        self.warnings.append(f"{source}: left out, for they are not measured here: {names}")

    def _where(self, key: str) -> str:
        return self.values[key].where if key in self.values else str(self.path)

    def _looked(self) -> str:
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


def _counts(surface: tuple, scale: float) -> dict[str, float]:
    """Thresholds of surface brightness as counts a pixel: 10^(-0.4 (mu - ZP)) times the pixel's area in arcsec2."""
    fields = ("threshold", "analysis_threshold")
    counts = [math.exp(min(math.log(10) * -0.4 * (pair[0] - pair[1]), 700)) * scale**2 if pair else None for pair in surface]
    return {field: count for field, count in zip(fields, counts, strict=True) if count is not None}


def _without_comment(line: str) -> str:
    """The line up to a # that does not stand in quotes."""
    return re.match(r"""(?:[^#"']|"[^"]*"|'[^']*'|["'])*""", line)[0]


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


def _column(text: str, where: str) -> tuple[str, tuple[int, ...], str]:
    """Name, lengths and what else stands in a line of a .param file."""
    match = re.match(r"([A-Za-z0-9_]+)(?:(\([^)]*\)?)|\s+(\([\s\d,]*\)))?", text)
    if match is None:
        raise UserError(f"{where}: {text[:100]}: a column's name is meant")
    try:
        name, sides = known.split_vector(match[1] + (match[2] or match[3] or ""))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return name, sides, text[match.end() :]


def _said(value: _Value) -> str:
    return ",".join(value.words) or "(no value)"


def _near(name: str, names: Iterable[str], likeness: float = 0.75) -> str:
    near = difflib.get_close_matches(name, list(names), 2, likeness)
    return f"is {' or '.join(near)} meant?" if near else ""


def _unknown_keyword(key: str) -> str:
    if key in known.COLUMNS:
        return "it is a column's name, for a .param file"
    return f"SExtractor has no such keyword{f'; {near}' if (near := _near(key, KEYWORDS)) else ''}"


def _why_unknown(name: str, near: bool = True) -> list[str]:
    if name == "VIGNET":
        return ["it has a width and a height, such as VIGNET(35,35)"]
    if name in KEYWORDS:
        return ["a keyword, for a .sex file"]
    if _FITTED.search(name):
        return ["from a fit: see skyset.extraction.sersic"]
    return [said] if near and (said := _near(name, known.COLUMNS, 0.85)) else []
