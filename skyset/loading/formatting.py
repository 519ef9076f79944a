"""Formats that keep a dataset's own dtypes: stock ``"numpy"`` and ``"torch"`` turn uint8 into int64, float64 into float32.

They have names of their own in `datasets`, so what other people's datasets give in the same process does not change;
skyset's datasets answer to ``with_format("numpy")`` and ``("torch")`` with them. Without a format, tables of ours give numpy
arrays where stock gives nested lists: their features are ``ArrayFeatures``, by which ``registry.py`` knows them.

An array has the shape that its feature declares, in every format; an encoded image is (H, W, 3).
"""

from __future__ import annotations

import functools
from types import NoneType

import numpy as np
import pyarrow as pa
from datasets import Features, Image, Value, config
from datasets.features.features import _ArrayXD
from datasets.formatting import _register_formatter, get_format_type_from_alias
from datasets.formatting.formatting import LazyBatch, LazyRow, PythonFormatter
from datasets.formatting.np_formatter import NumpyFormatter

from skyset.pixels import is_image, rgb

_NUMPY, _TORCH = "skyset_numpy", "skyset_torch"
_OURS = {"numpy": _NUMPY, "torch": _TORCH}


def own_format(name: str | None) -> str | None:
    """The dtype-keeping twin of a format's name or alias; other names are given back as they are."""
    name = get_format_type_from_alias(name)
    return _OURS.get(name, name)


def stock_format(name: str | None) -> str | None:
    """What `datasets` calls a format of ours; other names are given back as they are."""
    return next((stock for stock, ours in _OURS.items() if ours == name), name)


def is_tensor_format(name: str | None) -> bool:
    return name in _OURS.values()


class _KeepDtype:
    """What both formats do alike; goes before a stock formatter, whose tests for lists do not know groups of layers."""

    def _consolidate(self, column):
        return merge(column)

    def recursive_tensorize(self, data_struct):
        if self.features and isinstance(data_struct, dict) and data_struct.keys() == self.features.keys():
            # Rows come as Python's numbers where features were declared after a map, as rename_column does.
            data_struct = {name: declared(value, self.features[name]) for name, value in data_struct.items()}
        return super().recursive_tensorize(data_struct)


class KeepDtypeNumpyFormatter(_KeepDtype, NumpyFormatter):
    """As ``"numpy"``, but arrays keep their dtype unless one is asked for; text is str, and lists of it.

    Images are RGB, uint8 (H, W, 3). As in stock, ``dtype=`` is for arrays: a number in a row keeps its own.
    """

    def _tensorize(self, value):
        if is_image(value):
            value = np.array(rgb(value))
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind == "U":
            return value.tolist()
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and self.np_array_kwargs:
            return np.asarray(value, **self.np_array_kwargs)
        if isinstance(value, np.ndarray | np.generic | str | bytes | None):
            return value
        return super()._tensorize(value)


_register_formatter(KeepDtypeNumpyFormatter, _NUMPY)

if config.TORCH_AVAILABLE:
    from datasets.formatting.torch_formatter import TorchFormatter

    class KeepDtypeTorchFormatter(_KeepDtype, TorchFormatter):
        """As ``"torch"``, but tensors keep the dtype of the column; numpy arrays become tensors without a copy.

        Images are RGB, uint8 (H, W, 3), as in ``"numpy"``: stock turns those that are encoded, and no others.
        """

        def _tensorize(self, value):
            import torch

            if isinstance(value, torch.Tensor):
                return value
            if is_image(value):
                value = np.array(rgb(value))
            if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "biufc":
                return super()._tensorize(value)
            array = np.asarray(value, value.dtype.newbyteorder("="))
            if array.ndim == 0 or not array.flags.writeable:
                return torch.tensor(array, **self.torch_tensor_kwargs)
            return torch.from_numpy(array).to(**self.torch_tensor_kwargs)

    _register_formatter(KeepDtypeTorchFormatter, _TORCH)


def declared(value, feature):
    """A Python number, or list of them, as numpy has it in the feature's dtype; an empty list of arrays too."""
    inner = getattr(feature, "feature", feature)  # of a list
    if isinstance(inner, dict) and isinstance(value, dict):
        return {name: declared(part, inner[name]) for name, part in value.items()}
    if isinstance(inner, _ArrayXD) and isinstance(value, list | np.ndarray) and not len(value):  # a ragged row of no images
        return np.zeros((0, *inner.shape), inner.dtype)
    if not isinstance(inner, Value) or not pa.types.is_primitive(inner.pa_type):
        return value
    if not isinstance(value, int | float) and not (isinstance(value, list) and all(part is not None for part in value)):
        return value
    return np.asarray(value, inner.pa_type.to_pandas_dtype())[()]


class DecodedFeatures(Features):
    """Features of rows whose images may be decoded already: these pass as they are.

    `datasets` would encode them, JPEG as JPEG, and decode them again, wherever a step made it forget the rows' features.
    """

    def encode_example(self, example: dict) -> dict:
        """As in `datasets`."""
        return self._around(example, Features.encode_example, (dict, str, bytes))

    def decode_example(self, example: dict, token_per_repo_id=None) -> dict:
        """As in `datasets`."""
        decode = functools.partial(Features.decode_example, token_per_repo_id=token_per_repo_id)
        return self._around(example, decode, (dict, str))

    def _around(self, example: dict, change, encoded: tuple[type, ...]) -> dict:
        done = {
            name: example[name]
            for name, feature in self.items()
            if isinstance(feature, Image) and not isinstance(example.get(name), (*encoded, NoneType))
        }
        others = Features({name: feature for name, feature in self.items() if name not in done})
        changed = change(others, {name: value for name, value in example.items() if name not in done})
        return {name: done[name] if name in done else changed[name] for name in example if name in done or name in changed}


