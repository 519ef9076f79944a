"""SExtractor's configuration: a ``.sex`` file with its ``.param``, ``.conv`` and ``.nnw`` as the settings of an extraction.

Nothing is passed over in silence: a keyword that changes SExtractor's result but not ours, an unknown keyword and one that
stands twice are named in ``Configuration.warnings``; a value that cannot be meant is a UserError with file and line.
Keywords and values are those of the SExtractor manual, "The configuration file"; what they mean (defaults, header keywords
before GAIN and SATUR_LEVEL) was seen with SExtractor 2.25.0. ``sex_file`` reads the file, ``param_file`` the columns.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astropy.io import fits

from skyset import headers
from skyset.errors import UserError
from skyset.extraction import columns as known
from skyset.extraction.images import split
from skyset.extraction.param_file import read_columns
from skyset.extraction.settings import DEFAULT_KERNEL, Settings, read_kernel
from skyset.extraction.sex_file import INPUTS, NUMBERS, SexFile, Value, find, value_text
from skyset.extraction.world import celestial_wcs, sky_faults
from skyset.extraction.world import pixel_scale as sky_scale


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
        mag/arcsec2 as counts per pixel. A header's value that cannot be meant is named in a warning, and the configuration's
        used. Raises UserError where thresholds in mag/arcsec2 are none with that scale."""
        found: dict[str, Any] = {}
        said_there = headers.parse(
            headers.cards_of(header, {self.gain_key.upper(), self.saturation_key.upper()}.__contains__)
        )
        for field, key, least in (("gain", self.gain_key, 0), ("saturation", self.saturation_key, 1e-30)):
            if key not in said_there:
                continue
            value = headers.number(said_there[key])
            if value is not None and least <= value <= 1e30:
                found[field] = float(value)
            else:
                said = "no number" if value is None else "which cannot be meant"
                given = said_there[key]
                shown = "blank" if given is None or isinstance(given, fits.card.Undefined) else repr(given)
                warnings.warn(
                    f"the header's {key} is {shown}, {said}: {getattr(self.settings, field):g} is used", stacklevel=2
                )
        for fault in sky_faults(header):
            warnings.warn(fault, stacklevel=2)
        if self.settings.pixel_scale == 0:
            found["pixel_scale"] = pixel_scale(header)
            if found["pixel_scale"] and not 1e-10 <= found["pixel_scale"] <= 1e10:
                warnings.warn(
                    f"the WCS has pixels of {found['pixel_scale']:g} arcsec, which cannot be meant: 1 is used", stacklevel=2
                )
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
    rows, columns = (headers.number(header.get(f"ZNAXIS{axis}", header.get(f"NAXIS{axis}", 0))) or 0.0 for axis in (2, 1))
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
    sex = SexFile(Path(path) if path is not None else None, overrides)
    return _configuration(sex, parameters, columns, skip_unknown, weighted)


def _configuration(sex: SexFile, parameters, columns, skip_unknown: bool, weighted: bool) -> Configuration:
    wanted, lengths, dropped = read_columns(sex, parameters, columns, skip_unknown)
    fields = _simple_fields(sex)
    _vectors(sex, fields, lengths)
    surface = _thresholds(sex, fields)
    if any(surface) and sex.path is not None and "PIXEL_SCALE" not in sex.values:
        sex.say("PIXEL_SCALE", "thresholds in mag/arcsec2 are those of the WCS's pixels (SExtractor takes 1 arcsec)")
    fields |= _counts(surface, fields.get("pixel_scale") or 1.0)
    filter_name = _kernel(sex, fields)
    weight = _weight(sex, fields, weighted)
    flag_image = _flag_image(sex, fields, wanted)
    classifier = _classifier(sex, wanted)
    check = _check(sex)
    _not_honoured(sex, dropped)
    return Configuration(
        _settings(sex, fields),
        tuple(wanted) if wanted is not None else None,
        classifier,
        sex.text("CATALOG_NAME"),
        sex.word("CATALOG_TYPE", "") if "CATALOG_TYPE" in sex.values else None,
        check,
        weight,
        flag_image,
        sex.text("GAIN_KEY") or "GAIN",
        sex.text("SATUR_KEY") or "SATURATE",
        sex.text("HEADER_SUFFIX") or ".head",
        surface,
        sex.path,
        filter_name,
        tuple(sex.warnings),
        skip_unknown,
        tuple(_inputs(sex, parameters)),
    )


def _inputs(sex: SexFile, parameters: str | Path | None) -> Iterator[Path]:
    yield from (Path(each) for each in (sex.path, parameters) if each is not None)
    named = [word for key in INPUTS for word in (sex.values[key].words if key in sex.values else ())]
    for name in named:
        yield from filter(None, (find(each, sex.path) for each in {name, str(split(name)[0])}))


def _settings(sex: SexFile, fields: dict) -> Settings:
    try:
        return Settings(**fields)
    except ValueError as error:
        field, _, rest = str(error).partition(" is ")
        for key, spec in NUMBERS.items():
            if spec.field == field and key in sex.values:
                raise UserError(f"{sex.values[key].where}: {key} is {rest}") from None
        raise UserError(f"{sex.path or 'the command line'}: {error}") from None


