"""What each kind of trained model says of galaxies: which columns it reads, and which columns its answers become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from datasets import IterableDataset
from torch import Tensor
from transformers import PreTrainedModel

from skyset.errors import UserError
from skyset.loaders.galaxiesml import BANDS
from skyset.loaders.gz3d import DRAWERS
from skyset.messages import listed
from skyset.training.common.images import to_tensor
from skyset.training.common.mask_metrics import VOTERS
from skyset.training.common.models import Normalisation
from skyset.training.common.photoz_data import IMAGE, flux_of
from skyset.training.common.photoz_metrics import quantile
from skyset.training.common.photoz_points import point
from skyset.training.common.photoz_trainer import views_of
from skyset.training.common.quality import StampViews
from skyset.training.common.quality_data import as_floats
from skyset.training.common.segmentation import averaged_shares, channels_of
from skyset.training.common.streams import find_image_column
from skyset.training.common.views import Views
from skyset.training.common.votes import per_answer, per_question

#: Quantiles of a distribution that are written, by the end of their names.
QUANTILES = {"p16": 0.16, "p50": 0.5, "p84": 0.84}
#: Of a percentage, where a model was not shown the sky.
NOT_SHOWN = 255


@dataclass
class Asked:
    """What a user asks of predictions.

    Args:
        views: turned and mirrored ones of each image, whose answers are averaged.
        samples: draws from each galaxy's distribution; 0 for none.
        maps: of models that segment, also the shares of all pixels.
        image_column: the column with the image; None for the usual names.
        seed: of the draws.
    """

    views: int = 1
    samples: int = 0
    maps: bool = False
    image_column: str | None = None
    seed: int = 0


class Predictor:
    """Of one task; subclasses say which columns are read and what is answered.

    Args:
        model: trained, on its device.
        normalisation: of its images.
        rows: that are to be looked at.
        asked: by the user.

    Raises:
        UserError: the rows have not what the model needs, or something is asked for that it cannot give.
    """

    samples: ClassVar[bool] = False
    maps: ClassVar[bool] = False

    def __init__(self, model: PreTrainedModel, normalisation: Normalisation, rows: IterableDataset, asked: Asked):
        self.model, self.normalisation, self.asked = model, normalisation, asked
        if asked.samples and not self.samples:
            raise UserError("--samples: this model gives no distribution to draw from")
        if asked.maps and not self.maps:
            raise UserError("--maps is for models that segment")
        self.columns = self.columns_of(rows)
        if missing := [name for name in self.columns if name not in rows.column_names]:
            raise UserError(f"the data have no column {missing[0]}; they have {listed(rows.column_names)}")

    def columns_of(self, rows: IterableDataset) -> list[str]:
        """Which columns of the rows are read."""
        raise NotImplementedError

    def batch(self, rows: Sequence[Mapping], threads: Executor) -> dict[str, Tensor]:
        """Rows as tensors."""
        raise NotImplementedError

    def answers(self, batch: Mapping[str, Tensor], generator: np.random.Generator) -> dict[str, np.ndarray]:
        """By column, (rows, ...), of tensors on the device."""
        raise NotImplementedError


class OfImages(Predictor):
    """What is shown images of 8 bits."""

    def __init__(self, model: PreTrainedModel, normalisation: Normalisation, rows: IterableDataset, asked: Asked):
        super().__init__(model, normalisation, rows, asked)
        size, zoom = model.config.image_size, getattr(model.config, "eval_zoom", None) or 1.0
        self.size = round(size / zoom)
        self.views = Views(size, normalisation.mean, normalisation.std, eval_zoom=zoom).eval()
        self.channels = channels_of(model)

    def columns_of(self, rows: IterableDataset) -> list[str]:
        return [self.asked.image_column or find_image_column(rows)]

    def batch(self, rows: Sequence[Mapping], threads: Executor) -> dict[str, Tensor]:
        def decoded(row: Mapping) -> Tensor:
            return to_tensor(row[self.columns[0]], self.size, self.channels)

        return {"pixel_values": torch.stack(list(threads.map(decoded, rows)))}

    def averaged(self, images: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean over the views of what is made of the logits of each."""
        number = self.asked.views
        turned = (self.views.turned(images, view, number) for view in range(number))
        return torch.stack([of(self.model(pixel_values=each).logits.float()) for each in turned]).mean(0)


class OfClasses(OfImages):
    """The probability of each class: ``probability_<class>``."""

    def answers(self, batch: Mapping[str, Tensor], generator: np.random.Generator) -> dict[str, np.ndarray]:
        shares = self.averaged(batch["pixel_values"], lambda logits: logits.softmax(1)).cpu().numpy()
        names = self.model.config.id2label
        return {f"probability_{names[number]}": shares[:, number] for number in range(shares.shape[1])}


