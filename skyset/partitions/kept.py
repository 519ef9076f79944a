"""Decoded parts of files, kept for a while: what is read and what is packed together do not end at the same rows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Such as an array or a table."""

    @property
    def nbytes(self) -> int: ...


Part = TypeVar("Part", bound=Sized)


class Kept(Generic[Part]):
    """The parts that were used last, of whatever file.

    Args:
        most: bytes that are kept, of all files.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: OrderedDict[tuple[int, Hashable], Part] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = 0

    def get(self, file: int, part: Hashable, read: Callable[[], Part]) -> Part:
        """A part of a file, that is read where it is not kept."""
        with self._lock:
            if (found := self._parts.get((file, part))) is not None:
                self._parts.move_to_end((file, part))
                return found
        found = read()
        with self._lock:
            self._take((file, part))
            self._parts[file, part] = found
            self._bytes += found.nbytes
            while self._bytes > self._most and len(self._parts) > 1:
                self._take(next(iter(self._parts)))
        return found

    def _take(self, key: tuple[int, Hashable]) -> None:
        if (found := self._parts.pop(key, None)) is not None:
            self._bytes -= found.nbytes

    def forget(self, file: int) -> None:
        """Let go of all parts of a file."""
        with self._lock:
            for key in [key for key in self._parts if key[0] == file]:
                self._take(key)
