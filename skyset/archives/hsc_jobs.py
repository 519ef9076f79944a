"""Queries of the HSC archive's database, which answers by jobs: submitted, looked at until done, downloaded, deleted.

A job's id is kept on the disk as soon as it is known, beside the place of the result: a process that is killed finds its job
again instead of submitting another. So are results: what is complete is never asked for again.

    path = fetch_result(Query("https://hsc-release.mtk.nao.ac.jp", "SELECT object_id FROM pdr2_wide.specz"), folder)
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from skyset.archives.account import PASSWORD, USER, forget_account
from skyset.archives.hsc_service import Job, Lost, Query, Service
from skyset.archives.outcomes import Passing, Refused
from skyset.errors import UserError
from skyset.files import write_atomically
from skyset.messages import plain, say
from skyset.progress import progress_bar

__all__ = ["Query", "fetch_result"]

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds between two looks at a job, doubled each time
SUBMISSIONS = 3  # of one query: somebody deletes its jobs


def fetch_result(
    query: Query, folder: Path, *, keep_job: bool = False, sleep: Callable[[float], object] = time.sleep
) -> Path:
    """The file of a query's result, CSV packed with gzip, from an earlier call or by a job.

    Args:
        query: what to ask, and whom.
        folder: ``<digest>.csv.gz`` is written here, and while it is under way ``<digest>.job`` with the job's id.
        keep_job: leave the job, and with it the result, at the archive.
        sleep: is called with the seconds to wait.

    Raises:
        UserError: there is no account or it is not taken, the query is refused or fails, or the service is down; in its own
            words.
        OSError: the disk is full, or the folder may not be written.
    """
    path, kept = (folder / f"{query.digest()}.{ending}" for ending in ("csv.gz", "job"))
    known = _kept_id(kept, query)
    if path.exists():
        if known is not None and not keep_job:  # whoever brought it was killed before he could
            with contextlib.suppress(UserError), Service(query, sleep) as service:
                _delete(service, known, kept)
        return path
    with Service(query, sleep) as service:
        try:
            known = _by_job(service, path, kept, known)
        except Passing as error:
            raise UserError(f"{query.address}: {error}") from None
        except Refused as error:
            raise UserError(_explained(query, error)) from None
        if not keep_job:
            _delete(service, known, kept)
    return path


def _delete(service: Service, job: int, kept: Path) -> None:
    if service.delete(job):
        kept.unlink(missing_ok=True)


def _by_job(service: Service, path: Path, kept: Path, known: int | None) -> int:
    """Bring the result to ``path`` by the job of an earlier call, if it still stands, or a new one; gives the job's id."""
    for _ in range(SUBMISSIONS):
        try:
            job = _attached(service, known)
            if job is None:
                job = service.submit()
                write_atomically(kept, json.dumps({"id": job.id, "query": service.query.digest()}) + "\n")
                say(f"job {job.id} is submitted at {service.query.url}", file=sys.stderr)
            with progress_bar(bar_format="{desc} [{elapsed}]", desc=f"job {job.id}") as bar:
                _finished(service, job, bar, kept)
                service.download(job.id, path, bar)
            return job.id
        except Lost:
            kept.unlink(missing_ok=True)
            known = None
    raise UserError(f"{service.query.address}: its job was deleted {SUBMISSIONS} times before its result was here")


def _attached(service: Service, known: int | None) -> Job | None:
    """The job of an earlier call, if it may still give the result."""
    if known is None:
        return None
    try:
        job = service.status(known)
    except Passing as error:
        if error.status == 500:  # what the service may say to an id that it does not know
            raise Lost from error
        raise
    if job.status in ("canceled", "aborted"):
        raise Lost
    say(f"job {job.id} of an earlier run is {job.status}", file=sys.stderr)
    return job


def _finished(service: Service, job: Job, bar, kept: Path) -> None:
    """Wait until a job is done."""
    seconds = FIRST_PAUSE
    while job.status not in ("done", "error", "canceled", "aborted", "deleted"):
        bar.set_description_str(f"job {job.id} is {plain(job.status, 40)}")
        service.sleep(seconds)
        seconds = min(2 * seconds, LONGEST_PAUSE)
        job = service.status(job.id)
    if job.status == "deleted":
        raise Lost
    if job.status != "done":
        kept.unlink(missing_ok=True)
        said = f": {job.words}" if job.words else ", and it does not say why"
        raise UserError(f"{service.query.address}: job {job.id} ended as {job.status}{said}")


def _kept_id(path: Path, query: Query) -> int | None:
    """The id of the job that an earlier call has left."""
    try:
        found = json.loads(path.read_text())
        return found["id"] if type(found["id"]) is int and found["query"] == query.digest() else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _explained(query: Query, error: Refused) -> str:
    """What a refusal is to the user; an account that is not taken is not kept."""
    if error.status == 401:
        forget_account(query.url)
        return f"{query.address} does not take the account ({USER} and {PASSWORD}, .netrc, or as it was typed): {error}"
    return f"{query.address}: {error}"
