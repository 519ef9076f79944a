"""Many small images over HTTP: a pool of connections that keeps at it, and the checks of what comes.

What an image is decides its content, never its name or Content-Type: services answer with error pages under
status 200, and with formats other than asked for.

    pool = ImagePool(connections=8, check=lambda data: check_image(data, "jpg", 64, 64))
    for answer in pool.run(ImageRequest(key, (url, mirror)) for key, url, mirror in wanted):
        ...  # answer.data, or answer.reason why there is none
"""

from __future__ import annotations

import heapq
import queue
import random
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from http.client import responses as PHRASES
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from skyset.archives.pacing import LONGEST_BACKOFF, Hosts, Schedule, host_of
from skyset.errors import UserError
from skyset.http import PASSING, Client, innermost, pause, retry_after, watch
from skyset.messages import plain
from skyset.pixels import ImageError, words_of
from skyset.secrets import without_login

NOT_THERE = (404, 410)
SAME_REFUSAL = 3  # times until an answer that is not the image counts as the service's last word


# --- what an image is ---------------------------------------------------------------------------------------


# --- the pool -----------------------------------------------------------------------------------------------


class ImageRequest(NamedTuple):
    """One image: the caller's `key`, and `urls`, the address and those of the mirrors."""

    key: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class ImageAnswer:
    """What came of a request: `data`, or None and the `reason` in one line.

    `status` is the last HTTP status (None: no answer), `url` the address that gave it, `tries` counts all requests.
    """

    key: str
    data: bytes | None
    status: int | None
    tries: int
    url: str
    reason: str | None = None


class ImagePool:
    """Downloads of many small images over a fixed number of kept connections.

    Passing failures (no answer, 408, 429, 5xx, an answer that `check` calls passing) are tried again: on the next
    mirror at once, and when all were asked, after a pause that doubles. Permanent ones (404 and other 4xx, a blank
    image), and the same refused answer three times, are put to every mirror once and then believed. A host that fails
    five times in a row is left alone for a while where there is a mirror.

    Args:
        connections: threads, each with one session.
        retries: further tries after the first.
        backoff: seconds before asking again, doubled each round, times 0.5 to 1.5 by chance. Retry-After, where sent,
            comes first; with status 429 it holds all threads up.
        timeout: seconds to wait for (a connection, the next bytes).
        rate: requests per second over all threads; None: no limit.
        max_bytes: larger answers are refused; at most ``4 * connections`` answers are in memory.
        check: called with each answer of status 200 in the thread that got it; raises ImageError to refuse it; any
            other exception refuses it too.
        total: seconds that one try may take, however the bytes drip.
        give_up: requests that fail in a row, after which something is wrong with the service or with what it is asked;
            None: never. Statuses 404 and 410 and images refused for good do not count: these are about one image.
        user_agent: what the service sees; default ``skyset/<version>``.
    """

    def __init__(
        self,
        connections: int = 8,
        retries: int = 5,
        backoff: float = 0.5,
        timeout: tuple[float, float] = (10, 60),
        rate: float | None = None,
        max_bytes: int = 8 << 20,
        check: Callable[[bytes], object] | None = None,
        total: float = 120,
        give_up: int | None = 100,
        user_agent: str | None = None,
    ) -> None:
        if connections < 1 or retries < 0 or (rate is not None and not rate > 0):
            raise ValueError(f"connections {connections}, retries {retries}, rate {rate}")
        self.connections = connections
        self.retries = retries
        self.backoff = backoff
        self.timeout = timeout
        self.max_bytes = max_bytes
        self.check = check
        self.total = total
        self.give_up = give_up
        self.user_agent = user_agent
        self.schedule = Schedule(rate)
        self.hosts = Hosts()

    def run(self, requests: Iterable[ImageRequest]) -> Generator[ImageAnswer, None, None]:
        """Each request's answer, once, in the order in which they come.

        `requests` is read in the caller's thread, a few requests ahead. Closing the iterator, Ctrl-C or an error in
        the caller's loop stops the threads at once, wherever they wait.

        Raises:
            UserError: `give_up` requests in a row failed.
        """
        run = _Run(self)
        try:
            yield from run.answers(iter(requests))
        finally:
            run.close()


