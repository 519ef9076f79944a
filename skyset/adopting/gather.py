"""All files of a dataset looked at, in worker processes, and noted: what is noted already is not read again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from skyset.adopting import checks
from skyset.adopting.fields import Names
from skyset.adopting.findings import Findings
from skyset.adopting.fold import Fold
from skyset.adopting.journal import Frame, Journal, stamp_of
from skyset.adopting.look import Look
from skyset.adopting.scan import Foreign, Places, TreeFile, cell_number, files_of
from skyset.adopting.worker import CELLS, Asked, Part, look_at
from skyset.errors import UserError
from skyset.partitions.tree.form import COLUMNS
from skyset.runner import Pool, in_order

#: Files that are looked at together: so many, or of so many bytes.
_FILES, _BYTES = 128, 64 << 20


@dataclass
class Dataset:
    """One dataset (config) of a tree.

    Attributes:
        folder: its folder from the tree on, and ``root``, its absolute path.
        name: of the config.
        files: how many there are.
        findings: on its files.
    """

    folder: str
    root: str
    name: str = ""
    files: int = 0
    findings: Findings = field(default_factory=Findings)


def datasets_in(tree: Path, places: Places) -> list[Dataset]:
    """The datasets of a tree, and what lies beside their files.

    Raises:
        UserError: there is no HDF5 file.
    """
    found: dict[str, Dataset] = {}
    foreign: list[Foreign] = []
    others = Findings()
    for each in files_of(tree):
        folder = places.of(each.path).folder
        if isinstance(each, TreeFile):
            if folder not in found:
                found[folder] = Dataset(folder, str(tree / folder) if folder else str(tree), findings=Findings(folder))
            found[folder].files += 1
        elif len(foreign) < 1000:
            foreign.append(each)
        else:
            others.counts[checks.FOREIGN] += 1
    if not found:
        more = f"; {foreign[0].path}: {foreign[0].what}" if foreign else ""
        if any(each.path.lower().endswith(".parquet") for each in foreign):
            more = f"; Parquet needs no index: skyset.load({str(tree)!r}) reads it as it is"
        raise UserError(f"{tree} has no HDF5 file (.hdf5, .h5, .hdf){more}")
    first = next(iter(found.values()))
    first.findings.counts += others.counts
    for each in foreign:
        home = found.get(places.of(each.path).folder, first)
        home.findings.beside(checks.FOREIGN, each.path, each.what)
    return list(found.values())


def parts_of(dataset: Dataset, places: Places) -> Iterator[Part]:
    """The files of a dataset, their paths from its folder on, each with what its folder says of its cell."""
    before = f"{dataset.folder}/" if dataset.folder else ""
    for each in files_of(Path(dataset.root)):
        if isinstance(each, TreeFile):
            place = places.of(before + each.path)
            if place.folder == dataset.folder:
                yield each, place.cell


def batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Files that are looked at by one task."""
    batch: list[Part] = []
    left = _BYTES
    for part in parts:
        batch.append(part)
        left -= part[0].bytes
        if left < 0 or len(batch) == _FILES:
            yield batch
            batch, left = [], _BYTES
    if batch:
        yield batch


@dataclass
class Gathered:
    """What is known of a dataset's files.

    Attributes:
        frames: where their notes lie, in the files' order.
        folds: what they have in common, by kind.
        broken: files that cannot be read.
        read: files that were looked at just now; the others were noted before.
        unfit: files that are left out for what the others have, with the reason.
    """

    frames: list[Frame] = field(default_factory=list)
    folds: dict[str, Fold] = field(default_factory=dict)
    broken: int = 0
    read: int = 0
    unfit: dict[str, str] = field(default_factory=dict)

    def add(self, looks: Iterable[Look]) -> None:
        for look in looks:
            self.broken += look.is_broken
            if look.rows:
                self.folds.setdefault(look.kind, Fold(look.kind)).add(look)

    @property
    def fold(self) -> Fold | None:
        """That of the kind that most files are of; None without any."""
        return max(self.folds.values(), key=lambda fold: fold.files, default=None)


@dataclass(frozen=True)
class _Task:
    """Files to look at, and the place of their frame."""

    place: int
    parts: tuple[Part, ...]


