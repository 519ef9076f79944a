"""Sliced catalogues: every row once, whatever the service does, or an error in the service's own words."""

import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from contextlib import closing
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pyvo
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.archives import tap as module
from skyset.archives.tap import SlicedQuery, TapError, fetch_slices
from skyset.build_scripts.sdss_galaxy_zoo.catalog import ZOOSPEC
from skyset.errors import UserError
from skyset.tables.slices import read_slices
from skyset.testing import dachs
from skyset.testing.sdss import draw_galaxies
from skyset.testing.server import Answer, RawServer
from skyset.testing.tap import TapServer
from tests.processes import imported, wait_for

ADQL = "SELECT objID, ra, name FROM sdss.photo WHERE ra >= {low} AND ra < {high}"
FIRST_ID = 587722984435351614
IDS = st.integers(-(2**63), 2**63 - 1)


def galaxies(rows: int = 200) -> pa.Table:
    """Ids beyond 2**53, some null; rows on the borders of slices and at both ends of the circle."""
    dice = np.random.default_rng(0)
    ids = FIRST_ID + np.arange(rows)
    ids[::7] *= -1
    borders = [0.0, 60.0, 90.0, 120.0, 359.9999999, 360.0]
    ra = np.r_[borders, dice.uniform(0, 360, rows - len(borders))]
    names = pa.array([f"a<{i}>&é" if i % 3 else None for i in range(rows)])
    fields = [
        pa.field("objID", pa.int64(), metadata={"description": "SDSS id"}),
        pa.field("ra", pa.float64(), metadata={"unit": "deg"}),
        pa.field("name", pa.string()),
    ]
    return pa.table([pa.array(ids, mask=dice.random(rows) < 0.1), pa.array(ra), names], schema=pa.schema(fields))


GALAXIES = galaxies()


@pytest.fixture
def server():
    with TapServer({"sdss.photo": GALAXIES}) as running:
        yield running


@pytest.fixture
def session():
    """A session for pyvo, which leaves answers open."""
    answers = []
    with requests.Session() as made:
        made.hooks["response"].append(lambda answer, **_: answers.append(answer))
        yield made
        for answer in answers:
            answer.close()


def asked(server: TapServer, adql: str = ADQL, **changes) -> SlicedQuery:
    return SlicedQuery(server.url, adql, **{"slices": 6, **changes})


def quick(query: SlicedQuery, folder: Path, **changes):
    """`fetch_slices` that loses no time in tests."""
    return fetch_slices(query, folder, **{"poll": 0.02, "backoff": 0, "retries": 2, **changes})


def is_whole(paths: list[Path], table: pa.Table = GALAXIES) -> bool:
    """Whether the files have each row of the table once."""
    return read_slices(paths).sort_by("ra").to_pydict() == table.sort_by("ra").to_pydict()


def kept(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*/*{suffix}"))


def job_file(query: SlicedQuery, folder: Path, low: float, high: float) -> Path:
    path = folder / query.digest() / f"{low:013.9f}-{high:013.9f}.job"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def tap_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("tap")]


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("serialisation", ["TABLEDATA", "BINARY2"])
def test_every_row_comes_once_in_order_and_jobs_are_deleted(tmp_path, sync, serialisation):
    with TapServer({"sdss.photo": GALAXIES}, serialisation=serialisation) as server:
        paths = list(quick(asked(server), tmp_path, sync=sync))
        assert len(paths) == 6 and paths == sorted(paths) == kept(tmp_path, ".parquet")
        assert is_whole(paths)
        assert sorted(server.service.deleted) == sorted(server.service.created)
        assert len(server.service.created) == (0 if sync else 6)
        assert {path.suffix for path in paths[0].parent.iterdir()} == {".parquet"}
        assert not tap_threads()


def test_a_slice_tells_where_it_comes_from(server, tmp_path):
    first = next(quick(asked(server), tmp_path))
    notes = pq.read_schema(first).metadata
    assert notes[b"url"].decode() == server.url
    assert notes[b"query"] == b"SELECT objID, ra, name FROM sdss.photo WHERE ra >= 0.0 AND ra < 60.0"
    assert int(notes[b"rows"]) == pq.read_metadata(first).num_rows > 0
    assert notes[b"time"].startswith(b"20") and notes[b"time"].endswith(b"+00:00")
    assert pq.read_schema(first).field("ra").metadata[b"unit"] == b"deg"


def test_the_service_sees_who_asks(server, tmp_path):
    seen = []
    answer = server.service.answer
    server.service.answer = lambda *args: seen.append(args[3]["User-Agent"]) or answer(*args)
    list(quick(asked(server, slices=1), tmp_path))
    assert seen and all(agent.startswith("skyset") for agent in seen)


def test_a_second_run_asks_nothing(server, tmp_path):
    server.service.row_limit = 12  # of about 33 in a slice
    paths = list(quick(asked(server), tmp_path))
    assert len(paths) > 12 and is_whole(paths)
    assert paths == sorted(paths)
    assert len(kept(tmp_path, ".halved")) == len(paths) - 6
    count = len(server.requests)
    assert list(quick(asked(server), tmp_path)) == paths
    assert list(quick(asked(server, maxrec=5), tmp_path)) == paths
    assert len(server.requests) == count


@pytest.mark.parametrize("sync", [False, True])
def test_as_many_rows_as_maxrec_are_not_taken_for_all(server, tmp_path, sync):
    server.service.row_limit = 10**6
    server.service.says_overflow = False
    paths = list(quick(asked(server, maxrec=20), tmp_path, sync=sync))
    assert len(paths) > 6 and is_whole(paths)


def test_an_overflow_halves_until_it_has_no_meaning(tmp_path):
    stars = pa.table({"objID": pa.array(range(9), pa.int64()), "ra": [10.0] * 9, "name": [""] * 9})
    with TapServer({"sdss.photo": stars}, row_limit=5) as server:
        query = asked(server, low=9.9995, high=10.0005, slices=1)
        with pytest.raises(TapError, match=r"10\.0 to 10\.000\d* degrees: more rows .* raise --maxrec"):
            list(quick(query, tmp_path))
        assert len(server.service.deleted) == len(server.service.created) < 12
        server.service.row_limit = None
        server.service.clear()
        assert read_slices(list(quick(query, tmp_path))).num_rows == 9
        assert all("AND ra < 10.0005" not in adql or "ra >= 9.9995" not in adql for adql in server.service.queries)


def test_only_some_slices_are_fetched_ahead(server, tmp_path):
    server.service.executing = 0.02
    with closing(quick(asked(server, slices=40), tmp_path, connections=3)) as slices:
        next(slices)
        time.sleep(0.3)
        assert len(server.service.created) <= 4
        next(slices)
    assert server.service.max_jobs <= 3
    assert sorted(server.service.deleted) == sorted(server.service.created)


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("async", "500"),
        ("async", "503"),
        ("async", "429"),
        ("async", "html"),
        ("async/*/phase", "502"),
        ("async/[0-9]", "500"),
        ("async/[0-9]", "cut"),
        ("async/[0-9]", "truncated"),
        ("async/[0-9]", "html"),
        ("async/[0-9]", "hang"),
        ("async/[0-9]", "silence"),
        ("async/*/results/result", "cut"),
        ("async/*/results/result", "truncated"),
        ("async/*/results/result", "html"),
        ("async/*/results/result", "hang"),
        ("async/*/results/result", "503"),
        ("async/*/results/result", "404"),
        ("sync", "429"),
        ("sync", "500"),
        ("sync", "503"),
        ("sync", "cut"),
        ("sync", "truncated"),
        ("sync", "html"),
    ],
)
def test_failures_that_pass_cost_one_slice_a_little(server, tmp_path, monkeypatch, pattern, kind):
    monkeypatch.setattr(module, "PATIENCE", (5, 1 if kind in ("hang", "silence") else 60))
    server.fault(pattern, kind, times=2)
    assert is_whole(list(quick(asked(server), tmp_path, sync=pattern == "sync")))
    assert len(server.service.queries) <= 8
    assert {path.suffix for path in kept(tmp_path, "")} <= {".parquet"}


