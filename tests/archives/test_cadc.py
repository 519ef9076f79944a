"""Exposures from CADC: which files there are, and their bytes, whatever the services do."""

import contextlib
import dataclasses
import gzip
import hashlib
import signal
import sys
from datetime import UTC, datetime
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
import requests
from astropy.io import fits

from skyset.archives.cadc import HOST, ExposureFile, Services, fetch_exposure, find_exposures
from skyset.archives.cadc_query import ExposureQuery, queries
from skyset.archives.checksums import Checksum
from skyset.archives.datalink import Links, data_links
from skyset.archives.fetch import Fetcher
from skyset.archives.tap import TapError
from skyset.errors import RecordError, UserError
from skyset.secrets import remember, remember_cookie
from skyset.testing.adql import check
from skyset.testing.cadc import CadcServer
from skyset.testing.caom2 import PUBLIC, StoredFile, caom2_files, stored_file
from skyset.testing.server import RawServer
from skyset.testing.tap import votable
from tests.processes import imported, wait_for

NAMES = ("979412p.fits.fz", "979413p.fits.fz", "979414p.fits", "979414p.fits.fz", "979415o.fits.fz", "979416p.fits.gz")
LATER = "2999-08-31T00:00:00.000"


@pytest.fixture(autouse=True)
def without_netrc(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def stored(tmp_path):
    """A folder of six files, each of other bytes."""
    folder = tmp_path / "stored"
    folder.mkdir()
    for k, name in enumerate(NAMES):
        (folder / name).write_bytes(np.random.default_rng(k).bytes(50_000 + k))
    return folder


@pytest.fixture
def server(stored):
    with CadcServer(stored) as server:
        yield server
    forget(server)


def forget(server):
    remember(server.url, None)
    remember_cookie(server.url, "", None)


@pytest.fixture
def network():
    with Fetcher(retries=2, backoff=0.01, timeout=(5, 5)) as network:
        yield network


def find(server, folder, *ids, **options):
    """The files by their exposures' names."""
    asked = {name: options.pop(name) for name in list(options) if name in ExposureQuery.__dataclass_fields__}
    query = ExposureQuery(ids=ids, **asked)
    found = find_exposures(query, folder / "catalog", server.url, poll=0.01, backoff=0.01, **options)
    assert len({file.fits_id for file in found}) == len(found)
    return {file.fits_id: file for file in found}


def changed(stored, **changes):
    """What CAOM2 says of the stored files, with changes by the product's name."""
    each = [stored_file(path) for path in sorted(stored.iterdir())]
    return [dataclasses.replace(file, **changes.get(f"_{file.product}", {})) for file in each]


# --- what is asked -----------------------------------------------------------------------------------------------------


def adql(**asked):
    (query,) = queries(ExposureQuery(**asked), "https://host/argus", sync=False)
    return query.adql


def test_the_query_for_exposures_by_name():
    assert adql(ids=("979412p", "1927963", "979412")) == (
        "SELECT o.observationID, o.sequenceNumber, p.productID, p.publisherID, p.dataRelease, p.energy_bandpassName, "
        "p.time_bounds_lower, p.time_exposure, a.uri, a.contentLength, a.contentChecksum\n"
        "FROM caom2.Observation AS o JOIN caom2.Plane AS p ON o.obsID = p.obsID "
        "JOIN caom2.Artifact AS a ON p.planeID = a.planeID\n"
        "WHERE o.collection = 'CFHT'\n"
        "  AND o.instrument_name = 'MegaPrime'\n"
        "  AND a.productType = 'science'\n"
        "  AND o.observationID IN ('979412', '1927963')\n"
        "  AND p.productID IN ('979412p', '1927963p')\n"
        "ORDER BY o.sequenceNumber, p.productID, a.uri"
    )


def test_the_query_for_exposures_that_meet_conditions():
    asked = adql(kind="o", programs=("08ac14",), dates=("2008-03-30", "2008-03-30"), filters=("r", "i.MP9702"), type="flat")
    assert asked.partition("'science'\n")[2].splitlines() == [
        "  AND o.type = 'FLAT'",
        "  AND p.calibrationLevel = 1",
        "  AND p.productID LIKE '%o'",
        "  AND (p.quality_flag IS NULL OR p.quality_flag <> 'junk')",
        "  AND o.proposal_id IN ('08ac14', '08AC14')",
        "  AND p.time_bounds_lower >= 54555.0 AND p.time_bounds_lower < 54556.0",
        "  AND (p.energy_bandpassName LIKE 'r.%' OR p.energy_bandpassName = 'i.MP9702')",
        "  AND o.sequenceNumber >= {low}",
        "  AND o.sequenceNumber < {high}",
        "ORDER BY o.sequenceNumber, p.productID, a.uri",
    ]
    assert "TOP" not in asked and adql(limit=25).startswith("SELECT TOP 100 o.") and "TOP" not in adql(limit=2000)


@pytest.mark.parametrize("asked", [{"ids": ("979412p",)}, {}, {"programs": ("a'b",), "filters": ("r",), "limit": 3}])
def test_queries_are_plain_adql(asked):
    with contextlib.suppress(UserError):
        check(adql(**asked).replace("{low}", "0.0").replace("{high}", "5.0"))


def test_many_names_are_asked_for_in_several_queries():
    ids = tuple(str(number) for number in range(700000, 700450))
    asked = [query.adql for query in queries(ExposureQuery(ids=ids), "https://host/argus", sync=False)]
    assert [text.count("p',") + 1 for text in asked] == [200, 200, 50]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"ids": ("979412pp",)}, "'979412pp' is no exposure: one looks like 979412p or 979412"),
        ({"ids": ("1' OR '1'='1",)}, "is no exposure"),
        ({"ids": ("",)}, "'' is no exposure"),
        ({"programs": ("08'AC",)}, "is no programme: one looks like 08AC14"),
        ({"filters": ("r'",)}, "is no filter"),
        ({"type": "OBJECT'"}, "is no type of observation"),
        ({"kind": "f"}, "of kind o or p, not 'f'"),
        ({"dates": ("2008-03-30", "30.3.2008")}, "'30.3.2008' is no date: one looks like 2008-03-30"),
        ({"dates": ("2008-03-30", "2008-03-29")}, "no night is from 2008-03-30 to 2008-03-29"),
        ({"ids": ("979412p",), "adql": "SELECT 1"}, "not both"),
    ],
)
def test_what_cannot_be_asked_is_one_line(asked, words):
    with pytest.raises(UserError, match=words):
        ExposureQuery(**asked)


