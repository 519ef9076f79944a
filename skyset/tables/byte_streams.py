"""The bytes of a catalogue's file, unpacked on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from isal import igzip_threaded

from skyset.errors import UserError
from skyset.html import HEAD_BYTES, is_html
from skyset.raw import open_regular

BLOCK_BYTES = 2 << 20
_GZIP = b"\x1f\x8b"


@contextlib.contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """The file's bytes in their order, unpacked if its name ends in ``.gz``."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_regular(path))
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if not head:
            raise UserError(f"{path}: the file is empty")
        if path.lower().endswith(".gz"):
            if not head.startswith(_GZIP):
                raise UserError(f"{path}: not a gzip file" + (" (it is an HTML page)" if is_html(head) else ""))
            yield stack.enter_context(igzip_threaded.open(file, "rb"))
        elif head.startswith(_GZIP):
            raise UserError(f"{path}: is gzip data; name it {Path(path).name}.gz")
        else:
            yield file


def read_fully(file: BinaryIO, size: int) -> bytes:
    """``size`` bytes, or as many as there are."""
    data = file.read(size)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data
