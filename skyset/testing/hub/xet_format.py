"""The two binary forms of the Xet protocol, xorbs and shards, as its specification (huggingface.co/docs/xet) has them.

A xorb is chunks of content one behind the other, each compressed alone behind a head of eight bytes. A shard tells of files
of which chunks of which xorbs they are made, and of new xorbs which chunks they have.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from skyset.testing.hub.objects import Refused

TAG = b"HFRepoMetaData\0" + bytes([85, 105, 103, 69, 106, 123, 129, 87, 131, 165, 189, 217, 92, 205, 209, 74, 169])
_HEADER = struct.Struct("<32sQQ")
_ENTRY = struct.Struct("<32s4I")  # heads and entries of files and of xorbs are all as long
_FOOTER_BYTES = 200
_END = b"\xff" * 32  # of a section
_VERIFIED, _WITH_SHA256 = 1 << 31, 1 << 30
_GLOBAL = 1 << 31  # a chunk by which others may be asked for
#: Behind the chunks of a xorb there may be a footer, which begins so.
_XORB_FOOTER = b"XETBLOB"
MOST_CHUNK, MOST_XORB = 128 << 10, 64 << 20
_LZ4 = pa.Codec("lz4")


def hash_text(raw: bytes) -> str:
    """A hash as Xet writes it: four little-endian numbers of 64 bits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


class Term(NamedTuple):
    """Some chunks of a xorb, one behind the other."""

    xorb: str
    bytes: int
    start: int
    stop: int


class XetFile(NamedTuple):
    """A file, and its SHA-256 where the client knows it."""

    hash: str
    terms: tuple[Term, ...]
    sha256: str

    @property
    def size(self) -> int:
        return sum(term.bytes for term in self.terms)


class XorbChunks(NamedTuple):
    """What a shard says of a xorb: head and entries as they are, the hash of each chunk, and whether it may be asked for."""

    hash: str
    raw: bytes
    chunks: tuple[str, ...]
    sizes: tuple[int, ...]
    known_to_all: tuple[bool, ...]


class Shard(NamedTuple):
    """The files and the new xorbs of an upload."""

    files: tuple[XetFile, ...]
    xorbs: tuple[XorbChunks, ...]


def read_shard(data: bytes) -> Shard:
    """What a client says of its upload.

    Raises:
        Refused: it is no shard.
    """
    try:
        tag, version, _ = _HEADER.unpack_from(data)
        if tag != TAG or version != 2:
            raise Refused(400, "no shard of version 2")
        files, at = _files(data, _HEADER.size)
        return Shard(tuple(files), tuple(_xorbs(data, at)))
    except struct.error:
        raise Refused(400, "the shard ends too early") from None


def _files(data: bytes, at: int) -> tuple[list[XetFile], int]:
    files: list[XetFile] = []
    while True:
        raw, flags, count, _, _ = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        if raw == _END:
            return files, at
        entries = [_ENTRY.unpack_from(data, at + number * _ENTRY.size) for number in range(count)]
        terms = tuple(Term(hash_text(xorb), size, start, stop) for xorb, _, size, start, stop in entries)
        at += count * _ENTRY.size * (2 if flags & _VERIFIED else 1)
        if not flags & _VERIFIED:
            raise Refused(400, "a file without verification of its terms")
        sha256 = ""
        if flags & _WITH_SHA256:
            sha256 = hash_text(_ENTRY.unpack_from(data, at)[0])
            at += _ENTRY.size
        files.append(XetFile(hash_text(raw), terms, sha256))


def _xorbs(data: bytes, at: int) -> Iterator[XorbChunks]:
    while True:
        raw, _, count, _, _ = _ENTRY.unpack_from(data, at)
        if raw == _END:
            return
        stop = at + (1 + count) * _ENTRY.size
        entries = [_ENTRY.unpack_from(data, start) for start in range(at + _ENTRY.size, stop, _ENTRY.size)]
        known = tuple(bool(flags & _GLOBAL) or _is_known(chunk) for chunk, _, _, flags, _ in entries)
        chunks, sizes = tuple(hash_text(each[0]) for each in entries), tuple(each[2] for each in entries)
        yield XorbChunks(hash_text(raw), data[at:stop], chunks, sizes, known)
        at = stop


