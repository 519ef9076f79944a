"""Stretches of a file read straight into arrays: as few system calls as they lie near each other, no copy between."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

#: What lies between two stretches is read, and thrown away, rather than that there is another call.
_GAP = 16 << 10
_WASTE = memoryview(bytearray(_GAP))
#: Most buffers that one ``preadv`` takes (IOV_MAX on Linux).
_MOST_BUFFERS = 1024
#: Records of a compound of fewer bytes, or of which so much is wanted, are read whole; so many bytes at a time stay in the
#: processor's cache until they are copied, which takes less than a buffer for each stretch.
_SMALL_RECORD, _WANTED, _SLAB = 8 << 10, 0.25, 512 << 10
#: Members of fewer bytes are read together with those beside them.
_LARGE_MEMBER = 1 << 10

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


class _Segment(NamedTuple):
    """Bytes of each record that are read together: where they begin, how many, and the memory for those of all records."""

    place: int
    size: int
    view: memoryview


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
    fields: Mapping = dtype.fields or {}
    wanted = sum(fields[member][0].itemsize for member in outs)
    if dtype.itemsize < _SMALL_RECORD or wanted >= _WANTED * dtype.itemsize:
        _read_whole(descriptor, offset, dtype, outs, count)
        return
    large = [member for member in outs if fields[member][0].itemsize >= _LARGE_MEMBER]
    small = sorted((member for member in outs if member not in large), key=lambda member: fields[member][1])
    segments = [_Segment(fields[name][1], fields[name][0].itemsize, bytes_of(outs[name])) for name in large]
    blocks = [(some, *_block(fields, some, count)) for some in _together(fields, small)]
    segments += [segment for _, segment, _ in blocks]
    _read_segments(descriptor, offset, dtype.itemsize, sorted(segments, key=lambda each: each.place), count)
    for some, segment, block in blocks:
        for member in some:
            first = fields[member][1] - segment.place
            values = np.ascontiguousarray(block[:, first : first + fields[member][0].itemsize])
            outs[member][...] = values.reshape(-1).view(outs[member].dtype).reshape(outs[member].shape)


def _read_whole(descriptor: int, offset: int, dtype: np.dtype, outs: Mapping[str, np.ndarray], count: int) -> None:
    """Members of records that are read whole, some at a time."""
    step = max(1, _SLAB // dtype.itemsize)
    block = np.empty(min(step, count), dtype)
    for first in range(0, count, step):
        records = block[: count - first]
        read_parts(descriptor, [(offset + first * dtype.itemsize, bytes_of(records))])
        for member, out in outs.items():
            out[first : first + len(records)] = records[member]


def _together(fields: Mapping, members: Sequence[str]) -> Iterator[list[str]]:
    """Small members that lie near each other, in the order of the record."""
    group: list[str] = []
    end = 0
    for member in members:
        kind, place = fields[member][:2]
        if group and place - end > _LARGE_MEMBER:
            yield group
            group = []
        group.append(member)
        end = place + kind.itemsize
    if group:
        yield group


def _block(fields: Mapping, members: Sequence[str], count: int) -> tuple[_Segment, np.ndarray]:
    """Memory for members that lie near each other, uint8 (records, bytes)."""
    first = fields[members[0]][1]
    size = max(fields[member][1] + fields[member][0].itemsize for member in members) - first
    block = np.empty((count, size), np.uint8)
    return _Segment(first, size, bytes_of(block)), block


def _read_segments(descriptor: int, offset: int, stride: int, segments: Sequence[_Segment], count: int) -> None:
    """The same bytes of each of ``count`` records that lie ``stride`` bytes apart."""
    step = max(1, _MOST_BUFFERS // (2 * len(segments) + 1))
    for first in range(0, count, step):
        parts = []
        for record in range(first, min(first + step, count)):
            start = offset + record * stride
            parts += [(start + place, view[record * size : record * size + size]) for place, size, view in segments]
        read_parts(descriptor, parts)


def member_memory(dtype: np.dtype, dims: tuple[int, ...], members: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays for members of a compound of these axes: (records, *shape) each, in the dtype as it lies."""
    count = math.prod(dims)
    bases = {member: dtype[member].subdtype or (dtype[member], ()) for member in members}
    return {member: np.empty((count, *shape), base) for member, (base, shape) in bases.items()}