def test_the_real_services_are_the_default():
    base = "https://ws.cadc-ccda.hia-iha.nrc-cnrc.gc.ca"
    files, accounts = f"{base}/raven/files/", "https://ws-cadc.canfar.net/ac/login"
    assert Services.at(HOST) == (f"{base}/argus", f"{base}/caom2ops/datalink", files, accounts)
    assert Services.at("http://127.0.0.1:1/").accounts == "http://127.0.0.1:1/ac/login"


# --- which files there are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"sync": True}, {"datalink": True}])
def test_files_by_name(server, stored, tmp_path, options):
    found = find(server, tmp_path, "979413", "979412p", "979415o", "979416p", **options)
    assert list(found) == ["979413p", "979412p", "979415o", "979416p"]
    data = (stored / "979412p.fits.fz").read_bytes()
    assert found["979412p"] == ExposureFile(
        "979412p",
        "ivo://cadc.nrc.ca/CFHT?979412/979412p",
        "cadc:CFHT/979412p.fits.fz",
        f"{server.url}/raven/files/cadc:CFHT/979412p.fits.fz",
        len(data),
        hashlib.md5(data).hexdigest(),
        datetime(2009, 8, 31, tzinfo=UTC),
    )
    assert found["979416p"].name == "979416p.fits.gz"
    asked = len(server.tap.queries)
    assert find(server, tmp_path, "979413", "979412p", "979415o", "979416p", **options) == found
    assert len(server.tap.queries) == asked == 1, "the answer is kept"
    assert bool(server.tap.created) != bool(options.get("sync"))


@pytest.mark.parametrize("options", [{}, {"datalink": True}])
def test_of_fits_and_fits_fz_the_second(server, tmp_path, options):
    assert find(server, tmp_path, "979414p", **options)["979414p"].name == "979414p.fits.fz"


