"""Verified, resumable, parallel downloads.

What stands under a final name is complete and has the checksum that was asked for; everything else is a
``.part`` file beside it or a `FetchError`. requests keeps the connections; this module repeats requests that got
no answer or one of the passing kind (429, 503, ...), continues bodies that broke off, and checks them.

    with Fetcher(max_connections=8) as fetcher:
        sums = read_checksums(fetcher.text(base + "files.sha1sum"))
        for name in listing(fetcher, base, ".fits.gz"):
            fetcher.submit(base + name, folder / name, f"sha1:{sums[name]}")
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import requests
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from skyset.archives.checksums import LABELS, Checksum
from skyset.errors import SkysetError
from skyset.html import HEAD_BYTES, is_html
from skyset.http import CHUNK, PASSING, Client, innermost, pause, retry_after, watch
from skyset.messages import plain
from skyset.secrets import without_login

SLOWEST = 10_000  # bytes per second, over a whole body
LARGEST_TEXT = 64 << 20  # bytes of a page, a listing, a list of checksums
#: A name that an archive gives may be none on this disk: too long, a folder's, of letters that it does not take.
_OF_ITS_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ELOOP)


class FetchError(SkysetError):
    """A file cannot be had: `url`, and `reason` in one line."""

    def __init__(self, url: str, reason: str) -> None:
        url, reason = plain(url), plain(reason)
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class _BrokenOff(Exception):
    """The body stopped before its end; it may be continued. The text says how it stopped."""


@dataclass
class _Transfer:
    """One body on its way into `part`, over as many answers as it takes.

    `checked` bodies may be joined from any answers, because a bad joint is found; others only while the archive vouches with
    a validator (ETag, Last-Modified) that the file is still the same. `size` is that of the whole file, None while no answer
    has told it; `seconds` and `received` are what all answers took and gave.
    """

    url: str
    part: Path
    checked: bool
    max_bytes: int
    validators: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    seconds: float = 0.0
    received: int = 0

    def start(self) -> int:
        """The byte from which on to ask."""
        return self.part.stat().st_size if self.part.exists() and (self.checked or self.validators) else 0

    def restart(self, reason: str) -> NoReturn:
        """Throw away what is there."""
        self.part.unlink(missing_ok=True)
        self.validators, self.size = {}, None
        raise _BrokenOff(reason)


class Fetcher:
    """Downloads over one pool of connections; every method may be called from any thread.

    Args:
        max_connections: connections, and files in flight by `submit`.
        retries: further tries after the first, both for an answer and for the rest of a body.
        backoff: seconds before a further try, doubled each time; Retry-After, where sent, comes first.
        timeout: seconds to wait for (a connection, an answer or the next bytes); an answer's headers have to be complete
            after both.
        min_rate: bytes per second; a body that stays below it for `stall_seconds` is given up and continued.
        stall_seconds: seconds over which the rate is measured.
        total: seconds that a body may take in all, and one more for each `SLOWEST` bytes (10 kB) of it: what drips just
            above `min_rate` is refused then.
        max_bytes: larger bodies are refused.
        user_agent: what the archive sees; default ``skyset-surveys/<version>``.
    """

    def __init__(
        self,
        max_connections: int = 8,
        retries: int = 5,
        backoff: float = 0.5,
        timeout: tuple[float, float] = (10, 60),
        min_rate: float = 1000,
        stall_seconds: float = 30,
        total: float = 600,
        max_bytes: int = 4 << 30,
        user_agent: str | None = None,
    ) -> None:
        self.retries = retries
        self.backoff = backoff
        self.timeout = timeout
        self.min_rate = min_rate
        self.stall_seconds = stall_seconds
        self.total = total
        self.max_bytes = max_bytes
        self.user_agent = user_agent
        self._closing, self._ended = threading.Event(), threading.Event()
        self._targets: dict[Path, threading.Lock] = {}
        self._clients: list[Client] = []
        self._idle: queue.LifoQueue[Client | None] = queue.LifoQueue()
        for _ in range(max_connections):
            self._idle.put(None)  # a client that is made when it is needed
        self._watch = functools.cache(self._start_watch)
        self._threads = ThreadPoolExecutor(max_connections, thread_name_prefix="fetch")

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, exc_type, *_) -> None:
        self.close(cancel=exc_type is not None)

    def close(self, cancel: bool = False) -> None:
        """Wait for what was submitted, or with `cancel` stop it; then give the connections back.

        Stopped downloads raise ``concurrent.futures.CancelledError`` and leave their ``.part`` file.
        """
        if cancel:
            self._closing.set()
            for client in tuple(self._clients):
                client.hang_up()
        self._threads.shutdown(wait=True, cancel_futures=cancel)
        self._ended.set()
        for client in self._clients:
            client.close()

    def submit(self, url: str, target: str | Path, checksum: str | None = None) -> Future[Path]:
        """`fetch` in the background."""
        return self._threads.submit(self.fetch, url, target, checksum)

    def fetch(self, url: str, target: str | Path, checksum: str | None = None, max_bytes: int | None = None) -> Path:
        """Download `url` to `target`, unless it is there already, and return the path.

        Args:
            url: where the file is; ``https://user:password@host/`` logs in at this host.
            target: final path; its folder is made. Until it is complete the file is called ``<target>.part``.
            checksum: ``"sha1:<hex>"`` (or md5, sha256, sha512). With it an existing file is checked, and
                fetched again if it is another one, and a ``.part`` file of an earlier run is continued.
            max_bytes: of this file, where that is less than the fetcher's.

        Raises:
            FetchError: the file cannot be had, or is not the one that the checksum tells of.
            OSError: the disk is full, or the folder may not be written.
            ValueError: the checksum cannot be read.
            CancelledError: the fetcher was closed meanwhile.
        """
        target, url = Path(target), without_login(url)
        wanted = Checksum.parse(checksum) if checksum else None
        problem, part = "", target.with_name(target.name + ".part")
        try:
            with self._targets.setdefault(target, threading.Lock()):
                if target.exists() and (wanted is None or wanted.fits(target)):
                    return target
                target.parent.mkdir(parents=True, exist_ok=True)
                transfer = _Transfer(url, part, wanted is not None, min(max_bytes or self.max_bytes, self.max_bytes))
                self._complete(transfer, wanted, page=target.suffix in (".html", ".htm"))
                os.replace(part, target)
                return target
        except FetchError:
            if wanted is None:
                part.unlink(missing_ok=True)  # of no use to a later run
            raise
        except CancelledError:
            raise
        except OSError as error:
            if error.errno not in _OF_ITS_NAME:
                raise
            problem = f"its name cannot be a file's: {error.strerror}"
        except Exception as error:  # whatever an answer makes a library raise concerns this file alone
            problem = f"{type(error).__name__}: {innermost(error)}"
        raise FetchError(url, problem)

    def content(self, url: str, max_bytes: int = LARGEST_TEXT) -> bytes:
        """The bytes of a small file, `max_bytes` at most, with the same patience as `fetch`."""
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "answer.html"  # so called because an HTML page is welcome here
            return self.fetch(url, page, max_bytes=max_bytes).read_bytes()

    def text(self, url: str, max_bytes: int = LARGEST_TEXT) -> str:
        """A small text file; bytes that are not UTF-8 become U+FFFD."""
        return self.content(url, max_bytes).decode("utf-8", errors="replace")

    def _complete(self, transfer: _Transfer, wanted: Checksum | None, page: bool) -> None:
        """Make `transfer.part` the whole file, checked; `page` tells that an HTML page is welcome."""
        part = transfer.part
        if wanted is None:
            part.unlink(missing_ok=True)  # nothing would tell whether the old bytes belong to this file
        elif part.exists() and wanted.fits(part):
            return  # an earlier run ended between the last byte and the final name
        # A wrong body gets one more chance from zero, and another one if old bytes may be what is wrong.
        for _ in range(2 + part.exists()):
            self._receive(transfer)
            problem = _problem(part, wanted, page)
            if problem is None:
                return
            part.unlink()
        raise FetchError(transfer.url, problem or "not the file that is wanted")

    def _receive(self, transfer: _Transfer) -> None:
        """Write the body to the part file, going on where a try broke off."""
        reason = ""
        with self._client() as client:
            for failed in range(self.retries + 1):
                if failed:
                    self._pause(pause(failed, self.backoff))
                start = transfer.start()
                try:
                    with self._answer(client, transfer, start) as response:
                        return self._store(client, response, transfer, start)
                except _BrokenOff as error:
                    reason = str(error)
        raise FetchError(transfer.url, f"{reason}, {self.retries + 1} tries")

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        """A client that nobody else uses meanwhile."""
        client = None
        while client is None:
            self._stop_if_closing()
            with contextlib.suppress(queue.Empty):
                client = self._idle.get(timeout=1) or self._new_client()
        try:
            yield client
        finally:
            client.end()
            self._idle.put(client)

    def _new_client(self) -> Client:
        self._watch()
        self._clients.append(Client(self._closing, self.user_agent))
        return self._clients[-1]

    def _start_watch(self) -> None:
        arguments = (lambda: self._clients, self._closing, self._ended)
        threading.Thread(target=watch, args=arguments, name="fetch-watch", daemon=True).start()

    def _answer(self, client: Client, transfer: _Transfer, start: int) -> requests.Response:
        """The open answer to a request for the bytes from `start`: 200, 206 or 416."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and transfer.validators:
            headers["If-Range"] = next(iter(transfer.validators.values()))
        reason, asked = "", None
        for failed in range(self.retries + 1):
            if failed:
                self._pause(pause(failed, self.backoff, asked))
            self._stop_if_closing()
            client.begin(sum(self.timeout))
            try:
                response = client.session.get(transfer.url, headers=headers, stream=True, timeout=self.timeout)
                if client.expired:
                    raise TimeoutError  # a connection that was shut can look like the end of the headers
            except Exception as error:  # redirects and proxies make the libraries raise more than their own
                self._stop_if_closing()
                reason = f"no answer in {sum(self.timeout):g} s" if client.expired else innermost(error)
                asked = None
                if not isinstance(error, OSError) or isinstance(error, ValueError | requests.TooManyRedirects):
                    break  # such as an address that is none: another try meets the same
                continue
            if response.status_code in (200, 206, 416):
                return response
            asked, reason = retry_after(response), f"{response.status_code} {plain(response.reason or '', 200)}".strip()
            response.close()
            if response.status_code not in PASSING:
                break
            if failed == self.retries:
                reason += f", {self.retries + 1} tries"
        # Out here, without the exceptions of the libraries: these show the whole address.
        raise FetchError(transfer.url, reason)

    def _store(self, client: Client, response: requests.Response, transfer: _Transfer, start: int) -> None:
        """Write the body of `response` into the part file from byte `start` on, and on to the disk."""
        start = _extent(response, transfer, start)
        if (transfer.size or 0) > transfer.max_bytes:
            raise FetchError(transfer.url, f"{transfer.size:,} bytes, more than the {transfer.max_bytes:,} allowed")
        size = start
        with transfer.part.open("ab" if start else "wb") as file:
            try:
                for chunk in self._chunks(client, response, transfer):
                    size += len(chunk)
                    if size > transfer.max_bytes:
                        transfer.part.unlink()
                        raise FetchError(transfer.url, f"more than the {transfer.max_bytes:,} bytes allowed")
                    file.write(chunk)
            except _BrokenOff as error:
                of_total = "" if transfer.size is None else f" of {transfer.size:,}"
                raise _BrokenOff(f"{error} after {size:,}{of_total} bytes") from None
            file.flush()
            os.fsync(file.fileno())
        if transfer.size not in (None, size):
            raise _BrokenOff(f"connection cut after {size:,} of {transfer.size:,} bytes")

    def _chunks(self, client: Client, response: requests.Response, transfer: _Transfer) -> Iterator[bytes]:
        """The bytes on the wire as they come; _BrokenOff if they stop early or crawl.

        Not decoded: where an archive calls a ``.gz`` file Content-Encoding gzip, the file itself is wanted.
        """
        last = since = time.monotonic()
        received = 0
        while True:
            self._stop_if_closing()
            left = self.total + transfer.received / SLOWEST - transfer.seconds
            client.allow(min(left, self.timeout[1] + 1))  # a second more than the socket's own patience
            broken = None
            try:
                chunk = response.raw.read1(CHUNK, decode_content=False)
            except Exception as error:  # the socket may be closed by another thread, at any moment
                broken = _how_it_broke(error, self.timeout[1])
            now = time.monotonic()
            transfer.seconds, last = transfer.seconds + now - last, now
            self._stop_if_closing()
            if transfer.seconds >= self.total + transfer.received / SLOWEST:
                raise FetchError(transfer.url, f"not complete after {transfer.seconds:.0f} s ({transfer.received:,} bytes)")
            if client.expired:
                broken = f"nothing for {self.timeout[1]:g} s"
            if broken is not None:
                raise _BrokenOff(broken)
            if not chunk:
                return
            yield chunk
            received += len(chunk)
            transfer.received += len(chunk)
            if now - since >= self.stall_seconds:
                if received < self.min_rate * (now - since):
                    rate = f"{self.min_rate / 1000:g} kB/s for {self.stall_seconds:g} s"
                    raise _BrokenOff(f"slower than {rate}")
                since, received = now, 0

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise CancelledError

    def _stop_if_closing(self) -> None:
        if self._closing.is_set():
            raise CancelledError