def test_a_refused_connection_is_told_after_some_tries(tmp_path):
    with TapServer({"sdss.photo": GALAXIES}) as server:
        pass
    for sync in (False, True):
        with pytest.raises(TapError, match=r"0\.0 to 60\.0 degrees: Connection refused, 3 tries"):
            list(quick(asked(server), tmp_path, sync=sync))


@pytest.mark.parametrize("sync", [False, True])
def test_retry_after_is_waited_for(server, tmp_path, sync):
    server.fault("*sync", "429", times=1, retry_after=1)
    start = time.monotonic()
    assert len(list(quick(asked(server, slices=1), tmp_path, sync=sync))) == 1
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize(
    ("adql", "words"),
    [
        ("SELECT objID FORM sdss.photo WHERE ra >= {low} AND ra < {high}", "not parse your query: unexpected sdss.photo"),
        ("SELECT objID FROM sdss.stars WHERE ra >= {low} AND ra < {high}", "no such table: sdss.stars"),
        ("SELECT flux FROM sdss.photo WHERE ra >= {low} AND ra < {high}", "no such column: flux"),
    ],
)
def test_a_wrong_query_stops_at_once_in_the_service_s_words(server, tmp_path, adql, words, sync):
    with pytest.raises(TapError) as caught:
        list(quick(asked(server, adql), tmp_path, sync=sync, connections=1, retries=5, backoff=60))
    text = str(caught.value)
    assert words in text and server.url in text and "0.0 to 60.0 degrees" in text and "\n" not in text
    assert len(server.service.queries) <= 2  # the wrong one, and the one begun ahead
    assert sorted(server.service.deleted) == sorted(server.service.created)
    assert not kept(tmp_path, "")


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [
        ("400", "Column <b> & c is unknown", "400 Bad Request: Column <b> & c is unknown"),
        ("500", "Cannot parse query", "500 Internal Server Error: Cannot parse query"),
        ("403", "", "403 Forbidden"),
        ("404", "", "404 Not Found"),
    ],
)
def test_refusals_by_http_stop_at_once(server, tmp_path, status, words, expected, sync):
    server.fault("*sync", status, words=words)
    with pytest.raises(TapError, match=expected):
        list(quick(asked(server), tmp_path, sync=sync, connections=1, retries=5, backoff=60))
    assert len(server.requests) <= 2


def test_a_job_s_error_gets_another_try_only_if_it_may_pass(server, tmp_path):
    server.fault("*ra >= 0.0 *", "error", times=1, words="The database is temporarily not available")
    server.fault("*ra >= 60.0 *", "aborted", times=1)
    assert is_whole(list(quick(asked(server), tmp_path, connections=2)))
    assert len(server.service.created) == 8


@pytest.mark.parametrize(
    ("words", "jobs"),
    [("The database connection timed out", 2), ("Function POINT is not defined", 1)],
)
def test_a_job_that_fails_again_is_an_error(server, tmp_path, words, jobs):
    server.fault("*ra >= 0.0 *", "error", words=words)
    with pytest.raises(TapError, match=words):
        list(quick(asked(server, slices=1), tmp_path, retries=5))
    assert server.service.created == server.service.deleted and len(server.service.created) == jobs


