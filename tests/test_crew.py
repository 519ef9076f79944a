"""Threads that wait for servers."""

import threading
from concurrent.futures import CancelledError

import pytest

from skyset.crew import Crew


def test_jobs_run_in_turn_in_as_few_threads_as_are_needed():
    crew = Crew(3, "test")
    assert [crew.submit(pow, 2, n).result() for n in range(5)] == [1, 2, 4, 8, 16]
    gate = threading.Barrier(3)
    assert sorted(future.result(30) for future in [crew.submit(gate.wait) for _ in range(3)]) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        crew.submit(divmod, 1, 0).result()
    crew.close()


def test_closing_waits_for_what_runs_and_cancels_the_rest():
    crew, began, go = Crew(1, "test"), threading.Event(), threading.Event()

    def job():
        began.set()
        return go.wait(30)

    first, second = crew.submit(job), crew.submit(pow, 1, 1)
    began.wait(30)
    threading.Timer(0.05, go.set).start()
    crew.close()
    assert first.result() is True
    with pytest.raises(CancelledError):
        second.result()
    with pytest.raises(CancelledError):
        crew.submit(pow, 1, 1).result()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-")]
