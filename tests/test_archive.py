"""The made-up archive has the layout of the real one, and its server misbehaves as it is told."""

import dataclasses
import email.utils
import gzip
import hashlib
import io
import json
import threading
from datetime import UTC, datetime, timedelta

import astropy_healpix
import numpy as np
import pytest
import requests
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS

from skyset.testing.__main__ import arguments
from skyset.testing.gz3d import (
    CHECKSUMS_NAME,
    METADATA_NAME,
    draw_galaxy,
    draw_sample,
    fits_gz_bytes,
    galaxy_hdus,
    masks,
    picture,
    write_archive,
)
from skyset.testing.server import ArchiveServer

TABLE_COLUMNS = [
    "ra",
    "dec",
    "MANGAID",
    "IAUNAME",
    "IFUDESIGNSIZE",
    "MANGA_TILEID",
    "NSA_ID",
    "explorer_link",
    "GZ_total_classifications",
    "GZ_bar_votes",
    "GZ_spiral_votes",
    "sample",
]
CLUSTER_COLUMNS = [
    "x",
    "y",
    "var_x",
    "var_y",
    "var_x_y",
    "ra",
    "dec",
    "var_ra",
    "var_dec",
    "var_ra_dec",
    "count",
]
BODY = bytes(range(256)) * 8


@pytest.fixture(scope="module")
def first():
    return draw_galaxy()


@pytest.fixture(scope="module")
def hdus(first):
    with fits.open(io.BytesIO(gzip.decompress(fits_gz_bytes(first)))) as opened:
        yield opened


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder, 5, repeats=1, prefix="gz3d_")
    return folder


@pytest.fixture
def server(tmp_path):
    (tmp_path / "body.fits.gz").write_bytes(BODY)
    with ArchiveServer(tmp_path) as running:
        yield running


# --- files --------------------------------------------------------------------------------------------------


def test_first_galaxy_is_the_one_of_the_readme(first):
    assert first.name == "1-106630_127_14715787.fits"
    assert first.arms == 2 and first.bar_length > 0 and len(first.stars) == 2


def test_picture_and_masks_have_the_archives_shapes_and_dtypes(hdus):
    assert (hdus[0].data.shape, hdus[0].data.dtype) == ((525, 525, 3), np.uint8)
    for hdu in hdus[1:5]:
        assert (hdu.data.shape, hdu.data.dtype) == ((525, 525), np.dtype(">f8"))
        assert set(np.unique(hdu.data)) <= set(range(16)) and hdu.data.max() >= 3
    assert len(hdus) == 8


def test_masks_follow_the_picture(hdus, first):
    centre, star, spiral, bar = (hdu.data for hdu in hdus[1:5])
    middle = (slice(250, 275), slice(250, 275))
    assert centre[middle].max() == 15 and bar[middle].max() == 15 and spiral[middle].max() == 0
    for x, y in [(int(s.x) - 1, int(s.y) - 1) for s in first.stars]:
        assert star[y, x] >= 3
    grey = hdus[0].data.mean(axis=2)
    assert grey[spiral == 15].mean() > 3 * grey[:60, :60].mean()
    assert not any(mask[:40].any() for mask in (centre, star, spiral, bar))


def test_wcs_puts_the_galaxy_in_the_middle_at_the_right_scale(hdus, first):
    for hdu in hdus[:5]:
        assert (hdu.header["CTYPE1"], hdu.header["CTYPE2"]) == ("RA---TAN", "DEC--TAN")
        assert hdu.header["CD1_1"] == pytest.approx(-2.75e-5)
    wcs = WCS(hdus[1].header)
    assert wcs.wcs_pix2world([[262.5, 262.5]], 1)[0] == pytest.approx([first.ra, first.dec])
    east, north = wcs.wcs_pix2world([[1.0, 262.5], [262.5, 1.0]], 1)
    assert east[0] > first.ra and north[1] > first.dec


def test_tables_have_the_archives_columns(hdus, first):
    row = hdus[5].data[0]
    assert hdus[5].columns.names == TABLE_COLUMNS and len(hdus[5].data) == 1
    assert hdus[5].columns["ra"].format == "E" and row["ra"] == np.float32(first.ra) == first.ra
    assert (row["MANGAID"], row["IFUDESIGNSIZE"], len(row["IAUNAME"])) == ("1-106630", 127, 19)
    assert row["GZ_total_classifications"] == 47
    assert hdus[6].columns.names == hdus[7].columns.names == CLUSTER_COLUMNS
    assert (len(hdus[6].data), len(hdus[7].data)) == (1, 2)
    centre = hdus[6].data[0]
    assert centre["ra"] == pytest.approx(first.ra, abs=1e-4) and centre["count"] == 15


def test_iauname_spells_the_position(first):
    galaxy = dataclasses.replace(first, ra=15.0, dec=-10.5)
    assert galaxy.iauname == "J010000.00-103000.0"


