"""What image files are, and their pixels: which kind of file, whether it is whole, its values as arrays.

The same file has the same pixels whether they are stored when a survey is built or looked at when it is loaded:
`decoded_image` reads the bytes of every PNG and JPEG, and `rgb` makes arrays of the images.
"""

from __future__ import annotations

import io
import json
import math
import sys
from typing import TYPE_CHECKING

import numpy as np

from skyset.errors import SkysetError
from skyset.html import is_html
from skyset.messages import plain

if TYPE_CHECKING:
    import PIL.Image

#: What the bytes may be. Pillow reads much more, some of it by starting other programs.
FORMATS = ("JPEG", "PNG")
#: An image of more pixels is refused before it is unpacked: a few bytes can claim more than the memory holds.
MAX_PIXELS = 50_000_000
#: How images are handed out.
PIL_IMAGE, ARRAY, UNDECODED = "pil", "array", "undecoded"
_ORIENTATION = 0x0112

KINDS = {"jpg": "JPEG", "png": "PNG", "fits": "FITS"}
MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"SIMPLE  =": "FITS",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"RIFF": "WebP",
    b"\x1f\x8b": "gzip",
}
BLANK_RANGE = 1  # levels of 255 between the darkest and the brightest pixel of an image without content
FITS_END = b"END".ljust(80)
LONGEST_HEADER = 100 * 2880  # bytes
BITPIX = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


class ImageError(SkysetError):
    """An answer is not the image asked for: `reason` in one line; `passing` if asking again may help."""

    def __init__(self, reason: str, passing: bool) -> None:
        reason = plain(reason)
        super().__init__(reason, passing)
        self.reason = reason
        self.passing = passing

    def __str__(self) -> str:
        return self.reason


def decode(data: bytes, kind: str) -> np.ndarray:
    """The pixels of an image. Row 0 is the northern edge, whatever the kind (FITS files begin in the south).

    Args:
        data: the file.
        kind: ``jpg``, ``png`` or ``fits``; anything else in `data` is refused.

    Returns:
        jpg, png: (height, width, 3) uint8, upright, see `rgb`. fits: native float32, (height, width) or
        (height, width, 3) of a cube of three planes; BSCALE and BZERO are applied, BLANK is NaN.

    Raises:
        ImageError: it is no such image, or damaged.
    """
    _check_kind(data, kind)
    if kind == "fits":
        return _fits_pixels(data)
    return np.array(rgb(_whole(data, kind)))


def check_image(data: bytes, kind: str, width: int, height: int) -> None:
    """Refuse what is not an image of this kind and size with something on it.

    Blank, as services answer outside of a survey's footprint, is an image whose channels each hold one level (a
    difference of `BLANK_RANGE` in 255 is allowed for), or FITS pixels that are all NaN or all the same number.
    Noise of empty sky is more than that.

    Raises:
        ImageError: ``passing`` is False for blank, oversized and wrongly sized images.
    """
    _check_kind(data, kind)
    if kind == "fits":
        pixels = _fits_pixels(data)
        _check_size(pixels.shape[1], pixels.shape[0], width, height)
        finite = pixels[np.isfinite(pixels)]
        blank = finite.size == 0 or finite.min() == finite.max()
    else:
        pixels = rgb(_whole(data, kind))
        _check_size(pixels.shape[1], pixels.shape[0], width, height)
        blank = bool((np.ptp(pixels, axis=(0, 1)) <= BLANK_RANGE).all())
    if blank:
        raise ImageError("the image is blank", passing=False)


def _check_kind(data: bytes, kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"no such kind of image: {kind!r} (known: {', '.join(KINDS)})")
    found = kind_of(data)
    if found == KINDS[kind]:
        return
    what = f"{found}, not {KINDS[kind]}" if found else _not_an_image(data)
    raise ImageError(f"the answer is {what}", passing=True)


def kind_of(data: bytes) -> str | None:
    """What the first bytes say."""
    return next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)


def _not_an_image(data: bytes) -> str:
    text = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text:
        return "empty"
    if is_html(text):
        return "an HTML page"
    if text.startswith((b"{", b"[")):
        return f"JSON: {words_of(data)}"
    return "an XML document" if text.startswith(b"<?xml") else f"no image: {bytes(data[:16])!r}"


