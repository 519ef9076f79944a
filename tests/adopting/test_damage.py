"""Bytes flipped and files cut short anywhere: they are looked at or named in one line, whatever their storage is."""

import os
import random

import pytest

from skyset.adopting.scan import TreeFile
from skyset.adopting.worker import Asked, look_at
from skyset.testing.mmu import write

#: Contiguous, in chunks, rows of any length, one object a file, tables in groups.
KINDS = ("sdss", "hsc", "chandra", "yse", "manga")
#: Bytes at the beginning, where HDF5 says what is where.
_HEAD = 8192


def damaged(whole: bytes, rng: random.Random) -> bytes:
    data = bytearray(whole)
    if rng.random() < 0.3:
        return bytes(data[: rng.randrange(len(data))])
    for _ in range(rng.choice((1, 1, 4))):
        place = rng.randrange(min(len(data), _HEAD) if rng.random() < 0.6 else len(data))
        data[place] ^= rng.choice((255, 1 << rng.randrange(8)))
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_read_or_named_in_one_line(tmp_path, kind):
    write(kind, tmp_path, rows=1, cells=1)
    path = next(each for each in sorted(tmp_path.rglob("*.h*5")))
    whole, rng = path.read_bytes(), random.Random(kind)
    broken = 0
    for _ in range(60):
        path.write_bytes(damaged(whole, rng))
        status = os.stat(path)
        (look,) = look_at(Asked(str(path.parent)), [(TreeFile(path.name, status.st_size, status.st_mtime_ns), None)])
        assert look.rows >= 1 or look.error or look.counts
        assert "\n" not in look.error
        broken += look.is_broken
    assert broken > 5
