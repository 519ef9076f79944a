"""Pools of processes: what they share, what a Ctrl-C, a killed worker and a killed driver leave."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver

import psutil
import pytest

from skyset.errors import UserError
from skyset.runner import executor
from skyset.workers import WorkerPool, _interrupts_blocked
from tests.processes import interruptible

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere workers start by themselves")
#: Light to import, and not imported by a worker for anything else.
PRELOAD = ("wave",)


@pytest.fixture(scope="module", autouse=True)
def _server_of_these_tests():
    """A process has one server, with what it was started for: the next module's pools get their own."""
    yield
    forkserver._forkserver._stop()


def seen() -> dict:
    """What a worker says of itself and of what it was forked from."""
    parent = os.getppid()
    return {
        "parent": parent,
        "threads": len(os.listdir(f"/proc/{parent}/task")),
        "path": sys.path,
        "home": sys.modules["skyset"].__file__,
        "blocked": signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    }


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@LINUX
def test_workers_are_forked_from_one_process_that_has_one_thread():
    import skyset

    with WorkerPool(2, PRELOAD) as pool:
        found = [pool.submit(seen).result() for _ in range(4)]
    for one in found:
        assert one["parent"] != os.getpid() and one["threads"] == 1 and one["blocked"]
        assert (one["path"], one["home"]) == (sys.path, skyset.__file__)
    assert len({one["parent"] for one in found}) == 1
    assert multiprocessing.active_children() == []
    assert os.environ.get("PYTHONSAFEPATH") != "1", "the server's environment is its own"


@LINUX
def test_a_killed_worker_is_one_line_and_the_next_pool_works():
    with (
        pytest.raises(UserError, match=r"a worker process was killed \(out of memory\?\)"),
        executor(2, None, PRELOAD) as pool,
    ):
        pool.submit(die).result()
    with executor(2, None, PRELOAD) as pool:
        assert list(pool.map(pow, [2, 3], [5, 2])) == [32, 9]


def test_ctrl_c_waits_until_a_worker_is_started():
    """Also where another thread, such as one that downloads, is the one that the system tells."""
    done, reached = threading.Event(), False
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=done.wait).start()
    try:
        with pytest.raises(KeyboardInterrupt), _interrupts_blocked():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            reached = True
        assert reached and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        done.set()
        signal.signal(signal.SIGINT, before)


DRIVER = """
import sys, time
from skyset.workers import WorkerPool
if __name__ == "__main__":
    with WorkerPool(2, ["wave"]) as pool:
        running = [pool.submit(time.sleep, 60) for _ in range(2)]
        time.sleep(0.1)
        while not all(one.running() for one in running):
            time.sleep(0.1)
        print("running", flush=True)
        try:
            running[0].result()
        except KeyboardInterrupt:
            for worker in list(pool._processes.values()):
                worker.kill()
            sys.exit(130)
"""


def children(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def all_ended(processes: list[psutil.Process]) -> bool:
    _, left = psutil.wait_procs(processes, timeout=10)
    return not [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@LINUX
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_nothing_is_left_of_a_driver_that_ends(how, tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    process = interruptible([sys.executable, str(tmp_path / "driver.py")], start_new_session=True)
    assert process.stdout.readline() == "running\n"
    started = children(process)
    assert len(started) >= 3, "a server and two workers"
    if how == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, how)  # as a terminal does: to all of them
    said = process.communicate(timeout=30)[1]
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert "Traceback" not in said
    assert all_ended(started)
