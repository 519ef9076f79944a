"""Simulated galaxies with and without rings, in the form of the published catalogue, and very small networks."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CONVNEXT = json.dumps({"depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2, "drop_path_rate": 0.1})
VIT = json.dumps(
    {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 8,
        "hidden_dropout_prob": 0.1,
    }
)


def galaxy(number: int, ring: bool, size: int = 64) -> np.ndarray:
    """uint8 (size, size, 3): bulge and disc, a ring or none, inclined and turned, with noise."""
    rng = np.random.default_rng((99, number))
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) / size
    turn, flat = rng.uniform(0, np.pi), rng.uniform(0.5, 1)
    along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / flat
    radius = np.hypot(along, across)
    light = 150 * np.exp(-radius / 0.08) + 60 * np.exp(-radius / 0.15)
    if ring:
        light += 90 * np.exp(-0.5 * ((radius - rng.uniform(0.22, 0.28)) / 0.03) ** 2)
    colours = np.stack([light, 0.9 * light, 0.8 * light], axis=2) + rng.normal(8, 3, (size, size, 3))
    return colours.clip(0, 255).astype(np.uint8)


def name_of(number: int) -> str:
    """An IAU name: an hour apart in right ascension."""
    return f"J{number % 24:02d}{number // 24:02d}12.00+{number // 60:02d}{number % 60:02d}30.0"


def build_rings(folder: Path, count: int, ring: Callable[[int], bool] = lambda number: number % 4 < 2) -> Path:
    """The survey ``gz_decals`` built from ``write_rings``."""
    from skyset.build_scripts.gz_decals.build_parent_sample import main as build

    raw = write_rings(folder / "raw", count, ring)
    assert build(["--local_data_path", str(raw), "-o", str(folder / "gz_decals"), "--num_processes", "1"]) == 0
    return folder / "gz_decals"


def write_rings(folder: Path, count: int, ring: Callable[[int], bool] = lambda number: number % 4 < 2) -> Path:
    """``example_ring_catalog_basic.csv`` and ``images/``; the catalogue says .jpg where the files are .png, as it does."""
    (folder / "images").mkdir(parents=True)
    fractions = ["smooth-or-featured_featured-or-disk_fraction", "disk-edge-on_no_fraction", "has-spiral-arms_no_fraction"]
    with open(folder / "example_ring_catalog_basic.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id_str", "ring", *fractions, "file_loc"])
        for number in range(count):
            name, label = name_of(number), bool(ring(number))
            Image.fromarray(galaxy(number, label)).save(folder / "images" / f"{name}.png")
            rng = np.random.default_rng(number)
            writer.writerow([name, int(label), *rng.uniform(0.5, 1, 3).round(3), f"data/images/{name}.jpg"])
    return folder
