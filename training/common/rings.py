"""Galaxies labelled as ringed or not, from the survey ``gz_decals``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import datasets
import numpy as np

import skyset  # noqa: F401  registers the surveys with datasets
from skyset import registry
from skyset.errors import PartitionError
from skyset.errors import UserError
from skyset.loaders.gz_decals import CLASSES
from skyset.loaders.gz_decals import NO_RING_BELOW
from skyset.loaders.gz_decals import RING_ABOVE
from skyset.manifest import Manifest
from skyset.splits import SPLITS


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


def revision_of(data_dir: str, config: str) -> str:
    """Which build of the data: the first 12 digits of the SHA-256 of the config's manifest.

    Args:
        data_dir: a survey's name, folder or URL.
        config: one of its datasets.

    Raises:
        UserError: there is no manifest.
    """
    named = data_dir in registry.surveys()
    root = registry.find_root(data_dir if named else "", None if named else data_dir, config=config or "default")
    if root is None:
        raise UserError(f"no {data_dir} partitions found: give their folder")
    return hashlib.sha256(Manifest.load(root).to_json().encode()).hexdigest()[:12]
