"""Ctrl-C reaches the children of tests also where the tests themselves ignore it."""

import signal
import sys

from tests.processes import interruptible


def test_a_child_heeds_ctrl_c_where_its_parent_ignores_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = interruptible([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"])
    finally:
        signal.signal(signal.SIGINT, before)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
