"""TARs that are read while they come, of which nobody knows where they end before they have."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator

from skyset.errors import SkysetError
from skyset.html import is_html
from skyset.messages import plain

_LONGEST_NAME = 4096  # bytes
_BLOCK, _END = tarfile.BLOCKSIZE, bytes(tarfile.BLOCKSIZE)


class Broken(SkysetError):
    """There is no answer, or not all of it; a later try may have more luck."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def members(file: io.BufferedIOBase, largest: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a TAR's files, as they come; folders are passed over.

    Args:
        file: is read from where it stands to the end mark.
        largest: bytes of a member.

    Raises:
        Broken: it is none, ends before its end mark, or holds what no cutout is.
    """
    long_name = ""
    while (block := _exactly(file, _BLOCK)) != _END:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.TarError as error:
            raise Broken("an HTML page instead of a TAR" if is_html(block) else f"a damaged TAR: {error}") from error
        bound = largest if info.isreg() else _LONGEST_NAME
        if not 0 <= info.size <= bound:
            raise Broken(f"{plain(info.name, 200)} has {info.size:,} bytes, more than {bound:,}")
        data = _exactly(file, -(-info.size // _BLOCK) * _BLOCK)[: info.size]
        if info.type == tarfile.GNUTYPE_LONGNAME:
            long_name = data.rstrip(b"\0").decode("utf-8", "replace")
            continue
        if info.type == tarfile.XHDTYPE:
            found = re.search(rb"(?:^|\n)\d+ path=([^\n]*)\n", data)
            long_name = found[1].decode("utf-8", "replace") if found else ""
            continue
        if info.isreg():
            yield long_name or info.name, data
        elif not info.isdir() and info.type != tarfile.XGLTYPE:
            yield f"{long_name or info.name} (a link or device)", b""
        long_name = ""


def _exactly(file: io.BufferedIOBase, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise Broken("the TAR ends in the middle")
    return data
