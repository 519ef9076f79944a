"""GalaxiesML's published files, of a folder or of the Zenodo record, converted to partitions; and written again from these.

Their splits are kept. One file at a time comes from Zenodo: it is checked, converted, and deleted before the next one,
unless ``--keep_raw`` says otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from skyset.archives.fetch import Fetcher, FetchError
from skyset.archives.zenodo import API_URL, RecordFile, need, record_files
from skyset.building.adopt import CATALOG, Published, adopt, forget_staged
from skyset.building.agreement import PUBLISHED, SOURCE, refuse_other_options
from skyset.building.alone import alone
from skyset.building.downloads import RAW, Downloads
from skyset.building.options import Options
from skyset.errors import PartitionError, UserError
from skyset.loaders.galaxiesml import CONFIGS, RECORD, SIZES, SPLITS
from skyset.messages import say
from skyset.partitions.manifest import Manifest
from skyset.published.galaxiesml import file_name, find, open_published
from skyset.secrets import without_login
from skyset.survey import Survey


def add_published_options(add: Callable[..., object]) -> None:
    """Add the options of this door; ``add`` is a parser's ``add_argument``."""
    add("--local_data_path", type=Path, metavar="DIR", help="convert the published files in this folder")
    add("--published", action="store_true", help="convert the published files of the Zenodo record (116 GB, one at a time)")
    add(
        "--keep_raw",
        action="store_true",
        help="keep what is downloaded of it (default: each file goes when it is converted)",
    )
    add("--record", default=str(RECORD), metavar="N", help="number of the Zenodo record (default: %(default)s)")
    add("--zenodo_url", type=without_login, default=API_URL, metavar="URL", help="Zenodo's API (default: %(default)s)")
    add(
        "--single_files",
        type=Path,
        metavar="DIR",
        help="also write the partitions as the authors publish them: three HDF5 files a size, and CSV files",
    )


def build_published(asked: argparse.Namespace, options: Options, command: Sequence[str]) -> int:
    """Convert the published files of ``--local_data_path``, or of Zenodo.

    Args:
        asked: the command line, with the options of ``add_published_options``; of ``configs``, if it has them, those are
            built.
        options: what all builds share.
        command: what the user typed, kept in the manifests.

    Returns:
        Exit status: 0, or 1 where rows were rejected.

    Raises:
        UserError: there are no such files, or they cannot be used.
    """
    wanted = list(getattr(asked, "configs", None) or CONFIGS)
    if unknown := [config for config in wanted if config not in CONFIGS]:
        raise UserError(f"there is no config {unknown[0]}: {', '.join(CONFIGS)}")
    root = options.output_dir
    with alone(root):
        if options.local_data_path is not None:
            return _convert_folder(options.local_data_path, wanted, options, command)
        return _convert_record(asked.record, asked.zenodo_url, wanted, options, command)


def _convert_folder(folder: Path, wanted: Sequence[str], options: Options, command: Sequence[str]) -> int:
    statuses = []
    there = {config: found for config in wanted if (found := _found(folder, config)) is not None}
    refuse_other_options(options.output_dir, list(CONFIGS), list(there), {SOURCE: PUBLISHED}, options.overwrite)
    try:
        for config, found in there.items():
            files = [Published(path, split, found.opens) for split, path in found.files.items()]
            survey = _as_found(config, found.columns)
            statuses.append(_adopt(config, survey, files, options, command, [str(folder)]))
    except UserError:
        forget_staged(options.output_dir / CATALOG)
        raise
    if not statuses:
        raise UserError(f"{folder} has no published files ({file_name(127, 'train')} and so on)")
    forget_staged(options.output_dir / CATALOG)
    return max(statuses)


def _found(folder: Path, config: str):
    try:
        return find(folder, config)
    except PartitionError as error:
        raise UserError(str(error)) from error


