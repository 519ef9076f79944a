"""SDSS Galaxy Zoo, from the services' tables and cutouts to rows: what comes in, what stays out, what survives a kill."""

import contextlib
import csv
import gzip
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from datasets import ClassLabel
from datasets import load_dataset
from PIL import Image

import skyset
from skyset.archives.hips import field_of_view
from skyset.build_scripts.sdss_galaxy_zoo import build_parent_sample
from skyset.build_scripts.sdss_galaxy_zoo.build_parent_sample import FILTERED
from skyset.build_scripts.sdss_galaxy_zoo.build_parent_sample import main
from skyset.build_scripts.sdss_galaxy_zoo.catalog import CASJOBS
from skyset.build_scripts.sdss_galaxy_zoo.catalog import tell_votes
from skyset.loaders.sdss_galaxy_zoo import CATALOG
from skyset.loaders.sdss_galaxy_zoo import SURVEY
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.testing.hips import draw
from skyset.testing.sdss import SPOILT
from skyset.testing.sdss import SDSSServer
from skyset.testing.sdss import distance_modulus
from skyset.testing.sdss import draw_galaxies
from tests.builds import leftovers
from tests.processes import interruptible

SCRIPT = Path(__file__).parents[2] / "build_scripts" / "sdss_galaxy_zoo" / "build_parent_sample.py"
SLICES = ("--slices", "8")


def build(root, server, *arguments, processes=1):
    """Exit status of a build from the two services in this process."""
    where = ["--tap_url", server.tap_url, "--hips_url", server.hips_url] if server else []
    return main(["-o", str(root), "--num_processes", str(processes), *where, *map(str, arguments)])


def rows(root):
    """All columns of each row by object id, with nothing but h5py."""
    found = {}
    for path in sorted(Path(root).glob("healpix=*/*.hdf5")):
        with h5py.File(path) as file:
            columns = {name: file[name][:] for name in file}
        for i, key in enumerate(columns["object_id"].astype(str).tolist()):
            assert key not in found, f"{key} is there twice"
            found[key] = {name: values[i] for name, values in columns.items()}
    return found


def same(one, other):
    """Whether two folders have the same rows."""
    return one.keys() == other.keys() and all(
        np.array_equal(one[key][name], other[key][name], equal_nan=one[key][name].dtype.kind == "f")
        for key in one
        for name in one[key]
    )


def differences(root):
    return list(verify(root, SURVEY))


def extras(root):
    """Files that are neither what the build promises nor partitions."""
    return [name for name in leftovers(root) if not name.startswith(("Images/", "catalog/")) and name != FILTERED]


