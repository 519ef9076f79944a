"""The command ``skyset``: build, look at and check surveys from a terminal."""

from __future__ import annotations

import sys

from skyset.cli.app import app
from skyset.cli.pictures import picture_path, save_figure
from skyset.command_line import main as exit_status

# Each adds its commands: `skyset --help` lists them in this order.
# isort: off
from skyset.cli import making, adopting, looking, matching, extracting, sending

# isort: on

COMMANDS = (making, adopting, looking, matching, extracting, sending)

__all__ = ["app", "main", "picture_path", "save_figure"]


def main() -> None:
    def run() -> int:
        try:
            return app(prog_name="skyset") or 0
        except SystemExit as end:
            return int(end.code or 0)

    sys.exit(exit_status(run))
