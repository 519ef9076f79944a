"""Samples in TAR archives: written so that a kill at any moment loses nothing that was complete, and read by offset.

An archive holds samples as WebDataset does: members that follow each other and share a name up to the first dot.

    with TarSink(folder) as sink:
        for answer in pool.run(request for request in wanted if request.key not in sink.done):
            if answer.data is None:
                sink.fail(answer.key, answer.reason, answer.status, answer.tries, answer.url)
            else:
                sink.add(answer.key, {"jpg": answer.data}, answer.status, answer.tries)

Files of a sink's folder:

============================  ==================================================================================
``images-00000.tar``          a complete archive, never changed except that a short last one grows by replacement
``images-00001.tar.part``     the open archive
``Images_downloaded.csv.gz``  the ledger: a row a sample; one gzip member an archive, appended when it is complete
``Images_failed.csv``         what could not be had, and why
``.images.journal``           of the open archive: status, tries and checksums; also the lock
============================  ==================================================================================

The order is: journal, sample; and at the end of an archive: sync, rename, ledger, journal emptied. So whatever
the moment, a sample is in a complete archive or vouched for by the journal, or it is cut off and downloaded again.
"""

from __future__ import annotations

import bisect
import csv
import hashlib
import io
import itertools
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from typing import NamedTuple

import numpy as np

from skyset.errors import SkysetError
from skyset.errors import UserError
from skyset.files import open_locked
from skyset.files import sync_folder
from skyset.files import write_atomically
from skyset.messages import csv_cell
from skyset.messages import plain
from skyset.raw import open_regular

BLOCK = 512  # bytes; headers are one, contents are padded to the next
RECORD = 20 * BLOCK  # an archive's size is a multiple
KEY = re.compile(r"[A-Za-z0-9_+-]{1,80}")
EXTENSION = re.compile(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8})?")
JOURNAL_LINE = re.compile(r"(\S+) (\S+) ([0-9]+) ([0-9a-f]{64}) ([0-9]+) ([0-9]+) ([0-9]+)")
LONGEST_HEADER = 1 << 20  # bytes of an extended header
LONGEST_SAMPLE = 256 << 20  # bytes that are read at a time
_FEW = 1 << 16  # keys that are cheap to keep as text
GZIP_HEAD = b"\x1f\x8b\x08\x10\0\0\0\0\0\xff"  # with a comment, without a time


class TarError(SkysetError):
    """An archive is damaged or not of the plain kind that is read here: `path`, `offset` in bytes, `reason`."""

    def __init__(self, path: str | Path, offset: int, reason: str) -> None:
        super().__init__(path, offset, reason)
        self.path = path
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        return plain(f"{self.path}: at byte {self.offset:,}: {self.reason}")


# --- reading ------------------------------------------------------------------------------------------------


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
        for sample in _samples(_Headers(path, lambda offset, count: _at(file, offset, count), 0, size, whole=True)):
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

    samples = list(_samples(_Headers(path, read, start, start + length, whole=False)))
    if len(samples) != 1 or samples[0].length != length:
        raise TarError(path, start, f"not one sample of {length:,} bytes")
    return {member.extension: read(member.offset, member.size) for member in samples[0].members}


def _at(file: io.BufferedReader, offset: int, count: int) -> bytes:
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
class _Headers:
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


def _samples(headers: _Headers) -> Iterator[Sample]:
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


# --- writing ------------------------------------------------------------------------------------------------


def header(name: str, size: int) -> bytes:
    """A ustar header that depends on nothing but name and size: owner 0, mode 644, time 0."""
    block = bytearray(BLOCK)
    fields = (name.encode(), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size, b"00000000000\0")
    struct.pack_into("100s8s8s8s12s12s8sc", block, 0, *fields, b" " * 8, b"0")
    struct.pack_into("6s2s", block, 257, b"ustar\0", b"00")
    struct.pack_into("8s", block, 148, b"%06o\0 " % sum(block))
    return bytes(block)


