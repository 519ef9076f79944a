"""From an image's file to catalogues, check images and a picture: what ``skyset extract`` does.

Extensions are written as they come, so that memory holds one of them (all of them where a format is a single table).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import re
import time
import warnings
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.table import QTable
from astropy.table import vstack

from skyset.errors import UserError
from skyset.explore.figures import draw_marks
from skyset.extraction.columns import CHECKS
from skyset.extraction.columns import COLUMNS
from skyset.extraction.columns import DEFAULT
from skyset.extraction.columns import DEFAULT_WORLD
from skyset.extraction.config import Configuration
from skyset.extraction.config import read_config
from skyset.extraction.images import Chosen
from skyset.extraction.images import Image
from skyset.extraction.images import choose
from skyset.extraction.images import split
from skyset.extraction.ldac import column_format
from skyset.extraction.ldac import ignore_odd_cards
from skyset.extraction.ldac import parse_unit
from skyset.extraction.ldac import quantity
from skyset.extraction.ldac import replacing
from skyset.extraction.ldac import unit_text
from skyset.extraction.ldac import write_ldac
from skyset.extraction.ldac import write_table
from skyset.extraction.world import celestial_wcs
from skyset.extraction.world import compass
from skyset.extraction.world import sky_faults
from skyset.files import keep_inputs
from skyset.versions import install_command

if TYPE_CHECKING:
    import pyarrow as pa

    from skyset.extraction.detect import Extension

#: Formats of catalogues; the first ones by CATALOG_TYPE.
CATALOGUE_TYPES = {"FITS_LDAC": "ldac", "FITS_1.0": "fits", "ASCII_HEAD": "ascii_head", "ASCII": "ascii",
                   "ASCII_VOTABLE": "votable"}  # fmt: skip
FORMATS = (*CATALOGUE_TYPES.values(), "parquet", "csv")
_ENDINGS = {".ldac": "ldac", ".fits": "fits", ".fit": "fits", ".parquet": "parquet", ".csv": "csv", ".csv.gz": "csv",
            ".vot": "votable", ".xml": "votable"}  # fmt: skip
#: What a file's name may say for a check image, beside SExtractor's own names.
_CHECK_NAMES = {
    "segm": "SEGMENTATION", "segmentation_map": "SEGMENTATION", "bkg": "BACKGROUND", "back": "BACKGROUND",
    "rms": "BACKGROUND_RMS", "bkg_rms": "BACKGROUND_RMS", "back_rms": "BACKGROUND_RMS", "subtracted": "-BACKGROUND",
}  # fmt: skip
#: Columns that the picture is drawn from.
_DRAWN = ("X_IMAGE", "Y_IMAGE", "A_IMAGE", "B_IMAGE", "THETA_IMAGE", "FLAGS")
#: Ellipses are drawn this often their rms axes where there is no Kron radius.
_PLAIN = 3.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What goes where: ``image`` is the file, ``chosen`` its images that are meant; ``format`` None writes no catalogue;
    ``check`` has file names by CHECKIMAGE_TYPE; ``weight``, ``flag_image``: files, which may say the image."""

    image: Path
    chosen: Chosen
    output: Path
    format: str | None
    columns: tuple[str, ...]
    check: dict[str, Path]
    weight: Path | None = None
    flag_image: Path | None = None
    classifier: Path | None = None
    #: The brackets behind the file's name, as they were typed.
    which: str = ""


@dataclasses.dataclass
class Summary:
    """What an extraction made: the numbers of the closing line, and what the picture is drawn from."""

    plan: Plan
    sources: int = 0
    extensions: int = 0
    seconds: float = 0.0
    written: list[str] = dataclasses.field(default_factory=list)
    drawn: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
    #: Arcsec, of each extension where it was measured.
    seeing: list[float] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        each = f" in {self.extensions:,} extensions" if self.extensions != 1 else ""
        each += f", seeing {np.median(self.seeing):.2f} arcsec" if self.seeing else ""
        where = f": wrote {', '.join(self.written)}" if self.written else ""
        return f"{_sources(self.sources)}{each}, {self.seconds:.1f} s{where}"

    def figure(self):
        """The image with an ellipse around each source: see :func:`figure`."""
        return figure(self)


