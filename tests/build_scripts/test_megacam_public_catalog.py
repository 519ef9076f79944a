"""Public source catalogues in the form of astro_iqa's: what is kept, what is masked and counted, and a map of them."""

import gzip
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

pytest.importorskip("numba", reason="MegaCam's sources are measured and grouped with numba")

from skyset.build_scripts.megacam_iqa.public_catalog import FEATURES, SCHEMA, main, read_public
from skyset.errors import UserError
from skyset.extraction.som.groups import Groups
from skyset.loaders.megacam_iqa import CLASSES


def public(rows=400, **changes) -> pa.Table:
    """A table as theirs are: kinds, names and clipped backgrounds; ``changes`` are values by column and row."""
    dice = np.random.default_rng(0)
    q = dice.uniform(0.2, 1, rows)
    columns = {
        "OBJECT_ID": [f"{k:032x}" for k in range(rows)],
        "FITS_ID": ["1625632p" if k % 2 else "979412p" for k in range(rows)],
        "CCD_ID": (2 * (np.arange(rows) % 40) + 2).astype(np.uint8),
        "ISO0": (10 ** dice.uniform(0.7, 3, rows)).astype(np.float32),
        "BACKGROUND": np.where(np.arange(rows) % 25 > 0, 2, 0.5).astype(np.float32),
        "ELLIPTICITY": (1 - q).astype(np.float32),
        "ELONGATION": (1 / q).astype(np.float32),
        "CLASS_STAR": dice.uniform(0, 1, rows).astype(np.float32),
        "FLAGS": (np.arange(rows) % 69).astype(np.int16),
        "EXPTIME": np.full(rows, 287.5),
        "gt_label1": ["GOOD" if k % 2 else "BGP" for k in range(rows)],
        "gt_label2": [None if k % 2 else "B_SEEING" for k in range(rows)],
    }
    for name, values in changes.items():
        columns[name] = list(columns[name])
        for row, value in values.items():
            columns[name][row] = value
    kinds = {"CCD_ID": pa.uint8(), "FLAGS": pa.int16(), "EXPTIME": pa.float64()}
    kinds |= dict.fromkeys(("ISO0", "BACKGROUND", "ELLIPTICITY", "ELONGATION", "CLASS_STAR"), pa.float32())
    return pa.table({name: pa.array(values, kinds.get(name, pa.string())) for name, values in columns.items()})


def write(folder, table, whole=False):
    path = folder / "objects_catalog_cadc_bronze.parquet.gz"
    parquet.write_table(table, path, compression="gzip")
    if whole:
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def read(path, leave_out=()):
    faults = Counter()
    return pa.Table.from_batches(read_public([path], faults, leave_out), SCHEMA), +faults


@pytest.mark.parametrize("whole", [False, True])
def test_good_values_are_kept(tmp_path, whole):
    given = public()
    table, faults = read(write(tmp_path, given, whole))
    assert faults == {"BACKGROUND clipped to +-2": 384}
    for name in ("OBJECT_ID", "FITS_ID", "ISO0", "ELLIPTICITY", "ELONGATION", "CLASS_STAR", "EXPTIME", "FLAGS"):
        assert table[name].to_pylist() == given[name].to_pylist(), name
    assert table["CCD_HDU"].to_pylist() == given["CCD_ID"].to_pylist()
    assert table["CCD_ID"].to_pylist() == [k % 40 for k in range(400)]
    assert table["gt_label1"].to_pylist()[:2] == [CLASSES.index("BGP"), CLASSES.index("GOOD")]
    assert table["gt_label2"].to_pylist()[:2] == [CLASSES.index("B_SEEING"), -1]
    assert table["BACKGROUND"].null_count == 384 and set(table["BACKGROUND"].drop_null().to_pylist()) == {0.5}


