"""``skyset crossmatch`` of more than two catalogues, with rows that have no match, units and proper motions."""

import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

import skyset
from skyset.cli import app
from skyset.tables.motion import moved
from skyset.tables.open import open_catalog

RA, DEC = np.array([10.0, 20.0, 30.0, 40.0]), np.array([-5.0, 0.0, 5.0, 89.0])


@pytest.fixture
def tables(tmp_path):
    """``a`` has all four, ``b`` the first two and the last twice, ``c`` all but the first, in hours."""
    pd.DataFrame({"id": list("pqrs"), "ra": RA, "dec": DEC, "mag": [1.0, 2, 3, 4]}).to_csv(tmp_path / "a.csv", index=False)
    b = pd.DataFrame({"id": list("wxyz"), "RAJ2000": RA[[0, 1, 3, 3]], "DEJ2000": DEC[[0, 1, 3, 3]]})
    b.assign(mag=[5, 6, 7, 8]).to_csv(tmp_path / "b.csv", index=False)
    c = pd.DataFrame({"id": [1, 2, 3], "ALPHA_J2000": RA[1:] / 15, "DELTA_J2000": DEC[1:]})
    c.to_parquet(tmp_path / "c.parquet")
    return tmp_path


def crossmatch(*arguments):
    return CliRunner().invoke(app, ["crossmatch", *map(str, arguments)])


def test_left_has_all_of_the_left_ones(tables):
    for output in ("out.parquet", "out.csv"):
        done = crossmatch(tables / "a.csv", tables / "b.csv", "--how", "left", "--columns", "mag", "-o", tables / output)
        assert done.exit_code == 0 and "4 pairs of 4 and 4 objects; 1 of 4 have none" in done.output, done.output
    table = pd.read_parquet(tables / "out.parquet")
    assert table["object_id_left"].tolist() == list("pqrss")
    assert table["object_id_right"].fillna("").tolist() == ["w", "x", "", "y", "z"]
    assert np.isnan(table["separation_arcsec"][2]) and table["mag_left"].tolist() == [1, 2, 3, 4, 4]
    pd.testing.assert_series_equal(pd.read_csv(tables / "out.csv")["mag_right"], table["mag_right"], check_dtype=False)
    done = crossmatch(tables / "a.csv", tables / "b.csv", "--how", "left", "--partitions", tables / "pairs")
    assert done.exit_code == 0, done.output
    rows = list(skyset.load("crossmatch", data_dir=str(tables / "pairs")))
    assert sorted(row["object_id_right"] for row in rows) == ["", "w", "x", "y", "z"]
    done = crossmatch(tables / "a.csv", tables / "b.csv", "--how", "nearest", "-o", tables / "near.csv")
    assert "3 pairs of 4 and 4 objects" in done.output


def test_left_by_key_too(tables):
    pd.DataFrame({"id": ["p", "s"], "flux": [1, 2]}).to_csv(tables / "k.csv", index=False)
    done = crossmatch(tables / "a.csv", tables / "k.csv", "--key", "id", "--how", "left", "-o", tables / "out.parquet")
    assert "2 pairs of 4 and 2 objects; 2 of 4 have none" in done.output, done.output
    assert pd.read_parquet(tables / "out.parquet")["object_id_right"].isna().tolist() == [False, True, True, False]


def test_three_catalogues_and_hours(tables):
    ra = "ra=RAJ2000=ALPHA_J2000:hour"
    arguments = (tables / "a.csv", tables / "b.csv", tables / "c.parquet", "--ra", ra, "--dec", "dec=DEJ2000=DELTA_J2000")
    done = crossmatch(*arguments, "-o", tables / "out.parquet")
    assert "3 matches of 4, 4 and 3 objects" in done.output, done.output
    table = pd.read_parquet(tables / "out.parquet")
    assert list(table.columns) == [
        *(f"{name}_{n}" for n in (1, 2, 3) for name in ("object_id", "ra", "dec")),
        *("separation_arcsec_2", "separation_arcsec_3"),
    ]
    found = sorted(zip(table["object_id_1"], table["object_id_2"], table["object_id_3"], strict=True))
    assert found == [("q", "x", 1), ("s", "y", 3), ("s", "z", 3)]
    assert table["separation_arcsec_3"].max() < 1e-6


def test_proper_motions(tables):
    later = moved(RA, DEC, np.full(4, 900.0), np.full(4, 100.0), 15.5)
    stars = pd.DataFrame({"id": list("abcd"), "ra": later[0], "dec": later[1], "pmra": 900.0, "pmdec": 100.0})
    stars.to_csv(tables / "stars.csv", index=False)
    arguments = (tables / "stars.csv", tables / "a.csv", "--radius", "0.1", "-o", tables / "out.parquet")
    assert "0 pairs" in crossmatch(*arguments).output
    done = crossmatch(*arguments, "--pm", "--epochs", "2015.5=")
    assert "4 pairs" not in done.output, "the other is of the same epoch where one is told"
    done = crossmatch(*arguments, "--pm", "--epochs", "2015.5=2000")
    assert "4 pairs of 4 and 4 objects" in done.output, done.output
    table = pd.read_parquet(tables / "out.parquet")
    assert np.allclose(table["ra_left"], later[0]), "positions are those of the catalogue"
    assert "pmra_left" not in table and np.sort(table["separation_arcsec"])[2] < 1e-4


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--how", "outer"], "--how outer: it is inner, left or nearest"),
        (["--how", "nearest", "--best", "mutual"], "leave one out"),
        (["--epochs", "2000"], "--epochs is for --pm"),
        (["--pm"], "none of the catalogues has proper motions"),
        (["--pm", "--epochs", "then"], "these are no years"),
        (["--pm", "--key", "id"], "leave one out"),
        (["--ra", "a=b=c", "--dec", "dec"], "--ra a=b=c: 3 columns for 2 catalogues"),
    ],
)
def test_what_is_asked_for_wrongly(tables, arguments, message):
    done = crossmatch(tables / "a.csv", tables / "b.csv", *arguments, "-o", tables / "out.csv")
    assert done.exit_code == 2 and message in done.output.replace("\n", " "), done.output
    assert not (tables / "out.csv").exists()