def _extent(response: requests.Response, transfer: _Transfer, start: int) -> int:
    """Where the body begins in the file; `transfer` learns the size of the whole file, and what tells that it is the same.

    An answer that does not go on from `start`, or is of another file than the bytes before, makes these useless: they are
    removed.
    """
    length = _length(response)
    validators = _validators(response)
    if response.status_code == 200:
        transfer.validators, transfer.size = validators, length
        return 0
    found = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", response.headers.get("Content-Range", ""))
    if response.status_code == 416 or found is None or int(found[1]) != start:
        transfer.restart(f"no answer to the request for the bytes from {start:,} on")
    stop = int(found[2]) + 1
    size = None if found[3] == "*" else int(found[3])
    if stop <= start or (length or 0) > stop - start or (size is not None and stop > size):
        transfer.restart(f"an answer that contradicts itself: {response.headers['Content-Range']}")
    if (start and transfer.validators and not _is_same(transfer.validators, validators)) or (
        None not in (size, transfer.size) and size != transfer.size
    ):
        transfer.restart("the file has changed meanwhile")
    transfer.validators = transfer.validators if start else validators
    transfer.size = transfer.size if size is None else size
    if transfer.size is None and length is not None:
        transfer.size = stop
    return start


def _length(response: requests.Response) -> int | None:
    """Content-Length, None without one; _BrokenOff where it is no number, or several."""
    text = response.headers.get("Content-Length")
    if text is None or "chunked" in response.headers.get("Transfer-Encoding", "").lower():
        return None
    lengths = {part.strip() for part in text.split(",")}
    if len(lengths) != 1 or not re.fullmatch("[0-9]{1,18}", min(lengths)):
        raise _BrokenOff(f"the answer's Content-Length is {text[:40]!r}")
    return int(min(lengths))


