"""Where a loopback Hub keeps bytes: Git LFS objects by their SHA-256 on disk, and uploads in parts."""

from __future__ import annotations

import hashlib
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path

from skyset.errors import SkysetError


class Refused(SkysetError):
    """An answer other than success: status, message, and the Hub's ``X-Error-Code`` where it has one."""

    def __init__(self, status: int, message: str, code: str = "", **body):
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **body}


@dataclass(frozen=True)
class Blob:
    """A file's content: on disk where it is an LFS object, else in memory."""

    size: int
    oid: str
    sha256: str = ""
    content: bytes = b""

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


def git_blob(content: bytes) -> Blob:
    """A file that git itself holds."""
    return Blob(len(content), hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), content=content)


def lfs_blob(sha256: str, size: int) -> Blob:
    """A file that is a pointer to an LFS object."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return Blob(size, git_blob(pointer).oid, sha256)


@dataclass
class Upload:
    """A signed permission to send one object, in parts of ``part_bytes`` if that is not 0."""

    sha256: str
    size: int
    part_bytes: int
    etags: dict[int, str] = field(default_factory=dict)

    @property
    def parts(self) -> int:
        return -(-self.size // self.part_bytes) if self.part_bytes else 1

    def bytes_of(self, part: int) -> int:
        return min(self.part_bytes, self.size - (part - 1) * self.part_bytes) if self.part_bytes else self.size


class Objects:
    """The LFS objects of all repositories, in a folder.

    Attributes:
        sent: SHA-256 of each object that was sent whole, in order: twice where it was sent twice.
        received: bytes of bodies of objects, also of those that were cut or refused.
    """

    def __init__(self, folder: Path, part_from: int, part_bytes: int) -> None:
        self.folder, self._part_from, self._part_bytes = folder, part_from, part_bytes
        self.sent: list[str] = []
        self.received = 0
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def begin(self, sha256: str, size: int) -> tuple[str, Upload]:
        """A new upload and its signature."""
        if size <= 0:
            raise Refused(422, "an LFS object of no bytes")
        signature = secrets.token_hex(8)
        upload = Upload(sha256, size, self._part_bytes if size >= self._part_from else 0)
        with self._lock:
            self._uploads[signature] = upload
        return signature, upload

    def upload(self, signature: str) -> Upload:
        if signature not in self._uploads:
            raise Refused(403, "the request signature we calculated does not match the signature you provided")
        return self._uploads[signature]

    def _part(self, signature: str, part: int) -> Path:
        return self.folder / f"{signature}.{part}"

    def put(self, signature: str, part: int, chunks) -> str:
        """Keep a part, as it comes; its ETag.

        Raises:
            Refused: another number of bytes than was announced, or the object's SHA-256 is another one.
        """
        upload = self.upload(signature)
        if not 1 <= part <= upload.parts:
            raise Refused(400, f"part {part} of {upload.parts}")
        md5, sha256, count = hashlib.md5(), hashlib.sha256(), 0
        with open(self._part(signature, part), "wb") as file:
            for chunk in chunks:
                md5.update(chunk)
                sha256.update(chunk)
                count += len(chunk)
                file.write(chunk)
                with self._lock:
                    self.received += len(chunk)
        if count != upload.bytes_of(part):
            raise Refused(400, f"{count} bytes were sent, {upload.bytes_of(part)} announced")
        if not upload.part_bytes:
            if sha256.hexdigest() != upload.sha256:
                raise Refused(400, "the content's SHA-256 is not the object's")
            self._keep(upload.sha256, [self._part(signature, 1)])
        upload.etags[part] = md5.hexdigest()
        return md5.hexdigest()

    def complete(self, signature: str, sha256: str, parts: list[dict]) -> None:
        """Put an object together of its parts."""
        upload = self.upload(signature)
        named = {part["partNumber"]: str(part["etag"]).strip('"') for part in parts}
        if sha256 != upload.sha256 or named != upload.etags or len(named) != upload.parts:
            raise Refused(400, "the parts are not those that were sent")
        paths, digest = [self._part(signature, part) for part in sorted(named)], hashlib.sha256()
        for path in paths:
            digest.update(path.read_bytes())
        if digest.hexdigest() != sha256:
            raise Refused(400, "the content's SHA-256 is not the object's")
        self._keep(sha256, paths)

    def _keep(self, sha256: str, parts: list[Path]) -> None:
        first, *others = parts
        with open(first, "ab") as file:
            for path in others:
                file.write(path.read_bytes())
                path.unlink()
        first.replace(self.path(sha256))
        with self._lock:
            self.sent.append(sha256)

    def read(self, blob: Blob, start: int, stop: int) -> bytes:
        if not blob.sha256:
            return blob.content[start:stop]
        with open(self.path(blob.sha256), "rb") as file:
            file.seek(start)
            return file.read(stop - start)
