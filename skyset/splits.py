"""Which side of training, validation and test an object is on, for ever."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

SPLITS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)


def split_of(key: str, seed: str, shares: tuple[float, float, float] = SHARES) -> str:
    """The split of an object: it depends on its name and the seed alone, not on what else is in a catalogue.

    Args:
        key: the object's name. Rows that must stay on one side share it.
        seed: of a survey, such as its name.
        shares: of train, validation and test.
    """
    place = _place(key, seed)
    return SPLITS[(place >= shares[0]) + (place >= shares[0] + shares[1])]


def stratified(classes: Mapping[str, str], seed: str, shares: tuple[float, float, float] = SHARES) -> dict[str, str]:
    """The split of each object, with the same shares of every class; it depends on what else is there.

    Of a class with three objects or more each split has one at least; of two, training and test.

    Args:
        classes: of each object by name, such as that of an exposure of which all rows stay on one side.
        seed: of a survey: another one, other splits.
        shares: of train, validation and test.
    """
    members = defaultdict(list)
    for key, kind in classes.items():
        members[kind].append(key)
    found = {}
    for keys in members.values():
        keys.sort(key=lambda key: (_place(key, seed), key))
        test, validation = (max(1, round(share * len(keys))) for share in (shares[2], shares[1]))
        ends = {1: (0, 0), 2: (1, 1)}.get(len(keys), (test, test + validation))
        for rank, key in enumerate(keys):
            found[key] = SPLITS[2 - (rank >= ends[0]) - (rank >= ends[1])]
    return found


def _place(key: str, seed: str) -> float:
    """Where an object stands between 0 and 1."""
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
