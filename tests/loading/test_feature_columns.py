"""Features of Parquet files as columns: what is taken hands out just these features, everything else says why not."""

import datasets
import numpy as np
import pyarrow as pa
import pytest

from skyset.loading.arrow import features_of
from skyset.loading.feature_columns import NotOurs, check_schema, plain, survey_of

Value, Sequence = datasets.Value, datasets.Sequence
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
TAKEN = {
    **{name: (Value(name), pa.from_numpy_dtype(name)) for name in ("int8", "uint8", "int16", "uint32", "int64", "float64")},
    "bool": (Value("bool"), pa.bool_()),
    "text": (Value("string"), pa.string()),
    "words": (Value("string"), pa.dictionary(pa.int8(), pa.string())),
    "bytes": (Value("binary"), pa.binary()),
    "class": (datasets.ClassLabel(names=["a", "b"]), pa.int64()),
    "image": (datasets.Image(), IMAGE),
    "file": (datasets.Image(), pa.binary()),
    "raw": (datasets.Image(decode=False), IMAGE),
    "fixed": (Sequence(Value("float32"), length=3), pa.list_(pa.float32(), 3)),
    "ragged": (Sequence(Value("float32")), pa.list_(pa.float32())),
    "bands": (Sequence(Value("string")), pa.list_(pa.string())),
    "pixels": (datasets.Array3D((2, 3, 4), "uint8"), pa.list_(pa.list_(pa.list_(pa.uint8())))),
    "tensor": (datasets.Array2D((2, 3), "uint8"), pa.fixed_shape_tensor(pa.uint8(), (2, 3))),
}
REFUSED = {
    "time": (Value("timestamp[ms]"), pa.timestamp("ms")),
    "decimal": (Value("decimal128(5, 2)"), pa.decimal128(5, 2)),
    "cast": (Value("int32"), pa.int64()),
    "text that is bytes": (Value("string"), pa.binary()),
    "image by name": (datasets.Image(), pa.string()),
    "lists of lists": (Sequence(Sequence(Value("int8"))), pa.list_(pa.list_(pa.int8()))),
    "records": ([{"a": Value("int8")}], pa.list_(pa.struct({"a": pa.int8()}))),
    "in a group": ({"t": Value("string")}, pa.struct({"t": pa.string()})),
    "nested": ({"g": {"a": Value("int8")}}, pa.struct({"g": pa.struct({"a": pa.int8()})})),
    "another field": ({"a": Value("int8")}, pa.struct({"b": pa.int8()})),
    "nameless": (datasets.ClassLabel(num_classes=2), pa.int32()),
}


def sample(names):
    return pa.table({name: pa.array([["g", "r"], []], pa.list_(pa.string())) for name in names})


def declared(feature, stored):
    return survey_of(datasets.Features({"x": feature}), pa.schema({"x": stored}), sample)


@pytest.mark.datasets3
@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_taken_is_handed_out_as_it_is_declared(kind):
    feature, stored = TAKEN[kind]
    if isinstance(stored, pa.FixedSizeListType) and datasets.__version__.startswith("3."):
        pytest.skip("another feature there")
    own = features_of(declared(feature, stored))["x"]
    assert own == feature or (isinstance(feature, datasets.Image) and isinstance(own, datasets.Image))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_taken_is_named(kind):
    with pytest.raises(NotOurs, match="column x"):
        declared(*REFUSED[kind])


def test_groups_are_columns_under_one_name():
    group = {"time": Sequence(Value("float64")), "period": Value("float32")}
    survey = declared(group, pa.struct({"time": pa.list_(pa.float64()), "period": pa.float32()}))
    assert features_of(survey) == datasets.Features({"x": group})
    assert {column.name: column.shape for column in survey.columns} == {"x.time": (-1,), "x.period": ()}


def test_wide_offsets_make_no_difference():
    narrow, wide = (datasets.Features({"x": Value(name)}) for name in ("string", "large_string"))
    assert features_of(declared(Value("large_string"), pa.large_string())) == narrow == plain(wide)


@pytest.mark.parametrize("text", ["é", "x" * 65])
def test_lists_of_texts_that_are_no_bands(text):
    features, schema = datasets.Features({"x": Sequence(Value("string"))}), pa.schema({"x": pa.list_(pa.string())})
    with pytest.raises(NotOurs, match="lists of text such as"):
        survey_of(features, schema, lambda names: pa.table({"x": [["g"], [text]]}))


def test_files_and_features_have_the_same_columns():
    with pytest.raises(NotOurs, match="column y is not in both"):
        survey_of(datasets.Features({"x": Value("int8")}), pa.schema({"x": pa.int8(), "y": pa.int8()}), sample)
    features = datasets.Features({"x": Value("int8"), "y": Value("float32")})
    survey = survey_of(features, pa.schema({"y": pa.float32(), "x": pa.int8()}), sample)
    assert [column.name for column in survey.columns] == ["x", "y"] and np.dtype(survey.columns[1].dtype) == np.float32
    check_schema(survey, features, pa.schema({"x": pa.int8(), "y": pa.float32(), "more": pa.int8()}))
    for schema in ({"x": pa.int8()}, {"x": pa.int8(), "y": pa.float64()}):
        with pytest.raises(NotOurs, match="column y"):
            check_schema(survey, features, pa.schema(schema))
