"""Galaxy Zoo DECaLS, from catalogues, images and a loopback Zenodo to rows: what comes in, what stays out, what survives."""

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import datasets
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

import skyset
from skyset.archives.fetch import Fetcher
from skyset.build_scripts.gz_decals.build_parent_sample import RELEASE
from skyset.build_scripts.gz_decals.build_parent_sample import main
from skyset.building.images_and_votes.tables import recognise
from skyset.cli import app
from skyset.errors import RecordError
from skyset.errors import UserError
from skyset.loaders.gz_decals import ARCHIVES
from skyset.loaders.gz_decals import CONFIGS
from skyset.loaders.gz_decals import DR5
from skyset.loaders.gz_decals import DR12
from skyset.loaders.gz_decals import QUESTIONS
from skyset.loaders.gz_decals import RECORD
from skyset.loaders.gz_decals import SURVEY
from skyset.loaders.gz_decals import TABLES
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.pixels import decode
from skyset.questions import check
from skyset.questions import table
from skyset.sky import position_of
from skyset.splits import SPLITS
from skyset.splits import split_of
from skyset.testing.zenodo import ZenodoServer
from skyset.testing.zenodo import arrow_table
from skyset.testing.zenodo import draw_decals
from skyset.testing.zenodo import picture
from skyset.testing.zenodo import write_decals
from skyset.testing.zenodo import write_zip
from tests.conftest import once
from tests.processes import interruptible

SCRIPT = Path(__file__).parents[2] / "build_scripts" / "gz_decals" / "build_parent_sample.py"
COUNT = 40


@pytest.fixture(scope="session")
def galaxies():
    return draw_decals(COUNT, seed=3)


@pytest.fixture(scope="session")
def record(tmp_path_factory, galaxies) -> Path:
    """The files of the record. Do not change it."""
    return once(tmp_path_factory, "decals_record", lambda folder: write_decals(folder, galaxies))


@pytest.fixture
def server(record):
    with ZenodoServer(record, RECORD) as running:
        yield running


@pytest.fixture(scope="session")
def whole(tmp_path_factory, record) -> Path:
    """All galaxies, from the record's files in a folder. Do not change it."""

    def make(folder: Path) -> None:
        assert build(folder / "gz_decals", "--local_data_path", record) == 0

    return once(tmp_path_factory, "built_decals", make) / "gz_decals"


def build(root, *arguments, processes=1):
    return main(["-o", str(root), "--num_processes", str(processes), *map(str, arguments)])


def remote(root, server, *arguments, processes=1):
    return build(root, "--api_url", server.api_url, *arguments, processes=processes)


def rows(root):
    """All columns of each row by name, with nothing but h5py."""
    found = {}
    for path in sorted([*Path(root).glob("healpix=*/*.hdf5"), *Path(root).glob("[tv]*/healpix=*/*.hdf5")]):
        with h5py.File(path) as file:
            columns = {name: file[name][:] for name in file if name not in ("image", "image_end")}
            if "image_end" in file:
                ends, data = file["image_end"][:], file["image"][:].tobytes()
                starts = [0, *ends[:-1].tolist()]
                columns["image"] = [data[a:b] for a, b in zip(starts, ends.tolist(), strict=True)]
            elif "image" in file:
                columns["image"] = list(file["image"][:])
        split = path.relative_to(root).parts[0]
        for number, key in enumerate(columns["object_id"].astype(str).tolist()):
            assert key not in found, f"{key} is there twice"
            found[key] = {name: values[number] for name, values in columns.items()}
            found[key]["split"] = split if split in SPLITS else "train"
    return found


def same(one, other):
    """Whether two builds have the same rows, byte by byte."""
    if one.keys() != other.keys():
        return False
    return all(np.asarray(value).tobytes() == np.asarray(other[key][name]).tobytes()
               for key, row in one.items() for name, value in row.items())  # fmt: skip


def rejected(root):
    path = Path(root) / "rejected.csv"
    return {row["key"]: row["reason"] for row in csv.DictReader(path.open())} if path.exists() else {}


def differences(root):
    return list(verify(root, CONFIGS[Manifest.load(root).config]))


def folder_of(path, galaxies, names, tables=("auto",), suffix=".png"):
    """A folder with some images and tables."""
    path.mkdir(exist_ok=True)
    for name in names:
        (path / f"{name}{suffix}").write_bytes(galaxies.images[name])
    for name in tables:
        pq.write_table(arrow_table(galaxies.tables[name]), path / f"{name}.parquet")
    return path


def rings_csv(path, galaxies, names=None, **columns):
    names = galaxies.names if names is None else names
    values = {"id_str": names, "ring": [k % 2 for k in range(len(names))]} | columns
    pd.DataFrame(values).to_csv(path, index=False)
    return path


# --- questions and names ------------------------------------------------------------------------------------


def test_the_questions_hang_together():
    for tree in QUESTIONS.values():
        check(tree)
    assert [len(q.answers) for q in DR5] == [3, 2, 2, 3, 5, 3, 3, 3, 6, 4]
    assert [len(q.answers) for q in DR12] == [3, 2, 2, 2, 3, 3, 3, 3, 5, 4]
    assert table(DR12)[-1] == {
        "question": "merging", "answer": "merger", "text": DR12[-1].text,
        "depends_on": "smooth-or-featured_smooth | smooth-or-featured_featured-or-disk",
    }  # fmt: skip
    names = [column.name for column in SURVEY.columns]
    assert {"bar_strong_debiased", "bar-dr12_yes_fraction", "bar-auto_weak_fraction", "merging_total-votes"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "ra", "dec"),
    [
        ("J000411.19+020924.0", 15 * (4 * 60 + 11.19) / 3600, 2 + 9 / 60 + 24 / 3600),
        ("J235959.99-000000.1", 15 * (86399.99) / 3600, -0.1 / 3600),
        ("J120000+900000", 180, 90),
    ],
)
def test_the_position_of_a_name(name, ra, dec):
    assert position_of(name) == pytest.approx((ra, dec), abs=1e-12)


