"""What a push puts into a repository: the data as Parquet, as the folder's HDF5, or as a HATS catalogue; each file once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from skyset.errors import UserError
from skyset.files import file_sha256, is_plain_name, is_temporary
from skyset.partitions.layout import MANIFEST, REJECTED
from skyset.publishing.parquet import COMPRESSIONS, ROW_GROUP_BYTES, write_parquet
from skyset.publishing.preview import add_previews, pictured, with_preview
from skyset.publishing.schema import widely_read
from skyset.publishing.shards import SHARD_BYTES, Shard, planned, runs
from skyset.publishing.source import Source, sources
from skyset.publishing.trees import prepared

FORMATS = ("parquet", "hdf5", "hats")
#: Changed with whatever changes the bytes of a file of the same rows.
WRITER = "skyset-parquet/2"
_OF_HATS = ("collection.properties", "hats.properties", "properties")


@dataclass(frozen=True)
class Form:
    """How rows become Parquet files.

    Args:
        compression: one of ``parquet.COMPRESSIONS``.
        preview: add small pictures of the first image where its pixels are an array.
        every_column: also the columns that no feature of the loader is made of.
        shard_bytes: of the partitions of a file, about.
    """

    compression: str = "zstd"
    preview: bool = True
    every_column: bool = False
    shard_bytes: int = SHARD_BYTES

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise UserError(f"unknown compression {self.compression!r}: choose one of {', '.join(COMPRESSIONS)}")
        if self.shard_bytes < 1 << 16:
            raise UserError(f"a file of {self.shard_bytes} bytes is too small: give at least 65536")

    def source(self, source: Source) -> Source:
        """What of a dataset is written."""
        return source.with_every_column() if self.every_column else source

    def pictured(self, source: Source) -> str | None:
        """The feature that previews are drawn of."""
        return pictured(source.survey) if self.preview else None

    def schema(self, source: Source) -> pa.Schema:
        """Of the files of a dataset; the `datasets` features are in its metadata."""
        features = self.source(source).features
        return widely_read((with_preview(features) if self.pictured(source) else features).arrow_schema)

    def how(self, source: Source) -> str:
        """All that decides a file's bytes besides the rows."""
        schema = self.schema(source)
        return f"{WRITER} {self.compression} {schema} {(schema.metadata or {}).get(b'huggingface')!r}"


@dataclass(frozen=True)
class Item:
    """One file for the repository.

    Args:
        path: in the repository.
        bytes: of it; of a shard, of the partitions it is made of.
        rows: 0 where it is not of rows, or they are not known.
        file: where it lies; None for a shard, which is made when its turn comes.
        sha256: what the file's must be, hexadecimal; empty where nothing is known.
        shard: what it is made of.
    """

    path: str
    bytes: int
    rows: int = 0
    file: Path | None = None
    sha256: str = ""
    shard: Shard | None = None

    def made_of(self) -> str:
        """What tells whether it is the same as one that was sent: read from the file where nothing is known of it.

        Raises:
            UserError: the file is not what the manifest says.
        """
        if self.shard is not None:
            return self.shard.made_of
        assert self.file is not None
        try:
            found = file_sha256(self.file)
        except OSError as error:
            raise UserError(f"{self.file} cannot be read: {error.strerror}") from error
        if self.sha256 and found != self.sha256:
            raise UserError(
                f"{self.file} is not what {MANIFEST} says (SHA-256 {found[:12]}..., not {self.sha256[:12]}...): "
                "`skyset verify` names all differences, the command that built it mends them"
            )
        return found


def parquet_items(found: dict[str, Source], form: Form) -> list[Item]:
    """The Parquet files of datasets."""
    shards = [
        shard
        for source in found.values()
        for shard in planned(source.manifest, form.how(source), form.shard_bytes, source.cells)
    ]
    return [Item(shard.path, shard.bytes, shard.rows, shard=shard) for shard in shards]


def hdf5_items(found: dict[str, Source], top: Path) -> list[Item]:
    """The partitions of datasets as they lie, with their manifests."""
    items = []
    for source in found.values():
        root = Path(source.root)
        below = root.relative_to(top).as_posix()
        start = "" if below == "." else f"{below}/"
        for entry in source.manifest.files:
            items.append(Item(start + entry.path, entry.bytes, entry.rows, root / entry.path, entry.sha256))
        for name in (MANIFEST, REJECTED):
            if (root / name).is_file():
                items.append(Item(start + name, (root / name).stat().st_size, 0, root / name))
    return items


def folder_items(folder: Path, start: str = "", leave: tuple[str, ...] = ()) -> list[Item]:
    """All files below a folder, but hidden and temporary ones and those named in ``leave``.

    Raises:
        UserError: a name cannot be one of a repository, or a link leads out of the folder.
    """
    items = []
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if name in leave:
            continue
        if not all(is_plain_name(part) for part in name.split("/")):
            raise UserError(f"{name!r} cannot be a file's name in a repository")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} leads out of {folder}: it is not pushed")
        items.append(Item(f"{start}{name}", path.stat().st_size, 0, path))
    return items


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and not is_temporary(name) and (path := Path(parent, name)).is_file():
                yield path


def is_hats(folder: Path) -> bool:
    """Whether a folder is a HATS catalogue or collection."""
    return any((folder / name).is_file() for name in _OF_HATS)


def check_hats(folder: Path) -> None:
    """Raise UserError unless a folder is a HATS catalogue or collection."""
    if not is_hats(folder):
        raise UserError(
            f"{folder} is no HATS catalogue: `skyset hats {folder} -o OUT` makes one of partitions, push OUT then"
        )


def datasets_of(survey: str, folder: Path) -> dict[str, Source]:
    """The datasets of a survey in a folder of its partitions, by config.

    Raises:
        UserError: there is none, or it is another survey's.
        PartitionError: a file of an adopted tree is not what it was.
    """
    found = sources(str(folder))
    for source in found.values():
        if source.manifest.survey != survey:
            raise UserError(f"{folder} holds {source.manifest.survey}, not {survey}")
        if source.manifest.build.get("in_place"):
            raise UserError(f"{folder} holds published files as they are: `skyset build {survey}` makes partitions of them")
    return {config: prepared(source) for config, source in found.items()}


def make_shard(source: Source, shard: Shard, form: Form, file: Path) -> tuple[str, int, int]:
    """Write a shard's Parquet file; its SHA-256, bytes and rows. A partition's checksum is looked at as it is read.

    Raises:
        PartitionError: a partition is not what the manifest says.
        UserError: the disk is full.
    """
    chosen = form.source(source)
    batches = chosen.batches(shard.files)
    if name := form.pictured(source):
        batches = add_previews(batches, name, chosen.features)
    rows = [sum(entry.rows for entry in run) for run in runs(shard.files, ROW_GROUP_BYTES)]
    written = write_parquet(file, form.schema(source), batches, compression=form.compression, ends=list(accumulate(rows)))
    if written.rows != shard.rows:
        raise UserError(
            f"{shard.path} would have {written.rows} rows, the manifest says {shard.rows}: `skyset verify` first"
        )
    return written.sha256, written.bytes, written.rows


def smaller(source: Source) -> Source:
    """The same without its list of files: it goes to another process with every shard."""
    return replace(source, manifest=replace(source.manifest, files=[]), cells={})