def plan(
    image: str | Path,
    configuration: Configuration,
    *,
    output: str | Path | None = None,
    format: str | None = None,
    check: Iterable[str] = (),
    weight: Path | None = None,
    flag_image: Path | None = None,
    classifier: Path | None = None,
    plot: Path | None = None,
) -> Plan:
    """What a command asks for, checked before anything is measured.

    ``image`` may end with the HDUs that are wanted, by number, by name, by EXTNAME and EXTVER, and with planes of a cube:
    ``image.fits[1]``, ``mosaic.fits[ccd03,ccd04]``, ``image.fits[SCI,2]``, ``cube.fits[0][2]`` (see `images.choose`).
    The catalogue's format is ``format``, else what the output's ending says (``.fits`` is FITS_LDAC where CATALOG_TYPE says
    so), else CATALOG_TYPE. ``check``: ``segmentation.fits`` or ``SEGMENTATION=seg.fits``, beside those of the configuration.
    ``plot``: a picture that will be written too. Raises UserError for what cannot be done, such as an input that is not
    there, or that an output would replace.
    """
    chosen = choose(str(image))
    which = str(image)[len(str(split(image)[0])) :]
    for note in chosen.notes:
        warnings.warn(note, stacklevel=2)
    image, headers = chosen.path, chosen.images
    columns = configuration.columns
    if columns is None:
        columns = (*DEFAULT, *(DEFAULT_WORLD if all(one.scale for one in headers) else ()))
    elif configuration.skip_unknown:
        columns = _without_sky(columns, chosen)
    path, kind = _catalogue(image, configuration, output, format)
    if len(headers) > 1 and kind not in ("ldac", None) and "EXT_NUMBER" not in columns:
        columns = ("EXT_NUMBER", *columns)
    images = dict(configuration.check) | dict(_check_image(name) for name in check)
    flag_image, classifier = flag_image or configuration.flag_image, classifier or configuration.classifier
    stages = {COLUMNS[name].stage for name in columns}
    made = Plan(image, chosen, path, kind, tuple(columns), images, weight or configuration.weight,
                flag_image if "external" in stages else None, classifier if "classifier" in stages else None,
                which)  # fmt: skip
    _check_files(made, configuration.inputs, plot)
    return made


def run(
    plan: Plan, configuration: Configuration, *, processes: int | None = None, progress: bool = False, draw: bool = False
) -> Summary:
    """Measure the image and write what is planned: catalogue and check images together, each under a temporary name first.

    With ``draw`` the summary keeps what :func:`figure` needs. Raises UserError where numba is missing."""
    extract_images = _extract_images()
    begin, summary = time.monotonic(), Summary(plan)
    wanted = [*plan.columns, *(name for name in _DRAWN if draw and name not in plan.columns)]

    def extensions(images: _CheckImages) -> Iterator[tuple[fits.Header, QTable]]:
        measured = extract_images(
            plan.chosen, configuration.for_header, wanted, weight=plan.weight, flag_image=plan.flag_image,
            classifier=plan.classifier, check=tuple(plan.check), processes=processes, progress=progress,
        )  # fmt: skip
        for extension in _measured(plan.image, measured):
            images.write(extension)
            columns = extension.measured.columns
            summary.extensions += 1
            summary.sources += len(next(iter(columns.values())))
            if extension.settings.seeing == 0 and extension.measured.seeing > 0:
                summary.seeing.append(extension.measured.seeing)
            if draw:
                summary.drawn.append({name: columns[name] for name in (*_DRAWN, "KRON_RADIUS") if name in columns})
            table = as_table(columns, plan.columns, extension.number)
            yield image_header(extension, configuration, plan, len(table)), table

    with _CheckImages(plan.check, len(plan.chosen.images) > 1) as images:
        if plan.format is None:
            for _ in extensions(images):
                pass
        else:
            write_catalogue(plan.output, plan.format, extensions(images))
    summary.seconds = time.monotonic() - begin
    summary.written = [*([str(plan.output)] if plan.format else []), *(str(path) for path in plan.check.values())]
    return summary


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