@pytest.mark.parametrize("name", ["J240000.00+000000.0", "J006000.00+000000.0", "J000000.00+906000.0", "588018090547020096",
                                  "J120000+900000.1", "j000411.19+020924.0", "J000411.19+020924.0 "])  # fmt: skip
def test_what_is_no_name(name):
    with pytest.raises(RecordError, match=r"no IAU name|no position"):
        position_of(name)


def test_splits_are_fixed_and_four_fifths():
    assert [split_of(name, "gz_decals") for name in ("J000411.19+020924.0", "J001655.18-002739.1", "x")] == [
        split_of(name, "gz_decals") for name in ("J000411.19+020924.0", "J001655.18-002739.1", "x")
    ]
    found = [split_of(str(number), "gz_decals") for number in range(20000)]
    assert [found.count(split) / 20000 for split in SPLITS] == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert found != [split_of(str(number), "gz2") for number in range(20000)]


# --- what comes in ------------------------------------------------------------------------------------------


def test_every_vote_and_image_comes_through(whole, galaxies):
    found = rows(whole)
    assert found.keys() == set(galaxies.names) and differences(whole) == [] and rejected(whole) == {}
    for campaign, tag in (("dr5", ""), ("dr12", "-dr12"), ("auto", "-auto")):
        columns, tree = galaxies.tables[campaign], DR12 if campaign == "dr12" else DR5
        for number, name in enumerate(columns["iauname"].tolist()):
            for question in tree:
                for suffix in ("_total-votes", "_proportion_volunteers_asked"):
                    if question.name + suffix in columns:
                        wanted = columns[question.name + suffix][number]
                        assert found[name][question.name + tag + suffix] == np.float32(wanted)
                for stem, answer in zip(question.stems, question.answers, strict=True):
                    for suffix in ("", "_fraction", "_debiased"):
                        if stem + suffix in columns:
                            wanted = np.float32(columns[stem + suffix][number])
                            given = found[name][f"{question.name}{tag}_{answer}{suffix}"]
                            assert np.array_equal(np.float32(given), wanted, equal_nan=True)
    for number, name in enumerate(galaxies.names):
        row = found[name]
        assert row["image"] == galaxies.images[name]
        assert (row["ra"], row["dec"]) == (galaxies.ra[number], galaxies.dec[number])
        assert row["split"] == split_of(name, "gz_decals")
        assert row["wrong_size_warning"] == galaxies.tables["auto"]["wrong_size_warning"][number]
    absent = set(galaxies.names) - set(galaxies.tables["dr5"]["iauname"].tolist())
    assert absent and all(found[name]["bar_weak"] == -1 and np.isnan(found[name]["bar_weak_fraction"]) for name in absent)


def test_the_loader_hands_out_images_and_splits(whole, galaxies):
    loaded = load_dataset("gz_decals", data_dir=str(whole))
    assert set(loaded) == set(SPLITS) and sum(map(len, loaded.values())) == COUNT
    assert isinstance(loaded["train"].features["image"], datasets.Image)
    for split in SPLITS:
        for row in skyset.load("gz_decals", str(whole), split=split):
            assert split_of(row["object_id"], "gz_decals") == split
            assert np.array_equal(row["image"], decode(galaxies.images[row["object_id"]], "png"))


def test_decoded_pixels(tmp_path, galaxies, record, whole):
    assert build(tmp_path, "--local_data_path", record, "--decode") == 0
    for name, row in rows(tmp_path).items():
        assert row["image"].dtype == np.uint8 and np.array_equal(row["image"], decode(galaxies.images[name], "png"))
    assert Manifest.load(tmp_path).columns != Manifest.load(whole).columns
    first = next(iter(skyset.load("gz_decals", str(tmp_path), image_size=16)))
    assert first["image"].shape == (16, 16, 3)


def test_positions_from_names_are_truncated_ones(tmp_path, galaxies):
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names, ())
    rings_csv(folder / "rings.csv", galaxies)
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    for number, name in enumerate(galaxies.names):
        row = rows(tmp_path / "out")[name]
        assert 0 <= galaxies.ra[number] - row["ra"] <= 0.15 / 3600 + 1e-9
        assert 0 <= abs(galaxies.dec[number]) - abs(row["dec"]) <= 0.1 / 3600 + 1e-9


def test_a_published_split_goes_first(tmp_path, galaxies):
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names[:12], ())
    rings_csv(folder / "rings.csv", galaxies, galaxies.names[:12], split=["val"] * 5 + ["test"] * 5 + [""] * 2)
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    wanted = ["validation"] * 5 + ["test"] * 5 + [split_of(name, "gz_decals") for name in galaxies.names[10:12]]
    for root in (tmp_path / "out", tmp_path / "out" / "rings_basic"):
        found = rows(root)
        assert [found[name]["split"] for name in galaxies.names[:12]] == wanted


def test_older_names_of_columns_and_paths(tmp_path, galaxies):
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names[:6], ())
    (folder / f"{galaxies.names[0]}.png").rename(folder / f"{galaxies.names[0]}.jpeg")  # a PNG that says JPEG
    shutil.move(folder / f"{galaxies.names[1]}.png", folder / f"{galaxies.names[1]}.PNG")
    frame = pd.DataFrame({"iauname": galaxies.names[:6], "ring": [1, 0] * 3,
                          "local_png_loc": [f"{name[:4]}/{name}.jpg" for name in galaxies.names[:6]]})  # fmt: skip
    frame.to_csv(folder / "rings.csv", index=False)
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    found = rows(tmp_path / "out" / "rings_basic")
    assert [found[name]["label"] for name in galaxies.names[:6]] == [1, 0] * 3
    assert found[galaxies.names[0]]["image"] == galaxies.images[galaxies.names[0]]


def test_images_in_zip_archives_and_nested_folders(tmp_path, galaxies):
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names[:4], ("auto",))
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    write_zip(deep / "c.zip", {f"x/{name}.png": galaxies.images[name] for name in galaxies.names[4:]} | {
        f"__MACOSX/._{galaxies.names[0]}.png": b"macOS", "readme.txt": b"no image"})  # fmt: skip
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    assert {name: row["image"] for name, row in rows(tmp_path / "out").items()} == galaxies.images


