"""What ``skyset extract`` is asked for, checked before anything is measured."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from skyset.errors import UserError
from skyset.extraction.catalogues import CATALOGUE_TYPES, FORMAT_OF_ENDING, FORMATS, ending_of
from skyset.extraction.columns import CHECKS, COLUMNS, DEFAULT
from skyset.extraction.config import Configuration
from skyset.extraction.engines import ENGINES, Engine, default_columns, default_engine, load_engine, refuse
from skyset.extraction.images import Chosen, Image, choose, split
from skyset.extraction.world import sky_faults
from skyset.files import keep_inputs

#: What a file's name may say for a check image, beside SExtractor's own names.
_CHECK_NAMES = {
    "segm": "SEGMENTATION",
    "segmentation_map": "SEGMENTATION",
    "bkg": "BACKGROUND",
    "back": "BACKGROUND",
    "rms": "BACKGROUND_RMS",
    "bkg_rms": "BACKGROUND_RMS",
    "back_rms": "BACKGROUND_RMS",
    "subtracted": "-BACKGROUND",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What goes where: ``image`` is the file, ``chosen`` its images that are meant; ``format`` None writes no catalogue;
    ``check`` has file names by CHECKIMAGE_TYPE; ``weight``, ``flag_image``: files, which may say the image; ``engine``: by
    its name."""

    image: Path
    chosen: Chosen
    output: Path
    format: str | None
    columns: tuple[str, ...]
    check: dict[str, Path]
    weight: Path | None = None
    flag_image: Path | None = None
    classifier: Path | None = None
    engine: str | None = None
    #: The brackets behind the file's name, as they were typed.
    which: str = ""


def make_plan(
    image: str | Path,
    configuration: Configuration,
    *,
    output: str | Path | None = None,
    format: str | None = None,
    check: Iterable[str] = (),
    weight: Path | None = None,
    flag_image: Path | None = None,
    classifier: Path | None = None,
    engine: str | None = None,
    plot: Path | None = None,
) -> Plan:
    """What a command asks for, checked before anything is measured.

    ``image`` may end with the HDUs that are wanted, by number, by name, by EXTNAME and EXTVER, and with planes of a cube:
    ``image.fits[1]``, ``mosaic.fits[ccd03,ccd04]``, ``image.fits[SCI,2]``, ``cube.fits[0][2]`` (see `images.choose`).
    The catalogue's format is ``format``, else what the output's ending says (``.fits`` is FITS_LDAC where CATALOG_TYPE says
    so), else CATALOG_TYPE. ``check``: ``segmentation.fits`` or ``SEGMENTATION=seg.fits``, beside those of the configuration.
    ``engine``: compiled or sep (see `engines`). ``plot``: a picture that will be written too. Raises UserError for what
    cannot be done, such as an input that is not there, or that an output would replace, or what the engine does not measure.
    """
    chosen = choose(str(image))
    which = str(image)[len(str(split(image)[0])) :]
    for note in chosen.notes:
        warnings.warn(note, stacklevel=2)
    image, headers = chosen.path, chosen.images
    if engine is not None and engine not in ENGINES:
        raise UserError(f"--engine {engine}: it is {' or '.join(ENGINES)}")
    engine = engine or default_engine()
    measures, columns = load_engine(engine), configuration.columns
    if columns is None:
        columns = _default_columns(measures, sky=all(one.scale for one in headers))
    elif configuration.skip_unknown:
        columns = _without_others(_without_sky(columns, chosen), measures)
    path, kind = _catalogue(image, configuration, output, format)
    if len(headers) > 1 and kind not in ("ldac", None) and "EXT_NUMBER" not in columns:
        columns = ("EXT_NUMBER", *columns)
    images = dict(configuration.check) | dict(_check_image(name) for name in check)
    flag_image, classifier = flag_image or configuration.flag_image, classifier or configuration.classifier
    stages = {COLUMNS[name].stage for name in columns}
    made = Plan(
        image,
        chosen,
        path,
        kind,
        tuple(columns),
        images,
        weight or configuration.weight,
        flag_image if "external" in stages else None,
        classifier if "classifier" in stages else None,
        engine,
        which,
    )
    refuse(measures, made.columns, made.check, configuration.settings, weighted=made.weight is not None)
    _check_files(made, configuration.inputs, plot)
    return made


def _default_columns(engine: Engine, sky: bool) -> tuple[str, ...]:
    """What is measured where nothing is said; a warning names what the engine leaves out."""
    columns = default_columns(engine, sky)
    if left := [name for name in DEFAULT if name not in columns]:
        warnings.warn(f"{', '.join(left)}: left out, for engine {engine.TITLE} does not measure it", stacklevel=3)
    return tuple(columns)


def _without_others(columns: tuple[str, ...], engine: Engine) -> tuple[str, ...]:
    """The columns that the engine measures, all of them where that is none; a warning names the others."""
    others = [name for name in columns if name not in engine.MEASURED]
    if not others or len(others) == len(columns):
        return columns
    warnings.warn(f"{', '.join(others)}: left out, for engine {engine.TITLE} does not measure it", stacklevel=3)
    return tuple(name for name in columns if name in engine.MEASURED)