def test_files_that_meet_conditions(stored, tmp_path):
    changes = {
        "_979412p": {"program": "08AC15"},
        "_979413p": {"quality": "junk"},
        "_979416p": {"mjd": 54556.2, "filter": "i.MP9702"},
    }
    with CadcServer(stored, changed(stored, **changes)) as server:
        assert list(find(server, tmp_path)) == ["979412p", "979414p", "979416p"]
        assert list(find(server, tmp_path, limit=2)) == ["979412p", "979414p"]
        assert list(find(server, tmp_path, kind="o")) == ["979415o"]
        assert list(find(server, tmp_path, programs=("08ac15",))) == ["979412p"]
        assert list(find(server, tmp_path, filters=("i",))) == ["979416p"]
        assert list(find(server, tmp_path, dates=("2008-03-29", "2008-03-30"))) == ["979412p", "979414p"]
        assert list(find(server, tmp_path, dates=("2008-03-31", "2008-03-31"))) == ["979416p"]
        assert find(server, tmp_path, type="BIAS") == {}


def many(count):
    """Files of exposures from 800,000 on; some of them both .fits and .fits.fz."""
    each = [StoredFile(f"{800_000 + k}p.fits.fz", 1000 + k, f"{k:032x}") for k in range(count)]
    return each + [dataclasses.replace(file, name=file.name[:-3]) for file in each[::5]]


@pytest.mark.parametrize(("sync", "says"), [(False, True), (True, True), (True, False)])
def test_more_than_the_rows_of_an_answer_of_sync(tmp_path, sync, says):
    with CadcServer(tmp_path, many(2300), says_overflow=says) as server:
        found = find(server, tmp_path, sync=sync)
        assert list(found) == [f"{800_000 + k}p" for k in range(2300)]
        assert all(file.bytes == 1000 + k and file.md5 == f"{k:032x}" for k, file in enumerate(found.values()))
        assert all(file.name.endswith(".fz") for file in found.values())
        assert (len(server.tap.queries) > 3) == sync


@pytest.mark.parametrize("column", ["p.productID", "p.publisherID", "o.observationID", "a.uri"])
def test_a_query_of_ones_own(server, tmp_path, column):
    joined = (
        "caom2.Observation AS o JOIN caom2.Plane AS p ON o.obsID = p.obsID JOIN caom2.Artifact AS a ON a.planeID = p.planeID"
    )
    conditions = "p.productID LIKE '%p' AND a.productType = 'science'"
    own = f"SELECT {column} FROM {joined} WHERE {conditions} ORDER BY o.observationID DESC"
    found = find(server, tmp_path, adql=own)
    assert list(found) == ["979416p", "979414p", "979413p", "979412p"]
    assert found == find(server, tmp_path, *found) and not any(file.problem for file in found.values())
    assert list(find(server, tmp_path, adql=own, limit=2)) == ["979416p", "979414p"]
    assert find(server, tmp_path, adql=own.replace("'%p'", "'%x'")) == {}


def test_a_query_of_ones_own_that_is_none(server, tmp_path):
    with pytest.raises(UserError, match=r"a row of the query names no exposure: .*; productID would do"):
        find(server, tmp_path, adql="SELECT p.planeID FROM caom2.Plane AS p")
    with pytest.raises(TapError, match=r"argus: no such table: caom2.Plan\b"):
        find(server, tmp_path, adql="SELECT p.planeID FROM caom2.Plan AS p")


def test_what_cadc_does_not_know_is_asked_for_again(stored, tmp_path, network):
    with CadcServer(stored, changed(stored, _979413p={"meta_release": LATER}, _979416p={"instrument": "WIRCam"})) as server:
        found = find(server, tmp_path, "979412p", "979413p", "979416p", "5p")
        assert [name for name, file in found.items() if file.problem] == ["979413p", "979416p", "5p"]
        with pytest.raises(RecordError, match="no such exposure of MegaPrime, or does not show it before its release"):
            fetch_exposure(found["5p"], tmp_path / "raw", network)
        asked = len(server.tap.queries)
        find(server, tmp_path, "979412p", "979413p", "979416p", "5p")
        assert len(server.tap.queries) == asked + 1


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"md5": None, "bytes": None}, (None, None)),
        ({"md5": "abc", "bytes": -3}, (None, None)),
        ({"md5": "AB" * 16, "bytes": 5}, ("ab" * 16, 5)),
    ],
)
def test_what_cadc_does_not_say(stored, tmp_path, changes, given):
    with CadcServer(stored, changed(stored, _979412p={**changes, "data_release": None})) as server:
        file = find(server, tmp_path, "979412p")["979412p"]
        assert (file.md5, file.bytes, file.data_release, file.problem) == (*given, None, "")