def test_what_cannot_be_true_is_masked_counted_and_named(tmp_path):
    """The worst values of the published files, and what is no number."""
    given = public(
        ISO0={0: 527383, 1: np.nan, 2: np.inf, 3: 0, 4: None},
        ELONGATION={5: 35720, 6: 0.5},
        ELLIPTICITY={7: -0.1, 8: 1.5},
        CLASS_STAR={9: 1.01},
        FLAGS={10: -1, 11: 68},
        CCD_ID={12: 0, 13: 7, 14: 82, 15: 80},
        EXPTIME={16: 0, 17: -9999, 18: np.nan},
        gt_label1={19: "WORSE", 20: None},
    )
    table, faults = read(write(tmp_path, given))
    assert faults == {
        "BACKGROUND clipped to +-2": 384,
        "ISO0 above 100,000": 1,
        "ISO0 not finite": 3,
        "ISO0 below 1": 1,
        "ELONGATION above 100": 1,
        "ELONGATION below 1": 1,
        "ELLIPTICITY below 0": 1,
        "ELLIPTICITY above 1": 1,
        "CLASS_STAR above 1": 1,
        "FLAGS below 0": 1,
        "CCD_ID no HDU of a CCD": 3,
        "EXPTIME below 0.001": 2,
        "EXPTIME not finite": 1,
        "gt_label1 outside the classes": 1,
    }
    nulls = {name: np.flatnonzero(table[name].is_null()).tolist() for name in SCHEMA.names if name != "BACKGROUND"}
    assert {name: rows for name, rows in nulls.items() if rows} == {
        "ISO0": [0, 1, 2, 3, 4],
        "ELONGATION": [5, 6],
        "ELLIPTICITY": [7, 8],
        "CLASS_STAR": [9],
        "FLAGS": [10],
        "CCD_ID": [12, 13, 14],
        "EXPTIME": [16, 17, 18],
    }
    assert table["FLAGS"][11].as_py() == 68 and table["CCD_ID"][15].as_py() == 39
    assert table["CCD_HDU"].to_pylist()[12:16] == [0, 7, 82, 80]
    assert table["gt_label1"].to_pylist()[19:21] == [-1, -1]


def test_exposures_that_are_left_out(tmp_path):
    path = write(tmp_path, public())
    for name in ("979412", "979412p"):
        table, faults = read(path, [name])
        assert set(table["FITS_ID"].to_pylist()) == {"1625632p"} and len(table) == 200
        assert faults == {"BACKGROUND clipped to +-2": 192}


def test_the_command_writes_a_table_and_a_map(tmp_path, capsys):
    path = write(tmp_path, public(ISO0={0: 527383}))
    table, som = tmp_path / "sources.parquet", tmp_path / "som.npz"
    assert main([str(path), str(path), "-o", str(table), "--som", str(som)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "800 sources; masked:",
        "  768 (96.00%): BACKGROUND clipped to +-2",
        "  2 (0.25%): ISO0 above 100,000",
        f"wrote {som}: 798 sources in 4 x 5 groups",
    ]
    assert parquet.read_schema(table).equals(SCHEMA) and parquet.read_metadata(table).num_rows == 800
    found = Groups.load(som)
    assert found.scaling.features == FEATURES and found.som.training.hits.sum() == 798 and found.count == 20
    wide, narrow = ({"ISO0": np.full(1, size)} | dict.fromkeys(FEATURES[1:], np.full(1, 0.9)) for size in (900.0, 6.0))
    assert found.of(wide)[0] != found.of(narrow)[0] and found.of(wide | {"ISO0": np.full(1, np.nan)})[0] == -1
    assert main([str(path), "-o", str(table)]) == 2 and "sources.parquet is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "table, said",
    [
        (public().drop_columns(["ISO0"]), "has no column ISO0"),
        (public().set_column(3, "ISO0", pa.array(["big"] * 400)), "column ISO0 is string, not float"),
        (public().set_column(2, "CCD_ID", pa.array(["ccd"] * 400)), "column CCD_ID is string, not int32"),
    ],
)
def test_other_columns_are_refused(tmp_path, table, said):
    with pytest.raises(UserError, match=f"bronze.parquet.gz.*{said}"):
        read(write(tmp_path, table))


def test_a_map_of_too_few_sources_is_refused(tmp_path, capsys):
    path = write(tmp_path, public(10))
    assert main([str(path), "-o", str(tmp_path / "a.parquet"), "--som", str(tmp_path / "a.npz")]) == 2
    assert "10 rows are not enough for 20 groups" in capsys.readouterr().err and not (tmp_path / "a.npz").exists()
