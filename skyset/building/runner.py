"""Decide where a pure function runs: here, in processes, or on a Dask cluster. All three are ``concurrent.futures``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures.process import BrokenProcessPool

from skyset.errors import MissingPackage, UserError
from skyset.versions import install_command
from skyset.workers import WorkerPool

#: Seconds to wait for a Dask scheduler's answer.
DASK_TIMEOUT = 10


class InlineExecutor(Executor):
    """Run each call at once in this process: no start-up cost, and a debugger can follow it."""

    def submit(self, function, /, *args, **kwargs) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def executor(processes: int, scheduler: str | None = None, preload: Sequence[str] = ()) -> Iterator[Executor]:
    """An executor for as long as the block lasts; what has not started by its end is cancelled.

    Args:
        processes: number of local processes; 1 runs everything in this one.
        scheduler: address of a Dask scheduler (``tcp://host:8786``), used instead of local processes. Its workers need
            skyset installed and the same file system.
        preload: modules that local processes import once for all (see `workers.WorkerPool`).

    Raises:
        UserError: dask.distributed is not installed, nobody answers at the address, or scheduler or workers die.
    """
    if scheduler:
        with _dask_executor(scheduler) as pool:
            yield pool
    elif processes == 1:
        yield InlineExecutor()
    else:
        pool = WorkerPool(processes, preload)
        try:
            yield pool
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed (out of memory?): "
                "the same command goes on from here; try a smaller --num_processes"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _dask_executor(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        what = f"--scheduler needs dask.distributed: {install_command('scale')}"
        raise MissingPackage(what, "distributed") from None
    try:
        client = Client(address, timeout=DASK_TIMEOUT)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(f"no Dask scheduler answers at {address}: {error}") from error
    try:
        with client, client.get_executor(pure=False) as pool:
            yield pool
    except KilledWorker as error:
        raise UserError("Dask's workers were killed (out of memory?): the same command goes on from here") from error
    except CancelledError as error:
        raise UserError(f"the Dask scheduler at {address} went away: the same command goes on from here") from error