def test_an_answer_with_other_columns_is_not_kept(server, tmp_path):
    run = server.tap._run
    server.tap._run = lambda form, *rest: run({"QUERY": "SELECT p.productID FROM caom2.Plane AS p"}, *rest)
    words = (
        "argus was asked for columns that its answer has not: contentchecksum, contentlength, datarelease, publisherid, uri"
    )
    with pytest.raises(UserError, match=words):
        find(server, tmp_path, "979412p")
    server.tap._run = run
    assert find(server, tmp_path, "979412p")["979412p"].bytes == 50_000


@pytest.mark.parametrize(
    "uri", ["cadc:CFHT/../979412p.fits.fz", "cadc:HST/979412p.fits.fz", "cadc:CFHT/979412p.weight.fits", ""]
)
def test_files_of_other_names_are_none_of_the_exposure(server, tmp_path, uri):
    column = server.tap.tables["caom2.Artifact"]["uri"]
    assert "cadc:CFHT/979412p.fits.fz" in column.to_pylist()
    server.tap._database.execute('UPDATE "caom2.Artifact" SET uri = ? WHERE uri = ?', (uri, "cadc:CFHT/979412p.fits.fz"))
    assert find(server, tmp_path, "979412p")["979412p"].problem.startswith("CADC has no such exposure")


# --- datalink ----------------------------------------------------------------------------------------------------------


def test_datalink_is_asked_about_twenty_at_a_time(tmp_path):
    with CadcServer(tmp_path, many(45)) as server:
        found = find(server, tmp_path, datalink=True)
        assert [len(ids) for ids in server.links] == [20, 20, 5]
        assert all(file.url == f"{server.url}/raven/files/{file.uri}" and file.name[-3:] == ".fz" for file in found.values())
        paths = [request.path for request in server.requests if "datalink" in request.path]
        assert all(path.endswith("REQUEST=downloads-only") for path in paths)
        assert "ID=ivo%3A%2F%2Fcadc.nrc.ca%2FCFHT%3F800000%2F800000p&ID=" in paths[0]


def test_only_the_files_themselves_are_taken_of_the_links(server, network):
    ids = [f"ivo://cadc.nrc.ca/CFHT?{each[:-1]}/{each}" for each in ("979412p", "979414p", "5p")]
    base = f"{server.url}/raven/files/cadc:CFHT"
    assert data_links(network, f"{server.url}/caom2ops/datalink", [*ids, ids[0]]) == {
        ids[0]: Links([f"{base}/979412p.fits.fz"]),
        ids[1]: Links([f"{base}/979414p.fits", f"{base}/979414p.fits.fz"]),
        ids[2]: Links([], f"datalink: NotFoundFault: {ids[2]}"),
    }
    text = requests.get(f"{server.url}/caom2ops/datalink", {"ID": ids[0]}, timeout=5).text
    assert all(f"<TD>{each}</TD>" in text for each in ("#this", "#package", "#preview", "#cutout"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("x", "ftp://host/1p.fits", "#this")], "datalink names no file of it"),
        ([("x", "https://host/1p.fits", "#preview")], "datalink names no file of it"),
        ([("another", "https://host/1p.fits", "#this")], "datalink names no file of it"),
        ([("x", None, "#this"), ("x", "https://a:b@host/1p.fits", "#this")], ""),
    ],
)
def test_links_of_other_kinds(network, rows, words):
    names = ("ID", "access_url", "semantics")
    body = votable([pa.field(name, pa.string()) for name in names], rows)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with RawServer.saying(answer) as server:
        assert data_links(network, server.url, ["x"]) == {"x": Links([] if words else ["https://host/1p.fits"], words)}
    remember("https://host/", None)


@pytest.mark.parametrize(
    "body", [b"", b"not XML", b"<html></html>", b"<VOTABLE/>", votable([pa.field("ID", pa.string())], [])]
)
def test_an_answer_without_links_is_one_line(network, body):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with RawServer.saying(answer) as server, pytest.raises(UserError, match="does not answer with links: "):
        data_links(network, server.url, ["x"])


