"""Storage buckets of the Hub, as a push needs them: files by path, without commits; their bytes go by Xet alone.

How a push stays invisible until it is whole: files are sent under names that begin with a dot, which no reader lists. One
batch then copies them to their own names, which moves no bytes, puts the card and the list of files beside them, and takes
the others away. The Hub has no state of a whole bucket to compare with: of two pushes at a time the later one wins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import huggingface_hub
from huggingface_hub import CommitOperationAdd, constants
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from skyset.errors import UserError
from skyset.partitions.layout import MANIFEST
from skyset.publishing.client import Hub, Operation, State
from skyset.publishing.journal import Journal, Sent
from skyset.publishing.record import PUBLISHED, Record, listed

#: Where files wait for their names, each by its SHA-256.
WAITING = ".skyset-push"
#: Of one batch; ``huggingface_hub`` cuts longer ones into pieces, and goes on after one that failed.
MOST_OPERATIONS = 1000


def check_installed() -> None:
    """Raise UserError where buckets cannot be written: by an old ``huggingface_hub``, or without Xet."""
    if not hasattr(huggingface_hub, "batch_bucket_files"):
        raise UserError("--bucket needs huggingface_hub >= 2: pip install -U huggingface_hub")
    try:
        import hf_xet  # noqa: F401
    except ImportError:
        raise UserError("--bucket needs Xet: pip install hf_xet") from None


class BucketHub(Hub):
    """A bucket.

    A file's checksum is its SHA-256, or what the list of files says, where its Xet hash is known; else ``xet:`` and that.

    Args:
        name: ``ORG/NAME``.
        journal: of the push.

    Raises:
        UserError: the name is none, or this installation knows no buckets.
    """

    most_files = 1 << 62  # one batch, however many

    def __init__(self, name: str, journal: Journal) -> None:
        check_installed()
        super().__init__(name, constants.DEFAULT_REVISION)
        self._journal = journal
        self._etags = {sent.xet: sent.sha256 for sent in journal.sent.values()}
        self._hashes = {etag: xet_hash for xet_hash, etag in self._etags.items()}
        self._waiting: dict[str, str] = {}

    @property
    def page(self) -> str:
        return f"{constants.ENDPOINT}/buckets/{self.name}"

    def create(self, private: bool, gated: str = "") -> None:
        with self._told():
            self.api.create_bucket(self.name, private=private or None, exist_ok=True)

    def state(self, revision: str | None = None) -> State:
        """What is there now; what waits for its name is not among it."""
        with self._told():
            tree = {e.path: e.xet_hash for e in self.api.list_bucket_tree(self.name, recursive=True) if e.type == "file"}
        there = set(tree.values())
        self._journal.forget([made_of for made_of, sent in self._journal.sent.items() if sent.xet not in there])
        self._waiting = {path: tree.pop(path) for path in list(tree) if path.startswith(f"{WAITING}/")}
        for name in (MANIFEST, PUBLISHED):
            if name in tree and tree[name] not in self._etags:
                self._learn(tree[name], self.content(name, "", self._journal.folder) or b"")
        files = {path: self._etags.get(xet_hash, f"xet:{xet_hash}") for path, xet_hash in tree.items()}
        self._hashes |= {self._etags[xet_hash]: xet_hash for xet_hash in tree.values() if xet_hash in self._etags}
        return State("", files)

    def _learn(self, xet_hash: str, text: bytes) -> None:
        """Which checksum belongs to which Xet hash, as the list of files says."""
        record = Record()
        record.take("", text)
        self._etags[xet_hash] = hashlib.sha256(text).hexdigest()
        self._etags |= {each: record.files[path] for path, each in listed(text, "xet").items() if path in record.files}

    def content(self, path: str, head: str, folder: Path) -> bytes | None:
        with self._told(), TemporaryDirectory(dir=folder, prefix=".") as scratch:
            file = Path(scratch, "file")
            try:
                self.api.download_bucket_files(self.name, [(path, file)], raise_on_missing_files=True)
            except EntryNotFoundError:
                return None
            return file.read_bytes()

    def send(self, path: str, file: Path, sha256: str, rows: int = 0) -> Sent | None:
        """Send a file's bytes, which wait under a name of their own."""
        where = f"{WAITING}/{sha256}"
        if where not in self._waiting:
            self._again(lambda: self.api.batch_bucket_files(self.name, add=[(file, where)]))
            with self._told():
                self._waiting[where] = next(iter(self.api.get_bucket_paths_info(self.name, [where]))).xet_hash
        xet_hash = self._waiting[where]
        self._etags[xet_hash], self._hashes[sha256] = sha256, xet_hash
        return Sent(sha256, file.stat().st_size, rows, xet_hash)

    def completed(self, beside: Mapping[str, bytes], etags: Mapping[str, str]) -> dict[str, bytes]:
        """The small files; their list has the Xet hash of each file too, by which a later push knows it."""
        name = MANIFEST if MANIFEST in beside else PUBLISHED
        others = [path for path in beside if path != name]
        with TemporaryDirectory(dir=self._journal.folder, prefix=".") as scratch:
            files = [Path(scratch, str(number)) for number in range(len(others))]
            for path, file in zip(others, files, strict=True):
                file.write_bytes(beside[path])
            known = dict(zip(others, hashes_of(files), strict=True))
        known |= {path: self._hashes[etag] for path, etag in etags.items() if etag in self._hashes}
        values = {**json.loads(beside[name]), "xet": dict(sorted(known.items()))}
        return {**beside, name: (json.dumps(values, indent=1) + "\n").encode()}

    def commit(self, operations: Sequence[Operation], message: str, revision: str, parent: str) -> None:
        """Give what was sent its names, put the small files beside it, take away what is no longer wanted."""
        add, copy, delete = [], [], []
        for operation in operations:
            if not isinstance(operation, CommitOperationAdd):
                delete.append(operation.path_in_repo)
            elif vars(operation).get("_is_uploaded"):
                xet_hash = self._hashes[operation.upload_info.sha256.hex()]
                copy.append(("bucket", self.name, xet_hash, operation.path_in_repo))
            else:
                add.append((operation.path_or_fileobj, operation.path_in_repo))
        ours = {f"{WAITING}/{sent.sha256}" for sent in self._journal.sent.values()}
        delete += [path for path in self._waiting if path in ours]
        if len(add) + len(copy) + len(delete) <= MOST_OPERATIONS:
            self._batch(add=add, copy=copy, delete=delete)
            return
        for start in range(0, len(copy), MOST_OPERATIONS):
            self._batch(copy=copy[start : start + MOST_OPERATIONS])
        self._batch(add=add)
        for start in range(0, len(delete), MOST_OPERATIONS):
            self._batch(delete=delete[start : start + MOST_OPERATIONS])

    def _batch(self, delete: Sequence[str] = (), **operations) -> None:
        """One batch. What is to go and is not there is no fault: the answer to an earlier try may have got lost."""

        def once() -> None:
            try:
                self.api.batch_bucket_files(self.name, delete=list(delete), **operations)
            except HfHubHTTPError as error:
                failed = {failure["path"] for failure in getattr(error, "failures", [])}  # of a batch, of newer versions
                if not failed or not failed <= set(delete):
                    raise

        self._again(once)


def hashes_of(files: Sequence[Path]) -> list[str]:
    """The Xet hash of each file."""
    import hf_xet

    return [found.hash for found in hf_xet.hash_files([str(file) for file in files])] if files else []
