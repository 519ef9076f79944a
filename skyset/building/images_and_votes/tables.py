"""Which catalogue is which: those of a release are recognised by their columns, and renamed to ours."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from skyset.archives.fetch import Fetcher
from skyset.archives.zenodo import need, record_files
from skyset.building.imagefiles import files_below
from skyset.building.images_and_votes.release import ALL, POSITION, SPLIT, VECTORS, Names, Release
from skyset.building.images_and_votes.zip_by_zip import fetched_file
from skyset.errors import UserError
from skyset.messages import say
from skyset.questions import Campaign, campaign_of
from skyset.tables.catalog import Catalog, check_ids
from skyset.tables.join import Source
from skyset.tables.open import open_catalog
from skyset.tables.representations import features_in

#: Where published tables are kept, below the output folder.
FOLDER = "catalogs"
SUFFIXES = (".csv", ".tsv", ".parquet", ".fits", ".fit", ".vot", ".csv.gz", ".fits.gz", ".vot.gz")
_MOST_NAMED = 12


class NotOurs(UserError):
    """A table of something else."""


@dataclass(frozen=True)
class Table:
    """A catalogue of the release: what is taken from it, what it is for, and its columns that are not used."""

    source: Source
    kinds: tuple[str, ...]
    rows: int
    left_out: tuple[str, ...]

    @property
    def has_objects(self) -> bool:
        return self.kinds != (VECTORS,)


def recognise(path: Path, release: Release) -> Table:
    """What a file is, by its columns.

    Raises:
        NotOurs: it cannot be read, has no column of the objects' names, or nothing that is known of them.
        UserError: its names went through floating point.
    """
    try:
        catalog = open_catalog(path)
    except UserError as error:
        raise NotOurs(str(error)) from error
    names = catalog.schema.names
    if not set(release.names.columns) & set(names):
        raise NotOurs(f"{path.name}: no column {' or '.join(release.names.columns)}")
    campaign = campaign_of(names, release.campaigns)
    columns = columns_in(names, release, campaign)
    vectors = features_in(catalog.schema) if VECTORS in release.configs else []
    kinds = [campaign.name] if campaign else []
    kinds += [name for name, cut in release.cuts.items() if any(columns.keys() >= set(each) for each in cut.needs)]
    kinds += [VECTORS] if vectors else []
    if not kinds:
        others = ", ".join(name for name in release.configs if name != ALL)
        raise NotOurs(f"{path.name}: no votes of {release.title}, nothing for {others} ({', '.join(names[:8])}, ...)")
    if kinds != [VECTORS] and release.names.position_of is None and not {"ra", "dec"} <= columns.keys():
        raise NotOurs(f"{path.name}: {kinds[0]} of {release.title} without ra and dec")
    known = {*columns.values(), *vectors, *release.names.columns}
    left_out = tuple(name for name in names if name not in known and not re.fullmatch(release.ignored, name))
    return Table(Source(path, key_of(catalog, release.names), columns), tuple(kinds), catalog.rows, left_out)


def columns_in(names: Sequence[str], release: Release, campaign: Campaign | None) -> dict[str, str]:
    """The table's names of the columns that are taken from it, by ours."""
    own = {column.name: (column.name,) for column in (*POSITION, *release.columns, SPLIT)}
    known = own | dict(release.other_names) | (campaign.names if campaign else {})
    found = {ours: next((name for name in theirs if name in names), None) for ours, theirs in known.items()}
    return {ours: name for ours, name in found.items() if name is not None}