def test_partitions_are_of_pairs(tables):
    done = crossmatch(tables / "a.csv", tables / "b.csv", tables / "a.csv", "--partitions", tables / "p")
    assert done.exit_code == 2 and "--partitions takes pairs" in done.output
    done = crossmatch(tables / "a.csv", tables / "b.csv", tables / "c.parquet", "-o", tables / "c.parquet")
    assert done.exit_code == 2 and "catalogue 3" in done.output


def test_one_word_for_a_coordinate_is_for_the_files(tables, built_sdss):
    """As ``skyset crossmatch --help`` has it: partitions have ra and dec."""
    rows = list(skyset.load("sdss_galaxy_zoo", data_dir=str(built_sdss), format=None).select_columns(["ra", "dec"]))
    mine = pd.DataFrame({"id": range(len(rows)), "lon": [row["ra"] / 15 for row in rows]})
    mine["lat"] = [row["dec"] for row in rows]
    mine.to_csv(tables / "mine.csv", index=False)
    for pair in ((built_sdss, tables / "mine.csv"), (tables / "mine.csv", built_sdss)):
        done = crossmatch(*pair, "--ra", "lon:hour", "--dec", "lat", "--best", "nearest", "-o", tables / "out.parquet")
        assert done.exit_code == 0 and f"{len(rows)} pairs of {len(rows)}" in done.output, done.output
    done = crossmatch(built_sdss, built_sdss, "--ra", "lon", "--dec", "lat", "-o", tables / "out.parquet")
    assert done.exit_code == 2 and "has no column lon" in done.output.replace("\n", " ")


def test_positions_that_a_program_wrote_as_text(tables):
    text = pd.DataFrame({"id": list("pqrstu"), "ra": [*map(str, RA), "inf", "--"]})
    text["dec"] = ["-05", "0", "+5", "89", "1", "2"]
    text.to_parquet(tables / "text.parquet")
    done = crossmatch(tables / "a.csv", tables / "text.parquet", "-o", tables / "out.parquet")
    assert "2 objects without a position" in done.output and "4 pairs of 4 and 4 objects" in done.output, done.output
    assert pd.read_parquet(tables / "out.parquet")["dec_right"].tolist() == [-5.0, 0.0, 5.0, 89.0]
    for odd in ("12:30:00", "1_0"):
        text.assign(ra=["1", odd, *"2345"]).to_parquet(tables / "odd.parquet")
        done = crossmatch(tables / "a.csv", tables / "odd.parquet", "-o", tables / "w.csv")
        assert done.exit_code == 2 and f"ra is text, {odd}; positions in" in done.output.replace("\n", " ")


def test_dates_decimals_and_categories_in_every_file(tables):
    odd = pa.table(
        {
            "id": list("pqrs"),
            "ra": RA,
            "dec": DEC,
            "when": pa.array([0, 1, None, 3], pa.timestamp("s")),
            "price": [decimal.Decimal("1.5")] * 4,
            "kind": pa.array(list("abab")).dictionary_encode(),
            "pair": [[1, 2]] * 4,
            "raw": [b"\xff\xfe"] * 4,
        }
    )
    parquet.write_table(odd, tables / "odd.parquet")
    for ending in (".fits", ".vot"):
        out = tables / f"out{ending}"
        done = crossmatch(tables / "a.csv", tables / "odd.parquet", "--columns", "when,price,kind", "-o", out)
        assert done.exit_code == 0, done.output
        found = open_catalog(out).table().to_pydict()
        assert [(text or "")[:10] for text in found["when_right"]] == ["1970-01-01", "1970-01-01", "", "1970-01-01"]
        assert found["price_right"] == [1.5] * 4 and found["kind_right"] == list("abab")
        for name in ("pair", "raw"):
            done = crossmatch(tables / "a.csv", tables / "odd.parquet", "--columns", name, "-o", tables / f"w{ending}")
            assert done.exit_code == 2 and f"column {name}_right is " in done.output.replace("\n", " "), done.output
            assert not (tables / f"w{ending}").exists()


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "fits", "vot", "parquet"])
def test_a_file_that_is_no_table_of_matches_is_not_replaced(tmp_path, ending):
    (tmp_path / "a.csv").write_text("object_id,ra,dec\na,1,2\n")
    (tmp_path / "b.csv").write_text("object_id,ra,dec\nb,1,2\n")
    output = tmp_path / f"pairs.{ending}"
    arguments = ["crossmatch", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "-o", str(output)]
    for _ in range(2):  # its own output is replaced
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    output.write_bytes(b"object_id,mine\n1,2\n")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "is no table of matches" in " ".join(result.output.split())
    assert output.read_bytes() == b"object_id,mine\n1,2\n"
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