def _simple_fields(sex: SexFile) -> dict:
    special = ("DETECT_THRESH", "ANALYSIS_THRESH", "CLEAN_PARAM", "BACK_VALUE", "WEIGHT_THRESH")
    fields: dict = {}
    for key, spec in NUMBERS.items():
        values = sex.numbers(key)
        if key not in special and values is not None:
            one = len(values) == 1 and spec.most < 32
            fields[spec.field] = values[0] if one else tuple(values)
    fields["mask_type"] = sex.word("MASK_TYPE", "CORRECT").lower()
    fields["flag_type"] = sex.word("FLAG_TYPE", "OR").lower()
    fields["clean"] = (sex.numbers("CLEAN_PARAM") or [1.0])[0] if sex.yes("CLEAN", "Y") else None
    if sex.word("BACK_TYPE", "AUTO") == "MANUAL":
        fields["back_value"] = (sex.numbers("BACK_VALUE") or [0.0])[0]
    for key in ("BACK_TYPE", "BACK_VALUE"):
        said = sex.words(key, "")
        if len(set(said)) > 1 and (key == "BACK_TYPE" or "back_value" in fields):
            sex.say(key, f"one background serves detection and measurement: {said[0]} is used for both")
    return fields


def _vectors(sex: SexFile, fields: dict, lengths: dict[str, int]) -> None:
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
            sex.warnings.append(f"{column}({lengths[field]}) has room for more values than {key} gives: {said}")
        fields[field] = values[: lengths[field]]
    if "vignet" in lengths:
        fields["vignet"] = lengths["vignet"]


