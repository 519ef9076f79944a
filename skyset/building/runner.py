"""Decide where a pure function runs: here, in processes, or on a Dask cluster. All three are ``concurrent.futures``."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import cast

from skyset.errors import MissingPackage, UserError
from skyset.versions import install_command

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


class _ProcessPool(ProcessPoolExecutor):
    """Leaves Ctrl-C, which a terminal sends to all processes, to the driver: workers inherit the blocked signal."""

    def submit(self, function, /, *args, **kwargs) -> Future:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(function, *args, **kwargs)  # starts the workers, from this thread
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As the library's, but a worker that is killed during it cannot make it wait for ever."""
        workers = list((self._processes or {}).values())
        manager: threading.Thread | None = vars(self)["_executor_manager_thread"]
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        if wait and manager is not None:
            _see_off(workers)
            manager.join()


def _see_off(workers: Sequence[BaseProcess]) -> None:
    """Wait for processes that were told to end; where one dies of something else, kill the others.

    A pool's idle worker holds the lock of the queue by which its fellows are told to end: killed just then, it takes the
    lock along, and they would wait for it for ever.
    """
    alive: dict[object, BaseProcess] = {worker.sentinel: worker for worker in workers}
    while alive:
        for sentinel in connection.wait([worker.sentinel for worker in alive.values()]):
            worker = alive.pop(sentinel)
            worker.join()
            if worker.exitcode != 0:  # None where the manager reaps it at this moment
                for other in alive.values():
                    other.kill()


@contextlib.contextmanager
def executor(processes: int, scheduler: str | None = None) -> Iterator[Executor]:
    """An executor for as long as the block lasts; what has not started by its end is cancelled.

    Args:
        processes: number of local processes; 1 runs everything in this one.
        scheduler: address of a Dask scheduler (``tcp://host:8786``), used instead of local processes. Its workers need
            skyset installed and the same file system.

    Raises:
        UserError: dask.distributed is not installed, nobody answers at the address, or scheduler or workers die.
    """
    if scheduler:
        with _dask_executor(scheduler) as pool:
            yield pool
    elif processes == 1:
        yield InlineExecutor()
    else:
        # Not fork: the driver has download threads, and a forked child may inherit a lock that one of them holds.
        pool = _ProcessPool(processes, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
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


def _end_with_parent() -> None:
    """A pool's workers would outlive a killed driver for ever."""
    parent = cast(BaseProcess, multiprocessing.parent_process())  # there is one: this is a worker

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
