"""Formats that keep a dataset's own dtypes: stock ``"numpy"`` and ``"torch"`` turn uint8 into int64, float64 into float32.

They have names of their own in `datasets`, so what other people's datasets give in the same process does not change;
skyset's datasets answer to ``with_format("numpy")`` and ``("torch")`` with them.
"""

from __future__ import annotations

import functools
from types import NoneType

import numpy as np
import pyarrow as pa
from datasets import Features
from datasets import Image
from datasets import Value
from datasets import config
from datasets.formatting import _register_formatter
from datasets.formatting import get_format_type_from_alias
from datasets.formatting.np_formatter import NumpyFormatter

from skyset.encoded import ARRAY
from skyset.encoded import PIL_IMAGE
from skyset.encoded import TURNED
from skyset.encoded import is_image
from skyset.encoded import rgb

_NUMPY, _TORCH = "skyset_numpy", "skyset_torch"
_OURS = {"numpy": _NUMPY, "torch": _TORCH}


def own_format(name: str | None) -> str | None:
    """The dtype-keeping twin of a format's name or alias; other names are given back as they are."""
    name = get_format_type_from_alias(name)
    return _OURS.get(name, name)


def image_form(name: str | None) -> str:
    """How encoded images are handed out in a format, see ``encoded.py``."""
    return {_NUMPY: ARRAY, _TORCH: TURNED}.get(name, PIL_IMAGE)


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
    """As ``"numpy"``, but arrays keep their dtype; text is str, and lists of it; images are RGB, uint8 (H, W, 3)."""

    def _tensorize(self, value):
        if is_image(value):
            return np.array(rgb(value))
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind == "U":
            return value.tolist()
        if isinstance(value, np.ndarray | np.generic | str | bytes | None):
            return value
        return super()._tensorize(value)


_register_formatter(KeepDtypeNumpyFormatter, _NUMPY)

if config.TORCH_AVAILABLE:
    from datasets.formatting.torch_formatter import TorchFormatter

    class KeepDtypeTorchFormatter(_KeepDtype, TorchFormatter):
        """As ``"torch"``, but tensors keep the dtype of the column; numpy arrays become tensors without a copy.

        Images are RGB, uint8 (3, H, W).
        """

        def _tensorize(self, value):
            import torch

            if isinstance(value, torch.Tensor):
                return value
            if is_image(value):
                value = np.moveaxis(np.atleast_3d(rgb(value)), -1, 0).copy()
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
        done = {name: example[name] for name, feature in self.items()
                if isinstance(feature, Image) and not isinstance(example.get(name), (*encoded, NoneType))}  # fmt: skip
        others = Features({name: feature for name, feature in self.items() if name not in done})
        changed = change(others, {name: value for name, value in example.items() if name not in done})
        return {name: done[name] if name in done else changed[name] for name in example if name in done or name in changed}


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
