"""Catalogues from TAP services: sliced, resumable, parallel.

A long catalogue is asked for in slices of one coordinate, each an asynchronous job (UWS, by pyvo) of its own, so
that row limits, time limits and failures cost one slice. A slice that is complete stands as a Parquet file under
its final name and is never asked for again; beside it, while they matter, stand the URL of its job on the server
(``.job``: the next run goes on with it) and the mark that it had too many rows and was halved (``.halved``).

    query = SlicedQuery("https://example.org/tap", "SELECT id, ra FROM t WHERE ra >= {low} AND ra < {high}")
    paths = []
    with contextlib.closing(fetch_slices(query, folder)) as slices:
        for path in slices:  # in order of low; stop when there are rows enough
            paths.append(path)
    table = read_slices(paths)
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from itertools import count
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.util.retry import Retry

from skyset.errors import UserError
from skyset.fetch import CHUNK
from skyset.fetch import LONGEST_WAIT
from skyset.fetch import PASSING
from skyset.fetch import innermost
from skyset.fetch import retry_policy
from skyset.http import HostLogin
from skyset.http import retry_after
from skyset.manifest import replacing
from skyset.manifest import write_atomically
from skyset.secrets import without_login
from skyset.versions import default_user_agent
from skyset.votable import BrokenVOTable
from skyset.votable import VOTable
from skyset.votable import VOTableError
from skyset.votable import one_line
from skyset.votable import read_votable
from skyset.votable import readable
from skyset.votable import votable_to_arrow

__all__ = ["SlicedQuery", "TapError", "fetch_slices", "iter_slices", "read_slices", "slices_schema", "votable_to_arrow"]

NARROWEST = 1e-4  # degrees; a slice is not halved below this
PATIENCE = (10.0, 60.0)  # seconds to wait for a connection, and for an answer or its next bytes
GRACE = 0.5  # seconds that requests under way get before their connections are shut
LARGEST = 4 << 30  # bytes of one answer
WAITING = {"PENDING", "QUEUED", "EXECUTING", "RUN", "HELD", "SUSPENDED", "UNKNOWN"}
# What services say in a job's error when the same query may well succeed an hour later.
MAY_PASS = re.compile(
    r"time[sd]?[- ]?out|time limit|temporar|unavailable|overload|too (many|busy)|try again|later|connection|deadlock|"
    r"canceling statement|out of memory|restart|shut ?down",
    re.IGNORECASE,
)


class TapError(UserError):
    """The service does not give a slice: its URL, the slice, and its own words in one line."""


class _Refused(Exception):
    """A final no; `status` is the HTTP status, None if the words came with a 200."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class _Passing(Exception):
    """A failure that a later try may not meet; `pause` is the number of seconds that the service asked for."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True)
class SlicedQuery:
    """A query for all rows with ``low <= x < high``, and how it is cut.

    Attributes:
        url: base of the TAP service, as in ``https://example.org/tap``; a login in it is sent to its host, and kept nowhere.
        adql: the query with ``{low}`` and ``{high}`` where the slice's borders (degrees) belong. A `high` of 360
            is sent as 360.000000001, since some catalogues write 360 for a right ascension of 0.
        low: where the first slice begins, degrees.
        high: where the last slice ends, degrees.
        slices: slices of equal width.
        maxrec: rows of one job at most; None leaves the limit to the service. A slice with as many is halved.

    Raises:
        UserError: there is nothing to cut, or no place for the borders.
    """

    url: str
    adql: str
    low: float = 0.0
    high: float = 360.0
    slices: int = 72
    maxrec: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", without_login(self.url))
        if "{low}" not in self.adql or "{high}" not in self.adql:
            raise UserError("a sliced query needs {low} and {high}, as in: WHERE ra >= {low} AND ra < {high}")
        if self.slices < 1 or not self.low < self.high:
            raise UserError(f"{self.slices} slices from {self.low} to {self.high} degrees: nothing to ask for")
        if self.maxrec is not None and self.maxrec < 1:
            raise UserError(f"maxrec is {self.maxrec}: it has to be 1 at least")

    def borders(self) -> list[float]:
        """The `slices` + 1 borders, degrees, to 1e-9."""
        width = (self.high - self.low) / self.slices
        return [*(round(self.low + i * width, 9) for i in range(self.slices)), round(self.high, 9)]

    def between(self, low: float, high: float) -> str:
        """The query for one slice."""
        top = "360.000000001" if high == 360 else _degrees(high)
        return self.adql.replace("{low}", _degrees(low)).replace("{high}", top)

    def digest(self) -> str:
        """What names the folder: another service or query never meets these slices."""
        return hashlib.sha256(f"{self.url.rstrip('/?')}\n{self.adql}".encode()).hexdigest()[:16]


def fetch_slices(
    query: SlicedQuery,
    folder: str | Path,
    *,
    connections: int = 4,
    timeout: float = 3600,
    poll: float = 5.0,
    retries: int = 5,
    backoff: float = 0.5,
    sync: bool = False,
    progress=None,
) -> Generator[Path, None, None]:
    """Yield a Parquet file for each slice, in order of `low`, as soon as it and all before it are complete.

    A slice with too many rows is halved until its parts have not, and comes as several files. At most
    `connections` slices are fetched ahead. Closing the generator, or an exception in the middle, ends its threads
    and deletes its jobs on the server; what is complete stays, and the next call yields it without a request.

    Args:
        query: what to ask, and whom.
        folder: ``<digest of url and adql>/<low>-<high>.parquet`` are written here.
        connections: jobs at a time.
        timeout: seconds that a job may be queued and executed; with `sync`, seconds without an answer.
        poll: seconds, at most, between two looks at a job.
        retries: further tries after a failure that may pass.
        backoff: seconds before a further try, doubled each time; Retry-After, where sent, comes first.
        sync: ask ``/sync`` instead, for services without jobs.
        progress: a tqdm bar of slices to update; default a bar of its own, none in a log file.

    Raises:
        TapError: a slice cannot be had: the query is wrong, the service is down, the job takes too long, or
            a slice of 1e-4 degrees still has more rows than the service gives.
        OSError: the disk is full, or the folder may not be written.
    """
    if connections < 1:
        raise UserError(f"{connections} connections: at least 1 is needed")

    def slices() -> Generator[Path, None, None]:
        options = {"timeout": timeout, "poll": poll, "retries": retries, "backoff": backoff, "sync": sync}
        with _bar(progress, query.slices) as bar, _Service(query, Path(folder), connections, **options) as service:
            yield from service.in_order(bar)

    return slices()


def _bar(progress, slices: int) -> contextlib.AbstractContextManager:
    """The caller's bar, which stays open, or one of our own."""
    if progress is not None:
        return contextlib.nullcontext(progress)
    from skyset.progress import progress_bar

    return progress_bar(total=slices, unit="slice", desc="catalogue")


