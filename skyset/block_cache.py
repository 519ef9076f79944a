"""Blocks of files from servers, kept on the disk for the next pass, in a folder that never outgrows its limit.

::

    <folder>/skyset-cache.json            that this is such a folder: one with other files is refused
    <folder>/lock                         locked while a block is added; how many bytes there are
    <folder>/blocks/<key>/<number>        a block, behind 16 bytes that tell whether it is whole
    <folder>/blocks/<key>/version.json    of the file on the server
    <folder>/blocks/<key>/whole           all blocks were there, and their SHA-256 was the manifest's

A key is made of a file's address and its checksum in the manifest. Any number of processes may use a folder: blocks appear
whole, by a rename, and those that were not used for longest are removed first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import struct
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from isal import isal_zlib

from skyset.errors import UserError
from skyset.files import human_bytes, write_atomically
from skyset.ranges import Version

BLOCK = 1 << 20
_MARK, _FORMAT = "skyset-cache.json", "skyset-cache/1"
_HEAD = struct.Struct("<4sIQ")  # magic, CRC-32 of data and place, bytes
_MAGIC = b"SKYB"
_KEY, _NUMBER = re.compile(r"[0-9a-f]{40}"), re.compile(r"\d{1,12}")
_TEMPORARY = re.compile(r"\.\d+\.[0-9a-f]{8}\.tmp")
#: When there is no room, so much of the limit is made at once.
_MADE = 0.05
#: Seconds after which a temporary file was left by a killed process.
_LEFT = 3600
_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{unit}": base**power
    for power, prefix in enumerate("KMGTP", 1)
    for unit, base in (("B", 1000), ("IB", 1024), ("", 1000))
}


def size_of(text: str | int) -> int:
    """Bytes that ``"50GB"``, ``"1.5 TB"``, ``"512MiB"`` or a number mean.

    Raises:
        UserError: none, or less than a few blocks.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]*)\s*", str(text)) if not isinstance(text, bool) else None
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise UserError(f'cache_limit must be a size such as "50GB" or "800MB", not {text!r}')
    if (size := int(float(found[1]) * unit)) < 4 * BLOCK:
        raise UserError(f"cache_limit must be at least {human_bytes(4 * BLOCK)}, not {text!r}")
    return size


def cache_in(folder: str | Path, limit: str | int, wanted: bool = True) -> BlockCache | None:
    """What keeps blocks in the folder ``skyset_blocks`` of another; None where none is ``wanted``.

    Raises:
        UserError: the limit is no size, or the folder cannot be used.
    """
    most = size_of(limit)
    if "://" in str(folder):
        raise UserError(f"cache_dir must be on a disk where there is a cache_limit, not {folder}")
    return BlockCache(Path(folder).expanduser() / "skyset_blocks", most) if wanted else None