class ArrayFeatures(Features):
    """Features of a table of ours: without a format, images and arrays come as numpy arrays in the dtype of the column.

    So do lists of numbers of a declared length, and those in a group with arrays; other lists stay lists. With ``pil``
    images that are encoded come as ``PIL.Image``, as stock gives them.
    """

    pil = False

    def __reduce__(self):
        return _array_features, (dict(self), self.pil)

    def decode_example(self, example: dict, *args, **kwargs) -> dict:
        """As in `datasets`."""
        return {name: self._shown(name, value) for name, value in super().decode_example(example, *args, **kwargs).items()}

    def decode_column(self, column: list, column_name: str, *args, **kwargs) -> list:
        """As in `datasets`."""
        column = super().decode_column(column, column_name, *args, **kwargs)
        return [self._shown(column_name, value) for value in column] if isinstance(column, list) else column

    def decode_batch(self, batch: dict, *args, **kwargs) -> dict:
        """As in `datasets`."""
        return {
            name: [self._shown(name, value) for value in column] if isinstance(column, list) else column
            for name, column in super().decode_batch(batch, *args, **kwargs).items()
        }

    def _shown(self, name: str, value):
        return as_arrays(value, self[name], self.pil) if name in self else value


def _array_features(features: dict, pil: bool) -> ArrayFeatures:
    made = ArrayFeatures(features)
    made.pil = pil
    return made


def as_arrays(value, feature, pil: bool = False, grouped: bool = False):
    """A value as Python has it with arrays in place of nested lists, see ``ArrayFeatures``.

    Args:
        value: one row's.
        feature: what it is declared to be.
        pil: leave images as they are.
        grouped: it lies in a group with arrays.
    """
    if value is None:
        return None
    if isinstance(feature, Image):
        return np.array(rgb(value)) if is_image(value) and not pil else value
    if isinstance(feature, _ArrayXD):
        try:
            return np.asarray(value, feature.dtype)
        except ValueError:  # datasets 3 has NaN where an array is missing
            return value
    if isinstance(feature, dict) and isinstance(value, dict):
        grouped = has_arrays(feature)
        return {name: as_arrays(part, feature[name], pil, grouped) for name, part in value.items()}
    inner = _element(feature)
    if isinstance(inner, dict) and isinstance(value, dict):  # datasets 3 keeps a list of groups as a group of lists
        grouped = has_arrays(inner)
        return {name: as_arrays(part, [inner[name]], pil, grouped) for name, part in value.items()}
    if inner is None or not isinstance(value, list) or any(item is None for item in value):
        return value
    if isinstance(inner, _ArrayXD):
        return merge([as_arrays(item, inner) for item in value])
    if isinstance(inner, Value) and (grouped or getattr(feature, "length", -1) > 0) and _is_number(inner):
        return np.asarray(value, inner.pa_type.to_pandas_dtype())
    return value


def has_arrays(feature) -> bool:
    """Whether a feature is, or holds, an array of two or more dimensions."""
    if isinstance(feature, dict):
        return any(map(has_arrays, feature.values()))
    return isinstance(feature, _ArrayXD) or (_element(feature) is not None and has_arrays(_element(feature)))


def _element(feature):
    """What a list is of; None of what is no list."""
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)


def _is_number(feature: Value) -> bool:
    kind = feature.pa_type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


class ArrayFormatter(PythonFormatter):
    """No format, for ``ArrayFeatures``: what these would make of nested lists, without making the lists."""

    def format_row(self, pa_table: pa.Table):
        """As in `datasets`."""
        if self.lazy:
            return LazyRow(pa_table, self)
        return {name: self.format_column(pa_table.select([name]))[0] for name in pa_table.column_names}

    def format_column(self, pa_table: pa.Table) -> list:
        """As in `datasets`."""
        name = pa_table.column_names[0]
        if not has_arrays((self.features or {}).get(name)) or pa_table.column(0).null_count:
            return super().format_column(pa_table)
        values = KeepDtypeNumpyFormatter(features=self.features).format_column(pa_table)
        return [_own(values[row]) for row in range(len(pa_table))]

    def format_batch(self, pa_table: pa.Table):
        """As in `datasets`."""
        if self.lazy:
            return LazyBatch(pa_table, self)
        return {name: self.format_column(pa_table.select([name])) for name in pa_table.column_names}


def _own(value):
    """A row's value, to be written to: it may lie in a file that is mapped into memory. Single numbers are Python's."""
    if isinstance(value, dict):
        return {name: _own(part) for name, part in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value


class Group(dict):
    """Groups of layers of several rows: ``group["array"]`` is of all rows, ``group[3]`` is the whole group of row 3.

    `datasets` takes batches apart by row number; its length is therefore the number of rows.
    """

    def __getitem__(self, key):
        return super().__getitem__(key) if isinstance(key, str) else {name: part[key] for name, part in self.items()}

    def __len__(self):
        return len(next(iter(self.values()), ()))


def merge(rows):
    """One batch from a list of equally built rows: a ``Group`` from dicts, arrays and tensors stacked; else a list."""
    if isinstance(rows, np.ndarray) and rows.dtype == object:
        rows = rows.tolist()
    if not isinstance(rows, list | tuple) or not rows:
        return rows
    first = rows[0]
    if isinstance(first, dict):
        return Group({key: merge([row[key] for row in rows]) for key in first})
    if isinstance(first, np.generic):
        return np.array(rows)
    shapes = {getattr(row, "shape", None) for row in rows}
    if shapes == {None} or len(shapes) > 1:
        return list(rows)
    if isinstance(first, np.ndarray):
        return np.stack(rows)
    import torch

    return torch.stack(list(rows))
