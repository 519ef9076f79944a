"""Where the samples of a TAR archive are, and what they hold.

The standard library's tarfile reads the headers. It takes a damaged one for the end of the archive, an extended one of any
length into memory, and names and links that lead anywhere for what they are: what it says is checked here.
"""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from skyset.errors import SkysetError
from skyset.messages import plain
from skyset.raw import open_regular

BLOCK = tarfile.BLOCKSIZE  # bytes; headers are one, contents are padded to the next
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
            files, or names that lead out of a folder. The samples before the damage are given first.
    """
    seen: set[str] = set()
    try:
        file = open_regular(path)
    except OSError as error:
        raise TarError(path, 0, error.strerror or str(error)) from error
    with file:
        headers = _Headers(path, file, os.fstat(file.fileno()).st_size)
        for sample in _samples(headers):
            if sample.key in seen:
                raise TarError(path, sample.start, f"{sample.key} is here a second time")
            seen.add(sample.key)
            yield sample
        headers.check_end()


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
    headers = _Headers(path, io.BytesIO(data), length, start)
    samples = list(_samples(headers))
    if len(samples) != 1 or samples[0].length != length or headers.at != length:
        raise TarError(path, start, f"not one sample of {length:,} bytes")
    return {extension: data[offset : offset + size] for extension, offset, size in samples[0].members}


class _Entry(NamedTuple):
    """One file of a sample."""

    key: str
    extension: str
    start: int  # of its first header
    offset: int  # of its contents
    size: int
    stop: int  # after its padding


class _Bounded:
    """A file of which no more than a header is read at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


class _Headers:
    """The files of an archive of ``stop`` bytes, once; ``at`` is the end of those given, ``origin`` is added in messages."""

    def __init__(self, path: str | Path, file: BinaryIO, stop: int, origin: int = 0) -> None:
        self.path, self.file, self.stop, self.origin = path, file, stop, origin
        self.at = 0

    def __iter__(self) -> Iterator[_Entry]:
        tar, file = None, _Bounded(self.file)
        while True:
            try:
                tar = tar or tarfile.TarFile(fileobj=cast(BinaryIO, file), encoding="utf-8", errors="strict")
                member = tar.next()
            except Exception as error:  # its parsers raise whatever the bytes lead them to
                raise self.error(self.at, f"damaged: {error}") from error
            if member is None:
                return
            vars(tar)["members"] = []  # it would keep them all
            if reason := self._refusal(member, tar.pax_headers):
                raise self.error(member.offset, reason)
            self.at = stop = tar.offset
            key, extension = _split(member.name)
            if key is not None and not member.isdir():
                yield _Entry(key, extension, member.offset, member.offset_data, member.size, stop)

    def check_end(self) -> None:
        """TarError unless the end mark follows: tarfile stops at a damaged header too."""
        self.file.seek(self.at)
        mark = self.file.read(2 * BLOCK)
        if len(mark) < BLOCK:
            raise self.error(self.at, "truncated: no end mark")
        if mark.strip(b"\0"):
            raise self.error(self.at, "damaged: neither a header nor the end mark")

    def error(self, at: int, reason: str) -> TarError:
        return TarError(self.path, self.origin + at, reason)

    def _refusal(self, member: tarfile.TarInfo, common: Mapping[str, str]) -> str | None:
        """Why a member cannot be one of a sample, None if it can."""
        if not (member.isreg() or member.isdir()) or member.issparse():
            return f"a member of type {member.type!r}: only files and folders are read"
        name = member.name
        if name.startswith("/") or ".." in name.split("/") or "\0" in name or not name:
            return f"a name that leads out of the folder: {name[:100]!r}"
        if not {"path", "size"}.isdisjoint(common):
            return "a global header with names or sizes"
        if member.pax_headers.get("size", str(member.size)) != str(member.size):
            return f"no size: {member.pax_headers['size'][:20]!r}"
        if not 0 <= member.size <= self.stop - member.offset_data:
            return f"truncated: a member of {member.size:,} bytes, {self.stop - member.offset_data:,} are left"
        return None


def _samples(headers: _Headers) -> Iterator[Sample]:
    """Entries joined where neighbours share their key; the sample before the damage is given before it is raised."""
    damage: list[TarError] = []

    def entries() -> Iterator[_Entry]:
        try:
            yield from headers
        except TarError as error:
            damage.append(error)

    archive = Path(headers.path).name
    for key, group in itertools.groupby(entries(), key=lambda entry: entry.key):
        files = list(group)
        members = {file.extension: Member(file.extension, file.offset, file.size) for file in files}
        if len(members) < len(files):
            raise headers.error(files[0].start, f"a member of {key} is here a second time")
        start = files[0].start
        yield Sample(key, archive, start, files[-1].stop - start, tuple(members.values()))
    if damage:
        raise damage[0]


def _split(name: str) -> tuple[str | None, str]:
    """Key and extension; no key where WebDataset sees none."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    base, dot, extension = file.partition(".")
    return (f"{folder}{slash}{base}", extension.lower()) if base and dot else (None, "")
