"""Decide where a pure function runs: here, in processes, or on a Dask cluster. All three are ``concurrent.futures``."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from concurrent.futures import Future
from concurrent.futures import ProcessPoolExecutor

from skyset.errors import UserError


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
def executor(processes: int, scheduler: str | None = None) -> Iterator[Executor]:
    """An executor for as long as the block lasts; what has not started by its end is cancelled.

    Args:
        processes: number of local processes; 1 runs everything in this one.
        scheduler: address of a Dask scheduler (``tcp://host:8786``), used instead of local processes. Its workers need
            skyset installed and the same file system.

    Raises:
        UserError: dask.distributed is not installed, or nobody answers at the address.
    """
    if scheduler:
        with _dask_executor(scheduler) as pool:
            yield pool
    elif processes == 1:
        yield InlineExecutor()
    else:
        # Not fork: the driver has download threads, and a forked child may inherit a lock that one of them holds.
        pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_start_worker)
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _dask_executor(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise UserError("--scheduler needs dask.distributed: pip install 'skyset[scale]'") from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(f"no Dask scheduler answers at {address}: {error}") from error
    with client, client.get_executor(pure=False) as pool:
        yield pool


def _start_worker() -> None:
    """Leave Ctrl-C to the driver, and end with it: a pool's workers would outlive a killed parent for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
