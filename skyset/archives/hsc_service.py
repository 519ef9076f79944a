"""One conversation with the job API of the HSC archive: JSON by POST, the account in the body, errors in its own words.

Since the account is in the body, no redirect to another host is followed. What may pass (nobody there, 429, 502, 503, 504, a
result that was cut) is asked again.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from isal import igzip_threaded, isal_zlib
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from urllib3.exceptions import HTTPError

from skyset.archives.account import account_for, without_account
from skyset.archives.outcomes import Passing, Refused
from skyset.archives.tap_session import same_host
from skyset.errors import SkysetError, UserError
from skyset.files import human_bytes, replacing, short_digest
from skyset.html import is_html
from skyset.http import CHUNK, PASSING, Client, innermost, pause, retry_after, watch
from skyset.messages import plain
from skyset.secrets import without_login
from skyset.tables.votable import one_line, readable

PATH = "/datasearch/api/catalog_jobs/"
#: A JSON number; the service answers 500 to text.
CLIENT_VERSION = 20190514.1
PATIENCE, RESULT_PATIENCE = (10.0, 60.0), (10.0, 600.0)  # seconds for a connection, and for an answer or its next bytes
LONGEST_DOWNLOAD = 86_400.0  # seconds
RETRIES, BACKOFF, REDIRECTS = 5, 1.0, 5
SMALL = 1 << 20  # bytes of an answer that is no result
_T = TypeVar("_T")


@dataclass(frozen=True)
class Query:
    """A query and whom it is asked of.

    Args:
        url: of the archive, ``https://hsc-release.mtk.nao.ac.jp``.
        sql: of PostgreSQL.
        release_version: ``pdr2``, ``pdr3``, ...; what the service calls the release.
    """

    url: str
    sql: str
    release_version: str = "pdr2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", without_login(self.url).rstrip("/"))

    @property
    def address(self) -> str:
        """Of the service, with a ``/`` at its end."""
        return self.url + PATH

    def digest(self) -> str:
        """What names the files: another query never meets this one's result."""
        return short_digest(f"{self.url}\n{self.release_version}\n{self.sql}")


class Job(NamedTuple):
    """What the service says of a job; ``words`` are those of its error."""

    id: int
    status: str
    words: str = ""


class Lost(SkysetError):
    """The service has the job no more, or never had."""


