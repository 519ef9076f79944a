"""Rice decompression of 16-bit images whose tiles are rows, as fpack writes them: four times as fast as astropy's.

The code is that of the FITS standard 4.0, 10.4.1 (Rice, Yeh & Miller 1993): a tile begins with its first pixel; then, for
each block of pixels, 4 bits say how many low bits of each mapped difference follow its high bits, which are in unary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from skyset.extraction.compiled import jit

_SAME, _PLAIN = -1, 14  # a block of equal pixels; a block of differences of 16 bits each


@intrinsic
def _leading_zeros(typing_context: Any, word: Any) -> Any:
    """Zero bits before the first that is set in an unsigned 64-bit word; 64 for none."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@jit(locals={"buffer": types.uint64, "difference": types.uint64, "zeros": types.uint64})
def _decode(data, starts, lengths, block, flip, out):
    """Tile by tile; -1, or the number of the first tile that ends before its pixels do."""
    width = out.shape[1]
    for tile in range(out.shape[0]):
        at, end = starts[tile], starts[tile] + lengths[tile]
        row = out[tile]
        if end - at < 2:
            return tile
        last = np.uint64(data[at]) << np.uint64(8) | np.uint64(data[at + 1])
        at += 2
        buffer = np.uint64(0)  # the next bits, from the top
        bits = np.int64(0)  # how many are in it
        for first in range(0, width, block):
            final = min(first + block, width)
            while bits <= 48 and at < end:
                buffer |= np.uint64(data[at]) << np.uint64(56 - bits)
                at += 1
                bits += 8
            low = np.int64(buffer >> np.uint64(60)) - 1
            buffer <<= np.uint64(4)
            bits -= 4
            if low == _SAME:
                for x in range(first, final):
                    row[x] = np.uint16(last) ^ flip
                if bits < 0:
                    return tile
                continue
            for x in range(first, final):
                if bits < 32:
                    if at + 4 <= end:
                        more = (
                            np.uint64(data[at]) << np.uint64(24)
                            | np.uint64(data[at + 1]) << np.uint64(16)
                            | np.uint64(data[at + 2]) << np.uint64(8)
                            | np.uint64(data[at + 3])
                        )
                        buffer |= more << np.uint64(32 - bits)
                        at += 4
                        bits += 32
                    else:
                        while bits <= 48 and at < end:
                            buffer |= np.uint64(data[at]) << np.uint64(56 - bits)
                            at += 1
                            bits += 8
                if low >= _PLAIN:
                    difference = buffer >> np.uint64(48)
                    buffer <<= np.uint64(16)
                    bits -= 16
                else:
                    high = np.uint64(0)
                    zeros = _leading_zeros(buffer)
                    while np.int64(zeros) >= bits:  # more zeros than the buffer has
                        high += np.uint64(bits)
                        buffer = np.uint64(0)
                        bits = np.int64(0)
                        if at >= end:
                            return tile
                        while bits <= 48 and at < end:
                            buffer |= np.uint64(data[at]) << np.uint64(56 - bits)
                            at += 1
                            bits += 8
                        zeros = _leading_zeros(buffer)
                    high += zeros
                    buffer = (buffer << zeros) << np.uint64(1)
                    bits -= np.int64(zeros) + 1
                    if bits < low:
                        while bits <= 48 and at < end:
                            buffer |= np.uint64(data[at]) << np.uint64(56 - bits)
                            at += 1
                            bits += 8
                    difference = high
                    if low > 0:
                        difference = high << np.uint64(low) | buffer >> np.uint64(64 - low)
                        buffer <<= np.uint64(low)
                        bits -= low
                if bits < 0:
                    return tile
                # Even numbers are differences above zero, odd ones those below.
                last += (difference >> np.uint64(1)) ^ (np.uint64(0) - (difference & np.uint64(1)))
                row[x] = np.uint16(last) ^ flip
    return -1


def decode(
    data: np.ndarray, starts: np.ndarray, lengths: np.ndarray, width: int, block: int = 32, unsigned: bool = False
) -> np.ndarray:
    """The pixels of tiles that are rows.

    Args:
        data: uint8, what holds the tiles.
        starts, lengths: int64, where in ``data`` each tile begins and how many bytes it has.
        width: pixels in a row.
        block: pixels that share a number of low bits (BLOCKSIZE).
        unsigned: 32768 is added (BZERO).

    Returns:
        int16 or uint16 (tiles, ``width``).

    Raises:
        ValueError: a tile lies outside of ``data`` or ends before its pixels do; its number from 1 is in the text.
    """
    outside = (starts < 0) | (lengths < 0) | (starts + lengths > len(data))
    if outside.any():
        raise ValueError(f"tile {int(np.argmax(outside)) + 1} lies beyond the data")
    out = np.empty((len(starts), width), np.uint16)
    fault = _decode(data, starts.astype(np.int64), lengths.astype(np.int64), block, np.uint16(32768 * unsigned), out)
    if fault >= 0:
        raise ValueError(f"tile {fault + 1} ends before its pixels do")
    return out if unsigned else out.view(np.int16)
