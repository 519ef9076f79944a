"""What is known of an adopted tree before its rows are published: their cells, and whether files are as they were.

A tree's index has no checksums, and what its folders are called need not be the cells that its rows lie in: positions are
read once, and a file is told from a later one by its size and by when it was written.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from skyset.errors import UserError
from skyset.files import short_digest
from skyset.loading.indexes import index_named, manifests_in
from skyset.loading.places import survey_in
from skyset.loading.trees import index_at
from skyset.partitions.manifest import FileEntry
from skyset.partitions.tree.form import ADOPTED
from skyset.partitions.tree.opens import OpensTree
from skyset.publishing.source import Source
from skyset.sky import healpix_cell

#: In the ``build`` of what was pushed: false where rows are not in the order of the cells.
IN_CELLS = "in_cells"


def index_for(given: str | Path) -> Path | None:
    """The index that is meant by a folder, a tree or an index's name; None where there is none."""
    folder = Path(given).expanduser()
    if folder.is_dir():
        is_index = any(survey_in(path.parent) == ADOPTED for path in manifests_in(folder))
        return folder if is_index else index_at(folder)
    return index_named(str(given))


def name_of(source: Source) -> str:
    """What a tree was named when it was adopted."""
    return str(source.manifest.build.get("about", {}).get("name", "")) or ADOPTED


def prepared(source: Source) -> Source:
    """A tree's rows with what has to be known of its files; another survey's source as it is.

    Raises:
        PartitionError: a file is gone, or is not what was adopted.
        UserError: it cannot be looked at.
    """
    if not source.manifest.is_adopted:
        return source
    cells = {entry.path: _cells(source, entry) for entry in source.manifest.files}
    files = [replace(entry, sha256=_stamp(source, entry)) for entry in source.manifest.files]
    in_cells = all(cells[entry.path] == (entry.healpix,) for entry in files)
    build = {**source.manifest.build, **({} if in_cells else {IN_CELLS: False})}
    return replace(source, manifest=replace(source.manifest, files=files, build=build), cells=cells)


def _cells(source: Source, entry: FileEntry) -> tuple[int, ...]:
    """Those that rows of an entry lie in, in ascending order."""
    columns = [source.survey.column(name) for name in ("ra", "dec")]
    (piece,) = source.pieces([entry], 1 << 62)
    opens = source.survey.opens
    assert opens is not None
    with opens(piece.path, columns, piece.rows, piece.bytes) as file:
        ra, dec = (file.read(name).astype(np.float64) for name in ("ra", "dec"))
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    found = np.unique(healpix_cell(ra[good], dec[good], source.manifest.nside)).tolist()
    return tuple(found) or (max(0, entry.healpix),)


def _stamp(source: Source, entry: FileEntry) -> str:
    """What stands in place of a checksum: another one once somebody has written to a file of the entry."""
    path = f"{source.root.rstrip('/')}/{entry.path}"
    opens = source.survey.opens
    try:
        told = [(each, os.stat(each)) for each in (opens.files(path) if isinstance(opens, OpensTree) else [path])]
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    lines = [f"{os.path.relpath(each, source.root)} {status.st_size} {status.st_mtime_ns}" for each, status in told]
    return short_digest("\n".join([entry.path, entry.keys, *lines]))
