"""The journal of the open archive: what vouches for its samples."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

from skyset.errors import UserError
from skyset.files import open_locked

JOURNAL_LINE = re.compile(r"(\S+) (\S+) ([0-9]+) ([0-9a-f]{64}) ([0-9]+) ([0-9]+) ([0-9]+)")


class Row(NamedTuple):
    """One line of the ledger; member, bytes and sha256 are those of the sample's first file."""

    key: str
    archive: str
    member: str
    bytes: int
    sha256: str
    http_status: int
    tries: int


def write_whole(descriptor: int, data: bytes, offset: int) -> None:
    """All of ``data``, or as before: what a full disk left of it is cut off again."""
    view = memoryview(data)
    try:
        while view:
            written = os.pwrite(descriptor, view, offset + len(data) - len(view))
            view = view[written:]
    except OSError:
        os.ftruncate(descriptor, offset)
        raise


def no_writing(folder: Path, error: OSError) -> UserError:
    return UserError(f"{error.filename or folder} cannot be written: {error.strerror or error}; the same command goes on")


class Vouched(NamedTuple):
    row: Row  # its archive is empty
    crc32: int  # of the sample's bytes in the archive


class Journal:
    """One line a sample of the open archive, written before the sample; the file is the folder's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor, _ = open_locked(path)
        except BlockingIOError:
            raise UserError(f"another process is writing to {path.parent}") from None
        except OSError as error:
            raise no_writing(path.parent, error) from error
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            write_whole(self._descriptor, b"\n", self._size)  # after a torn line
            self._size += 1

    def read(self) -> dict[str, Vouched]:
        """What is vouched for, by key; of several lines the last one counts."""
        vouched = {}
        for line in os.pread(self._descriptor, self._size, 0).decode("ascii", errors="replace").split("\n"):
            if match := JOURNAL_LINE.fullmatch(line):
                key, member, size, digest, status, tries, crc32 = match.groups()
                row = Row(key, "", member, int(size), digest, int(status), int(tries))
                vouched[key] = Vouched(row, int(crc32))
        return vouched

    def write(self, row: Row, data: bytes) -> None:
        line = f"{row.key} {' '.join(map(str, row[2:]))} {zlib.crc32(data)}\n".encode()
        write_whole(self._descriptor, line, self._size)
        self._size += len(line)

    def empty(self) -> None:
        os.ftruncate(self._descriptor, 0)
        self._size = 0

    def close(self) -> None:
        if self._descriptor < 0:
            return
        if not self._size:
            self.path.unlink(missing_ok=True)  # while it is locked: nobody else's can be hit
        os.close(self._descriptor)
        self._descriptor = -1
