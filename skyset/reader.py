"""Pieces of partitions as columns of features: each slab is one block of fresh memory that is read into once."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skyset.arrow import needed_columns
from skyset.manifest import FileEntry
from skyset.partitions import Partition
from skyset.partitions import load_filters
from skyset.partitions import slabs
from skyset.survey import Feature
from skyset.survey import Layers
from skyset.survey import Survey

#: What is read at a time, and handed to a worker or a node at a time: a part of one file.
PIECE_BYTES = 8 << 20
_ALIGNMENT = 64


@dataclass(frozen=True)
class Piece:
    """Rows ``start:stop`` of one partition, which has ``rows`` rows; ``path`` is absolute or a URL."""

    path: str
    start: int
    stop: int
    rows: int

    def __len__(self) -> int:
        return self.stop - self.start


def cut(root: str, files: Sequence[FileEntry], row_bytes: int, piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """All rows of the files, in the manifest's order, in pieces of at most ``piece_bytes`` (at least one row)."""
    base = root.rstrip("/")
    return [
        Piece(f"{base}/{entry.path}", start, stop, entry.rows)
        for entry in files
        for start, stop in slabs(entry.rows, row_bytes, slab_bytes=piece_bytes)
    ]


class PieceReader:
    """Reads pieces as columns of features, keeping the last file open: neighbouring pieces are of one file.

    Args:
        survey: the declaration.
        names: the features that are wanted; no other column is read.
        image_size: side of the centre crop in pixels, None for all of them.
        new_block: makes the memory that a slab is read into, uint8 (bytes,).
    """

    def __init__(
        self,
        survey: Survey,
        names: Iterable[str],
        image_size: int | None = None,
        new_block: Callable[[int], np.ndarray] = lambda size: np.empty(size, np.uint8),
    ):
        load_filters()
        names = list(names)
        self.survey, self.image_size, self._new_block = survey, image_size, new_block
        self._wanted = [f for f in survey.features if f.name in names]
        self._columns = needed_columns(survey, names)
        self._open: Partition | None = None

    def __enter__(self) -> PieceReader:
        return self

    def __exit__(self, *_) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _partition(self, piece: Piece) -> Partition:
        if self._open is None or self._open.path != piece.path:
            self.__exit__()
            self._open = Partition(piece.path, self._columns, trusted_rows=piece.rows)
        return self._open

    def read(self, pieces: Sequence[Piece]) -> dict:
        """Columns of all rows of ``pieces``: arrays (rows, ...), lists of str, dicts of these for groups of layers.

        All arrays are parts of one block of memory, which nothing else uses.

        Raises:
            PartitionError: a file is gone, cut short, or not what the manifest says.
        """
        rows = sum(map(len, pieces))
        raw, stacks = self._allocate(rows)
        row = 0
        for piece in pieces:
            partition, end = self._partition(piece), row + len(piece)
            for name, array in raw.items():
                partition.read(name, piece.start, piece.stop, out=array[row:end])
            row = end
        return {feature.name: self._assemble(feature, raw, stacks, rows) for feature in self._wanted}

    def _allocate(self, rows: int) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], np.ndarray]]:
        """One array a column; the layers of a group are views of one array (rows, layers, ...): no copy to stack them."""
        shapes, layers = self._shapes()
        arrays = carve(self._new_block, {key: (dtype, (rows, *shape)) for key, (dtype, shape) in shapes.items()})
        raw = {name: arrays[key] if place is None else arrays[key][:, place] for name, (key, place) in layers.items()}
        return raw, {key: array for key, array in arrays.items() if isinstance(key, tuple)}

    def _shapes(self) -> tuple[dict, dict]:
        """(dtype, shape of a row) of each array to allocate, and for each column on disk (array, layer or None)."""
        shapes, places = {}, {}
        for feature in self._wanted:
            for key, source in feature.fields.items() if isinstance(feature, Layers) else ():
                if not isinstance(source, str):
                    column = self.survey.column(source[0])
                    shapes[feature.name, key] = column.dtype, (len(source), *column.shape)
                    places.update({name: ((feature.name, key), layer) for layer, name in enumerate(source)})
        for column in self._columns:
            if column.name not in places:
                shapes[column.name] = column.dtype, column.shape
                places[column.name] = column.name, None
        return shapes, places

    def _assemble(self, feature: Feature | Layers, raw: Mapping, stacks: Mapping, rows: int):
        if not isinstance(feature, Layers):
            return self._finish(raw[feature.source], feature.name)
        group = {feature.label_field: [list(feature.labels) for _ in range(rows)]}
        for key, source in feature.fields.items():
            values = raw[source] if isinstance(source, str) else stacks[feature.name, key]
            group[key] = self._finish(values, f"{feature.name}.{key}")
        return group

    def _finish(self, values: np.ndarray, name: str):
        if values.dtype.kind == "S":
            return [text.decode("ascii", "replace") for text in values.tolist()]
        axis = self.survey.image_axes.get(name)
        if axis is None or self.image_size is None:
            return values
        return centre_crop(values, axis + 1, self.image_size)


def carve(new_block: Callable[[int], np.ndarray], shapes: Mapping) -> dict:
    """Arrays of the given (dtype, shape), by key, as parts of one block of memory."""
    offsets, end = {}, 0
    for key, (dtype, shape) in shapes.items():
        size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
        offsets[key] = end, end + size
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    block = new_block(end)
    return {
        key: block[slice(*offsets[key])].view(dtype).reshape(shape) for key, (dtype, shape) in shapes.items()
    }  # fmt: skip


def centre_crop(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The middle ``size`` pixels of ``axis`` and the next one, as a view."""
    first = [(values.shape[a] - size) // 2 for a in (axis, axis + 1)]
    window = [slice(None)] * axis + [slice(start, start + size) for start in first]
    return values[tuple(window)]


def rows_of(columns: Mapping, order: Sequence[int] | None = None) -> Iterator[dict]:
    """The rows of columns, or those in ``order``; arrays give views, and numbers as the column's sequence holds them."""
    parts = []
    for values in columns.values():
        if isinstance(values, Mapping):
            parts.append(rows_of(values, order))
        else:
            parts.append(values if order is None else map(values.__getitem__, order))
    names = tuple(columns)
    for row in zip(*parts, strict=True):
        yield dict(zip(names, row, strict=True))


def python_numbers(columns: Mapping) -> dict:
    """Columns whose numbers are Python's; arrays of more than one number a row stay arrays."""
    return {
        name: python_numbers(values)
        if isinstance(values, Mapping)
        else values.tolist()
        if isinstance(values, np.ndarray) and values.ndim == 1
        else values
        for name, values in columns.items()
    }


def gather(columns: Mapping, rows: np.ndarray) -> dict:
    """Copies of some rows of columns, in that order."""
    return {
        name: gather(values, rows)
        if isinstance(values, Mapping)
        else values[rows]
        if isinstance(values, np.ndarray)
        else [values[row] for row in rows.tolist()]
        for name, values in columns.items()
    }


def join(parts: Sequence[Mapping]) -> dict:
    """Columns of several slabs one after the other."""
    if len(parts) == 1:
        return dict(parts[0])
    first = parts[0]
    return {
        name: join([part[name] for part in parts])
        if isinstance(values, Mapping)
        else np.concatenate([part[name] for part in parts])
        if isinstance(values, np.ndarray)
        else [value for part in parts for value in part[name]]
        for name, values in first.items()
    }
