"""Lists of cutouts and PSFs (`das`), asked until each of their lines is answered.

    with ListClient() as client:
        answered = client.ask(request, lambda row, data: ...)      # as the TAR streams in
    answered.absent                                                # rows of which there is no data

The answer to a list is a TAR whose member ``N-...`` belongs to line N, where the header is line 1. What there is no data of
is missing from it, and where there is none at all it is empty.
"""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import responses as PHRASES
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from skyset.archives.account import without_account
from skyset.archives.das import ListRequest
from skyset.errors import SkysetError, UserError
from skyset.html import HEAD_BYTES, is_html
from skyset.http import PASSING, Client, innermost, login_for, pause, retry_after, watch
from skyset.messages import plain

RETRIES, BACKOFF = 8, 1.0  # tries that bring nothing, and seconds after the first; four minutes in all
CONNECT, SILENCE = 30.0, 600.0  # seconds
MOST_REFUSED = 20  # lines of a list; more, and something is wrong with all of them
MOST_FOREIGN = 100  # members of an answer
SAME_FOREIGN = 3  # answers with foreign members until what they lack is believed to be missing
_LONGEST_NAME = 4096  # bytes
_BLOCK, _END = tarfile.BLOCKSIZE, bytes(tarfile.BLOCKSIZE)
_NAMES = {
    "cutout": re.compile(r"(?:[^/]*/)?(\d+)-(?:cutout|coadd\+bg)-HSC-([A-Z0-9]+)-\d+-[^/]+\.fits"),
    "psf": re.compile(r"(?:[^/]*/)?(\d+)-psf-calexp-.+-HSC-([A-Z0-9]+)-\d+-\d+,\d+-[0-9.]+--?[0-9.]+\.fits"),
}


class Answered(NamedTuple):
    """What came of a list: rows without data, what was said of rows that were refused, and how many requests it took."""

    absent: tuple[int, ...]
    refused: dict[int, str]
    tries: int


class Stopped(SkysetError):
    """The caller closed the client."""


class _Broken(Exception):
    """There is no answer, or not all of it; a later try may have more luck."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _Refused(Exception):
    """The service refuses a line (``number``, the header being line 1), or None: the list."""

    def __init__(self, words: str, number: int | None) -> None:
        super().__init__(words)
        self.number = number


class ListClient:
    """Requests of one thread after another thread's `stop`, or to their end.

    Args:
        retries: further tries of a list that brings nothing.
        backoff: seconds after the first; doubled each time, unless Retry-After says more.
        silence: seconds that the service may take for the next member.
        say: told of what is odd, in one line.
    """

    def __init__(
        self,
        retries: int = RETRIES,
        backoff: float = BACKOFF,
        silence: float = SILENCE,
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.retries, self.backoff, self.silence, self.say = retries, backoff, silence, say
        self._closing, self._ended = threading.Event(), threading.Event()
        self._wire = Client(self._closing)
        self._watch = threading.Thread(target=watch, args=(lambda: [self._wire], self._closing, self._ended), daemon=True)
        self._watch.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        self._ended.set()
        self._watch.join()
        self._wire.close()

    def stop(self) -> None:
        """End what is being asked, from any thread: `Stopped` is raised there."""
        self._closing.set()
        self._wire.hang_up()

    def ask(self, request: ListRequest, take: Callable[[int, bytes], object]) -> Answered:
        """Ask until every row is answered: only for those that are still missing, when an answer breaks off.

        Args:
            request: the list.
            take: called with row and FITS file, once each, as they come.

        Raises:
            UserError: the service does not take the account, refuses the list, or is down.
            Stopped: the caller closed the client.
        """
        left, refused = list(range(len(request.lines))), {}  # type: list[int], dict[int, str]
        tries = failed = odd = 0
        while left:
            if self._closing.is_set():
                raise Stopped("stopped")
            tries += 1
            run = _Run(request, left, take)
            try:
                self._stream(run)
                if not run.foreign or odd + 1 >= SAME_FOREIGN or not run.missing:
                    return Answered(tuple(run.missing), refused, tries)
                odd += 1
                raise _Broken(f"a member that no line asked for: {run.foreign[0]}")
            except _Refused as error:
                row = self._refused(run, error)
                refused[row] = str(error)
                if len(refused) > MOST_REFUSED:
                    raise UserError(f"{_host(request)} refuses {len(refused)} lines of a list: {error}") from error
            except _Broken as error:
                failed = 1 if run.got else failed + 1
                if failed > self.retries:
                    raise UserError(
                        f"{_host(request)} could not be asked for {request.service}s of band {request.band}: {error} "
                        f"({tries} tries); the same command goes on from here"
                    ) from error
                self._closing.wait(pause(failed, self.backoff, error.wait))
            finally:
                for name in run.foreign[:3]:
                    self.say(f"{_host(request)} sent {name}, which no line of the list asked for: it is left out")
            left = [row for row in run.missing if row not in refused]
        return Answered((), refused, tries)

    def _refused(self, run: _Run, error: _Refused) -> int:
        """The row that is refused.

        Raises:
            UserError: it cannot be told which.
        """
        place = 0 if error.number is None and len(run.rows) == 1 else (error.number or 0) - 2
        if not 0 <= place < len(run.rows):
            raise UserError(f"{_host(run.request)} refuses the list: {error}") from error
        return run.rows[place]

    def _stream(self, run: _Run) -> None:
        """One request."""
        files = {"list": ("list.txt", run.request.text(run.rows), "text/plain")}
        settings: dict[str, Any] = {"stream": True, "timeout": (CONNECT, self.silence), "allow_redirects": False}
        self._wire.begin(CONNECT + self.silence)
        try:
            with self._wire.session.post(run.request.url, files=files, **settings) as response:
                self._check(run.request, response)
                with io.BufferedReader(_Raw(response), 1 << 14) as file:
                    for name, data in members(file, run.request.largest):
                        self._wire.allow(self.silence)
                        run.add(name, data)
                    _drain(file)
        except (OSError, HTTPError) as error:  # requests' own are OSErrors
            if self._closing.is_set():
                raise Stopped("stopped") from error
            late = f"silent for {self.silence:g} s"
            raise _Broken(late if self._wire.expired else innermost(error)) from error
        finally:
            self._wire.end()

    def _check(self, request: ListRequest, response: requests.Response) -> None:
        """Raise unless the answer is what was asked for."""
        status = response.status_code
        if status == 200 and "html" not in response.headers.get("Content-Type", ""):
            return
        body = response.raw.read(HEAD_BYTES, decode_content=True)
        words = f"{status} {PHRASES.get(status, '')}".strip() if status != 200 else "an HTML page instead of a TAR"
        said, login = _words(body), login_for(request.url)
        said = without_account(said, login) if login else said
        if said:
            words = f"{words}: {said}"
        if status in (401, 403):
            raise UserError(f"{_host(request)} does not take the account: {words}")
        if status == 200 or status in PASSING or status >= 500:
            raise _Broken(words, retry_after(response))
        if status in (404, 405) or status < 400:
            raise UserError(f"no {request.service} service at {request.url}: {words}")
        number = re.search(r"\bline\s*:?\s*(\d{1,6})\b", said, re.I)
        raise _Refused(words, int(number[1]) if number else None)


@dataclass
class _Run:
    """One answer: rows asked for, those that came, and names of what nobody asked for."""

    request: ListRequest
    rows: list[int]
    take: Callable[[int, bytes], object]
    got: set[int] = field(default_factory=set)
    foreign: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[int]:
        return [row for row in self.rows if row not in self.got]

    def add(self, name: str, data: bytes) -> None:
        """Take a member, if it is of one of the rows and the first one."""
        match = _NAMES[self.request.service].fullmatch(name)
        place = int(match[1]) - 2 if match and len(match[1]) < 9 else -1
        if match is None or match[2] != self.request.band.upper() or not 0 <= place < len(self.rows):
            place = -1
        if place < 0 or self.rows[place] in self.got:
            self.foreign.append(plain(name, 200))
            if len(self.foreign) > MOST_FOREIGN:
                raise _Broken(f"{len(self.foreign)} members that no line asked for, such as {self.foreign[0]}")
            return
        self.take(self.rows[place], data)
        self.got.add(self.rows[place])


# --- the answer ---------------------------------------------------------------------------------------------


class _Raw(io.RawIOBase):
    """An answer's bytes as they come."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._response.raw.read(len(buffer), decode_content=False)
        buffer[: len(data)] = data
        return len(data)


