"""Galaxies whose magnitudes and pixels carry their redshift, as partitions of GalaxiesML; drawn without GalSim."""

from pathlib import Path

import numpy as np

from skyset.published.galaxiesml import BANDS, SPLITS, PublishedWriter, file_name, published_rows

SIZE = 64


def columns(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """What the survey's loader has of galaxies, by column: (rows, ...)."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.02, 1.5, rows)
    errors = rng.uniform(0.01, 0.05, (rows, 5))
    magnitudes = 18 + 3 * z[:, None] + np.array([2.0, 1.0, 0.4, 0.1, 0.0]) * (0.3 + z[:, None]) + rng.normal(0, errors)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    shape = np.exp(-0.5 * (x**2 + y**2) / (2 + 3 / (0.3 + z[:, None, None])) ** 2)
    flux = 10 ** (-0.4 * (magnitudes - 27))
    image = flux[:, :, None, None] * shape[:, None] / shape.sum(axis=(1, 2))[:, None, None, None]
    numbers = np.arange(rows) + 1000 * (seed + 1)
    table = {
        "object_id": numbers,
        "ra": 30 + rng.uniform(0, 0.5, rows),
        "dec": -3 + rng.uniform(0, 0.5, rows),
        "specz_redshift": z,
        "specz_redshift_err": np.full(rows, 1e-4),
        "specz_name": np.array([f"S{number}" for number in numbers], "S20"),
        "specz_flag_homogeneous": np.ones(rows, bool),
        "image": (image + rng.normal(0, 0.05, image.shape)).astype(np.float32),
    }
    for place, band in enumerate(BANDS):
        table[f"{band}_cmodel_mag"] = magnitudes[:, place].astype(np.float32)
        table[f"{band}_cmodel_magsigma"] = errors[:, place].astype(np.float32)
    return table


def write_galaxiesml(folder: Path, counts: tuple[int, int, int] = (40, 12, 12)) -> Path:
    """Partitions in ``folder/galaxiesml`` of so many galaxies for training, validation and test: the configs 64, tabular."""
    from skyset.build_scripts.galaxiesml.build_parent_sample import main

    published = folder / "published"
    published.mkdir(parents=True)
    for seed, (split, rows) in enumerate(zip(SPLITS, counts, strict=True)):
        with PublishedWriter(published / file_name(SIZE, split), size=SIZE, rows=rows) as writer:
            writer.append(published_rows(columns(rows, seed)))
    arguments = ["--local_data_path", str(published), "-o", str(folder / "galaxiesml"), "--num_processes", "1"]
    assert main(arguments) == 0
    return folder / "galaxiesml"
