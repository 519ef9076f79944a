"""Many small images over HTTP: a pool of connections that keeps at it, and the checks of what comes.

What an image is decides its content, never its name or Content-Type: services answer with error pages under
status 200, and with formats other than asked for.

    pool = ImagePool(connections=8, check=lambda data: check_image(data, "jpg", 64, 64))
    for answer in pool.run(ImageRequest(key, (url, mirror)) for key, url, mirror in wanted):
        ...  # answer.data, or answer.reason why there is none
"""

from __future__ import annotations

import heapq
import io
import json
import math
import queue
import random
import threading
import time
import zlib
from collections import Counter
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from http.client import responses as PHRASES
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import requests
from urllib3.exceptions import HTTPError

from skyset.errors import SkysetError
from skyset.errors import UserError
from skyset.fetch import LONGEST_WAIT
from skyset.fetch import PASSING
from skyset.fetch import innermost
from skyset.hips import LARGEST_IMAGE
from skyset.http import Client
from skyset.http import retry_after
from skyset.http import watch
from skyset.messages import plain
from skyset.secrets import without_login

KINDS = {"jpg": "JPEG", "png": "PNG", "fits": "FITS"}
MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"SIMPLE  =": "FITS",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"RIFF": "WebP",
    b"\x1f\x8b": "gzip",
}
BLANK_RANGE = 1  # levels of 255 between the darkest and the brightest pixel of an image without content
FITS_END = b"END".ljust(80)
LONGEST_HEADER = 100 * 2880  # bytes
BITPIX = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}

NOT_THERE = (404, 410)
SAME_REFUSAL = 3  # times until an answer that is not the image counts as the service's last word
DEAD_AFTER = 5  # failures in a row after which a host is left alone
SHORTEST_REST, LONGEST_REST = 30.0, 600.0  # seconds for which it is left alone; doubled each time
LONGEST_BACKOFF = 60.0  # seconds


# --- what an image is ---------------------------------------------------------------------------------------


class ImageError(SkysetError):
    """An answer is not the image asked for: `reason` in one line; `passing` if asking again may help."""

    def __init__(self, reason: str, passing: bool) -> None:
        reason = plain(reason)
        super().__init__(reason, passing)
        self.reason = reason
        self.passing = passing

    def __str__(self) -> str:
        return self.reason


def decode(data: bytes, kind: str) -> np.ndarray:
    """The pixels of an image. Row 0 is the northern edge, whatever the kind (FITS files begin in the south).

    Args:
        data: the file.
        kind: ``jpg``, ``png`` or ``fits``; anything else in `data` is refused.

    Returns:
        jpg, png: (height, width, 3) uint8; grey levels and palettes become RGB, 16 bits 8, transparent parts black,
        as JPEGs of the same service show them. fits: native float32, (height, width) or (height, width, 3) of a cube
        of three planes; BSCALE and BZERO are applied, BLANK is NaN.

    Raises:
        ImageError: it is no such image, or damaged.
    """
    _check_kind(data, kind)
    if kind == "fits":
        return _fits_pixels(data)
    return np.array(_rgb(_opened(data, kind)))


def check_image(data: bytes, kind: str, width: int, height: int) -> None:
    """Refuse what is not an image of this kind and size with something on it.

    Blank, as services answer outside of a survey's footprint, is an image whose channels each hold one level (a
    difference of `BLANK_RANGE` in 255 is allowed for), or FITS pixels that are all NaN or all the same number.
    Noise of empty sky is more than that.

    Raises:
        ImageError: ``passing`` is False for blank, oversized and wrongly sized images.
    """
    _check_kind(data, kind)
    if kind == "fits":
        pixels = _fits_pixels(data)
        _check_size(pixels.shape[1], pixels.shape[0], width, height)
        finite = pixels[np.isfinite(pixels)]
        blank = finite.size == 0 or finite.min() == finite.max()
    else:
        image = _opened(data, kind)
        _check_size(*image.size, width, height)
        blank = all(high - low <= BLANK_RANGE for low, high in _rgb(image).getextrema())
    if blank:
        raise ImageError("the image is blank", passing=False)


