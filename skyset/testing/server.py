"""A small archive server with faults on demand: one folder over HTTP/1.1, as Apache would show it.

::

    with ArchiveServer(folder) as server:
        server.fault("*.fits.gz", "cut", times=2)
        requests.get(server.url + "1-106630_127_14715787.fits.gz")

=================  ==========================================================================================
fault              what the client sees
=================  ==========================================================================================
``404``, ``500``   that status (any three-digit status works)
``429``            too many requests, with Retry-After where `fault` is given `retry_after`
``cut``            the right Content-Length, and the connection closed in the middle of the body
``truncated``      half of the body under a Content-Length of its own, as from a careless proxy
``wrong-checksum`` a body with one byte changed
``html``           200 with an HTML error page
``drip``           the body at ten bytes per second
``hang``           half of the body, then silence
``no-range``       200 with the whole body, whatever Range asks for
=================  ==========================================================================================
"""

import argparse
import dataclasses
import html
import math
import mimetypes
import random
import re
import select
import socket
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from fnmatch import fnmatch
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote, unquote, urlsplit

from skyset.testing.loopback import Loopback

KINDS = ("404", "500", "429", "cut", "truncated", "wrong-checksum", "html", "drip", "hang", "no-range")
ERROR_PAGE = b"<!DOCTYPE html>\n<html><body><h1>The archive is down for maintenance</h1></body></html>\n"
#: Bytes that are written at a time, and the seconds that the line makes up for where somebody was late.
_SENT, _BURST = 1 << 16, 0.01
TYPES = {".fits": "application/fits", ".sha1sum": "text/plain"}


class Request(NamedTuple):
    """One request as the server saw it; `range` is the Range header, None without one."""

    method: str
    path: str
    range: str | None
    status: int


@dataclass
class Fault:
    """A fault for files whose name matches `pattern`, for the next `times` requests (None: always)."""

    pattern: str
    kind: str
    times: int | None = None
    retry_after: int | datetime | None = None


