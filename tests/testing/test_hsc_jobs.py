"""The simulated job API is as strict as the real one; what it says is checked without our client."""

import csv
import gzip
import io
import json
import sqlite3
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from astropy.io import fits

from skyset.testing.hsc import HscArchive
from skyset.testing.hsc_blobs import BlobSky
from skyset.testing.hsc_jobs import Jobs
from tests.archives.jobs_server import Sky

SQL = (
    "SELECT object_id, ra, g_cmodel_mag, specz_name, specz_flag_homogeneous "
    "FROM pdr2_wide.forced LEFT JOIN pdr2_wide.specz USING (object_id)"
)
ID = 36407053045309821


@pytest.fixture
def jobs():
    sky = Sky(3)
    sky.columns["specz_redshift"][1] = np.nan
    sky.columns["g_cmodel_mag"][2] = np.nan
    return Jobs(sky, login=("user", "pass"), queue=("waiting", "running"))


def ask(jobs, action, **fields):
    """Status, headers and body; of JSON, what it says."""
    asked = {"credential": {"account_name": "user", "password": "pass"}, "clientVersion": 20190924.1}
    status, headers, body = jobs.answer(action, json.dumps(asked | fields).encode())
    return status, headers["Content-Type"].partition(";")[0], json.loads(body) if "json" in headers["Content-Type"] else body


def submit(jobs, sql=SQL, out_format="csv", skip=False, release="pdr2", **more):
    job = {"sql": sql, "out_format": out_format, "include_metainfo_to_body": False, "release_version": release} | more
    return ask(jobs, "submit", nomail=True, skip_syntax_check=skip, catalog_job=job)


def result(jobs, out_format, **more):
    """The bytes of a job that is done."""
    job = submit(jobs, out_format=out_format, **more)[2]["id"]
    while ask(jobs, "status", id=job)[2]["status"] != "done":
        pass
    return ask(jobs, "download", id=job)[2]


def test_a_job_goes_through_the_queue(jobs):
    status, kind, told = submit(jobs)
    assert (status, kind) == (200, "application/json")
    assert told == {"id": 780001, "status": "waiting", "sql": SQL, "out_format": "csv"}
    assert [ask(jobs, "status", id=780001)[2]["status"] for _ in range(4)] == ["running", "done", "done", "done"]
    assert ask(jobs, "download", id=780001)[0] == 200
    assert ask(jobs, "delete", id=780001)[0] == 200
    assert ask(jobs, "status", id=780001)[2]["status"] == "deleted"
    assert ask(jobs, "download", id=780001)[0] == 404
    assert dict(jobs.requests) == {"submit": 1, "status": 5, "download": 2, "delete": 1}


@pytest.mark.parametrize("version", ["20190924.1", None, True, [1]])
def test_the_version_is_a_number_or_there_is_a_page_of_500(jobs, version):
    status, kind, page = ask(jobs, "status", id=1, clientVersion=version)
    assert (status, kind) == (500, "text/html") and b"<html>" in page


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"sql=SELECT", b'{"clientVersion": NaN'])
def test_what_is_no_json_is_a_page_of_500(jobs, body):
    assert jobs.answer("submit", body)[0] == 500


@pytest.mark.parametrize("credential", [None, {}, {"account_name": "user", "password": "past"}, "user:pass"])
def test_the_account_is_in_the_body(jobs, credential):
    assert ask(jobs, "status", id=1, credential=credential)[:2] == (401, "text/plain")


@pytest.mark.parametrize("missing", ["sql", "out_format", "release_version", "include_metainfo_to_body"])
def test_every_field_of_a_job_is_needed(jobs, missing):
    assert submit(jobs, **{missing: None})[0] == 500
    assert jobs.submitted == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out_format": "votable"}, "Out format: votable"),
        ({"release": "pdr7"}, "Release version: pdr7"),
        ({"sql": "SELECT g_cmodel_flux FROM pdr2_wide.forced"}, 'ERROR:  column "g_cmodel_flux" does not exist'),
        ({"sql": "SELECT object_id FROM pdr2_dud.forced"}, 'ERROR:  relation "pdr2_dud.forced" does not exist'),
        ({"sql": "SELECT forced.ra FROM pdr2_wide.specz"}, 'ERROR:  column "forced.ra" does not exist'),
        ({"sql": "SELECT object_id FROM pdr2_wide.forced WHERE"}, "ERROR:  "),
        ({"sql": "PRAGMA table_info(forced)"}, "only SELECT"),
        ({"sql": "WITH x AS (SELECT 1) DELETE FROM pdr2_wide.forced"}, "permission denied"),
        ({"sql": "SELECT conesearch(1)"}, "ERROR:  function conesearch does not exist"),
    ],
)
def test_what_cannot_run_is_refused_before_it_does(jobs, options, words):
    status, kind, text = submit(jobs, **options)
    assert (status, kind) == (406, "text/plain") and words in text.decode()
    assert jobs.submitted == []


