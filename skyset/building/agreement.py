"""The datasets of one folder are made alike: what the manifests of those that are there say, and what is asked for now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from skyset.errors import UserError
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import Manifest

#: Where rows come from, under the name ``SOURCE`` among the options that a manifest keeps as ``asked``.
SOURCE, ARCHIVE, PUBLISHED = "source", "the archive", "published files"


def refuse_other_options(
    root: Path, configs: Sequence[str], wanted: Sequence[str], asked: Mapping[str, object], overwrite: bool
) -> None:
    """Refuse options with which the datasets of a folder would not be made alike, or rows be made again unasked.

    Args:
        root: the folder; each dataset lies in one of its name.
        configs: names of all that there may be.
        wanted: of those that are built now.
        asked: values of the options that all must share, by name, such as ``--pad``, and ``SOURCE``.
        overwrite: those that are built now may be replaced.

    Raises:
        UserError: names the first option that another build was given otherwise.
    """
    now = json.loads(json.dumps(dict(asked)))
    for name in configs:
        if overwrite and name in wanted:
            continue
        said = _said(root / name)
        for option in (SOURCE, *now):
            if option in said and said[option] != now[option]:
                way = (
                    f"name {name} in --configs too, or choose another folder"
                    if overwrite
                    else "use the same, another folder, or --overwrite"
                )
                raise UserError(f"{root / name} was built {_words(option, said)}, this is {_words(option, now)}: {way}")


def _said(root: Path) -> Mapping[str, object]:
    """What a dataset was built with; nothing where there is none."""
    if not (root / MANIFEST).exists():
        return {}
    build = Manifest.load(root).build
    return {SOURCE: PUBLISHED if "published" in build else ARCHIVE, **build.get("asked", {})}


def _words(option: str, values: Mapping) -> str:
    value = values[option]
    if option == SOURCE:
        return f"from {value}"
    if value is None or value is False:
        return f"without {option}"
    shown = "" if value is True else " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"with {option} {shown}".rstrip()
