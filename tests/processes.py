"""Processes that tests interrupt."""

import signal
import subprocess
from collections.abc import Sequence


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