def _measured(image: Path, extensions: Iterable[Extension]) -> Iterator[Extension]:
    """The extensions; an error of the system while one is measured is not one of the files being written meanwhile."""
    try:
        yield from extensions
    except (OSError, EOFError) as error:
        raise UserError(f"{image}: cannot be measured: {getattr(error, 'strerror', None) or error}") from error


# Catalogues


def as_table(columns: dict[str, np.ndarray], names: Iterable[str], number: int = 1) -> QTable:
    """Measured columns as a table with units, descriptions and formats; EXT_NUMBER is ``number``."""
    rows = len(next(iter(columns.values())))
    table = QTable()
    for name in names:
        column = COLUMNS[name]
        values = np.full(rows, number, column.dtype) if name == "EXT_NUMBER" else np.asarray(columns[name])
        table[name] = quantity(values, parse_unit(column.unit))
        table[name].info.description, table[name].info.format = column.meaning, column.format
    return table


def as_arrow(table: QTable) -> pa.Table:
    """The same with units and descriptions in the fields' metadata, vectors as lists of fixed size; ``meta`` as texts."""
    import pyarrow as pa

    fields, arrays = [], []
    for name in table.colnames:
        column = COLUMNS[name]
        values = np.ascontiguousarray(getattr(table[name], "value", table[name]))
        array = pa.array(values.reshape(-1))
        for side in values.shape[:0:-1]:
            array = pa.FixedSizeListArray.from_arrays(array, side)
        said = {"description": column.meaning} | ({"unit": column.unit} if column.unit else {})
        fields.append(pa.field(name, array.type, metadata=said))
        arrays.append(array)
    return pa.table(arrays, pa.schema(fields, {key: str(value) for key, value in table.meta.items()}))


