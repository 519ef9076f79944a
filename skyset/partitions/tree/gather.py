"""Stretches of a file read straight into arrays: as few system calls as they lie near each other, no copy between."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

#: What lies between two stretches is read, and thrown away, rather than that there is another call.
_GAP = 16 << 10
_WASTE = memoryview(bytearray(_GAP))
#: Most buffers that one ``preadv`` takes (IOV_MAX on Linux).
_MOST_BUFFERS = 1024
#: Records of a compound of fewer bytes are read whole, so many bytes at a time.
_SMALL_RECORD, _SLAB = 8 << 10, 4 << 20

Part = tuple[int, memoryview]


def read_parts(descriptor: int, parts: Sequence[Part]) -> None:
    """Fill buffers, each from one stretch of bytes at an offset, in ascending order.

    Raises:
        EOFError: the file ends before them.
    """
    start = end = 0
    buffers: list[memoryview] = []
    for offset, buffer in parts:
        if not buffers or not 0 <= offset - end <= _GAP or len(buffers) > _MOST_BUFFERS - 2:
            if buffers:
                _fill(descriptor, start, buffers)
            start, buffers = offset, []
        elif offset > end:
            buffers.append(_WASTE[: offset - end])
        buffers.append(buffer)
        end = offset + len(buffer)
    if buffers:
        _fill(descriptor, start, buffers)


def _fill(descriptor: int, offset: int, buffers: list[memoryview]) -> None:
    wanted = sum(map(len, buffers))
    while (count := os.preadv(descriptor, buffers, offset)) != wanted:
        if count == 0:
            raise EOFError("the file ends before them")
        offset, wanted = offset + count, wanted - count
        while count >= len(buffers[0]):
            count -= len(buffers.pop(0))
        buffers[0] = buffers[0][count:]


def bytes_of(array: np.ndarray) -> memoryview:
    """The memory of an array in one piece, to be written to."""
    return memoryview(array.reshape(-1).view(np.uint8))


def read_members(descriptor: int, offset: int, dtype: np.dtype, outs: Mapping[str, np.ndarray]) -> None:
    """Members of the records of a compound dataset in one piece.

    Args:
        descriptor: of the open file.
        offset: of the first record.
        dtype: of the records, as they lie.
        outs: by member, (records, *its shape) in its dtype, in one piece.

    Raises:
        EOFError: the file ends before them.
    """
    count = len(next(iter(outs.values())))
    if dtype.itemsize < _SMALL_RECORD:
        step = max(1, _SLAB // dtype.itemsize)
        for first in range(0, count, step):
            records = np.empty(min(step, count - first), dtype)
            read_parts(descriptor, [(offset + first * dtype.itemsize, bytes_of(records))])
            for member, out in outs.items():
                out[first : first + len(records)] = records[member]
        return
    parts = _member_parts(offset, dtype, outs, count)
    while some := list(islice(parts, _MOST_BUFFERS // 2)):
        read_parts(descriptor, some)


def _member_parts(offset: int, dtype: np.dtype, outs: Mapping[str, np.ndarray], count: int) -> Iterator[Part]:
    """Where each member of each record lies, and the memory for it, in the order of the file."""
    fields: Mapping = dtype.fields or {}
    views = sorted((fields[member][1], fields[member][0].itemsize, bytes_of(out)) for member, out in outs.items())
    for record in range(count):
        first = offset + record * dtype.itemsize
        for place, size, view in views:
            yield first + place, view[record * size : (record + 1) * size]


def member_memory(dtype: np.dtype, dims: tuple[int, ...], members: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays for members of a compound of these axes: (records, *shape) each, in the dtype as it lies."""
    count = math.prod(dims)
    bases = {member: dtype[member].subdtype or (dtype[member], ()) for member in members}
    return {member: np.empty((count, *shape), base) for member, (base, shape) in bases.items()}
