"""The archive of Hyper Suprime-Cam to test with: catalogue jobs, cutouts and PSFs of a simulated sky, with faults on demand.

::

    with HscArchive(BlobSky(20), login=("somebody", "secret")) as server:
        server.fault("cut", "HSC-I", times=1)
        ...  # server.url takes the place of https://hsc-release.mtk.nao.ac.jp

==================  ========================================================================================
fault               what the client sees
==================  ========================================================================================
``500``, ``503``..  that status (any 4xx and 5xx), with Retry-After where `fault` is given `retry_after`
``cut``             the connection closed in the middle of the TAR
``short``           the TAR ends between two members, without its end mark, and the connection as it should
``hang``            half of the TAR, then silence
``mute``            no answer at all
``html``            200 with an HTML error page
``empty``           200 with a TAR that holds nothing
``foreign``         a member more, which no line asked for
``others``          nothing but such members
``line``            the first line that matches is refused by its number
``refused``         the list is refused, and nobody says why
``swapped``         the FITS is of another band than its name
``nan``, ``zero``   images without content
``truncated``       the FITS ends in the middle
``missing``         no data there
``tract``           cut out of the tract beside
==================  ========================================================================================
"""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import re
import select
import tarfile
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from skyset.archives.hsc_skymap import tract_at
from skyset.testing.das_lists import DEFAULTS, Line, Refusal, read_line, read_list
from skyset.testing.hsc_jobs import Jobs
from skyset.testing.hsc_sky import BANDS, Sky, cutout_fits, psf_fits, window
from skyset.testing.loopback import Loopback

CUTOUT, PSF, JOBS = "/das_cutout/pdr2/cgi-bin/cutout", "/psf/pdr2/cgi/getpsf", "/datasearch/api/catalog_jobs/"
REQUEST_FAULTS = ("cut", "short", "hang", "mute", "html", "empty", "foreign", "others", "line", "refused")
IMAGE_FAULTS = ("swapped", "nan", "zero", "truncated", "missing", "tract")
ERROR_PAGE = b"<!DOCTYPE html>\n<html><body><h1>The archive is down for maintenance</h1></body></html>\n"
RECORD = tarfile.RECORDSIZE
LARGEST_BODY = 64 << 20


@dataclass
class Fault:
    """For the next `times` requests or images (None: always) of which `match` is part of the line or address."""

    kind: str
    match: str
    times: int | None
    retry_after: int | None


class Request(NamedTuple):
    """One request as the server saw it; ``list`` is the list that was uploaded."""

    method: str
    path: str
    status: int
    list: str = ""