@dataclass
class Answer:
    """What goes over the wire: `body` has all bytes, of which a fault may send `send` only (None: all)."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    send: int | None = None
    pause: float = 0.0  # seconds after every byte
    hang: bool = False  # silence after the last byte sent, instead of a closed connection


def known_kind(kind: str) -> str:
    """The kind itself; ValueError if there is no such fault."""
    if kind not in KINDS and not re.fullmatch(r"[45]\d\d", kind):
        raise ValueError(f"unknown fault {kind!r}; known: {', '.join(KINDS)} and other 4xx, 5xx")
    return kind


def fault_of(text: str, more: Iterable[str] = ()) -> tuple[str, str, int | None]:
    """``KIND:PATTERN[:TIMES]`` of a command line as (kind, pattern, times); a kind may be one of ``more``."""
    kind, _, rest = text.partition(":")
    pattern, _, times = rest.partition(":")
    if not pattern or (times and not times.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND:PATTERN[:TIMES]")
    try:
        return kind if kind in more else known_kind(kind), pattern, int(times) if times else None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class ArchiveServer(Loopback):
    """Serve `folder` on 127.0.0.1 while the ``with`` block runs; file names are read anew at every request.

    Attributes:
        url: address of the folder, ending in ``/``.
        requests: every `Request` so far, in order of the answers.
        max_concurrent: most requests that were being answered at the same time.
        body_bytes: bytes of bodies sent so far.
        latency: seconds every request waits before its answer; may be changed while the server runs.
        connecting: seconds that every new connection waits before its first request is read.
        connections: how many there were so far.
        rate: bytes a second of all bodies together; None sends them as fast as they are taken.
        login: ``"user:password"`` that every request needs (401 without it); None lets everybody in.
        redirects: addresses by the file names that are answered with 302.
        authorizations: the Authorization header of every request so far, None without one.
    """

    def __init__(self, folder: str | Path, latency: float = 0.0, port: int = 0) -> None:
        self.folder = Path(folder).resolve()
        self.latency = latency
        self.connecting = 0.0
        self.connections = 0
        self.rate: float | None = None
        self._free = 0.0
        self.requests: list[Request] = []
        self.max_concurrent = 0
        self.body_bytes = 0
        self.login: str | None = None
        self.redirects: dict[str, str] = {}
        self.authorizations: list[str | None] = []
        self._running = 0
        self._faults: list[Fault] = []
        self._chaos: tuple[int, float, tuple[str, ...]] | None = None
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        super().__init__(type("Handler", (Handler,), {"archive": self}), port)
        self.url = f"{self.host}/"

    def fault(self, pattern: str, kind: str, times: int | None = None, retry_after: int | datetime | None = None) -> None:
        """Answer the next `times` requests for names like `pattern` (fnmatch) with a fault of `kind`.

        Faults for the same name are used up in the order in which they were asked for. `retry_after` is a
        number of seconds or, for the other form of the header, an aware datetime.

        Raises:
            ValueError: no such kind.
        """
        with self._lock:
            self._faults.append(Fault(pattern, known_kind(kind), times, retry_after))

    def chaos(self, seed: int, rate: float, kinds: Iterable[str]) -> None:
        """From now on give a share `rate` of all file requests a fault out of `kinds`.

        Whether the n-th request for a name is hit depends on seed, name and n only, not on timing.
        """
        with self._lock:
            self._chaos = (seed, rate, tuple(kinds))

    def clear(self) -> None:
        """Forget all faults, and the requests so far."""
        with self._lock:
            self._faults.clear()
            self._chaos = None
            self.requests.clear()
            self.body_bytes = self.max_concurrent = self.connections = 0

    def next_fault(self, name: str) -> Fault | None:
        """The fault for this request of `name`, counted as used."""
        with self._lock:
            self._seen[name] += 1
            for fault in self._faults:
                if fault.times != 0 and fnmatch(name, fault.pattern):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
            if self._chaos and name:
                seed, rate, kinds = self._chaos
                dice = random.Random(f"{seed} {name} {self._seen[name]}")
                if dice.random() < rate:
                    return Fault(name, dice.choice(kinds))
            return None

    def record(self, request: Request) -> None:
        """Add to `requests`."""
        with self._lock:
            self.requests.append(request)

    def count_bytes(self, count: int) -> None:
        """Add to `body_bytes`."""
        with self._lock:
            self.body_bytes += count

    def connected(self) -> None:
        """A connection begins."""
        with self._lock:
            self.connections += 1
        self.closing.wait(self.connecting)

    def pace(self, count: int) -> None:
        """Wait until the line, which all connections share, has taken so many bytes."""
        if self.rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now - _BURST) + count / self.rate
            wait = self._free - now
        if wait > 0:
            self.closing.wait(wait)

    @contextmanager
    def counted(self) -> Iterator["_Ticket"]:
        """Count one request as running until the block ends or the ticket is handed back."""
        ticket = _Ticket(self)
        with self._lock:
            self._running += 1
            self.max_concurrent = max(self.max_concurrent, self._running)
        try:
            yield ticket
        finally:
            ticket.hand_back()

    def finished(self) -> None:
        """One request less is running."""
        with self._lock:
            self._running -= 1


class _Ticket:
    """One running request; handed back before its last byte, after which the client may start the next."""

    def __init__(self, archive: ArchiveServer) -> None:
        self._archive: ArchiveServer | None = archive

    def hand_back(self) -> None:
        if self._archive is not None:
            self._archive.finished()
            self._archive = None


class RawServer:
    """Answer every connection with what ``answer(connection)`` writes, byte for byte, while the ``with`` block runs.

    Attributes:
        url: an address on it.
        requests: the heads of all requests that were read by ``head``.
    """

    def __init__(self, answer: Callable[[socket.socket], object], backlog: int = 20) -> None:
        self.answer = answer
        self.requests: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/x"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info) -> None:
        with suppress(OSError):  # macOS: it is not connected
            self._listener.shutdown(socket.SHUT_RDWR)  # a thread that waits in accept() would take one more
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:  # the client has hung up
            self.requests.append(_head(connection))
            self.answer(connection)

    @classmethod
    def saying(cls, *answers: bytes | str) -> "RawServer":
        """One answer after the other, a connection each; the last for all further ones."""
        left = [answer.encode("latin-1") if isinstance(answer, str) else answer for answer in answers]
        return cls(lambda connection: connection.sendall(left.pop(0) if len(left) > 1 else left[0]))


def _head(connection: socket.socket) -> str:
    """The head of a request, whose body is read too: a connection that is closed before would be reset."""
    data = b""
    while b"\r\n\r\n" not in data and (more := connection.recv(1 << 16)):
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    left = (int(length[1]) if length else 0) - len(body)
    while left > 0 and (more := connection.recv(min(left, 1 << 16))):
        left -= len(more)
    return head.decode("latin-1")


class Handler(BaseHTTPRequestHandler):
    """Answers one connection after another request on it; `archive` is the server it works for."""

    archive: ArchiveServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and small bodies in one packet

    def setup(self) -> None:
        super().setup()
        self.archive.connected()

    def do_GET(self) -> None:
        with self.archive.counted() as ticket:
            self.archive.closing.wait(self.archive.latency)
            name = unquote(urlsplit(self.path).path).removeprefix("/")
            self.archive.authorizations.append(self.headers["Authorization"])
            if not self._is_welcome():
                self._send(status_of(401), ticket)
                return
            self._send(self._answer(name, self.archive.next_fault(name)), ticket)

    do_HEAD = do_GET

    def _is_welcome(self) -> bool:
        login = self.archive.login
        return login is None or self.headers["Authorization"] == f"Basic {b64encode(login.encode()).decode()}"

    def log_message(self, *args) -> None:
        """`ArchiveServer.requests` is the log."""

    def _answer(self, name: str, fault: Fault | None) -> Answer:
        if name in self.archive.redirects:
            return Answer(302, b"moved", {"Location": self.archive.redirects[name]})
        if fault and fault.kind.isdigit():
            return status_of(int(fault.kind), fault.retry_after)
        if fault and fault.kind == "html":
            return Answer(200, ERROR_PAGE, {"Content-Type": "text/html"})
        path = (self.archive.folder / name).resolve()
        if not path.is_relative_to(self.archive.folder):
            return status_of(404)
        if path.is_dir() and name[-1:] in ("", "/"):
            return _listing(path, name)
        if not path.is_file():
            return status_of(404)
        wanted = None if fault and fault.kind == "no-range" else self.headers["Range"]
        return spoil(_file(path, wanted, self.headers["If-Range"]), fault.kind if fault else None)

    def _send(self, answer: Answer, ticket: _Ticket) -> None:
        body = b"" if self.command == "HEAD" else answer.body
        send = len(body) if answer.send is None else min(answer.send, len(body))
        self.archive.record(Request(self.command, self.path, self.headers["Range"], answer.status))
        self.send_response(answer.status)
        for header, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.close_connection |= send < len(body)
        if answer.pause:
            self._drip(body[:send], answer.pause)
        else:
            self.archive.count_bytes(send)
            ticket.hand_back()
            for start in range(0, send, _SENT):
                self.archive.pace(min(_SENT, send - start))
                self.wfile.write(memoryview(body)[start : min(start + _SENT, send)])
        if answer.hang:
            self._wait(None)

    def _drip(self, body: bytes, pause: float) -> None:
        """Byte after byte, until the client hangs up or the server closes."""
        for start in range(len(body)):
            self.wfile.write(body[start : start + 1])
            self.archive.count_bytes(1)
            if self._wait(pause):
                self.close_connection = True
                return

    def _wait(self, seconds: float | None) -> bool:
        """Wait, for ever if None; True as soon as the client hangs up or the server closes."""
        self.wfile.flush()
        until = math.inf if seconds is None else time.monotonic() + seconds
        while not self.archive.closing.is_set() and (left := until - time.monotonic()) > 0:
            if select.select([self.connection], [], [], min(left, 0.1))[0]:
                return True
        return self.archive.closing.is_set()


def status_of(status: int, retry_after: int | datetime | None = None) -> Answer:
    """An error page, with Retry-After as seconds or as a date where given."""
    page = f"<html><body><h1>{status} {HTTPStatus(status).phrase}</h1></body></html>\n".encode()
    answer = Answer(status, page, {"Content-Type": "text/html"})
    if isinstance(retry_after, datetime):
        answer.headers["Retry-After"] = format_datetime(retry_after.astimezone(UTC), usegmt=True)
    elif retry_after is not None:
        answer.headers["Retry-After"] = str(retry_after)
    return answer


def _file(path: Path, wanted: str | None, condition: str | None) -> Answer:
    """The file, or the part of it that Range asks for if the If-Range condition holds."""
    stat = path.stat()
    changed = datetime.fromtimestamp(int(stat.st_mtime), UTC)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"',
        "Last-Modified": format_datetime(changed, usegmt=True),
        "Content-Type": _content_type(path.name),
    }
    same = condition in (None, headers["ETag"], headers["Last-Modified"])
    bounds = re.fullmatch(r"bytes=(\d+)-(\d*)|bytes=-(\d+)", wanted or "")
    if bounds is None or not same:
        return Answer(200, path.read_bytes(), headers)
    first, last, tail = bounds.groups()
    start = int(first) if first else max(stat.st_size - int(tail), 0)
    stop = min(int(last) + 1, stat.st_size) if last else stat.st_size
    if start >= stop:
        return Answer(416, b"", {"Content-Range": f"bytes */{stat.st_size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stat.st_size}"
    with open(path, "rb") as file:
        file.seek(start)
        return Answer(206, file.read(stop - start), headers)


def _content_type(name: str) -> str:
    """The type of a file as Apache tells it: a ``.gz`` is a gzip file, whatever is inside."""
    if name.endswith(".gz"):
        return "application/x-gzip"
    return TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def spoil(answer: Answer, kind: str | None) -> Answer:
    """The answer as a fault of its body leaves it."""
    half = len(answer.body) // 2
    match kind:
        case "cut":
            return dataclasses.replace(answer, send=half)
        case "truncated":
            return dataclasses.replace(answer, body=answer.body[:half])
        case "wrong-checksum":
            changed = bytes(byte ^ 0xFF for byte in answer.body[half : half + 1])
            return dataclasses.replace(answer, body=answer.body[:half] + changed + answer.body[half + 1 :])
        case "hang":
            return dataclasses.replace(answer, send=half, hang=True)
        case "drip":
            return dataclasses.replace(answer, pause=0.1)
        case _:
            return answer


def _listing(folder: Path, name: str) -> Answer:
    """An index as Apache's mod_autoindex makes it: links to sort by, the parent, then the names."""
    sort = " ".join(f'<a href="?C={word[0]};O=D">{word}</a>' for word in ("Name", "Modified", "Size"))
    rows = []
    for path in sorted(folder.iterdir()):
        entry = path.name + "/" * path.is_dir()
        stat = path.stat()
        date = f"{datetime.fromtimestamp(stat.st_mtime, UTC):%Y-%m-%d %H:%M}"
        rows.append(f'<a href="{quote(entry)}">{html.escape(entry)}</a>  {date}  {stat.st_size}')
    title, lines = html.escape(f"Index of /{name}"), "\n".join(rows)
    page = (
        f"<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n<pre>{sort}<hr>"
        f'<a href="/">Parent Directory</a>\n{lines}\n<hr></pre>\n</body>\n</html>\n'
    )
    return Answer(200, page.encode(), {"Content-Type": "text/html;charset=UTF-8"})
