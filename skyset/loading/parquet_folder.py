"""Anybody's Parquet files as ``load_dataset`` reads them after ``import skyset``: HATS catalogues, folders, the Hub's sets.

`datasets` says which files belong to which config and split, and which features they have. Their rows are read by our
reader, as those of partitions are: dtypes stay, a shuffled stream resumes exactly. Where it does not take a column,
`datasets`' own builder reads the files, and a line says so. Of a HATS collection the catalogue alone is read, and no margin.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from datasets.packaged_modules.parquet.parquet import Parquet, ParquetConfig

from skyset.block_cache import BlockCache, cache_in
from skyset.errors import UserError
from skyset.loading.arrow import arrow_array, feature_of
from skyset.loading.feature_columns import NotOurs, check_schema, plain, survey_of
from skyset.loading.footers import Footer, digests_of, first_file, pieces_of, read_footers
from skyset.loading.partition_rows import PartitionRows
from skyset.loading.reader import Piece
from skyset.loading.stream import SurveyStream, adopt
from skyset.messages import say
from skyset.partitions.parquet_file import ParquetFile
from skyset.survey import Feature, Survey

#: Rows that tell what texts in lists are like.
_SAMPLE = 64
#: How PNG and JPEG begin, and the rows that are looked at for it.
_IMAGES, _LOOKED_AT = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"), 4
#: Options of `datasets` that its own builder alone understands.
_STOCK = ("filters", "batch_size", "features", "fragment_scan_options")


@dataclass
class ParquetFolderConfig(ParquetConfig):
    """Options of ``load_dataset(folder, ...)``: those of `datasets` for Parquet.

    Args:
        about: description, homepage, citation and license for ``DatasetInfo``, where the survey is known.
        fill_missing: a missing number is NaN, or -1 (0 where the dtype has no sign), a missing text empty, a missing list
            without values. Else files with missing values are left to `datasets`' own builder.
        decode: how images come where there is no format, ``"pil"`` or ``"array"``; see ``SurveyConfig``.
        cache_limit: see ``SurveyConfig``; for files of the Hub, whose checksums are known.
        on_bad_files: ``"error"``, or ``"warn"`` or ``"skip"``: go on without files and images that are damaged, naming them.
    """

    about: dict[str, str] = field(default_factory=dict)
    fill_missing: bool = False
    decode: str = "pil"
    cache_limit: str | int | None = None
    on_bad_files: str = "error"  # datasets 3 has no such option


class ParquetFolder(Parquet):
    """``load_dataset(folder)`` after ``import skyset``."""

    BUILDER_CONFIG_CLASS = ParquetFolderConfig
    #: The splits that are asked for: of the others' files nothing is read.
    _asked: tuple[str, ...] | None = None
    _survey: Survey | None = None

    def _info(self) -> datasets.DatasetInfo:
        if self.config.decode not in ("array", "pil"):
            raise UserError(f'decode must be "array" or "pil", not {self.config.decode!r}')
        info = super()._info()
        vars(info).update(self.config.about)
        return info

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        if not self.config.data_files:
            return super()._split_generators(dl_manager)
        files = dl_manager.download(self.config.data_files)
        if self._asked is not None:
            files = {split: files[split] for split in self._asked}
        try:
            return self._of_ours({str(split): list(map(str, paths)) for split, paths in files.items()})
        except NotOurs as error:
            where = self.repo_id or self.base_path or self.dataset_name
            say(f"{where}: read by datasets' own builder, whose shuffled streams do not resume exactly: {error}")
        return super()._split_generators(dl_manager)

    def _of_ours(self, files: Mapping[str, Sequence[str]]) -> list[datasets.SplitGenerator]:
        """All rows for our reader; NotOurs where it does not take them."""
        every = [path for paths in files.values() for path in paths]
        features, schema = self._declared(every[0])
        if given := next((name for name in _STOCK if getattr(self.config, name, None) is not None), None):
            raise NotOurs(f"{given}= is given")
        if isinstance(self.token, str) or set(self.storage_options) - {"hf"}:  # `datasets` itself puts that in
            raise NotOurs("token= or storage_options= is given: `hf auth login` serves our reader too")
        survey = survey_of(
            features, schema, lambda names: _head(every[0], names), self.dataset_name, self.config.fill_missing
        )

        def check(found: pa.Schema) -> None:
            check_schema(survey, features, found)

        far, skip_bad = "://" in every[0], self.config.on_bad_files != "error"
        kept_in = Path(self._cache_dir_root) / "skyset_footers" if far and "://" not in self._cache_dir_root else None
        footers = {split: read_footers(paths, check, kept_in, skip_bad) for split, paths in files.items()}
        self._check_values(survey, [footer for those in footers.values() for footer in those])
        digests = digests_of(every) if self.config.cache_limit is not None and far else {}
        self._survey, self.info.features = survey, plain(features)
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"pieces": pieces_of(those, digests)})
            for split, those in footers.items()
        ]

    def _declared(self, path: str) -> tuple[datasets.Features, pa.Schema]:
        """The features to be handed out, and the first file's schema for these."""
        schema = first_file(path).schema_arrow
        try:
            features = self.info.features or with_images(
                features_in(schema), schema, lambda name: _head(path, [name], _LOOKED_AT)
            )
            self.info.features = features
        except ValueError as error:  # `datasets` has no feature of a type
            raise NotOurs(str(error)) from error
        if self.config.columns is None:
            return features, schema
        if gone := [name for name in self.config.columns if name not in features or name not in schema.names]:
            raise UserError(f"{path}: there is no column {gone[0]}: {', '.join(features)}")
        chosen = datasets.Features({name: features[name] for name in self.config.columns})
        return chosen, pa.schema([schema.field(name) for name in self.config.columns])

    def _check_values(self, survey: Survey, footers: Sequence[Footer]) -> None:
        """NotOurs where values are missing that nothing can stand for."""
        images = {feature.name for feature in survey.features if isinstance(feature, Feature) and feature.encoded}
        wanted = {feature.name for feature in survey.features}
        nothing_for = images if self.config.fill_missing else wanted
        missing = {name for footer in footers for name in footer.missing}
        lacking = (own for own in sorted(nothing_for) if any(name == own or name.startswith(f"{own}.") for name in missing))
        if (first := next(lacking, None)) is not None:
            raise NotOurs(f"column {first} lacks values")

    def _rows(self, pieces: list[Piece]) -> PartitionRows:
        assert self._survey is not None
        rows = PartitionRows(self._survey, pieces, list(self.info.features))
        if rows.features != self.info.features:  # an image that is not to be decoded, or of another mode
            rows = rows.cast(self.info.features)
        skip_bad = self.config.on_bad_files != "error"
        return rows.with_changes(pil=self.config.decode == "pil", skip_bad=skip_bad, cache=self._block_cache(pieces))

    def _block_cache(self, pieces: Sequence[Piece]) -> BlockCache | None:
        if self.config.cache_limit is None:
            return None
        far = any("://" in piece.path for piece in pieces)
        if far and not all(piece.digest for piece in pieces):
            raise UserError("cache_limit is for files with a list of checksums: partitions, and files of the Hub")
        return cache_in(self._cache_dir_root, self.config.cache_limit, wanted=far)

    def _generate_tables(self, pieces: list[Piece] | None = None, **stock):
        if pieces is None:
            yield from super()._generate_tables(**stock)
            return
        yield from enumerate(table for _, table in self._rows(pieces).with_changes(mode="arrow")._iter_arrow())

    def _generate_shards(self, pieces: list[Piece] | None = None, **stock):
        shards = Parquet._generate_shards(self, **stock) if pieces is None else (piece.path for piece in pieces)
        yield from shards

    def _cast_table(self, pa_table: pa.Table) -> pa.Table:
        return super()._cast_table(without_tensors(pa_table))

    def _as_streaming_dataset_single(self, splits_generator, *args, **kwargs) -> datasets.IterableDataset:
        pieces = splits_generator.gen_kwargs.get("pieces")
        if pieces is None:
            return adopt(super()._as_streaming_dataset_single(splits_generator, *args, **kwargs))
        info = self.info.copy()
        return SurveyStream(self._rows(pieces), info=info, split=splits_generator.name)

    def as_streaming_dataset(self, split=None, base_path: str | None = None):
        """As in `datasets`; several splits (``"all"``, ``"train+test"``) are one stream, which skips rows unread too."""
        every = [str(name) for name in self.config.data_files or ()]
        names = every if str(split) == "all" else [name.strip() for name in str(split).split("+")]
        if split is not None and re.fullmatch(r"[\w.]+", str(split)) and not set(names) <= set(every):
            raise UserError(f"{self.repo_id or self.base_path} has no split {split}: {', '.join(every)}")
        self._asked = tuple(names) if split is not None and set(names) <= set(every) else None
        if self._asked is None or len(names) < 2:
            return adopt(super().as_streaming_dataset(split, base_path))
        manager = datasets.StreamingDownloadManager(
            base_path=base_path or self.base_path,
            download_config=datasets.DownloadConfig(token=self.token, storage_options=self.storage_options),
            dataset_name=self.dataset_name,
        )
        generators = self._split_generators(manager)
        if any("pieces" not in each.gen_kwargs for each in generators):
            return adopt(super().as_streaming_dataset(split, base_path))
        pieces = [piece for each in generators for piece in each.gen_kwargs["pieces"]]
        return self._as_streaming_dataset_single(datasets.SplitGenerator("+".join(names), {"pieces": pieces}))

    def _as_dataset(self, *args, **kwargs) -> datasets.Dataset:
        return adopt(super()._as_dataset(*args, **kwargs), pil=self.config.decode == "pil")


