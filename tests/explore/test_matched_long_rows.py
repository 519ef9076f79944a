"""Matches of rows with ragged columns and groups: of partitions, pushed Parquet and HATS, in memory and as partitions."""

import numpy as np
import pyarrow as pa
import pytest

import skyset
from skyset.explore.match_sides import side_of_partitions
from skyset.loading.found import opened
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.publishing.hats import Asked, export
from skyset.survey import Trim
from tests import long_rows
from tests.conftest import once
from tests.long_survey import NAME
from tests.matched import STAMPS, cutouts, write_survey
from tests.publishing.test_verify import write_pushed

STORED = long_rows.values()
FORMS = ("source", "pushed", "array")
#: Of the rows that have a stamp.
SOME = np.arange(0, long_rows.ROWS, 2)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Partitions ``stamps`` of every second object, and the long rows in three forms. Do not change it."""
    skyset.register(NAME, "tests.long_survey")

    def make(folder):
        mag = SOME.astype(np.float32)
        write_survey(folder / "stamps", STAMPS, STORED["ra"][SOME], STORED["dec"][SOME], image=cutouts(len(SOME)), mag=mag)
        long_rows.write(folder / "source")
        write_pushed(folder / "source", folder / "pushed")
        export(str(folder / "source"), folder / "array", Asked(max_rows=8))

    return once(tmp_path_factory, "long_rows_matched", make)


def check(rows, count: int = len(SOME)) -> None:
    seen = set()
    for row in rows:
        long_rows.assert_row(row, STORED, f"{NAME}.")
        seen.add(row[f"{NAME}.object_id"])
        if row.get("stamps.mag") is not None:
            assert row["stamps.mag"] == long_rows.number(row[f"{NAME}.object_id"])
    assert len(seen) == count


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_any_length_on_either_side(sides, form):
    check(skyset.crossmatch(sides / "stamps", sides / form, radius=1).with_format("numpy"))
    check(skyset.crossmatch(sides / form, sides / "stamps", radius=1).with_format("numpy").shuffle(seed=4))


@pytest.mark.parametrize("form", FORMS)
def test_rows_without_a_match(sides, form):
    stream = skyset.crossmatch(sides / form, sides / "stamps", radius=1, how="left").with_format("numpy")
    check(stream, long_rows.ROWS)
    far = write_survey(sides.parent / f"far_{form}", STAMPS, [44.3, 0.0], [0.0, 1.0], image=cutouts(2), mag=[0.0, 1.0])
    for row in skyset.crossmatch(far, sides / form, radius=1, how="left").with_format("numpy"):
        assert row[f"{NAME}.spectrum"] is None and row[f"{NAME}.cube"] is None
    (table,) = skyset.crossmatch(far, sides / form, radius=1, how="left").with_format("arrow").iter(batch_size=2)
    assert table[f"{NAME}.spectrum"].null_count == 2


def test_an_object_with_several_matches(sides, tmp_path):
    ra, dec = (np.repeat(STORED[name][:4], 3) for name in ("ra", "dec"))
    many = write_survey(tmp_path / "many", STAMPS, ra, dec, image=cutouts(12), mag=np.zeros(12))
    rows = list(skyset.crossmatch(many, sides / "source", radius=1).with_format("numpy"))
    assert len(rows) == 12
    for row in rows:
        long_rows.assert_row(row, STORED, f"{NAME}.")


@pytest.mark.parametrize("form", FORMS)
def test_matches_are_written_as_partitions(sides, form, tmp_path):
    stream = skyset.crossmatch(sides / "stamps", sides / form, radius=1)
    folder = tmp_path / "both"
    manifest = skyset.to_partitions(stream, folder)
    assert manifest.rows == len(SOME) and list(verify(folder, skyset.loading.registry.survey("matched"))) == []
    found = skyset.load(str(folder)).with_format("numpy")
    assert {name: found.features[name] for name in stream.features} == dict(stream.features)
    check(found)
    assert skyset.to_partitions(stream, folder).to_json() == Manifest.load(folder).to_json()
    write_pushed(folder, tmp_path / "pushed")
    check(skyset.load("matched", data_dir=str(tmp_path / "pushed"), streaming=True).with_format("numpy"))
    export(str(folder), tmp_path / "hats", Asked())
    _, survey, _ = opened(str(tmp_path / "hats"))
    assert survey.column(f"{NAME}.wave").shape == (-1,)


def test_padding_stays_with_the_columns_that_it_is_of(sides, tmp_path):
    stream = skyset.crossmatch(sides / "stamps", sides / "source", radius=1)
    stream = stream.select_columns(["stamps.mag", f"{NAME}.object_id", f"{NAME}.lightcurve"])
    skyset.to_partitions(stream, tmp_path / "some")
    (trim,) = opened(str(tmp_path / "some"))[1].trims
    assert set(trim.columns) == {f"{NAME}.{name}" for name in ("band", "time", "lc_flux")}
    for row in skyset.load(str(tmp_path / "some")).with_format("numpy"):
        expected = long_rows.trimmed(STORED, long_rows.number(row[f"{NAME}.object_id"]))["lightcurve"]
        np.testing.assert_array_equal(row[f"{NAME}.lightcurve"]["flux"], expected["flux"])
    whole = Trim(("a", "b"), "a", (0.0,))
    assert whole.within({"a"}) == Trim(("a",), "a", (0.0,))
    assert whole.within({"b"}) is None and whole.within({"c"}) is None


def test_rows_are_planned_by_the_files_sizes(sides):
    side, entries = side_of_partitions(NAME, opened(str(sides / "source")))
    ragged = [column for column in side.survey.columns if column.is_ragged]
    mean = sum(entry.bytes for entry in entries) / sum(entry.rows for entry in entries)
    assert len({column.typical_bytes for column in ragged}) == 1
    assert side.survey.row_bytes <= mean + 16 * len(ragged)


def test_a_table_of_matches_has_the_scalars_of_both(sides):
    table = skyset.crossmatch(sides / "stamps", sides / "pushed", radius=1).with_format("arrow")
    whole = pa.concat_tables(list(table.iter(batch_size=4)))
    kind = whole.schema.field(f"{NAME}.lightcurve").type
    assert kind.field("time").type == pa.list_(pa.float64()) and whole.num_rows == len(SOME)
