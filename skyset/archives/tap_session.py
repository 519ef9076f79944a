"""One conversation with a TAP service: what is asked again, which hosts get the login, how much is taken."""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from skyset.archives.outcomes import Passing, Refused
from skyset.errors import SkysetError
from skyset.html import HEAD_BYTES, is_html
from skyset.http import CHUNK, PASSING, Client, innermost, pause, retry_after, watch
from skyset.tables.votable import VOTableError, inflated, one_line, pieces_of, read_votable, readable

# What they say where it needs more time than they give: half of the slice may succeed.
TIME_LIMIT = re.compile(
    r"^(?!.*connect\w* time).*(time[sd]?[- ]?out|(time|duration) ?limit|took too long|execution ?duration|"
    r"exceed\w*\b.{0,60}\b(time|duration)\b|\b(time|duration)\b.{0,30}\bexceed|cancell?(ing|ed) statement)",
    re.IGNORECASE | re.DOTALL,
)

PORTS = {"http": 80, "https": 443}
PATIENCE = (10.0, 60.0)  # seconds to wait for a connection, and for an answer or its next bytes
GRACE = 0.5  # seconds that requests under way get before their connections are shut
LARGEST = 4 << 30  # bytes of one answer, as they come and unpacked
REDIRECTS = 30
IN_MEMORY = 8 << 20  # bytes of an answer that are not on the disk
SMALL = 1 << 20  # bytes of a job document, or of an error's words
# What services say in a job's error when the same query may well succeed an hour later.
MAY_PASS = re.compile(
    r"temporar|unavailable|overload|too (many|busy)|try again|later|connection|deadlock|out of memory|restart|shut ?down",
    re.IGNORECASE,
)


class Again(Passing):
    """One that asking again at once may not meet: nobody there, or busy."""


class TooLarge(SkysetError):
    """The service does not give so many rows at once; half of the slice, perhaps."""


