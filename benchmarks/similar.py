"""How alike are the galaxies that ``skyset similar`` finds without vectors? Measured by what others said of them.

    python benchmarks/similar.py data/gz_decals

For each galaxy of ``rings_basic`` (each split's) the five nearest among all, by the description of today and by the one of
version 0.1: the share with the same ring label, and how far apart neighbours are in a quantity, over how far apart galaxies
drawn at random are (0: equal; 1: chance). Colour is measured apart from the description, in a round aperture.
"""

import sys

import numpy as np

import skyset
from skyset.explore import description, similar

NEIGHBOURS = 5
PREDICTED = {"featured": "smooth-or-featured_featured-or-disk_fraction", "spiral arms": "has-spiral-arms_no_fraction"}


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    splits = ("train", "validation", "test")
    where = {"data_dir": sys.argv[1], "config": "rings_basic"}
    rows = [row for split in splits for row in skyset.load("gz_decals", **where, split=split)]
    labels = np.array([row["label"] for row in rows])
    known = {name: np.array([row[column] for row in rows]) for name, column in PREDICTED.items()}
    known["colour"] = np.array([aperture_colour(np.asarray(row["image"])) for row in rows])
    ellipses = [description.outline(description.as_bands(row["image"])) for row in rows]
    known["size"] = np.log([ellipse.major for ellipse in ellipses])
    known["axis ratio"] = np.array([ellipse.ratio for ellipse in ellipses])
    chance = np.mean([np.mean(labels == label) for label in labels])
    print(f"| {len(rows)} galaxies | same ring label | {' | '.join(known)} |")
    print("|" + "---|" * (len(known) + 2))
    print(f"| chance | {chance:.2f} | {' | '.join(['1'] * len(known))} |")
    for name, vectors in (("0.1", first_description(rows)), ("**now**", similar.describe_rows(rows).vectors)):
        nearest = neighbours(vectors)
        same = (labels[nearest] == labels[:, None]).mean(axis=1)
        error = same.std() / np.sqrt(len(same))
        apart = [f"{distance(values, nearest):.2f}" for values in known.values()]
        print(f"| {name} | {same.mean():.3f} ± {error:.3f} | {' | '.join(apart)} |")
    return 0


def first_description(rows) -> np.ndarray:
    """As version 0.1 compared: all parts of ``polar.parts`` with equal weights, by their direction alone."""
    described = [description.parts(row["image"]) for row in rows]
    return np.concatenate([similar._scaled(np.array([each[k].ravel() for each in described])) for k in described[0]], axis=1)


def neighbours(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1)[:, :NEIGHBOURS]


def distance(values: np.ndarray, nearest: np.ndarray) -> float:
    """Mean difference from the neighbours, over the mean difference of all pairs."""
    return np.abs(values[nearest] - values[:, None]).mean() / np.abs(values[:, None] - values[None]).mean()


def aperture_colour(pixels: np.ndarray, radius: float = 25) -> float:
    """ln of the counts of the first band over the last, within a circle of the middle, above those of the corners."""
    height, width = pixels.shape[:2]
    from_middle = np.hypot(np.arange(height)[:, None] - (height - 1) / 2, np.arange(width)[None] - (width - 1) / 2)
    inside = pixels[from_middle < radius].mean(axis=0) - np.median(pixels[from_middle > 0.35 * (height + width)], axis=0)
    return float(np.log(max(inside[0], 1) / max(inside[2], 1)))


if __name__ == "__main__":
    sys.exit(main())