class Gatherer:
    """Looks at the files of a dataset.

    Args:
        dataset: which.
        places: of its tree.
        journal: of its index.
        pool: where files are looked at.
        all_values: every value is looked at.
        strict: a file that cannot be read ends it.
        progress: called with numbers of files that are done.
    """

    def __init__(
        self,
        dataset: Dataset,
        places: Places,
        journal: Journal,
        pool: Pool,
        all_values: bool = False,
        strict: bool = False,
        progress: Callable[[int], object] = lambda count: None,
    ) -> None:
        self.dataset, self.places, self.journal, self.pool = dataset, places, journal, pool
        self.asked = Asked(dataset.root, None, all_values)
        self.strict, self.progress = strict, progress

    def gather(self, names: Names | None = None) -> Gathered:
        """Look at all files.

        Args:
            names: the fields of id and position; None: by their usual names, the same in all files.

        Raises:
            UserError: strict, and a file cannot be read.
        """
        gathered = self._gather(names)
        fold = gathered.fold
        if names is None and fold is not None and len(fold.names) > 1:
            names = max(fold.names, key=lambda each: fold.names[each])
            gathered = self._again(gathered, fold.kind, names)
        return self._without_unfit(gathered)

    def _without_unfit(self, gathered: Gathered) -> Gathered:
        """The same without files of columns one of which cannot be read there, or has other rows, and can in most files."""
        fold = gathered.fold
        if fold is None or fold.kind != COLUMNS or not (sound := fold.mostly_sound):
            return gathered
        again = Gathered(gathered.frames, read=gathered.read)
        for look in (look for looks in self.looks(gathered) for look in looks if look.kind == COLUMNS):
            if (name := next((name for name in look.left_out if name in sound), None)) is not None:
                again.unfit[look.file.path] = f"{name}, which most files have as a column: {look.left_out[name]}"
                if self.strict:
                    raise UserError(f"{self.dataset.root}/{look.file.path}: {again.unfit[look.file.path]}")
        for looks in self.looks(again):
            again.add(looks)
        return again

    def _gather(self, names: Names | None) -> Gathered:
        gathered = Gathered()
        known: dict[int, tuple[dict[str, Look], list[TreeFile]]] = {}
        asked = replace(self.asked, names=names)

        def tasks() -> Iterator[_Task]:
            for batch in batches(parts_of(self.dataset, self.places)):
                files = [file for file, _ in batch]
                frame = self.journal.find(stamp_of(files, names, asked.all_values))
                looks = self._noted(frame)
                gathered.frames.append(frame or Frame("", -1, 0, 0))
                if frame is not None and looks is not None:
                    self._take(gathered, looks)
                    continue
                place = len(gathered.frames) - 1
                known[place] = self.journal.known(files, names, asked.all_values), files
                yield _Task(place, tuple(part for part in batch if part[0].path not in known[place][0]))

        for task, looks in in_order(self.pool, functools.partial(_run, asked), tasks()):
            before, files = known.pop(task.place)
            found = {**before, **{look.file.path: look for look in looks}}
            ordered = [found[file.path] for file in files]
            gathered.frames[task.place] = self.journal.append(ordered, names, asked.all_values)
            gathered.read += len(looks)
            self._take(gathered, ordered)
        return gathered

    def _noted(self, frame: Frame | None) -> Sequence[Look] | None:
        if frame is None:
            return None
        try:
            return self.journal.read(frame)
        except (ValueError, LookupError, TypeError):
            return None

    def _take(self, gathered: Gathered, looks: Sequence[Look]) -> None:
        if self.strict and (bad := next((look for look in looks if look.is_broken), None)):
            raise UserError(f"{self.dataset.root}/{bad.file.path}: {bad.error}")
        gathered.add(looks)
        self.progress(len(looks))

    def _again(self, gathered: Gathered, kind: str, names: Names) -> Gathered:
        """Look once more at the files whose id or position has another name: by the name that most have."""
        again, asked = Gathered(read=gathered.read), replace(self.asked, names=names)
        for frame in gathered.frames:
            looks = list(self.journal.read(frame))
            odd = {number for number, look in enumerate(looks) if look.kind == kind and look.names != names}
            if odd:
                parts = [(looks[number].file, self._cell(looks[number].file)) for number in sorted(odd)]
                for number, look in zip(sorted(odd), self.pool.submit(look_at, asked, parts).result(), strict=True):
                    looks[number] = look
                frame = self.journal.append(looks, names, asked.all_values)
            again.frames.append(frame)
            again.add(looks)
        return again

    def _cell(self, file: TreeFile) -> str | None:
        before = f"{self.dataset.folder}/" if self.dataset.folder else ""
        return self.places.of(before + file.path).cell

    def looks(self, gathered: Gathered) -> Iterator[list[Look]]:
        """The notes of all files, frame by frame."""
        for frame in gathered.frames:
            looks = self.journal.read(frame)
            if gathered.unfit:
                reasons = [gathered.unfit.get(look.file.path, "") for look in looks]
                looks = [
                    Look(look.file, error=reason) if reason else look for look, reason in zip(looks, reasons, strict=True)
                ]
            yield looks


def _run(asked: Asked, task: _Task) -> list[Look]:
    return look_at(asked, task.parts)


def note_files(looks: Iterable[Look], places: Places, dataset: Dataset, kind: str, in_cells: bool) -> None:
    """Findings of files as such: broken ones, those of another kind, folders that are no cells.

    Args:
        looks: of the files.
        places: of their tree.
        dataset: theirs.
        kind: that most of them are of.
        in_cells: others lie in folders of cells.
    """
    before = f"{dataset.folder}/" if dataset.folder else ""
    for look in looks:
        path = look.file.path
        if look.error:
            dataset.findings.add(checks.BROKEN if look.is_broken else checks.FOREIGN, path, look.error)
            continue
        if look.kind != kind:
            what = f"a file of {look.kind}, where its fellows are of {kind}: left out"
            dataset.findings.add(checks.FOREIGN, path, what)
        cell = places.of(before + path).cell
        if cell is not None and cell_number(cell, CELLS) < 0:
            what = f"healpix={cell} is no HEALPix cell of nside 16 (0 to {CELLS - 1})"
            dataset.findings.add(checks.NOT_HEALPIX, path, what)
        elif cell is None and in_cells:
            what = "lies in no folder healpix=<cell>, as its fellows do"
            dataset.findings.add(checks.NOT_HEALPIX, path, what)
