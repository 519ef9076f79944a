"""Catalogues of the same objects joined: what is taken, and what is refused by name."""

import pytest

from skyset.errors import UserError
from skyset.survey import Column
from skyset.tables.join import Source
from skyset.tables.join import join


def joined(tmp_path, text: str, column: Column):
    (tmp_path / "names.csv").write_text(text)
    return join([Source(tmp_path / "names.csv", "iauname", {column.name: column.name})], {column.name: column})


def test_values_come_as_their_column_holds_them(tmp_path):
    table = joined(tmp_path, "iauname,comment\nJ1,ring\nJ2,\n", Column("comment", "S8"))
    assert table.keys == ["J1", "J2"] and table.values["comment"].tolist() == [b"ring", b""]
    assert table.values["comment"].dtype == "S8"


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        ("né", "S20", "comment is not ASCII: 'né'"),
        ("spiral", "S3", "comment is longer than 3 characters: 'spiral'"),
        ("300", "uint8", "comment holds 300, which uint8 cannot hold"),
        ("0.5", "int16", "comment holds 0.5, which int16 cannot hold"),
        ("1e300", "float32", r"comment holds 1e\+300, which float32 cannot hold"),
    ],
)
def test_a_value_that_would_change_is_refused(tmp_path, value, dtype, words):
    other = "x" if dtype.startswith("S") else "1"
    with pytest.raises(UserError, match=rf"names\.csv: column comment: {words}"):
        joined(tmp_path, f"iauname,comment\nJ1,{other}\nJ2,{value}\n", Column("comment", dtype))
