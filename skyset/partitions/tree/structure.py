"""What an HDF5 file of somebody else's holds: its datasets, as they are stored, and the small ones' values.

Only hard links within the file are followed; data outside of it (soft and external links, external and virtual storage) are
refused. The types are those on the disk: a compound's members lie at the offsets that they have in the file.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from skyset.errors import PartitionError
from skyset.files import opened_hdf5
from skyset.partitions.chunks import check_superblock
from skyset.partitions.tree.form import GROUPS, OBJECTS
from skyset.partitions.tree.making import as_texts

#: Datasets and members of at most so many bytes are read where an object is looked at.
SMALL_BYTES = 4096
#: Groups within groups, datasets of one object.
_DEEPEST, _MOST = 8, 10_000
#: What h5py raises on a damaged file.
DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError)
MOST_AXES = 6
#: Bytes on the disk of what says where a value of any length lies.
_ANY_LENGTH = 16
_PLAIN = re.compile(r"[<>|][biufSV][0-9]{1,9}")


class Stored(NamedTuple):
    """A dataset as it is stored.

    Args:
        dims: all of its axes; of one whose values are of any length, how many values there are of numbers.
        dtype: of a value on the disk; one of numbers of any length has theirs, texts of any length are ``V16``.
        offset: of the first value in the file, in bytes; -1 where HDF5 must read them: compressed, in chunks, of any length.
    """

    dims: tuple[int, ...]
    dtype: np.dtype
    offset: int

    def has(self, member: str) -> bool:
        """Whether it is a compound with this member; ``""`` is the dataset itself."""
        return not member or member in (self.dtype.names or ())


@dataclass(frozen=True)
class Unit:
    """One object of a tree of kind ``objects`` or ``groups``.

    Args:
        file: its path below the tree.
        bytes, mtime: the file's size, and the time of its last write in ns.
        group: the object's, ``""`` where the file is the object.
        values: small datasets, and small members of compound ones as ``<dataset>/<member>``: arrays as they are stored, text
            of any length as ``S``.
        arrays: all datasets.
    """

    file: str
    bytes: int
    mtime: int
    group: str
    values: Mapping[str, np.ndarray]
    arrays: Mapping[str, Stored]


def units_in(tree: str | Path, file: str, kind: str) -> list[Unit]:
    """The objects of a file, in the order of their groups' names.

    Args:
        tree: the folder.
        file: the path below it.
        kind: ``"objects"`` or ``"groups"``.

    Raises:
        PartitionError: the file cannot be read, or has something that is refused; the message names it.
    """
    assert kind in (OBJECTS, GROUPS), kind
    path = os.path.join(tree, file)
    try:
        status = os.stat(path)
        with opened(path) as hdf5:
            groups = [("", hdf5.id)] if kind == OBJECTS else list(_groups(hdf5.id))
            return [
                Unit(file, status.st_size, status.st_mtime_ns, name, *held(datasets_in(group))) for name, group in groups
            ]
    except PartitionError as error:
        raise PartitionError(f"{path}: {error}") from None
    except DAMAGE as error:
        raise PartitionError(f"{path}: {reason_of(error)}") from error


def opened(path: str | Path) -> AbstractContextManager[h5py.File]:
    """A local file opened with HDF5, as a context; Unsound (a ValueError) where its first block is not to be trusted."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        check_superblock(lambda offset, size: os.pread(descriptor, size, offset), os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    return opened_hdf5(path)


#: What HDF5 says of a file that is shorter than it should be.
_CUT = re.compile(r"truncated file: eof = (\d+), .*stored_eof = (\d+)")


