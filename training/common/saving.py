"""What happens when there is no room left to save what was trained."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from skyset.errors import UserError
from skyset.training.common.runs import CHECKPOINT, RECORD, checkpoints_in, remove_checkpoint

#: The disk is full, somebody's share of it is used up, or a file may not be longer.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: How libraries that write in C++ or Rust say that, without a number.
_SAID = re.compile(r"PytorchStreamWriter|file write failed|unexpected pos|No space left|File too large|quota exceeded", re.I)


@contextmanager
def room_for(place: Path, what: str) -> Iterator[None]:
    """Turn the errors of a full disk into one line; a checkpoint that was begun is removed, those before it stay.

    Args:
        place: the folder that is written.
        what: it is.

    Raises:
        UserError: there was no room; it says from where the same command goes on.
    """
    place = Path(place)
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not _no_room(error):
            raise
        run = place
        if CHECKPOINT.fullmatch(place.name):
            run = place.parent
            with suppress(OSError, UserError):
                remove_checkpoint(place)
        whole = [path for path in checkpoints_in(run).values() if (path / RECORD).is_file()]
        on = f"the same command goes on from {whole[-1].name}" if whole else "no checkpoint is there yet"
        raise UserError(f"no room left to write {what} to {place}: make some; {on}") from error


def _no_room(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) in _FULL or _SAID.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
