"""Networks that say, for every pixel, which share of the volunteers would put it into a class, and their loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForSemanticSegmentation, PreTrainedModel

from skyset.errors import UserError
from skyset.training.common.images import to_tensor
from skyset.training.common.models import (
    LOAD_ERRORS,
    SAFELY,
    Normalisation,
    fetch,
    first_line,
    normalisation_of,
    usual_normalisation,
    without_code,
)
from skyset.training.common.tasks import task_of
from skyset.training.common.views import Views

_STAGES = ["stage1", "stage2", "stage3", "stage4"]
#: Settings of a random start by ``--model_type``: small enough to try things out on any machine.
SMALL = {
    "upernet": {
        "backbone_config": {
            "model_type": "convnext",
            "depths": [1, 1, 2, 1],
            "hidden_sizes": [16, 32, 64, 96],
            "patch_size": 2,
            # ConvNeXt's own first weights, 0.02, and the 1e-6 by which it begins to scale its layers, are made for wide
            # networks and long trainings: a narrow one is hardly more than a linear map of its pixels for hundreds of steps.
            "initializer_range": 0.1,
            "layer_scale_init_value": 1.0,
            "out_features": _STAGES,
        },
        "hidden_size": 32,
    },
    "segformer": {
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [16, 32, 64, 96],
        "num_attention_heads": [1, 2, 4, 6],
        "decoder_hidden_size": 64,
    },
}
#: What is never asked of a model: its second head would be trained by nothing, which several processes do not allow.
ALWAYS = {"upernet": {"use_auxiliary_head": False}}


def load_segmenter(
    name_or_path: str | None = None,
    model_type: str | None = None,
    config_overrides: dict | None = None,
    classes: Sequence[str] = (),
    revision: str = "main",
    cache_dir: str | None = None,
    token: str | None = None,
) -> tuple[PreTrainedModel, Normalisation]:
    """A network with one map a class, and the normalisation its weights expect.

    Args:
        name_or_path: a folder or a model on the Hub, such as openmmlab/upernet-convnext-tiny or nvidia/mit-b0.
        model_type: ``"upernet"`` (on a ConvNeXt) or ``"segformer"``, small ones, or another, for a random start.
        config_overrides: settings of the configuration; those of a nested configuration are joined with the small one's.
        classes: names of the maps.
        revision, cache_dir, token: for the Hub.

    Raises:
        UserError: no such model, no such type, or weights that cannot be used.
    """
    names = {"id2label": dict(enumerate(classes)), "label2id": {name: index for index, name in enumerate(classes)}}
    if name_or_path is None:
        if not model_type:
            raise UserError("give a model: --model_name_or_path NAME, or --model_type upernet for a random start")
        settings = _joined(SMALL.get(model_type, {}), ALWAYS.get(model_type, {}), config_overrides or {}, names)
        try:
            config = AutoConfig.for_model(model_type, **settings)
            model = AutoModelForSemanticSegmentation.from_config(config, trust_remote_code=False)
        except LOAD_ERRORS as error:
            raise UserError(f"no segmenting model of type {model_type!r}: {first_line(error)}") from error
        return model, usual_normalisation(channels_of(model))
    folder = fetch(name_or_path, revision, cache_dir, token)
    if (task := task_of(folder)) not in (None, "masks"):
        raise UserError(f"{name_or_path} was trained for {task!r}: it is no model of 'masks'")
    try:
        kind = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
        settings = _joined(ALWAYS.get(kind, {}), config_overrides or {}, names)
        model = AutoModelForSemanticSegmentation.from_pretrained(folder, ignore_mismatched_sizes=True, **SAFELY, **settings)
    except LOAD_ERRORS as error:
        raise UserError(f"{name_or_path} cannot be used to segment images: {first_line(error)}") from error
    return without_code(model), normalisation_of(folder)


def _joined(*settings: dict) -> dict:
    """Settings, the later ones before the earlier, dictionaries inside joined in the same way."""
    found: dict = {}
    for each in settings:
        for name, value in copy.deepcopy(each).items():
            both = isinstance(value, dict) and isinstance(found.get(name), dict) and name.endswith("_config")
            found[name] = _joined(found[name], value) if both else value
    return found


def mean_shares(rows: Dataset, most: int = 64) -> Tensor:
    """Mean share of volunteers a pixel of each class, float32 (classes,), 0.0001 to 0.5.

    Args:
        rows: to train on, with ``masks`` and ``labels``.
        most: of the rows that are looked at.
    """
    seen = [rows[row] for row in np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)]
    asked = torch.stack([row["labels"] > 0 for row in seen]).sum(dim=0)
    shares = torch.stack([row["masks"].float().mean(dim=(1, 2)) / row["labels"].clamp(min=1) for row in seen]).sum(dim=0)
    return (shares / asked.clamp(min=1)).clamp(1e-4, 0.5)


def begin_at_mean(model: PreTrainedModel, shares: Tensor) -> None:
    """Let a network that has learned nothing predict the mean share of each class: most pixels are of none of them.

    From shares of one half, a network spends its first hundred steps on learning that. One that was trained on masks stays
    as it is.

    Args:
        model: of ``load_segmenter``.
        shares: see ``mean_shares``.
    """
    last = [part for part in model.modules() if isinstance(part, nn.Conv2d) and part.out_channels == model.config.num_labels]
    if getattr(model.config, "skyset_task", None) != "masks" and last and last[-1].bias is not None:
        with torch.no_grad():
            last[-1].bias.copy_(torch.logit(shares))


def equal_weights(shares: Tensor) -> Tensor:
    """Weight of the loss of each class, (classes,), by which predicting its mean share costs 1.

    Without it, a class that covers few pixels, such as the centre, hardly counts. The best prediction of each class stays
    what it is: its pixels weigh alike.
    """
    return -1 / (shares * shares.log() + (1 - shares) * (1 - shares).log())


def channels_of(model: PreTrainedModel) -> int:
    """Bands that the model's images have."""
    inside = getattr(model.config, "backbone_config", None) or model.config
    return int(getattr(inside, "num_channels", 3))


