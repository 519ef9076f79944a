"""A loopback Hub that ``huggingface_hub`` and ``datasets`` use as the real one, by ``HF_ENDPOINT`` alone.

::

    with HubServer(folder) as hub:
        hub.add_user("alice", "hf_alice", organisations=("sky",))
        os.environ |= {"HF_ENDPOINT": hub.host, "HF_TOKEN": "hf_alice"}   # before the import
        hub.fault("PUT */put/*", "500", times=2)
        hub.fault("POST */commit/*", "conflict", times=1)

Objects are sent to, and read from, a second address, as those of the real Hub are: it takes no login, only signatures. A
third speaks the Xet protocol, in which ``huggingface_hub`` sends by itself; with ``HF_HUB_DISABLE_XET=1`` it sends by LFS.
Faults are those of `ArchiveServer`, by method and path, and

=============  ============================================================================================
fault          what the client sees
=============  ============================================================================================
``conflict``   somebody else commits a file to the same branch just before: 412
``hang-up``    the connection ends in the middle of what the client sends
``lost``       all is done, and the connection ends before the answer
=============  ============================================================================================

What is not there: discussions other than pull requests, spaces; of Xet the second versions of its addresses (404, and the
client goes on with the first), and the checksums of xorbs: a file is taken if its chunks make its hash and its SHA-256.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from skyset.testing.hub import api, buckets, cas, files  # noqa: F401 (each adds its addresses to ROUTES)
from skyset.testing.hub.calls import JSON, ROUTES, Call, answer
from skyset.testing.hub.objects import Objects, Refused
from skyset.testing.hub.repositories import Accounts, Bucket, Repository, git_blob
from skyset.testing.hub.xet import Xet
from skyset.testing.loopback import Loopback
from skyset.testing.server import Answer, ArchiveServer, Fault, Handler, spoil, status_of

KINDS = ("conflict", "hang-up", "lost")
_BLOCK = 1 << 18


class HubServer(ArchiveServer):
    """A Hub on 127.0.0.1 while the ``with`` block runs.

    Args:
        folder: for the objects.
        part_from, part_bytes: LFS objects of at least so many bytes are sent in parts of so many.

    Attributes:
        host: for ``HF_ENDPOINT``.
        storage: address of the objects.
        cas: address of the Xet storage.
        accounts: users, tokens, organisations.
        repositories: by kind and name, ``("dataset", "alice/gz3d")``.
        objects: LFS objects; ``objects.sent`` and ``objects.received`` tell what was sent.
        buckets: by name, ``alice/gz3d``.
        batches: bucket and number of operations of every batch.
        xet: what was sent by Xet; ``xet.received`` tells how much.
        commits: path of the repository's address and number of operations of every commit that was made.
    """

    def __init__(
        self,
        folder: str | Path,
        part_from: int = 1 << 40,
        part_bytes: int = 1 << 20,
        latency: float = 0.0,
        port: int = 0,
    ) -> None:
        super().__init__(folder, latency, port)
        self._http.RequestHandlerClass = type("Handler", (_HubHandler,), {"archive": self})
        self._storage = Loopback(type("Storage", (_StorageHandler,), {"archive": self}))
        self.storage = self._storage.host
        self._cas = Loopback(type("Cas", (_CasHandler,), {"archive": self}))
        self.cas = self._cas.host
        self.accounts = Accounts()
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects = Objects(self.folder / "objects", part_from, part_bytes)
        self.buckets: dict[str, Bucket] = {}
        self.batches: list[tuple[str, int]] = []
        self.xet = Xet(self.folder / "xorbs", self.objects)
        self.commits: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        self._storage.__enter__()
        self._cas.__enter__()
        return super().__enter__()

    def __exit__(self, *exc_info) -> None:
        super().__exit__(*exc_info)
        self._storage.__exit__(*exc_info)
        self._cas.__exit__(*exc_info)

    def add_user(self, name: str, token: str, role: str = "write", organisations: tuple[str, ...] = ()) -> None:
        """Somebody with a token of a role, ``read`` or ``write``, who may write in these organisations too."""
        self.accounts.tokens[token] = (name, role)
        for each in organisations:
            self.accounts.organisations[each] = (*self.accounts.organisations.get(each, ()), name)

    def fault(self, pattern: str, kind: str, times: int | None = None, retry_after: int | datetime | None = None) -> None:
        """As `ArchiveServer.fault`, of requests like ``"POST */commit/*"``."""
        if kind in KINDS:
            with self._lock:
                self._faults.append(Fault(pattern, kind, times))
            return
        super().fault(pattern, kind, times, retry_after)

    def dataset(self, name: str) -> Repository:
        """A repository of data, ``alice/gz3d``."""
        return self.repositories["dataset", name]

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """All files of a repository of data, by path."""
        tree = self.dataset(name).commit(revision).tree
        return {path: self.objects.read(blob, 0, blob.size) for path, blob in tree.items()}

    def bucket(self, name: str) -> dict[str, bytes]:
        """All files of a bucket, by path."""
        hashes = {path: file.xet_hash for path, file in self.buckets[name].files.items()}
        return {path: self.objects.path(self.xet.sha256[each]).read_bytes() for path, each in hashes.items()}

    def interfere(self, path: str, content: bytes, branch: str) -> None:
        """Somebody else's commit, to the repository whose address a path has."""
        found = re.match(r"/api/(dataset|model|space)s/([^/]+/[^/]+)/", path)
        if found:
            repository = self.repositories[found[1], found[2]]
            ref = repository.ref(branch)
            name = f"other/{len(repository.commits)}.txt"
            repository.add(ref, {**repository.commit(branch).tree, name: git_blob(content)}, "somebody else's", "else")


