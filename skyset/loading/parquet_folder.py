"""HATS catalogues and pushed Parquet, as ``load_dataset`` reads them, in the columns' own dtypes.

`datasets`' own builder reads the files. What is added: of a HATS collection the catalogue alone is read, and no margin;
Arrow's tensors are arrays; streams and tables are ours, whose formats keep dtypes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.packaged_modules.parquet.parquet import Parquet, ParquetConfig

from skyset.errors import UserError
from skyset.files import short_digest
from skyset.loading.arrow import arrow_array, feature_of
from skyset.loading.hats import CATALOGUE, COLLECTION, parsed
from skyset.loading.stream import adopt
from skyset.survey import Survey


@dataclass
class ParquetFolderConfig(ParquetConfig):
    """Options of ``load_dataset(folder, ...)``: those of `datasets` for Parquet.

    Args:
        about: description, homepage, citation and license for ``DatasetInfo``, where the survey is known.
    """

    about: dict[str, str] = field(default_factory=dict)


class ParquetFolder(Parquet):
    """``load_dataset(folder)`` after ``import skyset``."""

    BUILDER_CONFIG_CLASS = ParquetFolderConfig

    def _info(self) -> datasets.DatasetInfo:
        info = super()._info()
        vars(info).update(getattr(self.config, "about", {}))  # a card's configs are of the class of `datasets`
        return info

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        if self.info.features is None and self.config.data_files:
            first = next(file for files in self.config.data_files.values() for file in files)
            if "://" not in first:
                self.info.features = features_in(pq.read_schema(first))
        return super()._split_generators(dl_manager)

    def _cast_table(self, pa_table: pa.Table) -> pa.Table:
        return super()._cast_table(without_tensors(pa_table))

    def _as_streaming_dataset_single(self, *args, **kwargs) -> datasets.IterableDataset:
        return adopt(super()._as_streaming_dataset_single(*args, **kwargs))

    def as_streaming_dataset(self, *args, **kwargs):
        return adopt(super().as_streaming_dataset(*args, **kwargs))

    def _as_dataset(self, *args, **kwargs) -> datasets.Dataset:
        return adopt(super()._as_dataset(*args, **kwargs))


def features_in(schema: pa.Schema) -> datasets.Features:
    """The features that a file declares; those of its columns' types where it declares none.

    `datasets` believes the declaration only where the types are its own: arrays in plain lists would lose their shapes.
    """
    with contextlib.suppress(ValueError, LookupError, TypeError):
        declared = datasets.Features.from_dict(json.loads(schema.metadata[b"huggingface"])["info"]["features"])
        if list(declared) == schema.names:
            return declared
    tensors = {field.name: _tensor_feature(field.type) for field in schema if _is_tensor(field.type)}
    others = datasets.Features.from_arrow_schema(pa.schema([field for field in schema if field.name not in tensors]))
    return datasets.Features({name: tensors.get(name) or others[name] for name in schema.names})


def _is_tensor(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.FixedShapeTensorType)


def _tensor_feature(kind: pa.FixedShapeTensorType):
    return feature_of(np.dtype(kind.value_type.to_pandas_dtype()).name, tuple(kind.shape))


def without_tensors(table: pa.Table) -> pa.Table:
    """The table with its tensors as the arrays of `datasets`, or lists where they have one dimension."""
    for number, column in enumerate(table.schema):
        if _is_tensor(column.type):
            kind = datasets.Features({column.name: _tensor_feature(column.type)}).arrow_schema.field(0)
            chunks = [arrow_array(chunk.to_numpy_ndarray(), kind.type) for chunk in table.column(number).chunks]
            table = table.set_column(number, kind, pa.chunked_array(chunks, kind.type))
    return table


def read_properties(path: Path) -> dict[str, str]:
    """The values of a file of ``key=value`` lines, as Java's properties are; other lines are left out.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return parsed(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def catalogue_in(folder: Path) -> Path | None:
    """The HATS catalogue that a folder is, or that of the collection that it is; None where it is neither.

    Raises:
        UserError: a collection without its catalogue.
    """
    if not (folder / COLLECTION).is_file():
        return folder if any((folder / name).is_file() for name in CATALOGUE) and (folder / "dataset").is_dir() else None
    name = read_properties(folder / COLLECTION).get("hats_primary_table_url", "")
    catalogue = folder / name
    if not name or not (catalogue / "dataset").is_dir() or not catalogue.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder} is a HATS collection whose catalogue {name!r} is not there")
    return catalogue


def ours(module):
    """What ``load_dataset`` found, with our builder in place of `datasets`' own for Parquet."""
    return replace(module, module_path=__name__) if module.module_path == Parquet.__module__ else module


def module_of(folder: Path, survey_of: Callable[[str, str | None], Survey], code: str):
    """What ``load_dataset`` reads of a HATS collection or catalogue, None of any other folder: the catalogue's files.

    Args:
        folder: a local one.
        survey_of: a survey's declaration by its name and config; UserError where it is not known.
        code: digest of the code that makes rows.

    Raises:
        UserError: there are none.
    """
    from datasets.load import DatasetModule

    catalogue = catalogue_in(folder.expanduser().absolute())
    if catalogue is None:
        return None
    found = next((catalogue / name for name in CATALOGUE if (catalogue / name).is_file()), None)
    properties = read_properties(found) if found else {}
    suffix = properties.get("hats_npix_suffix", ".parquet")
    files = sorted(catalogue.glob(f"dataset/Norder=*/Dir=*/Npix=*{'/*.parquet' if suffix == '/' else suffix}"))
    if not files:
        raise UserError(f"{catalogue} has no files of rows")
    stamps = [(str(path), str(status.st_mtime_ns), str(status.st_size)) for path in files if (status := path.stat())]
    listed = DataFilesDict({"train": DataFilesList([str(path) for path in files], stamps)})
    options: dict[str, object] = {"data_files": listed, "dataset_name": catalogue.name}
    with contextlib.suppress(UserError):
        survey = survey_of(properties.get("skyset_survey", ""), properties.get("skyset_config"))
        texts = {"description": survey.title, "homepage": survey.homepage}
        options["about"] = texts | {"citation": survey.citation, "license": survey.license}
    digest = code + short_digest(repr(sorted(properties.items())))
    return DatasetModule(__name__, digest, options)