@pytest.mark.parametrize("case, name", [("upper", "GZ_BAR_VOTES"), ("lower", "gz_bar_votes")])
def test_layout_variants(first, case, name):
    variant = galaxy_hdus(first, channels_first=True, primary_wcs=False, column_case=case)
    assert np.array_equal(np.moveaxis(variant[0].data, 0, 2), picture(first))
    assert "CTYPE1" not in variant[0].header and variant[1].header["CTYPE1"] == "RA---TAN"
    assert name in variant[5].columns.names


def test_raw_tables_hold_what_volunteers_drew_as_json(first):
    clicks, spiral, bar = galaxy_hdus(first, raw_tables=True)[8:]
    assert clicks.columns.names == ["classification_id", "time_stamp", "center_points", "star_points"]
    assert (len(clicks.data), len(spiral.data), len(bar.data)) == (15, 15, 15)
    assert len(json.loads(spiral.data["spiral_paths"][0])) == first.arms
    (outline,) = json.loads(bar.data["bar_paths"][0])
    drawn = masks(first)["bar"]
    inside = sum(outline[k][0] for k in range(24)) / 24, sum(outline[k][1] for k in range(24)) / 24
    assert drawn[int(inside[1]), int(inside[0])] == 15


def test_a_galaxy_without_votes_has_blank_masks_and_empty_tables(first):
    unseen = dataclasses.replace(first, total_classifications=0, spiral_votes=0, bar_votes=0)
    hdus = galaxy_hdus(unseen, raw_tables=True)
    assert not any(hdu.data.any() for hdu in hdus[1:5])
    assert [len(hdu.data) for hdu in hdus[6:]] == [0] * 5


