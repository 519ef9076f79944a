"""What a push writes beside the data: the card, the list of files with checksums, the citation, Croissant."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import constants

from skyset.building.card import more_blocks, new_card, refreshed, rows_card
from skyset.building.downloads import RAW
from skyset.errors import UserError
from skyset.loading import registry
from skyset.partitions.tree.form import ADOPTED
from skyset.publishing.citation import citation_file
from skyset.publishing.croissant import croissant
from skyset.publishing.metadata import joined_card, problems, size_category, split_card
from skyset.publishing.record import PUBLISHED, Record, check_theirs, described, record_name, record_text
from skyset.publishing.request import Request
from skyset.publishing.sender import Ready, git_etag
from skyset.publishing.source import Source
from skyset.survey import Survey

CARD, CITATION, CROISSANT = "README.md", "CITATION.cff", "croissant.json"
#: Its raw files as a table.
RAW_INDEX = "raw.parquet"
_OURS = "<!-- features: written by `skyset card` -->"
_STOCK = re.compile(r"(<!-- stock: written by `skyset card` -->\n).*?(<!-- end -->)", re.DOTALL)
_RECIPE = """This {kind} holds the rows as Parquet files in HEALPix order. `datasets` reads them alone:

```python
from datasets import load_dataset

rows = load_dataset("{source}", split="train", streaming=True)
```

With skyset they come in the archive's own dtypes in every format, and resume exactly:
`skyset.load("{survey}", data_dir="hf://{place}")`. `manifest.json` has the SHA-256 of each file.
"""
_PARTITIONS = "What this card says of HDF5 is about the partitions that `skyset build {survey}` makes.\n"


def _recipe(request: Request) -> str:
    kind, source = ("bucket", f"hf://{request.place}") if request.bucket else ("repository", request.repository)
    recipe = _RECIPE + ("" if request.survey == ADOPTED else _PARTITIONS) + "\n"
    return recipe.format(kind=kind, source=source, place=request.place, survey=request.survey)


def etags_of(content: bytes) -> frozenset[str]:
    """The checksums under which a repository may show a small file: Git's, or the one of a large file."""
    return frozenset({git_etag(content), hashlib.sha256(content).hexdigest()})


def _etag(path: str, content: bytes) -> str:
    """The checksum that the repository shows: Parquet is large whatever its size."""
    return hashlib.sha256(content).hexdigest() if path.endswith(".parquet") else git_etag(content)


