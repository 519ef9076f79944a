"""Made-up Galaxy Zoo: 3D files in the layout of SDSS DR17 (env/MANGA_MORPHOLOGY/galaxyzoo3d/v4_0_0).

A `Galaxy` holds the drawn properties; pixels, masks and tables all follow from it, so the same seed gives
the same bytes. Array rows run from north to south and columns from east to west, as in the real cutouts.

===  ======================  =================================================================================
HDU  content                 what is in it
===  ======================  =================================================================================
0    (525, 525, 3) uint8     the picture the volunteers saw, or (3, 525, 525); 0.099 arcsec per pixel
1    (525, 525) float64      galaxy centres: 2-sigma ellipse of the clicks, value = clicks in the cluster
2    (525, 525) float64      foreground stars, in the same way
3    (525, 525) float64      spiral arms: volunteers who drew around this pixel, 0 to 15
4    (525, 525) float64      bar, in the same way
5    table, 1 row            position, names, IFU size and vote counts
6    table, 0 or more rows   clusters of centre clicks, in pixels and degrees
7    table, 0 or more rows   clusters of star clicks
8-10 tables (optional)       raw classifications: points, spiral paths, bar paths, as JSON
===  ======================  =================================================================================
"""

import hashlib
import io
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from skyset.testing.stamps import stamp

SIZE = 525  # pixels on a side
PIXEL_SCALE = 0.099  # arcsec
CENTRE = SIZE / 2  # FITS pixel (1-based) of the galaxy, both axes
MAX_DRAWERS = 15  # volunteers who outlined one galaxy
IFU_DIAMETER = {19: 12.0, 37: 17.0, 61: 22.0, 91: 27.0, 127: 32.0}  # fibres: arcsec
METADATA_NAME = "gz3d_metadata.fits"
CHECKSUMS_NAME = "manga_morphology_galaxyzoo3d_v4_0_0.sha1sum"

CLUSTER_COLUMNS = ("x", "y", "var_x", "var_y", "var_x_y", "ra", "dec", "var_ra", "var_dec", "var_ra_dec", "count")

OLD_STARS = np.array([1.28, 1.0, 0.68], np.float32)  # red, green, blue of bulge and bar
DISC_STARS = np.array([1.08, 1.0, 0.90], np.float32)
YOUNG_STARS = np.array([0.84, 0.96, 1.22], np.float32)  # arms


@dataclass(frozen=True)
class Star:
    """A foreground star: FITS pixel, peak in units of the stretch, and colour (0 blue to 1 red)."""

    x: float
    y: float
    peak: float
    colour: float


@dataclass(frozen=True)
class Galaxy:
    """Everything that decides how one galaxy looks and what the volunteers said.

    `ra` and `dec` are degrees, exact in float32 as the archive stores them; `position_angle`, `bar_angle`,
    `arm_phase` and `arm_pitch` are radians; lengths are arcsec in the plane of the disc. `arms` and
    `bar_length` are 0 where there is none, `disc` is False for a smooth, elliptical galaxy.
    """

    mangaid: str
    ifu: int
    subject_id: int
    tile: int
    nsa_id: int
    ra: float
    dec: float
    sample: str
    observed: bool
    total_classifications: int
    spiral_votes: int
    bar_votes: int
    disc: bool
    scale_length: float
    axis_ratio: float
    position_angle: float
    brightness: float
    bulge_fraction: float
    arms: int
    arm_pitch: float
    arm_phase: float
    arm_contrast: float
    bar_length: float
    bar_angle: float
    stars: tuple[Star, ...]
    noise_seed: int

    @property
    def name(self) -> str:
        """File name without prefix and without ``.gz``: MANGAID_IFUDESIGNSIZE_SUBJECTID.fits."""
        return f"{self.mangaid}_{self.ifu}_{self.subject_id}.fits"

    @property
    def iauname(self) -> str:
        """``JHHMMSS.ss+DDMMSS.s``, truncated as the IAU wants it."""
        centiseconds = math.floor(self.ra / 15 * 360_000)
        deciseconds = math.floor(abs(self.dec) * 36_000)
        hours, minutes, seconds = (
            centiseconds // 360_000,
            centiseconds // 6_000 % 60,
            centiseconds % 6_000 / 100,
        )
        degrees, arcmin, arcsec = deciseconds // 36_000, deciseconds // 600 % 60, deciseconds % 600 / 10
        sign = "-" if self.dec < 0 else "+"
        return f"J{hours:02d}{minutes:02d}{seconds:05.2f}{sign}{degrees:02d}{arcmin:02d}{arcsec:04.1f}"

    @property
    def arm_drawers(self) -> int:
        """Volunteers who outlined the arms: the peak of the spiral mask."""
        return min(MAX_DRAWERS, self.spiral_votes) if self.arms else 0

    @property
    def bar_drawers(self) -> int:
        """Volunteers who outlined the bar: the peak of the bar mask."""
        return min(MAX_DRAWERS, self.bar_votes) if self.bar_length else 0

    @property
    def clickers(self) -> int:
        """Volunteers who clicked on centre and stars."""
        return min(MAX_DRAWERS, self.total_classifications)


