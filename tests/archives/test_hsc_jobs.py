"""Jobs of the HSC archive: asked once, found again, deleted; and what is said where they fail."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from skyset.archives import account
from skyset.archives.hsc_jobs import Query, fetch_result
from skyset.archives.hsc_service import CLIENT_VERSION
from skyset.errors import UserError
from skyset.secrets import login_of, remember
from tests.archives.jobs_server import LOGIN, JobsServer

SQL = "SELECT object_id, specz_redshift FROM pdr2_wide.specz WHERE specz_redshift < 0.35"
ROWS = "# object_id,specz_redshift\n36407053045309821,0.1\n36407053045309822,0.2\n36407053045309823,0.30000000000000004\n"


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    """The account in the variables."""
    monkeypatch.setenv(account.USER, LOGIN[0])
    monkeypatch.setenv(account.PASSWORD, LOGIN[1])


@pytest.fixture
def server():
    with JobsServer() as server:
        yield server
    remember(server.url, None)


class Clock(list):
    """The seconds that were waited; ``then`` is called at each."""

    def __init__(self, then=lambda: None):
        super().__init__()
        self.then = then

    def __call__(self, seconds):
        self.append(seconds)
        self.then()


def fetch(server, folder, sql=SQL, sleep=None, **options):
    return fetch_result(Query(server.url, sql), folder, sleep=Clock() if sleep is None else sleep, **options)


def fails(server, folder, sql=SQL, sleep=None):
    """The error's line; nothing of the account is in it or in the folder."""
    with pytest.raises(UserError) as raised:
        fetch(server, folder, sql, sleep)
    error = raised.value
    while error is not None:
        assert LOGIN[1] not in str(error) + repr(error)
        error = error.__cause__
    assert not any(LOGIN[1].encode() in path.read_bytes() for path in folder.iterdir())
    return str(raised.value)


def names(folder):
    return sorted(path.suffix for path in folder.iterdir())


def test_a_result_is_downloaded_and_its_job_deleted(server, tmp_path, capsys):
    path = fetch(server, tmp_path)
    assert gzip.decompress(path.read_bytes()).decode() == ROWS
    jobs = server.jobs
    assert dict(jobs.requests) == {"submit": 1, "download": 1, "delete": 1}
    assert jobs.submitted == jobs.downloads == jobs.deleted == [780001]
    assert names(tmp_path) == [".gz"]
    assert capsys.readouterr().err == f"job 780001 is submitted at {server.url}\n"
    assert fetch(server, tmp_path) == path and jobs.requests.total() == 3, "what is there is not asked for again"


def test_what_is_sent(server, tmp_path):
    fetch(server, tmp_path)
    assert server.jobs.bodies[0] == (
        "submit",
        {
            "clientVersion": CLIENT_VERSION,
            "nomail": True,
            "skip_syntax_check": False,
            "catalog_job": {
                "sql": SQL,
                "out_format": "csv.gz",
                "include_metainfo_to_body": False,
                "release_version": "pdr2",
            },
        },
    )
    assert server.jobs.bodies[1:] == [
        (name, {"clientVersion": CLIENT_VERSION, "id": 780001}) for name in ("download", "delete")
    ]
    assert all(headers["Content-Type"] == "application/json" for headers in server.headers)
    assert not any("Authorization" in headers for headers in server.headers), "the account is in the body alone"


def test_a_job_may_be_kept(server, tmp_path):
    fetch(server, tmp_path, keep_job=True)
    assert server.jobs.deleted == [] and names(tmp_path) == [".gz", ".job"]
    fetch(server, tmp_path, keep_job=True)
    assert server.jobs.requests.total() == 2
    fetch(server, tmp_path)
    assert server.jobs.deleted == [780001] and names(tmp_path) == [".gz"]


def test_looks_become_rarer_from_one_second_to_five_minutes(tmp_path):
    with JobsServer(queue=["waiting"] * 4 + ["running"] * 8) as server:
        clock = Clock()
        fetch(server, tmp_path, sleep=clock)
    assert clock == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_another_query_or_release_is_another_result(server, tmp_path):
    one, other = fetch(server, tmp_path), fetch(server, tmp_path, SQL.replace("0.35", "0.15"))
    assert gzip.decompress(other.read_bytes()).decode().count("\n") == 2 and one != other
    with pytest.raises(UserError, match=r"406.*pdr9"):
        fetch_result(Query(server.url, SQL, "pdr9"), tmp_path, sleep=Clock())


