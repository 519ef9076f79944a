"""What the columns of a tree are made of: as JSON and back, and what nobody's manifest can ask for."""

import json
import re

import pytest

from skyset.partitions.tree.form import Source, TreeForm
from skyset.survey import Column

SOURCES = {
    "object_id": Source(("TARGETID",), "text"),
    "ra": Source(("RA",), "scaled", 15.0),
    "dec": Source(("DEC",)),
    "healpix": Source((), "cell"),
    "flux": Source(("lightcurve",), "part", (1, 2)),
    "band": Source((), "labels", ("u", "g"), "flux"),
    "camera": Source(("cameras",), "labels", like="flux"),
    "ivar": Source(("spaxels/ivar",), "member"),
    "name": Source((), "name"),
    "pixels": Source(("triplet",), "moved", 2),
    "filter": Source(("fid",), "repeated"),
}
FORM = TreeForm("/data/tree", "columns", SOURCES, packed=True)


def test_a_form_comes_back_from_json():
    assert TreeForm.from_json(json.loads(json.dumps(FORM.to_json()))) == FORM


def test_a_member_is_one_step_below_its_dataset():
    assert (SOURCES["ivar"].dataset, SOURCES["ivar"].member) == ("spaxels", "ivar")
    assert (SOURCES["dec"].dataset, SOURCES["dec"].member) == ("DEC", "")
    assert SOURCES["healpix"].dataset == ""


@pytest.mark.parametrize(
    "values, words",
    [
        ({"of": ["a"], "how": "pickled"}, "by 'pickled'"),
        ({"of": [], "how": "stored"}, "no column is made of ()"),
        ({"of": ["a", "b"], "how": "stored"}, "no column is made of ('a', 'b')"),
        ({"of": ["../a"], "how": "stored"}, "no path within an object"),
        ({"of": ["/a"], "how": "stored"}, "no path within an object"),
        ({"of": ["a\n"], "how": "stored"}, "no dataset's name"),
        ({"of": [3], "how": "stored"}, "no dataset's name"),
        ({"of": ["a" * 1001], "how": "stored"}, "no dataset's name"),
        ({"of": ["a"], "how": "scaled"}, "cannot have None"),
        ({"of": ["a"], "how": "scaled", "argument": float("nan")}, "cannot have nan"),
        ({"of": ["a"], "how": "scaled", "argument": True}, "cannot have True"),
        ({"of": ["a"], "how": "part", "argument": [0, -1]}, "cannot have (0, -1)"),
        ({"of": ["a"], "how": "part", "argument": [0, 1, 2]}, "cannot have (0, 1, 2)"),
        ({"of": ["a"], "how": "stored", "argument": 1}, "cannot have 1"),
        ({"of": ["a"], "how": "moved"}, "cannot have None"),
        ({"of": ["a"], "how": "moved", "argument": -1}, "cannot have -1"),
        ({"of": ["a"], "how": "moved", "argument": True}, "cannot have True"),
        ({"of": ["a"], "how": "repeated", "argument": 3}, "cannot have 3"),
        ({"how": "labels", "argument": [], "like": "x"}, "cannot have ()"),
        ({"how": "labels", "argument": ["u"]}, "cannot be like ''"),
        ({"of": ["a"], "like": "x"}, "cannot be like 'x'"),
    ],
)
def test_what_is_no_source_is_refused(values, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Source.from_json(values)


@pytest.mark.parametrize("values", [{"more": 1}, {"of": 3}, []])
def test_what_is_not_even_like_a_source_is_refused(values):
    with pytest.raises((ValueError, TypeError, AttributeError)):
        Source.from_json(values)


@pytest.mark.parametrize("changes", [{"tree": "data"}, {"tree": "/a\0b"}, {"tree": 3}, {"kind": "tables"}, {"packed": 1}])
def test_what_is_no_form_is_refused(changes):
    with pytest.raises(ValueError):
        TreeForm.from_json(FORM.to_json() | changes)


@pytest.mark.parametrize(
    "column, words",
    [
        (Column("other", "f4"), "column other has no source"),
        (Column("object_id", "int64"), "is not made by 'text'"),
        (Column("ra", "int64"), "is not made by 'scaled'"),
        (Column("healpix", "int64", (2,)), "is not made by 'cell'"),
        (Column("band", "S1", (2,)), "cannot have labels for 'flux'"),
        (Column("camera", "float32", (6, 4)), "cannot have labels for 'flux'"),
    ],
)
def test_columns_that_the_sources_do_not_fit_are_refused(column, words):
    columns = {each.name: each for each in (Column("flux", "float32", (6, 4)), Column("band", "S1", (6, 4)))}
    FORM.check(columns.values())
    with pytest.raises(ValueError, match=re.escape(words)):
        FORM.check((columns | {column.name: column}).values())
