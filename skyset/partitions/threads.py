"""Threads that unpack what is compressed: zlib lets go of Python's lock, and a stream has one process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

#: More than this many do not make one slab faster.
_MOST = 4
_pool: tuple[int, ThreadPoolExecutor] | None = None

Job = TypeVar("Job")


def in_threads(function: Callable[[Sequence[Job]], object], jobs: Sequence[Job]) -> None:
    """Call ``function`` with shares of ``jobs``, one of them in this thread; all have ended when this returns, or raises.

    In a worker process, where others are busy beside it, there is no other thread.
    """
    count = 1 if multiprocessing.parent_process() is not None else min(_MOST, _cores(), len(jobs))
    if count < 2:
        function(jobs)
        return
    futures = [_executor().submit(function, jobs[number::count]) for number in range(1, count)]
    try:
        function(jobs[::count])
    finally:
        wait(futures)  # none writes into the memory after that
    for future in futures:
        future.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _executor() -> ThreadPoolExecutor:
    """The threads of this process: a fork has none of its parent's."""
    global _pool
    if _pool is None or _pool[0] != os.getpid():
        _pool = os.getpid(), ThreadPoolExecutor(_MOST, "skyset-unpack")
    return _pool[1]
