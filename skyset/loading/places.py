"""Where a survey's partitions are looked for: the one rule, for loading and for the command line.

The first of these whose manifest is there:

1. ``data_dir``, and nothing else if it is given;
2. in ``$SKYSET_DATA``: ``<survey>``, a folder whose manifest names the survey, and that folder itself;
3. the folder of the loading script (datasets 3);
4. in the working directory, then in its parents up to the home: ``data/<survey>``, ``<survey>``, a folder in ``data``
   whose manifest names the survey, and that directory itself. Outside of the home only the working directory and those of
   its parents that belong to the user are looked into.

A config other than ``default`` lies in the subfolder of its name: of some surveys all do, and the first is the one that is
meant where none is named.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from skyset.partitions.layout import MANIFEST
from skyset.secrets import without_login

#: Of a folder of many, so that a search takes no longer than somebody waits.
MAX_FOLDERS = 1000
MAX_PARENTS = 32
#: The survey's name comes first in a manifest that we wrote; others are read whole if they are not larger than this.
_HEAD_BYTES, _WHOLE_BYTES = 4096, 16 << 20
_SURVEY = re.compile(rb'"survey"\s*:\s*"([^"\\]{1,100})"')


def find_root(name: str, data_dir: str | None = None, base_path: str | None = None, config: str = "default") -> str | None:
    """Folder or URL of a survey's manifest, None where there is none.

    Args:
        name: the survey's.
        data_dir: the folder or URL that is asked for; it is not looked into.
        base_path: of the loading script.
        config: one of its datasets.
    """
    folder = "" if config == "default" else config
    if data_dir is not None:
        if "://" in str(data_dir):
            data_dir = without_login(str(data_dir))
            return f"{str(data_dir).rstrip('/')}/{folder}" if folder else data_dir
        asked = Path(data_dir).expanduser().absolute()
        alone = folder and not (asked / folder / MANIFEST).is_file() and config_of(asked) == config
        return str(asked if alone else asked / folder)
    for place in _places(name, base_path, folder):
        if (place / folder / MANIFEST).is_file():
            return str((place / folder).absolute())
    return None


def looked_in(name: str) -> str:
    """What to tell where nothing was found, for the end of a sentence."""
    environment = os.environ.get("SKYSET_DATA")
    here = Path.cwd()
    last = list(_parents())[-1]
    above = "" if last == here else f" and of its parents up to {last}"
    return (
        f"looked for {MANIFEST} in data/{name}, {name}, data/* and . of {here}{above}, "
        f"and in $SKYSET_DATA ({environment or 'not set'})"
    )


def survey_in(folder: str | Path) -> str | None:
    """The survey that the manifest of a local folder names; None where there is none, or none that can be read."""
    path = Path(folder) / MANIFEST
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
            if found := _SURVEY.search(head):
                return found[1].decode()
            if path.stat().st_size > _WHOLE_BYTES:
                return None
            name = json.loads(head + file.read())["survey"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def config_of(folder: Path) -> str | None:
    """The config that the manifest of a local folder names; None where it names none."""
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["build"]["config"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _places(name: str, base_path: str | None, folder: str) -> Iterator[Path]:
    """Folders that may hold the survey, in the order of the rule."""
    if environment := os.environ.get("SKYSET_DATA"):
        base = Path(environment).expanduser()
        yield base / name
        yield from _naming(name, base, folder)
        yield from _itself(name, base, folder)
    if base_path and "://" not in base_path:
        yield Path(base_path)
    for base in _parents():
        yield base / "data" / name
        yield base / name
        yield from _naming(name, base / "data", folder)
        yield from _itself(name, base, folder)


def _naming(name: str, base: Path, folder: str) -> Iterator[Path]:
    """Folders in another whose manifest names the survey; those of demonstrations last."""
    try:
        with os.scandir(base) as entries:
            names = [entry.name for entry in islice(entries, MAX_FOLDERS) if not entry.name.startswith(".")]
    except OSError:
        return
    for each in sorted(names, key=lambda each: (each.endswith("-demo"), each)):
        if survey_in(base / each / folder) == name:
            yield base / each


def _itself(name: str, base: Path, folder: str) -> Iterator[Path]:
    """A folder that is not named after the survey: taken unless its manifest names another."""
    if survey_in(base / folder) in (name, None):
        yield base


def _parents() -> Iterator[Path]:
    """The working directory and those of its parents that are looked into."""
    here, home = Path.cwd(), Path.home()
    yield here
    if here == home:
        return
    at_home = here.is_relative_to(home)
    for parent in list(here.parents)[:-1][:MAX_PARENTS]:
        if not at_home and not _is_mine(parent):
            return
        yield parent
        if parent == home:
            return


def _is_mine(folder: Path) -> bool:
    try:
        return folder.stat().st_uid == os.getuid()
    except OSError:
        return False
