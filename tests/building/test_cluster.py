"""The recipes for clusters: shell that parses, of commands and options that there are; those for one machine are run."""

import ast
import inspect
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skyset.building.cluster import COMMANDS, KINDS, Wanted, recipe
from skyset.cli import app
from skyset.errors import UserError
from tests import builds

DASK = shutil.which("dask", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_is_shell_and_python(kind):
    text = recipe(kind, Wanted(command="skyset build gz2 -o /data/gz2", workers=3, host="it's", queue="q'1"))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    for program in re.findall(r"<<'EOF'\n(.*?)^EOF$", text, re.S | re.M):
        ast.parse(program)
    assert re.search(r"^skyset build gz2 -o /data/gz2 --scheduler tcp://\S+:8786$", text, re.M)
    assert CliRunner().invoke(app, ["cluster", kind, "--workers", "3"]).output == recipe(kind, Wanted(workers=3))


def test_a_recipe_names_the_commands_that_run_on_it():
    assert f"skyset build, {', '.join(COMMANDS)}, each with --scheduler" in recipe("local", Wanted())
    taking = {each.name or each.callback.__name__ for each in app.registered_commands if _takes_scheduler(each.callback)}
    assert taking == set(COMMANDS)


def _takes_scheduler(command) -> bool:
    return "scheduler" in inspect.signature(command).parameters


def test_what_is_no_cluster_is_refused():
    for kind, wanted in (("sge", Wanted()), ("local", Wanted(workers=0)), ("local", Wanted(port=0))):
        with pytest.raises(UserError):
            recipe(kind, wanted)
    result = CliRunner().invoke(app, ["cluster", "sge"])
    assert result.exit_code == 2 and "slurm, kubernetes, ssh, local" in result.output


@pytest.mark.skipif(DASK is None, reason="dask.distributed is not installed")
@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_a_recipe_for_one_machine_builds_the_same(kind, small, tmp_path):
    """Run as it is printed; ssh is a program here that runs what the other side would."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ssh").write_text('#!/bin/bash\n[ "$1" = there ] && exec bash -c "$2"\n')
    (programs / "ssh").chmod(0o755)
    command = f"{sys.executable} {builds.SCRIPT} --local_data_path {small} -o {tmp_path / 'gz3d'}"
    text = recipe(kind, Wanted(command=command, workers=1, memory=2, port=port, host="there"))
    if kind == "ssh":
        text = text.replace("\nwait\n", "\nkill $workers\nwait\n")  # which ends sooner than by --death-timeout
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{Path(DASK).parent}{os.pathsep}{os.environ['PATH']}"}
    said = tmp_path / "said.txt"
    with open(said, "w") as output:
        subprocess.run(["bash", "-e"], input=text, text=True, stdout=output, stderr=output, env=environment, timeout=150)
    assert "10 rows in 2 partitions" in said.read_text(), said.read_text()[-3000:]
    assert builds.differences(tmp_path / "gz3d") == []


def test_a_scheduler_that_does_not_start_ends_the_script(tmp_path):
    """It waited for good where `dask` was not installed."""
    for name in ("bash", "sleep"):
        (tmp_path / name).symlink_to(shutil.which(name))
    script = recipe("local", Wanted(port=9))
    ended = subprocess.run([tmp_path / "bash", "-c", script], env={"PATH": str(tmp_path)}, capture_output=True, timeout=30)
    assert ended.returncode == 1 and b"dask" in ended.stderr and b"skyset: command not found" not in ended.stderr
