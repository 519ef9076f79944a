"""The parts of a dataset card that follow from a survey's declaration, so that card and code cannot disagree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from skyset.errors import UserError
from skyset.questions import Tree
from skyset.questions import markdown
from skyset.survey import Layers
from skyset.survey import Survey

_BLOCK = r"(<!-- {name}: written by `skyset card` -->\n).*?(<!-- end -->)"


def features_table(survey: Survey) -> str:
    """Markdown table of what the loader hands out."""
    lines = ["| feature | dtype | shape | unit | meaning |", "|---|---|---|---|---|"]
    for feature in survey.features:
        if not isinstance(feature, Layers):
            dtype = "image" if survey.hands_out_images(feature) else None
            lines.append(_line(feature.name, survey, feature.source, dtype))
            continue
        labels = ", ".join(f"`{label}`" for label in feature.labels)
        lines.append(f"| `{feature.name}.{feature.label_field}` | string | {len(feature.labels)} | | always {labels} |")
        for key, source in feature.fields.items():
            lines += [_layer_line(f"{feature.name}.{key}", survey, feature, source)]
    return "\n".join(lines) + "\n"


def _layer_line(name: str, survey: Survey, layers: Layers, source: str | tuple[str, ...]) -> str:
    if isinstance(source, str):
        return _line(name, survey, source)
    column = survey.column(source[0])
    shape = " x ".join(map(str, (len(source), *column.shape)))
    return f"| `{name}` | {column.dtype} | {shape} | {column.unit} | the columns {', '.join(source)} in this order |"


def columns_table(survey: Survey) -> str:
    """Markdown table of what is on disk."""
    lines = ["| column | dtype | shape | unit | meaning |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(_line(column.name, survey, column.name) for column in survey.columns)]) + "\n"


def _line(name: str, survey: Survey, source: str, dtype: str | None = None) -> str:
    column = survey.column(source)
    dtype = dtype or ("string" if column.is_text else column.dtype)
    return f"| `{name}` | {dtype} | {' x '.join(map(str, column.shape))} | {column.unit} | {column.description} |"


def citation(survey: Survey) -> str:
    """The BibTeX entry in a code block."""
    return f"```bibtex\n{survey.citation}\n```\n"


def more_blocks(configs: Mapping[str, Survey], questions: Mapping[str, Tree]) -> dict[str, str]:
    """What stands between the further markers of a card: the features of the configs but ``default``, the questions.

    Args:
        configs: declarations.
        questions: trees of questions, of a survey that has any.
    """
    found = {f"features {name}": features_table(survey) for name, survey in configs.items() if name != "default"}
    return found | ({"questions": markdown(questions)} if questions else {})


def refresh(card: Path, survey: Survey, more: Mapping[str, str] | None = None) -> bool:
    """Write tables, citation, and ``more`` by marker, into a card between its markers; True where that changed it.

    Raises:
        UserError: the card lacks a marker.
    """
    old = text = card.read_text()
    blocks = {"features": features_table(survey), "columns": columns_table(survey), "citation": citation(survey)}
    for name, block in (blocks | dict(more or {})).items():
        found = re.search(_BLOCK.format(name=name), text, re.DOTALL)
        if found is None:
            raise UserError(f"{card} has no block '<!-- {name}: written by `skyset card` -->' ... '<!-- end -->'")
        text = text[: found.end(1)] + block + text[found.start(2) :]
    if text != old:
        card.write_text(text)
    return text != old
