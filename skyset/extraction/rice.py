"""Rice decompression of 16-bit images whose tiles are rows, as fpack writes them: five times as fast as astropy's.

The code is that of the FITS standard 4.0, 10.4.1 (Rice, Yeh & Miller 1993): a tile begins with its first pixel; then, for
each block of pixels, 4 bits say how many low bits of each mapped difference follow its high bits, which are in unary.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from skyset.extraction.compiled import jit

_SAME, _PLAIN = -1, 14  # a block of equal pixels; a block of differences of 16 bits each


#: Bits that a word at any bit of the data surely holds.
_SURE = 57


@intrinsic
def _leading_zeros(typing_context: Any, word: Any) -> Any:
    """Zero bits before the first that is set in an unsigned 64-bit word; 64 for none."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@intrinsic
def _eight_bytes(typing_context: Any, data: Any, at: Any) -> Any:
    """The eight bytes of an array from a place on, the first of them highest; whether they are there is not looked at."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        start = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        word = builder.load(builder.bitcast(builder.gep(start, [arguments[1]]), ir.IntType(64).as_pointer()), align=1)
        return builder.bswap(word) if sys.byteorder == "little" else word

    return types.uint64(data, types.int64), generate


@jit
def _bits(data, bit):
    """The bits from one on, `_SURE` of them at least, from the top of a word; behind the end of the data they are 0."""
    at = bit >> 3
    if at + 8 <= len(data):
        return _eight_bytes(data, at) << np.uint64(bit & 7)
    word = np.uint64(0)
    for k in range(8):
        word <<= np.uint64(8)
        if at + k < len(data):
            word |= np.uint64(data[at + k])
    return word << np.uint64(bit & 7)


@jit
def _signed(mapped):
    """Even numbers are differences above zero, odd ones those below."""
    return (mapped >> np.uint64(1)) ^ (np.uint64(0) - (mapped & np.uint64(1)))


@jit
def _decode(data, starts, lengths, block, flip, out):
    """Tile by tile; -1, or the number of the first tile that ends before its pixels do."""
    width = out.shape[1]
    for tile in range(out.shape[0]):
        bit, end = 8 * starts[tile], 8 * (starts[tile] + lengths[tile])
        if end - bit < 16:
            return tile
        row = out[tile]
        last = _bits(data, bit) >> np.uint64(48)
        bit += 16
        for first in range(0, width, block):
            final = min(first + block, width)
            low = np.int64(_bits(data, bit) >> np.uint64(60)) - 1
            bit += 4
            if low == _SAME:
                for x in range(first, final):
                    row[x] = np.uint16(last) ^ flip
            elif low >= _PLAIN:
                for x in range(first, final):
                    last += _signed(_bits(data, bit) >> np.uint64(48))
                    bit += 16
                    row[x] = np.uint16(last) ^ flip
            else:
                bit, last = _block(data, bit, end, low, last, flip, row[first:final])
            if bit > end:
                return tile
    return -1


@jit
def _block(data, bit, end, low, last, flip, pixels):
    """A block's pixels from a bit on, ``low`` bits of each as they are; the bit behind them (beyond ``end``: they are none),
    and the last pixel. Four pixels at a time come of one word, where they are not longer than it."""
    low_bits, least, rest = np.uint64(low), np.uint64(low + 1), np.uint64((64 - low) & 63)
    six_bits, some = np.uint64(63), np.uint64(low > 0) * np.uint64(0xFFFFFFFFFFFFFFFF)
    count, x, near = len(pixels), 0, 8 * (len(data) - 8)
    while x < count:
        if x + 4 <= count and bit <= near:
            # What is shifted too far, of a long code, is not used.
            a = _eight_bytes(data, bit >> 3) << np.uint64(bit & 7)
            a_high = _leading_zeros(a)
            b = a << (a_high + least & six_bits)
            b_high = _leading_zeros(b)
            c = b << (b_high + least & six_bits)
            c_high = _leading_zeros(c)
            d = c << (c_high + least & six_bits)
            d_high = _leading_zeros(d)
            size = a_high + b_high + c_high + d_high + np.uint64(4) * least
            if size <= np.uint64(_SURE):
                one = np.uint64(1)
                a_low = (a << (a_high & six_bits) << one) >> rest & some
                b_low = (b << (b_high & six_bits) << one) >> rest & some
                c_low = (c << (c_high & six_bits) << one) >> rest & some
                d_low = (d << (d_high & six_bits) << one) >> rest & some
                last += _signed(a_high << low_bits | a_low)
                pixels[x] = np.uint16(last) ^ flip
                last += _signed(b_high << low_bits | b_low)
                pixels[x + 1] = np.uint16(last) ^ flip
                last += _signed(c_high << low_bits | c_low)
                pixels[x + 2] = np.uint16(last) ^ flip
                last += _signed(d_high << low_bits | d_low)
                pixels[x + 3] = np.uint16(last) ^ flip
                bit += np.int64(size)
                x += 4
                continue
        high = np.uint64(0)
        zeros = _leading_zeros(_bits(data, bit))
        while zeros >= np.uint64(_SURE):
            high += np.uint64(_SURE)
            bit += _SURE
            if bit > end:
                return bit, last
            zeros = _leading_zeros(_bits(data, bit))
        high += zeros
        bit += np.int64(zeros) + 1
        last += _signed(high << low_bits | _bits(data, bit) >> rest & some)
        bit += low
        pixels[x] = np.uint16(last) ^ flip
        x += 1
    return bit, last


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
