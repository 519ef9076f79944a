"""Adopted trees as they are loaded: the datasets of an index, the index of a folder, and where its files are."""

from __future__ import annotations

import os
from pathlib import Path

from skyset.errors import UserError
from skyset.loading.indexes import index_of, manifests_in, tree_path
from skyset.loading.places import config_of, survey_in
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import Manifest
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
