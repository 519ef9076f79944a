"""Bars are for terminals; a log gets whole lines, now and then."""

import re
import sys
import time

import pytest

from skyset import progress
from skyset.progress import progress_bar
from tests.processes import wait_for


@pytest.fixture
def log(monkeypatch, capsys):
    """What standard error, which is no terminal here, has got; lines come twenty times per second."""
    monkeypatch.setattr(progress, "LINE_EVERY", 0.05)
    seen = []

    def read() -> str:
        seen.append(capsys.readouterr().err)
        return "".join(seen)

    return read


def until_said(log, text: str) -> None:
    wait_for(lambda: text in log())


def test_a_log_gets_whole_lines_even_while_nothing_moves(log):
    with progress_bar(total=10, unit="object", desc="gz3d") as bar:
        bar.update(3)
        bar.set_postfix(rejected=1)
        until_said(log, "gz3d:  30% 3/10")
        bar.update(7)
    text = log()
    assert "\r" not in text and "\x1b" not in text and text.endswith("\n")
    assert all(re.fullmatch(r"gz3d: +\d+% \d+/10 \[.*object.*\]", line) for line in text.splitlines()), text
    assert re.fullmatch(r"gz3d: 100% 10/10 \[.*rejected=1\]", text.splitlines()[-1])


def test_short_work_says_nothing(log, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 60)
    assert list(progress_bar(range(5), desc="positions")) == [0, 1, 2, 3, 4]
    assert log() == ""


def test_what_is_iterated_is_counted(log):
    for number in progress_bar(range(4), desc="files"):
        if number == 2:
            until_said(log, "files:  50% 2/4")
    assert log().splitlines()[-1].startswith("files: 100% 4/4")


def test_a_bar_that_is_off_stays_off(log):
    for _ in progress_bar(range(3), disable=True):
        time.sleep(0.1)
    assert log() == ""


def test_a_terminal_gets_a_bar(log, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for _ in progress_bar(range(3), desc="files", mininterval=0):
        pass
    assert "\r" in log() and "3/3" in log()
