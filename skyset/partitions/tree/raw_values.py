"""All values of one dataset of one object, as they are stored."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import h5py
import numpy as np

from skyset.errors import PartitionError
from skyset.partitions.tree.gather import bytes_of, member_memory, read_members, read_parts
from skyset.partitions.tree.held import whole
from skyset.partitions.tree.structure import Stored, found_in, opened


class Place(NamedTuple):
    """Where a dataset is: the file's path, the group in it (``""`` for none), its path there, and how it is stored."""

    path: str
    group: str
    dataset: str
    stored: Stored


def raw_values(
    descriptor: int, place: Place, members: Sequence[str], memory: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The values of a dataset, (*axes), or those of members of a compound one, (*axes, *shape) by name.

    Args:
        descriptor: of the open file.
        place: where it is.
        members: those that are wanted, ``""`` for the dataset itself.
        memory: arrays (records, *shape) for some of the members, which are handed back; the others get new ones.

    Raises:
        PartitionError: it is not there any more.
        OSError, ValueError, EOFError: it cannot be read.
    """
    stored = place.stored
    at_once = [
        name for name in dict.fromkeys(members) if stored.offset >= 0 and (not name or stored.dtype[name].kind != "V")
    ]
    at_once += [name for name in memory if name not in at_once]
    values: dict[str, np.ndarray] = {}
    if "" in at_once:
        values[""] = np.empty(stored.dims, stored.dtype)
        read_parts(descriptor, [(stored.offset, bytes_of(values[""]))])
    if compound := [name for name in at_once if name]:
        fresh = member_memory(stored.dtype, stored.dims, [name for name in compound if name not in memory])
        found = {**fresh, **memory}
        read_members(descriptor, stored.offset, stored.dtype, found)
        values |= memory
        values |= {name: array.reshape(*stored.dims, *array.shape[1:]) for name, array in fresh.items()}
    if left := [name for name in dict.fromkeys(members) if name not in values]:
        values |= _by_hdf5(descriptor, place, left)
    return values


def _by_hdf5(descriptor: int, place: Place, members: Sequence[str]) -> dict[str, np.ndarray]:
    with opened(place.path) as file:
        path = f"{place.group}/{place.dataset}" if place.group else place.dataset
        dataset: h5py.h5d.DatasetID | None = found_in(file.id, path)
        if dataset is None:
            raise PartitionError(f"{place.path}: {path} is not there: it was changed since it was adopted")
        found = {name: whole(dataset, path, name, lambda at, size: os.pread(descriptor, size, at)) for name in members}
    expected = math.prod(place.stored.dims)
    for name, values in found.items():
        if not name and values.size != expected:
            raise PartitionError(f"{place.path}: {path} has {values.size} values, not {expected}: run `skyset adopt` again")
    return found
