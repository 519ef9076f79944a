"""The repositories and buckets of a loopback Hub: commits with their trees, branches, pull requests, who may do what."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from skyset.testing.hub.objects import Blob, Objects, Refused, git_blob, lfs_blob

#: What the Hub writes into a new repository of data: these endings are LFS objects, whatever their size.
_ENDINGS = """
7z arrow avro bin bz2 gz h5 joblib lz4 npy npz parquet pickle pkl pt pth rar safetensors tar tgz wasm xz zip zst
pcm wav jpg jpeg png webp mp4
"""
LARGE = tuple(_ENDINGS.split())
ATTRIBUTES = "".join(f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LARGE).encode()
#: Bytes of a file that git itself takes.
LARGEST_REGULAR = 10 << 20
MOST_ENTRIES = 10_000
_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9])?")


@dataclass
class Commit:
    """One state of all files."""

    oid: str
    parent: str
    tree: dict[str, Blob]
    title: str
    author: str
    date: str


@dataclass
class PullRequest:
    number: int
    title: str
    author: str
    base: str  # the commit that it started from
    status: str = "open"


@dataclass
class Repository:
    """One repository; ``refs`` are full names (``refs/heads/main``) to commits."""

    kind: str
    name: str
    private: bool = False
    gated: str | bool = False
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    pulls: dict[int, PullRequest] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def ref(self, revision: str) -> str:
        """The full name of a branch or pull request."""
        name = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        if name not in self.refs:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return name

    def commit(self, revision: str) -> Commit:
        found = revision if revision in self.commits else self.tags.get(revision) or self.refs[self.ref(revision)]
        return self.commits[found]

    def add(self, ref: str, tree: dict[str, Blob], title: str, author: str) -> Commit:
        """A further commit on a branch."""
        with self.lock:
            parent = self.refs.get(ref, "")
            _check_folders(tree)
            listed = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(tree.items()))
            text = f"{parent}\n{title}\n{author}\n{len(self.commits)}\n{listed}"
            oid = hashlib.sha1(text.encode()).hexdigest()
            date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            self.commits[oid] = Commit(oid, parent, tree, title, author, date)
            self.refs[ref] = oid
            return self.commits[oid]

    def open_pull(self, title: str, author: str) -> PullRequest:
        with self.lock:
            number = len(self.pulls) + 1
            base = self.refs["refs/heads/main"]
            self.pulls[number] = PullRequest(number, title, author, base)
            self.refs[f"refs/pr/{number}"] = base
            return self.pulls[number]

    def pull(self, number: int) -> PullRequest:
        if number not in self.pulls:
            raise Refused(404, "Discussion not found")
        return self.pulls[number]

    def merge(self, number: int, author: str) -> Commit:
        """What a pull request changed, onto main as it is now.

        Raises:
            Refused: it is not open, or both changed a file.
        """
        with self.lock:
            pull = self.pull(number)
            if pull.status != "open":
                raise Refused(400, f"This pull request is {pull.status}")
            base, mine = self.commits[pull.base].tree, self.commit(f"refs/pr/{number}").tree
            theirs = self.commit("main").tree
            changed = {path for path in base.keys() | mine.keys() if base.get(path) != mine.get(path)}
            if any(theirs.get(path) not in (base.get(path), mine.get(path)) for path in changed):
                raise Refused(409, "This branch has merge conflicts that must be resolved")
            tree = {path: blob for path, blob in theirs.items() if path not in changed}
            tree |= {path: mine[path] for path in changed if path in mine}
            pull.status = "merged"
            return self.add("refs/heads/main", tree, f"{pull.title} (#{number})", author)


@dataclass(frozen=True)
class BucketFile:
    """A file's content by its Xet hash, and when it was put there."""

    xet_hash: str
    size: int
    mtime: str
    uploaded: str


@dataclass
class Bucket:
    """One bucket."""

    name: str
    private: bool = False
    created: str = ""
    files: dict[str, BucketFile] = field(default_factory=dict)


def check_path(path: str) -> str:
    """Refused unless git and the Hub take a file of this path."""
    parts = path.split("/")
    if not path or any(part in ("", ".", "..", ".git") or len(part.encode()) > 255 for part in parts) or "\\" in path:
        raise Refused(400, f"Invalid path: {path}")
    return path


def _check_folders(tree: Iterable[str]) -> None:
    entries: dict[str, set[str]] = {}
    for path in tree:
        parts = path.split("/")
        for depth, part in enumerate(parts):
            entries.setdefault("/".join(parts[:depth]), set()).add(part)
    for folder, names in entries.items():
        if len(names) > MOST_ENTRIES:
            raise Refused(413, f"Your push was rejected because {folder or '/'} has more than {MOST_ENTRIES} entries")
    if mixed := set(tree) & entries.keys():
        raise Refused(400, f"{sorted(mixed)[0]} is a file and a folder")


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether the Hub wants a file as LFS object."""
    return path.rpartition(".")[2] in LARGE or size > LARGEST_REGULAR or b"\0" in sample


@dataclass
class Accounts:
    """Who has which token, and may write where."""

    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)  # user, role
    organisations: dict[str, tuple[str, ...]] = field(default_factory=dict)  # who is in it

    def may_write(self, token: str | None, namespace: str) -> bool:
        user, role = self.tokens.get(token or "", ("", ""))
        return role == "write" and (user == namespace or user in self.organisations.get(namespace, ()))

    def is_in(self, token: str | None, namespace: str) -> bool:
        user = self.tokens.get(token or "", ("", ""))[0]
        return bool(user) and (user == namespace or user in self.organisations.get(namespace, ()))


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith(".git"):
        raise Refused(400, f'"name" with value "{name}" fails to match the required pattern')


def committed(repository: Repository, objects: Objects, ref: str, body: bytes, author: str) -> Commit:
    """Apply a commit as ``huggingface_hub`` sends it, a JSON value a line.

    Raises:
        Refused: it is not what the real Hub takes: a parent that is no longer the head (412), an object that was not sent.
    """
    lines = [json.loads(line) for line in body.splitlines() if line.strip()]
    if not lines or lines[0].get("key") != "header" or not lines[0]["value"].get("summary"):
        raise Refused(400, "a commit begins with its header")
    header = lines[0]["value"]
    with repository.lock:
        head = repository.commit(ref)
        if header.get("parentCommit") not in (None, head.oid):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(head.tree)
        for line in lines[1:]:
            _apply(tree, line["key"], line["value"], objects)
        return repository.add(ref, tree, header["summary"], author)


def _apply(tree: dict[str, Blob], key: str, value: dict, objects: Objects) -> None:
    path = check_path(value["path"].rstrip("/") if key == "deletedFolder" else value["path"])
    if key == "file":
        content = base64.b64decode(value["content"], validate=True)
        if len(content) > LARGEST_REGULAR or (b"\0" in content):
            raise Refused(400, f"Your push was rejected because it contains binary or large files: {path} (use LFS)")
        tree[path] = git_blob(content)
    elif key == "lfsFile":
        if value.get("algo") != "sha256" or not objects.has(value["oid"]):
            raise Refused(
                400, f"Your push was rejected because an LFS pointer pointed to a file that does not exist: {path}"
            )
        tree[path] = lfs_blob(value["oid"], objects.path(value["oid"]).stat().st_size)
    elif key in ("deletedFile", "deletedFolder"):
        gone = [each for each in tree if each == path or (key == "deletedFolder" and each.startswith(f"{path}/"))]
        if not gone:
            raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for each in gone:
            del tree[each]
    else:
        raise Refused(400, f"unknown operation {key}")
