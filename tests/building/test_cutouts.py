"""Surveys of cutouts, with sources in memory: what comes in, what is asked for again, what is refused, what is left."""

import argparse
import contextlib
import csv
import dataclasses
import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from skyset.archives.tap import SlicedQuery
from skyset.building.cutouts.catalogue import first_rows, listed_rows, possible
from skyset.building.cutouts.columns import Columns, present
from skyset.building.cutouts.declaration import Answer, Chosen, Cutouts
from skyset.building.cutouts.hips import HipsImages, read_image
from skyset.building.cutouts.matched import MatchedCatalogues
from skyset.building.cutouts.options import (
    above_zero,
    add_archive_options,
    add_hips_options,
    add_tap_options,
    share,
    zero_or_more,
)
from skyset.building.cutouts.plan import script
from skyset.building.cutouts.sources import FileCatalogue, Query, asked_query, read_adql
from skyset.building.options import Options
from skyset.errors import RecordError, UserError
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.survey import HEALPIX, Column, Survey, plain_features
from skyset.tables.cuts import on_sky, positive, unique
from tests.builds import leftovers

CATALOG = (
    Column("new_id", "int64", (), "", "id"),
    Column("old_id", "int64", (), "", "id of an earlier release; -1 where not given"),
    Column("ra", "float64", (), "deg", "right ascension"),
    Column("dec", "float64", (), "deg", "declination"),
    Column("radius", "float32", (), "arcsec", "radius"),
    Column("colour", "float32", (), "mag", "colour; NaN where not measured"),
)
COLUMNS = (
    Column("object_id", "S20", (), "", "new_id as text"),
    HEALPIX,
    Column("image", "uint8", (8, 8, 3), "", "RGB"),
    Column("class", "int32", (), "", "0 or 1"),
    Column("fov", "float64", (), "deg", "field of view"),
    *CATALOG,
)
SURVEY = Survey(
    name="cutouts_test",
    title="Made up",
    homepage="https://example.org",
    citation="@misc{me, title = {Mine}}",
    license="CC-BY-4.0",
    base_url="",
    columns=COLUMNS,
    features=plain_features(COLUMNS, {}, ()),
    image_axes={"image": 0},
    shaped_by_build=("image",),
    beside=("Images", "catalog", "filtered.csv.gz"),
)
BROUGHT = Columns(CATALOG, "id", ("new_id", "old_id"), ("ra", "dec", "radius"), missing=-9999, names={"colour": ("g_r",)})


def table(count=10):
    """Galaxies within one cell."""
    number = np.arange(count)
    return pa.table(
        {
            "new_id": 100 + number,
            "old_id": number,
            "ra": 150.1 + number / 100,
            "dec": 2.2 + number / 100,
            "radius": pa.array(3.0 + number, pa.float32()),
            "G_R": number / 10,
        }
    )


def jpeg(key, width=8):
    pixels = np.random.default_rng(int(key)).integers(0, 255, (width, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Service:
    """An image source in memory, which notes what it is asked for; ``faults``: why there is no image, by key."""

    address = "memory:"

    def __init__(self, width=8, faults=None):
        self.width, self.faults, self.asked = width, dict(faults or {}), []

    @property
    def settings(self):
        return {"width": self.width}

    def describe(self, row):
        return {"fov": row["radius"] / 1000}

    def answers(self, wanted, folder):
        for key, _ in wanted:
            self.asked.append(key)
            if reason := self.faults.get(key):
                yield Answer(key, None, 404, 1, f"memory:{key}", reason)
            else:
                yield Answer(key, {"png": jpeg(key, self.width)})


class ByLists(Service):
    """One that answers lists of four, two images per object, the last one first."""

    def answers(self, wanted, folder):
        keys = [key for key, _ in wanted]
        for start in range(0, len(keys), 4):
            for key in reversed(keys[start : start + 4]):
                self.asked.append(key)
                yield Answer(key, {"g.png": jpeg(key), "png": jpeg(key)})


class Rows:
    """A catalogue source in memory."""

    addresses, queries = ("memory",), ("all rows",)

    def __init__(self, rows):
        self.rows = rows

    def batches(self, folder, connections):
        for batch in self.rows.to_batches(max_chunksize=4):
            yield BROUGHT.standard(batch, "memory")


def describe(row):
    return {"class": row["new_id"] % 2}


def read(row, members):
    if row["class"] not in (0, 1):
        raise RecordError("no class")
    return {"image": read_image(members)}


def build(root, service=None, *arguments, rows=None, cuts=()):
    """Exit status of a build."""

    def add_options(parser):
        add_tap_options(parser.add_argument)
        add_archive_options(parser.add_argument)

    def source(asked, options):
        return FileCatalogue(BROUGHT, asked.catalog) if asked.catalog else Rows(table() if rows is None else rows)

    cutouts = Cutouts(
        SURVEY,
        BROUGHT,
        "filtered.csv.gz",
        source,
        lambda _: [Chosen(("ra",), on_sky()), *cuts],
        lambda _: service,
        describe,
        read,
        sql="SELECT 1",
    )
    made = script("Build.", cutouts, add_options)
    return made.main(["-o", str(root), "--num_processes", "1", *map(str, arguments)])


def built(root):
    """All columns of each row by object id."""
    found = {}
    for path in sorted(Path(root).glob("healpix=*/*.hdf5")):
        with h5py.File(path) as file:
            columns = {name: file[name][:] for name in file}
        for i, key in enumerate(columns["object_id"].astype(str).tolist()):
            assert key not in found
            found[key] = {name: values[i] for name, values in columns.items()}
    return found


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[key][name], other[key][name]) for key in one for name in one[key]
    )