class OfQuality(Predictor):
    """The probability of each class of a CCD: ``probability_<class>``; NaN where a pixel or a hit is no finite number."""

    def columns_of(self, rows: IterableDataset) -> list[str]:
        config = self.model.config
        self.turns = StampViews(config.groups, config.stamp)
        self.shape = (config.groups[0] * config.stamp, config.groups[1] * config.stamp)
        return [self.asked.image_column or "image", "hits"]

    def batch(self, rows: Sequence[Mapping], threads: Executor) -> dict[str, Tensor]:
        found = dict(zip(("pixel_values", "hits"), self.columns, strict=True))
        found = {name: torch.stack([as_floats(row[column]) for row in rows]) for name, column in found.items()}
        if found["pixel_values"].shape[1:] != self.shape or found["hits"].shape[1] != self.model.config.group_count:
            theirs = " x ".join(map(str, found["pixel_values"].shape[1:]))
            raise UserError(
                f"the model takes images of {' x '.join(map(str, self.shape))} pixels and {self.model.config.group_count} "
                f"hits, the data have {theirs} and {found['hits'].shape[1]}"
            )
        return found

    def answers(self, batch: Mapping[str, Tensor], generator: np.random.Generator) -> dict[str, np.ndarray]:
        image, hits = batch["pixel_values"], batch["hits"]
        views = range(self.asked.views if self.model.config.inputs != "hits" else 1)
        turned = (self.turns.turned(image, view) for view in views)
        shares = torch.stack([self.model(pixel_values=each, hits=hits).logits.float().softmax(1) for each in turned]).mean(0)
        bad = ~(image.isfinite().flatten(1).all(1) & (hits.isfinite() & (hits >= 0)).all(1))
        shares[bad] = torch.nan
        names = self.model.config.id2label
        return {f"probability_{names[number]}": column for number, column in enumerate(shares.cpu().numpy().T)}


class OfVotes(OfImages):
    """Which share of those who are asked gives each answer: ``<question>_<answer>_fraction`` and its ``_concentration``.

    Draws, ``..._samples``, are shares of very many volunteers, from the Dirichlet distribution.
    """

    samples = True

    def answers(self, batch: Mapping[str, Tensor], generator: np.random.Generator) -> dict[str, np.ndarray]:
        tree = self.model.config.questions
        strengths = self.averaged(batch["pixel_values"], self.model.concentrations).cpu()
        shares = strengths / per_answer(per_question(strengths, tree), tree)
        draws = self._draws(strengths.numpy(), [len(question.answers) for question in tree], generator)
        found = {}
        for place, stem in enumerate(stem for question in tree for stem in question.stems):
            found[f"{stem}_fraction"] = shares[:, place].numpy()
            found[f"{stem}_concentration"] = strengths[:, place].numpy()
            if draws is not None:
                found[f"{stem}_samples"] = draws[:, :, place]
        return found

    def _draws(self, strengths: np.ndarray, answers: list[int], generator: np.random.Generator) -> np.ndarray | None:
        """(rows, samples, answers)."""
        if not self.asked.samples:
            return None
        drawn = generator.standard_gamma(strengths[:, None], (len(strengths), self.asked.samples, strengths.shape[1]))
        parts = np.split(drawn, np.cumsum(answers)[:-1], axis=2)
        return np.concatenate([part / part.sum(2, keepdims=True) for part in parts], axis=2).astype(np.float32)


class OfMasks(OfImages):
    """How much of an image belongs to each class: ``<class>_area_3``, the share of the pixels shown that 3 of 15 volunteers
    or more would put into it, ``<class>_area_8`` likewise of 8, and ``<class>_mean``, the mean share of volunteers.

    Maps, ``<class>_percent``, are (size, size) of the volunteers' share in percent, of the part of the image that is shown.
    """

    maps = True

    def answers(self, batch: Mapping[str, Tensor], generator: np.random.Generator) -> dict[str, np.ndarray]:
        images = batch["pixel_values"]
        model, upright = self.model, self.views(images)
        shares = averaged_shares(model, self.views, images, upright, self.asked.views).float().cpu().numpy()
        found = {}
        for place in range(shares.shape[1]):
            name, share = model.config.id2label[place], shares[:, place]
            for voters in VOTERS:
                found[f"{name}_area_{voters}"] = (share >= voters / DRAWERS).mean((1, 2), dtype=np.float32)
            found[f"{name}_mean"] = share.mean((1, 2), dtype=np.float32)
            if self.asked.maps:
                found[f"{name}_percent"] = np.rint(100 * share).astype(np.uint8)
        return found