def test_error_messages_of_datalink_concern_their_rows(server, tmp_path, network):
    server.errors["ivo://cadc.nrc.ca/CFHT?979413/979413p"] = "FatalFault: <the\nservice> is confused"
    found = find(server, tmp_path, "979412p", "979413p", datalink=True)
    assert found["979413p"].problem == "datalink: FatalFault: <the service> is confused" and not found["979412p"].problem
    with pytest.raises(RecordError, match="is confused"):
        fetch_exposure(found["979413p"], tmp_path / "raw", network)
    assert not server.downloads("979413p.fits.fz")


def test_a_batch_that_is_refused_for_the_sake_of_one(server, tmp_path):
    server.refused["ivo://cadc.nrc.ca/CFHT?979413/979413p"] = 403
    found = find(server, tmp_path, "979412p", "979413p", "979416p", datalink=True)
    assert {name: file.problem for name, file in found.items()} == {
        "979412p": "",
        "979413p": "datalink: 403 Forbidden",
        "979416p": "",
    }


def test_datalink_that_does_not_answer(server, tmp_path, network):
    server.refused["ivo://cadc.nrc.ca/CFHT?979412/979412p"] = 500
    with pytest.raises(UserError, match="datalink does not answer: 500 Internal Server Error, 3 tries"):
        find(server, tmp_path, "979412p", "979413p", datalink=True, fetcher=network)


def test_a_file_that_only_datalink_knows_has_no_checksum(stored, tmp_path, network):
    files = changed(stored)
    with CadcServer(stored, files) as server:
        server.files = [file for file in files if file.name != "979414p.fits.fz"]
        file = find(server, tmp_path, "979414p", datalink=True)["979414p"]
        assert (file.name, file.md5, file.bytes) == ("979414p.fits", None, None)
        data = fetch_exposure(file, tmp_path / "raw", network).read_bytes()
        assert data == (stored / "979414p.fits").read_bytes()


# --- the bytes ---------------------------------------------------------------------------------------------------------


def test_a_file_comes_over_a_redirect_and_once(server, stored, tmp_path, network):
    file = find(server, tmp_path, "979412p")["979412p"]
    path = fetch_exposure(file, tmp_path / "raw", network)
    assert path == tmp_path / "raw" / "979412p.fits.fz" and path.read_bytes() == (stored / path.name).read_bytes()
    assert fetch_exposure(file, tmp_path / "raw", network) == path and server.downloads(path.name) == 1
    (request,) = server.storage.requests
    assert request.path.startswith("/minoc/files/preauth:") and request.path.endswith("/cadc:CFHT/979412p.fits.fz")


def test_a_download_that_breaks_off_goes_on_behind_the_redirect(server, stored, tmp_path, network):
    server.storage.fault("*/979412p.fits.fz", "cut", times=2)
    file = find(server, tmp_path, "979412p")["979412p"]
    path = fetch_exposure(file, tmp_path / "raw", network)
    assert path.read_bytes() == (stored / path.name).read_bytes()
    assert [request.range for request in server.storage.requests] == [None, "bytes=25000-", "bytes=37500-"]
    assert [request.status for request in server.storage.requests] == [200, 206, 206]


def test_a_wrong_checksum_is_tried_once_more_then_refused(server, stored, tmp_path, network):
    found = find(server, tmp_path, "979412p", "979413p")
    server.storage.fault("*/979412p.fits.fz", "wrong-checksum", times=1)
    assert fetch_exposure(found["979412p"], tmp_path / "raw", network).read_bytes() == (stored / NAMES[0]).read_bytes()
    server.storage.fault("*/979413p.fits.fz", "wrong-checksum")
    with pytest.raises(RecordError, match=rf"979413p.fits.fz: MD5 is [0-9a-f]{{32}}, the list says {found['979413p'].md5}"):
        fetch_exposure(found["979413p"], tmp_path / "raw", network)
    assert server.downloads("979413p.fits.fz") == 2
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["979412p.fits.fz"]


@pytest.mark.parametrize(
    ("fault", "words"), [("404", "404 Not Found"), ("503", "503 Service Unavailable, 3 tries"), ("html", "is an HTML page")]
)
def test_what_the_storage_says(server, tmp_path, network, fault, words):
    server.storage.fault("*", fault)
    with pytest.raises(RecordError, match=words) as caught:
        fetch_exposure(find(server, tmp_path, "979412p")["979412p"], tmp_path / "raw", network)
    assert "preauth" not in str(caught.value), "what opens a file is nobody's business"


