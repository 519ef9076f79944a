"""A Dask cluster as an executor whose workers see the same disk, and run the same skyset."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass
from pathlib import Path

from skyset.errors import MissingPackage, UserError
from skyset.files import Temporary
from skyset.messages import say
from skyset.versions import __version__, install_command

#: Seconds to wait for a scheduler's answer.
DASK_TIMEOUT = 10
#: Seconds after which it is asked again how many workers there are.
_WORKERS_EVERY = 5.0
#: Of a file, what two machines have to read alike.
_LOOKED_AT = 1 << 20
#: Seconds between looks at a file that another machine has just made: some file systems need some to show it.
_LOOKS = (0.0, 0.5, 1.5, 3.0)


@dataclass(frozen=True)
class Shared:
    """A file as this machine sees it: its path, and the digest of its size and of its first bytes."""

    path: str
    digest: str
    called: str

    @classmethod
    def of(cls, path: Path, called: str) -> Shared:
        """OSError where it cannot be read."""
        return cls(str(path), _digest(path), called)

    def is_seen(self) -> bool:
        """Whether the machine that this runs on sees the same file."""
        for pause in _LOOKS:
            time.sleep(pause)
            with contextlib.suppress(OSError):
                if _digest(Path(self.path)) == self.digest:
                    return True
        return False


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(b"%d\n" % path.stat().st_size + file.read(_LOOKED_AT)).hexdigest()


#: What this process, a worker, has been found to see.
_seen: set[tuple[Shared, ...]] = set()


@dataclass(frozen=True)
class _OnWorker:
    """A function as it is called on a worker: after a look, once a process, at whether results can come to the same disk."""

    function: Callable
    shared: tuple[Shared, ...]
    version: str

    @property
    def __name__(self) -> str:
        """What Dask's dashboard calls it."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __call__(self, *args, **kwargs):
        if self.version != __version__:
            raise UserError(f"the Dask worker on {socket.gethostname()} runs skyset {__version__}, this is {self.version}")
        if self.shared not in _seen:
            if lost := [each for each in self.shared if not each.is_seen()]:
                raise UserError(
                    f"the Dask worker on {socket.gethostname()} does not see {lost[0].called}: workers need the same files "
                    "under the same names, on a disk that all machines share (`skyset cluster` has recipes)"
                )
            _seen.add(self.shared)
        return self.function(*args, **kwargs)


class DaskPool(Executor):
    """Runs functions on the workers of a cluster; a task whose worker dies is run again by another one."""

    def __init__(self, client, shared: Sequence[Shared]):
        self._client, self._pool = client, client.get_executor(pure=False)
        self._shared = tuple(shared)
        self._run, self._numbers = os.urandom(8).hex(), itertools.count()
        self._threads, self._asked, self._told = 0, -_WORKERS_EVERY, False

    @property
    def ahead(self) -> int:
        """Two tasks for each thread of each worker; workers may come later."""
        if time.monotonic() - self._asked > _WORKERS_EVERY:
            self._asked = time.monotonic()
            self._threads = sum(self._client.nthreads().values())
            if not self._threads and not self._told:
                say(f"no workers yet at {self._client.scheduler.address}: work begins when they come", file=sys.stderr)
                self._told = True
        return max(4, 2 * self._threads)

    def submit(self, function, /, *args, **kwargs) -> Future:
        there = _OnWorker(function, self._shared, __version__)
        # One group of tasks: of each group a busy scheduler keeps 14 kB, of each task by itself if its key is its own.
        key = f"{there.__name__}-{self._run}", next(self._numbers)
        return self._pool.submit(there, *args, **kwargs, key=key)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait=wait and not cancel_futures)


@contextlib.contextmanager
def dask_pool(address: str, shared: Sequence[str | Path]) -> Iterator[DaskPool]:
    """The cluster of a scheduler, for as long as the block lasts; see `skyset.runner.executor`.

    Raises:
        UserError: dask.distributed is not installed, nobody answers, or the cluster cannot do what it is asked to.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        what = f"--scheduler needs dask.distributed: {install_command('scale')}"
        raise MissingPackage(what, "distributed") from None
    with contextlib.ExitStack() as stack:
        seen = [_shared(str(each), stack) for each in shared if "://" not in str(each)]
        try:
            client = stack.enter_context(Client(address, timeout=DASK_TIMEOUT))
        except (OSError, ValueError, TimeoutError) as error:
            raise UserError(f"no Dask scheduler answers at {address}: {error}") from error
        pool = DaskPool(client, seen)
        try:
            yield pool
        except KilledWorker as error:
            raise UserError(
                "Dask's workers were killed (out of memory?): run the same command again, each with more memory"
            ) from error
        except CancelledError as error:
            raise UserError(f"the Dask scheduler at {address} went away: run the same command again") from error
        except (ModuleNotFoundError, RuntimeError) as error:
            if not _is_of_another_environment(error):
                raise
            raise UserError(
                f"the Dask cluster at {address} is of another environment ({error.__cause__ or error}): scheduler and "
                f"workers need skyset {__version__} and what else is imported here ({install_command('scale')})"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _shared(where: str, stack: contextlib.ExitStack) -> Shared:
    """A file itself; of a folder, a new file in it for as long as the cluster works."""
    path = Path(where).absolute()
    try:
        if path.is_dir():
            probe = stack.enter_context(Temporary(path / "cluster"))
            probe.write_text(str(probe))
            return Shared.of(probe, where)
        return Shared.of(path, where)
    except OSError as error:
        raise UserError(f"{where} cannot be used: {error.strerror or error}") from error


def _is_of_another_environment(error: Exception) -> bool:
    """Whether a task could not be understood there: a module is missing that this machine has."""
    if isinstance(error, ModuleNotFoundError):
        return error.name is not None and importlib.util.find_spec(error.name.partition(".")[0]) is not None
    return "deserialization of the task" in str(error)
