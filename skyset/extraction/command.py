"""From an image's file to catalogues, check images and a picture: what ``skyset extract`` does.

Extensions are written as they come, so that memory holds one of them (all of them where a format is a single table).
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import QTable

from skyset.errors import UserError
from skyset.extraction.catalogues import write_catalogue
from skyset.extraction.check_images import CheckImages
from skyset.extraction.columns import COLUMNS, DEFAULT_WORLD
from skyset.extraction.config import Configuration, read_config
from skyset.extraction.engines import load_engine
from skyset.extraction.figure import DRAWN, figure, sources_text
from skyset.extraction.image_headers import image_header
from skyset.extraction.ldac import ignore_odd_cards
from skyset.extraction.mosaic import Extension, extract_file
from skyset.extraction.plan import Plan, make_plan, stem
from skyset.extraction.tables import as_table


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
    #: What measured, with its version.
    engine: str = ""

    def __str__(self) -> str:
        each = f" in {self.extensions:,} extensions" if self.extensions != 1 else ""
        each += f", seeing {np.median(self.seeing):.2f} arcsec" if self.seeing else ""
        where = f": wrote {', '.join(self.written)}" if self.written else ""
        return f"{sources_text(self.sources)}{each}, {self.seconds:.1f} s, engine {self.engine}{where}"

    def figure(self):
        """The image with an ellipse around each source: see :func:`figure`."""
        return figure(self.plan, self.drawn)


def run(
    plan: Plan,
    configuration: Configuration,
    *,
    processes: int | None = None,
    scheduler: str | None = None,
    progress: bool = False,
    draw: bool = False,
) -> Summary:
    """Measure the image and write what is planned: catalogue and check images together, each under a temporary name first.

    With ``draw`` the summary keeps what :func:`figure` needs."""
    begin, summary = time.monotonic(), Summary(plan, engine=load_engine(plan.engine).TITLE)
    wanted = [*plan.columns, *(name for name in DRAWN if draw and name not in plan.columns)]

    def extensions(images: CheckImages) -> Iterator[tuple[fits.Header, QTable]]:
        measured = extract_file(
            plan.chosen,
            configuration.for_header,
            wanted,
            weight=plan.weight,
            flag_image=plan.flag_image,
            classifier=plan.classifier,
            engine=plan.engine,
            check=tuple(plan.check),
            processes=processes,
            scheduler=scheduler,
            progress=progress,
        )
        for extension in _measured(plan.image, measured):
            images.write(extension)
            columns = extension.measured.columns
            summary.extensions += 1
            summary.sources += len(next(iter(columns.values())))
            if extension.settings.seeing == 0 and extension.measured.seeing > 0:
                summary.seeing.append(extension.measured.seeing)
            if draw:
                summary.drawn.append({name: columns[name] for name in (*DRAWN, "KRON_RADIUS") if name in columns})
            table = as_table(columns, plan.columns, extension.number)
            table.meta["engine"] = summary.engine
            yield image_header(extension, configuration, plan, len(table)), table

    with CheckImages(plan.check, len(plan.chosen.images) > 1) as images:
        if plan.format is None:
            for _ in extensions(images):
                pass
        else:
            write_catalogue(plan.output, plan.format, extensions(images))
    summary.seconds = time.monotonic() - begin
    summary.written = [*([str(plan.output)] if plan.format else []), *(str(path) for path in plan.check.values())]
    return summary


def _measured(image: Path, extensions: Iterable[Extension]) -> Iterator[Extension]:
    """The extensions; an error of the system while one is measured is not one of the files being written meanwhile."""
    try:
        yield from extensions
    except (OSError, EOFError) as error:
        raise UserError(f"{image}: cannot be measured: {getattr(error, 'strerror', None) or error}") from error


def extract(
    image: str | Path,
    config: Path | None = None,
    *,
    parameters: Path | None = None,
    columns: str | None = None,
    overrides: Iterable[str] = (),
    skip_unknown: bool = False,
    check: str | None = None,
    processes: int | None = None,
    scheduler: str | None = None,
    draw: bool = False,
    tell: Callable[[str], None] = print,
    **files,
) -> Summary:
    """The whole of ``skyset extract``: texts as they are typed, ``files`` as :func:`make_plan` takes them; ``tell`` gets one
    line for each thing that the user should know."""
    pairs = [text.partition("=")[::2] for text in overrides]
    for text, (key, value) in zip(overrides, pairs, strict=True):
        if not key or not value:
            raise UserError(f"--set {text}: KEYWORD=VALUE is meant, such as --set DETECT_THRESH=3")
    wanted = re.findall(r"[^,\s(]+(?:\([^)]*\))?", columns) if columns is not None else None
    configuration = read_config(
        config,
        overrides=pairs,
        parameters=parameters,
        columns=wanted,
        skip_unknown=skip_unknown,
        weighted=files.get("weight") is not None,
    )
    for line in configuration.warnings:
        tell(f"warning: {line}")
    with _warnings_told(lambda line: tell(f"warning: {line}")):
        planned = make_plan(image, configuration, check=[name for name in (check or "").split(",") if name], **files)
        for line in _differences(configuration, planned, files):
            tell(f"warning: {line}")
        try:
            return run(planned, configuration, processes=processes, scheduler=scheduler, progress=True, draw=draw)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("no catalogue is left half written; the same command starts anew") from None


def _differences(configuration: Configuration, plan: Plan, files: Mapping[str, object]) -> Iterator[str]:
    """What a user should know before the extraction, one line each, without those of the configuration itself."""
    if files.get("flag_image") and not any(COLUMNS[name].stage == "external" for name in plan.columns):
        yield f"--flag {files['flag_image']}: no column needs it; IMAFLAGS_ISO and NIMAFLAGS_ISO do"
    if files.get("classifier") and "CLASS_STAR" not in plan.columns:
        yield f"--classifier {files['classifier']}: no column needs it; CLASS_STAR does"
    beside = plan.image.parent / (stem(plan.image) + configuration.header_suffix)
    if beside.is_file() and beside != plan.image:
        yield f"{beside}: HEADER_SUFFIX {configuration.header_suffix}: it is not read; the image's own header counts"
    images = plan.chosen.images
    scales = [image.scale for image in images if image.scale]
    if configuration.columns is None and 0 < len(scales) < len(images):
        yield f"{', '.join(DEFAULT_WORLD)} are left out: {len(images) - len(scales)} of the images have no WCS"
    given = configuration.settings.pixel_scale
    if scales and given and abs(given / scales[0] - 1) > 0.01:
        yield (
            f"PIXEL_SCALE {given:g} counts, but the WCS of {plan.image.name} says {scales[0]:.4g} arcsec "
            "(-PIXEL_SCALE 0 takes it from there)"
        )


@contextlib.contextmanager
def _warnings_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Each warning of a library as one line, once."""
    seen = set()

    def show(message, *_, **__) -> None:
        text = " ".join(str(message).split())
        if text not in seen:
            seen.add(text)
            tell(text)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        ignore_odd_cards()
        vars(warnings)["showwarning"] = show
        yield
