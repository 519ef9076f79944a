"""The parts of a dataset card that follow from a survey's declaration, so that card and code cannot disagree."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from skyset.declaration import HEAD, Described, column_rows, feature_rows
from skyset.errors import UserError
from skyset.files import write_atomically
from skyset.loading import registry
from skyset.questions import markdown
from skyset.survey import Survey

_BLOCK = r"(<!-- {name}: written by `skyset card` -->\n).*?(<!-- end -->)"


def features_table(survey: Survey) -> str:
    """Markdown table of what the loader hands out."""
    return _table("feature", feature_rows(survey))


def columns_table(survey: Survey) -> str:
    """Markdown table of what is on disk; text is bytes there, and a string to readers."""
    rows = [
        Described(row.name, "string", *row[2:]) if survey.column(row.name).is_text else row
        for row in column_rows(survey.columns)
    ]
    return _table("column", rows)


def _table(first: str, rows: Iterable[Described]) -> str:
    lines = [f"| {' | '.join((first, *HEAD))} |", "|---|---|---|---|---|"]
    for row in rows:
        name, *rest = row.cells()
        lines.append(f"| `{name}` | {' | '.join(rest)} |")
    return "\n".join(lines) + "\n"


def citation(survey: Survey) -> str:
    """The BibTeX entry in a code block."""
    return f"```bibtex\n{survey.citation}\n```\n"


_STOCK = """Without skyset, `datasets` reads the same files by its own HDF5 module: slowly, the columns on disk{what},
text as bytes, and with `"numpy"` and `"torch"` in other dtypes. `{files}` keeps it from reading `manifest.json`
too; another split's files are `SPLIT/healpix=*/*.hdf5`.

```python
{imports}from datasets import {names}

{before}rows = load_dataset("hdf5", data_dir="data/{survey}", data_files="{files}", split="train"{options})
```
"""
#: The stock module wants a row of every column; a ragged column is two datasets, which it cannot read.
_SCALARS = """with open("data/{survey}/manifest.json") as file:
    columns = [column for column in json.load(file)["columns"] if column["dtype"] != "bytes"{and_no_arrays}]
kinds = {{column["name"]: "binary" if "S" in column["dtype"] else column["dtype"] for column in columns}}
features = Features({{name: Value(kind) for name, kind in kinds.items()}})
"""


def stock_recipe(survey: Survey) -> str:
    """How the partitions are loaded without skyset; the encoded images and ragged columns of a survey cannot be."""
    config = registry.default_config(survey.name) if registry.is_known(survey.name) else "default"
    folder = survey.name if config == "default" else f"{survey.name}/{config}"
    files = f"{'train/' if survey.train_folder else ''}healpix=*/*.hdf5"
    if not any(column.is_ragged for column in survey.columns):
        return _STOCK.format(survey=folder, files=files, what="", imports="", names="load_dataset", before="", options="")
    arrays = any(column.shape for column in survey.columns)
    those = ["the encoded images"] if any(column.is_bytes for column in survey.columns) else []
    what = f" but for {' and '.join([*those, *(['arrays'] if arrays else [])])}"
    before = _SCALARS.format(survey=folder, and_no_arrays=' and not column["shape"]' if arrays else "")
    return _STOCK.format(
        survey=folder,
        files=files,
        what=what,
        imports="import json\n\n",
        names="Features, Value, load_dataset",
        before=before,
        options=", features=features",
    )


def more_blocks(name: str) -> dict[str, str]:
    """What stands between the further markers of a survey's card: features of the configs but the first, questions."""
    configs, questions = registry.configs(name), getattr(registry.loader(name), "QUESTIONS", {})
    found = {f"features {config}": features_table(survey) for config, survey in [*configs.items()][1:]}
    return found | ({"questions": markdown(questions)} if questions else {})


def card_path(name: str) -> Path:
    """README.md beside a survey's build script, or else beside its loader."""
    home = registry.build_script(name) if name in registry.buildable() else registry.loader(name)
    return Path(str(home.__file__)).with_name("README.md")


