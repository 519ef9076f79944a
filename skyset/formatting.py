"""Formats that keep a dataset's own dtypes: stock ``"numpy"`` and ``"torch"`` turn uint8 into int64, float64 into float32.

They have names of their own in `datasets`, so what other people's datasets give in the same process does not change;
skyset's datasets answer to ``with_format("numpy")`` and ``("torch")`` with them.
"""

from __future__ import annotations

import numpy as np
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


class KeepDtypeNumpyFormatter(NumpyFormatter):
    """As ``"numpy"``, but arrays keep their dtype; lists of text stay lists."""

    def _tensorize(self, value):
        if isinstance(value, np.ndarray | np.generic | str | bytes | None):
            return value
        return super()._tensorize(value)

    def _consolidate(self, column):
        if isinstance(column, list) and column and isinstance(column[0], str):
            return column
        return super()._consolidate(column)

    def format_batch(self, pa_table):
        batch = self.numpy_arrow_extractor().extract_batch(pa_table)
        batch = self.python_features_decoder.decode_batch(batch)
        return {name: merge(self.recursive_tensorize(column)) for name, column in batch.items()}


_register_formatter(KeepDtypeNumpyFormatter, _NUMPY)

if config.TORCH_AVAILABLE:
    from datasets.formatting.torch_formatter import TorchFormatter

    class KeepDtypeTorchFormatter(TorchFormatter):
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

        def format_batch(self, pa_table):
            batch = self.numpy_arrow_extractor().extract_batch(pa_table)
            batch = self.python_features_decoder.decode_batch(batch)
            return {name: merge(self.recursive_tensorize(column)) for name, column in batch.items()}

    _register_formatter(KeepDtypeTorchFormatter, _TORCH)


def merge(rows):
    """One batch from a list of equally built rows: dicts by key, arrays and tensors stacked; anything else stays a list."""
    if isinstance(rows, np.ndarray) and rows.dtype == object:
        rows = rows.tolist()
    if not isinstance(rows, list | tuple) or not rows:
        return rows
    first = rows[0]
    if isinstance(first, dict):
        return {key: merge([row[key] for row in rows]) for key in first}
    if isinstance(first, np.generic):
        return np.array(rows)
    shapes = {getattr(row, "shape", None) for row in rows}
    if shapes == {None} or len(shapes) > 1:
        return list(rows)
    if isinstance(first, np.ndarray):
        return np.stack(rows)
    import torch

    return torch.stack(list(rows))
