"""Moments of the rows, their nearest units and the sums of these, compiled or with torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from skyset.errors import MissingPackage, UserError
from skyset.extraction.som.kernels import FARTHEST, add_up, block_moments, distances_to, nearest_units, scale_rows
from skyset.extraction.som.rows import BLOCK, Block, Importance, Stream

#: Numbers of a block's distances to all units, float32, that torch has at a time: on a GPU 128 MB, else 2 MB, for the cache.
_GPU_NUMBERS, _CORE_NUMBERS = 1 << 25, 1 << 19
#: Share of a GPU's free memory in which rows are kept from one epoch to the next.
_GPU_SHARE = 0.5


class Moments:
    """Mean and scatter about it of weighted rows, merged block by block (Chan, Golub & LeVeque 1983).

    Attributes:
        total: sum of weights.
        mean: (features,).
        scatter: (features, features), sum of weight x product of deviations from the mean.
    """

    def __init__(self, features: int):
        self.total, self.mean, self.scatter = 0.0, np.zeros(features), np.zeros((features, features))

    def add(self, values: np.ndarray, weight: np.ndarray) -> None:
        total = weight.sum()
        if total == 0:
            return
        mean, scatter = np.empty_like(self.mean), np.empty_like(self.scatter)
        block_moments(values, weight, total, mean, scatter)
        both, shift = self.total + total, mean - self.mean
        with np.errstate(over="ignore", invalid="ignore"):  # refused by name when all rows have been seen
            self.scatter += scatter + np.outer(shift, shift) * (self.total * total / both)
        self.mean = self.mean + shift * (total / both)
        self.total = both


class Compiled:
    """Nearest units and sums by the compiled kernels."""

    block = BLOCK

    def __init__(self, mean: np.ndarray, inverse: np.ndarray):
        self.mean, self.inverse = mean, inverse
        self.scaled = np.empty((len(mean), BLOCK), np.float32)
        self.none, self.winner, self.second = (np.full(BLOCK, -1, np.int32) for _ in range(3))

    def set(self, weights: np.ndarray) -> None:
        self.weights = np.ascontiguousarray(weights)
        self.half_squares = (0.5 * (weights.astype(np.float64) ** 2).sum(1)).astype(np.float32)

    def _find(self, block: Block) -> None:
        scale_rows(block.values, self.mean, self.inverse, self.scaled)
        nearest_units(self.scaled, self.weights, self.half_squares, self.none, self.winner)

    def sums(self, stream: Stream, importance: Importance) -> tuple[np.ndarray, np.ndarray]:
        """Sums of the rows of each unit, float64 (units, features), and of their weights (units,)."""
        sums, mass = np.zeros(self.weights.shape), np.zeros(len(self.weights))
        for block in stream:
            self._find(block)
            add_up(self.scaled, self.winner, importance.of(block), len(block), sums, mass)
        return sums, mass

    def winners(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nearest and second nearest unit of each row, and the distance to the nearest."""
        self._find(block)
        nearest_units(self.scaled, self.weights, self.half_squares, self.winner, self.second)
        distance = np.empty(BLOCK, np.float32)
        distances_to(self.scaled, self.weights, self.winner, distance)
        return self.winner[: len(block)], self.second[: len(block)], distance[: len(block)]


class Torch:
    """The same on a torch device. Scaled rows stay on a GPU from one epoch to the next where there is room for them."""

    def __init__(self, mean: np.ndarray, inverse: np.ndarray, units: int, device: Any):
        try:
            import torch
        except ImportError as error:
            raise MissingPackage(
                "a map on a device needs the package torch; without device= it needs none", "torch"
            ) from error
        self.torch, self.device = torch, torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise UserError("torch finds no GPU here: leave out device=")
        self.mean, self.inverse = (torch.as_tensor(x[:, None]).to(self.device) for x in (mean, inverse))
        numbers = _GPU_NUMBERS if self.device.type == "cuda" else _CORE_NUMBERS
        self.block = int(np.clip(numbers // units, 1024, 1 << 18))
        self.kept: list[tuple[Any, Any]] | None = None

    def set(self, weights: np.ndarray) -> None:
        self.weights = self.torch.as_tensor(weights).to(self.device)
        self.half_squares = (0.5 * (self.weights.double() ** 2).sum(1)).float()

    def _scaled(self, block: Block) -> Any:
        """(features, rows) float32."""
        values = self.torch.as_tensor(block.values[:, : len(block)]).to(self.device)
        return ((values - self.mean) * self.inverse).clamp(-FARTHEST, FARTHEST).float()

    def _scores(self, scaled: Any) -> Any:
        """(units, rows): half the squared distance to each unit, less what is the same for all units.

        Feature by feature, not as a matrix product, which a GPU may round to fewer digits.
        """
        scores = self.half_squares[:, None].repeat(1, scaled.shape[1])
        for k in range(len(scaled)):
            scores.addcmul_(self.weights[:, k, None], scaled[None, k], value=-1)
        return scores

    def sums(self, stream: Stream, importance: Importance) -> tuple[np.ndarray, np.ndarray]:
        torch, units = self.torch, len(self.weights)
        sums = torch.zeros(self.weights.shape, dtype=torch.float64, device=self.device)
        mass = torch.zeros(units, dtype=torch.float64, device=self.device)
        numbers = torch.arange(units, device=self.device)[:, None]
        for scaled, weight in self._rows(stream, importance):
            member = (self._scores(scaled).min(0).indices[None] == numbers).double() * weight
            sums += member @ scaled.double().T  # a scatter would add in an order of its own at each call
            mass += member.sum(1)
        return sums.cpu().numpy(), mass.cpu().numpy()

    def _rows(self, stream: Stream, importance: Importance) -> Iterator[tuple[Any, Any]]:
        if self.kept is not None:
            yield from self.kept
            return
        size = (stream.expected or 0) * (4 * len(self.mean) + 8)
        kept: list | None = [] if size < _GPU_SHARE * _free_bytes(self.device) else None
        for block in stream:
            weight = self.torch.as_tensor(importance.of(block)[: len(block)]).to(self.device)
            pair = (self._scaled(block), weight)
            if kept is not None:
                kept.append(pair)
            yield pair
        self.kept = kept

    def winners(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scaled = self._scaled(block)
        scores = self._scores(scaled)
        winner = scores.min(0).indices
        away = (scaled - self.weights[winner].T).square().sum(0).sqrt()
        if len(self.weights) > 1:
            scores.scatter_(0, winner[None], np.inf)
        second = scores.min(0).indices
        return winner.int().cpu().numpy(), second.int().cpu().numpy(), away.cpu().numpy()


def _free_bytes(device: Any) -> int:
    """Memory in which a device may keep rows: none of this machine's own."""
    if device.type != "cuda":
        return 0
    import torch

    return torch.cuda.mem_get_info(device)[0]
