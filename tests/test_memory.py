import subprocess
import sys

import pytest

from skyset.memory import keep_memory

CODE = """
import resource, sys
import numpy as np
from skyset.memory import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
np.ones(40_000_000, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(40_000_000, np.uint8).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_memory_is_used_again():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, check=True).stdout)
        for how in ("keep", "give back")
    }
    assert faults["keep"] < 0.5 * faults["give back"], "pages that are there already"


def test_it_can_be_asked_for_anywhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_memory() is None
