"""`make demo`: what it writes is found by name, and each command that it prints works."""

import os
import shlex
import sys
from pathlib import Path

import demo
from skyset.loading.places import find_root
from tests.processes import imported


def test_what_to_try_next_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # no skyset there: its path is printed
    monkeypatch.setattr(demo, "GALAXIES", 3)
    assert demo.main() == 0
    assert find_root("gz3d") == str(tmp_path / "data" / "gz3d-demo")
    commands = capsys.readouterr().out.split("Try next:\n")[1].splitlines()
    programs = {str(Path(sys.executable)), str(Path(sys.executable).with_name("skyset"))}
    for command in commands:
        program, *words = shlex.split(command)
        assert program in programs and os.access(program, os.X_OK)
        process = imported([sys.executable, *([] if program == sys.executable else [program]), *words])
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, f"{command}: {error[-500:]}"
        assert "python" not in command or out == "(525, 525, 3)\n"
    assert len(commands) == 5 and Path("galaxy.png").stat().st_size > 10_000


def test_beside_real_data_the_demonstrations_are_named(tmp_path, monkeypatch, built):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/gz3d").symlink_to(built)
    assert find_root("gz3d") == str(tmp_path / "data" / "gz3d")
    show, _, _, _, python = demo.next_commands()
    assert "--data_dir data/gz3d-demo" in show and "data_dir='data/gz3d-demo'" in python