def test_a_job_that_the_service_loses_is_submitted_again(server, tmp_path):
    server.fault("*ra >= 60.0 *", "lost", times=1)
    assert is_whole(list(quick(asked(server), tmp_path)))
    assert len(server.service.created) == 7


def test_a_job_that_takes_too_long_is_aborted(server, tmp_path):
    server.fault("*", "slow")
    start = time.monotonic()
    with pytest.raises(TapError, match=r"the job is EXECUTING after 0\.3 s and was aborted"):
        list(quick(asked(server), tmp_path, timeout=0.3))
    assert time.monotonic() - start < 60  # of 3600
    assert sorted(server.service.deleted) == sorted(server.service.created)
    assert not kept(tmp_path, ".job")


def test_an_answer_without_end_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 500)
    with pytest.raises(TapError, match="more than 500 bytes"):
        list(quick(asked(server), tmp_path))


def test_closing_early_deletes_the_jobs_and_ends_the_threads(server, tmp_path):
    list(quick(asked(server, slices=1, low=0, high=60), tmp_path))
    server.service.executing = 30
    slices = quick(asked(server), tmp_path, poll=30)
    next(slices)  # there already; the next ones are on their way
    wait_for(lambda: server.service.max_jobs >= 4)
    start = time.monotonic()
    slices.close()
    assert time.monotonic() - start < 20  # of 30
    assert not tap_threads()
    assert sorted(server.service.deleted) == sorted(server.service.created)
    assert not kept(tmp_path, ".job")


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [("async/[0-9]*", "silence"), ("async/*/results/result", "hang"), ("sync", "hang"), ("sync", "silence")],
)
def test_closing_wakes_threads_that_wait_for_a_silent_service(server, tmp_path, pattern, kind):
    sync = pattern == "sync"
    list(quick(asked(server, slices=1, low=0, high=60), tmp_path, sync=sync))
    server.fault(pattern, kind)
    slices = quick(asked(server), tmp_path, sync=sync)
    next(slices)
    time.sleep(0.3)
    start = time.monotonic()
    slices.close()
    # Of 60, or of 3600; deletions that get no answer either are waited for, all at once, for 7 s.
    assert time.monotonic() - start < 20
    assert not tap_threads()


def end_jobs(server: TapServer) -> None:
    """Let every job be complete."""
    for job in server.service._jobs.values():
        job.executing = 0.0


KILLED = """
import sys
from skyset.archives.tap import SlicedQuery, fetch_slices
url, adql, folder = sys.argv[1:]
for path in fetch_slices(SlicedQuery(url, adql, slices=6), folder, poll=0.02, connections=2):
    print(path, flush=True)
"""


def test_a_killed_run_goes_on_with_its_jobs(server, tmp_path):
    server.fault("*ra >= [1-9]*", "slow")  # all but the first
    command = [sys.executable, "-c", KILLED, server.url, ADQL, str(tmp_path)]
    with imported(command) as run:
        first = run.stdout.readline()
        wait_for(lambda: len(kept(tmp_path, ".job")) == 2)
        run.send_signal(signal.SIGKILL)
    done = kept(tmp_path, ".parquet")
    assert [str(path) for path in done] == [first.strip()] and pq.read_table(*done).num_rows > 0
    server.service.clear()
    end_jobs(server)
    assert is_whole(list(quick(asked(server), tmp_path)))
    assert len(server.service.queries) == 5 and len(server.service.created) == 3
    assert not kept(tmp_path, ".job")


@pytest.mark.parametrize("phase", ["PENDING", "EXECUTING", "COMPLETED", "ERROR", "ABORTED", "gone", "nonsense", "MAXREC"])
def test_an_earlier_job_is_used_if_it_can_be(server, session, tmp_path, phase):
    query = asked(server, slices=1)
    server.service.executing = 0.2
    server.fault("*", {"ERROR": "error", "ABORTED": "aborted"}.get(phase, "error"), times=phase in ("ERROR", "ABORTED"))
    job = pyvo.dal.AsyncTAPJob.create(server.url, query.between(0, 360), session=session)
    if phase != "PENDING":
        job.run()
    if phase in ("COMPLETED", "ERROR", "ABORTED"):
        wait_for(lambda: job.phase == phase)
    url = {"gone": f"{server.url}/async/99", "nonsense": "no URL"}.get(phase, job.url)
    job_file(query, tmp_path, 0, 360).write_text(f"{url}\n{10 if phase == 'MAXREC' else None}\n")
    assert is_whole(list(quick(query, tmp_path)))
    used = phase in ("PENDING", "EXECUTING", "COMPLETED")
    assert len(server.service.created) == (1 if used else 2)
    assert not kept(tmp_path, ".job")


def test_jobs_that_cannot_be_deleted_are_kept_in_mind(server, tmp_path):
    list(quick(asked(server, slices=1, low=0, high=60), tmp_path))
    server.service.executing = 30
    slices = quick(asked(server), tmp_path, connections=2, poll=30)
    next(slices)
    wait_for(lambda: len(kept(tmp_path, ".job")) == 2)
    server.fault("async/[0-9]", "503")
    slices.close()
    assert len(kept(tmp_path, ".job")) == 2
    server.service.clear()
    server.service.executing = 0
    end_jobs(server)
    assert is_whole(list(quick(asked(server), tmp_path)))
    assert len(server.service.created) == 3


def test_another_query_or_service_never_mixes_in(server, tmp_path):
    list(quick(asked(server), tmp_path))
    bright = ADQL + " AND objID > 0"
    paths = list(quick(asked(server, bright), tmp_path))
    assert 0 < read_slices(paths).num_rows < GALAXIES.num_rows
    with TapServer({"sdss.photo": GALAXIES.slice(0, 50)}) as other:
        assert is_whole(list(quick(asked(other), tmp_path)), GALAXIES.slice(0, 50))
    assert len(list(tmp_path.iterdir())) == 3
    assert is_whole(list(quick(asked(server, slices=8), tmp_path)))


