"""A survey's features, and its slabs of rows as Arrow tables of just those features without copying pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable

import datasets
import numpy as np
import pyarrow as pa

from skyset.loading.encoded import Bytes
from skyset.loading.ragged import Ragged
from skyset.partitions.partition import bounds_of, decoded
from skyset.survey import ANY, Column, Layers, Survey


def features_of(survey: Survey, image_size: int | None = None) -> datasets.Features:
    """The `datasets` features of a survey; ``image_size`` is the side of a centre crop in pixels."""
    features = {}
    for feature in survey.features:
        if isinstance(feature, Layers):
            group = _layer_features if feature.labels else _group_features
            features[feature.name] = group(survey, feature, image_size)
        else:
            column = survey.column(feature.source)
            axis = survey.image_axes.get(feature.name)
            if feature.classes:
                features[feature.name] = datasets.ClassLabel(names=list(feature.classes))
                continue
            if column.is_bytes:
                plain = datasets.Value("string" if feature.text else "binary")
                features[feature.name] = datasets.Image() if feature.encoded else plain
                continue
            features[feature.name] = feature_of(column.dtype, cropped_shape(column.shape, axis, image_size))
    return datasets.Features(features)


def _group_features(survey: Survey, group: Layers, image_size: int | None) -> dict:
    """Of columns under one name."""
    fields = {}
    for name, source in group.fields.items():
        column = survey.column(str(source))
        axis = survey.image_axes.get(f"{group.name}.{name}")
        fields[name] = feature_of(column.dtype, cropped_shape(column.shape, axis, image_size))
    return fields


def _layer_features(survey: Survey, layers: Layers, image_size: int | None) -> datasets.Sequence:
    """Of lists over the layers of a group."""
    fields = {layers.label_field: datasets.Value("string")}
    for name, source in layers.fields.items():
        axis = survey.image_axes.get(f"{layers.name}.{name}")
        column = survey.column(source if isinstance(source, str) else source[0])
        shape = column.shape[1:] if isinstance(source, str) else column.shape
        fields[name] = feature_of(column.dtype, cropped_shape(shape, None if axis is None else axis - 1, image_size))
    return datasets.Sequence(fields)


def feature_of(dtype: str, shape: tuple[int, ...]):
    """The `datasets` feature of a value of one dtype and shape."""
    value = datasets.Value("string" if np.dtype(dtype).kind == "S" else dtype)
    if not shape:
        return value
    if len(shape) == 1:
        return datasets.Sequence(value, length=shape[0])
    if ANY in shape:
        return datasets.Sequence(feature_of(dtype, shape[1:]), length=shape[0])
    kinds = {2: datasets.Array2D, 3: datasets.Array3D, 4: datasets.Array4D}
    return kinds[len(shape)](shape=shape, dtype=dtype)


def cropped_shape(shape: tuple[int, ...], axis: int | None, size: int | None) -> tuple[int, ...]:
    if axis is None or size is None:
        return shape
    return (*shape[:axis], size, size, *shape[axis + 2 :])


def arrow_table(columns: dict, features: datasets.Features) -> pa.Table:
    """A table from the slabs that ``Slab.columns`` gives; pixels are shared with the numpy arrays, not copied."""
    schema = features.arrow_schema
    arrays = [arrow_array(columns[name], schema.field(name).type) for name in features]
    return pa.Table.from_arrays(arrays, schema=schema)


def arrow_array(values, kind: pa.DataType) -> pa.Array:
    """``values`` (array, list of str, bytes, or dict of these; first axis = rows) as an Arrow array of type ``kind``."""
    if isinstance(values, Bytes):
        return _binary(values, kind)
    if isinstance(values, Ragged):
        return _lists(values, kind)
    if isinstance(values, dict):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays([arrow_array(values[f.name], f.type) for f in fields], fields=fields)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, arrow_array(values, kind.storage_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(arrow_array(_flat(values), kind.value_type), type=kind)
    if pa.types.is_list(kind):
        length = values.shape[1] if isinstance(values, np.ndarray) else len(values[0]) if values else 0
        offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * np.int32(length))
        return pa.ListArray.from_arrays(offsets, arrow_array(_flat(values), kind.value_type), type=kind)
    return pa.array(values, kind)


def _lists(values: Ragged, kind: pa.DataType) -> pa.Array:
    """Rows of any length as lists; numbers without a copy where nothing is left out."""
    rows, before = values.compact(), values.shape[: values.shape.index(ANY)]
    after = values.shape[len(before) + 1 :]
    kinds = [kind]
    for _ in before:
        kinds.append(kinds[-1].value_type)
    flat = rows.data.reshape(-1, *after)
    inner = arrow_array(decoded(flat) if flat.dtype.kind == "S" else flat, kinds[-1].value_type)
    offsets = bounds_of(np.repeat(rows.lengths // rows.step, math.prod(before)))
    array = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), inner, type=kinds[-1])
    for size, outer in zip(reversed(before), reversed(kinds[:-1]), strict=True):
        if pa.types.is_fixed_size_list(outer):
            array = pa.FixedSizeListArray.from_arrays(array, type=outer)
        else:
            array = pa.ListArray.from_arrays(pa.array(np.arange(0, len(array) + 1, size, dtype=np.int32)), array, type=outer)
    return array


def _binary(values: Bytes, kind: pa.DataType) -> pa.Array:
    """Bytes without a copy; images as the struct of bytes and path that ``datasets.Image`` stores."""
    if len(values.data) >= 2**31:
        raise ValueError(f"{len(values.data)} bytes are more than one Arrow array takes")
    offsets = values.bounds.astype(np.int32)
    array = pa.Array.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(values.data)])
    if not pa.types.is_struct(kind):
        return array
    return pa.StructArray.from_arrays([array, pa.nulls(len(values), pa.string())], fields=list(kind))


def _flat(values):
    """The first two axes as one."""
    if isinstance(values, np.ndarray):
        return values.reshape(-1, *values.shape[2:])
    return [value for row in values for value in row]


def needed_columns(survey: Survey, names: Iterable[str]) -> list[Column]:
    """Columns on disk that the features ``names`` are made of."""
    names, columns = set(names), survey.by_name
    wanted = [f for f in survey.features if f.name in names]
    sources = [s for f in wanted for s in (f.sources if isinstance(f, Layers) else (f.source,))]
    sources += [trim.by for trim in survey.trims if not set(sources).isdisjoint(trim.columns)]  # where their padding is
    return [columns[source] for source in dict.fromkeys(sources)]
