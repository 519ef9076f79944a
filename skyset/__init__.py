"""Galaxy surveys as Hugging Face datasets. Importing it makes ``load_dataset("<survey>")`` know the surveys.

import skyset
from datasets import load_dataset
rows = load_dataset("gz3d", data_dir="data/gz3d", split="train", streaming=True).with_format("numpy")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from skyset.errors import MissingPackage, PartitionError, RecordError, SkysetError, UserError
from skyset.loading import registry
from skyset.loading.registry import configs, find_root, install, register, surveys
from skyset.versions import __version__

if TYPE_CHECKING:
    from skyset.adopting.adopt import adopt as adopt
    from skyset.archives.fetch import FetchError as FetchError
    from skyset.archives.tap import TapError as TapError
    from skyset.builder import SurveyBuilder as SurveyBuilder
    from skyset.building.tars.read import TarError as TarError
    from skyset.declaration import SurveyInfo
    from skyset.explore.crossmatch import crossmatch as crossmatch
    from skyset.explore.matched_partitions import to_partitions as to_partitions
    from skyset.loading.padding import collate as collate
    from skyset.partitions.manifest import Manifest as Manifest
    from skyset.pixels import ImageError as ImageError
    from skyset.survey import Column as Column
    from skyset.survey import Feature as Feature
    from skyset.survey import Survey as Survey
    from skyset.tables.votable import VOTableError as VOTableError

#: What is imported when it is first asked for: numpy, h5py and datasets take a second that many uses of skyset do not need.
_LAZY = {
    "Column": "skyset.survey",
    "Feature": "skyset.survey",
    "FetchError": "skyset.archives.fetch",
    "ImageError": "skyset.pixels",
    "Manifest": "skyset.partitions.manifest",
    "Survey": "skyset.survey",
    "SurveyBuilder": "skyset.builder",
    "TapError": "skyset.archives.tap",
    "TarError": "skyset.building.tars.read",
    "VOTableError": "skyset.tables.votable",
    "adopt": "skyset.adopting.adopt",
    "collate": "skyset.loading.padding",
    "crossmatch": "skyset.explore.crossmatch",
    "to_partitions": "skyset.explore.matched_partitions",
}

__all__ = [
    "Column",
    "Feature",
    "FetchError",
    "ImageError",
    "Manifest",
    "MissingPackage",
    "PartitionError",
    "RecordError",
    "SkysetError",
    "Survey",
    "SurveyBuilder",
    "TapError",
    "TarError",
    "UserError",
    "VOTableError",
    "__version__",
    "adopt",
    "collate",
    "configs",
    "crossmatch",
    "find_root",
    "info",
    "load",
    "register",
    "surveys",
    "to_partitions",
]

install()


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'skyset' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def info(name: str, config: str | int | None = None) -> SurveyInfo:
    """What a survey's rows are, without any data: features and columns with dtypes, shapes, units and meanings.

    Args:
        name: the survey, see ``skyset.surveys()``.
        config: one of its datasets, see ``skyset.configs(name)``; by default the first.

    Returns:
        It prints as a table, and Jupyter shows it as one; ``.features``, ``.columns`` and ``.survey`` are for programs.

    Raises:
        UserError: there is no such survey or config.
    """
    from skyset.declaration import SurveyInfo

    config = str(config) if isinstance(config, int) else config
    return SurveyInfo(registry.survey(name, config), config or registry.default_config(name), tuple(registry.configs(name)))


def load(
    path: str,
    name: str | int | None = None,
    data_dir: str | None = None,
    *,
    config: str | int | None = None,
    split: str = "train",
    streaming: bool = True,
    format: str | None = "numpy",
    deterministic: bool = False,
    batch_size: int = 1,
    **options,
):
    """Short for ``load_dataset(path, name, data_dir=..., split=..., streaming=...).with_format(format)``.

    Args:
        path: a survey, see ``skyset.surveys()``, a folder of partitions, a HATS catalogue or a folder of Parquet files, or
            where such lie: ``https://...``, ``hf://datasets/user/name``, ``user/name`` of the Hub; of a tree that was
            adopted (``skyset adopt``) its folder, the index, or the name that it was given.
        name: one of the survey's datasets, where it has several (``skyset.configs``); a number means the one of this name.
            The folder may stand here too: ``skyset.load("gz3d", "data/gz3d")``.
        data_dir: the survey's folder or URL; by default the usual places are searched (``skyset/loading/places.py``).
        config: another word for ``name``.
        split: ``"train"`` unless the survey has others.
        streaming: False builds an Arrow cache first, for random access by row number.
        format: ``"numpy"``, ``"torch"``, ``"arrow"``, ``"pandas"``, None.
        deterministic: the same order of rows for any number of nodes and workers, see ``SurveyStream.deterministic``.
        batch_size: rows of a batch of each node's ``DataLoader``, for that.
        options: the loader's own, see ``skyset.builder.SurveyConfig``, such as ``image_size=512``.

    Returns:
        datasets.IterableDataset, or datasets.Dataset without streaming.

    Raises:
        UserError: no such survey or config, or no data of it.
    """
    from datasets import load_dataset

    name, config = (str(each) if isinstance(each, int) else each for each in (name, config))
    asked = path = registry.index_named(str(path)) or str(path)
    if not registry.is_known(path) and registry.is_repository(path):
        path = f"hf://datasets/{path}"
    if not registry.is_folder(path) and registry.has_parquet(path):
        options = {"fill_missing": True, **options}
    elif not registry.is_folder(path) and "://" not in path:
        known = registry.configs(path)  # an unknown name would be looked for on the Hub
        if name is not None and name not in known and data_dir is None and registry.is_place(name):
            name, data_dir = None, name
        for each in (name, config):
            if each is not None:
                registry.survey(path, each)
    if deterministic and not streaming:
        raise UserError("deterministic is for streams: a table has one order in any case")
    try:
        with registry.anybodys():
            found = load_dataset(path, name or config, data_dir=data_dir, split=split, streaming=streaming, **options)
    except UserError as error:
        if path == asked:
            raise
        raise UserError(f"there is no folder {asked} here, and {error}") from error
    if deterministic and not hasattr(found, "deterministic"):
        raise UserError(f"{asked} is no Parquet: it is read by datasets' own builder, whose order is not deterministic")
    found = found.deterministic(batch_size) if deterministic else found
    return found.with_format(format)
