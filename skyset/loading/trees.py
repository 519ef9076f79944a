"""Adopted trees as they are loaded: the datasets of an index, the index of a folder, and where its files are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from skyset.errors import UserError
from skyset.loading.indexes import index_named, index_of, manifests_in, names_known, tree_path
from skyset.loading.places import config_of, survey_in
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import Manifest, raw_values
from skyset.partitions.tree.form import ADOPTED

#: Folders above a dataset of a tree that may be the tree.
_DEEPEST = 8


def configs_in(index: str | Path) -> dict[str, Path]:
    """The datasets of an index, by config: the folder of each manifest."""
    index = Path(index).expanduser()
    if (index / MANIFEST).is_file():
        return {config_of(index) or "default": index}
    return {path.parent.name: path.parent for path in manifests_in(index) if survey_in(path.parent) == ADOPTED}


def index_at(folder: str | Path) -> Path | None:
    """The index in the cache of a tree, or of one dataset of a tree by its folder; None where a folder is neither."""
    path = Path(tree_path(folder))
    if not path.is_dir():
        return None
    if (index := index_of(path)) is not None:
        return index
    for above in list(path.parents)[:_DEEPEST]:
        if (index := index_of(above)) is not None:
            return next((own for own in configs_in(index).values() if tree_of(own) == str(path)), None)
    return None


@dataclass(frozen=True)
class KnownTree:
    """A tree that has an index in the cache, or a link to one there.

    Attributes:
        name: what ``skyset.load`` finds it by.
        folder: where it is.
        rows: of all of its datasets.
    """

    name: str
    folder: str
    rows: int


def adopted_trees() -> list[KnownTree]:
    """The trees that are found by a name, in the order of the names; one that cannot be read is left out."""
    found = []
    for name in names_known():
        index = index_named(name)
        try:
            manifests = [raw_values(path.parent) for path in manifests_in(index)] if index is not None else []
            rows = sum(int(values["rows"]) for values in manifests)
            found += [KnownTree(name, str(manifests[0]["sources"][0]), rows)] if manifests else []
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    return found


def called(manifest: Manifest) -> str:
    """What people know a dataset by: its survey; an adopted tree by its name."""
    about = manifest.build.get("about")
    name = about.get("name") if manifest.is_adopted and isinstance(about, dict) else ""
    return str(name) if name else manifest.survey


def tree_of(index: Path) -> str:
    """The folder that the files of an index's dataset are below; ``""`` where it cannot be read."""
    try:
        return Manifest.load(index).files_root(index)
    except UserError:
        return ""


def files_of(manifest: Manifest, root: str) -> str:
    """The folder or URL that the paths of a manifest's files begin at.

    Raises:
        UserError: it is a tree that is not where it was.
    """
    folder = manifest.files_root(root)
    if manifest.is_adopted and not os.path.isdir(folder):
        raise UserError(f"{root} is the index of {folder}, which is not there: adopt it where it is now, `skyset adopt DIR`")
    return folder
