"""HATS collections: valid, opened by LSDB and by `datasets`, with the partitions' values, whatever interrupted them."""

import csv
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

import skyset
from skyset.cli import app
from skyset.errors import PartitionError, UserError
from skyset.files import file_sha256
from skyset.loading.hats import read_properties
from skyset.publishing import hats
from skyset.publishing.hats import Asked, export, read_note
from skyset.publishing.hats_plan import index_of
from skyset.publishing.preview import pixels_of
from tests.conftest import once
from tests.processes import forked, status_of

SMALL = 8_000_000  # bytes: three partitions of the 24 galaxies hold more


@pytest.fixture(scope="module")
def galaxies_hats(built, tmp_path_factory):
    """The 24 galaxies as a collection. Do not change it."""
    return (
        once(tmp_path_factory, "gz3d_hats", lambda folder: export(str(built), folder / "out", Asked(max_bytes=SMALL)))
        / "out"
    )


def write_pairs(folder, rows=1500):
    """Partitions of the survey ``crossmatch``, which has no pixels: rows dense enough for margins."""
    import pyarrow as pa

    from skyset.explore.pairs import write_partitions
    from skyset.loading import registry

    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(44.4, 45.6, rows), rng.uniform(-0.6, 0.6, rows)
    ids = [f"a{n}" for n in range(rows)]
    table = pa.table(
        {
            **{"object_id_left": ids, "object_id_right": ids, "ra_left": ra, "dec_left": dec},
            **{"ra_right": ra, "dec_right": dec, "separation_arcsec": np.zeros(rows)},
        }
    )
    write_partitions(table, folder / "pairs", registry.survey("crossmatch"), ["test"], ["a", "b"])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return once(tmp_path_factory, "hats_pairs", write_pairs) / "pairs"


@pytest.fixture(scope="module")
def pairs_hats(pairs, tmp_path_factory):
    """A collection of partitions of 300 rows and a margin of a minute of arc. Do not change it."""
    asked = Asked(max_rows=300, margin=60)
    return once(tmp_path_factory, "pairs_hats", lambda folder: export(str(pairs), folder / "out", asked)) / "out"


def tree(folder):
    """Every file's bytes by its path."""
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def rows_of(folder, name):
    return pq.ParquetDataset(
        sorted((folder / name / "dataset").glob("Norder=*/Dir=*/Npix=*.parquet")), partitioning=None
    ).read()


def test_rows_and_values_are_those_of_the_partitions(built, galaxies_hats):
    table = rows_of(galaxies_hats, "gz3d")
    features = datasets.Features.from_arrow_schema(table.schema)
    pixels = {
        name: pixels_of(table.column(name).combine_chunks(), features[name]) for name in ("image", "spiral", "bar", "wcs_cd")
    }
    place = {key: n for n, key in enumerate(table["file_name"].to_pylist())}
    assert len(place) == len(table) == 24
    assert pixels["image"].dtype == np.uint8 and pixels["wcs_cd"].dtype == np.float64
    import h5py

    for path in built.glob("healpix=*/*.hdf5"):
        with h5py.File(path) as file:
            for row, key in enumerate(file["file_name"][:].astype(str).tolist()):
                n = place[key]
                assert np.array_equal(pixels["image"][n], file["false_color"][row])
                for name in ("spiral", "bar", "wcs_cd"):
                    assert np.array_equal(pixels[name][n], file[name][row])
                for name in ("ra", "dec", "object_id", "nsa_id", "vote_fraction", "iauname"):
                    ours = file[name][row]
                    assert np.array_equal(table[name][n].as_py(), ours.decode() if isinstance(ours, bytes) else ours), name
    index = table["_healpix_29"].to_numpy()
    assert np.array_equal(index, index_of(table["ra"].to_numpy(), table["dec"].to_numpy()))
    assert table.schema.field("wcs_cd").metadata[b"unit"] == b"deg"


