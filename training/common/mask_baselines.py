"""What a network that draws masks has to beat: the mean mask, a radial profile, regressions on the colours of a pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skyset.training.common.images import collate
from skyset.training.common.mask_metrics import statistics
from skyset.training.common.views import Views

Predictor = Callable[[Tensor], Tensor]


def score_baselines(train: Dataset, test: Dataset, views: Views) -> dict[str, np.ndarray]:
    """``mask_metrics.statistics`` of simpler models for the test galaxies, by the model's name.

    Args:
        train, test: rows with ``pixel_values``, ``masks`` and ``labels``.
        views: what the network sees of them in evaluation, without normalisation.
    """
    learned = [torch.cat(parts) for parts in zip(*_seen(train, views), strict=True)]
    found: dict[str, list[Tensor]] = {}
    models = fit_baselines(*learned)
    for images, counts, volunteers in _seen(test, views):
        for name, predict in models.items():
            found.setdefault(name, []).append(statistics(predict(images), counts, volunteers))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _seen(rows: Dataset, views: Views):
    """Images, counts and volunteers, 32 galaxies at a time."""
    for batch in DataLoader(rows, batch_size=32, collate_fn=collate):
        yield *views.eval().with_masks(batch["pixel_values"], batch["masks"]), batch["labels"]


def fit_baselines(
    images: Tensor, counts: Tensor, volunteers: Tensor, seed: int = 0, most: int = 60_000
) -> dict[str, Predictor]:
    """Simpler models by name: each takes images and gives shares (batch, classes, size, size).

    Args:
        images: float32 (galaxies, channels, size, size), 0 to 1, to learn from.
        counts, volunteers: of them, as in ``statistics``.
        seed: of the pixels that the regressions learn from.
        most: of them.
    """
    weight = (volunteers > 0).double()[:, :, None, None]
    shares = counts.double() / volunteers.double().clamp(min=1)[:, :, None, None] * weight
    mean = (shares.sum(dim=0) / weight.sum(dim=0).clamp(min=1)).float()
    size = images.shape[-1]
    rings, profile = _rings(size), _profile(mean, _rings(size))
    found: dict[str, Predictor] = {
        "mean mask": lambda images: mean.expand(len(images), -1, -1, -1),
        "mean share by distance from the centre": lambda images: profile[:, rings].expand(len(images), -1, -1, -1),
    }
    chosen = np.random.default_rng(seed).permutation(len(images) * size * size)[:most]
    galaxy, pixel = np.divmod(chosen, size * size)
    for name, place in (("colours, logistic regression", False), ("colours and distance, logistic regression", True)):
        features = _features(images, place)[galaxy, pixel].numpy()
        models = [
            _fit_logistic(features, shares[:, k].flatten(1)[galaxy, pixel].numpy(), (volunteers[:, k] > 0).numpy()[galaxy])
            for k in range(shares.shape[1])
        ]
        found[name] = lambda images, models=models, place=place: _apply(models, images, place)
    return found


def _rings(size: int) -> Tensor:
    """Distance of each pixel from the centre, in whole pixels: int64 (size, size)."""
    offset = torch.arange(size) - (size - 1) / 2
    return torch.hypot(offset[:, None], offset[None, :]).round().long()


def _profile(mean: Tensor, rings: Tensor) -> Tensor:
    """Means (classes, rings) of maps (classes, size, size) over pixels of the same distance."""
    count = torch.bincount(rings.flatten())
    total = torch.zeros(len(mean), len(count)).index_add_(1, rings.flatten(), mean.flatten(1))
    return total / count.clamp(min=1)


def _features(images: Tensor, place: bool) -> Tensor:
    """Per pixel: the channels, their squares and products, and the distance from the centre if asked for."""
    flat = images.flatten(2)
    channels = range(flat.shape[1])
    columns = [flat[:, a] for a in channels] + [flat[:, a] * flat[:, b] for a in channels for b in channels if a <= b]
    if place:
        distance = (_rings(images.shape[-1]).flatten() / images.shape[-1]).expand(len(images), -1)
        columns += [distance, distance**2]
    return torch.stack(columns, dim=2)


def _fit_logistic(features: np.ndarray, shares: np.ndarray, asked: np.ndarray):
    """A logistic regression of shares: each pixel stands there once as 1 and once as 0, with their weights. Or a share."""
    features, shares = features[asked], shares[asked]
    if not len(shares) or not shares.any() or (shares == 1).all():
        return float(shares.mean()) if len(shares) else 0.0
    rows = np.concatenate([features, features])
    labels, weights = np.repeat([1, 0], len(shares)), np.concatenate([shares, 1 - shares])
    kept = weights > 0
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    return model.fit(rows[kept], labels[kept], logisticregression__sample_weight=weights[kept])


def _apply(models: list, images: Tensor, place: bool) -> Tensor:
    features = _features(images, place)
    flat = features.flatten(0, 1).numpy()
    maps = [np.full(len(flat), one) if isinstance(one, float) else one.predict_proba(flat)[:, 1] for one in models]
    shape = (len(maps), len(images), *images.shape[-2:])
    return torch.from_numpy(np.stack(maps)).reshape(shape).transpose(0, 1).float()
