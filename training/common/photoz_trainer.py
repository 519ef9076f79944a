"""`ImageTrainer` for redshifts: flux, photometry or both; every view of a galaxy keeps its own distribution."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import EvalPrediction

from skyset.training.common import photoz_metrics
from skyset.training.common.photoz_data import Galaxies
from skyset.training.common.photoz_models import PhotozModel
from skyset.training.common.photoz_points import point
from skyset.training.common.resident import Resident, collate
from skyset.training.common.stretches import FluxViews, Stretch
from skyset.training.common.trainer import ImageTrainer

#: Galaxies of which ``predict`` holds the images at a time.
_TOGETHER = 256


class PhotozTrainer(ImageTrainer):
    """Trains a `PhotozModel`.

    Args:
        model: the one.
        views: of the images; None where there are none.
        others: of `ImageTrainer`.
    """

    def __init__(self, *, model: PhotozModel, views: FluxViews | None, **others):
        head = model.head
        super().__init__(
            model=model,
            views=views,
            loss=lambda outputs, z: head.loss(outputs.logits, z),
            compute_metrics=lambda predictions: validation_metrics(model, predictions),
            **others,
        )
        self.data_collator = collate

    def prepared(self, inputs: dict[str, Tensor], view: int | None = None) -> dict[str, Tensor]:
        """As in `ImageTrainer`, of flux; photometry stays as it is."""
        return super().prepared(inputs, view) if self.views is not None else inputs

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss, averaged over views, and logits of each of them, (rows, views, numbers): distributions are averaged, and
        the numbers that they are made of are not."""
        inputs = self._prepare_inputs(inputs)
        labels, views = inputs["labels"], range(self.args.eval_views if self.views is not None else 1)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = torch.stack([self.logits_of(model, inputs, view) for view in views], dim=1)
            rows = [self.row_loss(SimpleNamespace(logits=logits[:, view]), labels) for view in views]
            loss = torch.stack(rows).mean()
        return (loss, None, None) if prediction_loss_only else (loss, logits, labels)

    def get_train_dataloader(self) -> DataLoader:
        """As in `ImageTrainer`; what is on the device needs no workers and no pinned memory."""
        if isinstance(self.train_dataset, Resident):
            self.args.dataloader_num_workers, self.args.dataloader_pin_memory = 0, False
            self.args.dataloader_prefetch_factor, self.args.dataloader_persistent_workers = None, False
        return super().get_train_dataloader()


def redshifts_of(model: PhotozModel, logits: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Redshifts (rows,), and distributions as (cdf, grid) where the model gives them; of logits (rows, [views,] numbers)."""
    tensor = torch.from_numpy(np.asarray(logits, np.float32))
    if not model.gives_pdf:
        return model.redshift(tensor).numpy(), None
    grid = model.grid().numpy()
    cdf = torch.cat([model.cdf(part) for part in tensor.split(4096)]).numpy()
    return point(cdf, grid, model.config.point), (cdf, grid)


def views_of(model: PhotozModel, turns: str = "quarter") -> FluxViews | None:
    """What makes a network's input of flux, None where it sees no images."""
    config = model.config
    return FluxViews(Stretch(config.stretch, tuple(config.softening)), turns) if config.sees_images else None


@torch.no_grad()
def predict(
    model: PhotozModel, galaxies: Galaxies, rows: Sequence[int], views: int = 1
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Redshifts of some galaxies, as ``redshifts_of`` gives them.

    Args:
        model: trained.
        galaxies: a split with what the model needs, read as a table.
        rows: numbers of the galaxies, 256 at a time.
        views: turned and mirrored views of each image, whose distributions are averaged.
    """
    model.eval()
    make, seen = views_of(model), _seen_by(model, galaxies)
    logits = []
    for first in range(0, len(rows), _TOGETHER):
        batch = collate([seen[int(row)] for row in rows[first : first + _TOGETHER]])
        inputs = {name: values.to(model.device) for name, values in batch.items() if name != "labels"}
        pixels = inputs.pop("pixel_values", None)
        turned = [None if make is None else make.turned(pixels, view) for view in range(views if make else 1)]
        logits.append(torch.stack([model(pixel_values=each, **inputs).logits.float() for each in turned], dim=1).cpu())
    return redshifts_of(model, torch.cat(logits).numpy())


def predict_together(
    models: Sequence[PhotozModel], galaxies: Galaxies
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """What an ensemble says of all galaxies: the mean of its distributions, or of its redshifts (deep ensembles,
    Lakshminarayanan et al. 2017, arXiv:1612.01474); as ``predict``."""
    said = [predict(model, galaxies, range(len(galaxies))) for model in models]
    if any(pdf is None for _, pdf in said):
        return np.mean([z_phot for z_phot, _ in said], axis=0), None
    cdf, grid = sum(pdf[0] for _, pdf in said) / len(said), said[0][1][1]
    return point(cdf, grid, models[0].config.point), (cdf, grid)


def _seen_by(model: PhotozModel, galaxies: Galaxies) -> Dataset:
    if not model.config.sees_images:
        return galaxies.without_images().on(model.device)
    return galaxies.cropped(model.config.image_size).lazily()


def metrics_of(z_phot: np.ndarray, z_spec: np.ndarray, pdf: tuple[np.ndarray, np.ndarray] | None) -> dict[str, float]:
    """All metrics: of the points, and of the distributions (cdf, grid) where there are any."""
    metrics = photoz_metrics.point_metrics(z_phot, z_spec)
    return metrics | (photoz_metrics.pdf_metrics(*pdf, z_spec) if pdf else {})


def validation_metrics(model: PhotozModel, predictions: EvalPrediction) -> dict[str, float]:
    """For `Trainer`, in which ``loss`` is what is trained: the papers' loss is ``photoz_loss`` here."""
    z_phot, pdf = redshifts_of(model, predictions.predictions)
    metrics = metrics_of(z_phot, np.asarray(predictions.label_ids), pdf)
    return {("photoz_loss" if name == "loss" else name): value for name, value in metrics.items()}
