"""Rows of a survey as tensors: decoding in the loader's workers, batches of uint8."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor

from skyset.errors import UserError
from skyset.messages import listed
from skyset.pixels import as_array


def to_tensor(image, size: int, channels: int = 3) -> Tensor:
    """An image as pixels.

    Args:
        image: PIL image in any mode, or uint8 array (height, width), (height, width, channels) or (channels, height, width).
        size: pixels per side; the image is averaged down or interpolated up, its longer side cut to the shorter.
        channels: 3 makes colour of grey; 1 makes grey of colour; any other number must be what the image has.

    Returns:
        uint8 (channels, size, size).

    Raises:
        UserError: pixels that are not uint8, or another number of channels.
    """
    if isinstance(image, Image.Image):
        picture = as_picture(image).convert("L" if channels == 1 else "RGB")
        return _array_to_tensor(np.asarray(_square(picture).resize((size, size), Image.Resampling.BILINEAR)), channels)
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise UserError(f"images of {array.dtype} need a stretch to 8 bits first: only uint8 is read")
    if array.ndim == 3 and array.shape[0] not in (3, 4) and array.shape[2] not in (1, 3, 4):
        small = [_square(Image.fromarray(layer)).resize((size, size), Image.Resampling.BILINEAR) for layer in array]
        return _array_to_tensor(np.stack([np.asarray(layer) for layer in small], axis=2), channels)
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    return to_tensor(Image.fromarray(array.squeeze()), size, channels)


def as_picture(image) -> Image.Image:
    """An image of a PIL image in any mode, see `skyset.pixels.rgb`, or of uint8 (height, width[, bands])."""
    return Image.fromarray(as_array(image).squeeze())


def _square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture if picture.width == picture.height else picture.crop((left, top, left + side, top + side))


def _array_to_tensor(array: np.ndarray, channels: int) -> Tensor:
    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.shape[2] != channels:
        raise UserError(f"the images have {pixels.shape[2]} channels, the model takes {channels}")
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())  # PIL's own memory is read-only


class Rows(torch.utils.data.Dataset):
    """Rows of a survey as a map-style torch dataset of dicts of tensors.

    Args:
        rows: of `datasets`; only the columns that ``read`` names are decoded.
        read: by the tensor's name, a column and what makes a tensor of one of its values:
            ``{"pixel_values": ("image", lambda image: to_tensor(image, 64))}``.
        known: by the tensor's name, (rows, ...): what is small enough to be read beforehand, such as labels.
        order: numbers of the rows in the dataset's order, some several times or never; by default each once.

    Raises:
        UserError: a column that is not there, or another number of values than rows.
    """

    def __init__(
        self,
        rows: Dataset,
        read: Mapping[str, tuple[str, Callable[[object], Tensor]]],
        known: Mapping[str, Tensor] | None = None,
        order: np.ndarray | None = None,
    ):
        columns = list(dict.fromkeys(column for column, _ in read.values()))
        if missing := [name for name in columns if name not in rows.column_names]:
            raise UserError(f"the data have no column {missing[0]}; they have {listed(rows.column_names)}")
        for name, values in (known or {}).items():
            if len(values) != len(rows):
                raise UserError(f"{len(values)} {name} for {len(rows)} rows")
        self.rows, self.read, self.known = rows.select_columns(columns), dict(read), dict(known or {})
        self.order = np.arange(len(rows)) if order is None else np.asarray(order)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = int(self.order[index])
        values = self.rows[row]
        read = {name: make(values[column]) for name, (column, make) in self.read.items()}
        return read | {name: values[row] for name, values in self.known.items()}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """Rows of a batch, which a `DataLoader` asks for: read together, three times as fast as one by one."""
        if self.rows.format["type"] == "arrow" or not self.read:  # what makes tensors of Arrow takes single rows
            return [self[index] for index in indices]
        rows = [int(self.order[index]) for index in indices]
        values = self.rows[rows]
        made = [
            {name: make(values[column][place]) for name, (column, make) in self.read.items()} for place in range(len(rows))
        ]
        return [read | {name: each[row] for name, each in self.known.items()} for read, row in zip(made, rows, strict=True)]


class LabelledImages(Rows):
    """Rows with ``image`` and ``label``; a row may stand in it several times.

    Args:
        rows: with the features ``image`` and ``label``.
        size: pixels per side.
        channels: that the model takes.
        repeats: for each class, how often its rows stand in the dataset on average: at 1.9, nine in ten stand twice.
        seed: of which they are.
    """

    def __init__(self, rows: Dataset, size: int, channels: int = 3, repeats: Sequence[float] = (1, 1), seed: int = 0):
        self.labels = np.asarray(rows["label"], np.int64)
        order = np.repeat(np.arange(len(rows)), repeats_of_rows(self.labels, repeats, seed))
        pixels = functools.partial(to_tensor, size=size, channels=channels)
        super().__init__(rows, {"pixel_values": ("image", pixels)}, {"labels": torch.from_numpy(self.labels)}, order)


def repeats_of_rows(labels: np.ndarray, repeats: Sequence[float], seed: int) -> np.ndarray:
    """How often each row stands in a dataset, int (rows,): ``repeats[label]`` on average over the rows of a class.

    Each row stands there as often as the whole part says, and a random share of them, given by the rest, once more.
    """
    counts = np.zeros(len(labels), np.int64)
    for label, average in enumerate(repeats):
        rows = np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label))
        counts[rows] = int(average)
        counts[rows[: round(len(rows) * (average - int(average)))]] += 1
    return counts


def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stacked tensors by name: ``pixel_values`` uint8 (batch, channels, size, size), ``labels`` (batch, ...), and others."""
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
