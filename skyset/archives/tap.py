"""Catalogues from TAP services: sliced, resumable, parallel.

A long catalogue is asked for in slices of one coordinate, each an asynchronous job (UWS) of its own, so
that row limits, time limits and failures cost one slice. A slice that is complete stands as a Parquet file under
its final name and is never asked for again; beside it, while they matter, stand the URL of its job on the server
(``.job``: the next run goes on with it) and the mark that it was halved (``.halved``), since it had too many rows or met
the service's time limit.

What a service says is not believed. Its jobs are on its own host, below its own path; other hosts get nothing but GET,
without a login. Answers are kept on the disk as they come, and unpacked and parsed in bounded memory.

    query = SlicedQuery("https://example.org/tap", "SELECT id, ra FROM t WHERE ra >= {low} AND ra < {high}")
    paths = []
    with contextlib.closing(fetch_slices(query, folder)) as slices:
        for path in slices:  # in order of low; stop when there are rows enough
            paths.append(path)
    table = read_slices(paths)
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urljoin, urlsplit
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq

from skyset.archives.outcomes import Passing, Refused
from skyset.archives.tap_session import (
    GRACE,
    LARGEST,
    MAY_PASS,
    PATIENCE,
    SMALL,
    TIME_LIMIT,
    Session,
    TooLarge,
    TooLong,
    beginning,
    same_host,
    words_in,
)
from skyset.errors import UserError
from skyset.files import replacing, short_digest, write_atomically
from skyset.http import LONGEST_WAIT, pause
from skyset.secrets import without_login
from skyset.tables.votable import BrokenVOTable, VOTable, VOTableError, check_xml, one_line, read_votable, readable

__all__ = ["SlicedQuery", "TapError", "fetch_slices"]

NARROWEST = 1e-4  # degrees; a slice is not halved below this
SHORTEST = 64  # a slice that meets the time limit is halved down to this share of its width
WAITING = {"PENDING", "QUEUED", "EXECUTING", "RUN", "HELD", "SUSPENDED", "UNKNOWN"}


class TapError(UserError):
    """The service does not give a slice: its URL, the slice, and its own words in one line."""


@dataclass(frozen=True)
class _Job:
    """What a job document says: `limits` are the seconds that the service gives it; times are None where not given."""

    url: str
    phase: str
    words: str
    result: str
    ran: float | None
    limits: tuple[float, ...]


@dataclass(frozen=True)
class SlicedQuery:
    """A query for all rows with ``low <= x < high``, and how it is cut.

    Attributes:
        url: base of the TAP service, as in ``https://example.org/tap``; a login in it is sent to its host, and kept nowhere.
        adql: the query with ``{low}`` and ``{high}`` where the slice's borders (degrees) belong. A `high` of 360
            is sent as 360.000000001, since some catalogues write 360 for a right ascension of 0. Without them it can be
            asked whole alone, as one slice that is never halved.
        low: where the first slice begins, degrees.
        high: where the last slice ends, degrees.
        slices: slices of equal width.
        maxrec: rows of one job at most; None leaves the limit to the service. A slice with as many is halved.
        unit: of `low` and `high`, or what they are, for people; borders need not be angles.

    Raises:
        UserError: there is nothing to cut, or no place for the borders.
    """

    url: str
    adql: str
    low: float = 0.0
    high: float = 360.0
    slices: int = 72
    maxrec: int | None = None
    unit: str = "degrees"

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", without_login(self.url))
        if self.slices > 1 and not self.has_borders:
            raise UserError("a sliced query needs {low} and {high}, as in: WHERE ra >= {low} AND ra < {high}")
        if self.slices < 1 or not self.low < self.high:
            raise UserError(f"{self.slices} slices from {self.low} to {self.high} {self.unit}: nothing to ask for")
        if self.maxrec is not None and self.maxrec < 1:
            raise UserError(f"maxrec is {self.maxrec}: it has to be 1 at least")

    @property
    def has_borders(self) -> bool:
        return "{low}" in self.adql and "{high}" in self.adql

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
        return short_digest(f"{self.url.rstrip('/?')}\n{self.adql}")


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

    A slice with too many rows, or which the service's time limit ends, is halved until its parts are given, and comes
    as several files. At most
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
        TapError: a slice cannot be had: the query is wrong, the service is down or sends us to another host, the
            job takes longer than `timeout`, a 64th of a slice still meets the service's own time limit, or a slice of
            1e-4 degrees still has more rows than the service gives.
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
        patience, tries = ((PATIENCE[0], timeout), None) if sync else (PATIENCE, retries)
        place = (self.base, self.folder)
        self._session = Session(*place, self._closing, patience, timeout, tries, backoff)
        self._farewell = Session(*place, threading.Event(), (2, 5), 5, 0, 0)

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
        if self._jobs:  # all at once, whatever one deletion says: a silent service is waited for once
            with ThreadPoolExecutor(min(len(self._jobs), 16), thread_name_prefix="tap farewell") as threads:
                wait([threads.submit(self._discard, path) for path in list(self._jobs)])
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
            try:
                table = self._complete(low, high, path.with_suffix(".job"))
            except TooLarge as error:
                self._discard(path.with_suffix(".job"), final=True)
                width = (self.query.high - self.query.low) / self.query.slices
                narrowest = max(2 * NARROWEST, 2 * width / SHORTEST if isinstance(error, TooLong) else 0)
                if high - low < narrowest or not self.query.has_borders:
                    raise self._error(low, high, str(error)) from error
                write_atomically(halved, "")
            else:
                self._write(path, table, low, high)
                self._discard(path.with_suffix(".job"), final=True)
                return [path]
        middle = round((low + high) / 2, 9)
        return self.files(low, middle) + self.files(middle, high)

    def _complete(self, low: float, high: float, job_file: Path) -> pa.Table:
        """All rows of a slice; TooLarge if the service does not give them at once."""
        adql = self.query.between(low, high)
        for tries in count(1):
            try:
                answer = self._ask(adql) if self.sync else self._run(adql, job_file, first=tries == 1)
                break
            except (Refused, VOTableError) as error:
                self._discard(job_file)
                raise self._error(low, high, str(error)) from error
            except Passing as error:
                if self.sync and tries > 1 and error.status in (408, 504):
                    raise TooLong(str(error)) from error
                if tries > self.retries:
                    self._discard(job_file)
                    raise self._error(low, high, f"{error}, {tries} tries") from error
                self._pause(pause(tries, self.backoff, error.pause))
        table = answer.table
        assert table is not None  # an answer without one was refused
        if answer.status == "OVERFLOW" or table.num_rows >= (self.query.maxrec or float("inf")):
            words = "more rows than one answer may have: raise --maxrec, or cut by another column"
            raise TooLarge(words)
        return table

    def _form(self, adql: str) -> dict[str, str]:
        """The parameters of a query."""
        limit = {} if self.query.maxrec is None else {"MAXREC": str(self.query.maxrec)}
        return {"REQUEST": "doQuery", "LANG": "ADQL", "QUERY": adql, **limit}

    def _ask(self, adql: str) -> VOTable:
        """The answer of ``/sync``."""
        with self._session.open("POST", f"{self.base}/sync", self._form(adql)) as answer:
            return _parsed(answer.body)

    def _run(self, adql: str, job_file: Path, first: bool) -> VOTable:
        """The answer of a job: the one that an earlier run or try has left, or a new one."""
        try:
            job = self._finished(self._attached(job_file) or self._submitted(adql, job_file), job_file, first)
            try:
                with self._session.open("GET", job.result) as answer:
                    return _parsed(answer.body)
            except Refused as error:
                if error.status not in (408, 504):
                    raise
                raise TooLong(str(error)) from error
        except Refused as error:
            if error.status not in (404, 410) or job_file not in self._jobs:
                raise
            self._forget(job_file)
            raise Passing("the service has lost the job") from error

    def _attached(self, job_file: Path) -> str | None:
        """The address of the job that an earlier try or run has left, if it may still give the answer; it is running."""
        url, _, maxrec = (job_file.read_text() if job_file.exists() else "").strip().partition("\n")
        if not self._is_job(url, ""):
            return None
        self._jobs[job_file] = url
        if maxrec != str(self.query.maxrec):
            self._discard(job_file, final=True)
            return None
        try:
            phase = self._job(url).phase
        except Refused as error:
            if error.status not in (404, 410):
                raise
            self._forget(job_file)
            return None
        if phase == "PENDING":
            self._start(url)
        elif phase not in WAITING | {"COMPLETED"}:
            self._discard(job_file, final=True)
            return None
        return url

    def _submitted(self, adql: str, job_file: Path) -> str:
        """The address of a new job, running; it is kept before the job runs."""
        with self._session.open("POST", f"{self.base}/async", self._form(adql), only_post=True) as answer:
            if answer.target is None:
                raise Refused("the service did not say where the new job is: it may have no /async (try --sync)")
            if not self._is_job(answer.target, answer.url):
                place = f"{answer.target} as the address of a new job, which is not one of its own"
                raise Refused(f"the service gives {place}: if it has moved there, name that service")
            url = self._jobs[job_file] = answer.target.rstrip("/")
        write_atomically(job_file, f"{url}\n{self.query.maxrec}\n")
        self._start(url)
        return url

    def _is_job(self, url: str, endpoint: str) -> bool:
        """Whether an address can be a job of this service: its scheme, host and port, and below its path for jobs.

        `endpoint` is where the query went, which is not ``<url>/async`` where the service has moved. GAVO DaCHS has
        its jobs at ``/__system__/tap/run/async`` and its service at ``/tap``.
        """
        try:
            parts, base = urlsplit(url), urlsplit(self.base)
        except ValueError:
            return False
        folder, _, name = unquote(parts.path.rstrip("/")).rpartition("/")
        folders = {f"{base.path}/async", urlsplit(endpoint).path.rstrip("/") or None}
        of_dachs = re.fullmatch(rf"(/[^/]+)*/{re.escape(base.path.rpartition('/')[2])}/run/async", folder)
        is_below = (folder in folders or bool(of_dachs)) and name not in ("", ".", "..") and ".." not in folder.split("/")
        return same_host(url, self.base) and is_below and not parts.query and "@" not in parts.netloc

    def _start(self, url: str) -> None:
        self._session.open("POST", f"{url}/phase", {"PHASE": "RUN"}).body.close()

    def _job(self, url: str) -> _Job:
        """What a job says of itself."""
        with self._session.open("GET", url) as answer:
            return _read_job(url, answer.body)

    def _finished(self, url: str, job_file: Path, first: bool) -> _Job:
        """The job once it has its result; `first` tells that a failure which may pass gets another try."""
        began, pause = time.monotonic(), 0.05
        limits: tuple[float, ...] = ()
        while True:
            try:
                job = self._job(url)
            except Refused as error:
                if error.status in (404, 410) and _meets(limits, time.monotonic() - began):
                    raise TooLong("the job was destroyed before its end") from error
                raise
            if job.phase not in WAITING:
                break
            limits, left = job.limits, began + self.timeout - time.monotonic()
            if left <= 0:
                raise Refused(f"the job is {job.phase} after {self.timeout:g} s and was aborted: try more slices")
            self._pause(min(pause, self.poll, left))
            pause *= 1.5
        if job.phase == "COMPLETED":
            return job
        words = self._words(job) if job.phase == "ERROR" else f"the service left the job {job.phase}"
        ran = time.monotonic() - began if job.ran is None else job.ran
        self._discard(job_file, final=True)
        if TIME_LIMIT.search(words) or _meets(job.limits, ran):
            raise TooLong(words)
        if first and (job.phase != "ERROR" or MAY_PASS.search(words)):
            raise Passing(words)
        if job.phase == "ABORTED":  # again: what ends every try is as a rule a limit
            raise TooLong(words)
        raise Refused(words)

    def _words(self, job: _Job) -> str:
        """Why a job failed, as its summary and its error document say."""
        try:
            with self._session.open("GET", f"{job.url}/error") as answer:
                detail = words_in(answer.body)
        except (Refused, Passing):
            detail = ""
        return detail if job.words in detail else job.words or detail or "ERROR, without a word why"

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

    def _discard(self, job_file: Path, final: bool = False) -> None:
        """Delete a job; whatever the service answers with, as long as it is no error, the job is gone.

        A job that cannot be deleted is kept in mind for the next run, unless `final`: it is of no more use.
        """
        url = self._jobs.get(job_file)
        if url is None:
            return
        status = self._farewell.status("DELETE", url)
        if status in (405, 501):  # UWS knows this way too
            status = self._farewell.status("POST", url, {"ACTION": "DELETE"})
        if final or (status is not None and (status < 400 or status in (404, 410))):
            self._forget(job_file)

    def _forget(self, job_file: Path) -> None:
        self._jobs.pop(job_file, None)
        job_file.unlink(missing_ok=True)

    def _error(self, low: float, high: float, reason: str) -> TapError:
        where = f": {_degrees(low)} to {_degrees(high)} {self.query.unit}" if self.query.has_borders else ""
        return TapError(f"{self.query.url}{where}: {one_line(reason, 600)}")

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(min(seconds, LONGEST_WAIT)):
            raise CancelledError


def _read_job(url: str, body: BinaryIO) -> _Job:
    """A job document; Passing if it is none."""
    text = beginning(body, SMALL)
    try:
        check_xml(text)
        root = ElementTree.fromstring(text)
    except (VOTableError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise Passing(f"not a job document: {one_line(str(error), 200)}") from error
    parts = {part.tag.rpartition("}")[2]: part for part in root}
    if root.tag.rpartition("}")[2] != "job" or "phase" not in parts:
        raise Passing(f"not a job document: {readable(text, 200)}")

    def text_of(name: str) -> str:
        return ("".join(parts[name].itertext()) if name in parts else "").strip()

    results = [(part.get("id"), _attribute(part, "href").strip()) for part in parts.get("results", ())]
    results.sort(key=lambda found: (not found[1].endswith("results/result"), found[0] != "result"))
    named = next((href for name, href in results if href and (name == "result" or href.endswith("results/result"))), "")
    moments = ("creationTime", "startTime", "endTime", "destruction")
    created, started, ended, dies = (_moment(text_of(name)) for name in moments)
    duration = text_of("executionDuration")
    limits = [float(duration)] if re.fullmatch(r"0*[1-9][0-9]{0,8}", duration) else []
    limits += [dies - created] if dies and created else []
    ran = ended - started if ended and started else None
    result = urljoin(f"{url}/", named or "results/result")
    return _Job(url, text_of("phase").upper(), one_line(text_of("errorSummary")), result, ran, tuple(limits))


def _meets(limits: Sequence[float], seconds: float) -> bool:
    """Whether a job has used up one of its limits, seconds; clocks differ a little."""
    return any(seconds >= 0.9 * limit for limit in limits)


def _attribute(part: ElementTree.Element, name: str) -> str:
    """An attribute, whatever its namespace."""
    return next((value for key, value in part.attrib.items() if key.rpartition("}")[2] == name), "")


def _moment(text: str) -> float | None:
    """Seconds since 1970 of a date in ISO's form; None if it is something else."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _parsed(body: BinaryIO) -> VOTable:
    """The VOTable with its table, of status OK or OVERFLOW."""
    body.seek(0)
    try:
        document = read_votable(body, LARGEST)
    except BrokenVOTable as error:
        raise Passing(str(error)) from error
    if document.status == "ERROR":
        words = document.message or "QUERY_STATUS is ERROR, without a word why"
        if TIME_LIMIT.search(words):
            raise TooLong(words)
        raise Refused(words)
    if document.table is None:
        raise Refused("the VOTable has no table")
    return document


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