# --- a killed process finds its job again ----------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from skyset.archives.hsc_jobs import Query, fetch_result
print(fetch_result(Query(sys.argv[1], sys.argv[2]), Path(sys.argv[3]), sleep=lambda seconds: input()))
"""


def test_killed_while_the_job_runs_and_again(tmp_path):
    with JobsServer(queue=("waiting", "running", "running")) as server:
        command = [sys.executable, "-c", SCRIPT, server.url, SQL, str(tmp_path)]
        for looks in (1, 1):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wanted = server.jobs.requests["status"] + looks
            process.stdin.write(b"\n" * looks)
            process.stdin.flush()
            deadline = time.monotonic() + 60
            while server.jobs.requests["status"] < wanted and time.monotonic() < deadline:
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            kept = [json.loads(path.read_text()) for path in tmp_path.glob("*.job")]
            assert kept == [{"id": 780001, "query": Query(server.url, SQL).digest()}]
        ended = subprocess.run(command, input=b"\n" * 9, capture_output=True, check=True)
        assert ended.stderr.decode().startswith("job 780001 of an earlier run is ")
        assert server.jobs.submitted == server.jobs.deleted == [780001]
        assert gzip.decompress(next(tmp_path.glob("*.gz")).read_bytes()).decode() == ROWS


def test_killed_before_its_job_was_deleted(server, tmp_path):
    path = fetch(server, tmp_path, keep_job=True)
    data = path.read_bytes()
    assert fetch(server, tmp_path).read_bytes() == data
    assert server.jobs.deleted == [780001] and server.jobs.downloads == [780001] and names(tmp_path) == [".gz"]


def test_a_result_that_is_there_needs_no_account(server, tmp_path, monkeypatch):
    path = fetch(server, tmp_path, keep_job=True)
    remember(server.url, None)
    monkeypatch.delenv(account.USER)
    monkeypatch.delenv(account.PASSWORD)
    monkeypatch.setattr("sys.stdin", None)
    assert fetch(server, tmp_path) == path


@pytest.mark.parametrize("forget", [False, True])
def test_a_job_deleted_before_the_next_run_is_submitted_again(server, tmp_path, forget):
    path = fetch(server, tmp_path, keep_job=True)
    path.unlink()
    server.jobs.lose(780001, forget)
    assert gzip.decompress(fetch(server, tmp_path).read_bytes()).decode() == ROWS
    assert server.jobs.submitted == [780001, 780002] and server.jobs.deleted == [780002]


@pytest.mark.parametrize("forget", [False, True])
def test_a_job_deleted_while_it_runs_is_submitted_again(tmp_path, forget):
    with JobsServer(queue=("waiting", "running")) as server:
        clock = Clock(lambda: len(clock) == 1 and server.jobs.lose(780001, forget))
        assert gzip.decompress(fetch(server, tmp_path, sleep=clock).read_bytes()).decode() == ROWS
        assert server.jobs.submitted == [780001, 780002]


def test_a_job_that_is_always_deleted_is_given_up(tmp_path):
    with JobsServer(queue=("waiting", "running")) as server:
        text = fails(server, tmp_path, sleep=Clock(lambda: server.jobs.lose(max(server.jobs.jobs))))
        assert text.endswith("its job was deleted 3 times before its result was here") and len(server.jobs.submitted) == 3


def test_an_id_that_meets_errors_alone_is_given_up_for_a_new_job(server, tmp_path):
    fetch(server, tmp_path, keep_job=True).unlink()
    server.jobs.fail("status", 500, times=6)
    fetch(server, tmp_path)
    assert server.jobs.submitted == [780001, 780002]


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"id": "780001", "query": "x"}', "\x00\xff", '{"id": 780001, "query": "other"}']
)
def test_a_damaged_note_of_a_job_is_none(server, tmp_path, content):
    (tmp_path / f"{Query(server.url, SQL).digest()}.job").write_text(content)
    fetch(server, tmp_path)
    assert server.jobs.submitted == [780001] and names(tmp_path) == [".gz"]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_one_line_and_nothing_is_kept(server, tmp_path, monkeypatch):
    wrong = "hello"
    monkeypatch.setenv(account.PASSWORD, wrong)
    server.jobs.fail("submit", 401, text=f"Invalid password {wrong} of {LOGIN[0]}")
    text = fails(server, tmp_path)
    assert (
        "does not take the account (SSP_PDR_USR and SSP_PDR_PWD" in text and "401 Unauthorized: Invalid password ***" in text
    )
    assert wrong not in text and "\n" not in text
    assert login_of(server.url) is None and list(tmp_path.iterdir()) == []
    text = fails(server, tmp_path)
    assert "401 Unauthorized: Invalid account name or password" in text and server.jobs.requests["submit"] == 2


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT object_ID, nosuch FROM pdr2_wide.forced", '406 Not Acceptable: ERROR: column "nosuch" does not exist'),
        ("SELECT ra FROM pdr2_wide.forced9", 'relation "pdr2_wide.forced9" does not exist'),
        ("SELECT ra FRM pdr2_wide.forced", "syntax error at or near"),
        ("DROP TABLE pdr2_wide.forced", "only SELECT"),
        ("SELECT 1; SELECT 2", "one SELECT"),
    ],
)
def test_a_refused_query_is_shown_in_the_services_words(server, tmp_path, sql, words):
    assert words in fails(server, tmp_path, sql)
    assert server.jobs.submitted == [] and server.jobs.requests["submit"] == 1


def test_a_quota_is_shown_in_the_services_words(server, tmp_path):
    server.jobs.quota = "Your quota of 10 GB is exceeded: delete some jobs"
    assert fails(server, tmp_path).endswith("406 Not Acceptable: Your quota of 10 GB is exceeded: delete some jobs")


def test_a_proxy_that_is_down_for_a_moment_is_asked_again(server, tmp_path):
    for action in ("submit", "download", "delete"):
        server.jobs.fail(action, 502, times=2)
    clock = Clock()
    assert gzip.decompress(fetch(server, tmp_path, sleep=clock).read_bytes()).decode() == ROWS
    assert clock == [1, 2] * 3 and server.jobs.submitted == [780001]


def test_a_proxy_that_stays_down_is_told(server, tmp_path):
    server.jobs.fail("submit", 502, times=99)
    clock = Clock()
    text = fails(server, tmp_path, sleep=clock)
    assert text.endswith("502 Bad Gateway: The proxy server received an invalid response, 6 tries") and len(clock) == 5


def test_a_page_of_500_is_told_and_no_second_job_is_made(server, tmp_path):
    server.jobs.fail("submit", 500, times=9)
    assert "500 Internal Server Error: The proxy server" in fails(server, tmp_path) and server.jobs.requests["submit"] == 1


def test_an_answer_of_json_that_is_no_job_is_told(server, tmp_path):
    server.jobs.fail("submit", 200, text='{"state": "fine"}')
    assert fails(server, tmp_path).endswith('the answer tells of no job: {"state": "fine"}')
    assert server.jobs.requests["submit"] == 1


def test_a_job_in_a_job_is_understood(server, tmp_path):
    server.jobs.fail("submit", 200, text=json.dumps({"job": {"id": "780001", "status": "running"}}))
    server.jobs.fail("status", 200, text=json.dumps({"job": {"id": "780001", "status": "aborted", "error": "out of disk"}}))
    assert fails(server, tmp_path).endswith("job 780001 ended as aborted: out of disk")


@pytest.mark.parametrize("status", ["error", "canceled", "aborted"])
def test_a_job_that_fails_is_told_in_its_words_and_forgotten(tmp_path, status):
    with JobsServer(queue=("waiting", "running")) as server:
        server.jobs.end(status, "canceling statement due to statement timeout")
        text = fails(server, tmp_path)
        assert text.endswith(f"job 780001 ended as {status}: canceling statement due to statement timeout")
        assert list(tmp_path.iterdir()) == []
        fetch(server, tmp_path)
        assert server.jobs.submitted == [780001, 780002]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_download_that_is_cut_is_asked_for_again(server, tmp_path, share):
    server.jobs.cut(times=2, share=share)
    assert gzip.decompress(fetch(server, tmp_path).read_bytes()).decode() == ROWS
    assert server.jobs.downloads == [780001] * 3 and server.jobs.submitted == [780001]


@pytest.mark.parametrize(
    "body", [b"", b"object_id\n1\n", gzip.compress(b"x" * 999, mtime=0)[:-5], b"<html><body>Maintenance</body></html>"]
)
def test_a_result_that_is_no_whole_file_never_gets_its_name(server, tmp_path, body, monkeypatch):
    answer = server.jobs.answer
    monkeypatch.setattr(
        server.jobs, "answer", lambda action, asked: (200, {}, body) if action == "download" else answer(action, asked)
    )
    text = fails(server, tmp_path)
    assert ("the result was cut after" in text or "the result is" in text) and text.endswith("6 tries")
    assert names(tmp_path) == [".job"], "the next run goes on with the job"


def test_another_host_does_not_get_the_account(server, tmp_path):
    with JobsServer() as other:
        server.redirects["submit"] = f"{other.url}/datasearch/api/catalog_jobs/submit"
        assert f"sends us to {other.url}/datasearch" in fails(server, tmp_path)
        assert other.headers == []


def test_the_archive_may_move_within_itself_but_not_out_of_its_api(server, tmp_path):
    server.redirects["submit"] = "/elsewhere/submit"
    assert "is it the HSC archive?" in fails(server, tmp_path)
    server.redirects["submit"] = "/datasearch/api/catalog_jobs/submit?again"
    server.redirects["submit?again"] = "/datasearch/api/catalog_jobs/submit"
    assert "more than 5 redirects" in fails(server, tmp_path)


def test_nobody_there(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        UserError, match=rf"^http://127\.0\.0\.1:{port}/datasearch/api/catalog_jobs/: Connection refused, 6 tries$"
    ):
        fetch_result(Query(f"http://127.0.0.1:{port}", SQL), tmp_path, sleep=Clock())


def test_no_thread_is_left(server, tmp_path):
    before = {thread.name for thread in threading.enumerate()}
    fetch(server, tmp_path)
    assert "hsc watch" not in {thread.name for thread in threading.enumerate()} - before


@pytest.mark.parametrize("url", ["ftp://archive.example.org", "http://[archive", "http://archive.example.org:x"])
def test_what_is_no_address_is_not_asked_again(url, tmp_path):
    clock = Clock()
    with pytest.raises((UserError, ValueError)) as caught:
        fetch_result(Query(url, SQL), tmp_path, sleep=clock)
    assert isinstance(caught.value, UserError), caught.value
    assert LOGIN[1] not in str(caught.value)
