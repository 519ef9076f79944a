"""Verified, resumable, parallel downloads.

What stands under a final name is complete and has the checksum that was asked for; everything else is a
``.part`` file beside it or a `FetchError`. requests keeps the connections, urllib3's ``Retry`` repeats
requests that got no answer or one of the passing kind (429, 503, ...); this module continues bodies that
broke off, and checks them.

    with Fetcher(max_connections=8) as fetcher:
        sums = read_checksums(fetcher.text(base + "files.sha1sum"))
        for name in listing(fetcher, base, ".fits.gz"):
            fetcher.submit(base + name, folder / name, f"sha1:{sums[name]}")
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from urllib.parse import urljoin
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.exceptions import InvalidHeader
from urllib3.exceptions import ProtocolError
from urllib3.exceptions import ReadTimeoutError
from urllib3.util.retry import Retry

from skyset.errors import SkysetError
from skyset.http import HostLogin
from skyset.messages import plain
from skyset.secrets import without_login
from skyset.versions import default_user_agent

CHUNK = 1 << 18  # bytes, at most, of one read
PASSING = (408, 429, 500, 502, 503, 504)  # statuses that a later try may not meet
LONGEST_WAIT = 600.0  # seconds, whatever Retry-After says
LABELS = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha512": "SHA-512"}
CHECKSUM_LINE = re.compile(r"(?P<hex>[0-9a-fA-F]{32,128})[ \t]{1,2}\*?(?:\./)?(?P<name>\S.*)")


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


class Fetcher:
    """Downloads over one pool of connections; every method may be called from any thread.

    Args:
        max_connections: connections to one host, and files in flight by `submit`.
        retries: further tries after the first, both for an answer and for the rest of a body.
        backoff: seconds before a further try, doubled each time; Retry-After, where sent, comes first.
        timeout: seconds to wait for (a connection, an answer or the next bytes).
        min_rate: bytes per second; a body that stays below it for `stall_seconds` is given up and continued.
        stall_seconds: seconds over which the rate is measured.
        max_bytes: larger bodies are refused.
        user_agent: what the archive sees; default ``skyset/<version>``.
    """

    def __init__(
        self,
        max_connections: int = 8,
        retries: int = 5,
        backoff: float = 0.5,
        timeout: tuple[float, float] = (10, 60),
        min_rate: float = 1000,
        stall_seconds: float = 30,
        max_bytes: int = 4 << 30,
        user_agent: str | None = None,
    ) -> None:
        self.retries = retries
        self.backoff = backoff
        self.timeout = timeout
        self.min_rate = min_rate
        self.stall_seconds = stall_seconds
        self.max_bytes = max_bytes
        self._closing = threading.Event()
        self._targets: dict[Path, threading.Lock] = {}
        self._open: set[requests.Response] = set()
        retry = retry_policy(retries, backoff, self._closing)
        self._session = _session(max_connections, retry, user_agent or default_user_agent())
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
            for response in tuple(self._open):
                _hang_up(response)
        self._threads.shutdown(wait=True, cancel_futures=cancel)
        self._session.close()

    def submit(self, url: str, target: str | Path, checksum: str | None = None) -> Future[Path]:
        """`fetch` in the background."""
        return self._threads.submit(self.fetch, url, target, checksum)

    def fetch(self, url: str, target: str | Path, checksum: str | None = None) -> Path:
        """Download `url` to `target`, unless it is there already, and return the path.

        Args:
            url: where the file is.
            target: final path; its folder is made. Until it is complete the file is called ``<target>.part``.
            checksum: ``"sha1:<hex>"`` (or md5, sha256, sha512). With it an existing file is checked, and
                fetched again if it is another one, and a ``.part`` file of an earlier run is continued.

        Raises:
            FetchError: the file cannot be had, or is not the one that the checksum tells of.
            OSError: the disk is full, or the folder may not be written.
            ValueError: the checksum cannot be read.
            CancelledError: the fetcher was closed meanwhile.
        """
        target, url = Path(target), without_login(url)
        wanted = Checksum.parse(checksum) if checksum else None
        with self._targets.setdefault(target, threading.Lock()):
            if target.exists() and (wanted is None or wanted.fits(target)):
                return target
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            self._complete(url, part, wanted, page=target.suffix in (".html", ".htm"))
            os.replace(part, target)
        return target

    def content(self, url: str) -> bytes:
        """The bytes of a small file, with the same patience as `fetch`."""
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "answer.html"  # so called because an HTML page is welcome here
            return self.fetch(url, page).read_bytes()

    def text(self, url: str) -> str:
        """A small text file; bytes that are not UTF-8 become U+FFFD."""
        return self.content(url).decode("utf-8", errors="replace")

    def _complete(self, url: str, part: Path, wanted: Checksum | None, page: bool) -> None:
        """Make `part` the whole file, checked; `page` tells that an HTML page is welcome."""
        if wanted is None:
            part.unlink(missing_ok=True)  # nothing would tell whether the old bytes belong to this file
        elif part.exists() and wanted.fits(part):
            return  # an earlier run ended between the last byte and the final name
        # A wrong body gets one more chance from zero, and another one if old bytes may be what is wrong.
        for _ in range(2 + part.exists()):
            self._receive(url, part, checked=wanted is not None)
            problem = _problem(part, wanted, page)
            if problem is None:
                return
            part.unlink()
        raise FetchError(url, problem)

    def _receive(self, url: str, part: Path, checked: bool) -> None:
        """Write the body to `part`, going on where a try broke off.

        `checked` bodies may be joined from any answers, because a bad joint is found; others only while the
        archive vouches with a validator (ETag, Last-Modified) that the file is still the same.
        """
        validator, reason = None, ""
        for failed in range(self.retries + 1):
            if failed:
                self._pause(self.backoff * 2 ** (failed - 1))
            start = part.stat().st_size if part.exists() and (checked or validator) else 0
            with self._answer(url, start, validator) as response:
                validator = _validator(response)
                self._open.add(response)
                try:
                    return self._store(response, part, start)
                except _BrokenOff as error:
                    reason = str(error)
                finally:
                    self._open.discard(response)
        if not checked:
            part.unlink(missing_ok=True)
        raise FetchError(url, f"{reason}, {self.retries + 1} tries")

    def _answer(self, url: str, start: int, validator: str | None) -> requests.Response:
        """The open answer to a request for the bytes from `start`: 200, 206 or 416."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and validator:
            headers["If-Range"] = validator
        self._stop_if_closing()
        reason = None
        try:
            response = self._session.get(url, headers=headers, stream=True, timeout=self.timeout)
        except requests.RequestException as error:
            reason = innermost(error)
        if reason is not None:  # out here, without the exceptions of the libraries: these show the whole address
            raise FetchError(url, reason)
        if response.status_code in (200, 206, 416):
            return response
        response.close()
        tries = f", {self.retries + 1} tries" if response.status_code in PASSING else ""
        raise FetchError(url, f"{response.status_code} {response.reason}{tries}")

    def _store(self, response: requests.Response, part: Path, start: int) -> None:
        """Write the body of `response` into `part` from byte `start` on, and on to the disk."""
        start, total = _extent(response, part, start)
        if (total or 0) > self.max_bytes:
            raise FetchError(response.url, f"{total:,} bytes, more than the {self.max_bytes:,} allowed")
        size = start
        with part.open("ab" if start else "wb") as file:
            try:
                for chunk in self._chunks(response):
                    size += len(chunk)
                    if size > self.max_bytes:
                        part.unlink()
                        raise FetchError(response.url, f"more than the {self.max_bytes:,} bytes allowed")
                    file.write(chunk)
            except _BrokenOff as error:
                of_total = "" if total is None else f" of {total:,}"
                raise _BrokenOff(f"{error} after {size:,}{of_total} bytes") from error
            file.flush()
            os.fsync(file.fileno())
        if total not in (None, size):
            raise _BrokenOff(f"connection cut after {size:,} of {total:,} bytes")

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The bytes on the wire as they come; _BrokenOff if they stop early or crawl.

        Not decoded: where an archive calls a ``.gz`` file Content-Encoding gzip, the file itself is wanted.
        """
        since, received = time.monotonic(), 0
        while True:
            self._stop_if_closing()
            try:
                chunk = response.raw.read1(CHUNK, decode_content=False)
            except (HTTPError, ValueError) as error:  # ValueError: the socket was closed by another thread
                self._stop_if_closing()
                raise _BrokenOff(_how_it_broke(error, self.timeout[1])) from error
            if not chunk:
                self._stop_if_closing()
                return
            yield chunk
            received += len(chunk)
            elapsed = time.monotonic() - since
            if elapsed >= self.stall_seconds:
                if received < self.min_rate * elapsed:
                    rate = f"{self.min_rate / 1000:g} kB/s for {self.stall_seconds:g} s"
                    raise _BrokenOff(f"slower than {rate}")
                since, received = time.monotonic(), 0

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(min(seconds, LONGEST_WAIT)):
            raise CancelledError

    def _stop_if_closing(self) -> None:
        if self._closing.is_set():
            raise CancelledError


@dataclass(frozen=True)
class Checksum:
    """What a file must hash to: `algorithm` (a key of `LABELS`) and `digest` (lower-case hex)."""

    algorithm: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """``"sha1:12ab..."``; ValueError if it is anything else."""
        algorithm, _, digest = text.lower().partition(":")
        if algorithm not in LABELS or not re.fullmatch("[0-9a-f]+", digest):
            raise ValueError(f"{text!r} is not a checksum like 'sha1:<hex>' ({', '.join(LABELS)})")
        if len(digest) != 2 * hashlib.new(algorithm).digest_size:
            raise ValueError(f"{text!r} has {len(digest)} hex digits, not as many as {LABELS[algorithm]}")
        return cls(algorithm, digest)

    def of(self, path: Path) -> str:
        """The digest that the file at `path` has."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest()

    def fits(self, path: Path) -> bool:
        """Whether the file at `path` is the one meant."""
        return self.of(path) == self.digest