def leave_card(root: Path, survey: Survey, config: str = "default") -> None:
    """Put the survey's card as README.md into a folder of its partitions; a text of somebody else's stays as it is.

    Raises:
        UserError: it cannot be written.
    """
    path = (root if config == "default" else root.parent) / "README.md"
    known = registry.is_known(survey.name)
    more = more_blocks(survey.name) if known else {}
    declared = registry.survey(survey.name) if known and survey.of_build is None else survey
    if path.exists():
        with contextlib.suppress(UserError):  # no card
            refresh(path, declared, more)
        return
    source = card_path(survey.name) if known else None
    write_atomically(path, source.read_text() if source and source.exists() else new_card(declared, more))


_CARD = """---
pretty_name: "{title}"
license: other
license_name: see-card
tags:
- astronomy
- galaxies
configs:
- config_name: default
  data_files:
  - split: train
    path: "healpix=*/*.hdf5"
---

# {title}

{homepage}

## Load

```python
import skyset
from datasets import load_dataset

rows = load_dataset("{name}", data_dir="data/{name}", split="train", streaming=True).with_format("numpy")
```

{stock}
## Features

{features}
## Columns on disk

`healpix=<cell>/<part>-of-<parts>.hdf5`, HEALPix nside 16 nested, one HDF5 dataset per column. Units and meanings are
attributes of the datasets, and in `manifest.json`.

{columns}
## Licence and citation

{license}

{citation}"""


#: Of rows that were published and lie in no partitions: of an adopted tree.
_ROWS_CARD = """---
pretty_name: "{title}"
license: other
license_name: see-card
tags:
- astronomy
---

# {title}

{homepage}

## Load

{stock}
## Features

{features}
## Licence and citation

{license}

{citation}"""


def rows_card(survey: Survey) -> str:
    """A whole card of rows that are none of partitions of ours: without what these are like on disk."""
    blocks = {"stock": "", "features": features_table(survey), "citation": citation(survey)}
    marked = {name: f"<!-- {name}: written by `skyset card` -->\n{text}<!-- end -->\n" for name, text in blocks.items()}
    title = survey.title.replace('"', "'")
    return _ROWS_CARD.format(title=title, homepage=survey.homepage, license=survey.license, **marked)


def write_card(path: Path, survey: Survey, more: Mapping[str, str] | None = None) -> bool:
    """Bring a card up to date, or write one where there is none; True where that changed the file.

    What people wrote between the blocks stays.

    Raises:
        UserError: there is a file without the card's blocks, or it cannot be written.
    """
    try:
        if path.exists():
            return refresh(path, survey, more)
        write_atomically(path, new_card(survey, more))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return True


def new_card(survey: Survey, more: Mapping[str, str] | None = None) -> str:
    """A whole card from a declaration alone."""
    blocks = _blocks(survey, more)
    marked = {name: f"<!-- {name}: written by `skyset card` -->\n{text}<!-- end -->\n" for name, text in blocks.items()}
    features = "\n".join(text for name, text in marked.items() if name not in ("stock", "columns", "citation"))
    title = survey.title.replace('"', "'")
    return _CARD.format(
        title=title,
        name=survey.name,
        homepage=survey.homepage,
        license=survey.license,
        features=features,
        stock=marked["stock"],
        columns=marked["columns"],
        citation=marked["citation"],
    )


def _blocks(survey: Survey, more: Mapping[str, str] | None) -> dict[str, str]:
    own = {
        "stock": stock_recipe(survey),
        "features": features_table(survey),
        "columns": columns_table(survey),
        "citation": citation(survey),
    }
    return own | dict(more or {})


def refresh(card: Path, survey: Survey, more: Mapping[str, str] | None = None) -> bool:
    """Write tables, citation, and ``more`` by marker, into a card between its markers; True where that changed it.

    Raises:
        UserError: the card lacks a marker.
    """
    old = card.read_text()
    text = refreshed(old, card, survey, more)
    if text != old:
        write_atomically(card, text)
    return text != old


def refreshed(text: str, card: Path, survey: Survey, more: Mapping[str, str] | None = None) -> str:
    """The text of a card with its blocks as the declaration has them now; ``card`` is its name in errors.

    Raises:
        UserError: the card lacks a marker.
    """
    for name, block in _blocks(survey, more).items():
        found = re.search(_BLOCK.format(name=name), text, re.DOTALL)
        if found is None:
            raise UserError(f"{card} has no block '<!-- {name}: written by `skyset card` -->' ... '<!-- end -->'")
        text = text[: found.end(1)] + block + text[found.start(2) :]
    return text
