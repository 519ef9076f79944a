"""Files of another make than ours, or no regular files at all."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.hostile.good import EXPECTED, IMAGE, SIDE
from tests.hostile.structured import STRUCTURED, reserve, structured


def rewritten(name: str, options: dict, change: Callable[[h5py.File], object] = lambda file: None, expected="rows") -> None:
    """The rows in a file of another make than ours."""

    def make(path: Path) -> None:
        with h5py.File(path, "w", **options) as file:
            for column, values in EXPECTED.items():
                file[column] = values
            change(file)

    STRUCTURED[f"file:{name}"] = expected, make


def declare_files() -> None:
    rewritten("latest", {"libver": "latest"})
    rewritten("earliest", {"libver": "earliest"})
    rewritten("order", {"track_order": True})
    rewritten("user block", {"userblock_size": 512})
    rewritten("user block of 1 MB", {"userblock_size": 1 << 20})
    rewritten("paged", {"fs_strategy": "page", "fs_page_size": 4096, "fs_persist": True, "libver": "latest"})
    rewritten("5 MB attribute", {"libver": "latest"}, lambda f: f.attrs.create("big", np.zeros(5 << 20, "u1")))
    rewritten("2000 attributes", {"libver": "latest"}, lambda f: [f["image"].attrs.create(f"a{k}", k) for k in range(2000)])
    for name, extra in {
        "single chunk": {"chunks": IMAGE.shape},
        "implicit": {"chunks": (1, SIDE, SIDE)},
        "fixed array": {"chunks": (1, SIDE, SIDE), "compression": "gzip"},
        "extensible array": {"chunks": (1, SIDE, SIDE), "maxshape": (None, SIDE, SIDE)},
        "b-tree 2": {"chunks": (1, SIDE, SIDE), "maxshape": (None, None, SIDE)},
    }.items():

        def change(file: h5py.File, extra=extra) -> None:
            del file["image"]
            file.create_dataset("image", data=IMAGE, **extra)

        rewritten(name, {"libver": "latest"}, change)


def all_rows(path: Path, count: int) -> None:
    with h5py.File(path, "w") as file:
        for name, values in EXPECTED.items():
            reserve(file, name, values.dtype, (count, *values.shape[1:]))


@structured("size:1 GB that is a hole", "any")
def sparse(path: Path) -> None:
    all_rows(path, 1 << 18)


def _cut(path: Path, rows: int) -> None:
    """Columns that end far beyond the file, which says that it is complete."""
    all_rows(path, rows)
    os.truncate(path, 16384)
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(struct.pack("<Q", 16384))


for _rows in (10**5, 10**7, 10**9):
    STRUCTURED[f"size:{_rows} rows beyond the end"] = "refused", lambda path, rows=_rows: _cut(path, rows)


@structured("file:left open by its writer", "refused")
def left_open(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        for column, values in EXPECTED.items():
            file[column] = values
    with open(path, "r+b") as file:
        file.seek(11)
        file.write(b"\x05")


@structured("file:named pipe", "refused")
def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@structured("file:device", "refused")
def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@structured("file:folder", "refused")
def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


declare_files()
