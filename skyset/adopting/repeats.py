"""Ids that several rows of a dataset have: by their digests first, which are on disk where they are many, then by value."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from skyset.adopting import checks
from skyset.adopting.findings import EXAMPLES, Findings
from skyset.adopting.infer import Inferred
from skyset.adopting.look import Finding, Look
from skyset.adopting.reading import TreeHDF5
from skyset.adopting.worker import texts_of
from skyset.errors import PartitionError
from skyset.partitions.tree.form import COLUMNS
from skyset.partitions.tree.structure import DAMAGE
from skyset.partitions.twice import Digests

#: Files that are read again for examples.
_FILES = 64


class Repeats:
    """Finds ids that come twice.

    Args:
        root: the folder of the dataset's files.
        inferred: how it is read.
    """

    def __init__(self, root: str, inferred: Inferred) -> None:
        self._root, self._inferred = root, inferred
        self._digests = Digests()

    def __enter__(self) -> Repeats:
        return self

    def __exit__(self, *error: object) -> None:
        self._digests.__exit__(*error)

    def add(self, frame: int, look: Look) -> None:
        """A file, of the frame of this number."""
        self._digests.add(frame, look.digests)

    def find(self, frame: Callable[[int], Iterable[Look]], findings: Findings) -> None:
        """Count the rows whose id another row has too, and show some.

        Args:
            frame: the notes of the files of a frame.
            findings: that are added to.
        """
        common, frames = self._digests.twice()
        if not common:
            return
        which = np.fromiter(common, "<u8", len(common))
        seen: dict[str, str] = {}
        shown = files = 0
        for number in frames:
            for look in frame(number):
                rows = np.flatnonzero(np.isin(look.digests, which))
                findings.counts[checks.TWICE] += len(rows)
                if not len(rows) or files >= _FILES or shown >= EXAMPLES:
                    continue
                files += 1
                for row, text in self._ids(look, rows):
                    where = f"{look.file.path}, row {row}"
                    if text in seen:
                        findings.show(look.file.path, Finding(checks.TWICE, row, text, f"is the id of {seen[text]} too"))
                        shown += 1
                    seen.setdefault(text, where)

    def _ids(self, look: Look, rows: np.ndarray) -> Iterator[tuple[int, str]]:
        """Some rows with their ids, which are read again."""
        if look.names is None or not look.names.id:
            return
        if self._inferred.form.kind != COLUMNS:
            yield from self._of_objects(look, rows.tolist())
            return
        try:
            with TreeHDF5(os.path.join(self._root, look.file.path)) as file:
                ids = file.read(file.fields()[look.names.id])
                yield from zip(rows.tolist(), texts_of(ids[rows]), strict=True)
        except (PartitionError, *DAMAGE):
            return  # written to since it was looked at: the next run sees that

    def _of_objects(self, look: Look, rows: Sequence[int]) -> Iterator[tuple[int, str]]:
        assert look.names is not None
        for row in rows:
            value = look.units[row].values.get(look.names.id)
            if value is not None:
                yield row, texts_of(value.reshape(-1))[0]