class TooLong(TooLarge):
    """The service does not give the slice so much time."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"even a small slice meets the service's time limit: {reason}")


@dataclass(frozen=True)
class Answer:
    """A whole answer; `target` is where it redirects to, `body` a file of its bytes as they came."""

    url: str
    status: int
    target: str | None
    body: BinaryIO

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_) -> None:
        self.body.close()


class Session:
    """Gives whole answers or raises Refused, Passing, TooLarge or CancelledError; from any thread.

    Args:
        home: the service: other hosts get GET alone, and neither login nor cookies.
        folder: where large answers lie while they are read.
        closing: set when no further request may begin.
        patience: seconds to wait for (a connection, an answer or the next bytes).
        timeout: seconds that the body of an answer may take.
        retries: further tries of a request that finds nobody, or who is busy; None: every failure is told at once.
        backoff: seconds before a further try, doubled each time.
    """

    def __init__(self, home: str, folder: Path, closing, patience, timeout: float, retries: int | None, backoff) -> None:
        self._home, self._folder, self._closing = home, folder, closing
        self._patience, self._timeout, self._retries, self._backoff = patience, timeout, retries, backoff
        self._clients: list[Client] = []
        self._own = threading.local()
        self._hung_up, self._ended = threading.Event(), threading.Event()
        arguments = (lambda: self._clients, self._hung_up, self._ended)
        self._watch = threading.Thread(target=watch, args=arguments, name="tap watch", daemon=True)
        self._watch.start()

    def hang_up(self) -> None:
        """Wake the threads that wait for an answer; requests under way end in CancelledError."""
        self._hung_up.set()
        for client in tuple(self._clients):
            client.hang_up()

    def close(self) -> None:
        """No thread uses this any more."""
        self._ended.set()
        self._watch.join()
        for client in self._clients:
            client.close()

    def _client(self) -> Client:
        """This thread's."""
        if not hasattr(self._own, "client"):
            self._own.client = Client(self._hung_up)
            self._own.client.session.headers["Accept-Encoding"] = "gzip"
            self._clients.append(self._own.client)
        return self._own.client

    def open(self, method: str, url: str, form: dict[str, str] | None = None, *, only_post: bool = False) -> Answer:
        """The answer to a request, redirects followed; with `only_post`, no further than the query is to be sent again.

        303 is followed by GET, 307 and 308 by the same method. 301 and 302 mean by custom GET, but where they name the same
        end of a path (``/sync``, ``/async``) at another place, the service has moved, and a GET would lose the query.
        """
        for _ in range(REDIRECTS):
            answer = self._answer(method, url, form)
            if answer.target is None:
                return answer
            moved = answer.status in (301, 302) and method == "POST" and _last(answer.target) == _last(answer.url)
            if answer.status not in (307, 308) and not moved:
                if only_post:
                    return answer
                method, form = "GET", None
            answer.body.close()
            url = answer.target
        raise Refused(f"more than {REDIRECTS} redirects")

    def status(self, method: str, url: str, form: dict[str, str] | None = None) -> int | None:
        """The status of the answer to a request; None if there is none. Its body does not matter."""
        try:
            with self._answer(method, url, form, checked=False) as answer:
                return answer.status
        except (Refused, Passing, TooLarge) as error:
            return getattr(error, "status", None)

    def _answer(self, method: str, url: str, form: dict[str, str] | None, checked: bool = True) -> Answer:
        """The answer to one request, asked again where that may help."""
        for tries in count(1):
            try:
                return self._try(method, url, form, checked)
            except Again as error:
                if self._retries is None:
                    raise
                if tries > self._retries:
                    raise Refused(f"{error}, {tries} tries" if tries > 1 else str(error), error.status) from error
                if self._closing.wait(pause(tries, self._backoff, error.pause)):
                    raise CancelledError from error
        raise AssertionError("counting does not end")

    def _try(self, method: str, url: str, form: dict[str, str] | None, checked: bool) -> Answer:
        """The answer to one request."""
        if self._closing.is_set():
            raise CancelledError
        url = _secured(url, self._home)
        auth = None if same_host(url, self._home) else _anonymous
        if auth and method != "GET":
            raise Refused(f"the service has moved to {url}, another host: if that is right, name that service")
        request: dict[str, Any] = {"data": form, "auth": auth, "timeout": self._patience}
        request |= {"stream": True, "allow_redirects": False}
        client = self._client()
        with contextlib.ExitStack() as stack:
            spooled = stack.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(self._folder)))
            body = cast(BinaryIO, spooled)
            client.begin(sum(self._patience))
            try:
                response = client.session.request(method, url, **request)
                target = client.session.get_redirect_target(response)
                target = None if target is None else _secured(urljoin(response.url, target), self._home)
                with response:
                    if target is None:  # what else a redirect says is for people
                        self._store(response, body, client)
            except (CancelledError, MemoryError, Refused, Passing):
                raise
            except Exception as error:  # urllib3 and http.client let many kinds through where a server sends nonsense
                self._stop_if_hung_up()
                raise self._failure(error, client.expired) from error
            finally:
                client.end()
            if checked and target is None:
                self._check(response, body)
            stack.pop_all()  # the answer closes it
        return Answer(response.url, response.status_code, target, body)

    def _failure(self, error: Exception, is_expired: bool) -> Exception:
        """What an error of a request without an answer means."""
        if isinstance(error, requests.RequestException) and isinstance(error, ValueError):
            return Refused(innermost(error))  # not an address
        is_slow = is_expired or isinstance(error, requests.Timeout)
        reason = f"no answer in {sum(self._patience):g} s" if is_expired else innermost(error)
        return Refused(reason) if is_slow and self._retries is None else Again(reason)

    def _store(self, response: requests.Response, body: BinaryIO, client: Client) -> None:
        """Write all bytes of the body, as they come over the wire, into a file."""
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise Refused(f"the answer's Content-Encoding is {encoding}, where gzip was asked for")
        client.allow(self._timeout)
        size, broken = 0, None
        try:
            while chunk := response.raw.read1(CHUNK, decode_content=False):
                self._stop_if_hung_up()
                body.write(chunk)
                size += len(chunk)
                if size > LARGEST:
                    raise Refused(f"an answer of more than {LARGEST:,} bytes: try more slices")
        except (HTTPError, ValueError) as error:  # ValueError: the socket was closed by another thread
            broken = error
        self._stop_if_hung_up()  # a connection that was shut can look like the end of a body
        if client.expired:
            raise Refused(f"an answer that takes more than {self._timeout:g} s: try more slices")
        if broken is not None:
            raise Passing(f"connection cut in the middle of an answer: {innermost(broken)}") from broken

    def _check(self, response: requests.Response, body: BinaryIO) -> None:
        """Raise what an answer other than the one hoped for means."""
        status = response.status_code
        head = beginning(body, HEAD_BYTES)
        is_page = is_html(head)
        if status < 400 and is_page:
            raise Passing(f"the answer is an HTML page: {readable(beginning(body, SMALL), 200)}")
        if status < 400:
            return
        words = f"{status} {one_line(response.reason or '')}: {words_in(body)}".rstrip(": ")
        told = not is_page and _is_error_document(body)
        if told and self._retries is None and TIME_LIMIT.search(words):
            raise TooLong(words)
        if status == 500 and told and not MAY_PASS.search(words):
            raise Refused(words, status)  # some services answer a wrong query like this
        if status in PASSING:
            raise (Passing if status == 500 else Again)(words, retry_after(response), status)
        raise Refused(words, status)

    def _stop_if_hung_up(self) -> None:
        if self._hung_up.is_set():
            raise CancelledError


def same_host(url: str, home: str) -> bool:
    """Whether an address has the scheme, host and port of `home`; https is as good as http, both on their usual ports."""
    try:
        (scheme, host, port), place = (
            (parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)) for parts in map(urlsplit, (url, home))
        )
    except ValueError:
        return False
    places = [(scheme, host, port), *([("http", host, 80)] if (scheme, port) == ("https", 443) else [])]
    return host is not None and place in places


def _secured(url: str, home: str) -> str:
    """An address with https, where only http tells it from the service's host: proxies forget that they speak https."""
    secure = f"https{url[4:]}" if url[:5].lower() == "http:" else url
    return secure if home[:6].lower() == "https:" and same_host(secure, home) else url


def _anonymous(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The login for hosts other than the service's."""
    for name in ("Authorization", "Cookie"):
        request.headers.pop(name, None)
    return request


def _last(url: str) -> str:
    """The end of an address's path."""
    return urlsplit(url).path.rstrip("/").rpartition("/")[2]


def beginning(body: BinaryIO, size: int) -> bytes:
    """The first bytes of an answer, unpacked."""
    body.seek(0)
    head = b""
    with contextlib.suppress(VOTableError):
        for piece in inflated(pieces_of(body)):
            head += piece
            if len(head) >= size:
                break
    return head[:size]


def words_in(body: BinaryIO) -> str:
    """What an error document says: the words of its QUERY_STATUS, or all its text in one line."""
    head = beginning(body, SMALL)
    with contextlib.suppress(VOTableError):
        document = read_votable(head)
        if document.message:
            return one_line(document.message)
    return readable(head)


def _is_error_document(body: BinaryIO) -> bool:
    try:
        return read_votable(beginning(body, SMALL)).status == "ERROR"
    except VOTableError:
        return False
