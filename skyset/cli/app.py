"""The command line itself: its options, and how a command ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperGroup

from skyset.command_line import main as exit_status
from skyset.loading import registry
from skyset.messages import plain
from skyset.versions import __version__


class _Commands(TyperGroup):
    """`--module` may stand anywhere on the line, as in `skyset show mine --module mine.py`."""

    def parse_args(self, context, arguments: list[str]) -> list[str]:
        modules: list[str] = []
        rest: list[str] = []
        waiting = iter(arguments)
        for argument in waiting:
            if argument == "--module":
                modules += [argument, *[value for value in [next(waiting, None)] if value is not None]]
            else:
                (modules if argument.startswith("--module=") else rest).append(argument)
        with _plain_usage():
            return super().parse_args(context, modules + rest)

    def invoke(self, context):
        with _plain_usage():  # the commands' own arguments are read here
            return super().invoke(context)


@contextlib.contextmanager
def _plain_usage() -> Iterator[None]:
    """Usage errors quote the command line, which may hold a login: they are printed as ``plain`` text."""
    try:
        yield
    except Exception as error:  # typer has a copy of Click's classes, or Click's own
        message = getattr(error, "message", None)
        if isinstance(message, str) and hasattr(error, "format_message"):
            vars(error)["message"] = plain(message)
        raise


app = typer.Typer(
    cls=_Commands,
    help="Galaxy surveys as Hugging Face datasets: build partitions from the archives, look at them, check them.",
    epilog="Start with: skyset build gz3d --tiny -o data/gz3d; skyset show gz3d -o galaxy.png",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # --data-dir is --data_dir
    context_settings={"token_normalize_func": lambda name: name.replace("-", "_"), "help_option_names": ["--help", "-h"]},
)


console = Console()


def end(run: Callable[[], int | None]) -> None:
    """Run a command's body; what the user can mend is one line and exit status 2."""
    raise typer.Exit(exit_status(run))


def _print_version(asked: bool) -> None:
    if asked:
        print(f"skyset {__version__}")
        raise typer.Exit


@app.callback()
def _before(
    module: Annotated[
        list[str] | None,
        typer.Option(
            "--module",
            metavar="MODULE",
            help="a loader of your own to know too: an importable module, or a file such as mine.py; anywhere on the line",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="print the version")
    ] = False,
) -> None:
    def run() -> None:
        for each in module or []:
            registry.register_module(each)

    if status := exit_status(run):
        raise typer.Exit(status)
