"""What a survey's tree is made of: folders, files, storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skyset.testing.mmu.rows import Row, Spot


@dataclass(frozen=True)
class Storage:
    """How datasets lie in a file.

    Attributes:
        compression, level: HDF5's, "" for none.
        chunks: the largest size of a chunk along each axis (rows, and the others), () for h5py's own choice where there
            is compression, and contiguous where there is none.
        resizable: along the first axis.
        encoding: of text of fixed width, "ascii" or "utf-8".
    """

    compression: str = ""
    level: int | None = None
    chunks: tuple[int, ...] = ()
    resizable: bool = False
    encoding: str = "ascii"


CONTIGUOUS = Storage()


@dataclass(frozen=True)
class Layout:
    """The tree of one survey.

    Attributes:
        name: of the survey.
        form: "columns" (one dataset a column), "objects" (one object a file), "groups" (one group an object).
        path: of a file, with {config}, {cell}, {split} in it; {part} (001-of-001), {part4} (0001-of-0001) or {number} (00)
            tell files of one cell apart, {name} files of one object.
        row: what draws an object.
        key: dataset that identifies it.
        configs: folders side by side, the first is what is written unless others are asked for.
        splits: rows of a cell are dealt to them in turn.
        pads: see `skyset.testing.mmu.rows.columns_of`; of light curves in bands by time and the others.
        storage: of the datasets.
        small, full: (pixels of a side, longest spectrum or light curve): by default, and as published.
        masks: datasets that say which pixels are good or bad; flags are numbers of which 0 is good.
        flags: see `masks`.
        ivar: dataset that is an inverse variance, "" for none.
        locks: an empty ``.lock`` lies beside every file.
        width: digits that cells are filled up to with zeros, in `path`.
        about: one line.
    """

    name: str
    form: str
    path: str
    row: Callable[[Spot], Row]
    key: str = "object_id"
    configs: tuple[str, ...] = ("",)
    splits: tuple[str, ...] = ("train",)
    pads: Mapping[str, Any] = field(default_factory=dict)
    storage: Storage = CONTIGUOUS
    small: tuple[int, int] = (0, 0)
    full: tuple[int, int] = (0, 0)
    masks: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    ivar: str = ""
    locks: bool = False
    width: int = 0
    about: str = ""
