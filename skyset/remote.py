"""Files on servers, read in parts: over HTTP by ``ranges.py``, from other places that fsspec knows by fsspec."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from skyset.messages import plain
from skyset.ranges import NO_PARTS, HttpFile, Lines, Version
from skyset.secrets import without_login

#: What callers expect of damaged files and servers; every other kind becomes an OSError.
_EXPECTED = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, EOFError)
#: Servers that were found to.
_gives_parts: set[str] = set()


def found(url: str, version: Version | None = None) -> HttpFile | FsspecFile:
    """The file of an address; over HTTP nothing is asked before it is read.

    Args:
        url: ``http(s)://``, ``hf://``, or another that fsspec knows; a login in it goes to its host.
        version: what it must be, where that is known.

    Raises:
        OSError: fsspec or the Hub does not know it.
    """
    url = without_login(url)
    if url.startswith(("http://", "https://")):
        return HttpFile(url, version=version)
    if url.startswith(("hf://datasets/", "hf://spaces/", "hf://buckets/")):
        with os_errors():
            return HttpFile(*_on_the_hub(url), version=version)
    return FsspecFile(url)


def _on_the_hub(url: str) -> tuple[str, dict[str, str]]:
    """Where the Hub gives a file of a repository or bucket, and the headers that it wants."""
    from huggingface_hub import HfFileSystem, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    system = HfFileSystem()
    place: Any = system.resolve_path(url)  # of an older version it has another type
    headers = build_hf_headers(token=system.token)
    if url.startswith("hf://buckets/"):
        return f"{system.endpoint}/buckets/{place.bucket_id}/resolve/{quote(place.path)}", headers
    kind, name = place.repo_type, place.repo_id
    where = hf_hub_url(name, place.path_in_repo, repo_type=kind, revision=place.revision, endpoint=system.endpoint)
    return where, headers


class FsspecFile:
    """A file that only fsspec can read; as `HttpFile`, but its version is looked at once."""

    def __init__(self, url: str):
        self.url = url
        with os_errors():
            self._system, self._path = opened(url)
            status = self._system.info(self._path)
        if status["type"] != "file":
            raise OSError("not a regular file")
        etag = status.get("ETag") or status.get("etag") or ""
        self.version: Version | None = Version(status["size"], str(etag), str(status.get("mtime", "")))

    def get(self, start: int, out: memoryview, lines: Lines) -> int:
        """As ``HttpFile.get``."""
        assert self.version is not None
        start = max(0, self.version.size + start) if start < 0 else start
        stop = min(start + len(out), self.version.size)
        if start >= stop:
            return 0
        with os_errors():
            data = self._system.cat_file(self._path, start=start, end=stop)
        if len(data) > stop - start:
            raise OSError(NO_PARTS)
        out[: len(data)] = data
        return len(data)

    def whole(self, most: int, lines: Lines) -> bytes:
        """As ``HttpFile.whole``."""
        assert self.version is not None
        if self.version.size > most:
            raise OSError(f"it has {self.version.size:,} bytes, more than {most:,}")
        with os_errors():
            return self._system.cat_file(self._path)


def read_whole(url: str, most: int) -> bytes:
    """A small file.

    Raises:
        FileNotFoundError, OSError: it cannot be read, or has more than ``most`` bytes.
    """
    with Lines(2) as lines:
        file = found(url)
        text = lines.submit(file.whole, most, lines)
        if isinstance(file, HttpFile):
            lines.warm(file.url)  # the files beside it are looked into next, at two places at once
        return text.result()


def opened(url: str):
    """The fsspec file system of an address, and the path in it.

    A login in the address, or .netrc's, goes to its host: aiohttp takes the header off where a redirect leads elsewhere.
    """
    import fsspec

    url, options = without_login(url), {}
    if url.startswith(("http://", "https://")):
        from skyset.http import login_for

        if login := login_for(url):
            options["headers"] = {"Authorization": f"Basic {b64encode(':'.join(login).encode()).decode()}"}
    return fsspec.core.url_to_fs(url, **options)


@contextlib.contextmanager
def os_errors() -> Iterator[None]:
    """Whatever a server makes fsspec and aiohttp raise is an OSError of one line; FileNotFoundError stays one."""
    try:
        yield
    except FileNotFoundError as error:  # so fsspec calls every failure
        cause = error.__cause__ or error
        if getattr(cause, "status", 404) == 404:
            raise FileNotFoundError(plain(error)) from None
        raise OSError(_words(cause)) from None
    except _EXPECTED:
        raise
    except Exception as error:  # of a dozen kinds, with addresses and headers in them
        raise OSError(_words(error)) from None


def _words(error: BaseException) -> str:
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    return plain(f"{status} {message}".strip() if status else str(error) or type(error).__name__, 400)


def check_parts(system, path: str) -> None:
    """Raise OSError unless the server gives the part of a file that is asked for; each server is asked once.

    One that does not would be read whole for every few rows.
    """
    from fsspec.asyn import sync
    from fsspec.implementations.http import HTTPFileSystem

    host = urlsplit(path).netloc
    if not isinstance(system, HTTPFileSystem) or host in _gives_parts:
        return
    if sync(system.loop, _status, system, path) == 200:
        raise OSError(NO_PARTS)
    _gives_parts.add(host)


async def _status(system, path: str) -> int:
    """The answer to a request for eight bytes; its body is not waited for."""
    session = await system.set_session()
    headers = system.kwargs.get("headers", {}) | {"Range": "bytes=0-7", "Accept-Encoding": "identity"}
    async with session.get(system.encode_url(path), **(system.kwargs | {"headers": headers})) as answer:
        answer.raise_for_status()
        return answer.status
