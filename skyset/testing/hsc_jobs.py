"""The job API of the simulated HSC archive: SQL in, a job with an id, its states, its result; as strict as the real one.

    jobs = Jobs(sky, login=("user", "pass"))
    status, headers, body = jobs.answer("submit", json.dumps({...}).encode())

A server calls ``answer`` for a POST to ``.../datasearch/api/catalog_jobs/<action>``. Where ``Content-Length`` is larger than
the body, the connection is to be cut after it.
"""

from __future__ import annotations

import html
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from skyset.testing.hsc_database import FORMATS, Database, Result, SqlError, encoded

RELEASES = ("pdr1", "pdr2", "pdr2-citus", "pdr3", "pdr3-citus", "pdr3-citus-columnar")
PREVIEWED = 100  # rows
JSON, TEXT, PAGE = (
    {"Content-Type": kind} for kind in ("application/json; charset=utf-8", "text/plain; charset=utf-8", "text/html")
)
_Answer = tuple[int, dict[str, str], bytes]


class HasCatalogue(Protocol):
    """What of a sky the job API needs."""

    def catalogue(self) -> Mapping[str, np.ndarray]: ...


@dataclass
class Job:
    """One job as the service keeps it; ``ahead`` are the states that it still goes through, one at each look."""

    id: int
    sql: str
    out_format: str
    metainfo: bool
    ahead: list[str]
    status: str
    error: str = ""
    result: Result | None = None

    def document(self) -> dict[str, Any]:
        told = {"id": self.id, "status": self.status, "sql": self.sql, "out_format": self.out_format}
        return told | ({"error": self.error} if self.error else {})


class _Refused(Exception):
    """An answer other than the one hoped for: status, text, and whether that is a page of HTML."""

    def __init__(self, status: int, text: str, page: bool = False) -> None:
        super().__init__(text)
        self.answer = _page(status, text) if page else (status, TEXT, text.encode())


