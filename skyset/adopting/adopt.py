"""Adopt a tree: look at its files, find out what they hold and what is wrong with it, and write an index of them.

Nothing is written into the tree. The index has a manifest for each of its datasets (`skyset.partitions.manifest`), beside
it ``findings.csv``, the list of objects where each has a file or a group of its own (``units.arrow``) or else the times of
files (``written.npy``), and a journal of what was found in each file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skyset.adopting import checks
from skyset.adopting.declared import Declared
from skyset.adopting.entries import Entries, units_of
from skyset.adopting.findings import Findings, cells_alike, cells_are_ours, of_all, told_of
from skyset.adopting.fold import Fold
from skyset.adopting.gather import Dataset, Gathered, Gatherer, datasets_in, note_files
from skyset.adopting.infer import Inferred, field_names, infer, unit_by
from skyset.adopting.journal import Journal
from skyset.adopting.look import Look
from skyset.adopting.output import SURVEY, check_output, forget
from skyset.adopting.repeats import Repeats
from skyset.adopting.scan import Places, cell_number, config_names
from skyset.adopting.sky import FACTORS
from skyset.adopting.worker import CELLS
from skyset.errors import RecordError, UserError
from skyset.loading.indexes import default_index, note_index, plain_name, tree_path
from skyset.noted import ABOUT, notes_of
from skyset.partitions.manifest import FileEntry, Manifest
from skyset.partitions.tree.form import COLUMNS
from skyset.partitions.tree.units import UNITS, write_units
from skyset.partitions.tree.written import WRITTEN, write_times
from skyset.progress import progress_bar
from skyset.runner import executor
from skyset.versions import versions

#: Files for which worker processes are worth starting.
_FOR_PROCESSES = 256
#: Files whose folders are compared with other cells than ours.
_COMPARED = 4096


@dataclass
class AdoptedDataset:
    """One dataset of an index.

    Attributes:
        name: of the config.
        folder: of its manifest.
        inferred: how it is read.
        rows, files: how many; ``splits`` has rows by split.
        unit: of positions, as they are stored.
        sampled: rows whose arrays were looked at.
        broken: files that were left out because they cannot be read.
        read: files that were opened in this run.
        findings: what is wrong.
    """

    name: str
    folder: Path
    inferred: Inferred
    rows: int
    files: int
    splits: Mapping[str, int]
    unit: str
    sampled: int
    broken: int
    read: int
    findings: Findings


@dataclass
class Adopted:
    """An index that was made: where it is, what it is called, and its datasets."""

    index: Path
    name: str
    datasets: list[AdoptedDataset] = field(default_factory=list)

    @property
    def broken(self) -> int:
        return sum(each.broken for each in self.datasets)


def adopt(
    tree: str | Path,
    output: str | Path | None = None,
    name: str = "",
    declaration: str | Path | None = None,
    processes: int = 1,
    scheduler: str | None = None,
    position_unit: str = "",
    all_pixels: bool = False,
    strict: bool = False,
    command: Sequence[str] = (),
) -> Adopted:
    """Make or renew the index of a tree. A second run reads only files that are new or were written to.

    Args:
        tree: the folder; it is only read.
        output: the index's folder; by default one in the cache, which leads to it otherwise, see `skyset.loading.indexes`.
        name: what ``skyset.load`` finds the index by; by default the tree's.
        declaration: a Python file that says what columns there are, as `skyset.adopting.declared.printed` writes it.
        processes, scheduler: that look at files, see `skyset.runner.executor`.
        position_unit: ``deg``, ``hour`` or ``rad``, where nothing proves which.
        all_pixels: every value of arrays is looked at, not a sample of rows.
        strict: the first file that cannot be read ends it.
        command: what the user typed, for the manifest.

    Raises:
        UserError: there is nothing that can be adopted, the index cannot be written there, or what the user has to decide.
    """
    tree = Path(tree_path(tree))
    if name and plain_name(name) != name:
        raise UserError(f"--name {name}: letters, digits, _, - and dots only")
    if position_unit and position_unit not in FACTORS:
        raise UserError(f"--position_unit {position_unit}: one of {', '.join(FACTORS)}")
    places = _places(tree)
    declared = Declared.load(declaration) if declaration else None
    index = Path(os.path.abspath(os.path.expanduser(output))) if output else default_index(tree, name)
    check_output(tree, index)
    datasets = datasets_in(tree, places)
    for dataset, config in zip(datasets, config_names([each.folder for each in datasets]).values(), strict=True):
        dataset.name = config
    found = Adopted(index, name or plain_name(tree.name))
    about = About(tree, found.name, tuple(command))
    count = sum(each.files for each in datasets)
    with (
        executor(min(processes, max(1, count // _FOR_PROCESSES)), scheduler, ("skyset.adopting.worker",), [tree]) as pool,
        progress_bar(total=count, unit="file", desc="adopt", leave=False) as bar,
    ):
        for dataset in datasets:
            folder = index if len(datasets) == 1 else index / dataset.name
            with Journal(folder) as journal:
                gatherer = Gatherer(dataset, places, journal, pool, all_pixels, strict, bar.update)
                given = declared.of(dataset.name, dataset.root) if declared is not None else None
                found.datasets.append(Adopting(gatherer, folder, about, given, position_unit).run())
    forget(index, {each.folder for each in found.datasets})
    if output:
        note_index(tree, found.name, index)
    return found


def _places(tree: Path) -> Places:
    if not tree.is_dir():
        raise UserError(f"{tree}: there is no such folder")
    return Places(tree)


@dataclass(frozen=True)
class About:
    """What manifests say of the tree and the run."""

    tree: Path
    name: str
    command: tuple[str, ...]


@dataclass
class Examined:
    """What a look at a dataset's files gave: their notes, what is common to them, how they are read, and entries.

    ``times``: when the files were last written to, ns, by path.
    """

    gathered: Gathered
    fold: Fold
    inferred: Inferred
    entries: list[FileEntry]
    times: dict[str, int]


class Adopting:
    """One dataset on its way into an index.

    Args:
        gatherer: of its files.
        folder: of its manifest.
        about: what manifests say.
        given: how it is read, where that is known.
        asked_unit: of positions, by the user.
    """

    def __init__(
        self, gatherer: Gatherer, folder: Path, about: About, given: Inferred | None = None, asked_unit: str = ""
    ) -> None:
        self.gatherer, self.folder, self.about = gatherer, folder, about
        self.given, self.asked_unit = given, asked_unit
        self.dataset: Dataset = gatherer.dataset

    def examine(self) -> Examined:
        """Look at all files, and find what is wrong.

        Raises:
            UserError: none can be adopted, or what the user has to decide.
        """
        given = self.given
        gathered = self.gatherer.gather(field_names(given.form) if given is not None else None)
        fold = gathered.fold
        if fold is None:
            raise UserError(self._nothing(gathered))
        unit = unit_by(given.form) if given is not None else fold.sky.unit(self.asked_unit)
        inferred = given or infer(fold, self.dataset.root, unit, self._title())
        if inferred.form.kind != fold.kind:
            raise UserError(f"{self.dataset.root} holds {fold.kind}, the declaration says {inferred.form.kind}")
        times: dict[str, int] = {}
        entries = self._look_through(gathered, fold, inferred, unit, times)
        return Examined(gathered, fold, inferred, entries, times)

    def run(self) -> AdoptedDataset:
        """Write the dataset's part of the index; the manifest comes last."""
        found = self.examine()
        gathered, inferred, fold = found.gathered, found.inferred, found.fold
        if fold.kind == COLUMNS:
            write_times(self.folder / WRITTEN, found.times)
        else:
            self._write_units(gathered, inferred, [entry.path for entry in found.entries])
        self.dataset.findings.save(self.folder)
        self._manifest(inferred, found.entries, gathered, fold.files).save(self.folder)
        self.gatherer.journal.tidy(gathered.frames)
        splits: Counter[str] = Counter()
        for entry in found.entries:
            splits[entry.split] += entry.rows
        return AdoptedDataset(
            name=self.dataset.name,
            folder=self.folder,
            inferred=inferred,
            rows=fold.rows,
            files=fold.files,
            splits=splits,
            unit=unit_by(inferred.form),
            sampled=fold.rows if fold.is_whole else fold.sampled,
            broken=gathered.broken,
            read=gathered.read,
            findings=self.dataset.findings,
        )

    def _nothing(self, gathered: Gathered) -> str:
        """Why there is no dataset."""
        bad = next((look for looks in self.gatherer.looks(gathered) for look in looks if look.error), None)
        reason = f": {bad.file.path}: {bad.error}" if bad is not None else ""
        return f"{self.dataset.root} has no file that can be adopted{reason}"

    def _title(self) -> str:
        config = "" if self.dataset.name == "default" else f", {self.dataset.name}"
        return f"{self.about.name}{config}: files that were adopted, and are read where they lie"

    def _maker(self, inferred: Inferred) -> Entries:
        return Entries(inferred.survey, inferred.form, self.gatherer.places, self.dataset.folder)

    def _write_units(self, gathered: Gathered, inferred: Inferred, paths: Sequence[str]) -> None:
        looks = (look for some in self.gatherer.looks(gathered) for look in some)
        units = (units_of(run) for run in self._maker(inferred).runs(looks))
        try:
            write_units(self.folder / UNITS, inferred.form, inferred.survey.columns, paths, units)
        except RecordError as error:
            raise UserError(f"{self.dataset.root}: {error}: mend the declaration, or the file") from error

    def _look_through(
        self, gathered: Gathered, fold: Fold, inferred: Inferred, unit: str, times: dict[str, int]
    ) -> list[FileEntry]:
        """The entries, and all findings: the notes of all files are gone through once."""
        findings, ours = self.dataset.findings, cells_are_ours(fold, unit)
        compared: list[tuple[float, float, int]] = []

        def noted(repeats: Repeats) -> Iterator[Look]:
            for number, looks in enumerate(self.gatherer.looks(gathered)):
                note_files(looks, self.gatherer.places, self.dataset, fold.kind, fold.sky.judged > 0)
                for look in looks:
                    if not look.error and look.kind == fold.kind:
                        findings.add_look(look, unit, ours)
                        repeats.add(number, look)
                        times[look.file.path] = look.file.mtime
                        if look.judged and not ours and len(compared) < _COMPARED:
                            compared.append((*look.first, self._cell(look.file.path)))
                yield from looks

        with Repeats(self.dataset.root, inferred) as repeats:
            entries = list(self._maker(inferred).entries(noted(repeats)))
            repeats.find(lambda number: self.gatherer.journal.read(gathered.frames[number]), findings)
        of_all(fold, findings)
        told_of(inferred.findings, findings)
        if fold.sky.judged and not ours:
            findings.add(checks.NOT_HEALPIX, "", self._other_cells(fold, unit, compared))
        return entries

    def _cell(self, path: str) -> int:
        before = f"{self.dataset.folder}/" if self.dataset.folder else ""
        return cell_number(self.gatherer.places.of(before + path).cell, CELLS)

    def _other_cells(self, fold: Fold, unit: str, compared: Sequence[tuple[float, float, int]]) -> str:
        """That folders are called after cells, and not ours."""
        table = np.array(compared, np.float64).reshape(-1, 3)
        factors = FACTORS[unit]
        ra, dec = np.mod(table[:, 0] * factors[0], 360), np.clip(table[:, 1] * factors[1], -90, 90)
        other = cells_alike(ra, dec, table[:, 2].astype(np.int64))
        told = f"they are those of {other}" if other else "nor those of another nside"
        wrong = fold.sky.wrong[unit]
        return f"{wrong:,} of {fold.sky.judged:,} rows are in other cells (nside 16, nested) than their folders say; {told}"

    def _manifest(self, inferred: Inferred, entries: list[FileEntry], gathered: Gathered, files: int) -> Manifest:
        notes = notes_of(inferred.survey)
        notes[ABOUT] = {**notes[ABOUT], "name": self.about.name}
        build = {
            "config": self.dataset.name,
            "command": list(self.about.command),
            "versions": versions(),
            "adopted": inferred.form.to_json(),
            "files": files,
            "findings": {kind: count for kind, count in self.dataset.findings.counts.items() if count},
            **notes,
        }
        return Manifest(
            survey=SURVEY,
            columns=list(inferred.survey.columns),
            key="object_id",
            files=entries,
            sources=[str(self.about.tree)],
            build=build,
            rejected=gathered.broken,
        )
