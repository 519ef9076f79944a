"""Batches of one process of several: together they see each row once an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import DataLoader, Sampler

from skyset.errors import UserError


class EpochBatches(Sampler[list[int]]):
    """Batches of one process: together the processes see every row exactly once an epoch, in as many steps each.

    Padding the last batch shows some rows twice, dropping it never shows others; here the batches of an epoch are equal to
    within one row instead. The order follows from seed and epoch alone.

    Args:
        rows: of the dataset.
        batch_size: rows per batch and process, at most (exceeded by one where ``rows`` leaves no other way).
        seed: of the shuffling.
        rank, world: this process, and how many there are.

    Raises:
        UserError: fewer rows than processes.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, rank: int = 0, world: int = 1):
        if rows < world:
            raise UserError(f"{rows} rows cannot be shared by {world} processes")
        self.rows, self.seed, self.rank, self.world, self.epoch = rows, seed, rank, world, 0
        self.steps = min(math.ceil(rows / (batch_size * world)), rows // world)

    def __len__(self) -> int:
        return self.steps

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)
        for chunk in np.array_split(order, self.steps * self.world)[self.rank :: self.world]:
            yield chunk.tolist()


class EpochLoader(DataLoader):
    """A DataLoader that tells its batch sampler the epoch, which `Trainer` announces to the loader alone."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)