def _without_sky(columns: Iterable[str], chosen: Chosen) -> tuple[str, ...]:
    """The columns without those that need a WCS, where an image has none; a warning names them."""
    without = [image for image in chosen.images if not image.scale]
    sky = [name for name in columns if COLUMNS[name].stage == "world"] if without else []
    if not sky:
        return tuple(columns)
    warnings.warn(f"{', '.join(sky)}: left out, for {_no_sky(without[0])}", stacklevel=3)
    if len(left := tuple(name for name in columns if name not in sky)):
        return left
    raise UserError(f"{', '.join(sky)}: {_no_sky(without[0])}, and no other column is wanted")


def _no_sky(image: Image) -> str:
    """That an image has no WCS, and why where its header means to have one."""
    why = "; ".join(sky_faults(image.header))
    return f"{image.path.name}{image.place} has no WCS{f' ({why})' if why else ''}"


def _catalogue(image: Path, configuration: Configuration, output, format: str | None) -> tuple[Path, str | None]:
    kind = configuration.catalogue_type
    if kind is None and configuration.path is not None:
        kind = "ASCII_HEAD"
    if output is None:
        output = configuration.catalogue or f"{stem(image)}.{ending_of(format or 'ldac')}"
    path = Path(output)
    if str(output).upper() in ("STDOUT", "-"):
        raise UserError(f"{output}: a catalogue is written to a file: -o FILE")
    if format is not None:
        if format not in FORMATS:
            raise UserError(f"--format {format}: it is one of {', '.join(FORMATS)}")
        return path, format
    if kind == "NONE":
        return path, None
    said = next((told for ending, told in FORMAT_OF_ENDING.items() if path.name.lower().endswith(ending)), None)
    if said == "fits" and kind == "FITS_LDAC":
        said = "ldac"
    if said is None and kind == "ASCII_SKYCAT":
        raise UserError("CATALOG_TYPE ASCII_SKYCAT is not written here: --format ascii_head is nearest")
    if said is None and kind is None:
        raise UserError(
            f"{path}: its ending says no format: --format {', '.join(FORMATS)}, or an ending ({', '.join(FORMAT_OF_ENDING)})"
        )
    return path, said or CATALOGUE_TYPES[str(kind)]


def stem(image: Path) -> str:
    """The file's name without the endings of images and of packed files."""
    name = image.name
    for ending in (".gz", ".fz", ".bz2", ".fits", ".fit", ".fts"):
        name = name[: -len(ending)] if name.lower().endswith(ending) and len(name) > len(ending) else name
    return name


def _check_files(made: Plan, named: Iterable[Path] = (), plot: Path | None = None) -> None:
    weight, flag_image = (None if text is None else split(text)[0] for text in (made.weight, made.flag_image))
    for option, path in (("--weight", weight), ("--flag", flag_image), ("--classifier", made.classifier)):
        if path is not None and not path.is_file():
            raise UserError(f"{path}: no such file; {option} FILE gives another one")
    needing = [name for name in made.columns if COLUMNS[name].stage == "external"]
    if needing and made.flag_image is None:
        raise UserError(f"{', '.join(needing)}: a flag image is needed: --flag FILE")
    sky = [name for name in made.columns if COLUMNS[name].stage == "world"]
    if sky and (without := [image for image in made.chosen.images if not image.scale]):
        raise UserError(f"{', '.join(sky)}: {_no_sky(without[0])}: leave them out (--skip_unknown does)")
    inputs = {f"the input {path}": path for path in (made.image, weight, flag_image, made.classifier, *named) if path}
    outputs: dict[Path, str] = {}
    for what, path in (
        ((("the catalogue", made.output),) if made.format else ())
        + tuple(made.check.items())
        + ((("the plot", plot),) if plot is not None else ())
    ):
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: {path.parent} is no folder")
        keep_inputs(path, inputs, f"give {what} another name")
        if path.resolve() in outputs:
            raise UserError(f"{path}: {outputs[path.resolve()]} and {what} would be the same file")
        outputs[path.resolve()] = what


def _check_image(text: str) -> tuple[str, Path]:
    """``SEGMENTATION=a.fits``, or a file whose name ends with the kind: ``segmentation.fits``, ``ccd12_background.fits``."""
    kind, equals, name = text.partition("=")
    if equals:
        if kind.upper() not in CHECKS:
            raise UserError(f"--check {text}: {kind} is none of {', '.join(CHECKS)}")
        return kind.upper(), Path(name)
    names = {one.lower(): one for one in CHECKS} | _CHECK_NAMES
    said = [one for one in names if re.search(rf"(^|[_.-]){re.escape(one)}$", stem(Path(text)).lower())]
    if not said:
        raise UserError(f"--check {text}: its name says no kind of image: TYPE={text}, TYPE one of {', '.join(CHECKS)}")
    return names[max(said, key=len)], Path(text)
