"""How the kernels are compiled."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skyset.errors import MissingPackage
from skyset.messages import say
from skyset.versions import install_command

try:
    import numba
except ImportError as error:
    what = f"this part of skyset.extraction needs numba: {install_command('extraction')}"
    raise MissingPackage(what, "numba") from error

#: Modules of this package, without its name, whose kernels take long to compile.
_SLOW = ("apertures", "background", "isophotes", "segments", "sersic")
#: Said before the first of them is.
COMPILING = "compiling the measuring code, once: a minute or two"
#: A mark that is older, seconds, is another command's.
_OLD = 3600.0


def jit(function: Callable | None = None, **options: Any) -> Callable:
    """``numba.njit`` without Python's lock; what it compiles is kept in files, where there is a folder for them."""
    if function is None:
        return functools.partial(jit, **options)
    try:
        made = numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # no folder can be written to: compiled anew by each process
        made = numba.njit(nogil=True, **options)(function)
    names = function.__module__.split(".")
    if names[:2] == ["skyset", "extraction"] and names[2:] and names[2] in _SLOW:
        _told_before(made)
    return made


def _told_before(made: Any) -> None:
    """Let a kernel say that it is compiled, where its files of compiled code hold nothing yet."""
    cache = getattr(made, "_cache", None)
    load = getattr(cache, "load_overload", None)
    if load is None:
        return

    def load_overload(*args: Any) -> Any:
        found = load(*args)
        if found is None and _is_empty(cache):
            _say_once()
        return found

    vars(cache)["load_overload"] = load_overload


def is_to_compile(kernel: Any) -> bool:
    """Whether a kernel has files for its compiled code, and nothing in them yet: another process can fill them meanwhile."""
    cache = getattr(kernel, "_cache", None)
    return hasattr(cache, "_cache_file") and _is_empty(cache)


def _is_empty(cache: Any) -> bool:
    try:
        return not cache._cache_file._load_index()
    except AttributeError:  # there are no files
        return True


@functools.cache
def _say_once() -> None:
    """Say it in the first of a command's processes that comes here; the others find its mark."""
    parent = multiprocessing.parent_process()
    command = os.getpid() if parent is None else parent.pid
    mark = Path(tempfile.gettempdir()) / f"skyset-compiling-{os.getuid()}-{command}"
    with contextlib.suppress(OSError):
        if time.time() - mark.stat().st_mtime > _OLD:
            mark.unlink()
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    except OSError:
        pass  # no folder for marks: better said twice than not at all
    say(COMPILING, file=sys.stderr)