def _head(path: str, names: Sequence[str], rows: int = _SAMPLE) -> pa.Table:
    """Some rows of columns of a file."""
    with ParquetFile(path, []) as file:
        return file.head(names, rows)


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


def with_images(features: datasets.Features, schema: pa.Schema, sample: Callable[[str], pa.Table]) -> datasets.Features:
    """The same with what is PNG or JPEG by its first rows as images, where a file does not declare its features itself.

    Args:
        features: of the file.
        schema: of the file.
        sample: gives some rows of a column.
    """
    if b"huggingface" in (schema.metadata or {}):
        return features
    found = {name: datasets.Image() for name in schema.names if _holds_images(schema.field(name).type, name, sample)}
    return datasets.Features({**features, **found})


def _holds_images(kind: pa.DataType, name: str, sample: Callable[[str], pa.Table]) -> bool:
    """Whether a column is of structs of bytes and path, as `datasets` stores images, whose bytes are such."""
    if not pa.types.is_struct(kind) or {field.name for field in kind} != {"bytes", "path"}:
        return False
    if not (pa.types.is_binary(kind.field("bytes").type) or pa.types.is_large_binary(kind.field("bytes").type)):
        return False
    rows = [row["bytes"] for row in sample(name).column(name).to_pylist() if row is not None]
    return bool(rows) and all(data is not None and data.startswith(_IMAGES) for data in rows)


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