@dataclass
class _Job:
    """A request and what was tried for it."""

    request: ImageRequest
    tries: int = 0
    url: str = ""
    status: int | None = None
    reason: str = ""
    passing: bool = True
    about_one: bool = False  # whether the reason says nothing about other images
    denied: set[str] = field(default_factory=set)  # addresses that said no for good
    refusals: Counter = field(default_factory=Counter)

    def candidates(self) -> list[str]:
        """Addresses worth asking: the first one first, and after each try the next one."""
        urls = [url for url in self.request.urls if url not in self.denied]
        turn = self.tries % len(urls) if urls else 0
        return urls[turn:] + urls[:turn]

    def refused(self, error: ImageError) -> None:
        """The last answer is not the image."""
        self.reason = error.reason
        self.refusals[error.reason] += self.status == 200
        self.passing = error.passing and self.refusals[error.reason] < SAME_REFUSAL
        self.about_one = self.status in NOT_THERE or (self.status == 200 and not error.passing)

    def answer(self, data: bytes | None) -> ImageAnswer:
        reason = None
        if data is None:
            reason = f"{self.reason}, {self.tries} tries" if self.tries > 1 else self.reason
        return ImageAnswer(self.request.key, data, self.status, self.tries, plain(self.url), reason and plain(reason))


