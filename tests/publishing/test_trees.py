"""Adopted trees, published: as Parquet on the Hub and as HATS, cross-matched and written as partitions; by value."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import skyset
from skyset.adopting.adopt import adopt
from skyset.cli import app
from skyset.errors import PartitionError, UserError
from skyset.loading.found import opened
from skyset.publishing import hats_rows, plan
from skyset.publishing.contents import Form, parquet_items
from skyset.publishing.hats import Asked, export
from skyset.publishing.request import Request
from skyset.publishing.source import sources
from skyset.publishing.trees import index_for, name_of, prepared
from skyset.publishing.verify import verify_published
from skyset.testing.hub import HubServer
from skyset.testing.mmu import write
from tests.conftest import once
from tests.hub import TOKEN, talking_to
from tests.publishing.test_verify import write_pushed

#: One of each structure: datasets a column with padding, packed images, datasets that several splits share, objects a file,
#: groups of compound tables, and columns of scalars in groups.
KINDS = ("sdss", "hsc", "plasticc", "yse", "manga", "gaia", "btsbot")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKYSET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By kind, folders ``tree``, ``index``, ``pushed`` and ``hats``. Do not change them."""

    def make(folder):
        for kind in KINDS:
            write(kind, folder / kind / "tree", rows=3, cells=2)
            adopt(folder / kind / "tree", output=folder / kind / "index", processes=1, name=kind)
            write_pushed(index_in(folder / kind), folder / kind / "pushed")
            export(str(index_in(folder / kind)), folder / kind / "hats", Asked(max_rows=4))

    return once(tmp_path_factory, "published_trees", make)


def index_in(folder: Path) -> Path:
    return next(iter(sorted((folder / "index").rglob("manifest.json")))).parent


