"""ConvNeXt checkpoints in timm's naming, such as Zoobot's encoders, as `transformers` models; timm is not needed.

Both are the network of Liu et al. 2022 (arXiv:2201.03545) under other names. timm may write the two linear layers of a
block as 1 x 1 convolutions; the final normalisation has epsilon 1e-6 there and 1e-12 by default here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import ConvNextConfig, ConvNextForImageClassification

from skyset.errors import UserError

_RENAME = (
    (r"^stem\.0\.", "convnext.embeddings.patch_embeddings."),
    (r"^stem\.1\.", "convnext.embeddings.layernorm."),
    (r"^stages\.(\d+)\.downsample\.", r"convnext.encoder.stages.\1.downsampling_layer."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.", r"convnext.encoder.stages.\1.layers.\2."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"(layers\.\d+)\.norm\.", r"\1.layernorm."),
    (r"\.mlp\.fc(\d)\.", r".pwconv\1."),
    (r"\.gamma$", ".layer_scale_parameter"),
    (r"^(head\.norm|norm_pre)\.", "convnext.layernorm."),
    (r"^head\.fc\.", "classifier."),
)


def is_timm(config: dict) -> bool:
    """Whether a ``config.json`` is timm's: it names an architecture, and no model type of `transformers`."""
    return "architecture" in config and "model_type" not in config


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names, and in the shapes, of `transformers`.

    Raises:
        UserError: a name that plain ConvNeXt does not have (V2's GRN, an overlapping stem, another architecture).
    """
    renamed = {}
    for old, tensor in state.items():
        new = old
        for pattern, name in _RENAME:
            new = re.sub(pattern, name, new)
        if not new.startswith(("convnext.", "classifier.")) or ".grn." in new:
            raise UserError(f"not a plain ConvNeXt of timm: it has {old}")
        renamed[new] = tensor.flatten(1) if ".pwconv" in new and tensor.ndim == 4 else tensor
    return renamed


def config_of(renamed: dict[str, Tensor], **settings) -> ConvNextConfig:
    """The configuration that the tensors' names and shapes imply; ``settings`` (labels and so on) are added.

    Raises:
        UserError: a tensor is missing that says how large the network is.
    """
    try:
        stem = renamed["convnext.embeddings.patch_embeddings.weight"]
        found = re.findall(r"stages\.(\d+)\.layers\.(\d+)\.dwconv\.weight", "\n".join(renamed))
        depths = [sum(int(stage) == number for stage, _ in found) for number in range(max(int(s) for s, _ in found) + 1)]
        sizes = [len(renamed[f"convnext.encoder.stages.{stage}.layers.0.dwconv.weight"]) for stage in range(len(depths))]
    except (KeyError, ValueError) as error:
        raise UserError(f"not a ConvNeXt checkpoint of timm: {error}") from error
    return ConvNextConfig(
        num_channels=stem.shape[1],
        patch_size=stem.shape[2],
        num_stages=len(depths),
        depths=depths,
        hidden_sizes=sizes,
        layer_norm_eps=1e-6,
        **settings,
    )


def convert(state: dict[str, Tensor], **settings) -> ConvNextForImageClassification:
    """A `transformers` model with a timm checkpoint's weights; the classifier is new unless it fits the labels asked for.

    Args:
        state: timm's state dict.
        settings: of the configuration, such as ``num_labels``, ``id2label``, ``drop_path_rate``.

    Raises:
        UserError: the checkpoint is not a plain ConvNeXt, or lacks weights of the encoder.
    """
    renamed = rename(state)
    model = ConvNextForImageClassification(config_of(renamed, **settings))
    own = model.state_dict()
    weights = {name: t for name, t in renamed.items() if not name.startswith("classifier") or own[name].shape == t.shape}
    lacking = [name for name in own if name not in weights and not name.startswith("classifier")]
    misfits = [name for name, tensor in weights.items() if name not in own or own[name].shape != tensor.shape]
    if lacking or misfits:
        raise UserError(f"the ConvNeXt checkpoint lacks or misfits {', '.join((lacking + misfits)[:3])}")
    model.load_state_dict(weights, strict=False)
    return model


def load_state(folder: Path) -> dict[str, Tensor]:
    """Tensors of ``model.safetensors``.

    Raises:
        UserError: it is not there, or damaged.
    """
    try:
        return load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / 'model.safetensors'} cannot be read: {error}") from error


def read_config(folder: Path) -> dict:
    """What ``config.json`` says.

    Raises:
        UserError: it is not a JSON object.
    """
    try:
        found = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{folder / 'config.json'} is not a model's configuration")
    return found
