"""Worker: cases as JSON on stdin, a line of JSON for each on stdout."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

from tests.hostile.engine import ADDRESS_SPACE, Bench
from tests.hostile.good import COLUMNS, ROWS


def work() -> None:
    """Worker: cases as JSON on stdin, a line of JSON for each on stdout."""
    faulthandler.enable()
    cases = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some filters print
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        bench = Bench(Path(folder))
        bench.path.write_bytes(bench.good)  # all that is imported late is imported before memory is measured
        for remote in (False, True):
            bench._guarded(COLUMNS, remote, ROWS)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for case in cases:
            print(json.dumps(bench.run(case)), file=answers, flush=True)


if __name__ == "__main__":
    work()
