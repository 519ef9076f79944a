"""Compressed chunks of HDF5 files, unpacked without trusting them.

HDF5 hands a chunk to its filters as it is, and filters believe what the file says of itself: wrong parameters crash the
process, and a short chunk shows what lay in memory. Therefore only the pipelines that are known here are read, their
parameters must fit the dataset, and a chunk must unpack to just its size.
"""

from __future__ import annotations

import functools
import itertools
import math
import struct
from collections.abc import Callable, Iterable, Sequence

import h5py
import numpy as np
from isal import isal_zlib

from skyset.errors import SkysetError
from skyset.partitions.threads import in_threads

DEFLATE, SHUFFLE, LZF, BLOSC, BITSHUFFLE = 1, 2, 32000, 32001, 32008
_PIPELINES = {(), (DEFLATE,), (SHUFFLE, DEFLATE), (LZF,), (SHUFFLE, LZF), (BLOSC,), (BITSHUFFLE,)}
#: No chunk unpacks to more than this, unless it is a single row.
MAX_CHUNK_BYTES = 64 << 20
_OVERHEAD = 1 << 16
#: Chunks of a dataset that are asked for one by one, before all are; no more than so many.
_ONE_BY_ONE, _MOST_FOUND = 64, 1 << 20
#: Bytes for which several threads are worth their while.
_FOR_THREADS = 256 << 10
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Unsound(SkysetError, ValueError):
    """What a file says of itself does not fit together."""


def check_filters(properties: h5py.h5p.PropDCID, shape: tuple[int, ...], dtype: np.dtype, whole_rows: bool = True) -> None:
    """Raise Unsound unless chunks are packed in a way that is known here, and of whole rows where they must be."""
    chunk = properties.get_chunk()
    filters = [properties.get_filter(number) for number in range(properties.get_nfilters())]
    codes = tuple(code for code, *_ in filters)
    if (whole_rows and chunk[1:] != shape[1:]) or not 0 < chunk[0] <= max(1, shape[0]):
        raise Unsound(f"chunks of {chunk} in {shape}: only chunks of whole rows are read")
    size = dtype.itemsize * math.prod(chunk)
    if chunk[0] > 1 and size > MAX_CHUNK_BYTES:
        raise Unsound(f"chunks of {size} bytes")
    if codes not in _PIPELINES:
        raise Unsound(f"packed by HDF5 filters {codes}: only gzip, lzf, blosc and bitshuffle are read")
    for code, _, values, _ in filters:
        if not _fits(code, values, dtype.itemsize, size):
            raise Unsound(f"parameters {values} of HDF5 filter {code} do not fit chunks of {size} bytes")


def _fits(code: int, values: tuple[int, ...], itemsize: int, size: int) -> bool:
    """Whether a filter's parameters are those of its writers for chunks of ``size`` bytes."""
    if code == DEFLATE:
        return len(values) == 1 and values[0] <= 9
    if code == SHUFFLE:
        return values == (itemsize,)
    if code == LZF:
        return len(values) == 3 and values[2] == size
    if code == BLOSC:  # versions of filter and blosc, bytes a value, bytes a chunk, level, shuffle, compressor
        return len(values) == 7 and values[2:4] == (itemsize, size) and values[4] <= 9 and values[5] <= 2 and values[6] <= 5
    # bitshuffle: version (2 numbers), bytes a value, values a block (0: chosen), 2 = lz4, 3 = zstd and its level
    return (
        len(values) in (5, 6)
        and values[2] == itemsize
        and values[3] <= 1 << 20
        and values[3] % 8 == 0
        and values[4] in (2, 3)
    )


def unpacked_rows(data: h5py.h5d.DatasetID, first: int, out: np.ndarray, read: Callable[[int, int], bytes]) -> None:
    """Rows of a dataset that is read once; see ``Chunks.rows``."""
    Chunks(data).rows(first, out, read)


