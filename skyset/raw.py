"""Open raw archive files that may be cut short, mislabelled or hostile: RecordError says what is wrong with one."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from isal import isal_zlib

from skyset.errors import RecordError

if TYPE_CHECKING:
    from astropy.io import fits

#: What astropy raises, besides its own errors, when headers or tables are damaged.
_DAMAGE = (OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
#: No single raw file of any survey is larger than this when unpacked; a gzip bomb is.
MAX_BYTES = 256 << 20
_GZIP = b"\x1f\x8b"


def gunzip(data: bytes, max_bytes: int = MAX_BYTES) -> bytes:
    """Unpack a gzip file, several members included (isal: five times as fast as zlib here).

    Raises:
        RecordError: not gzip, cut short, damaged, or more than ``max_bytes`` when unpacked.
    """
    if not data.startswith(_GZIP):
        raise RecordError(f"not a gzip file{_looks_like(data)}")
    parts, room = [], max_bytes
    while data.startswith(_GZIP):
        member = isal_zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(data, room + 1))
        except isal_zlib.IsalError as error:
            raise RecordError(f"gzip data are damaged: {error}") from error
        room -= len(parts[-1])
        if room < 0:
            raise RecordError(f"unpacks to more than {max_bytes} bytes")
        if not member.eof:
            raise RecordError("gzip data are cut short")
        data = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _looks_like(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if not data:
        return " (it is empty)"
    return " (it is an HTML page)" if head.startswith((b"<!doctype html", b"<html")) else ""


@contextlib.contextmanager
def open_fits(path: Path) -> Iterator[fits.HDUList]:
    """The HDUs of a ``.fits`` or ``.fits.gz`` file, read from memory in one go.

    Raises:
        RecordError: the file is unreadable as gzip or as FITS, also where that shows only inside the block.
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}") from error
    if Path(path).suffix == ".gz":
        data = gunzip(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)  # of odd headers
            warnings.filterwarnings("error", ".*truncated", AstropyWarning)  # astropy goes on with what is there
            with fits.open(io.BytesIO(data), memmap=False) as hdus:
                yield hdus
    except RecordError:
        raise
    except (*_DAMAGE, fits.VerifyError, AstropyWarning) as error:
        raise RecordError(f"not readable as FITS{_looks_like(data)}: {' '.join(str(error).split())[:200]}") from error
