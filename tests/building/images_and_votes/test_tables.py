"""Catalogues are recognised by their columns."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from skyset.building.images_and_votes.release import Names
from skyset.building.images_and_votes.tables import NotOurs, describe, needs_published, recognise
from skyset.errors import UserError
from tests.building.images_and_votes.builds import galaxies
from tests.building.images_and_votes.zoo import RELEASE


@pytest.fixture
def write(tmp_path):
    def write(table, name="a.csv"):
        pd.DataFrame(table).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


def named(**changes):
    """The release with numbers as names."""
    return replace(RELEASE, names=Names(("objid", "id")), **changes)


def test_what_is_taken_of_a_table_of_votes(write):
    path = write(galaxies().table.assign(file_loc="x.png", seeing=1.0, moon=0.5))
    table = recognise(path, RELEASE)
    assert table.kinds == ("votes", "rings") and table.has_objects and table.rows == 12
    assert table.source.key == "name" and table.source.columns["redshift"] == "z"
    assert table.left_out == ("seeing", "moon")
    assert [*describe(table)] == [
        "a.csv: votes, rings; 12 galaxies, 11 columns, named by name",
        "a.csv: columns that are left out: seeing, moon",
    ]


def test_the_best_name_of_a_column_is_taken(write):
    both = galaxies().table.assign(redshift=0.5)
    assert recognise(write(both), RELEASE).source.columns["redshift"] == "z"
    assert recognise(write(both.drop(columns="z")), RELEASE).source.columns["redshift"] == "redshift"


def test_vectors_alone_have_no_objects(write):
    table = recognise(write({"name": galaxies().names} | {f"feat_{k}": np.zeros(12) for k in range(8)}), RELEASE)
    assert table.kinds == ("representations",) and not table.has_objects and table.left_out == ()
    assert [*describe(table)] == ["a.csv: representations; named by name"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"gaia": [1], "mag": [2]}, "no column name or other_name"),
        ({"name": ["J000411.19+020924.0"], "mag": [2]}, "no votes of Zoo, nothing for rings, representations"),
        ({"name": ["20686062"], "shape_round_count": [1]}, r"column name holds no IAU names \(20686062\)"),
        ({"name": [], "shape_round_count": []}, "no rows"),
    ],
)
def test_tables_of_something_else(write, table, words):
    with pytest.raises(NotOurs, match=f"a.csv: {words}"):
        recognise(write(table), RELEASE)


def test_a_file_that_is_no_table(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(NotOurs, match=r"a\.parquet"):
        recognise(tmp_path / "a.parquet", RELEASE)


def test_the_column_whose_values_are_names_is_the_key(write):
    table = galaxies().table.rename(columns={"name": "other_name"}).assign(name=range(12))
    table.loc[3, "other_name"] = "no name at all"  # a row to be rejected
    assert recognise(write(table), RELEASE).source.key == "other_name"


def test_numbers_as_names(write):
    table = galaxies().table.drop(columns="name").assign(objid=587722981736120347)
    assert recognise(write(table), named()).source.key == "objid"
    with pytest.raises(NotOurs, match="votes of Zoo without ra and dec"):
        recognise(write(table.drop(columns="dec")), named())
    table["objid"] = table["objid"].astype(object)
    table.loc[11, "objid"] = "5.87722981736120E+17"
    with pytest.raises(UserError, match=r"a\.csv: column objid holds 5\.87722981736120E\+17.*floating point"):
        recognise(write(table), named())


def test_names_of_another_form_that_went_through_floating_point(write):
    with pytest.raises(UserError, match=r"a\.csv: column name is double, not integer: .*floating point"):
        recognise(write({"name": ["5.88018090547020E+17"] * 2, "shape_round_count": 1}), RELEASE)


def test_published_tables_are_asked_for_where_votes_are_needed():
    assert needs_published(RELEASE, ["default"]) and needs_published(RELEASE, ["rings"])
    assert not needs_published(RELEASE, ["representations"])  # the names say where the objects are
    assert needs_published(named(), ["representations"]) and not needs_published(named(cuts={}), ["rings"])
