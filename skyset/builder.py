"""The `datasets` builder that every loader subclasses: partitions in, rows or Arrow tables out.

`datasets` replaces ``open`` and parts of numpy in the module of a builder while it streams: the reading itself is in
``stream.py`` and ``partitions.py``, out of its reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import datasets

from skyset.block_cache import BlockCache, cache_in
from skyset.errors import UserError
from skyset.loading.arrow import features_of, needed_columns
from skyset.loading.in_place import read_in_place
from skyset.loading.partition_rows import PartitionRows
from skyset.loading.places import config_of, find_root, looked_in
from skyset.loading.pushed import read_pushed
from skyset.loading.reader import cut
from skyset.loading.registry import code_digest, how_to_make
from skyset.loading.stream import SurveyStream, adopt
from skyset.loading.trees import files_of
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import Manifest
from skyset.partitions.parquet_file import OpensParquet
from skyset.secrets import without_login
from skyset.survey import Feature, Layers, Survey


@dataclass
class SurveyConfig(datasets.BuilderConfig):
    """Options of ``load_dataset(name, ...)``.

    Args:
        image_size: side of a centre crop of all images and masks, in pixels; None for all pixels.
        on_bad_partition: ``"raise"`` a PartitionError that names it, or ``"skip"`` its rows with a warning; a stream counts
            them in ``skipped``.
        decode: how images that are stored encoded come where there is no format: ``"array"``, uint8 (H, W, 3), or ``"pil"``,
            as ``PIL.Image``.
        verify: compare each file's SHA-256 with the manifest's as it is first read, once in each process: bits that rotted
            make a bad partition. Takes a second for about a gigabyte, and reads whole files.
        cache_limit: keep what is read from a URL on the disk, as many bytes at most, ``"50GB"`` or a number; in the folder
            ``skyset_blocks`` of ``cache_dir=``, by default that of `datasets`. None keeps nothing.
        keep_padding: hand out what spectra and light curves are padded with in the files, and is left out otherwise.
    """

    image_size: int | None = None
    on_bad_partition: str = "raise"
    decode: str = "array"
    verify: bool = False
    cache_limit: str | int | None = None
    keep_padding: bool = False

    def create_config_id(self, config_kwargs: dict, *args, **kwargs) -> str:
        """As in `datasets`; the Arrow cache holds the same bytes however they come and are decoded.

        `datasets` refuses an id that is the name alone: where nothing else is asked for, ``decode`` stays in it.
        """
        kept = {name: value for name, value in config_kwargs.items() if name not in ("decode", "cache_limit")}
        return super().create_config_id(kept or config_kwargs, *args, **kwargs)


class SurveyBuilder(datasets.ArrowBasedBuilder):
    """Loads one survey's partitions. Subclasses set ``SURVEY``, and ``CONFIGS`` where the survey has several datasets.

    The data are looked for by the rule of ``places.py``; ``data_dir`` may be remote (``https://...``,
    ``hf://datasets/user/name``).
    """

    SURVEY: Survey
    #: Declarations by config, the first is what is loaded where none is named. The partitions of one that is called
    #: ``default`` lie in the survey's folder, those of the others in folders of their names below it.
    CONFIGS: Mapping[str, Survey] = {}
    BUILDER_CONFIG_CLASS = SurveyConfig
    VERSION = datasets.Version("1.0.0")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.CONFIGS:
            cls.BUILDER_CONFIGS = [
                SurveyConfig(name=name, version=cls.VERSION, description=declared.title)
                for name, declared in cls.CONFIGS.items()
            ]
            cls.DEFAULT_CONFIG_NAME = next(iter(cls.CONFIGS))

    def __init__(self, *args, hash: str | None = None, base_path: str | None = None, **kwargs):
        if isinstance(kwargs.get("data_dir"), str):
            kwargs["data_dir"] = without_login(kwargs["data_dir"])  # `datasets` writes it into names of folders
        known = self.configs_at(kwargs.get("data_dir"))  # of a survey that has no others, `datasets` would take any name
        asked = kwargs.get("config_name")
        name = self.config_named(asked, kwargs.get("data_dir")) if asked else self._meant(kwargs.get("data_dir"), known)
        if asked or name != (known[0] if self.CONFIGS else "default"):
            kwargs["config_name"] = name
        if name not in known:
            raise UserError(f"{self.SURVEY.name} has no config {name!r}; known: {', '.join(known)}")
        declared = self.CONFIGS.get(name, self.SURVEY)
        self._root, self._manifest, self._survey = self._found(declared, kwargs.get("data_dir"), base_path, name)
        if kwargs.get("keep_padding", False):
            self._survey = replace(self._survey, trims=())
        # Part of the cache's path: rows of an edited file or of an older loader are never served.
        digest = self._manifest.digest() if self._manifest else ""
        super().__init__(*args, hash=f"{code_digest()}{digest}", base_path=base_path, **kwargs)

    @classmethod
    def configs_at(cls, data_dir: str | None) -> tuple[str, ...]:
        """The configs that can be asked for, the usual one first: those of the survey, whatever folder it is."""
        return tuple(cls.CONFIGS) or ("default",)

    @classmethod
    def config_named(cls, name: str, data_dir: str | None) -> str:
        """The config that somebody means by a name; the name itself where there is no other one for it."""
        return name

    @staticmethod
    def _meant(data_dir: str | None, known: tuple[str, ...]) -> str:
        """The config that is loaded where none is named: the first, unless the folder is that of another one."""
        if known[0] == "default" or data_dir is None or "://" in str(data_dir):
            return known[0]
        found = config_of(Path(data_dir).expanduser())
        return found if found in known else known[0]

    def _found(
        self, declared: Survey, data_dir: str | None, base_path: str | None, config: str
    ) -> tuple[str | None, Manifest | None, Survey]:
        """Where the data lie, what is there, and the declaration as it was built: of partitions, or files in place."""
        root = find_root(declared.name, data_dir, base_path, config)
        try:
            manifest = self._load_manifest(root, config) if root else None
        except UserError:
            in_place = read_in_place(declared, data_dir, config) or read_pushed(declared, data_dir or root, config)
            if in_place is None:
                others = [name for name, each in self.CONFIGS.items() if read_in_place(each, data_dir, name)]
                if others:
                    raise UserError(
                        f"{data_dir} has the published files of config {', '.join(others)}, not of {config}"
                    ) from None
                raise
            root, survey, manifest = in_place
            return root, manifest, survey
        return root, manifest, declared.as_built(manifest.columns, manifest.build) if manifest else declared

    def _load_manifest(self, root: str, config: str) -> Manifest:
        """The manifest of the root; UserError where that is none, or another config's."""
        try:
            manifest = Manifest.load(root)
        except UserError as error:
            if config == "default" or not str(error).startswith("no "):
                raise
            other = config_of(Path(root).parent) if "://" not in root else None
            if other is not None:
                raise UserError(f"{Path(root).parent} holds config {other}, not {config}: {self._above(other)}") from None
            raise UserError(f"config {config} is not built in {root}: `{self._build_command(config)}`") from None
        if manifest.survey == self.SURVEY.name and manifest.config != config:
            raise UserError(
                f"{root} holds config {manifest.config} of {manifest.survey}, not {config}: {self._above(manifest.config)}"
            )
        return manifest

    def _above(self, config: str) -> str:
        return f'load_dataset("{self.SURVEY.name}", "{config}", data_dir=<the folder above it>)'

    def _build_command(self, config: str) -> str:
        more = f"--configs {config} " if config != "default" and "default" in self.CONFIGS else ""
        return how_to_make(self.SURVEY.name, f"{more}-o data/{self.SURVEY.name}")

    def _info(self) -> datasets.DatasetInfo:
        survey, size = self._survey, self.config.image_size
        encoded = [f.name for f in survey.features if isinstance(f, Feature) and survey.hands_out_images(f)]
        sides = [survey_side(survey, name) for name in survey.image_axes if name not in encoded]
        if size is not None and encoded:
            raise UserError(f"image_size cannot crop {encoded[0]}, which is stored encoded: crop it after it is decoded")
        if size is not None and not (isinstance(size, int) and 0 < size <= min(sides, default=0)):
            raise UserError(f"image_size must be 1 to {min(sides, default=0)} pixels, not {size}")
        if self.config.on_bad_partition not in ("raise", "skip"):
            raise UserError(f'on_bad_partition must be "raise" or "skip", not {self.config.on_bad_partition!r}')
        if self.config.decode not in ("array", "pil"):
            raise UserError(f'decode must be "array" or "pil", not {self.config.decode!r}')
        if self.config.decode == "pil" and not encoded:
            raise UserError(
                f"{survey.name} has no images stored as JPEG or PNG, so that there is nothing to decode: "
                'cast_column("image", datasets.Image()) makes PIL images of pixels'
            )
        for option in ("verify", "keep_padding"):
            if not isinstance(value := getattr(self.config, option), bool):
                raise UserError(f"{option} must be True or False, not {value!r}")
        return datasets.DatasetInfo(
            description=survey.title,
            features=features_of(survey, size),
            homepage=survey.homepage,
            citation=survey.citation,
            license=survey.license,
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        if self.config.data_files is not None:
            raise UserError("give data_dir=, the folder of manifest.json, instead of data_files=")
        if self._manifest is None or self._root is None:
            raise UserError(
                f"no {self.SURVEY.name} partitions found: give data_dir=, or build them with "
                f"`{self._build_command(self.config.name if self.CONFIGS else 'default')}`; {looked_in(self.SURVEY.name)}"
            )
        if self._manifest.survey != self.SURVEY.name:
            raise UserError(f"{self._root} holds {self._manifest.survey}, not {self.SURVEY.name}")
        if self.config.verify and (self._manifest.build.get("in_place") or self._manifest.is_adopted):
            raise UserError(f"verify needs the checksums of {MANIFEST}: files that are read in place have none")
        columns, root = needed_columns(self._survey, list(self.info.features)), files_of(self._manifest, self._root)
        pieces = {
            split: cut(root, files, columns, verify=self.config.verify) for split, files in self._manifest.splits.items()
        }
        return [datasets.SplitGenerator(name=split, gen_kwargs={"pieces": those}) for split, those in pieces.items()]

    def _generate_tables(self, pieces):
        yield from enumerate(table for _, table in self._rows(pieces).with_changes(mode="arrow").iter_arrow())

    def _get_examples_iterable_for_split(self, split_generator) -> PartitionRows:
        return self._rows(split_generator.gen_kwargs["pieces"])

    def _rows(self, pieces) -> PartitionRows:
        rows = PartitionRows(self._survey, pieces, list(self.info.features), self.config.image_size)
        options = {"skip_bad": self.config.on_bad_partition == "skip", "pil": self.config.decode == "pil"}
        return rows.with_changes(**options, cache=self._block_cache())

    def _block_cache(self) -> BlockCache | None:
        """What keeps blocks of files from a server; None where nobody asked for it, or nothing comes from one."""
        if self.config.cache_limit is None:
            return None
        far = self._root is not None and "://" in self._root
        opens, files = self._survey.opens, self._manifest.files if self._manifest else []
        if far and opens is not None and not (isinstance(opens, OpensParquet) and all(each.sha256 for each in files)):
            raise UserError("cache_limit is for files with a list of checksums: partitions, and what `skyset push` made")
        return cache_in(self._cache_dir_root, self.config.cache_limit, wanted=far)

    def as_streaming_dataset(self, split=None, base_path: str | None = None):
        """As in `datasets`; several splits (``"all"``, ``"train+test"``) are one stream, which skips rows unread too."""
        generators = {each.name: each for each in self._split_generators(None)} if split is not None else {}
        names = list(generators) if str(split) == "all" else [name.strip() for name in str(split).split("+")]
        if str(split) == "all" and len(names) == 1:
            split = names[0]  # or `datasets` would chain one stream, and format its rows one value at a time
        if not names or not set(names) <= set(generators):
            return adopt(super().as_streaming_dataset(split, base_path))
        pieces = [piece for name in names for piece in generators[name].gen_kwargs["pieces"]]
        return self._as_streaming_dataset_single(datasets.SplitGenerator(str(split).replace(" ", ""), {"pieces": pieces}))

    def _as_streaming_dataset_single(self, splits_generator, *_, **__) -> SurveyStream:
        assert self._manifest is not None  # or there were no splits
        rows = self._get_examples_iterable_for_split(splits_generator)
        info = self.info.copy()
        info.splits = datasets.SplitDict(dataset_name=self.dataset_name)
        for split, files in self._manifest.splits.items():
            info.splits.add(datasets.SplitInfo(split, num_examples=sum(entry.rows for entry in files)))
        return SurveyStream(rows, info=info, split=splits_generator.name)

    def _as_dataset(self, *args, **kwargs) -> datasets.Dataset:
        return adopt(super()._as_dataset(*args, **kwargs), pil=self.config.decode == "pil")


def survey_side(survey: Survey, name: str) -> int:
    """Pixels a side of an image feature."""
    declared = next(f for f in survey.features if name == f.name or name.startswith(f"{f.name}."))
    key = name.removeprefix(declared.name).removeprefix(".")
    source = declared.fields[key] if isinstance(declared, Layers) else declared.source
    column = survey.column(source if isinstance(source, str) else source[0])
    axis = survey.image_axes[name] - (not isinstance(source, str))
    return min(column.shape[axis : axis + 2])
