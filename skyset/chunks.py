"""Compressed chunks of HDF5 files, unpacked without trusting them.

HDF5 hands a chunk to its filters as it is, and filters believe what the file says of itself: wrong parameters crash the
process, and a short chunk shows what lay in memory. Therefore only the pipelines that are known here are read, their
parameters must fit the dataset, and a chunk must unpack to just its size.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import h5py
import numpy as np
from isal import isal_zlib

from skyset.errors import PartitionError

DEFLATE, SHUFFLE, LZF, BLOSC, BITSHUFFLE = 1, 2, 32000, 32001, 32008
_PIPELINES = {(), (DEFLATE,), (SHUFFLE, DEFLATE), (LZF,), (SHUFFLE, LZF), (BLOSC,), (BITSHUFFLE,)}
#: No chunk unpacks to more than this, unless it is a single row.
MAX_CHUNK_BYTES = 64 << 20
_OVERHEAD = 1 << 16


def check_filters(properties: h5py.h5p.PropDCID, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise PartitionError unless chunks are of whole rows, and packed in a way that is known here."""
    chunk = properties.get_chunk()
    filters = [properties.get_filter(number) for number in range(properties.get_nfilters())]
    codes = tuple(code for code, *_ in filters)
    if chunk[1:] != shape[1:] or not 0 < chunk[0] <= max(1, shape[0]):
        raise PartitionError(f"chunks of {chunk} in {shape}: only chunks of whole rows are read")
    size = dtype.itemsize * math.prod(chunk)
    if chunk[0] > 1 and size > MAX_CHUNK_BYTES:
        raise PartitionError(f"chunks of {size} bytes")
    if codes not in _PIPELINES:
        raise PartitionError(f"packed by HDF5 filters {codes}: only gzip, lzf, blosc and bitshuffle are read")
    for code, _, values, _ in filters:
        if not _fits(code, values, dtype.itemsize, size):
            raise PartitionError(f"parameters {values} of HDF5 filter {code} do not fit chunks of {size} bytes")


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


def unpacked_chunk(data: h5py.h5d.DatasetID, first: int, read: Callable[[int, int], bytes]) -> np.ndarray:
    """The chunk that begins at row ``first``, shape (rows of a chunk, *shape).

    Args:
        data: a dataset that ``check_filters`` let pass.
        first: a multiple of the rows of a chunk.
        read: gives bytes of the file, by offset and number.

    Raises:
        PartitionError: it does not unpack to just its size.
    """
    properties, dtype = data.get_create_plist(), data.dtype
    chunk = properties.get_chunk()
    size = dtype.itemsize * math.prod(chunk)
    codes = tuple(properties.get_filter(number)[0] for number in range(properties.get_nfilters()))
    place = data.get_chunk_info_by_coord((first, *[0] * (len(chunk) - 1)))
    if place.filter_mask and place.filter_mask != (1 << len(codes)) - 1:
        raise PartitionError(f"the chunk at row {first} skips some filters")
    if place.filter_mask:  # it could not be made smaller, and is stored as it is
        codes = ()
    if place.size > 2 * size + _OVERHEAD:
        raise PartitionError(f"the chunk at row {first} takes {place.size} bytes for {size}")
    # Not by HDF5, which writes past the end of its buffer where the file's index lies about the size.
    packed = read(place.byte_offset, place.size)
    if DEFLATE in codes:
        packed = _inflated(packed, size)
    elif codes and _claimed_size(codes[-1], packed, size) != size:
        raise PartitionError(f"the chunk at row {first} does not hold {size} bytes")
    elif codes:
        # The filter's own code, now that nothing it relies on is wrong.
        return _padded(h5py.Dataset(data)[first : first + chunk[0]], chunk)
    if len(packed) != size:
        raise PartitionError(f"the chunk at row {first} holds {len(packed)} bytes, not {size}")
    if SHUFFLE in codes:
        packed = np.frombuffer(packed, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
    return np.frombuffer(packed, dtype).reshape(chunk)


def _inflated(packed: bytes, size: int) -> bytes:
    stream = isal_zlib.decompressobj()
    try:
        values = stream.decompress(packed, size + 1)
    except isal_zlib.IsalError as error:
        raise PartitionError(f"gzip: {error}") from error
    if not stream.eof or len(values) != size:
        raise PartitionError(f"gzip data do not unpack to {size} bytes")
    return values


def _claimed_size(code: int, packed: bytes, size: int) -> int:
    """Bytes that a chunk says it unpacks to; for lzf, which does not say, the size if it can be that."""
    if len(packed) < 16 and code != LZF:
        return -1
    if code == BLOSC:
        said, packed_size = (struct.unpack_from("<4xII4x", packed)[0], struct.unpack_from("<12xI", packed)[0])
        return said if packed_size == len(packed) else -1
    if code == BITSHUFFLE:
        return struct.unpack_from(">QI", packed)[0]
    return size


def _padded(rows: np.ndarray, chunk: tuple[int, ...]) -> np.ndarray:
    """The last chunk of a dataset may reach beyond its end."""
    if len(rows) == chunk[0]:
        return rows
    return np.concatenate([rows, np.zeros((chunk[0] - len(rows), *chunk[1:]), rows.dtype)])