def image_header(extension: Extension, configuration: Configuration, plan: Plan, sources: int) -> fits.Header:
    """The image's header with the keywords that SExtractor adds, and that PSFEx and SCAMP read (SEXBKDEV, SEXGAIN, ...)."""
    from skyset import __version__

    measured, settings, header = extension.measured, extension.settings, extension.header.copy()
    now = time.strftime("%d/%m/%Y|%H:%M:%S", time.gmtime()).split("|")
    filtered = settings.kernel is not None
    added = [
        ("FITSFILE", plan.image.name, "File name of the analysed image"),
        ("FITSEXT", extension.number, "FITS Extension number"),
        ("FITSNEXT", len(plan.chosen.every), "Number of FITS image extensions in file"),
        ("SEXVERS", f"skyset {__version__}", "Extraction software"), ("SEXDATE", now[0], "Extraction date"),
        ("SEXTIME", now[1], "Extraction time"),
        ("SEXBKGND", float(measured.background), "Median background level (ADU)"),
        ("SEXBKDEV", float(measured.rms), "Median background RMS (ADU)"),
        ("SEXTHLD", float(measured.threshold), "Extraction threshold (ADU)"),
        ("SEXATHLD", float(measured.analysis_threshold), "Analysis threshold (ADU)"),
        ("SEXNFIN", sources, "Final number of extracted sources"),
        ("SEXNPARA", len(plan.columns), "Number of parameters per source"),
        ("SEXPXSCL", settings.pixel_scale or 1.0, "Pixel scale used for measurements (arcsec)"),
        ("SEXSFWHM", float(measured.seeing), "Source FWHM used for measurements (arcsec)"),
        ("SEXNNWF", plan.classifier.name if plan.classifier else "skyset", "S/G classification"),
        ("SEXGAIN", settings.gain, "Gain used (e-/ADU)"), ("SEXFLTR", filtered, "Detection filtering activated (flag)"),
        ("SEXFILTN", configuration.filter_name if filtered else "", "Filter filename"),
        ("SEXMINAR", settings.minarea, "Minimum area used for detection (pixels)"),
        ("SEXDBLDN", settings.deblend_nthresh, "Number of deblending thresholds"),
        ("SEXDBLDC", settings.deblend_cont, "Minimum contrast used for deblending"),
        ("SEXCLN", settings.clean is not None, "Cleaning activated (flag)"),
        ("SEXCLNPA", settings.clean or 0.0, "Cleaning parameter"),
        *((f"SEXAPED{i}", diameter, f"Fixed photometric aperture #{i} (pixels)")
          for i, diameter in enumerate(settings.apertures, 1)),
        ("SEXAUTP1", settings.kron[0], "Kron factor of automatic magnitudes"),
        ("SEXAUTP2", settings.kron[1], "Least radius of automatic magnitudes"),
        ("SEXPETP1", settings.petrosian[0], "Factor of Petrosian magnitudes"),
        ("SEXPETP2", settings.petrosian[1], "Least radius of Petrosian magnitudes"),
        ("SEXSATLV", settings.saturation, "Saturation level used for flagging (ADU)"),
        ("SEXMGZPT", settings.zero_point, "Zero-point used for magnitudes"),
        ("SEXBKGSX", settings.back_size[0], "Mesh width of the background (pixels)"),
        ("SEXBKGSY", settings.back_size[1], "Mesh height of the background (pixels)"),
        ("SEXBKGFX", settings.back_filter[0], "Width of the background's filter"),
        ("SEXBKGFY", settings.back_filter[1], "Height of the background's filter"),
    ]  # fmt: skip
    for keyword, value, comment in added:
        header[keyword] = (value if not isinstance(value, float) or np.isfinite(value) else f"{value}", comment)
    return header


def write_catalogue(path: Path, kind: str, extensions: Iterable[tuple[fits.Header, QTable]]) -> None:
    """Write a catalogue: ``ldac`` extension by extension; any other format has the extensions in one table, one below the
    other. UserError where the format cannot hold a column."""
    if kind == "ldac":
        write_ldac(path, extensions)
        return
    tables = [table for _, table in extensions]
    table = tables[0] if len(tables) == 1 else vstack(tables, metadata_conflicts="silent")
    with replacing(path) as file:
        {"fits": _write_fits, "parquet": _write_parquet, "csv": _write_csv, "votable": _write_votable,
         "ascii": lambda *to: _write_ascii(*to, head=False), "ascii_head": _write_ascii}[kind](file, table)  # fmt: skip


def _write_fits(file, table: QTable) -> None:
    fits.PrimaryHDU().writeto(file)
    write_table(file, table, "OBJECTS")


def _write_parquet(file, table: QTable) -> None:
    from pyarrow import parquet

    parquet.write_table(as_arrow(table), file, compression="zstd")


def _write_csv(file, table: QTable) -> None:
    import pyarrow as pa
    from pyarrow import csv

    columns = {name: pa.array(values) for name, values in _flat(table, "csv")}
    # The name decides: a .csv.gz that holds plain text would be refused by whoever reads it.
    packed = (
        gzip.GzipFile(fileobj=file, mode="wb", mtime=0)
        if ".csv.gz" in Path(file.name).name
        else contextlib.nullcontext(file)
    )
    with packed as stream:
        csv.write_csv(pa.table(columns), stream, csv.WriteOptions(quoting_style="needed"))


def _write_votable(file, table: QTable) -> None:
    from astropy.io.votable import from_table

    from_table(table).to_xml(file, tabledata_format="binary2")


