"""The images of a FITS file: which there are, which are meant by ``file.fits[SCI,2]``, and their pixels.

A file may be packed (gzip, bzip2, xz, zip) and its images tile-compressed (fpack). Headers are made readable first
(`skyset.headers`); what cannot be read is a UserError in one line that names file and HDU.
"""

from __future__ import annotations

import bz2
import contextlib
import importlib.util
import io
import lzma
import math
import re
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from astropy.io import fits
from isal import igzip, isal_zlib

from skyset import headers
from skyset.errors import RecordError, UserError
from skyset.extraction.world import celestial_wcs, pixel_scale
from skyset.raw import ends, open_regular, read_header

#: Words that EXTNAME or EXTTYPE of images begin or end with which come along with one of the sky: HST, JWST, HSC and LSST,
#: DES, DECam, Euclid, astropy's CCDData.
NO_SKY = frozenset(
    "MASK MASKS MSK BPM DQ DQI FLAG FLAGS FLG QUALITY VARIANCE VAR VARI WEIGHT WEIGHTS WEIGHTMAP WGT WHT WT IVAR INVVAR IVM "  # noqa: SIM905
    "RMS RMSMAP ERR ERROR ERRORS ERRMAP SIGMA STD STDDEV STDEV NOISE UNC UNCERT UNCERTAINTY CTX CON CONTEXT SAMP NPIX NEXP "
    "COVERAGE EXPMAP EXPTIME TIME PSF SEGM SEG SEGMENTATION BKG BACKGROUND AREA".split()
)
#: No image that is measured here has more pixels.
LARGEST = 2**31 - 1
#: No codec of tile-compressed images gains more than this on real data; a header that promises more is damaged.
_MOST_GAIN = 20_000
_PACKED: dict[bytes, Callable] = {b"\x1f\x8b": igzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
#: What damage in a packed or compressed file raises.
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, isal_zlib.IsalError, lzma.LZMAError, zipfile.BadZipFile)
_DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
#: What a table says of itself and of the image that it holds.
_TABLE_CARD = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|TFIELDS|THEAP|(TTYPE|TFORM|TUNIT|TNULL|TSCAL|TZERO|TDISP|TDIM|TLMIN|TLMAX)\d+|"
    r"CHECKSUM|DATASUM|Z(IMAGE|CMPTYPE|QUANTIZ|DITHER0|BLANK|SCALE|ZERO|TENSION|SIMPLE|EXTEND|PCOUNT|GCOUNT|BITPIX|"
    r"NAXIS\d*|TILE\d+|NAME\d+|VAL\d+|MASKCMP|HECKSUM|DATASUM)"
)
_AXIS_CARD = re.compile(r"(NAXIS|CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[3-9]|(CD|PC)([3-9]_\d|\d_[3-9])|WCSAXES")
_STORAGE = re.compile(
    rb"(XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|TFIELDS|THEAP|(TTYPE|TFORM|TNULL|TSCAL|TZERO)\d+|BSCALE|BZERO|BLANK|"
    rb"Z[A-Z]+\d*) *=",
    re.IGNORECASE,
)
#: Codecs that keep to their buffers whatever the data are; damaged HCOMPRESS_1 writes beyond them.
_TRUSTED = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "NOCOMPRESS")
_APART = """
import io, sys, warnings
import numpy as np
from astropy.io import fits
warnings.simplefilter("ignore")
with fits.open(io.BytesIO(sys.stdin.buffer.read()), memmap=False) as opened:
    np.save(sys.stdout.buffer, np.asarray(opened[1].data), allow_pickle=False)
"""
_EMPTY = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)]).tostring().encode("ascii")


