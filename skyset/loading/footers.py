"""What anybody's Parquet files are made of: the footers of many at a time, near or far, and pieces of whole row groups."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skyset import remote
from skyset.errors import PartitionError, UserError
from skyset.files import short_digest, write_atomically
from skyset.loading.reader import MAX_PIECES, PIECE_BYTES, Piece
from skyset.messages import say
from skyset.partitions.parquet_file import DAMAGE, MAX_GROUP_BYTES
from skyset.ranges import Lines

#: Footers that are waited for at a time: of files on a disk there is nothing to wait for, and threads would cost more.
_FAR, _NEAR = 16, 1
#: A file's end that is fetched at once: footers of a few hundred columns fit in.
_TAIL, _MOST = 64 << 10, 1 << 30
#: An address that means the same bytes for ever.
_PINNED = re.compile(r"hf://(datasets|spaces)/[^/@]+/[^/@]+@[0-9a-f]{40}/.+")


@dataclass(frozen=True)
class Footer:
    """Of one file.

    Args:
        path: local, or a URL.
        bytes: of the file.
        groups: of each row group, rows and bytes of all columns, decoded but for their encodings.
        missing: columns that lack values, ``<column>.<field>`` of structs and lists, as far as the footer tells.
    """

    path: str
    bytes: int
    groups: tuple[tuple[int, int], ...]
    missing: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.groups)


def first_file(path: str) -> pq.ParquetFile:
    """The footer of one file: its schema and metadata, of which nothing else can be read.

    Raises:
        PartitionError: it is damaged.
    """
    with Lines(1) as lines:
        return _read(path, lines)[0]


def read_footers(
    paths: Sequence[str], check: Callable[[pa.Schema], None], kept_in: Path | None = None, skip_bad: bool = False
) -> list[Footer]:
    """Those of all files, in their order.

    Args:
        paths: local, or URLs.
        check: is called with each schema that differs from the one before; whatever it raises is raised.
        kept_in: a folder where those of files that never change, a commit's on the Hub, are kept for the next time.
        skip_bad: go on without damaged files, naming each.

    Raises:
        PartitionError: a file is damaged, or has a row group that is too long.
    """
    kept = None
    if kept_in is not None and paths and all(map(_PINNED.fullmatch, paths)):
        kept = kept_in / f"{short_digest(chr(10).join(paths))}.json"
        if (found := _kept(kept, paths)) is not None:
            return found
    seen: list[pq.ParquetSchema] = []

    def read(path: str) -> Footer | None:
        try:
            return whole(path)
        except PartitionError as error:
            if not skip_bad:
                raise
            say(f"skipped: {error}")
            return None

    def whole(path: str) -> Footer:
        file, size = _read(path, lines)
        schema = file.metadata.schema
        if not any(schema.equals(each) for each in seen):
            check(file.schema_arrow)
            seen.append(schema)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if max((group.total_byte_size for group in groups), default=0) > MAX_GROUP_BYTES:
            raise PartitionError(f"{path}: a row group has more than {MAX_GROUP_BYTES:,} bytes")
        counts = tuple((group.num_rows, group.total_byte_size) for group in groups)
        return Footer(path, size, counts, _missing(file.metadata))

    threads = _FAR if any("://" in path for path in paths) else _NEAR
    with Lines(threads) as lines, ThreadPoolExecutor(threads) as pool:
        try:
            footers = [footer for footer in pool.map(read, paths) if footer is not None]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if kept is not None and len(footers) == len(paths):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps([[each.bytes, each.groups, each.missing] for each in footers]))
    return footers


def _missing(metadata: pq.FileMetaData) -> tuple[str, ...]:
    """The columns, with their fields, of which some row group counts missing values. Of an image its path may be missing."""
    found = set()
    names = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    looked_at = [number for number, name in enumerate(names) if not name.endswith(".path")]
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for number in looked_at:
            statistics = group.column(number).statistics
            if statistics is not None and statistics.has_null_count and statistics.null_count:
                found.add(names[number])
    return tuple(sorted(found))


def _kept(file: Path, paths: Sequence[str]) -> list[Footer] | None:
    """What was kept; None where there is nothing, or nothing that can be."""
    try:
        values = json.loads(file.read_bytes())
        found = [
            Footer(path, int(size), tuple((int(rows), int(most)) for rows, most in groups), tuple(map(str, missing)))
            for path, (size, groups, missing) in zip(paths, values, strict=True)
        ]
    except (OSError, ValueError, TypeError):
        return None
    return found


def _read(path: str, lines: Lines) -> tuple[pq.ParquetFile, int]:
    """A file's footer, and its bytes; PartitionError where it is damaged."""
    try:
        if "://" not in path:
            size = os.path.getsize(path)
            with open(path, "rb") as source:
                end = _end(size, lambda count: _last(source, size, count))
        else:
            file = remote.found(path)
            end = _end(None, lambda count: _fetched(file, count, lines))
            assert file.version is not None  # it was read
            size = file.version.size
        return pq.ParquetFile(pa.BufferReader(end)), size
    except DAMAGE as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
        raise PartitionError(f"{path}: {reason}") from error