def chunk_places(data: h5py.h5d.DatasetID, firsts: Iterable[int]) -> list[tuple[int, int]]:
    """Where the chunks lie that begin at these rows, (offset, bytes) in the file; without those longer than one can be."""
    chunk, shape = data.get_create_plist().get_chunk(), data.shape
    most = 2 * data.dtype.itemsize * math.prod(chunk) + _OVERHEAD
    steps = [range(0, size, step) for size, step in zip(shape[1:], chunk[1:], strict=True)]
    places = [data.get_chunk_info_by_coord(corner) for corner in itertools.product(firsts, *steps)]
    return [(place.byte_offset, place.size) for place in places if place.byte_offset is not None and place.size <= most]


class Chunks:
    """The chunks of a dataset that ``check_filters`` let pass; where they lie is asked for once.

    Args:
        data: the dataset.
    """

    def __init__(self, data: h5py.h5d.DatasetID):
        properties = data.get_create_plist()
        self._data, self._dtype, self._shape = data, data.dtype, data.shape
        self._chunk: tuple[int, ...] = properties.get_chunk()
        self._bytes = self._dtype.itemsize * math.prod(self._chunk)
        self._codes = tuple(properties.get_filter(number)[0] for number in range(properties.get_nfilters()))
        self._found: dict[tuple[int, ...], h5py.h5d.StoreInfo] | None = None
        self._asked = 0

    def rows(self, first: int, out: np.ndarray, read: Callable[[int, int], bytes], at_once: bool = False) -> None:
        """Rows from ``first`` on, all of one row of chunks, into ``out`` (rows, *shape); the chunks may be parts of rows.

        Args:
            first: the first row.
            out: what takes them.
            read: gives bytes of the file, by offset and number.
            at_once: ``read`` may be called by several threads.

        Raises:
            Unsound: a chunk does not unpack to just its size.
        """
        corner = first // self._chunk[0] * self._chunk[0]
        rows = slice(first - corner, first - corner + len(out))
        places = [self._place((corner, *place)) for place, _, _ in self._windows]
        jobs = list(zip(self._windows, places, strict=True))

        def unpack(some: Sequence) -> None:
            for (place, window, inside), info in some:
                out[(slice(None), *window)] = self._unpacked((corner, *place), info, read)[(rows, *inside)]

        if at_once and DEFLATE in self._codes and self._bytes * len(jobs) >= _FOR_THREADS:
            in_threads(unpack, jobs)
        else:
            unpack(jobs)

    @functools.cached_property
    def _windows(self) -> list[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
        """Of each chunk of a row of them: its corner, what it has of a row, and where that lies in it; without axis 0."""
        found = []
        axes = list(zip(self._shape[1:], self._chunk[1:], strict=True))
        for place in itertools.product(*(range(0, size, step) for size, step in axes)):
            ends = [min(k + step, size) for k, (size, step) in zip(place, axes, strict=True)]
            window = tuple(slice(k, end) for k, end in zip(place, ends, strict=True))
            found.append((place, window, tuple(slice(0, each.stop - each.start) for each in window)))
        return found

    def _place(self, corner: tuple[int, ...]) -> h5py.h5d.StoreInfo:
        """Where a chunk lies. To ask for all of them takes a tenth of the time that asking one by one does."""
        self._asked += 1
        if self._asked == _ONE_BY_ONE and self._data.get_num_chunks() <= _MOST_FOUND:
            self._found = self._all()
        if self._found is not None and corner in self._found:
            return self._found[corner]
        return self._data.get_chunk_info_by_coord(corner)

    def _all(self) -> dict[tuple[int, ...], h5py.h5d.StoreInfo] | None:
        found: dict[tuple[int, ...], h5py.h5d.StoreInfo] = {}

        def note(place: h5py.h5d.StoreInfo) -> None:
            found[place.chunk_offset] = place

        self._data.chunk_iter(note)
        for corner, place in itertools.islice(found.items(), 1):
            if self._data.get_chunk_info_by_coord(corner).byte_offset != place.byte_offset:
                return None  # HDF5 1.14 forgets a user block before the file's first byte
        return found

    def _unpacked(self, corner: tuple[int, ...], place: h5py.h5d.StoreInfo, read: Callable[[int, int], bytes]) -> np.ndarray:
        """The chunk that begins at ``corner``, of the chunks' shape."""
        codes, size, itemsize, first = self._codes, self._bytes, self._dtype.itemsize, corner[0]
        if place.filter_mask and place.filter_mask != (1 << len(codes)) - 1:
            raise Unsound(f"the chunk at row {first} skips some filters")
        if place.filter_mask:  # it could not be made smaller, and is stored as it is
            codes = ()
        if place.size > 2 * size + _OVERHEAD:
            raise Unsound(f"the chunk at row {first} takes {place.size} bytes for {size}")
        # Not by HDF5, which writes past the end of its buffer where the file's index lies about the size.
        packed = read(place.byte_offset, place.size)
        if DEFLATE in codes:
            packed = _inflated(packed, size)
        elif codes and not _is_sound(codes[-1], packed, size, itemsize):
            raise Unsound(f"the chunk at row {first} does not hold {size} bytes")
        elif codes:
            # The filter's own code, now that nothing it relies on is wrong.
            whole = tuple(slice(k, k + step) for k, step in zip(corner, self._chunk, strict=True))
            return _padded(h5py.Dataset(self._data)[whole], self._chunk)
        if len(packed) != size:
            raise Unsound(f"the chunk at row {first} holds {len(packed)} bytes, not {size}")
        if SHUFFLE in codes:
            packed = np.frombuffer(packed, np.uint8).reshape(itemsize, -1).T.tobytes()
        return np.frombuffer(packed, self._dtype).reshape(self._chunk)


def _inflated(packed: bytes, size: int) -> bytes:
    stream = isal_zlib.decompressobj()
    try:
        values = stream.decompress(packed, size + 1)
    except isal_zlib.IsalError as error:
        raise Unsound(f"gzip: {error}") from error
    if not stream.eof or len(values) != size:
        raise Unsound(f"gzip data do not unpack to {size} bytes")
    return values


def _is_sound(code: int, packed: bytes, size: int, itemsize: int) -> bool:
    """Whether the sizes that a packed chunk states lead to ``size`` bytes, and not out of it. Lzf states none."""
    if code == BLOSC:
        return len(packed) >= 16 and struct.unpack_from("<4xI4xI", packed) == (size, len(packed))
    if code == BITSHUFFLE:
        return _bitshuffle_is_sound(packed, size, itemsize)
    return True


def _bitshuffle_is_sound(packed: bytes, size: int, itemsize: int) -> bool:
    """Follow the blocks of a bitshuffle chunk: its decoder follows them wherever they lead (Masui et al. 2015)."""
    if len(packed) < 12:
        return False
    total, block_bytes = struct.unpack_from(">QI", packed)
    block, values = block_bytes // itemsize, size // itemsize
    if total != size or block_bytes % itemsize or block < 8 or block % 8:
        return False
    place = 12
    for _ in range(values // block + bool(values % block // 8)):
        if place + 4 > len(packed):
            return False
        place += 4 + struct.unpack_from(">I", packed, place)[0]
    return place + values % 8 * itemsize == len(packed)


def _padded(values: np.ndarray, chunk: tuple[int, ...]) -> np.ndarray:
    """The last chunks of a dataset may reach beyond its end."""
    if values.shape == chunk:
        return values
    whole = np.zeros(chunk, values.dtype)
    whole[tuple(map(slice, values.shape))] = values
    return whole


def check_superblock(read: Callable[[int, int], bytes], size: int | None) -> None:
    """Raise Unsound where a file's first block names a driver: HDF5 would allocate whatever that one's size says."""
    place = 0
    while size is None or place < size:
        head = read(place, 64)
        if head[:8] == _SIGNATURE:
            driver = {0: 48, 1: 52}.get(head[8])
            if driver is not None and head[driver : driver + 8] != b"\xff" * 8:
                raise Unsound("names a driver of its own: refused")
            return
        if len(head) < 64:
            return
        place = max(512, 2 * place)
