"""Which data a training reads: their folder, and digests that say whether they are still the same."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import datasets
import numpy as np

import skyset  # noqa: F401  registers the surveys with datasets
from skyset.errors import PartitionError, UserError
from skyset.loading import registry
from skyset.messages import listed
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import Manifest
from skyset.partitions.partition import Partition


@dataclass(frozen=True)
class Source:
    """A build of a survey.

    Args:
        survey, config: its names.
        root: folder or URL that holds the manifest.
        manifest: 12 digits of the manifest's SHA-256.
        revision: 12 digits that say what the rows are: of the keys and the files' checksums, wherever the folder lies.
        simulated: by the manifest the rows are, or come from an archive on this machine, as `skyset.testing` has them.
    """

    survey: str
    config: str
    root: str
    manifest: str
    revision: str
    simulated: bool = False

    def settings(self) -> dict:
        """For the settings of a `Run`, which goes on with the same rows only."""
        return {"survey": self.survey, "config": self.config, "data": self.revision}

    def about(self) -> dict:
        """For the record of a `Run`: what is said where the rows are others."""
        return {"manifest": f"{self.root.rstrip('/')}/{MANIFEST}", "sha256": self.manifest}


def source_of(data_dir: str, config: str = "default") -> Source:
    """Which build lies there; no row is read.

    Args:
        data_dir: a survey's name, folder or URL.
        config: one of its datasets.

    Raises:
        UserError: there is no manifest.
    """
    root, manifest = _manifest_of(data_dir, config)
    files = sorted((entry.split, entry.healpix, entry.rows, entry.keys, entry.sha256) for entry in manifest.files)
    columns = sorted((column.name, column.dtype, column.shape) for column in manifest.columns)
    digest = hashlib.sha256(repr((columns, files)).encode()).hexdigest()[:12]
    here = bool(manifest.sources) and all(urlsplit(source).hostname == "127.0.0.1" for source in manifest.sources)
    simulated = bool(manifest.build.get("simulated")) or here
    return Source(manifest.survey, manifest.config, str(root), build_of(data_dir, config), digest, simulated)


def load_splits(data_dir: str, config: str = "default", survey: str | None = None) -> datasets.DatasetDict:
    """All splits of a survey's dataset, memory-mapped.

    Args:
        data_dir: a survey's name, or the folder or URL of one.
        config: one of its datasets.
        survey: the only one that will do; None for whichever lies there.

    Raises:
        UserError: there is none, it is of another survey, or it cannot be read.
    """
    named = data_dir in registry.surveys()
    if not named and "://" not in data_dir and not Path(data_dir).expanduser().is_dir():
        raise UserError(f"no such data_dir: {data_dir}")
    found = _manifest_of(data_dir, config)[1].survey
    if survey not in (None, found):
        raise UserError(f"{data_dir} holds {found}, not {survey}")
    try:
        return datasets.load_dataset(found, config, data_dir=None if named else data_dir)
    except (ValueError, OSError, PartitionError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(f"cannot read {data_dir}: {str(error.__cause__ or error).splitlines()[0]}") from error


def revision_of(data_dir: str, config: str) -> str:
    """Which data: the first 12 digits of a SHA-256 over the values of all rows, in the order of their keys.

    Where the folder lies, how its rows are cut into files, how, when and from where it was built make no difference. All
    of it is read: for what is large, see ``source_of``.

    Args:
        data_dir: a survey's name, folder or URL.
        config: one of its datasets.

    Raises:
        UserError: there is no manifest, or a partition cannot be read.
    """
    root, manifest = _manifest_of(data_dir, config)
    return _digest_of_rows(str(root), manifest.to_json())


def build_of(data_dir: str, config: str) -> str:
    """Which build of the data, 12 digits: of the manifest, no row is read; arguments and errors as in ``revision_of``."""
    return hashlib.sha256(_manifest_of(data_dir, config)[1].to_json().encode()).hexdigest()[:12]


def _manifest_of(data_dir: str, config: str) -> tuple[str, Manifest]:
    named = data_dir in registry.surveys()
    root = registry.find_root(data_dir if named else "", None if named else data_dir, config=config or "default")
    if root is None:
        raise UserError(f"no {data_dir} partitions found: give their folder")
    _check_config(Path(root), Path(data_dir).expanduser(), config or "default")
    return root, Manifest.load(root)


def _check_config(root: Path, folder: Path, config: str) -> None:
    """Raise UserError where a folder on disk holds other datasets than the one that is asked for: which, it says."""
    others = [path.parent for path in sorted([*folder.glob(MANIFEST), *folder.glob(f"*/{MANIFEST}")])]
    if others and not (root / MANIFEST).exists():
        there = [f"{manifest.survey} ({manifest.config})" for manifest in map(Manifest.load, others)]
        raise UserError(f"{folder} has no dataset {config!r}; it holds {listed(there)}")


@functools.lru_cache(maxsize=8)
def _digest_of_rows(root: str, text: str) -> str:
    """Of the partitions below ``root``, whose manifest has this text."""
    manifest = Manifest.load(root)
    columns = sorted(manifest.columns, key=lambda column: column.name)
    rows = []
    try:
        for entry in manifest.files:
            with Partition(f"{root}/{entry.path}", columns, trusted_rows=entry.rows) as partition:
                keys = partition.text(manifest.key)
                for row, key in enumerate(keys):
                    digest = hashlib.sha256(f"{entry.split}/".encode())
                    for column in columns:
                        values = np.ascontiguousarray(partition.read(column.name, row, row + 1)).tobytes()
                        digest.update(f"{column.name} {column.dtype} {len(values)} ".encode())
                        digest.update(values)
                    rows.append((key, digest.hexdigest()))
    except PartitionError as error:
        raise UserError(f"the data cannot be read: {error}") from error
    return hashlib.sha256(repr(sorted(rows)).encode()).hexdigest()[:12]