def _check_kind(data: bytes, kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"no such kind of image: {kind!r} (known: {', '.join(KINDS)})")
    found = next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)
    if found == KINDS[kind]:
        return
    what = f"{found}, not {KINDS[kind]}" if found else _not_an_image(data)
    raise ImageError(f"the answer is {what}", passing=True)


def _not_an_image(data: bytes) -> str:
    text = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text:
        return "empty"
    if text.lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if text.startswith((b"{", b"[")):
        return f"JSON: {_message(data)}"
    return "an XML document" if text.startswith(b"<?xml") else f"no image: {bytes(data[:16])!r}"


def _message(data: bytes) -> str:
    """What a service says in a JSON answer: hips2fits has title and description."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, dict):
        texts = [str(values[name]) for name in ("title", "description", "message", "error") if values.get(name)]
        text = ": ".join(texts) or json.dumps(values)
    else:
        text = data[:200].decode("utf-8", errors="replace")
    return " ".join(text.split())[:200]


def _check_size(width: int, height: int, wanted_width: int, wanted_height: int) -> None:
    if (width, height) != (wanted_width, wanted_height):
        raise ImageError(f"the image has {width} x {height} pixels, not {wanted_width} x {wanted_height}", passing=False)


def _opened(data: bytes, kind: str):
    """The Pillow image, its pixels not decoded yet; the end of the file must be there."""
    from PIL import Image

    end = b"\xff\xd9" if kind == "jpg" else b"IEND\xaeB`\x82"
    if not data.rstrip(b"\0\r\n ").endswith(end):
        raise ImageError(f"truncated {KINDS[kind]}", passing=True)
    try:
        image = Image.open(io.BytesIO(data), formats=(KINDS[kind],))
    except Image.DecompressionBombError:
        raise ImageError(f"an image of more than {LARGEST_IMAGE:,} pixels", passing=False) from None
    except Exception as error:  # Pillow's parsers raise whatever the bytes lead them to
        raise _damaged(kind, error) from error
    if math.prod(image.size) > LARGEST_IMAGE:
        raise ImageError(f"an image of more than {LARGEST_IMAGE:,} pixels", passing=False)
    return image


def _rgb(image):
    """Decoded, as RGB."""
    from PIL import Image

    kind = "jpg" if image.format == "JPEG" else "png"
    try:
        if image.mode.startswith("I"):
            levels = np.asarray(image).astype(np.uint16) >> 8
            return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # as above
        raise _damaged(kind, error) from error


def _damaged(kind: str, error: Exception) -> ImageError:
    return ImageError(f"damaged {KINDS[kind]}: {str(error) or type(error).__name__}"[:200], passing=True)


def _fits_pixels(data: bytes) -> np.ndarray:
    """Pixels of the primary HDU. Read here, because astropy repairs what should be refused."""
    from astropy.io import fits

    end = next((at + 80 for at in range(0, min(len(data), LONGEST_HEADER), 80) if data[at : at + 80] == FITS_END), 0)
    if not end or not data[:end].isascii():
        raise ImageError("damaged FITS: the header has no end or is no text", passing=True)
    start = -(-end // 2880) * 2880
    try:
        header = fits.Header.fromstring(data[:end])
        shape = tuple(int(header[f"NAXIS{axis}"]) for axis in range(int(header["NAXIS"]), 0, -1))
        dtype = np.dtype(BITPIX[header["BITPIX"]])
        scale, zero, blank = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0)), header.get("BLANK")
    except Exception as error:  # astropy raises a dozen kinds for damaged headers
        raise _damaged("fits", error) from error
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 3) or min(shape) < 1:
        raise ImageError(f"FITS with axes {shape}, not an image or three", passing=False)
    if math.prod(shape) > LARGEST_IMAGE:
        raise ImageError(f"an image of more than {LARGEST_IMAGE:,} pixels", passing=False)
    if len(data) < start + math.prod(shape) * dtype.itemsize:
        raise ImageError("truncated FITS", passing=True)
    stored = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = (stored * scale + zero if (scale, zero) != (1, 0) else stored).astype(np.float32)
    if blank is not None and dtype.kind != "f":
        pixels[stored == blank] = np.nan
    if pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    return np.ascontiguousarray(pixels[::-1])


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
        rate: requests a second over all threads; None: no limit.
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

    def run(self, requests: Iterable[ImageRequest]) -> Iterator[ImageAnswer]:
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


class Schedule:
    """When requests may start: at most `rate` a second, and none before a hold is over. Times are of `clock`."""

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._clock = clock
        self._next = self._hold = -math.inf
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """The moment from which on the caller's request may start; nobody else gets it."""
        with self._lock:
            start = max(self._clock(), self._next, self._hold)
            self._next = start + self._interval
            return start

    def hold(self, seconds: float) -> None:
        """No starts for so long; moments already reserved within it are void."""
        with self._lock:
            self._hold = max(self._hold, self._clock() + min(seconds, LONGEST_WAIT))

    def wait(self, closing: threading.Event) -> bool:
        """Sleep until the caller may start; False if `closing` came first."""
        start = self.reserve()
        while (left := start - self._clock()) > 0:
            if closing.wait(left):
                return False
            if start < self._hold:
                start = self.reserve()
        return not closing.is_set()