def listing(fetcher: Fetcher, url: str, suffix: str = "") -> list[str]:
    """Names of the files in the HTML index at `url` that end in `suffix`, each once, in the index's order.

    Only plain names in this very folder: links to other folders or hosts, or with a query, are left out.
    """
    parser = _Links()
    parser.feed(fetcher.text(url))
    names = (_name_in_folder(url, link) for link in parser.links)
    return list(dict.fromkeys(name for name in names if name and name.endswith(suffix)))


def read_checksums(text: str) -> dict[str, str]:
    """Hex digest by file name, from a list as ``sha1sum`` or ``md5sum`` writes it.

    One or two blanks, a ``*`` for binary mode and ``./`` before the name may stand between them; empty lines
    and those that begin with ``#`` are passed over.

    Raises:
        ValueError: a line is something else, names another folder, or contradicts an earlier line.
    """
    digests: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = CHECKSUM_LINE.fullmatch(line.rstrip())
        if match is None:
            raise ValueError(f"line {number}: not a checksum and a name: {line[:80]!r}")
        name, digest = match["name"], match["hex"].lower()
        if not _is_plain(name):
            raise ValueError(f"line {number}: not a plain file name: {name[:80]!r}")
        if digests.setdefault(name, digest) != digest:
            raise ValueError(f"line {number}: a second, different checksum for {name}")
    return digests