def _write_ascii(file, table: QTable, head: bool = True) -> None:
    """As SExtractor's ASCII and ASCII_HEAD: columns of fixed width, vectors spread out."""
    if head:
        position = 1
        for name in table.colnames:
            unit = unit_text(getattr(table[name], "unit", None))
            line = f"#{position:4d} {name:<22.22s} {COLUMNS[name].meaning:<58.58s}{f' [{unit}]' if unit else ''}"
            file.write((line.rstrip() + "\n").encode())
            position += int(np.prod(table[name].shape[1:], dtype=int))
    flat = list(_flat(table, "ascii", spread=True))
    formats = [column_format(name.partition("[")[0], table[name.partition("[")[0]]) or "%s" for name, _ in flat]
    text = " ".join(formats) + "\n"
    values = [column.tolist() for _, column in flat]
    file.writelines((text % row).encode() for row in zip(*values, strict=True))


def _flat(table: QTable, kind: str, spread: bool = False) -> Iterator[tuple[str, np.ndarray]]:
    """Columns of numbers: a vector is NAME_1, NAME_2, ...; an image needs a format that can hold it, or ``spread``."""
    for name in table.colnames:
        values = np.asarray(getattr(table[name], "value", table[name]))
        if values.ndim > 2 and not spread:
            raise UserError(f"{name}: a row has {values.shape[1]} x {values.shape[2]} numbers, too many for {kind}: "
                            "write ldac, fits or parquet")  # fmt: skip
        if values.ndim == 1:
            yield name, values
            continue
        values = values.reshape(len(values), int(np.prod(values.shape[1:])))
        for index in range(values.shape[1]):
            yield (f"{name}[{index}]" if spread else f"{name}_{index + 1}"), values[:, index]


def _catalogue(image: Path, configuration: Configuration, output, format: str | None) -> tuple[Path, str | None]:
    kind = configuration.catalogue_type
    if kind is None and configuration.path is not None:
        kind = "ASCII_HEAD"
    if output is None:
        output = configuration.catalogue or f"{_stem(image)}.{'ldac' if format in (None, 'ldac') else _ending(format)}"
    path = Path(output)
    if str(output).upper() in ("STDOUT", "-"):
        raise UserError(f"{output}: a catalogue is written to a file: -o FILE")
    if format is not None:
        if format not in FORMATS:
            raise UserError(f"--format {format}: it is one of {', '.join(FORMATS)}")
        return path, format
    if kind == "NONE":
        return path, None
    said = next((told for ending, told in _ENDINGS.items() if path.name.lower().endswith(ending)), None)
    if said == "fits" and kind == "FITS_LDAC":
        said = "ldac"
    if said is None and kind == "ASCII_SKYCAT":
        raise UserError("CATALOG_TYPE ASCII_SKYCAT is not written here: --format ascii_head is nearest")
    if said is None and kind is None:
        raise UserError(f"{path}: its ending says no format: --format {', '.join(FORMATS)}, or an ending "
                        f"({', '.join(_ENDINGS)})")  # fmt: skip
    return path, said or CATALOGUE_TYPES[kind]


def _stem(image: Path) -> str:
    name = image.name
    for ending in (".gz", ".fz", ".bz2", ".fits", ".fit", ".fts"):
        name = name[: -len(ending)] if name.lower().endswith(ending) and len(name) > len(ending) else name
    return name


def _ending(format: str) -> str:
    return {"ascii": "cat", "ascii_head": "cat", "votable": "vot"}.get(format, format)


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
        raise UserError(f"{', '.join(sky)}: {_no_sky(without[0])}: leave them out "
                        "(--skip_unknown does)")  # fmt: skip
    inputs = {f"the input {path}": path for path in (made.image, weight, flag_image, made.classifier, *named) if path}
    outputs: dict[Path, str] = {}
    for what, path in ((("the catalogue", made.output),) if made.format else ()) + tuple(made.check.items()) + (
        (("the plot", plot),) if plot is not None else ()
    ):
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: {path.parent} is no folder")
        keep_inputs(path, inputs, f"give {what} another name")
        if path.resolve() in outputs:
            raise UserError(f"{path}: {outputs[path.resolve()]} and {what} would be the same file")
        outputs[path.resolve()] = what


