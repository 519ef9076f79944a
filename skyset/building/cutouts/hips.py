"""Images cut out of a HiPS by hips2fits, one request per object, to the size of the object."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyset.archives.hips import FORMATS, MIRROR, SERVICE, field_of_view, hips2fits_url
from skyset.archives.image_pool import ImagePool, ImageRequest
from skyset.building.cutouts.declaration import Answer
from skyset.errors import RecordError
from skyset.pixels import ImageError, check_image, decode

LARGEST_ANSWER = 8 << 20  # bytes


@dataclass(frozen=True)
class HipsImages:
    """An image source: see `declaration.ImageSource`.

    Args:
        services: address of hips2fits, and of its mirror.
        radius: the column of the objects' radii, arcsec.
        hips: the HiPS.
        width, height: pixels.
        margin: the longer side is ``2 x radius x (1 + margin)``.
        format: one of `FORMATS`.
        connections: requests at a time.
        rate: requests per second at most; None: as many as come back.
    """

    services: tuple[str, ...]
    radius: str
    hips: str
    width: int
    height: int
    margin: float
    format: str = "jpg"
    connections: int = 8
    rate: float | None = None

    @classmethod
    def asked(cls, asked: argparse.Namespace, radius: str) -> HipsImages:
        """As asked for on the command line (``options.add_hips_options``)."""
        mirror = asked.hips_mirror or (MIRROR if asked.hips_url == SERVICE else None)
        services = (asked.hips_url, mirror) if mirror else (asked.hips_url,)
        return cls(
            services,
            radius,
            asked.hips,
            asked.width,
            asked.height,
            asked.margin,
            asked.format,
            asked.max_connections,
            asked.rate,
        )

    @property
    def address(self) -> str:
        return self.services[0]

    @property
    def settings(self) -> dict:
        return {name: getattr(self, name) for name in ("hips", "width", "height", "margin", "format")}

    def describe(self, row: Mapping) -> dict:
        """``fov`` and ``pixel_scale`` in degrees, and the HiPS."""
        fov = field_of_view(row[self.radius], self.margin)
        return {"fov": fov, "pixel_scale": fov / max(self.width, self.height), "hips": self.hips}

    def answers(self, wanted: Iterable[tuple[str, Mapping]], folder: Path) -> Generator[Answer, None, None]:
        """See `declaration.ImageSource`."""
        check = functools.partial(check_image, kind=self.format, width=self.width, height=self.height)
        largest = LARGEST_ANSWER + 16 * self.width * self.height  # three planes of float32, and a header
        pool = ImagePool(self.connections, rate=self.rate, check=check, max_bytes=largest)
        requests = (ImageRequest(key, tuple(self._url(service, row) for service in self.services)) for key, row in wanted)
        with contextlib.closing(pool.run(requests)) as answers:
            for answer in answers:
                members = None if answer.data is None else {self.format: answer.data}
                yield Answer(answer.key, members, answer.status, answer.tries, answer.url, answer.reason)

    def _url(self, service: str, row: Mapping) -> str:
        fov = field_of_view(row[self.radius], self.margin)
        return hips2fits_url(service, self.hips, row["ra"], row["dec"], fov, self.width, self.height, self.format)


def read_image(members: Mapping[str, bytes]) -> np.ndarray:
    """The pixels of an object's image: see `pixels.decode`.

    Raises:
        RecordError: there is none, or it is damaged.
    """
    kind = next((kind for kind in members if kind in FORMATS), None)
    if kind is None:
        raise RecordError(f"no image among {', '.join(members) or 'its members'}")
    try:
        return decode(members[kind], kind)
    except ImageError as error:
        raise RecordError(str(error)) from error
