"""Worker processes: a pool of them that ends with this process, and where it can one start that all of them share."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import cast

#: Of the server: it and its children import what this process does, and have one thread, before a fork as after it.
_OF_SERVER = {"PYTHONSAFEPATH": "1", **{f"{each}_NUM_THREADS": "1" for each in ("OMP", "OPENBLAS", "MKL", "NUMBA")}}


class WorkerPool(ProcessPoolExecutor):
    """Processes that work side by side. Ctrl-C, which a terminal sends to all processes, is left to this one.

    Never a fork of this process: it may have threads, and a child would inherit a lock that one of them holds.

    Args:
        processes: how many.
        preload: modules that a process imports once, all workers being forked from it (a fork server: Linux, where nothing
            in it minds); elsewhere, and where there are none, each worker starts by itself. They must start no threads.
    """

    def __init__(self, processes: int, preload: Sequence[str] = ()) -> None:
        resource_tracker.ensure_running()  # in its start it unblocks Ctrl-C, which is to stay blocked in that of workers
        super().__init__(processes, _context(preload), initializer=_begin)
        self.ahead = 2 * processes  #: tasks under way, so that no worker waits for the next one

    def submit(self, function, /, *args, **kwargs) -> Future:
        with _interrupts_blocked():
            return super().submit(function, *args, **kwargs)  # starts the workers, from this thread

    def kill(self) -> None:
        """End the workers whatever they do: it is not wanted any more."""
        for worker in list((self._processes or {}).values()):
            worker.kill()

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


def _context(preload: Sequence[str]) -> BaseContext:
    if not preload or not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    home = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with _interrupts_blocked(), _environment({"PYTHONPATH": paths, **_OF_SERVER}):
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """What is started meanwhile does not get Ctrl-C, and this process gets it at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _interrupts_held():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Another thread takes a signal that this one blocks, and Python would raise it here all the same: in the middle of a
    worker's start, whose traceback would be shown."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        handler(*came[0])


@contextlib.contextmanager
def _environment(changed: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin() -> None:
    """What a worker does before its first task."""
    parent = cast(BaseProcess, multiprocessing.parent_process())  # there is one: this is a worker

    def end_with_parent() -> None:
        """A pool's workers would outlive a killed driver for ever."""
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
