"""HATS catalogues, ours and others, as sides of a match: rows as of partitions, pixels of row groups with a match alone."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skyset
from skyset.errors import UserError
from skyset.loading.hats import read_hats
from skyset.partitions.parquet_file import ParquetFile
from skyset.publishing.hats import Asked, export
from skyset.sky import healpix_cell
from skyset.testing.server import ArchiveServer
from tests.conftest import once
from tests.matched import MASKED, STAMPS, cutouts, write_survey

ROWS = 24
RNG = np.random.default_rng(5)
RA, DEC = RNG.uniform(0, 30, ROWS), RNG.uniform(-20, 20, ROWS)
IMAGES, MASKS = cutouts(ROWS), RNG.integers(0, 9, (ROWS, 2, 80, 80)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Partitions ``stamps`` and ``masked`` of the same places, and the latter as HATS in three forms. Do not change it."""
    skyset.register("masked", "tests.matched")

    def make(folder):
        write_survey(folder / "stamps", STAMPS, RA, DEC, image=IMAGES, mag=np.arange(ROWS, dtype=np.float32))
        write_survey(folder / "masked", MASKED, RA, DEC, bar=MASKS[:, 0], arm=MASKS[:, 1])
        for images in ("array", "list", "tensor"):
            export(str(folder / "masked"), folder / images, Asked(images=images, max_bytes=100_000))

    return once(tmp_path_factory, "hats_sides", make)


def number(row) -> int:
    return int(row["masked.object_id"].removeprefix("masked"))


@pytest.mark.parametrize("images", ["array", "list", "tensor"])
def test_ours_is_the_survey_and_anybodys_its_columns(folder, images):
    ours = skyset.crossmatch(folder / "stamps", folder / images, radius=1)
    expected = skyset.crossmatch(folder / "stamps", folder / "masked", radius=1)
    assert ours.features == expected.features and len(ours) == len(expected) == ROWS
    for stream in (ours, ours.shuffle(seed=1)):
        rows = list(stream)
        assert sorted(map(number, rows)) == list(range(ROWS))
        assert all(np.array_equal(row["masked.masks"]["array"], MASKS[number(row)]) for row in rows)
        assert all(np.array_equal(row["stamps.image"], IMAGES[number(row)]) for row in rows)
    plain = skyset.crossmatch(folder / images / "masked", folder / "stamps", radius=1)  # the catalogue alone: no note
    rows = list(plain)
    assert sorted(map(number, rows)) == list(range(ROWS))
    assert all(np.array_equal(row["masked.bar"], MASKS[number(row), 0]) for row in rows)
    assert rows[0]["masked.bar"].dtype == np.uint8 and rows[0]["masked._healpix_29"].dtype == np.int64


def write_catalogue(folder, order=1, **columns):
    """What somebody else's tool writes: other names, lists without a length, missing values; no list of footers."""
    table = pa.table(columns)
    cells = healpix_cell(np.array(columns["RAJ"]), np.array(columns["DEJ"]), 2**order)
    for cell in np.unique(cells).tolist():
        path = folder / "dataset" / f"Norder={order}/Dir=0/Npix={cell}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pa.array(cells == cell)), path, row_group_size=3)
    listed = "".join(f"{order},{cell}\n" for cell in np.unique(cells).tolist())
    (folder / "partition_info.csv").write_text("Norder,Npix\n" + listed)
    (folder / "hats.properties").write_text("#HATS\nhats_col_ra=RAJ\nhats_col_dec=DEJ\nobs_collection=theirs\n")


@pytest.fixture
def theirs(tmp_path):
    names = [None, *(f"t{n}" for n in range(1, ROWS))]
    image = [{"flux": MASKS[n].astype(np.float32).tolist(), "band": ["g", "r"]} for n in range(ROWS)]
    ragged = [[1.0] * n for n in range(ROWS)]
    wild = [[[n] * n, [n] * (n + 1)] for n in range(ROWS)]
    missing = pa.array([None, *range(1, ROWS)], pa.int32())
    kinds = pa.struct({"flux": pa.list_(pa.list_(pa.list_(pa.float32()))), "band": pa.list_(pa.string())})
    image = pa.array(image, kinds)
    write_catalogue(tmp_path / "theirs", RAJ=RA, DEJ=DEC, name=names, n=missing, image=image, spectrum=ragged, wild=wild)
    return tmp_path / "theirs"


