"""The rows, or one line that refuses them, of files damaged at random and of files made on purpose."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests.hostile.cases import STRUCTURED
from tests.hostile.good import make_bases
from tests.hostile.mutations import Mutator
from tests.hostile.workers import not_allowed, run_batch

CI_CASES = 600
BATCH = 150

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="limits, inotify and /proc are those of Linux")


@linux_only
@pytest.mark.parametrize("first", range(0, CI_CASES, BATCH))
def test_mutated_files(first):
    results = run_batch(range(first, first + BATCH))
    assert not not_allowed(results), "\n".join(not_allowed(results))
    assert len(results) == BATCH
    outcomes = Counter(r["outcome"] for r in results)
    assert outcomes["refused"] > BATCH // 3 and outcomes["right rows"] > BATCH // 20  # the cases reach both


@linux_only
@pytest.mark.parametrize("kind", sorted({name.split(":")[0] for name in STRUCTURED}))
def test_files_made_on_purpose(kind):
    cases = [name for name in STRUCTURED if name.split(":")[0] == kind]
    results = run_batch(cases)
    assert not not_allowed(results), "\n".join(not_allowed(results))
    assert len(results) == len(cases)


@linux_only
def test_a_case_that_kills_its_worker_is_found(monkeypatch):
    script = "import json, os, sys\nfor c in json.load(sys.stdin):\n if c == 5: os.abort()\n"
    script += " print(json.dumps({'case': c, 'outcome': 'refused', 'detail': '', 'steps': []}), flush=True)"
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **kwargs: popen([sys.executable, "-c", script], **kwargs))
    results = run_batch(range(9))
    assert [r["case"] for r in results if r["outcome"] == "refused"] == [0, 1, 2, 3, 4, 6, 7, 8]
    (line,) = not_allowed(results)
    assert line.startswith("case 5: DIED SIGABRT")


def test_a_case_is_the_same_every_time(tmp_path):
    bases = make_bases(tmp_path)
    for case in range(20):
        assert Mutator(case, bases).run() == Mutator(case, bases).run()
    assert len({Mutator(case, bases).run() for case in range(20)}) > 15