class _Links(HTMLParser):
    """Collects the targets of all links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _name_in_folder(url: str, link: str) -> str | None:
    """The plain file name that `link` on the page at `url` means, None if it leads elsewhere."""
    try:
        folder, target = urlsplit(urljoin(url, ".")), urlsplit(urljoin(url, link))
    except ValueError:  # such as http://[broken
        return None
    if target[:2] != folder[:2] or target.query or not target.path.startswith(folder.path):
        return None
    name = unquote(target.path.removeprefix(folder.path))
    return name if _is_plain(name) else None


def _is_plain(name: str) -> bool:
    """Whether `name` is a file name and nothing else: no folder, no control character."""
    return name not in ("", ".", "..") and name.isprintable() and not set(name) & set("/\\")


def _extent(response: requests.Response, part: Path, start: int) -> tuple[int, int | None]:
    """Where the body begins in the file, and the size of the whole file (None: not told).

    An answer that does not go on from `start` makes the bytes in `part` useless: they are removed.
    """
    length = response.headers.get("Content-Length", "")
    length = int(length) if length.isdigit() else None
    if response.status_code == 200:
        return 0, length
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code == 416 or found is None or int(found[1]) != start:
        part.unlink(missing_ok=True)
        raise _BrokenOff(f"no answer to the request for the bytes from {start:,} on")
    if found[2] != "*":
        return start, int(found[2])
    return start, None if length is None else start + length


def _validator(response: requests.Response) -> str | None:
    """What If-Range may be asked with: a strong ETag, else the time of the last change."""
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    return response.headers.get("Last-Modified")


def _problem(part: Path, wanted: Checksum | None, page: bool) -> str | None:
    """Why the complete body in `part` is not the file asked for; None if nothing speaks against it."""
    with part.open("rb") as file:
        is_page = file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))
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


def innermost(error: BaseException) -> str:
    """What the deepest cause says: libraries wrap ``Connection refused`` in four layers of their own."""
    while True:
        causes = (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__)
        inner = next((cause for cause in causes if isinstance(cause, BaseException)), None)
        if inner is None:
            return getattr(error, "strerror", None) or str(error) or type(error).__name__
        error = inner


def _hang_up(response: requests.Response) -> None:
    """Wake the thread that waits for the next bytes of `response`."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # the body has just ended by itself
        response.raw.shutdown()


def retry_after(response: requests.Response) -> float | None:
    """Seconds that the answer's Retry-After, a number or a date, asks to wait; None without one."""
    try:
        return max(0.0, float(Retry().parse_retry_after(response.headers["Retry-After"])))
    except (KeyError, InvalidHeader):
        return None


def retry_policy(retries: int, backoff: float, closing: threading.Event) -> Retry:
    """urllib3's policy for requests without a useful answer, with waits that `closing` ends."""

    class InterruptibleRetry(Retry):
        def sleep(self, response=None) -> None:
            try:
                asked = None if response is None else self.get_retry_after(response)
            except InvalidHeader:
                asked = None
            if closing.wait(min(asked or self.get_backoff_time(), LONGEST_WAIT)):
                raise CancelledError

    return InterruptibleRetry(
        total=retries,
        status_forcelist=PASSING,
        backoff_factor=backoff,
        raise_on_status=False,
    )


def _session(connections: int, retry: Retry, user_agent: str) -> requests.Session:
    """A session with at most `connections` to one host."""
    session = requests.Session()
    session.auth = HostLogin()
    adapter = HTTPAdapter(connections, connections, max_retries=retry, pool_block=True)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"User-Agent": user_agent, "Accept-Encoding": "identity"})
    return session