def members(folder):
    """Name and bytes of all members of a folder's TARs, as Python's tarfile reads them; an archive must be whole."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                assert member.name not in found
                found[member.name] = archive.extractfile(member).read()
    return found


def rejected(root):
    path = Path(root) / "rejected.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        return {row["key"]: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture
def server(galaxies):
    with SDSSServer(galaxies) as running:
        yield running


def test_the_made_up_galaxies_look_and_shine_as_their_classes_do():
    """Two sequences of colour against magnitude; images red where elliptical, blue where spiral."""
    galaxies = draw_galaxies(300)
    votes, photo = galaxies.votes, galaxies.photometry
    good = ~np.isin(galaxies.spoilt, SPOILT)
    spiral, elliptical = ((votes[name] == 1)[good] for name in ("spiral", "elliptical"))
    magnitude = (photo["petroMag_r"] - photo["extinction_r"] - distance_modulus(photo["z"]))[good]
    assert magnitude.min() > -24 and magnitude.max() < -17
    assert np.median(magnitude[elliptical]) < np.median(magnitude[spiral]) - 0.5
    assert photo["z"].min() >= 0.01 and photo["z"].max() <= 0.25 and np.ptp(photo["z"]) > 0.1
    true = {band: photo[f"modelMag_{band}"] - photo[f"extinction_{band}"] for band in "ugri"}
    for one, other, blue, red in (("u", "r", 1.75, 2.65), ("g", "i", 0.75, 1.18)):
        colour = (true[one] - true[other])[good]
        assert abs(np.median(colour[spiral]) - blue) < 0.1 and abs(np.median(colour[elliptical]) - red) < 0.1
        between = (blue + red) / 2
        assert np.mean(colour[spiral] < between) > 0.95 and np.mean(colour[elliptical] > between) > 0.99
    for row in np.flatnonzero(good)[:40]:
        where = float(votes["ra"][row]), float(votes["dec"][row])
        pixels = draw(*where, 2.5 * float(photo["petroR90_r"][row]) / 3600, 64, 64).astype(float)
        disc = np.hypot(*np.mgrid[-31.5:32, -31.5:32]) < 24
        excess = [plane[disc].mean() - plane[~disc].mean() for plane in np.moveaxis(pixels, -1, 0)]
        assert (excess[2] > 1.2 * excess[0]) if votes["spiral"][row] else (excess[0] > 1.5 * excess[2])


# --- what comes in ------------------------------------------------------------------------------------------


def test_every_good_galaxy_is_there_once_with_the_archives_values(built_sdss, galaxies):
    found = rows(built_sdss)
    assert sorted(found) == sorted(galaxies.good)
    names = {"dr8objid": "objid", "redshift": "z"}
    sent = {**galaxies.votes, **galaxies.photometry}
    for i, objid in enumerate(galaxies.votes["objid"].tolist()):
        if str(objid) not in found:
            continue
        row = found[str(objid)]
        for column in CATALOG:
            assert row[column.name] == np.asarray(sent[names.get(column.name, column.name)][i], column.dtype), column.name
    assert differences(built_sdss) == [] == extras(built_sdss) and rejected(built_sdss) == {}


def test_images_are_the_services_scaled_to_the_galaxy(built_sdss, server):
    """2 x petroR90_r x 1.25 wide (seed notebook), decoded as Pillow does."""
    stored = members(built_sdss / "Images")
    for key, row in rows(built_sdss).items():
        assert row["fov"] == pytest.approx(2 * float(row["petroR90_r"]) * 1.25 / 3600, rel=1e-6)
        assert row["pixel_scale"] == pytest.approx(row["fov"] / 64)
        with Image.open(io.BytesIO(stored[f"{key}.jpg"])) as image:
            assert np.array_equal(row["image"], np.asarray(image))
        wanted = draw(float(row["ra"]), float(row["dec"]), float(row["fov"]), 64, 64)
        assert np.abs(row["image"].astype(int) - wanted).mean() < 6  # JPEG


def test_labels_are_a_class_label(built_sdss):
    galaxies = load_dataset("sdss_galaxy_zoo", data_dir=str(built_sdss), split="train", streaming=True)
    assert galaxies.features["label"] == ClassLabel(names=["spiral", "elliptical", "uncertain"])
    for row in galaxies.with_format("numpy"):
        assert [row["spiral"], row["elliptical"], row["uncertain"]].index(1) == row["label"]
        assert row["image"].dtype == np.uint8 and row["image"].shape == (64, 64, 3)
        assert row["dr7objid"].dtype == np.int64 and row["dr7objid"] > 2**53
    plain = load_dataset("sdss_galaxy_zoo", data_dir=str(built_sdss), split="train")
    assert plain.features["label"].int2str(plain[0]["label"]) in ("spiral", "elliptical")


def test_ids_survive_every_step(built_sdss, galaxies):
    """587722984435351614 is not a float64: through VOTable, Parquet, CSV, JSON, HDF5, Arrow and numpy."""
    wanted = {d7 for d7, d8 in zip(galaxies.votes["dr7objid"].tolist(), galaxies.votes["objid"].tolist(), strict=True)
              if str(d8) in galaxies.good}  # fmt: skip
    table = pd.read_csv(built_sdss / FILTERED)
    assert table["dr7objid"].dtype == np.int64 and set(table["dr7objid"]) == wanted
    jsons = [json.loads(data) for name, data in members(built_sdss / "Images").items() if name.endswith(".json")]
    assert {row["dr7objid"] for row in jsons} == wanted
    streamed = skyset.load("sdss_galaxy_zoo", data_dir=str(built_sdss))
    assert {int(row["dr7objid"]) for row in streamed} == wanted


def test_each_cut_is_counted_and_kept(built_sdss, galaxies, tmp_path, server, capsys):
    cuts = Manifest.load(built_sdss).build["cuts"]
    removed = {step["name"]: step["removed"] for step in cuts}
    for name in SPOILT:
        assert removed[name] == (galaxies.spoilt == name).sum() > 0
    assert cuts[0]["left"] == len(galaxies.spoilt) and cuts[-1]["left"] == len(galaxies.good)
    assert build(tmp_path, server, *SLICES) == 0
    printed = capsys.readouterr().out
    for name in SPOILT:
        assert any(line.split()[:1] == name.split()[:1] for line in printed.splitlines())


def test_no_galaxy_is_lost_at_the_ends_of_the_circle(built_sdss, galaxies):
    """DR7 has them a hundredth of an arcsec away, some on the other side of RA 0."""
    ra = np.array([float(row["ra"]) for row in rows(built_sdss).values()])
    assert np.sum((ra < 1e-4) | (ra > 360 - 1e-4)) == 3


@pytest.mark.parametrize("sync", [(), ("--sync",)])
def test_one_service_gives_the_same(built_sdss, server, tmp_path, sync):
    assert build(tmp_path, server, *SLICES, "--source", "zoospec", *sync) == 0
    one, two = rows(tmp_path), rows(built_sdss)
    assert same(one, two)
    assert len(server.tap.created) == (0 if sync else 8) and sorted(server.tap.deleted) == sorted(server.tap.created)


def test_a_tiny_build_leaves_no_job_on_the_server(server, tmp_path):
    server.tap.executing = 0.2
    assert build(tmp_path, server, "--tiny") == 0
    assert server.tap.created and sorted(server.tap.deleted) == sorted(server.tap.created)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".vot", ".fits", ".parquet"])
def test_a_catalog_file_gives_the_same(built_sdss, galaxies, server, tmp_path, suffix):
    path = exported(galaxies, tmp_path / f"ZooSpecPhotoDR19{suffix}")
    root = tmp_path / "out"
    assert build(root, server, "--catalog", path) == 0
    assert same(rows(root), rows(built_sdss))
    assert server.tap.queries == []
    assert Manifest.load(root).sources[0] == str(path)


def exported(galaxies, path):
    """The catalogue as CasJobs would give it, names in its upper and lower case."""
    columns = {"dr8objid": galaxies.votes["objid"], "redshift": galaxies.photometry["z"], **galaxies.votes}
    columns = {**columns, **galaxies.photometry}
    keep = galaxies.spoilt != "photometry"
    table = Table({name: values[keep] for name, values in columns.items() if name not in ("objid", "z", "specobjid")})
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: np.asarray(table[name]) for name in table.colnames}), path)
    elif path.name.endswith(".csv.gz"):
        table.to_pandas().to_csv(path, index=False)
    else:
        table.write(path, format={".csv": "ascii.csv", ".vot": "votable", ".fits": "fits"}[path.suffix])
    return path


def test_what_the_catalog_lacks_is_minus_one_or_nan_and_not_cut_on(galaxies, server, tmp_path, capsys):
    table = pd.read_csv(exported(galaxies, tmp_path / "whole.csv"))
    few = ["dr8objid", "RA", "dec", "petroR90_r", "spiral", "elliptical", "uncertain"]
    table.rename(columns={"ra": "RA"})[few].to_csv(tmp_path / "few.csv", index=False)
    assert build(tmp_path / "out", server, "--catalog", tmp_path / "few.csv") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "there is no cut on: petroMag, modelMag, errors gri, errors uz, clean" in printed
    assert "the catalogue has no dr7objid, nvote, p_el," in printed
    for row in rows(tmp_path / "out").values():
        assert (row["dr7objid"], row["nvote"], row["clean"]) == (-1, -1, -1)
        assert np.isnan(row["p_el"]) and np.isnan(row["modelMag_r"]) and np.isnan(row["redshift"])


def test_casjobs_query_names_what_the_catalog_needs(capsys):
    assert main(["--print_sql"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == CASJOBS.strip()
    for column in CATALOG:
        assert f" {column.name}" in printed.replace("z.", " ").replace("p.", " ")


def test_confident_classes_only(galaxies, server, tmp_path):
    assert build(tmp_path, server, *SLICES, "--min_debiased", 0.9, "--classes", "spiral") == 0
    votes = galaxies.votes
    sure = (votes["spiral"] == 1) & (votes["p_cs_debiased"] >= 0.9)
    wanted = {str(n) for n in votes["objid"][sure].tolist()} & set(galaxies.good)
    assert set(rows(tmp_path)) == wanted and 0 < len(wanted) < len(galaxies.good)


def test_uncertain_galaxies_on_request(galaxies, server, tmp_path):
    assert build(tmp_path, server, *SLICES, "--classes", "spiral", "elliptical", "uncertain") == 0
    label = {key: row["label"] for key, row in rows(tmp_path).items()}
    uncertain = galaxies.votes["objid"][galaxies.spoilt == "class"].tolist()
    assert {key for key, value in label.items() if value == 2} == set(map(str, uncertain))


@pytest.mark.parametrize(("kind", "shape", "dtype"), [("png", (32, 48, 3), np.uint8), ("fits", (32, 48, 3), np.float32)])
def test_other_sizes_and_formats(server, tmp_path, kind, shape, dtype):
    assert build(tmp_path, server, "--tiny", "--width", 48, "--height", 32, "--format", kind) == 0
    galaxies = skyset.load("sdss_galaxy_zoo", data_dir=str(tmp_path))
    for row in galaxies:
        assert row["image"].shape == shape and row["image"].dtype == dtype
        assert row["pixel_scale"] == pytest.approx(row["fov"] / 48)
        wanted = draw(float(row["ra"]), float(row["dec"]), float(row["fov"]), 48, 32)
        assert np.array_equal(row["image"], wanted)
    assert next(iter(skyset.load("sdss_galaxy_zoo", data_dir=str(tmp_path), image_size=16)))["image"].shape[:2] == (16, 16)
    assert list(verify(tmp_path, SURVEY)) == []


def test_real_jpegs_come_through(galaxies, tmp_path, shared):
    with SDSSServer(galaxies, pictures=shared / "sdss" / "skyserver_jpegs") as running:
        assert build(tmp_path, running, "--limit", 20) == 0
    images = [row["image"] for row in rows(tmp_path).values()]
    assert len(images) == 20 and all(image.std() > 5 for image in images)


# --- from the TARs alone ------------------------------------------------------------------------------------


def test_tars_alone_give_the_same(built_sdss, tmp_path):
    assert build(tmp_path, None, "--from_tar", built_sdss / "Images") == 0
    assert same(rows(tmp_path), rows(built_sdss))


def test_tars_are_samples_as_webdataset_has_them(built_sdss):
    stored = members(built_sdss / "Images")
    keys = {name.partition(".")[0] for name in stored}
    assert set(stored) == {f"{key}.{kind}" for key in keys for kind in ("jpg", "json")}
    ledger = pd.read_csv(built_sdss / "Images" / "Images_downloaded.csv.gz", dtype={"objid": str})
    assert list(ledger.columns) == ["objid", "archive", "member", "bytes", "sha256", "http_status", "tries"]
    assert sorted(ledger["objid"]) == sorted(keys)


def test_a_damaged_tar_costs_its_own_objects_only(built_sdss, tmp_path):
    shutil.copytree(built_sdss / "Images", tmp_path / "Images")
    archive = next((tmp_path / "Images").glob("*.tar"))
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    other = tmp_path / "Images" / "other.tar"
    with tarfile.open(other, "w") as tar:
        for name, content in (("1.jpg", b"no image"), ("1.json", b'{"ra": 1, "dec": 2}'), ("2.jpg", b"x"), ("2.json", b"{")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert build(tmp_path / "out", None, "--from_tar", tmp_path / "Images") == 1
    found, whole = rows(tmp_path / "out"), rows(built_sdss)
    assert 0 < len(found) < len(whole) and found.keys() < whole.keys()
    reasons = rejected(tmp_path / "out")
    assert {archive.name, "1", "2"} <= reasons.keys() and len(reasons) <= 4  # one sample may be cut in the middle
    assert "its JSON" in reasons["2"]


@pytest.mark.parametrize(
    "row",
    ["{", "null", "[1]", '{"ra": 1}', "[" * 200_000, '{"ra": 1' + "0" * 400 + ', "dec": 1}', '{"ra": "1", "dec": 1}',
     '{"label": null}', '{"label": 7}', '{"label": true}', '{"fov": -1}', '{"fov": 1e999}', '{"p_el": {}}',
     '{"petroR90_r": "x"}', '{"dr7objid": 587722984435351614.0}', '{"nvote": 99999999999}', '{"sha256": "0"}'],
    ids=lambda row: row[:20],
)  # fmt: skip
def test_a_row_that_is_none_costs_its_own_object_only(built_sdss, tmp_path, row):
    stored = members(built_sdss / "Images")
    one, other = sorted({name.partition(".")[0] for name in stored})[:2]
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        if len(row) < 60 and "ra" not in row:
            row = json.dumps(json.loads(stored[f"{one}.json"]) | json.loads(row)).replace("Infinity", "1e999")
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for key, text in ((one, row.encode()), (other, stored[f"{other}.json"])):
            for name, data in ((f"{key}.jpg", stored[f"{key}.jpg"]), (f"{key}.json", text)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert build(tmp_path / "out", None, "--from_tar", tmp_path) == 1
    assert list(rows(tmp_path / "out")) == [other] and list(rejected(tmp_path / "out")) == [one]


def test_other_tars_of_the_same_objects_replace_the_rows_if_asked_for(built_sdss, server, tmp_path, capsys):
    small, root = tmp_path / "small", tmp_path / "out"
    assert build(small, server, *SLICES, "--width", 16, "--height", 16) == 0
    assert build(root, None, "--from_tar", built_sdss / "Images") == 0
    before = rows(root)
    assert build(root, None, "--from_tar", small / "Images") == 2
    said = "was built with image as uint8 (64, 64, 3), this would make it image as uint8 (16, 16, 3): use the same options"
    assert said in capsys.readouterr().err
    assert same(rows(root), before)
    assert build(root, None, "--from_tar", small / "Images", "--overwrite") == 0
    assert same(rows(root), rows(small)) and differences(root) == []


def test_overwriting_the_images_leaves_files_of_somebody_else_and_the_catalogue(server, tmp_path, capsys):
    assert build(tmp_path, server, "--tiny") == 0
    filtered = tmp_path / "ZooSpecPhotoDR19_filtered.csv.gz"
    kept = {tmp_path / "Images" / name: name.encode() for name in ("mine.tar", "notes.txt", "images-1.tar")}
    for path, content in kept.items():
        path.write_bytes(content)
    assert build(tmp_path, server, "--tiny", "--width", 16, "--height", 16, "--overwrite") == 0
    assert {path: path.read_bytes() for path in kept} == kept
    before = filtered.read_bytes()
    capsys.readouterr()
    assert build(tmp_path, server, "--catalog", filtered, "--limit", 2) == 2
    assert capsys.readouterr().err == f"skyset: {filtered} would replace the catalogue: choose another folder\n"
    assert filtered.read_bytes() == before


def test_limits_hold_for_tars_too(built_sdss, tmp_path):
    assert build(tmp_path, None, "--from_tar", built_sdss / "Images", "--tiny") == 0
    assert len(rows(tmp_path)) == 5


def test_a_folder_without_tars(tmp_path, capsys):
    assert build(tmp_path / "out", None, "--from_tar", tmp_path) == 2
    assert capsys.readouterr().err == f"skyset: no TAR archives in {tmp_path}\n"


# --- trouble ------------------------------------------------------------------------------------------------


def test_a_second_run_asks_for_nothing(server, tmp_path):
    assert build(tmp_path, server, *SLICES) == 0
    asked = len(server.hips.requests), len(server.tap.queries)
    before = rows(tmp_path)
    assert build(tmp_path, server, *SLICES) == 0
    assert (len(server.hips.requests), len(server.tap.queries)) == asked
    assert same(rows(tmp_path), before)


def test_a_larger_selection_keeps_what_is_there(server, galaxies, tmp_path):
    assert build(tmp_path, server, "--tiny") == 0
    assert len(rows(tmp_path)) == 5 == len(server.hips.requests)
    assert build(tmp_path, server, *SLICES) == 0
    assert sorted(rows(tmp_path)) == sorted(galaxies.good)
    assert len(server.hips.requests) == len(galaxies.good)


@pytest.mark.parametrize("kind", ["404", "blank", "bmp", "html", "truncated", "size"])
def test_an_answer_that_is_no_image_is_named_and_asked_for_again(server, galaxies, tmp_path, kind):
    victim = galaxies.good[3]
    row = galaxies.votes["objid"].tolist().index(int(victim))
    server.hips.fault(kind, match=f"ra={float(galaxies.votes['ra'][row])!r}&")
    assert build(tmp_path, server, *SLICES) == 1
    assert sorted(rows(tmp_path)) == sorted(set(galaxies.good) - {victim})
    assert list(rejected(tmp_path)) == [victim] and rejected(tmp_path)[victim].startswith("no image: ")
    failed = (tmp_path / "Images" / "Images_failed.csv").read_text()
    assert victim in failed
    server.hips.clear()
    assert build(tmp_path, server, *SLICES) == 0
    assert len(server.hips.requests) == 1
    assert sorted(rows(tmp_path)) == sorted(galaxies.good) and rejected(tmp_path) == {}


def test_outside_of_the_footprint_is_no_image(galaxies, tmp_path):
    with SDSSServer(galaxies, south=0) as running:
        assert build(tmp_path, running, *SLICES) == 1
    dec = {str(n): d for n, d in zip(galaxies.votes["objid"].tolist(), galaxies.votes["dec"].tolist(), strict=True)}
    outside = {key for key in galaxies.good if dec[key] < 0}
    assert set(rejected(tmp_path)) == outside and "blank" in rejected(tmp_path)[outside.pop()]


def test_every_fault_at_once_and_nothing_is_lost(server, galaxies, tmp_path):
    server.hips.chaos(3, 0.3, ["500", "503", "cut", "html", "truncated"])
    status, runs = 1, 0
    while status == 1 and runs < 6:
        status = build(tmp_path, server, *SLICES)
        runs += 1
    assert status == 0 and sorted(rows(tmp_path)) == sorted(galaxies.good)
    assert len(members(tmp_path / "Images")) == 2 * len(galaxies.good)


def test_an_overflow_is_not_taken_for_all(galaxies, tmp_path):
    with SDSSServer(galaxies, row_limit=10) as running:
        assert build(tmp_path, running, "--slices", 4) == 0
    assert sorted(rows(tmp_path)) == sorted(galaxies.good)


def test_the_services_own_words(server, tmp_path, capsys):
    (tmp_path / "query.adql").write_text("SELECT * FROM no.such_table WHERE ra >= {low} AND ra < {high}")
    assert build(tmp_path / "out", server, "--adql", tmp_path / "query.adql") == 2
    error = capsys.readouterr().err
    assert error.startswith("skyset: ") and "no.such_table" in error and len(error.splitlines()) == 1
    (tmp_path / "query.adql").write_text("SELECT * FROM sdss_dr17.photoplate")
    assert build(tmp_path / "out", server, "--adql", tmp_path / "query.adql") == 2
    assert "{low} and {high}" in capsys.readouterr().err


def test_what_a_catalog_must_have(tmp_path, server, capsys):
    for text, words in (
        ("objid,ra,petroR90_r\n1,2,3\n", "no column dec"),
        ("objid,ra,dec\n5.87722984435352E+17,1,2\n", "column objid"),
        ("objid,ra,dec,petroR90_r,spiral,elliptical,uncertain\n1,1,2,x,1,0,0\n", "petroR90_r cannot be float32"),
        ("objid,ra,dec,petroR90_r,spiral,elliptical,uncertain\n1,1,2,-9999,1,0,0\n", "passes the cuts"),
        ("objid,ra,dec,petroR90_r,spiral,elliptical,uncertain\n1,1,2,1e6,1,0,0\n", "passes the cuts"),
        ("objid,ra,dec,petroR90_r\n1,1,2,5\n", "no column spiral, elliptical"),
        ("objid,ra,dec,spiral,elliptical\n1,1,2,1,0\n", "no column petroR90_r"),
        ("objid,ra,RA,dec,petroR90_r,spiral,elliptical\n1,1,2,2,5,1,0\n", "upper and lower case"),
    ):
        (tmp_path / "catalog.csv").write_text(text)
        assert build(tmp_path / "out", server, "--catalog", tmp_path / "catalog.csv") == 2
        error = capsys.readouterr().err
        assert words in error and len(error.splitlines()) == 1
    assert build(tmp_path / "out", server, "--catalog", tmp_path / "nothing.csv") == 2
    assert "nothing.csv" in capsys.readouterr().err


def test_a_cut_that_was_asked_for_is_made_or_refused(galaxies, server, tmp_path, capsys):
    few = pd.read_csv(exported(galaxies, tmp_path / "whole.csv")).drop(columns=["p_cs_debiased"])
    few.to_csv(tmp_path / "few.csv", index=False)
    assert build(tmp_path / "out", server, "--catalog", tmp_path / "few.csv", "--min_debiased", 0.9) == 2
    assert "--min_debiased needs p_cs_debiased" in capsys.readouterr().err


def test_a_changed_catalog_is_noticed(galaxies, server, tmp_path, capsys):
    table, root = pd.read_csv(exported(galaxies, tmp_path / "catalog.csv")), tmp_path / "out"
    assert build(root, server, "--catalog", tmp_path / "catalog.csv", "--limit", 8) == 0
    before, asked = rows(root), len(server.hips.requests)
    table["petroR90_r"] += 1
    table.to_csv(tmp_path / "catalog.csv", index=False)
    assert build(root, server, "--catalog", tmp_path / "catalog.csv", "--limit", 8) == 2
    assert "8 galaxies, " in capsys.readouterr().err and same(rows(root), before)
    assert build(root, server, "--catalog", tmp_path / "catalog.csv", "--limit", 8, "--overwrite") == 0
    after = rows(root)
    assert len(server.hips.requests) == asked + 8 and after.keys() == before.keys()
    for key, row in after.items():
        assert (
            row["petroR90_r"] == pytest.approx(before[key]["petroR90_r"] + 1, abs=1e-4) and row["fov"] > before[key]["fov"]
        )


@pytest.mark.parametrize("damage", ["header", "image", "cut"])
def test_a_damaged_archive_is_filled_again(server, galaxies, tmp_path, damage, capsys):
    assert build(tmp_path, server, "--limit", 10) == 0
    before = rows(tmp_path)
    archive = next((tmp_path / "Images").glob("*.tar"))
    data = bytearray(archive.read_bytes())
    at = {"header": 4 * 512 + 10, "image": 700, "cut": 0}[damage]
    data[at] ^= 0xFF
    archive.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    assert build(tmp_path, server, "--limit", 10) == 0
    assert same(rows(tmp_path), before) and len(members(tmp_path / "Images")) == 20
    assert "put aside" in capsys.readouterr().err


def test_no_image_at_all_is_no_reason_to_forget_why(server, tmp_path):
    server.hips.fault("404")
    assert build(tmp_path, server, "--tiny") == 1
    assert len(rejected(tmp_path)) == 5 and rows(tmp_path) == {}
    server.hips.clear()
    assert build(tmp_path, server, "--tiny") == 0
    assert len(rows(tmp_path)) == 5


def test_cutouts_larger_than_the_usual_limit(server, tmp_path):
    assert build(tmp_path, server, "--limit", 1, "--width", 900, "--height", 900, "--format", "fits") == 0
    assert next(iter(rows(tmp_path).values()))["image"].shape == (900, 900, 3)


def test_no_margin(server, tmp_path):
    assert build(tmp_path, server, "--limit", 2, "--margin", 0) == 0
    for row in rows(tmp_path).values():
        assert row["fov"] == pytest.approx(2 * float(row["petroR90_r"]) / 3600)


def test_tars_of_unknown_cutouts_are_not_taken_over(server, tmp_path, capsys):
    """What an --overwrite that was killed while it deleted left before it moved the folder out of the way first."""
    assert build(tmp_path, server, "--tiny") == 0
    (tmp_path / "Images" / "Images_settings.json").unlink()
    assert build(tmp_path, server, "--tiny") == 2
    assert "holds other cutouts" in capsys.readouterr().err
    assert build(tmp_path, server, "--tiny", "--overwrite") == 0
    assert len(server.hips.requests) == 10


def test_other_cutouts_do_not_mix(server, tmp_path, capsys):
    assert build(tmp_path, server, "--tiny") == 0
    assert build(tmp_path, server, "--tiny", "--margin", 1) == 2
    assert "holds other cutouts" in capsys.readouterr().err
    assert build(tmp_path, server, "--tiny", "--margin", 1, "--overwrite") == 0
    for row in rows(tmp_path).values():
        assert row["fov"] == pytest.approx(field_of_view(float(row["petroR90_r"]), 1))


def test_a_smaller_selection_loses_nothing(server, tmp_path, capsys):
    assert build(tmp_path, server, "--limit", 20) == 0
    filtered = (tmp_path / FILTERED).read_bytes()
    assert build(tmp_path, server, "--tiny") == 2
    assert "holds 15 objects that this selection leaves out" in capsys.readouterr().err
    assert len(rows(tmp_path)) == 20 and (tmp_path / FILTERED).read_bytes() == filtered


def test_the_dead_service_is_one_line(galaxies, tmp_path, capsys, monkeypatch):
    with SDSSServer(galaxies) as running:
        address = running.tap_url
    monkeypatch.setattr(build_parent_sample, "TAP_RETRIES", 1)
    where = ["--tap_url", address, "--hips_url", address]
    assert main(["-o", str(tmp_path), *where, "--num_processes", "1"]) == 2
    error = capsys.readouterr().err
    assert "Connection refused" in error and len(error.splitlines()) == 1


@pytest.mark.slow
def test_a_build_killed_at_random_moments_has_every_object_once(galaxies, built_sdss, tmp_path):
    """The driver and all its children are killed; images that lie in an archive are not asked for again."""
    dice, kills, root = random.Random(4), int(os.environ.get("SKYSET_KILLS", "6")), tmp_path / "out"
    with SDSSServer(galaxies, latency=0.02) as running:
        for turn in range(200):
            last = turn >= kills
            process = start(root, running)
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60 if last else dice.uniform(1.2, 3.5))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                _, err = process.communicate(timeout=10)
            if process.returncode == 0 and last:
                break
            assert process.returncode in (0, -signal.SIGKILL), err
        asked = len(running.hips.requests)
    assert same(rows(root), rows(built_sdss))
    assert (differences(root), extras(root), rejected(root)) == ([], [], {})
    assert members(root / "Images") == members(built_sdss / "Images")
    assert asked <= len(galaxies.good) + 4 * 8 * kills  # at most those in flight are asked for again
    with gzip.open(root / "Images" / "Images_downloaded.csv.gz", "rt") as file:
        assert len({row["objid"] for row in csv.DictReader(file)}) == len(galaxies.good)


def start(root, server):
    command = [sys.executable, str(SCRIPT), "-o", str(root), "--num_processes", "2", *SLICES]
    command += ["--tap_url", server.tap_url, "--hips_url", server.hips_url]
    return interruptible(command, start_new_session=True)


def test_ctrl_c_is_one_line_and_goes_on(galaxies, tmp_path):
    with SDSSServer(galaxies, latency=0.05) as running:
        process = start(tmp_path, running)
        end = time.monotonic() + 30
        while len(running.hips.requests) < 20 and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130 and len(err.splitlines()) == 1 and "goes on from here" in err
        done = len(members(tmp_path / "Images")) // 2
        assert done >= 12
        before = len(running.hips.requests)
        assert build(tmp_path, running, *SLICES) == 0
        assert len(running.hips.requests) - before == len(galaxies.good) - done
    assert sorted(rows(tmp_path)) == sorted(galaxies.good)


# --- VizieR's names -----------------------------------------------------------------------------------------


def test_votes_are_told_by_what_they_add_up_to():
    table = pa.table(draw_galaxies(300, seed=5).tables()["J/MNRAS/410/166/galaxies"])
    wanted = {"p_el": "pE", "p_edge": "pEd", "p_mg": "pMg", "p_cs": "pS", "p_el_debiased": "pEc", "p_cs_debiased": "pSc"}
    assert tell_votes(table) == wanted
    named = table.rename_columns([f"c{i}" if name in wanted.values() else name for i, name in enumerate(table.column_names)])
    told = tell_votes(named)
    assert {ours: table.column_names[int(theirs[1:])] for ours, theirs in told.items()} == wanted


def test_a_few_rows_that_break_the_rules_do_not_matter():
    """Fractions have three decimals, and one row in a hundred may be wrong."""
    columns = draw_galaxies(300, seed=5).tables()["J/MNRAS/410/166/galaxies"]
    columns["pEc"][columns["fE"] == 1][:1] = 0.8
    columns["pS"][17] = 0.123
    assert len(tell_votes(pa.table(columns))) == 6


def test_votes_that_do_not_add_up_are_not_guessed():
    columns = draw_galaxies(300, seed=5).tables()["J/MNRAS/410/166/galaxies"]
    columns["pEd"] = columns["pEd"][::-1].copy()
    assert tell_votes(pa.table(columns)) == {}
    assert tell_votes(pa.table({"RAJ2000": [1.0]})) == {}
    assert tell_votes(pa.table(draw_galaxies(19).tables()["J/MNRAS/410/166/galaxies"])) == {}


def test_a_tiny_build_knows_the_votes_too(server, tmp_path):
    assert build(tmp_path, server, "--tiny") == 0
    for row in rows(tmp_path).values():
        assert row["p_cs"] == pytest.approx(row["p_cw"] + row["p_acw"] + row["p_edge"], abs=0.005)
        assert max(row["p_el_debiased"], row["p_cs_debiased"]) > 0.8
