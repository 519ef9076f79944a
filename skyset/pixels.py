"""What image files are, and their pixels: which kind of file, whether it is whole, its values as arrays."""

from __future__ import annotations

import io
import json
import math
import sys
from typing import TYPE_CHECKING

import numpy as np

from skyset.errors import SkysetError
from skyset.messages import plain

if TYPE_CHECKING:
    import PIL.Image

#: What the bytes may be. Pillow reads much more, some of it by starting other programs.
FORMATS = ("JPEG", "PNG")
#: An image of more pixels is refused before it is unpacked.
MAX_PIXELS = 1 << 26
#: How images are handed out.
PIL_IMAGE, ARRAY, UNDECODED = "pil", "array", "undecoded"
_ORIENTATION = 0x0112

LARGEST_IMAGE = 50_000_000  # pixels: the service refuses more, and a few bytes can claim more than the memory holds

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
        jpg, png: (height, width, 3) uint8; grey levels and palettes become RGB, 16 bits 8, transparent parts black,
        as JPEGs of the same service show them. fits: native float32, (height, width) or (height, width, 3) of a cube
        of three planes; BSCALE and BZERO are applied, BLANK is NaN.

    Raises:
        ImageError: it is no such image, or damaged.
    """
    _check_kind(data, kind)
    if kind == "fits":
        return _fits_pixels(data)
    return np.array(_rgb(_opened(data, kind)))


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
        image = _opened(data, kind)
        _check_size(*image.size, width, height)
        blank = all(high - low <= BLANK_RANGE for low, high in _rgb(image).getextrema())
    if blank:
        raise ImageError("the image is blank", passing=False)


def _check_kind(data: bytes, kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"no such kind of image: {kind!r} (known: {', '.join(KINDS)})")
    found = next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)
    if found == KINDS[kind]:
        return
    what = f"{found}, not {KINDS[kind]}" if found else _not_an_image(data)
    raise ImageError(f"the answer is {what}", passing=True)


def _not_an_image(data: bytes) -> str:
    text = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text:
        return "empty"
    if text.lower().startswith((b"<!doctype html", b"<html")):
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


def _opened(data: bytes, kind: str):
    """The Pillow image, its pixels not decoded yet; the end of the file must be there."""
    from PIL import Image

    end = b"\xff\xd9" if kind == "jpg" else b"IEND\xaeB`\x82"
    if not data.rstrip(b"\0\r\n ").endswith(end):
        raise ImageError(f"truncated {KINDS[kind]}", passing=True)
    try:
        image = Image.open(io.BytesIO(data), formats=(KINDS[kind],))
    except Image.DecompressionBombError:
        raise ImageError(f"an image of more than {LARGEST_IMAGE:,} pixels", passing=False) from None
    except Exception as error:  # Pillow's parsers raise whatever the bytes lead them to
        raise _damaged(kind, error) from error
    if math.prod(image.size) > LARGEST_IMAGE:
        raise ImageError(f"an image of more than {LARGEST_IMAGE:,} pixels", passing=False)
    return image


def _rgb(image):
    """Decoded, as RGB."""
    from PIL import Image

    kind = "jpg" if image.format == "JPEG" else "png"
    try:
        if image.mode.startswith("I"):
            levels = np.asarray(image).astype(np.uint16) >> 8
            return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # as above
        raise _damaged(kind, error) from error


def _damaged(kind: str, error: Exception) -> ImageError:
    return ImageError(f"damaged {KINDS[kind]}: {str(error) or type(error).__name__}"[:200], passing=True)


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
        raise _damaged("fits", error) from error
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 3) or min(shape) < 1:
        raise ImageError(f"FITS with axes {shape}, not an image or three", passing=False)
    if math.prod(shape) > LARGEST_IMAGE:
        raise ImageError(f"an image of more than {LARGEST_IMAGE:,} pixels", passing=False)
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


def decoded_image(data: np.ndarray, mode: str | None = None) -> PIL.Image.Image:
    """The image that bytes encode, upright, as ``datasets.Image`` gives it.

    Raises:
        ValueError: it has too many pixels. On damaged bytes Pillow raises nearly anything.
    """
    from PIL import Image
    from PIL import ImageOps

    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}: refused")
    image.load()
    if image.getexif().get(_ORIENTATION) is not None:
        image = ImageOps.exif_transpose(image)
    return image if mode in (None, image.mode) else image.convert(mode)


def why_unreadable(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"no {' or '.join(FORMATS)} image"  # Pillow tells the address of its buffer
    return " ".join(str(error).split())[:200] or type(error).__name__


def is_image(value) -> bool:
    """Whether this is a ``PIL.Image``; does not import Pillow."""
    return "PIL.Image" in sys.modules and isinstance(value, sys.modules["PIL.Image"].Image)


def rgb(image: PIL.Image.Image) -> np.ndarray:
    """The pixels of an image, uint8 (H, W, 3), as the module says; floats stay as they are, (H, W)."""
    if image.mode == "F":
        return np.asarray(image)
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion cuts off what is above 255
        grey = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns otherwise
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
