"""Step 2 of MegaCam's image quality: an exposure as one frame a CCD, trimmed, without bias level, all of one sense.

    for frame in frames("979412o.fits.fz"):
        frame.ccd, frame.pixels, frame.bad, frame.gain, frame.header

Files: ``.fits``, ``.fits.fz``, ``.fits.gz``, raw (``o``) or processed (``p``), of 36 or 40 CCDs, of 72 or 80 amplifiers,
of one CCD, or a cutout of one. What is done to the pixels is in `detector`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from skyset.build_scripts.megacam_iqa import detector, geometry
from skyset.build_scripts.megacam_iqa.detector import Frame
from skyset.build_scripts.megacam_iqa.exposures import SEEING, Exposure, exposure, reason
from skyset.errors import RecordError, UserError
from skyset.extraction import images

__all__ = ["SEEING", "Ccd", "Exposure", "Frame", "ccds", "exposure", "frames"]


@dataclass(frozen=True, eq=False)
class Ccd:
    """One CCD of a file whose pixels are not read yet, for this process or another: ``parts`` is its image, or those of its
    amplifiers A and B."""

    number: int
    parts: tuple[images.Image, ...]

    @property
    def header(self) -> fits.Header:
        return self.parts[0].header

    def frame(self, pixels: list[np.ndarray] | None = None) -> Frame:
        """The CCD's frame; ``pixels``: of its parts, as stored, where they were read already.

        Raises:
            RecordError: the file is damaged or cut short; file and CCD are named.
        """
        try:
            stored = [part.pixels() for part in self.parts] if pixels is None else pixels
            return detector.frame(self.number, [(a, part.header) for a, part in zip(stored, self.parts, strict=True)])
        except (UserError, ValueError) as error:
            raise RecordError(f"{self.parts[0].path}: ccd{self.number:02d}: {reason(self.parts[0].path, error)}") from None


def ccds(path: str | Path) -> list[Ccd]:
    """The CCDs of a file in its order, by its headers; amplifiers are put together, one without its partner is left out.

    Raises:
        RecordError: as `exposure`, a CCD twice, or an image that is of no CCD of MegaCam; also a file that ends before its
            last CCD does, which is named.
    """
    path = Path(path)
    parts: dict[int, list[tuple[str, images.Image]]] = {}
    try:
        for image in images.contents(path).images:
            number, letter = geometry.identify(image.header)
            parts.setdefault(number, []).append((letter, image))
    except (UserError, ValueError) as error:
        raise RecordError(f"{path}: {reason(path, error)}") from None
    for number, halves in parts.items():
        if len({letter for letter, _ in halves}) < len(halves) or (len(halves) > 1 and not all(a for a, _ in halves)):
            raise RecordError(f"{path}: ccd{number:02d} is there twice")
    if not parts:
        raise RecordError(f"{path}: no image in it")
    whole = {number: sorted(halves, key=_letter) for number, halves in parts.items() if len(halves) == 2 or not halves[0][0]}
    return [Ccd(number, tuple(image for _, image in halves)) for number, halves in whole.items()]


def frames(path: str | Path) -> Iterator[Frame]:
    """The frames of a file, one CCD at a time in its order; a packed file is unpacked once.

    Raises:
        RecordError: as `ccds`, before the first frame, but of a packed file where the fault is: the exposure is not to be
            used then.
    """
    path = Path(path)
    if path.suffix not in (".gz", ".bz2", ".xz", ".zip"):
        yield from (ccd.frame() for ccd in ccds(path))
        return
    waiting: dict[int, tuple[images.Image, np.ndarray]] = {}
    number = -1
    try:
        for image, file in images.walk(path):
            number, letter = geometry.identify(image.header)
            now = image, image.pixels(file)
            if letter and number not in waiting:
                waiting[number] = now
                continue
            both = sorted([now, waiting.pop(number)], key=lambda e: geometry.identify(e[0].header)[1]) if letter else [now]
            yield Ccd(number, tuple(image for image, _ in both)).frame([pixels for _, pixels in both])
    except (UserError, ValueError) as error:
        after = f"after ccd{number:02d}: " if number >= 0 else ""
        raise RecordError(f"{path}: {after}{reason(path, error)}") from None


def _letter(half: tuple[str, images.Image]) -> str:
    return half[0]
