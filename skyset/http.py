"""What every HTTP session of ours has in common: logins, sockets that another thread can shut, and time limits.

A request waits in many places (a connection, the TLS handshake, the answer's headers, the next bytes), and a server can keep
it in each of them for ever without a single silent minute: an endless ``100 Continue``, a header or a chunk's size that
drips. A `Client` knows its sockets from before they connect, so that ``expire`` and ``hang_up`` of another thread end it in
all of them.
"""

from __future__ import annotations

import contextlib
import email.utils
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from http.client import BadStatusLine

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_netrc_auth
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager

from skyset.messages import plain
from skyset.secrets import cookie_of, login_of
from skyset.versions import default_user_agent

CHUNK = 1 << 18  # bytes, at most, of one read
PASSING = (408, 429, 500, 502, 503, 504)  # statuses that a later try may not meet
LONGEST_WAIT = 600.0  # seconds, whatever Retry-After says

TICK = 0.1  # seconds between two looks of `watch` at the clock


def login_for(url: str) -> tuple[str, str] | None:
    """(user, password) for an address: as they were given with one of its host, else .netrc's."""
    return login_of(url) or get_netrc_auth(url)


class HostLogin(AuthBase):
    """A session's ``auth``: the cookie or the login that was given for a request's host (``skyset.secrets``), else .netrc's.

    requests takes it off again where a redirect leads to another host.
    """

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        cookie = cookie_of(request.url or "")
        if cookie is not None:
            request.headers["Cookie"] = cookie
            return request
        login = login_for(request.url or "")
        if login is None:
            return request
        return HTTPBasicAuth(*(text.encode() for text in login))(request)  # as text, requests takes no more than Latin-1


