"""Spiral and elliptical galaxies of the survey ``sdss_galaxy_zoo``: splits, photometry, simpler models, redshifts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise

import datasets
import numpy as np
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestClassifier

from skyset.errors import UserError
from skyset.loaders.sdss_galaxy_zoo import BANDS, SURVEY
from skyset.loaders.sdss_galaxy_zoo import CLASSES as ALL_CLASSES
from skyset.splits import SHARES, SPLITS, split_of
from skyset.training.common.baselines import components_scores, thumbnail
from skyset.training.common.data import load_splits
from skyset.training.common.linear import sigmoid
from skyset.training.common.metrics import auc, binomial_interval

logger = logging.getLogger("skyset.training")

TASK = "morphology"
#: What is learned: galaxies of which the volunteers were sure.
CLASSES = ALL_CLASSES[:2]
#: Of a model trained on these galaxies: name as the Hub spells it, and what to do.
LICENCE = ("other", f"Of the galaxies and votes: {SURVEY.license}.")
#: Pixels a side of the images that principal components are taken of, and trees of a forest.
THUMBNAIL, TREES = 32, 300
#: Bins of redshift with as many galaxies each, and the least of them.
BINS, LEAST = 5, 10


def load_morphology(data_dir: str, shares: Sequence[float] = SHARES) -> datasets.DatasetDict:
    """The splits train, validation and test of the galaxies that are spiral or elliptical.

    Args:
        data_dir: what ``skyset build sdss_galaxy_zoo`` made: its folder or URL.
        shares: of the three splits. A galaxy's side follows from its ``object_id`` and the shares alone.

    Returns:
        Rows with all the survey's columns; ``label`` is 0 (spiral) or 1 (elliptical).

    Raises:
        UserError: no such data, or a split without one of the two classes.
    """
    rows = datasets.concatenate_datasets(list(load_splits(data_dir, "default", "sdss_galaxy_zoo").values()))
    labels = np.array([-1 if each is None else each for each in rows["label"]])
    sure = np.isin(labels, range(len(CLASSES)))
    if not sure.all():
        logger.warning("%d of %d galaxies are neither %s: left out", (~sure).sum(), len(sure), " nor ".join(CLASSES))
    side = np.array([split_of(str(name), "sdss_galaxy_zoo", tuple(shares)) for name in rows["object_id"]])
    splits = datasets.DatasetDict({name: rows.select(np.flatnonzero(sure & (side == name))) for name in SPLITS})
    for name in SPLITS:
        counts = np.bincount(np.asarray(splits[name]["label"], int), minlength=len(CLASSES))
        if not counts.all():
            told = " and ".join(f"{count} {kind}" for count, kind in zip(counts, CLASSES, strict=True))
            raise UserError(f"the {name} split has {told} galaxies: both are needed (--split_shares, or more galaxies)")
    return splits


def photometry(rows: datasets.Dataset) -> np.ndarray:
    """What SDSS measured of galaxies, float64 (rows, 9), NaN where it did not.

    Four colours of model magnitudes, and r-band Petrosian magnitude, all without Galactic extinction; radii (arcsec) of
    50 % and 90 % of the flux, their ratio, and surface brightness within the first (mag/arcsec^2). The redshift is not
    among them: images do not show it either.
    """
    names = [f"{kind}_{band}" for kind in ("modelMag", "extinction") for band in BANDS]
    names += ["petroMag_r", "petroR50_r", "petroR90_r"]
    table = rows.select_columns(names).with_format("numpy")[:]
    value = {name: np.asarray(table[name], np.float64) for name in names}
    model = np.stack([value[f"modelMag_{band}"] - value[f"extinction_{band}"] for band in BANDS], axis=1)
    bright, half, wide = value["petroMag_r"] - value["extinction_r"], value["petroR50_r"], value["petroR90_r"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, surface = wide / half, bright + 2.5 * np.log10(2 * np.pi * half**2)
    columns = np.column_stack([-np.diff(model, axis=1), bright, half, wide, ratio, surface])
    return np.where(np.isfinite(columns), columns, np.nan)


def score_simpler(train: datasets.Dataset, test: datasets.Dataset, seed: int = 0) -> dict[str, np.ndarray]:
    """Probabilities that the test rows are elliptical, by the name of the simpler model that learned them in training."""
    labels = np.asarray(train["label"])
    pixels = [np.array([thumbnail(image, THUMBNAIL) for image in rows["image"]]) for rows in (train, test)]
    known = [photometry(rows) for rows in (train, test)]
    middle = [np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else 0.0 for column in known[0].T]
    filled = [np.where(np.isnan(values), middle, values) for values in known]
    forest = RandomForestClassifier(TREES, min_samples_leaf=2, random_state=seed).fit(filled[0], labels)
    return {
        "30 principal components of the pixels, logistic regression": sigmoid(components_scores(*pixels, labels)),
        "photometry, random forest": forest.predict_proba(filled[1])[:, 1],
    }


def redshift_bins(redshift: np.ndarray) -> np.ndarray:
    """Limits of at most ``BINS`` bins with as many galaxies each, ``LEAST`` or more; none where too few have a redshift.

    Args:
        redshift: (rows,), NaN where there is none.
    """
    known = redshift[np.isfinite(redshift)]
    count = min(BINS, len(known) // LEAST)
    return np.unique(np.quantile(known, np.linspace(0, 1, count + 1))) if count else np.empty(0)


def by_redshift(redshift: np.ndarray) -> list[tuple[str, float, np.ndarray]]:
    """Name, median redshift and rows of each bin; last, with NaN, the galaxies that are in none."""
    limits, parts = redshift_bins(redshift), []
    place = np.searchsorted(limits[1:-1], redshift, side="right")
    known = np.isfinite(redshift) & (len(limits) > 1)
    for number, ends in enumerate(pairwise(limits)):
        rows = np.flatnonzero(known & (place == number))
        parts.append(("{:.3f} to {:.3f}".format(*ends), float(np.median(redshift[rows])), rows))
    rest = np.flatnonzero(~known)
    return [*parts, ("not known" if parts else "any", float("nan"), rest)] if len(rest) else parts


def redshift_table(redshift: np.ndarray, labels: np.ndarray, scores: Mapping[str, np.ndarray], threshold: float) -> str:
    """Markdown: a row a bin of redshift; accuracy and AUC of each model, AUC where both classes are there."""
    heads = [f"{name}: {what}" for name in scores for what in ("accuracy", "AUC")]
    lines = ["| redshift | galaxies | elliptical | " + " | ".join(heads) + " |", "|---|" + "---|" * (2 + len(heads))]
    for name, _, rows in by_redshift(redshift):
        cells = [f"{len(rows)}", f"{labels[rows].mean():.0%}"]
        for values in scores.values():
            right = np.mean((values[rows] >= threshold) == labels[rows])
            both = 0 < labels[rows].sum() < len(rows)
            cells += [f"{right:.3f}", f"{auc(labels[rows], values[rows]):.3f}" if both else ""]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def redshift_figure(redshift: np.ndarray, labels: np.ndarray, scores: Mapping[str, np.ndarray], threshold: float) -> Figure:
    """Accuracy of each model over redshift, with 68 % binomial errors; below, the share of ellipticals."""
    parts = [part for part in by_redshift(redshift) if np.isfinite(part[1])]
    figure = Figure(figsize=(6, 5.5 + 0.22 * len(scores)), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    where = np.array([middle for _, middle, _ in parts])
    width = np.ptp(where) / 60 if len(where) > 1 else 0.0
    for number, (name, values) in enumerate(scores.items()):
        hits = np.array([np.sum((values[rows] >= threshold) == labels[rows]) for _, _, rows in parts])
        count = np.array([len(rows) for _, _, rows in parts])
        low, high = binomial_interval(hits, count)
        errors = np.clip([hits / count - low, high - hits / count], 0, None)
        place = where + width * (number - (len(scores) - 1) / 2)
        axes.errorbar(place, hits / count, errors, marker="o", markersize=4, linewidth=1, capsize=2, label=name)
    below.plot(where, [labels[rows].mean() for _, _, rows in parts], marker="o", markersize=4, color="0.4", linewidth=1)
    axes.set(ylabel="accuracy", title="By redshift")
    axes.set_ylim(top=1.01)
    below.set(xlabel="redshift (median of a bin)", ylabel="elliptical", ylim=(0, 1))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize="small")
    return figure


def galaxies_text(splits: datasets.DatasetDict, simulated: bool) -> str:
    """What galaxies these are, and what follows for others: for a card."""
    lines = [SIMULATED] if simulated else []
    lines += ["| split | " + " | ".join(CLASSES) + " |", "|---|" + "---|" * len(CLASSES)]
    for name, rows in splits.items():
        counts = np.bincount(np.asarray(rows["label"]), minlength=len(CLASSES))
        lines.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines) + LABELS


SIMULATED = "**Simulated galaxies** (`skyset.testing.sdss`: the archive was on this machine), far easier than real ones.\n"
LABELS = """

Labels: galaxies whose debiased votes in Galaxy Zoo 1 are above 0.8 for spiral or for elliptical. Those of which
volunteers were less sure, more than half of the survey, are not among them: of galaxies as they come, figures are
lower. Each image is scaled to its galaxy (2.5 x petroR90_r across), so that its size on the sky is not seen.
"""
