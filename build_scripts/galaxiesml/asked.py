"""Options of GalaxiesML that do not go together, found before anything is asked or written."""

from __future__ import annotations

import argparse
import json
from urllib.parse import urlsplit

from skyset.build_scripts.galaxiesml.splits import read_splits
from skyset.errors import UserError
from skyset.files import short_digest
from skyset.loaders.galaxiesml import SIZES
from skyset.partitions.layout import MANIFEST

#: Options by what they are of: the archive alone, archives that are there too, the record at Zenodo.
_ASKED_OF_ARCHIVE = ("archive_url", "catalog", "cuts", "half_size", "keep_job", "rerun")
_MADE = ("centring", "from_tar", "no_sersic", "pad", "planes", "psf", "splits")
_OF_RECORD = ("keep_raw", "record", "zenodo_url")


def check_options(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse what would be ignored, and what cannot work.

    Args:
        asked: the command line.
        parser: its declaration, for what was not given.

    Raises:
        UserError: names the options.
    """
    given = [name for name, value in vars(asked).items() if value != parser.get_default(name)]
    doors = [name for name in ("local_data_path", "published", "from_tar") if name in given]
    if len(doors) > 1:
        raise UserError(f"{_named(doors)} do not go together: each says where the galaxies come from")
    door = doors[0] if doors else ""
    ignored = [*(_OF_RECORD if door != "published" else ()), *(_ASKED_OF_ARCHIVE if door else ())]
    ignored += _MADE if door in ("local_data_path", "published") else ()
    if useless := [name for name in given if name in ignored]:
        why = f"with --{door}" if door else "without --published"
        raise UserError(f"{_named(useless)} would be ignored {why}: leave out")
    for name in ("archive_url", "zenodo_url"):
        if name in given and not _is_http(getattr(asked, name)):
            raise UserError(f"--{name} {getattr(asked, name)} is not an http(s) address")
    images = [str(size) for size in SIZES]
    built = {*(asked.configs or images)} | {size for size in images if (asked.output_dir / size / MANIFEST).exists()}
    if asked.single_files is not None and not built & {*images}:
        raise UserError(f"--single_files needs images: one of {', '.join(images)} among --configs")
    if asked.splits is not None:
        read_splits(asked.splits)


def shared(asked: argparse.Namespace) -> dict[str, object]:
    """The options that the datasets of one folder share, by name, as JSON has them."""
    names = ("centring", "cuts", "from_tar", "half_size", "no_sersic", "pad", "planes", "psf", "rerun", "splits")
    values = {name: getattr(asked, name) for name in names}
    if asked.splits is not None:
        values["splits"] = short_digest(json.dumps(sorted(read_splits(asked.splits).items())))
    if asked.from_tar is not None:
        values |= {"from_tar": str(asked.from_tar.absolute()), "half_size": None, "rerun": None, "cuts": None}
    return {f"--{name}": sorted(value) if isinstance(value, list) else value for name, value in values.items()}


def _named(names: list[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(str(url))
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