def _packed(key: str, members: Mapping[str, bytes]) -> bytes:
    parts = []
    for extension, content in members.items():
        parts += [header(f"{key}.{extension}", len(content)), content, bytes(-len(content) % BLOCK)]
    return b"".join(parts)


class Keys(Set):
    """A set of ASCII keys that takes as many bytes a key as the longest one has letters; a Python set takes 130."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._sorted = np.array([], "S")
        self._new: set[str] = set()
        pieces = [self._sorted]
        keys = iter(keys)
        while piece := list(itertools.islice(keys, _FEW)):
            pieces.append(np.array(piece, "S"))
        self._sorted = np.concatenate(pieces)
        self._sorted.sort()

    def __contains__(self, key: object) -> bool:
        if key in self._new:
            return True
        if not isinstance(key, str) or not key.isascii():
            return False
        data = key.encode()
        place = bisect.bisect_left(self._sorted, data)
        return place < len(self._sorted) and self._sorted[place] == data

    def __iter__(self) -> Iterator[str]:
        yield from (key.decode() for key in self._sorted)
        yield from self._new

    def __len__(self) -> int:
        return len(self._sorted) + len(self._new)

    def add(self, key: str) -> None:
        """Take in a key that is not there yet."""
        self._new.add(key)
        if len(self._new) >= _FEW:
            self._sorted = np.concatenate([self._sorted, np.array(sorted(self._new), "S")])
            self._sorted.sort(kind="stable")
            self._new = set()


class Row(NamedTuple):
    """One line of the ledger; member, bytes and sha256 are those of the sample's first file."""

    key: str
    archive: str
    member: str
    bytes: int
    sha256: str
    http_status: int
    tries: int


