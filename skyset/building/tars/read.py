"""Samples in TAR archives, read by offset; headers are believed only after checks."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from typing import NamedTuple

from skyset.errors import SkysetError
from skyset.messages import plain
from skyset.raw import open_regular

BLOCK = 512  # bytes; headers are one, contents are padded to the next
RECORD = 20 * BLOCK  # an archive's size is a multiple
KEY = re.compile(r"[A-Za-z0-9_+-]{1,80}")
EXTENSION = re.compile(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8})?")
LONGEST_HEADER = 1 << 20  # bytes of an extended header
LONGEST_SAMPLE = 256 << 20  # bytes that are read at a time


class TarError(SkysetError):
    """An archive is damaged or not of the plain kind that is read here: `path`, `offset` in bytes, `reason`."""

    def __init__(self, path: str | Path, offset: int, reason: str) -> None:
        super().__init__(path, offset, reason)
        self.path = path
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        return plain(f"{self.path}: at byte {self.offset:,}: {self.reason}")


class Member(NamedTuple):
    """One file of a sample: what follows the first dot of its name, and where in the archive its bytes are."""

    extension: str
    offset: int
    size: int


class Sample(NamedTuple):
    """Files that belong together; they and their headers are ``length`` bytes of the archive from ``start`` on."""

    key: str
    archive: str
    start: int
    length: int
    members: tuple[Member, ...]


def index(path: str | Path) -> Iterator[Sample]:
    """Where each sample of an archive is, from the headers alone, which are checked.

    Archives of GNU tar, Python's tarfile (GNU, ustar, pax) and webdataset are read. Directories, and files without
    a dot in their name or with one at its begin, belong to no sample, as in WebDataset.

    Raises:
        TarError: the archive is truncated or damaged, has a key or a member twice, or holds links, devices, sparse
            files, or names that lead out of a folder.
    """
    seen: set[str] = set()
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        for sample in samples_of(Headers(path, lambda offset, count: bytes_at(file, offset, count), 0, size, whole=True)):
            if sample.key in seen:
                raise TarError(path, sample.start, f"{sample.key} is here a second time")
            seen.add(sample.key)
            yield sample


def _opened(path: str | Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise TarError(path, 0, error.strerror or str(error)) from error


def read_sample(path: str | Path, start: int, length: int) -> dict[str, bytes]:
    """Contents by extension of the sample that `index` found at ``start``; one read of the file.

    Raises:
        TarError: there is no sample there, or the file changed.
    """
    if length > LONGEST_SAMPLE:
        raise TarError(path, start, f"a sample of {length:,} bytes, more than {LONGEST_SAMPLE:,}")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, length, start)
    finally:
        os.close(descriptor)
    if len(data) != length:
        raise TarError(path, start, f"the file ends before {start + length:,}")

    def read(offset: int, count: int) -> bytes:
        return data[offset - start : offset - start + count]

    samples = list(samples_of(Headers(path, read, start, start + length, whole=False)))
    if len(samples) != 1 or samples[0].length != length:
        raise TarError(path, start, f"not one sample of {length:,} bytes")
    return {member.extension: read(member.offset, member.size) for member in samples[0].members}


def bytes_at(file: io.BufferedReader, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


class _Entry(NamedTuple):
    """One regular file of an archive, or None as `name` for a thing that only ends a sample."""

    name: str | None
    start: int  # of its first header
    offset: int  # of its contents
    size: int
    stop: int  # after its padding


@dataclass
class Headers:
    """The files of an archive in ``start..stop``; ``whole`` archives must have their end mark.

    ``read`` gives ``count`` bytes at an offset, fewer at the end.
    """

    path: str | Path
    read: Callable[[int, int], bytes]
    start: int
    stop: int
    whole: bool

    def __iter__(self) -> Iterator[_Entry]:
        start = at = self.start
        extended: dict[str, str] = {}
        while at < self.stop:
            block = self.read(at, BLOCK)
            if not block.strip(b"\0") and len(block) == BLOCK:
                if extended:
                    raise TarError(self.path, at, "an extended header without its file")
                if self.whole and self.read(at + BLOCK, BLOCK).strip(b"\0"):
                    raise TarError(self.path, at, "an empty header between others")
                return
            self._check(block, at)
            kind, size = block[156:157], _number(self.path, block[124:136], at)
            if kind in b"xLg":
                size = self._bounded(at, size, LONGEST_HEADER)
                content = self.read(at + BLOCK, size)
                if kind == b"g":
                    if not {"path", "size"}.isdisjoint(_pax(self.path, content, at)):
                        raise TarError(self.path, at, "a global header with names or sizes")
                elif kind == b"L":
                    extended["path"] = _text(self.path, content.split(b"\0", 1)[0], at)
                else:
                    extended.update(_pax(self.path, content, at))
                at += BLOCK + _padded(size)
                continue
            if kind not in (b"0", b"\0", b"7", b"5"):
                raise TarError(self.path, at, f"a member of type {kind!r}: only files and folders are read")
            if any(name.startswith("GNU.sparse") for name in extended):
                raise TarError(self.path, at, "a sparse file")
            if "size" in extended:
                size = _decimal(self.path, extended["size"], at)
            name = self._name(extended.get("path") or _name(self.path, block, at), at)
            size = 0 if kind == b"5" else self._bounded(at, size, self.stop)
            offset, stop = at + BLOCK, at + BLOCK + _padded(size)
            yield _Entry(None if kind == b"5" or name.endswith("/") else name, start, offset, size, stop)
            start = at = stop
            extended = {}
        if self.whole or extended:
            raise TarError(self.path, at, "truncated: no end mark")

    def _check(self, block: bytes, at: int) -> None:
        if len(block) < BLOCK:
            raise TarError(self.path, at, "truncated in a header")
        stated = _number(self.path, block[148:156], at)
        if stated != sum(block[:148]) + sum(block[156:]) + 8 * ord(" "):
            raise TarError(self.path, at, "no header: its checksum is wrong")

    def _bounded(self, at: int, size: int, limit: int) -> int:
        if size > limit or at + BLOCK + _padded(size) > self.stop:
            raise TarError(self.path, at, f"truncated: a member of {size:,} bytes, {self.stop - at - BLOCK:,} are left")
        return size

    def _name(self, name: str, at: int) -> str:
        if name.startswith("/") or ".." in name.split("/") or "\0" in name or not name:
            raise TarError(self.path, at, f"a name that leads out of the folder: {name[:100]!r}")
        return name.removeprefix("./")


def samples_of(headers: Headers) -> Iterator[Sample]:
    """Entries joined where neighbours share their key."""
    archive, error = Path(headers.path).name, None
    key, start, stop, members = None, 0, 0, []
    entries = iter(headers)
    while True:
        try:
            entry = next(entries, None)
        except TarError as found:
            entry, error = None, found  # the sample before the damage is given first
        this, extension = _split(entry.name) if entry else (None, "")
        if entry is not None and this is None:
            continue
        if this != key:
            if key is not None:
                yield Sample(key, archive, start, stop - start, tuple(members))
            key, start, members = this, 0 if entry is None else entry.start, []
        if entry is None:
            break
        if any(member.extension == extension for member in members):
            raise TarError(headers.path, entry.start, f"{entry.name} is here a second time")
        members.append(Member(extension, entry.offset, entry.size))
        stop = entry.stop
    if error is not None:
        raise error


def _split(name: str | None) -> tuple[str | None, str]:
    """Key and extension; no key where WebDataset sees none."""
    folder, slash, file = (name or "").rpartition("/")
    base, dot, extension = file.partition(".")
    return (f"{folder}{slash}{base}", extension.lower()) if base and dot else (None, "")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _number(path: str | Path, digits: bytes, at: int) -> int:
    """A header's number: octal digits, or base 256 where the first bit is set."""
    if digits[0] == 0x80:
        return int.from_bytes(digits[1:], "big")
    digits = digits.strip(b" \0")
    if digits.strip(b"01234567"):
        raise TarError(path, at, f"no header: {digits!r} is not a number")
    return int(digits, 8) if digits else 0


def _decimal(path: str | Path, digits: str, at: int) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", digits):
        raise TarError(path, at, f"no size: {digits[:20]!r}")
    return int(digits)


def _name(path: str | Path, block: bytes, at: int) -> str:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return _text(path, prefix + b"/" + name if prefix else name, at)


def _text(path: str | Path, name: bytes, at: int) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise TarError(path, at, f"a name that is not UTF-8: {name[:100]!r}") from None


def _pax(path: str | Path, content: bytes, at: int) -> dict[str, str]:
    """The records ``<length> <name>=<value>\\n`` of an extended header."""
    records, position = {}, 0
    while position < len(content) and content[position]:
        match = re.compile(rb"([0-9]{1,9}) ([^=]+)=").match(content, position)
        end = position + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise TarError(path, at, "a damaged extended header")
        name = _text(path, match[2], at)
        if name in ("path", "size") or name.startswith("GNU.sparse"):
            records[name] = _text(path, content[match.end() : end - 1], at)
        position = end
    return records