@dataclass(frozen=True, eq=False)
class Image:
    """One two-dimensional image of a file, or one plane of a cube.

    ``number``: its place among the file's two-dimensional images, from 1 (a plane: 1); ``header``: of the image, readable,
    with NAXIS 2; ``shape``: of the HDU; ``plane``: from 0, None where there is but one; ``at``, ``start``, ``length``: where
    the HDU and its data lie.
    """

    path: Path
    hdu: int
    number: int
    header: fits.Header
    shape: tuple[int, ...]
    plane: int | None
    compressed: bool
    at: int
    start: int
    length: int

    def __str__(self) -> str:
        return f"{self.path}{self.place}"

    @property
    def place(self) -> str:
        """As it is chosen: ``[1]``, ``[0][2]``."""
        return f"[{self.hdu}]" + (f"[{self.plane}]" if self.plane is not None else "")

    def at_its_place(self) -> Image:
        """The same, read from any folder that a process stands in."""
        return replace(self, path=self.path.absolute())

    @property
    def name(self) -> str:
        return _name(self.header, self.hdu)

    @property
    def of_the_sky(self) -> bool:
        """Whether neither EXTNAME nor EXTTYPE says that it is a mask, weights or the like."""
        for key in ("EXTTYPE", "EXTNAME"):
            words = re.findall(r"[A-Z]+", str(self.header.get(key, "")).upper())
            if words and NO_SKY & {words[0], words[-1]}:
                return False
        # The planes of a mask of the HSC and LSST pipelines.
        return not (str(self.header.get("EXTNAME", "")).strip() == "" and "MP_BAD" in self.header)

    @cached_property
    def scale(self) -> float:
        """Side of a pixel in arcsec; 0 without a celestial WCS."""
        wcs = celestial_wcs(self.header)
        return pixel_scale(wcs, (self.shape[-2], self.shape[-1])) if wcs is not None else 0.0

    def pixels(self, opened: BinaryIO | None = None) -> np.ndarray:
        """(rows, columns), native order: whole numbers, or floats where they are scaled, NaN where they are BLANK.

        ``opened``: the file's bytes where they are open already, as `walk` gives them.

        Raises:
            UserError: they cannot be read, or there are fewer than the header says.
        """
        try:
            with open_file(self.path) if opened is None else contextlib.nullcontext(opened) as file:
                return self._compressed(file) if self.compressed else self._plain(file)
        except UserError:
            raise
        except MemoryError:
            raise UserError(f"{self}: the image does not fit into memory") from None
        except Exception as error:  # the codecs of compressed images raise a dozen kinds, none of which is a fault of ours
            raise UserError(f"{self}: the image cannot be read: {_said(error)}") from None

    def _plain(self, file: BinaryIO) -> np.ndarray:
        dtype = np.dtype(_DTYPES[self.header["BITPIX"]])
        rows, columns = self.shape[-2:]
        size = rows * columns * dtype.itemsize
        file.seek(self.start + (self.plane or 0) * size)
        if isinstance(file, io.BufferedReader):
            stored = np.fromfile(file, dtype, rows * columns)
        else:
            data = _read(file, size)
            stored = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
        if len(stored) < rows * columns:
            raise UserError(f"{self}: truncated: {len(stored):,} of {rows * columns:,} pixels are there")
        return _scaled(_native(stored.reshape(rows, columns)), self.header)

    def _compressed(self, file: BinaryIO) -> np.ndarray:
        file.seek(self.at)
        cards, data = bytes(_read(file, self.start - self.at)), _read(file, self.length)
        if len(data) < self.length:
            raise UserError(f"{self}: truncated: {len(data):,} of {self.length:,} bytes are there")
        header = headers.parse(_storage(cards))
        _check_tiles(header, self.shape, len(data), str(self))
        if _rows_by_rice(header):
            stored = _from_rice(header, data, self.shape[-2:])
            return stored if stored.dtype.kind == "u" else _scaled(stored, header)
        content = b"".join((_EMPTY, headers.clean(cards), data, b"\0" * (-len(data) % headers.BLOCK)))
        if str(header.get("ZCMPTYPE")).strip().upper() in _TRUSTED:
            pixels = _decompressed(io.BytesIO(content))
        else:
            pixels = self._apart(content)
        if pixels.shape != self.shape:
            raise UserError(f"{self}: the tiles make an image of shape {pixels.shape}, its header says {self.shape}")
        return _native(pixels.reshape(-1, *self.shape[-2:])[self.plane or 0])

    def _apart(self, content: bytes) -> np.ndarray:
        """Decompressed by another process: damage may end it, or keep it for ever."""
        patience = 60 + math.prod(self.shape) / 1e6
        try:
            command = [sys.executable, "-c", _APART]
            done = subprocess.run(command, input=content, capture_output=True, timeout=patience, check=False)
        except subprocess.TimeoutExpired:
            raise UserError(f"{self}: the image cannot be read: damaged, its tiles have no end") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() if done.returncode > 0 else []
            raise UserError(f"{self}: the image cannot be read: damaged tiles{': ' + said[-1][:200] if said else ''}")
        return np.load(io.BytesIO(done.stdout), allow_pickle=False)