def test_without_the_check_a_wrong_query_fails_later(jobs):
    told = submit(jobs, "SELECT nosuch FROM pdr2_wide.forced", skip=True)[2]
    assert told["status"] == "waiting" and "error" not in told
    assert ask(jobs, "status", id=told["id"])[2]["status"] == "running"
    told = ask(jobs, "status", id=told["id"])[2]
    assert (told["status"], told["error"]) == ("error", 'ERROR:  column "nosuch" does not exist')
    assert ask(jobs, "download", id=told["id"])[0] == 406


def test_csv_as_the_service_writes_it(jobs):
    text = result(jobs, "csv").decode()
    assert text == (
        "# object_id,ra,g_cmodel_mag,specz_name,specz_flag_homogeneous\n"
        f"{ID},30.1,21.3,SDSS-DR14-0,True\n"
        f"{ID + 1},30.200000000000003,21.3625,,\n"
        f"{ID + 2},30.3,nan,SDSS-DR14-2,True\n"
    )
    assert gzip.decompress(result(jobs, "csv.gz")).decode() == text
    *comments, names, first = result(jobs, "csv", include_metainfo_to_body=True).decode().splitlines()[:5]
    assert all(line.startswith("#") for line in comments) and names.startswith("# object_id,") and first.startswith(str(ID))


def test_sqlite_and_fits_hold_the_same_rows(jobs, tmp_path):
    rows = list(csv.reader(io.StringIO(result(jobs, "csv").decode())))[1:]
    (tmp_path / "r.sqlite3").write_bytes(result(jobs, "sqlite3"))
    file = sqlite3.connect(tmp_path / "r.sqlite3")
    found = file.execute("SELECT * FROM table_1").fetchall()
    file.close()
    assert (
        [row[0] for row in found] == [int(row[0]) for row in rows] and found[1][3:] == (None, None) and found[2][2] is None
    )
    with fits.open(io.BytesIO(result(jobs, "fits"))) as hdus:
        table = hdus[1].data
        assert [column.format for column in hdus[1].columns][:5:2] == ["K", "D", "E"]
        assert table["object_id"].tolist() == [ID, ID + 1, ID + 2]
        assert table["specz_name_isnull"].tolist() == [False, True, False]
        assert table["g_cmodel_mag_isnull"].tolist() == [False, False, True] and table["ra"][0] == 30.1


def test_a_preview_has_a_hundred_rows_of_text():
    jobs = Jobs(Sky(120))
    told = ask(
        jobs, "preview", catalog_job={"sql": "SELECT object_id, ra FROM pdr2_wide.forced", "release_version": "pdr2"}
    )[2]
    assert told["result"]["fields"] == ["object_id", "ra"] and told["result"]["count"] == 120
    assert len(told["result"]["rows"]) == 100 and told["result"]["rows"][0] == [str(ID), "30.1"]
    jobs.fail("preview", 406, text="ERROR:  canceling statement due to statement timeout")
    assert ask(jobs, "preview", catalog_job={"sql": "SELECT 1", "release_version": "pdr2"})[0] == 406


def test_a_canceled_job_stays_so(jobs):
    job = submit(jobs)[2]["id"]
    assert ask(jobs, "cancel", id=job)[2]["status"] == ask(jobs, "status", id=job)[2]["status"] == "canceled"


def test_ids_and_actions_that_are_not_there(jobs):
    assert ask(jobs, "status", id=5)[0] == 404 and ask(jobs, "status", id="780001")[0] == 500
    assert ask(jobs, "list")[0] == 404 and jobs.requests["list"] == 1


def test_faults_on_demand(jobs):
    jobs.fail("submit", 502, times=2)
    assert [submit(jobs)[0] for _ in range(3)] == [502, 502, 200]
    jobs.quota = "quota exceeded"
    assert submit(jobs)[2] == b"quota exceeded" and jobs.submitted == [780001]
    jobs.quota = ""
    jobs.end("canceled", "by the operator")
    job = submit(jobs)[2]["id"]
    assert [ask(jobs, "status", id=job)[2]["status"] for _ in range(2)] == ["running", "canceled"]
    jobs.lose(780001, forget=True)
    assert ask(jobs, "status", id=780001)[0] == 404


def test_a_cut_result_behind_the_archives_server():
    sky = BlobSky(5)
    jobs = Jobs(sky, queue=())
    with HscArchive(sky, jobs=jobs) as server:

        def post(action, **fields):
            asked = {"credential": {"account_name": "user", "password": "pass"}, "clientVersion": 1, **fields}
            address = f"{server.url}/datasearch/api/catalog_jobs/{action}"
            with urllib.request.urlopen(urllib.request.Request(address, json.dumps(asked).encode())) as answer:
                return answer.read()

        job = {"sql": SQL, "out_format": "csv", "include_metainfo_to_body": False, "release_version": "pdr2"}
        told = json.loads(post("submit", nomail=True, skip_syntax_check=False, catalog_job=job))
        jobs.cut()
        with pytest.raises(Exception, match="IncompleteRead"):
            post("download", id=told["id"])
        assert post("download", id=told["id"]).count(b"\n") == 6
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            post("status", id=1)
        refused.value.close()


def test_many_threads_at_once(jobs):
    found = []
    threads = [threading.Thread(target=lambda: found.append(len(result(jobs, "csv").splitlines()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [4] * 8 and len(set(jobs.submitted)) == 8
