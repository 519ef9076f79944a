"""Published files of noise: what each row holds follows from its number alone, whatever the split, the size and the file."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from skyset.published.galaxiesml import BANDS, SHAPES, PublishedWriter, file_name, keys

FIRST_ID = 43_158_722_000_000_001
COUNTS = {"train": 30, "validation": 8, "test": 6}
#: Every fifth galaxy was not found in r.
UNSEEN = 5


def published(start: int, count: int, size: int) -> dict[str, np.ndarray]:
    """Rows ``start`` to ``start + count``, by key."""
    numbers = np.arange(start, start + count)
    rows = {}
    for place, key in enumerate(keys(size)):
        dice = [np.random.default_rng((place, number)) for number in numbers]
        if key.is_text:
            rows[key.name] = np.array([f"{key.name} {number}" for number in numbers])
        elif key.dtype == "bool":
            rows[key.name] = numbers % 2 == 0
        elif key.dtype == "int64":
            rows[key.name] = np.array([each.integers(0, 9) for each in dice])
        else:
            rows[key.name] = np.stack([each.uniform(1, 5, key.shape) for each in dice]).astype(key.dtype)
    rows["object_id"] = FIRST_ID + numbers
    rows["ra"], rows["dec"] = 150 + 60.0 * (numbers % 2), numbers / 100  # two cells
    for band in BANDS:
        rows[f"{band}_peak_surface_brightness"] -= 9
    unseen = numbers % UNSEEN == 2
    for name in SHAPES:
        rows[f"r_{name}"][unseen] = 0
    for axis in "xy":
        rows[f"{axis}_coord_y"][unseen, 1] = 0
    return rows


def write(folder: Path, sizes=(127, 64), counts: Mapping[str, int] = COUNTS, **options) -> Path:
    """Files of these sizes; the same galaxies in each."""
    for size in sizes:
        start = 0
        for split, count in counts.items():
            with PublishedWriter(folder / file_name(size, split), size, count, **options) as writer:
                for first in range(0, count, 7):
                    writer.append(published(start + first, min(7, count - first), size))
            start += count
    return folder


def edit(path: Path, change) -> None:
    """Change an HDF5 file."""
    with h5py.File(path, "r+") as file:
        change(file)


def replace(file: h5py.File, name: str, values) -> None:
    """Another dataset under a name."""
    del file[name]
    file.create_dataset(name, data=values)
