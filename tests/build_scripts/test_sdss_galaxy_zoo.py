"""SDSS Galaxy Zoo, from the services' tables and cutouts to rows: what comes in, what stays out, what survives a kill."""

import contextlib
import csv
import dataclasses
import gzip
import io
import json
import os
import random
import re
import signal
import sys
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from datasets import ClassLabel, load_dataset
from PIL import Image

import skyset
from skyset.build_scripts.sdss_galaxy_zoo import catalog
from skyset.build_scripts.sdss_galaxy_zoo.build_parent_sample import CUTOUTS, cuts, describe, flags, main, parser
from skyset.build_scripts.sdss_galaxy_zoo.catalog import CASJOBS
from skyset.building.cutouts.catalogue import possible, write_list
from skyset.building.cutouts.columns import present
from skyset.building.options import Options
from skyset.errors import UserError
from skyset.loaders.sdss_galaxy_zoo import CATALOG, SURVEY
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.tables.cuts import Counts, apply
from skyset.testing.hips import draw
from skyset.testing.sdss import SPOILT, VIZIER, SDSSServer, distance_modulus, draw_galaxies
from tests.builds import leftovers
from tests.processes import imported, wait_for

SCRIPT = Path(__file__).parents[2] / "build_scripts" / "sdss_galaxy_zoo" / "build_parent_sample.py"
SLICES = ("--slices", "4")
FILTERED = CUTOUTS.filtered


def build(root, server, *arguments):
    """Exit status of a build from the two services in this process."""
    where = ["--tap_url", server.tap_url, "--hips_url", server.hips_url] if server else []
    return main(["-o", str(root), "--num_processes", "1", *SLICES, *where, *map(str, arguments)])


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


@pytest.fixture(scope="module")
def few():
    """24 galaxies, some below the equator."""
    return draw_galaxies(24)


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
    wanted = {
        d7
        for d7, d8 in zip(galaxies.votes["dr7objid"].tolist(), galaxies.votes["objid"].tolist(), strict=True)
        if str(d8) in galaxies.good
    }
    table = pd.read_csv(built_sdss / FILTERED)
    assert table["dr7objid"].dtype == np.int64 and set(table["dr7objid"]) == wanted
    jsons = [json.loads(data) for name, data in members(built_sdss / "Images").items() if name.endswith(".json")]
    assert {row["dr7objid"] for row in jsons} == wanted
    streamed = skyset.load("sdss_galaxy_zoo", data_dir=str(built_sdss))
    assert {int(row["dr7objid"]) for row in streamed} == wanted


def test_each_cut_is_counted_and_kept(built_sdss, galaxies):
    cuts = Manifest.load(built_sdss).build["cuts"]
    removed = {step["name"]: step["removed"] for step in cuts}
    for name in SPOILT:
        assert removed[name] == (galaxies.spoilt == name).sum() > 0
    assert cuts[0]["left"] == len(galaxies.spoilt) and cuts[-1]["left"] == len(galaxies.good)


def test_no_galaxy_is_lost_at_the_ends_of_the_circle(built_sdss, galaxies):
    """DR7 has them a hundredth of an arcsec away, some on the other side of RA 0."""
    ra = np.array([float(row["ra"]) for row in rows(built_sdss).values()])
    assert np.sum((ra < 1e-4) | (ra > 360 - 1e-4)) == 3


# --- the catalogue alone -------------------------------------------------------------------------------------


def lines(path):
    with gzip.open(path, "rt") as file:
        return sorted(file)


def listed(root, server, *arguments):
    """The lines of the list of galaxies that a build would ask the images of, sorted."""
    where = ["--tap_url", server.tap_url] if server else []
    asked = parser().parse_args(["-o", str(root), *SLICES, *where, *map(str, arguments)])
    options = Options.from_arguments(asked)
    root.mkdir(exist_ok=True)
    write_list(CUTOUTS, CUTOUTS.source(asked, options), root / "catalog" / "list.csv.gz", options, asked)
    return lines(root / "catalog" / "list.csv.gz")


def test_each_cut_is_printed(galaxies, server, tmp_path, built_sdss, capsys):
    assert listed(tmp_path, server) == lines(built_sdss / FILTERED)
    printed = capsys.readouterr().out
    for name in SPOILT:
        assert any(line.split()[:1] == name.split()[:1] for line in printed.splitlines())


