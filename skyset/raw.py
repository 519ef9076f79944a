"""Open raw archive files that may be cut short, mislabelled or hostile: RecordError says what is wrong with one."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from isal import isal_zlib

from skyset.errors import RecordError
from skyset.headers import clean
from skyset.html import is_html

if TYPE_CHECKING:
    from astropy.io import fits

#: What astropy raises, besides its own errors, when headers or tables are damaged.
_DAMAGE = (OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
#: No single raw file of any survey is larger than this when unpacked; a gzip bomb is.
MAX_BYTES = 256 << 20
#: No header of a raw file is longer.
MAX_HEADER_BYTES = 400 * 2880
_GZIP = b"\x1f\x8b"
_BLANK = b" \0\t\r\n"
_BLOCK = 2880
_READ = 1 << 20
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | Path) -> io.BufferedReader:
    """A file, opened for reading, or what a link to one leads to; whatever else has a name is never waited for.

    Raises:
        OSError: there is none, it may not be read, or it is a named pipe, a socket, a device or a folder.
    """
    check_regular(path)  # opening may already do something to a device
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    try:
        _check_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def check_regular(path: str | Path) -> None:
    """OSError unless a path leads to a file, for what is opened by somebody else; see ``open_regular``."""
    _check_regular(os.stat(path), path)


def _check_regular(status: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(number, f"{what}, not a regular file", str(path))


def read_regular(path: str | Path, max_bytes: int) -> bytes:
    """All of a file.

    Raises:
        OSError: see ``open_regular``.
        RecordError: it has more than ``max_bytes``.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(max_bytes + 1) if size <= max_bytes else b""
    if max(size, len(data)) > max_bytes:
        raise RecordError(f"{size} bytes, more than {max_bytes}")
    return data


class _Unpacked:
    """The bytes of a gzip file of one member or several, as far as they are asked for (isal: five times as fast as zlib).

    ``read`` raises RecordError where they are damaged or cut short, or more than ``max_bytes`` were read.
    """

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file, self._max_bytes, self._room = file, max_bytes, max_bytes
        self._packed = file.read(_READ)
        if not self._packed.startswith(_GZIP):
            raise RecordError(f"not a gzip file{_looks_like(self._packed)}")
        self._member = isal_zlib.decompressobj(wbits=31)

    def read(self, size: int) -> bytes:
        parts = []
        while size > 0:
            part = self._next(min(size, self._room + 1))
            if not part and self._member is None:
                break
            parts.append(part)
            size -= len(part)
            self._room -= len(part)
            if self._room < 0:
                raise RecordError(f"unpacks to more than {self._max_bytes} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _next(self, size: int) -> bytes:
        """Some of the next bytes; none at the end, and where a member ends."""
        if self._member is None:
            return b""
        packed = self._packed or self._file.read(_READ)
        try:
            part = self._member.decompress(packed, size)
        except isal_zlib.IsalError as error:
            raise RecordError(f"gzip data are damaged: {error}") from error
        if self._member.eof:
            self._packed = self._member.unused_data
            self._packed += self._file.read(_READ) if len(self._packed) < len(_GZIP) else b""
            more = self._packed.startswith(_GZIP)
            self._member = isal_zlib.decompressobj(wbits=31) if more else None
        else:
            self._packed = self._member.unconsumed_tail
            if not packed and not part:
                raise RecordError("gzip data are cut short")
        return part


def gunzip(data: bytes, max_bytes: int = MAX_BYTES) -> bytes:
    """Unpack a gzip file, several members included.

    Raises:
        RecordError: not gzip, cut short, damaged, or more than ``max_bytes`` when unpacked.
    """
    return _Unpacked(io.BytesIO(data), max_bytes).read(max_bytes + 1)


def _looks_like(data: bytes) -> str:
    if not data:
        return " (it is empty)"
    return " (it is an HTML page)" if is_html(data) else ""


@contextlib.contextmanager
def open_fits(path: Path) -> Iterator[fits.HDUList]:
    """The HDUs of a ``.fits`` or ``.fits.gz`` file, read into memory in one go, as many bytes as its headers tell of.

    Raises:
        RecordError: the file is unreadable as gzip or as FITS, also where that shows only inside the block.
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    try:
        with open_regular(path) as file:
            data = _hdus(_Unpacked(file, MAX_BYTES) if Path(path).suffix == ".gz" else file)
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror or error}") from error
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


def read_header(file: BinaryIO | _Unpacked, max_bytes: int = MAX_HEADER_BYTES) -> bytes:
    """The blocks of the FITS header that begins here, to its END card or to the end of the file; or one block that is none.

    Raises:
        RecordError: there is no END within ``max_bytes``.
    """
    blocks = [file.read(_BLOCK)]
    if not blocks[0].startswith((b"SIMPLE ", b"XTENSION")):
        return blocks[0]
    while len(blocks[-1]) == _BLOCK and not ends(blocks[-1]):
        if len(blocks) * _BLOCK >= max_bytes:
            raise RecordError(f"not readable as FITS: a header without an END in its first {max_bytes} bytes")
        blocks.append(file.read(_BLOCK))
    return b"".join(blocks)


def ends(header: bytes) -> bool:
    """Whether the END card is in a header's last block."""
    block = header[-_BLOCK:]
    return any(block[at : at + 3] == b"END" and not block[at + 3 : at + 80].strip(_BLANK) for at in range(0, len(block), 80))


def _hdus(file: BinaryIO | _Unpacked) -> bytes:
    """A FITS file up to the end of its last HDU, or up to where it is none: what reads it then says why."""
    parts, size = [], 0
    while header := read_header(file):
        parts.append(clean(header) if ends(header) else header)
        size += len(header)
        if not ends(header):
            break
        length = _data_bytes(header)
        size += length
        if size > MAX_BYTES:
            raise RecordError(f"its headers tell of {size} bytes, more than {MAX_BYTES}")
        parts.append(file.read(length))
        if len(parts[-1]) < length:
            break
    while isinstance(file, _Unpacked) and file.read(_READ):  # what follows is of no use, but the checksum at the end is
        pass
    return b"".join(parts)


def _data_bytes(header: bytes) -> int:
    """Bytes of the data that follow a header, in whole blocks; 0 where it does not say."""
    values: dict[str, int] = {}
    for at in range(0, len(header), 80):
        name, sign, value = header[at : at + 8].rstrip(), header[at + 8 : at + 10], header[at + 10 : at + 80]
        text = value.partition(b"/")[0].strip()
        if sign == b"= " and len(text) <= 18 and text.lstrip(b"+-").isdigit():
            values.setdefault(name.decode("latin-1"), abs(int(text)))
    count = values.get("NAXIS", 0)
    axes = [values.get(f"NAXIS{n}", 0) for n in range(1, min(count, 999) + 1)]
    if len(axes) > 1 and axes[0] == 0 and "GROUPS" in _logical(header):
        axes = axes[1:]
    pixels = math.prod(axes) if axes else 0
    size = values.get("BITPIX", 0) // 8 * values.get("GCOUNT", 1) * (values.get("PCOUNT", 0) + pixels)
    return -(-size // _BLOCK) * _BLOCK


def _logical(header: bytes) -> set[str]:
    """Keywords that are T: random groups say so."""
    cards = (header[at : at + 80] for at in range(0, len(header), 80))
    return {card[:8].rstrip().decode("latin-1") for card in cards if card[8:10] == b"= " and card[10:30].strip() == b"T"}
