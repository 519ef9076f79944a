"""Galaxies on which volunteers drew, from the survey ``gz3d``: which masks count, splits, and rows as tensors.

Everybody was asked to mark the centre and foreground stars; arms and bars were drawn only on galaxies in which Galaxy Zoo
had seen one. Most galaxies have an empty mask of spiral arms because nobody was asked: it is no answer, and neither is an
empty bar, nor any empty mask of a galaxy on which nobody marked centre or stars.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from skyset.errors import UserError
from skyset.loaders.gz3d import CLASSES, DRAWERS
from skyset.progress import progress_bar
from skyset.splits import SHARES, SPLITS, split_of
from skyset.training.common.data import load_splits
from skyset.training.common.images import Rows, to_tensor
from skyset.training.common.views import resample_counts

logger = logging.getLogger("skyset.training")

#: In place of the number of volunteers, where nobody was asked.
NOT_ASKED = 0.0
#: Everybody was asked for these; for the others, only where Galaxy Zoo saw one.
OF_EVERYBODY = ("center", "star")
#: Fewer votes of Galaxy Zoo than this say nothing about a galaxy without arms or bar.
FEWEST_VOTES = 10
#: Of what is learned from these masks: name as the Hub spells it, and what to do.
LICENCE = (
    "other",
    "Images and masks are of SDSS data release 17, which are public: acknowledge SDSS as its pages ask\n"
    "(https://www.sdss.org/collaboration/citing-sdss/) and cite the paper below. For weights that a training started from,\n"
    "their own licence.",
)


def load_drawn(data_dir: str, shares: Sequence[float] = SHARES) -> datasets.DatasetDict:
    """The splits train, validation and test; a galaxy that was shown as two subjects is on one side.

    Args:
        data_dir: folder or URL of what ``skyset build gz3d`` made.
        shares: of the three splits. The side of a galaxy follows from its MaNGA id and the shares alone.

    Returns:
        Rows with ``object_id``, ``image``, ``segmentation``, ``total_classifications`` and ``scale``, in numpy.

    Raises:
        UserError: no such folder, or a split without galaxies.
    """
    rows = load_splits(data_dir, "default", "gz3d")["train"]
    names = ["object_id", "image", "segmentation", "total_classifications", "scale"]
    rows = rows.select_columns(names).with_format("numpy")
    side = np.array([split_of(str(name), "gz3d", tuple(shares)) for name in rows["object_id"]])
    splits = datasets.DatasetDict({name: rows.select(np.flatnonzero(side == name)) for name in SPLITS})
    if empty := [name for name in SPLITS if not len(splits[name])]:
        raise UserError(f"none of {len(rows)} galaxies falls into the {empty[0]} split: give other --split_shares, or more")
    return splits


def volunteers_of(rows: datasets.Dataset, classes: Sequence[str] = CLASSES, absent_below: float = 0.0) -> np.ndarray:
    """How many volunteers each mask is of, float32 (rows, classes); ``NOT_ASKED`` where an empty mask is no answer.

    It is 15, as in the paper; where a mask counts more than that on one pixel (galaxies that were shown more often), as many
    as the mask's largest count. All pixels of the masks are read once.

    Args:
        rows: of ``load_drawn``.
        classes: some of center, star, spiral, bar.
        absent_below: an empty mask of arms or bar counts as drawn by nobody of 15 where fewer than this share of at least
            ten votes in Galaxy Zoo saw one; 0: it never counts.
    """
    chosen = [CLASSES.index(name) for name in classes]
    shape = shape_of(rows, "segmentation")
    read = rows.select_columns(["segmentation", "total_classifications"]).with_format("arrow")
    parts = []
    with progress_bar(total=len(rows), desc="masks", unit="galaxy", disable=len(rows) < 200) as bar:
        for batch in read.iter(16):
            peaks = numbers(batch["segmentation"], "array").reshape(-1, *shape).max(axis=(2, 3))
            votes = numbers(batch["segmentation"], "vote_fraction").reshape(len(peaks), -1)
            parts.append(_asked(peaks, votes, numbers(batch["total_classifications"]), absent_below)[:, chosen])
            bar.update(len(peaks))
    return np.concatenate(parts) if parts else np.zeros((0, len(chosen)), np.float32)


def _asked(peaks: np.ndarray, votes: np.ndarray, total: np.ndarray, absent_below: float) -> np.ndarray:
    """``volunteers_of`` for largest counts (rows, 4), shares of votes (rows, 4) and numbers of voters (rows,)."""
    drawn = peaks > 0
    everybody = np.isin(CLASSES, OF_EVERYBODY)
    somebody = drawn[:, everybody].any(axis=1)
    known = drawn | (everybody & somebody[:, None])
    voted = (total >= FEWEST_VOTES)[:, None] & (votes >= 0) & (votes < absent_below)
    return np.where(known | (voted & ~everybody), np.maximum(peaks, DRAWERS), NOT_ASKED).astype(np.float32)


def drawn_galaxies(
    rows: datasets.Dataset, volunteers: np.ndarray, size: int, channels: int = 3, classes: Sequence[str] = CLASSES
) -> Rows:
    """Rows of ``load_drawn`` as a map-style torch dataset.

    Each is ``pixel_values`` uint8 (channels, size, size), ``masks`` uint8 (classes, size, size), and ``labels`` float32
    (classes,): how many volunteers each mask is of.

    Args:
        rows: of ``load_drawn``.
        volunteers: of them, see ``volunteers_of``.
        size: pixels per side.
        channels: that the model takes.
        classes: some of center, star, spiral, bar.
    """
    chosen = [CLASSES.index(name) for name in classes]
    shapes = {name: shape_of(rows, name) for name in ("image", "segmentation")}
    pixels = functools.partial(_pixels_of, shape=shapes["image"], size=size, channels=channels)
    masks = functools.partial(_masks_of, shape=shapes["segmentation"], chosen=chosen, size=size)
    read = {"pixel_values": ("image", pixels), "masks": ("segmentation", masks)}
    return Rows(rows.with_format("arrow"), read, {"labels": torch.from_numpy(volunteers)})


def _pixels_of(column: pa.ChunkedArray, shape: tuple[int, ...], size: int, channels: int) -> Tensor:
    return to_tensor(numbers(column).reshape(shape), size, channels)


def _masks_of(column: pa.ChunkedArray, shape: tuple[int, ...], chosen: list[int], size: int) -> Tensor:
    return torch.from_numpy(reduced(numbers(column, "array").reshape(shape)[chosen], size))


def shape_of(rows: datasets.Dataset, column: str) -> tuple[int, ...]:
    """Of the ``image`` (height, width, 3) or the masks in ``segmentation`` (4, height, width)."""
    if column == "image":
        return tuple(rows.features["image"].shape)
    return len(CLASSES), *rows.features["segmentation"]["array"].feature.shape


def numbers(column: pa.ChunkedArray, inside: str | None = None) -> np.ndarray:
    """All numbers of a column in one row, not copied: lists of lists by way of Python take a hundred times as long.

    Args:
        column: of numbers, lists, or arrays of `datasets`, in any nesting.
        inside: the field to take, where the column holds dictionaries.
    """
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    array = array if inside is None else array.field(inside)
    while not pa.types.is_primitive(array.type):
        array = array.storage if isinstance(array, pa.ExtensionArray) else array.flatten()
    return array.to_numpy(zero_copy_only=False)


def reduced(masks: np.ndarray, size: int) -> np.ndarray:
    """Counts (classes, size, size) over the middle square of (classes, height, width): means, rounded to whole counts."""
    height, width = masks.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(np.ascontiguousarray(masks[:, top : top + side, left : left + side]))[None]
    still = torch.zeros(1), torch.ones(1), torch.ones(1), torch.zeros(1, 2)
    return resample_counts(square, size, *still)[0].numpy()


def check_asked(volunteers: Mapping[str, np.ndarray], classes: Sequence[str]) -> None:
    """Say which classes cannot be measured.

    Args:
        volunteers: ``volunteers_of`` each split.
        classes: of its columns.

    Raises:
        UserError: a class cannot be learned: no mask of it in the training split counts; or a split has no mask at all.
    """
    for split, asked in volunteers.items():
        nobody = [name for name, some in zip(classes, (asked > 0).any(axis=0), strict=True) if not some]
        if not nobody:
            continue
        said = f"no {nobody[0]} was drawn on any of the {len(asked)} galaxies of the {split} split"
        rest = [name for name in classes if name not in nobody]
        if not rest:
            raise UserError(f"{said}, nor another class: nothing to learn or measure there")
        if split == "train":
            raise UserError(f"{said}: leave it out with --classes {' '.join(rest)}")
        logger.warning("%s: it is not measured there", said)


def galaxies_text(splits: dict[str, np.ndarray], classes: Sequence[str], absent_below: float, simulated: bool) -> str:
    """Which galaxies and masks these are: for a card.

    Args:
        splits: ``volunteers_of`` each split.
        classes: of its columns.
        absent_below: as in ``volunteers_of``.
        simulated: the galaxies are those of ``skyset.testing.gz3d``.
    """
    lines = ["| split | galaxies | " + " | ".join(f"{name}: masks that count" for name in classes) + " |"]
    lines.append("|---|---|" + "---|" * len(classes))
    for split, volunteers in splits.items():
        counts = " | ".join(str(count) for count in (volunteers > 0).sum(axis=0))
        lines.append(f"| {split} | {len(volunteers)} | {counts} |")
    more = sum(int((volunteers > DRAWERS).sum()) for volunteers in splits.values())
    rule = "An empty mask of spiral arms or of a bar is no answer, as most galaxies were not shown to those who drew them"
    if absent_below:
        rule += f", unless fewer than {absent_below:.0%} of at least {FEWEST_VOTES} votes in Galaxy Zoo saw one: then it is"
    else:
        rule += (
            ": what the model says of an arm or a bar holds where there is one, and on others it has never been corrected"
        )
    whose = (
        "**The galaxies and their masks are simulated** (`skyset.testing.gz3d`): the figures say that the training works, "
        "nothing about real galaxies.\n\n"
        if simulated
        else ""
    )
    return (
        f"{whose}{chr(10).join(lines)}\n\n{rule}. Where nobody marked centre or stars, no empty mask counts. "
        f"A count is taken of {DRAWERS} volunteers; {more} masks count more on a pixel, and are taken of as many as that.\n"
    )


def shares_of(row: dict, volunteers: np.ndarray, classes: Sequence[str] = CLASSES) -> np.ndarray:
    """What the volunteers drew on a galaxy, float32 (classes, height, width) shares; NaN where nobody was asked.

    Args:
        row: of ``load_drawn``.
        volunteers: (classes,) of it, see ``volunteers_of``.
        classes: some of center, star, spiral, bar.
    """
    counts = np.asarray(row["segmentation"]["array"])[[CLASSES.index(name) for name in classes]]
    of = np.where(volunteers > 0, volunteers, np.nan).astype(np.float32)
    return counts.astype(np.float32) / of[:, None, None]


def are_simulated(rows: datasets.Dataset, look_at: int = 8) -> bool:
    """Whether galaxies are those of ``skyset.testing.gz3d``, which bear the word in their images."""
    from skyset.testing.stamps import is_stamped

    return any(is_stamped(np.asarray(rows[row]["image"])) for row in range(min(look_at, len(rows))))