@pytest.mark.parametrize("sync", [(), ("--sync",)])
def test_one_service_gives_the_same(built_sdss, server, tmp_path, sync):
    assert listed(tmp_path, server, "--source", "zoospec", *sync) == lines(built_sdss / FILTERED)
    assert len(server.tap.created) == (0 if sync else 4) and sorted(server.tap.deleted) == sorted(server.tap.created)


def test_a_few_rows_leave_no_job_on_the_server(server, tmp_path):
    server.tap.executing = 0.2
    assert len(listed(tmp_path, server, "--tiny", "--slices", 36)) == 6
    assert len(server.tap.created) > 2 and sorted(server.tap.deleted) == sorted(server.tap.created)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".vot", ".fits", ".parquet"])
def test_a_catalog_file_gives_the_same(built_sdss, galaxies, tmp_path, suffix):
    path = exported(galaxies, tmp_path / f"ZooSpecPhotoDR19{suffix}")
    assert listed(tmp_path, None, "--catalog", path) == lines(built_sdss / FILTERED)


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


def test_an_overflow_is_not_taken_for_all(galaxies, built_sdss, tmp_path):
    with SDSSServer(galaxies, row_limit=50) as running:
        assert listed(tmp_path, running, "--slices", 1) == lines(built_sdss / FILTERED)


