"""Which side of training, validation and test an object is on, for ever."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)


def split_of(key: str, seed: str, shares: tuple[float, float, float] = SHARES) -> str:
    """The split of an object: it depends on its name and the seed alone, not on what else is in a catalogue.

    Args:
        key: the object's name. Rows that must stay on one side share it.
        seed: of a survey, such as its name.
        shares: of train, validation and test.
    """
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    return SPLITS[(place >= shares[0]) + (place >= shares[0] + shares[1])]