def test_a_damaged_slice_is_fetched_again(server, tmp_path):
    paths = list(quick(asked(server), tmp_path))
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    (paths[2].parent / f".{paths[2].name}.123.tmp").write_text("left by a killed run")
    assert is_whole(list(quick(asked(server), tmp_path)))
    assert len(server.service.created) == 7
    assert not list(paths[2].parent.glob(".*"))


def test_a_full_disk_is_an_error_and_leaves_no_half_file(server, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        args[1].write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        list(quick(asked(server), tmp_path))
    assert not kept(tmp_path, ".parquet") and not list(tmp_path.glob("*/.*"))


class Bar:
    """What `fetch_slices` needs of a tqdm bar."""

    def __init__(self) -> None:
        self.updates: list[int] = []
        self.words = ""

    def update(self, count: int) -> None:
        self.updates.append(count)

    def set_postfix_str(self, words: str, refresh: bool = True) -> None:
        self.words = words


def test_the_bar_counts_slices_and_rows(server, tmp_path):
    bar = Bar()
    list(quick(asked(server), tmp_path, progress=bar))
    assert bar.updates == [1] * 6 and bar.words == "200 rows"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adql": "SELECT * FROM t"}, "needs {low} and {high}"),
        ({"slices": 0}, "0 slices"),
        ({"low": 360.0}, "nothing to ask for"),
        ({"high": float("nan")}, "nothing to ask for"),
        ({"maxrec": 0}, "maxrec is 0"),
    ],
)
def test_what_cannot_be_asked_is_one_line(changes, words):
    with pytest.raises(UserError, match=words):
        SlicedQuery(**{"url": "http://localhost", "adql": ADQL, **changes})


def test_a_query_without_borders_is_asked_whole_and_never_halved(server, tmp_path):
    query = asked(server, "SELECT objID, ra, name FROM sdss.photo", slices=1)
    assert is_whole(list(quick(query, tmp_path)))
    assert len(kept(tmp_path, ".parquet")) == 1 and list(quick(query, tmp_path)) == kept(tmp_path, ".parquet")
    with TapServer({"sdss.photo": GALAXIES}, row_limit=50) as other, pytest.raises(TapError, match="more rows than one"):
        list(quick(dataclasses.replace(query, url=other.url), tmp_path))


def test_borders_are_the_same_text_on_both_sides():
    query = SlicedQuery("u", "{low}|{high}", low=-90, high=90, slices=7)
    slices = [query.between(low, high).split("|") for low, high in pairwise(query.borders())]
    assert slices[0][0] == "-90.0" and slices[-1][1] == "90.0"
    assert all(one[1] == other[0] for one, other in pairwise(slices))
    assert query.between(0.0001, 360.0) == "0.0001|360.000000001"


def parquet(folder: Path, name: str, **columns) -> Path:
    path = folder / name
    pq.write_table(pa.table(columns), path)
    return path


def test_slices_of_differing_types_are_read_together(tmp_path):
    ids, nothing = pa.array([FIRST_ID, None], pa.int64()), [None, None]
    one = parquet(tmp_path, "1", id=ids, n=pa.array([1, 2], pa.int16()), m=pa.array([1, 2], pa.int32()), s=["a", "b"])
    two = parquet(
        tmp_path,
        "2",
        s=pa.array(nothing, pa.float32()),
        id=pa.array(nothing, pa.float64()),
        n=pa.array([2**40, 0], pa.int64()),
        m=pa.array([0.5, 2], pa.float32()),
    )
    empty = parquet(
        tmp_path,
        "3",
        id=pa.array([], pa.string()),
        n=pa.array([], pa.bool_()),
        m=pa.array([], pa.string()),
        s=pa.array([], pa.int64()),
    )
    for paths in ([one, two, empty], [empty, two, one]):
        table = read_slices(paths, ["id", "n", "m", "s"])
        assert table.schema.types == [pa.int64(), pa.int64(), pa.float64(), pa.string()]
        assert sorted(x for x in table["id"].to_pylist() if x is not None) == [FIRST_ID]
        assert sorted(table["m"].to_pylist()) == [0.5, 1, 2, 2]
    assert read_slices([one, two], ["id"]).column_names == ["id"]
    never = [parquet(tmp_path, kind, x=pa.array(nothing, kind)) for kind in ("double", "int64")]
    assert read_slices(never).schema.types == [pa.int64()]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"id": [0.5]}, "column id is int64 in .* and double in .*: CAST"),
        ({"id": ["x"]}, "column id is int64 in .* and string in"),
        ({"ra": [1.0]}, "there is no column id"),
    ],
)
def test_slices_that_do_not_fit_are_told(tmp_path, other, words):
    with pytest.raises(UserError, match=words):
        read_slices([parquet(tmp_path, "1", id=pa.array([FIRST_ID])), parquet(tmp_path, "2", **other)])
    with pytest.raises(UserError, match="no slices"):
        read_slices([])


def test_a_list_column_is_read_back(tmp_path):
    lists = pa.array([[1, 2], None], pa.list_(pa.int64()))
    never = pa.array([None], pa.list_(pa.int64()))
    paths = [parquet(tmp_path, "1", x=lists), parquet(tmp_path, "2", x=never)]
    assert read_slices(paths)["x"].to_pylist() == [[1, 2], None, None]


