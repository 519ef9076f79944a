"""How good predicted shares of volunteers are, from sums over the pixels of each galaxy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skyset.loaders.gz3d import DRAWERS

#: Volunteers of 15 from which on a pixel belongs to a class, for IoU.
VOTERS = (3, 8)
#: How metrics are called, in their order.
NAMES = {
    "binomial_loss": "binomial loss",
    "loss_floor": "lowest possible loss",
    **{f"iou_{voters}": f"IoU at {voters} of {DRAWERS}" for voters in VOTERS},
    "correlation": "correlation",
    "ece": "calibration error",
}
#: Of the share, in which predictions are compared with what was drawn.
BINS = 10
#: Sums over the pixels of a galaxy and class; p is the predicted share, q the drawn one.
SUMS = (
    "pixels",
    "cross-entropy",
    "entropy",
    *(f"{what} at {voters}" for voters in VOTERS for what in ("both", "either")),
    "p",
    "q",
    "pp",
    "qq",
    "pq",
    *(f"{what} in bin {bin}" for what in ("pixels", "p", "q") for bin in range(BINS)),
)
_PLACE = {name: place for place, name in enumerate(SUMS)}
_BINS = {what: slice(_PLACE[f"{what} in bin 0"], _PLACE[f"{what} in bin 0"] + BINS) for what in ("pixels", "p", "q")}


def statistics(shares: Tensor, counts: Tensor, volunteers: Tensor) -> Tensor:
    """Sums over the pixels of each galaxy, from which ``mask_metrics`` follows.

    Args:
        shares: float (batch, classes, height, width), predicted, 0 to 1.
        counts: (batch, classes, height, width), how many volunteers put a pixel into a class.
        volunteers: (batch, classes), of how many; 0 or less where nobody was asked.

    Returns:
        float64 (batch, classes, ``len(SUMS)``); all 0 where nobody was asked.
    """
    p = shares.double().flatten(2)
    q = (counts.double() / volunteers.double().clamp(min=1)[:, :, None, None]).flatten(2)
    sums = [torch.ones_like(p), _cross_entropy(q, p.clamp(1e-6, 1 - 1e-6)), _cross_entropy(q, q)]
    for voters in VOTERS:
        limit = voters / DRAWERS - 1e-9  # 3 of 15 are no less than a share of 3 / 15, whatever the rounding
        ours, theirs = p >= limit, q >= limit
        sums += [(ours & theirs).double(), (ours | theirs).double()]
    sums += [p, q, p * p, q * q, p * q]
    place = (p * BINS).long().clamp(max=BINS - 1)
    binned = [
        torch.zeros(*p.shape[:2], BINS, dtype=p.dtype, device=p.device).scatter_add_(2, place, x) for x in (sums[0], p, q)
    ]
    found = torch.cat([torch.stack([one.sum(dim=2) for one in sums], dim=2), *binned], dim=2)
    return torch.where((volunteers > 0)[:, :, None], found, torch.zeros_like(found))


def _cross_entropy(q: Tensor, p: Tensor) -> Tensor:
    return -(torch.xlogy(q, p) + torch.xlogy(1 - q, 1 - p))


def metrics_of(sums: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """All metrics by name; those of classes of which nothing can be said are NaN, and left out of the mean over the classes.

    ``binomial_loss`` is the cross-entropy a pixel and volunteer, averaged over the masks that count; ``loss_floor`` the
    lowest there is, of whoever predicts the drawn shares. ``iou_3`` and ``iou_8``: pixels that both the model and 3 (8) of
    15 volunteers put into the class, over those that either does, summed over galaxies. ``correlation``: Pearson's, of
    predicted and drawn shares over all pixels. ``ece``: distance of mean predicted and drawn share in ten bins of the
    predicted one, averaged over pixels. Each also by class, ``iou_3_bar``.

    Args:
        sums: (galaxies, classes, ``len(SUMS)``).
        classes: their names.
    """
    found = _sampled(sums, np.ones((1, len(sums))))
    labels = ("", *(f"_{label}" for label in classes))
    return {f"{name}{label}": float(found[name][0, k]) for k, label in enumerate(labels) for name in NAMES}


def _sampled(sums: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of samples of the galaxies: by name, (samples, 1 + classes), of all classes first.

    Args:
        sums: (galaxies, classes, ``len(SUMS)``).
        times: (samples, galaxies), how often a galaxy is in a sample.
    """
    total = np.tensordot(times, sums, axes=1)
    masks = times @ (sums[:, :, 0] > 0)
    columns = {name: total[:, :, place] for name, place in _PLACE.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = np.where(masks > 0, columns["pixels"], np.nan)
        found = {f"iou_{v}": columns[f"both at {v}"] / columns[f"either at {v}"] for v in VOTERS}
        found["correlation"] = _correlation(*(columns[name] / pixels for name in ("p", "q", "pp", "qq", "pq")))
        found["ece"] = np.abs(total[:, :, _BINS["p"]] - total[:, :, _BINS["q"]]).sum(axis=2) / pixels
        known = np.isfinite(np.stack(list(found.values())))
        whole = {
            name: np.where(known[k].any(axis=1), np.nansum(values, axis=1) / known[k].sum(axis=1), np.nan)
            for k, (name, values) in enumerate(found.items())
        }
        for name, what in (("binomial_loss", "cross-entropy"), ("loss_floor", "entropy")):
            losses = times @ (sums[:, :, _PLACE[what]] / np.maximum(1, sums[:, :, 0]))
            found[name] = losses / masks
            whole[name] = losses.sum(axis=1) / masks.sum(axis=1)
    return {name: np.column_stack([whole[name], found[name]]) for name in NAMES}


def _correlation(p: np.ndarray, q: np.ndarray, pp: np.ndarray, qq: np.ndarray, pq: np.ndarray) -> np.ndarray:
    """Pearson's, from means of values, squares and products; NaN where one of the two does not vary."""
    spread = (pp - p * p) * (qq - q * q)
    return np.where(spread > 1e-18, (pq - p * q) / np.sqrt(np.maximum(spread, 1e-18)), np.nan)


def bootstrap_errors(sums: np.ndarray, classes: Sequence[str], samples: int = 500, seed: int = 0) -> dict[str, float]:
    """Standard deviation of each of ``metrics_of`` over samples of the galaxies (with replacement); the model is fixed."""
    times = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), samples)
    labels = ("", *(f"_{label}" for label in classes))
    found = {name: _deviation(values) for name, values in _sampled(sums, times.astype(float)).items()}
    return {f"{name}{label}": float(found[name][k]) for k, label in enumerate(labels) for name in NAMES}