def check_theirs(stream):
    rows = list(stream)
    assert len(rows) == ROWS
    for row in rows:
        own = int(row["stamps.object_id"].removeprefix("stamps"))
        assert row["theirs.name"] == (f"t{own}" if own else "") and row["theirs.n"] == (own or -1)
        assert row["theirs.image.flux"].dtype == np.float32
        assert row["theirs.spectrum"].tolist() == [1.0] * own
        assert np.array_equal(row["theirs.image.flux"], MASKS[own]) and list(row["theirs.image.band"]) == ["g", "r"]


def test_a_catalogue_of_another_tool(folder, theirs, capsys):
    stream = skyset.crossmatch(folder / "stamps", theirs, radius=1)
    assert "left out, as no numbers, text or arrays of at most one axis of any length: wild" in "".join(capsys.readouterr())
    check_theirs(stream)
    check_theirs(skyset.crossmatch(theirs, folder / "stamps", radius=1).shuffle(seed=2))


def test_row_groups_without_a_match_are_not_read(theirs, monkeypatch):
    pq.write_table(pa.table({"ra": RA[:2], "dec": DEC[:2]}), theirs.parent / "two.parquet")
    read = []
    whole = pq.ParquetFile.read_row_group

    def spied(self, number, columns=None, **options):
        read.append(tuple(columns))
        return whole(self, number, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spied)
    stream = skyset.crossmatch(theirs.parent / "two.parquet", theirs, names=("two", "theirs"), radius=1)
    assert ("DEJ", "RAJ") in read and not any("image" in columns for columns in read if len(columns) > 1), "positions first"
    read.clear()
    assert [row["theirs.image.flux"].shape for row in stream] == [(2, 80, 80)] * 2
    assert 1 <= len(read) <= 2 and all("image" in columns for columns in read), "of nine"


def test_behind_a_url(folder, theirs):
    with ArchiveServer(theirs.parent) as server:
        check_theirs(skyset.crossmatch(folder / "stamps", f"{server.url}theirs", radius=1))
        with pytest.raises(UserError, match="cache_limit is for files with a list of checksums"):
            skyset.crossmatch(folder / "stamps", f"{server.url}theirs", cache_limit="10MB", cache_dir=theirs.parent / "c")
    with ArchiveServer(folder) as server:
        rows = list(skyset.crossmatch(folder / "stamps", f"{server.url}array", radius=1))
    assert all(np.array_equal(row["masked.masks"]["array"], MASKS[number(row)]) for row in rows) and len(rows) == ROWS


def test_damage_is_named_in_one_line(theirs, tmp_path):
    def refused(*args):
        with pytest.raises(UserError) as error:
            read_hats(*args)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert read_hats(str(tmp_path / "nothing"), skyset.surveys) is None
    properties = (theirs / "hats.properties").read_text()
    (theirs / "hats.properties").write_text(properties.replace("hats_col_ra=RAJ", "hats_col_ra=RAK"))
    assert "no column of positions RAK" in refused(str(theirs), skyset.surveys)
    (theirs / "hats.properties").write_text(properties)
    file = next(theirs.glob("dataset/*/*/*.parquet"))
    file.write_bytes(file.read_bytes()[:50])
    assert file.name in refused(str(theirs), skyset.surveys)
    (tmp_path / "collection.properties").write_text("hats_primary_table_url=../elsewhere\n")
    assert "is not in it" in refused(str(tmp_path), skyset.surveys)
    (tmp_path / "collection.properties").write_text("hats_primary_table_url=gone\n")
    assert "is not there" in refused(str(tmp_path), skyset.surveys)


def test_files_that_footers_name_lie_in_the_catalogue(folder, tmp_path):
    table = pa.table({"ra": [1.0]})
    collector = []
    pq.write_table(table, tmp_path / "x.parquet", metadata_collector=collector)
    collector[0].set_file_path("../../x.parquet")
    (tmp_path / "c" / "dataset").mkdir(parents=True)
    pq.write_metadata(table.schema, tmp_path / "c" / "dataset" / "_metadata", metadata_collector=collector)
    (tmp_path / "c" / "hats.properties").write_text("hats_nrows=1\n")
    with pytest.raises(UserError, match="is no file of a catalogue"):
        read_hats(str(tmp_path / "c"), skyset.surveys)


def test_rows_of_a_file_that_are_not_there(folder):
    path = next((folder / "array" / "masked" / "dataset").glob("*/*/*.parquet"))
    with ParquetFile(str(path), []) as file, pytest.raises(Exception, match="has no rows"):
        file.taken(np.array([0, file.rows]))
