"""Many cases, in worker processes that may die or hang: the case that did it is found."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.hostile.engine import ALLOWED
from tests.hostile.good import make_bases
from tests.hostile.mutations import Mutator


def run_worker(cases: Sequence[int | str], tell: Callable[[dict], object] = lambda result: None) -> tuple[list[dict], str]:
    """Results up to where the worker died, and how it died ("" if it did not)."""
    command = [sys.executable, "-m", "tests.hostile.worker"]
    results = []
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        pipes = {
            "cwd": Path(__file__).parents[2],
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": errors,
            "env": {**os.environ, "TMPDIR": folder},
        }
        with subprocess.Popen(command, text=True, **pipes) as worker:
            worker.stdin.write(json.dumps(list(cases)))
            worker.stdin.close()
            for line in worker.stdout:
                results.append(json.loads(line))
                tell(results[-1])
        errors.seek(0)
        early = worker.returncode or len(results) < len(cases)  # a library may call exit(0)
        return results, how_it_died(worker.returncode, errors.read()) if early else ""


def how_it_died(status: int, text: str) -> str:
    name = "hang" if "Timeout (" in text else signal.Signals(-status).name if status < 0 else f"exit status {status}"
    frames = re.findall(r'File ".*?/([\w.]+)", line (\d+) in (\w+)', text)
    return f"{name}: " + (" < ".join(f"{f}:{n} {w}" for f, n, w in frames[:6]) or text.strip()[-300:])


def guilty(cases: Sequence[int | str]) -> Sequence[int | str]:
    """The shortest end of ``cases``, found by halving, that still kills a worker: damage may show only later."""
    if run_worker(cases[-1:])[1]:
        return cases[-1:]
    while len(cases) > 1 and run_worker(cases[len(cases) // 2 :])[1]:
        cases = cases[len(cases) // 2 :]
    return cases


def run_batch(cases: Sequence[int | str], tell: Callable[[dict], object] = lambda result: None) -> list[dict]:
    """All results; a case that kills its worker is one more outcome, and the rest go on in another worker."""
    results, rest = [], list(cases)
    while rest:
        done, died = run_worker(rest, tell)
        results += done
        if not died:
            break
        blamed = rest[len(done) : len(done) + 1] if died.startswith("hang") else guilty(rest[: len(done) + 1])
        dead = {"case": blamed[-1], "outcome": f"DIED {died.split(':')[0]}", "detail": died, "steps": steps_of(blamed)}
        results.append(dead)
        tell(dead)
        rest = rest[len(done) + 1 :]
    return results


def steps_of(cases: Sequence[int | str]) -> list[str]:
    """What was done to the last of these cases, told without reading it."""
    steps = [f"with the cases before it: {cases[:-1]}"] if len(cases) > 1 else []
    if isinstance(cases[-1], int):
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            mutator = Mutator(cases[-1], make_bases(Path(folder)))
        mutator.run()
        steps += mutator.steps
    return steps


def not_allowed(results: Sequence[dict]) -> list[str]:
    return [
        f"case {r['case']}: {r['outcome']}: {r['detail']}; {'; '.join(map(str, r['steps']))}"
        for r in results
        if r["outcome"] not in ALLOWED
    ]
