"""A survey's build script: the command line that ``skyset build NAME`` and the script's own file share."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skyset.building.options import BuildParser, Options
from skyset.command_line import main as exit_status
from skyset.survey import Survey

#: Builds what the command line asked for, given also the options that all builds share and what the user typed; returns
#: the exit status.
Build = Callable[[argparse.Namespace, Options, Sequence[str]], int]


@dataclass(frozen=True)
class Script:
    """What a survey's build script consists of; the module's ``parser`` and ``main`` are this one's.

    Args:
        description: the script's docstring.
        survey: the declaration.
        build: builds what was asked for.
        add_options: adds the options of the survey's own to a parser.
        raw: name of the raw files (``"fits"``) where the archive has one per object.
        tiny: what ``--tiny`` builds, for its help; the first objects where nothing is said.
    """

    description: str
    survey: Survey
    build: Build
    add_options: Callable[[argparse.ArgumentParser], object] = lambda parser: None
    raw: str | None = None
    tiny: str | None = None

    def parser(self, program: str | None = None) -> BuildParser:
        """The command line."""
        known = BuildParser(program, self.description, self.survey, self.raw, self.tiny)
        self.add_options(known)
        return known

    def main(self, arguments: list[str] | None = None, program: str | None = None) -> int:
        """Run a command line.

        Args:
            arguments: those of this process by default.
            program: what usage messages call it.

        Returns:
            the exit status: 0, or 1 where objects were rejected, or 2 where nothing can be built.
        """
        known = self.parser(program)
        asked = known.parse_args(arguments)
        command = [known.prog, *(sys.argv[1:] if arguments is None else arguments)]
        return exit_status(lambda: self.build(asked, Options.from_arguments(asked), command))


def run_as_file(module: str) -> None:
    """What a build script's file does when it is run itself.

    It runs the installed module, not ``__main__``: worker processes must be able to import the functions they are sent.
    """
    sys.exit(importlib.import_module(module).main())