def _as_found(config: str, columns: Sequence[str]) -> Survey:
    """A config's declaration with these columns."""
    declared = CONFIGS[config]
    if missing := [c.name for c in declared.columns if c.name not in columns and c.name not in declared.optional]:
        raise UserError(f"the published files have no {', '.join(missing)}")
    return declared.as_built([column for column in declared.columns if column.name in columns])


def _adopt(config, survey, files, options, command, sources, fetch=lambda files: None) -> int:
    root, notes = options.output_dir, {"config": config, "published": [file.path.name for file in files]}
    notes["asked"] = {SOURCE: PUBLISHED}
    return adopt(survey, files, root / config, root / CATALOG, options, command, sources=sources, notes=notes, fetch=fetch)


def _convert_record(record: str, api_url: str, wanted: Sequence[str], options: Options, command: Sequence[str]) -> int:
    if options.limit is not None:
        raise UserError(
            "of the record whole files are downloaded, however few rows are wanted: leave --limit and --tiny out, or get "
            f"one ({file_name(SIZES[-1], SPLITS[-1])} has 3.4 GB) and give its folder as --local_data_path"
        )
    root, status = options.output_dir, 0
    refuse_other_options(root, list(CONFIGS), wanted, {SOURCE: PUBLISHED}, options.overwrite)
    sizes = [size for size in SIZES if str(size) in wanted] or SIZES[-1:]
    with Fetcher(max_connections=1) as network:
        files = record_files(network, record, api_url)
        downloads = Downloads(root, options.keep_raw)

        def fetch(file: RecordFile) -> Path:
            downloads.expect(root / RAW / file.name)
            say(f"{file.name}: {file.bytes / 1e9:.1f} GB", file=sys.stderr)
            try:
                return network.fetch(file.url, root / RAW / file.name, file.checksum)
            except FetchError as error:
                raise UserError(str(error)) from error

        for size in sizes:
            configs = [config for config in (str(size), "tabular" if size == sizes[0] else "") if config in wanted]
            of_size = [need(files, file_name(size, split), record) for split in SPLITS]
            parts = [
                Published(root / RAW / file.name, split, open_published, file.checksum)
                for file, split in zip(of_size, SPLITS, strict=True)
            ]
            done = 0 if options.overwrite else min(_done(root / config, parts) for config in configs)
            for last in range(done + 1, len(parts) + 1) or [len(parts)] * options.recheck:
                for file in of_size[last - 1 : last] if last > done else ():
                    fetch(file)
                for config in configs:
                    again = functools.partial(_fetch_again, fetch, of_size, root)
                    survey = _as_found(config, _columns_of(config, root))
                    here = dataclasses.replace(options, overwrite=options.overwrite and last == done + 1)
                    status = max(
                        status,
                        _adopt(config, survey, parts[:last], here, command, [file.url for file in of_size[:last]], again),
                    )
                forget_staged(root / CATALOG)
                for file in of_size:
                    downloads.remove(root / RAW / file.name)
        downloads.close()
    return status


def _columns_of(config: str, root: Path) -> list[str]:
    """Names of the columns that a config has: of what was converted of it, or else of the file that was downloaded."""
    try:
        return [column.name for column in Manifest.load(root / config).columns]
    except UserError:
        found = _found(root / RAW, config)
        return list(found.columns) if found else []


def _fetch_again(fetch: Callable, files: Sequence[RecordFile], root: Path, missing: set[Path]) -> None:
    """Files that were deleted after they were converted, whose partitions are gone or damaged."""
    for file in files:
        if (root / RAW / file.name).absolute() in missing:
            fetch(file)


def _done(root: Path, parts: Sequence[Published]) -> int:
    """How many of these files, from the first on, are converted."""
    try:
        done = Manifest.load(root).build.get("published", [])
    except UserError:
        return 0
    names = [part.path.name for part in parts]
    return max(count for count in range(len(names) + 1) if names[:count] == done[:count])