def words_of(data: bytes) -> str:
    """What a service says in a JSON answer: hips2fits has title and description."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, dict):
        texts = [str(values[name]) for name in ("title", "description", "message", "error") if values.get(name)]
        text = ": ".join(texts) or json.dumps(values)
    else:
        text = data[:200].decode("utf-8", errors="replace")
    return " ".join(text.split())[:200]


def _check_size(width: int, height: int, wanted_width: int, wanted_height: int) -> None:
    if (width, height) != (wanted_width, wanted_height):
        raise ImageError(f"the image has {width} x {height} pixels, not {wanted_width} x {wanted_height}", passing=False)


def _whole(data: bytes, kind: str) -> PIL.Image.Image:
    """The image, as `decoded_image` gives it; the end of the file must be there."""
    end = b"\xff\xd9" if kind == "jpg" else b"IEND\xaeB`\x82"
    if not data.rstrip(b"\0\r\n ").endswith(end):
        raise ImageError(f"truncated {KINDS[kind]}", passing=True)
    return decoded_image(data)


def _damaged(what: str, error: Exception) -> ImageError:
    return ImageError(f"damaged {what}: {str(error) or type(error).__name__}"[:200], passing=True)


def _too_large() -> ImageError:
    return ImageError(f"an image of more than {MAX_PIXELS:,} pixels", passing=False)


def _fits_pixels(data: bytes) -> np.ndarray:
    """Pixels of the primary HDU. Read here, because astropy repairs what should be refused."""
    from astropy.io import fits

    end = next((at + 80 for at in range(0, min(len(data), LONGEST_HEADER), 80) if data[at : at + 80] == FITS_END), 0)
    if not end or not data[:end].isascii():
        raise ImageError("damaged FITS: the header has no end or is no text", passing=True)
    start = -(-end // 2880) * 2880
    try:
        header = fits.Header.fromstring(data[:end])
        shape = tuple(int(header[f"NAXIS{axis}"]) for axis in range(int(header["NAXIS"]), 0, -1))
        dtype = np.dtype(BITPIX[header["BITPIX"]])
        scale, zero, blank = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0)), header.get("BLANK")
    except Exception as error:  # astropy raises a dozen kinds for damaged headers
        raise _damaged("FITS", error) from error
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 3) or min(shape) < 1:
        raise ImageError(f"FITS with axes {shape}, not an image or three", passing=False)
    if math.prod(shape) > MAX_PIXELS:
        raise _too_large()
    if len(data) < start + math.prod(shape) * dtype.itemsize:
        raise ImageError("truncated FITS", passing=True)
    stored = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = (stored * scale + zero if (scale, zero) != (1, 0) else stored).astype(np.float32)
    if blank is not None and dtype.kind != "f":
        pixels[stored == blank] = np.nan
    if pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    return np.ascontiguousarray(pixels[::-1])


def decoded_image(data: bytes | np.ndarray) -> PIL.Image.Image:
    """The image that the bytes of a PNG or JPEG file encode, turned as its EXIF says, in the file's own mode.

    This is what ``datasets.Image`` gives. Every image of this collection is decoded here, when stored and when loaded.

    Raises:
        ImageError: neither PNG nor JPEG, damaged, or of more than `MAX_PIXELS`.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    kind = kind_of(bytes(data[:16]))
    if kind not in FORMATS:
        raise ImageError(f"no {' or '.join(FORMATS)} image", passing=True)
    try:
        image = Image.open(io.BytesIO(data), formats=(kind,))
        if math.prod(image.size) > MAX_PIXELS:
            raise _too_large()
        image.load()
        return image if image.getexif().get(_ORIENTATION) is None else ImageOps.exif_transpose(image)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise _too_large() from None
    except UnidentifiedImageError:  # which tells the address of a buffer
        raise ImageError(f"damaged {kind}", passing=True) from None
    except Exception as error:  # Pillow's parsers raise whatever the bytes lead them to
        raise _damaged(kind, error) from error


def is_image(value) -> bool:
    """Whether this is a ``PIL.Image``; does not import Pillow."""
    return "PIL.Image" in sys.modules and isinstance(value, sys.modules["PIL.Image"].Image)


def as_array(image) -> np.ndarray:
    """The pixels of a ``PIL.Image``, see `rgb`; anything else as the array it is."""
    return rgb(image) if is_image(image) else np.asarray(image)


def rgb(image: PIL.Image.Image) -> np.ndarray:
    """The pixels of an image, uint8 (H, W, 3), which may not be written to; floats stay as they are, (H, W).

    Grey levels are repeated, palettes looked up, CMYK converted, and of 16 bits the upper 8 taken. What is transparent is
    laid over black, as the JPEGs that a service gives of the same sky show what lies outside of a survey.
    """
    from PIL import Image

    if image.mode == "F":
        return np.asarray(image)
    clear = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion cuts off what is above 255
        levels = np.asarray(image)
        grey = np.clip(levels >> 8, 0, 255).astype(np.uint8)
        return np.repeat((grey if clear is None else np.where(levels == clear, np.uint8(0), grey))[..., None], 3, axis=-1)
    if clear is not None or image.mode in ("RGBA", "LA", "PA"):
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