# Check images


def _check_image(text: str) -> tuple[str, Path]:
    """``SEGMENTATION=a.fits``, or a file whose name ends with the kind: ``segmentation.fits``, ``ccd12_background.fits``."""
    kind, equals, name = text.partition("=")
    if equals:
        if kind.upper() not in CHECKS:
            raise UserError(f"--check {text}: {kind} is none of {', '.join(CHECKS)}")
        return kind.upper(), Path(name)
    stem = _stem(Path(text)).lower()
    names = {one.lower(): one for one in CHECKS} | _CHECK_NAMES
    said = [one for one in names if re.search(rf"(^|[_.-]){re.escape(one)}$", stem)]
    if not said:
        raise UserError(f"--check {text}: its name says no kind of image: TYPE={text}, TYPE one of {', '.join(CHECKS)}")
    return names[max(said, key=len)], Path(text)


class _CheckImages:
    """The check images of all extensions, each a file: the image alone, or one extension after the other."""

    def __init__(self, wanted: dict[str, Path], several: bool) -> None:
        self.wanted, self.several, self.stack = wanted, several, contextlib.ExitStack()

    def __enter__(self) -> _CheckImages:
        self.stack.__enter__()
        try:
            self.files = {kind: self.stack.enter_context(replacing(path)) for kind, path in self.wanted.items()}
        except BaseException:
            self.stack.close()
            raise
        for file in self.files.values() if self.several else ():
            fits.PrimaryHDU().writeto(file)
        return self

    def __exit__(self, *error) -> bool | None:
        return self.stack.__exit__(*error)

    def write(self, extension: Extension) -> None:
        for kind, file in self.files.items():
            pixels = np.asarray(extension.measured.check[kind])
            data = np.ascontiguousarray(pixels, ">i4" if kind == "SEGMENTATION" else ">f4")
            header = fits.Header() if kind.startswith("MINI") else _plain(extension.header)
            hdu = (fits.ImageHDU if self.several else fits.PrimaryHDU)(data, header)
            try:
                file.write(hdu.header.tostring().encode("ascii") + data.tobytes() + b"\0" * (-data.nbytes % 2880))
            except OSError as error:
                raise UserError(f"cannot write {self.wanted[kind]}: {error.strerror or error}") from error


def _plain(header: fits.Header) -> fits.Header:
    """Without what says how the input's pixels were stored."""
    header = header.copy()
    for keyword in ("TFIELDS", "NAXIS", "NAXIS1", "NAXIS2"):  # strip() counts up to them, whatever they are
        header.remove(keyword, ignore_missing=True, remove_all=True)
    header.strip()
    for keyword in ("BSCALE", "BZERO", "BLANK", "DATAMIN", "DATAMAX", "CHECKSUM", "DATASUM", "ZHECKSUM", "ZDATASUM"):
        header.remove(keyword, ignore_missing=True, remove_all=True)
    return header


# The picture


