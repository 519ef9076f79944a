"""Work shared by threads."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

import pytest

from skyset.partitions import threads
from skyset.partitions.threads import in_threads


def test_each_job_is_done_once():
    done: list[int] = []
    in_threads(done.extend, range(101))
    assert sorted(done) == list(range(101))


def test_one_job_and_none_stay_in_this_thread(monkeypatch):
    monkeypatch.setattr(threads, "_executor", lambda: pytest.fail("a thread for one job"))
    done: list[int] = []
    in_threads(done.extend, [7])
    in_threads(done.extend, [])
    assert done == [7]


def test_an_error_comes_when_all_have_ended(monkeypatch):
    monkeypatch.setattr(threads, "_cores", lambda: 2)
    ended = threading.Event()

    def work(jobs):
        if 0 in jobs:
            raise ValueError("bad chunk")
        time.sleep(0.05)
        ended.set()

    with pytest.raises(ValueError, match="bad chunk"):
        in_threads(work, [0, 1])
    assert ended.is_set()


def test_an_error_in_another_thread_comes_too(monkeypatch):
    monkeypatch.setattr(threads, "_cores", lambda: 2)

    def work(jobs):
        if 1 in jobs:
            raise ValueError("bad chunk")

    with pytest.raises(ValueError, match="bad chunk"):
        in_threads(work, [0, 1])


def _names(count, queue):
    found: list[str] = []
    in_threads(lambda jobs: found.extend(threading.current_thread().name for _ in jobs), range(count))
    queue.put(found)


def test_a_worker_process_has_no_other_thread(monkeypatch):
    monkeypatch.setattr(threads, "_cores", lambda: 2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_names, args=(8, queue))
    process.start()
    assert set(queue.get(timeout=30)) == {"MainThread"}
    process.join()


def test_a_fork_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(threads, "_cores", lambda: 2)
    done: list[int] = []
    in_threads(done.extend, range(4))  # the pool exists
    if (child := os.fork()) == 0:
        again: list[int] = []
        in_threads(again.extend, range(4))
        os._exit(0 if sorted(again) == [0, 1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
