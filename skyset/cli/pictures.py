"""Where a command saves a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from skyset.errors import UserError
from skyset.files import replacing


def picture_path(path: Path) -> Path:
    """Where a picture of this name is saved."""
    return path if path.suffix else path.with_suffix(".png")


def save_figure(figure, path: Path, told: TextIO | None = None) -> None:
    """Save a figure and say where it is; UserError if the format is unknown or the place cannot be written."""
    path = picture_path(path)
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {path.parent}")
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, format=path.suffix[1:].lower())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}") from error
    print(f"wrote {path}", file=told)
