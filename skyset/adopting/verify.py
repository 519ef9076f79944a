"""Whether a tree is what its index says, difference by difference; and what is wrong with all of its values."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skyset.adopting.adopt import About, Adopting
from skyset.adopting.findings import Findings
from skyset.adopting.fold import Fold, Known, union
from skyset.adopting.gather import Dataset, Gatherer, parts_of
from skyset.adopting.infer import Inferred
from skyset.adopting.journal import Journal, noted_stamps
from skyset.adopting.output import SURVEY
from skyset.adopting.scan import Places
from skyset.errors import PartitionError, UserError
from skyset.loading.indexes import index_named, index_of, manifests_in
from skyset.loading.places import survey_in
from skyset.noted import of_build
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import FileEntry, raw_values, reasons_told
from skyset.partitions.tree.form import COLUMNS, PART, STORED, TreeForm, form_of
from skyset.partitions.tree.units import UNITS, UnitsFile
from skyset.progress import progress_bar
from skyset.runner import executor
from skyset.survey import ANY, Column, Survey

_FOR_PROCESSES = 256


@dataclass
class Verified:
    """What was found out about one dataset of an index.

    Attributes:
        folder: of its manifest; ``name`` of the config.
        rows, files: that the manifest says.
        differences: lines.
        broken: files that cannot be read.
        findings: over all values.
    """

    folder: Path
    name: str
    rows: int = 0
    files: int = 0
    differences: list[str] = field(default_factory=list)
    broken: int = 0
    findings: Findings = field(default_factory=Findings)


def index_at(where: str) -> Path | None:
    """The index that a folder is, that a tree has in the cache, or that has a name there; None where there is none."""
    folder = Path(where).expanduser()
    for each in (folder, *(path.parent for path in manifests_in(folder))):
        if survey_in(each) == SURVEY:
            return folder
    return index_of(folder) if folder.is_dir() else index_named(where)


def verify(index: Path, processes: int = 1, scheduler: str | None = None) -> Iterator[Verified]:
    """Look at every value of a tree, and compare what is there with what its index says.

    Args:
        index: the folder.
        processes, scheduler: that look at files, see `skyset.runner.executor`.

    Raises:
        UserError: a manifest cannot be read, or the tree is gone.
    """
    for path in manifests_in(index):
        yield _verify(path.parent, processes, scheduler)


def _verify(folder: Path, processes: int, scheduler: str | None) -> Verified:
    with reasons_told(folder):
        values = raw_values(folder)
        build = values["build"]
        form = form_of(build)
        columns = [Column(**{**each, "shape": tuple(each["shape"])}) for each in values["columns"]]
        entries = [FileEntry(**{**each, "ra": tuple(each["ra"]), "dec": tuple(each["dec"])}) for each in values["files"]]
        form.check(columns)
        tree, config = Path(values["sources"][0]), str(build["config"])
        empty = Survey(SURVEY, "", "", "", "", "", tuple(columns), ())
        survey = of_build(empty, columns, build)
        below = "" if form.tree == str(tree) else str(Path(form.tree).relative_to(tree))
    if not Path(form.tree).is_dir():
        raise UserError(f"{form.tree} is gone, where {folder} says its files are: if it moved, adopt it where it is now")
    rows = sum(entry.rows for entry in entries)
    verified = Verified(folder, config, rows, len(entries), findings=Findings(below))
    places = Places(tree)
    dataset = Dataset(below, form.tree, config, findings=verified.findings)
    dataset.files = sum(1 for _ in parts_of(dataset, places))
    if not dataset.files:
        verified.differences.append(f"{form.tree}: has no HDF5 file any more")
        return verified
    processes = min(processes, max(1, dataset.files // _FOR_PROCESSES))
    with (
        tempfile.TemporaryDirectory(prefix="skyset-") as temporary,
        Journal(Path(temporary)) as journal,
        executor(processes, scheduler, ("skyset.adopting.worker",), [tree]) as pool,
        progress_bar(total=dataset.files, unit="file", desc="verify", leave=False) as bar,
    ):
        gatherer = Gatherer(dataset, places, journal, pool, True, False, bar.update)
        adopting = Adopting(gatherer, folder, About(tree, "", ()), Inferred(survey, form))
        found = adopting.examine()
        here = {
            look.file.path: (look.file.bytes, look.file.mtime, look.error)
            for looks in gatherer.looks(found.gathered)
            for look in looks
            if look.error or look.kind == form.kind
        }
    before = f"{below}/" if below else ""
    verified.broken = found.gathered.broken
    verified.differences += [before + line for line in _files(_listed(folder, form, entries), here)]
    verified.differences += [before + line for line in _entries(entries, found.entries)]
    verified.differences += _columns(columns, form, found.fold)
    return verified


def _listed(folder: Path, form: TreeForm, entries: list[FileEntry]) -> dict[str, tuple[int, int]]:
    """The files that the index knows, with their bytes and times (ns; -1: not known)."""
    if form.kind == COLUMNS:
        stamps = noted_stamps(folder)
        return {entry.path: (entry.bytes, stamps.get(entry.path, (0, -1))[1]) for entry in entries}
    listed: dict[str, tuple[int, int]] = {}
    try:
        for _, rows in UnitsFile(folder / UNITS):
            listed |= dict(zip(rows.files, zip(rows.sizes.tolist(), rows.mtimes.tolist(), strict=True), strict=True))
    except PartitionError as error:
        raise UserError(str(error)) from error
    return listed


def _files(listed: Mapping[str, tuple[int, int]], here: Mapping[str, tuple[int, int, str]]) -> Iterator[str]:
    """Files that are gone, new, broken, or were written to."""
    for path, (size, mtime) in listed.items():
        if path not in here:
            yield f"{path}: missing"
        elif here[path][2]:
            yield f"{path}: {here[path][2]}"
        elif here[path][0] != size:
            yield f"{path}: {here[path][0]} bytes, the index says {size}"
        elif mtime not in (-1, here[path][1]):
            yield f"{path}: was written to since it was adopted"
    for path, (_, _, error) in here.items():
        if path not in listed and not error:
            yield f"{path}: is there but not in the index"


def _entries(listed: list[FileEntry], found: list[FileEntry]) -> Iterator[str]:
    """Entries whose rows are others."""
    here = {entry.path: entry for entry in found}
    for entry in listed:
        other = here.get(entry.path)
        if other is None:
            continue
        if other.rows != entry.rows:
            yield f"{entry.path}: {other.rows} rows, {MANIFEST} says {entry.rows}"
        elif other.keys != entry.keys:
            yield f"{entry.path}: holds other objects than {MANIFEST} says"
        for name in ("ra", "dec"):
            bounds = getattr(other, name)
            if not np.allclose(bounds, getattr(entry, name), rtol=0, atol=1e-9):
                yield f"{entry.path}: {name} runs from {bounds[0]} to {bounds[1]}, {MANIFEST} says {getattr(entry, name)}"
        for name in ("split", "healpix"):
            if getattr(other, name) != getattr(entry, name):
                yield f"{entry.path}: {name} is {getattr(other, name)}, {MANIFEST} says {getattr(entry, name)}"


def _columns(columns: list[Column], form: TreeForm, fold: Fold) -> Iterator[str]:
    """Columns that the files' datasets do not fit any more."""
    for column in columns:
        source = form.sources[column.name]
        for name in source.of:
            known = fold.known.get(name)
            if known is None:
                yield f"{column.name}: no file has {name}, which it is made of"
            elif source.how in (STORED, PART) and (reason := _misfit(column, known, source.how)):
                yield f"{column.name}: {reason}"


def _misfit(column: Column, known: Known, how: str) -> str:
    """Why a column cannot hold what files have; ``""`` where it can."""
    found = union(known.dtypes)
    if not found or union([found, column.dtype]) != column.dtype:
        return f"files have {' and '.join(sorted(known.dtypes))}, the index says {column.dtype}"
    if how == PART or column.shape == (ANY,) or known.any_length:
        return ""
    sizes = known.sizes
    fits = len(sizes) == len(column.shape) and all(
        own in (ANY, low) and own in (ANY, high) for own, (low, high) in zip(column.shape, sizes, strict=True)
    )
    return "" if fits else f"files have rows of other shapes than {column.shape}"
