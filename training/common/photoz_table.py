"""p(z) from magnitudes: an ensemble of mixture density networks that are trained side by side, as one model.

Deep ensembles: Lakshminarayanan et al. 2017, arXiv:1612.01474. Members differ by their first weights, by the noise they see,
and by the rows they leave out: member m never learns from fold m % folds, and predicts it as it would new rows, which gives
cross-validated figures of the training table itself.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from skyset.errors import UserError
from skyset.training.common.mixtures import Mixture, components_of, start_head
from skyset.training.common.photometry import Columns, Photometry, Scaling, TableArguments, read_photometry
from skyset.training.common.photoz_points import check_point


class PhotozTableConfig(PretrainedConfig):
    """What a `PhotozTable` is.

    Args:
        bands: from blue to red.
        scaling: of the survey; see `photometry.scaling_of`.
        centre, spread: mean and standard deviation of log(1 + z) of the training rows.
        width, depth: of the hidden layers, and how many blocks.
        components: of each member's mixture.
        members: networks in the ensemble.
        folds: parts of the training rows, each left out by some members; 0 or 1: nobody leaves any out.
        noise: errors by which fluxes are moved in training.
        point: the redshift that p(z) becomes, of `photoz_points.POINTS`.
        columns: of the table that it was trained on, by ``magnitudes``, ``errors`` and ``redshift``.
    """

    model_type = "skyset_photoz_table"

    def __init__(
        self,
        bands: list[str] | None = None,
        scaling: dict[str, list] | None = None,
        centre: float = 0.6,
        spread: float = 0.25,
        width: int = 256,
        depth: int = 3,
        components: int = 8,
        members: int = 8,
        folds: int = 8,
        noise: float = 0.5,
        point: str = "best",
        columns: dict | None = None,
        **others,
    ):
        self.bands, self.columns = list(bands or "ugrizy"), columns or {}
        count = len(self.bands)
        self.scaling = scaling or {
            "softening": [0.1] * count,
            "faint_error": [0.1] * count,
            "mean": [0.0] * (2 * count - 1),
            "std": [1.0] * (2 * count - 1),
            "axes": np.eye(count).tolist(),
        }
        self.centre, self.spread, self.noise, self.point = centre, spread, noise, point
        self.width, self.depth, self.components, self.members, self.folds = width, depth, components, members, folds
        super().__init__(**others)
        self._check()

    def _check(self) -> None:
        count = len(self.bands)
        for name, length in (
            ("softening", count),
            ("faint_error", count),
            ("axes", count),
            ("mean", 2 * count - 1),
            ("std", 2 * count - 1),
        ):
            if len(self.scaling.get(name, ())) != length:
                raise UserError(
                    f"the model's scaling has no {name} of {length} numbers for the bands {', '.join(self.bands)}"
                )
        for name in ("width", "depth", "components", "members"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be 1 or more, not {getattr(self, name)}")
        check_point(self.point)
        if self.noise < 0 or self.folds < 0:
            raise UserError("noise and folds must not be negative")
        if self.folds > 1 and self.members % self.folds:
            raise UserError(
                f"{self.members} members cannot share {self.folds} folds evenly: give a multiple of {self.folds}"
            )


class Layers(nn.Module):
    """A linear layer of each member: (members, rows, ins) to (members, rows, outs)."""

    def __init__(self, members: int, ins: int, outs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, ins, outs))
        self.bias = nn.Parameter(torch.empty(members, 1, outs))

    def forward(self, values: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, values, self.weight)


class PhotozTable(PreTrainedModel):
    """Magnitudes to the components of p(z)."""

    config_class = PhotozTableConfig
    base_model_prefix = "photoz_table"
    main_input_name = "magnitudes"

    def __init__(self, config: PhotozTableConfig):
        super().__init__(config)
        members, width = config.members, config.width
        self.first = Layers(members, 4 * len(config.bands) - 1, width)
        self.blocks = nn.ModuleList(Layers(members, width, width) for _ in range(config.depth))
        self.head = Layers(members, width, 3 * config.components)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self.head:
            start_head(module.weight, module.bias, self.config.width)
        elif isinstance(module, Layers):
            module.weight.normal_(0, 1 / math.sqrt(module.weight.shape[1]))
            module.bias.zero_()

    def forward(self, magnitudes: Tensor, errors: Tensor | None = None, **_) -> SequenceClassifierOutput:
        """p(z) of some galaxies; in training each member sees other noise.

        Args:
            magnitudes: (rows, bands) in the order of ``config.bands``: +inf where not detected, NaN where not observed.
            errors: (rows, bands), NaN where not known.

        Returns:
            ``logits`` (rows, members, components, 3), for `mixtures.Mixture`.
        """
        config, like = self.config, self.first.weight
        if magnitudes.shape[-1] != len(config.bands):
            raise UserError(f"{magnitudes.shape[-1]} magnitudes a row, but the model takes {', '.join(config.bands)}")
        scaling = Scaling(**{name: like.new_tensor(values, dtype=torch.float32) for name, values in config.scaling.items()})
        errors = torch.full_like(magnitudes, torch.nan) if errors is None else errors
        noisy = self.training and config.noise > 0
        draws = torch.randn((config.members, *magnitudes.shape), device=magnitudes.device) if noisy else None
        values = scaling.features(magnitudes, errors, config.noise, draws).to(like.dtype)
        hidden = self.first(values.expand(config.members, -1, -1))
        for block in self.blocks:
            hidden = hidden + block(functional.silu(hidden))
        numbers = self.head(functional.silu(hidden))
        return SequenceClassifierOutput(logits=components_of(numbers, config.centre, config.spread).transpose(0, 1))

    def learns_from(self, folds: Tensor) -> Tensor:
        """Which members learn from rows of these folds: bool (rows, members)."""
        members = torch.arange(self.config.members, device=folds.device)
        if self.config.folds < 2:
            return torch.ones((len(folds), len(members)), dtype=torch.bool, device=folds.device)
        return members % self.config.folds != folds[:, None]


def member_loss(components: Tensor, redshifts: Tensor, use: Tensor) -> Tensor:
    """Negative log density of each row, (rows,), averaged over the members in ``use`` (rows, members)."""
    log_prob = Mixture(components).log_prob(redshifts)
    return -torch.where(use, log_prob, 0.0).sum(1) / use.sum(1).clamp(min=1)


@torch.no_grad()
def predict(model: PhotozTable, path: str, at_once: int = 4096) -> tuple[Photometry, Tensor]:
    """p(z) of all rows of a table, which needs no redshifts.

    Args:
        model: trained.
        path: of the table, with the columns of the one that it was trained on.
        at_once: rows.

    Returns:
        The rows, and components (rows, members, components, 3) for `Mixture`.

    Raises:
        UserError: no such table, or other columns.
    """
    known = model.config.columns
    columns = Columns(tuple(model.config.bands), tuple(known["magnitudes"]), tuple(known["errors"]), None)
    rows = read_photometry(path, TableArguments(), columns, redshift=False)
    parts = zip(*(torch.from_numpy(each).split(at_once) for each in (rows.magnitudes, rows.errors)), strict=True)
    model.eval()
    return rows, torch.cat([model(*part).logits for part in parts])


AutoConfig.register(PhotozTableConfig.model_type, PhotozTableConfig, exist_ok=True)
AutoModel.register(PhotozTableConfig, PhotozTable, exist_ok=True)
