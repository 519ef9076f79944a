"""Batches of rows of any length for a ``DataLoader``: padded to the longest of the batch, or as nested tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skyset.errors import UserError
from skyset.loading.ragged import padded

if TYPE_CHECKING:
    import datasets

#: Added to a feature's name for how long its rows were.
LENGTH = "_length"


@dataclass(frozen=True)
class Collate:
    """A ``collate_fn``: what ``default_collate`` does, and features of any length as one tensor each. Picklable.

    Args:
        features: of the rows.
        fill: what stands behind shorter rows; 0 where the dtype has no such number.
        nested: ``torch.nested`` tensors (jagged) in place of padded ones. They cannot travel between processes: for
            ``num_workers=0``.
    """

    features: datasets.Features
    fill: float = 0.0
    nested: bool = False

    def __call__(self, rows: Sequence[Mapping]) -> dict:
        """A batch: of a ragged feature of numbers a tensor (rows, longest, ...) and, under its name with ``_length``, int64
        (rows,); text as a list of lists.

        Raises:
            UserError: nested tensors in a worker process.
        """
        from torch.utils.data import default_collate, get_worker_info

        if self.nested and get_worker_info() is not None:
            raise UserError("nested tensors cannot travel between processes: num_workers=0, or nested=False")
        return self._batch([dict(row) for row in rows], self.features, default_collate)

    def _batch(self, rows: Sequence[Mapping], features: Mapping, collate) -> dict:
        batch: dict = {}
        plain = [name for name in rows[0] if not has_ragged(features.get(name))]
        if plain:
            batch = collate([{name: row[name] for name in plain} for row in rows])
        for name, feature in features.items():
            if name in plain or name not in rows[0]:
                continue
            values = [row[name] for row in rows]
            if isinstance(feature, dict):
                batch[name] = self._batch(values, feature, collate)
            elif isinstance(values[0], list):
                batch[name] = values
            else:
                batch |= self._ragged(name, values, feature)
        return {name: batch[name] for name in sorted(batch, key=_order(rows[0]))}

    def _ragged(self, name: str, values: Sequence, feature) -> dict:
        import torch

        arrays = [np.asarray(value) for value in values]
        if self.nested:
            tensors = [torch.from_numpy(np.array(array)) for array in arrays]
            return {name: torch.nested.nested_tensor(tensors, layout=torch.jagged)}
        whole, shapes = padded(arrays, self.fill)
        return {name: torch.from_numpy(whole), name + LENGTH: torch.from_numpy(shapes[:, ragged_axis(feature)].copy())}


def _order(row: Mapping):
    """Sorts names as a row has them, each length behind its own."""
    places = {name: number for number, name in enumerate(row)}
    return lambda name: (places.get(name, places.get(name.removesuffix(LENGTH), len(places))), name not in places)


def ragged_axis(feature) -> int | None:
    """The axis of a feature's values whose length differs from row to row; None where there is none."""
    for axis in range(8):
        inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
        if inner is None or isinstance(inner, dict):
            return None
        if getattr(feature, "length", -1) == -1:
            return axis
        feature = inner
    return None


def has_ragged(feature) -> bool:
    """Whether a feature, or one of its group, has rows of any length."""
    if isinstance(feature, dict):
        return any(map(has_ragged, feature.values()))
    return ragged_axis(feature) is not None


def collate(features: datasets.Features, fill: float = 0.0, nested: bool = False) -> Collate:
    """A ``collate_fn`` for rows of any length: ``DataLoader(rows, batch_size=8, collate_fn=skyset.collate(rows.features))``.

    Args:
        features: of the rows, ``rows.features``.
        fill: what stands behind the shorter rows of a batch, such as 0 or NaN.
        nested: nested tensors in place of padded ones.

    Returns:
        ``Collate``.

    Raises:
        UserError: the rows have no features, as after a ``map`` that declares none.
    """
    if features is None:
        raise UserError("these rows have no features, so that it is not known which are ragged: map(..., features=...)")
    return Collate(features, fill, nested)