def rows_of(where: Path, *survey: str) -> dict[str, dict]:
    """All rows by id; of what was pushed by the survey's name."""
    given, options = (survey[0], {"data_dir": str(where)}) if survey else (str(where), {})
    streams = [skyset.load(given, split=split, streaming=True, **options) for split in opened(str(where))[2].splits]
    rows = [row for stream in streams for row in stream.with_format("numpy")]
    found = {row["object_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def assert_same(one, other, where="") -> None:
    if isinstance(one, dict):
        assert set(one) == set(other), where
        for name in one:
            assert_same(one[name], other[name], f"{where} {name}")
        return
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype.kind in "SUO":
        assert one.astype(str).tolist() == other.astype(str).tolist(), where
        return
    assert one.dtype == other.dtype, where
    np.testing.assert_array_equal(one, other, where)


@pytest.mark.datasets3
@pytest.mark.parametrize("kind", KINDS)
def test_pushed_rows_are_those_of_the_tree(made, kind):
    folder = made / kind
    index = index_in(folder)
    assert list(verify_published(str(folder / "pushed"))) == []
    assert list(verify_published(str(folder / "pushed"), str(index))) == []
    expected, found = rows_of(index), rows_of(folder / "pushed", "adopted")
    assert found.keys() == expected.keys() and len(found) >= 6
    for name, row in expected.items():
        assert_same(row, found[name], name)
    assert str(made) not in (folder / "pushed" / "manifest.json").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_catalogue_has_the_rows_of_the_tree(made, kind):
    folder = made / kind
    assert list(verify_published(str(folder / "hats"))) == []
    assert list(verify_published(str(folder / "hats"), str(index_in(folder)))) == []
    assert (folder / "hats" / kind / "hats.properties").is_file()
    tables = {"sdss": {"spectrum"}, "plasticc": {"lightcurve"}, "yse": {"lightcurve"}, "gaia": {"spectral_coefficients"}}
    schema = pq.read_schema(next((folder / "hats").glob(f"{kind}/dataset/*/*/*.parquet")))
    assert tables.get(kind, set()) <= set(schema.names)


@pytest.mark.parametrize("most", [1, 1 << 20])
def test_packed_files_are_read_a_part_at_a_time(made, most, tmp_path, monkeypatch):
    """Whatever the parts are, the files are the same."""
    monkeypatch.setattr(hats_rows, "_BATCH_BYTES", most)
    export(str(index_in(made / "hsc")), tmp_path / "hats", Asked(max_rows=4))
    files = sorted(path.relative_to(tmp_path / "hats") for path in (tmp_path / "hats").rglob("Npix=*.parquet"))
    assert len(files) >= 2
    for path in files:
        assert pq.read_table(tmp_path / "hats" / path, partitioning=None).equals(
            pq.read_table(made / "hsc" / "hats" / path, partitioning=None)
        )


@pytest.mark.parametrize("kind", ["sdss", "plasticc", "yse"])
def test_lsdb_opens_what_was_a_tree(made, kind):
    lsdb = pytest.importorskip("lsdb")
    frame = lsdb.open_catalog(str(made / kind / "hats")).compute()
    group = "spectrum" if kind == "sdss" else "lightcurve"
    expected = rows_of(index_in(made / kind))
    assert sorted(frame["object_id"]) == sorted(expected)
    for _, row in frame.iterrows():
        for key, want in expected[row["object_id"]][group].items():
            assert_same(want, row[group][key].to_numpy().astype(np.asarray(want).dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_matches_have_the_rows_of_both_sides(made, kind, tmp_path):
    folder = made / kind
    index = index_in(folder)
    expected = rows_of(index)
    for one, other in ((index, folder / "hats"), (folder / "pushed", index)):
        stream = skyset.crossmatch(one, other, radius=1, names=("a", "b")).with_format("numpy")
        same = [row for row in stream if row["a.object_id"] == row["b.object_id"]]
        assert {row["a.object_id"] for row in same} == expected.keys()
        for row in same:
            for name, value in expected[row["a.object_id"]].items():
                assert_same(value, row[f"a.{name}"], name)
                assert_same(value, row[f"b.{name}"], name)
    skyset.to_partitions(skyset.crossmatch(index, folder / "hats", radius=1, names=("a", "b")), tmp_path / "both")
    for row in skyset.load(str(tmp_path / "both"), streaming=True).with_format("numpy"):
        for name, value in expected[row["a.object_id"]].items():
            assert_same(value, row[f"a.{name}"], name)


@pytest.mark.parametrize("kind", KINDS)
def test_commands_take_them(made, kind, tmp_path):
    index = index_in(made / kind)
    for args in (["info", index], ["report", index, "-o", tmp_path / "r.html"]):
        done = CliRunner().invoke(app, list(map(str, args)))
        assert done.exit_code == 0, done.output


def test_a_push_of_a_tree_by_its_name(tmp_path):
    write("yse", tmp_path / "tree", rows=3, cells=2)
    adopt(tmp_path / "tree", processes=1, name="novae")
    with HubServer(tmp_path / "hub") as hub:
        hub.add_user("alice", TOKEN, organisations=("sky",))
        with talking_to(hub):
            args = ["--repo", "sky/novae", "--work_dir", str(tmp_path / "work")]
            for given in (["novae"], [str(tmp_path / "tree")], ["adopted", "--data_dir", str(tmp_path / "tree")]):
                done = CliRunner().invoke(app, ["push", *given, *args])
                assert done.exit_code == 0, done.output
            assert "is up to date" in done.output
            rows = list(skyset.load("adopted", data_dir="hf://datasets/sky/novae", streaming=True).with_format("numpy"))
            assert list(verify_published("hf://datasets/sky/novae", str(index_for("novae")))) == []
        card = hub.files("sky/novae")["README.md"].decode()
        sent = len(hub.objects.sent)
        assert "lightcurve.flux" in card and "skyset build" not in card and "healpix=<cell>" not in card
        expected = rows_of(index_for("novae"))
        assert {row["object_id"] for row in rows} == expected.keys()
        for row in rows:
            assert_same(expected[row["object_id"]], row)
        file = sorted((tmp_path / "tree").rglob("*.hdf5"))[0]
        with h5py.File(file, "r+") as changed:
            changed["flux"][...] = changed["flux"][...] + 1
        adopt(tmp_path / "tree", processes=1, name="novae")
        with talking_to(hub):
            assert CliRunner().invoke(app, ["push", "novae", *args]).exit_code == 0
        assert len(hub.objects.sent) == sent + 1, "the file that has the object, and no other"


def test_somebodys_files_are_not_pushed_as_they_are(made):
    index = index_in(made / "sdss")
    with pytest.raises(UserError, match="--format parquet makes files of their rows"):
        plan.planned(Request("adopted", index, "sky/sdss", format="hdf5"))
    assert all(item.path.endswith(".parquet") for item in plan.planned(Request("adopted", index, "sky/sdss")).items)


def test_cells_are_those_of_positions_and_files_are_known_by_their_time(tmp_path):
    """A folder without cells, whose files have rows of all the sky."""
    random = np.random.default_rng(3)
    ra, dec = random.uniform(0, 360, 40), random.uniform(-80, 80, 40)
    for number in range(2):
        (tmp_path / "tree").mkdir(exist_ok=True)
        with h5py.File(tmp_path / "tree" / f"part{number}.hdf5", "w") as file:
            own = slice(20 * number, 20 * number + 20)
            file["object_id"], file["ra"], file["dec"] = np.arange(40)[own], ra[own], dec[own]
            file["mag"] = random.normal(size=20).astype("f4")
    adopt(tmp_path / "tree", output=tmp_path / "index", processes=1)
    (source,) = map(prepared, sources(str(tmp_path / "index")).values())
    assert sorted(map(len, source.cells.values()))[0] > 10 and name_of(source) == "tree"
    (before,) = parquet_items({"default": source}, Form())
    write_pushed(tmp_path / "index", tmp_path / "pushed")
    assert list(verify_published(str(tmp_path / "pushed"), str(tmp_path / "index"))) == []
    listed = json.loads((tmp_path / "pushed" / "manifest.json").read_text())
    assert sorted(len(each["healpix"]) for each in listed["files"])[0] > 10
    stream = skyset.crossmatch(tmp_path / "pushed", tmp_path / "index", radius=1, names=("a", "b"))
    assert len(stream) == 40
    path = tmp_path / "tree" / "part1.hdf5"
    os.utime(path, ns=(1, 1))
    with pytest.raises(PartitionError, match="run `skyset adopt` again"):
        prepared(next(iter(sources(str(tmp_path / "index")).values())))
    adopt(tmp_path / "tree", output=tmp_path / "index", processes=1)
    (after,) = parquet_items({"default": prepared(next(iter(sources(str(tmp_path / "index")).values())))}, Form())
    assert before.made_of() != after.made_of()


@pytest.mark.parametrize("fault", ["nan_position", "zero_rows", "duplicate_ids", "restarting_ids", "wrong_cell"])
def test_faults_of_a_tree_are_told_and_no_others(tmp_path, fault, capsys):
    """Rows without a position are in no catalogue; rows of one id are compared in the order of the sky."""
    write("sdss", tmp_path / "tree", rows=4, cells=3, faults=(fault,))
    adopt(tmp_path / "tree", output=tmp_path / "index", processes=1)
    capsys.readouterr()
    written = export(str(tmp_path / "index"), tmp_path / "hats", Asked(max_rows=3))
    rows = opened(str(tmp_path / "index"))[2].rows
    assert written.rows == rows - (fault == "nan_position")
    assert ("1 row without a position left out" in "".join(capsys.readouterr())) == (fault == "nan_position")
    told = list(verify_published(str(tmp_path / "hats"), str(tmp_path / "index")))
    assert all("by object_id" in line for line in told), told
    assert bool(told) == (fault in ("zero_rows", "duplicate_ids", "restarting_ids"))


def test_what_was_published_needs_no_tree(made, tmp_path):
    for name in ("pushed", "hats"):
        shutil.copytree(made / "plasticc" / name, tmp_path / name)
        root, survey, manifest = opened(str(tmp_path / name))
        assert survey.trims == () and not manifest.is_adopted and "adopted" not in manifest.build
        entry = manifest.files[0]
        with survey.opens(f"{root}/{entry.path}", survey.columns, entry.rows) as file:
            assert (file.read("lightcurve_time" if "lightcurve_time" in survey.by_name else "time") != 0).all()


def test_a_survey_of_ours_is_as_it_is(rings):
    source = next(iter(sources(str(rings)).values()))
    assert prepared(source) is source and index_for(rings) is None and index_for("gz3d") is None
