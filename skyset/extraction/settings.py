"""How sources are detected and measured: one value a keyword of SExtractor, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: No text file of a configuration is longer.
LONGEST_TEXT = 64 << 20
#: SExtractor's ``default.conv``: the pyramid that a well-sampled star of about two pixels is found best with.
DEFAULT_KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """Parameters of an extraction; the keyword of a ``.sex`` file is named beside each.

    Lengths are pixels unless said otherwise. ValueError names the first value that cannot be meant.
    """

    #: DETECT_THRESH: in units of the background's rms, or counts where ``absolute``.
    threshold: float = 1.5
    #: ANALYSIS_THRESH; None: as ``threshold``.
    analysis_threshold: float | None = None
    #: THRESH_TYPE ABSOLUTE: both thresholds are counts above the background.
    absolute: bool = False
    #: DETECT_MINAREA and DETECT_MAXAREA, pixels (0: no limit).
    minarea: int = 5
    maxarea: int = 0
    #: FILTER_NAME: weights, (rows, columns), odd sides; None: FILTER N. Divided by the sum of their sizes, if not told else.
    kernel: np.ndarray | None = dataclasses.field(default_factory=lambda: DEFAULT_KERNEL)
    normalise_kernel: bool = True
    #: DEBLEND_NTHRESH and DEBLEND_MINCONT.
    deblend_nthresh: int = 32
    deblend_cont: float = 0.005
    #: CLEAN_PARAM; None: CLEAN N.
    clean: float | None = 1.0
    #: MASK_TYPE: ``correct``, ``blank`` or ``none``: what becomes of neighbours' pixels in apertures.
    mask_type: str = "correct"
    #: BACK_SIZE (width, height) and BACK_FILTERSIZE (width, height); one number may be given for both.
    back_size: tuple[int, int] = (64, 64)
    back_filter: tuple[int, int] = (3, 3)
    #: BACK_FILTTHRESH, counts.
    back_filter_threshold: float = 0.0
    #: BACK_TYPE MANUAL with this BACK_VALUE; None: measured.
    back_value: float | None = None
    #: PHOT_APERTURES: diameters.
    apertures: tuple[float, ...] = (5.0,)
    #: PHOT_AUTOPARAMS and PHOT_PETROPARAMS: factor, least radius in units of A_IMAGE.
    kron: tuple[float, float] = (2.5, 3.5)
    petrosian: tuple[float, float] = (2.0, 3.5)
    #: PHOT_AUTOAPERS: least diameters for estimating and measuring.
    least_apertures: tuple[float, float] = (0.0, 0.0)
    #: PHOT_FLUXFRAC.
    fractions: tuple[float, ...] = (0.5,)
    #: SATUR_LEVEL, counts of the image as given.
    saturation: float = 50000.0
    #: GAIN, electrons a count; 0: no photon noise.
    gain: float = 0.0
    #: PIXEL_SCALE, arcsec; 0: from the WCS (1 where there is none, and a warning where CLASS_STAR is wanted).
    pixel_scale: float = 0.0
    #: MAG_ZEROPOINT.
    zero_point: float = 0.0
    #: SEEING_FWHM, arcsec; ``"auto"`` (held as 0): measured from the image's stars (`seeing.stellar_fwhm`); None: not known,
    #: so that SExtractor's 1.2 is taken, with a warning where CLASS_STAR is wanted.
    seeing: float | str | None = None
    #: WEIGHT_TYPE: ``weight`` (relative inverse variance), ``variance`` or ``rms`` (counts).
    weight_type: str = "weight"
    #: WEIGHT_THRESH: pixels with so little weight (or so much noise) are bad; None: 0 (or 1e30).
    weight_threshold: float | None = None
    #: FLAG_TYPE: how flags combine over the isophote: ``or``, ``and``, ``min``, ``max`` or ``most``.
    flag_type: str = "or"
    #: VIGNET(width, height) of a .param file.
    vignet: tuple[int, int] = (35, 35)

    def __post_init__(self) -> None:
        if isinstance(self.seeing, str) and self.seeing.lower() == "auto":
            object.__setattr__(self, "seeing", 0.0)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            try:
                numbers = np.asarray(value, float)
            except (TypeError, ValueError):
                numbers = np.array(np.nan)
            if numbers.ndim != (0 if name not in _SEVERAL else numbers.ndim) or numbers.size == 0:
                raise ValueError(f"{name} is {value}: it is {'at least ' * (name in _SEVERAL)}one number")
            for one in numbers.ravel():
                if not low <= one <= high:
                    raise ValueError(f"{name} is {value}: it must be from {low:g} to {high:g}")
        for name, allowed in _WORDS.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it is one of {', '.join(allowed)}")
        for name in ("back_size", "back_filter", "vignet"):
            value = getattr(self, name)
            pair = (value, value) if np.isscalar(value) else tuple(value)
            if len(pair) != 2 or any(part != int(part) for part in pair):
                raise ValueError(f"{name} is {value}: a whole number, or two: width and height")
            object.__setattr__(self, name, (int(pair[0]), int(pair[1])))
        for name in ("minarea", "maxarea", "deblend_nthresh"):
            if getattr(self, name) != int(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}: it is a whole number")
            object.__setattr__(self, name, int(getattr(self, name)))
        for name in ("absolute", "normalise_kernel"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ValueError(f"{name} is {getattr(self, name)!r}: it is True or False")
        for name in ("kron", "petrosian", "least_apertures"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"{name} is {getattr(self, name)}: it has two values")
        for name in ("apertures", "fractions"):
            object.__setattr__(self, name, tuple(np.atleast_1d(getattr(self, name)).tolist()))
        if 0 < self.pixel_scale < 1e-10:
            raise ValueError(f"pixel_scale is {self.pixel_scale}: it must be 0 (from the WCS) or from 1e-10 to 1e+10")
        if math.prod(self.vignet) > _LARGEST_VIGNET:
            raise ValueError(f"vignet is {self.vignet}: it must have at most {_LARGEST_VIGNET:,} pixels")
        if self.kernel is not None:
            object.__setattr__(self, "kernel", _kernel(self.kernel))

    @property
    def analysis(self) -> float:
        """The analysis threshold, in the units of ``threshold``."""
        return self.threshold if self.analysis_threshold is None else self.analysis_threshold

    @property
    def fwhm(self) -> float:
        """The seeing that is measured with, arcsec; 0: to be measured from the image's stars."""
        return 1.2 if self.seeing is None else float(self.seeing)