class Jobs:
    """The service.

    Args:
        sky: its catalogue is what queries run over.
        login: the account that it takes.
        queue: states that a job goes through, one at each look, before it is done.

    Attributes:
        jobs: all jobs by id, deleted ones too.
        requests: how many there were of each action, refused ones too.
        submitted: ids of accepted jobs in their order.
        downloads: ids, one for each answer with a result.
        deleted: ids that a client has deleted.
        bodies: the JSON of every request, without the credential.
        quota: words with which every new job is refused; empty: none.
    """

    def __init__(
        self, sky: HasCatalogue, login: tuple[str, str] = ("user", "pass"), queue: Sequence[str] = ("waiting", "running")
    ) -> None:
        self.login, self.queue, self.quota = login, tuple(queue), ""
        self.jobs: dict[int, Job] = {}
        self.requests: Counter[str] = Counter()
        self.submitted: list[int] = []
        self.downloads: list[int] = []
        self.deleted: list[int] = []
        self.bodies: list[tuple[str, dict]] = []
        self._database = Database(sky.catalogue())
        self._ids = itertools.count(780001)
        self._faults: dict[str, list[_Answer]] = {}
        self._cuts: list[float] = []
        self._endings: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    # --- faults -----------------------------------------------------------------------------------

    def fail(self, action: str, status: int = 502, times: int = 1, text: str = "") -> None:
        """Answer the next requests of an action like this: a proxy's page, or the text."""
        made = (
            (status, dict(TEXT), text.encode()) if text else _page(status, "The proxy server received an invalid response")
        )
        self._faults.setdefault(action, []).extend([made] * times)

    def cut(self, times: int = 1, share: float = 0.5) -> None:
        """Send only a share of the next results; the headers promise all of it."""
        self._cuts.extend([share] * times)

    def end(self, status: str, error: str = "") -> None:
        """Let the next job that is submitted end like this: ``error``, ``canceled``, ``aborted``."""
        self._endings.append((status, error))

    def lose(self, job: int, forget: bool = False) -> None:
        """Delete a job, as somebody does on the archive's page; or let the service know nothing of its id any more."""
        with self._lock:
            if forget:
                del self.jobs[job]
            else:
                self.jobs[job].status = "deleted"

    # --- the service ------------------------------------------------------------------------------

    def answer(self, action: str, body: bytes) -> _Answer:
        """Status, headers and body of the answer to a POST; one at a time."""
        actions: dict[str, Callable[[dict], _Answer]] = {
            name: getattr(self, f"_{name}") for name in ("submit", "status", "download", "delete", "cancel", "preview")
        }
        action = action.strip("/")
        with self._lock:
            self.requests[action] += 1
            if faults := self._faults.get(action):
                return faults.pop(0)
            if action not in actions:
                return _page(404, "The page you were looking for doesn't exist.")
            try:
                return actions[action](self._checked(action, body))
            except _Refused as refused:
                return refused.answer

    def _checked(self, action: str, body: bytes) -> dict:
        """The request, of the form that the service can read, by somebody whom it knows."""
        try:
            asked = json.loads(body)
        except ValueError:
            raise _Refused(500, "We're sorry, but something went wrong.", page=True) from None
        if not isinstance(asked, dict) or type(asked.get("clientVersion")) not in (int, float):
            raise _Refused(500, "We're sorry, but something went wrong.", page=True)
        credential = asked.pop("credential", None)
        self.bodies.append((action, asked))
        if not isinstance(credential, dict) or (credential.get("account_name"), credential.get("password")) != self.login:
            raise _Refused(401, "Invalid account name or password")
        return asked

    def _job(self, asked: dict) -> Job:
        if type(asked.get("id")) is not int:
            raise _Refused(500, "We're sorry, but something went wrong.", page=True)
        if asked["id"] not in self.jobs:
            raise _Refused(404, f"Couldn't find CatalogJob with id={asked['id']}")
        return self.jobs[asked["id"]]

    def _wanted(self, asked: dict, *names: str) -> dict:
        job = asked.get("catalog_job")
        if not isinstance(job, dict) or not all(
            isinstance(job.get(name), str) for name in ("sql", "release_version", *names)
        ):
            raise _Refused(500, "We're sorry, but something went wrong.", page=True)
        if job["release_version"] not in RELEASES:
            raise _Refused(406, f"Release version: {job['release_version']} is not in the list")
        return job

    def _submit(self, asked: dict) -> _Answer:
        job = self._wanted(asked, "out_format")
        flags = asked.get("nomail"), asked.get("skip_syntax_check"), job.get("include_metainfo_to_body")
        if not all(isinstance(flag, bool) for flag in flags):
            raise _Refused(500, "We're sorry, but something went wrong.", page=True)
        if job["out_format"] not in FORMATS:
            raise _Refused(406, f"Out format: {job['out_format']} is not in the list")
        if self.quota:
            raise _Refused(406, self.quota)
        error = ""
        try:
            self._database.check(job["sql"])
        except SqlError as problem:
            error = str(problem)
            if not asked["skip_syntax_check"]:
                raise _Refused(406, error) from None
        ending, words = self._endings.pop(0) if self._endings else ("error" if error else "done", error)
        ahead = [*self.queue, ending]
        made = Job(next(self._ids), job["sql"], job["out_format"], flags[2] is True, ahead, ahead.pop(0), words)
        self.jobs[made.id] = made
        self.submitted.append(made.id)
        return self._told(made)

    def _status(self, asked: dict) -> _Answer:
        job = self._job(asked)
        if job.ahead and job.status not in ("deleted", "canceled"):
            job.status = job.ahead.pop(0)
        return self._told(job)

    def _told(self, job: Job) -> _Answer:
        document = job.document()
        if job.status in (*self.queue, "waiting", "running"):
            document.pop("error", None)
        return 200, JSON, json.dumps(document).encode()

    def _download(self, asked: dict) -> _Answer:
        job = self._job(asked)
        if job.status != "done":
            raise _Refused(404 if job.status == "deleted" else 406, f"The job {job.id} is {job.status}")
        try:
            job.result = job.result or self._database.run(job.sql)
        except SqlError as error:  # a check finds no values that a function does not take
            raise _Refused(406, str(error)) from None
        data = encoded(job.result, job.out_format, job.metainfo)
        self.downloads.append(job.id)
        sent = data[: int(len(data) * self._cuts.pop(0))] if self._cuts else data
        kind = {"csv": "text/csv", "csv.gz": "application/gzip"}.get(job.out_format, "application/octet-stream")
        return 200, {"Content-Type": kind, "Content-Length": str(len(data))}, sent

    def _delete(self, asked: dict) -> _Answer:
        job = self._job(asked)
        job.status, job.result = "deleted", None
        self.deleted.append(job.id)
        return self._told(job)

    def _cancel(self, asked: dict) -> _Answer:
        job = self._job(asked)
        if job.ahead:
            job.status = "canceled"
        return self._told(job)

    def _preview(self, asked: dict) -> _Answer:
        job = self._wanted(asked)
        try:
            found = self._database.run(job["sql"])
        except SqlError as error:
            raise _Refused(406, str(error)) from None
        rows = [["" if value is None else str(value) for value in row] for row in found.rows[:PREVIEWED]]
        document = {"result": {"fields": found.names, "rows": rows, "count": len(found.rows)}}
        return 200, JSON, json.dumps(document).encode()


def _page(status: int, text: str) -> _Answer:
    page = f"<!DOCTYPE html>\n<html><head><title>{status}</title></head><body><h1>{html.escape(text)}</h1></body></html>\n"
    return status, PAGE, page.encode()
