"""How the kernels are compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from skyset.errors import MissingPackage
from skyset.versions import install_command

try:
    import numba
except ImportError as error:
    what = f"this part of skyset.extraction needs numba: {install_command('extraction')}"
    raise MissingPackage(what, "numba") from error


def jit(function: Callable | None = None, **options: Any) -> Callable:
    """``numba.njit`` without Python's lock; what it compiles is kept in files, where there is a folder for them."""
    if function is None:
        return functools.partial(jit, **options)
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # no folder can be written to: compiled anew by each process
        return numba.njit(nogil=True, **options)(function)
