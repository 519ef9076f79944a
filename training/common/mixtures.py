"""Distributions p(z) as mixtures of normal distributions of log(1 + z), of one network or of many at once.

Mixture density networks: Bishop 1994, NCRG/94/004; in log(1 + z) an error of the same width is the same dz / (1 + z) at any
redshift. A model answers numbers (..., components, 3): log weight, mean and standard deviation, both of log(1 + z).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

#: Standard deviation of a component at the start, and the smallest one, in standard deviations of the training redshifts.
FIRST, FLOOR = 0.3, 0.002
#: Rows whose cumulative functions are made at once: memory does not grow with the table.
_ROWS = 1024


def components_of(numbers: Tensor, centre: float, spread: float) -> Tensor:
    """What a linear layer gives, as components.

    Args:
        numbers: (..., 3 * components), any.
        centre, spread: mean and standard deviation of log(1 + z) of the training rows.

    Returns:
        (..., components, 3), float32: log weights, whose exponentials have the sum 1, means, standard deviations.
    """
    weights, means, widths = numbers.float().chunk(3, -1)
    scales = functional.softplus(widths + math.log(math.expm1(FIRST))) + FLOOR
    return torch.stack([functional.log_softmax(weights, -1), centre + spread * means, spread * scales], -1)


@torch.no_grad()
def start_head(weight: Tensor, bias: Tensor, features: int) -> None:
    """First weights of layers whose numbers ``components_of`` reads.

    Args:
        weight: of one network or of several.
        bias: (..., 3 * components).
        features: numbers that go in.
    """
    weight.normal_(0, 0.1 / math.sqrt(features))
    bias.zero_()
    count = bias.shape[-1] // 3
    bias[..., count : 2 * count] = torch.linspace(-1.5, 1.5, count)


@dataclass(frozen=True)
class Mixture:
    """p(z) of some rows.

    Args:
        components: (rows, components, 3), or (rows, members, components, 3) of an ensemble, whose members count the same.
    """

    components: Tensor

    def joined(self, use: Tensor | None = None) -> Mixture:
        """One mixture a row of the components of all members, or of those in ``use``, bool (rows, members)."""
        found = self.components
        if found.ndim == 3:
            return self
        use = torch.ones(found.shape[:2], dtype=torch.bool) if use is None else use
        share = (use / use.sum(1, keepdim=True)).log().to(found.device)
        return Mixture(torch.cat([found[..., :1] + share[..., None, None], found[..., 1:]], -1).flatten(1, 2))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density in z, (rows,) or of each member (rows, members), at z (rows,) above -1."""
        log_weights, means, scales = self.components.unbind(-1)
        t = torch.log1p(z.float()).reshape(-1, *[1] * (log_weights.ndim - 1))
        normal = -0.5 * ((t - means) / scales) ** 2 - torch.log(scales) - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(log_weights + normal, -1) - t[..., 0]

    def cdf(self, grid: np.ndarray, use: Tensor | None = None) -> np.ndarray:
        """Cumulative functions on a grid of redshifts (nodes,), of what ``joined`` gives: float32 (rows, nodes)."""
        t = torch.log1p(torch.as_tensor(np.asarray(grid), dtype=torch.float32))
        parts = self.joined(use).components.float().cpu().split(_ROWS)
        return torch.cat([_cdf(part, t) for part in parts]).numpy()


def _cdf(components: Tensor, t: Tensor) -> Tensor:
    total = torch.zeros(len(components), len(t))
    for one in components.unbind(1):
        log_weight, mean, scale = one[..., None].unbind(1)
        total += log_weight.exp() * torch.special.ndtr((t - mean) / scale)
    return total.clamp_(0, 1)