_BIG = 1e30
_LARGEST_VIGNET = 1 << 20
_OPTIONAL = ("analysis_threshold", "clean", "back_value", "weight_threshold", "seeing")
_SEVERAL = ("back_size", "back_filter", "apertures", "kron", "petrosian", "least_apertures", "fractions", "vignet")
_RANGES = {
    "threshold": (1e-10, _BIG),
    "analysis_threshold": (1e-10, _BIG),
    "minarea": (1, 1e9),
    "maxarea": (0, 1e9),
    "deblend_nthresh": (1, 64),
    "deblend_cont": (0, 1),
    "clean": (0.1, 10),
    "back_size": (1, 1e9),
    "back_filter": (1, 1001),
    "back_filter_threshold": (0, _BIG),
    "back_value": (-_BIG, _BIG),
    "apertures": (1e-3, 2e6),
    "kron": (0, 1e3),
    "petrosian": (0, 1e3),
    "least_apertures": (0, 1e6),
    "fractions": (1e-6, 1),
    "saturation": (-_BIG, math.inf),
    "gain": (0, _BIG),
    "pixel_scale": (0, 1e10),
    "zero_point": (-100, 100),
    "seeing": (0, 1e10),
    "weight_threshold": (-_BIG, _BIG),
    "vignet": (1, 65535),
}
_WORDS = {
    "mask_type": ("correct", "blank", "none"),
    "weight_type": ("weight", "variance", "rms"),
    "flag_type": ("or", "and", "min", "max", "most"),
}


def _kernel(kernel: np.ndarray) -> np.ndarray:
    weights = np.array(kernel, np.float32)
    if weights.ndim != 2 or not all(side % 2 for side in weights.shape):
        raise ValueError(f"the kernel has shape {weights.shape}: it has two odd sides")
    if not np.isfinite(weights).all() or not np.abs(weights).sum() > 0:
        raise ValueError("the kernel's weights are not finite numbers, or all zero")
    weights.setflags(write=False)
    return weights


def read_lines(path: str | Path, what: str) -> list[str]:
    """The lines of a text file of a configuration, however an editor ended and encoded them: with a byte order mark or
    without, UTF-8, UTF-16 or Latin-1; ended by LF, CR LF or CR.

    Raises UserError where it is no regular file, cannot be read or is larger than any configuration."""
    from skyset.errors import RecordError, UserError
    from skyset.raw import read_regular

    try:
        data = read_regular(path, LONGEST_TEXT)
    except (OSError, ValueError, RecordError) as error:
        raise UserError(f"{path}: cannot be read as {what}: {getattr(error, 'strerror', None) or error}") from None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return re.split(r"\r\n|\r|\n", text)


def read_kernel(path: str | Path) -> np.ndarray:
    """The weights of a ``.conv`` file, float32 (rows, columns), as they stand or over the sum of their sizes (``NORM``).

    Raises UserError where the file is no convolution mask. Source: SExtractor manual, "Filtering".
    """
    from skyset.errors import UserError

    path = Path(path)
    lines = [line for text in read_lines(path, "a .conv file") if (line := text.partition("#")[0].strip())]
    if not lines or not lines[0].upper().startswith("CONV"):
        raise UserError(f"{path}: its first line is not CONV NORM or CONV NONORM, so it is no convolution mask")
    words = lines[0].upper().split()
    if words[1:] not in ([], ["NORM"], ["NONORM"]):
        raise UserError(f"{path}: its first line is {lines[0]}: CONV NORM or CONV NONORM is meant")
    try:
        rows = [[float(word) for word in line.split()] for line in lines[1:]]
        weights = _kernel(np.array(rows, np.float32))
    except ValueError as error:
        raise UserError(f"{path}: no table of weights with odd sides ({error})") from None
    return weights if words[1:] == ["NONORM"] else _kernel(weights / np.abs(weights).sum())
