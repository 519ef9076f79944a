"""What a dataset's columns are as a Python file, printed to start from, and read again when it was edited."""

from __future__ import annotations

import importlib.util
import json
import shlex
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from skyset.adopting.infer import Inferred
from skyset.errors import UserError
from skyset.partitions.tree.form import KINDS, Source, TreeForm
from skyset.survey import Survey

_HEAD = '''"""{title}

Written by `skyset adopt --print_declaration`. Edit it: names of columns and features, units (FITS standard), descriptions,
groups, padding (Trim), what is left out; then

    skyset adopt {tree} --declaration {file}

A column is made of what SOURCES says: Source((dataset,)) as it is stored, Source((dataset,), "text"), ...; see
skyset.partitions.tree.form.
"""

from skyset.partitions.tree.form import Source
from skyset.survey import Column
from skyset.survey import Feature
from skyset.survey import Layers
from skyset.survey import Survey
from skyset.survey import Trim
'''
#: Characters of a line.
_WIDEST = 125
#: Fields of a Survey that a declaration has.
_SAID = ("name", "title", "homepage", "citation", "license", "base_url", "columns", "features", "key", "image_axes", "trims")


def printed(datasets: Mapping[str, Inferred], tree: str, file: str = "FILE.py") -> str:
    """A module that declares some datasets by the names of their configs."""
    title = next(iter(datasets.values())).survey.title
    said = "\n".join(textwrap.wrap(title, _WIDEST - 3, break_long_words=False))
    parts = [_HEAD.format(title=said, tree=_quoted(tree), file=file)]
    if len(datasets) == 1:
        one = next(iter(datasets.values()))
        survey, sources = _code(_said(one.survey)), _code(one.form.sources)
        parts.append(f"\nKIND = {_inline(one.form.kind)}\n\nSURVEY = {survey}\n\nSOURCES = {sources}\n")
    else:
        kinds = {name: each.form.kind for name, each in datasets.items()}
        surveys = {name: _said(each.survey) for name, each in datasets.items()}
        made_of = {name: dict(each.form.sources) for name, each in datasets.items()}
        parts.append(f"\nKINDS = {_code(kinds)}\n\nSURVEYS = {_code(surveys)}\n\nSOURCES = {_code(made_of)}\n")
    return "".join(parts)


def _quoted(path: str) -> str:
    """A path as a shell takes it, within a text of three quotes."""
    return shlex.quote(path).replace("\\", "\\\\").replace('"', '\\"')


class _Call:
    """A call that is printed: of a class, with some of its fields."""

    def __init__(self, name: str, values: Mapping[str, Any]):
        self.name, self.values = name, values


def _said(survey: Survey) -> _Call:
    return _Call("Survey", {name: getattr(survey, name) for name in _SAID})


def _code(value: Any, depth: int = 0, before: int = 0) -> str:
    """Python that makes a value; tables of columns and features a line each, as far as a line holds them.

    Args:
        depth: of its indentation.
        before: characters that stand before it in its line.
    """
    blanks, end = "    " * (depth + 1), "    " * depth
    if isinstance(value, _Call):
        lines = [f"{blanks}{name}={_code(each, depth + 1, len(name) + 1)},\n" for name, each in value.values.items()]
        return f"{value.name}(\n{''.join(lines)}{end})"
    if isinstance(value, Mapping) and value:
        items = [(_inline(key), each) for key, each in value.items()]
        lines = [f"{blanks}{key}: {_code(each, depth + 1, len(key) + 2)},\n" for key, each in items]
        return f"{{\n{''.join(lines)}{end}}}"
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        lines = [f"{blanks}{_code(each, depth + 1)},\n" for each in value]
        return f"(\n{''.join(lines)}{end})"
    one = _inline(value)
    if len(end) + before + len(one) + 1 <= _WIDEST:
        return one
    if is_dataclass(value):
        lines = [f"{blanks}{_code(each, depth + 1)},\n" for each in _given(value)]
        return f"{type(value).__name__}(\n{''.join(lines)}{end})"
    if isinstance(value, tuple):
        return f"(\n{_filled([_code(each, depth + 1) + ',' for each in value], blanks)}{end})"
    if isinstance(value, str):
        step = (_WIDEST - len(blanks)) // 2 - 2  # quotes and backslashes are written as two
        pieces = [f"{blanks}{_inline(value[start : start + step])}\n" for start in range(0, len(value), step)]
        return f"(\n{''.join(pieces)}{end})"
    return one