def test_casjobs_query_names_what_the_catalog_needs(capsys):
    assert main(["--print_sql"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == CASJOBS.strip()
    for column in CATALOG:
        assert f" {column.name}" in printed.replace("z.", " ").replace("p.", " ")


def chosen(galaxies, *arguments):
    """objid, as text, of the galaxies that pass the cuts that were asked for."""
    rows = {"redshift": galaxies.photometry["z"], "dr8objid": galaxies.votes["objid"]} | galaxies.votes | galaxies.photometry
    rows.pop("objid")
    batch = catalog.COLUMNS.standard(pa.RecordBatch.from_pydict(rows), "memory")
    made, left_out = possible(cuts(parser().parse_args(arguments)), present(batch))
    assert left_out == []
    return [str(n) for kept in apply(made, [batch], Counts()) for n in kept["objid"].to_pylist()]


def test_confident_classes_only(galaxies):
    votes = galaxies.votes
    sure = (votes["spiral"] == 1) & (votes["p_cs_debiased"] >= 0.9)
    wanted = [str(n) for n in votes["objid"][sure].tolist() if str(n) in galaxies.good]
    found = chosen(galaxies, "--min_debiased", "0.9", "--classes", "spiral")
    assert [key for key in found if key in galaxies.good] == wanted and 0 < len(wanted) < len(galaxies.good)


def test_uncertain_galaxies_on_request(galaxies):
    uncertain = [str(n) for n in galaxies.votes["objid"][galaxies.spoilt == "class"].tolist()]
    every = chosen(galaxies, "--classes", "spiral", "elliptical", "uncertain")
    assert set(every) - set(chosen(galaxies)) == set(uncertain) != set()
    sure = chosen(galaxies, "--classes", "uncertain", "--min_debiased", "0.99")
    assert sure == uncertain  # there is no class to be sure of


def test_flags_that_contradict_each_other_are_no_class():
    batch = pa.record_batch({"spiral": [1, 1, 0, None], "elliptical": [0, 1, 0, 1], "uncertain": [0, 0, 0, 0]})
    assert flags(batch).tolist() == [[True, False, False, False], [False, False, False, True], [False] * 4]
    assert [describe(row) for row in batch.slice(0, 1).to_pylist()] == [{"label": 0}]


def test_a_cut_that_was_asked_for_is_made_or_refused(galaxies, tmp_path, capsys):
    few = pd.read_csv(exported(galaxies, tmp_path / "whole.csv")).drop(columns=["p_cs_debiased"])
    few.to_csv(tmp_path / "few.csv", index=False)
    assert build(tmp_path / "out", None, "--catalog", tmp_path / "few.csv", "--min_debiased", 0.9) == 2
    assert "--min_debiased needs p_cs_debiased" in capsys.readouterr().err


def test_what_a_catalog_must_have(tmp_path, capsys):
    for text, words in (
        ("objid,ra,dec,petroR90_r,spiral,elliptical,uncertain\n1,1,2,-9999,1,0,0\n", "passes the cuts"),
        ("objid,ra,dec,petroR90_r,spiral,elliptical,uncertain\n1,1,2,1e6,1,0,0\n", "passes the cuts"),
        ("objid,ra,dec,petroR90_r\n1,1,2,5\n", "no column spiral, elliptical"),
        ("objid,ra,dec,spiral,elliptical\n1,1,2,1,0\n", "no column petroR90_r"),
    ):
        (tmp_path / "catalog.csv").write_text(text)
        assert build(tmp_path / "out", None, "--catalog", tmp_path / "catalog.csv") == 2
        error = capsys.readouterr().err
        assert words in error and len(error.splitlines()) == 1
    assert build(tmp_path / "out", None, "--catalog", tmp_path / "nothing.csv") == 2
    assert "nothing.csv" in capsys.readouterr().err


def test_the_services_own_words(server, tmp_path, capsys):
    (tmp_path / "query.adql").write_text("SELECT * FROM no.such_table WHERE ra >= {low} AND ra < {high}")
    assert build(tmp_path / "out", server, "--adql", tmp_path / "query.adql") == 2
    error = capsys.readouterr().err
    assert error.startswith("skyset: ") and "no.such_table" in error and len(error.splitlines()) == 1
    (tmp_path / "query.adql").write_text("SELECT * FROM sdss_dr17.photoplate")
    assert build(tmp_path / "out", server, "--adql", tmp_path / "query.adql") == 2
    assert "{low} and {high}" in capsys.readouterr().err


def test_the_dead_service_is_one_line(few, tmp_path, capsys, monkeypatch):
    with SDSSServer(few) as running:
        pass
    monkeypatch.setattr(catalog, "RETRIES", 1)
    assert build(tmp_path, running) == 2
    error = capsys.readouterr().err
    assert "Connection refused" in error and len(error.splitlines()) == 1


# --- the images ---------------------------------------------------------------------------------------------


def test_what_the_catalog_lacks_is_minus_one_or_nan_and_not_cut_on(galaxies, server, tmp_path, capsys):
    table = pd.read_csv(exported(galaxies, tmp_path / "whole.csv"))
    few = ["dr8objid", "RA", "dec", "petroR90_r", "spiral", "elliptical", "uncertain"]
    table.rename(columns={"ra": "RA"})[few].to_csv(tmp_path / "few.csv", index=False)
    assert build(tmp_path / "out", server, "--catalog", tmp_path / "few.csv", "--tiny") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "there is no cut on: petroMag, modelMag, errors gri, errors uz, clean" in printed
    assert "the catalogue has no dr7objid, nvote, p_el," in printed
    for row in rows(tmp_path / "out").values():
        assert (row["dr7objid"], row["nvote"], row["clean"]) == (-1, -1, -1)
        assert np.isnan(row["p_el"]) and np.isnan(row["modelMag_r"]) and np.isnan(row["redshift"])


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
    assert differences(tmp_path) == []


def test_cutouts_larger_than_the_usual_limit(server, tmp_path):
    assert build(tmp_path, server, "--limit", 1, "--width", 900, "--height", 900, "--format", "fits") == 0
    assert next(iter(rows(tmp_path).values()))["image"].shape == (900, 900, 3)


def test_real_jpegs_come_through(galaxies, tmp_path, real):
    with SDSSServer(galaxies, pictures=real("sdss/skyserver_jpegs")) as running:
        assert build(tmp_path, running, "--limit", 15) == 0
    images = [row["image"] for row in rows(tmp_path).values()]
    assert len(images) == 15 and all(image.std() > 5 for image in images)


def test_archives_alone_give_the_same(built_sdss, tmp_path):
    assert build(tmp_path, None, "--from_tar", built_sdss / "Images") == 0
    assert same(rows(tmp_path), rows(built_sdss))


def test_archives_are_samples_as_webdataset_has_them(built_sdss):
    stored = members(built_sdss / "Images")
    keys = {name.partition(".")[0] for name in stored}
    assert set(stored) == {f"{key}.{kind}" for key in keys for kind in ("jpg", "json")}
    ledger = pd.read_csv(built_sdss / "Images" / "Images_downloaded.csv.gz", dtype={"objid": str})
    assert list(ledger.columns) == ["objid", "archive", "member", "bytes", "sha256", "http_status", "tries"]
    assert sorted(ledger["objid"]) == sorted(keys)


# --- trouble ------------------------------------------------------------------------------------------------


def test_a_second_run_asks_for_nothing(few, tmp_path):
    with SDSSServer(few) as running:
        assert build(tmp_path, running) == 0
        asked, before = (len(running.hips.requests), len(running.tap.queries)), rows(tmp_path)
        assert sorted(before) == sorted(few.good)
        assert build(tmp_path, running) == 0
        assert (len(running.hips.requests), len(running.tap.queries)) == asked
    assert same(rows(tmp_path), before)


@pytest.mark.parametrize("kind", ["404", "blank", "html"])
def test_an_answer_that_is_no_image_is_named_and_asked_for_again(server, galaxies, tmp_path, kind):
    victim = galaxies.good[3]
    row = galaxies.votes["objid"].tolist().index(int(victim))
    server.hips.fault(kind, match=f"ra={float(galaxies.votes['ra'][row])!r}&")
    assert build(tmp_path, server, "--tiny") == 1
    assert len(rows(tmp_path)) == 4 and list(rejected(tmp_path)) == [victim]
    assert rejected(tmp_path)[victim].startswith("no image: ")
    assert victim in (tmp_path / "Images" / "Images_failed.csv").read_text()
    server.hips.clear()
    assert build(tmp_path, server, "--tiny") == 0
    assert len(server.hips.requests) == 1
    assert len(rows(tmp_path)) == 5 and rejected(tmp_path) == {}


def test_outside_of_the_footprint_is_no_image(few, tmp_path):
    with SDSSServer(few, south=0) as running:
        assert build(tmp_path, running) == 1
    dec = {str(n): d for n, d in zip(few.votes["objid"].tolist(), few.votes["dec"].tolist(), strict=True)}
    outside = {key for key in few.good if dec[key] < 0}
    assert set(rejected(tmp_path)) == outside and "blank" in rejected(tmp_path)[outside.pop()]


def test_every_fault_at_once_and_nothing_is_lost(few, tmp_path):
    with SDSSServer(few) as running:
        running.hips.chaos(3, 0.3, ["500", "503", "cut", "html", "truncated"])
        status, runs = 1, 0
        while status == 1 and runs < 6:
            status = build(tmp_path, running)
            runs += 1
    assert status == 0 and sorted(rows(tmp_path)) == sorted(few.good)
    assert len(members(tmp_path / "Images")) == 2 * len(few.good)


@pytest.mark.slow
def test_a_build_killed_at_random_moments_has_every_object_once(galaxies, built_sdss, tmp_path):
    """The driver and all its children are killed; images that lie in an archive are not asked for again."""
    dice, kills, root = random.Random(4), int(os.environ.get("SKYSET_KILLS", "2")), tmp_path / "out"
    with SDSSServer(galaxies, latency=0.02) as running:
        for turn in range(kills + 1):
            last = turn >= kills
            process = start(root, running)
            try:
                wanted = None if last else len(running.hips.requests) + dice.randrange(1, 50)
                wait_for_images(running, wanted, process)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                _, err = process.communicate(timeout=60)
            assert process.returncode in ((0,) if last else (0, -signal.SIGKILL)), err
        asked = len(running.hips.requests)
    assert same(rows(root), rows(built_sdss))
    assert (differences(root), extras(root), rejected(root)) == ([], [], {})
    assert members(root / "Images") == members(built_sdss / "Images")
    assert asked <= len(galaxies.good) + 4 * 8 * kills  # at most those in flight are asked for again
    with gzip.open(root / "Images" / "Images_downloaded.csv.gz", "rt") as file:
        assert len({row["objid"] for row in csv.DictReader(file)}) == len(galaxies.good)


def wait_for_images(server, count, process):
    """Until so many were asked for, or (also None: no matter how many) the process has ended."""
    wait_for(lambda: process.poll() is not None or (count is not None and len(server.hips.requests) >= count), 120)


def start(root, server):
    command = [sys.executable, str(SCRIPT), "-o", str(root), "--num_processes", "2", *SLICES]
    command += ["--tap_url", server.tap_url, "--hips_url", server.hips_url]
    return imported(command, start_new_session=True)


def test_ctrl_c_is_one_line_and_goes_on(few, tmp_path):
    with SDSSServer(few, latency=0.02) as running:
        running.hips.fault("mute", times=1)
        process = start(tmp_path, running)
        wait_for_images(running, len(few.good), process)  # all of them: one gets no answer
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130 and len(err.splitlines()) == 1 and "goes on from here" in err
        done = len(members(tmp_path / "Images")) // 2
        assert 4 <= done < len(few.good)
        before = len(running.hips.requests)
        assert build(tmp_path, running) == 0
        assert len(running.hips.requests) - before == len(few.good) - done
    assert sorted(rows(tmp_path)) == sorted(few.good)


# --- VizieR's names -----------------------------------------------------------------------------------------


def test_votes_are_recognised_by_what_the_service_says_of_them(server, tmp_path):
    """Among the columns of mirrored and monochrome images, and of all together."""
    names = catalog.vizier_names(server.tap_url, True, tmp_path)
    assert {ours: names[ours] for ours in catalog.UNNAMED} == {ours: (VIZIER[ours],) for ours in catalog.UNNAMED}
    assert len(server.tap.queries) == 1
    assert catalog.vizier_names(server.tap_url, True, tmp_path) == names
    assert len(server.tap.queries) == 1  # the answer is kept


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("Fraction of votes for Elliptical", "p_el"),
        ("fraction of votes for edge-on spiral", "p_edge"),
        ("Fraction of votes for Edge-on disk", "p_edge"),
        ("Merger votes fraction", "p_mg"),
        ("Fraction of votes for combined spiral (clockwise, anticlockwise, edge-on)", "p_cs"),
        ("Fraction of votes for Spiral", "p_cs"),
        ("Debiased fraction of votes for elliptical", "p_el_debiased"),
        ("Combined spiral fraction of votes, de-biased", "p_cs_debiased"),
        ("Mirrored 1 fraction of votes for Merger", None),
        ("Monochrome fraction of votes for Elliptical", None),
        ("Fraction of votes for AntiClockWise spiral", None),
        ('Fraction of "Don\'t Know" votes', None),
        ('[0/1] "Elliptical" flag', None),
        ("Total number of votes", None),
        ("Right ascension of the merger", None),
    ],
)
def test_descriptions(text, ours):
    assert catalog.recognised({'"x"': text, "y": "Declination", "z": ""}) == ({ours: "x"} if ours else {})


