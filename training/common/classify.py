"""What scripts that train an image classifier share: weights of classes, what `pipeline` needs, chosen rows."""

from __future__ import annotations

import numpy as np
import torch

from skyset.training.common.models import Normalisation


def balanced_weights(labels: np.ndarray, classes: int = 2) -> torch.Tensor:
    """A weight a class, so that all that are there have the same sum over the rows and the mean weight of a row is 1.

    Args:
        labels: (rows,) from 0.
        classes: how many there are; one without rows gets 0.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = np.divide(len(labels), (counts > 0).sum() * counts, out=np.zeros(classes), where=counts > 0)
    return torch.tensor(weights, dtype=torch.float32)


def some_rows(count: int, most: int) -> np.ndarray:
    """Numbers of at most ``most`` of ``count`` rows, drawn with a fixed seed, in their order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def image_processor(model, size: int, normalisation: Normalisation, zoom: float):
    """What the evaluation shows the model, for ``pipeline("image-classification", model=...)``: the middle, resized.

    None for images of other than three bands, which the processors of `transformers` cannot take.
    """
    if model.config.num_channels != 3:
        return None
    from transformers import CLIPImageProcessor  # a warning comes with it where torchvision is not installed

    return CLIPImageProcessor(
        size={"shortest_edge": round(size / zoom)},
        crop_size={"height": size, "width": size},
        do_convert_rgb=True,
        image_mean=list(normalisation.mean) * (3 // len(normalisation.mean)),
        image_std=list(normalisation.std) * (3 // len(normalisation.std)),
    )
