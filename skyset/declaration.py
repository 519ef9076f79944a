"""A survey's declaration as people read it: what the loader hands out and what is on disk, row by row; ``skyset.info``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from skyset.survey import ANY, Column, Layers, Survey


class Described(NamedTuple):
    """One feature or column: its name, dtype, shape (may be empty), unit (FITS standard string) and meaning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    unit: str
    description: str

    def cells(self) -> tuple[str, str, str, str, str]:
        """The same as texts, the shape as ``5 x 127 x 127``, ``any`` for an axis whose length differs from row to row."""
        return (
            self.name,
            self.dtype,
            " x ".join("any" if n == ANY else str(n) for n in self.shape),
            self.unit,
            self.description,
        )


HEAD = ("dtype", "shape", "unit", "meaning")


def column_rows(columns: Iterable[Column]) -> list[Described]:
    """What is on disk."""
    return [Described(column.name, column.dtype, column.shape, column.unit, column.description) for column in columns]


def feature_rows(survey: Survey) -> list[Described]:
    """What the loader hands out; the members of a group as ``group.member``."""
    rows: list[Described] = []
    for feature in survey.features:
        if isinstance(feature, Layers):
            rows += _layer_rows(survey, feature)
        else:
            dtype = "image" if survey.hands_out_images(feature) else None
            rows.append(_handed_out(feature.name, survey.column(feature.source), dtype))
    return rows


def _layer_rows(survey: Survey, layers: Layers) -> Iterator[Described]:
    labels = ", ".join(layers.labels)
    if labels:
        yield Described(f"{layers.name}.{layers.label_field}", "string", (len(layers.labels),), "", f"always {labels}")
    for key, source in layers.fields.items():
        name = f"{layers.name}.{key}"
        if isinstance(source, str):
            yield _handed_out(name, survey.column(source))
            continue
        first = survey.column(source[0])
        meaning = f"the columns {', '.join(source)} in this order"
        yield Described(name, first.dtype, (len(source), *first.shape), first.unit, meaning)


def _handed_out(name: str, column: Column, dtype: str | None = None) -> Described:
    dtype = dtype or ("string" if column.is_text else column.dtype)
    return Described(name, dtype, column.shape, column.unit, column.description)


def lines_of(rows: Iterable[Described], first: str) -> list[str]:
    """A line per row under a head, in columns of equal width; the meaning comes last and is not shortened."""
    texts = [(first, *HEAD), *(row.cells() for row in rows)]
    widths = [max(len(text[k]) for text in texts) for k in range(4)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(text, widths, strict=False)), text[4]]) for text in texts]


@dataclass(frozen=True)
class SurveyInfo:
    """What a survey declares, without any data: prints as a table, and is one in Jupyter.

    Args:
        survey: the declaration of this config.
        config: its name.
        configs: the names of all of the survey's datasets.
    """

    survey: Survey
    config: str
    configs: tuple[str, ...]

    @property
    def features(self) -> list[Described]:
        """What the loader hands out."""
        return feature_rows(self.survey)

    @property
    def columns(self) -> list[Described]:
        """What is on disk."""
        return column_rows(self.survey.columns)

    def _facts(self) -> list[tuple[str, str]]:
        several = f"{self.config} (of {', '.join(self.configs)})" if len(self.configs) > 1 else ""
        survey = self.survey
        facts = {
            "survey": survey.name,
            "config": several,
            "archive": survey.base_url,
            "homepage": survey.homepage,
            "licence": survey.license,
        }
        return [(name, value) for name, value in facts.items() if value]

    def __str__(self) -> str:
        facts = [f"{name:10}{value}" for name, value in self._facts()]
        return "\n".join([self.survey.title, *facts, "", *lines_of(self.features, "feature")])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        facts = "<br>".join(f"{name}: {escape(value)}" for name, value in self._facts())
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("feature", *HEAD))
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row.cells()) + "</tr>"
            for row in self.features
        )
        return (
            f"<b>{escape(self.survey.title)}</b><br>{facts}"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