class _Run:
    """The threads and queues of one `ImagePool.run`."""

    def __init__(self, pool: ImagePool) -> None:
        self.pool = pool
        self.closing, self._ended = threading.Event(), threading.Event()
        self._ready: deque[_Job] = deque()
        self._later: list[tuple[float, int, _Job]] = []  # heap of jobs that pause, by the time of their next try
        self._changed = threading.Condition()
        # An answer and whether it counts against the service, or None and an error for the caller.
        self._done: queue.SimpleQueue[tuple[ImageAnswer | None, bool | BaseException]] = queue.SimpleQueue()
        self._clients: list[_Client] = []
        self._threads: list[threading.Thread] = []

    def answers(self, requests: Iterator[ImageRequest]) -> Generator[ImageAnswer, None, None]:
        waiting, failed, limit = 0, 0, 4 * self.pool.connections
        while True:
            while waiting < limit and (request := next(requests, None)) is not None:
                if not request.urls:
                    raise ValueError(f"{request.key}: no address")
                self._start_thread()
                self._add(_Job(request._replace(urls=tuple(map(without_login, request.urls)))))
                waiting += 1
            if not waiting:
                return
            answer, against = self._done.get()
            if answer is None:
                assert isinstance(against, BaseException)
                raise against
            waiting -= 1
            failed = failed + 1 if against else 0
            yield answer
            if self.pool.give_up and failed >= self.pool.give_up:
                raise UserError(
                    f"{failed} images in a row could not be had from {host_of(answer.url)} (the last one: {answer.reason}); "
                    "the same command goes on from here"
                )

    def close(self) -> None:
        """Stop the threads. One that waits for a name or a connection ends by itself later; it holds nothing up."""
        self.closing.set()
        with self._changed:
            self._changed.notify_all()
        for client in self._clients:
            client.wire.hang_up()
        until = time.monotonic() + 0.5
        for thread in self._threads[1:]:
            thread.join(max(0, until - time.monotonic()))
        self._ended.set()
        if self._threads:
            self._threads[0].join()  # the watch

    def _start_thread(self) -> None:
        if not self._threads:
            self._spawn(lambda: watch(lambda: [client.wire for client in self._clients], self.closing, self._ended))
        if len(self._threads) <= self.pool.connections:
            client = _Client(self.pool, self.closing)
            self._clients.append(client)
            self._spawn(lambda: self._work(client))

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"images-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _add(self, job: _Job, delay: float = 0) -> None:
        with self._changed:
            if delay > 0:
                heapq.heappush(self._later, (time.monotonic() + delay, id(job), job))
            else:
                self._ready.append(job)
            self._changed.notify()

    def _take(self) -> _Job | None:
        """The next job, as soon as there is one; None at the end."""
        with self._changed:
            while not self.closing.is_set():
                due = self._later[0][0] - time.monotonic() if self._later else None
                if due is not None and due <= 0:
                    return heapq.heappop(self._later)[2]
                if self._ready:
                    return self._ready.popleft()
                self._changed.wait(due)
        return None

    def _work(self, client: _Client) -> None:
        try:
            while (job := self._take()) is not None and self.pool.schedule.wait(self.closing):
                self._try(job, client)
        except BaseException as error:  # of our own
            self._done.put((None, error))
        finally:
            client.wire.close()

    def _try(self, job: _Job, client: _Client) -> None:
        """One request for a job, and what follows from it."""
        pool = self.pool
        job.url = pool.hosts.choose(job.candidates())
        job.tries += 1
        try:
            job.status, pause, body = client.get(job.url)
        except _NoAnswer as error:
            if self.closing.is_set():
                return
            job.status, job.reason, job.passing, job.about_one = None, str(error), error.passing, False
            pause = None
            if error.passing:
                pool.hosts.failed(job.url)
        else:
            (pool.hosts.failed if job.status >= 500 else pool.hosts.answered)(job.url)
            try:
                self._accept(job, body)
            except ImageError as error:
                job.refused(error)
            except Exception as error:  # in `check`, which this image made fail
                job.refused(ImageError(f"{type(error).__name__}: {innermost(error)}", passing=True))
            else:
                self._done.put((job.answer(body), False))
                return
        self._again_or_never(job, pause)

    def _accept(self, job: _Job, body: bytes) -> None:
        """ImageError unless the answer is the image."""
        status = job.status or 0
        if status != 200:
            words = f"{status} {PHRASES.get(status, '')}".strip()
            if body[:1] == b"{":
                words += f": {words_of(body)}"
            raise ImageError(words, passing=status in PASSING or status >= 500)
        if len(body) > self.pool.max_bytes:
            raise ImageError(f"more than the {self.pool.max_bytes:,} bytes allowed", passing=False)
        if self.pool.check is not None:
            self.pool.check(body)

    def _again_or_never(self, job: _Job, retry_after: float | None) -> None:
        pool = self.pool
        if not job.passing:
            job.denied.add(job.url)
        others = job.candidates()
        elsewhere = any(host_of(url) != host_of(job.url) and pool.hosts.awake(url) for url in others)
        if job.status == 429:
            pool.schedule.hold(self._pause(job, 1) if retry_after is None else retry_after)
        elif retry_after is not None and job.passing:
            if elsewhere:
                pool.hosts.rest(job.url, retry_after)
            else:
                pool.schedule.hold(retry_after)
        if job.tries > pool.retries or not others:
            self._done.put((job.answer(None), not job.about_one))
            return
        asked_all = job.tries >= len(job.request.urls)
        self._add(job, self._pause(job, len(job.request.urls)) if job.passing and asked_all else 0)

    def _pause(self, job: _Job, addresses: int) -> float:
        """Seconds, doubled with each round of all addresses."""
        seconds = pause(1 + (job.tries - 1) // addresses, self.pool.backoff)
        return min(seconds, LONGEST_BACKOFF) * random.uniform(0.5, 1.5)


# --- one connection -----------------------------------------------------------------------------------------


class _NoAnswer(Exception):
    """There is no answer; the text says why. `passing` is False if the address cannot be asked at all."""

    def __init__(self, reason: str, passing: bool = True) -> None:
        super().__init__(reason)
        self.passing = passing


class _Client:
    """One thread's session, and what is asked once a host."""

    def __init__(self, pool: ImagePool, closing: threading.Event) -> None:
        self._pool = pool
        self.wire = Client(closing, pool.user_agent)
        self._routes: dict[str, tuple[requests.PreparedRequest, dict]] = {}

    def get(self, url: str) -> tuple[int, float | None, bytes]:
        """Status, seconds of Retry-After or None, and at most ``max_bytes + 1`` bytes of the body.

        Raises:
            _NoAnswer: there is none, or it broke off.
        """
        self.wire.begin(self._pool.total)
        try:
            prepared, settings = self._route(url)
            with self.wire.session.send(prepared, timeout=self._pool.timeout, **settings) as response:
                body = _body(response, self._pool.max_bytes)
            if self.wire.expired:
                raise TimeoutError  # a connection that was shut can look like the end of a body
            return response.status_code, retry_after(response), body
        except Exception as error:  # redirects and proxies make the libraries raise more than their own
            if self.wire.expired:
                raise _NoAnswer(f"not complete after {self._pool.total:g} s") from error
            wrong = not isinstance(error, OSError | HTTPError) or isinstance(error, ValueError | requests.TooManyRedirects)
            raise _NoAnswer(innermost(error), passing=not wrong) from error
        finally:
            self.wire.end()

    def _route(self, url: str) -> tuple[requests.PreparedRequest, dict]:
        """The request, and its proxies and certificates; the environment and .netrc are looked at once a host."""
        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc}"
        if host not in self._routes:
            prepared = self.wire.session.prepare_request(requests.Request("GET", url))
            settings = self.wire.session.merge_environment_settings(url, {}, True, None, None)
            self._routes[host] = prepared, settings
        template, settings = self._routes[host]
        prepared = template.copy()
        prepared.prepare_url(url, None)
        return prepared, settings


def _body(response: requests.Response, max_bytes: int) -> bytes:
    """At most ``max_bytes + 1`` bytes of a body, unpacked: nobody is asked to pack it, and some do."""
    body = b""
    while len(body) <= max_bytes and (more := response.raw.read(max_bytes + 1 - len(body), decode_content=False)):
        body += more
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity") or len(body) > max_bytes:
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise OSError(f"an answer in the encoding {encoding[:40]!r}, which was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32 if encoding != "deflate" or body[:1] == b"\x78" else -zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise OSError(f"an answer that does not unpack: {error}") from error
    if not unpacker.eof and len(unpacked) <= max_bytes:
        raise OSError("an answer that ends before it is unpacked")
    return unpacked