def members(file: io.BufferedIOBase, largest: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a TAR's files, as they come; folders are passed over.

    Args:
        file: is read from where it stands to the end mark.
        largest: bytes of a member.

    Raises:
        _Broken: it is none, ends before its end mark, or holds what no cutout is.
    """
    long_name = ""
    while (block := _exactly(file, _BLOCK)) != _END:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.TarError as error:
            raise _Broken("an HTML page instead of a TAR" if is_html(block) else f"a damaged TAR: {error}") from error
        bound = largest if info.isreg() else _LONGEST_NAME
        if not 0 <= info.size <= bound:
            raise _Broken(f"{plain(info.name, 200)} has {info.size:,} bytes, more than {bound:,}")
        data = _exactly(file, -(-info.size // _BLOCK) * _BLOCK)[: info.size]
        if info.type == tarfile.GNUTYPE_LONGNAME:
            long_name = data.rstrip(b"\0").decode("utf-8", "replace")
            continue
        if info.type == tarfile.XHDTYPE:
            found = re.search(rb"(?:^|\n)\d+ path=([^\n]*)\n", data)
            long_name = found[1].decode("utf-8", "replace") if found else ""
            continue
        if info.isreg():
            yield long_name or info.name, data
        elif not info.isdir() and info.type != tarfile.XGLTYPE:
            yield f"{long_name or info.name} (a link or device)", b""
        long_name = ""


def _exactly(file: io.BufferedIOBase, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise _Broken("the TAR ends in the middle")
    return data


def _drain(file: io.BufferedIOBase) -> None:
    """Read what follows the end mark, so that the connection can be used again; the answer is whole without it."""
    with contextlib.suppress(OSError, HTTPError):
        file.read(1 << 20)


def _words(body: bytes) -> str:
    """What an error page says, in one line."""
    text = re.sub(r"(?is)<(script|style|title|h1)\b.*?</\1>|<[^>]*>", " ", body.decode("utf-8", "replace"))
    return plain(" ".join(text.split()), 300)


def _host(request: ListRequest) -> str:
    return urlsplit(request.url).netloc
