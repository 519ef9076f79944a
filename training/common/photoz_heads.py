"""Last layers of a network that says a redshift: a number, or a distribution p(z) of one of three kinds.

All have ``forward(features) -> raw`` (rows, numbers), ``loss(raw, z) -> (rows,)`` and, but for `Point`, ``cdf(raw, grid) ->
(rows, nodes)``, so that whatever trains, measures or combines them needs no other. Distributions are of log(1 + z), in which
the errors of photometric redshifts are about as wide everywhere.

`BayesianLast` is a variational Bayesian last layer (Harrison, Willes & Snoek 2024, ICLR, arXiv:2404.11599): a normal
distribution over the weights of the last layer alone, trained with its evidence bound in closed form; nothing is sampled.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Width of the loss: |dz| that costs a half (Tanaka et al. 2018, PASJ 70, S9).
GAMMA = 0.15
#: ``hsc``: dz over 1 + z_spec; ``paper``: over 1 + z_phot, as printed in arXiv:2410.00271; ``example``: undivided, as in the
#: code that the authors publish.
POINT_LOSSES = ("hsc", "paper", "example")
#: Narrowest component in units of log(1 + z), below any spectroscopic error that matters.
NARROWEST = 1e-3


class Point(nn.Module):
    """A redshift.

    Args:
        features: numbers that it is made of.
        kind: of ``POINT_LOSSES``.
    """

    def __init__(self, features: int, kind: str = "hsc"):
        super().__init__()
        self.linear, self.kind = nn.Linear(features, 1), kind

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)

    def loss(self, raw: Tensor, z: Tensor) -> Tensor:
        """1 - 1 / (1 + (dz / 0.15)^2), (rows,)."""
        predicted = raw[:, 0]
        scale = {"hsc": 1 + z, "paper": 1 + predicted, "example": torch.ones_like(z)}[self.kind]
        squared = (predicted - z) ** 2
        return squared / (squared + (GAMMA * scale) ** 2 + 1e-12)

    def point(self, raw: Tensor) -> Tensor:
        return raw[:, 0]


class _Distribution(nn.Module):
    """Of log(1 + z), seen in units of its mean and standard deviation over the training set.

    Args:
        mean, std: of log(1 + z).
    """

    def __init__(self, mean: float, std: float):
        super().__init__()
        self.mean, self.std = mean, std

    def scaled(self, z: Tensor) -> Tensor:
        return (torch.log1p(z) - self.mean) / self.std


class Mixture(_Distribution):
    """A mixture of normal distributions (Bishop 1994, mixture density networks).

    Args:
        features: numbers that it is made of.
        components: of the mixture.
        mean, std: of log(1 + z) over the training set.
    """

    def __init__(self, features: int, components: int, mean: float, std: float):
        super().__init__(mean, std)
        self.components, self.linear = components, nn.Linear(features, 3 * components)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)

    def parts(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of the weights, means and standard deviations, each (rows, components), scaled."""
        weights, means, widths = raw.float().split(self.components, dim=1)
        # They begin spread over the training set's redshifts: components that start alike stay alike for long.
        spread = torch.linspace(-1.5, 1.5, self.components, device=raw.device) if self.components > 1 else 0.0
        return weights.log_softmax(1), means + spread, functional.softplus(widths) + NARROWEST / self.std

    def loss(self, raw: Tensor, z: Tensor) -> Tensor:
        """Negative logarithm of the density at log(1 + z), (rows,)."""
        weights, means, widths = self.parts(raw)
        away = (self.scaled(z)[:, None] - means) / widths
        normal = -0.5 * away**2 - widths.log() - 0.5 * math.log(2 * math.pi)
        return -torch.logsumexp(weights + normal, dim=1) + math.log(self.std)

    def cdf(self, raw: Tensor, grid: Tensor) -> Tensor:
        """Cumulative function at each node, (rows, nodes)."""
        weights, means, widths = self.parts(raw)
        nodes, total = self.scaled(grid), torch.zeros(len(raw), len(grid), device=raw.device)
        for part in range(self.components):
            away = (nodes - means[:, part, None]) / widths[:, part, None]
            total += weights[:, part, None].exp() * torch.special.ndtr(away)
        return total