class BlockCache:
    """The blocks in a folder. Every method may be called from any thread and any process.

    Args:
        folder: is made if it is not there.
        limit: bytes of all blocks together, at most.

    Raises:
        UserError: the folder cannot be made, or has files that are not a cache's.
    """

    def __init__(self, folder: str | Path, limit: int):
        self.folder, self.limit = Path(folder), limit
        self._blocks = self.folder / "blocks"
        self._off = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._is_ours():
                if any(self.folder.iterdir()):
                    raise UserError(f"{folder} has files that are not of a skyset cache: give cache_dir= another folder")
                write_atomically(self.folder / _MARK, json.dumps({"format": _FORMAT}) + "\n")
            self._blocks.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cache_dir: {folder} cannot be used: {error.strerror or error}") from error

    def __reduce__(self):
        return type(self), (self.folder, self.limit)

    def _is_ours(self) -> bool:
        try:
            return json.loads((self.folder / _MARK).read_text())["format"] == _FORMAT
        except FileNotFoundError:
            return False
        except (ValueError, LookupError, TypeError):
            raise UserError(f"{self.folder / _MARK} is none of this skyset's: give cache_dir= another folder") from None

    def key(self, url: str, digest: str) -> str:
        """What the blocks of a file are kept under."""
        return hashlib.sha256(f"{url}\n{digest}".encode()).hexdigest()[:40]

    def version(self, key: str) -> Version | None:
        """Of the file that blocks are kept of, as the server called it; None where there is none."""
        try:
            size, etag, modified = json.loads((self._blocks / key / "version.json").read_text())
            return Version(int(size), str(etag), str(modified))
        except (OSError, ValueError, TypeError):
            return None

    def read(self, key: str, number: int, size: int) -> memoryview | None:
        """A block of ``size`` bytes; None where it is not there. One that is damaged is removed."""
        path = self._blocks / key / str(number)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        body = memoryview(data)[_HEAD.size :]
        if len(data) != _HEAD.size + size or _HEAD.unpack_from(data) != (_MAGIC, _check(key, number, body), size):
            self._unlink(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return body

    def write(self, key: str, version: Version, blocks: Iterable[tuple[int, memoryview]]) -> None:
        """Keep some blocks. A disk that takes none is told of once; everything goes on without."""
        if self._off:
            return
        folder = self._blocks / key
        try:
            with self._locked() as lock:
                if self.version(key) != version:
                    self._drop(key)
                for number, data in blocks:
                    if not (folder / str(number)).exists():
                        self._reserve(lock, _HEAD.size + len(data))
                        folder.mkdir(exist_ok=True)
                        if not (folder / "version.json").exists():
                            self._put(folder / "version.json", [json.dumps(version).encode()])
                        self._put(folder / str(number), [_HEAD.pack(_MAGIC, _check(key, number, data), len(data)), data])
        except OSError as error:
            self._off = True
            why = error.strerror or error
            warnings.warn(f"{self.folder}: {why}: what comes from now on is not kept on the disk", stacklevel=2)

    def _put(self, path: Path, parts: list[bytes | memoryview]) -> None:
        temporary = path.with_name(f".{os.getpid()}.{os.urandom(4).hex()}.tmp")
        try:
            with open(temporary, "xb") as file:
                for part in parts:
                    file.write(part)
            os.replace(temporary, path)
        except OSError:
            self._unlink(temporary)
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The block has the lock file for itself; where there are no locks, it is shared."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _reserve(self, lock: int, size: int) -> None:
        """Count a block that will be written, and remove others first where there is no room."""
        text = os.pread(lock, 20, 0)
        total = int(text) if text.isdigit() else None
        if total is None or total + size > self.limit:
            total = self._make_room(size)
        os.pwrite(lock, b"%020d" % (total + size), 0)

    def _make_room(self, size: int) -> int:
        """Remove what was not used for longest until there is room; the bytes that are left."""
        found = sorted(self._all())
        total = sum(length for _, length, _ in found)
        wanted = self.limit - size if total + size <= self.limit else (1 - _MADE) * self.limit - size
        for _, length, path in found:
            if total <= wanted:
                break
            self._unlink(path.with_name("whole"))
            self._unlink(path)
            total -= length
            if not any(_NUMBER.fullmatch(name) for name in os.listdir(path.parent)):
                self._remove(path.parent.name)
        return total

    def _all(self) -> Iterator[tuple[float, int, Path]]:
        """(last used, bytes, path) of all blocks. What a killed process left half written is removed."""
        for folder in os.scandir(self._blocks):
            if not _KEY.fullmatch(folder.name) or not folder.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):  # another process has removed it
                    status = entry.stat(follow_symlinks=False)
                    if _NUMBER.fullmatch(entry.name):
                        yield status.st_mtime, status.st_size, Path(entry.path)
                    elif _TEMPORARY.fullmatch(entry.name) and time.time() - status.st_mtime > _LEFT:
                        self._unlink(Path(entry.path))

    def check_whole(self, key: str, size: int, sha256: str) -> bool:
        """Whether all blocks of a file can be what they should be: once they are all there their checksum is looked at.

        Those of a file whose checksum is another one are removed.
        """
        folder, count = self._blocks / key, -(-size // BLOCK)
        try:
            names = set(os.listdir(folder))
        except OSError:
            return True
        if "whole" in names or sum(_NUMBER.fullmatch(name) is not None for name in names) < count:
            return True
        digest = hashlib.sha256()
        for number in range(count):
            data = self.read(key, number, min(BLOCK, size - number * BLOCK))
            if data is None:
                return True
            digest.update(data)
        if digest.hexdigest() != sha256:
            self.forget(key)
            return False
        with contextlib.suppress(OSError):
            (folder / "whole").touch()
        return True

    def forget(self, key: str) -> None:
        """Remove all blocks of a file. Their bytes stay counted until room is made the next time."""
        with contextlib.suppress(OSError), self._locked():
            self._drop(key)

    def _drop(self, key: str) -> None:
        with contextlib.suppress(OSError):
            for name in os.listdir(self._blocks / key):
                if _NUMBER.fullmatch(name):
                    self._unlink(self._blocks / key / name)
        self._remove(key)

    def _remove(self, key: str) -> None:
        """Remove the folder of a file without blocks; what is not ours in it stays, and so does it."""
        for name in ("whole", "version.json"):
            self._unlink(self._blocks / key / name)
        with contextlib.suppress(OSError):
            (self._blocks / key).rmdir()

    def _unlink(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()


def _check(key: str, number: int, data: memoryview) -> int:
    """CRC-32 of a block and of where it belongs."""
    return isal_zlib.crc32(data, isal_zlib.crc32(f"{key} {number}".encode()))


#: Of blocks that are being fetched in this process, by key and number: none is fetched twice at a time.
_fetching: dict[tuple[str, int], list] = {}
_guard = threading.Lock()


@contextlib.contextmanager
def fetching(key: str, numbers: range) -> Iterator[None]:
    """Threads that want one of these blocks wait for each other."""
    with _guard:
        places = [_fetching.setdefault((key, number), [threading.Lock(), 0]) for number in numbers]
        for place in places:
            place[1] += 1
    with contextlib.ExitStack() as stack:
        try:
            for place in places:
                stack.enter_context(place[0])
            yield
        finally:
            with _guard:
                for number, place in zip(numbers, places, strict=True):
                    place[1] -= 1
                    if not place[1]:
                        _fetching.pop((key, number), None)


def _begin_anew() -> None:
    """A process that was forked: no thread of its own holds a lock."""
    global _guard
    _guard = threading.Lock()
    _fetching.clear()


os.register_at_fork(after_in_child=_begin_anew)
