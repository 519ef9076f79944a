"""Processes that tests interrupt, and what they wait for meanwhile."""

import atexit
import gc
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker


class _Process(subprocess.Popen):
    """Nobody waits for it where a test has failed."""

    def __exit__(self, kind, error, traceback) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, traceback)


def interruptible(command: Sequence[str], **options) -> subprocess.Popen:
    """A process of its own, text on its pipes, that ends on Ctrl-C: under ``nohup``, and in some CIs, children ignore it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return _Process(command, preexec_fn=_heed_ctrl_c, **(pipes | options))


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def imported(command: Sequence[str], first: Callable[[], object] = lambda: None, **options) -> subprocess.Popen:
    """As `interruptible`, in a fork of this process: what the command imports, which takes a second or more, is here.

    Args:
        command: Python with a script, or with ``-c`` or ``-m``, and arguments.
        first: called in the fork, to undo what a test has patched.
        options: of ``Popen``.
    """

    def run() -> None:
        try:
            begin_anew(options.get("env"))
            first()
            status = _status_of_python([str(word) for word in command[1:]])
        except BaseException:
            traceback.print_exc()
            status = 1
        os._exit(status)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return _Process(command, preexec_fn=run, **(pipes | options))


def begin_anew(environment: dict[str, str] | None = None) -> None:
    """In a forked process: what a process of Python has at its beginning, but for its modules."""
    gc.freeze()  # nothing of the other process is ever closed here: its numbers of files are others' now
    os.closerange(3, 4096)  # with one of them, who has started this learns that it has begun
    gc.enable()
    _heed_ctrl_c()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", 1)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    atexit._clear()
    atexit.register(multiprocessing.util._exit_function)
    forkserver._forkserver.__init__()
    resource_tracker._resource_tracker.__init__()
    multiprocessing.process._children.clear()


def _status_of_python(words: Sequence[str]) -> int:
    """The exit status of Python with these words, run here."""
    status = 0
    try:
        if words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(words[1], vars(main))
        elif words[0] == "-m":
            sys.argv = list(words[1:])
            sys.modules.pop(words[1], None)
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        status = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        traceback.print_exc()
        sys.stderr.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def wait_for(there: Callable[[], object], seconds: float = 60) -> None:
    """Return as soon as something is ``there``; where it never is, the test fails."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def die() -> None:
    """As of SIGKILL. Here since pools import what they run: this module is light."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(kind: type[Exception]) -> None:
    raise kind("this went wrong")


def broken(*_) -> None:
    raise ZeroDivisionError("a defect")


def starve(*_) -> None:
    raise MemoryError


def forked(action: Callable[[], object]) -> int:
    """Run ``action`` in a process of its own, without importing anything anew; its number.

    Its exit status is 0, or 1 where ``action`` raised.
    """
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def status_of(child: int) -> int:
    """Exit status of a forked process that has ended or will; minus the signal's number where one ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_once(
    there: Callable[[], bool], action: Callable[[], object], pause: float = 0.0, patience: float = 100.0
) -> bool:
    """Fork ``action`` and end it by SIGKILL when something is ``there``, after a ``pause``; False if it ended before."""
    child, end = forked(action), time.monotonic() + patience
    while not there() and time.monotonic() < end:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.001)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    return status_of(child) == -signal.SIGKILL


STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "open"}


def steps_of(root, action, stop_at):
    """Run ``action`` in a forked process that dies, as of SIGKILL, before its step number ``stop_at`` in ``root``.

    Returns:
        True if it died, False if it came to its end first.
    """
    child = os.fork()
    if child == 0:
        die_before(root, stop_at)
        os._exit(0 if action() == 0 else 1)
    status = status_of(child)
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def die_before(root, stop_at):
    steps = 0

    def count(event, arguments):
        nonlocal steps
        if event not in STEPS or str(root) not in str(arguments[0]):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        steps += 1
        if steps == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
