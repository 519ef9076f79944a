"""`make demo`: what it writes is found by name, and each command that it prints works."""

import subprocess
from pathlib import Path

import demo
from skyset.loading.places import find_root


def test_what_to_try_next_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # no skyset there: its path is printed
    monkeypatch.setattr(demo, "GALAXIES", 3)
    assert demo.main() == 0
    assert find_root("gz3d") == str(tmp_path / "data" / "gz3d-demo")
    commands = capsys.readouterr().out.split("Try next:\n")[1].splitlines()
    running = [
        subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for command, process in zip(commands, running, strict=True):
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