def test_two_columns_of_the_same_description_are_neither():
    assert catalog.recognised({"a": "Fraction of votes for Merger", "b": "Fraction of Merger votes"}) == {}


def votes_of(galaxies, **changed):
    return pa.table(galaxies.votes | changed)


def test_votes_add_up(galaxies):
    catalog.check_votes(votes_of(galaxies))
    votes = {name: np.tile(values, 2) for name, values in galaxies.votes.items()}
    votes["p_cs"][17] = 0.123  # one row in a hundred may be wrong
    votes["p_el_debiased"][:3] = np.nan  # no spectrum, no debiased votes
    catalog.check_votes(pa.table(votes))
    table = votes_of(galaxies)
    catalog.check_votes(table.set_column(table.schema.get_field_index("p_mg"), "p_mg", pa.nulls(80, pa.float32())))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("p_edge", "p_cw + p_acw + p_edge is not p_cs"),
        ("p_mg", "the six fractions do not add up to 1"),
        ("p_el_debiased", "p_el_debiased > 0.8 is not where elliptical is 1"),
        ("p_cs_debiased", "p_cs_debiased > 0.8 is not where spiral is 1"),
    ],
)
def test_votes_that_do_not_add_up_are_refused(galaxies, name, words):
    with pytest.raises(UserError, match=re.escape(words)):
        catalog.check_votes(votes_of(galaxies, **{name: galaxies.votes[name][::-1]}))
    few = votes_of(galaxies, **{name: galaxies.votes[name][::-1]})[:19]
    catalog.check_votes(few)


def test_the_build_refuses_them_too(few, tmp_path, capsys):
    votes = few.votes | {"p_mg": few.votes["p_el"]}
    with SDSSServer(dataclasses.replace(few, votes=votes)) as running:
        assert build(tmp_path, running, "--slices", 1) == 2
    assert "votes are not what their descriptions say: the six fractions" in capsys.readouterr().err


def test_a_tiny_build_knows_the_votes_too(server, tmp_path):
    assert build(tmp_path, server, "--tiny") == 0
    for row in rows(tmp_path).values():
        assert row["p_cs"] == pytest.approx(row["p_cw"] + row["p_acw"] + row["p_edge"], abs=0.005)
        assert max(row["p_el_debiased"], row["p_cs_debiased"]) > 0.8
