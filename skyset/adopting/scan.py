"""What lies in a tree: its files in one order, and which dataset, split and cell each is of by its path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from skyset.errors import UserError

#: How the names of HDF5 files end, in any case.
SUFFIXES = (".hdf5", ".h5", ".hdf")
#: What programs leave beside files that they write, passed over without a word, as hidden files are.
_LOCKS = (".lock",)
#: Splits, as `datasets` calls them, by what folders and the beginnings of files' names call them.
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_BEGINS = re.compile(rf"({'|'.join(SPLITS)})(?=[_.-]|$)", re.IGNORECASE)
_CELL = re.compile(r"healpix=(\w*)", re.IGNORECASE)
#: Folders of files that are parts of one dataset, not datasets: numbers, dates, digits of a hash, ``part-0001``.
_PART = re.compile(
    r"(part|chunk|shard|batch|dir|tile|brick|field|tract|plate)?[-_.=]?[0-9a-f]*[0-9][0-9a-f_.-]*|[0-9a-f]{2}"
)
#: More folders than this are parts as well: nobody has so many datasets in one place.
_MOST_CONFIGS = 64
_LONGEST_NAME, _DEEPEST = 255, 32


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file that may be adopted: its path from the tree on, bytes, and when it was last written to (ns)."""

    path: str
    bytes: int
    mtime: int

    @property
    def stamp(self) -> tuple[int, int]:
        """What tells that somebody has written to it."""
        return self.bytes, self.mtime


class Foreign(NamedTuple):
    """Something that is passed over: where it lies, and what it is."""

    path: str
    what: str


class Place(NamedTuple):
    """What a file's path says.

    Attributes:
        folder: of its dataset (config), from the tree on; ``""`` is the tree itself.
        split: as `datasets` calls it; ``train`` where nothing is said.
        cell: what follows ``healpix=``, which may be no number; None where there is no such folder.
    """

    folder: str
    split: str
    cell: str | None


def files_of(tree: Path) -> Iterator[TreeFile | Foreign]:
    """Everything below a folder, folder by folder in the order of their names, each folder's files before its folders.

    Links are followed, but for one that leads to a folder that it lies in. Memory does not grow with the tree, but for the
    names in one folder.

    Raises:
        UserError: the tree is no folder, or cannot be read.
    """
    if not tree.is_dir():
        raise UserError(f"{tree}: there is no such folder")
    yield from _below(str(tree), "", ())


def _below(tree: str, folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[TreeFile | Foreign]:
    where = os.path.join(tree, folder)
    try:
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in above or len(above) > _DEEPEST:
            yield Foreign(
                folder, "a folder that lies in itself by a link" if len(above) <= _DEEPEST else "too deep a folder"
            )
            return
        with os.scandir(where) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        if not folder:
            raise UserError(f"{tree} cannot be read: {error.strerror or error}") from error
        yield Foreign(folder, f"cannot be read: {error.strerror or error}")
        return
    above = (*above, (status.st_dev, status.st_ino))
    folders = []
    for entry in found:
        path = f"{folder}/{entry.name}" if folder else entry.name
        if not entry.name.isprintable() or len(entry.name.encode(errors="replace")) > _LONGEST_NAME:
            yield Foreign(ascii(path), "a name that is no printable text")
        elif entry.is_dir():
            folders.append(path)
        elif not entry.name.lower().endswith(_LOCKS):
            yield _file(path, entry)
    del found
    for path in folders:
        yield from _below(tree, path, above)


def _file(path: str, entry: os.DirEntry) -> TreeFile | Foreign:
    try:
        if not entry.is_file():
            return Foreign(path, "no regular file")
        if not entry.name.lower().endswith(SUFFIXES):
            return Foreign(path, f"no HDF5 by its name ({', '.join(SUFFIXES)})")
        status = entry.stat()
    except OSError as error:
        return Foreign(path, f"cannot be read: {error.strerror or error}")
    return TreeFile(path, status.st_size, status.st_mtime_ns)


class Places:
    """What the paths of one tree say, once it is known what lies at its root.

    A dataset (config) is the folder above the ``healpix=`` folders. Where there are none, each folder at the root is one,
    unless they are named as the parts of one dataset are (numbers, ``part-001``), or are very many.

    Args:
        tree: the folder.
    """

    def __init__(self, tree: Path) -> None:
        try:
            with os.scandir(tree) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        except OSError as error:
            raise UserError(f"{tree} cannot be read: {error.strerror or error}") from error
        others = [name for name in names if name.lower() not in SPLITS and not _CELL.fullmatch(name)]
        self._parts = len(others) > _MOST_CONFIGS or (bool(others) and all(map(_is_part, others)))

    def of(self, path: str) -> Place:
        folder, _, name = path.rpartition("/")
        config, split, cell = _of_folder(folder, self._parts)
        if found := _BEGINS.match(name):
            split = SPLITS[found[1].lower()]
        return Place(config, split or "train", cell)


def _is_part(name: str) -> bool:
    return _PART.fullmatch(name.lower()) is not None


@lru_cache(1024)
def _of_folder(folder: str, parts: bool) -> tuple[str, str, str | None]:
    """Config, split (may be empty) and cell of the files in a folder."""
    names, split, cell = folder.split("/") if folder else [], "", None
    for number, name in enumerate(names):
        if match := _CELL.fullmatch(name):
            cell, names = match[1], names[:number]
            break
    kept = []
    for name in names:
        if name.lower() in SPLITS:
            split = SPLITS[name.lower()]
            break  # what lies below it are parts of it
        kept.append(name)
    if cell is None:
        kept = [] if parts else kept[:1]
    return "/".join(kept), split, cell


#: Names that no folder of an index can have: those of its files, and of the one dataset of a tree that has one.
_TAKEN = {"default", "manifest.json", "findings.csv", "units.arrow", "adopted.journal", "adopted.lock"}


def config_names(folders: Sequence[str]) -> dict[str, str]:
    """What the datasets of some folders are called: by the folders' names, ``default`` where there is only one."""
    if len(folders) == 1:
        return {folders[0]: "default"}
    names: dict[str, str] = {}
    for folder in folders:
        plain = re.sub(r"[^\w.-]+", "_", folder, flags=re.ASCII).strip("_.-") or "root"
        name, number = plain, 1
        while name in names.values() or name in _TAKEN:
            number += 1
            name = f"{plain}_{number}"
        names[folder] = name
    return names


def cell_number(cell: str | None, cells: int) -> int:
    """The cell that a folder is called after, -1 where that is no number below ``cells``."""
    if cell is None or not cell.isascii() or not cell.isdecimal() or len(cell) > 18:
        return -1
    return int(cell) if int(cell) < cells else -1