class _HubHandler(Handler):
    archive: HubServer

    def do_GET(self) -> None:
        with self.archive.counted() as ticket:
            self.archive.closing.wait(self.archive.latency)
            parts = urlsplit(self.path)
            method = "GET" if self.command == "HEAD" else self.command
            fault = self.archive.next_fault(f"{method} {parts.path}")
            kind = fault.kind if fault else ""
            self.archive.authorizations.append(self.headers["Authorization"])
            if kind == "hang-up" and int(self.headers["Content-Length"] or 0):
                self.rfile.read(int(self.headers["Content-Length"]) // 2)
                self.close_connection = True
                return
            body = b"".join(self._sent())
            if fault and kind.isdigit():
                self._send(status_of(int(kind), fault.retry_after), ticket)
                return
            given = self._answered(method, parts.path, parts.query, body, kind)
            if kind == "lost":
                self.close_connection = True
                return
            self._send(spoil(_part(given, self.headers["Range"]), kind), ticket)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _sent(self) -> Iterator[bytes]:
        """The request's body, as it comes."""
        if "chunked" in (self.headers["Transfer-Encoding"] or ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers["Content-Length"] or 0)
        while left > 0 and (block := self.rfile.read(min(left, _BLOCK))):
            left -= len(block)
            yield block

    def _answered(self, method: str, path: str, query: str, body: bytes, kind: str) -> Answer:
        try:
            token = self._token()
            values = {name: given[-1] for name, given in parse_qs(query).items()}
            for wanted, pattern, function in ROUTES:
                if wanted == method and (found := pattern.fullmatch(path)):
                    parts = {name: unquote(text) for name, text in found.groupdict().items() if text}
                    if kind == "conflict":
                        self.archive.interfere(path, b"else\n", parts["revision"])
                    given = function(Call(self.archive, parts, values, token, body))
                    if function.__name__ == "commit":
                        self.archive.commits.append((path, body.count(b"\n") - 1))
                    return given
            raise Refused(404, "Sorry, we can't find the page you are looking for.")
        except Refused as refused:
            headers = {**JSON, "X-Error-Message": str(refused)} | ({"X-Error-Code": refused.code} if refused.code else {})
            return answer(refused.body, refused.status, headers)

    def _token(self) -> str | None:
        given = self.headers["Authorization"]
        if given is None:
            return None
        token = given.removeprefix("Bearer ")
        if token not in self.archive.accounts.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return token


class _CasHandler(_HubHandler):
    """The third address: Xet's storage, which takes tokens of its own."""

    def _answered(self, method, path, query, body, kind):
        try:
            return cas.answered(self.archive, method, path, self.headers, body)
        except Refused as refused:
            return answer(refused.body, refused.status)


class _StorageHandler(_HubHandler):
    """The second address: a signature lets in, and nothing else does."""

    def _answered(self, method, path, query, body, kind):
        return status_of(404)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        fault = self.archive.next_fault(f"{'GET' if self.command == 'HEAD' else self.command} {path}")
        if fault and fault.kind == "hang-up":
            self.rfile.read(min(int(self.headers["Content-Length"] or 0) // 2, _BLOCK))
            self.close_connection = True
            return
        with self.archive.counted() as ticket:
            if fault and fault.kind.isdigit():
                for _ in self._sent():
                    pass
                self._send(status_of(int(fault.kind), fault.retry_after), ticket)
                return
            try:
                given = self._stored(path)
            except Refused as refused:
                given = status_of(refused.status)
            if fault and fault.kind == "lost":
                self.close_connection = True
                return
            self._send(spoil(given, fault.kind if fault else None), ticket)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _stored(self, path: str) -> Answer:
        if self.headers["Authorization"] is not None:
            raise Refused(400, "only one way to log in is allowed: the signature")
        found = re.fullmatch(r"/(put|get|xorb)/([0-9a-f]+)(?:/(\d+))?", path)
        if found is None:
            raise Refused(404, "there is nothing")
        if found[1] == "put" and self.command == "PUT":
            if self.headers["Content-Length"] is None:
                raise Refused(411, "Content-Length is required")
            etag = self.archive.objects.put(found[2], int(found[3] or 1), self._sent())
            return Answer(200, b"", {"ETag": f'"{etag}"'})
        if found[1] == "get" and self.command in ("GET", "HEAD") and self.archive.objects.has(found[2]):
            return self._object(self.archive.objects.path(found[2]))
        if found[1] == "xorb" and self.command in ("GET", "HEAD") and self.archive.xet.path(found[2]).is_file():
            return self._object(self.archive.xet.path(found[2]))
        raise Refused(404, "there is nothing")

    def _object(self, path: Path) -> Answer:
        """An object, or the part of it that Range asks for: read alone, however large the whole is."""
        size = path.stat().st_size
        headers = {"ETag": f'"{path.name}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        bounds = _bounds(self.headers["Range"], size)
        if bounds is None:
            return Answer(200, path.read_bytes(), headers)
        start, stop = bounds
        if start >= stop:
            return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
        with open(path, "rb") as file:
            file.seek(start)
            return Answer(206, file.read(stop - start), {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})

    def finish(self) -> None:
        with suppress(OSError):  # the client has hung up
            super().finish()


def _bounds(wanted: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last that a Range header asks for; None without one."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)|bytes=-(\d+)", wanted or "")
    if found is None:
        return None
    first, last, tail = found.groups()
    start = int(first) if first else max(size - int(tail), 0)
    return start, min(int(last) + 1, size) if last else size


def _part(given: Answer, wanted: str | None) -> Answer:
    """A file that git holds, or the part of it that is asked for."""
    bounds = _bounds(wanted, len(given.body)) if given.status == 200 and "X-Repo-Commit" in given.headers else None
    if bounds is None:
        return given
    start, stop = bounds
    if start >= stop:
        return Answer(416, b"", {"Content-Range": f"bytes */{len(given.body)}"})
    headers = {**given.headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(given.body)}"}
    return Answer(206, given.body[start:stop], headers)
