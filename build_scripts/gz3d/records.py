"""One file of Galaxy Zoo: 3D: a cutout, four masks of volunteers' counts, their WCS, and a table of one row."""

from pathlib import Path

import numpy as np

from skyset import headers
from skyset.errors import RecordError
from skyset.loaders.gz3d import CLASSES, SIZE
from skyset.raw import open_fits
from skyset.values import as_stored

TABLE_HDU = 5
_TEXT = ("mangaid", "iauname", "explorer_link", "sample")
_INTEGERS = ("ifudesignsize", "manga_tileid", "nsa_id")
COUNTS = ("gz_total_classifications", "gz_bar_votes", "gz_spiral_votes")


def vote_fractions(total: int, spiral: int, bar: int) -> list[float]:
    """Fractions for center, star, spiral, bar: -1 where there is no vote to take, -0.5 where nobody classified."""
    if total == 0:
        return [-1.0, -1.0, -0.5, -0.5]
    return [-1.0, -1.0, spiral / total, bar / total]


def read_record(path: Path) -> dict:
    """One GZ3D FITS file as the survey's columns (all but the row's key and cell).

    The tables inside are believed, the file's name is not.

    Raises:
        RecordError: an HDU or a column is missing, pixels have another size, a count does not fit into uint8.
    """
    with open_fits(path) as hdus:
        values = read_table(hdus)
        values["false_color"] = read_image(hdus[0].data)
        for number, name in enumerate(CLASSES, 1):
            values[name] = read_mask(hdus[number].data, f"HDU {number} ({name})")
        values.update(read_wcs(hdus[1].header, hdus[0].header))
    votes = values["gz_spiral_votes"], values["gz_bar_votes"]
    values["vote_fraction"] = np.array(vote_fractions(values["gz_total_classifications"], *votes), np.float32)
    return values | {"object_id": values["mangaid"]}


def read_table(hdus) -> dict:
    """The one-row metadata table; names in any case. Numbers that are missing or NaN become -1, but counts must be there."""
    if len(hdus) <= TABLE_HDU:
        raise RecordError(f"HDU {len(hdus)} is missing: {len(hdus)} HDUs, at least {TABLE_HDU + 1} expected")
    hdu = hdus[TABLE_HDU]
    if getattr(hdu, "columns", None) is None or hdu.data is None or len(hdu.data) != 1:
        raise RecordError(f"HDU {TABLE_HDU} is not a table of one row")
    row = {name.lower(): hdu.data[name][0] for name in hdu.columns.names}
    needed = ("ra", "dec", "mangaid", *COUNTS)
    if missing := [name for name in needed if name not in row]:
        raise RecordError(f"HDU {TABLE_HDU} has no column {', '.join(missing)}")
    values = {name: str(row.get(name, "")).strip() for name in _TEXT}
    values.update({name: _integer(row.get(name, -1)) for name in _INTEGERS})
    for name in COUNTS:
        values[name] = _integer(row[name])
        if values[name] < 0:
            raise RecordError(f"HDU {TABLE_HDU}: {name} is {row[name]}")
    return values | {"ra": np.float32(row["ra"]), "dec": np.float32(row["dec"])}


def _integer(value) -> int:
    return int(value) if np.isfinite(value) else -1


def read_image(data: np.ndarray | None) -> np.ndarray:
    """The cutout as uint8 (SIZE, SIZE, 3), from channels last or channels first."""
    shape = None if data is None else data.shape
    if shape == (3, SIZE, SIZE):
        data = np.moveaxis(data, 0, 2)
    elif shape != (SIZE, SIZE, 3):
        raise RecordError(f"HDU 0 (image) has shape {shape}, not {(SIZE, SIZE, 3)} or {(3, SIZE, SIZE)}")
    return as_stored("HDU 0 (image)", data, np.dtype(np.uint8))


def read_mask(data: np.ndarray | None, where: str) -> np.ndarray:
    """A mask of volunteers' counts as uint8 (SIZE, SIZE)."""
    shape = None if data is None else data.shape
    if shape != (SIZE, SIZE):
        raise RecordError(f"{where} has shape {shape}, not {(SIZE, SIZE)}")
    return as_stored(where, data, np.dtype(np.uint8))


def read_wcs(*hdu_headers) -> dict:
    """Columns wcs_* and scale (degrees per pixel) of the first header that has a celestial WCS."""
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    for header in hdu_headers:
        if "CTYPE1" in header:
            made = headers.sky(header)
            if made is None:
                raise RecordError("a number of the WCS is none")
            wcs = WCS(made, naxis=2)
            return {
                "wcs_crpix": np.array(wcs.wcs.crpix),
                "wcs_crval": np.array(wcs.wcs.crval),
                "wcs_cd": np.array(wcs.pixel_scale_matrix),
                "scale": float(proj_plane_pixel_scales(wcs).mean()),
            }
    raise RecordError("neither HDU 1 nor HDU 0 has a WCS")
