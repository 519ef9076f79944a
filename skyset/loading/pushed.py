"""Repositories of Parquet files that ``skyset push`` made, read as partitions are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from skyset.partitions.manifest import FileEntry, Manifest, raw_values, reasons_told
from skyset.partitions.parquet_file import OpensParquet
from skyset.survey import Survey, check_types

#: Of ``manifest.json`` beside Parquet files.
FORMAT = "skyset-published/1"
_PATH = re.compile(r"data/[\w-][\w.-]*/[\w.-]+/healpix-[0-9]{1,10}(-[0-9]{3,})?\.parquet")
_SPLIT = re.compile(r"\w+(\.\w+)*")


def read_pushed(survey: Survey, data_dir: str | None, config: str) -> tuple[str, Survey, Manifest] | None:
    """The Parquet files of a survey's dataset in a repository, or in a folder with its files.

    Args:
        survey: the config's declaration.
        data_dir: the address or folder that is asked for: that of ``manifest.json``.
        config: its name.

    Returns:
        The address, the declaration as it was built, and a manifest that is nowhere on a disk. None where there are none.

    Raises:
        UserError: the list of files is damaged.
    """
    if data_dir is None:
        return None
    root = str(data_dir).rstrip("/") if "://" in str(data_dir) else str(Path(data_dir).expanduser().absolute())
    try:
        values = raw_values(root)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.get("format") != FORMAT or values.get("form") != "parquet":
        return None
    with reasons_told(root):
        if values["survey"] != survey.name or config not in values["datasets"]:
            return None
        manifest = Manifest.head({**values["datasets"][config], "survey": survey.name, "rejected": 0})
        manifest.files = [entry_of(each) for each in values["files"] if each.get("config") == config]
    declared = replace(survey.as_built(manifest.columns, manifest.build), trims=())  # what was published has no padding
    return root, replace(declared, opens=OpensParquet.of(declared)), manifest


def entry_of(values: dict) -> FileEntry:
    """A file that the list names; ValueError unless it can be one."""
    path, split = values["path"], values["split"]
    if not _PATH.fullmatch(path) or not _SPLIT.fullmatch(split):
        raise ValueError(f"{path!r} of split {split!r}")
    sky = (0.0, 360.0), (-90.0, 90.0)
    entry = FileEntry(path, split, values["healpix"][0], values["rows"], values["bytes"], values["sha256"], "", *sky)
    check_types(entry)
    if not (0 < entry.rows < 2**63 and 0 < entry.bytes < 2**63):
        raise ValueError(f"{path} has {entry.rows} rows and {entry.bytes} bytes")
    return entry
