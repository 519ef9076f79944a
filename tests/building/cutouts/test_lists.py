"""Cutouts by lists: how they are grouped, what is kept, and what a kill or a fault costs."""

import argparse
import json
import os
import signal
import sys
import time
import tracemalloc
from collections import Counter, defaultdict

import pytest

from skyset.archives.hsc_skymap import tract_at
from skyset.building.cutouts.download import archives_in, download
from skyset.building.cutouts.lists import DasImages, tract_of
from skyset.building.cutouts.options import add_das_options
from skyset.building.cutouts.spool import FOLDER, NO_DATA, Galaxy, Spool
from skyset.building.cutouts.stamps import framed, read_psf, read_stamp
from skyset.building.options import Options
from skyset.building.tars.read import index, read_sample
from skyset.errors import UserError
from skyset.secrets import remember
from skyset.testing.hsc import HscArchive
from skyset.testing.hsc_blobs import BlobSky
from tests.processes import imported, steps_of


@pytest.fixture(scope="module")
def sky():
    return BlobSky(16, seed=6, centre=(150.9, 3.0), radius=0.6)  # four tracts meet there


@pytest.fixture
def server(sky):
    sky.holes.clear()
    with HscArchive(sky) as server:
        remember(server.url, ("user", "pass"))
        yield server


def rows_of(sky, skymap=False):
    names = ("object_id", "ra", "dec", "skymap_id")
    for key, ra, dec, skymap_id in zip(*(sky.table[name].tolist() for name in names), strict=True):
        yield str(key), {"ra": ra, "dec": dec, "object_id": str(key)} | ({"skymap_id": str(skymap_id)} if skymap else {})


def images(server, **options):
    return DasImages(server.url, **{"half_size": 2.0, "backoff": 0.01, "images": 6} | options)


def answers(source, sky, folder):
    return {answer.key: answer for answer in source.answers(rows_of(sky), folder)}


def bands_and_tracts(text):
    lines = [line.split() for line in text.splitlines()[1:]]
    return {line[1] for line in lines}, {tract_at(float(line[2][:-3]), float(line[3][:-3])) for line in lines}


