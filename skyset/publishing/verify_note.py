"""What ``skyset hats`` noted of a collection that it wrote: which files, with their checksums, and of which columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from skyset.errors import UserError
from skyset.loading import registry
from skyset.partitions.manifest import Manifest
from skyset.publishing.hats import NOTE, margin_name, read_note
from skyset.publishing.hats_plan import INDEX, INDEX_ORDER
from skyset.publishing.hats_rows import Form
from skyset.publishing.source import Source
from skyset.publishing.verify_files import Listed, column_differences
from skyset.publishing.verify_rows import Names
from skyset.survey import Column


@dataclass(frozen=True)
class Noted:
    """The note, read."""

    survey_name: str
    config: str
    name: str
    margin: float
    images: str
    rows: int
    names: Names
    key: str
    columns: tuple[Column, ...]
    features: frozenset[str]
    tables: frozenset[str]
    files: Mapping[str, Listed]
    noted: Mapping = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, lines: list[str]) -> Noted | None:
        """Of a folder; None where there is none, or, with a line that says so, where it cannot be used."""
        try:
            values = read_note(folder)
            if values is None:
                return None
            if "files" not in values:
                lines.append(f"{NOTE}: the export has not ended: the same command goes on")
            features = {each["column"]: each["name"] for each in values["columns"]}
            columns = tuple(
                Column(str(c["column"]), str(c["dtype"]), tuple(map(int, c["shape"])), str(c["unit"]))
                for c in values["columns"]
            )
            files = [
                Listed(str(f["path"]), int(f["rows"]), int(f["bytes"]), str(f["sha256"])) for f in values.get("files", [])
            ]
            names = Names(features["ra"], features["dec"], features[values["key"]])
            return cls(
                str(values["survey"]),
                str(values["config"]),
                values["name"],
                float(values["margin"]),
                str(values["images"]),
                int(values.get("rows", 0)),
                names,
                str(values["key"]),
                columns,
                frozenset(map(str, features.values())),
                frozenset(str(each["name"]) for each in values["columns"] if each.get("field")),
                {each.path: each for each in files},
                dict(values.get("noted", {})),
            )
        except UserError as error:
            lines.append(str(error).replace(f"{folder}/", "", 1))
        except (ValueError, LookupError, TypeError) as error:
            lines.append(f"{NOTE}: cannot be read: {type(error).__name__}: {str(error)[:200]}")
        return None

    def listed(self, path: str) -> Listed:
        """What is said of a file: nothing, where it is not named."""
        return self.files.get(path, Listed(path))

    def differences(self, source: Source | None) -> Iterator[str]:
        """Whether the note agrees with itself and with the partitions."""
        rows = sum(each.rows or 0 for path, each in self.files.items() if path.startswith(f"{self.name}/"))
        if self.files and rows != self.rows:
            yield f"{NOTE}: rows is {self.rows}, its files have {rows}"
        declared = self._declared()
        if declared is not None:
            wanted = [declared.survey.column(c.name) for c in self.columns if c.name in declared.survey.by_name]
            yield from column_differences(NOTE, self.columns, wanted, f"this version's {self.survey_name}")
        if source is not None:
            there = {column.name: column for column in source.manifest.columns}
            yield from column_differences(
                NOTE, self.columns, [there[c.name] for c in self.columns if c.name in there], "the source"
            )

    def unlisted(self, paths: Iterable[str]) -> Iterator[str]:
        """Files that are there and not in the note, or the reverse."""
        there = set(paths)
        if self.files:
            yield from (f"{path}: is there but not in {NOTE}" for path in sorted(there - self.files.keys()))
            yield from (f"{path}: missing" for path in sorted(self.files.keys() - there))

    def _declared(self) -> Source | None:
        if not registry.has_config(self.survey_name, self.config):
            return None
        survey = registry.survey(self.survey_name, self.config).as_built(self.columns, self.noted)
        empty = Manifest(self.survey_name, list(self.columns), self.key, [])
        return self.of(Source("", survey, empty))

    def of(self, source: Source) -> Source:
        """A source with the features that the catalogue has."""
        return source.with_flat_layers(self.tables).with_every_column()

    def schema(self, with_split: bool) -> pa.Schema | None:
        """That of the files; None where this version does not know the survey."""
        declared = self._declared()
        return Form(self.images, with_split).schema(declared.survey) if declared is not None else None

    def properties_differences(self, path: str, said: Mapping[str, str], margin: bool) -> Iterator[str]:
        """What a catalogue's properties say otherwise than the note."""
        expected = {"hats_col_ra": self.names.ra, "hats_col_dec": self.names.dec, "hats_npix_suffix": ".parquet"}
        expected |= {"hats_col_healpix": INDEX, "hats_col_healpix_order": str(INDEX_ORDER)}
        if margin:
            expected |= {"hats_margin_threshold": f"{self.margin:g}", "hats_primary_table_url": self.name}
        expected["obs_collection"] = margin_name(self.name, self.margin) if margin else self.name
        for name, value in expected.items():
            if said.get(name) != value:
                yield f"{path}: {name} is {said.get(name)!r}, {NOTE} says {value!r}"