def _storage(cards: bytes) -> bytes:
    """The cards that say how an image is stored, which are some thirty of hundreds."""
    each = (cards[at : at + headers.CARD] for at in range(0, len(cards), headers.CARD))
    return b"".join(card for card in each if _STORAGE.match(card)) + b"END".ljust(headers.CARD)


def _rows_by_rice(header: fits.Header) -> bool:
    """Whether the tiles are rows of 16-bit whole numbers in Rice's code, as fpack makes them, and our decoder is there."""
    wanted: dict[str, tuple] = {
        "ZCMPTYPE": ("RICE_1", "RICE_ONE"),
        "TTYPE1": ("COMPRESSED_DATA",),
        "TFIELDS": (1,),
        "ZBITPIX": (16,),
    }
    wanted |= {"ZTILE1": (None, header.get("ZNAXIS1")), "ZTILE2": (None, 1), "NAXIS1": (8, 16), "ZNAXIS": (2,)}
    options = {str(header.get(f"ZNAME{k}")).strip(): header.get(f"ZVAL{k}") for k in (1, 2)}
    return (
        all(header.get(key) in values for key, values in wanted.items())
        and re.match(rf"1?{'P' if header['NAXIS1'] == 8 else 'Q'}B", str(header.get("TFORM1"))) is not None
        and options.get("BYTEPIX") == 2
        and options.get("BLOCKSIZE", 32) in (16, 32)
        and not {"ZBLANK", "ZSCALE", "ZZERO", "ZQUANTIZ", "ZMASKCMP"} & set(header)
        and importlib.util.find_spec("numba") is not None
    )


def _from_rice(header: fits.Header, data: bytearray, shape: tuple[int, ...]) -> np.ndarray:
    from skyset.extraction.rice import decode

    rows, columns = shape
    width = header["NAXIS1"]
    heap = header.get("THEAP", rows * width)
    if not isinstance(heap, int) or not rows * width <= heap <= len(data):
        raise ValueError(f"THEAP is {heap!r}")
    content = np.frombuffer(data, np.uint8)
    where = content[: rows * width].view(">i4" if width == 8 else ">i8").reshape(rows, 2).astype(np.int64)
    options = {str(header.get(f"ZNAME{k}")).strip(): header.get(f"ZVAL{k}") for k in (1, 2)}
    # Numbers without sign, as `_scaled` would make them.
    unsigned = header.get("BSCALE", 1) == 1 and header.get("BZERO") == 32768 and "BLANK" not in header
    return decode(content[heap:], where[:, 1], where[:, 0], columns, options.get("BLOCKSIZE", 32), unsigned)


def _decompressed(file: BinaryIO) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(file, memmap=False) as opened:
            return np.asarray(opened[1].data)


