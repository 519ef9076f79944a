"""Files on servers, read in parts with fsspec: logins, servers that give no parts, and errors that are all OSErrors."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import urlsplit

from skyset.messages import plain
from skyset.secrets import without_login

NO_PARTS = (
    "the server gives whole files only (it ignores HTTP Range requests), but rows are read as parts of files: "
    "copy the data to a disk, or serve them with a server that gives parts, such as nginx or Apache"
)
#: What callers expect of damaged files and servers; every other kind becomes an OSError.
_EXPECTED = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, EOFError)
#: Servers that were found to.
_gives_parts: set[str] = set()


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