@pytest.mark.parametrize(
    ("size", "words"), [(49_000, "50,000 bytes, more than the 49,000"), (51_000, "50,000 bytes, CADC says")]
)
def test_a_file_of_another_size(stored, tmp_path, network, size, words):
    with CadcServer(stored, changed(stored, _979412p={"bytes": size, "md5": None})) as server:
        with pytest.raises(RecordError, match=words):
            fetch_exposure(find(server, tmp_path, "979412p")["979412p"], tmp_path / "raw", network)
        assert not list((tmp_path / "raw").iterdir())


RUN = """
import sys, pathlib
from skyset.archives.cadc import *
from skyset.archives.fetch import Fetcher
from skyset.archives.cadc_query import ExposureQuery
folder = pathlib.Path(sys.argv[2])
(file,) = find_exposures(ExposureQuery(ids=("979412p",)), folder / "catalog", sys.argv[1])
with Fetcher() as network:
    print(fetch_exposure(file, folder / "raw", network))
"""


def test_killed_in_the_middle_of_a_download(server, stored, tmp_path, network):
    server.storage.fault("*/979412p.fits.fz", "hang", times=1)
    part = tmp_path / "raw" / "979412p.fits.fz.part"
    with imported([sys.executable, "-c", RUN, server.url, str(tmp_path)]) as process:
        wait_for(lambda: part.exists() and part.stat().st_size == 25_000)
        process.send_signal(signal.SIGKILL)
    queries = len(server.tap.queries)
    path = fetch_exposure(find(server, tmp_path, "979412p")["979412p"], tmp_path / "raw", network)
    assert path.read_bytes() == (stored / path.name).read_bytes() and not part.exists()
    assert server.storage.requests[-1].range == "bytes=25000-" and len(server.tap.queries) == queries


# --- proprietary data --------------------------------------------------------------------------------------------------


def test_proprietary_files_are_named_and_not_asked_for(stored, tmp_path, network, capsys):
    with CadcServer(stored, changed(stored, _979413p={"data_release": LATER})) as server:
        found = find(server, tmp_path, "979412p", "979413p", datalink=True)
        told = "1 of 2 exposures are proprietary and are not asked for: 979413p until 2999-08-31\n"
        assert capsys.readouterr().err.endswith(told)
        assert found["979413p"].is_proprietary() and not found["979412p"].is_proprietary()
        with pytest.raises(RecordError, match=r"^proprietary until 2999-08-31; those who may have it log in"):
            fetch_exposure(found["979413p"], tmp_path / "raw", network)
        assert not server.downloads("979413p.fits.fz") and server.links == [["ivo://cadc.nrc.ca/CFHT?979412/979412p"]]


def test_a_file_that_is_refused_is_asked_for_once(stored, tmp_path, network):
    files = changed(stored)
    with CadcServer(stored, files) as server:
        server.files = changed(stored, _979413p={"data_release": LATER})  # not what TAP says
        file = find(server, tmp_path, "979413p")["979413p"]
        words = r"979413p.fits.fz: 401 Unauthorized: not given to us; CADC says it is public since 2009-08-31"
        with pytest.raises(RecordError, match=words):
            fetch_exposure(file, tmp_path / "raw", network)
        assert server.downloads("979413p.fits.fz") == 1
        refused = dataclasses.replace(file, data_release=datetime(2999, 8, 31, tzinfo=UTC))
        with pytest.raises(RecordError, match="401 Unauthorized: proprietary until 2999-08-31"):
            fetch_exposure(refused, tmp_path / "raw", network)


def test_who_has_the_rights_logs_in(stored, tmp_path, network, capsys):
    files = changed(stored, _979413p={"data_release": LATER})
    with CadcServer(stored, files, login=("somebody", "pa ss+W0rd")) as server:
        own = server.url.replace("http://", "http://somebody:pa%20ss+W0rd@")
        query = ExposureQuery(ids=("979413p",))
        try:
            (file,) = find_exposures(query, tmp_path / "catalog", own)
            path = fetch_exposure(file, tmp_path / "raw", network)
            assert path.read_bytes() == (stored / path.name).read_bytes()
            assert server.storage.cookies == [None], "the storage is another host"
            text = str(file) + capsys.readouterr().err
            assert "W0rd" not in text and server.token not in text and "proprietary" not in text
            assert [request.path for request in server.requests].count("/ac/login") == 1
            find_exposures(query, tmp_path / "catalog", own)
            assert [request.path for request in server.requests].count("/ac/login") == 1
        finally:
            forget(server)


