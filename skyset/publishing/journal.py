"""What a push has sent, in a folder of its own, so that the same command after an interruption sends nothing twice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from skyset.errors import UserError
from skyset.files import clear_leftovers, open_locked, short_digest

JOURNAL = "journal.jsonl"
#: Seconds in which the Hub counts commits.
HOUR = 3600


@dataclass(frozen=True)
class Sent:
    """A file that the Hub has: its SHA-256 (hexadecimal), bytes, rows (0 where it has none), in a bucket its Xet hash."""

    sha256: str
    bytes: int
    rows: int = 0
    xet: str = ""


def default_folder(repository: str, revision: str) -> Path:
    """Where a push keeps its journal and the file that it is about to send."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = re.sub(r"[^\w.-]", "-", repository)
    return Path(cache) / "skyset" / "push" / f"{name}-{short_digest(f'{repository} {revision}')[:8]}"


class Journal:
    """The journal of the pushes to one branch of one repository.

    Args:
        folder: made if it is not there.

    Raises:
        UserError: another push has it, or it cannot be written.

    Attributes:
        sent: by digest of what it was made of.
        pull: number of the pull request that is being filled, 0 for none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent: dict[str, Sent] = {}
        self.pull = 0
        self._commits: list[float] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock, _ = open_locked(folder / "lock")
        except BlockingIOError:
            raise UserError(f"another push works in {folder}: wait for its end, or give another --work_dir") from None
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror}") from error
        clear_leftovers(folder)
        for line in self._lines():
            self._take(line)
        self._file = open(folder / JOURNAL, "a", encoding="utf-8")  # noqa: SIM115

    def _lines(self) -> Iterator[dict]:
        with contextlib.suppress(FileNotFoundError), open(self.folder / JOURNAL, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError, TypeError, KeyError):  # a line that a kill cut short
                    yield json.loads(line)

    def _take(self, line: dict) -> None:
        if "sent" in line:
            self.sent[line["made_of"]] = Sent(**line["sent"])
        elif "pull" in line:
            self.pull = int(line["pull"])
        elif "commit" in line:
            self._commits.append(float(line["commit"]))

    def _write(self, line: dict) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.folder / JOURNAL}: {error.strerror}") from error
        self._take(line)

    def add(self, made_of: str, sent: Sent) -> None:
        """A file has been sent."""
        self._write({"made_of": made_of, "sent": asdict(sent)})

    def open_pull(self, number: int) -> None:
        """A pull request is being filled; 0: none is any more."""
        self._write({"pull": number})

    def committed(self) -> None:
        """A commit was made just now."""
        self._write({"commit": time.time()})

    def pause(self, most: int) -> float:
        """Seconds until a further commit keeps to ``most`` an hour."""
        now = time.time()
        recent = sorted(moment for moment in self._commits if now - HOUR < moment <= now)
        return max(0.0, recent[-most] + HOUR - now) if len(recent) >= most else 0.0

    def forget(self, made_of: list[str]) -> None:
        """These are no longer there: they are made and sent again."""
        for each in made_of:
            self.sent.pop(each, None)
        self._rewrite()

    def done(self) -> None:
        """All is visible: what was sent is told by the repository from now on; commits still count for an hour."""
        self.sent.clear()
        self.pull = 0
        self._rewrite()

    def _rewrite(self) -> None:
        kept: list[dict] = [{"made_of": each, "sent": asdict(sent)} for each, sent in self.sent.items()]
        kept += [{"pull": self.pull}] if self.pull else []
        kept += [{"commit": moment} for moment in self._commits if moment > time.time() - HOUR]
        try:
            self._file.seek(0)
            self._file.truncate()
        except OSError as error:
            raise UserError(f"cannot write {self.folder / JOURNAL}: {error.strerror}") from error
        self._commits = []
        for line in kept:
            self._write(line)

    def close(self) -> None:
        self._file.close()
        os.close(self._lock)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_) -> None:
        self.close()