def _is_known(chunk: bytes) -> bool:
    """Whether a chunk's hash is one of those by which the Hub lets ask for others: one in 1024."""
    return struct.unpack_from("<Q", chunk, 24)[0] % 1024 == 0


def shard_of(xorbs: tuple[XorbChunks, ...]) -> bytes:
    """A shard that tells which chunks some xorbs have, whole with its tables, valid for a day."""
    end = _ENTRY.pack(_END, 0, 0, 0, 0)
    start = _HEADER.size + len(end)
    info = b"".join(xorb.raw for xorb in xorbs) + end
    of_xorbs, of_chunks, index = [], [], 0
    for xorb in xorbs:
        of_xorbs.append((struct.unpack_from("<Q", xorb.raw)[0], index))
        for number in range(len(xorb.chunks)):
            short = struct.unpack_from("<Q", xorb.raw, (1 + number) * _ENTRY.size)[0]
            of_chunks.append((short, index, number))
        index += 1 + len(xorb.chunks)
    tables = b"".join(struct.pack("<QI", *each) for each in sorted(of_xorbs))
    at_xorbs = start + len(info)
    at_chunks = at_xorbs + len(tables)
    tables += b"".join(struct.pack("<QII", *each) for each in sorted(of_chunks))
    at_footer, now, size = at_xorbs + len(tables), int(time.time()), sum(sum(xorb.sizes) for xorb in xorbs)
    offsets = (1, _HEADER.size, start, at_xorbs, 0, at_xorbs, len(of_xorbs), at_chunks, len(of_chunks))
    footer = struct.pack("<9Q32s2Q48s4Q", *offsets, b"", now, now + 86_400, b"", 0, 0, size, at_footer)
    return _HEADER.pack(TAG, 2, _FOOTER_BYTES) + end + info + tables + footer


class Chunk(NamedTuple):
    """Where a chunk lies in a xorb: its head's first byte and the byte after its last, how it is compressed, its size."""

    start: int
    stop: int
    scheme: int
    size: int


def chunks_of(xorb: bytes) -> list[Chunk]:
    """The chunks of a xorb.

    Raises:
        Refused: it is none.
    """
    if len(xorb) > MOST_XORB:
        raise Refused(413, "a xorb of more than 64 MiB")
    found, at = [], 0
    while at < len(xorb) and xorb[at : at + 7] != _XORB_FOOTER:
        if at + 8 > len(xorb) or xorb[at] != 0:
            raise Refused(400, "no head of a chunk where one must be")
        packed, size = (int.from_bytes(xorb[at + first : at + first + 3], "little") for first in (1, 5))
        stop = at + 8 + packed
        if stop > len(xorb) or size > MOST_CHUNK or xorb[at + 4] > 2:
            raise Refused(400, "a chunk that cannot be one")
        found.append(Chunk(at, stop, xorb[at + 4], size))
        at = stop
    if not found:
        raise Refused(400, "a xorb without chunks")
    return found


def unpacked(xorb: bytes, chunk: Chunk) -> bytes:
    """The content of a chunk."""
    packed = xorb[chunk.start + 8 : chunk.stop]
    if chunk.scheme == 0:
        content = packed
    else:
        try:
            content = _LZ4.decompress(packed, chunk.size, asbytes=True)
        except OSError as error:
            raise Refused(400, f"a chunk cannot be unpacked: {error}") from None
        content = _regrouped(content) if chunk.scheme == 2 else content
    if len(content) != chunk.size:
        raise Refused(400, "a chunk of another size than its head says")
    return content


def _regrouped(content: bytes) -> bytes:
    """Bytes 0, 4, 8 ... came first, then 1, 5, 9 ..., as they compress better so."""
    given, into = np.frombuffer(content, np.uint8), np.empty(len(content), np.uint8)
    at = 0
    for first in range(4):
        part = into[first::4]
        part[:] = given[at : at + len(part)]
        at += len(part)
    return into.tobytes()
