"""``findings.csv``: what is wrong with a tree's rows and files, all counted, and some of each kind shown."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from skyset.adopting import checks
from skyset.adopting.fold import Fold
from skyset.adopting.look import Finding, Look
from skyset.files import write_atomically
from skyset.messages import counted, csv_cell

FINDINGS = "findings.csv"
COLUMNS = ("kind", "file", "row", "object_id", "what")
#: Of each kind as many are listed.
EXAMPLES = 200
#: Light curves without any value in a band are usual: it is one that none of so many has that is told.
_CURVES = 10
#: Files whose ids begin alike, and rows whose ids are their numbers, are no chance from so many on.
_FILES, _ROWS = 2, 10
_MOSTLY = 0.5


class Findings:
    """Findings of one dataset.

    Args:
        folder: the dataset's, from the tree on: files are named from the tree on, whatever dataset they are of.

    Attributes:
        counts: all of each kind.
    """

    def __init__(self, folder: str = "") -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self._shown: dict[str, list[tuple[str, Finding]]] = {}

    def add(self, kind: str, file: str, what: str, row: int = -1, object_id: str = "", count: int = 1) -> None:
        """One finding, or a number of them of which one is shown."""
        self.counts[kind] += count
        self.show(file, Finding(kind, row, object_id, what))

    def beside(self, kind: str, path: str, what: str) -> None:
        """A finding on something in the tree that is of no dataset, by its path from the tree on."""
        self.counts[kind] += 1
        self._show(path, Finding(kind, -1, "", what))

    def show(self, file: str, finding: Finding) -> None:
        """An example of what is counted elsewhere; of the file of that path from the dataset's folder on."""
        self._show(f"{self.folder}/{file}" if self.folder and file else file, finding)

    def _show(self, file: str, finding: Finding) -> None:
        shown = self._shown.setdefault(finding.kind, [])
        if len(shown) < EXAMPLES:
            shown.append((file, finding))

    def add_look(self, look: Look, unit: str, cells_are_ours: bool) -> None:
        """What was found in a file.

        Args:
            look: of the file.
            unit: of positions.
            cells_are_ours: folders are HEALPix cells as ours are: rows in others are findings.
        """
        for kind, count in look.counts.items():
            self.counts[kind] += count
        for finding in look.found:
            self.show(look.file.path, finding)
        if cells_are_ours and look.wrong.get(unit):
            self.counts[checks.WRONG_CELL] += look.wrong[unit]
            for finding in look.strays.get(unit, []):
                self.show(look.file.path, finding)

    def lines(self) -> list[str]:
        """How many of each kind, in words."""
        return [checks.told(kind, self.counts[kind]) for kind in checks.KINDS if self.counts[kind]]

    def examples(self, most: int) -> list[str]:
        """Some findings in words, of each kind in turn, broken files first."""
        kinds = [kind for kind in (checks.BROKEN, *checks.KINDS) if self._shown.get(kind)]
        chosen: dict[str, int] = dict.fromkeys(kinds, 0)
        for turn in range(EXAMPLES):
            for kind in chosen:
                chosen[kind] += sum(chosen.values()) < most and turn < len(self._shown[kind])
        return [
            ", ".join([kind, *filter(None, [file, f"row {each.row}" if each.row >= 0 else "", each.object_id])])
            + f": {each.what}"
            for kind, count in chosen.items()
            for file, each in self._shown[kind][:count]
        ]

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def text(self) -> str:
        """The contents of ``findings.csv``."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for kind in checks.KINDS:
            shown = self._shown.get(kind, [])
            for file, finding in shown:
                row = "" if finding.row < 0 else finding.row
                writer.writerow([kind, csv_cell(file), row, csv_cell(finding.object_id), csv_cell(finding.what)])
            if (more := self.counts[kind] - len(shown)) > 0:
                writer.writerow([kind, "", "", "", f"and {more:,} more"])
        return stream.getvalue()

    def save(self, folder: Path) -> None:
        write_atomically(folder / FINDINGS, self.text())


def of_all(fold: Fold, findings: Findings) -> None:
    """Add what only all files together tell: ids that are no names, bands that nothing has, flags that say the opposite."""
    if (most := max(fold.starts.values(), default=0)) >= _FILES:
        start = max(fold.starts, key=lambda start: fold.starts[start])
        what = f"ids count up from {start} in each of {counted(most, 'file')}: they are numbers of rows, not names"
        findings.add(checks.UNSTABLE, "", what)
    elif fold.integers and fold.lowest in (0, 1) and fold.rows >= _ROWS and fold.highest - fold.lowest == fold.rows - 1:
        what = f"ids are the numbers from {fold.lowest} to {fold.highest}, one for each row: another build has others"
        findings.add(checks.UNSTABLE, "", what)
    if fold.hashed:
        path, lowest = fold.hashed_example
        what = (
            f"ids from {lowest} on, in {counted(fold.hashed, 'file')}: as if Python's hash of a text had been added to "
            "numbers, which is another one in each process"
        )
        findings.add(checks.UNSTABLE, path, what)
    for name, bands in fold.bands.items():
        if bands.rows >= _CURVES and any(bands.filled) and not all(bands.filled):
            empty = ", ".join(map(str, np.flatnonzero(~np.array(bands.filled))))
            what = (
                f"{name}: band {empty} of {len(bands.filled)} has no value in any of {counted(bands.rows, 'row')} looked at"
            )
            findings.add(checks.EMPTY_BAND, "", what)
    for name, (true, rows) in fold.flags.items():
        if checks.says_success(true, rows):
            what = f"{name} is set in {true:,} of {rows:,} rows: it should tell failures, and seems to tell success"
            findings.add(checks.INVERTED, "", what)


def cells_are_ours(fold: Fold, unit: str) -> bool:
    """Whether folders are called after the HEALPix cells of their rows, but for some rows."""
    return fold.sky.judged > 0 and fold.sky.wrong[unit] <= _MOSTLY * fold.sky.judged


def cells_alike(ra: np.ndarray, dec: np.ndarray, cells: np.ndarray) -> str:
    """Which cells folders are called after, if not ours: ``nside 32, ring``; ``""`` where none fit.

    Args:
        ra, dec: degrees, of one row of each of some files.
        cells: their folders' numbers.
    """
    from astropy import units
    from astropy_healpix import lonlat_to_healpix

    for order in ("nested", "ring"):
        for nside in (2**k for k in range(13)):
            found = lonlat_to_healpix(ra * units.deg, dec * units.deg, nside, order=order)
            if len(cells) and (found == cells).mean() > 0.9:
                return f"nside {nside}, {order}"
    return ""


def told_of(findings: Iterable[tuple[str, ...]], into: Findings) -> None:
    """Add findings of fields: (kind, what), or (kind, what, the path of a file that is an example)."""
    for kind, what, *file in findings:
        into.add(kind, "".join(file), what)