def figure(summary: Summary):
    """The image with an ellipse around each source: a matplotlib Figure with one panel for each extension.

    Ellipses are the Kron ones where KRON_RADIUS was measured, three times A_IMAGE and B_IMAGE otherwise; the legend says
    which. Axes are X_IMAGE and Y_IMAGE, pixels."""
    from astropy.visualization import ZScaleInterval
    from matplotlib.collections import EllipseCollection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    image, images = summary.plan.image, summary.plan.chosen.images
    shown = summary.drawn[:64]
    columns = int(np.ceil(np.sqrt(len(shown))))
    height, width = images[0].shape[-2:]
    size = 10 if len(shown) == 1 else 14
    figure = Figure((size, max(3.0, min(20.0, size * height / width * int(np.ceil(len(shown) / columns)) / columns)) + 0.6),
                    layout="constrained")  # fmt: skip
    axes = figure.subplots(int(np.ceil(len(shown) / columns)), columns, squeeze=False).ravel()
    colours = ("deepskyblue", "orange")
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    for place, (axis, one, measured) in enumerate(zip(axes, images, shown, strict=False)):
        step, pixels = _reduced(one, 1400 if len(shown) == 1 else 500)
        low, high = ZScaleInterval().get_limits(pixels[np.isfinite(pixels)]) if np.isfinite(pixels).any() else (0, 1)
        rows, sides = pixels.shape[0] * step, pixels.shape[1] * step
        axis.imshow(pixels, cmap="gray_r", vmin=low, vmax=low + (high - low) * 2, origin="lower", interpolation="nearest",
                    extent=(0.5, sides + 0.5, 0.5, rows + 0.5))  # fmt: skip
        factor = np.asarray(measured.get("KRON_RADIUS", np.zeros(len(measured["X_IMAGE"]))))
        factor = np.where(factor > 0, factor, _PLAIN)
        for flagged, colour in enumerate(colours):
            rows_of = (np.asarray(measured["FLAGS"]) != 0) == bool(flagged)
            values = {name: np.asarray(measured[name])[rows_of] for name in _DRAWN}
            axis.add_collection(EllipseCollection(
                2 * factor[rows_of] * values["A_IMAGE"], 2 * factor[rows_of] * values["B_IMAGE"], values["THETA_IMAGE"],
                units="xy", offsets=np.column_stack([values["X_IMAGE"], values["Y_IMAGE"]]), offset_transform=axis.transData,
                facecolors="none", edgecolors=colour, linewidths=0.8 if len(shown) == 1 else 0.5,
            ))  # fmt: skip
        if one.scale and (directions := compass(celestial_wcs(one.header), one.shape[-2:])):
            draw_marks(axis, one.shape[-2:], one.scale, *directions, colour="black")
        axis.set_title(f"{one.place}: {_sources(len(factor))}" if len(shown) > 1 else "", fontsize=8)
        axis.tick_params(labelsize=7)
        if place + columns >= len(shown):  # none below it
            axis.set_xlabel("X_IMAGE (pixels)", fontsize=8)
        if place % columns == 0:
            axis.set_ylabel("Y_IMAGE (pixels)", fontsize=8)
    flagged = sum(int((np.asarray(measured["FLAGS"]) != 0).sum()) for measured in summary.drawn)
    said = (("without flags", summary.sources - flagged), ("flagged (neighbours, saturation, border)", flagged))
    handles = [
        Line2D([], [], color=colour, label=f"{count:,} {kind}")
        for colour, (kind, count) in zip(colours, said, strict=True)
        if count
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False,
                      title=_ellipses(summary.drawn), title_fontsize=9)  # fmt: skip
    more = f", the first {len(shown)} of {len(summary.drawn)} extensions" if len(shown) < len(summary.drawn) else ""
    figure.suptitle(f"{image.name}{summary.plan.which}: {_sources(summary.sources)}{more}")
    return figure


def _sources(count: int) -> str:
    return f"{count:,} source{'s' * (count != 1)}"


def _ellipses(drawn: list[dict[str, np.ndarray]]) -> str:
    """What the ellipses of the picture are."""
    plain = f"{_PLAIN:g} x A_IMAGE, B_IMAGE"
    if not any("KRON_RADIUS" in measured for measured in drawn):
        return f"ellipses: {plain}"
    without = any((np.asarray(measured["KRON_RADIUS"]) <= 0).any() for measured in drawn)
    return "Kron ellipses: KRON_RADIUS x A_IMAGE, B_IMAGE" + f" ({plain} where KRON_RADIUS is 0)" * without


