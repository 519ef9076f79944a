"""How commands end and warn."""

import subprocess
import sys

SCRIPT = """
import warnings
from skyset.command_line import main

def run():
    warnings.warn("a.hdf5: has no coord:\\n rows come without", stacklevel=1)
    warnings.warn("old", FutureWarning, stacklevel=1)

main(run)
warnings.warn("after", stacklevel=1)
"""


def test_a_warning_for_users_is_one_line_without_code(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True)
    first, second, code, third, _ = done.stderr.splitlines()
    assert first == "skyset: a.hdf5: has no coord:  rows come without"
    assert second.endswith("FutureWarning: old") and "warnings.warn" in code
    assert third.endswith("UserWarning: after")  # a program's own are left as they are
