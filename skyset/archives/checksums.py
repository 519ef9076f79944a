"""Checksums: of a file, and the lists that archives publish."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from skyset.files import is_plain_name
from skyset.raw import open_regular

LABELS = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha512": "SHA-512"}
CHECKSUM_LINE = re.compile(r"(?P<hex>[0-9a-fA-F]{32,128})[ \t]{1,2}\*?(?:\./)?(?P<name>\S.*)")


@dataclass(frozen=True)
class Checksum:
    """What a file must hash to: `algorithm` (a key of `LABELS`) and `digest` (lower-case hex)."""

    algorithm: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """``"sha1:12ab..."``; ValueError if it is anything else."""
        algorithm, _, digest = text.lower().partition(":")
        if algorithm not in LABELS or not re.fullmatch("[0-9a-f]+", digest):
            raise ValueError(f"{text!r} is not a checksum like 'sha1:<hex>' ({', '.join(LABELS)})")
        if len(digest) != 2 * hashlib.new(algorithm).digest_size:
            raise ValueError(f"{text!r} has {len(digest)} hex digits, not as many as {LABELS[algorithm]}")
        return cls(algorithm, digest)

    def of(self, path: Path) -> str:
        """The digest that the file at `path` has."""
        with open_regular(path) as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest()

    def fits(self, path: Path) -> bool:
        """Whether the file at `path` is the one meant."""
        return self.of(path) == self.digest


def read_checksums(text: str) -> dict[str, str]:
    """Hex digest by file name, from a list as ``sha1sum`` or ``md5sum`` writes it.

    One or two blanks, a ``*`` for binary mode and ``./`` before the name may stand between them; empty lines
    and those that begin with ``#`` are passed over.

    Raises:
        ValueError: a line is something else, names another folder, or contradicts an earlier line.
    """
    digests: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = CHECKSUM_LINE.fullmatch(line.rstrip())
        if match is None:
            raise ValueError(f"line {number}: not a checksum and a name: {line[:80]!r}")
        name, digest = match["name"], match["hex"].lower()
        if not is_plain_name(name):
            raise ValueError(f"line {number}: not a plain file name: {name[:80]!r}")
        if digests.setdefault(name, digest) != digest:
            raise ValueError(f"line {number}: a second, different checksum for {name}")
    return digests
