"""A good partition file: what it holds, and where its structure lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d

from skyset.partitions.layout import COMPRESSIONS, load_filters
from skyset.partitions.writer import PartitionWriter
from skyset.survey import Column

ROWS = 3
SIDE = 64
COLUMNS = (
    Column("id", "S8", (), "", "name"),
    Column("flux", "float32", (3,), "nJy", "flux in three bands"),
    Column("count", "int64"),
    Column("flag", "bool"),
    Column("note", "bytes", (), "", "bytes of any length"),
    Column("image", "uint8", (SIDE, SIDE), "count", "pixels"),
)


def records() -> list[dict]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4, (ROWS, SIDE, SIDE), np.uint8)
    return [
        {
            "id": np.bytes_(f"row-{k}"),
            "flux": np.arange(3) + k,
            "count": 1000 + k,
            "flag": k == 1,
            "note": b"note" * (k + 1),
            "image": pixels[k],
        }
        for k in range(ROWS)
    ]


RECORDS = records()
NOTES = [record["note"] for record in RECORDS]
NOTE = np.frombuffer(b"".join(NOTES), np.uint8)
ENDS = np.cumsum([len(note) for note in NOTES])
#: What lies in the file under each name.
EXPECTED = {c.name: np.array([r[c.name] for r in RECORDS]).astype(c.dtype) for c in COLUMNS if not c.is_bytes}
EXPECTED |= {"note": NOTE, "note_end": ENDS}
IMAGE = EXPECTED["image"]


def write_base(path: Path, compression: str = "none") -> Path:
    with PartitionWriter(path, COLUMNS, ROWS, {"survey": "toy"}, compression) as writer:
        for record in RECORDS:
            writer.append(record)
    return path


class Base:
    """A good file, and where its structure lies: all but pixels, and of a compressed chunk its first bytes."""

    def __init__(self, path: Path):
        self.content = path.read_bytes()
        structure = np.frombuffer(self.content, np.uint8) > 0
        structure[:96] = True
        with h5py.File(path) as file:
            for start, stop in self._pixels(file["image"].id):
                structure[start:stop] = False
        self.structure = np.flatnonzero(structure)

    @staticmethod
    def _pixels(data: h5d.DatasetID) -> Iterator[tuple[int, int]]:
        if data.get_offset() is not None:
            yield data.get_offset(), data.get_offset() + data.get_storage_size()
            return
        for k in range(data.get_num_chunks()):
            chunk = data.get_chunk_info(k)
            yield chunk.byte_offset + 32, chunk.byte_offset + chunk.size


def make_bases(folder: Path) -> list[Base]:
    load_filters(required="this test")
    return [Base(write_base(folder / f"base-{name}.hdf5", name)) for name in COMPRESSIONS]