class OfRedshifts(Predictor):
    """``redshift``: the number, or the model's point of p(z) (see `photoz_points`); of p(z) also ``redshift_p16``,
    ``redshift_p50`` (the median), ``redshift_p84`` and draws, ``redshift_samples``. NaN where a galaxy has no magnitude at
    all and the model sees nothing else."""

    samples = True

    def __init__(self, model: PreTrainedModel, normalisation: Normalisation, rows: IterableDataset, asked: Asked):
        if tuple(model.config.bands) != tuple(BANDS):
            theirs = ", ".join(model.config.bands)
            raise UserError(f"the model takes the bands {theirs} in this order; the data have {', '.join(BANDS)}")
        self.views = views_of(model)
        super().__init__(model, normalisation, rows, asked)
        if asked.samples and not model.gives_pdf:
            raise UserError("--samples: this model gives a number, and no distribution to draw from")

    def columns_of(self, rows: IterableDataset) -> list[str]:
        names = [f"{band}_cmodel_{what}" for what in ("mag", "magsigma") for band in BANDS]
        self.photometry = names if self.model.config.sees_photometry else []
        self.image = [self.asked.image_column or IMAGE] if self.model.config.sees_images else []
        return [*self.image, *self.photometry]

    def batch(self, rows: Sequence[Mapping], threads: Executor) -> dict[str, Tensor]:
        found = {}
        if self.photometry:
            values = [[np.nan if row[name] is None else row[name] for name in self.photometry] for row in rows]
            found["photometry"] = torch.tensor(np.array(values, np.float32))
        for name in self.image:
            side, bands = self.model.config.image_size, len(BANDS)
            shape = np.shape(rows[0][name])
            if len(shape) != 3 or shape[0] != bands or min(shape[1:]) < side:
                theirs = " x ".join(map(str, shape)) or "single numbers"
                raise UserError(f"the model takes images of {bands} x {side} x {side}, the data have {theirs}")
            found["pixel_values"] = torch.stack([flux_of(row[name], side) for row in rows])
        return found

    def answers(self, batch: Mapping[str, Tensor], generator: np.random.Generator) -> dict[str, np.ndarray]:
        model = self.model
        photometry, flux = batch.get("photometry"), batch.get("pixel_values")
        logits = []
        for view in range(self.asked.views if self.image else 1):
            pixels = None if flux is None or self.views is None else self.views.turned(flux, view)
            logits.append(model(pixel_values=pixels, photometry=photometry).logits.float())
        unseen = np.zeros(len(logits[0]), bool)
        if photometry is not None and flux is None:
            unseen = ~photometry[:, : len(BANDS)].isfinite().any(1).cpu().numpy()
        found = _of_pdf(model, torch.stack(logits, 1).cpu(), self.asked.samples, generator)
        for values in found.values():
            values[unseen] = np.nan
        return found


def _of_pdf(model, logits: Tensor, samples: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Columns of logits (rows, views, numbers)."""
    if not model.gives_pdf:
        return {"redshift": model.redshift(logits).numpy().astype(np.float32)}
    return of_cdf(model.cdf(logits).numpy(), model.grid().numpy(), samples, generator, model.config.point)


def of_cdf(
    cdf: np.ndarray, grid: np.ndarray, samples: int, generator: np.random.Generator, kind: str = "median"
) -> dict[str, np.ndarray]:
    """Point, quantiles and draws of distributions.

    Args:
        cdf: (rows, nodes).
        grid: (nodes,), redshifts.
        samples: draws of each; 0 for none.
        generator: of the draws.
        kind: of the point, of `photoz_points.POINTS`.
    """
    found = {"redshift": point(cdf, grid, kind).astype(np.float32)}
    for name, share in QUANTILES.items():
        found[f"redshift_{name}"] = quantile(cdf, grid, share).astype(np.float32)
    if samples:
        shares = generator.random((len(cdf), samples))
        drawn = [np.interp(share, row, grid) for share, row in zip(shares, cdf, strict=True)]
        found["redshift_samples"] = np.array(drawn, np.float32)
    return found


#: By task; `photoz_table`'s models read tables, see predict.py.
PREDICTORS: dict[str, type[Predictor]] = {
    "morphology": OfClasses,
    "quality": OfQuality,
    "rings": OfClasses,
    "votes": OfVotes,
    "masks": OfMasks,
    "photoz": OfRedshifts,
}


def as_column(values: np.ndarray) -> pa.Array:
    """A number a row, or a list of fixed size (row by row, where it is of more dimensions)."""
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))
