"""A small TAP service (sync, and jobs after UWS 1.1) over tables in memory, with faults on demand.

::

    with TapServer({"sdss.photo": table}, executing=0.2, row_limit=1000) as server:
        server.fault("async/*/results/result", "cut", times=1)
        pyvo.dal.TAPService(server.url).run_async("SELECT TOP 5 * FROM sdss.photo WHERE ra < 10")

Queries must be ADQL 2.0 (`skyset.testing.adql`). They are run by SQLite, whose own words stand in the ERROR documents.
``stilts taplint`` finds no error in the service. `TapService` does all that without HTTP;
`ServiceServer` serves any number of such services side by side, each below its own path::

    tap = TapService(tables)
    with ServiceServer({"/tap": tap, "/hips2fits": cutouts}) as server:
        print(server.url + "tap")

Faults of the first kind hit requests, and their pattern is for the path below the service (``async``, ``async/3``,
``async/*/phase``, ``sync``); those of the second hit queries, and their pattern is for the ADQL.

=================  ==========================================================================================
request fault      what the client sees
=================  ==========================================================================================
``404``, ``500``   that status (any three-digit status works), with `words` in a VOTable if given
``429``            too many requests, with Retry-After where `fault` is given `retry_after`
``cut``            the right Content-Length, and the connection closed in the middle of the body
``truncated``      half of the body under a Content-Length of its own
``html``           200 with an HTML error page
``hang``           half of the body, then silence
``silence``        no answer at all
=================  ==========================================================================================

=================  ==========================================================================================
query fault        what the client sees
=================  ==========================================================================================
``error``          phase ERROR (or an ERROR document from sync), with `words`
``aborted``        phase ABORTED
``lost``           404 for the job from the moment it would be complete
``slow``           a job that is executed for an hour
``overflow``       half of the rows, and OVERFLOW
=================  ==========================================================================================
"""

import base64
import dataclasses
import math
import re
import sqlite3
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from itertools import count
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pyarrow as pa

from skyset.testing.adql import RESERVED, check
from skyset.testing.server import ERROR_PAGE, Answer, ArchiveServer, Handler, Request, spoil, status_of

REQUEST_KINDS = ("404", "500", "429", "cut", "truncated", "html", "hang", "silence")
QUERY_KINDS = ("error", "aborted", "lost", "slow", "overflow")
ENDED = ("COMPLETED", "ERROR", "ABORTED")
XML = "text/xml"
VOTABLE = "application/x-votable+xml"
PROLOGUE = '<?xml version="1.0" encoding="UTF-8"?>\n'
DATATYPES = {
    pa.bool_(): "boolean",
    pa.uint8(): "unsignedByte",
    pa.int16(): "short",
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
}
CODES = {"boolean": "c", "unsignedByte": "B", "short": "h", "int": "i", "long": "q", "float": "f", "double": "d"}
UWS = (
    'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="1.1"'
)


class Form(dict[str, str]):
    """The fields of a request, each with its last value; ``every`` gives all that one has."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def every(self, name: str) -> list[str]:
        """The values of a field, whatever the case of its name."""
        return [value for key, value in self._pairs if key.upper() == name.upper()]


class Service(Protocol):
    """What `ServiceServer` can serve."""

    def answer(self, method: str, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """The answer to a request; `path` is absolute, `form` holds the query string and the body's fields."""


class ServiceServer(ArchiveServer):
    """Serve `services`, by the path that each stands below, on 127.0.0.1 while the ``with`` block runs.

    `url`, `requests`, `max_concurrent`, `body_bytes` and `latency` are those of `ArchiveServer`; faults are asked
    for at the services.
    """

    def __init__(self, services: Mapping[str, Service], latency: float = 0.0, port: int = 0) -> None:
        super().__init__(".", latency, port)
        self.services = dict(services)
        self._http.RequestHandlerClass = type("Handler", (ServiceHandler,), {"archive": self})

    def service_at(self, path: str) -> Service | None:
        """The service that answers for `path`."""
        return next((s for prefix, s in self.services.items() if path == prefix or path.startswith(f"{prefix}/")), None)


