"""Decide where a pure function runs: here, in processes, or on a Dask cluster. All three are ``concurrent.futures``."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol, TypeVar

from skyset.errors import UserError
from skyset.workers import WorkerPool

_Task = TypeVar("_Task")


class Pool(Protocol):
    """Where functions run."""

    @property
    def ahead(self) -> int:
        """How many tasks are to be under way, so that nobody waits for the next one; it changes as workers come and go."""

    def submit(self, function: Callable, /, *args, **kwargs) -> Future:
        """Call an importable function there."""


class InlineExecutor(Executor):
    """Run each call at once in this process: no start-up cost, and a debugger can follow it."""

    ahead = 1

    def submit(self, function, /, *args, **kwargs) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def executor(
    processes: int,
    scheduler: str | None = None,
    preload: Sequence[str] = (),
    shared: Sequence[str | Path] = (),
    advice: str = "the same command goes on from here; try a smaller --num_processes",
) -> Iterator[Pool]:
    """An executor for as long as the block lasts; what has not started by its end is cancelled.

    Args:
        processes: number of local processes; 1 runs everything in this one.
        scheduler: address of a Dask scheduler (``tcp://host:8786``), used instead of local processes. It and its workers
            need the same version of skyset.
        preload: modules that local processes import once for all (see `workers.WorkerPool`).
        shared: files that tasks read and folders that they write to: a worker of a cluster that does not see the same ones
            under these names runs no task. A URL is seen from everywhere.
        advice: what helps where a process was killed, as it may be for want of memory.

    Raises:
        UserError: dask.distributed is not installed, nobody answers at the address, scheduler or workers die, or a worker
            does not see what it is to read or write.
    """
    if scheduler:
        from skyset.dask_pool import dask_pool

        with dask_pool(scheduler, shared) as pool:
            yield pool
    elif processes == 1:
        yield InlineExecutor()
    else:
        workers = WorkerPool(processes, preload)
        try:
            yield workers
        except BrokenProcessPool as error:
            raise UserError(f"a worker process was killed (out of memory?): {advice}") from error
        finally:
            workers.shutdown(wait=True, cancel_futures=True)


def in_order(pool: Pool, function: Callable[[_Task], Any], tasks: Iterable[_Task]) -> Iterator[tuple[_Task, Any]]:
    """Call a function of each task: (task, result), in the order of the tasks.

    As many are submitted as the pool wants ahead, so that memory, here and of a scheduler, does not grow with their number.
    """
    waiting: deque[tuple[_Task, Future]] = deque()
    try:
        for task in tasks:
            waiting.append((task, pool.submit(function, task)))
            while len(waiting) >= pool.ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
