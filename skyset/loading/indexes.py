"""Where the indexes of adopted trees are found: in a cache, by the tree's path and a name.

``$SKYSET_CACHE/adopted/<name>-<digest of the tree's absolute path>``; the cache is ``$XDG_CACHE_HOME/skyset`` or
``~/.cache/skyset`` unless ``SKYSET_CACHE`` says otherwise. An index that was put somewhere else has a link there,
``<name>-<digest>.link``, so that the tree and the name lead to it, too.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import raw_values

_LONGEST = 80
_LINK = ".link"
_NAMED = re.compile(r"([\w-][\w.-]*)-[0-9a-f]{16}", re.ASCII)


def cache_folder() -> Path:
    """The folder of what skyset keeps for itself."""
    if own := os.environ.get("SKYSET_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skyset"


def tree_path(tree: str | Path) -> str:
    """The absolute path that a tree is known by; links in it stay."""
    return os.path.abspath(os.path.expanduser(str(tree)))


def plain_name(name: str) -> str:
    """A name as a folder's: letters, digits, ``_``, ``-`` and dots."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._-")[:_LONGEST] or "tree"


def default_index(tree: str | Path, name: str = "") -> Path:
    """Where the index of a tree goes; ``name`` is the tree's own where there is none."""
    path = tree_path(tree)
    return cache_folder() / "adopted" / f"{plain_name(name or os.path.basename(path))}-{_digest(path)}"


def index_of(tree: str | Path) -> Path | None:
    """The index in the cache of a tree, the newest where there are several; None where there is none."""
    return _newest(f"*-{_digest(tree_path(tree))}")


def index_named(name: str) -> Path | None:
    """The index in the cache that was given a name, the newest where there are several; None where there is none."""
    return _newest(f"{name}-{'[0-9a-f]' * 16}") if name and plain_name(name) == name else None


def names_known() -> list[str]:
    """The names that lead to indexes in the cache, sorted; whether there still is one is not looked at."""
    names = (path.name.removesuffix(_LINK) for path in (cache_folder() / "adopted").glob("*-*"))
    return sorted({match[1] for name in names if (match := _NAMED.fullmatch(name))})


def note_index(tree: str | Path, name: str, index: Path) -> bool:
    """Let a tree and a name lead to an index outside of the cache; False where nothing can be written into the cache."""
    link = default_index(tree, name)
    link = link.with_name(link.name + _LINK)
    new = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        new.symlink_to(index, target_is_directory=True)
        new.replace(link)
    except OSError:
        return False
    return True


def _newest(pattern: str) -> Path | None:
    cache = cache_folder() / "adopted"
    found = [path for path in cache.glob(pattern) if manifests_in(path)]
    found += [path.resolve() for path in cache.glob(pattern + _LINK) if _leads_to_its_own(path)]
    return max(found, key=lambda path: max(each.stat().st_mtime_ns for each in manifests_in(path)), default=None)


def _leads_to_its_own(link: Path) -> bool:
    """Whether the index behind a link still is one of the link's tree: somebody may have put another one there."""
    manifests = manifests_in(link)
    try:
        trees = {str(raw_values(each.parent)["sources"][0]) for each in manifests}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
    return bool(trees) and {_digest(tree) for tree in trees} == {link.name.removesuffix(_LINK).rpartition("-")[2]}


def manifests_in(index: Path) -> list[Path]:
    """The manifests of an index: one in it, or one in each of its folders."""
    if (index / MANIFEST).is_file():
        return [index / MANIFEST]
    return sorted(index.glob(f"*/{MANIFEST}"))


def _digest(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
