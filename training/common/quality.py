"""A network that says how good an exposure is from what one of its CCDs became: a representative image, and hits.

Two parts, after Teimoorinia et al. 2020 (AJ 159, 170): convolutions on the cutouts of the representative image, dense
layers on the hits, what they make joined. Either stands alone, too. Inputs are as the survey ``megacam_iqa`` has them; the
medians and median absolute deviations that scale them are in the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from skyset.errors import UserError

TASK = "quality"
INPUTS = ("joint", "image", "hits")
#: Scaled hits beyond these are cut: one strange CCD is no reason for strange numbers.
FARTHEST = 10.0


class QualityConfig(PreTrainedConfig):
    """Of a `QualityModel`.

    Args:
        inputs: of ``INPUTS``.
        groups: rows and columns of the map.
        stamp: pixels a side of a cutout.
        width, dropout: of the dense layers.
        channels: of the convolutions; each halves a cutout.
        image_median, image_mad: of the pixels of groups with sources, over training CCDs, ADU.
        hits_median, hits_mad: of log(1 + hits), of each group.
        others: of `PreTrainedConfig`.
    """

    model_type = "skyset_quality"

    def __init__(
        self,
        inputs: str = "joint",
        groups: Sequence[int] = (4, 5),
        stamp: int = 24,
        width: int = 64,
        dropout: float = 0.2,
        channels: Sequence[int] = (16, 32, 32),
        image_median: float = 0.0,
        image_mad: float = 1.0,
        hits_median: Sequence[float] | None = None,
        hits_mad: Sequence[float] | None = None,
        **others,
    ):
        self.inputs, self.groups, self.stamp, self.width, self.dropout = inputs, list(groups), stamp, width, dropout
        self.channels, self.image_median, self.image_mad = list(channels), image_median, image_mad
        count = groups[0] * groups[1]
        self.hits_median, self.hits_mad = list(hits_median or [0.0] * count), list(hits_mad or [1.0] * count)
        super().__init__(**others)

    @property
    def group_count(self) -> int:
        return self.groups[0] * self.groups[1]

    def check(self) -> None:
        """Raise UserError where settings are not of a network."""
        if self.inputs not in INPUTS:
            raise UserError(f"no model {self.inputs!r}; there are {', '.join(INPUTS)}")
        if not self.channels or self.stamp < 1 << len(self.channels):
            raise UserError(f"{len(self.channels)} convolutions halve cutouts of {self.stamp} pixels too often")


def stamps_of(image: Tensor, groups: Sequence[int], stamp: int) -> Tensor:
    """Cutouts (rows, groups, stamp, stamp) of representative images (rows, height, width), row by row of the map."""
    cut = image.unflatten(1, (groups[0], stamp)).unflatten(3, (groups[1], stamp))
    return cut.transpose(2, 3).flatten(1, 2)


def image_of(stamps: Tensor, groups: Sequence[int]) -> Tensor:
    """The representative images whose cutouts these are; ``stamps_of`` backwards."""
    return stamps.unflatten(1, tuple(groups)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


class ImagePart(nn.Module):
    """The same convolutions on each cutout, which never see two at once; dense layers on what they make of all."""

    gradient_checkpointing = False

    def __init__(self, config: QualityConfig):
        super().__init__()
        self.config, layers = config, []
        for before, after in zip([1, *config.channels[:-1]], config.channels, strict=True):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(1, after), nn.GELU(), nn.MaxPool2d(2)]
        self.convolutions = nn.Sequential(*layers)
        side = config.stamp >> len(config.channels)
        self.each = nn.Sequential(nn.Flatten(), nn.Linear(config.channels[-1] * side * side, config.width), nn.GELU())
        self.all = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.width * config.group_count, config.width), nn.GELU()
        )

    def forward(self, image: Tensor) -> Tensor:
        """(rows, width) of images (rows, height, width), ADU."""
        scaled = torch.asinh((image.float() - self.config.image_median) / self.config.image_mad)
        stamps = stamps_of(scaled.to(self.convolutions[0].weight.dtype), self.config.groups, self.config.stamp).flatten(
            0, 1
        )[:, None]
        if self.gradient_checkpointing and self.training:
            seen = self._gradient_checkpointing_func(self.convolutions.__call__, stamps)
        else:
            seen = self.convolutions(stamps)
        return self.all(self.each(seen).unflatten(0, (len(image), -1)).flatten(1))


class HitsPart(nn.Module):
    """Dense layers on the logarithms of hits."""

    def __init__(self, config: QualityConfig):
        super().__init__()
        self.register_buffer("median", torch.tensor(config.hits_median, dtype=torch.float32))
        self.register_buffer("mad", torch.tensor(config.hits_mad, dtype=torch.float32))
        width = config.width
        self.layers = nn.Sequential(
            nn.Linear(config.group_count, width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(width, width), nn.GELU()
        )

    def forward(self, hits: Tensor) -> Tensor:
        """(rows, width) of hits (rows, groups)."""
        scaled = ((hits.float().log1p() - self.median) / self.mad).clamp(-FARTHEST, FARTHEST)
        return self.layers(scaled.to(self.layers[0].weight.dtype))


class QualityModel(PreTrainedModel):
    """Classes of a CCD from its representative image, its hits, or both joined.

    Raises:
        UserError: settings that are not of a network.
    """

    config_class = QualityConfig
    base_model_prefix = "parts"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: QualityConfig):
        super().__init__(config)
        config.check()
        parts: dict[str, nn.Module] = {}
        if config.inputs != "hits":
            parts["image"] = ImagePart(config)
        if config.inputs != "image":
            parts["hits"] = HitsPart(config)
        self.parts = nn.ModuleDict(parts)
        self.head = nn.Linear(config.width * len(parts), config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As PyTorch begins."""

    def forward(self, pixel_values: Tensor | None = None, hits: Tensor | None = None, **_) -> ModelOutput:
        """``logits`` (rows, classes).

        Args:
            pixel_values: representative images (rows, height, width), ADU; what ``inputs`` does not name may be missing.
            hits: (rows, groups).
        """
        given = {"image": pixel_values, "hits": hits}
        return ModelOutput(logits=self.head(torch.cat([part(given[name]) for name, part in self.parts.items()], dim=1)))


AutoConfig.register(QualityConfig.model_type, QualityConfig)
AutoModel.register(QualityConfig, QualityModel)


class StampViews(nn.Module):
    """Turns all cutouts of a representative image alike, by quarters, and mirrors them; each stays in its group's place.

    Args:
        groups, stamp: of the map, see `QualityConfig`.
    """

    def __init__(self, groups: Sequence[int], stamp: int):
        super().__init__()
        self.groups, self.stamp = list(groups), stamp

    def forward(self, images: Tensor) -> Tensor:
        """Random views of images (rows, height, width) in training mode, the images themselves otherwise."""
        if not self.training:
            return images
        return self._turned(images, torch.randint(0, 8, (len(images),)))

    def turned(self, images: Tensor, view: int, views: int = 1) -> Tensor:
        """View number ``view``: the first is the image itself."""
        return self._turned(images, torch.full((len(images),), view % 8))

    def _turned(self, images: Tensor, turns: Tensor) -> Tensor:
        stamps = stamps_of(images, self.groups, self.stamp)
        seen = torch.empty_like(stamps)
        for turn in turns.unique().tolist():
            rows = (turns == turn).nonzero()[:, 0].to(images.device)
            chosen = torch.rot90(stamps[rows], turn // 2, (2, 3))
            seen[rows] = chosen.flip(3) if turn % 2 else chosen
        return image_of(seen, self.groups)
