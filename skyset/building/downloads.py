"""Which raw files a build may remove: those that it downloaded itself and did not promise to keep."""

from __future__ import annotations

import contextlib
from pathlib import Path

RAW = "raw"
_LIST = ".downloads"


class Downloads:
    """The raw files of a build's folder; used while the folder is locked.

    The names of those that may go stand in a hidden file before their first byte comes, so that the next build removes what
    a killed one left. What was there before is somebody's, and stays.

    Args:
        root: the build's folder.
        keep: what is downloaded from now on is kept, and so is what a killed build would have removed.
    """

    def __init__(self, root: Path, keep: bool):
        self.root, self.keep = root, keep
        if keep:
            self._list.unlink(missing_ok=True)
        self._own = set(self._listed())

    @property
    def _list(self) -> Path:
        return self.root / _LIST

    def _listed(self) -> list[str]:
        try:
            return self._list.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def expect(self, path: Path) -> None:
        """Say that a file is about to be downloaded, unless it is there."""
        name = self._name(path)
        if self.keep or name in self._own or path.exists():
            return
        with open(self._list, "a", encoding="utf-8") as file:
            file.write(f"{name}\n")
        self._own.add(name)

    def remove(self, path: Path) -> None:
        """Remove a file if it may go."""
        if self._name(path) in self._own:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Forget the list when nothing on it is left, and remove the raw files' folder where it is empty."""
        if not any((self.root / RAW / name).exists() for name in self._listed()):
            self._list.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.root / RAW).rmdir()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root / RAW).as_posix()
