"""The layout of partitions: what a path looks like, how a file is compressed, how many rows a read takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from skyset.errors import MissingPackage, PartitionError, RecordError, UserError
from skyset.versions import install_command

MANIFEST = "manifest.json"
#: What a build has completed, until the manifest says so.
JOURNAL = "journal.jsonl"
#: The objects that did not get in, each with its reason.
REJECTED = "rejected.csv"
#: What a build, or a person, may leave at the root beside the partitions (``Survey.beside`` has more).
BESIDE = (
    MANIFEST,
    JOURNAL,
    REJECTED,
    "unused.csv",
    "README.md",
    "figures",
    "report.html",
    "raw",
    "archives",
    "catalogs",
    "representations",
)

SUFFIX = ".hdf5"
FORMAT = "skyset-partition/1"
COMPRESSIONS = ("none", "gzip", "blosc-lz4", "bitshuffle-lz4")
#: The last of HDF5's filters that each stores pixels through, 0 for none.
FILTERS = {"none": 0, "gzip": 1, "blosc-lz4": 32001, "bitshuffle-lz4": 32008}
#: A column of at least this many bytes per row is written as its rows come; smaller ones are collected and written at once.
PIXELS_FROM = 4096
#: Files are split where a cell holds more than this, so that no task is much longer than the others.
MAX_FILE_BYTES = 256 << 20
SLAB_BYTES = 8 << 20
_PATH = re.compile(r"(?:(?P<split>[^/]+)/)?healpix=(?P<healpix>[0-9]{1,10})/[^/]+" + re.escape(SUFFIX))
#: Bytes of a file's name on the usual file systems.
_LONGEST_NAME = 255


def partition_path(healpix: int, part: int = 1, parts: int = 1, split: str | None = None) -> str:
    """Path relative to the survey's root, ``healpix=1234/001-of-002.hdf5``."""
    return f"{split}/" * bool(split) + f"healpix={healpix}/{part:03d}-of-{parts:03d}{SUFFIX}"


def object_path(healpix: int, key: str, split: str | None = None) -> str:
    """Path of a file that holds one object alone, ``healpix=1234/<key>.hdf5``; RecordError where the key names no file."""
    path = f"{split}/" * bool(split) + f"healpix={healpix}/{key}{SUFFIX}"
    if not key or {"/", "\\"} & set(key) or not key.isprintable():
        raise RecordError(f"{key[:100]!r} cannot be a file's name")
    try:
        _parts_of(path)
    except PartitionError as error:
        raise RecordError(f"{key[:100]!r} cannot be a file's name") from error
    return path


def cell_of_path(path: str) -> int:
    """HEALPix cell that a relative path names; PartitionError where it names none, or cannot be a file's below the root."""
    return int(_parts_of(path)["healpix"])


def split_of_path(path: str) -> str:
    """The split whose folder a relative path lies in: ``train`` where it is in none; PartitionError as ``cell_of_path``."""
    return _parts_of(path)["split"] or "train"


@lru_cache(16)
def _parts_of(path: str) -> re.Match:
    match = _PATH.fullmatch(path)
    names = path.split("/")
    if match is None or {".", ".."} & set(names) or not path.isprintable():
        raise PartitionError(f"{path[:200]!r} is not a partition's path (healpix=<pix>/<name>{SUFFIX})")
    if max(len(name.encode()) for name in names) > _LONGEST_NAME:
        raise PartitionError(f"{path[:200]!r}... is longer than a file's name can be")
    return match


def compression_options(compression: str, row_shape: tuple[int, ...]) -> dict:
    """Arguments for ``h5py.Group.create_dataset``: contiguous for ``none``, else chunks of one whole row.

    Raises:
        UserError: an unknown name, or hdf5plugin is needed and not installed.
    """
    if compression == "none":
        return {}
    chunks = (1, *row_shape)
    if compression == "gzip":
        return {"chunks": chunks, "compression": "gzip", "compression_opts": 1, "shuffle": True}
    if compression not in COMPRESSIONS:
        raise UserError(f"unknown compression {compression!r}: choose one of {', '.join(COMPRESSIONS)}")
    load_filters(required=compression)
    import hdf5plugin

    if compression == "blosc-lz4":
        return {"chunks": chunks, "compression": hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.SHUFFLE)}
    return {"chunks": chunks, "compression": hdf5plugin.Bitshuffle(cname="lz4")}


def load_filters(required: str = "") -> None:
    """Make hdf5plugin's filters known to HDF5, where it is installed; MissingPackage if it is ``required`` and is not."""
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        if required:
            what = f"{required} needs hdf5plugin: {install_command('compression')}"
            raise MissingPackage(what, "hdf5plugin") from None


def slabs(rows: int, row_bytes: int, start: int = 0, slab_bytes: int = SLAB_BYTES) -> Iterator[tuple[int, int]]:
    """Cut ``start..rows`` into runs (start, stop) of at most ``slab_bytes``, at least one row each."""
    starts = slab_starts(rows, row_bytes, start, slab_bytes)
    for first in starts:
        yield first, min(first + starts.step, rows)


def slab_starts(rows: int, row_bytes: int, start: int = 0, slab_bytes: int = SLAB_BYTES) -> range:
    """The first rows of ``slabs``."""
    return range(start, rows, max(1, slab_bytes // max(1, row_bytes)))
