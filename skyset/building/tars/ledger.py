"""The list of an archive's samples: a CSV beside it that grows by appending, a row before its sample.

``images-00000.csv`` says of each sample of ``images-00000.tar`` where it ends and what its bytes add up to: whatever moment
a kill or a power cut chose, the rows whose bytes are there are what is complete, and the rest is cut off.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from skyset.building.tars.read import BLOCK
from skyset.errors import UserError
from skyset.files import put_in_place

RECORD = 20 * BLOCK  # an archive's size is a multiple


Line = bytes  # a field of the row has that name


class LedgerRow(NamedTuple):
    """One line: member, bytes and sha256 are those of the sample's first file.

    ``end`` is where the sample ends in the archive; it begins where the one before ends. ``crc32`` is of all these bytes.
    """

    key: str
    archive: str
    member: str
    bytes: int
    sha256: str
    http_status: int
    tries: int
    end: int
    crc32: int

    @property
    def line(self) -> Line:
        return f"{','.join(map(str, self))}\n".encode()


_LINE = re.compile(r"([\w+-]+),([\w+.-]+),([\w+.-]+),(\d+),([0-9a-f]{64}),(\d+),(\d+),(\d+),(\d+)", re.ASCII)


def ledger_of(archive: Path) -> Path:
    """``images-00000.csv`` of ``images-00000.tar`` or ``images-00000.tar.part``."""
    return archive.with_name(f"{archive.name.partition('.')[0]}.csv")


def head(key: str) -> bytes:
    """The first line."""
    return f"{','.join((key, *LedgerRow._fields[1:]))}\n".encode()


def read_rows(path: Path, key: str) -> list[LedgerRow]:
    """The rows up to the first line that is none, such as a last one that was cut; none if there is no file.

    Raises:
        UserError: it is a list of something else.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    if lines[0] + b"\n" != head(key):
        if len(lines) == 1:
            return []  # cut in the first line
        raise UserError(f"{path} has columns {lines[0][:80]!r}, not {head(key).strip().decode()!r}: move it elsewhere")
    rows = []
    for line in lines[1:-1]:
        if (match := _LINE.fullmatch(line.decode("ascii", errors="replace"))) is None:
            break
        name, archive, member, size, digest, *numbers = match.groups()
        rows.append(LedgerRow(name, archive, member, int(size), digest, *map(int, numbers)))
    return rows


def is_ours(path: Path, key: str) -> bool:
    """Whether there is such a list, or what a power cut left of one."""
    if not path.exists():
        return False
    with open(path, "rb") as file:
        return head(key).startswith(file.readline(1000))


def there(archive: Path, rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    """The rows whose bytes are in the archive, up to the first whose are not."""
    found, start = [], 0
    with open(archive, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for row in rows:
            if not start < row.end <= size or zlib.crc32(file.read(row.end - start)) != row.crc32:
                break
            found.append(row)
            start = row.end
    return found


def is_of(archive: Path, rows: Sequence[LedgerRow]) -> bool:
    """Whether these are the rows of a complete archive, as far as its size and end tell."""
    if not rows or any(row.archive != archive.name for row in rows):
        return False
    with open(archive, "rb") as file:
        file.seek(end := rows[-1].end)
        return os.fstat(file.fileno()).st_size == archive_bytes(end) and not file.read(BLOCK).strip(b"\0")


def archive_bytes(end: int) -> int:
    """The size of an archive whose last sample ends there."""
    return -(-(end + 2 * BLOCK) // RECORD) * RECORD


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """All of ``data``, or as before: what a full disk left of it is cut off again."""
    view = memoryview(data)
    try:
        while view:
            written = os.pwrite(descriptor, view, offset + len(data) - len(view))
            view = view[written:]
    except OSError:
        os.ftruncate(descriptor, offset)
        raise


class Part:
    """An archive that is written: ``images-00001.tar.part``, and its list. A complete one is taken up again under that name.

    Args:
        archive: the complete archive's path.
        key: name of the list's first column.
        rows: its first samples, which are there; the rest of archive and list is cut off.
    """

    def __init__(self, archive: Path, key: str, rows: Sequence[LedgerRow] = ()) -> None:
        self.archive, self._part = archive, archive.with_name(f"{archive.name}.part")
        if archive.exists():
            os.rename(archive, self._part)
        text = head(key)
        self._ends = [len(text)]  # of the list's lines
        for row in rows:
            text += row.line
            self._ends.append(len(text))
        self.rows = list(rows)
        self._tar = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._list = -1
        try:
            self._list = os.open(ledger_of(archive), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            write_all(self._list, text, 0)
            os.ftruncate(self._list, len(text))
            os.ftruncate(self._tar, self.stop)
        except BaseException:
            self.close()
            raise

    @property
    def stop(self) -> int:
        """Where the last sample ends."""
        return self.rows[-1].end if self.rows else 0

    def add(self, row: LedgerRow, data: bytes) -> None:
        """Write a sample's row, then its bytes; what Ctrl-C or a full disk leaves between the two is written over."""
        count = len(self.rows)
        write_all(self._list, row.line, self._ends[count])
        write_all(self._tar, data, self.stop)
        self._ends[count + 1 :] = [self._ends[count] + len(row.line)]
        self.rows.append(row)  # only this counts

    def complete(self) -> None:
        """End mark, onto the disk, and the archive's own name."""
        size = archive_bytes(self.stop)
        write_all(self._tar, bytes(size - self.stop), self.stop)
        os.ftruncate(self._tar, size)
        os.ftruncate(self._list, self._ends[len(self.rows)])
        os.fsync(self._list)
        put_in_place(self._part, self.archive)

    def remove(self) -> None:
        """Delete both files."""
        self._part.unlink(missing_ok=True)
        ledger_of(self.archive).unlink(missing_ok=True)

    def close(self) -> None:
        for descriptor in (self._tar, self._list):
            if descriptor >= 0:
                os.close(descriptor)
        self._tar = self._list = -1
