"""What is published: the rows of a dataset, wherever they lie, as Arrow record batches with the features of its loader."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
import pyarrow as pa

from skyset.loading import registry
from skyset.loading.arrow import features_of, needed_columns
from skyset.loading.in_place import lying_in
from skyset.loading.partition_rows import PartitionRows
from skyset.loading.reader import PIECE_BYTES, Piece, cut
from skyset.loading.trees import files_of
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import FileEntry, Manifest
from skyset.survey import Column, Feature, Layers, Survey, plain_features


@dataclass(frozen=True)
class Source:
    """One dataset: a survey's, or one of its configs.

    Args:
        root: folder or URL of its partitions, or of published files that are read where they lie.
        survey: its declaration as it was built; its features are what is published.
        manifest: its files.
        cells: by path the HEALPix cells of a file's rows, where these are others than the manifest's.
    """

    root: str
    survey: Survey
    manifest: Manifest
    cells: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def a_file(self) -> str:
        """One of its files, or its root where it has none: whoever sees it sees all of them."""
        return f"{self.root.rstrip('/')}/{self.manifest.files[0].path}" if self.manifest.files else self.root

    def for_workers(self) -> Source:
        """The same, read from any folder that a worker stands in."""
        return self if "://" in self.root else replace(self, root=str(Path(self.root).absolute()))

    @property
    def features(self) -> datasets.Features:
        """Those that the loader hands out."""
        return features_of(self.survey)

    @property
    def columns(self) -> list[Column]:
        """What is read on disk for them."""
        return needed_columns(self.survey, list(self.features))

    def with_every_column(self) -> Source:
        """The same rows with features, under the columns' names, of the columns that no feature is made of.

        Where a feature has such a name, it is ``<name>_stored``.
        """
        used, taken = {c.name for c in self.columns}, set(self.features)
        unused = [c.name for c in self.survey.columns if c.name not in used]
        more = [Feature(f"{name}_stored" if name in taken else name, name) for name in unused]
        return replace(self, survey=replace(self.survey, features=(*self.survey.features, *more)))

    def with_flat_layers(self, kept: Collection[str] = ()) -> Source:
        """The same rows with one feature for each column that a group is made of, in place of the groups but those ``kept``.

        A column that is a feature of its own name besides stays that one.
        """
        own = {(f.name, f.source) for f in self.survey.features if isinstance(f, Feature)}
        flat: list[Feature | Layers] = []
        for feature in self.survey.features:
            if isinstance(feature, Layers) and feature.name not in kept:
                columns = [self.survey.column(name) for name in feature.sources if (name, name) not in own]
                flat += plain_features(columns, {})
            else:
                flat.append(feature)
        axes = {name: axis for name, axis in self.survey.image_axes.items() if "." not in name}
        return replace(self, survey=replace(self.survey, features=tuple(flat), image_axes=axes))

    def pieces(self, files: Sequence[FileEntry], piece_bytes: int = PIECE_BYTES, verify: bool = True) -> list[Piece]:
        """All rows of some files in their order; with ``verify`` a file's checksum is looked at as it is first read.

        Raises:
            UserError: see `skyset.loading.reader.cut`.
        """
        in_place = self.manifest.build.get("in_place") or self.manifest.is_adopted  # of these no checksums are known
        return cut(self.root, files, self.columns, piece_bytes, verify=verify and not in_place)

    def batches(
        self, files: Sequence[FileEntry], piece_bytes: int = PIECE_BYTES, verify: bool = True
    ) -> Iterator[pa.RecordBatch]:
        """The rows of some files, in their order, a few megabytes at a time; each dtype is the column's.

        Args:
            files: of the manifest.
            piece_bytes: of a batch, about; one has a row at least.
            verify: compare each file's SHA-256 with the manifest's.

        Raises:
            PartitionError: a file is gone, damaged, or not what the manifest says.
        """
        pieces = self.pieces(files, piece_bytes, verify)
        rows = PartitionRows(self.survey, pieces, list(self.features)).with_changes(mode="arrow")
        for _, table in rows._iter_arrow():
            yield from table.to_batches()


def sources(where: str) -> dict[str, Source]:
    """The datasets of a folder or URL, by config: of partitions, of a survey's folder above them, of published files.

    Raises:
        UserError: there is none, or its survey is not known.
    """
    if lying := lying_in(where):
        return {config: Source(*found) for config, found in lying.items()}
    below = registry.folders_below(where) if "://" not in where else {}
    if below and not (Path(where).expanduser() / MANIFEST).is_file():
        return {config: _of_partitions(folder) for config, folder in below.items()}
    found = _of_partitions(where)
    return {found.manifest.config: found} | {config: _of_partitions(folder) for config, folder in below.items()}


def _of_partitions(root: str) -> Source:
    manifest = Manifest.load(root)
    return Source(
        files_of(manifest, root),
        registry.survey(manifest.survey, manifest.config).as_built(manifest.columns, manifest.build),
        manifest,
    )
