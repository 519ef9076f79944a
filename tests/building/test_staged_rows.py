"""Staged rows: what was staged comes back, and what a column cannot hold is not staged."""

import numpy as np
import pytest

from skyset.building.staged_rows import row_of, stage
from skyset.errors import RecordError
from skyset.survey import Column

COLUMNS = (Column("name", "S6"), Column("votes", "int16"), Column("share", "float32", (2,)), Column("ring", "bool"))
ROWS = {
    "name": np.array(["J00+01", "J02"], object),
    "votes": np.array([3.0, -1.0]),
    "share": np.array([[0.1, 0.9], [np.nan, 1]]),
    "ring": np.array([0, 1]),
}


def test_rows_come_back(tmp_path):
    stage(tmp_path / "rows.npy", COLUMNS, ROWS)
    row = row_of(tmp_path / "rows.npy", 0)
    assert list(row) == ["name", "votes", "share", "ring"]
    assert (row["name"], row["votes"], row["ring"]) == (b"J00+01", 3, False)
    assert row["share"].dtype == np.float32 and row["share"].tolist() == [np.float32(0.1), np.float32(0.9)]
    assert np.isnan(row_of(tmp_path / "rows.npy", 1)["share"][0]) and row_of(tmp_path / "rows.npy", 1)["votes"] == -1


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("name", ["J00", "né"], "name is not ASCII: 'né'"),
        ("name", ["J00", "J000000"], "name is longer than 6 characters: 'J000000'"),
        ("votes", [1, 40_000], "votes holds 40000, which int16 cannot hold"),
        ("votes", [1, 0.5], "votes holds 0.5, which int16 cannot hold"),
        ("votes", [1, np.nan], "votes holds nan, which int16 cannot hold"),
        ("share", [[0, 0], [0, 1e300]], r"share holds 1e\+300, which float32 cannot hold"),
        ("share", [[0], [0]], r"share has shape \(1,\), not \(2,\)"),
        ("ring", [1, 2], "ring holds 2, which bool cannot hold"),
    ],
)
def test_what_a_column_cannot_hold_is_refused(tmp_path, column, values, words):
    with pytest.raises(RecordError, match=words):
        stage(tmp_path / "rows.npy", COLUMNS, {**ROWS, column: np.array(values)})