def key_of(catalog: Catalog, names: Names) -> str:
    """The column of the objects' names.

    Raises:
        NotOurs: there are no rows, or no names of that form.
        UserError: the names went through floating point.
    """
    candidates = [name for name in names.columns if name in catalog.schema.names]
    if not catalog.rows:
        raise NotOurs(f"{Path(catalog.path).name}: no rows")
    if names.is_name is None:
        for batch in open_catalog(catalog.path, candidates[:1]).batches():
            _check_ids(catalog.path, batch, candidates[0])
        return candidates[0]
    first = next(open_catalog(catalog.path, candidates).batches(256))
    for name in candidates:
        values = [str(value) for value in first[name].to_pylist() if value is not None]
        if sum(map(names.is_name, values)) > len(values) / 2:  # single ones that are none are rows to be rejected
            return name
    for name in candidates:
        _check_ids(catalog.path, first, name)
    what = f"column {candidates[0]} holds no {names.kind} ({first[candidates[0]][0]})"
    raise NotOurs(f"{Path(catalog.path).name}: {what}")


def _check_ids(path: str, batch, name: str) -> None:
    try:
        check_ids(batch, name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def describe(table: Table) -> Iterator[str]:
    """What the user reads of a catalogue, a line each."""
    name, source = table.source.path.name, table.source
    of = f"{table.rows} galaxies, {len(source.columns)} columns, " if table.has_objects else ""
    yield f"{name}: {', '.join(table.kinds)}; {of}named by {source.key}"
    if table.left_out:
        shown = ", ".join(itertools.islice(table.left_out, _MOST_NAMED))
        more = f" and {len(table.left_out) - _MOST_NAMED} more" if len(table.left_out) > _MOST_NAMED else ""
        yield f"{name}: columns that are left out: {shown}{more}"


def find_tables(release: Release, asked: argparse.Namespace, network: Fetcher) -> list[Table]:
    """The catalogues that were named, else those of the folder, else the published ones; what is not used is printed."""
    named = [*(asked.catalog or ()), *([asked.representations] if asked.representations else ())]
    found = [recognise(path, release) for path in named]
    if asked.representations and VECTORS not in found[-1].kinds:
        raise UserError(f"{asked.representations.name}: no columns of a representation")
    if asked.local_data_path and not asked.catalog:
        found += tables_below(asked.local_data_path, release, named)
    elif not asked.catalog and needs_published(release, asked.configs or list(release.configs)):
        found += [recognise(path, release) for path in published(asked, network)]
    for line in (line for each in found for line in describe(each)):
        say(line)
    return found


def tables_below(folder: Path, release: Release, named: Sequence[Path]) -> Iterator[Table]:
    """The catalogues of a folder that were not named."""
    for path in files_below(folder):
        if not path.name.lower().endswith(SUFFIXES) or path in named:
            continue
        if release.image_names and path.name == release.image_names.file:
            continue
        try:
            yield recognise(path, release)
        except NotOurs as error:
            say(f"not used: {error}")


def needs_published(release: Release, configs: Sequence[str]) -> bool:
    """Whether any of these datasets is made of votes, which the published tables have."""
    votes = {column.name for campaign in release.campaigns for column in campaign.columns}
    of_votes = {name for name, cut in release.cuts.items() if any(votes & set(needed) for needed in cut.needs)}
    of_votes |= {VECTORS} if release.names.position_of is None else set()
    return not of_votes.union([ALL]).isdisjoint(configs)


def published(asked: argparse.Namespace, network: Fetcher) -> Iterator[Path]:
    """The published tables, fetched unless they are there."""
    folder = asked.output_dir / FOLDER
    if asked.catalog_url:
        yield fetched_file(network, asked.catalog_url, folder / _file_name(asked.catalog_url))
    files = record_files(network, asked.record, asked.api_url) if asked.tables else {}
    for name in asked.tables:
        file = need(files, name, asked.record)
        yield fetched_file(network, file.url, folder / name, file.checksum)


def _file_name(url: str) -> str:
    """The file that an address names: the last part that says what kind of table it is."""
    parts = [part for part in urlsplit(url).path.split("/") if part.lower().endswith(SUFFIXES)]
    if not parts:
        raise UserError(f"--catalog_url {url} names no table ({', '.join(SUFFIXES)})")
    return parts[-1]