@settings(max_examples=20, deadline=None)
@given(st.lists(IDS | st.none(), min_size=1, max_size=20), st.sampled_from(["TABLEDATA", "BINARY2"]))
def test_any_id_survives_the_way_to_parquet(tmp_path_factory, ids, serialisation):
    table = pa.table({"id": pa.array(ids, pa.int64()), "ra": np.linspace(0, 350, len(ids))})
    with TapServer({"t": table}, serialisation=serialisation) as server:
        query = SlicedQuery(server.url, "SELECT id, ra FROM t WHERE ra >= {low} AND ra < {high}", slices=2)
        found = read_slices(list(quick(query, tmp_path_factory.mktemp("ids"), sync=True)))
    assert found["id"].to_pylist() == ids and found["id"].type == pa.int64()


def test_the_server_speaks_tap_as_pyvo_knows_it(server, session):
    service = pyvo.dal.TAPService(server.url, session=session)
    assert service.run_sync("SELECT TOP 3 * FROM sdss.photo ORDER BY ra")["ra"][0] == 0
    assert "sdss.photo" in [table.name for table in service.tables]
    server.service.executing = 0.2
    job = service.submit_job("SELECT a.objID AS id, b.ra FROM sdss.photo AS a JOIN sdss.photo AS b ON a.objID = b.objID")
    assert job.phase == "PENDING" and job.query.startswith("SELECT a.objID")
    job.execution_duration = 60
    job.run().wait(timeout=10)
    assert job.execution_duration.sec == 60
    assert job.fetch_result().to_table()["id"].dtype == np.int64
    job.delete()
    with pytest.raises(pyvo.dal.DALQueryError, match="no such table: nowhere"):
        service.run_async("SELECT * FROM nowhere")
    server.service.row_limit = 5
    with pytest.warns(pyvo.dal.DALOverflowWarning):
        service.run_sync("SELECT * FROM sdss.photo")


@pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts (Debian: stilts) is not installed")
@pytest.mark.parametrize("serialisation", ["TABLEDATA", "BINARY2"])
def test_taplint_finds_no_error_in_the_server(serialisation):
    """STILTS's validator of TAP services: schemas, metadata, queries by GET and POST, jobs."""
    with TapServer({"sdss.photo": GALAXIES, **draw_galaxies(30).tables()}, serialisation=serialisation) as server:
        command = ["stilts", "taplint", f"tapurl={server.url}", "report=EW", "maxrepeat=5"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Totals: Errors: 0; Warnings: 0" in found.stdout, found.stdout + found.stderr
    assert len(server.service.queries) > 50 and len(server.service.created) > 5


def test_the_server_s_other_resources(server, session):
    server.service.executing = 0.3
    start = time.monotonic()
    made = session.post(server.url + "/async", data={"query": "SELECT * FROM sdss.photo", "PHASE": "RUN", "lang": "ADQL"})
    url = made.url
    assert made.history[0].status_code == 303
    assert "COMPLETED" in session.get(url, params={"WAIT": "60"}).text
    assert 0.3 <= time.monotonic() - start < 30
    assert session.get(url + "/phase").text == "COMPLETED"
    assert session.get(url + "/quote").text == ""
    assert session.get(url + "/executionduration").text == "3600"
    assert "SELECT * FROM sdss.photo" in session.get(url + "/parameters").text
    assert "results/result" in session.get(url + "/results").text
    assert session.get(url + "/error").status_code == 404
    assert "true" in session.get(server.url + "/availability").text
    assert session.get(server.url + "/capabilities").text.count("TableAccess") == 1
    assert session.get(server.url + "/async").text.count("jobref") == 2
    assert session.post(url, data={"ACTION": "DELETE"}).status_code == 200
    assert session.get(url).status_code == 404
    assert "Missing parameter" in session.get(server.url + "/sync").text
    with pytest.raises(ValueError, match="unknown fault"):
        server.fault("*", "gremlins")


# --- what a service must not make us do -----------------------------------------------------------------------------


def interfere(server: TapServer, change) -> None:
    """Give `change` every request (method, path below the service, headers, answer) and let it change the answer."""
    answer = server.service.answer

    def changed(method, path, form, headers):
        found = answer(method, path, form, headers)
        return change(method, path.removeprefix("/tap/"), headers, found) or found

    server.service.answer = changed


def logins(server: TapServer) -> list[str | None]:
    """The Authorization header of every request from now on."""
    seen = []
    interfere(server, lambda method, path, headers, answer: seen.append(headers["Authorization"]))
    return seen


@pytest.fixture
def netrc(tmp_path, monkeypatch):
    """A login for every host that the tests use."""
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login bob password hunter22\nmachine localhost login bob password hunter22\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.parametrize(
    "address",
    [
        "{other}/tap/async/42",
        "http://localhost:{port}/tap/async/42",
        "https://127.0.0.1:{port}/tap/async/42",
        "http://127.0.0.1/tap/async/42",
        "{home}/precious/42",
        "{home}/tap/async",
        "{home}/tap/async/",
        "{home}/tap/async/..",
        "{home}/tap/async/%2e%2e",
        "{home}/tap/async/../sync/42",
        "{home}/tap/async/..%2f..%2fprecious",
        "{home}/tap/async/42?really=delete",
        "{home}/mytap/run/async/42",
        "{home}/tap/async/42/43",
        "{home_with_login}/tap/async/42",
        "file:///etc/passwd",
        "//[broken",
        "",
    ],
)
def test_a_job_is_at_the_service_or_none(server, tmp_path, netrc, address):
    with TapServer({"sdss.photo": GALAXIES}) as other:
        other_home, home = (running.url.removesuffix("/tap") for running in (other, server))
        places = {"home": home, "home_with_login": home.replace("://", "://eve:12@"), "other": other_home}
        address = address.format(**places, port=other_home.rpartition(":")[2])
        interfere(server, lambda method, path, _, answer: method == "POST" and answer.headers.update(Location=address))
        with pytest.raises(TapError, match=r"tap: 0\.0 to 360\.0 degrees: (the service (gives|did)|.*[Ii]nvalid)") as caught:
            list(quick(asked(server, slices=1), tmp_path))
        assert "\n" not in str(caught.value)
        assert not other.requests and {(r.method, r.path) for r in server.requests} == {("POST", "/tap/async")}
    assert not kept(tmp_path, ".job")


def test_an_old_job_file_is_no_reason_to_go_elsewhere(server, tmp_path, netrc):
    with TapServer({"sdss.photo": GALAXIES}) as other:
        query = asked(server, slices=1)
        job_file(query, tmp_path, 0, 360).write_text(f"{other.url}/async/1\nNone\n")
        assert is_whole(list(quick(query, tmp_path)))
        assert not other.requests


def test_jobs_where_gavo_dachs_has_them(server, tmp_path):
    """The service at /tap, its jobs at /__system__/tap/run/async."""
    server.services["/__system__/tap/run"] = server.service
    answer = server.service.answer

    def elsewhere(method, path, form, headers):
        found = answer(method, path.replace("/__system__/tap/run", "/tap"), form, headers)
        if "Location" in found.headers:
            found.headers["Location"] = found.headers["Location"].replace("/tap/async", "/__system__/tap/run/async")
        return found

    server.service.answer = elsewhere
    assert is_whole(list(quick(asked(server), tmp_path)))
    assert sorted(server.service.deleted) == sorted(server.service.created) and len(server.service.created) == 6


@pytest.mark.parametrize("way", ["named", "redirected"])
def test_a_result_at_another_host_is_got_without_a_login(server, tmp_path, netrc, way):
    at_home = logins(server)
    with TapServer({"sdss.photo": GALAXIES}) as other:
        abroad = logins(other)
        jobs = other.url + "/sync?LANG=ADQL&QUERY=SELECT+objID,+ra,+name+FROM+sdss.photo"

        def refer(method, path, _, answer):
            if way == "named" and b"results/result" in answer.body:
                found = re.sub(rb'href="[^"]*result"', f'href="{escape(jobs)}"'.encode(), answer.body)
                return dataclasses.replace(answer, body=found)
            return Answer(303, b"<html>", {"Location": jobs}) if path.endswith("results/result") else None

        interfere(server, refer)
        assert is_whole(list(quick(asked(server, slices=1), tmp_path)))
        assert abroad == [None] and [r.method for r in other.requests] == ["GET"]
    assert set(at_home) == {"Basic Ym9iOmh1bnRlcjIy"}


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_service_that_has_moved_on_its_host_is_asked_there(server, tmp_path, status, sync):
    old = dataclasses.replace(asked(server), url=server.url.removesuffix("/tap") + "/old/tap")

    class Moved:
        def answer(self, method, path, form, headers):
            return Answer(status, b"", {"Location": path.replace("/old/", "/")})

    server.services["/old/tap"] = Moved()
    assert is_whole(list(quick(old, tmp_path, sync=sync)))
    assert {r.method for r in server.requests if r.path.startswith("/old")} == {"POST"}
    assert sorted(server.service.deleted) == sorted(server.service.created)
    assert len(server.service.created) == (0 if sync else 6)


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_service_that_has_moved_to_another_host_is_named(server, tmp_path, netrc, status, sync):
    with TapServer({"sdss.photo": GALAXIES}) as other:
        place = f"{other.url}/{'sync' if sync else 'async'}"
        interfere(server, lambda *_: Answer(status, b"", {"Location": place}))
        with pytest.raises(TapError, match=f"moved to {place}, another host"):
            list(quick(asked(server), tmp_path, sync=sync))
        assert not other.requests


def test_a_synchronous_answer_by_303(server, tmp_path):
    """As TAP 1.0 allows: the result is elsewhere."""
    results = []

    def refer(method, path, _, answer):
        if method == "POST":
            results.append(answer)
            return Answer(303, b"<html>", {"Location": f"{server.url}/results/{len(results) - 1}"})
        return results[int(path.rpartition("/")[2])]

    interfere(server, refer)
    assert is_whole(list(quick(asked(server), tmp_path, sync=True, connections=1)))
    assert [r.method for r in server.requests] == ["POST", "GET"] * 6


def test_redirects_without_end(server, tmp_path):
    for target in (f"{server.url}/sync", "/tap/elsewhere"):
        interfere(server, lambda *_, target=target: Answer(302, b"", {"Location": target}))
        with pytest.raises(TapError, match="more than 30 redirects"):
            list(quick(asked(server, slices=1), tmp_path, sync=True))


# --- deletion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["limit", "error", "interrupt"])
@pytest.mark.parametrize("page", [200, 204, 303])
def test_every_job_is_deleted_whatever_a_deletion_answers(server, tmp_path, ending, page):
    """GAVO DaCHS answers with 303 and a page for people."""
    list(quick(asked(server, slices=1, low=0, high=60), tmp_path))
    server.service.executing = 30

    def answer_with_a_page(method, path, _, answer):
        if method == "DELETE":
            return dataclasses.replace(answer, status=page, body=b"<!DOCTYPE html><html>Gone</html>" if page != 204 else b"")
        return None

    interfere(server, answer_with_a_page)
    slices = quick(asked(server), tmp_path, poll=30)
    next(slices)
    wait_for(lambda: server.service.max_jobs >= 4)
    if ending == "limit":
        slices.close()
    else:
        with pytest.raises(KeyboardInterrupt if ending == "interrupt" else RuntimeError):
            slices.throw(KeyboardInterrupt() if ending == "interrupt" else RuntimeError())
    assert sorted(server.service.deleted) == sorted(server.service.created)
    assert not kept(tmp_path, ".job")


@pytest.mark.parametrize("status", ["500", "403"])
def test_one_deletion_that_fails_does_not_keep_the_others(server, tmp_path, status):
    list(quick(asked(server, slices=1, low=0, high=60), tmp_path))
    server.service.executing = 30
    slices = quick(asked(server), tmp_path, poll=30)
    next(slices)
    wait_for(lambda: server.service.max_jobs >= 4)
    created = list(server.service.created)
    server.fault(f"async/{created[1]}", status)
    slices.close()
    assert set(created[2:]) <= set(server.service.deleted) and created[1] not in server.service.deleted
    assert len(kept(tmp_path, ".job")) == 1  # for the next run


def test_a_service_that_knows_no_delete_is_asked_by_post(server, tmp_path):
    def no_delete(method, path, form, headers):
        return Answer(405, b"") if method == "DELETE" else answer(method, path, form, headers)

    answer, server.service.answer = server.service.answer, no_delete
    assert is_whole(list(quick(asked(server), tmp_path)))
    assert sorted(server.service.deleted) == sorted(server.service.created) and len(server.service.created) == 6


# --- the service's time limit ---------------------------------------------------------------------------------------

WHOLE_CIRCLE = "*ra >= 0.0 AND ra < 360.000000001"


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        "Field query: Query timed out (took too long).\nMeanwhile, if this failure happened with a cross match ...",
        "Timeout expired",
        "The execution duration of the job is over",
        "ERROR: canceling statement due to statement timeout",
        "Query exceeded the maximum execution time of 60 s",
        "Time limit reached",
    ],
)
def test_a_slice_that_meets_the_time_limit_is_halved(server, tmp_path, words, sync):
    server.fault(WHOLE_CIRCLE, "error", words=words)
    server.fault("*ra >= 0.0 AND ra < 180.0", "error", words=words)
    paths = list(quick(asked(server, slices=1), tmp_path, sync=sync))
    assert is_whole(paths) and [path.stem[:3] for path in paths] == ["000", "090", "180"]
    assert len(server.service.queries) == 5  # none is asked twice
    assert sorted(server.service.deleted) == sorted(server.service.created)