def draw_galaxy(seed: int = 0, index: int = 0) -> Galaxy:
    """Draw galaxy number `index` of the sample `seed`; names differ for every index below 500,000.

    Number 0 of sample 0 is MANGAID 1-106630 (subject 14715787, 127 fibres), a barred spiral with two arms.
    """
    rng = np.random.default_rng([seed, index])
    disc = rng.random() < 0.78
    ifu = int(rng.choice(list(IFU_DIAMETER), p=[0.1, 0.15, 0.2, 0.2, 0.35]))
    axis_ratio = rng.uniform(0.3, 1.0) if disc else rng.uniform(0.6, 1.0)
    arms = int(rng.choice([0, 2, 3], p=[0.2, 0.55, 0.25])) if disc else 0
    scale_length = IFU_DIAMETER[ifu] / 5 * rng.uniform(0.8, 1.2)
    bar_length = scale_length * rng.uniform(0.5, 1.0) if disc and rng.random() < 0.4 else 0.0
    total = _draw_total(rng)
    ra, dec = _draw_position(rng)
    galaxy = Galaxy(
        mangaid=f"1-{100_000 + (6_630 + 7_919 * index + 31 * seed) % 500_000}",
        ifu=ifu,
        subject_id=14_715_787 + 3 * index + 1_000_000 * seed,
        tile=int(rng.integers(1, 9_000)),
        nsa_id=int(rng.integers(1, 640_000)),
        ra=ra,
        dec=dec,
        sample=str(rng.choice(["MaNGA Primary", "MaNGA Secondary", "MaNGA Color-Enhanced"])),
        observed=bool(rng.random() < 0.35),
        total_classifications=total,
        spiral_votes=int(rng.binomial(total, 0.75 if arms else 0.03)),
        bar_votes=int(rng.binomial(total, 0.65 if bar_length else 0.03)),
        disc=bool(disc),
        scale_length=float(scale_length),
        axis_ratio=float(axis_ratio),
        position_angle=float(rng.uniform(0, np.pi)),
        brightness=float(rng.uniform(1.4, 3.0)),
        bulge_fraction=float(rng.uniform(0.1, 0.5)),
        arms=arms,
        arm_pitch=float(np.radians(rng.uniform(13, 26)) * rng.choice([-1, 1])),
        arm_phase=float(rng.uniform(0, 2 * np.pi)),
        arm_contrast=float(rng.uniform(0.8, 1.6)),
        bar_length=float(bar_length),
        bar_angle=float(rng.uniform(0, np.pi)),
        stars=_draw_stars(rng),
        noise_seed=int(rng.integers(2**31)),
    )
    return _first_of_archive(galaxy) if (seed, index) == (0, 0) else galaxy


def _first_of_archive(galaxy: Galaxy) -> Galaxy:
    """Give the first galaxy the identity of a real file, and every feature that a reader wants to see."""
    return replace(
        galaxy,
        mangaid="1-106630",
        subject_id=14_715_787,
        ifu=127,
        disc=True,
        scale_length=6.2,
        axis_ratio=0.72,
        position_angle=0.6,
        brightness=2.2,
        bulge_fraction=0.25,
        arms=2,
        arm_pitch=0.33,
        arm_contrast=1.3,
        bar_length=5.0,
        bar_angle=0.9,
        total_classifications=47,
        spiral_votes=41,
        bar_votes=29,
        stars=(Star(398.0, 96.0, 2.5, 0.3), Star(91.0, 371.0, 0.8, 0.8)),
    )


