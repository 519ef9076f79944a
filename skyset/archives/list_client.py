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
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import responses as PHRASES
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from skyset.archives.account import without_account
from skyset.archives.das import ListRequest
from skyset.archives.tar_stream import Broken, members
from skyset.errors import RecordError, SkysetError, UserError
from skyset.html import HEAD_BYTES
from skyset.http import PASSING, Client, innermost, login_for, pause, retry_after, watch
from skyset.messages import plain

RETRIES, BACKOFF = 8, 1.0  # tries that bring nothing, and seconds after the first; four minutes in all
CONNECT, SILENCE = 30.0, 600.0  # seconds
MOST_REFUSED = 20  # lines of a list; more, and something is wrong with all of them
MOST_FOREIGN = 100  # members of an answer
SAME = 3  # answers with foreign members until what they lack is believed to be missing; bad files of a row
_NAMES = {
    "cutout": re.compile(r"(?:[^/]*/)?(\d+)-(?:cutout|coadd\+bg)-HSC-([A-Z0-9]+)-\d+-[^/]+\.fits"),
    "psf": re.compile(r"(?:[^/]*/)?(\d+)-psf-calexp-.+-HSC-([A-Z0-9]+)-\d+-\d+,\d+-[0-9.]+--?[0-9.]+\.fits"),
}


class Answered(NamedTuple):
    """What came of a list: rows without data, what was said of rows that were refused, why files of others cannot be used,
    and how many requests it took."""

    absent: tuple[int, ...]
    refused: dict[int, str]
    bad: dict[int, str]
    tries: int


class Stopped(SkysetError):
    """The caller closed the client."""


class _Refused(SkysetError):
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
        check: raises RecordError for a file that cannot be used; its row is asked for again, twice.
    """

    def __init__(
        self,
        retries: int = RETRIES,
        backoff: float = BACKOFF,
        silence: float = SILENCE,
        say: Callable[[str], object] = lambda text: None,
        check: Callable[[ListRequest, bytes], object] = lambda request, data: None,
    ) -> None:
        self.retries, self.backoff, self.silence, self.say = retries, backoff, silence, say
        self.check = check
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
        state = _State(list(range(len(request.lines))))
        tries = failed = odd = 0
        while state.left:
            if self._closing.is_set():
                raise Stopped("stopped")
            tries += 1
            run = _Run(request, state.left, take, self.check)
            try:
                self._stream(run)
                absent = [row for row in run.missing if row not in run.bad]
                if run.foreign and absent and odd + 1 < SAME:
                    odd += 1
                    raise Broken(f"a member that no line asked for: {run.foreign[0]}")
                if run.foreign and len(absent) == len(run.rows):  # nothing but what nobody asked for: not a word on these
                    state.bad |= dict.fromkeys(absent, f"the answer has nothing but others' files, such as {run.foreign[0]}")
                    absent = []
                state.absent += absent
            except _Refused as error:
                state.refused[self._refused(run, error)] = str(error)
                if len(state.refused) > MOST_REFUSED:
                    raise UserError(f"{_host(request)} refuses {len(state.refused)} lines of a list: {error}") from error
            except Broken as error:
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
            state.next(run)
        return Answered(tuple(state.absent), state.refused, state.bad, tries)

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
            raise Broken(late if self._wire.expired else innermost(error)) from error
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
            raise Broken(words, retry_after(response))
        if status in (404, 405) or status < 400:
            raise UserError(f"no {request.service} service at {request.url}: {words}")
        number = re.search(r"\bline\s*:?\s*(\d{1,6})\b", said, re.I)
        raise _Refused(words, int(number[1]) if number else None)


@dataclass
class _State:
    """What is known of a list's rows."""

    left: list[int]  # to ask for
    absent: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)
    seen: Counter[int] = field(default_factory=Counter)  # bad files by row

    def next(self, run: _Run) -> None:
        """Learn of an answer's bad files, and what is still to be asked for."""
        self.seen.update(run.bad.keys())
        self.bad |= {row: reason for row, reason in run.bad.items() if self.seen[row] >= SAME}
        known = {*self.absent, *self.refused, *self.bad}
        self.left = [row for row in run.missing if row not in known]


@dataclass
class _Run:
    """One answer: rows asked for, those that came, why files of others cannot be used, and names that nobody asked for."""

    request: ListRequest
    rows: list[int]
    take: Callable[[int, bytes], object]
    check: Callable[[ListRequest, bytes], object]
    got: set[int] = field(default_factory=set)
    bad: dict[int, str] = field(default_factory=dict)
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
                raise Broken(f"{len(self.foreign)} members that no line asked for, such as {self.foreign[0]}")
            return
        row = self.rows[place]
        try:
            self.check(self.request, data)
        except RecordError as error:
            self.bad[row] = str(error)
            return
        self.take(row, data)
        self.got.add(row)


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