def test_files_lie_where_the_standard_says(pairs_hats):
    assert sorted(path.name for path in pairs_hats.iterdir()) == [
        *("README.md", "collection.properties", "crossmatch", "crossmatch_60arcs", "skyset_hats.json")
    ]
    for name, kind in (("crossmatch", "object"), ("crossmatch_60arcs", "margin")):
        folder = pairs_hats / name
        properties = read_properties(folder / "hats.properties")
        assert properties["dataproduct_type"] == kind
        with open(folder / "partition_info.csv", newline="") as file:
            listed = {(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(file)}
        found, rows = set(), 0
        for path in (folder / "dataset").glob("Norder=*/Dir=*/Npix=*.parquet"):
            order, directory, pixel = (int(part.split("=")[1].split(".")[0]) for part in path.parts[-3:])
            table = pq.read_table(path, columns=["_healpix_29"], partitioning=None)
            index = table["_healpix_29"].to_numpy()
            assert directory == pixel // 10_000 * 10_000 and (np.diff(index) >= 0).all() and len(index) <= 300
            assert set((index >> (2 * (29 - order)) == pixel).tolist()) == {kind == "object"}
            found.add((order, pixel))
            rows += len(index)
        assert found == listed and rows == int(properties["hats_nrows"])
        assert pq.read_metadata(folder / "dataset" / "_metadata").num_rows == rows


def test_stock_datasets_reads_the_rows_and_no_margin(pairs_hats, galaxies_hats, cache_of_its_own):
    code = """
import datasets, sys
for folder in sys.argv[1:]:
    found = datasets.load_dataset(folder, streaming=True)
    rows = sum(len(table) for table in found["train"].with_format("arrow").iter(100))
    print(*found, rows, found["train"].features.get("image"))
"""
    said = subprocess.run(
        [sys.executable, "-c", code, str(pairs_hats), str(galaxies_hats)],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert said.stdout.splitlines() == ["train 1500 None", "train 24 Array3D(shape=(525, 525, 3), dtype='uint8')"]


def test_lsdb_opens_searches_and_matches(pairs, pairs_hats, galaxies_hats):
    lsdb = pytest.importorskip("lsdb", reason="lsdb is not installed")
    import dask
    from hats.io.skymap import read_skymap
    from hats.io.validation import is_valid_collection

    from skyset.tables.match import match_positions, separation_arcsec

    table = rows_of(pairs_hats, "crossmatch")
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    near = separation_arcsec(ra, dec, 45.0, 0.0) <= 1200
    with dask.config.set(scheduler="synchronous"):
        for folder, rows in ((galaxies_hats, 24), (pairs_hats, 1500)):
            assert is_valid_collection(folder, strict=True)
            catalogue = lsdb.open_catalog(folder)
            assert len(catalogue) == read_skymap(catalogue.hc_structure, None).sum() == rows
        cone = catalogue.cone_search(45, 0, 1200)
        assert sorted(cone.compute()["object_id"]) == sorted(np.array(table["object_id"].to_pylist())[near].tolist())
        matched = cone.crossmatch(catalogue, radius_arcsec=60, n_neighbors=50, suffixes=("_a", "_b")).compute()
        assert len(lsdb.open_catalog(galaxies_hats, columns=["object_id"]).compute()) == 24
    pairs = match_positions(ra[near], dec[near], ra, dec, 60.0)
    assert len(matched) == len(pairs) > near.sum(), "also across the borders of partitions"


def test_images_in_lsdb_are_the_archives(galaxies_hats, built):
    lsdb = pytest.importorskip("lsdb", reason="lsdb is not installed")
    ours = next(iter(skyset.load("gz3d", data_dir=str(built))))
    found = lsdb.open_catalog(galaxies_hats).cone_search(float(ours["ra"]), float(ours["dec"]), 5).compute()
    row = found[found["object_id"] == ours["object_id"]].iloc[0]
    assert np.array_equal(np.array(row["image"], np.uint8), ours["image"])
    assert np.array_equal(np.array(row["star"], np.uint8), ours["segmentation"]["array"][1])


def test_images_as_lists_and_tensors(built, tmp_path, cache_of_its_own):
    for images in ("list", "tensor"):
        export(str(built), tmp_path / images, Asked(images=images, margin=0))
    kinds = {images: str(rows_of(tmp_path / images, "gz3d").schema.field("image").type) for images in ("list", "tensor")}
    assert kinds["list"].startswith("list<element: list<element: list<element: uint8>>>")
    assert kinds["tensor"].startswith("extension<arrow.fixed_shape_tensor[value_type=uint8, shape=[525,525,3]")
    stock = datasets.load_dataset(str(tmp_path / "list"), split="train", streaming=True)
    assert stock.features["image"] == datasets.Array3D((525, 525, 3), "uint8")
    tensors = rows_of(tmp_path / "tensor", "gz3d").column("image").combine_chunks().to_numpy_ndarray()
    lists = np.array([row["image"] for row in stock.select_columns(["image"]).take(2)], np.uint8)
    assert np.array_equal(tensors[:2], lists)


def test_encoded_images_and_several_splits(rings, tmp_path, cache_of_its_own):
    facts = export(str(rings), tmp_path / "out", Asked(max_rows=5), config="rings_basic", processes=1)
    assert (facts.rows, facts.name) == (40, "gz_decals_rings_basic")
    stock = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert stock.features["image"] == datasets.Image()
    assert Counter(stock["split"]) == {"train": 34, "validation": 2, "test": 4}
    ours = {
        row["object_id"]: row["image"]
        for split in ("train", "validation", "test")
        for row in skyset.load("gz_decals", "rings_basic", str(rings), split=split)
    }
    assert len(ours) == 40
    for row in stock:
        assert np.array_equal(row["image"], ours[row["object_id"]])


def test_processes_make_the_same_bytes(built, galaxies_hats, tmp_path, monkeypatch):
    monkeypatch.chdir(built.parent)
    export("gz3d", tmp_path / "two", Asked(max_bytes=SMALL), processes=2)
    assert tree(tmp_path / "two") == tree(galaxies_hats) | {"README.md": file_sha256(tmp_path / "two" / "README.md")}


def test_killed_at_any_moment_the_same_command_goes_on(pairs, pairs_hats, tmp_path, monkeypatch):
    """SIGKILL after 0, 3 and 7 more files; what was written stays, and all ends in the same bytes."""
    output, asked = tmp_path / "out", Asked(max_rows=300, margin=60)
    write = hats.write
    for files in (0, 3, 7):
        written = []

        def until(job, files=files, written=written):
            if len(written) == files:
                os.kill(os.getpid(), signal.SIGKILL)
            written.append(job.path)
            return write(job)

        monkeypatch.setattr(hats, "write", until)
        assert status_of(forked(lambda: export(str(pairs), output, asked))) == -signal.SIGKILL
    monkeypatch.undo()
    assert len(list(output.rglob("Npix=*.parquet"))) == 10
    some = next(output.rglob("Npix=*.parquet"))
    some.with_name(f".{some.name}.{os.getpid()}.0123abcd.tmp").write_bytes(b"cut")
    assert export(str(pairs), output, asked).kept == 10
    assert tree(output) == tree(pairs_hats)
    assert export(str(pairs), output, asked).kept == len(list(output.rglob("Npix=*.parquet")))
    assert tree(output) == tree(pairs_hats)


def test_the_same_command_mends_a_damaged_file(pairs, pairs_hats, tmp_path):
    output, asked = tmp_path / "out", Asked(max_rows=300, margin=60)
    shutil.copytree(pairs_hats, output)
    some = next(output.rglob("Npix=*.parquet"))
    some.write_bytes(some.read_bytes()[:50] + b"!" + some.read_bytes()[51:])
    assert tree(output) != tree(pairs_hats)
    files = len(list(output.rglob("Npix=*.parquet")))
    assert export(str(pairs), output, asked).kept == files - 1
    assert tree(output) == tree(pairs_hats)


def test_another_catalogue_of_that_name_is_not_taken_from_the_cache_of_datasets(pairs, tmp_path, cache_of_its_own):
    """Which goes by the folder's name and what its card says, not by the files."""
    code = """
import datasets, sys
for folder in sys.argv[1:]:
    print(len(datasets.load_dataset(folder, split="train")))
"""
    write_pairs(tmp_path / "more", 1600)
    folders = [tmp_path / "one" / "same", tmp_path / "two" / "same"]
    for source, folder in zip((pairs, tmp_path / "more" / "pairs"), folders, strict=True):
        folder.parent.mkdir()
        export(str(source), folder, Asked(margin=0))
    words = [sys.executable, "-c", code, *map(str, folders)]
    said = subprocess.run(words, capture_output=True, text=True, check=True, cwd="/").stdout.splitlines()
    assert said == ["1500", "1600"]


def test_checksums_are_noted(pairs_hats):
    note = read_note(pairs_hats)
    assert {each["path"]: each["sha256"] for each in note["files"]}.items() <= tree(pairs_hats).items()
    assert note["rows"] == 1500 and note["survey"] == "crossmatch"


def test_what_is_there_is_not_replaced(pairs, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.tex").write_text("all of it")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"holds thesis\.tex and no catalogue that skyset made"):
            export(str(pairs), output, Asked(), overwrite=overwrite)
    assert [path.name for path in output.iterdir()] == ["thesis.tex"]
    (output / "thesis.tex").unlink()
    export(str(pairs), output, Asked())
    (output / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="--overwrite replaces it"):
        export(str(pairs), output, Asked(max_rows=500))
    facts = export(str(pairs), output, Asked(max_rows=500), overwrite=True)
    assert facts.partitions > 3 and (output / "crossmatch_5arcs").exists() == (facts.margin_rows > 0)
    assert (output / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="lies in the folder that is exported"):
        export(str(pairs), pairs / "hats", Asked())
    (output / hats.NOTE).write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        export(str(pairs), output, Asked())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "png"}, "--images png: it is one of array, list, tensor"),
        ({"name": "../x"}, "--name ../x"),
        ({"name": "dataset"}, "--name dataset"),
        ({"margin": -1}, "--margin -1"),
        ({"max_rows": 0}, "at least one byte and one row"),
        ({"compression": "rar"}, "unknown compression 'rar'"),
    ],
)
def test_options_that_cannot_be(pairs, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        export(str(pairs), tmp_path / "out", Asked(**changes))
    assert not list(tmp_path.rglob("*.parquet"))


def test_places_that_cannot_be(pairs, tmp_path):
    with pytest.raises(UserError, match=r"no manifest\.json"):
        export(str(tmp_path), tmp_path.parent / "never", Asked())
    with pytest.raises(UserError, match="has no config 'x'; it has default"):
        export(str(pairs), tmp_path / "out", Asked(), config="x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export(str(pairs), tmp_path / "file" / "out", Asked())


def test_a_broken_partition_is_named_and_mended_goes_on(built, galaxies_hats, tmp_path):
    copy = shutil.copytree(built, tmp_path / "gz3d")
    path = sorted(copy.glob("healpix=*/*.hdf5"))[2]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(PartitionError, match=f"{path}: has"):
        export(str(copy), tmp_path / "out", Asked(max_bytes=SMALL))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(PartitionError, match=f"{path}: SHA-256"):
        export(str(copy), tmp_path / "out", Asked(max_bytes=SMALL))
    path.write_bytes(whole)
    export(str(copy), tmp_path / "out", Asked(max_bytes=SMALL))
    assert filecmp.cmp(tmp_path / "out" / "skyset_hats.json", galaxies_hats / "skyset_hats.json", shallow=False)


def test_two_at_a_time_are_refused(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(hats, "write", lambda job: time.sleep(60))
    other, end = forked(lambda: export(str(pairs), tmp_path / "out", Asked())), time.monotonic() + 60
    while not (tmp_path / "out" / hats.NOTE).exists() and time.monotonic() < end:
        time.sleep(0.05)
    with pytest.raises(UserError, match="another skyset hats is writing"):
        export(str(pairs), tmp_path / "out", Asked())
    os.kill(other, signal.SIGKILL)
    assert status_of(other) == -signal.SIGKILL
    monkeypatch.undo()
    export(str(pairs), tmp_path / "out", Asked())


def test_the_command(pairs, tmp_path, capsys):
    command = f"{sys.executable} -m skyset.cli hats {pairs} -o {tmp_path / 'out'} --num_processes 1"
    full = subprocess.run(["bash", "-c", f"trap '' XFSZ; ulimit -f 10; exec {command}"], capture_output=True, text=True)
    assert full.returncode == 2 and full.stderr.count("\n") == 1 and "File too large" in full.stderr
    with pytest.raises(SystemExit) as ended:
        app(["hats", str(pairs), "-o", str(tmp_path / "out"), "--num-processes", "1"], prog_name="skyset")
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("crossmatch: 1,500 rows in")
    card = (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "skyset_hats.json").read_text())["rows"] == 1500
    assert 'path: "crossmatch/dataset/Norder=*/Dir=*/Npix=*.parquet"' in card