def maps_of(model, pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (batch, classes, height, width), interpolated to the ``size`` of the masks: many models give fewer pixels."""
    return spread_to(model(pixel_values=pixels).logits, size)


def spread_to(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (batch, classes, any height, any width) in float32, interpolated to ``size``."""
    return functional.interpolate(logits.float(), size=tuple(size), mode="bilinear", align_corners=False)


def binomial_losses(logits: Tensor, counts: Tensor, volunteers: Tensor) -> Tensor:
    """Cross-entropy between predicted and drawn shares: -log likelihood of a binomial, per volunteer, without its constant.

    Args:
        logits: float (batch, classes, height, width).
        counts: (batch, classes, height, width), how many volunteers put a pixel into a class.
        volunteers: (batch, classes), of how many; 0 or less where nobody was asked.

    Returns:
        float32 (batch, classes), averaged over the pixels; 0 where nobody was asked.
    """
    shares = counts / volunteers.clamp(min=1)[:, :, None, None]
    losses = functional.binary_cross_entropy_with_logits(logits.float(), shares, reduction="none").mean(dim=(2, 3))
    return torch.where(volunteers > 0, losses, torch.zeros_like(losses))


def averaged_shares(model, views: Views, images: Tensor, upright: Tensor, number: int = 1) -> Tensor:
    """Shares (batch, classes, size, size) of the upright view, averaged over ``number`` turned and mirrored views.

    Args:
        model: gives logits.
        views: in evaluation.
        images: uint8 (batch, channels, height, width).
        upright: the upright view of them.
        number: of views.
    """
    size = upright.shape[-2:]
    total = torch.sigmoid(maps_of(model, upright, size))
    times = torch.ones_like(total[:, :1])
    for view in range(1, number):
        shares = torch.sigmoid(maps_of(model, views.turned(images, view, number), size))
        turned = views.upright(torch.cat([shares, torch.ones_like(times)], dim=1), view, number)
        total, times = total + turned[:, :-1], times + turned[:, -1:]
    return total / times


def segment(model: PreTrainedModel, image, number: int = 1) -> np.ndarray:
    """Predicted shares of volunteers for one image.

    Args:
        model: trained by ``segment_gz3d.py``; its configuration says what an image must be like.
        image: PIL image, or uint8 (height, width, 3).
        number: of turned and mirrored views that are averaged.

    Returns:
        float32 (classes, height, width), at the image's own pixels; an oblong image is cut to its middle square, and what
        the model was not shown (``eval_zoom``) is NaN. The classes are ``model.config.id2label``.
    """
    config, device = model.config, next(model.parameters()).device
    side = min(image.size if hasattr(image, "size") and not isinstance(image, np.ndarray) else np.shape(image)[:2])
    zoom, size = getattr(config, "eval_zoom", 1.0), config.image_size
    views = Views(size, config.image_mean, config.image_std, eval_zoom=zoom).eval()
    pixels = to_tensor(image, round(size / zoom), channels_of(model))[None].to(device)
    model.eval()
    with torch.no_grad():
        shares = averaged_shares(model, views, pixels, views(pixels), number)
    shown = round(side * zoom)
    inside = functional.interpolate(shares, size=(shown, shown), mode="bilinear", align_corners=False)[0]
    found, start = np.full((len(inside), side, side), np.nan, np.float32), (side - shown) // 2
    found[:, start : start + shown, start : start + shown] = inside.cpu().numpy()
    return found
