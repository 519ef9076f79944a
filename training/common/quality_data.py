"""CCDs of the survey ``megacam_iqa``: splits by exposure (and leaked ones), what scales the inputs, rows as tensors."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from skyset.errors import UserError
from skyset.loaders.megacam_iqa import CLASSES
from skyset.splits import SPLITS, split_of
from skyset.training.common.data import load_splits
from skyset.training.common.images import Rows

logger = logging.getLogger("skyset.training")

#: Training CCDs that scales are taken of, and rows that are read at a time.
MOST_FOR_SCALES, TOGETHER = 2000, 256
#: Of a median absolute deviation, to be a standard deviation where errors are normal.
NORMAL = 1.4826


@dataclass(frozen=True)
class Known:
    """What is known of CCDs.

    Args:
        labels, seconds: of the exposure, int64 (rows,); -1 where there is no second.
        exposures: their names, (rows,).
    """

    labels: np.ndarray
    seconds: np.ndarray
    exposures: np.ndarray

    @classmethod
    def of(cls, rows: datasets.Dataset) -> Known:
        labels, seconds = (np.array([-1 if v is None else v for v in rows[name]], np.int64) for name in ("label", "label2"))
        return cls(labels, seconds, np.asarray(rows["FITS_ID"]).astype(str))


def load_ccds(data_dir: str, leaked: bool = False) -> tuple[datasets.DatasetDict, int]:
    """The splits train, validation and test of the CCDs that have a label and finite inputs.

    Args:
        data_dir: what ``skyset build megacam_iqa`` made: its folder or URL.
        leaked: split by CCD instead, so that each exposure is on every side: figures are then no measurement.

    Returns:
        The splits, and how many CCDs were left out because a pixel or a hit is not a finite number.

    Raises:
        UserError: no such data, nothing with a label in a split, or training CCDs of one class only.
    """
    splits = load_splits(data_dir, "representative", "megacam_iqa")
    if missing := [name for name in SPLITS if name not in splits]:
        raise UserError(f"{data_dir} has no {missing[0]} split")
    if leaked:
        rows = datasets.concatenate_datasets([splits[name] for name in SPLITS])
        side = np.array([split_of(str(name), "megacam_iqa leaked", (0.6, 0.2, 0.2)) for name in rows["object_id"]])
        splits = datasets.DatasetDict({name: rows.select(np.flatnonzero(side == name)) for name in SPLITS})
    kept, spoilt = {}, 0
    for name in SPLITS:
        labels = Known.of(splits[name]).labels
        if not (labels >= 0).all():
            logger.warning("%s: %d CCDs without a label are left out", name, int((labels < 0).sum()))
        labelled = splits[name].select(np.flatnonzero(labels >= 0))
        finite = are_finite(labelled)
        if not finite.all():
            first = labelled[int(np.flatnonzero(~finite)[0])]["object_id"]
            logger.warning(
                "%s: %d CCDs with pixels or hits that are no numbers are left out (%s)", name, (~finite).sum(), first
            )
        spoilt += int((~finite).sum())
        kept[name] = labelled.select(np.flatnonzero(finite)).with_format("numpy")
        if not len(kept[name]):
            raise UserError(f"the {name} split has no CCD with a label")
    classes = [set(Known.of(kept[name]).labels.tolist()) for name in SPLITS]
    if len(classes[0]) < 2:
        raise UserError(f"all training CCDs are {CLASSES[classes[0].pop()]}: two classes are needed, or more")
    if unseen := (classes[1] | classes[2]) - classes[0]:
        logger.warning("no training CCD is %s", " or ".join(CLASSES[each] for each in sorted(unseen)))
    return datasets.DatasetDict(kept), spoilt


def are_finite(rows: datasets.Dataset) -> np.ndarray:
    """Whether all pixels and hits of each row are finite numbers, and no hit is below 0: bool (rows,)."""
    found = [np.zeros(0, bool)]
    for batch in rows.select_columns(["image", "hits"]).with_format("numpy").iter(TOGETHER):
        image, hits = np.asarray(batch["image"]), np.asarray(batch["hits"])
        found.append(np.isfinite(image).all(axis=(1, 2)) & (np.isfinite(hits) & (hits >= 0)).all(axis=1))
    return np.concatenate(found)


def shape_of(rows: datasets.Dataset) -> tuple[tuple[int, int], int]:
    """Rows and columns of the map, and pixels a side of a cutout.

    Raises:
        UserError: image and hits are not of one map.
    """
    row = rows.with_format("numpy")[0]
    (height, width), count = np.shape(row["image"]), len(row["hits"])
    stamp = math.isqrt(height * width // count)
    if stamp * stamp * count != height * width or height % stamp or width % stamp:
        raise UserError(f"images of {height} x {width} pixels are not cutouts of {count} groups")
    return (height // stamp, width // stamp), stamp


def scales_of(rows: datasets.Dataset) -> dict:
    """Medians and (normal) median absolute deviations of inputs, for a `QualityConfig`.

    Of pixels those that are not exactly 0 count, which is what an empty group or a bad pixel has. A deviation of 0 is taken
    for 1.

    Args:
        rows: of training, with finite inputs.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST_FOR_SCALES])
    table = rows.select(chosen).select_columns(["image", "hits"]).with_format("numpy")[:]
    pixels = np.asarray(table["image"], np.float32)
    pixels = pixels[pixels != 0] if (pixels != 0).any() else np.zeros(1, np.float32)
    median, hits = float(np.median(pixels)), np.log1p(np.asarray(table["hits"], np.float64))
    hits_median = np.median(hits, axis=0)
    hits_mad = NORMAL * np.median(np.abs(hits - hits_median), axis=0)
    return {
        "image_median": median,
        "image_mad": NORMAL * float(np.median(np.abs(pixels - median))) or 1.0,
        "hits_median": hits_median.tolist(),
        "hits_mad": np.where(hits_mad > 0, hits_mad, 1.0).tolist(),
    }


def ccds(rows: datasets.Dataset) -> Rows:
    """Rows as tensors: ``pixel_values`` float32 (height, width), ADU; ``hits`` float32 (groups,); ``labels`` int64."""
    labels = torch.from_numpy(Known.of(rows).labels)
    read = {"pixel_values": ("image", as_floats), "hits": ("hits", as_floats)}
    return Rows(rows, read, {"labels": labels})


def as_floats(values) -> torch.Tensor:
    """Numbers of any kind, float32."""
    return torch.from_numpy(np.array(values, np.float32))