def _reduced(image: Image, most: int) -> tuple[int, np.ndarray]:
    """Means of blocks, so that the longer side has at most ``most`` pixels, and the block's side."""
    with np.errstate(over="ignore"):
        pixels = image.pixels().astype(np.float32)
    step = max(1, -(-max(pixels.shape) // most))
    rows, sides = (max(1, length // step) for length in pixels.shape)
    block = pixels[: rows * step, : sides * step]
    if min(block.shape) < step:
        return 1, pixels
    return step, block.reshape(rows, step, sides, step).mean((1, 3))


# The command


def extract(
    image: Path,
    config: Path | None = None,
    *,
    parameters: Path | None = None,
    columns: str | None = None,
    overrides: Iterable[str] = (),
    skip_unknown: bool = False,
    check: str | None = None,
    processes: int | None = None,
    draw: bool = False,
    tell: Callable[[str], None] = print,
    **files,
) -> Summary:
    """The whole of ``skyset extract``: texts as they are typed, ``files`` as :func:`plan` takes them; ``tell`` gets one line
    for each thing that the user should know."""
    pairs = [text.partition("=")[::2] for text in overrides]
    for text, (key, value) in zip(overrides, pairs, strict=True):
        if not key or not value:
            raise UserError(f"--set {text}: KEYWORD=VALUE is meant, such as --set DETECT_THRESH=3")
    wanted = re.findall(r"[^,\s(]+(?:\([^)]*\))?", columns) if columns is not None else None
    configuration = read_config(config, overrides=pairs, parameters=parameters, columns=wanted, skip_unknown=skip_unknown,
                                weighted=files.get("weight") is not None)  # fmt: skip
    for line in configuration.warnings:
        tell(f"warning: {line}")
    with _warnings_told(lambda line: tell(f"warning: {line}")):
        planned = plan(image, configuration, check=[name for name in (check or "").split(",") if name], **files)
        for line in _differences(configuration, planned, files):
            tell(f"warning: {line}")
        try:
            return run(planned, configuration, processes=processes, progress=True, draw=draw)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("no catalogue is left half written; the same command starts anew") from None


def _differences(configuration: Configuration, plan: Plan, files: Mapping[str, object]) -> Iterator[str]:
    """What a user should know before the extraction, one line each, without those of the configuration itself."""
    if files.get("flag_image") and not any(COLUMNS[name].stage == "external" for name in plan.columns):
        yield f"--flag {files['flag_image']}: no column needs it; IMAFLAGS_ISO and NIMAFLAGS_ISO do"
    if files.get("classifier") and "CLASS_STAR" not in plan.columns:
        yield f"--classifier {files['classifier']}: no column needs it; CLASS_STAR does"
    beside = plan.image.parent / (_stem(plan.image) + configuration.header_suffix)
    if beside.is_file() and beside != plan.image:
        yield f"{beside}: HEADER_SUFFIX {configuration.header_suffix}: it is not read; the image's own header counts"
    images = plan.chosen.images
    scales = [image.scale for image in images if image.scale]
    if configuration.columns is None and 0 < len(scales) < len(images):
        yield f"{', '.join(DEFAULT_WORLD)} are left out: {len(images) - len(scales)} of the images have no WCS"
    given = configuration.settings.pixel_scale
    if scales and given and abs(given / scales[0] - 1) > 0.01:
        yield (f"PIXEL_SCALE {given:g} counts, but the WCS of {plan.image.name} says {scales[0]:.4g} arcsec "
               "(-PIXEL_SCALE 0 takes it from there)")  # fmt: skip


@contextlib.contextmanager
def _warnings_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Each warning of a library as one line, once."""
    seen = set()

    def show(message, *_) -> None:
        text = " ".join(str(message).split())
        if text not in seen:
            seen.add(text)
            tell(text)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        ignore_odd_cards()
        warnings.showwarning = show
        yield


def _extract_images() -> Callable:
    try:
        from skyset.extraction.detect import extract_images
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("numba", "llvmlite"):
            raise
        raise UserError(f"extraction needs {error.name}: {install_command('extraction')}") from None
    return extract_images
