"""A good file damaged at random: a case is a number, and the number says all that is done to it."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from skyset.partitions.layout import COMPRESSIONS
from tests.hostile.good import Base


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
        values = [
            0,
            1,
            2,
            8,
            96,
            end - 1,
            end,
            end + 1,
            end - 4096,
            2**15,
            2**16,
            2**31 - 1,
            2**31,
            2**32 - 1,
            2**32,
            2**40,
            2**62,
            2**63 - 1,
            2**63,
            2**64 - 8,
            2**64 - 2,
            2**64 - 1,
        ]
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