class Bins(_Distribution):
    """Shares of bins of log(1 + z), equal in width (as Pasquet et al. 2019, A&A 621, A26, do in z).

    Args:
        features: numbers that it is made of.
        bins: how many, from z = 0.
        z_max: where the last bin ends; what is beyond counts as in the last.
    """

    def __init__(self, features: int, bins: int, z_max: float):
        super().__init__(0.0, 1.0)
        self.bins, self.width, self.linear = bins, math.log1p(z_max) / bins, nn.Linear(features, bins)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)

    def loss(self, raw: Tensor, z: Tensor) -> Tensor:
        """Negative logarithm of the density at log(1 + z), (rows,): cross-entropy and the bin's width."""
        label = (self.scaled(z) / self.width).long().clamp(0, self.bins - 1)
        return functional.cross_entropy(raw.float(), label, reduction="none") + math.log(self.width)

    def cdf(self, raw: Tensor, grid: Tensor) -> Tensor:
        """Cumulative function at each node, (rows, nodes)."""
        upper = raw.float().softmax(1).cumsum(1)
        edges = functional.pad(upper / upper[:, -1:], (1, 0))
        place = (self.scaled(grid) / self.width).clamp(0, self.bins)
        left = place.long().clamp(max=self.bins - 1)
        return torch.lerp(edges[:, left], edges[:, left + 1], place - left)


class BayesianLast(_Distribution):
    """A normal distribution whose last layer's weights are uncertain: see the module.

    Its ``raw`` is (rows, 4): mean, variance that the weights' uncertainty makes, logarithm of the variance that is left, and
    the divergence of the weights from their prior over the rows of the training set, the same for all rows.

    Args:
        features: numbers that it is made of; they are reduced to 64.
        rows: of the training set: how much the prior counts beside them.
        mean, std: of log(1 + z) over the training set.
    """

    WIDTH = 64

    def __init__(self, features: int, rows: int, mean: float, std: float):
        super().__init__(mean, std)
        self.rows, self.reduce = rows, nn.Linear(features, self.WIDTH)
        self.noise = nn.Linear(self.WIDTH, 1)
        self.weight = nn.Parameter(torch.zeros(self.WIDTH + 1))
        #: Cholesky factor of the weights' covariance; logarithms on the diagonal.
        self.factor = nn.Parameter(torch.diag(torch.full((self.WIDTH + 1,), -3.0)))

    def forward(self, features: Tensor) -> Tensor:
        hidden = torch.tanh(self.reduce(features))
        one = functional.pad(hidden, (0, 1), value=1.0)
        logarithms = self.factor.diagonal()
        factor = torch.tril(self.factor, -1) + torch.diag(logarithms.exp())
        mean, variance = one @ self.weight, ((one @ factor) ** 2).sum(1)
        divergence = 0.5 * ((factor**2).sum() + (self.weight**2).sum() - len(self.weight)) - logarithms.sum()
        noise = self.noise(hidden)[:, 0].clamp(-14, 6)
        return torch.stack([mean, variance, noise, (divergence / self.rows).expand_as(mean)], dim=1)

    def loss(self, raw: Tensor, z: Tensor) -> Tensor:
        """Negative evidence bound, (rows,): equation 7 of the paper, with a variance of each row's own."""
        mean, variance, noise, divergence = raw.float().unbind(1)
        squared = (self.scaled(z) - mean) ** 2 + variance
        return 0.5 * (squared * (-noise).exp() + noise + math.log(2 * math.pi)) + divergence + math.log(self.std)

    def cdf(self, raw: Tensor, grid: Tensor) -> Tensor:
        """Cumulative function at each node, (rows, nodes), weights and noise integrated over."""
        mean, variance, noise, _ = raw.float().unbind(1)
        width = (variance + noise.exp()).sqrt()
        return torch.special.ndtr((self.scaled(grid) - mean[:, None]) / width[:, None])