class Service:
    """One conversation about one query.

    Args:
        query: what is asked.
        sleep: is called with the seconds to wait before another try.

    Raises:
        UserError: there is no account, or the service sends us to another host.
    """

    def __init__(self, query: Query, sleep: Callable[[float], object]) -> None:
        self.query, self.sleep = query, sleep
        self._login = account_for(query.url)
        self._closing, self._ended = threading.Event(), threading.Event()
        self._client = Client(self._closing)
        arguments = (lambda: (self._client,), self._closing, self._ended)
        self._watch = threading.Thread(target=watch, args=arguments, name="hsc watch", daemon=True)

    def __enter__(self) -> Service:
        self._watch.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._watch.join()
        self._client.close()

    def submit(self) -> Job:
        """A new job."""
        job = {"sql": self.query.sql, "out_format": "csv.gz", "include_metainfo_to_body": False}
        job["release_version"] = self.query.release_version
        fields = {"nomail": True, "skip_syntax_check": False, "catalog_job": job}
        return self._ask("submit", fields, self._job, final=(500,))  # asked again, a 500 could make a second job

    def status(self, job: int) -> Job:
        """How far a job is; Lost where the service does not know it."""
        with _lost_unless(200, 401):
            return self._ask("status", {"id": job}, self._job)

    def download(self, job: int, path: Path, bar) -> None:
        """Write the result to ``path``, whole or not at all; Lost where the service has it no more."""

        def store(response: requests.Response) -> None:
            with replacing(path) as temporary:
                self._store(response, temporary, lambda size: bar.set_description_str(f"job {job}: {human_bytes(size)}"))

        with _lost_unless(401):
            self._ask("download", {"id": job}, store, RESULT_PATIENCE)

    def delete(self, job: int) -> bool:
        """Delete a job; whether it is gone. What the service says of it does not matter."""
        try:
            self._ask("delete", {"id": job}, lambda response: None)
        except Refused as error:
            return error.status in (404, 410)
        except Passing:
            return False
        return True

    def _ask(
        self,
        action: str,
        fields: dict[str, Any],
        take: Callable[[requests.Response], _T],
        patience: tuple[float, float] = PATIENCE,
        final: tuple[int, ...] = (),
    ) -> _T:
        """What ``take`` makes of the answer, asked again where that may help."""
        user, password = self._login
        asked = {"credential": {"account_name": user, "password": password}, "clientVersion": CLIENT_VERSION}
        body = json.dumps(asked | fields).encode()
        for tries in range(1, RETRIES + 2):
            try:
                with self._answer(action, body, patience) as response:
                    self._check(response, final)
                    return take(response)
            except Passing as error:
                if tries > RETRIES:
                    raise Passing(f"{error}, {tries} tries", status=error.status) from None
                self.sleep(pause(tries, BACKOFF, error.pause))
        raise AssertionError("the last try returns or raises")

    @contextlib.contextmanager
    def _answer(self, action: str, body: bytes, patience: tuple[float, float]) -> Iterator[requests.Response]:
        """The answer to one request; what a library raises meanwhile, here or in the block, is Passing."""
        self._client.begin(sum(patience))
        problem, final = None, False
        try:
            with self._posted(self.query.address + action, body, patience) as response:
                self._client.allow(LONGEST_DOWNLOAD if patience is RESULT_PATIENCE else sum(patience))
                yield response
        except (InvalidURL, InvalidSchema, MissingSchema) as error:
            problem, final = innermost(error), True
        except (requests.RequestException, HTTPError, HTTPException, ValueError) as error:  # nonsense has many kinds
            problem = f"no answer in {sum(patience):g} s" if self._client.expired else innermost(error)
        finally:
            self._client.end()
        if final:
            raise UserError(f"{self.query.url} is no address: {without_account(str(problem), self._login)}")
        if problem is not None:  # out here, without the libraries' exceptions, which know the request
            raise Passing(without_account(problem, self._login))

    def _posted(self, url: str, body: bytes, patience: tuple[float, float]) -> requests.Response:
        """The open answer; redirects are followed as long as they stay at the archive."""
        session = self._client.session
        for _ in range(REDIRECTS):
            response = session.post(
                url,
                data=body,
                headers={"Content-Type": "application/json"},
                auth=_without_login,
                timeout=patience,
                stream=True,
                allow_redirects=False,
            )
            if (target := session.get_redirect_target(response)) is None:
                return response
            response.close()
            url = urljoin(url, target)
            if not same_host(url, self.query.url):
                raise UserError(f"{self.query.url} sends us to {url}, another host, which does not get the account")
            if urlsplit(url).path != urlsplit(self.query.address).path + urlsplit(url).path.rpartition("/")[2]:
                raise UserError(f"{self.query.address} sends us to {url}: is it the HSC archive?")
        raise UserError(f"{self.query.address}: more than {REDIRECTS} redirects")

    def _check(self, response: requests.Response, final: tuple[int, ...]) -> None:
        """Raise what an answer other than the one hoped for means."""
        status = response.status_code
        if status < 400:
            return
        words, reason = self._words(response.raw.read(SMALL, decode_content=True)), plain(response.reason or "", 80)
        text = without_account(f"{status} {reason}: {words}", self._login).rstrip(": ")
        if status in PASSING and status not in final:
            raise Passing(text, retry_after(response), status)
        raise Refused(text, status)

    def _words(self, body: bytes) -> str:
        """What an answer says, in one line, without the account."""
        return one_line(without_account(readable(body, SMALL), self._login), 600)

    def _job(self, response: requests.Response) -> Job:
        """The job that an answer tells of."""
        body = response.raw.read(SMALL, decode_content=True)
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
            told = json.loads(body)
            told = told["job"] if isinstance(told.get("job"), dict) else told
            if re.fullmatch(r"[0-9]{1,18}", str(told["id"])) and isinstance(told["status"], str):
                return Job(int(told["id"]), told["status"], self._words(str(told.get("error") or "").encode()))
        text = f"the answer tells of no job: {self._words(body)}"
        raise Passing(text) if is_html(body) or not body else Refused(text, response.status_code)  # there may be a job

    def _store(self, response: requests.Response, path: Path, told: Callable[[int], object]) -> None:
        """Write the body to a file, which has to be whole."""
        size, promised = 0, response.headers.get("Content-Length", "")
        with path.open("wb") as file:
            while chunk := response.raw.read(CHUNK, decode_content=False):
                if not size and not chunk.startswith(b"\x1f\x8b"):
                    what = "a page" if is_html(chunk) else "no gzip data"
                    raise Passing(f"the result is {what}: {self._words(chunk)[:200]}")
                file.write(chunk)
                size += len(chunk)
                told(size)
        whole = size > 0 and (not promised.isdecimal() or int(promised) == size)
        with contextlib.suppress(EOFError, isal_zlib.IsalError, OSError):
            with igzip_threaded.open(path, "rb") as file:
                while file.read(CHUNK):
                    pass
            if whole:
                return
        raise Passing(f"the result was cut after {size:,} bytes")


@contextlib.contextmanager
def _lost_unless(*statuses: int) -> Iterator[None]:
    """A refusal within the block means that the job is gone, whichever way the service has of saying so; but for these."""
    try:
        yield
    except Refused as error:
        if error.status in statuses:
            raise
        raise Lost from error


def _without_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The account is in the body, and nowhere else."""
    request.headers.pop("Authorization", None)
    return request
