"""The folder of an index: what may become one, and what lies in it."""

from __future__ import annotations

import os
from pathlib import Path

from skyset.adopting.findings import FINDINGS
from skyset.adopting.journal import JOURNAL, LOCK
from skyset.errors import UserError
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import raw_values
from skyset.partitions.tree.units import UNITS
from skyset.partitions.tree.written import WRITTEN

#: The survey that adopted trees are loaded as.
SURVEY = "adopted"
#: What an index has beside its manifests.
BESIDE = (FINDINGS, UNITS, WRITTEN, JOURNAL, LOCK)


def check_output(tree: Path, index: Path) -> None:
    """UserError where an index would be written into the tree, or over something else."""
    real, inside = os.path.realpath(tree), os.path.realpath(index)
    if inside == real or inside.startswith(real.rstrip("/") + "/"):
        raise UserError(f"{index} lies in {tree}, which is only read: name another folder with -o")
    if index.exists() and not index.is_dir():
        raise UserError(f"{index} is no folder: name another one with -o")
    for folder in (index, *(sorted(index.glob("*/")) if index.is_dir() else ())):
        if (folder / MANIFEST).exists() and (whose := _tree_of(folder)) != str(tree):
            what = f"the index of {whose}" if whose else "something else"
            raise UserError(f"{folder} holds {what}: name another folder with -o")


def _tree_of(folder: Path) -> str:
    """The tree whose index, or part of one, lies in a folder; ``""`` where it is something else."""
    try:
        values = raw_values(folder)
        return str(values["sources"][0]) if values["survey"] == SURVEY else ""
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def forget(index: Path, kept: set[Path]) -> None:
    """Remove the manifests of datasets that the tree has not any more, with what lies beside them."""
    for folder in (index, *sorted(index.glob("*/"))):
        if folder not in kept and (folder / MANIFEST).exists():
            for each in (MANIFEST, *BESIDE):
                (folder / each).unlink(missing_ok=True)
            if folder != index and not any(folder.iterdir()):
                folder.rmdir()
