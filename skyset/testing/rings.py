"""Simulated galaxies in the form of Galaxy Zoo DECaLS's ring catalogue: images, and a table of tags and predicted shares.

::

    write_rings(folder, 60)          # 60 JPEGs of 424 x 424 pixels, and example_ring_catalog_basic.csv
    skyset build gz_decals --local_data_path FOLDER -o data/gz_decals
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from skyset.loaders.gz_decals import DR5
from skyset.testing.stamps import stamp
from skyset.testing.zenodo import iau_name

SIZE = 424
TABLE = "example_ring_catalog_basic.csv"


def draw_galaxy(dice: np.random.Generator, ring: bool) -> np.ndarray:
    """A disc with a bulge, by chance clumps, and a ring or none, on a noisy sky: uint8 (424, 424, 3)."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    turn, flat, scale = dice.uniform(0, np.pi), dice.uniform(0.55, 1), dice.uniform(14, 26)
    along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / flat
    radius = np.hypot(along, across)
    disc = np.exp(-radius / scale)
    bulge = dice.uniform(0.3, 2) * np.exp(-np.hypot(x, y) / (0.3 * scale))
    extra = np.zeros_like(disc)
    if ring:
        at, width = scale * dice.uniform(1.6, 2.8), scale * dice.uniform(0.15, 0.3)
        extra += dice.uniform(0.25, 0.6) * np.exp(-0.5 * ((radius - at) / width) ** 2)
    else:
        for cx, cy in dice.normal(0, 1.4 * scale, (dice.integers(0, 12), 2)):
            extra += dice.uniform(0.1, 0.4) * np.exp(-((along - cx) ** 2 + (across - cy) ** 2) / (0.1 * scale**2))
    old, young = dice.normal([1.0, 0.85, 0.6], 0.04), dice.normal([0.6, 0.75, 1.0], 0.05)
    share = np.clip(dice.uniform(0.2, 0.9), 0, 1)
    light = bulge[..., None] * old + disc[..., None] * (share * old + (1 - share) * young) + extra[..., None] * young
    counts = dice.uniform(90, 190) * light + dice.normal(12, 4, (SIZE, SIZE, 3))
    for cx, cy in dice.uniform(-SIZE / 2, SIZE / 2, (8, 2)):
        counts += dice.lognormal(3.5, 0.8) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)[..., None]
    return stamp(np.clip(counts, 0, 255).astype(np.uint8))


def write_rings(folder: Path, count: int, seed: int = 0, places: Sequence[tuple[float, float]] = ()) -> None:
    """Half of them rings; the network's shares agree with the tags as well as real ones do, which is not very well.

    The first are at given ``places``, (ra, dec) in degrees: those of another survey's objects.
    """
    dice = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    stems = [stem for question in DR5[:4] for stem in question.stems]
    with open(folder / TABLE, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id_str", "ring", *(f"{stem}_fraction" for stem in stems)])
        for number in range(count):
            anywhere = dice.uniform(0, 360), dice.uniform(-5, 30)
            name, ring = iau_name(*(places[number] if number < len(places) else anywhere)), number % 2
            Image.fromarray(draw_galaxy(dice, bool(ring))).save(folder / "images" / f"{name}.jpg", quality=90)
            shares = [share for q in DR5[:4] for share in dice.dirichlet([1.5 + (k == 1) for k in range(len(q.answers))])]
            table.writerow([name, ring, *(f"{share:.4f}" for share in shares)])
