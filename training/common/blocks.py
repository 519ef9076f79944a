"""Which parts of a model train, and how fast: its blocks, from the stem to the head."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from skyset.errors import UserError


def encoder_of(model: PreTrainedModel) -> nn.Module:
    """The part below the head: the backbone of a model that segments, else what `transformers` calls the base model."""
    return getattr(model, "backbone", model.base_model)


def block_depths(model: PreTrainedModel) -> tuple[dict[str, int], int]:
    """How deep each parameter lies, for layer-wise learning rates and for freezing.

    The blocks are the entries of the encoder's outermost list of modules: the stages of ConvNeXt, ResNet and Swin, the
    layers of a ViT. What comes before them (stem, position embeddings) counts as block 0, what comes after them in the
    encoder (a last normalisation) belongs to the last block, and what is outside the encoder is the head.

    Returns:
        ``depths, head``: by parameter name, 0 (stem) to ``head``; with n blocks, ``head`` is n + 1.
    """
    encoder = encoder_of(model)
    lists = ((name, part) for name, part in encoder.named_modules() if isinstance(part, nn.ModuleList) and len(part) > 1)
    _, blocks = next(lists, ("", ()))
    if not blocks or encoder is model:
        raise UserError(f"{type(model).__name__} has no blocks that are known: no --freeze, --n_blocks or --layer_decay")
    inside = {id(p) for p in encoder.parameters()}
    first = {id(p): 1 + number for number, block in enumerate(blocks) for p in block.parameters()}
    seen_blocks = False
    depths = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in first:
            seen_blocks = True
            depths[name] = first[id(parameter)]
        elif id(parameter) not in inside:
            depths[name] = len(blocks) + 1
        else:
            depths[name] = len(blocks) if seen_blocks else 0
    return depths, len(blocks) + 1


def freeze_all_but(model: PreTrainedModel, n_blocks: int) -> None:
    """Let only the last ``n_blocks`` blocks and the head train; 0 is the head alone.

    Frozen parts stay in evaluation mode, so that dropout and the running means of batch normalisation stand still too.

    Raises:
        UserError: more blocks than there are, or a model whose blocks cannot be distinguished.
    """
    depths, head = block_depths(model)
    if not 0 <= n_blocks <= head:
        raise UserError(f"--n_blocks {n_blocks}: the model has {head} blocks, its stem among them")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = depths[name] >= head - n_blocks
    for part in encoder_of(model).modules():
        own = list(part.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            part.eval()
            part.train = lambda mode=True, part=part: part


def layer_decay_groups(
    model: PreTrainedModel, lr: float, decay: float, weight_decay: float, decayed: set[str]
) -> list[dict]:
    """Optimiser groups whose learning rate falls by ``decay`` with every block below the head (BEiT, arXiv:2106.08254).

    Args:
        model: frozen parameters are left out.
        lr: of the head.
        decay: 1 gives every block the same.
        weight_decay: of the parameters named in ``decayed``; the others have none.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``name``; each trained parameter is in exactly one.
    """
    depths, head = block_depths(model)
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth, decays = depths[name], name in decayed
        group = groups.setdefault(
            (depth, decays),
            {
                "params": [],
                "lr": lr * decay ** (head - depth),
                "weight_decay": weight_decay if decays else 0.0,
                "name": f"block {depth}" if depth < head else "head",
            },
        )
        group["params"].append(parameter)
    return list(groups.values())