def _filled(items: Iterable[str], blanks: str) -> str:
    """Items in as few lines as hold them."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + 1 + len(item) <= _WIDEST:
            lines[-1] += f" {item}"
        else:
            lines.append(blanks + item)
    return "".join(f"{line}\n" for line in lines)


def _given(value: Any) -> list[Any]:
    """What a declaration is made with: its fields up to the last one that is not what it is by default."""
    given = [getattr(value, each.name) for each in fields(value)]
    while given and fields(value)[len(given) - 1].default == given[-1]:
        given.pop()
    return given


def _inline(value: Any) -> str:
    """A value in one line; NaN as an expression."""
    if is_dataclass(value):
        return f"{type(value).__name__}({', '.join(map(_inline, _given(value)))})"
    if isinstance(value, float) and value != value:
        return 'float("nan")'
    if isinstance(value, tuple):
        return f"({', '.join(map(_inline, value))}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_inline(key)}: {_inline(each)}' for key, each in value.items())}}}"
    return json.dumps(value) if isinstance(value, str) else repr(value)


@dataclass(frozen=True)
class Declared:
    """What a file declares, by config.

    Attributes:
        path: of the file.
        datasets: kind, survey and sources by config; one under ``default`` is for any.
    """

    path: Path
    datasets: Mapping[str, tuple[str, Survey, Mapping[str, Source]]]

    @classmethod
    def load(cls, path: str | Path) -> Declared:
        """Run a file of the user's own that ``printed`` began.

        Raises:
            UserError: it is missing, cannot be run, or lacks what it has to say.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
        spec = importlib.util.spec_from_file_location("skyset_declaration", path)
        if spec is None or spec.loader is None:
            raise UserError(f"{path} is no Python file (.py)")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise UserError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
        return cls(path, dict(_datasets(path, vars(module))))

    def of(self, config: str, tree: str) -> Inferred:
        """What is declared of a dataset; UserError where nothing is, or it does not fit together."""
        found = self.datasets.get(config) or (next(iter(self.datasets.values())) if len(self.datasets) == 1 else None)
        if found is None:
            raise UserError(f"{self.path} declares {', '.join(self.datasets)}, and the tree has {config}")
        kind, survey, sources = found
        try:
            form = TreeForm(tree, kind, {column.name: sources[column.name] for column in survey.columns})
            form.check(survey.columns)
            missing = {"object_id", "ra", "dec", "healpix"} - set(sources)
            if missing:
                raise ValueError(f"no column {', '.join(sorted(missing))}")
        except KeyError as error:
            raise UserError(f"{self.path}: column {error.args[0]} is in SURVEY and not in SOURCES") from error
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from error
        return Inferred(survey, form)


def _datasets(path: Path, said: Mapping[str, Any]) -> Iterable[tuple[str, tuple[str, Survey, Mapping[str, Source]]]]:
    if "SURVEYS" in said:
        names = [("KINDS", "SURVEYS", "SOURCES")]
        kinds, surveys, sources = (_mapping(path, said, name) for name in names[0])
        configs = list(surveys)
    else:
        configs = ["default"]
        kinds, surveys, sources = ({"default": said.get(name)} for name in ("KIND", "SURVEY", "SOURCES"))
    for config in configs:
        kind, survey, of = kinds.get(config), surveys[config], sources.get(config)
        if kind not in KINDS or not isinstance(survey, Survey) or not _are_sources(of):
            raise UserError(
                f"{path} has no KIND (one of {', '.join(KINDS)}), SURVEY and SOURCES: "
                "`skyset adopt DIR --print_declaration` prints a file to start from"
            )
        yield config, (str(kind), survey, dict(of or {}))


def _are_sources(given: Any) -> bool:
    return isinstance(given, Mapping) and all(isinstance(each, Source) for each in given.values())


def _mapping(path: Path, said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = said.get(name)
    if not isinstance(value, Mapping):
        raise UserError(f"{path} has no {name}, by config")
    return value