def _validators(response: requests.Response) -> dict[str, str]:
    """What tells that a file is the same, and If-Range may be asked with: a strong ETag, the time of the last change."""
    etag, changed = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
    found = {"ETag": etag} if re.fullmatch(r'"[!#-~]{0,256}"', etag) else {}
    return found | ({"Last-Modified": changed} if re.fullmatch(r"[A-Za-z0-9 ,:+-]{1,64}", changed) else {})


def _is_same(before: dict[str, str], now: dict[str, str]) -> bool:
    """Whether an answer to If-Range is of the same file: what was asked with comes again, and nothing differs."""
    return next(iter(before)) in now and all(now[name] == value for name, value in before.items() if name in now)


def _problem(part: Path, wanted: Checksum | None, page: bool) -> str | None:
    """Why the complete body in `part` is not the file asked for; None if nothing speaks against it."""
    with part.open("rb") as file:
        is_page = is_html(file.read(HEAD_BYTES))
    if wanted is None:
        return "the answer is an HTML page" if is_page and not page else None
    found = wanted.of(part)
    if found == wanted.digest:
        return None
    note = " (the answer is an HTML page)" if is_page else ""
    return f"{LABELS[wanted.algorithm]} is {found}, the list says {wanted.digest}{note}"


def _how_it_broke(error: Exception, seconds: float) -> str:
    """One phrase for an error in the middle of a body."""
    if isinstance(error, ProtocolError | ValueError):
        return "connection cut"
    return f"nothing for {seconds:g} s" if isinstance(error, ReadTimeoutError) else innermost(error)