class HscArchive(Loopback):
    """All services on 127.0.0.1 while the ``with`` block runs.

    Args:
        sky: what they show.
        login: user and password that cutouts and PSFs want; None lets everybody in.
        jobs: the API of catalogue jobs; None: over the sky's catalogue, for the same login.
        streams: requests for cutouts, and for PSFs, that are answered at a time; more get 503.
        limit: images of a request.
        latency: seconds that every request waits.
        pause: seconds before every member of a TAR; both may be changed.

    Attributes:
        url: of the host, without a slash at its end.
        requests: every request so far.
        lists: how often each list was asked and answered to its end, by `digest`.
        images: members sent so far.
        max_streams: most requests for cutouts or PSFs that were being answered at a time.
    """

    def __init__(
        self,
        sky: Sky,
        login: tuple[str, str] | None = ("user", "pass"),
        jobs: Jobs | None = None,
        streams: int = 2,
        limit: int = 1000,
        latency: float = 0.0,
        pause: float = 0.0,
        port: int = 0,
    ) -> None:
        self.sky, self.login = sky, login
        self.jobs = jobs or (Jobs(sky, login) if login else Jobs(sky))
        self.streams, self.limit = streams, limit
        self.latency, self.pause = latency, pause
        self.requests: list[Request] = []
        self.lists: Counter[str] = Counter()
        self.images = self.max_streams = 0
        self._running: Counter[str] = Counter()
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        super().__init__(type("Handler", (_Handler,), {"archive": self}), port)
        self.url = self.host

    def fault(self, kind: str, match: str = "", times: int | None = None, retry_after: int | None = None) -> None:
        """Give requests, or images, of which a line or the address contains `match` a fault, the next `times` or all.

        Raises:
            ValueError: no such kind.
        """
        if kind not in REQUEST_FAULTS + IMAGE_FAULTS and not re.fullmatch(r"[45]\d\d", kind):
            raise ValueError(f"unknown fault {kind!r}")
        with self._lock:
            self._faults.append(Fault(kind, match, times, retry_after))

    def clear(self) -> None:
        """Forget faults, requests and counts."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()
            self.lists.clear()
            self.images = self.max_streams = 0

    def next_fault(self, text: str, images: bool) -> Fault | None:
        """The fault for this request or image, counted as used."""
        with self._lock:
            for fault in self._faults:
                if (fault.kind in IMAGE_FAULTS) == images and fault.times != 0 and fault.match in text:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def enter(self, service: str) -> bool:
        """Whether one request more may be answered; `leave` ends it."""
        with self._lock:
            self._running[service] += 1
            self.max_streams = max(self.max_streams, self._running[service])
            return self._running[service] <= self.streams

    def leave(self, service: str) -> None:
        with self._lock:
            self._running[service] -= 1

    def count(self, text: str) -> None:
        """A list was answered to its end."""
        with self._lock:
            self.lists[digest(text)] += 1

    def sent(self) -> None:
        """An image was sent."""
        with self._lock:
            self.images += 1

    # what is sent

    def members(self, lines: Iterable[Line], service: str, folder: str) -> Iterator[tuple[str, bytes]]:
        """Names and contents of a TAR's members: of lines without data there are none."""
        for line in lines:
            self.closing.wait(self.pause)
            if (content := self.content(line, service)) is not None:
                yield folder + name_of(line, service, line.tract or tract_at(line.ra, line.dec)), content

    def content(self, line: Line, service: str) -> bytes | None:
        """The FITS file of a line; None: no data there."""
        fault = self.next_fault(line.text, images=True)
        kind = fault.kind if fault else ""
        if kind == "missing":
            return None
        if service == "psf":
            psf = self.sky.psf(line.band, line.ra, line.dec)
            return None if psf is None else psf_fits(psf, line.ra, line.dec, line.tract or tract_at(line.ra, line.dec))
        tract = line.tract
        if kind == "tract":
            other = -1 if tract_at(line.ra + 0.8, line.dec) == tract_at(line.ra, line.dec) else 1
            tract = tract_at(line.ra + 0.8 * other, line.dec)
            if tract == tract_at(line.ra, line.dec):
                tract = tract_at(line.ra, line.dec + 1.6)
        where = window(line.ra, line.dec, line.sw, line.sh, tract)
        rendered = self.sky.render(line.band, where.wcs, where.shape)
        if rendered is None:
            return None
        if kind in ("nan", "zero"):
            rendered = np.full_like(rendered[0], np.nan if kind == "nan" else 0), *rendered[1:]
        band = BANDS[(BANDS.index(line.band) + 1) % 5] if kind == "swapped" else line.band
        data = cutout_fits(band, where, rendered, line.planes)
        return data[: len(data) // 2] if kind == "truncated" else data


def digest(text: str) -> str:
    """Of a list, for `HscArchive.lists`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def name_of(line: Line, service: str, tract: int) -> str:
    """The name of a line's member; its folder comes before it."""
    long = f"HSC-{line.band.upper()}"
    if service == "psf":
        column, row = window(line.ra, line.dec, 0, 0, tract).patch
        return f"{line.number}-psf-calexp-{line.rerun}-{long}-{tract}-{column},{row}-{line.ra:.5f}-{line.dec:.5f}.fits"
    kind = {"coadd": "cutout", "coadd/bg": "coadd+bg"}[line.type]
    return f"{line.number}-{kind}-{long}-{tract}-{line.rerun}.fits"


def packed(name: str, content: bytes) -> bytes:
    """A member of a TAR."""
    header = tarfile.TarInfo(name)
    header.size, header.mtime = len(content), 1_600_000_000
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


# --- the server ---------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    archive: HscArchive
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, *args) -> None:
        """`HscArchive.requests` is the log."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"] or 0)
        if length > LARGEST_BODY:
            self._say(413, "too large")
            self.close_connection = True
            return
        self._answer(self.rfile.read(length))

    def _answer(self, body: bytes) -> None:
        archive, parts = self.archive, urlsplit(self.path)
        archive.closing.wait(archive.latency)
        if parts.path.startswith(JOBS) and self.command == "POST":
            status, headers, answer = archive.jobs.answer(parts.path.removeprefix(JOBS).strip("/"), body)
            self._send(status, answer, headers)
            return
        service = {CUTOUT: "cutout", PSF: "psf"}.get(parts.path)
        if service is None:
            self._say(404, "no such service")
        elif not self._is_welcome():
            self._say(401, "Authorization Required", {"WWW-Authenticate": 'Basic realm="HSC-SSP"'})
        else:
            try:
                if not archive.enter(service):
                    self._say(503, "too many requests at a time")
                    return
                self._serve(service, dict(parse_qsl(parts.query)), body)
            except Refusal as refusal:
                self._say(refusal.status, refusal.words)
            finally:
                archive.leave(service)

    def _is_welcome(self) -> bool:
        login = self.archive.login
        wanted = b64encode(":".join(login or ()).encode()).decode()
        return login is None or self.headers["Authorization"] == f"Basic {wanted}"

    def _serve(self, service: str, query: dict[str, str], body: bytes) -> None:
        text = _uploaded(self.headers["Content-Type"] or "", body) if self.command == "POST" else ""
        fault = self.archive.next_fault(f"{self.path}\n{text}", images=False)
        kind = fault.kind if fault else ""
        if fault and kind.isdigit():
            more = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            self._say(int(kind), HTTPStatus(int(kind)).phrase, more, text)
        elif kind == "mute":
            self._wait()
        elif kind == "html":
            self._send(200, ERROR_PAGE, {"Content-Type": "text/html"}, text)
        elif kind == "refused":
            raise Refusal(400, "Bad request")
        elif self.command == "GET":
            self._serve_one(service, query)
        else:
            lines = read_list(text, query, service)
            images = sum(max(1, len(line.planes)) for line in lines)
            if images > self.archive.limit:
                raise Refusal(400, f"too many images: {images}, and a request may ask for {self.archive.limit}")
            if kind == "line" and fault:
                number = next(line.number for line in lines if fault.match in line.text)
                raise Refusal(400, f"line {number}: the position cannot be used")
            self._stream(service, [] if kind == "empty" else lines, text, kind)

    def _serve_one(self, service: str, query: dict[str, str]) -> None:
        values = {**DEFAULTS[service], **query}
        if service == "cutout" and "image" not in query:
            values["image"] = "true" if not {"mask", "variance"} & set(query) else "false"
        content = self.archive.content(read_line(0, self.path, values), service)
        if content is None:
            raise Refusal(404, "Rectangle not found in observed area")
        self.archive.sent()
        self._send(200, content, {"Content-Type": "image/fits"})

    def _stream(self, service: str, lines: list[Line], text: str, kind: str) -> None:
        """A TAR in chunks, as it is made."""
        moment = datetime.now(UTC).strftime("arch-%y%m%d-%H%M%S")
        self.archive.requests.append(Request(self.command, self.path, 200, text))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-tar")
        self.send_header("Content-Disposition", f'attachment; filename="{moment}.tar"')
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent, half = 0, len(lines) // 2
        folder = "" if service == "psf" else f"{moment}/"
        for number, (name, content) in enumerate(self.archive.members(lines, service, folder)):
            if kind in ("cut", "hang", "short") and number == half:
                if kind != "short":
                    self._chunk(packed(name, content)[: len(content) // 2])
                    self.close_connection = True
                    if kind == "hang":
                        self._wait()
                    return
                break
            if kind == "foreign" and number == half:
                sent += self._chunk(packed(f"{folder}somebody-elses.fits", content))
            sent += self._chunk(packed(f"{folder}somebody-elses-{number}.fits" if kind == "others" else name, content))
            self.archive.sent()
        if kind != "short":
            self._chunk(bytes(-(-(sent + 1024) // RECORD) * RECORD - sent))
            self.archive.count(text)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> int:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        return len(data)

    def _say(self, status: int, words: str, headers: dict[str, str] | None = None, text: str = "") -> None:
        page = f"<html><body><h1>{status} {HTTPStatus(status).phrase}</h1><p>{words}</p></body></html>\n"
        plain = status in (400, 404)
        body = f"{words}\n".encode() if plain else page.encode()
        kind = "text/plain" if plain else "text/html"
        self._send(status, body, {"Content-Type": kind, **(headers or {})}, text)

    def _send(self, status: int, body: bytes, headers: dict[str, str], text: str = "") -> None:
        self.archive.requests.append(Request(self.command, self.path, status, text))
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.close_connection |= int(headers["Content-Length"]) > len(body)  # as a cut job promises
        self.end_headers()
        self.wfile.write(body)

    def _wait(self) -> None:
        """Silence, until the client hangs up or the server closes."""
        self.wfile.flush()
        self.close_connection = True
        while not self.archive.closing.is_set():
            if select.select([self.connection], [], [], 0.1)[0]:
                return


def _uploaded(kind: str, body: bytes) -> str:
    """The list in a multipart form.

    Raises:
        Refusal: there is none.
    """
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    for part in message.iter_parts() if message.is_multipart() else ():
        if part.get_param("name", header="content-disposition") == "list" and part.get_filename():
            return bytes(part.get_payload(decode=True)).decode("utf-8", "replace")
    raise Refusal(400, "no file 'list' was uploaded")
