"""The help of a build script, in the look of the other commands: a panel per group of options, examples at the end."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator

import typer
from rich.markup import escape


def print_help(parser: argparse.ArgumentParser) -> None:
    """Print the help of a parser as typer does; typer itself parses nothing."""
    text, examples = described(parser.description or "")
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)

    def command(**options: object) -> None:
        """Its options are those of the parser."""

    parameters = [*_parameters(parser)]
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    names = {"help_option_names": ["-h", "--help"]}
    app.command(help=text, epilog=examples, context_settings=names)(command)
    app(["--help"], prog_name=parser.prog, standalone_mode=False)


def described(description: str) -> tuple[str, str]:
    """A docstring's paragraphs as typer's help, and its indented lines, the examples, as its epilog."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(description))
    text = [escape(" ".join(each.split())) for each in paragraphs if not each.startswith(" ")]
    examples = [
        escape(re.sub(r" +#", "  #", line.strip()))
        for each in paragraphs
        if each.startswith(" ")
        for line in each.splitlines()
    ]
    return "\n\n".join(text), "\n\n".join(["Examples:", *examples]) if examples else ""


def summary(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """What an option does, with its choices and its default."""
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return text if action.choices is None or action.metavar else f"{', '.join(map(str, action.choices))}: {text}"


def _metavar(action: argparse.Action) -> str:
    """What follows the option: ``NAME``, ``FIRST LAST``, or ``NAME ...`` where there may be several."""
    name = action.metavar or "NAME"
    return (name if isinstance(name, str) else " ".join(name)) + (" ..." if action.nargs in ("+", "*") else "")


def _parameters(parser: argparse.ArgumentParser) -> Iterator[inspect.Parameter]:
    for group in parser._action_groups:
        for action in group._group_actions:
            if not action.option_strings or isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
                continue
            kind = bool if action.nargs == 0 else str
            option = typer.Option(
                None,
                *action.option_strings,
                metavar=None if kind is bool else _metavar(action),
                help=escape(summary(parser, action)),
                show_default=False,
                rich_help_panel=None if group in parser._action_groups[:2] else group.title,
            )
            yield inspect.Parameter(action.dest, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)
