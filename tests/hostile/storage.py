"""Files whose chunks and filters promise what is not there, or more than a reader can hold."""

from __future__ import annotations

import zlib
from functools import cache
from itertools import product

import h5py
import numpy as np

from tests.hostile.good import IMAGE, ROWS, SIDE
from tests.hostile.structured import LIBRARY, PLUGINS, dataset, instead_of_image, raw_chunks


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
        "one chunk": {"chunks": IMAGE.shape},
        "lzf": {"compression": "lzf", "chunks": row},
        "two rows a chunk": {"chunks": (2, SIDE, SIDE), "compression": "gzip", "shuffle": True},
        "resizable": {"maxshape": (None,) * 3, "chunks": row},
    }.items():
        instead_of_image(f"storage:{name}", "rows", dataset(IMAGE, **options))
    for name, options in {  # good HDF5, but not worth the code to read it safely
        "single values": {"chunks": (1, 1, 7)},
        "odd": {"chunks": (2, 5, 63)},
        "checksum": {"fletcher32": True, "chunks": row},
        "scale-offset": {"scaleoffset": 0, "chunks": row},
    }.items():
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


declare_storage()
declare_filters()
