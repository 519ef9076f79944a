"""The cutout service (DAS) and the PSF picker of Hyper Suprime-Cam's archive: addresses, limits, and what they are asked.

    request = cutouts(HOST, positions, "i", Cut("pdr2_wide", sw=10 / 3600, sh=10 / 3600))

A list has a header and a line an object; `list_client` asks it. What angles mean and which columns there are says the DAS
Cutout manual; the limits are those of PDR2, and of the official clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HOST = "https://hsc-release.mtk.nao.ac.jp"
CUTOUT, PSF = "/das_cutout/pdr2/cgi-bin/cutout", "/psf/pdr2/cgi/getpsf?bulk=on"
RERUNS = (
    "any",
    "pdr2_dud",
    "pdr2_wide",
    *(f"pdr2_cosmos_wide_depth_{seeing}" for seeing in ("best", "median", "worst")),
)
TYPES = ("coadd", "coadd/bg")
PLANES = ("image", "mask", "variance")
IMAGES = 990  # of a request: lines times planes
STREAMS = 2  # requests at a time
PIXEL = 0.168  # arcsec
_LARGEST_PSF = 4 << 20  # bytes


@dataclass(frozen=True)
class Cut:
    """How cutouts are made: ``sw``, ``sh`` are half of their width and height in degrees."""

    rerun: str
    sw: float
    sh: float
    planes: tuple[str, ...] = ("image",)
    type: str = "coadd"

    @property
    def largest(self) -> int:
        """Bytes that no cutout exceeds."""
        pixels = (2 * self.sw * 3600 / PIXEL + 8) * (2 * self.sh * 3600 / PIXEL + 8)
        return int(pixels * 4 * len(self.planes)) + (1 << 18)


@dataclass(frozen=True)
class ListRequest:
    """A list of one band.

    Args:
        service: ``cutout`` or ``psf``.
        url: of the service.
        band: of all lines.
        header: the names of its columns.
        lines: its lines; a *row* is the number of one, from 0.
        largest: bytes of a member, at most.
    """

    service: str
    url: str
    band: str
    header: str
    lines: tuple[str, ...]
    largest: int

    def text(self, rows: Sequence[int]) -> str:
        """The list of some rows."""
        return "".join(f"{line}\n" for line in (self.header, *(self.lines[row] for row in rows)))


def cutouts(host: str, positions: Sequence[tuple[float, float]], band: str, cut: Cut) -> ListRequest:
    """A list of cutouts.

    Args:
        host: address of the archive.
        positions: right ascension and declination, ICRS degrees.
        band: one of g, r, i, z, y.
        cut: how they are made.

    Raises:
        ValueError: they are more images than a request may ask for.
    """
    if len(positions) * len(cut.planes) > IMAGES:
        raise ValueError(f"{len(positions)} x {len(cut.planes)} images, more than {IMAGES}")
    header, more = "#? rerun filter ra dec sw sh image mask variance", ""
    if cut.type != TYPES[0]:
        header, more = f"{header} type", f" {cut.type}"
    planes = " ".join("true" if plane in cut.planes else "false" for plane in PLANES)
    size = f"{cut.sw:.16e}deg {cut.sh:.16e}deg {planes}{more}"
    lines = tuple(f"{cut.rerun} HSC-{band.upper()} {ra:.16e}deg {dec:.16e}deg {size}" for ra, dec in positions)
    return ListRequest("cutout", host.rstrip("/") + CUTOUT, band, header, lines, cut.largest)


def psfs(host: str, positions: Sequence[tuple[float, float]], band: str, cut: Cut) -> ListRequest:
    """A list of PSFs, as `cutouts`."""
    if len(positions) > IMAGES:
        raise ValueError(f"{len(positions)} PSFs, more than {IMAGES}")
    start = f"{cut.rerun} {cut.type} HSC-{band.upper()} auto auto"
    lines = tuple(f"{start} {ra:.16e}deg {dec:.16e}deg true" for ra, dec in positions)
    header = "#? rerun type filter tract patch ra dec centered"
    return ListRequest("psf", host.rstrip("/") + PSF, band, header, lines, _LARGEST_PSF)
