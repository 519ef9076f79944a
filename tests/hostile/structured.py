"""Files made on purpose: a case is a name, and what must come of it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from tests.hostile.good import IMAGE, SIDE

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


def virtual(file: h5py.File, source: str, name: str = "image", shape: tuple[int, ...] = IMAGE.shape) -> None:
    layout = h5py.VirtualLayout(shape, "u1")
    layout[:] = h5py.VirtualSource(source, name, shape)
    file.create_virtual_dataset(name, layout)
