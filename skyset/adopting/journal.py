"""What was noted of a tree's files, in an index: a killed run goes on from it, and a later one reads only what changed.

A file of frames, each of some files that were looked at together: what says which, and their notes. A frame that a
kill cut short is dropped. Frames that are not of the tree any more go when the journal is tidied, at the end of a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from skyset.adopting.fields import Names
from skyset.adopting.look import Look
from skyset.adopting.notes import packed, unpacked
from skyset.adopting.scan import TreeFile
from skyset.errors import UserError
from skyset.files import clear_leftovers, open_locked, replacing, short_digest
from skyset.versions import __version__

JOURNAL = "adopted.journal"
LOCK = "adopted.lock"
#: Changes when what is noted of a file does.
_VERSION = 2
_MAGIC = b"SKYA"
_HEAD = struct.Struct("<4sIQI")  # magic, bytes of what says which, bytes of the notes, CRC-32 of both
_LARGEST = 1 << 30
#: Frames that are kept in memory when single files are looked for.
_KEPT = 4


@dataclass(frozen=True)
class Frame:
    """Where the notes of some files lie in the journal: ``stamp`` says of which files, and how they were looked at."""

    stamp: str
    offset: int
    size: int
    crc: int


def stamp_of(files: Iterable[TreeFile], names: Names | None, all_values: bool) -> str:
    """What tells that files are the same and looked at in the same way."""
    digest = hashlib.sha256(f"{_VERSION} {__version__} {names} {all_values}\n".encode())
    for file in files:
        digest.update(f"{file.path}\0{file.bytes}\0{file.mtime}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def how(names: Names | None, all_values: bool) -> str:
    """How files are looked at, as frames say it."""
    return short_digest(f"{_VERSION} {__version__} {names} {all_values}")


class Journal:
    """The journal of an index; one process at a time.

    Args:
        folder: of the index; made if it is not there.

    Raises:
        UserError: another process has it, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / JOURNAL
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock, _ = open_locked(folder / LOCK)
        except BlockingIOError:
            raise UserError(f"another `skyset adopt` works in {folder}: wait for its end") from None
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
        try:
            clear_leftovers(folder)
            self._file = open(self.path, "a+b")  # noqa: SIM115 (open as long as the run lasts)
        except OSError as error:
            os.close(self._lock)
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._frames: dict[str, Frame] = {}
        self._folders: dict[str, list[tuple[str, str, str, Frame]]] = {}
        self._cache: OrderedDict[int, list[Look]] = OrderedDict()
        self._find_frames()

    def _find_frames(self) -> None:
        """Read which frames there are, and drop what a kill left behind the last whole one."""
        place, end = 0, os.fstat(self._file.fileno()).st_size
        while place + _HEAD.size <= end:
            self._file.seek(place)
            magic, index, body, crc = _HEAD.unpack(self._file.read(_HEAD.size))
            start = place + _HEAD.size
            if magic != _MAGIC or index > _LARGEST or start + index + body > end:
                break
            try:
                self._take(json.loads(self._file.read(index)), Frame("", start + index, body, crc))
            except (ValueError, LookupError, TypeError, AttributeError):
                break
            place = start + index + body
        if place < end:
            self._file.truncate(place)

    def _take(self, index: dict, frame: Frame) -> None:
        frame = Frame(index["stamp"], frame.offset, frame.size, frame.crc)
        self._frames[frame.stamp] = frame
        for folder, (first, last) in index["folders"].items():
            self._folders.setdefault(folder, []).append((index["how"], first, last, frame))

    def find(self, stamp: str) -> Frame | None:
        """The frame of just these files."""
        return self._frames.get(stamp)

    def known(self, files: Sequence[TreeFile], names: Names | None, all_values: bool) -> dict[str, Look]:
        """What is noted, in whatever frames, of those of some files that have not changed, by path."""
        wanted, way = {file.path: file for file in files}, how(names, all_values)
        frames: dict[int, Frame] = {}
        for folder, (first, last) in _spans(files).items():
            for noted, low, high, frame in self._folders.get(folder, ()):
                if noted == way and low <= last and first <= high:
                    frames[frame.offset] = frame
        found: dict[str, Look] = {}
        for offset in sorted(frames):
            with contextlib.suppress(ValueError, LookupError, TypeError):
                for look in self.read(frames[offset]):
                    if wanted.get(look.file.path) == look.file:
                        found[look.file.path] = look
        return found

    def read(self, frame: Frame) -> list[Look]:
        """The notes of a frame; ValueError, LookupError or TypeError where they are damaged."""
        if frame.offset in self._cache:
            self._cache.move_to_end(frame.offset)
            return self._cache[frame.offset]
        self._file.seek(frame.offset)
        body = self._file.read(frame.size)
        if zlib.crc32(body) != frame.crc:
            raise ValueError(f"{self.path} is damaged at byte {frame.offset}")
        looks = self._cache[frame.offset] = unpacked(body)
        if len(self._cache) > _KEPT:
            self._cache.popitem(last=False)
        return looks

    def append(self, looks: Sequence[Look], names: Names | None, all_values: bool) -> Frame:
        """Note files that were looked at.

        Raises:
            UserError: the journal cannot be written.
        """
        files = [look.file for look in looks]
        index: dict[str, Any] = {
            "stamp": stamp_of(files, names, all_values),
            "how": how(names, all_values),
            "folders": _spans(files),
        }
        said, body = json.dumps(index).encode(), packed(looks)
        try:
            place = self._file.seek(0, os.SEEK_END)
            crc = zlib.crc32(body)
            self._file.write(_HEAD.pack(_MAGIC, len(said), len(body), crc) + said + body)
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        frame = Frame(index["stamp"], place + _HEAD.size + len(said), len(body), crc)
        self._take(index, frame)
        return frame

    def tidy(self, frames: Iterable[Frame]) -> None:
        """Drop all frames but some, where the others take more than these; what lies where is then another."""
        kept = {frame.offset: frame for frame in frames}
        size = sum(frame.size for frame in kept.values())
        if os.fstat(self._file.fileno()).st_size <= 2 * size + _LARGEST // 1024:
            return
        indices = {frame.offset: self._index_of(frame) for frame in kept.values()}
        with replacing(self.path) as temporary, open(temporary, "wb") as target:
            for offset in sorted(kept):
                frame = kept[offset]
                self._file.seek(offset)
                body = self._file.read(frame.size)
                said = json.dumps(indices[offset]).encode()
                target.write(_HEAD.pack(_MAGIC, len(said), len(body), frame.crc) + said + body)
        self._file.close()
        self._file = open(self.path, "a+b")  # noqa: SIM115
        self._frames, self._folders = {}, {}
        self._cache.clear()
        self._find_frames()

    def _index_of(self, frame: Frame) -> dict:
        found: dict[str, Any] = {"stamp": frame.stamp, "how": "", "folders": {}}
        for folder, some in self._folders.items():
            for way, first, last, other in some:
                if other.offset == frame.offset:
                    found["how"] = way
                    found["folders"][folder] = (first, last)
        return found

    def close(self) -> None:
        self._file.close()
        os.close(self._lock)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _spans(files: Iterable[TreeFile]) -> dict[str, tuple[str, str]]:
    """Of each folder, the first and the last name of some files in it."""
    spans: dict[str, tuple[str, str]] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        first, last = spans.get(folder, (name, name))
        spans[folder] = min(first, name), max(last, name)
    return spans


def noted_stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Bytes and time (ns) of the files that the journal of an index notes, by path; those of later notes go before.

    Nothing is locked or changed: of a journal that is being written to, what is whole of it.
    """
    found: dict[str, tuple[int, int]] = {}
    try:
        with open(folder / JOURNAL, "rb") as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                magic, index, size, crc = _HEAD.unpack(head)
                if magic != _MAGIC or index > _LARGEST:
                    break
                file.seek(index, os.SEEK_CUR)
                body = file.read(size)
                if zlib.crc32(body) != crc:
                    break
                found |= {look.file.path: look.file.stamp for look in unpacked(body)}
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return found
