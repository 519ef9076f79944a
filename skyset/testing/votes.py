"""Simulated galaxies whose looks decide what volunteers say: images, and a table of votes in the form of Galaxy Zoo DECaLS.

::

    python -m skyset.testing.votes FOLDER 500          # 500 JPEGs and gz_decals_volunteers_5.csv
    skyset build gz_decals --local_data_path FOLDER -o data/gz_decals

Each galaxy has a shape (how much of a disc, how flat, how strong its arms and its bar are, how large its bulge is, whether
it has a companion); the true share of each answer follows from it, and the votes of so many volunteers are drawn from the
shares, down the tree of questions.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from skyset.loaders.gz_decals import DR5
from skyset.testing.gz3d import stamp
from skyset.testing.zenodo import iau_name

TABLE, SIDE = "gz_decals_volunteers_5.csv", 128


def draw_shape(dice: np.random.Generator) -> dict[str, float]:
    """What a galaxy is like, each between 0 and 1; ``arms`` from 1 to 4."""
    names = ("disc", "flat", "spiral", "bar", "bulge", "winding", "round", "disturbed")
    return {name: float(dice.beta(0.7, 0.7)) for name in names} | {"arms": int(dice.integers(1, 5))}


def draw_image(shape: dict[str, float], dice: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """uint8 (side, side, 3): bulge, disc, arms, bar and companion as the shape says, turned by any angle, with noise."""
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / side
    turn = dice.uniform(0, 2 * np.pi)
    thin = 0.12 + 0.88 * (1 - shape["flat"]) if shape["disc"] > 0.5 else 0.35 + 0.65 * shape["round"]
    along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / thin
    radius, angle = np.hypot(along, across), np.arctan2(across, along)
    bulge = np.exp(-np.hypot(x, y) / (0.02 + 0.05 * shape["bulge"]))
    disc = np.exp(-radius / 0.12)
    phase = shape["arms"] * (angle + (2 + 10 * shape["winding"]) * radius)
    arms = shape["spiral"] * np.maximum(0, np.cos(phase)) ** 2 * (radius > 0.06)
    bar = shape["bar"] * np.exp(-0.5 * (across / 0.018) ** 2) * (np.abs(along) < 0.14)
    smooth = np.exp(-radius / 0.06)
    light = shape["disc"] * (0.8 * disc * (1 + 2.2 * arms) + 0.5 * bar) + (1 - shape["disc"]) * smooth + 0.7 * bulge
    if shape["disturbed"] > 0.5:
        light = light + 0.8 * np.exp(-np.hypot(x - 0.22 * np.cos(turn), y - 0.22 * np.sin(turn)) / 0.03)
    colour = np.array([1.0, 0.8, 0.6]) * (1 - 0.4 * shape["disc"]) + np.array([0.5, 0.7, 1.0]) * 0.4 * shape["disc"]
    counts = 150 * light[..., None] * colour + dice.normal(12, 4, (side, side, 3))
    return stamp(np.clip(counts, 0, 255).astype(np.uint8))


def shares_of(shape: dict[str, float]) -> dict[str, np.ndarray]:
    """True shares of the answers by question, as `DR5` has them."""

    def two(value: float) -> np.ndarray:
        return np.array([value, 1 - value]) * 0.94 + 0.03

    def peaked(value: float, count: int) -> np.ndarray:
        weights = np.exp(-0.5 * ((np.linspace(0, 1, count) - value) / 0.22) ** 2) + 0.01
        return weights / weights.sum()

    arms = np.full(6, 0.03)
    arms[int(shape["arms"]) - 1] = 1.0
    arms[5] += shape["winding"]
    disc, disturbed = 0.95 * shape["disc"], shape["disturbed"]
    return {
        "smooth-or-featured": np.array([0.96 - disc, disc + 0.02, 0.02]),
        "disk-edge-on": two(float(np.clip(2 * shape["flat"] - 1, 0, 1))),
        "has-spiral-arms": two(shape["spiral"]),
        "bar": peaked(1 - shape["bar"], 3),
        "bulge-size": peaked(1 - shape["bulge"], 5),
        "how-rounded": peaked(1 - shape["round"], 3),
        "edge-on-bulge": peaked(1 - shape["bulge"], 3),
        "spiral-winding": peaked(1 - shape["winding"], 3),
        "spiral-arm-count": arms / arms.sum(),
        "merging": peaked(disturbed, 4),
    }


def draw_votes(shares: dict[str, np.ndarray], volunteers: int, dice: np.random.Generator) -> dict[str, int]:
    """Counts by ``<question>_<answer>``: each question is asked of those whom an answer before led there."""
    counts: dict[str, int] = {}
    for question in DR5:
        asked = sum(counts[stem] for stem in question.depends_on) if question.depends_on else volunteers
        counts |= dict(zip(question.stems, dice.multinomial(asked, shares[question.name]).tolist(), strict=True))
    return counts


def write_votes(folder: Path, count: int, seed: int = 0, volunteers: int = 40, side: int = SIDE) -> dict[str, dict]:
    """Write images and the table; returns true shares by the galaxies' names."""
    (folder / "images").mkdir(parents=True)
    stems = [stem for question in DR5 for stem in question.stems]
    truth = {}
    with open(folder / TABLE, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["iauname", *stems, *(f"{stem}_fraction" for stem in stems), *(f"{q.name}_total-votes" for q in DR5)])
        for number in range(count):
            dice = np.random.default_rng((seed, number))
            name = iau_name(dice.uniform(150, 154), dice.uniform(0, 4))  # a patch: few partitions
            shape = draw_shape(dice)
            truth[name] = shares_of(shape)
            Image.fromarray(draw_image(shape, dice, side)).save(folder / "images" / f"{name}.jpg", quality=92)
            counts = draw_votes(truth[name], volunteers, dice)
            totals = [sum(counts[stem] for stem in question.stems) for question in DR5]
            shares = [
                counts[stem] / total if total else "" for q, total in zip(DR5, totals, strict=True) for stem in q.stems
            ]
            table.writerow([name, *(counts[stem] for stem in stems), *shares, *totals])
    return truth


def main(arguments: list[str] | None = None) -> None:
    """Write simulated galaxies into a new folder."""
    parser = argparse.ArgumentParser(prog="python -m skyset.testing.votes", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="does not exist yet")
    parser.add_argument("count", type=int, help="galaxies")
    parser.add_argument("--seed", type=int, default=0, help="other galaxies")
    parser.add_argument("--volunteers", type=int, default=40, help="who look at each")
    words = parser.parse_args(arguments)
    try:
        write_votes(words.folder, words.count, words.seed, words.volunteers)
    except FileExistsError:
        parser.error(f"{words.folder} holds images already")


if __name__ == "__main__":
    main()