def _end(size: int | None, last: Callable[[int], bytes]) -> bytes:
    """The end of a file with all of its footer; ``last`` gives as many bytes of it."""
    end = last(_TAIL)
    if len(end) < 12 or end[-4:] != b"PAR1":
        raise ValueError("it is no Parquet file, or its end is missing")
    wanted = int.from_bytes(end[-8:-4], "little") + 8
    if wanted > min(_MOST, size or _MOST):
        raise ValueError(f"its footer would have {wanted:,} bytes")
    return b"PAR1" + (end if wanted <= len(end) else last(wanted))


def _last(source, size: int, count: int) -> bytes:
    source.seek(max(0, size - count))
    return source.read()


def _fetched(file, count: int, lines: Lines) -> bytes:
    out = bytearray(count)
    got = file.get(-count, memoryview(out), lines)
    return bytes(out[:got])


def pieces_of(footers: Sequence[Footer], digests: Mapping[str, str] | None = None) -> list[Piece]:
    """All rows, in order, in pieces of whole row groups of about ``PIECE_BYTES``: a group is decoded as a whole.

    Args:
        footers: of the files.
        digests: SHA-256 of files, by path, where they are known.

    Raises:
        UserError: there would be more pieces than can be.
    """
    pieces: list[Piece] = []
    for footer in footers:
        start = stop = size = 0
        digest = (digests or {}).get(footer.path, "")
        known = footer.rows, footer.bytes, None, digest
        for rows, most in footer.groups:
            if stop > start and size + most > PIECE_BYTES:
                pieces.append(Piece(footer.path, start, stop, *known))
                start, size = stop, 0
            stop, size = stop + rows, size + most
        if stop > start:
            pieces.append(Piece(footer.path, start, stop, *known))
    if len(pieces) > MAX_PIECES:
        raise UserError(f"{footers[0].path}: the files would be read in {len(pieces)} pieces: too many")
    return pieces


def digests_of(paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of files in a repository on the Hub, as its list of files tells them; those of other places are not there.

    Raises:
        OSError: the Hub cannot be reached.
    """
    folders = dict.fromkeys(path.rpartition("/")[0] for path in paths if _PINNED.fullmatch(path))
    found: dict[str, str] = {}
    for folder in folders:
        with remote.os_errors():
            system, where = remote.opened(folder)
            for each in system.ls(where, detail=True):
                large = each.get("lfs")
                if large is not None:
                    digest = large["sha256"] if isinstance(large, Mapping) else large.sha256
                    found[f"{folder}/{each['name'].rpartition('/')[2]}"] = digest
    return {path: found[path] for path in paths if path in found}