def _native(pixels: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's order of bytes, turned in place where that can be."""
    if pixels.dtype.isnative:
        return pixels
    return pixels.byteswap(inplace=pixels.flags.writeable).view(pixels.dtype.newbyteorder("="))


def _scaled(stored: np.ndarray, header: fits.Header) -> np.ndarray:
    """BSCALE, BZERO and BLANK applied; unsigned whole numbers where that is what they say (FITS standard 4.0, 5.2.5)."""
    scale, zero = (headers.number(header.get(key, default)) for key, default in (("BSCALE", 1), ("BZERO", 0)))
    if scale is None or zero is None:
        key = "BSCALE" if scale is None else "BZERO"
        raise ValueError(f"{key} is {header[key]!r}, no number")
    whole = stored.dtype.kind in "iu"
    blank = headers.number(header.get("BLANK")) if whole else None
    if (scale, zero) == (1, 0) and blank is None:
        return stored
    if whole and blank is None and scale == 1 and stored.itemsize > 1 and zero == 2 ** (8 * stored.itemsize - 1):
        unsigned = np.dtype(f"u{stored.itemsize}")
        return stored.view(unsigned) ^ unsigned.type(2 ** (8 * stored.itemsize - 1))
    kind: type[np.floating] = np.float32 if stored.itemsize < (4 if whole else 8) else np.float64
    pixels: np.ndarray = stored.astype(kind)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels *= kind(scale)
        pixels += kind(zero)
    if blank is not None:
        pixels[stored == blank] = np.nan
    return pixels


def _check_tiles(header: fits.Header, shape: tuple[int, ...], size: int, what: str) -> None:
    """What the decoders take for granted: as many tiles as rows, and an image that such a table can hold."""
    fields = headers.number(header.get("TFIELDS"))
    if fields is None or not 1 <= fields <= 999:  # astropy would count up to it
        raise UserError(f"{what}: TFIELDS is {header.get('TFIELDS')!r}: a table has 1 to 999 columns")
    sides = shape[::-1]
    tiles = [headers.number(header.get(f"ZTILE{axis}", side if axis == 1 else 1)) for axis, side in enumerate(sides, 1)]
    if any(tile is None or tile < 1 or tile != int(tile) for tile in tiles):
        raise UserError(f"{what}: ZTILE of the compressed image is none")
    wanted = math.prod([-(-side // int(tile or 1)) for side, tile in zip(sides, tiles, strict=True)])
    if wanted != header.get("NAXIS2"):
        raise UserError(f"{what}: the compressed image has {header.get('NAXIS2')} tiles, its size asks for {wanted}")
    if math.prod(shape) > 1 << 26 and math.prod(shape) > _MOST_GAIN * size:
        raise UserError(f"{what}: {math.prod(shape):,} pixels cannot come from {size:,} bytes: the header is damaged")


def _read(file: BinaryIO, size: int) -> bytearray:
    """As many of ``size`` bytes as there are: memory grows with what comes, not with what a header promises."""
    data = bytearray(file.read(min(size, 1 << 24)))
    while len(data) < size and (more := file.read(min(size - len(data), 1 << 24))):
        data += more
    return data


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked where it is packed.

    Raises:
        UserError: it is not there or no regular file.
    """
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open_regular(path))
            magic = file.read(2)
            file.seek(0)
            if magic == b"PK":
                archive = stack.enter_context(zipfile.ZipFile(file))
                names = [one for one in archive.namelist() if not one.endswith("/")]
                if len(names) != 1:
                    raise UserError(f"{path}: a zip archive of {len(names)} files: unpack it, and name one")
                yield cast(BinaryIO, stack.enter_context(archive.open(names[0])))
            elif magic in _PACKED:
                yield stack.enter_context(_PACKED[magic](file, "rb"))
            else:
                yield file
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a FITS image: {_said(error)}") from None


@dataclass(frozen=True, eq=False)
class Hdu:
    """Where an HDU lies: its number, readable header, where that begins, where its data begin, and their bytes."""

    number: int
    header: fits.Header
    at: int
    start: int
    length: int


def _hdus(file: BinaryIO) -> Iterator[Hdu]:
    """Every HDU of a FITS file that can be sought in, by its header; the data are not looked at.

    Raises:
        HeaderError: the file is no FITS file, or a header does not say where its data end.
        RecordError: a header has no END.
    """
    number = at = 0
    while True:
        file.seek(at)
        cards = read_header(file)
        if not cards.startswith((b"SIMPLE ", b"XTENSION")):
            if number:
                return  # whatever follows is none of the file's HDUs
            raise headers.HeaderError(f"no FITS file: it {'does not begin with SIMPLE' if cards else 'is empty'}")
        if not ends(cards):
            raise headers.HeaderError(f"HDU {number}: the header has no END: the file is cut short or no FITS file")
        header = headers.parse(cards)
        try:
            if number == 0 and header.get("SIMPLE") is not True:
                raise headers.HeaderError("SIMPLE is not T: the file does not keep to the FITS standard")
            length = headers.data_bytes(header)
        except headers.HeaderError as error:
            raise headers.HeaderError(f"HDU {number}: {error}") from None
        start = at + len(cards)
        yield Hdu(number, header, at, start, length)
        at, number = start + -(-length // headers.BLOCK) * headers.BLOCK, number + 1


@dataclass(frozen=True)
class Contents:
    """What a file holds: its images, and for messages all else: cubes as (HDU, header, shape), and each HDU in words."""

    path: Path
    images: list[Image]
    cubes: list[tuple[Hdu, fits.Header, tuple[int, ...], bool]]
    others: list[str]

    def no_image(self) -> str:
        if self.cubes:
            return "; ".join(_planes_said(self.path, hdu.number, header, shape) for hdu, header, shape, _ in self.cubes[:3])
        return f"no 2-D image in it ({', '.join(self.others[:5])}{', ...' * (len(self.others) > 5)})"


def contents(path: Path) -> Contents:
    """The images of a file.

    Raises:
        UserError: it is no FITS file or is cut off.
    """
    found = Contents(path, [], [], [])
    for _ in _each_hdu(path, found):
        pass
    return found


def walk(path: Path) -> Iterator[tuple[Image, BinaryIO]]:
    """The two-dimensional images of a file in its order, each with the open file for its ``pixels``: a packed file is
    unpacked once.

    Raises:
        UserError: it is no FITS file, or is cut off where the walk has come to.
    """
    found = Contents(path, [], [], [])
    seen = 0
    for file in _each_hdu(path, found):
        for image in found.images[seen:]:
            yield image, file
        seen = len(found.images)


def _each_hdu(path: Path, found: Contents) -> Iterator[BinaryIO]:
    """Sort HDU after HDU into ``found``; the open file, after each."""
    try:
        with open_file(path) as file:
            size = path.stat().st_size if isinstance(file, io.BufferedReader) else None  # a packed one's says nothing
            for hdu in _hdus(file):
                if size is not None and hdu.start + hdu.length > size:
                    name = _name(hdu.header, hdu.number)
                    which = f"HDU {hdu.number}" + (f" ({name})" if name not in (str(hdu.number), "PRIMARY") else "")
                    raise UserError(f"{path}: truncated: the data of {which} end after the file's {size:,} bytes")
                _sort_in(hdu, found)
                yield file
    except (headers.HeaderError, RecordError) as error:
        raise UserError(f"{path}: cannot be read as a FITS image: {error}") from None
    except _DAMAGE as error:
        raise UserError(f"{path}: cannot be read as a FITS image: {_said(error)}") from None


def _sort_in(hdu: Hdu, found: Contents) -> None:
    compressed = hdu.header.get("ZIMAGE") is True and hdu.header.get("XTENSION") == "BINTABLE"
    if not compressed and hdu.number and str(hdu.header.get("XTENSION")).strip() not in ("IMAGE", "IUEIMAGE"):
        found.others.append(f"{_name(hdu.header, hdu.number)}: table")
        return
    shape = headers.sides(hdu.header, "Z" if compressed else "")
    name = _name(hdu.header, hdu.number)
    if len(shape) < 2 or 0 in shape:
        found.others.append(f"{name}: {' x '.join(map(str, shape[::-1])) or 'empty'}")
        return
    if math.prod(shape[-2:]) > LARGEST:
        raise headers.HeaderError(f"HDU {hdu.number}: {shape[-1]} x {shape[-2]} pixels are too many")
    header = _image_header(hdu.header, compressed)
    if any(side > 1 for side in shape[:-2]):
        found.cubes.append((hdu, header, shape, compressed))
        found.others.append(f"{name}: {' x '.join(map(str, shape[::-1]))}")
        return
    found.images.append(_image(found.path, hdu, len(found.images) + 1, header, shape, None, compressed))


def _image(path, hdu, number, header, shape, plane, compressed) -> Image:
    if len(shape) > 2:
        header = _flat(header)
    return Image(path, hdu.number, number, header, shape, plane, compressed, hdu.at, hdu.start, hdu.length)


def _image_header(header: fits.Header, compressed: bool) -> fits.Header:
    """Of the image that a tile-compressed one was made from: without the table's cards (FITS standard 4.0, 10.1.2)."""
    if not compressed:
        return header
    lengths = headers.sides(header, "Z")
    cards = [
        ("XTENSION", "IMAGE", "Image extension"),
        ("BITPIX", header.get("ZBITPIX"), "array data type"),
        ("NAXIS", len(lengths)),
        *((f"NAXIS{axis}", side) for axis, side in enumerate(lengths[::-1], 1)),
        ("PCOUNT", 0),
        ("GCOUNT", 1),
    ]
    # As text: each card that is added to a header is looked at several times.
    text = fits.Header(cards).tostring(endcard=False, padding=False)
    text += headers.cards_of(header, lambda keyword: not _TABLE_CARD.fullmatch(keyword)).decode("ascii")
    return fits.Header.fromstring(text)


def _flat(header: fits.Header) -> fits.Header:
    """The header of one plane: two axes, and the WCS of the sky alone where that is the first two."""
    header = header.copy()
    kinds = [str(header.get(f"CTYPE{axis}", ""))[:4] for axis in (1, 2)]
    sky = all(re.match("RA--|DEC-|[GE]L[OA][NT]", kind) for kind in kinds)
    for key in [key for key in header if _AXIS_CARD.fullmatch(key) and (sky or key.startswith("NAXIS"))]:
        del header[key]
    header["NAXIS"] = 2
    return header


def _name(header: fits.Header, number: int) -> str:
    said = (str(header.get(key, "")).strip() for key in ("EXTNAME", "EXTTYPE"))
    return next(filter(None, said), "PRIMARY" if number == 0 else str(number))


def _bands(header: fits.Header, planes: int) -> list[str]:
    """The names of a cube's planes, as the Legacy Surveys' cutouts give them: BANDS = 'grz', or BAND0, BAND1, ..."""
    single = [str(header.get(f"BAND{plane}", "")).strip() for plane in range(planes)]
    if all(single):
        return single
    bands = re.findall(r"[^\s,]+", str(header.get("BANDS", "")))
    bands = list(bands[0]) if len(bands) == 1 else bands
    return bands if len(bands) == planes else []


def _planes_said(path: Path, number: int, header: fits.Header, shape: tuple[int, ...]) -> str:
    planes = math.prod(shape[:-2])
    bands = _bands(header, planes)
    said = [f"[{number}][{plane}]" + (f" ({bands[plane]})" if bands else "") for plane in range(min(planes, 6))]
    return (
        f"HDU {number} is a cube of {' x '.join(map(str, shape))}: no 2-D image; one plane of it is measured by "
        f"'{path.name}[{number}][0]'; there are {', '.join(said)}{', ...' * (planes > 6)}"
    )


# What is chosen


@dataclass(frozen=True)
class Chosen:
    """``images``: those that are meant; ``every``: all of the file; ``explicit``: whether the text said which; ``notes``:
    what the user should know of the choice, a line each."""

    path: Path
    images: list[Image]
    every: list[Image]
    explicit: bool
    notes: list[str]


def split(text: str | Path) -> tuple[Path, str, str]:
    """``cube.fits[0][2]`` is (``cube.fits``, ``0``, ``2``); a file that is called so comes first."""
    match = re.fullmatch(r"(.+?)\[([^\[\]]*)\](?:\[([^\[\]]*)\])?", str(text), re.S)
    if match is None or Path(text).is_file():
        return Path(text), "", ""
    if not match[2].strip() or (match[3] is not None and not match[3].strip()):
        raise UserError(f"{text}: nothing is named between the brackets; such as [1], [SCI], [SCI,2], [0][2]")
    return Path(match[1]), match[2].strip(), (match[3] or "").strip()


def choose(text: str | Path, sky_only: bool = True) -> Chosen:
    """The images that a text such as ``file.fits``, ``file.fits[SCI,2]``, ``file.fits[1,3]`` or ``cube.fits[0][z]`` means.

    Between the brackets stand HDU numbers from 0, EXTNAMEs (in small letters or capitals), or an EXTNAME and its EXTVER;
    several, one behind the other. Behind them the planes of a cube: from 0, or by band. Without brackets: all
    two-dimensional images; with ``sky_only`` those that their names do not call a mask, weights or the like.

    Raises:
        UserError: the file cannot be read, or there is no such image; those that are there are named.
    """
    path, wanted, planes = split(text)
    there = contents(path)
    if planes:
        return _planes(text, there, wanted, planes)
    if not there.images:
        raise UserError(f"{path}: {there.no_image()}")
    if wanted:
        images, notes = _named(str(text), there, wanted)
        return Chosen(path, images, there.images, True, notes)
    notes = [_planes_said(path, hdu.number, header, shape) for hdu, header, shape, _ in there.cubes]
    images = [image for image in there.images if image.of_the_sky] if sky_only else there.images
    passed = [image for image in there.images if image not in images]
    if not images:
        images = there.images
        notes.append(
            f"{', '.join(_with_place(image) for image in images)}: no image of the sky, by its name, but measured "
            "as one, for there is no other"
        )
    elif passed:
        notes.append(
            f"{', '.join(_with_place(image) for image in passed)}: passed over, no image of the sky by its name; "
            f"'{path.name}{passed[0].place}' measures it"
        )
    return Chosen(path, images, there.images, False, [f"{path}: {note}" for note in notes])


def _with_place(image: Image) -> str:
    return f"{image.name} ({image.path.name}{image.place})"


def _named(text: str, there: Contents, wanted: str) -> tuple[list[Image], list[str]]:
    images: list[Image] = []
    notes: list[str] = []
    words = [word.strip() for word in wanted.split(",")]
    while words:
        word = words.pop(0)
        if word.isdecimal():
            found, said = [image for image in there.images if image.hdu == _int(word)], word
        else:
            version = _int(words.pop(0)) if words and words[0].isdecimal() else None
            found = [image for image in there.images if _matches(image, word, version)]
            said = word if version is None else f"{word},{version}"
        if not found:
            cube = next((one for one in there.cubes if word in (str(one[0].number), _name(one[1], one[0].number))), None)
            if cube is not None:
                raise UserError(f"{text}: {_planes_said(there.path, cube[0].number, cube[1], cube[2])}")
            raise UserError(f"{text}: no 2-D image is {said!r}: there are {_there(there.images)}")
        if len(found) > 1:
            notes.append(
                f"{text}: {len(found)} images are called {said}: the first is taken, HDU {found[0].hdu}; "
                f"the others: {', '.join(image.place for image in found[1:])}"
            )
        images += [image for image in found[:1] if image not in images]
    return sorted(images, key=lambda image: image.hdu), notes


def _matches(image: Image, name: str, version: int | None) -> bool:
    own = headers.number(image.header.get("EXTVER", 1))
    return image.name.upper() == name.upper() and version in (None, own)


def _there(images: Sequence[Image]) -> str:
    names = [image.name.upper() for image in images]
    said = []
    for image, name in zip(images[:50], names, strict=False):
        version = f",{image.header['EXTVER']}" if names.count(name) > 1 and "EXTVER" in image.header else ""
        said.append(str(image.hdu) if name == str(image.hdu) else f"{image.hdu} ({image.name}{version})")
    return ", ".join(said) + ", ..." * (len(images) > 50)


def _int(text: str) -> int:
    return int(text) if len(text) < 10 else -1


def _planes(text: str | Path, there: Contents, wanted: str, planes: str) -> Chosen:
    cubes = [cube for cube in there.cubes if wanted.upper() in (str(cube[0].number), _name(cube[1], cube[0].number).upper())]
    if not cubes:
        has = "; ".join(_planes_said(there.path, cube[0].number, cube[1], cube[2]) for cube in there.cubes[:3])
        raise UserError(f"{text}: no cube is {wanted!r}{': ' + has if has else ': there is none in it'}")
    hdu, header, shape, compressed = cubes[0]
    count = math.prod(shape[:-2])
    bands = _bands(header, count)
    images: list[Image] = []
    for word in (word.strip() for word in planes.split(",")):
        plane = bands.index(word) if word in bands else _int(word) if word.isdecimal() else -1
        if not 0 <= plane < count:
            raise UserError(f"{text}: no plane is {word!r}: {_planes_said(there.path, hdu.number, header, shape)}")
        images.append(_image(there.path, hdu, len(images) + 1, header, shape, plane, compressed))
    return Chosen(there.path, images, images, True, [])


def partners(text: str | Path, images: Chosen, what: str) -> list[Image]:
    """The weights or flags of each of the images that are chosen: by their places, or one for all.

    Raises:
        UserError: their numbers do not belong together, or the file is that of the images and nothing says which.
    """
    others = choose(text, sky_only=False)
    for note in others.notes if others.explicit else ():
        warnings.warn(note, stacklevel=2)
    found, chosen = others.images, images.images
    if not others.explicit and others.path.resolve() == images.path.resolve() and len(found) > 1:
        raise UserError(
            f"{text}: which of its images has the {what}? There are {_there(found)}; '{others.path.name}[1]' "
            "or the like says it"
        )
    if len(found) == 1:
        return found * len(chosen)
    if others.explicit and len(found) == len(chosen):
        return found
    sky = [image for image in images.every if image.of_the_sky]
    for group in () if others.explicit else (images.every, sky):
        if len(found) == len(group) and all(image in group for image in chosen):
            return [found[group.index(image)] for image in chosen]
    raise UserError(
        f"{others.path}: {len(found)} images of {what} for the {len(images.every)} of {images.path.name}: "
        "give one for each, chosen or not, or a single one for all"
    )