class Sockets:
    """The sockets of a session, from before they connect, for another thread to shut.

    Args:
        closing: once it is set, no connection is opened.
        patience: seconds after which an answer's headers have to be complete; None leaves that to others.
    """

    def __init__(self, closing: threading.Event, patience: float | None = None) -> None:
        self._closing = closing
        self._patience = patience
        self._opening: dict[int, list[socket.socket]] = {}
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def opened(self, sock: socket.socket) -> None:
        """Take note of a socket that is about to connect.

        TLS hands its descriptor on to another object, therefore a duplicate is kept until the connection stands.
        """
        with self._lock:
            if self._closing.is_set():
                raise ConnectionAbortedError("closed meanwhile")
            self._opening.setdefault(threading.get_ident(), []).append(sock.dup())

    def connected(self, sock: socket.socket | None) -> None:
        """Take note of this thread's connection that stands, or does not (None)."""
        with self._lock:
            for twin in self._opening.pop(threading.get_ident(), ()):
                twin.close()
            self._open = {other for other in self._open if other.fileno() != -1}
            if sock is not None:
                self._open.add(sock)
                if self._closing.is_set():
                    _shut(sock)

    def shut(self) -> None:
        """End what waits on them, whatever it waits for (only the look-up of a host's name goes on to its own end)."""
        with self._lock:
            for sock in (*(twin for twins in self._opening.values() for twin in twins), *self._open):
                _shut(sock)

    @contextlib.contextmanager
    def answering(self, sock: socket.socket | None) -> Iterator[None]:
        """The block reads an answer's headers, and has to be quick."""
        if self._patience is None or sock is None:
            yield
            return
        timer = threading.Timer(self._patience, _shut, (sock,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has just been closed, or does not connect yet
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not the TLS one, which would wait for its reader


class Client:
    """A session for one thread at a time. ``expire`` and ``hang_up`` are called from others.

    Attributes:
        session: of requests; it asks for bodies as they are, and never tries again by itself.
        expired: whether the running request was ended because its time was over.
    """

    def __init__(self, closing: threading.Event, user_agent: str | None = None) -> None:
        self._sockets = Sockets(closing)
        self.session = requests.Session()
        self.session.auth = HostLogin()
        self.session.headers.update({"User-Agent": user_agent or default_user_agent(), "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _WatchedAdapter(self._sockets))
        self.expired = False
        self._until = math.inf
        self._lock = threading.Lock()

    def begin(self, seconds: float) -> None:
        """A request begins, and may take so long."""
        with self._lock:
            self._until, self.expired = time.monotonic() + seconds, False

    def allow(self, seconds: float) -> None:
        """The running request may go on for so long from now."""
        self._until = time.monotonic() + seconds

    def end(self) -> None:
        """No request is running."""
        with self._lock:
            self._until = math.inf

    def expire(self) -> None:
        """End the running request if its time is over."""
        with self._lock:
            if time.monotonic() > self._until:
                self.expired = True
                self._sockets.shut()

    def hang_up(self) -> None:
        """End the running request."""
        self._sockets.shut()

    def close(self) -> None:
        self.session.close()


def watch(clients: Callable[[], Iterable[Client]], closing: threading.Event, ended: threading.Event) -> None:
    """End requests whose time is over, and all of them once `closing` is set; a thread of its own, until `ended`."""
    while not ended.wait(TICK):
        for client in tuple(clients()):
            client.hang_up() if closing.is_set() else client.expire()


def pause(failed: int, backoff: float, asked: float | None = None) -> float:
    """Seconds to wait before the next try, `LONGEST_WAIT` at most.

    Args:
        failed: tries that failed, from 1 on.
        backoff: seconds after the first; doubled with each further one.
        asked: what Retry-After asked for, if it did; that is followed instead.
    """
    return min(backoff * 2 ** min(failed - 1, 30) if asked is None else asked, LONGEST_WAIT)


def retry_after(response: requests.Response) -> float | None:
    """Seconds that the answer's Retry-After, a number or a date, asks to wait; None without one that can be read."""
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):  # the parser raises each for one text or another
        return None


class _WatchedAdapter(HTTPAdapter):
    """Keeps every socket in mind, and gives redirects without their bodies, which nothing would bound."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        super().__init__(pool_connections=4, pool_maxsize=1)

    def init_poolmanager(self, *args, **kwargs) -> None:
        super().init_poolmanager(*args, **kwargs)
        watch_pools(self.poolmanager, self._sockets)

    def proxy_manager_for(self, proxy: str, **kwargs):
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # those have connections of their own
            watch_pools(manager, self._sockets)
        return manager

    def send(self, request: requests.PreparedRequest, *args, **kwargs) -> requests.Response:
        response = super().send(request, *args, **kwargs)
        if response.is_redirect:
            response._content = b""
            response.raw.close()
        return response


def watch_pools(manager: PoolManager, sockets: Sockets) -> None:
    """Let `sockets` know all that a session's pools open."""
    manager.pool_classes_by_scheme = {
        "http": _watched(HTTPConnectionPool, HTTPConnection, sockets),
        "https": _watched(HTTPSConnectionPool, HTTPSConnection, sockets),
    }


def _watched(pool: type, connection: type, sockets: Sockets) -> type:
    class Connection(connection):
        def connect(self) -> None:
            sock = None
            try:
                super().connect()
                sock = self.sock
            finally:
                sockets.connected(sock)

        def getresponse(self):
            with sockets.answering(self.sock):
                return super().getresponse()

        def _new_conn(self) -> socket.socket:
            """As urllib3's, but the socket is known before it connects."""
            try:
                return _connection(self, sockets)
            except socket.gaierror as error:
                raise NameResolutionError(self.host, self, error) from error
            except TimeoutError as error:
                raise ConnectTimeoutError(self, f"no connection to {self.host} in {self.timeout} s") from error
            except OSError as error:
                raise NewConnectionError(self, f"no connection: {error}") from error

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


def _connection(wanted: HTTPConnection, sockets: Sockets) -> socket.socket:
    """A connected socket, to the first address that answers."""
    problem = OSError("the host has no address")
    host = wanted.host.strip("[]")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, wanted.port, 0, socket.SOCK_STREAM):
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            sockets.opened(sock)
            for option in wanted.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(wanted.timeout)
            if wanted.source_address:
                sock.bind(wanted.source_address)
            sock.connect(address)
            return sock
        except OSError as error:
            problem = error
            if sock is not None:
                sock.close()
    raise problem


def innermost(error: BaseException) -> str:
    """What the deepest cause says: libraries wrap ``Connection refused`` in four layers of their own."""
    seen = set()
    while True:
        seen.add(id(error))
        causes = (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__)
        inner = next((cause for cause in causes if isinstance(cause, BaseException) and id(cause) not in seen), None)
        if inner is None:
            text = plain(getattr(error, "strerror", None) or error, 400).strip()
            if isinstance(error, BadStatusLine) and not isinstance(error, ConnectionError):
                return f"not an HTTP answer: {text!r}"
            return text or type(error).__name__
        error = inner