# --- configs ------------------------------------------------------------------------------------------------


def test_rings_by_tag_and_by_votes(tmp_path, galaxies, record, whole):
    root = tmp_path / "gz_decals"
    shutil.copytree(whole, root)
    names = galaxies.names[:20]
    votes = np.arange(20)
    advanced = {"iauname": names, "rare-features_ring": votes % 5, "rare-features_total": np.full(20, 8)}
    advanced |= {"smooth-or-featured_featured-or-disk_fraction": np.where(votes % 4 == 3, 0.2, 0.6),
                 "disk-edge-on_no_fraction": np.where(votes % 7 == 6, 0.5, 0.9), "local_png_loc": names}  # fmt: skip
    pq.write_table(pa.table(advanced), tmp_path / "advanced.parquet")
    rings = rings_csv(tmp_path / "rings.csv", galaxies, names)
    assert build(root, "--configs", "rings_basic", "rings_advanced", "--catalog", rings, "--catalog",
                 tmp_path / "advanced.parquet") == 0  # fmt: skip
    basic, found = rows(root / "rings_basic"), rows(root / "rings_advanced")
    assert {name: row["label"] for name, row in basic.items()} == {name: k % 2 for k, name in enumerate(names)}
    kept = [k for k in range(20) if k % 4 != 3 and k % 7 != 6]
    assert found.keys() == {names[k] for k in kept}
    for k in kept:
        row = found[names[k]]
        assert row["ring_fraction"] == np.float32(k % 5 / 8) and (row["ring_votes"], row["ring_total-votes"]) == (k % 5, 8)
        assert row["label"] == (1 if k % 5 >= 3 else 0 if k % 5 == 0 else -1)
        assert np.isnan(row["smooth_fraction"]) and row["featured_fraction"] == np.float32(0.6)
        assert row["edge_on_fraction"] == pytest.approx(0.1, abs=1e-6)
        assert row["image"] == galaxies.images[names[k]]
    assert all(row["split"] == split_of(name, "gz_decals") for name, row in (basic | found).items())
    notes = Manifest.load(root / "rings_advanced").build
    assert notes["config"] == "rings_advanced" and notes["selection"][-1]["left"] == len(kept)
    assert same(rows(root), rows(whole)) and differences(root) == []
    assert differences(root / "rings_basic") == [] and differences(root / "rings_advanced") == []


def test_rings_from_the_votes_prefer_the_network(tmp_path, galaxies, record):
    columns = galaxies.tables["dr5"] | {"rare-features_ring_fraction": np.full(len(galaxies.tables["dr5"]["iauname"]), 0.4)}
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names, ("auto",))
    pq.write_table(arrow_table(columns), folder / "votes.parquet")
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    auto = galaxies.tables["auto"]
    passes = (auto["smooth-or-featured_smooth_fraction"] < 0.75) & (auto["disk-edge-on_yes_fraction"] < 0.25)
    has_votes = set(galaxies.tables["dr5"]["iauname"].tolist())
    wanted = {name for name, keep in zip(galaxies.names, passes, strict=True) if keep and name in has_votes}
    assert wanted and rows(tmp_path / "out" / "rings_advanced").keys() == wanted


@pytest.mark.parametrize("form", ["lists", "columns"])
def test_representations(tmp_path, galaxies, form):
    names = [*galaxies.names[:10], "J000000.80+004200.0"]
    vectors = np.random.default_rng(0).normal(size=(11, 16)).astype(np.float32)
    columns = {"features": list(vectors)} if form == "lists" else {f"feat_{k}_pred": vectors[:, k] for k in range(16)}
    pq.write_table(pa.table({"iauname": names, "png_loc": names} | columns), tmp_path / "features.parquet")
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names, ("auto",))
    root = tmp_path / "out"
    assert build(root, "--local_data_path", folder, "--representations", tmp_path / "features.parquet") == 0
    loaded = load_dataset("gz_decals", "representations", data_dir=str(root))
    found = {row["object_id"]: row for split in loaded.values() for row in split.with_format("numpy")}
    assert found.keys() == set(names)
    for name, vector in zip(names, vectors, strict=True):
        assert np.array_equal(found[name]["representation"], vector) and found[name]["representation"].dtype == np.float32
    assert found[names[0]]["ra"] == galaxies.ra[0] and found[names[-1]]["ra"] == position_of(names[-1])[0]
    assert differences(root / "representations") == []


def test_representations_alone_need_no_images(tmp_path, galaxies):
    columns = {f"feat_{k}": np.arange(3, dtype=np.float32) for k in range(12)}
    pq.write_table(pa.table({"iauname": galaxies.names[:3], **columns}), tmp_path / "features.parquet")
    arguments = ("--configs", "representations", "--representations", tmp_path / "features.parquet")
    assert build(tmp_path / "out", *arguments) == 0
    assert len(rows(tmp_path / "out" / "representations")) == 3 and not (tmp_path / "out" / "manifest.json").exists()


def test_configs_in_datasets(whole, tmp_path, capsys):
    assert datasets.get_dataset_config_names("gz_decals") == list(CONFIGS)
    assert datasets.get_dataset_split_names("gz_decals", data_dir=str(whole)) == list(Manifest.load(whole).splits)
    with pytest.raises(UserError, match=r"config rings_basic is not built in .*--configs rings_basic"):
        load_dataset("gz_decals", "rings_basic", data_dir=str(whole), split="train", streaming=True)
    with pytest.raises(UserError, match="gz_decals has no config 'rings'; known: default, rings_basic"):
        load_dataset("gz_decals", "rings", data_dir=str(whole), split="train", streaming=True)


