"""Formats that keep a dataset's own dtypes: stock ``"numpy"`` and ``"torch"`` turn uint8 into int64, float64 into float32.

They have names of their own in `datasets`, so what other people's datasets give in the same process does not change;
skyset's datasets answer to ``with_format("numpy")`` and ``("torch")`` with them.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from datasets import Value
from datasets import config
from datasets.formatting import _register_formatter
from datasets.formatting import get_format_type_from_alias
from datasets.formatting.np_formatter import NumpyFormatter

_NUMPY, _TORCH = "skyset_numpy", "skyset_torch"
_OURS = {"numpy": _NUMPY, "torch": _TORCH}


def own_format(name: str | None) -> str | None:
    """The dtype-keeping twin of a format's name or alias; other names are given back as they are."""
    name = get_format_type_from_alias(name)
    return _OURS.get(name, name)


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
    """As ``"numpy"``, but arrays keep their dtype; text is str, and lists of it."""

    def _tensorize(self, value):
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind == "U":
            return value.tolist()
        if isinstance(value, np.ndarray | np.generic | str | bytes | None):
            return value
        return super()._tensorize(value)


_register_formatter(KeepDtypeNumpyFormatter, _NUMPY)

if config.TORCH_AVAILABLE:
    from datasets.formatting.torch_formatter import TorchFormatter

    class KeepDtypeTorchFormatter(_KeepDtype, TorchFormatter):
        """As ``"torch"``, but tensors keep the dtype of the column; numpy arrays become tensors without a copy."""

        def _tensorize(self, value):
            import torch

            if isinstance(value, torch.Tensor):
                return value
            if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "biufc":
                return super()._tensorize(value)
            array = np.asarray(value, value.dtype.newbyteorder("="))
            if array.ndim == 0 or not array.flags.writeable:
                return torch.tensor(array, **self.torch_tensor_kwargs)
            return torch.from_numpy(array).to(**self.torch_tensor_kwargs)

    _register_formatter(KeepDtypeTorchFormatter, _TORCH)


def declared(value, feature):
    """A Python number, or list of them, as numpy has it in the feature's dtype; anything else as it is."""
    inner = getattr(feature, "feature", feature)  # of a list
    if isinstance(inner, dict) and isinstance(value, dict):
        return {name: declared(part, inner[name]) for name, part in value.items()}
    if not isinstance(inner, Value) or not pa.types.is_primitive(inner.pa_type):
        return value
    if not isinstance(value, int | float) and not (isinstance(value, list) and all(part is not None for part in value)):
        return value
    return np.asarray(value, inner.pa_type.to_pandas_dtype())[()]


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
