"""`Trainer` for masks that are turned with their images."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from skyset.training.common.mask_metrics import statistics
from skyset.training.common.segmentation import averaged_shares, binomial_losses, spread_to
from skyset.training.common.trainer import ImageTrainer


def loss_of_galaxies(outputs, labels: tuple[Tensor, Tensor], weights: Tensor) -> Tensor:
    """``binomial_losses`` summed over the masks of each galaxy that count, (batch,); for `ImageTrainer`.

    Args:
        outputs: with ``logits`` (batch, classes, any height, any width).
        labels: counts and volunteers, as in ``binomial_losses``.
        weights: (classes,) of the losses.
    """
    counts, volunteers = labels
    return binomial_losses(spread_to(outputs.logits, counts.shape[-2:]), counts, volunteers) @ weights.to(volunteers)


class MaskTrainer(ImageTrainer):
    """`ImageTrainer` for masks: they are turned with their images; nothing is learned from a mask that is no answer.

    Predictions are sums over the pixels of each galaxy (``mask_metrics.statistics``), never maps: the memory of an
    evaluation does not grow with the size of images.
    """

    def prepared(self, inputs: dict[str, Tensor], view: int | None = None) -> dict[str, Tensor]:
        """As in `ImageTrainer`, with the masks of the same view in the labels; of fixed views only the upright has masks."""
        pixels, counts = self.views.train(view is None).with_masks(inputs["pixel_values"], inputs["masks"])
        return {"pixel_values": pixels, "labels": (counts, inputs["labels"])}

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss, and sums over the pixels of each galaxy, for shares averaged over ``eval_views`` views."""
        inputs = self._prepare_inputs(inputs)
        seen = self.prepared(inputs, 0)
        counts, volunteers = seen["labels"]
        with torch.no_grad(), self.compute_loss_context_manager():
            images, views = inputs["pixel_values"], self.args.eval_views
            shares = averaged_shares(model, self.views, images, seen["pixel_values"], views)
        loss = self.row_loss(SimpleNamespace(logits=torch.logit(shares, eps=1e-6)), (counts, volunteers)).mean()
        return (loss, None, None) if prediction_loss_only else (loss, statistics(shares, counts, volunteers), volunteers)