def test_an_account_of_netrc(stored, tmp_path, network):
    files = changed(stored, _979413p={"data_release": LATER})
    with CadcServer(stored, files, login=("somebody", "W0rdpass")) as server:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password W0rdpass\n")
        try:
            assert fetch_exposure(find(server, tmp_path, "979413p")["979413p"], tmp_path / "raw", network).exists()
        finally:
            forget(server)


def test_an_account_that_is_not_taken(server, tmp_path):
    remember(server.url, ("somebody", "W0rdpass"))
    with pytest.raises(UserError, match=r"/ac/login does not take the account of somebody$"):
        find(server, tmp_path, "979412p")
    assert not server.tap.queries


# --- what is real ------------------------------------------------------------------------------------------------------

REAL = {
    "caom2_1927963_visit_obs_start_megacam_sci.xml.gz": {
        "1927963f": (484488000, "60797b6663394c5369706293736a90cb", "2016-05-11", "f"),
        "1927963o": (364152960, "389f196f1da685c8fc4a0398305c6300", "2017-08-31", "o"),
        "1927963p": (358917120, "ac43949fe4676ffc8cc5777666c362bf", "2017-08-31", "p"),
    },
    "caom2_979412.expected.xml.gz": {
        "979412o": (1071553, "97464835ace3a452ae34a9c372aabe1f", "2009-08-31", "o"),
        "979412p": (1287337, "389cbb7e76e6106311d1c85399a7d684", "2009-08-31", "p"),
    },
}


@pytest.mark.parametrize("name", REAL)
def test_real_observations(real, tmp_path, name):
    files = caom2_files(gzip.decompress((real("megacam/cadc") / name).read_bytes()))
    with CadcServer(tmp_path, files) as server:
        found = find(server, tmp_path, *REAL[name])
        told = {key: (file.bytes, file.md5, f"{file.data_release:%Y-%m-%d}", key[-1]) for key, file in found.items()}
        assert told == REAL[name]
        assert all(Checksum.parse(file.checksum).digest == file.md5 for file in found.values())
        number, program = next(iter(found))[:-1], files[0].program
        assert list(find(server, tmp_path, programs=(program,))) == [f"{number}p"]
        assert program == {"1927963": "16AH02", "979412": "08AC14"}[number]
        assert {file.filter for file in files} == {{"1927963": "gri.MP9605", "979412": "r.MP9601"}[number]}


def test_the_capabilities_are_those_of_argus(real, server):
    def methods(document):
        root = ElementTree.fromstring(document)
        found = {each.attrib["standardID"]: each for each in root}
        tap = found["ivo://ivoa.net/std/TAP"]
        logins = {each.get("standardID") for each in tap.iter("securityMethod")}
        return {name.partition("#control")[0] for name in found if "Logging" not in name}, logins

    document = (real("megacam/cadc") / "argus_tap_capabilities.xml").read_bytes()
    assert methods(requests.get(f"{server.url}/argus/capabilities", timeout=5).content) == methods(document)


def test_what_headers_say_is_what_caom2_says(tmp_path):
    header = fits.Header({"FILTER": "r.MP9602", "EXPTIME": 60.1, "MJD-OBS": 57519.6, "OBSTYPE": "OBJECT"})
    header.update({"RUNID": "16AH02", "REL_DATE": "2017-08-31T00:00:00"})
    fits.PrimaryHDU(header=header).writeto(tmp_path / "1927963p.fits")
    (tmp_path / "labels.json").write_text("{}")
    with CadcServer(tmp_path) as server:
        (file,) = server.files
        assert (file.filter, file.exptime, file.mjd, file.type) == ("r.MP9602", 60.1, 57519.6, "OBJECT")
        assert (file.program, file.data_release, file.meta_release) == ("16AH02", "2017-08-31T00:00:00", PUBLIC)
        assert list(find(server, tmp_path, filters=("r.MP9602",), dates=("2016-05-11", "2016-05-11"))) == ["1927963p"]