def _deviation(values: np.ndarray) -> np.ndarray:
    """Standard deviation of each column over its finite values; NaN where there is none."""
    known = np.isfinite(values)
    count = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    mean = np.where(known, values, 0).sum(axis=0) / count
    return np.sqrt(np.where(known, (values - mean) ** 2, 0).sum(axis=0) / count)


def calibration_of(sums: np.ndarray, seed: int = 0, samples: int = 200) -> list[tuple[np.ndarray, ...]]:
    """Per class: mean predicted share, drawn share, its error over galaxies, and pixels, of each bin that is not empty."""
    dice = np.random.default_rng(seed)
    found = []
    for of_class in sums.transpose(1, 0, 2):
        pixels, p, q = (of_class[:, _BINS[what]] for what in ("pixels", "p", "q"))
        used = pixels.sum(axis=0) > 0
        drawn = dice.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), samples)
        counts = drawn @ pixels[:, used]
        shares = np.where(counts > 0, drawn @ q[:, used] / np.maximum(counts, 1), np.nan)
        count = pixels.sum(axis=0)[used]
        found.append((p.sum(axis=0)[used] / count, q.sum(axis=0)[used] / count, _deviation(shares), count))
    return found


def classes_table(sums: np.ndarray, classes: Sequence[str]) -> str:
    """Markdown: a row a class, a column a metric, with standard errors over galaxies; empty where nothing can be said."""
    found, errors = metrics_of(sums, classes), bootstrap_errors(sums, classes)
    lines = ["| | masks | " + " | ".join(NAMES.values()) + " |", "|---|---|" + "---|" * len(NAMES)]
    for label, masks in zip(classes, (sums[:, :, 0] > 0).sum(axis=0), strict=True):
        names = [f"{name}_{label}" for name in NAMES]
        cells = (f"{found[n]:.3f} ± {errors[n]:.3f}" if np.isfinite(found[n]) else "" for n in names)
        lines.append(f"| {label} | {masks} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
