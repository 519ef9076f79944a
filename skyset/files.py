"""Files that are written whole or not at all, temporary ones that a killed process left, locks, and standard output."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from skyset.errors import UserError

if TYPE_CHECKING:
    import h5py

#: ``.<name>.<process>.<random>.tmp``; earlier versions left one of the two numbers out.
_TEMPORARY = re.compile(r"\..+?\.(?P<pid>\d+|[0-9a-f]{8})(\.[0-9a-z]+)*\.tmp")
#: A file's name has at most 255 bytes, and what is added to it takes some.
_NAME_BYTES = 200
#: File systems without locks (NFS, Lustre as some mount them) say one of these.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
#: Where locks tell nothing, a temporary file of another machine counts as left behind when it is older, in seconds.
_LEFT_AFTER = 86_400


class Temporary:
    """A new file beside ``target``, locked as long as its process lives: what no lock holds was left by a killed one.

    Those of the same target are removed first.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, target: Path):
        start = f".{_short(target.name)}."
        clear_leftovers(target.parent, start)
        while True:
            self.path = target.with_name(f"{start}{os.getpid()}.{os.urandom(4).hex()}.tmp")
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(BlockingIOError):  # somebody takes it for left behind
                lock(self._descriptor, shared=True)  # what HDF5 opens for reading elsewhere is not in the way
                if _is_at(self._descriptor, self.path):
                    return
            os.close(self._descriptor)

    def close(self) -> None:
        """Let go of it, and remove it if it has not become the target."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_) -> None:
        self.close()


def _short(name: str) -> str:
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def lock(descriptor: int, shared: bool = False) -> bool:
    """Lock an open file, or say that its file system has no locks: False.

    Raises:
        BlockingIOError: another process has it.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def open_locked(path: Path) -> tuple[int, bool]:
    """Open a lock file, made if it is not there; the descriptor, and whether the file system has locks.

    Raises:
        BlockingIOError: another process has it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            locked = lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_at(descriptor, path):
            return descriptor, locked
        os.close(descriptor)  # whoever had it removed it between open and lock


def clear_leftovers(folder: Path, start: str = ".") -> None:
    """Remove the temporary files in a folder whose process was killed, those whose names begin so; none of a living one."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(start)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if (match := _TEMPORARY.fullmatch(name)) and _is_left(Path(folder, name), match["pid"]):
            Path(folder, name).unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Whether a file's name is that of a temporary file of ours."""
    return _TEMPORARY.fullmatch(name) is not None