def rejected(root):
    path = Path(root) / "rejected.csv"
    with open(path, newline="") as file:
        return {row["key"]: row["reason"] for row in csv.DictReader(file)}


KEYS = [str(number) for number in range(100, 110)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All ten galaxies. Do not change it."""
    root = tmp_path_factory.mktemp("whole") / "out"
    assert build(root, Service()) == 0
    return root


# --- what comes in ------------------------------------------------------------------------------------------


def test_every_object_with_its_row_and_image(whole):
    found = built(whole)
    assert sorted(found) == KEYS
    for number, key in enumerate(KEYS):
        row = found[key]
        assert (row["new_id"], row["old_id"], row["class"]) == (100 + number, number, number % 2)
        assert (row["ra"], row["dec"]) == (150.1 + number / 100, 2.2 + number / 100)
        assert row["colour"] == np.float32(number / 10) and row["fov"] == (3 + number) / 1000
        with Image.open(io.BytesIO(jpeg(key))) as image:
            assert np.array_equal(row["image"], np.asarray(image))
    manifest = Manifest.load(whole)
    assert manifest.sources == ["memory", "memory:"]
    assert (manifest.build["queries"], manifest.build["images"]) == (["all rows"], {"width": 8})
    assert [step["left"] for step in manifest.build["cuts"]] == [10, 10]
    assert list(verify(whole, SURVEY)) == []
    assert leftovers(whole) == [
        "Images/Images_downloaded.csv.gz",
        "Images/Images_settings.json",
        "Images/images-00000.csv",
        "Images/images-00000.tar",
        "filtered.csv.gz",
    ]


def test_an_image_source_that_answers_lists_with_several_images(tmp_path):
    service = ByLists()
    assert build(tmp_path, service) == 0
    assert sorted(built(tmp_path)) == KEYS
    with tarfile.open(tmp_path / "Images" / "images-00000.tar") as tar:
        assert tar.getnames()[:6] == ["103.g.png", "103.png", "103.json", "102.g.png", "102.png", "102.json"]
    assert build(tmp_path, service) == 0
    assert len(service.asked) == 10


def test_a_catalogue_in_a_file(whole, tmp_path):
    pq.write_table(table(), tmp_path / "rows.parquet")
    assert build(tmp_path / "out", Service(), "--catalog", tmp_path / "rows.parquet") == 0
    assert same(built(tmp_path / "out"), built(whole))
    listed = list(listed_rows(argparse.Namespace(columns=BROUGHT), whole / "filtered.csv.gz"))
    assert [key for key, _ in listed] == KEYS
    assert listed[3][1] == {
        "id": 103,
        "new_id": 103,
        "old_id": 3,
        "ra": 150.13,
        "dec": 2.23,
        "radius": 6.0,
        "colour": pytest.approx(0.3),
    }


def test_the_query_for_people(tmp_path, capsys):
    assert build(tmp_path, None, "--print_sql") == 0
    assert capsys.readouterr().out == "SELECT 1\n" and not any(tmp_path.iterdir())


def test_what_is_missing_is_minus_one_or_nan_and_said(tmp_path, capsys):
    rows = table().drop_columns(["G_R", "old_id"])
    assert build(tmp_path, Service(), rows=rows, cuts=[Chosen(("colour",), positive("colour").called("blue", ""))]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the catalogue has no old_id, colour: they will be -1 or NaN" in printed
    assert "for want of columns, there is no cut on: blue" in printed
    assert all(row["old_id"] == -1 and np.isnan(row["colour"]) for row in built(tmp_path).values())


# --- images that are asked for again ------------------------------------------------------------------------


def test_a_second_run_asks_for_what_failed_alone(whole, tmp_path):
    service = Service(faults={"103": "no\nimage there"})
    assert build(tmp_path, service) == 1
    assert sorted(built(tmp_path)) == sorted({*KEYS} - {"103"}) and rejected(tmp_path) == {"103": "no image: no image there"}
    assert "103,no image there,404,1,memory:103" in (tmp_path / "Images" / "Images_failed.csv").read_text()
    assert build(tmp_path, service) == 1
    assert service.asked == [*KEYS, "103"]
    service.faults.clear()
    assert build(tmp_path, service) == 0
    assert service.asked == [*KEYS, "103", "103"] and same(built(tmp_path), built(whole))
    assert not (tmp_path / "Images" / "Images_failed.csv").exists()


def test_no_image_at_all_is_no_reason_to_forget_why(tmp_path):
    service = Service(faults=dict.fromkeys(KEYS, "blank"))
    assert build(tmp_path, service) == 1
    assert len(rejected(tmp_path)) == 10 and built(tmp_path) == {}


def test_strict_stops_at_the_first(tmp_path, capsys):
    service = Service(faults={"103": "blank"})
    assert build(tmp_path, service, "--strict") == 2
    assert capsys.readouterr().err == "skyset: 103: blank (--strict stops at the first)\n"
    assert service.asked == ["100", "101", "102", "103"]


def test_a_larger_selection_keeps_what_is_there_and_a_smaller_one_loses_nothing(whole, tmp_path, capsys):
    service = Service()
    assert build(tmp_path, service, "--limit", 4) == 0
    assert sorted(built(tmp_path)) == KEYS[:4]
    assert build(tmp_path, service) == 0
    assert service.asked == KEYS and same(built(tmp_path), built(whole))
    filtered = (tmp_path / "filtered.csv.gz").read_bytes()
    assert build(tmp_path, service, "--limit", 4) == 2
    assert "holds 6 objects that this selection leaves out" in capsys.readouterr().err
    assert (tmp_path / "filtered.csv.gz").read_bytes() == filtered


@pytest.mark.parametrize("damage", ["header", "image", "cut"])
def test_a_damaged_archive_is_filled_again(whole, tmp_path, damage, capsys):
    service = Service()
    assert build(tmp_path, service) == 0
    archive = tmp_path / "Images" / "images-00000.tar"
    data = bytearray(archive.read_bytes())
    at = {"header": 4 * 512 + 10, "image": 600, "cut": 0}[damage]
    data[at] ^= 0xFF
    archive.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    assert build(tmp_path, service) == 0
    assert same(built(tmp_path), built(whole)) and service.asked == [*KEYS, *KEYS]
    assert "put aside" in capsys.readouterr().err


# --- folders of something else ------------------------------------------------------------------------------


def test_other_cutouts_do_not_mix(tmp_path, capsys):
    assert build(tmp_path, Service()) == 0
    assert build(tmp_path, Service(4)) == 2
    assert "holds other cutouts (Images_settings.json says which)" in capsys.readouterr().err
    assert build(tmp_path, Service(4), "--overwrite") == 0
    assert built(tmp_path)["104"]["image"].shape == (4, 4, 3)


def test_archives_of_unknown_cutouts_are_not_taken_over(tmp_path, capsys):
    assert build(tmp_path, Service()) == 0
    (tmp_path / "Images" / "Images_settings.json").unlink()
    assert build(tmp_path, Service()) == 2
    assert "holds other cutouts" in capsys.readouterr().err
    assert build(tmp_path, service := Service(), "--overwrite") == 0
    assert service.asked == KEYS


def test_overwriting_the_images_leaves_files_of_somebody_else_and_the_catalogue(tmp_path, capsys):
    assert build(tmp_path, Service()) == 0
    filtered = tmp_path / "filtered.csv.gz"
    kept = {tmp_path / "Images" / name: name.encode() for name in ("mine.tar", "notes.txt", "images-1.tar", "mine.csv")}
    for path, content in kept.items():
        path.write_bytes(content)
    assert build(tmp_path, Service(4), "--overwrite") == 0
    assert {path: path.read_bytes() for path in kept} == kept
    before = filtered.read_bytes()
    capsys.readouterr()
    assert build(tmp_path, Service(4), "--catalog", filtered, "--limit", 2) == 2
    assert capsys.readouterr().err == f"skyset: {filtered} would replace the catalogue: choose another folder\n"
    assert filtered.read_bytes() == before


def test_a_changed_catalogue_is_noticed(tmp_path, capsys):
    changed = table().set_column(4, "radius", pa.array(4.0 + np.arange(10), pa.float32()))
    assert build(tmp_path, Service()) == 0
    before = built(tmp_path)
    assert build(tmp_path, Service(), rows=changed) == 2
    assert "10 galaxies, 100 for one, have other values" in capsys.readouterr().err and same(built(tmp_path), before)
    assert build(tmp_path, service := Service(), "--overwrite", rows=changed) == 0
    assert service.asked == KEYS
    assert all(row["radius"] == before[key]["radius"] + 1 for key, row in built(tmp_path).items())


# --- from the archives alone --------------------------------------------------------------------------------


def test_archives_alone_give_the_same(whole, tmp_path, capsys):
    assert build(tmp_path / "out", None, "--from_tar", whole / "Images") == 0
    assert same(built(tmp_path / "out"), built(whole))
    assert Manifest.load(tmp_path / "out").sources == [str(whole / "Images")]
    assert build(tmp_path / "few", None, "--from_tar", whole / "Images", "--tiny") == 0
    assert sorted(built(tmp_path / "few")) == KEYS[:5]
    assert build(tmp_path / "none", None, "--from_tar", tmp_path) == 2
    assert capsys.readouterr().err == f"skyset: no TAR archives in {tmp_path}\n"


def archive(path, samples):
    """Of JSON texts and images by key."""
    with tarfile.open(path, "w") as tar:
        for key, (text, image) in samples.items():
            for extension, content in (("png", image), ("json", text)):
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


GOOD = {
    "object_id": "1",
    "new_id": 1,
    "old_id": None,
    "ra": 10.5,
    "dec": -3,
    "radius": 2,
    "colour": None,
    "class": 1,
    "fov": 0.5,
}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "null",
        "[1]",
        "{}",
        '{"ra": 1}',
        "[" * 200_000,
        '{"ra": 1' + "0" * 400 + ', "dec": 1}',
        '{"ra": null}',
        '{"ra": "1", "dec": 1}',
        '{"class": null}',
        '{"class": 7}',
        '{"class": true}',
        '{"fov": {}}',
        '{"colour": {}}',
        '{"radius": "x"}',
        '{"old_id": 587722984435351614.0}',
        '{"class": 99999999999}',
        '{"sha256": "0"}',
    ],
    ids=lambda text: text[:20],
)
def test_a_row_that_is_none_costs_its_own_object_only(tmp_path, text):
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        if len(text) < 60 and text not in ("{}", '{"ra": 1}'):
            text = json.dumps(GOOD | json.loads(text))
    archive(tmp_path / "some.tar", {"1": (text.encode(), jpeg(1)), "2": (json.dumps(GOOD).encode(), jpeg(2))})
    assert build(tmp_path / "out", None, "--from_tar", tmp_path) == 1
    assert list(built(tmp_path / "out")) == ["2"] and list(rejected(tmp_path / "out")) == ["1"]


def test_samples_that_cannot_be_used_are_named(tmp_path):
    good = json.dumps(GOOD).encode()
    archive(tmp_path / "a.tar", {"1": (good, jpeg(1)), "2": (good, b"no image"), "a b": (good, jpeg(3))})
    archive(tmp_path / "b.tar", {"1": (good, jpeg(1)), "4": (good, jpeg(4))})
    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        info = tarfile.TarInfo("5.json")
        info.size = len(good)
        tar.addfile(info, io.BytesIO(good))
    data = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "d.tar").write_bytes(data.replace(b"1.", b"6.").replace(b"4.", b"7.")[:-10240])
    assert build(tmp_path / "out", None, "--from_tar", tmp_path) == 1
    assert sorted(built(tmp_path / "out")) == ["1", "4"]
    reasons = rejected(tmp_path / "out")
    assert reasons.pop("1") == "duplicate: the object is in a.tar too"
    assert reasons.pop("2").startswith("the answer is no image") and reasons.pop("a b") == "its name is not a plain one"
    assert reasons.pop("5") == "no image among its members"
    assert set(reasons) == {"d.tar"}


# --- catalogues ---------------------------------------------------------------------------------------------


def test_columns_under_other_names_and_types():
    rows = pa.record_batch(
        {
            "NEW_ID": [5, None],
            "old_id": ["7", "8"],
            "RA": [1, 2],
            "dec": [0.5, -9999.0],
            "Radius": ["3", "-9999"],
            "g_r": [True, False],
            "more": [0, 0],
        }
    )
    found = BROUGHT.standard(rows, "somewhere")
    assert found.schema.names == ["id", *(column.name for column in CATALOG)]
    assert found.to_pylist() == [
        {"id": 5, "new_id": 5, "old_id": 7, "ra": 1.0, "dec": 0.5, "radius": 3.0, "colour": 1.0},
        {"id": 8, "new_id": None, "old_id": 8, "ra": 2.0, "dec": None, "radius": None, "colour": 0.0},
    ]
    assert present(found) == {"id", "new_id", "old_id", "ra", "dec", "radius", "colour"}
    votes = BROUGHT.standard(rows.select(["old_id", "RA", "dec"]), "there", {"ra": ("x",)}, needed=("ra",))
    assert present(votes) == {"id", "old_id", "ra", "dec"} and votes["radius"].null_count == 2


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"new_id": [1], "ra": [1.0], "radius": [1.0]}, "memory: no column dec (there are: new_id, ra, radius)"),
        ({"ra": [1.0], "dec": [1.0], "radius": [1.0]}, "no column new_id"),
        ({"new_id": [5.87722984435352e17], "ra": [1.0], "dec": [1.0], "radius": [1.0]}, "column new_id"),
        ({"new_id": [1], "ra": [1.0], "dec": [1.0], "radius": ["x"]}, "column radius cannot be float32"),
        ({"new_id": [1], "ra": [1.0], "RA": [1.0], "dec": [1.0], "radius": [1.0]}, "but for upper and lower case"),
    ],
)
def test_what_a_catalogue_must_have(rows, words):
    with pytest.raises(UserError) as caught:
        BROUGHT.standard(pa.record_batch(rows), "memory")
    assert words in str(caught.value)


def test_nothing_to_build(tmp_path, capsys):
    assert build(tmp_path, Service(), rows=table(0)) == 2
    assert "no rows in memory" in capsys.readouterr().err
    assert (
        build(
            tmp_path,
            Service(),
            cuts=[Chosen(("radius",), positive("radius")), Chosen((), unique("id")), Chosen((), on_sky("radius", "new_id"))],
        )
        == 2
    )
    assert "nothing to build: no galaxy of memory passes the cuts" in capsys.readouterr().err


def test_cuts_are_made_where_there_are_their_columns():
    one, other = on_sky(), unique("id")
    assert possible([Chosen(("ra", "dec"), one), Chosen(("id",), other)], {"ra", "dec"}) == ([one], [other.name])
    with pytest.raises(UserError, match=r"^--least needs flux and id, which this source does not give$"):
        possible([Chosen(("flux", "id", "ra"), other, "--least")], {"ra"})


def test_no_batch_is_asked_for_beyond_what_is_wanted():
    taken = []

    def batches():
        for number in range(5):
            taken.append(number)
            yield pa.record_batch({"x": [number] * 4})

    assert [batch.num_rows for batch in first_rows(batches(), 6)] == [4, 2] and taken == [0, 1]
    assert sum(batch.num_rows for batch in first_rows(batches(), None)) == 20


@dataclasses.dataclass(frozen=True)
class Slices(Query):
    """A query whose slices lie in folders by its text."""

    def slices(self, folder, connections, **options):
        low, high = self.sliced.low, self.sliced.high
        found = sorted((folder / self.sliced.adql.split()[1]).glob("*.parquet"))
        yield from (path for path in found if float(path.stem.split("-")[0]) < high and float(path.stem.split("-")[1]) > low)


def query(text):
    return Slices(SlicedQuery("memory:", f"SELECT {text} WHERE {{low}} {{high}}"), needed=("ra", "dec"))


def slices(folder, name, rows, borders):
    """A table in slices of right ascension; ``overlap`` degrees more on either side."""
    (folder / name).mkdir()
    ra = rows["ra"].to_numpy()
    for low, high, overlap in borders:
        inside = (ra >= low - overlap) & (ra < high + overlap)
        pq.write_table(rows.filter(pa.array(inside)), folder / name / f"{low:07.3f}-{high:07.3f}.parquet")


def test_two_catalogues_are_one_by_position(tmp_path):
    """Borders differ, positions differ by a fraction of an arcsec, and some are on the other side of 0."""
    ra = np.array([0.0, 0.00001, 59.99999, 60.0, 119.99999, 200.0, 359.9995])
    left = pa.table({"old_id": np.arange(7), "ra": ra, "dec": np.zeros(7), "g_r": ra})
    right = pa.table(
        {
            "new_id": 100 + np.arange(7),
            "ra": (ra + np.where(np.arange(7) % 2, 2e-5, -2e-5)) % 360,
            "dec": [0.0] * 5 + [9.0, 0.0],
            "radius": np.arange(7.0),
        }
    )
    slices(tmp_path, "left", left, [(0, 60, 0), (60, 120, 0), (120, 360, 0)])
    slices(tmp_path, "right", right, [(0, 90, 0.005), (90, 270, 0.005), (270, 360, 0.005)])
    source = MatchedCatalogues(BROUGHT, query("left"), query("right"), radius_arcsec=1, overlap=0.005)
    found = pa.Table.from_batches([batch.replace_schema_metadata() for batch in source.batches(tmp_path, 2)])
    assert found["old_id"].to_pylist() == list(range(7))
    assert found["new_id"].to_pylist() == [100, 101, 102, 103, 104, None, 106]
    assert found["id"].to_pylist() == [100, 101, 102, 103, 104, 5, 106]
    assert found["radius"].to_pylist() == [0, 1, 2, 3, 4, None, 6]
    assert found["ra"].to_pylist() == [*right["ra"].to_pylist()[:5], 200.0, right["ra"][6].as_py()]
    assert found["colour"].to_pylist() == np.float32(ra).tolist()
    assert source.queries == ["SELECT left WHERE {low} {high}", "SELECT right WHERE {low} {high}"]


def test_how_many_slices():
    asked = argparse.Namespace(slices=None, maxrec=9, sync=True)
    adql = "SELECT 1 WHERE {low} < {high}"
    few, many = Options(Path(), limit=5), Options(Path())
    assert asked_query(asked, few, "memory:", adql) == Query(SlicedQuery("memory:", adql, slices=3600, maxrec=9), True)
    assert asked_query(asked, many, "memory:", adql).sliced.slices == 72
    asked.slices = 4
    assert asked_query(asked, few, "memory:", adql).sliced.slices == 4


def test_queries_in_files(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, words in (("binary", "not a text file"), ("none", "No such file"), (".", "Is a directory")):
        with pytest.raises(UserError, match=words):
            read_adql(tmp_path / name)


# --- hips2fits ----------------------------------------------------------------------------------------------


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_hips_options(parser.add_argument, "CDS/P/SDSS9/color", 64, 0.25, "radius")
    add_archive_options(parser.add_argument)
    parser.add_argument("--max_connections", type=int, default=8)
    return HipsImages.asked(parser.parse_args(arguments), "radius")


def test_images_as_asked_for():
    images = parsed()
    assert [url.split("/")[2] for url in images.services] == ["alasky.cds.unistra.fr", "alaskybis.cds.unistra.fr"]
    assert images.settings == {"hips": "CDS/P/SDSS9/color", "width": 64, "height": 64, "margin": 0.25, "format": "jpg"}
    shape = ("--width", "32", "--height", "48", "--margin", "0", "--format", "png")
    other = parsed("--hips_url", "http://127.0.0.1:1/", *shape)
    assert other.services == ("http://127.0.0.1:1/",) and other.address == "http://127.0.0.1:1/"
    assert other.describe({"radius": 18.0}) == {"fov": 0.01, "pixel_scale": 0.01 / 48, "hips": "CDS/P/SDSS9/color"}
    mirrored = parsed("--hips_url", "http://127.0.0.1:1/", "--hips_mirror", "http://127.0.0.1:2/")
    assert mirrored.services == ("http://127.0.0.1:1/", "http://127.0.0.1:2/")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (above_zero, ["1e-9", "3"], ["0", "-1", "nan", "inf"]),
        (zero_or_more, ["0", "2.5"], ["-1", "nan", "inf"]),
        (share, ["0", "0.5", "1"], ["1.5", "-0.1", "nan"]),
    ],
    ids=["above zero", "zero or more", "share"],
)
def test_numbers_of_options(kind, good, bad):
    assert [kind(text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=r"^must be (above 0|0 or more|from 0 to 1), not "):
            kind(text)
