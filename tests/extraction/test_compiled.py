"""That kernels are compiled is said once, before it is done, and not where their files are there."""

import importlib.util
import os
import subprocess
import sys

import pytest

numba = pytest.importorskip("numba")

from skyset.extraction import compiled

SLOW = "skyset.extraction.sersic.kernels"
SAID = "compiling the measuring code, once: a minute or two\n"
SCRIPT = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from skyset.extraction.compiled import jit

def twice(a):
    return 2 * a

twice.__module__ = "skyset.extraction.sersic.kernels"  # as if it stood there
twice = jit(twice)

def work(a):
    return twice(a)

if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        print(*pool.map(work, range(4)), work(1.5))
"""


def said(folder, module, monkeypatch, capsys):
    """What a new process would say when it calls a kernel of a module."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    compiled._say_once.cache_clear()
    path = folder / "kernels_here.py"
    if not path.exists():
        path.write_text("def plus(a):\n    return a + 1\n\n\ndef minus(a):\n    return a - 1\n")
    spec = importlib.util.spec_from_file_location("kernels_here", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    for function in (found.plus, found.minus):
        function.__module__ = module
    assert compiled.jit(found.plus)(1) == 2 and compiled.jit(found.minus)(1) == 0
    return capsys.readouterr().err


def test_it_is_said_before_slow_kernels_are_compiled_and_not_again(tmp_path, monkeypatch, capsys):
    assert said(tmp_path, SLOW, monkeypatch, capsys) == SAID
    for mark in tmp_path.glob("skyset-compiling-*"):
        mark.unlink()
    assert said(tmp_path, SLOW, monkeypatch, capsys) == ""  # the files are there


def test_whether_files_hold_a_kernel_already(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))

    def plus(a):
        return a + 1

    kernel = compiled.jit(plus)
    assert compiled.is_to_compile(kernel) and kernel(1) == 2
    assert not compiled.is_to_compile(kernel) and not compiled.is_to_compile(compiled.jit(plus))
    assert not compiled.is_to_compile(numba.njit(plus))  # it has no files


@pytest.mark.parametrize("module", ["skyset.extraction.simulate", "skyset.extraction", "mine"])
def test_what_is_quickly_compiled_is_not_spoken_of(module, tmp_path, monkeypatch, capsys):
    assert said(tmp_path, module, monkeypatch, capsys) == ""


@pytest.mark.slow
def test_of_several_processes_one_says_it(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, path], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "2", "4", "6", "3.0"] and done.stderr == SAID