def read_slices(paths: Sequence[str | Path], columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of the slices, or some columns of them, as one table with `slices_schema`.

    Raises:
        UserError: the slices do not fit together.
    """
    schema = slices_schema(paths, columns)
    return pa.concat_tables([schema.empty_table(), *iter_slices(paths, columns)])


def iter_slices(paths: Sequence[str | Path], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Like `read_slices`, a slice at a time."""
    schema = slices_schema(paths, columns)
    for path in paths:
        yield _cast(pq.read_table(path, columns=schema.names, partitioning=None), schema, path)


def slices_schema(paths: Sequence[str | Path], columns: Sequence[str] | None = None) -> pa.Schema:
    """The schema that all slices fit into: columns (default: all) of the first, each as wide as any slice needs.

    A column that is null throughout a slice fits into any type: services guess there. Integers become wider
    integers, and float64 next to floats unless they are int64, which are ids and stay what they are.

    Raises:
        UserError: a column is missing in one slice, or its types cannot be joined without loss.
    """
    if not paths:
        raise UserError("no slices to read")
    files = [(path, pq.read_metadata(path)) for path in paths]
    schemas = [metadata.schema.to_arrow_schema() for _, metadata in files]
    names = schemas[0].names if columns is None else list(columns)
    for path, schema in zip(paths, schemas, strict=True):
        lacking = [name for name in names if name not in schema.names]
        if lacking:
            raise UserError(f"{path}: there is no column {lacking[0]}")
    nulls = [_null_columns(metadata) for _, metadata in files]
    fields = []
    for name in names:
        every = [(schema.field(name), path) for schema, path in zip(schemas, paths, strict=True)]
        told = [found for found, empty in zip(every, nulls, strict=True) if name not in empty]
        fields.append(_joined(told) if told else _widest(every))
    return pa.schema(fields)


def _null_columns(metadata: pq.FileMetaData) -> set[str]:
    """Columns without a single value in a Parquet file."""
    nulls = set(metadata.schema.to_arrow_schema().names)
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        for column in (group.column(i) for i in range(group.num_columns)):
            statistics = column.statistics
            counted = statistics is not None and statistics.has_null_count
            if group.num_rows and (not counted or statistics.null_count < column.num_values):
                path = column.path_in_schema  # of a list it goes on: x.list.element
                nulls.discard(path if path in nulls else path.partition(".")[0])
    return nulls


def _widest(found: Sequence[tuple[pa.Field, Path]]) -> pa.Field:
    """The field for a column that is null everywhere: the widest integer if any slice has one, else the first."""
    integers = [entry for entry in found if pa.types.is_integer(entry[0].type)]
    return _joined(integers) if integers else found[0][0]


def _joined(found: Sequence[tuple[pa.Field, Path]]) -> pa.Field:
    """The field that holds the values of all of them."""
    field, first = found[0]
    kind = field.type
    for other, path in found[1:]:
        wider = _wider(kind, other.type)
        if wider is None:
            raise UserError(f"column {field.name} is {kind} in {first} and {other.type} in {path}: CAST it in the query")
        kind = wider
    return field.with_type(kind)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type for values of both without loss, None if there is none."""
    if one == other:
        return one
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (one, other)]
    if not all(numbers):
        return None
    if pa.types.is_integer(one) == pa.types.is_integer(other):
        return max(one, other, key=lambda kind: kind.bit_width)
    return None if pa.int64() in (one, other) else pa.float64()


def _cast(table: pa.Table, schema: pa.Schema, path: str | Path) -> pa.Table:
    columns = []
    for field in schema:
        column = table[field.name]
        if column.null_count == len(column):
            columns.append(pa.chunked_array([pa.nulls(len(column), field.type)]))
        else:
            columns.append(column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


class _Service:
    """One TAP service while slices are fetched from it: threads, connections, and jobs under way."""

    def __init__(self, query: SlicedQuery, folder: Path, connections: int, *, timeout, poll, retries, backoff, sync) -> None:
        self.query = query
        self.connections = connections
        self.base = query.url.rstrip("/?")
        self.folder = folder / query.digest()
        self.timeout, self.poll, self.retries, self.backoff, self.sync = timeout, poll, retries, backoff, sync
        self._closing = threading.Event()
        self._jobs: dict[Path, str] = {}
        self._futures: weakref.WeakSet[Future] = weakref.WeakSet()
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="tap")
        # A synchronous request is a whole slice's work: its tries are counted by the slice, with the answer seen.
        retry = Retry(0, raise_on_status=False) if sync else _patient(retries, backoff, self._closing)
        patience = (PATIENCE[0], timeout) if sync else PATIENCE
        self._session = _Session(connections, retry, patience, timeout, self._closing, final=not sync)
        self._farewell = _Session(connections, Retry(0, raise_on_status=False), (2, 5), 5, threading.Event(), final=True)

    def __enter__(self) -> _Service:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_) -> None:
        """End all threads, with their requests if need be, and delete their jobs."""
        self._closing.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        pending = [future for future in self._futures if not future.cancelled()]
        wait(pending, timeout=GRACE)  # so that the answer to a new job is heard, and the job deleted
        self._session.hang_up()
        self._threads.shutdown(wait=True)
        for path in list(self._jobs):
            if not self._discard(path):
                break  # a silent service would be waited for with each of them
        self._session.close()
        self._farewell.close()

    def in_order(self, bar) -> Iterator[Path]:
        """The files of all slices, as soon as those before are complete; `bar` counts slices, and shows rows."""
        ahead: deque[Future[list[Path]]] = deque()
        rows = 0
        borders = deque(pairwise(self.query.borders()))
        while borders or ahead:
            while borders and len(ahead) <= self.connections:
                ahead.append(self._threads.submit(self.files, *borders.popleft()))
                self._futures.add(ahead[-1])
            paths = ahead.popleft().result()
            rows += sum(pq.read_metadata(path).num_rows for path in paths)
            bar.set_postfix_str(f"{rows:,} rows", refresh=False)
            bar.update(1)
            yield from paths

    def files(self, low: float, high: float) -> list[Path]:
        """The complete Parquet files of a slice, one or, where it had to be halved, several."""
        path = self.folder / f"{low:013.9f}-{high:013.9f}.parquet"
        if _is_complete(path):
            return [path]
        halved = path.with_suffix(".halved")
        if not halved.exists():
            table = self._complete(low, high, path.with_suffix(".job"))
            if table is not None:
                self._write(path, table, low, high)
                self._discard(path.with_suffix(".job"), final=True)
                return [path]
            self._discard(path.with_suffix(".job"), final=True)
            if high - low < 2 * NARROWEST:
                raise self._error(low, high, "more rows than one answer may have: raise --maxrec, or cut by another column")
            write_atomically(halved, "")
        middle = round((low + high) / 2, 9)
        return self.files(low, middle) + self.files(middle, high)

    def _complete(self, low: float, high: float, job_file: Path) -> pa.Table | None:
        """All rows of a slice, None if they are more than one answer may have."""
        adql = self.query.between(low, high)
        for tries in count(1):
            try:
                answer = self._ask(adql) if self.sync else self._run(adql, job_file, first=tries == 1)
                break
            except (_Refused, VOTableError) as error:
                self._discard(job_file)
                raise self._error(low, high, str(error)) from error
            except _Passing as error:
                if tries > self.retries:
                    self._discard(job_file)
                    raise self._error(low, high, f"{error}, {tries} tries") from error
                self._pause(self.backoff * 2 ** (tries - 1) if error.pause is None else error.pause)
        if answer.status == "OVERFLOW" or answer.table.num_rows >= (self.query.maxrec or float("inf")):
            return None
        return answer.table

    def _ask(self, adql: str) -> VOTable:
        """The answer of ``/sync``."""
        from pyvo.dal import tap

        query = tap.TAPQuery(self.base, adql, maxrec=self.query.maxrec, session=self._session)
        return _parsed(query.submit().content)

    def _run(self, adql: str, job_file: Path, first: bool) -> VOTable:
        """The answer of a job: the one that an earlier run or try has left, or a new one."""
        try:
            job = self._attached(job_file) or self._submitted(adql, job_file)
            self._wait(job, job_file, first)
            uri = _uws(lambda: job.result_uri) or f"{job.url}/results/result"
            return _parsed(self._session.get(uri).content)
        except _Refused as error:
            if error.status not in (404, 410) or job_file not in self._jobs:
                raise
            self._forget(job_file)
            raise _Passing("the service has lost the job") from error

    def _attached(self, job_file: Path):
        """The job whose URL was kept, if it may still give the answer."""
        from pyvo.dal import tap

        url, _, maxrec = (job_file.read_text() if job_file.exists() else "").strip().partition("\n")
        if not url.startswith("http"):
            return None
        self._jobs[job_file] = url
        if maxrec != str(self.query.maxrec):
            self._discard(job_file, final=True)
            return None
        try:
            job = _uws(lambda: tap.AsyncTAPJob(url, session=self._session))
            phase = _uws(lambda: job.phase)
        except _Refused as error:
            if error.status not in (404, 410):
                raise
            self._forget(job_file)
            return None
        if phase == "PENDING":
            job.run()
        elif phase not in WAITING | {"COMPLETED"}:
            self._discard(job_file, final=True)
            return None
        return job

    def _submitted(self, adql: str, job_file: Path):
        """A new job, running; its URL is kept before it runs."""
        from pyvo.dal import tap

        query = tap.TAPQuery(self.base, adql, mode="async", maxrec=self.query.maxrec, session=self._session)
        url = self._jobs[job_file] = query.submit().url
        write_atomically(job_file, f"{url}\n{self.query.maxrec}\n")
        job = _uws(lambda: tap.AsyncTAPJob(url, session=self._session))
        job.run()
        return job

    def _wait(self, job, job_file: Path, first: bool) -> None:
        """Return when the job has its result; `first` tells that a failure which may pass gets another try."""
        until, pause = time.monotonic() + self.timeout, 0.05
        while (phase := _uws(lambda: job.phase)) in WAITING:
            left = until - time.monotonic()
            if left <= 0:
                raise _Refused(f"the job is {phase} after {self.timeout:g} s and was aborted: try more slices")
            self._pause(min(pause, self.poll, left))
            pause *= 1.5
        if phase == "COMPLETED":
            return
        words = self._words(job) if phase == "ERROR" else f"the service left the job {phase}"
        self._discard(job_file, final=True)
        if first and (phase != "ERROR" or MAY_PASS.search(words)):
            raise _Passing(words)
        raise _Refused(words)

    def _words(self, job) -> str:
        """Why a job failed, as its summary and its error document say."""
        summary = _uws(lambda: job.job.errorsummary)
        summary = getattr(getattr(summary, "message", None), "content", None) or ""
        try:
            detail = _words_in(self._session.get(f"{job.url}/error").content)
        except (_Refused, _Passing):
            detail = ""
        summary = one_line(summary)
        return detail if summary in detail else summary or detail or "ERROR, without a word why"

    def _write(self, path: Path, table: pa.Table, low: float, high: float) -> None:
        """The table under its final name, on the disk."""
        notes = {
            "url": self.query.url,
            "query": self.query.between(low, high),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": str(table.num_rows),
        }
        for stale in path.parent.glob(f".{path.name}.*.tmp"):  # of a killed run
            stale.unlink(missing_ok=True)
        with replacing(path) as temporary:
            pq.write_table(table.replace_schema_metadata(notes), temporary, compression="zstd")

    def _discard(self, job_file: Path, final: bool = False) -> bool:
        """Delete a job; False if the service does not answer.

        A job that cannot be deleted is kept in mind for the next run, unless `final`: it is of no more use.
        """
        url = self._jobs.get(job_file)
        if url is None:
            return True
        status = 0
        try:
            self._farewell.delete(url, allow_redirects=False)
        except (_Refused, _Passing) as error:
            status = getattr(error, "status", None)
        if final or status in (0, 404, 410):
            self._forget(job_file)
        return status is not None

    def _forget(self, job_file: Path) -> None:
        self._jobs.pop(job_file, None)
        job_file.unlink(missing_ok=True)

    def _error(self, low: float, high: float, reason: str) -> TapError:
        return TapError(f"{self.query.url}: {_degrees(low)} to {_degrees(high)} degrees: {one_line(reason, 600)}")

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(min(seconds, LONGEST_WAIT)):
            raise CancelledError


class _Session(requests.Session):
    """Gives whole answers or raises _Refused, _Passing or CancelledError, whoever (pyvo too) makes the request.

    pyvo reads answers without closing them; those read to their end here give their connections back at once.
    `final` tells that the tries which `retry` allows are all that a request gets.
    """

    def __init__(self, connections: int, retry: Retry, patience, timeout: float, closing, *, final: bool) -> None:
        super().__init__()
        self.auth = HostLogin()
        self.headers.update({"User-Agent": default_user_agent(), "Accept-Encoding": "gzip"})
        self._patience, self._timeout, self._closing, self._final = patience, timeout, closing, final
        self._tries = retry.total + 1
        self._sockets: dict[int, socket.socket] = {}
        self._hung_up = threading.Event()
        adapter = HTTPAdapter(connections, connections, max_retries=retry, pool_block=True)
        pools = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
        adapter.poolmanager.pool_classes_by_scheme = {
            key: _watched(pool, self._sockets, self._hung_up) for key, pool in pools.items()
        }
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def hang_up(self) -> None:
        """Wake the threads that wait for an answer; requests under way end in CancelledError."""
        self._hung_up.set()
        for connected in list(self._sockets.values()):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def request(self, *args, **kwargs) -> requests.Response:
        if self._closing.is_set():
            raise CancelledError
        try:
            response = super().request(*args, **{**kwargs, "stream": True, "timeout": self._patience})
        except requests.RequestException as error:
            self._stop_if_hung_up()
            if isinstance(error, requests.Timeout) or self._final:
                raise _Refused(_tried(innermost(error), self._tries)) from error
            raise _Passing(innermost(error)) from error
        with response:
            body = self._body(response)
        response.raw = _Body(body)
        self._check(response, body)
        return response

    def _body(self, response: requests.Response) -> bytes:
        """All bytes of the body, decoded."""
        until, size, chunks = time.monotonic() + self._timeout, 0, []
        try:
            for chunk in response.iter_content(CHUNK):
                self._stop_if_hung_up()
                chunks.append(chunk)
                size += len(chunk)
                if size > LARGEST:
                    raise _Refused(f"an answer of more than {LARGEST:,} bytes: try more slices")
                if time.monotonic() > until:
                    raise _Refused(f"an answer that takes more than {self._timeout:g} s: try more slices")
        except requests.RequestException as error:
            self._stop_if_hung_up()
            raise _Passing(f"connection cut in the middle of an answer: {innermost(error)}") from error
        self._stop_if_hung_up()  # a connection that was shut can look like the end of a body
        response._content = b"".join(chunks)
        return response._content

    def _check(self, response: requests.Response, body: bytes) -> None:
        """Raise what an answer other than the one hoped for means."""
        status = response.status_code
        is_page = body[:512].lstrip().lower().startswith((b"<!doctype html", b"<html"))
        if status < 400 and is_page:
            raise _Passing(f"the answer is an HTML page: {readable(body, 200)}")
        if status < 400:
            return
        words = f"{status} {response.reason}: {_words_in(body)}".rstrip(": ")
        if status == 500 and not is_page and _is_error_document(body) and not MAY_PASS.search(words):
            raise _Refused(words, status)  # some services answer a wrong query like this
        if status == 500 or (status in PASSING and not self._final):
            raise _Passing(words, retry_after(response))
        raise _Refused(_tried(words, self._tries) if status in PASSING else words, status)

    def _stop_if_hung_up(self) -> None:
        if self._hung_up.is_set():
            raise CancelledError


class _Body(io.BytesIO):
    """A whole body in the place of a stream."""

    def read(self, size: int | None = -1, decode_content: bool | None = None) -> bytes:
        return super().read(size)


def _watched(pool: type, sockets: dict[int, socket.socket], hung_up: threading.Event) -> type:
    """A class of connections that leave their sockets in `sockets`, for another thread to shut."""

    class Connection(pool.ConnectionCls):
        def connect(self) -> None:
            super().connect()
            sockets[id(self)] = self.sock
            if hung_up.is_set():  # too late for `hang_up` to see this one
                self.close()
                raise CancelledError

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


def _patient(retries: int, backoff: float, closing: threading.Event) -> Retry:
    """fetch's policy for all methods; a 500 is looked at first, it may say what is wrong with the query."""
    statuses = [status for status in PASSING if status != 500]
    return retry_policy(retries, backoff, closing).new(allowed_methods=None, status_forcelist=statuses)


def _tried(reason: str, tries: int) -> str:
    return f"{reason}, {tries} tries" if tries > 1 else reason


def _uws(call: Callable):
    """What `call` of pyvo gives; pyvo raises all kinds of errors over a job document that is not one."""
    try:
        return call()
    except (_Refused, _Passing, CancelledError, requests.RequestException):
        raise
    except Exception as error:
        raise _Passing(f"not a job document: {one_line(str(error), 200)}") from error


def _parsed(body: bytes) -> VOTable:
    """The VOTable with its table, of status OK or OVERFLOW."""
    try:
        document = read_votable(body)
    except BrokenVOTable as error:
        raise _Passing(str(error)) from error
    if document.status == "ERROR":
        raise _Refused(document.message or "QUERY_STATUS is ERROR, without a word why")
    if document.table is None:
        raise _Refused("the VOTable has no table")
    return document


def _words_in(body: bytes) -> str:
    """What an error document says: the words of its QUERY_STATUS, or all its text in one line."""
    with contextlib.suppress(VOTableError):
        document = read_votable(body)
        if document.message:
            return one_line(document.message)
    return readable(body)


def _is_error_document(body: bytes) -> bool:
    try:
        return read_votable(body).status == "ERROR"
    except VOTableError:
        return False


def _is_complete(path: Path) -> bool:
    """Whether a slice is there; one that was damaged later is not."""
    try:
        metadata = pq.read_metadata(path)
        return int(metadata.metadata[b"rows"]) == metadata.num_rows
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return False


def _degrees(value: float) -> str:
    """``12.5``: never an exponent, the same text for the same border."""
    text = f"{value:.9f}".rstrip("0")
    return text + "0" if text.endswith(".") else text
