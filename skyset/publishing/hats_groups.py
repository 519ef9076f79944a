"""Groups of ragged columns in a HATS catalogue: a struct of lists of equal lengths is a table in each row to nested-pandas.

LSDB opens no struct whose lists are of different lengths (nested-pandas 0.7: "all fields should be equal length"), and none
of the extension types of `datasets` within lists: other groups are columns of their own, and lists within lists are plain.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from skyset.survey import ANY, Layers, Survey


def tables_in(survey: Survey) -> dict[str, tuple[str, ...]]:
    """The groups that may be a table in each row, and their columns: whether they are of equal lengths the rows tell.

    Padding is left out of all of a group's columns, or of none.
    """
    found = {}
    for feature in survey.features:
        if not isinstance(feature, Layers) or feature.labels or len(feature.sources) < 2:
            continue
        names = set(feature.sources)
        ragged = all(survey.column(name).shape[:1] == (ANY,) for name in names)
        together = all(names <= set(trim.columns) or names.isdisjoint(trim.columns) for trim in survey.trims)
        if ragged and together:
            found[feature.name] = feature.sources
    return found


def of_one_length(survey: Survey) -> list[str]:
    """The groups of columns that have equally many numbers or texts in every row: spectra of one length."""
    groups = [f for f in survey.features if isinstance(f, Layers) and not f.labels and len(f.sources) > 1]
    shapes = {f.name: {survey.column(name).shape for name in f.sources} for f in groups}
    return [name for name, each in shapes.items() if len(each) == 1 and all(len(s) == 1 and s != (ANY,) for s in each)]


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type with lists in place of the arrays of `datasets` that are within lists and structs."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, plain_type(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type), kind.list_size)
    return pa.list_(plain_type(kind.value_type)) if pa.types.is_list(kind) else kind


def plain_array(array: pa.Array) -> pa.Array:
    """The same rows as ``plain_type`` says, without a copy."""
    kind = plain_type(array.type)
    if kind.equals(array.type):
        return array
    if isinstance(array, pa.ExtensionArray):
        return plain_array(array.storage)
    if pa.types.is_struct(array.type):
        members: Sequence[pa.Array] = [plain_array(member) for member in array.flatten()]
        return pa.StructArray.from_arrays(members, fields=list(kind))
    if pa.types.is_fixed_size_list(array.type):
        return pa.FixedSizeListArray.from_arrays(plain_array(array.flatten()), type=kind)
    return pa.ListArray.from_arrays(array.offsets, plain_array(array.values), type=kind)
