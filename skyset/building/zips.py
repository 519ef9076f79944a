"""ZIP archives of many small files, read member by member into memory: nothing is ever unpacked to the disk.

Archives come from anywhere: a member that is encrypted, claims to be larger than any image, has a name that leads out of a
folder, or does not have its checksum is refused, and the others are read.
"""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from skyset.errors import RecordError
from skyset.raw import open_regular
from skyset.survey import MAX_VALUE_BYTES

#: Bytes of an archive's list, a hundred a member: each takes ten times the memory.
LONGEST_LIST = 128 << 20
#: What zipfile and its decompressors raise on damaged archives.
_DAMAGE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    NotImplementedError,
)


class _Bounded:
    """A file of which no more is read at a time than an archive's list of members may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > LONGEST_LIST:
            raise zipfile.BadZipFile(f"a list of members of {size:,} bytes, more than {LONGEST_LIST:,}")
        return self._file.read(size)

    def __getattr__(self, name: str):
        return getattr(self._file, name)


class Archive(zipfile.ZipFile):
    """An archive in an open file, which is closed with it; a list of members without bounds is refused."""

    def __init__(self, file: BinaryIO) -> None:
        self._source = file
        super().__init__(_Bounded(file))

    def close(self) -> None:
        super().close()
        self._source.close()


class Member(NamedTuple):
    """A file in an archive: its number there, its name, and why it cannot be used (None where it can, so far)."""

    number: int
    name: str
    problem: str | None


def members(path: Path) -> Iterator[Member]:
    """The files of an archive in their order; folders and what macOS adds (``__MACOSX``, ``._*``) are left out.

    Raises:
        RecordError: it is no ZIP archive, or its list of files is damaged.
    """
    yield from members_of(_opened(path))


def members_of(archive: zipfile.ZipFile) -> Iterator[Member]:
    """As ``members``, of an archive that is open."""
    for number, info in enumerate(archive.infolist()):
        parts = info.filename.split("/")
        if not info.is_dir() and "__MACOSX" not in parts and not parts[-1].startswith("._"):
            yield Member(number, info.filename, _problem(info))


def read(path: Path, number: int) -> bytes:
    """A member's bytes, its checksum seen to be right.

    Raises:
        RecordError: it cannot be had.
    """
    archive = _opened(path)
    return read_member(archive, archive.infolist()[number])


def size_and_checksum(path: Path, number: int) -> tuple[int, int]:
    """What an archive says of a member, unpacked."""
    info = _opened(path).infolist()[number]
    return info.file_size, info.CRC


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """As ``read``, of an archive that is open."""
    if problem := _problem(info):
        raise RecordError(problem)
    try:
        with archive.open(info) as member:
            data = member.read(info.file_size)
            if len(data) != info.file_size or member.read(1):
                raise RecordError(f"damaged in its archive: {len(data)} bytes, {info.file_size} expected")
            return data
    except _DAMAGE as error:
        raise RecordError(f"damaged in its archive: {str(error) or type(error).__name__}") from error


def _problem(info: zipfile.ZipInfo) -> str | None:
    parts = info.filename.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0]:
        return "its name leads out of the archive's folder"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile unpacks others without bound
        return "packed in another way than images are (neither stored nor deflated)"
    if info.file_size > MAX_VALUE_BYTES:
        return f"{info.file_size} bytes unpacked, more than {MAX_VALUE_BYTES}"
    return None


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        status = os.stat(path)
        return _open(str(path), status.st_mtime_ns, status.st_size)
    except _DAMAGE as error:
        raise RecordError(f"{Path(path).name} is no ZIP archive that can be read: {error}") from error


@functools.lru_cache(maxsize=8)
def _open(path: str, *_) -> Archive:
    """Kept open: the list of a hundred thousand members takes a second to read."""
    return Archive(open_regular(path))


def close() -> None:
    """Let go of the archives that were read: what is deleted while it is open keeps its space on the disk."""
    _open.cache_clear()