@dataclass
class _Host:
    failures: int = 0  # in a row
    rests: int = 0
    resting_until: float = -math.inf


class Hosts:
    """Which hosts answer; times are of `clock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def choose(self, urls: list[str]) -> str:
        """The first of `urls` whose host is not at rest; the first of all if no host is awake."""
        now = self._clock()
        with self._lock:
            for url in urls:
                host = self._of(url)
                if now >= host.resting_until:
                    if host.failures >= DEAD_AFTER:
                        self._rest(host)  # this request finds out; the others stay away until it knows
                    return url
        return urls[0]

    def awake(self, url: str) -> bool:
        """Whether the host of `url` may be asked."""
        with self._lock:
            return self._clock() >= self._of(url).resting_until

    def failed(self, url: str) -> None:
        """A request got no answer, or 5xx."""
        with self._lock:
            host = self._of(url)
            host.failures += 1
            if host.failures == DEAD_AFTER:
                self._rest(host)

    def answered(self, url: str) -> None:
        """A request got a proper answer."""
        with self._lock:
            host = self._of(url)
            if host.failures:
                self._hosts[_host(url)] = _Host()

    def rest(self, url: str, seconds: float) -> None:
        """The host asked to be left alone."""
        with self._lock:
            host = self._of(url)
            host.resting_until = max(host.resting_until, self._clock() + min(seconds, LONGEST_WAIT))

    def _of(self, url: str) -> _Host:
        return self._hosts.setdefault(_host(url), _Host())

    def _rest(self, host: _Host) -> None:
        host.resting_until = self._clock() + min(SHORTEST_REST * 2**host.rests, LONGEST_REST)
        host.rests = min(host.rests + 1, 10)


def _host(url: str) -> str:
    return url.split("/", 3)[2] if "://" in url else ""


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

    def answers(self, requests: Iterator[ImageRequest]) -> Iterator[ImageAnswer]:
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
                raise against
            waiting -= 1
            failed = failed + 1 if against else 0
            yield answer
            if self.pool.give_up and failed >= self.pool.give_up:
                raise UserError(
                    f"{failed} images in a row could not be had from {_host(answer.url)} (the last one: {answer.reason}); "
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
        if job.status != 200:
            words = f"{job.status} {PHRASES.get(job.status, '')}".strip()
            if body[:1] == b"{":
                words += f": {_message(body)}"
            raise ImageError(words, passing=job.status in PASSING or job.status >= 500)
        if len(body) > self.pool.max_bytes:
            raise ImageError(f"more than the {self.pool.max_bytes:,} bytes allowed", passing=False)
        if self.pool.check is not None:
            self.pool.check(body)

    def _again_or_never(self, job: _Job, retry_after: float | None) -> None:
        pool = self.pool
        if not job.passing:
            job.denied.add(job.url)
        others = job.candidates()
        elsewhere = any(_host(url) != _host(job.url) and pool.hosts.awake(url) for url in others)
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
        rounds = min((job.tries - 1) // addresses, 30)
        return min(self.pool.backoff * 2**rounds, LONGEST_BACKOFF) * random.uniform(0.5, 1.5)


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
