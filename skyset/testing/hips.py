"""A hips2fits to test with: draws a galaxy for every position, with faults on demand.

::

    with HipsServer(latency=0.03) as server:
        server.hips.fault("bmp", times=2)
        requests.get(hips2fits_url(server.url, HIPS, ra=150, dec=2, fov=0.01))

`Hips.answer` is the service without a server, to be mounted beside others.

=====================  ======================================================================================
fault                  what the client sees
=====================  ======================================================================================
``404``, ``500``, ...  that status
``429``, ``503``       with Retry-After where `fault` is given `retry_after`
``cut``                the right Content-Length, and the connection closed in the middle of the body
``truncated``          half of the body under a Content-Length of its own
``html``, ``json``     200 with an HTML error page, or with an error in JSON
``empty``              200 without a body
``bmp``, ``png``       200 with an image of that kind, called image/jpeg
``blank``              200 with a black image, as outside of the footprint
``size``               200 with an image twice as wide
``drip``               the body at ten bytes per second
``slow-head``          the headers at ten bytes per second
``hang``               half of the body, then silence
``mute``               no answer at all
=====================  ======================================================================================

``python -m skyset.testing.hips --light`` serves images drawn beforehand from one asyncio process, for benchmarks.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import io
import json
import random
import re
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from skyset.testing.loopback import Loopback
from skyset.testing.stamps import stamp

HIPS = "CDS/P/SDSS9/color"
PATH = "/hips2fits"
BODY_FAULTS = ("truncated", "html", "json", "empty", "bmp", "png", "blank", "size")
WIRE_FAULTS = ("cut", "drip", "slow-head", "hang", "mute")
REQUIRED = ("hips", "width", "height", "fov", "ra", "dec", "projection")
TYPES = {"jpg": "image/jpeg", "png": "image/png", "fits": "application/fits"}
ERROR_PAGE = b"<!DOCTYPE html>\n<html><body><h1>The service is down for maintenance</h1></body></html>\n"


class Answer(NamedTuple):
    """An HTTP answer; `wire` is the fault that its way to the client has."""

    status: int
    headers: dict[str, str]
    body: bytes
    wire: str | None = None


@dataclass
class Fault:
    """For the next `times` requests (None: always) whose query contains `match`."""

    kind: str
    match: str
    times: int | None
    retry_after: int | datetime | None


class Hips:
    """The service, thread-safe.

    Args:
        south: declination in degrees below which nothing was observed: images are black (FITS: NaN), status 200.
        folder: JPEGs to show instead of drawn galaxies, one by position.
        known: the HiPS that exist.

    Attributes:
        requests: query of every request so far.
    """

    def __init__(self, south: float = -25, folder: Path | None = None, known: Iterable[str] = (HIPS,)) -> None:
        self.south = south
        self.known = set(known)
        self.pictures = [Image.open(path).convert("RGB") for path in sorted(folder.rglob("*.jp*g"))] if folder else []
        self.requests: list[str] = []
        self._faults: list[Fault] = []
        self._chaos: tuple[int, float, tuple[str, ...]] | None = None
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def fault(self, kind: str, match: str = "", times: int | None = None, retry_after: int | datetime | None = None) -> None:
        """Give the next `times` requests whose query contains `match` a fault; ValueError if there is no such kind."""
        with self._lock:
            self._faults.append(Fault(_known(kind), match, times, retry_after))

    def chaos(self, seed: int, rate: float, kinds: Iterable[str]) -> None:
        """From now on a share `rate` of requests has a fault out of `kinds`, by seed, query and number of the request."""
        with self._lock:
            self._chaos = (seed, rate, tuple(map(_known, kinds)))

    def clear(self) -> None:
        """Forget faults and requests."""
        with self._lock:
            self._faults.clear()
            self._chaos = None
            self.requests.clear()

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Answer:
        """The answer to a request for `path` with the (still encoded) `query`."""
        fault = self._next_fault(query)
        if fault and fault.kind.isdigit():
            return _status(int(fault.kind), fault.retry_after)
        if not path.endswith(PATH):
            return _status(404)
        if method not in ("GET", "HEAD"):
            return _status(405)
        answer = self._image(query, fault.kind if fault else "")
        return answer._replace(wire=fault.kind) if fault and fault.kind in WIRE_FAULTS else answer

    def _image(self, query: str, fault: str) -> Answer:
        values = {name: texts[0] for name, texts in parse_qs(query).items()}
        if missing := [name for name in REQUIRED if name not in values]:
            return _error(400, "Bad request", f"missing parameter: {', '.join(missing)}")
        if values["hips"] not in self.known:
            return _error(404, "HiPS not found", f"no HiPS is known as {values['hips']}")
        kind = values.get("format", "fits")
        try:
            width, height = int(values["width"]), int(values["height"])
            ra, dec, fov = (float(values[name]) for name in ("ra", "dec", "fov"))
        except ValueError as error:
            return _error(400, "Bad request", str(error))
        if kind not in TYPES or not (0 < width * height <= 50_000_000 and -90 <= dec <= 90 and fov > 0):
            return _error(400, "Bad request", "a parameter is out of range")
        return self._spoilt(kind, width, height, (ra, dec, fov), fault)

    def _spoilt(self, kind: str, width: int, height: int, where: tuple[float, float, float], fault: str) -> Answer:
        headers = {"Content-Type": TYPES[kind]}
        match fault:
            case "html":
                return Answer(200, {"Content-Type": "text/html"}, ERROR_PAGE)
            case "json":
                return _error(200, "Internal error", "the tiles could not be read")
            case "empty":
                return Answer(200, headers, b"")
            case "size":
                width *= 2
        pixels = None if fault == "blank" or where[1] < self.south else self._pixels(width, height, where)
        body = encode(pixels, fault if fault in ("bmp", "png") else kind, width, height)
        return Answer(200, headers, body[: len(body) // 2] if fault == "truncated" else body)

    def _pixels(self, width: int, height: int, where: tuple[float, float, float]) -> np.ndarray:
        if not self.pictures:
            return draw(*where, width, height)
        number = int.from_bytes(hashlib.sha256(repr(where[:2]).encode()).digest()[:4], "big")
        return np.asarray(self.pictures[number % len(self.pictures)].resize((width, height)))

    def _next_fault(self, query: str) -> Fault | None:
        with self._lock:
            self.requests.append(query)
            self._seen[query] += 1
            for fault in self._faults:
                if fault.times != 0 and fault.match in query:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
            if self._chaos:
                seed, rate, kinds = self._chaos
                dice = random.Random(f"{seed} {query} {self._seen[query]}")
                if dice.random() < rate:
                    return Fault(dice.choice(kinds), "", None, 0)
        return None


def _known(kind: str) -> str:
    if kind not in BODY_FAULTS + WIRE_FAULTS and not re.fullmatch(r"[45]\d\d", kind):
        raise ValueError(f"unknown fault {kind!r}")
    return kind


def _error(status: int, title: str, description: str) -> Answer:
    body = json.dumps({"title": title, "description": description}).encode()
    return Answer(status, {"Content-Type": "application/json"}, body)


def _status(status: int, retry_after: int | datetime | None = None) -> Answer:
    headers = {"Content-Type": "text/html"}
    if isinstance(retry_after, datetime):
        headers["Retry-After"] = format_datetime(retry_after.astimezone(UTC), usegmt=True)
    elif retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Answer(status, headers, f"<html><body><h1>{status} {HTTPStatus(status).phrase}</h1></body></html>".encode())


# --- galaxies -----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _grid(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets from the centre in units of the longer side, north up and east left."""
    side = max(width, height)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return ((width - 1) / 2 - x) / side, ((height - 1) / 2 - y) / side


