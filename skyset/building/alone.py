"""One build at a time in a folder of several datasets, each of which has a lock of its own besides."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from skyset.errors import UserError
from skyset.files import open_locked


@contextlib.contextmanager
def alone(root: Path, catalog: str = "catalog") -> Iterator[None]:
    """Hold the lock ``<root>/<catalog>/.lock``; the folder is made.

    Raises:
        UserError: another build has it, or the folder cannot be written.
    """
    try:
        (root / catalog).mkdir(parents=True, exist_ok=True)
        descriptor, _ = open_locked(root / catalog / ".lock")
    except BlockingIOError:
        raise UserError(f"another build is running in {root}") from None
    except OSError as error:
        raise UserError(f"{root} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        os.close(descriptor)