def _is_left(path: Path, pid: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if lock(descriptor):
            return True
        return not _is_alive(pid) and time.time() - os.fstat(descriptor).st_mtime > _LEFT_AFTER
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def _is_alive(pid: str) -> bool:
    return Path("/proc", pid).exists()


def replaced_by(output: str | Path) -> Path:
    """The file that writing to ``output`` makes or replaces: where a link leads, or itself.

    Raises:
        UserError: that is something else than a file: nobody's pipe or device is replaced by one.
    """
    try:
        status = os.stat(output)
    except (FileNotFoundError, NotADirectoryError):
        status = None  # also a link that leads nowhere yet; that there is a folder is seen to elsewhere
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from error
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise UserError(f"cannot write {output}: it is no regular file (a named pipe, a device or a folder)")
    return Path(os.path.realpath(output)) if os.path.islink(output) else Path(output)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder; what was written there takes its place at the end, or is removed on failure.

    Where ``path`` is a link, it stays, and what it leads to is replaced.

    Raises:
        UserError: there is no such folder, or something else than a file has this name.
    """
    path = replaced_by(path)
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    with Temporary(path) as temporary:
        yield temporary
        put_in_place(temporary, path)


def write_atomically(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name, in the same folder, so that a power cut leaves the old file or all of the new one."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def short_digest(text: str) -> str:
    """What tells whether something is made of the same: 16 hexadecimal digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep_inputs(
    output: str | Path | None, inputs: Mapping[str, str | Path | None], advice: str = "choose another name for the result"
) -> None:
    """Refuse to write a result over what it is made of, or over what is no file.

    Args:
        output: the file that will be written; None where there is none.
        inputs: files by what the user calls them.
        advice: what to do instead.

    Raises:
        UserError: it is one of them, or ``replaced_by`` refuses it.
    """
    if output is not None:
        replaced_by(output)
    for name, path in inputs.items():
        if output is not None and path is not None and _are_same(Path(output), Path(path)):
            raise UserError(f"{output} would replace {name}: {advice}")


def keep_others(output: Path, is_ours: Callable[[Path], bool], what: str, overwrite: bool = False) -> None:
    """Refuse to write a result over a file that no command of its kind wrote; one's own output is replaced.

    Args:
        output: the file that will be written.
        is_ours: whether a file that is there is such a result.
        what: such results are called.
        overwrite: replace it all the same.

    Raises:
        UserError: it is something else, or cannot be read.
    """
    try:
        if overwrite or not output.exists() or not output.stat().st_size or is_ours(output):
            return
    except OSError as error:
        raise UserError(f"{output} cannot be read: {error.strerror or error}") from error
    raise UserError(f"{output} is there and is no {what}: choose another name, or replace it with --overwrite")


def _are_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        if os.path.samefile(one, other):
            return True
    return os.path.realpath(one) == os.path.realpath(other)


@contextlib.contextmanager
def opened_hdf5(path: str | Path | int) -> Iterator[h5py.File]:
    """An HDF5 file for reading, without HDF5's locks: it need not be on a file system that has them, nor free of others'.

    HDF5 is given an open file, since ``HDF5_USE_FILE_LOCKING`` goes before what a program asks for.
    """
    import h5py

    with io.FileIO(path, closefd=not isinstance(path, int)) as stream, h5py.File(stream, "r") as file:
        yield file


class _Output(io.FileIO):
    """Standard output that keeps its first failed write in ``error``, and takes what comes after that for written.

    Libraries print too, and some of them hide what went wrong.
    """

    error: OSError | None = None

    def write(self, data) -> int:
        if self.error is None:
            try:
                return super().write(data)
            except BrokenPipeError:
                self.error = BrokenPipeError()
                raise
            except OSError as error:
                self.error = error
        return len(data)


@contextlib.contextmanager
def flushed_output() -> Iterator[None]:
    """What the block prints is written to its end, or thrown away: Python would try again when it ends.

    Raises:
        UserError: standard output cannot be written, as on a full disk; the block ran to its end.
        BrokenPipeError: nobody reads it any more.
    """
    before = sys.stdout
    if before is not sys.__stdout__ or before is None:
        yield  # a test's, a notebook's, or a command within a command
        return
    before.flush()
    raw = _Output(before.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=before.encoding, errors=before.errors, line_buffering=before.line_buffering
    )
    try:
        try:
            yield
        finally:
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.flush()
            if raw.error is not None and not isinstance(raw.error, BrokenPipeError):
                raise UserError(f"standard output cannot be written: {raw.error.strerror or raw.error}") from raw.error
        if raw.error is not None:
            raise raw.error
    finally:
        sys.stdout = before


def human_bytes(count: float) -> str:
    """``9.7 MB``: decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def bytes_of(text: str) -> int:
    """What ``512MB`` or ``1.5 GB`` is in bytes, units as in ``human_bytes``; UserError where it is no size."""
    match = re.fullmatch(r"(\d+\.?\d*) ?([kKMGT]?)B?", text.strip())
    if match is None:
        raise UserError(f"{text!r} is no size: 512MB, 1.5GB")
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2].replace("K", "k") or " "))


def is_plain_name(name: str) -> bool:
    """Whether `name` is a file name and nothing else: no folder, no control character."""
    return name not in ("", ".", "..") and name.isprintable() and not set(name) & set("/\\")
