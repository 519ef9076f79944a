"""Features of anybody's Parquet files as columns that our reader reads: of the same dtypes, under the same names.

What a file has is told by its schema, and by the features that its card or its schema declare. Columns are taken only where
what the reader will hand out has just these features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa

from skyset.errors import SkysetError
from skyset.loading.arrow import features_of
from skyset.loading.hats import word_of
from skyset.partitions.parquet_file import OpensParquet, Place
from skyset.survey import ANY, BYTES, Column, Feature, Layers, Survey, undescribed

#: Of texts in lists, whose length no schema tells: those of bands and filters are shorter.
_TEXT, _LONGEST = "S64", 64
#: What text or bytes of any length is thought to be before files were read: they tell it by their size.
_TYPICAL = 64
_WIDTHS = {"large_string": "string", "large_binary": "binary"}
_ARRAYS = (datasets.Array2D, datasets.Array3D, datasets.Array4D)


class NotOurs(SkysetError, ValueError):
    """A column, or a value of it, that our reader does not take; says which and why."""


class _Kind(NamedTuple):
    """Dtype and shape of a row, as `skyset.survey.Column` has them."""

    dtype: str
    shape: tuple[int, ...]


def survey_of(
    features: datasets.Features,
    schema: pa.Schema,
    sample: Callable[[list[str]], pa.Table],
    name: str = "parquet",
    fill: bool = False,
) -> Survey:
    """A declaration of files that have these features.

    Args:
        features: what is to be handed out, in this order.
        schema: of the files.
        sample: gives some rows of these columns of theirs.
        name: the survey's.
        fill: see ``OpensParquet``.

    Raises:
        NotOurs: a column is of a type that is not read, is not in the files, or stored as another type.
    """
    if gone := sorted(set(schema.names) ^ set(features)):
        raise NotOurs(f"column {gone[0]} is not in both the files and the features")
    columns: list[Column] = []
    handed: list[Feature | Layers] = []
    places: dict[str, Place] = {}
    for key, feature in plain(features).items():
        made = list(_columns(key, feature, schema.field(key).type))
        texts = [column for column, _ in made if not column.is_bytes and column.is_text]
        if texts:
            _check_texts(sample([key]).column(key), key)
        columns += [column for column, _ in made]
        places |= {column.name: place for column, place in made}
        handed.append(_handed_out(key, feature, [(column.name, place) for column, place in made]))
    try:
        survey = undescribed(
            word_of(name, "parquet"),
            columns,
            handed,
            title=name,
            key=columns[0].name if columns else "",
            opens=OpensParquet(places, fill),
        )
    except ValueError as error:
        raise NotOurs(str(error)) from error
    if (odd := different(features_of(survey), features)) is not None:
        raise NotOurs(f"column {odd} is {features[odd]}")
    return survey


def plain(feature: Any) -> Any:
    """Features without what makes no difference once rows are handed out: how wide the offsets of texts and lists are."""
    if isinstance(feature, datasets.Features):
        return datasets.Features({name: plain(each) for name, each in feature.items()})
    if isinstance(feature, datasets.Value) and feature.dtype in _WIDTHS:
        return datasets.Value(_WIDTHS[feature.dtype])
    if type(feature).__name__ == "LargeList":
        return datasets.Sequence(plain(feature.feature))
    if isinstance(feature, Mapping):
        return {name: plain(each) for name, each in feature.items()}
    return feature


def different(ours: datasets.Features, theirs: datasets.Features) -> str | None:
    """The first feature that is not the same in both; an image may be wanted undecoded, or of another mode."""
    wanted = plain(theirs)
    for name, feature in wanted.items():
        both_images = isinstance(feature, datasets.Image) and isinstance(ours.get(name), datasets.Image)
        if ours.get(name) != feature and not both_images:
            return name
    return None


def check_schema(survey: Survey, features: datasets.Features, schema: pa.Schema) -> None:
    """NotOurs where another file of the same rows has columns of another type than a survey was made for."""
    for name, feature in plain(features).items():
        if name not in schema.names:
            raise NotOurs(f"column {name} is missing")
        for column, _ in _columns(name, feature, schema.field(name).type):
            own = survey.by_name[column.name]
            if (own.dtype, own.shape) != (column.dtype, column.shape):
                raise NotOurs(f"column {column.name} is {schema.field(name).type}, {own.dtype} elsewhere")


def _columns(name: str, feature: Any, stored: pa.DataType) -> Iterator[tuple[Column, Place]]:
    """The columns that a feature is made of, and where each is."""
    if not isinstance(feature, Mapping):
        yield _column(name, feature, stored), Place(name)
        return
    if not pa.types.is_struct(stored):
        raise NotOurs(f"column {name} is {stored}")
    kinds = {stored.field(number).name: stored.field(number).type for number in range(stored.num_fields)}
    for field, inner in feature.items():
        if field not in kinds:
            raise NotOurs(f"column {name} has no {field}")
        column = _column(f"{name}.{field}", inner, kinds[field])
        if column.is_bytes:
            raise NotOurs(f"column {name} has text or bytes of any length in {field}")
        yield column, Place(name, field)


def _column(name: str, feature: Any, stored: pa.DataType) -> Column:
    """One column; NotOurs where what is stored is of another type than the feature."""
    kind = _kind(feature)
    if kind is None or not _is_stored(kind, feature, stored):
        wanted = getattr(feature, "dtype", None)
        raise NotOurs(f"column {name} is {stored}" + (f", not {wanted}" if wanted and str(stored) != wanted else ""))
    try:
        return Column(name, kind.dtype, kind.shape, typical_bytes=_TYPICAL)
    except ValueError as error:
        raise NotOurs(str(error)) from error


def _kind(feature: Any) -> _Kind | None:
    """What a row of a feature is; None of what no column is."""
    if isinstance(feature, datasets.Image):
        return _Kind(BYTES, ())
    if isinstance(feature, datasets.ClassLabel):
        return _Kind("int64", ()) if feature.names else None
    if isinstance(feature, datasets.Value):
        if feature.dtype in ("string", "binary"):
            return _Kind(BYTES, ())
        dtype = _number(feature.dtype)
        return None if dtype is None else _Kind(dtype, ())
    if isinstance(feature, _ARRAYS):
        dtype = _number(feature.dtype)
        known = dtype is not None and all(isinstance(size, int) for size in feature.shape)
        return _Kind(str(dtype), tuple(feature.shape)) if known else None
    if isinstance(feature, list) and len(feature) == 1:
        return _listed(feature[0], -1)
    inner = getattr(feature, "feature", None)
    return _listed(inner, getattr(feature, "length", -1)) if inner is not None else None


def _listed(inner: Any, length: int) -> _Kind | None:
    """A list of numbers or short texts, or of arrays of one shape."""
    if isinstance(inner, datasets.Value) and inner.dtype == "string":
        return _Kind(_TEXT, (ANY if length < 0 else length,))
    kind = None if isinstance(inner, datasets.Image | datasets.ClassLabel | Mapping) else _kind(inner)
    if kind is None or kind.dtype == BYTES or (ANY in kind.shape and length < 0):
        return None
    return _Kind(kind.dtype, (ANY if length < 0 else length, *kind.shape))


def _number(dtype: str) -> str | None:
    """A dtype of numbers that numpy has too."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        return None
    return found.name if found.kind in "biuf" else None