class TapServer(ServiceServer):
    """One `TapService` (`service`) below ``/tap``; `url` is its base."""

    def __init__(self, tables: Mapping[str, object], latency: float = 0.0, port: int = 0, **options) -> None:
        self.service = TapService(tables, **options)
        super().__init__({self.service.prefix: self.service}, latency, port)
        self.url = self.url.rstrip("/") + self.service.prefix

    def fault(
        self, pattern: str, kind: str, times: int | None = None, retry_after: int | datetime | None = None, **details
    ) -> None:
        """See `TapService.fault`."""
        self.service.fault(pattern, kind, times, retry_after=retry_after, **details)

    def paths(self, method: str = "") -> list[str]:
        """The paths below the base of all requests so far, or of those of one method."""
        prefix = self.service.prefix + "/"
        return [r.path.removeprefix(prefix) for r in list(self.requests) if method in ("", r.method)]


class ServiceHandler(Handler):
    """Finds the service, hands it the request, sends what it says."""

    archive: ServiceServer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        with self.archive.counted() as ticket:
            self.archive.closing.wait(self.archive.latency)
            split = urlsplit(self.path)
            form = Form(parse_qsl(split.query, keep_blank_values=True) + parse_qsl(body, keep_blank_values=True))
            service, headers = self.archive.service_at(unquote(split.path)), cast(Mapping[str, str], self.headers)
            answer = service.answer(self.command, unquote(split.path), form, headers) if service else status_of(404)
            if answer.status:
                self._send(answer, ticket)
                return
            self.archive.record(Request(self.command, self.path, None, 0))
            self._wait(None)
            self.close_connection = True

    do_POST = do_GET
    do_DELETE = do_GET
    do_HEAD = do_GET


@dataclass
class Fault:
    """A fault for the next `times` (None: all) requests or queries like `pattern`."""

    pattern: str
    kind: str
    times: int | None = None
    words: str = ""
    retry_after: int | datetime | None = None


@dataclass
class Job:
    """A UWS job: it is QUEUED and EXECUTING for some seconds after `started`, then `answer` is made."""

    number: str
    form: dict[str, str]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = math.inf  # time.monotonic() of PHASE=RUN
    executing: float = 0.0
    fault: Fault | None = None
    ended: str = ""  # a phase of ENDED
    answer: Answer | None = None
    words: str = ""
    duration: str = "3600"
    destruction: str = field(default_factory=lambda: f"{datetime.now(UTC) + timedelta(days=7):%Y-%m-%dT%H:%M:%S.000Z}")


