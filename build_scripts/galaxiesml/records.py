"""From a galaxy's files, five cutouts and perhaps five PSFs, to its columns: frames around the target, and what is measured.

Shapes are measured on the frame with the padding left out. The five cutouts need not be of one tract: each is centred by the
sky of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from skyset.building.cutouts.stamps import SIZE, framed, read_psf, read_stamp
from skyset.errors import RecordError
from skyset.extraction.morphology import measure_cutouts
from skyset.loaders.galaxiesml import BANDS

#: Galaxies that are measured together: fits are made for one band of all of them at once.
TOGETHER = 64
#: What stands in the other planes where a cutout has no pixels: the mask's bit NO_DATA, no weight.
PADS, TYPES = {"mask": 1 << 8, "variance": np.inf}, {"mask": np.int32, "variance": np.float32}


@dataclass(frozen=True)
class Reading:
    """How columns are made of a galaxy's files.

    Args:
        pad: stands in the image where a cutout has no pixels.
        centring: see `stamps.framed`.
        planes: of mask and variance, those that become columns too.
        psf: PSFs too; they are what profiles are fitted with, instead of the median seeing.
        sersic: fit profiles.
    """

    pad: float = 0.0
    centring: str = "wcs"
    planes: tuple[str, ...] = ()
    psf: bool = False
    sersic: bool = True

    def to_json(self) -> dict:
        """As it is kept in the manifest."""
        return asdict(self) | {"pad": str(self.pad), "planes": list(self.planes)}


def read_galaxies(
    objects: Sequence[tuple[Mapping, Mapping[str, bytes]]], reading: Reading
) -> Iterator[dict[str, np.ndarray] | RecordError]:
    """Columns of some galaxies, in their order, or why one has none.

    Args:
        objects: of each its row, with ``ra`` and ``dec`` in degrees, and its files: ``g.fits`` to ``y.fits``, and
            ``g.psf.fits`` to ``y.psf.fits`` where they are wanted.
        reading: how.

    Yields:
        ``image``, ``{b}_n_padded`` and what is measured, by column; with planes and PSFs where they are wanted.
    """
    found: list[tuple[dict, np.ndarray] | RecordError] = []
    for row, members in objects:
        try:
            found.append(_frames(row, members, reading))
        except RecordError as error:
            found.append(error)
    measured = iter(_measured([each for each in found if not isinstance(each, RecordError)], reading))
    for each in found:
        if isinstance(each, RecordError):
            yield each
        else:
            shapes = next(measured)
            yield shapes if isinstance(shapes, RecordError) else each[0] | shapes


def read_galaxy(row: Mapping, members: Mapping[str, bytes], reading: Reading) -> dict[str, np.ndarray]:
    """`read_galaxies` of one; RecordError where it has no columns."""
    (found,) = read_galaxies([(row, members)], reading)
    if isinstance(found, RecordError):
        raise found
    return found


def _frames(row: Mapping, members: Mapping[str, bytes], reading: Reading) -> tuple[dict, np.ndarray]:
    """The columns of pixels, and the image with NaN where there are no pixels, which is measured."""
    ra, dec, how = row["ra"], row["dec"], reading.centring
    files = {f"{band}.fits": band for band in BANDS}
    if strange := members.keys() - files - {f"{band}.psf.fits" for band in BANDS}:
        raise RecordError(f"{min(strange)} is among its files, which is no band's image")
    if missing := [band for name, band in files.items() if name not in members]:
        raise RecordError(f"no image in {', '.join(missing)}")
    image, bare = np.empty((2, len(BANDS), SIZE, SIZE), np.float32)
    values: dict[str, np.ndarray] = {"image": image}
    values |= {plane: np.empty(image.shape, TYPES[plane]) for plane in reading.planes}
    for place, (name, band) in enumerate(files.items()):
        try:
            stamp = read_stamp(members[name], band)
            bare[place], n_padded = framed(stamp, ra, dec, pad=np.nan, centring=how)
            image[place], _ = framed(stamp, ra, dec, pad=reading.pad, centring=how)
            for plane in reading.planes:
                values[plane][place], _ = framed(stamp, ra, dec, pad=PADS[plane], plane=plane, centring=how)
        except RecordError as error:
            raise RecordError(f"{name}: {error}") from error
        values[f"{band}_n_padded"] = np.array(n_padded, np.int32)
    if reading.psf:
        values["psf"] = np.stack([_psf(members, band) for band in BANDS])
    return values, bare


def _psf(members: Mapping[str, bytes], band: str) -> np.ndarray:
    name = f"{band}.psf.fits"
    if name not in members:
        raise RecordError(f"no PSF in {band}")
    try:
        return read_psf(members[name])
    except RecordError as error:
        raise RecordError(f"{name}: {error}") from error


def _measured(frames: Sequence[tuple[dict, np.ndarray]], reading: Reading) -> list[dict[str, np.ndarray] | RecordError]:
    """What is measured of each galaxy, by column."""
    if not frames:
        return []
    images, psfs = np.stack([bare for _, bare in frames]), None
    if reading.psf:
        psfs = np.stack([values["psf"] for values, _ in frames])
    try:
        found = measure_cutouts(images, BANDS, psfs, sersic=reading.sersic, fitted=True)
    except ValueError as error:  # of a PSF that is none
        if len(frames) == 1:
            return [RecordError(f"its PSFs cannot be used: {error}")]
        return [one for each in frames for one in _measured([each], reading)]
    return [{name: column[number] for name, column in found.items()} for number in range(len(frames))]
