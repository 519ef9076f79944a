"""The ledger of complete archives: a row per sample."""

from __future__ import annotations

import csv
import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from skyset.building.tars.journal import Row
from skyset.building.tars.journal import write_whole
from skyset.building.tars.read import bytes_at
from skyset.errors import UserError
from skyset.files import sync_folder

GZIP_HEAD = b"\x1f\x8b\x08\x10\0\0\0\0\0\xff"  # with a comment, without a time


class _Piece(NamedTuple):
    """One gzip member of the ledger; its comment is ``<archive> <bytes of the archive>``."""

    offset: int
    length: int
    archive: str
    archive_size: int
    rows: int


class Ledger:
    """A gzip file of CSV that grows by whole members, one an archive; a torn last one is cut off.

    Attributes:
        archives: rows by archive.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._head = ",".join((key, *Row._fields[1:])) + "\n"
        self._pieces: dict[str, _Piece] = {}

    @property
    def archives(self) -> dict[str, int]:
        return {name: piece.rows for name, piece in self._pieces.items()}

    def keep(self, holds: Callable[[str, int], bool]) -> None:
        """Read the file, and leave out of it what is torn, unknown, superseded or no longer ``holds`` (archive, its size).

        Raises:
            UserError: it is a ledger of something else.
        """
        self._pieces = {}
        self._temporary.unlink(missing_ok=True)
        if not self.path.exists() or self.path.stat().st_size == 0:
            self._rewrite([])
            return
        size, kept, stop = self.path.stat().st_size, {}, 0
        with open(self.path, "rb") as file:
            head = True
            for piece, text in _pieces(file):
                if head and text.split("\n", 1)[0] != self._head.rstrip("\n"):
                    raise UserError(f"{self.path} has columns {text[:80]!r}, not {self._head.strip()!r}")
                if not head and holds(piece.archive, piece.archive_size):
                    kept[piece.archive] = piece
                head, stop = False, piece.offset + piece.length
            whole = stop == size and not head
        together = sum(piece.length for piece in kept.values()) + len(_compressed("", 0, self._head))
        if whole and together == size:
            self._pieces = kept
        else:
            self._rewrite(list(kept.values()))

    def keys(self) -> Iterator[str]:
        """Keys of all rows."""
        for piece in self._pieces.values():
            yield from (line.split(",", 1)[0] for line in self._text(piece).splitlines())

    def rows_of(self, archive: str) -> list[Row]:
        """The rows of one archive, in its order; none if it is unknown."""
        if archive not in self._pieces:
            return []
        lines = csv.reader(self._text(self._pieces[archive]).splitlines())
        return [Row(key, name, member, int(size), sha, int(status), int(tries))
                for key, name, member, size, sha, status, tries in lines]  # fmt: skip

    def forget(self, archive: str) -> None:
        """Take out the rows of an archive, if there are any."""
        if self._pieces.pop(archive, None):
            self._rewrite(list(self._pieces.values()))

    def append(self, archive: str, archive_size: int, rows: list[Row]) -> None:
        """Add the rows of an archive that has none."""
        text = "".join(f"{','.join(map(str, row))}\n" for row in rows)
        data = _compressed(archive, archive_size, text)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            offset = os.fstat(descriptor).st_size
            write_whole(descriptor, data, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._pieces[archive] = _Piece(offset, len(data), archive, archive_size, len(rows))

    def _text(self, piece: _Piece) -> str:
        with open(self.path, "rb") as file:
            return zlib.decompress(bytes_at(file, piece.offset, piece.length), 31).decode()

    def _rewrite(self, pieces: list[_Piece]) -> None:
        """The file with these pieces only; a reader sees the old one or the new one."""
        self._pieces = {}
        with open(self._temporary, "wb") as target:
            target.write(_compressed("", 0, self._head))
            if pieces:
                with open(self.path, "rb") as source:
                    for piece in pieces:
                        self._pieces[piece.archive] = piece._replace(offset=target.tell())
                        target.write(bytes_at(source, piece.offset, piece.length))
            target.flush()
            os.fsync(target.fileno())
        os.replace(self._temporary, self.path)
        sync_folder(self.path.parent)


def _compressed(archive: str, archive_size: int, text: str) -> bytes:
    """A gzip member with a comment."""
    data = text.encode()
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    comment = f"{archive} {archive_size}\0".encode()
    tail = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return GZIP_HEAD + comment + packer.compress(data) + packer.flush() + tail


def _pieces(file: io.BufferedReader) -> Iterator[tuple[_Piece, str]]:
    """The whole gzip members of a file with their text, up to the first damaged one."""
    offset, rest = 0, b""
    while True:
        unpacker, raw, text, spare = zlib.decompressobj(31), 0, [], rest
        head = b""
        try:
            while not unpacker.eof:
                chunk = spare or file.read(1 << 16)
                spare = b""
                if not chunk:
                    return
                head += chunk[: 200 - len(head)] if len(head) < 200 else b""
                raw += len(chunk)
                text.append(unpacker.decompress(chunk))
            decoded = b"".join(text).decode()
        except (zlib.error, UnicodeDecodeError):
            return
        rest = unpacker.unused_data
        length = raw - len(rest)
        archive, size = _comment(head)
        yield _Piece(offset, length, archive, size, decoded.count("\n")), decoded
        offset += length


def _comment(head: bytes) -> tuple[str, int]:
    """Archive and size of a member that `_compressed` made; ("", -1) of another one."""
    match = re.match(re.escape(GZIP_HEAD) + rb"([A-Za-z0-9_+.-]*) ([0-9]{1,18})\0", head)
    return (match[1].decode(), int(match[2])) if match else ("", -1)
