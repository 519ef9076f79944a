"""What a loopback Hub keeps by the Xet protocol: xorbs that clients send, and the files made of their chunks."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
import threading
import time
from itertools import accumulate, pairwise
from pathlib import Path

from skyset.testing.hub.objects import Objects, Refused
from skyset.testing.hub.xet_format import Chunk, Shard, Term, XetFile, XorbChunks, chunks_of, read_shard, shard_of, unpacked

#: Seconds that a token lasts.
LASTS = 3600


class Xet:
    """The xorbs of all repositories and buckets, in a folder; files are put together in ``objects`` as they are announced.

    Attributes:
        received: bytes of the bodies of all xorbs and shards that clients sent.
        xorbs_sent: hash of each xorb that was sent, in order: twice where it was sent twice.
        files: what a file is made of, by its Xet hash.
        sha256: of a file, by its Xet hash.
        hashes: the Xet hash of a file, by its SHA-256.
    """

    def __init__(self, folder: Path, objects: Objects) -> None:
        self.folder, self.objects = folder, objects
        self.received = 0
        self.xorbs_sent: list[str] = []
        self.files: dict[str, XetFile] = {}
        self.sha256: dict[str, str] = {}
        self.hashes: dict[str, str] = {}
        self._tokens: dict[str, tuple[str, float]] = {}
        self._chunks: dict[str, list[Chunk]] = {}
        self._known: dict[str, tuple[XorbChunks, ...]] = {}  # the xorbs of a shard, by a chunk's hash
        self._beside: dict[str, tuple[XorbChunks, ...]] = {}  # the same, by the hash of one of them
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, xorb: str) -> Path:
        return self.folder / xorb

    def new_token(self, scope: str) -> tuple[str, int]:
        """A token that lets in here, to ``read`` or ``write``, and when it ends."""
        token, until = f"xet_{secrets.token_hex(16)}", int(time.time()) + LASTS
        with self._lock:
            self._tokens[token] = (scope, until)
        return token, until

    def check(self, token: str, scope: str) -> None:
        """Refused unless a token lets in."""
        given, until = self._tokens.get(token, ("", 0))
        if until < time.time():
            raise Refused(401, "no token of this storage, or one that has ended")
        if scope == "write" and given != "write":
            raise Refused(403, "the token may only read")

    def take_xorb(self, xorb: str, body: bytes) -> bool:
        """Keep a xorb; whether it is new."""
        chunks = chunks_of(body)
        is_new = not self.path(xorb).is_file()
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".", delete=False) as file:
            file.write(body)
        Path(file.name).replace(self.path(xorb))
        with self._lock:
            self._chunks[xorb] = chunks
            self.xorbs_sent.append(xorb)
            self.received += len(body)
        return is_new

    def take_shard(self, body: bytes) -> None:
        """Make the files of which a client tells; all are whole before it hears so."""
        shard = read_shard(body)
        for xorb in shard.xorbs:
            self._check_xorb(xorb)
        for file in shard.files:
            self._make(file)
        with self._lock:
            self.received += len(body)
        self._remember(shard)

    def _check_xorb(self, xorb: XorbChunks) -> None:
        known = self._chunks.get(xorb.hash)
        if known is None or [chunk.size for chunk in known] != list(xorb.sizes):
            raise Refused(400, f"the shard tells of a xorb {xorb.hash} that was not sent so")

    def _remember(self, shard: Shard) -> None:
        with self._lock:
            for xorb in shard.xorbs:
                self._beside[xorb.hash] = shard.xorbs
                for chunk, is_known in zip(xorb.chunks, xorb.known_to_all, strict=True):
                    if is_known:
                        self._known[chunk] = shard.xorbs
            for term in (file.terms[0] for file in shard.files if file.terms):  # by its first chunk each file can be found
                beside = self._beside[term.xorb]
                chunks = next(xorb.chunks for xorb in beside if xorb.hash == term.xorb)
                self._known.setdefault(chunks[term.start], beside)

    def _make(self, file: XetFile) -> None:
        """Put a file together, and look whether it is the one that the client meant."""
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".", delete=False) as made:
            for term in file.terms:
                content = self._content(term)
                digest.update(content)
                made.write(content)
        path, sha256 = Path(made.name), digest.hexdigest()
        if file.sha256 not in ("", sha256) or _hash_of(path) != file.hash:
            path.unlink()
            raise Refused(400, f"the chunks do not make the file {file.hash}")
        path.replace(self.objects.path(sha256))
        with self._lock:
            self.files[file.hash], self.sha256[file.hash], self.hashes[sha256] = file, sha256, file.hash

    def _content(self, term: Term) -> bytes:
        chunks = self._chunks.get(term.xorb, [])[term.start : term.stop]
        if len(chunks) != term.stop - term.start or sum(chunk.size for chunk in chunks) != term.bytes:
            raise Refused(400, f"a file is made of chunks that the xorb {term.xorb} does not have")
        xorb = self.path(term.xorb).read_bytes()
        return b"".join(unpacked(xorb, chunk) for chunk in chunks)

    def terms_of(self, file: str, first: int, stop: int | None) -> tuple[list[Term], int]:
        """Of which chunks some bytes of a file are made, and how many bytes of the first lie before these."""
        known = self.files.get(file)
        if known is None:
            raise Refused(404, "File not found")
        if first >= max(known.size, 1):
            raise Refused(416, "Range Not Satisfiable")
        return _clipped(known.terms, first, known.size if stop is None else stop, self._chunks)

    def bytes_of(self, term: Term) -> tuple[int, int]:
        """First and last byte of a term's chunks in their xorb."""
        chunks = self._chunks[term.xorb][term.start : term.stop]
        return chunks[0].start, chunks[-1].stop - 1

    def known_chunk(self, chunk: str) -> bytes:
        """The xorbs in which a chunk lies that somebody sent before, as a shard: it need not be sent again."""
        if chunk not in self._known:
            raise Refused(404, "nobody has sent this chunk")
        return shard_of(self._known[chunk])


def _hash_of(path: Path) -> str:
    """The Xet hash of a file, by the field's own implementation."""
    import hf_xet

    return hf_xet.hash_files([str(path)])[0].hash


def _clipped(terms: tuple[Term, ...], first: int, stop: int, chunks: dict[str, list[Chunk]]) -> tuple[list[Term], int]:
    """The terms with some bytes of a file, whole chunks, and how many bytes of the first term lie before these."""
    kept: list[Term] = []
    at = before = 0
    for term in terms:
        sizes = (chunk.size for chunk in chunks[term.xorb][term.start : term.stop])
        bounds = list(accumulate(sizes, initial=at))
        inside = [number for number, (begin, end) in enumerate(pairwise(bounds)) if end > first and begin < stop]
        if inside:
            begin, end = inside[0], inside[-1] + 1
            before = before if kept else first - bounds[begin]
            kept.append(Term(term.xorb, bounds[end] - bounds[begin], term.start + begin, term.start + end))
        at = bounds[-1]
    return kept, before