def test_every_list_is_of_one_filter_and_one_tract_in_order_of_position_and_each_is_asked_once(server, sky, tmp_path):
    found = answers(images(server), sky, tmp_path)
    assert sorted(found) == sorted(key for key, _ in rows_of(sky))
    assert all(list(answer.members) == [f"{band}.fits" for band in "grizy"] for answer in found.values())
    tracts = Counter(tract for _, row in rows_of(sky) for tract in [tract_at(row["ra"], row["dec"])])
    assert len(tracts) == 4
    assert len(server.lists) == 5 * sum(-(-count // 6) for count in tracts.values())
    assert set(server.lists.values()) == {1}
    for request in server.requests:
        filters, at = bands_and_tracts(request.list)
        assert len(filters) == len(at) == 1
        places = [float(line.split()[2][:-3]) for line in request.list.splitlines()[1:]]
        assert places == sorted(places) and len(places) <= 6
    assert {request.status for request in server.requests} == {200}
    assert server.max_streams == 2  # a third one would have been refused
    assert not (tmp_path / FOLDER).exists()


def test_each_galaxy_has_its_own_cutouts_and_psfs(server, sky, tmp_path):
    found = answers(images(server, psf=True, half_size=10.0, planes=("image", "variance")), sky, tmp_path)
    for index_, (key, row) in enumerate(rows_of(sky)):
        members = found[key].members
        assert list(members) == [f"{band}.fits" for band in "grizy"] + [f"{band}.psf.fits" for band in "grizy"]
        for band in "grizy":
            stamp = read_stamp(members[f"{band}.fits"], band)
            pixels, _ = framed(stamp, row["ra"], row["dec"])
            assert pixels[61:66, 61:66].max() == pixels.max() or sky._near(row["ra"], row["dec"], 15) != [index_]
            assert stamp.tract == tract_at(row["ra"], row["dec"]) and stamp.variance is not None and stamp.mask is None
            assert read_psf(members[f"{band}.psf.fits"]).sum() == pytest.approx(1, abs=1e-5)


def test_tracts_are_the_catalogues_or_those_of_the_positions(sky):
    for _, row in rows_of(sky, skymap=True):
        assert tract_of(row) == int(row["skymap_id"]) // 10_000 == tract_of({"ra": row["ra"], "dec": row["dec"]})
    assert tract_of({"skymap_id": 98130404, "ra": 0.0, "dec": 0.0}) == 9813
    assert tract_of({"skymap_id": None, "ra": 150.1, "dec": 2.2}) == 9813
    assert tract_of({"skymap_id": "?", "ra": 150.1, "dec": 2.2}) == 9813


def test_a_galaxy_without_a_band_is_named_and_not_asked_for_again(server, sky, tmp_path):
    keys = [key for key, _ in rows_of(sky)]
    sky.holes |= {int(keys[3]): "y", int(keys[9]): "gz"}
    for attempt in range(2):
        found = answers(images(server), sky, tmp_path)
        reasons = {key: answer.reason for key, answer in found.items() if answer.members is None}
        assert reasons == {keys[3]: "no data in band y there", keys[9]: "no data in bands g, z there"}
        if attempt == 0:
            server.clear()
    positions = [f"{row['ra']:.16e}" for key, row in rows_of(sky) if key in (keys[3], keys[9])]
    assert not any(position in request.list for request in server.requests for position in positions)
    assert len(found) == 16


def test_lists_that_bring_nothing_at_all_are_believed_for_this_run_alone(server, sky, tmp_path):
    server.fault("empty")
    found = answers(images(server), sky, tmp_path)
    assert {answer.reason for answer in found.values()} == {"no data in bands g, r, i, z, y there"}
    server.clear()
    assert sum(answer.members is not None for answer in answers(images(server), sky, tmp_path).values()) > 12


def test_lists_of_others_files_alone_are_named_and_asked_for_again(server, sky, tmp_path):
    server.fault("others")
    found = answers(images(server), sky, tmp_path)
    assert all("cannot be used: the answer has nothing but others' files" in answer.reason for answer in found.values())
    server.clear()
    assert sum(answer.members is not None for answer in answers(images(server), sky, tmp_path).values()) > 12


def test_a_galaxy_that_has_moved_in_the_catalogue_is_asked_for_again(tmp_path):
    settings, galaxy = {"rerun": "a"}, Galaxy("1", 10.0, 2.0)
    Spool(tmp_path, settings, "g").add_no_data({galaxy: "no data"})
    assert Spool(tmp_path, settings, "g").no_data(galaxy) == "no data"
    assert Spool(tmp_path, settings, "g").no_data(Galaxy("1", 10.0, 2.1)) is None
    assert Spool(tmp_path, {"rerun": "b"}, "g").no_data(galaxy) is None
    with open(tmp_path / FOLDER / NO_DATA, "a") as file:
        file.write('{"settings": {"rer')
    Spool(tmp_path, settings, "g").add_no_data({Galaxy("2", 1.0, 1.0): "none"})
    assert Spool(tmp_path, settings, "g").no_data(Galaxy("2", 1.0, 1.0)) == "none"


def test_a_line_that_is_refused_costs_its_galaxy_alone(server, sky, tmp_path):
    (key, row), *_ = rows_of(sky)
    server.fault("line", f"{row['ra']:.16e}")
    found = answers(images(server), sky, tmp_path)
    assert found[key].reason.startswith("the archive refuses it in band g: 400 Bad Request: line ")
    assert sum(answer.members is None for answer in found.values()) == 1


@pytest.mark.parametrize(
    "kind, words",
    [
        ("swapped", "the FITS file is of band"),
        ("nan", "its image is NaN everywhere"),
        ("zero", "its image is 0 everywhere"),
        ("truncated", "truncated FITS file"),
    ],
)
def test_files_of_no_use_are_asked_for_again_and_then_named_and_by_the_next_run_once_more(
    server, sky, tmp_path, kind, words
):
    (key, row), *_ = rows_of(sky)
    server.fault(kind, f"{row['ra']:.16e}", times=2)
    assert all(answer.members for answer in answers(images(server), sky, tmp_path / "passing").values())
    server.fault(kind, f"{row['ra']:.16e}")
    found = answers(images(server), sky, tmp_path / "stays")
    assert [key for key, answer in found.items() if answer.members is None] == [key]
    assert found[key].reason.startswith(f"g.fits cannot be used: {words}")
    server.clear()
    assert all(answer.members for answer in answers(images(server), sky, tmp_path / "stays").values())


def test_a_galaxy_without_a_position_is_answered_at_once(server, tmp_path):
    (answer,) = images(server).answers(iter([("1", {"ra": None, "dec": 2.0})]), tmp_path)
    assert answer.members is None and answer.reason
    assert server.requests == []


@pytest.mark.parametrize("kind", ["cut", "short", "503", "html", "foreign"])
def test_passing_faults_leave_no_trace(server, sky, tmp_path, kind):
    server.fault(kind, times=4)
    found = answers(images(server), sky, tmp_path)
    assert len(found) == 16 and all(answer.members for answer in found.values())


def test_a_wrong_password_is_one_line_and_nothing_of_it_is_kept(server, sky, tmp_path):
    remember(server.url, ("user", "n0t-the-password"))
    with pytest.raises(UserError, match="does not take the account") as caught:
        answers(images(server), sky, tmp_path)
    assert "n0t-the" not in str(caught.value)
    assert not any(b"n0t-the" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_callers_end_is_the_threads_end(server, sky, tmp_path):
    stream = images(server).answers(rows_of(sky), tmp_path)
    next(stream)
    server.pause = 60
    start = time.monotonic()
    stream.close()
    assert time.monotonic() - start < 30


def test_memory_and_disk_are_bounded_by_the_groups_that_are_active(server, sky, tmp_path):
    most = defaultdict(int)
    pulled = 0

    def wanted():
        nonlocal pulled
        for key, row in rows_of(sky):
            pulled += 1
            yield key, row

    for given, _ in enumerate(images(server, images=2, lookahead=8).answers(wanted(), tmp_path)):
        most["ahead"] = max(most["ahead"], pulled - given)
        most["groups"] = max(most["groups"], len(list((tmp_path / FOLDER).glob("?????.json"))))
    assert most["groups"] <= 3
    assert most["ahead"] <= 8 + 3 * 2 + 2


def test_options_say_how_cutouts_are_made():
    parser = argparse.ArgumentParser()
    add_das_options(parser.add_argument)
    parser.add_argument("--max_connections", type=int, default=8)
    source = DasImages.asked(parser.parse_args([]))
    assert source == DasImages()
    assert source.settings == {
        "rerun": "pdr2_wide", "sw": 10.0, "sh": 10.0, "planes": ["image"], "psf": False, "type": "coadd",
    }  # fmt: skip
    line = ["--archive_url", "http://me:pa55word@h:1", "--planes", "mask", "variance", "--psf", "--max_connections", "1"]
    source = DasImages.asked(parser.parse_args(line))
    assert (source.host, source.planes, source.psf, source.streams) == ("http://h:1", ("image", "mask", "variance"), True, 1)
    assert source.lines == 330 and DasImages().lines == 990
    for wrong in (["--half_size", "0"], ["--rerun", "pdr9"], ["--planes", "depth"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)


# --- kills --------------------------------------------------------------------------------------------------


def fetch(server, sky, folder):
    """As a build does: into archives."""
    rows = list(rows_of(sky))
    options = Options(folder)
    return download(folder, images(server), rows, len(rows), "object_id", options)


def archived(folder):
    """Names of the files and their bytes, by galaxy; each is there once."""
    found = {}
    for archive in archives_in(folder):
        for sample in index(archive):
            assert sample.key not in found
            found[sample.key] = read_sample(archive, sample.start, sample.length)
    return found


def complete_lists(server, folder):
    """The lists that are complete, as they were uploaded."""
    source = images(server)
    for group in Spool(folder, source.settings, source.lists).groups:
        for name in group.lists:
            yield source.request(name, group.galaxies).text(range(len(group.galaxies)))


@pytest.fixture
def whole(server, sky, tmp_path):
    assert fetch(server, sky, tmp_path / "whole") == {}
    found = archived(tmp_path / "whole")
    assert len(found) == 16 and all(len(members) == 6 for members in found.values())
    return found


def test_a_kill_at_any_step_costs_no_list_that_was_complete(server, sky, tmp_path, whole):
    stop_at, died, kept = 2, True, 0
    while died:
        folder = tmp_path / f"killed-{stop_at}"
        died = steps_of(folder, lambda folder=folder: len(fetch(server, sky, folder)), stop_at)
        before = set(complete_lists(server, folder)) if (folder / FOLDER).exists() else set()
        kept += len(before)
        server.clear()
        assert fetch(server, sky, folder) == {}
        assert before.isdisjoint(request.list for request in server.requests)
        assert archived(folder) == whole
        assert not (folder / FOLDER).exists()
        stop_at += 31
    assert stop_at > 100 and kept > 4


CHILD = """
import sys
from pathlib import Path
from skyset.building.cutouts.download import download
from skyset.building.cutouts.lists import DasImages
from skyset.building.options import Options
import json
rows = json.loads(Path(sys.argv[3]).read_text())
source = DasImages(sys.argv[1], half_size=2.0, backoff=0.01, images=6)
download(Path(sys.argv[2]), source, rows, len(rows), "object_id", Options(Path(sys.argv[2])))
"""


def test_kills_one_after_the_other_ask_again_for_what_was_in_flight_alone(server, sky, tmp_path, whole):
    rows, folder = tmp_path / "rows.json", tmp_path / "killed"
    rows.write_text(json.dumps(list(rows_of(sky))))
    server.clear()
    server.pause = 0.02
    command = [sys.executable, "-c", CHILD, server.url, str(folder), str(rows)]
    environment = os.environ | {"SSP_PDR_USR": "user", "SSP_PDR_PWD": "pass"}
    kills = 0
    for moment in range(9, 70, 20):
        with imported(command, env=environment) as process:
            while server.images < moment and process.poll() is None:
                time.sleep(0.002)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.wait()
        if (folder / FOLDER).exists():
            before, asked = set(complete_lists(server, folder)), len(server.requests)
    server.pause = 0
    assert fetch(server, sky, folder) == {}
    assert archived(folder) == whole
    assert before.isdisjoint(request.list for request in server.requests[asked:])
    assert kills >= 2
    assert sum(server.lists.values()) - len(server.lists) <= 2 * kills  # two streams in flight


def test_damaged_data_of_a_list_are_asked_for_again(server, sky, tmp_path, whole):
    folder = tmp_path / "damaged"
    assert steps_of(folder, lambda: len(fetch(server, sky, folder)), 40)
    complete = [path for path in (folder / FOLDER).glob("*.data") if path.with_suffix(".json").exists()]
    assert complete
    for path in complete:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert fetch(server, sky, folder) == {}
    assert archived(folder) == whole


def test_memory_is_flat(tmp_path):
    """What comes goes to disk: of 36 MB of cutouts, some are in memory at a time, those of the server's included."""
    sky = Canned(BlobSky(100, seed=8, radius=0.2))
    with HscArchive(sky) as server:
        remember(server.url, ("user", "pass"))
        source = DasImages(server.url, backoff=0.01, images=10, lookahead=20)
        tracemalloc.start()
        try:
            size = sum(len(data) for answer in source.answers(rows_of(sky), tmp_path) for data in answer.members.values())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert size > 34e6
    assert peak < 8e6


class Canned(BlobSky):
    """One picture for all, so that the server has little to do."""

    def __init__(self, sky):
        self.__dict__.update(sky.__dict__)
        self._drawn = {}

    def render(self, band, wcs, shape):
        if shape not in self._drawn:
            self._drawn[shape] = super().render(band, wcs, shape)
        return self._drawn[shape]
