"""Rows of bytes of any length, and the images that they encode: decoded when somebody looks, and not before.

An image comes as an array in every format: RGB always, uint8 (H, W, 3), so that images can be stacked: `skyset.pixels.rgb`
says what becomes of other modes; it is what a build with ``--decode`` stores. Where that is asked for, it comes as
``datasets.Image`` gives it if no format is set: a ``PIL.Image`` in the file's own mode.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import numpy as np

from skyset.errors import PartitionError
from skyset.loading.ragged import Ragged
from skyset.partitions.partition import bounds_of
from skyset.pixels import ARRAY, PIL_IMAGE, UNDECODED, ImageError, decoded_image, rgb

if TYPE_CHECKING:
    import PIL.Image


class Bytes(Ragged):
    """Rows of a column of bytes; each is taken out of the block when it is asked for."""

    def _value(self, row: int):
        return self.raw(row).tobytes()

    def texts(self) -> list[str]:
        """All rows as UTF-8 text."""
        packed = self.compact()
        whole = packed.data.tobytes()
        return [whole[start:end].decode("utf-8", "replace") for start, end in pairwise(packed.bounds.tolist())]


class ImageRows(Bytes):
    """Rows of encoded images, decoded one by one when they are asked for.

    ``form`` is one of the constants above, ``mode`` the Pillow mode that ``datasets.Image`` asks for (None: the file's own),
    and ``column`` the name for messages; ``finish`` turns an array into something else.
    """

    form, mode, column = ARRAY, None, "image"
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
        return self.with_changes(data=data, bounds=bounds_of(np.array([len(part) for part in parts], np.int64)))

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


def same_shapes(arrays: Sequence[np.ndarray]) -> bool:
    return len({(array.shape, array.dtype) for array in arrays}) == 1