@pytest.mark.parametrize("kind", ["aborted", "lost"])
def test_a_job_that_ends_at_the_limit_of_its_document_is_halved(server, tmp_path, kind):
    """ABORTED without a word, after as long as the job may take; or gone when it was to be destroyed."""
    server.fault(WHOLE_CIRCLE, kind)
    create = server.service._create

    def create_short(form, base):
        answer = create(form, base)
        server.service.executing = 3 if "ra < 360.0" in form["QUERY"] and "ra >= 0.0 " in form["QUERY"] else 0
        job = server.service._jobs[answer.headers["Location"].rpartition("/")[2]]
        if kind == "aborted":
            job.duration = "1"
        else:
            job.destruction = f"{job.created + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"
        return answer

    server.service._create = create_short
    paths = list(quick(asked(server, slices=1), tmp_path))
    assert is_whole(paths) and len(paths) == 2
    assert len(server.service.created) == 3


def test_a_job_that_is_aborted_again_and_again_is_halved(server, tmp_path):
    server.fault(WHOLE_CIRCLE, "aborted")
    paths = list(quick(asked(server, slices=1), tmp_path))
    assert is_whole(paths) and len(paths) == 2
    assert len(server.service.created) == 4


@pytest.mark.parametrize("status", ["408", "504"])
def test_a_gateway_s_time_limit_halves_too(server, tmp_path, status):
    def too_slow(method, path, form, headers):
        wide = "ra >= 0.0 AND ra < 360" in form.get("QUERY", "")
        return Answer(int(status), b"<html>Gateway Time-out</html>") if wide else answer(method, path, form, headers)

    answer, server.service.answer = server.service.answer, too_slow
    paths = list(quick(asked(server, slices=1), tmp_path, sync=True))
    assert is_whole(paths) and len(paths) == 2
    assert len(server.requests) == 4  # it may have been a passing failure: asked twice

    server.service.answer = answer
    server.fault("async/1/results/result", status)
    paths = list(quick(asked(server, slices=1), tmp_path / "async"))
    assert is_whole(paths) and len(paths) == 2


@pytest.mark.parametrize("sync", [False, True])
def test_a_time_limit_that_no_slice_keeps_is_an_error(server, tmp_path, sync):
    server.fault("*ra >= 0.0 *", "error", words="Query timed out")
    words = r"0\.0 to 0\.9375 degrees: even a small slice meets the service's time limit: .*timed out"
    with pytest.raises(TapError, match=words):
        list(quick(asked(server), tmp_path, sync=sync, connections=1))
    assert len([adql for adql in server.service.queries if "ra >= 0.0 " in adql]) == 7


# --- hostile answers ------------------------------------------------------------------------------------------------