def _is_stored(kind: _Kind, feature: Any, stored: pa.DataType) -> bool:
    """Whether a type of Arrow is that of the feature: nothing is cast."""
    depth = 0
    while True:
        if isinstance(stored, pa.FixedShapeTensorType):
            depth, stored = depth + len(stored.shape), stored.value_type
        elif isinstance(stored, pa.BaseExtensionType):
            stored = stored.storage_type
        elif pa.types.is_list(stored) or pa.types.is_large_list(stored) or pa.types.is_fixed_size_list(stored):
            depth, stored = depth + 1, stored.value_type
        else:
            break
    if depth != len(kind.shape):
        return False
    if pa.types.is_dictionary(stored):
        stored = stored.value_type
    if isinstance(feature, datasets.Image):
        return _is_binary(stored) or (pa.types.is_struct(stored) and _holds_bytes(stored))
    if kind.dtype == BYTES and isinstance(feature, datasets.Value) and feature.dtype == "binary":
        return _is_binary(stored)
    if kind.dtype in (BYTES, _TEXT):
        return pa.types.is_string(stored) or pa.types.is_large_string(stored) or pa.types.is_string_view(stored)
    if not (pa.types.is_boolean(stored) or pa.types.is_integer(stored) or pa.types.is_floating(stored)):
        return False
    return np.dtype(stored.to_pandas_dtype()).name == kind.dtype


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)


def _handed_out(name: str, feature: Any, made: list[tuple[str, Place]]) -> Feature | Layers:
    if isinstance(feature, Mapping):
        return Layers(name, (), "", {place.field: column for column, place in made})
    classes = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()
    text = isinstance(feature, datasets.Value) and feature.dtype == "string"
    return Feature(name, name, classes, encoded=isinstance(feature, datasets.Image), text=text)


def _check_texts(column: pa.ChunkedArray, name: str) -> None:
    """NotOurs where lists have text that is long, or not ASCII: such is not what names of bands are."""
    if odd := next((text for text in _texts(column.to_pylist()) if len(text) > _LONGEST or not text.isascii()), ""):
        raise NotOurs(f"column {name} has lists of text such as {odd[:40]!r}")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)
