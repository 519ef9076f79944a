"""Columns of text and of true and false, several words for "not measured", and a key that is the catalogue's own id."""

import argparse
import math

import numpy as np
import pyarrow as pa
import pytest

from skyset.building.cutouts.catalogue import listed_rows
from skyset.building.cutouts.columns import Columns, present
from skyset.building.cutouts.samples import _value
from skyset.errors import RecordError, UserError
from skyset.survey import Column
from skyset.tables.delimited_writer import write_csv
from skyset.tables.open import open_catalog

MAG, FLAG = Column("mag", "float32", (), "mag", "magnitude"), Column("flag", "bool", (), "", "secure")
NAME, RA = Column("name", "S12", (), "", "name"), Column("ra", "float64", (), "deg", "right ascension")
BROUGHT = Columns((RA, MAG, FLAG, NAME), "object_id", ("object_id",), ("ra",), missing=(math.inf, -math.inf, -99, -99.9))
ID = 36407053045309821


def standard(**columns):
    rows = {"object_id": [ID, ID + 1], "ra": [1.0, 2.0]} | columns
    return BROUGHT.standard(pa.table(rows), "here")


def test_the_key_is_the_id_and_stays_exact():
    assert BROUGHT.schema.field("name").type == pa.string() and BROUGHT.schema.field("flag").type == pa.bool_()
    assert standard()["object_id"].to_pylist() == [ID, ID + 1]
    assert standard(object_id=[str(ID), str(ID + 1)])["object_id"].to_pylist() == [ID, ID + 1]
    assert present(standard()) == {"object_id", "ra"}
    with pytest.raises(UserError, match="here: no column object_id"):
        BROUGHT.standard(pa.table({"ra": [1.0]}), "here")


@pytest.mark.parametrize("ids", [[3.6e16, 3.6e16], ["3.6e16", str(ID)], ["36407053045309821.0", str(ID)]])
def test_ids_that_were_floats_are_refused_by_name(ids):
    with pytest.raises(
        UserError, match=r"column object_id (is double|holds 3\.6e16|holds 36407053045309821\.0).*cannot be repaired"
    ):
        standard(object_id=ids)


@pytest.mark.parametrize(
    "written",
    [
        [True, False],
        ["True", "False"],
        ["TRUE", " false "],
        ["t", "f"],
        ["1", "0"],
        [1, 0],
        [1.0, 0.0],
    ],
)
def test_true_and_false_as_databases_write_them(written):
    assert standard(flag=written)["flag"].to_pylist() == [True, False]


@pytest.mark.parametrize("written", [["", None], [None, math.nan], ["nan", ""]])
def test_true_or_false_may_be_missing(written):
    assert standard(flag=pa.array(written))["flag"].to_pylist() == [None, None]


@pytest.mark.parametrize("written", [["yes", "t"], [2, 1], [0.5, 0.0], [-1, 0]])
def test_what_is_neither_is_refused(written):
    with pytest.raises(UserError, match=r"here: column flag cannot be bool: .* is neither true nor false"):
        standard(flag=written)


@pytest.mark.parametrize(
    "written",
    [
        [21.5, -99.9],
        pa.array([21.5, -99.9], pa.float32()),
        ["21.5", "-99.9"],
        [21.5, -99],
        ["21.5", "inf"],
        [21.5, -math.inf],
        [21.5, float(np.float32(-99.9))],
        [21.5, None],
    ],
)
def test_several_words_for_not_measured(written):
    assert standard(mag=written)["mag"].to_pylist() == [21.5, None]


def test_a_column_that_says_which_values_are_null():
    flags = {"mag": [21.5, 0.0], "mag_isnull": [False, True], "name": ["a", ""], "name_ISNULL": [False, True]}
    assert standard(**flags).select(["mag", "name"]).to_pylist() == [{"mag": 21.5, "name": "a"}, {"mag": None, "name": None}]


def test_text_is_text_whatever_it_looks_like():
    assert standard(name=["007", "1.50"])["name"].to_pylist() == ["007", "1.50"]
    assert standard(name=[94040403, None])["name"].to_pylist() == ["94040403", None]


def test_rows_come_back_from_the_list_as_they_were(tmp_path):
    rows = standard(name=["(1, 2)", "17"], flag=["t", "f"], mag=[21.5, -99])
    write_csv(tmp_path / "list.csv.gz", rows.to_batches(), BROUGHT.schema)
    assert list(listed_rows(argparse.Namespace(columns=BROUGHT), tmp_path / "list.csv.gz")) == [
        (str(ID), {"object_id": ID, "ra": 1.0, "mag": 21.5, "flag": True, "name": "(1, 2)"}),
        (str(ID + 1), {"object_id": ID + 1, "ra": 2.0, "mag": None, "flag": False, "name": "17"}),
    ]


def test_values_as_they_stand_in_json():
    assert [_value("a", NAME, False), _value(None, NAME, False), _value(True, FLAG, False)] == ["a", "", True]
    for value, column in ((None, FLAG), (1, FLAG), (1, NAME), (True, MAG), ("1", MAG)):
        with pytest.raises(RecordError, match=f"{column.name} is .* not of type"):
            _value(value, column, False)


def test_a_real_answer_of_the_archive_after_a_round_trip_through_pandas(real):
    path = real("hsc/das/star_cat_correct.csv")
    columns = (
        Column("ira", "float64"),
        Column("icalib_psf_used", "bool"),
        Column("star_filename", "S60"),
        Column("tract", "int64"),
    )
    brought = Columns(columns, "object_id", ("object_id",), ("ira",), missing=-99, names={"object_id": ("# object_id",)})
    batches = [brought.standard(batch, "here") for batch in open_catalog(path).batches()]
    found = pa.Table.from_batches(batches)
    assert found["object_id"].to_pylist()[:2] == [36411452835238206, 36411452835248579] and found.num_rows == 10
    assert found["icalib_psf_used"].null_count == 0 and set(found["tract"].to_pylist()) == {8279}
    assert found["star_filename"][0].as_py() == "images/2-cutout-HSC-I-8279-pdr2_wide.fits"
