"""Small image sets in the form that the field's sets on the Hub have, as Parquet files of `datasets`."""

import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

ROWS = 53
VOTES = ("smooth-or-featured-gz2_smooth", "smooth-or-featured-gz2_featured-or-disk", "smooth-or-featured-gz2_artifact")


def jpegs(rows: int = ROWS, side: int = 24) -> list[bytes]:
    """JPEG images of noise."""
    dice, files = np.random.default_rng(0), []
    for _ in range(rows):
        file = io.BytesIO()
        Image.fromarray(dice.integers(0, 255, (side, side, 3), np.uint8)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def pixels(jpeg: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def gz_evo(rows: int = ROWS) -> datasets.Dataset:
    """Galaxy Zoo Evo: an image, who it is, and votes by question, answer and campaign."""
    kinds = {"image": datasets.Image(), "id_str": datasets.Value("string"), "dataset_name": datasets.Value("string")}
    kinds |= {vote: datasets.Value("int32") for vote in VOTES}
    kinds |= {f"{vote}_fraction": datasets.Value("float32") for vote in VOTES}
    values = {
        "image": [{"bytes": each, "path": None} for each in jpegs(rows)],
        "id_str": [f"gz-{number}" for number in range(rows)],
        "dataset_name": ["gz2" if number % 2 else "gz_desi" for number in range(rows)],
    }
    values |= {vote: [number * 3 + k for number in range(rows)] for k, vote in enumerate(VOTES)}
    values |= {f"{vote}_fraction": [number / 7 for number in range(rows)] for vote in VOTES}
    return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))


def smith42_galaxies(rows: int = ROWS) -> datasets.Dataset:
    """AstroPT's galaxies: a JPEG image of DESI Legacy Survey's DR8, and its id."""
    kinds = datasets.Features({"image": datasets.Image(), "dr8_id": datasets.Value("string")})
    files = [{"bytes": each, "path": f"{number}.jpg"} for number, each in enumerate(jpegs(rows))]
    return datasets.Dataset.from_dict({"image": files, "dr8_id": [f"{n}_{n * 7}" for n in range(rows)]}, features=kinds)


def write_set(folder: Path, files: int = 4, group: int = 5, **splits: datasets.Dataset) -> Path:
    """Parquet files of some splits, named as ``push_to_hub`` names them, with row groups of a few rows."""
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        for number in range(files):
            part = rows.shard(files, number, contiguous=True)
            part.to_parquet(folder / "data" / f"{split}-{number:05}-of-{files:05}.parquet", batch_size=group)
    return folder