class TapService:
    """Answers TAP requests from tables in memory.

    Args:
        tables: by name as in the ADQL, with or without a schema: Arrow or astropy tables, or dicts of arrays.
        prefix: the path below which it is served.
        row_limit: rows of an answer at most, whatever MAXREC says; an answer that is cut says OVERFLOW.
        sync_limit: the same for answers of ``/sync``.
        says_overflow: whether they do say so.
        queued: seconds that a job waits.
        executing: seconds that a job, or a query at ``/sync``, takes.
        serialisation: TABLEDATA or BINARY2.

    Attributes:
        created: numbers of all jobs so far.
        deleted: numbers of the jobs that were deleted.
        queries: ADQL of all queries that were run, by jobs or at ``/sync``.
        max_jobs: most jobs that were queued or executed at the same time.
    """

    def __init__(
        self,
        tables: Mapping[str, object],
        *,
        prefix: str = "/tap",
        row_limit: int | None = None,
        sync_limit: int | None = None,
        says_overflow: bool = True,
        queued: float = 0.0,
        executing: float = 0.0,
        serialisation: str = "TABLEDATA",
    ) -> None:
        self.prefix = prefix
        self.row_limit = row_limit
        self.sync_limit = sync_limit
        self.says_overflow = says_overflow
        self.queued = queued
        self.executing = executing
        self.serialisation = serialisation
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.queries: list[str] = []
        self.max_jobs = 0
        self._jobs: dict[str, Job] = {}
        self._numbers = count(1)
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        self.tables = {name: arrow_table(table) for name, table in tables.items()}
        self.tables |= {f"TAP_SCHEMA.{name}": table for name, table in _tap_schema(self.tables).items()}
        self._database = _database(self.tables)

    def fault(
        self,
        pattern: str,
        kind: str,
        times: int | None = None,
        *,
        words: str = "",
        retry_after: int | datetime | None = None,
    ) -> None:
        """Give the next `times` requests or queries like `pattern` (fnmatch, case counts) a fault of `kind`.

        Raises:
            ValueError: no such kind.
        """
        if kind not in REQUEST_KINDS + QUERY_KINDS and not re.fullmatch(r"[45]\d\d", kind):
            raise ValueError(f"unknown fault {kind!r}; known: {', '.join(REQUEST_KINDS + QUERY_KINDS)}, 4xx, 5xx")
        with self._lock:
            self._faults.append(Fault(pattern, kind, times, words, retry_after))

    def clear(self) -> None:
        """Forget all faults, and what was counted; jobs stay."""
        with self._lock:
            for counted in (self._faults, self.created, self.deleted, self.queries):
                counted.clear()
            self.max_jobs = 0

    def answer(self, method: str, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """The answer to a request; an `Answer` of status 0 stands for silence."""
        below = path.removeprefix(self.prefix).strip("/")
        fault = self._next_fault(below, of_query=False)
        if fault is None:
            return self._answer(method, below, form, headers)
        if fault.kind.isdigit():
            return _refusal(fault)
        if fault.kind == "html":
            return Answer(200, ERROR_PAGE, {"Content-Type": "text/html"})
        if fault.kind == "silence":
            return Answer(0)
        return spoil(self._answer(method, below, form, headers), fault.kind)

    def _answer(self, method: str, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        form = {key.upper(): value for key, value in form.items()}
        base = f"http://{headers['Host']}{self.prefix}"
        match path.split("/"):
            case ["sync"] if method in ("GET", "POST"):
                return self._sync(form)
            case ["async"] if method == "POST":
                return self._create(form, base)
            case ["async"]:
                return self._job_list(base)
            case ["async", number, *rest] if number in self._jobs:
                return self._job_answer(self._jobs[number], method, "/".join(rest), form, base)
            case ["capabilities"]:
                return Answer(200, self.capabilities(base).encode(), {"Content-Type": XML})
            case ["tables"]:
                return Answer(200, _table_set(self.tables).encode(), {"Content-Type": XML})
            case ["availability"]:
                text = '<availability xmlns="http://www.ivoa.net/xml/VOSIAvailability/v1.0"><available>true</available>'
                return Answer(200, f"{PROLOGUE}{text}</availability>".encode(), {"Content-Type": XML})
            case _:
                return status_of(404)

    def capabilities(self, base: str) -> str:
        """The document of the service at an address."""
        return _capabilities(base)

    def _next_fault(self, text: str, of_query: bool) -> Fault | None:
        """The fault for this request or query, counted as used."""
        with self._lock:
            for fault in self._faults:
                fits = (fault.kind in QUERY_KINDS) == of_query and fnmatch(text, fault.pattern)
                if fits and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
            return None

    def _sync(self, form: Mapping[str, str]) -> Answer:
        fault = self._next_fault(form.get("QUERY", ""), of_query=True)
        time.sleep(3600 if fault and fault.kind == "slow" else self.executing)
        return self._run(form, fault, self.sync_limit)[0]

    def _create(self, form: dict[str, str], base: str) -> Answer:
        with self._lock:
            job = Job(str(next(self._numbers)), form)
            self.created.append(job.number)
            self._jobs[job.number] = job
            if form.get("PHASE") == "RUN":
                self._start(job)
        return _redirect(f"{base}/async/{job.number}")

    def _start(self, job: Job) -> None:
        job.fault = self._next_fault(job.form.get("QUERY", ""), of_query=True)
        job.executing = 3600 if job.fault and job.fault.kind == "slow" else self.executing
        job.started = time.monotonic()
        phases = [self._phase(other) for other in list(self._jobs.values())]  # a look may find that one is lost
        self.max_jobs = max(self.max_jobs, sum(phase in ("QUEUED", "EXECUTING") for phase in phases))

    def _phase(self, job: Job) -> str:
        """The phase now; the query is run when a job is first looked at after its time."""
        with self._lock:
            if job.ended or job.started == math.inf:
                return job.ended or "PENDING"
            age = time.monotonic() - job.started
            if age < self.queued:
                return "QUEUED"
            if age < self.queued + job.executing:
                return "EXECUTING"
            if job.fault and job.fault.kind == "lost":
                self._jobs.pop(job.number, None)
            job.answer, job.words = self._run(job.form, job.fault)
            job.ended = "ABORTED" if job.fault and job.fault.kind == "aborted" else "ERROR" if job.words else "COMPLETED"
            return job.ended

    def _wait(self, job: Job, seconds: float) -> None:
        """Return when the phase changes, or after some seconds."""
        before, until = self._phase(job), time.monotonic() + seconds
        while self._phase(job) == before and time.monotonic() < until and before not in ENDED:
            time.sleep(0.01)

    def _job_answer(self, job: Job, method: str, what: str, form: Mapping[str, str], base: str) -> Answer:
        here = f"{base}/async/{job.number}"
        if method == "DELETE" or (method == "POST" and not what and form.get("ACTION") == "DELETE"):
            with self._lock:
                self._jobs.pop(job.number, None)
                self.deleted.append(job.number)
            return _redirect(f"{base}/async")
        if method == "POST":
            return self._change(job, what, form, here)
        if "WAIT" in form:
            seconds = float(form["WAIT"])
            self._wait(job, min(seconds, 60) if seconds >= 0 else 60)
        phase = self._phase(job)
        if job.number not in self._jobs:
            return status_of(404)
        if job.answer and what == "results/result" and phase == "COMPLETED":
            return job.answer
        if job.answer and what == "error" and phase == "ERROR":
            return dataclasses.replace(job.answer, status=200)
        text = {
            "phase": phase,
            "quote": "",
            "owner": "",
            "executionduration": job.duration,
            "destruction": job.destruction,
        }
        if what in text:
            return Answer(200, text[what].encode(), {"Content-Type": "text/plain"})
        document = {"": _job_document, "parameters": _parameters_document, "results": _results_document}.get(what)
        return Answer(200, document(job, phase, here).encode(), {"Content-Type": XML}) if document else status_of(404)

    def _change(self, job: Job, what: str, form: Mapping[str, str], here: str) -> Answer:
        """POST to a part of a job."""
        with self._lock:
            if what == "phase" and form.get("PHASE") == "RUN" and self._phase(job) == "PENDING":
                self._start(job)
            elif what == "phase" and form.get("PHASE") == "ABORT":
                job.ended = job.ended or "ABORTED"
            elif what == "executionduration":
                job.duration = form["EXECUTIONDURATION"]
            elif what == "destruction":
                job.destruction = form["DESTRUCTION"]
            elif what in ("", "parameters"):
                job.form.update(form)
            else:
                return status_of(400)
        return _redirect(here)

    def _job_list(self, base: str) -> Answer:
        with self._lock:
            refs = "".join(
                f'<uws:jobref id="{job.number}" xlink:href="{base}/async/{job.number}">'
                f"<uws:phase>{self._phase(job)}</uws:phase></uws:jobref>"
                for job in list(self._jobs.values())
            )
        return Answer(200, f"{PROLOGUE}<uws:jobs {UWS}>{refs}</uws:jobs>".encode(), {"Content-Type": XML})

    def _run(self, form: Mapping[str, str], fault: Fault | None, most: int | None = None) -> tuple[Answer, str]:
        """The VOTable for a query, and "" or the words of the error that it tells of."""
        adql = form.get("QUERY", "")
        self.queries.append(adql)
        kind, words = (fault.kind, fault.words) if fault else ("", "")
        try:
            if kind == "error":
                raise ValueError(words or "The query was cancelled")
            if not adql:
                raise ValueError("Missing parameter: QUERY")
            if form.get("LANG", "ADQL").partition("-")[0] != "ADQL":
                raise ValueError(f"Unknown query language {form['LANG']}")
            maxrec = int(form["MAXREC"]) if "MAXREC" in form else None
            limit = min((x for x in (maxrec, self.row_limit, most) if x is not None), default=None)
            fields, rows = self._select(adql, None if limit is None else limit + 1)
        except (ValueError, sqlite3.Error) as error:
            words = str(error).replace('""', '"')  # names in quotes are our doing
            return Answer(400, error_document(words), {"Content-Type": VOTABLE}), words
        overflow = limit is not None and len(rows) > limit
        if kind == "overflow":
            overflow, rows = True, rows[: len(rows) // 2]
        told = overflow and (self.says_overflow or kind == "overflow")
        body = votable(fields, rows[:limit] if overflow else rows, told, self.serialisation)
        return Answer(200, body, {"Content-Type": VOTABLE}), ""

    def _select(self, adql: str, limit: int | None) -> tuple[list[pa.Field], list[tuple]]:
        """Fields and rows, `limit` at most, of a query."""
        check(adql)
        sql = _sql(adql, self.tables)
        with self._lock:
            cursor = self._database.execute(sql)
            rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
            names = [column[0] for column in cursor.description or ()]
        if not names:
            raise ValueError("Only SELECT queries are allowed")
        sources = _aliases(adql)
        named = [table for name, table in self.tables.items() if name.lower() in adql.lower()]
        known = {f.name.lower(): f for table in reversed(named) for f in table.schema}
        fields = []
        for i, name in enumerate(names):
            found = known.get(sources.get(name.lower(), name.lower()))
            fields.append(found.with_name(name) if found else pa.field(name, _guess(row[i] for row in rows)))
        return fields, rows


def arrow_table(table: Any) -> pa.Table:
    """An Arrow table from one of Arrow, of astropy (units and masks kept), or a dict of arrays."""
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, Mapping):
        return pa.table({name: _arrow_column(values) for name, values in table.items()})
    columns, fields = [], []
    for name in table.colnames:
        column = table[name]
        columns.append(_arrow_column(getattr(column, "filled", lambda column=column: column)(), np.ma.getmaskarray(column)))
        notes = {"unit": str(column.unit or ""), "description": column.description or ""}
        fields.append(pa.field(name, columns[-1].type, metadata={k: v for k, v in notes.items() if v} or None))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _arrow_column(values: object, mask: np.ndarray | None = None) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    values = np.asarray(values)
    if values.dtype.kind in "SU":
        values = values.astype(object)
    return pa.array(values.astype(values.dtype.newbyteorder("=")), mask=mask, from_pandas=False)


def votable(fields: list[pa.Field], rows: list[tuple], overflow: bool = False, serialisation: str = "TABLEDATA") -> bytes:
    """A TAP answer as VOTable; OVERFLOW stands after the table, as the standard asks."""
    heads = "\n".join(_field_element(f) for f in fields)
    if serialisation == "BINARY2":
        stream = base64.encodebytes(_binary2(fields, rows)).decode()
        data = f'<BINARY2><STREAM encoding="base64">\n{stream}</STREAM></BINARY2>'
    else:
        cells = [[_cell(value, f) for value, f in zip(row, fields, strict=True)] for row in rows]
        data = "<TABLEDATA>\n" + "".join(f"<TR><TD>{'</TD><TD>'.join(row)}</TD></TR>\n" for row in cells) + "</TABLEDATA>"
    more = '\n<INFO name="QUERY_STATUS" value="OVERFLOW"/>' if overflow else ""
    return _document(
        f'<INFO name="QUERY_STATUS" value="OK"/>\n<TABLE>\n{heads}\n<DATA>\n{data}\n</DATA>\n</TABLE>{more}'
    ).encode()


def error_document(words: str) -> bytes:
    """The VOTable that tells of an error."""
    return _document(f'<INFO name="QUERY_STATUS" value="ERROR">{escape(words)}</INFO>').encode()


def _document(content: str) -> str:
    return (
        f'{PROLOGUE}<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
        f'<RESOURCE type="results">\n{content}\n</RESOURCE>\n</VOTABLE>\n'
    )


def _field_element(f: pa.Field) -> str:
    datatype, arraysize = _type_of(f)
    kind = f'datatype="{datatype}"' + (f' arraysize="{arraysize}"' if arraysize else "")
    notes = {key.decode(): value.decode() for key, value in (f.metadata or {}).items()}
    unit = f" unit={quoteattr(notes['unit'])}" if notes.get("unit") else ""
    text = f"<DESCRIPTION>{escape(notes['description'])}</DESCRIPTION>" if notes.get("description") else ""
    return f"<FIELD name={quoteattr(f.name)} {kind}{unit}>{text}</FIELD>"


def _cell(value: object, f: pa.Field) -> str:
    if value is None:
        return ""
    if f.type == pa.bool_():
        return "T" if value else "F"
    return repr(value) if isinstance(value, int | float) else escape(str(value))


def _binary2(fields: list[pa.Field], rows: list[tuple]) -> bytes:
    """The rows, each behind the bits of its nulls."""
    size = (len(fields) + 7) // 8
    stream = bytearray()
    for row in rows:
        bits = "".join("1" if value is None else "0" for value in row).ljust(8 * size, "0")
        stream += int(bits or "0", 2).to_bytes(size)
        for value, f in zip(row, fields, strict=True):
            datatype = DATATYPES.get(f.type)
            if datatype is None:
                text = (value or "").encode("utf-16-be")
                stream += struct.pack(">I", len(text) // 2) + text
            elif datatype == "boolean":
                stream += b"?" if value is None else b"T" if value else b"F"
            else:
                stream += struct.pack(f">{CODES[datatype]}", 0 if value is None else value)
    return bytes(stream)


def _database(tables: Mapping[str, pa.Table]) -> sqlite3.Connection:
    """The tables in SQLite, each under its whole name."""
    database = sqlite3.connect(":memory:", check_same_thread=False)
    for name, table in tables.items():
        columns = ", ".join(f'"{column}"' for column in table.column_names)
        database.execute(f'CREATE TABLE "{name}" ({columns})')
        places = ", ".join("?" * table.num_columns)
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        database.executemany(f'INSERT INTO "{name}" VALUES ({places})', rows)
    return database


def _sql(adql: str, tables: Mapping[str, pa.Table]) -> str:
    """ADQL as SQLite reads it: names with a schema in quotes, TOP as LIMIT."""
    for name in sorted(tables, key=len, reverse=True):
        if "." in name:
            adql = re.sub(rf'(?i)(?<![\w".]){re.escape(name)}(?![\w"])', f'"{name}"', adql)
    top = re.match(r"(?is)\s*SELECT\s+((?:DISTINCT|ALL)\s+)?TOP\s+(\d+)\s", adql)
    if top is None:
        return adql
    return f"SELECT {top[1] or ''}{adql[top.end() :]} LIMIT {top[2]}"


def _aliases(adql: str) -> dict[str, str]:
    """Source column by the name that AS gives it, both lower-case."""
    found = re.findall(r'(?i)(\w+)"?\s+AS\s+"?(\w+)', adql)
    return {alias.lower(): source.lower() for source, alias in found}


def _guess(values) -> pa.DataType:
    """The type of an expression, by its first value."""
    first = next((value for value in values if value is not None), "")
    return {int: pa.int64(), float: pa.float64()}.get(type(first), pa.string())


def _redirect(url: str) -> Answer:
    """With a page for people, as GAVO DaCHS has it."""
    page = f"<!DOCTYPE html>\n<html><body><h1>See Other (303)</h1><p>Please turn to {escape(url)}</p></body></html>"
    return Answer(303, page.encode(), {"Location": url, "Content-Type": "text/html"})


def _refusal(fault: Fault) -> Answer:
    answer = status_of(int(fault.kind), fault.retry_after)
    if fault.words:
        answer.body, answer.headers["Content-Type"] = error_document(fault.words), VOTABLE
    return answer


def _job_document(job: Job, phase: str, here: str) -> str:
    results = _results(here) if phase == "COMPLETED" else ""
    error = (
        f'<uws:errorSummary type="fatal" hasDetail="true"><uws:message>{escape(job.words)}</uws:message></uws:errorSummary>'
        if phase == "ERROR"
        else ""
    )
    return (
        f"{PROLOGUE}<uws:job {UWS}>\n<uws:jobId>{job.number}</uws:jobId>\n"
        '<uws:ownerId xsi:nil="true"/>\n'
        f"<uws:phase>{phase}</uws:phase>\n"
        '<uws:quote xsi:nil="true"/>\n'
        f"<uws:creationTime>{job.created:%Y-%m-%dT%H:%M:%S}Z</uws:creationTime>\n"
        '<uws:startTime xsi:nil="true"/>\n<uws:endTime xsi:nil="true"/>\n'
        f"<uws:executionDuration>{job.duration}</uws:executionDuration>\n"
        f"<uws:destruction>{job.destruction}</uws:destruction>\n"
        f"<uws:parameters>{_parameters(job)}</uws:parameters>\n<uws:results>{results}</uws:results>\n{error}\n</uws:job>\n"
    )


def _parameters(job: Job) -> str:
    return "".join(
        f"<uws:parameter id={quoteattr(key.lower())}>{escape(value)}</uws:parameter>" for key, value in job.form.items()
    )


def _results(here: str) -> str:
    return f'<uws:result id="result" xlink:href="{here}/results/result" mime-type="{VOTABLE}"/>'


def _parameters_document(job: Job, phase: str, here: str) -> str:
    return f"{PROLOGUE}<uws:parameters {UWS}>{_parameters(job)}</uws:parameters>\n"


def _results_document(job: Job, phase: str, here: str) -> str:
    return f"{PROLOGUE}<uws:results {UWS}>{_results(here) if phase == 'COMPLETED' else ''}</uws:results>\n"


def _capabilities(base: str) -> str:
    of_vosi = "".join(
        f'<capability standardID="ivo://ivoa.net/std/VOSI#{name}">{_interface(f"{base}/{name}", "full")}</capability>'
        for name in ("capabilities", "availability", "tables")
    )
    return (
        f'{PROLOGUE}<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" '
        'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" xmlns:tr="http://www.ivoa.net/xml/TAPRegExt/v1.0" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f'{of_vosi}<capability standardID="ivo://ivoa.net/std/TAP" xsi:type="tr:TableAccess">{_interface(base, "base")}'
        '<language><name>ADQL</name><version ivo-id="ivo://ivoa.net/std/ADQL#v2.0">2.0</version>'
        "<description>ADQL 2.0</description></language>"
        f"<outputFormat><mime>{VOTABLE}</mime><alias>votable</alias></outputFormat>"
        "</capability></vosi:capabilities>\n"
    )


def _interface(url: str, use: str) -> str:
    version = ' version="1.1"' if use == "base" else ""
    return f'<interface role="std" xsi:type="vs:ParamHTTP"{version}><accessURL use="{use}">{url}</accessURL></interface>'


def _quoted(name: str) -> str:
    """A name as ADQL has it: in quotes where it is none without."""
    is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) and name.upper() not in RESERVED
    return name if is_plain else f'"{name}"'


def _table_name(name: str) -> str:
    """A table's name, with its schema if it has one, as ADQL has it."""
    return ".".join(map(_quoted, name.split("."))) if re.fullmatch(r"\w+\.\w+", name) else _quoted(name)


def _schema_of(name: str) -> str:
    return name.split(".")[0] if re.fullmatch(r"\w+\.\w+", name) else "default"


def _type_of(f: pa.Field) -> tuple[str, str | None]:
    """datatype and arraysize of a column."""
    datatype = DATATYPES.get(f.type)
    return (datatype, None) if datatype else ("unicodeChar", "*")


#: The columns of TAP_SCHEMA's tables; those of numbers.
TAP_SCHEMA = {
    "schemas": "schema_name description utype schema_index",
    "tables": "schema_name table_name table_type description utype table_index",
    "columns": "table_name column_name datatype arraysize xtype size description utype unit ucd principal indexed std "
    "column_index",
    "keys": "key_id from_table target_table description utype",
    "key_columns": "key_id from_column target_column",
}
KEYS = (
    ("tables", "schema_name", "schemas"),
    ("columns", "table_name", "tables"),
    ("keys", "from_table", "tables"),
    ("keys", "target_table", "tables"),
    ("key_columns", "key_id", "keys"),
)
TARGETS = {"from_table": "table_name", "target_table": "table_name"}
NUMBERS = ("schema_index", "table_index", "column_index", "size", "principal", "indexed", "std")


def _tap_schema(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables that describe the tables, themselves included."""
    empty = {
        name: pa.schema([pa.field(c, pa.int32() if c in NUMBERS else pa.string()) for c in columns.split()])
        for name, columns in TAP_SCHEMA.items()
    }
    every = {name: table.schema for name, table in tables.items()}
    every |= {f"TAP_SCHEMA.{name}": schema for name, schema in empty.items()}
    rows: dict[str, list[dict]] = {name: [] for name in TAP_SCHEMA}
    rows["schemas"] = [{"schema_name": name} for name in dict.fromkeys(map(_schema_of, every))]
    for table, schema in every.items():
        rows["tables"].append({"schema_name": _schema_of(table), "table_name": _table_name(table), "table_type": "table"})
        for f in schema:
            datatype, arraysize = _type_of(f)
            notes = {key.decode(): value.decode() for key, value in (f.metadata or {}).items()}
            names = {"table_name": _table_name(table), "column_name": _quoted(f.name)}
            flags = {"principal": 1, "indexed": 0, "std": int(table.startswith("TAP_SCHEMA."))}
            rows["columns"].append({**names, "datatype": datatype, "arraysize": arraysize, **flags, **notes})
    for number, (table, column, target) in enumerate(KEYS):
        names = {"from_table": f"TAP_SCHEMA.{table}", "target_table": f"TAP_SCHEMA.{target}"}
        rows["keys"].append({"key_id": str(number), **names})
        pair = {"from_column": column, "target_column": TARGETS.get(column, column)}
        rows["key_columns"].append({"key_id": str(number), **pair})
    return {name: pa.Table.from_pylist(rows[name], schema) for name, schema in empty.items()}


def _table_set(tables: Mapping[str, pa.Table]) -> str:
    schemas = ""
    for schema in dict.fromkeys(map(_schema_of, tables)):
        found = "".join(_table_element(name, table) for name, table in tables.items() if _schema_of(name) == schema)
        schemas += f"<schema><name>{escape(schema)}</name>{found}</schema>"
    return (
        f'{PROLOGUE}<vosi:tableset xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0" '
        'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"{schemas}</vosi:tableset>\n"
    )


def _table_element(name: str, table: pa.Table) -> str:
    columns = ""
    for f in table.schema:
        notes = {key.decode(): escape(value.decode()) for key, value in (f.metadata or {}).items()}
        told = "".join(f"<{key}>{notes[key]}</{key}>" for key in ("description", "unit", "ucd") if notes.get(key))
        datatype, arraysize = _type_of(f)
        size = f' arraysize="{arraysize}"' if arraysize else ""
        kind = f'<dataType xsi:type="vs:VOTableType"{size}>{datatype}</dataType>'
        columns += f"<column><name>{escape(_quoted(f.name))}</name>{told}{kind}</column>"
    for table_name, column, target in KEYS:
        if name == f"TAP_SCHEMA.{table_name}":
            pair = f"<fromColumn>{column}</fromColumn><targetColumn>{TARGETS.get(column, column)}</targetColumn>"
            columns += f"<foreignKey><targetTable>TAP_SCHEMA.{target}</targetTable><fkColumn>{pair}</fkColumn></foreignKey>"
    return f"<table><name>{escape(_table_name(name))}</name>{columns}</table>"