def reason_of(error: BaseException) -> str:
    """HDF5's message without its stack of internal calls, in one line."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = " ".join(str(error).split()).strip("'\"")
    if cut := _CUT.search(text):
        return f"is cut short: {int(cut[1]):,} of its {int(cut[2]):,} bytes are there: copy it again"
    match = re.search(r"\((.*)\)$", text)
    return (match[1] if match else text) or type(error).__name__


def things_in(group: h5py.h5g.GroupID) -> Iterator[tuple[str, h5py.h5d.DatasetID | h5py.h5g.GroupID]]:
    """What a group holds by hard links, in the order of names; PartitionError where it links elsewhere."""
    names: list[bytes] = []
    group.links.iterate(names.append)
    if len(names) > _MOST:
        raise PartitionError(f"{len(names)} datasets in one group: too many")
    for name in sorted(names):
        text = name.decode("utf-8", "replace")
        if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            raise PartitionError(f"{text} is a soft or external link: refused")
        thing = h5py.h5o.open(group, name)
        if isinstance(thing, h5py.h5d.DatasetID | h5py.h5g.GroupID):
            yield text, thing


def found_in(group: h5py.h5g.GroupID, path: str) -> h5py.h5d.DatasetID | None:
    """The dataset at a path, None where there is none; PartitionError where a step is no hard link, or it lies outside."""
    thing: h5py.h5g.GroupID | h5py.h5d.DatasetID = group
    for step in path.split("/"):
        if not isinstance(thing, h5py.h5g.GroupID) or not thing.links.exists(step.encode()):
            return None
        if thing.links.get_info(step.encode()).type != h5py.h5l.TYPE_HARD:
            raise PartitionError(f"{path} is a soft or external link: refused")
        thing = h5py.h5o.open(thing, step.encode())
    if not isinstance(thing, h5py.h5d.DatasetID):
        return None
    check_inside(path, thing)
    return thing


def _groups(root: h5py.h5g.GroupID) -> Iterator[tuple[str, h5py.h5g.GroupID]]:
    for name, thing in things_in(root):
        if isinstance(thing, h5py.h5g.GroupID):
            yield name, thing


def datasets_in(group: h5py.h5g.GroupID, deepest: int = _DEEPEST) -> Iterator[tuple[str, h5py.h5d.DatasetID]]:
    """All datasets below a group by their paths; PartitionError as ``things_in``, or where groups lie too deep."""
    for name, thing in things_in(group):
        if isinstance(thing, h5py.h5d.DatasetID):
            yield name, thing
        elif deepest:
            yield from ((f"{name}/{below}", dataset) for below, dataset in datasets_in(thing, deepest - 1))
        else:
            raise PartitionError(f"{name}: groups within more than {_DEEPEST} groups")


def held(datasets: Iterable[tuple[str, h5py.h5d.DatasetID]]) -> tuple[dict[str, np.ndarray], dict[str, Stored]]:
    """The small values of an object, and how all of it is stored.

    Args:
        datasets: all of the object's by their paths, as ``datasets_in`` gives them.

    Raises:
        PartitionError: one keeps its data in another file, or has too many axes.
    """
    values: dict[str, np.ndarray] = {}
    arrays: dict[str, Stored] = {}
    for name, dataset in datasets:
        check_inside(name, dataset)
        if dataset.shape is None:  # a null dataspace: no value at all
            continue
        dtype = file_dtype(dataset.get_type())
        if dtype is None:  # of any length
            many = _of_any_length(dataset)
            if many is None:
                continue
            arrays[name] = Stored(many.shape, np.dtype("V16") if many.dtype.kind == "S" else many.dtype, -1)
            values |= {name: many} if many.nbytes <= SMALL_BYTES else {}
            continue
        if len(dataset.shape) > MOST_AXES:
            raise PartitionError(f"{name} has {len(dataset.shape)} axes: too many")
        arrays[name] = Stored(dataset.shape, dtype, offset_of(dataset, dtype))
        values |= _small_values(name, dataset, dtype)
    return values, arrays


def _small_values(name: str, dataset: h5py.h5d.DatasetID, dtype: np.dtype) -> dict[str, np.ndarray]:
    count = math.prod(dataset.shape)
    if dtype.names is None:
        return {name: read_whole(dataset)} if count * dtype.itemsize <= SMALL_BYTES else {}
    small = [each for each in dtype.names if count * dtype[each].itemsize <= SMALL_BYTES]
    if not small:
        return {}
    whole = h5py.Dataset(dataset).fields(small)[()]
    return {f"{name}/{each}": as_texts(whole[each]) for each in small}


def _of_any_length(dataset: h5py.h5d.DatasetID) -> np.ndarray | None:
    """All of a dataset of texts of any length, ``S``, or of one row of numbers; None of anything else."""
    kind = dataset.get_type()
    if isinstance(kind, h5py.h5t.TypeStringID):
        return as_texts(read_whole(dataset))
    if isinstance(kind, h5py.h5t.TypeVlenID) and math.prod(dataset.shape) == 1 and kind.get_super().dtype.kind in "biuf":
        return np.asarray(read_whole(dataset).reshape(1)[0])
    return None


def read_whole(dataset: h5py.h5d.DatasetID) -> np.ndarray:
    """All values of a small dataset, of the shape it has."""
    out = np.zeros(dataset.shape, dataset.dtype)
    if out.size:
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, out)
    return out


def check_inside(name: str, dataset: h5py.h5d.DatasetID) -> None:
    """PartitionError where a dataset keeps its values in another file."""
    properties = dataset.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
        raise PartitionError(f"{name} keeps its data in another file: refused")


def offset_of(dataset: h5py.h5d.DatasetID, dtype: np.dtype) -> int:
    """Where the values, of this dtype on the disk, lie in the file if they are in one piece and all there, else -1."""
    offset = dataset.get_offset()
    whole = dataset.get_storage_size() == dtype.itemsize * math.prod(dataset.shape)
    return int(offset) if offset is not None and whole else -1


def file_dtype(kind: h5py.h5t.TypeID) -> np.dtype | None:
    """The dtype of one value on the disk; members of any length as bytes that mean nothing; None where all of it is so."""
    if isinstance(kind, h5py.h5t.TypeStringID):
        return None if kind.is_variable_str() else np.dtype(f"S{kind.get_size()}")
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        return None if kind.dtype.kind == "c" else _compound_dtype(kind)
    if isinstance(kind, h5py.h5t.TypeArrayID):
        inner = file_dtype(kind.get_super())
        return None if inner is None else np.dtype((inner, kind.get_array_dims()))
    if isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID | h5py.h5t.TypeEnumID):
        dtype = np.dtype(kind.dtype.str) if kind.dtype.kind != "b" else np.dtype(bool)
        return dtype if dtype.itemsize == kind.get_size() and dtype.kind in "biuf" else None
    return None


def _compound_dtype(kind: h5py.h5t.TypeCompoundID) -> np.dtype:
    """HDF5 tells offsets and sizes as they are in memory: there a text of any length is a pointer, on the disk 16 bytes."""
    names, formats, offsets, longer = [], [], [], 0
    for number in range(kind.get_nmembers()):
        member = kind.get_member_type(number)
        dtype = file_dtype(member)
        if dtype is None:
            any_length = isinstance(member, h5py.h5t.TypeStringID | h5py.h5t.TypeVlenID)
            dtype = np.dtype(f"V{_ANY_LENGTH if any_length else member.get_size()}")
        names.append(kind.get_member_name(number).decode("utf-8", "replace"))
        formats.append(dtype)
        offsets.append(kind.get_member_offset(number) + longer)
        longer += dtype.itemsize - member.get_size()
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": kind.get_size() + longer})


def text_of_dtype(dtype: np.dtype) -> str:
    """A dtype on the disk as text; see ``dtype_of_text``."""
    if dtype.names is None and dtype.subdtype is None:
        return dtype.str
    return json.dumps(_told(dtype), separators=(",", ":"))


def _told(dtype: np.dtype):
    if dtype.subdtype is not None:
        return [_told(dtype.subdtype[0]), list(dtype.subdtype[1])]
    if dtype.names is None:
        return dtype.str
    fields = {name: [_told(dtype[name]), int(dtype.fields[name][1])] for name in dtype.names}  # type: ignore[index]
    return {"size": dtype.itemsize, "members": fields}


def dtype_of_text(text: str) -> np.dtype:
    """The dtype that ``text_of_dtype`` told; ValueError, LookupError or TypeError where the text tells of none."""
    return _dtype_of(json.loads(text) if text[:1] in ("{", "[") else text)


def _dtype_of(told) -> np.dtype:
    if isinstance(told, list):
        inner, shape = told
        return np.dtype((_dtype_of(inner), tuple(int(size) for size in shape)))
    if isinstance(told, dict):
        members = {name: (_dtype_of(kind), int(offset)) for name, (kind, offset) in told["members"].items()}
        formats, offsets = [dtype for dtype, _ in members.values()], [offset for _, offset in members.values()]
        names, size = list(members), int(told["size"])
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
    if not isinstance(told, str) or not _PLAIN.fullmatch(told):
        raise ValueError(f"{str(told)[:100]!r} is no dtype of stored values")
    return np.dtype(told)