def test_a_config_is_not_taken_for_another(tmp_path, galaxies, whole):
    root = tmp_path / "gz_decals"
    shutil.copytree(whole, root)
    assert build(root, "--configs", "rings_basic", "--catalog", rings_csv(tmp_path / "rings.csv", galaxies)) == 0
    with pytest.raises(UserError, match="holds config rings_basic of gz_decals, not default"):
        load_dataset("gz_decals", data_dir=str(root / "rings_basic"), split="train", streaming=True)
    assert same(rows(root), rows(whole)) and differences(root) == []  # the folder below is none of its partitions
    show = ["show", "gz_decals", "--data_dir"]
    for arguments in (["verify", root / "rings_basic"], ["info", root / "rings_basic"],
                      [*show, root / "rings_basic", "-o", tmp_path / "a.png"],
                      [*show, root, "-o", tmp_path / "b.png"]):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            app([str(argument) for argument in arguments], prog_name="skyset")
        assert end.value.code == 0
    assert (tmp_path / "a.png").stat().st_size > 1000 < (tmp_path / "b.png").stat().st_size


@pytest.mark.datasets3
def test_the_script_form(whole):
    python = Path(__file__).parents[2] / ".venv-datasets3" / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment with datasets 3")
    script = Path(__file__).parents[2] / "loaders" / "gz_decals.py"
    code = (
        "import datasets, json; rows = datasets.load_dataset("
        f"{str(script)!r}, 'default', data_dir={str(whole)!r}, split='test', streaming=True, trust_remote_code=True); "
        "print(json.dumps([[row['object_id'], row['image'].size] for row in rows]))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    wanted = {name for name, row in rows(whole).items() if row["split"] == "test"}
    assert {name for name, size in json.loads(done.stdout.splitlines()[-1])} == wanted


# --- what stays out -----------------------------------------------------------------------------------------


def test_rows_without_image_images_without_row_and_second_rows(tmp_path, galaxies, capsys):
    names = galaxies.names[:10]
    folder = folder_of(tmp_path / "in", galaxies, names[1:], ())
    (folder / "J111111.11+111111.1.png").write_bytes(galaxies.images[names[0]])
    (folder / f"{names[1]}.jpg").write_bytes(galaxies.images[names[1]])
    rings_csv(folder / "rings.csv", galaxies, [*names, names[3]])
    assert build(tmp_path / "out", "--local_data_path", folder) == 1
    assert rows(tmp_path / "out").keys() == set(names[1:])
    reasons = rejected(tmp_path / "out")
    assert reasons.keys() == {names[0], names[3]}
    assert reasons[names[0]] == "in the catalogue, but there is no image of it"
    assert reasons[names[3]] == f"a second row of {names[3]} in rings.csv (row 11)"
    unused = pd.read_csv(tmp_path / "out" / "unused.csv")
    assert set(unused["key"]) == {"J111111.11+111111.1", names[1]}
    assert "2 images are of no galaxy in the catalogues, or second ones" in capsys.readouterr().out
    assert "not among the objects" in rejected(tmp_path / "out" / "rings_basic")[names[0]]


@pytest.mark.parametrize("name", ["../../x", "", "J" * 30, "J000411.19+0209\u00e9", ".hidden"])
def test_names_that_cannot_be_ones(tmp_path, galaxies, name):
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names[:3], ())
    values = {"iauname": [*galaxies.names[:3], name], "ring": 1, "ra": 10.0, "dec": 1.0}
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(values)), folder / "rings.parquet")
    status = build(tmp_path / "out", "--local_data_path", folder, "--files_per_object")
    assert status == 1
    assert rows(tmp_path / "out").keys() == set(galaxies.names[:3]) and name in rejected(tmp_path / "out")


def test_images_without_row_alone_are_no_fault(tmp_path, galaxies):
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names, ())
    rings_csv(folder / "rings.csv", galaxies, galaxies.names[:9])
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    assert len(rows(tmp_path / "out")) == 9 and len(pd.read_csv(tmp_path / "out" / "unused.csv")) == COUNT - 9


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "RGBA", "1"])
def test_unusual_pngs_are_kept_and_decode_to_rgb(tmp_path, galaxies, mode):
    names = galaxies.names[:3]
    folder = folder_of(tmp_path / "in", galaxies, names, ())
    rings_csv(folder / "rings.csv", galaxies, names)
    strange = picture(5, mode=mode)
    (folder / f"{names[0]}.png").write_bytes(strange)
    assert build(tmp_path / "kept", "--local_data_path", folder) == 0
    assert rows(tmp_path / "kept")[names[0]]["image"] == strange
    assert build(tmp_path / "decoded", "--local_data_path", folder, "--decode") == 0
    pixels = rows(tmp_path / "decoded")[names[0]]["image"]
    assert pixels.shape == (24, 24, 3) and pixels.dtype == np.uint8 and np.array_equal(pixels, decode(strange, "png"))