def _draw_total(rng: np.random.Generator) -> int:
    """Classifications of one galaxy: about 48, for some a handful, for some none."""
    fate = rng.random()
    if fate < 0.05:
        return 0
    if fate < 0.15:
        return int(rng.integers(1, 6))
    return int(np.clip(rng.normal(48, 12), 15, 90))


def _draw_stars(rng: np.random.Generator) -> tuple[Star, ...]:
    """Foreground stars, kept off the galaxy's middle so that their clicks stay a cluster of their own."""
    found = []
    for x, y in rng.uniform(25, SIZE - 25, (rng.poisson(1.6), 2)):
        if math.hypot(x - CENTRE, y - CENTRE) > 90:
            found.append(Star(float(x), float(y), float(rng.lognormal(0, 0.8)), float(rng.random())))
    return tuple(found)


def _draw_position(rng: np.random.Generator) -> tuple[float, float]:
    """A place uniform on the sky between ra 115 and 255, dec -5 and 60 deg, rounded to float32."""
    ra = rng.uniform(115, 255)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(-5)), np.sin(np.radians(60)))))
    return float(np.float32(ra)), float(np.float32(dec))


def _draw_cell_centre(rng: np.random.Generator, nside: int = 16) -> tuple[float, float]:
    """The centre (ra, dec in deg) of a HEALPix cell of the equatorial belt, from the closed formula there."""
    ring = int(rng.integers(nside + 6, 2 * nside))
    column = int(rng.integers(22, 44))
    ra = 90 / nside * (column - (ring - nside + 1) % 2 / 2)
    return ra, math.degrees(math.asin(4 / 3 - 2 * ring / (3 * nside)))


# --- where things are ---------------------------------------------------------------------------------------


def _disc_plane(galaxy: Galaxy) -> tuple[np.ndarray, np.ndarray]:
    """Radius (arcsec) and azimuth (rad) in the plane of the disc of every pixel: two (525, 525) float32."""
    offset = ((np.arange(SIZE) + 1 - CENTRE) * PIXEL_SCALE).astype(np.float32)
    x, y = offset[np.newaxis, :], offset[:, np.newaxis]
    cos, sin = math.cos(galaxy.position_angle), math.sin(galaxy.position_angle)
    along = x * cos + y * sin
    across = (y * cos - x * sin) / galaxy.axis_ratio
    return np.sqrt(along**2 + across**2), np.arctan2(across, along)


def _arm_limits(galaxy: Galaxy) -> tuple[float, float]:
    """Where the arms begin and end, arcsec from the centre: at the bar's ends if there is a bar."""
    return max(0.5 * galaxy.scale_length, 0.9 * galaxy.bar_length), 2.9 * galaxy.scale_length


def _arm_azimuth(galaxy: Galaxy, radius: np.ndarray) -> np.ndarray:
    """Azimuth (rad) of the first arm's ridge at each radius (arcsec): a logarithmic spiral."""
    start = _arm_limits(galaxy)[0]
    phase = galaxy.bar_angle if galaxy.bar_length else galaxy.arm_phase
    return phase + np.log(radius / start) / math.tan(galaxy.arm_pitch)


