"""Sockets that another thread can shut, time limits, and header values that are none."""

import contextlib
import email.utils
import socket
import ssl
import threading
import time

import pytest
import requests

from skyset.http import LONGEST_WAIT, Client, pause, retry_after, watch
from skyset.testing.server import RawServer

OK = b"HTTP/1.1 200 OK\r\n"


def for_ever(*parts, pause=0.01):
    """The first parts once, the last one again and again until the client hangs up."""

    def answer(connection):
        for part in parts[:-1]:
            connection.sendall(part)
        while True:
            connection.sendall(parts[-1])
            time.sleep(pause)

    return answer


ENDLESS = {
    "continue": for_ever(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "header": for_ever(OK + b"X: ", b"y"),
    "status": for_ever(b"H"),
    "chunk size": for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "trailer": for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
    "silence": for_ever(b""),
}


@contextlib.contextmanager
def watched():
    closing, ended = threading.Event(), threading.Event()
    client = Client(closing)
    thread = threading.Thread(target=watch, args=(lambda: [client], closing, ended))
    thread.start()
    try:
        yield client, closing
    finally:
        ended.set()
        thread.join()
        client.close()


@contextlib.contextmanager
def full_house():
    """The address of a server whose queue of connections is full: nobody gets in any more."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        for _ in range(4):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@contextlib.contextmanager
def silent(scheme):
    with RawServer(ENDLESS["silence"]) as server:
        yield server.url.replace("http", scheme, 1)


WAITING = {
    "connect": full_house,
    "handshake": lambda: silent("https"),
    "answer": lambda: silent("http"),
    **{name: (lambda answer=answer: RawServer(answer)) for name, answer in ENDLESS.items()},
}


def asked(client, where):
    """What a request ends in, after how many seconds."""
    began = time.monotonic()
    try:
        client.session.get(getattr(where, "url", where), timeout=60)
    except (requests.RequestException, ssl.SSLError, OSError) as error:
        return error, time.monotonic() - began
    return None, time.monotonic() - began


@pytest.mark.parametrize("place", WAITING)
def test_a_request_ends_when_its_time_is_over_wherever_it_waits(place):
    with WAITING[place]() as where, watched() as (client, _):
        client.begin(0.4)
        _, seconds = asked(client, where)
        assert client.expired and 0.3 < seconds < 5


@pytest.mark.parametrize("place", WAITING)
def test_closing_ends_a_request_wherever_it_waits(place):
    with WAITING[place]() as where, watched() as (client, closing):
        client.begin(60)
        threading.Timer(0.3, closing.set).start()
        _, seconds = asked(client, where)
        assert seconds < 5 and not client.expired


def test_a_new_connection_after_closing_is_none():
    with RawServer.saying(OK + b"Content-Length: 0\r\n\r\n") as server:
        closing = threading.Event()
        closing.set()
        with pytest.raises(requests.ConnectionError):
            Client(closing).session.get(server.url, timeout=5)


def test_the_body_of_a_redirect_is_not_read():
    def endless(connection):
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 1000)
        time.sleep(30)

    answers = [endless, lambda connection: connection.sendall(OK + b"Content-Length: 2\r\n\r\nok")]
    with RawServer(lambda connection: answers.pop(0)(connection)) as server, watched() as (client, _):
        client.begin(10)
        assert client.session.get(server.url, timeout=5).content == b"ok"


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("999999999", 999999999.0),
        pytest.param(email.utils.formatdate(time.time() - 3600, usegmt=True), 0.0, id="an hour ago"),
        *(
            (bad, None)
            for bad in (
                "",
                "-1",
                "nan",
                "inf",
                "1e309",
                "0x10",
                "1_000",
                "²",
                "9" * 5000,
                "soon",
                "Fri, 31 Dec 99999 23:59:59 GMT",
                "Fri, 99 Dec 2026 23:59:59 GMT",
                "Fri, 31 Dec 2026 99:59:59 GMT",
                "Fri, 31 Dec -1 23:59:59 GMT",
                "1 2 3 4 5 6",
            )
        ),
    ],
)
def test_retry_after(text, seconds):
    response = requests.Response()
    response.headers["Retry-After"] = text
    assert retry_after(response) == seconds


def test_retry_after_as_a_date():
    response = requests.Response()
    assert retry_after(response) is None
    response.headers["Retry-After"] = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 90 < retry_after(response) <= 100


@pytest.mark.parametrize(
    ("failed", "asked", "seconds"),
    [(1, None, 0.5), (2, None, 1), (5, None, 8), (1, 7, 7), (3, 0, 0), (1, 1e6, LONGEST_WAIT), (5000, None, LONGEST_WAIT)],
)
def test_the_pause_before_another_try(failed, asked, seconds):
    assert pause(failed, 0.5, asked) == seconds
