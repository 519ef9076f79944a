"""Simulated galaxies as files in the form in which GalaxiesML is published, measured as ours are, with the truth beside.

make_galaxiesml("published", galaxies=2000)          # five files like those of Zenodo, times two sizes, and truth.csv
"""

from __future__ import annotations

import contextlib
import csv
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from skyset.errors import UserError
from skyset.files import replacing
from skyset.progress import progress_bar
from skyset.published.galaxiesml import SPLITS, PublishedWriter, file_name, published_rows
from skyset.runner import executor, in_order
from skyset.testing.galaxiesml.colours import BANDS
from skyset.testing.galaxiesml.population import ZERO_POINT, dice
from skyset.testing.galaxiesml.shapes import half_light_radii
from skyset.testing.galaxiesml.sky import GalSimSky
from skyset.testing.hsc_sky import window

SIZES = (127, 64)
TRUTH_NAME = "truth.csv"
#: Half the side of the authors' cutouts: 10 arcsec.
_HALF = 10 / 3600
#: Galaxies that are drawn and measured together.
BLOCK = 64


def make_galaxiesml(
    folder: str | Path,
    galaxies: int,
    *,
    sizes: Sequence[int] = SIZES,
    seed: int = 0,
    processes: int = 1,
    sersic: bool = True,
) -> list[Path]:
    """Write files in the published form: training, validation and test of each size, 5/7, 1/7, 1/7.

    Args:
        folder: where; it is made.
        galaxies: in all three files together.
        sizes: pixels of the sides, of 127 and 64.
        seed: of the sky.
        processes: that draw and measure, 64 galaxies at a time.
        sersic: fit profiles (half of the time); without, ``{band}_sersic_index`` is NaN.

    Returns:
        The HDF5 files, in order. Beside each lies its CSV, and ``truth.csv`` for all: `truth_columns`.

    Raises:
        UserError: one of the files exists, or the folder cannot be written.
        MissingPackage: GalSim is not installed.
    """
    folder = Path(folder)
    sky = _sky(galaxies, seed)
    order = dice(seed, "split").permutation(galaxies)
    few = round(galaxies / 7)
    parts = dict(zip(SPLITS, np.split(order, [galaxies - 2 * few, galaxies - few]), strict=True))
    paths = [folder / file_name(size, split) for size in sizes for split in SPLITS]
    if there := next((path for path in (*paths, folder / TRUTH_NAME) if path.exists()), None):
        raise UserError(f"{there} exists: nothing is overwritten; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    rows_of = _first_rows(sky)
    observe = functools.partial(observe_block, galaxies=galaxies, seed=seed, sersic=sersic)
    with executor(processes) as pool, progress_bar(total=galaxies, desc="galaxies", unit="galaxy") as bar:
        for split, numbers in parts.items():
            with contextlib.ExitStack() as stack:
                writers = {
                    size: stack.enter_context(PublishedWriter(folder / file_name(size, split), size=size, rows=len(numbers)))
                    for size in sizes
                }
                for block, (images, measured) in in_order(pool, observe, _blocks(numbers)):
                    columns = {name: values[rows_of[block]] for name, values in sky.catalogue().items()} | measured
                    for size, writer in writers.items():
                        writer.append(published_rows(columns | {"image": cropped(images, size)}))
                    bar.update(len(block))
    _write_truth(folder / TRUTH_NAME, sky, parts)
    return paths


@functools.lru_cache(1)
def _sky(galaxies: int, seed: int) -> GalSimSky:
    return GalSimSky(galaxies, seed)


def _first_rows(sky: GalSimSky) -> np.ndarray:
    """For each galaxy that stays its row of the catalogue."""
    rows = np.full(len(sky.truth), -1)
    # Of two rows the second is the one that is cut; the last that is written here wins.
    rows[sky.numbers[::-1]] = np.arange(len(sky.numbers))[::-1]
    return rows


def _blocks(numbers: np.ndarray) -> Iterator[np.ndarray]:
    return (numbers[start : start + BLOCK] for start in range(0, len(numbers), BLOCK))


def observe_block(numbers: np.ndarray, galaxies: int, seed: int, sersic: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Cutouts of some galaxies, float32 (count, 5, 127, 127), padded as the authors do, and what is measured on them.

    Args:
        numbers: of the galaxies.
        galaxies, seed: of the sky.
        sersic: fit profiles.
    """
    from skyset.extraction.morphology import columns, measure_cutouts

    sky = _sky(galaxies, seed)
    frames = np.zeros((len(numbers), len(BANDS), 127, 127), np.float32)
    measured = {column.name: np.full(len(numbers), column.missing, column.dtype) for column in columns(BANDS, fitted=True)}
    stamps: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
    for place, number in enumerate(numbers):
        where = window(sky.truth["ra"][number], sky.truth["dec"][number], _HALF, _HALF)
        image = sky.render_bands(BANDS, where.wcs, where.shape)[0]
        low, left = ((127 - side) // 2 for side in where.shape)
        frames[place, :, low : low + where.height, left : left + where.width] = image
        stamps.setdefault(where.shape, []).append((place, image))
    for alike in stamps.values():  # measured without the padding, as the authors did
        places = [place for place, _ in alike]
        found = measure_cutouts(np.stack([image for _, image in alike]), BANDS, sersic=sersic, fitted=True)
        for name, values in found.items():
            measured[name][places] = values
    return frames, measured


def cropped(images: np.ndarray, size: int) -> np.ndarray:
    """The authors' smaller frame: [31:95] of 127 pixels."""
    first = (127 - size) // 2
    return images[..., first : first + size, first : first + size]


# --- Truth ----------------------------------------------------------------------------------------


def truth_columns(truth: np.ndarray) -> dict[str, np.ndarray]:
    """What is true of galaxies, by column: lengths in pixels of 0.168 arcsec, angles in degrees from +x towards +y.

    ``redshift``; ``template`` (0 E, 1 Sbc, 2 Scd, 3 Im); ``n``, ``r_e``, ``q``, ``pa`` of the only profile, or of the disc
    where ``n`` is nan; ``bulge_r_e``, ``bulge_q`` and ``{band}_bulge_share`` of its bulge (n = 4); ``{band}_mag``;
    ``{band}_half_light_radius``, of the circle with half of the light, without the PSF.
    """
    radii = half_light_radii(truth)
    columns = {name: truth[name] for name in ("redshift", "template", "n", "r_e", "q", "pa", "bulge_r_e", "bulge_q")}
    for place, band in enumerate(BANDS):
        columns[f"{band}_mag"] = ZERO_POINT - 2.5 * np.log10(truth["flux"][:, place])
        columns[f"{band}_bulge_share"] = truth["bulge_flux"][:, place] / truth["flux"][:, place]
        columns[f"{band}_half_light_radius"] = radii[:, place]
    return columns


def _write_truth(path: Path, sky: GalSimSky, parts: dict[str, np.ndarray]) -> None:
    columns = truth_columns(sky.truth)
    identifiers = sky.catalogue()["object_id"][_first_rows(sky)]
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["object_id", "split", *columns])
        for split, numbers in parts.items():
            for number in numbers:
                values = (f"{values[number]:.7g}" for values in columns.values())
                table.writerow([identifiers[number], split, *values])