def _thresholds(sex: SexFile, fields: dict) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Both thresholds in one kind: units of the rms, or counts."""
    detect, analysis = sex.numbers("DETECT_THRESH") or [1.5], sex.numbers("ANALYSIS_THRESH")
    if analysis is None and sex.path is not None:
        analysis = [1.5]
    absolute = sex.word("THRESH_TYPE", "RELATIVE") == "ABSOLUTE"
    pairs = [(values[0], values[1]) if values is not None and len(values) == 2 else None for values in (detect, analysis)]
    if any(pairs) and not absolute:
        if pairs[0] and not pairs[1] and "ANALYSIS_THRESH" not in sex.values:
            analysis = None
            if sex.path is not None:
                sex.say("ANALYSIS_THRESH", "it follows DETECT_THRESH (SExtractor would take 1.5 sigma beside mag/arcsec2)")
        elif not all(pairs):
            key = "DETECT_THRESH" if pairs[0] else "ANALYSIS_THRESH"
            other = "ANALYSIS_THRESH" if pairs[0] else "DETECT_THRESH"
            raise UserError(
                f"{sex.values[key].where}: {key} {value_text(sex.values[key])} is in mag/arcsec2, {other} in "
                "units of the rms: give both in mag/arcsec2, or both in rms"
            )
    fields["absolute"] = absolute or any(pairs)
    fields["threshold"] = detect[0]
    fields["analysis_threshold"] = analysis[0] if analysis is not None else None
    return pairs[0], pairs[1]


def _kernel(sex: SexFile, fields: dict) -> str:
    name = sex.text("FILTER_NAME") or "default.conv"
    if not sex.yes("FILTER", "Y"):
        fields["kernel"] = None
        return ""
    path = find(name, sex.path)
    if path is not None:
        fields["kernel"], fields["normalise_kernel"] = read_kernel(path), False  # the file has said NORM or NONORM
    elif Path(name).name != "default.conv":
        raise UserError(f"{sex.where('FILTER_NAME')}: FILTER_NAME {name}: no such file{sex.looked()}")
    else:
        fields["kernel"] = DEFAULT_KERNEL
        if "FILTER_NAME" in sex.values:
            sex.say(
                "FILTER_NAME",
                f"no such file{sex.looked()}; SExtractor's standard default.conv (1 2 1, 2 4 2, 1 2 1) is used",
            )
    return Path(name).name


def _weight(sex: SexFile, fields: dict, weighted: bool) -> Path | None:
    types, names = sex.words("WEIGHT_TYPE", "NONE"), sex.values.get("WEIGHT_IMAGE")
    if len(set(types)) > 1 or len(types) > 2:
        sex.say("WEIGHT_TYPE", f"one weight serves detection and measurement: {types[0]} is used for both")
    kind = types[0]
    if weighted and not kind.startswith("MAP_"):
        kind = "MAP_WEIGHT"
    if kind == "BACKGROUND":
        sex.say("WEIGHT_TYPE", "treated as NONE: the thresholds follow one rms for the whole image")
    if not kind.startswith("MAP_"):
        return None
    fields["weight_type"] = {"MAP_WEIGHT": "weight", "MAP_VAR": "variance", "MAP_RMS": "rms"}[kind]
    threshold = sex.numbers("WEIGHT_THRESH")
    if threshold is not None:
        fields["weight_threshold"] = threshold[0]
        if len(set(threshold)) > 1:
            sex.say("WEIGHT_THRESH", f"one weight serves detection and measurement: {threshold[0]:g} is used for both")
    if names is not None and len(set(names.words)) > 1:
        sex.say("WEIGHT_IMAGE", f"one weight serves detection and measurement: {names.words[0]} is used for both")
    if sex.path is None and not any(key in sex.values for key in ("RESCALE_WEIGHTS", "WEIGHT_GAIN", "INTERP_TYPE")):
        return _input_file(sex, "WEIGHT_IMAGE", "weight.fits")
    rescaled = kind == "MAP_WEIGHT"
    if sex.yes("RESCALE_WEIGHTS", "Y") != rescaled:
        sex.say(
            "RESCALE_WEIGHTS",
            "relative weights are always scaled to the background's rms"
            if rescaled
            else f"{kind} is taken as it stands, in counts, without scaling to the background's rms",
        )
    if sex.yes("WEIGHT_GAIN", "Y"):
        sex.say("WEIGHT_GAIN", "one gain serves all pixels, whatever their weights")
    if set(sex.words("INTERP_TYPE", "ALL")) != {"NONE"}:
        sex.say("INTERP_TYPE", "pixels without weight are left out, not interpolated")
    return _input_file(sex, "WEIGHT_IMAGE", "weight.fits")


def _flag_image(sex: SexFile, fields: dict, wanted: list[str] | None) -> Path | None:
    if wanted is None or not any(known.COLUMNS[name].stage == "external" for name in wanted):
        return None
    names = sex.values.get("FLAG_IMAGE")
    for key in ("FLAG_IMAGE", "FLAG_TYPE"):
        if key in sex.values and len(sex.values[key].words) > 1:
            sex.say(key, f"one flag image is read: {sex.values[key].words[0]}")
    if names is None:
        return None
    return _input_file(sex, "FLAG_IMAGE", names.words[0])


def _input_file(sex: SexFile, key: str, default: str) -> Path:
    """Where it should be, even if it is not there: the command line may give another."""
    given = sex.text(key) or default
    name, image, plane = split(given)
    if not image:
        return find(given, sex.path, standard=False) or Path(given)
    found = find(str(name), sex.path, standard=False) or name
    return Path(f"{found}[{image}]" + (f"[{plane}]" if plane else ""))


def _classifier(sex: SexFile, wanted: list[str] | None) -> Path | None:
    name = sex.text("STARNNW_NAME")
    if name is None or (wanted is not None and "CLASS_STAR" not in wanted):
        return None
    path = find(name, sex.path)
    if path is None:
        sex.say("STARNNW_NAME", f"no such file{sex.looked()}; CLASS_STAR is that of skyset's own classifier")
    return path


def _check(sex: SexFile) -> dict[str, Path]:
    types = sex.words("CHECKIMAGE_TYPE", "NONE")
    if set(types) == {"NONE"}:
        return {}
    names = list(sex.values["CHECKIMAGE_NAME"].words) if "CHECKIMAGE_NAME" in sex.values else ["check.fits"]
    if len(names) < len(types):
        where = sex.where("CHECKIMAGE_TYPE")
        raise UserError(
            f"{where}: CHECKIMAGE_TYPE has {len(types)} images, CHECKIMAGE_NAME {len(names)}: {', '.join(names)}"
        )
    if len(names) > len(types):
        sex.say("CHECKIMAGE_NAME", f"only {len(types)} images are wanted")
    wanted = {}
    for kind, name in zip(types, names, strict=False):
        if kind in known.CHECKS:
            wanted[kind] = Path(name)
        elif kind != "NONE":
            sex.say("CHECKIMAGE_TYPE", f"no {kind} image is made here")
    return wanted


def _not_honoured(sex: SexFile, dropped: list[str]) -> None:
    """Of keywords without a setting: what would differ from SExtractor's result."""
    for key, usual, text in (
        ("DETECT_TYPE", "CCD", "pixels are taken as linear, as of a CCD"),
        ("BACKPHOTO_TYPE", "GLOBAL", "the background of the map is subtracted, none is measured around each source"),
        ("DGEO_TYPE", "NONE", "no differential geometry map is applied"),
        ("FITS_UNSIGNED", "N", "whole numbers are what BITPIX and BZERO say"),
        ("WRITE_XML", "N", "no XML file is written"),
    ):
        if sex.word(key, usual)[0] != usual[0]:
            sex.say(key, text)
    if sex.yes("FILTER", "Y") and sex.values.get("FILTER_THRESH", Value((), "")).words:
        sex.say("FILTER_THRESH", "there are no retina filters here: every pixel is filtered")
    if any("ASSOC" in name for name in dropped):
        sex.warnings.append("ASSOC_*: no list is associated, and no source is selected by it: the columns are left out")


def _counts(surface: tuple, scale: float) -> dict[str, float]:
    """Thresholds of surface brightness as counts per pixel: 10^(-0.4 (mu - ZP)) times the pixel's area in arcsec2."""
    fields = ("threshold", "analysis_threshold")
    counts = [math.exp(min(math.log(10) * -0.4 * (pair[0] - pair[1]), 700)) * scale**2 if pair else None for pair in surface]
    return {field: count for field, count in zip(fields, counts, strict=True) if count is not None}
