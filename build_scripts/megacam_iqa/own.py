"""Which files of a build's folder its builds made: those alone are replaced and removed, all others are somebody's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from skyset.build_scripts.megacam_iqa.staged import CATALOG, STAGED
from skyset.errors import UserError
from skyset.files import clear_leftovers

_LIST = ".own"


class Own:
    """The files of one folder; used while it is locked.

    Their names stand in a hidden file before their first byte comes, so that a killed build's are known too.

    Args:
        root: the build's folder, with its ``catalog``.
    """

    def __init__(self, root: Path):
        self.root, self._list = root, root / CATALOG / _LIST
        try:
            self._names = set(self._list.read_text(encoding="utf-8").splitlines())
        except FileNotFoundError:
            self._names = set()

    def refuse(self, paths: Iterable[Path]) -> None:
        """Refuse to replace what no build of this folder made.

        Raises:
            UserError: names the first.
        """
        for path in paths:
            if self._name(path) not in self._names and (path.exists() or path.is_symlink()):
                raise UserError(f"{path} was made by no build of this folder: move it, or choose another folder")

    def expect(self, *paths: Path) -> None:
        """Say that files are about to be written.

        Raises:
            UserError: as ``refuse``.
        """
        self.refuse(paths)
        new = [name for path in paths if (name := self._name(path)) not in self._names]
        if new:
            with open(self._list, "a", encoding="utf-8") as file:
                file.writelines(f"{name}\n" for name in new)
            self._names.update(new)

    def remove_staged(self) -> None:
        """Remove what builds staged, and the folder where nothing else is in it."""
        for name in sorted(self._names):
            if name.startswith(f"{STAGED}/"):
                (self.root / name).unlink(missing_ok=True)
        clear_leftovers(self.root / STAGED)
        with contextlib.suppress(OSError):
            (self.root / STAGED).rmdir()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()
