"""Byte ranges of files on HTTP servers: several on their way at a time, all of one version of a file.

A range that does not come, or breaks off, is asked for again by the rule of ``http.py``, from where it broke off. Every
answer tells which version of the file it is of: one that is of another is an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import requests

from skyset.crew import Crew
from skyset.errors import SkysetError
from skyset.http import CHUNK, PASSING, Client, innermost, pause, retry_after, watch
from skyset.messages import plain

#: Of one reader. A stream's rows come at the rate of the line with 12, each waiting 30 ms before 385 kB at 1 Gbit/s.
CONNECTIONS = 12
RETRIES = 5
BACKOFF = 0.5  # seconds before the second try, doubled with each
TIMEOUT = (10.0, 60.0)  # seconds: for a connection, for the next bytes
#: What one request asks for, at most.
SPLIT = 2 << 20
NO_PARTS = (
    "the server gives whole files only (it ignores HTTP Range requests), but rows are read as parts of files: "
    "copy the data to a disk, or serve them with a server that gives parts, such as nginx or Apache"
)
CHANGED = "the file was changed on the server while it was being read"
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


class Version(NamedTuple):
    """Which file of this address it is: bytes, and what the server calls this state of it, "" where it does not say."""

    size: int
    etag: str = ""
    modified: str = ""

    def is_same(self, other: Version) -> bool:
        if self.size != other.size:
            return False
        if self.etag and other.etag:
            return self.etag == other.etag
        return not (self.modified and other.modified) or self.modified == other.modified


class Changed(SkysetError, OSError):
    """An answer is of another version of the file."""


class _Passing(Exception):
    """A later try may do better; ``wait`` is what Retry-After asks for, seconds."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class Lines:
    """The threads of one reader, and the connections that they borrow.

    Connections that nobody uses are kept in the process for the next reader, by host.

    Args:
        count: of threads, at most.
    """

    def __init__(self, count: int = CONNECTIONS):
        self.count = count
        self._crew = Crew(count, "ranges")
        self._closing, self._ended = threading.Event(), threading.Event()
        self._busy: set[Client] = set()
        self._lock = threading.Lock()
        self._watch: threading.Thread | None = None

    def submit(self, function: Callable, *arguments) -> Future:
        return self._crew.submit(function, *arguments)

    def warm(self, url: str, count: int = 1) -> None:
        """Open connections to a host that will be asked soon, in the background; whether that works shows later."""
        for _ in range(count - len(_idle.get(_origin(url), ())) if url.startswith("http") else 0):
            self.submit(self._warm, url)

    def _warm(self, url: str) -> None:
        with self.client(url, fresh=True) as client, contextlib.suppress(Exception):
            session, request = client.session, requests.Request("GET", url).prepare()
            settings = session.merge_environment_settings(url, {}, True, None, None)
            adapter: Any = session.get_adapter(url)
            pool = adapter.get_connection_with_tls_context(
                request, settings["verify"], proxies=settings["proxies"], cert=settings["cert"]
            )
            connection = pool._get_conn()
            try:
                if not connection.is_connected:
                    connection.timeout = TIMEOUT[0]
                    connection.connect()
            finally:
                pool._put_conn(connection)

    @contextlib.contextmanager
    def client(self, url: str, fresh: bool = False) -> Iterator[Client]:
        """A session that nobody else uses meanwhile, one with an open connection to this host if there is one.

        ``fresh`` asks for one without, unless there are as many as can be of use.
        """
        kept = _idle.setdefault(_origin(url), [])
        with self._lock:
            fresh = not kept or (fresh and len(kept) + len(self._busy) < self.count)
            try:
                client = Client(threading.Event()) if fresh else kept.pop()
            except IndexError:  # another reader has taken the last one
                client = Client(threading.Event())
            self._busy.add(client)
            if self._watch is None and not self._closing.is_set():
                self._watch = threading.Thread(target=self._keep_watch, name="ranges-watch", daemon=True)
                self._watch.start()
        try:
            self.go_on()
            yield client
        finally:
            client.end()
            with self._lock:
                self._busy.discard(client)
            if len(kept) < CONNECTIONS and not self._closing.is_set():
                kept.append(client)
            else:
                client.close()

    def _keep_watch(self) -> None:
        watch(self._running, self._closing, self._ended)

    def _running(self) -> tuple[Client, ...]:
        with self._lock:
            return tuple(self._busy)

    def go_on(self, seconds: float = 0) -> None:
        """Wait so long; CancelledError where the lines are closed."""
        if self._closing.wait(seconds) if seconds else self._closing.is_set():
            raise CancelledError

    def close(self) -> None:
        """End what is under way; no thread is left."""
        self._closing.set()
        with self._lock:
            for client in self._busy:
                client.hang_up()
        self._crew.close()
        self._ended.set()
        if self._watch is not None:
            self._watch.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


#: Sessions that nobody uses, by scheme and host.
_idle: dict[str, list[Client]] = {}


def _forget_connections() -> None:
    """A process that was forked has no part in its parent's connections."""
    _idle.clear()


