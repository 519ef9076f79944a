"""Sizes that Fourier transforms are quick at."""

from __future__ import annotations


def good_size(size: int) -> int:
    """The next even number whose only factors are 2, 3 and 5."""
    size += size % 2
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2
