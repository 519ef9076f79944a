"""Rows of bytes of any length, and the images that they encode: decoded when somebody looks, and not before.

An image comes as an array in every format: RGB always, uint8 (H, W, 3), so that images can be stacked: `skyset.pixels.rgb`
says what becomes of other modes; it is what a build with ``--decode`` stores. Where that is asked for, it comes as
``datasets.Image`` gives it if no format is set: a ``PIL.Image`` in the file's own mode.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from skyset.errors import PartitionError
from skyset.pixels import ARRAY, PIL_IMAGE, UNDECODED, ImageError, decoded_image, rgb

if TYPE_CHECKING:
    import PIL.Image


class Bytes(Sequence):
    """Rows of a column of bytes; each is taken out of the block when it is asked for.

    Args:
        data: uint8 (bytes,), the bytes of all rows one after the other.
        bounds: int64 (rows + 1,); row k is ``data[bounds[k]:bounds[k + 1]]``.
        origins: where the rows are from, for messages: (rows, file, number of the first one there) of each run of rows.
    """

    def __init__(self, data: np.ndarray, bounds: np.ndarray, origins: Sequence[tuple[int, str, int]] = ()):
        self.data, self.bounds, self.origins = data, bounds, origins

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, row):
        if isinstance(row, slice):
            return self._part(*row.indices(len(self))[:2])
        return self._value(range(len(self))[row])

    def __iter__(self) -> Iterator:
        return map(self._value, range(len(self)))

    def _part(self, start: int, stop: int) -> Self:
        """Some rows, of the same block."""
        part = copy.copy(self)
        part.bounds = self.bounds[start : stop + 1]
        part.origins = [(1, *self.origin(row)) for row in range(start, stop)] if self.origins else ()
        return part

    def _value(self, row: int):
        return self.raw(row).tobytes()

    def raw(self, row: int) -> np.ndarray:
        """The bytes of a row, uint8 (bytes,), as a view."""
        return self.data[self.bounds[row] : self.bounds[row + 1]]

    def origin(self, row: int) -> tuple[str, int]:
        """File of a row, and its number there."""
        for rows, path, first in self.origins:
            if row < rows:
                return path, first + row
            row -= rows
        return "", row

    def batch(self):
        """All rows as one value of a batch."""
        return list(self)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Rows of several slabs one after the other."""
        whole = copy.copy(parts[0])
        whole.data = np.concatenate([part.data[part.bounds[0] : part.bounds[-1]] for part in parts])
        whole.bounds = bounds_of(np.concatenate([np.diff(part.bounds) for part in parts]))
        whole.origins = [origin for part in parts for origin in part.origins]
        return whole


class ImageRows(Bytes):
    """Rows of encoded images, decoded one by one when they are asked for.

    ``form`` is one of the constants above, ``mode`` the Pillow mode that ``datasets.Image`` asks for (None: the file's own),
    and ``column`` the name for messages; ``finish`` turns an array into something else.
    """

    form, mode, column = ARRAY, None, "image"
    finish: Callable[[np.ndarray], object] | None = None
    _kept: list | None = None

    @classmethod
    def of_pixels(cls, pixels: np.ndarray) -> ImageRows:
        """Images of arrays, uint8 (rows, H, W) or (rows, H, W, 3), without bytes: see ``encoded``."""
        from PIL import Image

        made = cls(np.empty(0, np.uint8), np.zeros(len(pixels) + 1, np.int64))
        made._kept = [Image.fromarray(np.ascontiguousarray(one)) for one in pixels]
        return made

    def encoded(self) -> ImageRows:
        """The same rows with their bytes: as PNG where they were made of pixels."""
        if self._kept is None or len(self.data):
            return self
        parts = [_png(image) for image in self._kept]
        data = np.frombuffer(b"".join(parts), np.uint8)
        return self.handed_out(data=data, bounds=bounds_of(np.array([len(part) for part in parts], np.int64)))

    def handed_out(self, **changes) -> ImageRows:
        """The same rows in another form."""
        twin = copy.copy(self)
        twin.__dict__.update(changes)
        return twin

    def _part(self, start: int, stop: int) -> Self:
        part = super()._part(start, stop)
        part._kept = None if self._kept is None else self._kept[start:stop]
        return part

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        whole = super().joined(parts)
        kept = [part._kept for part in parts if part._kept is not None]
        whole._kept = [image for images in kept for image in images] if len(kept) == len(parts) else None
        return whole

    def _value(self, row: int):
        if self.form == UNDECODED:
            return {"bytes": self.raw(row).tobytes(), "path": None}
        if self.form == PIL_IMAGE:
            return self.image(row)
        return self.finished(np.array(self.pixels(row)))

    def image(self, row: int) -> PIL.Image.Image:
        """One image, decoded.

        Raises:
            PartitionError: the bytes are no PNG or JPEG image, are damaged, or are of too many pixels.
        """
        image = self._decoded(row) if self._kept is None else self._kept[row]
        return image if self.mode in (None, image.mode) else image.convert(self.mode)

    def _decoded(self, row: int) -> PIL.Image.Image:
        try:
            return decoded_image(self.raw(row))
        except ImageError as error:
            path, number = self.origin(row)
            raise PartitionError(f"{path}: column {self.column}, row {number}: {error}") from error

    def pixels(self, row: int) -> np.ndarray:
        """One image as an array, uint8 (H, W, 3); it may not be written to."""
        return rgb(self.image(row))

    def finished(self, pixels: np.ndarray):
        """Arrays (..., H, W, 3) as they are handed out."""
        return self.finish(pixels) if self.finish else pixels

    def batch(self):
        """All images stacked where they are of one size, else a list of them; a list where they are no arrays."""
        if self.form != ARRAY:
            return list(self)
        pixels = [self.pixels(row) for row in range(len(self))]
        if same_shapes(pixels):
            return self.finished(np.stack(pixels))
        return [self.finished(np.array(image)) for image in pixels]

    def keep(self) -> dict[int, PartitionError]:
        """Decode all images now and hold them; the errors of those that are no images, by row."""
        kept: list[PIL.Image.Image | None] = []
        bad = {}
        for row in range(len(self)):
            try:
                kept.append(self.image(row))
            except PartitionError as error:
                kept.append(None)
                bad[row] = error
        self._kept = kept
        return bad


def _png(image: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def bounds_of(lengths: np.ndarray) -> np.ndarray:
    """Where rows of these lengths begin and end, one after the other from 0 on: int64 (rows + 1,)."""
    bounds = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=bounds[1:])
    return bounds


def same_shapes(arrays: Sequence[np.ndarray]) -> bool:
    return len({(array.shape, array.dtype) for array in arrays}) == 1