def raw_index(ready: Sequence[Ready]) -> bytes:
    """The raw files of a repository as a table: ``path``, ``bytes`` and ``sha256``."""
    raw = [each for each in ready if each.item.path.startswith(f"{RAW}/")]
    columns = {
        "path": [each.item.path for each in raw],
        "bytes": [each.item.bytes for each in raw],
        "sha256": [each.made_of for each in raw],
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@dataclass(frozen=True)
class Beside:
    """The small files of a repository.

    Args:
        datasets: by config; none of a HATS catalogue, which has its own description.
        format: ``parquet``, ``hdf5`` or ``hats``.
    """

    datasets: Mapping[str, Source]
    format: str
    NAMES: ClassVar[tuple[str, ...]] = (CARD, CITATION, CROISSANT, RAW_INDEX, PUBLISHED)

    @property
    def names(self) -> list[str]:
        """Of the files that are written."""
        more = [CROISSANT] if self.format == "parquet" else []
        return [CARD, CITATION, *more, record_name(self.format)]

    def made(
        self, request: Request, ready: Sequence[Ready], record: Record, readme: bytes | None, etag: str
    ) -> dict[str, bytes]:
        """The files' contents by path.

        Args:
            request: of the push.
            ready: the files of data.
            record: what earlier pushes put there.
            readme: the card that the repository has, None where it has none.
            etag: its checksum.
        """
        survey = self._survey(request)
        url = f"{constants.ENDPOINT}/{request.place}"
        edited = self.check_card(request, record, readme, etag)
        text = self._card(request, survey, ready, readme.decode(errors="replace") if edited and readme else None)
        made = {CARD: text.encode(), CITATION: citation_file(survey, url)}
        if self.format == "parquet":
            features = {c: datasets.Features.from_arrow_schema(request.form.schema(s)) for c, s in self.datasets.items()}
            made[CROISSANT] = croissant(self.datasets, features, url, text)
        if request.raw:
            made[RAW_INDEX] = raw_index(ready)
        sums = {path: _etag(path, content) for path, content in made.items()}
        sums |= {each.item.path: each.etag for each in ready if each.sent is None}
        told = {config: described(source) for config, source in self.datasets.items()}
        items = [(each.item, each.sent, each.made_of) for each in ready if each.sent is not None]
        made[record_name(self.format)] = record_text(survey.name, self.format, items, sums, told, edited)
        return made

    def _survey(self, request: Request) -> Survey:
        declared = registry.survey(request.survey)
        found = next(iter(self.datasets.values()), None)
        return found.survey if found is not None and declared.of_build is not None else declared

    def check_card(self, request: Request, record: Record, readme: bytes | None, etag: str) -> bool:
        """Whether the repository's card is as people have changed it; for the arguments see ``made``.

        Raises:
            UserError: it is none that skyset wrote.
        """
        if readme is None or request.overwrite or not (record.edited or etag != record.files.get(CARD)):
            return False
        body = split_card(readme.decode(errors="replace"))[1]
        if body.strip() and _OURS not in body:
            raise UserError(
                f"{request.repository} has a {CARD} that skyset did not write: choose another --repo, or --overwrite"
            )
        return True

    def check(self, request: Request, record: Record, there: Mapping[str, str], readme: bytes | None) -> None:
        """Raise UserError where these would replace somebody else's, before anything is sent; ``there`` is by path."""
        self.check_card(request, record, readme, there.get(CARD, ""))
        url = f"{constants.ENDPOINT}/{request.place}"
        wanted = {name: frozenset[str]() for name in self.names if name != CARD}  # of most the content is not known yet
        wanted[CITATION] = etags_of(citation_file(self._survey(request), url))
        check_theirs(record, there, wanted, request.overwrite)

    def _card(self, request: Request, survey: Survey, ready: Sequence[Ready], theirs: str | None) -> str:
        """The folder's card, or the repository's where people changed it there, with the metadata of what is pushed."""
        own = Path(request.folder, CARD)
        if any(source.manifest.is_adopted for source in self.datasets.values()):
            text = rows_card(survey)
        else:
            text = own.read_text() if own.is_file() else new_card(survey, more_blocks(survey.name))
        if theirs is not None:
            metadata, body = split_card(theirs)
            if body.strip():
                text = theirs
            else:
                values, ours = split_card(text)
                text = joined_card({**values, **metadata}, ours)
        with contextlib.suppress(UserError):  # a card of somebody's own has no blocks
            text = refreshed(text, own, survey, more_blocks(survey.name))
        values, body = split_card(text)
        values["size_categories"] = [size_category(sum(each.rows for each in ready))]
        if self.format == "parquet":
            recipe = _recipe(request)
            body = _STOCK.sub(lambda found: found[1] + recipe + found[2], body)
            values["configs"] = self._configs(survey.name)
            values["dataset_info"] = self._infos(ready)
        if request.raw:
            others = [each for each in values.get("configs", []) if each.get("config_name") != RAW]
            values["configs"] = [*others, {"config_name": RAW, "data_files": [{"split": "train", "path": RAW_INDEX}]}]
        if self.format == "hats":
            values.pop("size_categories")
        if wrong := problems(values):
            raise UserError(f"{own}: {wrong[0]}")
        return joined_card(values, body)

    def _configs(self, survey: str) -> list[dict]:
        """Where the files of each dataset and split lie."""
        default = registry.default_config(survey)
        configs = []
        for config, source in self.datasets.items():
            files = [{"split": split, "path": f"data/{config}/{split}/*.parquet"} for split in source.manifest.splits]
            first = {"default": True} if config == default and config != "default" else {}
            configs.append({"config_name": config, **first, "data_files": files})
        return configs

    def _infos(self, ready: Sequence[Ready]) -> list[dict]:
        """Rows and bytes of each dataset and split: `datasets` compares what it has read with them."""
        infos = []
        for config, source in self.datasets.items():
            of = [each for each in ready if each.item.shard is not None and each.item.shard.config == config]
            splits: list[dict] = []
            for split in source.manifest.splits:
                its = [
                    each.sent for each in of if each.item.shard is not None and each.item.shard.split == split and each.sent
                ]
                size = sum(file.bytes for file in source.manifest.splits[split])
                splits.append({"name": split, "num_bytes": size, "num_examples": sum(sent.rows for sent in its)})
            download = sum(each.sent.bytes for each in of if each.sent)
            total = sum(split["num_bytes"] for split in splits)
            infos.append({"config_name": config, "splits": splits, "download_size": download, "dataset_size": total})
        return infos