def test_a_slice_with_damaged_base64_is_asked_again(tmp_path):
    with TapServer({"sdss.photo": GALAXIES}, serialisation="BINARY2") as server:
        damaged = []

        def damage(method, path, _, answer):
            if b"<STREAM" in answer.body and len(damaged) < 2:
                at = answer.body.index(b'"base64">') + 40
                damaged.append(path)
                return dataclasses.replace(answer, body=answer.body[:at] + b"!!!!" + answer.body[at + 4 :])
            return None

        interfere(server, damage)
        assert is_whole(list(quick(asked(server), tmp_path)))
        assert len(damaged) == 2 and len(server.service.created) == 6
        interfere(server, lambda method, path, _, answer: damaged.clear())
        with pytest.raises(TapError, match=r"not whole base64 data.*, 3 tries"):
            list(quick(asked(server), tmp_path / "again"))


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("sync", [False, True])
def test_an_answer_that_unpacks_without_end_fills_no_memory(server, tmp_path, sync, encoding):
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(map(made.compress, [b"<VOTABLE>", *[b"<!-- -->" * (1 << 17)] * 100])) + made.flush()
    assert len(bomb) < 1 << 20

    def send_the_bomb(method, path, _, answer):
        if path in ("sync",) or path.endswith("results/result"):
            return Answer(200, bomb, {"Content-Encoding": encoding} if encoding else {})
        return None

    interfere(server, send_the_bomb)
    tracemalloc.start()
    try:
        with pytest.raises(TapError, match="of gzip unpack to more than"):
            list(quick(asked(server, slices=1), tmp_path, sync=sync))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_an_encoding_that_nobody_asked_for_is_refused(server, tmp_path):
    interfere(server, lambda *_: Answer(200, b"\x8b", {"Content-Encoding": "br"}))
    with pytest.raises(TapError, match="Content-Encoding is br"):
        list(quick(asked(server, slices=1), tmp_path, sync=True))


PHASE = b"<uws:phase>"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: body.replace(PHASE, b"<x:phase>"), "not a job document"),
        (lambda body: b"<!DOCTYPE j [<!ENTITY a 'b'>]>" + body[body.index(b"<uws:job") :], "entities"),
        (lambda body: body.replace(b'encoding="UTF-8"', b'encoding="bz2_codec"'), "job document: the XML cannot be read"),
        (lambda body: body.replace(b'encoding="UTF-8"', b'encoding="klingon"'), "not a job document"),
        (lambda body: body.replace(PHASE, b"<a>" * 100 + PHASE), "not a job document: elements more than 64 deep"),
        (lambda body: body.replace(b"?>", b"?><!--" + b"x" * (2 << 20) + b"-->"), "not a job document"),
        (lambda body: re.sub(PHASE + b"(EX|CO)", PHASE + b"XX", body), "the service left the job XX"),
        (lambda body: body[:-30], "not a job document"),
        (lambda body: b"", "not a job document"),
        (lambda body: b"\xff\xfe<\0", "not a job document"),
    ],
)
def test_job_documents_that_are_none_are_one_line(server, tmp_path, change, words):
    def spoil(method, path, _, answer):
        if PHASE in answer.body:
            return dataclasses.replace(answer, body=change(answer.body))
        return None

    interfere(server, spoil)
    with pytest.raises(TapError, match=words) as caught:
        list(quick(asked(server, slices=6), tmp_path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_job_documents_with_odd_values_are_read(server, tmp_path):
    """UTF-16, numbers of 5,000 digits, dates that are none: only phase and result matter."""

    def spoil(method, path, _, answer):
        if PHASE in answer.body:
            text = answer.body.decode().replace("UTF-8", "UTF-16")
            text = re.sub("(executionDuration>)[0-9]*", rf"\g<1>{'9' * 5000}", text)
            text = re.sub("(creationTime>|destruction>)[^<]*", r"\g<1>31 December 99999", text)
            return dataclasses.replace(answer, body=text.encode("utf-16"))
        return None

    interfere(server, spoil)
    assert is_whole(list(quick(asked(server), tmp_path)))


@pytest.mark.parametrize(
    ("first", "again"),
    [(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (b"HTTP/1.1 200 OK\r\nX-Endless: ", b"x"), (b"HTTP/1.1 200 OK\r\n\r\n", b"x")],
)
def test_an_answer_that_never_comes_to_its_end_is_given_up(tmp_path, monkeypatch, first, again):
    """Not for a second is the service silent."""
    monkeypatch.setattr(module, "PATIENCE", (0.5, 1))
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(first)
        while not over.wait(0.02):
            connection.sendall(again)

    with RawServer(drip) as server:
        query = SlicedQuery(server.url, ADQL, slices=1)
        for sync in (False, True):
            with pytest.raises(TapError, match=r"no answer in 1\.5 s|takes more than 1 s"):
                list(quick(query, tmp_path, sync=sync, timeout=1, retries=1))
        over.set()
    assert not tap_threads()


@pytest.mark.skipif("SKYSET_DACHS" not in os.environ, reason="$SKYSET_DACHS names no GAVO DaCHS (skyset/testing/dachs.py)")
@pytest.mark.parametrize("sync", [False, True])
def test_the_shipped_query_at_a_real_gavo_dachs(tmp_path, sync):
    url = os.environ["SKYSET_DACHS"]

    def jobs() -> int:
        return requests.get(f"{url}/async", timeout=10).text.count("jobref ")

    before, found = jobs(), {}
    with TapServer(draw_galaxies(dachs.GALAXIES).tables()) as mock:
        for where in (url, mock.url):
            paths = list(fetch_slices(SlicedQuery(where, ZOOSPEC, slices=6), tmp_path, poll=0.5, sync=sync))
            found[where] = sorted(read_slices(paths).to_pylist(), key=lambda row: row["dr8objid"])
    one, other = found.values()
    assert len(one) == len(other) > 250
    for row, expected in zip(one, other, strict=True):
        assert row == {name.lower() if name not in row else name: pytest.approx(v, rel=1e-6) for name, v in expected.items()}
    with closing(fetch_slices(SlicedQuery(url, ZOOSPEC, slices=36), tmp_path / "early", poll=0.5, sync=sync)) as slices:
        next(slices)
    wrong = ZOOSPEC.replace("LEFT OUTER JOIN", "LEFT JOIN")
    with pytest.raises(TapError, match="Could not parse your query"):
        list(fetch_slices(SlicedQuery(url, wrong, slices=2), tmp_path, sync=sync))
    assert jobs() == before
