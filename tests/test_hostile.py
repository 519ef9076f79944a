"""Partitions and manifests from strangers: the rows, or one line that refuses them. Nothing else, whatever the bytes.

Every case is a number or a name and can be repeated alone. Cases run in worker processes, which may die or hang without
harm; the case that did it is then found. A full run, with a table of outcomes::

    python tests/test_hostile.py --cases 100000
    python tests/test_hostile.py --only 4711 string:vlen     # these cases, in full

What no reader can tell is "other values": bytes were changed inside the pixels, or an offset now points to other bytes
of the same file. The SHA-256 in the manifest tells (``skyset verify``). Here such values must at least have the declared
dtype and shape and come from the file: they never hold what lay in memory, nor a byte of a neighbouring file.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import faulthandler
import gc
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d
from h5py import h5p
from h5py import h5s
from h5py import h5t
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from skyset.errors import PartitionError
from skyset.errors import UserError
from skyset.partitions import partition as partitions
from skyset.partitions.layout import COMPRESSIONS
from skyset.partitions.layout import MANIFEST
from skyset.partitions.layout import PIXELS_FROM
from skyset.partitions.layout import cell_of_path
from skyset.partitions.layout import load_filters
from skyset.partitions.layout import slabs
from skyset.partitions.manifest import FileEntry
from skyset.partitions.manifest import Manifest
from skyset.partitions.partition import Partition
from skyset.partitions.writer import PartitionWriter
from skyset.survey import HEALPIX
from skyset.survey import Column

CI_CASES = 600
BATCH = 150
#: Limits on one case: seconds, and bytes of memory that are touched above what the process had before it.
SECONDS = 10
MEMORY = 64 << 20
ADDRESS_SPACE = 4 << 30

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
#: What lies in the files beside the partition, and in memory that was freed: neither may ever be among the values.
OUTSIDE = b"\xe7OUTSIDE"
MEMORY_MARK = b"\xf3MEMORY\xf5"
ALLOWED = ("right rows", "other values", "refused")


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


# --- mutations ----------------------------------------------------------------------------------------------


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


class Mutator:
    """Damages one base as the case's number says; ``steps`` tells what was done."""

    def __init__(self, case: int, bases: Sequence[Base]):
        self.rng = np.random.default_rng(case)
        self.bases = bases
        which = int(self.rng.integers(len(bases)))
        self.base, self.steps = bases[which], [COMPRESSIONS[which]]
        self.content = bytearray(self.base.content)

    def run(self) -> bytes:
        kinds = [
            self.flip,
            self.word,
            self.word,
            self.byte,
            self.run_of,
            self.resize,
            self.splice,
            self.swap,
            self.copy_word,
        ]
        for _ in range(int(self.rng.choice([1, 1, 1, 2, 3]))):
            kinds[self.rng.integers(len(kinds))]()
        return bytes(self.content)

    def place(self) -> int:
        """Nine times of ten in the structure."""
        if self.rng.random() < 0.9:
            return min(int(self.rng.choice(self.base.structure)), len(self.content) - 1)
        return int(self.rng.integers(len(self.content)))

    def put(self, place: int, data: bytes, what: str) -> None:
        data = data[: len(self.content) - place]
        self.content[place : place + len(data)] = data
        self.steps.append(f"{what} at {place}: {data[:16].hex()}{'...' * (len(data) > 16)} ({len(data)} bytes)")

    def flip(self) -> None:
        place = self.place()
        self.put(place, bytes([self.content[place] ^ 1 << int(self.rng.integers(8))]), "flip")

    def byte(self) -> None:
        self.put(self.place(), bytes([self.rng.choice([0, 1, 2, 3, 4, 7, 16, 0x7F, 0x80, 0xFE, 0xFF])]), "byte")

    def word(self) -> None:
        """A number at the edge of what offsets, sizes and counts can hold."""
        size = int(self.rng.choice([2, 4, 8]))
        end = len(self.content)
        values = [0, 1, 2, 8, 96, end - 1, end, end + 1, end - 4096, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
                  2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 2, 2**64 - 1]  # fmt: skip
        number = int(values[self.rng.integers(len(values))]) % (1 << 8 * size)
        self.put(self.place() // size * size, number.to_bytes(size, "little"), "word")

    def run_of(self) -> None:
        size = int(self.rng.integers(2, 200))
        fills = [bytes(size), b"\xff" * size, self.rng.bytes(size)]
        self.put(self.place(), fills[self.rng.integers(3)], "run")

    def resize(self) -> None:
        """Cut or extend, and half of the time make the superblock agree."""
        end = int(self.rng.choice([self.place(), self.rng.integers(min(96, len(self.content) - 1), len(self.content))]))
        if self.rng.random() < 0.7:
            del self.content[max(end, 1) :]
        else:
            self.content += self.rng.bytes(int(self.rng.integers(1, 9000)))
        self.steps.append(f"resize to {len(self.content)}")
        if self.rng.random() < 0.6 and len(self.content) > 48:
            self.put(40, struct.pack("<Q", len(self.content)), "end of file")

    def splice(self) -> None:
        """A stretch of another file, at its own place or at any."""
        other = self.bases[self.rng.integers(len(self.bases))]
        source, size = int(self.rng.choice(other.structure)), int(self.rng.choice([8, 24, 64, 256, 2048]))
        place = min(source, len(self.content) - 1) if self.rng.random() < 0.5 else self.place()
        self.put(place, other.content[source : source + size], "splice")

    def _words(self) -> tuple[int, int]:
        return tuple(min(self.place() // 8 * 8, len(self.content) // 8 * 8 - 8) for _ in range(2))

    def swap(self) -> None:
        if len(self.content) < 16:
            return
        one, two = self._words()
        first, second = bytes(self.content[one : one + 8]), bytes(self.content[two : two + 8])
        self.put(one, second, "swap")
        self.put(two, first, "swap")

    def copy_word(self) -> None:
        """An offset that is valid, in a wrong place: cycles and things that are taken for others."""
        if len(self.content) >= 16:
            one, two = self._words()
            self.put(one, bytes(self.content[two : two + 8]), "copied word")


# --- files made on purpose ----------------------------------------------------------------------------------

#: hdf5plugin's filters, and those that come with HDF5: shuffle, fletcher32, szip, nbit, scale-offset; h5py's lzf.
PLUGINS = (307, 32001, 32004, 32008, 32013, 32015, 32017, 32018, 32024, 32026, 32028, 32033)
LIBRARY = (2, 3, 4, 5, 6, 32000)
#: Added to a filter's number while the file is made, so that nobody knows the filter and objects to what it gets.
STAND_IN = 33000
#: name -> (what must come of it: "rows", "refused" or "any", function of the path of a good file that it changes).
STRUCTURED: dict[str, tuple[str, Callable[[Path], None]]] = {}


def structured(name: str, expected: str) -> Callable:
    def keep(make: Callable[[Path], None]) -> Callable[[Path], None]:
        STRUCTURED[name] = expected, make
        return make

    return keep


def instead_of_image(name: str, expected: str, make: Callable[[h5py.File], object]) -> None:
    """A file whose ``image`` is what ``make(file)`` puts there."""

    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file["image"]
            make(file)
        content = path.read_bytes()
        for number in (1, 31337, *LIBRARY, *PLUGINS):
            content = content.replace(struct.pack("<HHH", number + STAND_IN, 0, 1), struct.pack("<HHH", number, 0, 1))
        path.write_bytes(content)

    STRUCTURED[name] = expected, change


def instead_of_notes(name: str, expected: str, make: Callable[[h5py.File], object]) -> None:
    """A file whose ``note`` or ``note_end`` are what ``make(file)`` leaves of them."""

    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            make(file)

    STRUCTURED[f"bytes:{name}"] = expected, change


def other(name: str, data=None, **options) -> Callable[[h5py.File], object]:
    """``name`` as another dataset."""

    def make(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=data, **options)

    return make


def beside_image(name: str, make: Callable[[h5py.File], object]) -> None:
    """A good file with something more in it: the rows must come."""

    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            make(file)

    STRUCTURED[name] = "rows", change


def dataset(data=None, shape=None, dtype=None, **options) -> Callable[[h5py.File], object]:
    return lambda file: file.create_dataset("image", shape, dtype, data, **options)


def link(target: object) -> Callable[[h5py.File], None]:
    return lambda file: file.__setitem__("image", target)


def reserve(file: h5py.File, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    """A contiguous dataset whose space is set aside at once: a hole in the file."""
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5d.FILL_TIME_NEVER)
    kind = h5t.py_create(np.dtype(dtype), logical=True)
    h5d.create(file.id, name.encode(), kind, h5s.create_simple(shape), plist)


def raw_chunks(
    chunks: Sequence[bytes],
    filters: Sequence[tuple[int, tuple[int, ...]]] = (),
    mask: int = 0,
    shape: tuple[int, ...] = (1, SIDE, SIDE),
) -> Callable[[h5py.File], None]:
    """``image`` in chunks of one shape, whose bytes are given as if these filters had made them."""

    def make(file: h5py.File) -> None:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk(shape)
        for number, options in filters:
            plist.set_filter(number + STAND_IN, h5py.h5z.FLAG_OPTIONAL, options)
        space = h5s.create_simple(IMAGE.shape, (h5s.UNLIMITED,) * 3)
        data = h5d.create(file.id, b"image", h5t.STD_U8LE, space, plist)
        for k, chunk in enumerate(chunks):
            data.write_direct_chunk((k * shape[0], 0, 0), chunk, mask)

    return make


def declare_links() -> None:
    """Data that lie elsewhere. ``outside.*`` stand beside the partition."""
    targets = {"absolute": "/elsewhere", "relative": "elsewhere", "itself": "/image", "dots": "./../image", "nothing": "/no"}
    for name, target in targets.items():
        instead_of_image(f"soft:{name}", "refused", lambda file, target=target: (
            file.__setitem__("elsewhere", IMAGE), file.__setitem__("image", h5py.SoftLink(target))))  # fmt: skip
    for name, (target, inside) in {
        "relative": ("outside.hdf5", "/image"), "itself": ("case.hdf5", "/image"), "missing": ("nothing.hdf5", "/image"),
        "device": ("/dev/zero", "/"), "dots": ("../../../../etc/passwd", "/x"), "unicode": ("é☃.hdf5", "/image"),
        "url": ("http://127.0.0.1:1/x.hdf5", "/image"), "long": ("x" * 30000, "/image"),
    }.items():  # fmt: skip
        instead_of_image(f"external:{name}", "refused", link(h5py.ExternalLink(target, inside)))
        beside_image(f"external beside:{name}", lambda f, t=target, i=inside: f.__setitem__("more", h5py.ExternalLink(t, i)))
    for name in ("outside.bin", "case.hdf5", "nothing.bin", "/dev/zero"):
        options = {"shape": IMAGE.shape, "dtype": "u1", "external": [(name, 0, IMAGE.nbytes)]}
        instead_of_image(f"storage:{name}", "refused", dataset(**options))
    for name in ("outside.hdf5", ".", "nothing.hdf5"):
        instead_of_image(f"virtual:{name}", "refused", lambda file, name=name: virtual(file, name))


def virtual(file: h5py.File, source: str, name: str = "image", shape: tuple[int, ...] = IMAGE.shape) -> None:
    layout = h5py.VirtualLayout(shape, "u1")
    layout[:] = h5py.VirtualSource(source, name, shape)
    file.create_virtual_dataset(name, layout)


@structured("external:absolute", "refused")
def absolute_link(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["image"]
        file["image"] = h5py.ExternalLink(path.with_name("outside.hdf5"), "/image")


def declare_types() -> None:
    """Something else where pixels should be."""
    rows = range(ROWS)
    text = h5py.string_dtype()
    pair = np.dtype([("a", "u1"), ("b", h5py.string_dtype())])
    for name, make in {
        "references": lambda f: f.create_dataset("image", data=[f.ref] * ROWS, dtype=h5py.ref_dtype),
        "regions": lambda f: f.create_dataset("image", data=[f["flux"].regionref[:]] * ROWS, dtype=h5py.regionref_dtype),
        "vlen text": dataset(["x" * k for k in rows], dtype=text),
        "vlen numbers": lambda f: f.create_dataset("image", (ROWS,), h5py.vlen_dtype("u1")).__setitem__(0, IMAGE[0].ravel()),
        "compound": dataset(np.zeros(IMAGE.shape, pair.descr[0:1])),
        "compound of text": dataset(np.array([(1, "x")] * ROWS, pair)),
        "array": dataset(shape=(ROWS,), dtype=np.dtype(("u1", (SIDE, SIDE)))),
        "opaque": dataset(np.zeros(IMAGE.shape, "V1")),
        "complex": dataset(np.zeros(IMAGE.shape, "c8")),
        "null": dataset(h5py.Empty("u1")),
        "scalar": dataset(np.uint8(1)),
        "flat": dataset(IMAGE.reshape(ROWS, -1)),
        "32 axes": dataset(shape=(1,) * 32, dtype="u1"),
        "no rows": dataset(IMAGE[:0]),
        "no rows, chunks": dataset(IMAGE[:0], chunks=(1, SIDE, SIDE), maxshape=(None, SIDE, SIDE)),
        "named type": lambda f: f.__setitem__("image", np.dtype("u1")),
        "group": lambda f: f.create_group("image"),
        "root": lambda f: f.__setitem__("image", f["/"]),
    }.items():
        instead_of_image(f"type:{name}", "refused", make)
    enum = h5py.enum_dtype({"no": 0, "yes": 1}, basetype="u1")
    instead_of_image("type:enum", "rows", dataset(IMAGE, dtype=enum))
    for width, expected in ((7, "any"), (9, "refused"), (1 << 20, "refused")):
        STRUCTURED[f"text:{width}"] = expected, lambda path, width=width: wide_text(path, f"S{width}")
    STRUCTURED["text:vlen"] = "refused", lambda path: wide_text(path, text)
    STRUCTURED["text:bomb"] = "refused", lambda path: wide_text(path, f"S{64 << 20}", compression="gzip")


def wide_text(path: Path, dtype: object, **options) -> None:
    with h5py.File(path, "r+") as file:
        del file["id"]
        data = file.create_dataset("id", (ROWS,), dtype, chunks=(1,) if options else None, **options)
        for k in range(ROWS):
            data[k] = RECORDS[k]["id"].ljust(20, b"_")


def declare_storage() -> None:
    """Shapes, chunks and fill values that promise what is not there, or more than a reader can hold."""
    many = 10**12
    pixels = {"dtype": "u1", "shape": (many, SIDE, SIDE)}
    row = (1, SIDE, SIDE)
    for name, make in {
        "huge": dataset(**pixels),
        "huge, chunks": dataset(**pixels, chunks=row),
        "huge, one chunk": lambda f: dataset(**pixels, chunks=row)(f).__setitem__(0, IMAGE[0]),
        "fill value": dataset(shape=IMAGE.shape, dtype="u1", fillvalue=7),
        "fill value, chunks": dataset(shape=IMAGE.shape, dtype="u1", fillvalue=7, chunks=row),
        "a row is missing": lambda f: dataset(shape=IMAGE.shape, dtype="u1", chunks=row)(f).__setitem__(0, IMAGE[0]),
        "a chunk far larger than the rows": huge_chunk,
    }.items():
        instead_of_image(f"storage:{name}", "refused", make)
    for name, options in {
        "one chunk": {"chunks": IMAGE.shape}, "lzf": {"compression": "lzf", "chunks": row},
        "two rows a chunk": {"chunks": (2, SIDE, SIDE), "compression": "gzip", "shuffle": True},
        "resizable": {"maxshape": (None,) * 3, "chunks": row},
    }.items():  # fmt: skip
        instead_of_image(f"storage:{name}", "rows", dataset(IMAGE, **options))
    for name, options in {  # good HDF5, but not worth the code to read it safely
        "single values": {"chunks": (1, 1, 7)}, "odd": {"chunks": (2, 5, 63)},
        "checksum": {"fletcher32": True, "chunks": row}, "scale-offset": {"scaleoffset": 0, "chunks": row},
    }.items():  # fmt: skip
        instead_of_image(f"storage:{name}", "refused", dataset(IMAGE, **options))


#: Bytes of zeros that a bomb unpacks to: more than a case may touch.
BOMB = 160 << 20


@cache
def zeros_packed(size: int) -> bytes:
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def huge_chunk(file: h5py.File) -> None:
    raw_chunks([zeros_packed(BOMB)], [(1, (1,))], shape=(BOMB // SIDE**2, SIDE, SIDE))(file)


def declare_filters() -> None:
    """Chunks that are not what their filters say."""
    raw = [row.tobytes() for row in IMAGE]
    deflate = (1, (1,))
    packed = [zlib.compress(chunk) for chunk in raw]
    instead_of_image("filter:unknown", "refused", raw_chunks(raw, [(31337, (1, 2, 3))]))
    instead_of_image("filter:unknown, skipped", "any", raw_chunks(raw, [(31337, ())], mask=1))
    instead_of_image("filter:deflate", "rows", raw_chunks(packed, [deflate]))
    instead_of_image("filter:deflate, skipped", "any", raw_chunks(raw, [deflate], mask=1))
    either = ("long chunk", "deflated to much", "shuffle of huge values", "32 filters")
    for name, chunks, filters, mask in (
        ("short chunk", [b"1234"] * ROWS, [], 0),
        ("long chunk", [chunk * 3 for chunk in raw], [], 0),
        ("short chunk, skipped", [b"1234"] * ROWS, [deflate], 1),
        ("deflated to little", [zlib.compress(b"1234")] * ROWS, [deflate], 0),
        ("deflated to much", [zlib.compress(bytes(5000))] * ROWS, [deflate], 0),
        ("checksum", [chunk + b"abcd" for chunk in raw], [(3, ())], 0),
        ("checksum of nothing", [b"ab"] * ROWS, [(3, ())], 0),
        ("shuffle of huge values", raw, [(2, (1 << 31,))], 0),
        ("32 filters", packed, [deflate] * 32, 0),
    ):
        instead_of_image(f"filter:{name}", "any" if name in either else "refused", raw_chunks(chunks, filters, mask))
    instead_of_image("filter:bomb", "refused", lambda f: raw_chunks([zeros_packed(BOMB)] * ROWS, [deflate])(f))
    nested = lambda f: raw_chunks([zlib.compress(zeros_packed(BOMB))] * ROWS, [deflate, deflate])(f)  # noqa: E731
    instead_of_image("filter:nested bomb", "refused", nested)
    for number in PLUGINS + LIBRARY:
        expected = "any" if number in (2, 3, 32001, 32008) else "refused"
        options = {"no options": (), "zeros": (0,) * 8, "ones": (2**32 - 1,) * 8, "small": (2, 2, 1, 4096, 5, 1, 1)}
        for (name, values), (kind, chunk) in product(
            options.items(), {"garbage": garbage(number, 500), "ff": b"\xff" * 99}.items()
        ):
            instead_of_image(f"filter:{number}, {name}, {kind}", expected, raw_chunks([chunk] * ROWS, [(number, values)]))


def garbage(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def declare_company() -> None:
    """Odd things beside the columns, which are good."""

    def deep(file: h5py.File) -> None:
        group = file
        for _ in range(300):
            group = group.create_group("g")
        group["up"] = file["/"]
        group["image"] = file["image"]

    def many(file: h5py.File) -> None:
        for k in range(500):
            file.create_group(f"group-{k}")

    beside_image("beside:deep groups and a cycle", deep)
    beside_image("beside:many groups", many)
    beside_image(
        "beside:odd names", lambda f: [f.create_group(n) for n in ("é☃\U0001f30c", "..", "a" * 30000, "\n\r\t", "%s%n")]
    )
    beside_image("beside:comment", lambda f: f["image"].attrs.update({"é": "☃", "x" * 5000: [1, 2]}))
    beside_image("beside:second name", lambda f: f.__setitem__("again", f["image"]))
    beside_image("beside:scales", scales)
    beside_image("beside:attribute of 60 kB", lambda f: f["image"].attrs.create("big", np.zeros(60000, "u1")))
    beside_image("beside:attribute that points", lambda f: f.attrs.update({"DIMENSION_LIST": f["image"].ref}))


def scales(file: h5py.File) -> None:
    file["flux"].make_scale("flux")
    for axis in range(3):
        file["image"].dims[axis].attach_scale(file["flux"])


def declare_bytes() -> None:
    """Rows of bytes whose ends do not fit, or whose bytes are not where they should be."""
    last = 2**63 - 1
    for name, ends in {
        "fall": [8, 4, 24], "fall below zero": [-4, 4, 24], "all below zero": [-9, -5, -1], "beyond the end": [4, 12, 25],
        "far beyond": [4, 12, 2**62], "from beyond": [2**40, 2**40, 2**40], "wrap round": [-last - 1, last, 24],
        "largest number": [last] * ROWS,
    }.items():  # fmt: skip
        instead_of_notes(f"ends {name}", "refused", other("note_end", np.array(ends)))
    for name, ends in {"stop early": [0, 4, 8], "are one": [24] * ROWS}.items():
        instead_of_notes(f"ends {name}", "any", other("note_end", np.array(ends)))
    for name, data in {
        "floats": ENDS.astype("f8"), "narrow": ENDS.astype("i4"), "unsigned": ENDS.astype("u8"),
        "big-endian": ENDS.astype(">i8"), "text": ENDS.astype("S8"), "pairs": np.stack([ENDS] * 2, axis=1),
        "fewer": ENDS[:-1], "more": np.append(ENDS, 24),
        "none": ENDS[:0], "one": np.int64(24),
    }.items():  # fmt: skip
        instead_of_notes(f"ends are {name}", "refused", other("note_end", data))
    instead_of_notes("no ends", "refused", lambda file: file.__delitem__("note_end"))
    instead_of_notes("ends in chunks", "rows", other("note_end", ENDS, chunks=(2,), compression="gzip"))
    instead_of_notes("ends never written", "refused", other("note_end", shape=(10**12,), dtype="i8"))
    for name, options in {
        "chunks": {"chunks": (8,)}, "one chunk": {"chunks": NOTE.shape}, "gzip": {"compression": "gzip"},
        "resizable": {"maxshape": (None,)},
    }.items():  # fmt: skip
        instead_of_notes(f"in {name}", "refused", other("note", NOTE, **options))
    for name, data in {
        "signed": NOTE.view("i1"), "wide": NOTE.astype("u2"), "text": NOTE.view("S1"), "opaque": NOTE.view("V1"),
        "two axes": NOTE.reshape(2, -1), "none": NOTE[:0], "cut": NOTE[:-1], "vlen": None,
    }.items():  # fmt: skip
        options = {"shape": (ROWS,), "dtype": h5py.vlen_dtype("u1")} if data is None else {}
        instead_of_notes(f"are {name}", "refused", other("note", data, **options))
    instead_of_notes("more than the rows have", "rows", other("note", np.append(NOTE, NOTE)))
    instead_of_notes("never written", "refused", other("note", shape=(10**12,), dtype="u1"))
    instead_of_notes("in another file", "refused", other("note", shape=NOTE.shape, dtype="u1", external="outside.bin"))
    instead_of_notes("virtual", "refused", lambda f: (f.__delitem__("note"), virtual(f, "outside.hdf5", "note", NOTE.shape)))
    instead_of_notes("soft link", "refused", lambda f: (f.move("note", "far"), f.__setitem__("note", h5py.SoftLink("/far"))))
    instead_of_notes("ends elsewhere", "refused", lambda f: (
        f.__delitem__("note_end"), f.__setitem__("note_end", h5py.ExternalLink("outside.hdf5", "/image"))))  # fmt: skip
    for name, ends, expected in (("one row", [0, 0, 1 << 30], "refused"), ("a hole", [0, 0, 16 << 20], "any")):
        instead_of_notes(f"1 GB, {name}", expected, lambda f, ends=ends: (
            f.__delitem__("note"), reserve(f, "note", "u1", (1 << 30,)), other("note_end", np.array(ends))(f)))  # fmt: skip


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
        "single chunk": {"chunks": IMAGE.shape}, "implicit": {"chunks": (1, SIDE, SIDE)},
        "fixed array": {"chunks": (1, SIDE, SIDE), "compression": "gzip"},
        "extensible array": {"chunks": (1, SIDE, SIDE), "maxshape": (None, SIDE, SIDE)},
        "b-tree 2": {"chunks": (1, SIDE, SIDE), "maxshape": (None, None, SIDE)},
    }.items():  # fmt: skip

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


#: Columns whose names lead somewhere: a manifest may name them.
NAMES = ("more/image", "/more/image", "a\0b", ".", "", "../image", "more/../image", "\ud800", "soft/image")


def odd_name(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["more"] = h5py.ExternalLink("outside.hdf5", "/")
        file["soft"] = h5py.SoftLink("/more")


for _name in NAMES:
    STRUCTURED[f"column:{_name!a}"] = "refused", odd_name

for _declare in (
    declare_links,
    declare_types,
    declare_storage,
    declare_filters,
    declare_company,
    declare_bytes,
    declare_files,
):
    _declare()


# --- one case, in a worker ----------------------------------------------------------------------------------


class Watch:
    """Tells whether somebody opened one of some files: Python (audit hook) or a library (inotify)."""

    IN_OPEN = 0x20

    def __init__(self, paths: Sequence[Path]):
        self._names = {str(path) for path in paths}
        self._seen: list[str] = []
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK)
        for path in paths:
            libc.inotify_add_watch(self._descriptor, os.fsencode(path), self.IN_OPEN)
        sys.addaudithook(self._hook)
        paths[0].read_bytes()
        if len(self.opened()) < 2:
            raise RuntimeError("the watch does not see what is opened")

    def _hook(self, event: str, arguments: tuple) -> None:
        if event == "open" and str(arguments[0]) in self._names:
            self._seen.append("python")

    def opened(self) -> list[str]:
        """Who opened one since the last call."""
        with contextlib.suppress(BlockingIOError):
            self._seen += ["library"] * bool(os.read(self._descriptor, 65536))
        seen, self._seen = self._seen, []
        return seen


class Bench:
    """A folder with the bases and the files that nobody may open; runs cases."""

    def __init__(self, folder: Path):
        self.bases = make_bases(folder)
        self.good = self.bases[0].content
        self.path = folder / "case.hdf5"
        outside = [folder / "outside.bin", folder / "outside.hdf5"]
        outside[0].write_bytes(OUTSIDE * (IMAGE.nbytes // len(OUTSIDE)))
        with h5py.File(outside[1], "w") as file:
            file["image"] = np.frombuffer(outside[0].read_bytes(), np.uint8).reshape(IMAGE.shape)
        self.watch = Watch(outside)
        self.unraisable: list[str] = []
        sys.unraisablehook = lambda hook: self.unraisable.append(f"{type(hook.exc_value).__name__}: {hook.exc_value}")

    def run(self, case: int | str) -> dict:
        """Outcome of one case, as ``{"case", "outcome", "detail", "steps"}``."""
        columns, ways, steps, expected = COLUMNS, [(case, None)], [], "any"
        partitions._layouts.clear()  # a file that is replaced within a tick of the clock would be taken for the last one
        if self.path.is_dir():
            self.path.rmdir()
        self.path.unlink(missing_ok=True)
        if isinstance(case, int):
            mutator = Mutator(case, self.bases)
            self.path.write_bytes(mutator.run())
            steps, ways = mutator.steps, [(case % 4 == 3, ROWS if case % 2 else None)]
        else:
            self.path.write_bytes(self.good)
            expected, make = STRUCTURED[case]
            make(self.path)
            self.watch.opened()
            ways = [(False, None), (False, ROWS), (True, ROWS)]
            if case.startswith("column:"):
                name = next(name for name in NAMES if case == f"column:{name!a}")
                try:
                    columns = (Column(name, "uint8", (SIDE, SIDE)),)
                except ValueError as error:
                    return {"case": case, "outcome": "refused", "detail": str(error), "steps": []}
        outcome, detail = self._worst([self._guarded(columns, *way) for way in ways], expected)
        return {"case": case, "outcome": outcome, "detail": detail, "steps": steps}

    @staticmethod
    def _worst(outcomes: list[tuple[str, str]], expected: str) -> tuple[str, str]:
        wrong = [outcome for outcome in outcomes if outcome[0] not in ALLOWED]
        unexpected = {"rows": lambda o: o != "right rows", "refused": lambda o: o != "refused"}.get(
            expected, lambda o: False
        )
        wrong += [(f"NOT {expected}", ": ".join(o)) for o in outcomes if not wrong and unexpected(o[0])]
        return wrong[0] if wrong else outcomes[0]

    def _guarded(self, columns: Sequence[Column], remote: bool, rows: int | None) -> tuple[str, str]:
        """Read the file within limits, and look at what that left behind."""
        before, memory = open_files(), peak_memory(reset=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            result = self._attempt(columns, remote, rows)
        finally:
            faulthandler.cancel_dump_traceback_later()
        grown = peak_memory() - memory
        if opened := self.watch.opened():
            return "FILE OUTSIDE OPENED", " ".join(opened)
        if grown > MEMORY:
            return "MEMORY", f"{grown >> 20} MB, and {result[0]}: {result[1]}"
        if open_files() > before and (gc.collect(), open_files())[1] > before:
            return "FILE LEFT OPEN", ": ".join(result)
        if self.unraisable:
            return "UNRAISABLE", self.unraisable.pop()
        return result

    def _attempt(self, columns: Sequence[Column], remote: bool, rows: int | None) -> tuple[str, str]:
        where = f"file://{self.path}" if remote else self.path
        try:
            values = read_all(where, columns, rows)
        except (PartitionError, UserError) as error:
            text = str(error)
            return ("refused", text.removeprefix(f"{where}: ")) if "\n" not in text else ("MESSAGE OF MANY LINES", text)
        except Exception as error:
            return f"EXCEPTION {type(error).__name__}", f"{error} {where_raised(error)}"
        return judge(columns, values)


def where_raised(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[1:]
    return f"[{' > '.join(f'{Path(frame.filename).name}:{frame.lineno} {frame.name}' for frame in frames)}]"


def peak_memory(reset: bool = False) -> int:
    """Most memory that this process has touched (since the last reset, where the kernel can)."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
    match = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(match[1]) << 10 if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def leave_marks_in_memory() -> None:
    """Fill memory of the sizes that reading takes, and free it: whoever hands out unset memory hands these out."""
    for size in (64, 128, 512, 1024, 2048, 4096, 4096 * ROWS):
        blocks = [bytearray(MEMORY_MARK * (size // len(MEMORY_MARK) - k % 3)) for k in range(12)]
        del blocks


def read_all(where: str | Path, columns: Sequence[Column], rows: int | None) -> dict[str, np.ndarray]:
    """All columns as skyset reads them: pixels by slabs (the first and the last ones) into one's own memory."""
    leave_marks_in_memory()
    values = {}
    with Partition(where, columns, trusted_rows=rows) as partition:
        for column in columns:
            if column.row_bytes < PIXELS_FROM or column.is_bytes:
                values[column.name] = partition.read(column.name)
                continue
            runs = list(slabs(min(partition.rows, 10**5), column.row_bytes))
            values[column.name] = np.concatenate([read_slab(partition, column, *run) for run in (runs[:1] + runs[1:][-1:])])
        if partition.rows:
            partition.record(partition.rows - 1)
    return values


def read_slab(partition: Partition, column: Column, start: int, stop: int) -> np.ndarray:
    """One slab twice: as a layer of a stack, and into memory of its own; both must say the same."""
    stack = np.frombuffer(bytearray(MEMORY_MARK * ((stop - start) * 2 * column.row_bytes // len(MEMORY_MARK))), column.dtype)
    layer = stack.reshape((stop - start, 2, *column.shape))[:, 1]
    partition.read(column.name, start, stop, out=layer)
    alone = partition.read(column.name, start, stop)
    if layer.tobytes() != alone.tobytes() and column.dtype == "uint8":
        raise AssertionError(f"{column.name} reads otherwise the second time")
    return alone


def judge(columns: Sequence[Column], values: dict[str, np.ndarray]) -> tuple[str, str]:
    for column in columns:
        array = values[column.name]
        if array.dtype != (np.uint8 if column.is_bytes else np.dtype(column.dtype)) or array.shape[1:] != column.shape:
            return "OTHER DTYPE", f"{column.name} is {array.dtype}{array.shape}"
        for mark in (OUTSIDE, MEMORY_MARK):
            if mark in array.tobytes():
                return "BYTES FROM OUTSIDE", f"{column.name} holds {mark!r}"
    same = [c.name in EXPECTED and values[c.name].tobytes() == EXPECTED[c.name].tobytes() for c in columns]
    return ("right rows", "") if all(same) else ("other values", columns[same.index(False)].name)


def work() -> None:
    """Worker: cases as JSON on stdin, a line of JSON for each on stdout."""
    faulthandler.enable()
    cases = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some filters print
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        bench = Bench(Path(folder))
        bench.path.write_bytes(bench.good)  # all that is imported late is imported before memory is measured
        for remote in (False, True):
            bench._guarded(COLUMNS, remote, ROWS)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for case in cases:
            print(json.dumps(bench.run(case)), file=answers, flush=True)


# --- many cases ---------------------------------------------------------------------------------------------


def run_worker(cases: Sequence[int | str], tell: Callable[[dict], object] = lambda result: None) -> tuple[list[dict], str]:
    """Results up to where the worker died, and how it died ("" if it did not)."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
    results = []
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": errors,
            "env": {**os.environ, "TMPDIR": folder},
        }
        with subprocess.Popen(command, text=True, **pipes) as worker:
            worker.stdin.write(json.dumps(list(cases)))
            worker.stdin.close()
            for line in worker.stdout:
                results.append(json.loads(line))
                tell(results[-1])
        errors.seek(0)
        early = worker.returncode or len(results) < len(cases)  # a library may call exit(0)
        return results, how_it_died(worker.returncode, errors.read()) if early else ""


def how_it_died(status: int, text: str) -> str:
    name = "hang" if "Timeout (" in text else signal.Signals(-status).name if status < 0 else f"exit status {status}"
    frames = re.findall(r'File ".*?/([\w.]+)", line (\d+) in (\w+)', text)
    return f"{name}: " + (" < ".join(f"{f}:{n} {w}" for f, n, w in frames[:6]) or text.strip()[-300:])


def guilty(cases: Sequence[int | str]) -> Sequence[int | str]:
    """The shortest end of ``cases``, found by halving, that still kills a worker: damage may show only later."""
    if run_worker(cases[-1:])[1]:
        return cases[-1:]
    while len(cases) > 1 and run_worker(cases[len(cases) // 2 :])[1]:
        cases = cases[len(cases) // 2 :]
    return cases


def run_batch(cases: Sequence[int | str], tell: Callable[[dict], object] = lambda result: None) -> list[dict]:
    """All results; a case that kills its worker is one more outcome, and the rest go on in another worker."""
    results, rest = [], list(cases)
    while rest:
        done, died = run_worker(rest, tell)
        results += done
        if not died:
            break
        blamed = rest[len(done) : len(done) + 1] if died.startswith("hang") else guilty(rest[: len(done) + 1])
        dead = {"case": blamed[-1], "outcome": f"DIED {died.split(':')[0]}", "detail": died, "steps": steps_of(blamed)}
        results.append(dead)
        tell(dead)
        rest = rest[len(done) + 1 :]
    return results


def steps_of(cases: Sequence[int | str]) -> list[str]:
    """What was done to the last of these cases, told without reading it."""
    steps = [f"with the cases before it: {cases[:-1]}"] if len(cases) > 1 else []
    if isinstance(cases[-1], int):
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            mutator = Mutator(cases[-1], make_bases(Path(folder)))
        mutator.run()
        steps += mutator.steps
    return steps


def not_allowed(results: Sequence[dict]) -> list[str]:
    return [
        f"case {r['case']}: {r['outcome']}: {r['detail']}; {'; '.join(map(str, r['steps']))}"
        for r in results
        if r["outcome"] not in ALLOWED
    ]


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="limits, inotify and /proc are those of Linux")


@linux_only
@pytest.mark.parametrize("first", range(0, CI_CASES, BATCH))
def test_mutated_files(first):
    results = run_batch(range(first, first + BATCH))
    assert not not_allowed(results), "\n".join(not_allowed(results))
    assert len(results) == BATCH
    outcomes = Counter(r["outcome"] for r in results)
    assert outcomes["refused"] > BATCH // 3 and outcomes["right rows"] > BATCH // 20  # the cases reach both


@linux_only
@pytest.mark.parametrize("kind", sorted({name.split(":")[0] for name in STRUCTURED}))
def test_files_made_on_purpose(kind):
    cases = [name for name in STRUCTURED if name.split(":")[0] == kind]
    results = run_batch(cases)
    assert not not_allowed(results), "\n".join(not_allowed(results))
    assert len(results) == len(cases)


@linux_only
def test_a_case_that_kills_its_worker_is_found(monkeypatch):
    script = "import json, os, sys\nfor c in json.load(sys.stdin):\n if c == 5: os.abort()\n"
    script += " print(json.dumps({'case': c, 'outcome': 'refused', 'detail': '', 'steps': []}), flush=True)"
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **kwargs: popen([sys.executable, "-c", script], **kwargs))
    results = run_batch(range(9))
    assert [r["case"] for r in results if r["outcome"] == "refused"] == [0, 1, 2, 3, 4, 6, 7, 8]
    (line,) = not_allowed(results)
    assert line.startswith("case 5: DIED SIGABRT")


def test_a_case_is_the_same_every_time(tmp_path):
    bases = make_bases(tmp_path)
    for case in range(20):
        assert Mutator(case, bases).run() == Mutator(case, bases).run()
    assert len({Mutator(case, bases).run() for case in range(20)}) > 15


# --- manifests ----------------------------------------------------------------------------------------------

PATH = "healpix=7/001-of-001.hdf5"
KNOWN = Manifest(
    "toy",
    [Column("object_id", "S8"), Column("ra", "float32"), Column("dec", "float32"), HEALPIX, *COLUMNS],
    "object_id",
    [FileEntry(PATH, "train", 7, ROWS, 9000, "0" * 64, "0" * 16, (1.0, 2.0), (3.0, 4.0))],
    ["http://127.0.0.1/"],
    {"compression": "none"},
)
ODD_PATHS = (
    "../healpix=1/x.hdf5",
    "/etc/passwd",
    "healpix=1/../../x.hdf5",
    "a/healpix=1/../x.hdf5",
    "healpix=1/\0.hdf5",
    "healpix=1/x.hdf5\n",
    "healpix=99999999999999999999/x.hdf5",
    "\\\\host\\healpix=1/x.hdf5",
    "../healpix=1/..hdf5",
    "http://x/healpix=1/x.hdf5",
    "healpix=²/x.hdf5",
    "healpix=٣/x.hdf5",
    "healpix=" + "9" * 5000 + "/x.hdf5",
)
ODD_DTYPES = ("bytes", "bytes_", "O", "V8", "S0", "S", "(2,", "f4,(", "i4,i4", "<u1", ">f8", "S2147483647", "M8[s]", "\0",
              "4f8", None)  # fmt: skip
ODD_NUMBERS = (-1, 0, 0.5, True, 2**31, 2**63, 2**64, 10**400, -(10**400), float("nan"), float("inf"), 1e308, "3", "NaN")
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
odd_value = st.sampled_from([*ODD_PATHS, *ODD_DTYPES, *ODD_NUMBERS, [], {}, "", [[]], [None]]) | anything


def places(value, at: tuple = ()) -> Iterator[tuple]:
    """Paths of keys to all that a JSON value holds."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


GOOD_JSON = json.loads(KNOWN.to_json())
PLACES = sorted(places(GOOD_JSON), key=str)


@st.composite
def manifests(draw) -> str:
    """The JSON of a manifest, one to three of its values replaced, removed or doubled."""
    values = copy.deepcopy(GOOD_JSON)
    for *head, last in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        with contextlib.suppress(LookupError, TypeError, AttributeError):  # it went with what was replaced before
            inner = values
            for key in head:
                inner = inner[key]
            change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
            if change == "replace":
                inner[last] = draw(odd_value)
            elif change == "remove":
                del inner[last]
            else:
                inner.update(more=1) if isinstance(inner, dict) else inner.append(inner[last])
    return json.dumps(values)


def check_manifest(folder: Path, content: bytes) -> None:
    """UserError in one line, or a manifest that is what it says and the same after a round trip."""
    (folder / MANIFEST).write_bytes(content)
    try:
        manifest = Manifest.load(folder)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, str(error)[:300]
        return
    check_types(manifest)
    manifest.save(folder)
    again = Manifest.load(folder)
    assert again.to_json() == manifest.to_json()


def check_types(manifest: Manifest) -> None:
    assert all(isinstance(text, str) for text in (manifest.survey, manifest.key, *manifest.sources)), manifest
    assert isinstance(manifest.build, dict) and isinstance(manifest.sources, list), manifest
    assert all(type(number) is int for number in (manifest.rejected, manifest.nside)), manifest
    for column in manifest.columns:
        assert all(isinstance(text, str) for text in (column.name, column.dtype, column.unit, column.description)), column
        assert 0 < column.row_bytes < 2**63, column
    for entry in manifest.files:
        assert all(isinstance(text, str) for text in (entry.split, entry.sha256, entry.keys)), entry
        assert type(entry.rows) is type(entry.bytes) is type(entry.healpix) is int, entry
        assert 0 <= cell_of_path(entry.path) < 2**63 and ".." not in Path(entry.path).parts, entry
        assert [type(v) for v in (*entry.ra, *entry.dec)] == [float] * 4, entry


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return tmp_path_factory.mktemp("manifests")


def test_good_manifest(shelf):
    check_manifest(shelf, KNOWN.to_json().encode())
    assert Manifest.load(shelf) == KNOWN


@settings(max_examples=400, deadline=None)
@given(text=manifests())
def test_mutated_manifest(shelf, text):
    check_manifest(shelf, text.encode())


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_manifest_of_damaged_bytes(shelf, data):
    content = bytearray(KNOWN.to_json().encode())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    check_manifest(shelf, bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]))


@pytest.mark.parametrize("dtype", ODD_DTYPES)
def test_manifest_with_an_odd_dtype(shelf, dtype):
    values = copy.deepcopy(GOOD_JSON)
    values["columns"][-1]["dtype"] = dtype
    check_manifest(shelf, json.dumps(values).encode())


@pytest.mark.parametrize("path", ODD_PATHS)
def test_manifest_with_an_odd_path(shelf, path):
    values = copy.deepcopy(GOOD_JSON)
    values["files"][0]["path"] = path
    check_manifest(shelf, json.dumps(values).encode())


@pytest.mark.parametrize("place", [("files", 0, "rows"), ("files", 0, "bytes"), ("healpix", "nside"), ("rejected",),
                                   ("columns", -1, "shape", 0), ("files", 0, "ra", 0), ("files", 0, "healpix")])  # fmt: skip
def test_manifest_with_odd_numbers(shelf, place):
    for number in ODD_NUMBERS:
        values = copy.deepcopy(GOOD_JSON)
        *head, last = place
        inner = values
        for key in head:
            inner = inner[key]
        inner[last] = number
        check_manifest(shelf, json.dumps(values).encode())


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"build":{"a":['])
def test_manifest_nested_deeply(shelf, opening):
    check_manifest(shelf, opening.encode() * 200_000)


@pytest.mark.parametrize("name", NAMES)
def test_manifest_whose_column_leads_elsewhere(shelf, name):
    values = copy.deepcopy(GOOD_JSON)
    values["columns"][-1]["name"] = name
    (shelf / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(UserError):
        Manifest.load(shelf)


def test_manifest_that_is_a_folder(tmp_path):
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(UserError):
        Manifest.load(tmp_path)


# --- the full run -------------------------------------------------------------------------------------------


def message_class(result: dict) -> str:
    """A refusal without its numbers and names, so that like ones are counted together."""
    text = re.sub(r"0x[0-9a-f]+|\d+|'[^']*'", "#", result["detail"])
    text = re.sub(r"column \w+", "column *", text)
    return re.sub(r"column \* is (?!missing|not all|a )\S.*", "column * is of another dtype or shape", text)[:70]


def print_table(results: Sequence[dict], seconds: float, top: int = 15) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("outcome", "class", "cases", title=f"{len(results)} cases, {len(results) / seconds:.0f} a second")
    classes = Counter((r["outcome"], message_class(r) if r["outcome"] == "refused" else "") for r in results)
    shown = classes.most_common(top)
    rest = len(results) - sum(count for _, count in shown)
    for (outcome, text), count in [*shown, (("refused and others", f"{max(0, len(classes) - top)} more classes"), rest)]:
        table.add_row(outcome, text, str(count))
    for outcome, count in Counter(r["outcome"] for r in results).most_common():
        table.add_row(f"all {outcome}", "" if outcome in ALLOWED else "NOT ALLOWED", str(count), style="bold")
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Read hostile partitions; exit status 1 if anything not allowed happens.")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", help="these cases alone (numbers or names), each result in full")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work()
        return 0
    if options.only:
        results = run_batch([int(case) if case.isdigit() else case for case in options.only])
        print(*map(json.dumps, results), sep="\n")
        return bool(not_allowed(results))
    return run_all(options)


def run_all(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    last = options.first + options.cases
    batches = [range(k, min(k + 500, last)) for k in range(options.first, last, 500)] + [list(STRUCTURED)]
    with tqdm(total=options.cases + len(STRUCTURED), unit="case", dynamic_ncols=True) as bar:
        with ThreadPoolExecutor(options.processes) as pool:
            results = [
                r for batch in pool.map(lambda cases: run_batch(cases, lambda _: bar.update()), batches) for r in batch
            ]
        seconds = bar.format_dict["elapsed"]
    print_table(results, seconds)
    print(*not_allowed(results), sep="\n")
    return bool(not_allowed(results))


if __name__ == "__main__":
    sys.exit(main())