def _arm_distance(galaxy: Galaxy, radius: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """Distance (arcsec, in the plane) from the nearest arm's ridge or end, (525, 525) float32."""
    begin, end = _arm_limits(galaxy)
    turn = np.float32(2 * np.pi / galaxy.arms)
    within = np.clip(radius, begin, end)
    angle = azimuth - _arm_azimuth(galaxy, within)
    angle -= turn * np.round(angle / turn)
    sideways = within * np.abs(angle) * abs(math.sin(galaxy.arm_pitch))
    return np.hypot(sideways, radius - within)


def _arm_half_width(galaxy: Galaxy) -> float:
    """Half the width (arcsec) of an arm as it is drawn and as the boldest volunteer outlines it."""
    return 0.36 * galaxy.scale_length


def _bar_distance(galaxy: Galaxy, radius: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """Elliptical radius of the bar: 1 where it ends, (525, 525) float32."""
    angle = azimuth - np.float32(galaxy.bar_angle)
    along = radius * np.cos(angle) / galaxy.bar_length
    across = radius * np.sin(angle) / (0.3 * galaxy.bar_length)
    return np.sqrt(along**2 + across**2)


# --- the picture --------------------------------------------------------------------------------------------


def picture(galaxy: Galaxy) -> np.ndarray:
    """The colour cutout, (525, 525, 3) uint8: light of bulge, disc, arms, bar and stars on a noisy sky."""
    rng = np.random.default_rng(galaxy.noise_seed)
    flux = _sky(rng)
    _add_galaxy(flux, galaxy, rng)
    for star in galaxy.stars:
        _add_star(flux, star)
    return stamp(_stretch(flux, rng))


def _add_galaxy(flux: np.ndarray, galaxy: Galaxy, rng: np.random.Generator) -> None:
    """Add the galaxy's light to `flux`, (3, 525, 525) float32, in place."""
    radius, azimuth = _disc_plane(galaxy)
    old, disc, young = _components(galaxy, radius, azimuth, rng)
    for channel, parts in enumerate(zip(OLD_STARS, DISC_STARS, YOUNG_STARS, strict=True)):
        for light, colour in zip((old, disc, young), parts, strict=True):
            if light is not None:
                flux[channel] += light * colour


def _components(galaxy: Galaxy, radius: np.ndarray, azimuth: np.ndarray, rng: np.random.Generator):
    """Light of old stars, disc and young stars: (525, 525) float32 each, None where there is none."""
    seeing = np.float32(0.6)
    reff = galaxy.scale_length * (0.15 + 0.4 * galaxy.bulge_fraction if galaxy.disc else 0.4)
    share = galaxy.bulge_fraction if galaxy.disc else 1.0
    old = np.exp(-2.6 * np.sqrt(np.hypot(radius, seeing) / np.float32(reff)))
    old *= np.float32(30 * galaxy.brightness * share)
    if not galaxy.disc:
        return old, None, None
    disc = np.float32(1.5 * galaxy.brightness) * np.exp(-radius / np.float32(galaxy.scale_length))
    if galaxy.bar_length:
        bar = _bar_distance(galaxy, radius, azimuth)
        old += np.float32(galaxy.brightness) * np.exp(-2.2 * bar * bar)
    if not galaxy.arms:
        return old, disc, None
    distance = _arm_distance(galaxy, radius, azimuth) / np.float32(_arm_half_width(galaxy))
    young = np.exp(-1.6 * distance * distance)
    young *= disc * np.float32(galaxy.arm_contrast)
    young *= _clumps(rng)
    return old, disc, young


def _add_star(flux: np.ndarray, star: Star, reach: int = 60, core: float = 8.0) -> None:
    """Add a Moffat profile with a core of `core` pixels to `flux`, (3, 525, 525), in place."""
    x, y = int(star.x) - 1, int(star.y) - 1
    columns = np.arange(max(x - reach, 0), min(x + reach + 1, SIZE), dtype=np.float32)
    rows = np.arange(max(y - reach, 0), min(y + reach + 1, SIZE), dtype=np.float32)
    distance2 = (columns[np.newaxis, :] + 1 - star.x) ** 2 + (rows[:, np.newaxis] + 1 - star.y) ** 2
    profile = star.peak * (1 + distance2 / core**2) ** -3
    colour = OLD_STARS * star.colour + YOUNG_STARS * (1 - star.colour)
    stamp = (
        slice(None),
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )
    flux[stamp] += colour[:, np.newaxis, np.newaxis] * profile


@cache
def _spread(cells: int, width: float) -> np.ndarray:
    """Matrix (525, cells) that spreads a coarse grid over the pixels, with a Gaussian of `width` cells."""
    pixels = (np.arange(SIZE, dtype=np.float32) + 0.5) * cells / SIZE
    distance = (pixels[:, np.newaxis] - np.arange(cells, dtype=np.float32) - 0.5) / width
    kernel = np.exp(-0.5 * distance**2)
    return kernel / kernel.sum(axis=1, keepdims=True)


def _sky(rng: np.random.Generator, cells: int = 132) -> np.ndarray:
    """Noise on the scale of an SDSS pixel (0.396 arcsec), and faint sources: (3, 525, 525) float32."""
    coarse = 0.035 * rng.standard_normal((3, cells, cells), dtype=np.float32)
    for row, column in rng.integers(0, cells, (rng.integers(6, 20), 2)):
        colour = OLD_STARS + rng.random() * (DISC_STARS - OLD_STARS)
        coarse[:, row, column] += colour * np.float32(rng.lognormal(0.6, 0.6))
    spread = _spread(cells, 0.75)
    return spread @ coarse @ spread.T


def _clumps(rng: np.random.Generator, cells: int = 60) -> np.ndarray:
    """Star-forming knots as a factor around 1, (525, 525) float32."""
    spread = _spread(cells, 0.6)
    return np.exp(0.7 * (spread @ rng.standard_normal((cells, cells), dtype=np.float32) @ spread.T))


def _stretch(flux: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """asinh stretch that keeps colours (Lupton et al. 2004): (3, 525, 525) to (525, 525, 3) uint8."""
    mean = np.maximum(flux.mean(axis=0), np.float32(1e-3))
    grey = np.float32(82) * np.arcsinh(4 * mean) / mean
    grain = rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32)
    levels = np.moveaxis(flux * (grey / np.arcsinh(np.float32(4))), 0, 2) + np.float32(0.3) * grain + np.float32(12)
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


# --- what the volunteers said -------------------------------------------------------------------------------


def _click(galaxy: Galaxy) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Clusters of clicks, (n, 2) float64 FITS pixels each: on the galaxy's centre, and on stars."""
    if galaxy.clickers < 3:  # fewer make no cluster
        return [], []
    rng = np.random.default_rng([galaxy.noise_seed, 1])
    centre = rng.normal(CENTRE, 2.0, (galaxy.clickers, 2))
    stars = []
    for star in galaxy.stars:
        count = int(rng.integers(3, galaxy.clickers + 1))
        stars.append(rng.normal((star.x, star.y), 2.5, (count, 2)))
    return [centre], stars


def _ellipse_mask(clusters: list[np.ndarray]) -> np.ndarray:
    """2-sigma ellipse of every cluster, value = its clicks: (525, 525) big-endian float64."""
    mask = np.zeros((SIZE, SIZE), ">f8")
    pixels = np.arange(1, SIZE + 1)
    for points in clusters:
        x, y = pixels[np.newaxis, :] - points[:, 0].mean(), pixels[:, np.newaxis] - points[:, 1].mean()
        (xx, xy), (_, yy) = np.linalg.inv(np.cov(points.T))
        mask[xx * x**2 + 2 * xy * x * y + yy * y**2 <= 4] += len(points)
    return mask


def _counts(drawers: int, distance: np.ndarray) -> np.ndarray:
    """Volunteers (0 to `drawers`) whose outline holds a pixel `distance` from the ridge (1: the boldest).

    All agree on the inner third, nobody goes beyond 1. (525, 525) big-endian float64.
    """
    steps = np.ceil((1 - distance) * np.float32(1.5 * drawers))
    return np.clip(steps, 0, drawers, out=steps).astype(">f8")


def masks(galaxy: Galaxy) -> dict[str, np.ndarray]:
    """The four masks `center`, `star`, `spiral`, `bar`: (525, 525) float64 counts of volunteers."""
    radius, azimuth = _disc_plane(galaxy)
    centres, stars = _click(galaxy)
    blank = np.zeros((SIZE, SIZE), ">f8")
    spiral, bar = blank, blank
    if galaxy.arm_drawers:
        spiral = _counts(galaxy.arm_drawers, _arm_distance(galaxy, radius, azimuth) / _arm_half_width(galaxy))
    if galaxy.bar_drawers:
        bar = _counts(galaxy.bar_drawers, _bar_distance(galaxy, radius, azimuth))
    return {"center": _ellipse_mask(centres), "star": _ellipse_mask(stars), "spiral": spiral, "bar": bar}


# --- the file -----------------------------------------------------------------------------------------------


def galaxy_hdus(
    galaxy: Galaxy,
    *,
    channels_first: bool = False,
    primary_wcs: bool = True,
    raw_tables: bool = False,
    column_case: str = "mixed",
) -> fits.HDUList:
    """One galaxy's file in memory.

    `channels_first` gives the picture as (3, 525, 525) instead of (525, 525, 3); `primary_wcs=False` leaves
    the WCS out of HDU 0; `raw_tables` adds HDUs 8 to 10; `column_case` is ``mixed`` (as released),
    ``upper`` or ``lower``, for the names in HDU 5.
    """
    rgb = picture(galaxy)
    header = _wcs_header(galaxy)
    primary = fits.PrimaryHDU(np.ascontiguousarray(np.moveaxis(rgb, 2, 0)) if channels_first else rgb)
    if primary_wcs:
        primary.header.update(header)
    centres, stars = _click(galaxy)
    wcs = WCS(header)
    hdus = [primary, *(fits.ImageHDU(mask, header) for mask in masks(galaxy).values())]
    hdus.append(_table(_metadata_columns([galaxy], column_case)))
    hdus += [_cluster_table(clusters, wcs) for clusters in (centres, stars)]
    if raw_tables:
        hdus += _raw_tables(galaxy, centres, stars)
    return fits.HDUList(hdus)


def fits_gz_bytes(galaxy: Galaxy, **layout) -> bytes:
    """The ``.fits.gz`` file of one galaxy, the same bytes each time; `layout` as for `galaxy_hdus`."""
    plain = io.BytesIO()
    galaxy_hdus(galaxy, **layout).writeto(plain)
    packer = zlib.compressobj(level=4, wbits=31)  # 31: gzip, without a time stamp
    return packer.compress(plain.getbuffer()) + packer.flush()


def _wcs_header(galaxy: Galaxy) -> fits.Header:
    """TAN projection centred on the galaxy, north up (at row 0) and east left."""
    step = PIXEL_SCALE / 3600
    cards = [
        ("CTYPE1", "RA---TAN"),
        ("CTYPE2", "DEC--TAN"),
        ("CUNIT1", "deg"),
        ("CUNIT2", "deg"),
        ("CRPIX1", CENTRE),
        ("CRPIX2", CENTRE),
        ("CRVAL1", galaxy.ra),
        ("CRVAL2", galaxy.dec),
        ("CD1_1", -step),
        ("CD1_2", 0.0),
        ("CD2_1", 0.0),
        ("CD2_2", -step),
    ]
    return fits.Header(cards)


def _table(columns: Sequence[tuple[str, str, Any]]) -> fits.BinTableHDU:
    """A binary table from (name, FITS format, values)."""
    return fits.BinTableHDU.from_columns([fits.Column(name, form, array=values) for name, form, values in columns])


def _metadata_columns(galaxies: list[Galaxy], case: str = "mixed") -> list[tuple[str, str, Any]]:
    """The columns of HDU 5, one row a galaxy."""
    columns: list[tuple[str, str, Any]] = [
        ("ra", "E", [g.ra for g in galaxies]),
        ("dec", "E", [g.dec for g in galaxies]),
        ("MANGAID", "11A", [g.mangaid for g in galaxies]),
        ("IAUNAME", "19A", [g.iauname for g in galaxies]),
        ("IFUDESIGNSIZE", "J", [g.ifu for g in galaxies]),
        ("MANGA_TILEID", "J", [g.tile for g in galaxies]),
        ("NSA_ID", "K", [g.nsa_id for g in galaxies]),
        ("explorer_link", "90A", [_explorer_link(g) for g in galaxies]),
        ("GZ_total_classifications", "I", [g.total_classifications for g in galaxies]),
        ("GZ_bar_votes", "I", [g.bar_votes for g in galaxies]),
        ("GZ_spiral_votes", "I", [g.spiral_votes for g in galaxies]),
        ("sample", "70A", [g.sample for g in galaxies]),
    ]
    spells: dict[str, Callable[[str], str]] = {"mixed": str, "upper": str.upper, "lower": str.lower}
    return [(spells[case](name), form, values) for name, form, values in columns]


def _explorer_link(galaxy: Galaxy) -> str:
    return f"https://skyserver.sdss.org/dr17/VisualTools/explore/summary?ra={galaxy.ra:.5f}&dec={galaxy.dec:.5f}"


def _cluster_table(clusters: list[np.ndarray], wcs: WCS) -> fits.BinTableHDU:
    """Mean, covariance (pixels and deg) and size of every cluster of clicks; no rows for no clusters."""
    rows = [[*_moments(points), *_moments(wcs.wcs_pix2world(points, 1)), len(points)] for points in clusters]
    values = np.array(rows, np.float64).reshape(-1, len(CLUSTER_COLUMNS))
    return _table([(name, "K" if name == "count" else "D", values[:, k]) for k, name in enumerate(CLUSTER_COLUMNS)])


def _moments(points: np.ndarray) -> list[float]:
    """Mean x, mean y, variance of x, variance of y and covariance of (n, 2) points."""
    (xx, xy), (_, yy) = np.cov(points.T)
    return [*points.mean(axis=0), xx, yy, xy]


def _raw_tables(galaxy: Galaxy, centres: list[np.ndarray], stars: list[np.ndarray]) -> list[fits.BinTableHDU]:
    """HDUs 8, 9, 10: what each volunteer clicked and drew, one row a classification."""
    clicks = [
        [[points[who].round(1).tolist() for points in clusters if who < len(points)] for who in range(galaxy.clickers)]
        for clusters in (centres, stars)
    ]
    spiral = [_arm_outlines(galaxy, who) for who in range(galaxy.arm_drawers)]
    bar = [_bar_outline(galaxy, who) for who in range(galaxy.bar_drawers)]
    return [
        _raw_table(galaxy, {"center_points": clicks[0], "star_points": clicks[1]}),
        _raw_table(galaxy, {"spiral_paths": spiral}),
        _raw_table(galaxy, {"bar_paths": bar}),
    ]


def _raw_table(galaxy: Galaxy, answers: dict[str, list]) -> fits.BinTableHDU:
    """classification_id, time_stamp and one JSON column for each of `answers`."""
    count = len(next(iter(answers.values())))
    columns = [
        ("classification_id", "K", [galaxy.subject_id * 100 + k for k in range(count)]),
        ("time_stamp", "23A", [f"2017-05-{1 + k:02d} 12:00:00 UTC" for k in range(count)]),
    ]
    for name, values in answers.items():
        texts = [json.dumps(value) for value in values]
        columns.append((name, f"{max(map(len, texts), default=1)}A", texts))
    return _table(columns)


def _arm_outlines(galaxy: Galaxy, who: int) -> list[list[list[float]]]:
    """Closed paths of volunteer `who` around the arms; the first is the boldest."""
    begin, end = _arm_limits(galaxy)
    radius = np.geomspace(begin, end, 24)
    ridge = _arm_azimuth(galaxy, radius)
    half = _arm_half_width(galaxy) * (1 - who / (1.5 * galaxy.arm_drawers)) / abs(math.sin(galaxy.arm_pitch))
    paths = []
    for arm in range(galaxy.arms):
        azimuth = ridge + 2 * np.pi * arm / galaxy.arms
        outline = np.concatenate([azimuth + half / radius, (azimuth - half / radius)[::-1]])
        paths.append(_pixels(galaxy, np.concatenate([radius, radius[::-1]]), outline))
    return paths


def _bar_outline(galaxy: Galaxy, who: int) -> list[list[list[float]]]:
    """Closed path of volunteer `who` around the bar; the first is the boldest."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    size = galaxy.bar_length * (1 - who / (1.5 * galaxy.bar_drawers))
    along, across = size * np.cos(turn), 0.3 * size * np.sin(turn)
    return [_pixels(galaxy, np.hypot(along, across), np.arctan2(across, along) + galaxy.bar_angle)]


def _pixels(galaxy: Galaxy, radius: np.ndarray, azimuth: np.ndarray) -> list[list[float]]:
    """FITS pixels [x, y] of places in the plane of the disc (arcsec, rad): the inverse of `_disc_plane`."""
    along, across = radius * np.cos(azimuth), radius * np.sin(azimuth) * galaxy.axis_ratio
    cos, sin = math.cos(galaxy.position_angle), math.sin(galaxy.position_angle)
    x, y = along * cos - across * sin, along * sin + across * cos
    return (np.stack([x, y], axis=1) / PIXEL_SCALE + CENTRE).round(1).tolist()


# --- the archive --------------------------------------------------------------------------------------------


def draw_sample(count: int, seed: int = 0, *, clustered: bool = False, repeats: int = 0) -> list[Galaxy]:
    """`count` galaxies, of which the last `repeats` are earlier ones again under another subject id.

    `clustered` puts them in groups of five within 1.5 deg, each group in one HEALPix cell of nside 16.
    """
    galaxies = [draw_galaxy(seed, index) for index in range(count - repeats)]
    if clustered:
        galaxies = [_in_group(galaxy, seed, index // 5) for index, galaxy in enumerate(galaxies)]
    again = [replace(galaxy, subject_id=galaxy.subject_id - 9_036_000) for galaxy in galaxies[:repeats]]
    return galaxies + again


def _in_group(galaxy: Galaxy, seed: int, group: int) -> Galaxy:
    """The same galaxy, moved into group number `group`."""
    ra, dec = _draw_cell_centre(np.random.default_rng([seed, group, 2]))
    rng = np.random.default_rng([galaxy.noise_seed, 2])
    ra, dec = ra + rng.uniform(-0.7, 0.7) / math.cos(math.radians(dec)), dec + rng.uniform(-0.7, 0.7)
    return replace(galaxy, ra=float(np.float32(ra)), dec=float(np.float32(dec)))


def write_archive(
    folder: str | Path,
    count: int,
    seed: int = 0,
    *,
    prefix: str = "",
    clustered: bool = False,
    repeats: int = 0,
    **layout,
) -> list[Path]:
    """Write `count` galaxies, ``gz3d_metadata.fits`` and the SHA-1 list; return the galaxies' paths.

    `prefix` stands before every galaxy's name (``gz3d_`` in some releases), `clustered` and `repeats` are as
    for `draw_sample`, `layout` as for `galaxy_hdus`. Existing files of the same name are overwritten.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    galaxies = draw_sample(count, seed, clustered=clustered, repeats=repeats)
    paths = []
    for galaxy in galaxies:
        paths.append(folder / f"{prefix}{galaxy.name}.gz")
        paths[-1].write_bytes(fits_gz_bytes(galaxy, **layout))
    metadata_table(galaxies, prefix).writeto(folder / METADATA_NAME, overwrite=True)
    write_checksums(folder, [*paths, folder / METADATA_NAME])
    return paths


def metadata_table(galaxies: list[Galaxy], prefix: str = "") -> fits.BinTableHDU:
    """``gz3d_metadata.fits``: one row a file, its name without ``.gz``, then the columns of HDU 5."""
    clusters = [_click(galaxy) for galaxy in galaxies]
    columns = [
        ("file_name", "40A", [prefix + galaxy.name for galaxy in galaxies]),
        ("zooniverse_subject_id", "K", [galaxy.subject_id for galaxy in galaxies]),
        ("number_galaxy_centers", "J", [len(centres) for centres, _ in clusters]),
        ("number_foreground_stars", "J", [len(stars) for _, stars in clusters]),
        ("observed", "L", [galaxy.observed for galaxy in galaxies]),
    ]
    return _table(columns + _metadata_columns(galaxies))


def write_checksums(folder: Path, paths: list[Path]) -> Path:
    """Write the SHA-1 list of `paths` into `folder` as sha1sum does: 40 hex digits, two blanks, name."""
    lines = [f"{hashlib.sha1(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(paths)]
    listing = folder / CHECKSUMS_NAME
    listing.write_text("".join(lines))
    return listing