BAD_IMAGES = {
    "truncated": (lambda data: data[: len(data) // 2], "truncated"),
    "empty": (lambda data: b"", "empty"),
    "html": (lambda data: b"<!DOCTYPE html><html>no</html>", "no image"),
    "bmp": (lambda data: b"BM" + data, "BMP"),
    "flipped": (lambda data: data[:60] + bytes(b ^ 0xFF for b in data[60:90]) + data[90:], "damaged"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("decoded", [False, True])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, galaxies, kind, decoded):
    names = galaxies.names[:4]
    folder = folder_of(tmp_path / "in", galaxies, names, ())
    rings_csv(folder / "rings.csv", galaxies, names)
    spoil, word = BAD_IMAGES[kind]
    (folder / f"{names[2]}.png").write_bytes(spoil(galaxies.images[names[2]]))
    arguments = ("--local_data_path", folder, *(["--decode"] if decoded else []))
    assert build(tmp_path / "out", *arguments) == 1
    assert rows(tmp_path / "out").keys() == {names[0], names[1], names[3]}
    assert word in rejected(tmp_path / "out")[names[2]]
    (folder / f"{names[2]}.png").write_bytes(galaxies.images[names[2]])
    assert build(tmp_path / "out", *arguments) == 0 and rejected(tmp_path / "out") == {}
    assert rows(tmp_path / "out").keys() == set(names)


def test_hostile_archives(tmp_path, galaxies, capsys):
    names = galaxies.names[:6]
    folder = folder_of(tmp_path / "in", galaxies, (), ())
    rings_csv(folder / "rings.csv", galaxies, names)
    members = {f"{names[0]}.png": galaxies.images[names[0]], f"../../{names[1]}.png": galaxies.images[names[1]],
               f"/{names[2]}.png": galaxies.images[names[2]]}  # fmt: skip
    path = write_zip(folder / "a.zip", members)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{names[3]}.png", bytes(65 << 20))
        archive.writestr(f"{names[4]}.png", galaxies.images[names[4]])
        archive.writestr(f"{names[5]}.png", galaxies.images[names[5]], zipfile.ZIP_STORED)
    data = path.read_bytes()
    at = data.rindex(f"{names[4]}.png".encode())  # in the list at the end: flags are 38 bytes before the name
    data = data[: at - 38] + bytes([data[at - 38] | 1]) + data[at - 37 :]
    stored = data.index(galaxies.images[names[5]])
    data = data[: stored + 50] + bytes([data[stored + 50] ^ 1]) + data[stored + 51 :]
    path.write_bytes(data)
    (folder / "b.zip").write_bytes(b"<html>down for maintenance</html>")
    (folder / "c.zip").write_bytes(data[: len(data) // 2])
    assert build(tmp_path / "out", "--local_data_path", folder) == 1
    assert rows(tmp_path / "out").keys() == {names[0]}
    reasons = rejected(tmp_path / "out")
    assert "leads out of" in reasons[names[1]] and "leads out of" in reasons[names[2]]
    assert "68157440 bytes unpacked" in reasons[names[3]] and reasons[names[4]] == "encrypted"
    assert "Bad CRC-32" in reasons[names[5]]
    assert "no ZIP archive" in reasons["b.zip"] and "no ZIP archive" in reasons["c.zip"]
    assert not list(tmp_path.parent.glob("*.png")) and not (tmp_path / f"{names[1]}.png").exists()


def test_ids_that_were_floats_are_refused(tmp_path, galaxies, capsys):
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names[:2], ())
    (folder / "features.csv").write_text("id_str,ring\n5.88018090547020E+17,1\n5.87722984435352E+17,0\n")
    assert build(tmp_path / "out", "--local_data_path", folder) == 2
    error = capsys.readouterr().err
    assert "id_str" in error and "floating point" in error and len(error.splitlines()) == 1


def test_tables_of_something_else_are_named_and_not_used(tmp_path, galaxies, capsys):
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names[:3], ())
    rings_csv(folder / "rings.csv", galaxies, galaxies.names[:3], seeing=[1.0, 1.1, 1.2])
    (folder / "panoptes.csv").write_text("id_str,ring\n20686062,1\n")
    (folder / "stars.csv").write_text("gaia,mag\n1,2\n")
    (folder / "nothing.csv").write_text("iauname,mag\nJ000411.19+020924.0,2\n")
    (folder / "broken.parquet").write_bytes(b"PAR1")
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    out = capsys.readouterr().out
    assert "not used: panoptes.csv: column id_str holds no IAU names (20686062)" in out
    assert "not used: stars.csv: no column iauname or id_str" in out
    assert "not used: nothing.csv: no votes of Galaxy Zoo DECaLS" in out
    assert "broken.parquet" in out and "rings.csv: columns that are left out: seeing" in out
    assert len(rows(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--local_data_path", "nowhere"], "is not a folder"),
        (["--local_data_path", "{folder}", "--configs", "rings_advanced"], "rare-features_ring_fraction"),
        (["--local_data_path", "{folder}", "--configs", "representations"], "representations needs"),
        (["--local_data_path", "{empty}"], "no catalogue of Galaxy Zoo DECaLS"),
        (["--configs", "rings_basic", "--catalog", "{folder}/rings.csv"], "no manifest.json"),
        (["--local_data_path", "{empty}", "--catalog", "{folder}/rings.csv"], "none of 3 galaxies"),
        (["--local_data_path", "{folder}", "--catalog", "nothing.csv"], "nothing.csv"),
    ],
)
def test_what_was_asked_for_wrongly_is_one_line(tmp_path, galaxies, capsys, arguments, words):
    folder, empty = folder_of(tmp_path / "in", galaxies, galaxies.names[:3], ()), tmp_path / "empty"
    rings_csv(folder / "rings.csv", galaxies, galaxies.names[:3])
    empty.mkdir()
    assert build(tmp_path / "out", *(argument.format(folder=folder, empty=empty) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("value", ["x", "2", "0.5"])
def test_a_label_that_is_none(tmp_path, galaxies, value, capsys):
    names = galaxies.names[:3]
    folder = folder_of(tmp_path / "in", galaxies, names, ())
    (folder / "rings.csv").write_text(
        "id_str,ring\n" + "".join(f"{n},{v}\n" for n, v in zip(names, ("1", "0", value), strict=True))
    )
    status = build(tmp_path / "out", "--local_data_path", folder)
    if value == "2":
        assert status == 1 and "ring is 2" in rejected(tmp_path / "out" / "rings_basic")[names[2]]
    else:
        assert status == 2 and "column ring" in capsys.readouterr().err


def test_campaigns_are_told_by_their_answers(tmp_path, galaxies):
    for name, words in (("dr5", "votes of GZD-5"), ("dr12", "votes of GZD-1 and GZD-2"), ("auto", "automatic votes")):
        pq.write_table(arrow_table(galaxies.tables[name]), tmp_path / f"{name}.parquet")
        found = recognise(tmp_path / f"{name}.parquet", RELEASE)
        assert found.kinds == (words,)
        assert [column for column in found.left_out if "concentration" not in column] == []


# --- going on -----------------------------------------------------------------------------------------------


def test_other_catalogues_make_the_rows_again(tmp_path, galaxies):
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names, ())
    rings_csv(folder / "rings.csv", galaxies, redshift=np.full(COUNT, 0.25))
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    rings_csv(folder / "rings.csv", galaxies, redshift=np.full(COUNT, 0.5))
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    assert {row["redshift"] for row in rows(tmp_path / "out").values()} == {np.float32(0.5)}
    pq.write_table(arrow_table(galaxies.tables["dr5"]), folder / "votes.parquet")
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    assert "bar_strong" in rows(tmp_path / "out")[galaxies.names[0]] and differences(tmp_path / "out") == []


def test_a_config_depends_on_every_catalogue_its_values_come_from(tmp_path, galaxies):
    folder, root = folder_of(tmp_path / "in", galaxies, galaxies.names, ()), tmp_path / "out"
    rings = rings_csv(folder / "rings.csv", galaxies)
    assert build(root, "--local_data_path", folder) == 0
    name = "bar_strong_fraction"
    for factor in (1, 0.5):
        columns = dict(galaxies.tables["auto"])
        columns[name] = columns[name] * factor
        pq.write_table(arrow_table(columns), tmp_path / "auto.parquet")
        arguments = ("--configs", "rings_basic", "--catalog", rings, "--catalog", tmp_path / "auto.parquet")
        assert build(root, *arguments) == 0
        found = rows(root / "rings_basic")
        wanted = np.float32(columns[name])
        assert [found[key][name] for key in galaxies.names] == wanted.tolist() and differences(root / "rings_basic") == []


def test_images_that_changed_are_read_again(tmp_path, galaxies):
    names = galaxies.names[:6]
    folder = folder_of(tmp_path / "in", galaxies, names[:3], ())
    rings_csv(folder / "rings.csv", galaxies, names)
    for seed in (100, 200):
        new = {name: picture(seed + k) for k, name in enumerate(names)}
        (folder / f"{names[0]}.png").write_bytes(new[names[0]])
        write_zip(folder / "a.zip", {f"{name}.png": new[name] for name in names[3:]})
        assert build(tmp_path / "out", "--local_data_path", folder) == 0
        for root in (tmp_path / "out", tmp_path / "out" / "rings_basic"):
            found = rows(root)
            assert all(found[name]["image"] == new[name] for name in (names[0], *names[3:]))
            assert all(found[name]["image"] == galaxies.images[name] for name in names[1:3])


def test_zenodo_archive_after_archive(tmp_path, server, whole):
    assert remote(tmp_path, server) == 0
    assert same(rows(tmp_path), rows(whole)) and differences(tmp_path) == []
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("healpix=")}
    assert left == {"manifest.json", "README.md", "catalogs", "archives", "validation", "test"}
    assert all(server.downloads(name) == 1 for name in ARCHIVES)
    before = len(server.requests)
    assert remote(tmp_path, server) == 0
    assert [request.path for request in server.requests[before:] if ".zip" in request.path] == []
    assert same(rows(tmp_path), rows(whole))


def test_kept_archives_stay_and_a_damaged_partition_gets_its_archive_again(tmp_path, server, whole, capsys):
    """The archive that is fetched for it is removed again, unless it was there."""
    assert remote(tmp_path, server, "--keep_archives") == 0
    kept = {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()}
    assert set(kept) == set(ARCHIVES)
    for arguments in ([], ["--overwrite"]):
        assert remote(tmp_path, server, *arguments) == 0
        assert {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()} == kept
    assert all(server.downloads(name) == 1 for name in ARCHIVES)
    shutil.rmtree(tmp_path / "raw")
    path = next(tmp_path.rglob("healpix=*/*.hdf5"))
    with h5py.File(path) as file:
        place = file["image"].id.get_offset() + 50
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert len(differences(tmp_path)) == 1
    capsys.readouterr()
    assert remote(tmp_path, server) == 0
    assert "damaged since it was written" in capsys.readouterr().err
    assert same(rows(tmp_path), rows(whole)) and differences(tmp_path) == []
    assert 1 <= sum(server.downloads(name) - 1 for name in ARCHIVES) < len(ARCHIVES)
    assert not (tmp_path / "raw").exists() and not (tmp_path / ".downloads").exists()


def test_an_archive_with_another_checksum_is_built_again(tmp_path, record, galaxies, whole, capsys):
    folder = tmp_path / "record"
    shutil.copytree(record, folder)
    with ZenodoServer(folder, RECORD) as server:
        assert remote(tmp_path / "out", server) == 0
        names = sorted(galaxies.images)
        own = names[: len(names) // 4]
        new = {name: picture(900 + k) for k, name in enumerate(own)}
        write_zip(folder / ARCHIVES[0], {f"{name}.png": data for name, data in new.items()})
        assert remote(tmp_path / "out", server) == 0
        assert f"{ARCHIVES[0]} has another checksum than when it was built" in capsys.readouterr().err
        assert [server.downloads(name) for name in ARCHIVES] == [2, 1, 1, 1]
        found, before = rows(tmp_path / "out"), rows(whole)
        assert all(found[name]["image"] == new[name] for name in own)
        assert all(found[name]["image"] == before[name]["image"] for name in names[len(own) :])
        assert remote(tmp_path / "out", server) == 0
        assert [server.downloads(name) for name in ARCHIVES] == [2, 1, 1, 1]
    assert differences(tmp_path / "out") == []


def test_pixels_do_not_take_the_place_of_images_unless_asked_for(tmp_path, galaxies, capsys):
    folder, root = folder_of(tmp_path / "in", galaxies, galaxies.names[:3], ()), tmp_path / "out"
    rings_csv(folder / "rings.csv", galaxies, galaxies.names[:3])
    assert build(root, "--local_data_path", folder, "--configs", "default") == 0
    before = rows(root)
    capsys.readouterr()
    assert build(root, "--local_data_path", folder, "--configs", "default", "--decode") == 2
    assert f"{root} was built with image as bytes, this would make it image as uint8 (" in capsys.readouterr().err
    assert same(rows(root), before) and differences(root) == []
    assert build(root, "--local_data_path", folder, "--configs", "default", "--decode", "--overwrite") == 0


def test_the_disk_holds_one_archive_at_a_time(tmp_path, server, monkeypatch):
    from skyset.building import zips

    seen, fetch = [], zips.members

    def members(path):
        seen.append(sorted(each.name for each in path.parent.iterdir()))
        return fetch(path)

    monkeypatch.setattr(zips, "members", members)
    assert remote(tmp_path, server) == 0
    assert seen == [[name] for name in ARCHIVES]


def test_cells_of_several_files_lose_no_row_of_an_earlier_archive(tmp_path, record, galaxies, monkeypatch, whole):
    """Each archive brings galaxies of every cell, so that rows move from file to file."""
    monkeypatch.setattr("skyset.building.build.MAX_FILE_BYTES", 2 * SURVEY.row_bytes)
    folder, names = tmp_path / "record", sorted(galaxies.images)
    shutil.copytree(record, folder)
    for part, archive in enumerate(ARCHIVES):
        write_zip(folder / archive, {f"{name}.png": galaxies.images[name] for name in names[part::4]})
    with ZenodoServer(folder, RECORD) as running:
        assert remote(tmp_path / "out", running) == 0
    assert rejected(tmp_path / "out") == {} and same(rows(tmp_path / "out"), rows(whole))
    assert differences(tmp_path / "out") == [] and len(list((tmp_path / "out").glob("healpix=*/*"))) > COUNT / 3


def test_a_few_are_read_out_of_the_remote_archives(tmp_path, server, galaxies):
    assert remote(tmp_path, server, "--tiny", "--tables", TABLES[2]) == 0
    found = rows(tmp_path)
    assert len(found) == 5 and all(row["image"] == galaxies.images[name] for name, row in found.items())
    assert not (tmp_path / "raw").exists() and differences(tmp_path) == []
    assert remote(tmp_path, server, "--tables", TABLES[2]) == 0
    assert len(rows(tmp_path)) == COUNT and rejected(tmp_path) == {}


@pytest.mark.parametrize(("pattern", "kind"), [(f"*{ARCHIVES[0]}*", "500"), (f"*{TABLES[2]}*", "404"), ("*4573248", "500")])
def test_what_a_dead_server_costs_is_one_line(tmp_path, server, pattern, kind, capsys, monkeypatch):
    monkeypatch.setattr("skyset.archives.fetch.Fetcher.__init__.__defaults__", (8, 0, *Fetcher.__init__.__defaults__[2:]))
    server.fault(pattern, kind)
    assert remote(tmp_path, server, "--tiny", "--tables", TABLES[2]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_a_second_build_in_the_folder_is_refused(tmp_path, server, whole):
    process = start(tmp_path, server)
    end = time.monotonic() + 30
    while not (tmp_path / "journal.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.005)
    statuses = {remote(tmp_path, server) for _ in range(2)}
    process.communicate(timeout=60)
    assert statuses <= {0, 2}
    assert remote(tmp_path, server) == 0 and same(rows(tmp_path), rows(whole))


def test_the_number_of_all_versions_leads_to_the_newest(tmp_path, server):
    assert remote(tmp_path, server, "--tiny", "--record", RECORD - 1, "--tables", TABLES[2]) == 0
    assert len(rows(tmp_path)) == 5


@pytest.mark.parametrize("kind", ["cut", "500", "html", "wrong-checksum"])
def test_faults_of_the_network_heal(tmp_path, server, whole, kind):
    server.fault(f"*{ARCHIVES[1]}*", kind, times=2)
    status = remote(tmp_path, server)
    if status == 2:
        server.clear()
        status = remote(tmp_path, server)
    assert status == 0 and same(rows(tmp_path), rows(whole))


def test_a_wrong_checksum_is_one_line_and_keeps_what_was_done(tmp_path, server, whole, capsys):
    server.md5[ARCHIVES[2]] = "0" * 32
    assert remote(tmp_path, server) == 2
    error = capsys.readouterr().err
    assert ARCHIVES[2] in error and "MD5" in error and len(error.splitlines()) == 1
    done = server.downloads(ARCHIVES[0])
    server.md5.clear()
    assert remote(tmp_path, server) == 0
    assert server.downloads(ARCHIVES[0]) == done == 1 and same(rows(tmp_path), rows(whole))


def test_other_catalogues_do_not_cost_the_archives(tmp_path, server, whole, capsys):
    assert remote(tmp_path, server) == 0
    assert remote(tmp_path, server, "--tables", TABLES[0]) == 2
    assert "other catalogues" in capsys.readouterr().err
    assert same(rows(tmp_path), rows(whole))
    assert remote(tmp_path, server, "--tables", TABLES[0], "--overwrite") == 0
    assert len(rows(tmp_path)) == 36 and len(pd.read_csv(tmp_path / "unused.csv")) == 4


def test_a_damaged_member_of_an_archive_stays_rejected(tmp_path, record, galaxies):
    folder = tmp_path / "record"
    shutil.copytree(record, folder)
    names = sorted(galaxies.images)
    write_zip(folder / ARCHIVES[0], {f"{name}.png": galaxies.images[name][:99] if name == names[2] else galaxies.images[name]
                                     for name in names[:10]})  # fmt: skip
    with ZenodoServer(folder, RECORD) as running:
        for _ in range(2):
            assert remote(tmp_path / "out", running) == 1
            assert rejected(tmp_path / "out").keys() == {names[2]} and "truncated" in rejected(tmp_path / "out")[names[2]]
            assert len(rows(tmp_path / "out")) == COUNT - 1


def test_a_second_row_of_a_galaxy_does_not_cost_its_image(tmp_path, record, galaxies, whole):
    folder, name = tmp_path / "record", sorted(galaxies.images)[0]
    shutil.copytree(record, folder)
    table = pq.read_table(folder / TABLES[2])
    twice = table.slice(table["iauname"].to_pylist().index(name), 1)
    pq.write_table(pa.concat_tables([table, twice]), folder / TABLES[2])
    with ZenodoServer(folder, RECORD) as running:
        for _ in range(2):
            assert remote(tmp_path / "out", running) == 1
            assert same(rows(tmp_path / "out"), rows(whole)) and differences(tmp_path / "out") == []
            assert rejected(tmp_path / "out").keys() == {name} and "second row" in rejected(tmp_path / "out")[name]
        assert all(running.downloads(archive) == 1 for archive in ARCHIVES)


def test_a_limit_whose_galaxies_are_in_a_later_archive(tmp_path, record, galaxies, monkeypatch, capsys):
    monkeypatch.setattr("skyset.building.images_and_votes.plan.FEW", 3)
    folder, names = tmp_path / "record", galaxies.names
    shutil.copytree(record, folder)
    for archive, own in zip(ARCHIVES, (names[10:20], names[:10], names[20:30], names[30:]), strict=True):
        write_zip(folder / archive, {f"{name}.png": galaxies.images[name] for name in own})
    with ZenodoServer(folder, RECORD) as running:
        arguments = ("--limit", 5, "--tables", TABLES[2])
        assert remote(tmp_path / "out", running, *arguments) == 0
        assert rows(tmp_path / "out").keys() == set(names[:5]) and rejected(tmp_path / "out") == {}
        assert not (tmp_path / "out" / "raw").exists()
        assert remote(tmp_path / "none", running, *arguments, "--archives", ARCHIVES[0], ARCHIVES[3]) == 2
        assert "none of 5 galaxies" in capsys.readouterr().err
        assert remote(tmp_path / "out", running, "--tables", TABLES[2]) == 0
    assert {name: row["image"] for name, row in rows(tmp_path / "out").items()} == galaxies.images


def test_a_config_without_any_of_the_first_galaxies_is_left_out(tmp_path, galaxies, capsys):
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names)
    rings_csv(folder / "rings.csv", galaxies, galaxies.names[20:30])
    assert build(tmp_path / "out", "--local_data_path", folder, "--tiny") == 0
    assert len(rows(tmp_path / "out")) == 5 and not (tmp_path / "out" / "rings_basic").exists()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not built: rings_basic")]
    assert len(lines) == 1 and "none of the 10 galaxies" in lines[0]


def test_a_limit_that_grows(tmp_path, server, monkeypatch, galaxies, whole):
    monkeypatch.setattr("skyset.building.images_and_votes.plan.FEW", 3)
    assert remote(tmp_path, server, "--limit", 7, "--tables", *reversed(TABLES)) == 0
    assert list(rows(tmp_path)) != [] and rows(tmp_path).keys() == set(galaxies.names[:7])
    assert remote(tmp_path, server, "--tables", *reversed(TABLES)) == 0
    assert {name: row["image"] for name, row in rows(tmp_path).items()} == galaxies.images
    assert rejected(tmp_path) == {} and all(server.downloads(name) == 2 for name in ARCHIVES)


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b'{"files": [{"key": "../x"}]}', b'{"files": 3}'])
def test_an_answer_that_is_no_record(tmp_path, server, monkeypatch, capsys, answer):
    monkeypatch.setattr(server, "answer_record", lambda: answer)
    assert remote(tmp_path, server) == 2
    error = capsys.readouterr().err
    assert "Zenodo's API" in error or "has no" in error
    assert len(error.splitlines()) == 1


def test_no_such_record_or_file(tmp_path, server, capsys):
    assert remote(tmp_path, server, "--record", 1) == 2
    assert "cannot get record 1" in capsys.readouterr().err
    assert remote(tmp_path, server, "--archives", "part9.zip", "--tables", TABLES[2]) == 2
    assert f"has no part9.zip (it has {TABLES[2]}" in capsys.readouterr().err


def start(root, server, *arguments):
    command = [sys.executable, str(SCRIPT), "-o", str(root), "--num_processes", "2", "--api_url", server.api_url, *arguments]
    return interruptible(command, start_new_session=True)


@pytest.mark.slow
def test_a_build_killed_at_random_moments_has_every_galaxy_once(record, whole, tmp_path):
    """The driver and its children are killed; archives that are done are not asked for again."""
    dice, kills, root = random.Random(5), int(os.environ.get("SKYSET_KILLS", "4")), tmp_path / "out"
    with ZenodoServer(record, RECORD, latency=0.02) as running:
        for turn in range(100):
            last = turn >= kills
            process = start(root, running)
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(90 if last else dice.uniform(1.0, 3.0))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                _, err = process.communicate(timeout=10)
            if last:
                assert process.returncode == 0, err
                break
            assert process.returncode in (0, -signal.SIGKILL), err
    assert same(rows(root), rows(whole))
    assert (differences(root), rejected(root)) == ([], {})
    assert not (root / "raw").exists() and not list(root.rglob("*.tmp"))


def test_ctrl_c_is_one_line_and_goes_on(record, whole, tmp_path):
    with ZenodoServer(record, RECORD, latency=0.05) as running:
        process = start(tmp_path, running)
        end = time.monotonic() + 30
        while not running.downloads(ARCHIVES[1]) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130 and len(err.splitlines()) == 1 and "goes on from here" in err
        assert remote(tmp_path, running) == 0
        assert running.downloads(ARCHIVES[0]) == 1
    assert same(rows(tmp_path), rows(whole))


# --- real images --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_350_real_galaxies(tmp_path, shared, capsys):
    folder = shared / "gz_decals"
    assert build(tmp_path, "--local_data_path", folder, processes=2) == 0
    out = capsys.readouterr().out
    assert "not used: volunteer_votes_panoptes.csv: column id_str holds no IAU names" in out
    table = pd.read_csv(folder / "example_ring_catalog_basic.csv").set_index("id_str")
    for root in (tmp_path, tmp_path / "rings_basic"):
        assert differences(root) == [] and rejected(root) == {}
        found = rows(root)
        assert found.keys() == set(table.index)
        for name, row in found.items():
            assert row["image"] == (folder / "images" / f"{name}.jpg").read_bytes()
    rings = load_dataset("gz_decals", "rings_basic", data_dir=str(tmp_path))
    assert {split: len(rings[split]) for split in rings} == {"train": 274, "validation": 35, "test": 41}
    for split in rings.values():
        assert split.features["label"].names == ["no_ring", "ring"]
        for row in split.remove_columns("image"):
            wanted = table.loc[row["object_id"]]
            assert row["label"] == wanted["ring"]
            name = "disk-edge-on_no_fraction"
            assert row[name] == np.float32(wanted[name])
