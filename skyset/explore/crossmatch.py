"""Surveys matched by position, as one stream: positions are compared first, pixels are read of rows that have a match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyset.block_cache import BlockCache, cache_in
from skyset.errors import UserError
from skyset.explore.catalogue import units_in
from skyset.explore.match_plan import Places, joined, pairs_within, places_in_files, places_of
from skyset.explore.match_sides import Catalogue, is_catalogue, names_of, side_of_partitions
from skyset.loading.found import Found, opened
from skyset.loading.matched import Matched, Side
from skyset.partitions.manifest import FileEntry
from skyset.progress import progress_bar
from skyset.tables.match import Pairs
from skyset.tables.motion import Motion, common_epoch, motion_in

if TYPE_CHECKING:
    from skyset.loading.stream import SurveyStream

#: Of a match with pixels; pairs further apart belong into a table (``skyset crossmatch -o``).
MAX_RADIUS_ARCSEC = 3600.0
SEPARATION = "separation_arcsec"
HOW = ("inner", "left", "nearest")


def crossmatch(
    a: str | Path,
    b: str | Path,
    *more: str | Path,
    radius: float = 1.0,
    how: str = "inner",
    names: Sequence[str] | None = None,
    split: str | None = None,
    format: str | None = "numpy",
    ra: str | Sequence[str] = "",
    dec: str | Sequence[str] = "",
    pm: bool = False,
    epochs: Sequence[float | None] | None = None,
    on_bad_partition: str = "raise",
    decode: str = "array",
    verify: bool = False,
    cache_dir: str | Path | None = None,
    cache_limit: str | int | None = None,
) -> SurveyStream:
    """Rows of surveys that show the same objects, by position: ``{"gz3d.image": ..., "sdss.image": ..., ...}``.

    Positions are matched at once, cell by cell with all that is near; no pair is lost at borders of cells, at poles or at
    RA = 0. Pixels are read when rows are asked for: of matched rows, and of the columns that are selected. The stream is
    what ``skyset.load`` gives: it shuffles, resumes exactly, is shared among nodes and workers, and keeps dtypes.

    Args:
        a, b, more: each a survey's name, a folder or URL of partitions, of what ``skyset push`` made or of a HATS catalogue
            (anybody's), or a catalogue's file (``.parquet``, ``.csv``, ``.fits``, ``.vot``, ...). All others are matched
            with ``a``.
        radius: largest separation, arcsec; above 0, up to 3600.
        how: ``"inner"``, all pairs; ``"nearest"``, of each row of ``a`` the nearest of each other survey; ``"left"``, all
            pairs, and rows of ``a`` without a match: what they lack is None, pixels too, and NaN for the separation. With
            more than two surveys a row is a combination of matches of one row of ``a``.
        names: what each survey's columns are named by; the surveys' names by default, a file's name without its ending.
        split: of the rows of ``a``, where it has several; all of them by default, of the others always.
        format: ``"numpy"``, ``"torch"``, ``"arrow"``, ``"pandas"``, None.
        ra, dec: the positions of catalogues' files, of all or one for each of ``a, b, ...``: a column, or with its unit
            ``"RAJ2000:hour"`` (deg, hour, rad); by default the first of the usual names. Partitions have ``ra`` and ``dec``.
        pm: take objects with proper motions (columns pmra and pmdec, parallax and radial_velocity where there are) to the
            epoch of the surveys that have none; to 2000 where all have.
        epochs: of the positions of ``a, b, ...``, Julian years; by default those in a column ``ref_epoch``, else 2000.
        on_bad_partition, decode, verify, cache_dir, cache_limit: as for ``skyset.load``; the cache is for all sides that
            lie behind URLs.

    Returns:
        datasets.IterableDataset: the columns of each survey under ``<name>.<column>``, and ``separation_arcsec`` from the
        row of ``a``, float64; with more than two surveys ``separation_arcsec.<name>`` for each. In the order of ``a``.

    Raises:
        UserError: there is no such survey, file or column of positions, two surveys have one name, an option is out of
            range, or no two objects are that near.
    """
    _check_options(radius, how, on_bad_partition, decode)
    sources = [str(each) for each in (a, b, *more)]
    columns = list(zip(_each(ra, sources, "ra"), _each(dec, sources, "dec"), strict=True))
    skip_bad = on_bad_partition == "skip"
    cache = None if cache_limit is None else _cache(cache_dir, cache_limit, any("://" in source for source in sources))
    matched = find(sources, radius, how, names, split, columns, verify, skip_bad, _epochs(epochs, pm, len(sources)), cache)
    return stream_of(matched, on_bad_partition, decode, split, cache).with_format(format)


def _check_options(radius: float, how: str, on_bad_partition: str, decode: str) -> None:
    if how not in HOW:
        raise UserError(f"how must be {', '.join(map(repr, HOW))}, not {how!r}")
    if isinstance(radius, bool) or not isinstance(radius, Real) or not 0 < radius <= MAX_RADIUS_ARCSEC:
        raise UserError(f"radius is {radius!r} arcsec; it must be above 0, up to {MAX_RADIUS_ARCSEC:g} (one degree)")
    if on_bad_partition not in ("raise", "skip"):
        raise UserError(f'on_bad_partition must be "raise" or "skip", not {on_bad_partition!r}')
    if decode not in ("array", "pil"):
        raise UserError(f'decode must be "array" or "pil", not {decode!r}')


def _cache(folder: str | Path | None, limit: str | int, wanted: bool) -> BlockCache | None:
    from datasets import config

    return cache_in(folder or config.HF_DATASETS_CACHE, limit, wanted)


def _each(wanted: str | Sequence[str], sources: Sequence[str], what: str) -> list[str]:
    """A column for each side; one word is for the files among them."""
    if isinstance(wanted, str):
        return [wanted if is_catalogue(source) else "" for source in sources]
    if len(wanted) != len(sources):
        raise UserError(f"{what}= names {len(wanted)} columns for {len(sources)} surveys")
    return list(wanted)


def _epochs(epochs: Sequence[float | None] | None, pm: bool, count: int) -> Sequence[float | None] | None:
    """Those of each side where motions are wanted, else None."""
    if epochs is not None and not pm:
        raise UserError("epochs= is for pm=True")
    if epochs is not None and len(epochs) != count:
        raise UserError(f"epochs= names {len(epochs)} for {count} surveys")
    return (epochs or [None] * count) if pm else None


def find(
    sources: Sequence[str],
    radius: float,
    how: str,
    names: Sequence[str] | None = None,
    split: str | None = None,
    columns: Sequence[tuple[str, str]] | None = None,
    verify: bool = False,
    skip_bad: bool = False,
    epochs: Sequence[float | None] | None = None,
    cache: BlockCache | None = None,
) -> Matched:
    """What ``crossmatch`` finds, without a pixel read; see there.

    Raises:
        UserError: see ``crossmatch``.
    """
    stamps: dict[str, tuple] = {}
    found = [None if is_catalogue(source) else opened(source) for source in sources]
    names, columns = names_of(sources, found, names), columns or [("", "")] * len(sources)
    asked = enumerate(zip(sources, found, names, columns, strict=True))
    several = [_opened(source, each, name, where, None if n else split, verify) for n, (source, each, name, where) in asked]
    sides, places = [side for side, _ in several], []
    for (side, entries), motion in zip(several, _motions(sides, sources, epochs), strict=True):
        if isinstance(side, Catalogue):
            if motion:
                side.move(motion)
            places.append(places_of(side.ra, side.dec))
        else:
            if cache is not None and side.is_far and not all(entry.sha256 for entry in entries):
                raise UserError(f"cache_limit is for files with a list of checksums: {sources[len(places)]} has none")
            places.append(places_in_files(side, entries, stamps, skip_bad, motion, cache))
    pairs = [
        _pairs(places[0], other, radius, how, (names[0], name)) for other, name in zip(places[1:], names[1:], strict=True)
    ]
    rows, separations = joined(pairs, places[0].rows if how == "left" else None)
    if not rows.shape[1]:
        raise UserError(f"no object of {names[0]} has one of each of {', '.join(names[1:])} within {radius:g} arcsec")
    rows = np.array(rows)
    whole = [
        each if isinstance(each, Side) else _rows_of_file(each, name, rows[n])
        for n, (each, name) in enumerate(zip(sides, names, strict=True))
    ]
    return Matched(tuple(whole), rows, _named(separations, names[1:]), stamps)


def _opened(
    source: str, found: Found | None, name: str, columns: tuple[str, str], split: str | None, verify: bool
) -> tuple[Side | Catalogue, list[FileEntry]]:
    if found is None:
        if split is not None:
            raise UserError(f"{source}: a file has no splits")
        return Catalogue(source, *columns), []
    if any(columns):
        raise UserError(f"{source}: partitions have their positions in ra and dec")
    return side_of_partitions(name, found, split, verify)


def _motions(sides: Sequence[Side | Catalogue], sources: Sequence[str], epochs: Sequence | None) -> list[Motion | None]:
    """How the objects of each side are to be moved; not at all unless that is asked for."""
    if epochs is None:
        return [None] * len(sides)
    units = [
        units_in(side.path) if isinstance(side, Catalogue) else {c.name: c.unit for c in side.survey.columns}
        for side in sides
    ]
    motions = [motion_in(*each) for each in zip(units, epochs, sources, strict=True)]
    epoch = common_epoch(motions, epochs)
    return [motion and replace(motion, to=epoch) for motion in motions]


def _pairs(left: Places, right: Places, radius: float, how: str, names: tuple[str, str]) -> Pairs:
    with progress_bar(total=len(left.counts), desc=f"{names[0]} x {names[1]}", unit="file", leave=False) as bar:
        pairs = pairs_within(left, right, radius, "nearest" if how == "nearest" else "all", bar.update)
    if not len(pairs) and how != "left":
        raise UserError(f"no object of {names[0]} lies within {radius:g} arcsec of one of {names[1]}")
    return pairs


def _rows_of_file(catalogue: Catalogue, name: str, rows: np.ndarray) -> Side:
    """The rows of a file that have a match; ``rows`` becomes their numbers among these."""
    there = rows >= 0
    wanted, rows[there] = np.unique(rows[there], return_inverse=True)
    return catalogue.side(name, wanted)


def _named(separations: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    if len(names) == 1:
        return {SEPARATION: separations[0]}
    return {f"{SEPARATION}.{name}": values for name, values in zip(names, separations, strict=True)}


def stream_of(
    matched: Matched,
    on_bad_partition: str = "raise",
    decode: str = "array",
    split: str | None = None,
    cache: BlockCache | None = None,
) -> SurveyStream:
    """Matches as a stream; see ``crossmatch``."""
    import datasets

    from skyset.loading.matched_rows import MatchedRows
    from skyset.loading.stream import SurveyStream

    options = {"skip_bad": on_bad_partition == "skip", "pil": decode == "pil", "cache": cache}
    rows = MatchedRows(matched).with_changes(**options)
    survey, split = matched.survey, split or "train"
    info = datasets.DatasetInfo(
        description=survey.title,
        features=rows.features,
        homepage=survey.homepage,
        citation=survey.citation,
        license=survey.license,
        splits=datasets.SplitDict(dataset_name="crossmatch"),
    )
    info.splits.add(datasets.SplitInfo(split, num_examples=len(matched)))
    return SurveyStream(rows, info=info, split=datasets.NamedSplit(split))
