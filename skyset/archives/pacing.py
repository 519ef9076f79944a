"""How fast each host is asked: a schedule per host, rests after failures, hosts that are down."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from skyset.http import LONGEST_WAIT

DEAD_AFTER = 5  # failures in a row after which a host is left alone
SHORTEST_REST, LONGEST_REST = 30.0, 600.0  # seconds for which it is left alone; doubled each time
LONGEST_BACKOFF = 60.0  # seconds


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
                self._hosts[host_of(url)] = _Host()

    def rest(self, url: str, seconds: float) -> None:
        """The host asked to be left alone."""
        with self._lock:
            host = self._of(url)
            host.resting_until = max(host.resting_until, self._clock() + min(seconds, LONGEST_WAIT))

    def _of(self, url: str) -> _Host:
        return self._hosts.setdefault(host_of(url), _Host())

    def _rest(self, host: _Host) -> None:
        host.resting_until = self._clock() + min(SHORTEST_REST * 2**host.rests, LONGEST_REST)
        host.rests = min(host.rests + 1, 10)


def host_of(url: str) -> str:
    return url.split("/", 3)[2] if "://" in url else ""