os.register_at_fork(after_in_child=_forget_connections)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class HttpFile:
    """A file on an HTTP server. Every method may be called from any thread.

    Args:
        url: without login.
        headers: to send along, to its host alone.
        version: what it must be; else that of the first answer.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None, version: Version | None = None):
        self.url, self.headers, self.version = url, headers or {}, version
        self._moved: str | None = None  # where redirects ended: the next range goes there at once
        self._lock = threading.Lock()

    def get(self, start: int, out: memoryview, lines: Lines) -> int:
        """The bytes from ``start`` on, as many as ``out`` takes, fewer where the file ends; negative counts from its end.

        Returns:
            How many came.

        Raises:
            FileNotFoundError, OSError: it cannot be had.
            Changed: it is another version of the file.
        """
        done, reason, wait = 0, "", None
        with lines.client(self._moved or self.url) as client:
            for failed in range(RETRIES + 1):
                if failed:
                    lines.go_on(pause(failed, BACKOFF, wait))
                try:
                    before = -1
                    while before < done < len(out):  # a server may give less at a time than it is asked for
                        before = done
                        for count in self._received(client, start if start < 0 else start + done, out[done:], lines):
                            done += count
                        if start < 0 or self.version is None or start + done >= self.version.size:
                            break
                    return done
                except _Passing as error:
                    reason, wait = str(error), error.wait
                    done = 0 if start < 0 else done
        raise OSError(f"{reason}, {RETRIES + 1} tries")

    def _received(self, client: Client, start: int, out: memoryview, lines: Lines) -> Iterator[int]:
        """One request: how many bytes came into ``out``, as they come."""
        wanted = f"bytes={start}" if start < 0 else f"bytes={start}-{start + len(out) - 1}"
        with self._answer(client, {"Range": wanted}, lines) as response:
            if response.status_code == 416:
                return
            if response.status_code == 200:
                raise OSError(NO_PARTS)
            count = self._extent(response, start, len(out))
            done = 0
            while done < count:
                chunk = _read(client, response, min(CHUNK, count - done), lines)
                if not chunk:
                    raise _Passing(f"connection cut after {done:,} of {count:,} bytes")
                out[done : done + len(chunk)] = chunk
                done += len(chunk)
                yield len(chunk)

    def _extent(self, response: requests.Response, start: int, most: int) -> int:
        """How many bytes an answer has; whether they are those of this version is looked at first."""
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None:
            raise OSError("the server does not say which part of the file it gives (no Content-Range)")
        first, last, size = (int(each) for each in found.groups())
        version = Version(size, response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))
        with self._lock:
            self.version = self.version or version
        if not version.is_same(self.version):
            raise Changed(CHANGED)
        if first != (max(0, size + start) if start < 0 else start) or not first <= last < size or last - first >= most:
            raise OSError(f"an answer that contradicts what was asked for: {found[0]}")
        return last - first + 1

    def _answer(self, client: Client, headers: dict[str, str], lines: Lines) -> requests.Response:
        """The open answer, 200, 206 or 416."""
        url, own = (self._moved, {}) if self._moved else (self.url, self.headers)
        client.begin(sum(TIMEOUT))
        try:
            response = client.session.get(url, headers=own | headers, stream=True, timeout=TIMEOUT)
        except Exception as error:
            lines.go_on()
            self._moved = None
            reason = f"no answer in {sum(TIMEOUT):g} s" if client.expired else innermost(error)
            if not isinstance(error, OSError) or isinstance(error, ValueError | requests.TooManyRedirects):
                raise OSError(reason) from None
        else:
            status = response.status_code
            if status in (200, 206, 416):
                if response.history:
                    self._moved = response.url
                return response
            response.close()
            reason = f"{status} {plain(response.reason or '', 200)}".strip()
            if url == self._moved:  # such addresses are for a while
                self._moved = None
                raise _Passing(reason, 0.0)
            if status in (404, 410):
                raise FileNotFoundError(reason)
            if status not in PASSING:
                raise OSError(reason)
            raise _Passing(reason, retry_after(response))
        raise _Passing(reason)

    def whole(self, most: int, lines: Lines) -> bytes:
        """All of it.

        Raises:
            FileNotFoundError, OSError: it cannot be had, or has more than ``most`` bytes.
        """
        reason, wait = "", None
        with lines.client(self.url) as client:
            for failed in range(RETRIES + 1):
                if failed:
                    lines.go_on(pause(failed, BACKOFF, wait))
                try:
                    return self._body(client, most, lines)
                except _Passing as error:
                    reason, wait = str(error), error.wait
        raise OSError(f"{reason}, {RETRIES + 1} tries")

    def _body(self, client: Client, most: int, lines: Lines) -> bytes:
        with self._answer(client, {}, lines) as response:
            length = int(text) if (text := response.headers.get("Content-Length", "")).isdigit() else None
            body = bytearray()
            while max(length or 0, len(body)) <= most and (chunk := _read(client, response, CHUNK, lines)):
                body += chunk
            if max(length or 0, len(body)) > most:
                raise OSError(f"it has {max(length or 0, len(body)):,} bytes, more than {most:,}")
            if length is not None and len(body) < length:
                raise _Passing(f"connection cut after {len(body):,} of {length:,} bytes")
        return bytes(body)


def _read(client: Client, response: requests.Response, size: int, lines: Lines) -> bytes:
    """The next bytes on the wire, as they come; b"" at their end."""
    client.allow(TIMEOUT[1] + 1)
    try:
        return response.raw.read1(size, decode_content=False)
    except Exception as error:  # the socket may be closed by another thread, at any moment
        lines.go_on()
        raise _Passing(f"nothing for {TIMEOUT[1]:g} s" if client.expired else innermost(error)) from None
