"""Galaxies labelled as ringed or not, from the survey ``gz_decals``."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np

import skyset  # noqa: F401  registers the surveys with datasets
from skyset.errors import PartitionError, UserError
from skyset.loaders.gz_decals import CLASSES, NO_RING_BELOW, RING_ABOVE
from skyset.splits import SPLITS
from skyset.training.common.baselines import fractions

#: Of a model trained on these galaxies: name as the Hub spells it, and what to do.
LICENCE = (
    "cc-by-4.0",
    "The images and votes of Galaxy Zoo DECaLS are under CC BY 4.0 (Zenodo record 4573248): name the authors, see below.\n"
    "The same holds for what was learned from them here; for weights that a training started from, their own licence.",
)


def load_rings(
    data_dir: str, catalog: str = "basic", ring_above: float = RING_ABOVE, no_ring_below: float = NO_RING_BELOW
) -> datasets.DatasetDict:
    """The splits train, validation and test, in which a galaxy never changes side.

    Args:
        data_dir: folder or URL of what ``skyset build gz_decals`` made.
        catalog: ``basic`` (somebody tagged the galaxy as a ring) or ``advanced`` (the share of volunteers who saw a ring).
        ring_above, no_ring_below: shares above and below which a galaxy of the advanced catalogue is labelled; those between
            are left out, as in Walmsley et al. 2022.

    Returns:
        Rows with ``object_id``, ``image`` and ``label`` (1 = ring) at least.

    Raises:
        UserError: no such folder or catalogue, or a split without one of the two classes.
    """
    if "://" not in data_dir and not Path(data_dir).expanduser().is_dir():
        raise UserError(f"no such data_dir: {data_dir}")
    try:
        splits = datasets.load_dataset("gz_decals", f"rings_{catalog}", data_dir=data_dir)
    except (ValueError, OSError, PartitionError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(f"no ring catalogue in {data_dir}: {str(error.__cause__ or error).splitlines()[0]}") from error
    if catalog == "advanced":
        splits = datasets.DatasetDict({k: label_by_votes(rows, ring_above, no_ring_below) for k, rows in splits.items()})
    for name in SPLITS:
        if name not in splits:
            raise UserError(f"{data_dir} has no {name} split")
        counts = np.bincount(np.asarray(splits[name]["label"], int), minlength=2)
        if not counts.all():
            raise UserError(f"the {name} split has {counts[1]} rings and {counts[0]} other galaxies: both are needed")
    return splits


def label_by_votes(rows: datasets.Dataset, ring_above: float, no_ring_below: float) -> datasets.Dataset:
    """The rows whose ``ring_fraction`` is above (``label`` 1) or below (0) the limits.

    Images are not read: `map` would copy all of them.
    """
    share = np.asarray(rows["ring_fraction"], np.float64)
    without = rows.remove_columns("label") if "label" in rows.column_names else rows
    labels = datasets.ClassLabel(names=list(CLASSES))
    labelled = without.add_column("label", (share > ring_above).astype(int), feature=labels)
    return labelled.select(np.flatnonzero((share > ring_above) | (share < no_ring_below)))


def galaxies_text(rows: datasets.Dataset, catalog: str = "basic") -> str:
    """What galaxies these are, and what follows for others: for a card."""
    labels = np.asarray(rows["label"])
    votes = fractions(rows)
    chosen = "Labels: a galaxy that somebody tagged as a ring on the forum, and one that nobody did."
    if votes is not None:
        featured, face_on, spiral = np.min(votes, axis=0)
        chosen += (
            f" They are preselected: by a network's votes, all are\nfeatured ({featured:.2f} or more), face-on (not edge-on "
            f"{face_on:.2f} or more) and spiral ({spiral:.2f} or more)."
        )
    if catalog == "advanced":
        chosen = "Labels: the share of volunteers who saw a ring; galaxies of which they were unsure are left out."
    return (
        f"{len(rows)} galaxies of Galaxy Zoo DECaLS, {labels.mean():.0%} of them rings. {chosen}\n"
        "In a survey as it comes rings are far rarer, most galaxies smooth or edge-on: precision, average precision,\nF1, "
        "accuracy and calibration do not carry over there; whether AUC and recall do has not been measured.\n"
    )
