"""``skyset report``: a dataset looked at, and written as one page."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skyset.errors import SkysetError, UserError
from skyset.explore.report import columns, pictures, sections
from skyset.explore.report.page import document, is_report, note
from skyset.explore.report.rejects import read_rejects
from skyset.explore.report.sample import Build, take
from skyset.explore.report.sections import Looked
from skyset.explore.report.statistics import summarised
from skyset.files import file_sha256, keep_inputs, keep_others, write_atomically
from skyset.html import joined
from skyset.loading import registry
from skyset.loading.places import survey_in
from skyset.loading.trees import called
from skyset.partitions.layout import MANIFEST, REJECTED
from skyset.partitions.manifest import Manifest
from skyset.progress import progress_bar
from skyset.sky import healpix_cell
from skyset.versions import __version__

#: Rows that the statistics are made of where there are more, and pictures.
ROWS, PICTURES = 20_480, 6
_ENDINGS = (".html", ".htm")


def page_path(path: Path) -> Path:
    """Where a page of this name is written; UserError where it is no page's name."""
    path = path if path.suffix or path.exists() else path.with_suffix(".html")
    if path.suffix.lower() not in _ENDINGS:
        raise UserError(f"{path}: a report is a web page: name it {path.stem}.html")
    return path


def check_output(path: Path, roots: Sequence[str], overwrite: bool) -> None:
    """Refuse to write where a page must not be: among partitions, or over a file that is no report.

    Raises:
        UserError: so it is, or there is no such folder.
    """
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    for root in roots:
        if "://" in root:
            continue
        keep_inputs(path, {f"the folder's {name}": Path(root, name) for name in (MANIFEST, REJECTED)})
        inside = Path(os.path.realpath(path)).relative_to(os.path.realpath(root)) if _is_in(path, root) else Path()
        if any(part.startswith("healpix=") for part in inside.parts):
            raise UserError(f"{path} would lie among the partitions of {root}: choose another place")
    keep_others(path, _is_report, "report", overwrite)


def _is_report(path: Path) -> bool:
    with open(path, "rb") as file:
        return is_report(file.read(4096))


def _is_in(path: Path, root: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def look(build: Build, rows: int = ROWS, count: int = PICTURES, seed: int = 0, scheduler: str | None = None) -> Looked:
    """Find out all that a report tells, in bounded time and memory.

    Args:
        build: the dataset.
        rows: that the statistics are made of where there are more, about.
        count: of pictures at most.
        seed: of the rows that are drawn.
        scheduler: address of a Dask cluster that reads them, see `skyset.runner.executor`.
    """
    reading = functools.partial(progress_bar, unit="file", desc="reading", leave=False)
    drawing = functools.partial(progress_bar, unit="picture", desc="drawing", leave=False)
    sample = take(build, rows, seed, reading, scheduler)
    listed = [column for column in build.manifest.columns if column.name in sample.values]
    values = sample.values | {name: each for name, (each, _) in sample.elements.items()}
    of_values = [column for column in listed if column.is_bytes or not column.is_ragged or column.name in sample.elements]
    summaries = {column.name: summarised(column, values[column.name]) for column in of_values}
    lengths = {column.name: summarised(column.end, sample.lengths(column.name)) for column in listed if column.is_ragged}
    drawn, problems = pictures.drawn(build, sample, count, seed, drawing)
    rejects = read_rejects(build.root if build.cells_known else "://")
    looked = Looked(
        build,
        sample,
        summaries,
        drawn,
        rejects,
        _cells(build, sample),
        _others(build),
        _digest(build),
        seed,
        [f"{path}: {reason}" for path, reason in sample.problems.items()] + problems,
        lengths,
    )
    if rejects.problem:
        looked.problems.append(f"{REJECTED}: {rejects.problem}")
    return looked


def page(looked: Looked) -> str:
    """The report as HTML, and what of it is a problem added to ``looked.problems``."""
    manifest, survey = looked.build.manifest, looked.build.survey
    shown = [
        ("sky", "Sky", sections.sky(looked)),
        ("pictures", "Pictures", sections.pictures(looked)),
        ("columns", "Columns", columns.columns(looked)),
        ("distributions", "Distributions", columns.distributions(looked)),
        ("classes", "Classes", sections.classes(looked)),
        ("cuts", "Cuts and rejected objects", sections.cuts_and_rejects(looked)),
        ("configs", "Configs and splits", sections.configs_and_splits(looked)),
        ("provenance", "Provenance", sections.provenance(looked)),
        ("checksums", "Files and checksums", sections.checksums(looked)),
    ]
    config = "" if manifest.config == "default" else f", {manifest.config}"
    head = [
        note(survey.title if survey is not None else "A survey that this skyset does not know"),
        sections.summary_facts(looked.build),
        sections.problems_box(looked.problems),
    ]
    if not manifest.rows:
        head.append(note("This dataset has no rows."))
    foot = joined([f"Made by skyset {__version__}. Statistics and pictures are of {looked.basis}."])
    there = [(name, heading, content) for name, heading, content in shown if content is not None]
    return document(f"{called(manifest)}{config}", [each for each in head if each is not None], there, foot)


def write(
    build: Build, output: Path, rows: int = ROWS, count: int = PICTURES, seed: int = 0, scheduler: str | None = None
) -> list[str]:
    """Write the report on a dataset; what is wrong with its files, a line each.

    Raises:
        UserError: it cannot be written.
    """
    looked = look(build, rows, count, seed, scheduler)
    save(output, page(looked))
    return looked.problems


def save(output: Path, text: str) -> None:
    """Write a page; UserError where that is not possible."""
    try:
        write_atomically(output, text)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from error


def _cells(build: Build, sample) -> dict[int, int]:
    if not build.cells_known:
        ra, dec = (sample.values[name].astype(float) for name in build.position)
        there = np.isfinite(ra) & (abs(dec) <= 90)
        cells, counts = np.unique(healpix_cell(ra[there], dec[there], build.manifest.nside), return_counts=True)
        return dict(zip(cells.tolist(), counts.tolist(), strict=True))
    rows: dict[int, int] = {}
    for entry in build.manifest.files:
        rows[entry.healpix] = rows.get(entry.healpix, 0) + entry.rows
    return dict(sorted(rows.items()))


def _digest(build: Build) -> str:
    with contextlib.suppress(OSError):
        return file_sha256(Path(build.root, MANIFEST)) if not build.is_remote else ""
    return ""


def _others(build: Build) -> list[tuple[str, int, int, str, str]]:
    """The other datasets of the folder: in it, or beside it where it is one config's."""
    if build.is_remote or build.is_parquet or not registry.is_known(build.manifest.survey):
        return []
    if build.in_place:
        from skyset.loading.in_place import lying_in

        found = {config: (each[0], each[2]) for config, each in lying_in(build.root).items()}
    else:
        here = Path(build.root)
        above = here.parent if build.manifest.config == here.name else here
        folders = registry.folders_below(above)
        if survey_in(above) == build.manifest.survey:
            folders = {"default": str(above), **folders}
        found = {}
        for config, folder in folders.items():
            with contextlib.suppress(SkysetError):  # one that is damaged is not this one's fault
                found[config] = folder, Manifest.load(folder)
    return [
        (config, manifest.rows, len(manifest.files), ", ".join(manifest.splits), folder)
        for config, (folder, manifest) in found.items()
        if config != build.manifest.config
    ]
