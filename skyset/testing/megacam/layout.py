"""The mosaic: where its CCDs stand, and the sections and the WCS that follow, for CCDs of any size.

North is up and east to the left: 9, 11, 11 and 9 CCDs in four rows; those of the two upper rows are mounted upside down.
Positions are nominal, to some 50 pixels of the real ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: CCD numbers from north to south, each row from east to west.
ROWS = (tuple(range(9)), (36, *range(9, 18), 37), (38, *range(18, 27), 39), tuple(range(27, 36)))
FULL = (4612, 2048)
OVERSCAN = 32  # columns on either side, and rows above
SCALE = 5.194e-5  # degrees a pixel
_PITCH = 2116 / 2048  # from one CCD to the next, in widths
_BOTTOM = (14740, 9707, 5042, 5)  # of the rows on the mosaic, of 4612 pixels each
#: From a CCD's first row to the telescope's pointing, in its own sense, in heights.
_TO_CENTRE = (9626 / 4612, 4622 / 4612, 4622 / 4612, 9626 / 4612)


class Detector(NamedTuple):
    """A CCD of ``shape`` (rows, columns of the sky) on the mosaic: number, row (0 north), place from 0 (east) to 10."""

    ccd: int
    row: int
    place: int
    shape: tuple[int, int]

    @property
    def turned(self) -> bool:
        """Mounted upside down: the file's x runs east, its y south."""
        return self.row < 2

    @property
    def frame(self) -> tuple[int, int]:
        """Rows and columns of the file, with overscan."""
        return self.shape[0] + OVERSCAN, self.shape[1] + 2 * OVERSCAN

    def corner(self) -> tuple[int, int]:
        """The mosaic's column and row of the CCD's south-eastern pixel, from 1."""
        rows, columns = self.shape
        return 1 + round(self.place * columns * _PITCH), 1 + round((_BOTTOM[self.row] - 1) * rows / FULL[0])

    def field(self) -> tuple[np.ndarray, np.ndarray]:
        """Its columns (1, n) and rows (n, 1) on the mosaic, to the west and to the north, from -1 to 1."""
        rows, columns = self.shape
        x, y = self.corner()
        width, height = mosaic(self.shape)
        return (
            ((x + np.arange(columns))[None] / width * 2 - 1).astype(np.float32),
            ((y + np.arange(rows))[:, None] / height * 2 - 1).astype(np.float32),
        )

    def sections(self) -> dict[str, str]:
        """The header's sections, as CFHT's imsplice writes them."""
        rows, columns = self.shape
        half, last = columns // 2, columns + 2 * OVERSCAN
        x, y = self.corner()
        across, up = (x, x + columns - 1), (y, y + rows - 1)
        a, b = (across[0], across[0] + half - 1), (across[1], across[0] + half)  # B reads from the other side
        if self.turned:
            across, up = across[::-1], up[::-1]
            a, b = (across[0], across[0] - half + 1), (across[1], across[0] - half)
        sky, left, right = (OVERSCAN + 1, OVERSCAN + columns), (1, OVERSCAN), (last - OVERSCAN + 1, last)
        middle = OVERSCAN + half
        found = {"CCDSIZE": ((1, columns), (1, rows)), "DETSEC": (across, up), "DETSECA": (a, up), "DETSECB": (b, up)}
        found |= {"DATASEC": (sky, (1, rows)), "ASECA": ((1, middle), (1, rows))}
        found |= {"DSECA": ((sky[0], middle), (1, rows)), "TSECA": ((sky[0], middle), (1, rows))}
        found |= {
            "BSECA": (left, (1, self.frame[0])),
            "CSECA": ((1, half), (1, rows)),
            "ASECB": ((middle + 1, last), (1, rows)),
        }
        found |= {"DSECB": ((middle + 1, sky[1]), (1, rows)), "TSECB": ((middle + 1, sky[1]), (1, rows))}
        found |= {"BSECB": (right, (1, self.frame[0])), "CSECB": ((half + 1, columns), (1, rows))}
        return {key: section(*value) for key, value in found.items()}

    def wcs(self) -> dict[str, float]:
        """CRPIX and CD of the file's frame; CRVAL is the pointing."""
        rows, columns = self.shape
        sense = 1 if self.turned else -1
        centre = (5 - self.place) * columns * 2106 / 2048 + columns / 2
        if self.turned:
            centre = columns + 1 - centre
        return {
            "CRPIX1": round(OVERSCAN + centre, 1),
            "CRPIX2": round(rows * _TO_CENTRE[self.row], 1),
            "CD1_1": sense * SCALE,
            "CD1_2": 0.0,
            "CD2_1": 0.0,
            "CD2_2": -sense * SCALE,
        }


def section(across: tuple[int, int], up: tuple[int, int]) -> str:
    return f"[{across[0]}:{across[1]},{up[0]}:{up[1]}]"


def mosaic(shape: tuple[int, int]) -> tuple[int, int]:
    """Columns and rows of the mosaic of CCDs of ``shape``."""
    return round(23219 * shape[1] / FULL[1]), round(19354 * shape[0] / FULL[0])


def detectors(count: int, shape: tuple[int, int] = FULL) -> list[Detector]:
    """The CCDs of an exposure by number: 36 or 40, or the 4 around the middle of the mosaic.

    Raises:
        ValueError: another count.
    """
    if count not in (4, 36, 40):
        raise ValueError(f"{count} CCDs: MegaCam has 36 or 40, and tests 4")
    found = []
    for row, ccds in enumerate(ROWS):
        found += [Detector(ccd, row, place + (len(ccds) == 9), shape) for place, ccd in enumerate(ccds)]
    wanted = {4: (12, 13, 21, 22)}.get(count, tuple(range(count)))
    return sorted((each for each in found if each.ccd in wanted), key=lambda each: each.ccd)
