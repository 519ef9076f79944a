"""What ``load_dataset`` finds where anybody's Parquet files lie: HATS catalogues and folders, on a disk or behind a URL."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import datasets
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.load import BuilderConfigsParameters, DatasetModule
from datasets.packaged_modules.parquet.parquet import Parquet

from skyset import remote
from skyset.errors import UserError
from skyset.files import short_digest
from skyset.loading import parquet_folder
from skyset.loading.hats import CATALOGUE, COLLECTION, catalogue_in, files_of, read_properties, word_of
from skyset.loading.parquet_folder import ParquetFolderConfig
from skyset.secrets import without_login
from skyset.survey import Survey

_HUB = re.compile(r"hf://datasets/(?P<name>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<below>.+))?")
#: A survey's declaration by its name and config; UserError where it is not known.
SurveyOf = Callable[[str, str | None], Survey]


def ours(module: DatasetModule, code: str, fill: bool = False) -> DatasetModule:
    """What ``load_dataset`` found, with our builder in place of `datasets`' own for Parquet.

    Args:
        module: of anything.
        code: digest of the code that makes rows.
        fill: whether missing values are filled, see ``ParquetFolderConfig``.
    """
    if module.module_path != Parquet.__module__:
        return module
    parameters = module.builder_configs_parameters
    own = ParquetFolderConfig.__dataclass_fields__
    configs = [
        ParquetFolderConfig(**{name: value for name, value in vars(each).items() if name in own}, fill_missing=fill)
        for each in parameters.builder_configs or ()
    ]
    return replace(
        module,
        module_path=parquet_folder.__name__,
        hash=code + str(module.hash or ""),
        builder_configs_parameters=replace(parameters, builder_configs=configs),
    )


def catalogue_module(root: str, survey_of: SurveyOf, code: str) -> DatasetModule | None:
    """What ``load_dataset`` reads of a HATS collection or catalogue, None of any other folder: the catalogue's files.

    Args:
        root: a local folder, or a URL.
        survey_of: a survey's declaration by its name and config; UserError where it is not known.
        code: digest of the code that makes rows.

    Raises:
        UserError: there are none, or they cannot be listed.
    """
    found = files_of(root) if "://" in root else _files_in(Path(root).expanduser().absolute())
    if found is None:
        return None
    folder, properties, files = found
    if not files:
        raise UserError(f"{folder} has no files of rows")
    paths = [f"{folder}/dataset/{name}" for name in files]
    listed = DataFilesDict({"train": DataFilesList(paths, [_stamp(path) for path in paths])})
    about: dict[str, str] = {}
    with contextlib.suppress(UserError):
        survey = survey_of(properties.get("skyset_survey", ""), properties.get("skyset_config"))
        texts = {"description": survey.title, "homepage": survey.homepage}
        about = texts | {"citation": survey.citation, "license": survey.license}
    digest = code + short_digest(repr(sorted(properties.items())))
    config = ParquetFolderConfig(data_files=listed, about=about, fill_missing=True)
    options = {"base_path": folder, "dataset_name": _name(folder)}
    return DatasetModule(
        parquet_folder.__name__,
        digest,
        options,
        builder_configs_parameters=BuilderConfigsParameters(builder_configs=[config]),
    )


def _files_in(folder: Path) -> tuple[str, dict[str, str], list[str]] | None:
    """As ``files_of``, of a local folder: of one that has lost its properties too."""
    catalogue = catalogue_in(folder)
    if catalogue is None:
        return None
    found = next((catalogue / name for name in CATALOGUE if (catalogue / name).is_file()), None)
    properties = read_properties(found) if found else {}
    suffix = properties.get("hats_npix_suffix", ".parquet")
    files = (catalogue / "dataset").glob(f"Norder=*/Dir=*/Npix=*{'/*.parquet' if suffix == '/' else suffix}")
    return str(catalogue), properties, sorted(path.relative_to(catalogue / "dataset").as_posix() for path in files)


def _name(folder: str) -> str:
    """Of folders in a cache."""
    return word_of(folder.rpartition("/")[2], "hats")


def _stamp(path: str) -> tuple[str, ...]:
    if "://" in path:
        return (path,)
    status = Path(path).stat()
    return path, str(status.st_mtime_ns), str(status.st_size)


def module_at(find: Callable, url: str, options: dict[str, Any], survey_of: SurveyOf, code: str) -> DatasetModule:
    """What ``load_dataset`` reads behind a URL: a HATS catalogue, or a set on the Hub.

    Args:
        find: ``datasets.load.dataset_module_factory``.
        url: ``https://...``, ``hf://datasets/user/name``, with ``@revision`` and a folder in it where that is meant.
        options: of ``find``.
        survey_of, code: as ``catalogue_module``.

    Raises:
        UserError: there is nothing there, or it cannot be reached.
    """
    url = without_login(url).rstrip("/")
    hub = _HUB.fullmatch(url)
    if hub is None:
        if url.startswith("hf://buckets/"):
            with _told(url):
                return ours(find(url, **options), code, fill=True)
        if (found := catalogue_module(url, survey_of, code)) is None:
            raise UserError(
                f"{url}: there are neither partitions nor a HATS catalogue; other Parquet files there are not listed: "
                'name them, load_dataset("parquet", data_files=[...])'
            )
        return found
    with _told(url):
        revision = unquote(hub["revision"]) if hub["revision"] else options.pop("revision", None)
        below = (hub["below"] or "").strip("/")
        if not options.get("data_files") and not options.get("data_dir"):
            pinned = _pinned(hub["name"], revision, options.get("download_config"))
            root = f"{pinned}/{below}" if below else pinned
            if _has_catalogue(root) and (found := catalogue_module(root, survey_of, code)) is not None:
                return found
        if below:
            options |= {"data_files": below} if below.endswith(".parquet") else {"data_dir": below}
        options["revision"] = revision
        return ours(find(hub["name"], **options), code, fill=True)


def _pinned(name: str, revision: str | None, config: datasets.DownloadConfig | None) -> str:
    """The address of a repository's state, that stays what it is."""
    from huggingface_hub import HfApi

    token = getattr(config, "token", None)
    return f"hf://datasets/{name}@{HfApi(token=token).dataset_info(name, revision=revision, timeout=100.0).sha}"


def _has_catalogue(root: str) -> bool:
    """Whether a folder of the Hub has a file that makes it HATS; one listing tells."""
    system, where = remote.opened(root)
    names = {str(each["name"]).rpartition("/")[2] for each in system.ls(where, detail=True)}
    return not names.isdisjoint((COLLECTION, *CATALOGUE))


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Whatever `datasets` and the Hub say of an address, as a UserError of one line."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        yield
    except UserError:
        raise
    except (RepositoryNotFoundError, datasets.exceptions.DatasetNotFoundError) as error:
        raise UserError(f"{url} cannot be read: no such dataset, or it is private: `hf auth login`") from error
    except (OSError, HfHubHTTPError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{url} cannot be read: {reason}") from error