def test_few_votes_give_low_counts(first):
    few = masks(dataclasses.replace(first, total_classifications=4, spiral_votes=2, bar_votes=1))
    assert {name: mask.max() for name, mask in few.items() if name != "star"} == {
        "center": 4,
        "spiral": 2,
        "bar": 1,
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(first):
    data = fits_gz_bytes(first)
    assert data == fits_gz_bytes(draw_galaxy(0, 0)) and data != fits_gz_bytes(draw_galaxy(1, 0))
    assert 250_000 < len(data) < 500_000


def test_a_sample_has_all_kinds_and_no_name_twice():
    sample = draw_sample(400)
    assert len({galaxy.mangaid for galaxy in sample}) == len({galaxy.subject_id for galaxy in sample}) == 400
    assert {galaxy.arms for galaxy in sample} == {0, 2, 3} and {galaxy.ifu for galaxy in sample} == {
        19,
        37,
        61,
        91,
        127,
    }
    assert any(galaxy.total_classifications == 0 for galaxy in sample) and any(not galaxy.stars for galaxy in sample)
    assert all(galaxy.total_classifications >= max(galaxy.spiral_votes, galaxy.bar_votes) for galaxy in sample)


def test_clustered_puts_every_group_in_one_cell():
    sample = draw_sample(200, clustered=True)
    cells = astropy_healpix.HEALPix(16, order="nested")
    pixels = cells.lonlat_to_healpix([g.ra for g in sample] * units.deg, [g.dec for g in sample] * units.deg)
    assert all(len(set(pixels[k : k + 5])) == 1 for k in range(0, 200, 5))
    assert len(set(pixels)) > 20


def test_metadata_table_agrees_with_the_files(archive):
    table = fits.getdata(archive / METADATA_NAME, 1)
    assert sorted(f"{name}.gz" for name in table["file_name"]) == sorted(p.name for p in archive.glob("gz3d_*.fits.gz"))
    for row in table:
        with fits.open(archive / f"{row['file_name']}.gz") as hdus:
            assert all(row[name] == hdus[5].data[0][name] for name in TABLE_COLUMNS)
            assert row["number_galaxy_centers"] == len(hdus[6].data)
            assert row["number_foreground_stars"] == len(hdus[7].data)
        assert row["file_name"].endswith(f"_{row['zooniverse_subject_id']}.fits")
    assert table["observed"].dtype == bool
    assert len(table) == 5 and len(set(table["MANGAID"])) == 4


def test_checksum_list_covers_every_file(archive):
    lines = [line.split("  ") for line in (archive / CHECKSUMS_NAME).read_text().splitlines()]
    assert {name for _, name in lines} == {path.name for path in archive.iterdir()} - {CHECKSUMS_NAME}
    assert all(hashlib.sha1((archive / name).read_bytes()).hexdigest() == digest for digest, name in lines)


# --- server -------------------------------------------------------------------------------------------------


def test_index_lists_the_files_between_apaches_other_links(server):
    page = requests.get(server.url)
    assert page.headers["Content-Type"].startswith("text/html")
    for link in ('href="?C=N;O=D"', ">Parent Directory<", '<a href="body.fits.gz">body.fits.gz</a>'):
        assert link in page.text


def test_get_and_head_tell_size_type_and_validators(server):
    got, head = requests.get(server.url + "body.fits.gz"), requests.head(server.url + "body.fits.gz")
    assert got.content == BODY and head.content == b""
    assert got.headers["Content-Type"] == "application/x-gzip"
    for name in ("Content-Length", "ETag", "Last-Modified", "Accept-Ranges"):
        assert got.headers[name] == head.headers[name]
    assert server.requests == [("GET", "/body.fits.gz", None, 200), ("HEAD", "/body.fits.gz", None, 200)]


@pytest.mark.parametrize(
    "asked, status, body",
    [
        ("bytes=0-9", 206, BODY[:10]),
        ("bytes=100-", 206, BODY[100:]),
        ("bytes=-5", 206, BODY[-5:]),
        ("bytes=2040-9999", 206, BODY[2040:]),
        ("bytes=2048-", 416, b""),
        ("bytes=-", 200, BODY),
        ("bytes=0-1,5-6", 200, BODY),
    ],
)
def test_range(server, asked, status, body):
    answer = requests.get(server.url + "body.fits.gz", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (status, body)
    if status == 416:
        assert answer.headers["Content-Range"] == "bytes */2048"


def test_if_range_gives_the_whole_file_once_it_has_changed(server):
    url = server.url + "body.fits.gz"
    etag = requests.head(url).headers["ETag"]
    same = requests.get(url, headers={"Range": "bytes=9-", "If-Range": etag})
    other = requests.get(url, headers={"Range": "bytes=9-", "If-Range": '"another"'})
    assert (same.status_code, other.status_code) == (206, 200) and other.content == BODY


@pytest.mark.parametrize("path", ["../secret", "%2e%2e/secret", "..%2fsecret", "nothing.fits"])
def test_nothing_outside_the_folder_is_served(server, path):
    (server.folder.parent / "secret").write_text("secret")
    with requests.Session() as session:
        request = session.prepare_request(requests.Request("GET", server.url))
        request.url = server.url + path  # as it is: a client would tidy it up first
        assert session.send(request).status_code == 404


@pytest.mark.parametrize("kind, status", [("404", 404), ("500", 500), ("503", 503), ("429", 429)])
def test_status_faults_end_after_their_times(server, kind, status):
    server.fault("*.fits.gz", kind, times=2)
    assert [requests.get(server.url + "body.fits.gz").status_code for _ in range(3)] == [status, status, 200]


def test_retry_after_comes_in_both_forms(server):
    later = datetime.now(UTC) + timedelta(seconds=90)
    server.fault("*", "429", times=1, retry_after=7)
    server.fault("*", "429", times=1, retry_after=later)
    seconds, date = (requests.get(server.url + "body.fits.gz").headers["Retry-After"] for _ in range(2))
    assert seconds == "7"
    assert email.utils.parsedate_to_datetime(date) == later.replace(microsecond=0)


def test_faults_of_the_body(server):
    url = server.url + "body.fits.gz"
    for kind in ("cut", "truncated", "wrong-checksum", "html", "no-range"):
        server.fault("body*", kind, times=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="1024 bytes read, 1024 more expected"):
        requests.get(url)
    truncated, changed, page = requests.get(url), requests.get(url), requests.get(url)
    assert truncated.content == BODY[:1024] and truncated.headers["Content-Length"] == "1024"
    assert sum(a != b for a, b in zip(changed.content, BODY, strict=True)) == 1
    assert page.status_code == 200 and page.text.startswith("<!DOCTYPE html>")
    assert requests.get(url, headers={"Range": "bytes=9-"}).status_code == 200
    assert requests.get(url).content == BODY


def test_drip_sends_a_few_bytes_a_second(server):
    server.fault("body*", "drip")
    with requests.get(server.url + "body.fits.gz", stream=True) as answer:
        first = answer.raw.read1(100)
        assert BODY.startswith(first) and 1 <= len(first) < 100
    assert server.body_bytes < 100


def test_faults_hit_only_names_of_their_pattern_and_unknown_kinds_are_refused(server):
    server.fault("other*", "404")
    assert requests.get(server.url + "body.fits.gz").status_code == 200
    with pytest.raises(ValueError, match="unknown fault 'slow'"):
        server.fault("*", "slow")


def test_chaos_hits_its_share_and_the_same_requests_again(tmp_path):
    (tmp_path / "a.fits").write_bytes(BODY)
    runs = []
    for _ in range(2):
        with ArchiveServer(tmp_path) as server, requests.Session() as session:
            server.chaos(seed=3, rate=0.3, kinds=["500", "404"])
            runs.append([session.get(server.url + "a.fits").status_code for _ in range(100)])
    assert runs[0] == runs[1] and 55 <= runs[0].count(200) <= 85


def test_max_concurrent_counts_requests_answered_at_the_same_time(server):
    four = threading.Barrier(4, timeout=60)
    server.next_fault = lambda name: None if four.wait() >= 0 else name
    threads = [threading.Thread(target=requests.get, args=(server.url + "body.fits.gz",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.max_concurrent == 4


def test_command_line_reads_faults(capsys):
    options = arguments().parse_args(["--fault", "429:*.fits.gz:3", "--fault", "drip:1-106630_*"])
    assert options.fault == [("429", "*.fits.gz", 3), ("drip", "1-106630_*", None)]
    with pytest.raises(SystemExit):
        arguments().parse_args(["--fault", "slow:*"])
    assert "unknown fault 'slow'" in capsys.readouterr().err
