"""A whole split on the device: batches are cut from tensors there, and no loader decodes, copies or waits.

GalaxiesML's training split is 33 GB as float16 in 127 x 127 pixels. Every process holds all of it, since the shuffled order
of an epoch may ask any process for any row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from skyset.errors import UserError
from skyset.progress import progress_bar
from skyset.training.common.images import collate as stacked


class Resident(Dataset):
    """Rows as tensors on one device, as a map-style dataset that hands out whole batches.

    Args:
        tensors: by name, (rows, ...).

    Raises:
        UserError: other numbers of rows.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        counts = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(counts.values())) != 1:
            raise UserError(f"the tensors have other numbers of rows: {counts}")
        self.tensors = dict(tensors)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    @property
    def device(self) -> torch.device:
        return next(iter(self.tensors.values())).device

    @property
    def bytes(self) -> int:
        """That the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: tensor[row] for name, tensor in self.tensors.items()}

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """A batch, which ``collate`` lets through: what a `DataLoader` asks for where a dataset has it."""
        where = torch.as_tensor(rows, device=self.device)
        return {name: tensor.index_select(0, where) for name, tensor in self.tensors.items()}


def collate(rows: Mapping[str, Tensor] | list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of a `Resident` as it is; rows of other datasets stacked."""
    return dict(rows) if isinstance(rows, Mapping) else stacked(rows)


def fill(
    rows: int, shape: Sequence[int], batches: Iterable[Tensor], dtype: torch.dtype, device: torch.device | str, what: str
) -> Tensor:
    """One tensor (rows, *shape) on the device, of batches as they come: no second copy of the split is ever held.

    Args:
        rows, shape: of the result.
        batches: of rows, in order, in the result's dtype.
        dtype, device: of the result.
        what: is read, for the progress bar.

    Raises:
        UserError: other numbers of rows came, or the device has no room for them.
    """
    size = rows * int(torch.Size(shape).numel()) * torch.empty((), dtype=dtype).element_size()
    try:
        result = torch.empty((rows, *shape), dtype=dtype, device=device)
    except RuntimeError as error:  # CUDA's own error is one, and so is the CPU's
        raise UserError(f"--resident needs {size / 1e9:.1f} GB on {device}, which has no room for it") from error
    first = 0
    with progress_bar(total=rows, desc=what, unit="row") as bar:
        for batch in batches:
            if first + len(batch) > rows:
                raise UserError(f"{what}: more than the {rows} rows that were counted")
            result[first : first + len(batch)].copy_(batch)
            first += len(batch)
            bar.update(len(batch))
    if first != rows:
        raise UserError(f"{what}: {first} of {rows} rows came")
    return result
