"""Folders of somebody's HDF5 that nobody has adopted: how they are told, and what is said of them."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

from skyset.partitions.layout import JOURNAL, MANIFEST

#: Folders are looked into so deep, and at so many names in each: nobody waits for an answer.
_DEEPEST, _MOST = 4, 200
_HDF5 = (".hdf5", ".h5", ".hdf")
_CELL = re.compile(r"healpix=[0-9]+")


def is_unadopted(folder: str | Path, cells: bool = False) -> bool:
    """Whether a local folder has HDF5 files, and nothing that says that they are ours.

    Args:
        folder: which.
        cells: only where they lie in folders of cells, ``healpix=1234``, as MultimodalUniverse's do.
    """
    folder = os.path.expanduser(str(folder))
    if "://" in folder or not os.path.isdir(folder):
        return False
    if any(os.path.exists(os.path.join(folder, name)) for name in (MANIFEST, JOURNAL)):
        return False
    return _has_files(folder, _DEEPEST, cells)


def _has_files(folder: str, deepest: int, cells: bool) -> bool:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in islice(entries, _MOST) if not entry.name.startswith(".")]
    except OSError:
        return False
    counts = not cells or _CELL.fullmatch(os.path.basename(folder))
    if counts and any(entry.name.lower().endswith(_HDF5) and entry.is_file() for entry in found):
        return True
    below = sorted((entry for entry in found if entry.is_dir()), key=lambda entry: not _CELL.fullmatch(entry.name))
    return deepest > 0 and any(_has_files(entry.path, deepest - 1, cells) for entry in below)


def how_to_adopt(folder: str | Path) -> str:
    """What to do with it, for the end of a sentence."""
    return f"`skyset adopt {folder}` looks through somebody's HDF5 files once, which are read where they lie after that"