class Shape(NamedTuple):
    """What a galaxy looks like: `angle` in radians, `flat` its axis ratio, `radius` in arcsec."""

    spiral: bool
    angle: float
    flat: float
    radius: float


def _dice(ra: float, dec: float) -> np.random.Generator:
    """Random numbers that belong to a position."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{ra!r} {dec!r}".encode()).digest()[:8], "big"))


def shape_at(ra: float, dec: float) -> Shape:
    """The galaxy at a position, always the same one: six in ten are spirals."""
    dice = _dice(ra, dec)
    spiral = bool(dice.random() < 0.6)
    return Shape(spiral, dice.uniform(0, np.pi), dice.uniform(0.35 if spiral else 0.6, 1), dice.uniform(2.5, 12.5))


def draw(ra: float, dec: float, fov: float, width: int, height: int) -> np.ndarray:
    """The galaxy of `shape_at`: (height, width, 3) uint8, row 0 in the north; a wider field shows it smaller.

    Spirals are blue discs with two arms around a yellow bulge, ellipticals smooth and red.
    """
    shape, (east, north) = shape_at(ra, dec), _grid(width, height)
    scale = max(shape.radius / (fov * 3600), 0.02)
    u = (east * np.sin(shape.angle) + north * np.cos(shape.angle)) / scale
    v = (east * np.cos(shape.angle) - north * np.sin(shape.angle)) / (scale * shape.flat)
    r = np.hypot(u, v)[..., None]
    if shape.spiral:
        arms = (0.5 + 0.5 * np.cos(2 * np.arctan2(v, u) - 5 * np.log1p(2 * r[..., 0])))[..., None] ** 2
        light = 1.5 * np.exp(-6 * r) * np.array([1.0, 0.8, 0.5], np.float32)  # the bulge
        light = light + (0.15 + 1.6 * arms * (1 - np.exp(-4 * r))) * np.exp(-1.3 * r) * np.array([0.5, 0.7, 1.0], np.float32)
    else:
        light = 3.5 * np.exp(-3 * np.sqrt(r)) * np.array([1.0, 0.72, 0.42], np.float32)
    light = 2 * light / (1 + 2 * light.max(axis=-1, keepdims=True))  # no colour is lost where it is bright
    noise = _dice(ra, dec).normal(0.04, 0.012, light.shape)
    pixels = (255 * np.clip(1.1 * light + noise, 0, 1)).astype(np.uint8)
    return stamp(pixels) if min(width, height) >= 48 else pixels  # where the word has room


def encode(pixels: np.ndarray | None, kind: str, width: int, height: int) -> bytes:
    """Pixels as jpg, png, bmp or fits (three planes of float32, south first); None is an image without content."""
    if kind == "fits":
        from astropy.io import fits

        planes = np.full((3, height, width), np.nan, ">f4")
        if pixels is not None:
            planes[:] = np.moveaxis(pixels[::-1], -1, 0)
        file = io.BytesIO()
        fits.PrimaryHDU(planes).writeto(file)
        return file.getvalue()
    file = io.BytesIO()
    image = Image.new("RGB", (width, height)) if pixels is None else Image.fromarray(pixels)
    image.save(file, {"jpg": "JPEG"}.get(kind, kind.upper()), **({"quality": 85} if kind == "jpg" else {}))
    return file.getvalue()


# --- the server ---------------------------------------------------------------------------------------------


class HipsServer(Loopback):
    """`Hips` on 127.0.0.1 while the ``with`` block runs: HTTP/1.1, connections kept, a thread each.

    Attributes:
        hips: the service.
        url: its address.
        latency: seconds that every request waits; may be changed.
        max_concurrent: most requests that were answered at the same time.
        connections: connections accepted so far.
        ended: those of them that are over.
    """

    def __init__(self, hips: Hips | None = None, latency: float = 0.0, port: int = 0) -> None:
        self.hips = hips or Hips()
        self.latency = latency
        self.max_concurrent = self.connections = self.ended = 0
        self._running = 0
        self._lock = threading.Lock()
        super().__init__(type("Handler", (_Handler,), {"server_": self}), port)
        self.url = f"{self.host}{PATH}"

    @property
    def requests(self) -> list[str]:
        """Query of every request so far."""
        return self.hips.requests

    def count(self, more: int) -> None:
        """So many more requests are running."""
        with self._lock:
            self._running += more
            self.max_concurrent = max(self.max_concurrent, self._running)

    def connected(self) -> None:
        """Somebody came."""
        with self._lock:
            self.connections += 1

    def disconnected(self) -> None:
        """Somebody, of whom nothing more is to be answered, is gone."""
        with self._lock:
            self.ended += 1


class _Handler(BaseHTTPRequestHandler):
    server_: HipsServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet

    def setup(self) -> None:
        super().setup()
        self.server_.connected()

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.server_.disconnected()

    def do_GET(self) -> None:
        self.server_.count(1)
        try:
            self.server_.closing.wait(self.server_.latency)
            parts = urlsplit(self.path)
            answer = self.server_.hips.answer(self.command, parts.path, parts.query, cast(Mapping[str, str], self.headers))
        finally:
            self.server_.count(-1)
        send_answer(self, answer, self.server_.closing)

    do_HEAD = do_GET

    def log_message(self, *args) -> None:
        """`Hips.requests` is the log."""


def send_answer(handler: BaseHTTPRequestHandler, answer: Answer, closing: threading.Event) -> None:
    """Send an answer over a handler's connection, with the fault of its way; until `closing`, if that is for ever."""
    body = b"" if handler.command == "HEAD" else answer.body
    if answer.wire == "mute":
        handler.close_connection = True
        _wait(handler, closing, None)
        return
    handler.send_response(answer.status)
    for header, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
        handler.send_header(header, value)
    if answer.wire == "slow-head":
        handler.flush_headers()
        handler.close_connection = True
        while not _wait(handler, closing, 0.1):
            handler.wfile.write(b"X")
        return
    handler.end_headers()
    if answer.wire in ("cut", "hang"):
        body = body[: len(body) // 2]
        handler.close_connection = True
    if answer.wire == "drip":
        for position in range(len(body)):
            handler.wfile.write(body[position : position + 1])
            if _wait(handler, closing, 0.1):
                handler.close_connection = True
                return
    else:
        handler.wfile.write(body)
    if answer.wire == "hang":
        _wait(handler, closing, None)


def _wait(handler: BaseHTTPRequestHandler, closing: threading.Event, seconds: float | None) -> bool:
    """Wait, for ever if None; True as soon as the client hangs up or `closing` comes."""
    handler.wfile.flush()
    until = None if seconds is None else time.monotonic() + seconds
    while not closing.is_set() and (until is None or time.monotonic() < until):
        left = 0.1 if until is None else min(0.1, max(0, until - time.monotonic()))
        if select.select([handler.connection], [], [], left)[0]:
            return True
    return closing.is_set()


# --- a light server for benchmarks --------------------------------------------------------------------------


class _Light(asyncio.Protocol):
    """Answers every request with the next of some images, after the latency."""

    def __init__(self, bodies: list[bytes], latency: float) -> None:
        self.bodies, self.latency, self.number, self.buffer = bodies, latency, 0, b""

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            self.buffer = self.buffer[end + 4 :]
            self.number += 1
            body = self.bodies[self.number % len(self.bodies)]
            asyncio.get_running_loop().call_later(self.latency, self._send, body)

    def _send(self, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def light_bodies(count: int = 64, width: int = 64, height: int = 64) -> list[bytes]:
    """JPEGs for the light server."""
    positions = [(150 + number / 10, 2.0, 0.01) for number in range(count)]
    return [encode(draw(*where, width, height), "jpg", width, height) for where in positions]


async def serve_light(latency: float, port: int) -> None:
    """Serve until cancelled; prints the address."""
    bodies = light_bodies()
    server = await asyncio.get_running_loop().create_server(lambda: _Light(bodies, latency), "127.0.0.1", port, backlog=256)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{PATH}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--light", action="store_true", help="images drawn beforehand, no faults")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="JPEGs to show instead of drawn galaxies")
    arguments = parser.parse_args()
    if arguments.light:
        asyncio.run(serve_light(arguments.latency, arguments.port))
        return
    with HipsServer(Hips(folder=arguments.folder), arguments.latency, arguments.port) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
