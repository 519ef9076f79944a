"""Threads that wait for servers: they begin when they are needed, and none is left when their crew is closed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future


class Crew:
    """Runs functions in at most ``size`` threads, in the order in which they were submitted.

    Unlike those of ``concurrent.futures``, its threads do not hold up the end of Python, whatever they wait for.
    """

    def __init__(self, size: int, name: str):
        self._size, self._name = size, name
        self._jobs: deque[tuple[Future, Callable, tuple]] = deque()
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._idle, self._closed = 0, False

    def submit(self, function: Callable, *arguments) -> Future:
        """Call ``function(*arguments)`` in one of them; cancelled at once where the crew is closed."""
        future: Future = Future()
        with self._changed:
            if self._closed:
                future.cancel()
                future.set_running_or_notify_cancel()
                return future
            self._jobs.append((future, function, arguments))
            if self._idle >= len(self._jobs) or len(self._threads) == self._size:
                self._changed.notify()
            else:
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def _work(self) -> None:
        while (job := self._next()) is not None:
            future, function, arguments = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*arguments))
                except BaseException as error:
                    future.set_exception(error)
            del job, future, function, arguments  # what they hold is not kept until the next one

    def _next(self) -> tuple[Future, Callable, tuple] | None:
        with self._changed:
            self._idle += 1
            while not self._jobs and not self._closed:
                self._changed.wait()
            self._idle -= 1
            return self._jobs.popleft() if self._jobs else None

    def close(self) -> None:
        """Cancel what has not begun, and wait for what has."""
        with self._changed:
            self._closed = True
            for future, _, _ in self._jobs:
                future.cancel()
                future.set_running_or_notify_cancel()
            self._jobs.clear()
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._threads.clear()
