"""Running a command: what the user can act on is one line and an exit status."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from skyset.errors import UserError
from skyset.files import flushed_output
from skyset.messages import plain


def os_reason(error: BaseException, where: str | Path) -> str:
    """One line for what the system refused."""
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename or where}"
    if isinstance(error, OSError):
        return f"{error.filename or where}: {error.strerror or error}"
    raise error


def main(run: Callable[[], int | None]) -> int:
    """Run a command line and return its exit status: errors the user can act on are one line and 2, Ctrl-C is 130.

    ``run`` gives the status, None for 0. A KeyboardInterrupt with a text says itself how to go on.
    """
    try:
        with flushed_output(), _warnings_in_one_line():
            return run() or 0
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt as stop:
        return _complain(f"interrupted; {plain(stop) or 'the same command goes on from here'}", 130)
    except BrokenPipeError:
        return 128 + signal.SIGPIPE  # as of any program whose reader went away (``| head``)
    except MemoryError:
        return _complain("not enough memory")
    except OSError as error:
        if error.errno is None:
            raise
        return _complain(plain(os_reason(error, "the output")))


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Warnings for users as a line each, without the line of code that gave them."""
    before = warnings.formatwarning

    def format_warning(message, category, *where, **more) -> str:
        return f"skyset: {plain(message)}\n" if category is UserWarning else before(message, category, *where, **more)

    vars(warnings)["formatwarning"] = format_warning
    try:
        yield
    finally:
        vars(warnings)["formatwarning"] = before


def _complain(text: str, status: int = 2) -> int:
    with contextlib.suppress(OSError):  # standard error may be a full disk too
        print(f"skyset: {text}", file=sys.stderr, flush=True)
    return status
