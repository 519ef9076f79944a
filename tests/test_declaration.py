"""``skyset.info``: what a survey's rows are, without any data."""

import pytest

import skyset
from skyset.declaration import Described, column_rows, lines_of
from skyset.survey import Column

pytestmark = pytest.mark.datasets3


def test_info_has_every_feature_with_its_unit():
    found = skyset.info("gz3d")
    rows = {row.name: row for row in found.features}
    assert rows["ra"] == Described("ra", "float32", (), "deg", "right ascension of the target (ICRS), as published")
    assert rows["image"].cells()[1:3] == ("uint8", "525 x 525 x 3")
    assert rows["segmentation.class"].shape == (4,)
    assert {row.name for row in found.columns} == {column.name for column in skyset.registry.survey("gz3d").columns}


def test_info_prints_as_a_table():
    text = str(skyset.info("gz3d"))
    assert text.startswith("Galaxy Zoo: 3D") and repr(skyset.info("gz3d")) == text
    head = next(line for line in text.splitlines() if line.startswith("feature"))
    line = next(line for line in text.splitlines() if line.startswith("ra "))
    assert line[head.index("unit") :].startswith("deg ") and line[head.index("meaning") :].startswith("right ascension")


def test_jupyter_shows_a_table_and_nothing_of_a_description_is_markup():
    page = skyset.info("gz3d")._repr_html_()
    assert page.count("<tr>") == len(skyset.info("gz3d").features) + 1
    assert "<th style='text-align:left'>unit</th>" in page and ">deg</td>" in page


def test_configs_are_named():
    assert "rings (of default, rings, representations)" in str(skyset.info("gz2", "rings"))
    with pytest.raises(skyset.UserError, match="gz2 has no config 'nope'"):
        skyset.info("gz2", "nope")
    with pytest.raises(skyset.UserError, match="did you mean gz3d"):
        skyset.info("gz3")


def test_lines_stand_under_each_other():
    rows = column_rows([Column("a", "float32", (2, 3), "mag", "short"), Column("longer", "S8", (), "", "what it is")])
    assert lines_of(rows, "column") == [
        "column  dtype    shape  unit  meaning",
        "a       float32  2 x 3  mag   short",
        "longer  S8                    what it is",
    ]


def test_everything_that_is_public_is_there():
    assert {
        "load",
        "register",
        "surveys",
        "info",
        "configs",
        "find_root",
        "SurveyBuilder",
        "Survey",
        "Column",
        "Feature",
        "Manifest",
        "SkysetError",
        "UserError",
        "RecordError",
        "PartitionError",
    } <= set(skyset.__all__)
    assert all(getattr(skyset, name) is not None for name in skyset.__all__) and set(skyset.__all__) <= set(dir(skyset))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        skyset.nope  # noqa: B018
