"""Models of ours: any vision encoder of `transformers`, and a head on what it makes of an image."""

from __future__ import annotations

import inspect
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from skyset.errors import UserError
from skyset.training.common.models import Normalisation, image_size, load_encoder, remember, take_over
from skyset.training.common.tasks import mark


class EncoderConfig(PreTrainedConfig):
    """Of a model with an encoder: subclasses give ``model_type`` and what their head is made of.

    Args:
        encoder: configuration of the encoder, or the dict of one.
        dropout: share of the encoder's numbers that the head does not see in training.
        pool: ``"mean"`` over the image, or the encoder's ``"cls"`` token.
        width: numbers that the encoder makes of an image.
    """

    model_type = "skyset_encoder"
    sub_configs: ClassVar[dict] = {"encoder": AutoConfig}

    def __init__(
        self,
        encoder: PreTrainedConfig | dict | None = None,
        dropout: float = 0.0,
        pool: str = "mean",
        width: int = 0,
        **others,
    ):
        if isinstance(encoder, dict):
            encoder = AutoConfig.for_model(**encoder)
        self.encoder, self.dropout, self.pool, self.width = encoder, dropout, pool, width
        super().__init__(**others)
        self.num_channels = getattr(encoder, "num_channels", 3)


class EncoderModel(PreTrainedModel):
    """An encoder and a head; subclasses give ``config_class``, ``head_of`` and, if need be, ``forward``.

    ``base_model`` is the encoder: layer-wise learning rates and freezing find its blocks.
    """

    config_class = EncoderConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        self.encoder = bare(config.encoder)
        self.dropout = nn.Dropout(config.dropout)
        self.head = self.head_of(config)
        self.post_init()

    @staticmethod
    def head_of(config: EncoderConfig) -> nn.Module:
        """The head, for vectors of ``config.width``."""
        raise NotImplementedError

    def _init_weights(self, module: nn.Module) -> None:
        """Of the head; the encoder starts its own."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def representation(self, pixel_values: Tensor) -> Tensor:
        """What the encoder makes of images, (batch, width)."""
        return pooled(self.encoder, pixel_values, self.config.pool)

    def forward(self, pixel_values: Tensor, **_) -> ModelOutput:
        """``logits`` (batch, ...) of normalised images (batch, channels, size, size)."""
        return ModelOutput(logits=self.head(self.dropout(self.representation(pixel_values))))


def build(
    kind: type[EncoderModel],
    task: str,
    name_or_path: str | None = None,
    model_type: str | None = None,
    config_overrides: dict | None = None,
    hub: tuple[str, str | None, str | None] = ("main", None, None),
    size: int | None = None,
    **settings,
) -> tuple[EncoderModel, Normalisation]:
    """A model with a new head on an encoder by name, or on a random start.

    Args:
        kind: of model.
        task: that it is trained for.
        name_or_path, model_type, config_overrides: of the encoder, as in ``load_encoder``.
        hub: revision, cache and token.
        size: pixels a side that are asked for.
        settings: of the kind's configuration.

    Raises:
        UserError: as in ``load_encoder``, ``image_size`` and ``pooled``.
    """
    encoder, normalisation = load_encoder(name_or_path, model_type, config_overrides, *hub)
    size = image_size(encoder, size)
    with torch.no_grad():
        blank = torch.zeros(1, getattr(encoder.config, "num_channels", 3), size, size)
        width = pooled(encoder.eval(), blank, settings.get("pool", "mean")).shape[1]
    model = kind(kind.config_class(encoder=encoder.config.to_dict(), width=width, **settings))
    take_over(model.encoder, encoder)
    mark(model, task)
    remember(model, size, normalisation)
    return model, normalisation


def bare(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder without the pooler that some have: its weights would never be trained, nor read."""
    takes = inspect.signature(MODEL_MAPPING[type(config)].__init__).parameters
    return AutoModel.from_config(config, **({"add_pooling_layer": False} if "add_pooling_layer" in takes else {}))


def pooled(model: PreTrainedModel, pixels: Tensor, pool: str) -> Tensor:
    """One vector an image, (batch, width).

    Raises:
        UserError: the cls token of a network without one.
    """
    output = model(pixel_values=pixels)
    hidden = output.last_hidden_state
    if hidden.ndim == 4:
        if pool == "cls":
            raise UserError(f"{type(model).__name__} has no cls token: use --pool mean")
        # The pooler of a convolutional network is the mean over the image, normalised as the classifier sees it.
        return hidden.mean(dim=(2, 3)) if output.get("pooler_output") is None else output.pooler_output.flatten(1)
    patches = patch_count(model, pixels)
    extra = hidden.shape[1] - patches
    if pool == "cls":
        if extra < 1:
            raise UserError(f"{type(model).__name__} has no cls token: use --pool mean")
        return hidden[:, 0]
    return hidden[:, extra:].mean(dim=1)


def patch_count(model: PreTrainedModel, pixels: Tensor) -> int:
    """Tokens that are parts of the image; the others (cls, registers) come before them. Swin has fewer with every stage."""
    side = getattr(model.config, "patch_size", 1)
    side = side[0] if isinstance(side, (list, tuple)) else side
    if hasattr(model.config, "depths"):
        side *= 2 ** (len(model.config.depths) - 1)
    return (pixels.shape[-2] // side) * (pixels.shape[-1] // side)
