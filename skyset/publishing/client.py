"""The Hub, as a push needs it: what is there, sending a file, committing; its errors as one line each.

All goes through ``huggingface_hub``: its login, its address (``HF_ENDPOINT``), and Xet where that is installed.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.lfs import UploadInfo
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, validate_repo_id

from skyset.errors import SkysetError, UserError
from skyset.http import PASSING, innermost, pause, retry_after
from skyset.messages import plain
from skyset.publishing.journal import Sent
from skyset.secrets import hide
from skyset.versions import __version__

Operation = CommitOperationAdd | CommitOperationDelete

#: Of a commit that met a passing fault, and of an object on top of those of ``huggingface_hub`` itself.
TRIES = 5
BACKOFF = 1.0  # seconds
_CLASHES = (409, 412)
#: Packages whose errors are the network's, in one or the other version of ``huggingface_hub``.
_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


class Moved(SkysetError):
    """Somebody else has changed the branch meanwhile: look again at what is there."""


class ObjectsGone(SkysetError):
    """Files that were sent are no longer kept by the Hub: they must be sent again."""


@dataclass(frozen=True)
class State:
    """A branch: its newest commit, and of every file its SHA-256, or Git's SHA-1 where Git itself holds it."""

    head: str
    files: dict[str, str]


class Hub:
    """One branch of a repository of data.

    Args:
        name: ``ORG/NAME``.
        revision: the branch.

    Raises:
        UserError: the name is none.
    """

    #: Files of a commit that the Hub advises.
    most_files = 100

    def __init__(self, name: str, revision: str) -> None:
        if name.count("/") != 1:
            raise UserError(f"--repo {name}: it is ORG/NAME, or your own name and NAME")
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise UserError(f"--repo {name}: {error}") from error
        self.name, self.revision = name, revision
        self.api = HfApi(library_name="skyset", library_version=__version__)

    @property
    def page(self) -> str:
        """Where people look at it."""
        return f"{constants.ENDPOINT}/datasets/{self.name}"

    def log_in(self) -> str:
        """The user's name; UserError without a login that the Hub takes."""
        if token := get_token():
            hide(token)
        with self._told():
            return self.api.whoami()["name"]

    def exists(self) -> bool:
        with self._told():
            return self.api.repo_exists(self.name, repo_type="dataset")

    def create(self, private: bool, gated: str = "") -> None:
        """Make the repository and the branch, where they are not there; ``gated``: ``auto`` or ``manual``."""
        with self._told():
            self.api.create_repo(self.name, repo_type="dataset", private=private or None, exist_ok=True)
            if self.revision != constants.DEFAULT_REVISION and not self.revision.startswith("refs/"):
                self.api.create_branch(self.name, branch=self.revision, repo_type="dataset", exist_ok=True)
            if gated:
                self.api.update_repo_settings(self.name, repo_type="dataset", gated=gated)  # type: ignore[arg-type]

    def state(self, revision: str | None = None) -> State:
        """What is there now."""
        with self._told():
            info = self.api.dataset_info(self.name, revision=revision or self.revision)
            head = str(info.sha)
            tree = self.api.list_repo_tree(self.name, repo_type="dataset", revision=head, recursive=True)
            files = {entry.path: _etag(entry) for entry in tree if hasattr(entry, "blob_id")}
        return State(head, files)

    def content(self, path: str, head: str, folder: Path) -> bytes | None:
        """A file of a commit, None where there is none."""
        with self._told():
            try:
                return Path(self._downloaded(path, head, folder)).read_bytes()
            except EntryNotFoundError:
                return None

    def _downloaded(self, path: str, head: str, folder: Path) -> str:
        return str(self.api.hf_hub_download(self.name, path, repo_type="dataset", revision=head, cache_dir=folder / "cache"))

    def send(self, path: str, file: Path, sha256: str, rows: int = 0) -> Sent | None:
        """Send a file's bytes, which nobody sees before a commit names them; None where Git itself is to hold it."""
        operation = CommitOperationAdd(path, file)
        with contextlib.suppress(AttributeError):  # older ones have read the file already
            operation.upload_info.sha256 = bytes.fromhex(sha256)
        if _is_binary(file):
            vars(operation).update(_upload_mode="lfs", _should_ignore=False)
        self._again(
            lambda: self.api.preupload_lfs_files(
                self.name, [operation], repo_type="dataset", revision=self.revision, num_threads=1
            )
        )
        if vars(operation)["_upload_mode"] != "lfs":
            return None
        return Sent(sha256, operation.upload_info.size, rows)

    def commit(self, operations: Sequence[Operation], message: str, revision: str, parent: str) -> None:
        """One commit on top of ``parent``.

        Raises:
            Moved: that is no longer the newest; also where the answer to a commit that was made got lost.
            ObjectsGone: the Hub has thrown away what was sent.
        """
        self._commit(operations, message, revision=revision, parent_commit=parent)

    def open_pull(self, operations: Sequence[Operation], message: str) -> int:
        """A pull request with a first commit; its number."""
        info = self._commit(operations, message, create_pr=True)
        return int(info.pr_num or 0)

    def _commit(self, operations: Sequence[Operation], message: str, **options):
        def once():
            return self.api.create_commit(
                self.name, list(operations), commit_message=message, repo_type="dataset", **options
            )

        try:
            return self._again(once)
        except HfHubHTTPError as error:
            if error.response.status_code in _CLASHES:
                raise Moved(plain(error.server_message or error)) from error
            if "does not exist" in str(error) and "pointer" in str(error):
                raise ObjectsGone(plain(error.server_message or error)) from error
            raise

    def completed(self, beside: Mapping[str, bytes], etags: Mapping[str, str]) -> dict[str, bytes]:
        """The small files of a push; ``etags``: those of all others, by path."""
        return dict(beside)

    def pull_is_open(self, number: int) -> bool:
        """Whether a pull request is there and can be filled."""
        with self._told():
            try:
                found = self.api.get_discussion_details(self.name, number, repo_type="dataset")
            except HfHubHTTPError as error:
                if error.response.status_code == 404:
                    return False
                raise
        return found.status in ("open", "draft")

    def merge(self, number: int) -> None:
        """Make visible what a pull request holds; Moved where somebody else has changed the same files."""
        try:
            self._again(lambda: self.api.merge_pull_request(self.name, number, repo_type="dataset"))
        except HfHubHTTPError as error:
            if error.response.status_code in _CLASHES:
                raise Moved(plain(error.server_message or error)) from error
            raise

    def close_pull(self, number: int) -> None:
        """Give a pull request up."""
        with self._told():
            self.api.change_discussion_status(self.name, number, new_status="closed", repo_type="dataset")

    def _again(self, action: Callable):
        """What ``action`` gives, tried again after faults that pass; a commit's clash goes out as it is."""
        for failed in range(1, TRIES + 1):
            try:
                with self._told():
                    return action()
            except _Passing as fault:
                if failed == TRIES:
                    raise UserError(f"{fault}; the same command goes on from here") from fault
                time.sleep(pause(failed, BACKOFF, fault.wait))
        raise AssertionError  # the loop ends in one or the other

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What the Hub and the network say, as a UserError."""
        try:
            yield
        except Exception as error:
            told = self._in_a_line(error)
            if told is error:
                raise
            raise told from error

    def _in_a_line(self, error: Exception) -> Exception:
        cause = _cause(error)
        if isinstance(cause, LocalTokenNotFoundError):
            return UserError("there is no login for the Hub: `hf auth login`, or set HF_TOKEN to a token that may write")
        if isinstance(cause, EntryNotFoundError | SkysetError):
            return cause
        if isinstance(cause, RevisionNotFoundError):
            return UserError(f"{self.name} has no branch {self.revision}")
        if isinstance(cause, RepositoryNotFoundError):
            return UserError(f"there is no repository of data {self.name} on the Hub, or this login may not see it")
        if isinstance(cause, OfflineModeIsEnabled):
            return UserError("HF_HUB_OFFLINE is set: nothing is asked of the Hub")
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            return self._refusal(cause)
        if type(cause).__module__.partition(".")[0] in _NETWORK or isinstance(cause, ConnectionError | TimeoutError):
            told = innermost(cause)
            if type(cause) is ConnectionError and "hf_xet" in sys.modules:  # it has tried for minutes itself
                what = "refuses" if "client error" in told else "cannot be reached"
                return UserError(f"the Hub {what}: {told}; the same command goes on from here")
            return _Passing(f"the Hub cannot be reached: {told}")
        if isinstance(cause, ValueError):  # of the card's metadata
            return UserError(f"the Hub: {cause}")
        return error

    def _refusal(self, error: HfHubHTTPError) -> Exception:
        status, said = error.response.status_code, plain(error.server_message or error, 300)
        if status == 401:
            return UserError("the Hub does not take this login: `hf auth login` again, or set HF_TOKEN anew")
        if status == 403:
            return UserError(f"this login may not write to {self.name}: {said}")
        if status in PASSING:
            return _Passing(f"the Hub answers {status}: {said}", retry_after(error.response))  # type: ignore[arg-type]
        if status in _CLASHES or status == 404 or "pointer" in said:
            return error
        return UserError(f"the Hub refuses: {said}")


class _Passing(UserError):
    """A fault that a later try may not meet; ``wait``: seconds that the Hub asks for."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """``huggingface_hub`` prints nothing: neither bars of its own nor the signed addresses of faults that pass."""
    logger = logging.getLogger("huggingface_hub")
    level, bars = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()


def _cause(error: BaseException) -> BaseException:
    """Uploads wrap what went wrong in a RuntimeError that names the file."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def _etag(entry) -> str:
    return entry.lfs.sha256 if entry.lfs else entry.blob_id


def _is_binary(file: Path) -> bool:
    """Whether Git would take a file for no text. The Hub is shown 512 bytes of it, and a FITS file begins with text."""
    try:
        with open(file, "rb") as opened:
            return b"\0" in opened.read(1 << 16)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def named(path: str, sent: Sent) -> CommitOperationAdd:
    """A commit's mention of a file whose bytes were sent before, maybe by another process: none are here."""
    operation = CommitOperationAdd(path, b"")
    operation.upload_info = UploadInfo(size=sent.bytes, sample=b"", sha256=bytes.fromhex(sent.sha256))
    # What ``preupload_lfs_files`` leaves, as the same object would have it in the process that sent it.
    vars(operation).update(_upload_mode="lfs", _should_ignore=False, _is_uploaded=True)
    return operation