class TarSink:
    """Samples into archives of ``per_archive``, each key once, over as many runs as it takes.

    Args:
        folder: made if it is missing; one process at a time.
        per_archive: samples of an archive; the last one of a run may be shorter, the next run fills it up.
        prefix: of the archives' names.
        ledger, failed: names of the two lists.
        key: name of their first column.

    Attributes:
        done: a `Keys` of everything that is safe; with 19 digits a key, about 20 MB for a million.
        failures: by key, the row of the list of failures.
        aside: archives that could not be used and were renamed ``*.damaged``, with the reason. Their samples are not
            in `done`.

    Raises:
        UserError: the folder cannot be written, or another process writes it.
    """

    def __init__(
        self,
        folder: str | Path,
        per_archive: int = 1000,
        prefix: str = "images",
        ledger: str = "Images_downloaded.csv.gz",
        failed: str = "Images_failed.csv",
        key: str = "objid",
    ) -> None:
        if per_archive < 1 or not KEY.fullmatch(prefix) or not KEY.fullmatch(key):
            raise ValueError(f"per_archive {per_archive}, prefix {prefix!r}, key {key!r}")
        self.folder = Path(folder)
        self.per_archive = per_archive
        self.prefix = prefix
        self.key = key
        self.failed = self.folder / failed
        self.failures: dict[str, tuple] = {}
        self.aside: dict[str, str] = {}
        self._part: int | None = None  # descriptor of the open archive
        self._number = 0
        self._samples: list[tuple[Row, int]] = []  # of the open archive, each with the offset of its end
        self._usable = True
        self._journal = _Journal(self.folder / f".{prefix}.journal")
        try:
            self._ledger = Ledger(self.folder / ledger, key)
            self._recover()
            self._read_failures()
        except OSError as error:
            self._journal.close()
            raise _no_writing(self.folder, error) from error
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> TarSink:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def add(self, key: str, members: Mapping[str, bytes], status: int = 200, tries: int = 1) -> None:
        """Write a sample: contents by extension, the image first. After a kill it is still there.

        Raises:
            UserError: the key cannot be part of a file name up to the first dot, or the disk is full.
            ValueError: the key is there already, or there are no members.
        """
        if not KEY.fullmatch(key):
            raise UserError(f"{key!r} cannot name a sample: 1 to 80 of A-Z a-z 0-9 _ + - (the first dot ends a name)")
        if key in self.done:
            raise ValueError(f"{key} is there already")
        if not members or not all(EXTENSION.fullmatch(extension) for extension in members):
            raise ValueError(f"{key}: members {list(members)}")
        if not self._usable:
            raise UserError(f"{self.folder}: nothing can be added after an archive that was not completed, or after the end")
        data = _packed(key, members)
        extension, content = next(iter(members.items()))
        digest = hashlib.sha256(content).hexdigest()
        try:
            if self._part is None:
                self._open()
            row = Row(key, self._name, f"{key}.{extension}", len(content), digest, int(status), int(tries))
            self._journal.write(row, data)
            _write(self._part, data, self._stop)
        except OSError as error:
            raise _no_writing(self.folder, error) from error
        self._samples.append((row, self._stop + len(data)))  # one step: Ctrl-C comes before it or after it
        self.done.add(key)
        self.failures.pop(key, None)
        if len(self._samples) >= self.per_archive:
            self.flush()

    def fail(self, key: str, reason: str, status: int | None, tries: int, url: str) -> None:
        """Note that a sample cannot be had; written with the next complete archive, forgotten when it is added."""
        reason, url = csv_cell(" ".join(reason.split())), csv_cell(url)
        self.failures[key] = (key, reason, "" if status is None else status, tries, url)

    def flush(self) -> None:
        """Make the open archive a complete one, however short, and write the lists.

        Raises:
            UserError: the disk is full; nothing is lost, the next run goes on.
        """
        try:
            if self._samples and self._usable:
                self._finish()
            self._write_failures()
        except OSError as error:
            raise _no_writing(self.folder, error) from error

    def close(self) -> None:
        """`flush`, and let other processes in. Nothing can be added afterwards."""
        try:
            self.flush()
        finally:
            self._usable = False  # the descriptors may be somebody else's soon
            if self._part is not None:
                os.close(self._part)
                self._part = None
                if not self._samples:
                    (self.folder / f"{self._name}.part").unlink(missing_ok=True)
            self._journal.close()

    @property
    def archives(self) -> list[Path]:
        """The complete archives, in order."""
        found = (path for path in self.folder.glob(f"{self.prefix}-*.tar") if self._number_of(path) is not None)
        return sorted(found, key=self._number_of)

    @property
    def _name(self) -> str:
        return f"{self.prefix}-{self._number:05d}.tar"

    @property
    def _stop(self) -> int:
        return self._samples[-1][1] if self._samples else 0

    def _number_of(self, path: Path) -> int | None:
        match = re.fullmatch(rf"{re.escape(self.prefix)}-([0-9]{{5,}})\.tar(\.part)?", path.name)
        return int(match[1]) if match else None

    # opening and completing an archive

    def _open(self) -> None:
        """Begin an archive: the next one, or a copy of the last one if that is short."""
        full = {name for name, rows in self._ledger.archives.items() if rows >= self.per_archive}
        while self._name in full:
            self._number += 1
        part = self.folder / f"{self._name}.part"
        whole = self.folder / self._name
        copy = self.folder / f".{self._name}.tmp"
        rows = self._ledger.rows_of(self._name) if whole.exists() else []
        samples = list(index(whole)) if rows else []
        if [row.key for row in rows] != [sample.key for sample in samples]:
            raise UserError(f"{whole} holds other samples than {self._ledger.path.name} says: move it elsewhere")
        old = list(zip(rows, samples, strict=True))
        if old:
            with open(whole, "rb") as source, open(copy, "wb") as target:
                shutil.copyfileobj(source, target)
                target.truncate(old[-1][1].start + old[-1][1].length)
            with open(copy, "rb") as source:
                for row, sample in old:
                    self._journal.write(row, _at(source, sample.start, sample.length))
            os.rename(copy, part)
        self._part = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._samples = [(row, sample.start + sample.length) for row, sample in old]

    def _finish(self) -> None:
        self._usable = False  # until the end of this: what is interrupted on the way, the next run completes
        stop = -(-(self._stop + 2 * BLOCK) // RECORD) * RECORD
        _write(self._part, bytes(stop - self._stop), self._stop)
        os.ftruncate(self._part, stop)
        os.fsync(self._part)
        self._ledger.forget(self._name)  # first, for a shorter archive may have the same size
        os.replace(self.folder / f"{self._name}.part", self.folder / self._name)
        sync_folder(self.folder)
        self._ledger.append(self._name, stop, [row for row, _ in self._samples])
        self._journal.empty()
        os.close(self._part)
        self._part, self._samples, self._usable = None, [], True

    # what an earlier run left

    def _recover(self) -> None:
        for pattern in (f".{self.prefix}-*.tmp", f".{self.failed.name}.*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink()
        vouched = self._journal.read()
        sizes = {path.name: path.stat().st_size for path in self.archives}
        self._ledger.keep(lambda archive, size: sizes.get(archive) == size)
        self.done = Keys(self._ledger.keys())
        known = self._ledger.archives
        for name in sizes:
            if name not in known:
                self._take_archive(self.folder / name, vouched)
        parts = sorted(path for path in self.folder.glob(f"{self.prefix}-*.tar.part") if self._number_of(path) is not None)
        for path in parts:
            self._take_part(path, vouched)
        if self._part is None:
            self._journal.empty()
            self._number = max((self._number_of(path) for path in self.archives), default=0)

    def _take_archive(self, path: Path, vouched: dict[str, _Vouched]) -> None:
        """Put a complete archive that the ledger does not know into it."""
        try:
            rows = self._rows_in(path, vouched)
        except TarError as error:
            self._put_aside(path, str(error))
            return
        if twice := next((row.key for row in rows if row.key in self.done), None):
            self._put_aside(path, f"{path}: {twice} is in another archive too")
            return
        self._ledger.append(path.name, path.stat().st_size, rows)
        for row in rows:
            self.done.add(row.key)

    def _rows_in(self, path: Path, vouched: dict[str, _Vouched]) -> list[Row]:
        rows = []
        with open(path, "rb") as file:
            for sample in index(path):
                first = sample.members[0]
                digest = hashlib.sha256(_at(file, first.offset, first.size)).hexdigest()
                if not KEY.fullmatch(sample.key):
                    raise TarError(path, sample.start, f"not a key: {sample.key[:80]!r}")
                known = vouched.get(sample.key)
                status, tries = (known.row.http_status, known.row.tries) if known else (200, 1)
                member = f"{sample.key}.{first.extension}"
                rows.append(Row(sample.key, path.name, member, first.size, digest, status, tries))
        if not rows:
            raise TarError(path, 0, "no samples")
        return rows

    def _put_aside(self, path: Path, reason: str) -> None:
        os.replace(path, path.with_name(path.name + ".damaged"))
        self.aside[path.name] = reason

    def _take_part(self, path: Path, vouched: dict[str, _Vouched]) -> None:
        """Go on with the archive that was open: its samples up to the first one that the journal does not vouch for."""
        samples = self._salvaged(path, vouched)
        rows = [row for row, _ in samples]
        whole = path.with_suffix("")
        replaced = self._ledger.rows_of(whole.name) if whole.exists() else []
        extra = [row for row in rows if row.key not in self.done]
        same = [row.key for row in replaced] == [row.key for row in rows[: len(replaced)]]
        if not extra or not same or len(extra) + len(replaced) != len(rows) or self._part is not None:
            path.unlink()  # it holds nothing that is not elsewhere; or it is not a continuation, which no kill leaves
            return
        self._number, self._samples = self._number_of(path), samples
        self._part = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._part, self._stop)
        for row in extra:
            self.done.add(row.key)
        if len(rows) >= self.per_archive:
            self._finish()

    def _salvaged(self, path: Path, vouched: dict[str, _Vouched]) -> list[tuple[Row, int]]:
        samples = []
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            headers = _Headers(path, lambda offset, count: _at(file, offset, count), 0, size, whole=False)
            try:
                for sample in _samples(headers):
                    known = vouched.pop(sample.key, None)
                    if known is None or known.crc32 != zlib.crc32(_at(file, sample.start, sample.length)):
                        break
                    row = known.row._replace(archive=path.with_suffix("").name)
                    samples.append((row, sample.start + sample.length))
            except TarError:
                pass  # the torn end of a killed run
        return samples

    # the list of failures

    def _read_failures(self) -> None:
        if not self.failed.exists():
            return
        with open(self.failed, newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                if len(row) == 5 and row[0] != self.key and row[0] not in self.done:
                    self.failures[row[0]] = tuple(map(csv_cell, row))  # an older skyset wrote logins

    def _write_failures(self) -> None:
        if not self.failures:
            self.failed.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((self.key, "reason", "http_status", "tries", "url"))
        writer.writerows(self.failures.values())
        write_atomically(self.failed, text.getvalue())


def _write(descriptor: int, data: bytes, offset: int) -> None:
    """All of ``data``, or as before: what a full disk left of it is cut off again."""
    view = memoryview(data)
    try:
        while view:
            written = os.pwrite(descriptor, view, offset + len(data) - len(view))
            view = view[written:]
    except OSError:
        os.ftruncate(descriptor, offset)
        raise


def _no_writing(folder: Path, error: OSError) -> UserError:
    return UserError(f"{error.filename or folder} cannot be written: {error.strerror or error}; the same command goes on")


# --- the journal --------------------------------------------------------------------------------------------


class _Vouched(NamedTuple):
    row: Row  # its archive is empty
    crc32: int  # of the sample's bytes in the archive


class _Journal:
    """One line a sample of the open archive, written before the sample; the file is the folder's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor, _ = open_locked(path)
        except BlockingIOError:
            raise UserError(f"another process is writing to {path.parent}") from None
        except OSError as error:
            raise _no_writing(path.parent, error) from error
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            _write(self._descriptor, b"\n", self._size)  # after a torn line
            self._size += 1

    def read(self) -> dict[str, _Vouched]:
        """What is vouched for, by key; of several lines the last one counts."""
        vouched = {}
        for line in os.pread(self._descriptor, self._size, 0).decode("ascii", errors="replace").split("\n"):
            if match := JOURNAL_LINE.fullmatch(line):
                key, member, size, digest, status, tries, crc32 = match.groups()
                row = Row(key, "", member, int(size), digest, int(status), int(tries))
                vouched[key] = _Vouched(row, int(crc32))
        return vouched

    def write(self, row: Row, data: bytes) -> None:
        line = f"{row.key} {' '.join(map(str, row[2:]))} {zlib.crc32(data)}\n".encode()
        _write(self._descriptor, line, self._size)
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


# --- the ledger ---------------------------------------------------------------------------------------------


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
            _write(descriptor, data, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._pieces[archive] = _Piece(offset, len(data), archive, archive_size, len(rows))

    def _text(self, piece: _Piece) -> str:
        with open(self.path, "rb") as file:
            return zlib.decompress(_at(file, piece.offset, piece.length), 31).decode()

    def _rewrite(self, pieces: list[_Piece]) -> None:
        """The file with these pieces only; a reader sees the old one or the new one."""
        self._pieces = {}
        with open(self._temporary, "wb") as target:
            target.write(_compressed("", 0, self._head))
            if pieces:
                with open(self.path, "rb") as source:
                    for piece in pieces:
                        self._pieces[piece.archive] = piece._replace(offset=target.tell())
                        target.write(_at(source, piece.offset, piece.length))
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
