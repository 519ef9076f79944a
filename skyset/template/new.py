"""Write the folder of a survey of somebody's own, from the files beside this one."""

from __future__ import annotations

import importlib.machinery
import json
import keyword
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from skyset.building.card import new_card
from skyset.building.image_folder import Names
from skyset.errors import UserError
from skyset.loading import registry
from skyset.survey import HEALPIX, Column
from skyset.template import build_my_survey as build_example
from skyset.template import my_survey as example
from skyset.template.found import Declared

#: What the example is called, and its files.
NAME, CLASS = "my_survey", "MySurvey"
FILES = ("my_survey.py", "build_my_survey.py", "test_my_survey.py", "pyproject.toml")


def check_name(name: str) -> str:
    """``name``, if a survey and its modules can be called that.

    Raises:
        UserError: it is no name of a module, a module's that is there, a survey's, or too like one.
    """
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name):
        plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name).strip("_").lower()
        hint = f"; {plain} can" if plain.isidentifier() and not keyword.iskeyword(plain) else ""
        raise UserError(f"a survey cannot be called {name!r}, which is no name in Python{hint}")
    if registry.is_known(name):
        raise UserError(f"there is a survey {name} already: choose another name")
    if near := registry.near_miss(name):
        raise UserError(f"{name} would be taken for {near}, which is a survey already: choose another name")
    for module in (name, f"build_{name}"):
        there = importlib.machinery.PathFinder.find_spec(module)
        if module in sys.stdlib_module_names or (there and there.origin):  # a folder that is no package has no origin
            raise UserError(f"there is a Python module {module} already: choose another name")
    return name


def write(
    name: str, folder: Path, found: Declared | None = None, images: Path | None = None, table: Path | None = None
) -> list[str]:
    """Write a survey's folder: all of it, or nothing.

    Args:
        name: of the survey, see `check_name`.
        folder: where; it must not be there.
        found: what the files hold; the example's declaration where none were looked at.
        images, table: the files, as the build script's defaults.

    Returns:
        the names of the files written.

    Raises:
        UserError: something is there already, or it cannot be written.
    """
    check_name(name)
    if os.path.lexists(folder):
        raise UserError(f"{folder} is there already: nothing was written")
    texts = {each.replace(NAME, name): rendered(each, name, found, images, table) for each in FILES}
    texts["README.md"] = card(name, texts[f"{name}.py"])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as temporary:
            whole = Path(temporary) / name
            whole.mkdir()
            for each, text in texts.items():
                (whole / each).write_text(text, encoding="utf-8")
            whole.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    return sorted(texts)


def rendered(file: str, name: str, found: Declared | None, images: Path | None, table: Path | None) -> str:
    """One file of the template with a survey's own names, columns and places."""
    text = Path(__file__).with_name(file).read_text(encoding="utf-8").replace("skyset.template.", "")
    text = text.replace("My survey", name).replace(NAME, name).replace(CLASS, class_name(name))
    changes = {}
    if found is not None and file == "my_survey.py":
        planes = len(found.columns[4].shape)
        axes = f'{{"image": {max(0, planes - 2)}}}' if planes in (0, 2, 3) else "{}"
        changes = {
            classes_source(example.CLASSES): classes_source(found.classes),
            columns_source(example.COLUMNS): columns_source(found.columns),
            'image_axes={"image": 0}': f"image_axes={axes}",
        }
    if found is not None and file == "build_my_survey.py":
        changes = {
            names_source(build_example.NAMES): names_source(found.names),
            _quoted(build_example.FOLDER): _quoted(str(images)),
            _quoted(build_example.TABLE): _quoted(str(table)),
        }
    for old, new in changes.items():
        before, after = text.split(old)  # once, or the template is another than this file takes it for
        text = before + new + after
    return text


def class_name(name: str) -> str:
    """``MySurvey`` of ``my_survey``."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_")) or "Survey"


def card(name: str, loader: str) -> str:
    """The dataset card of the declaration in a loader's source."""
    names: dict = {"__name__": name}
    exec(compile(loader, f"{name}.py", "exec"), names)
    return new_card(names["SURVEY"])


def columns_source(columns: Sequence[Column]) -> str:
    """The lines of ``COLUMNS``."""
    return "\n".join("    HEALPIX," if column == HEALPIX else f"    {_column_source(column)}," for column in columns)


def _column_source(column: Column) -> str:
    values = (column.name, column.dtype, column.shape, column.unit, column.description)
    texts = [_quoted(value) if isinstance(value, str) else repr(value) for value in values]
    texts += [f"typical_bytes={column.typical_bytes}"] if column.is_bytes else []
    return f"Column({', '.join(texts)})"


def classes_source(classes: Mapping[str, Sequence[str]]) -> str:
    """``CLASSES`` as it is written."""
    lines = [f"    {_quoted(name)}: ({', '.join(map(_quoted, words))}),\n" for name, words in classes.items()]
    return f"CLASSES = {{\n{''.join(lines)}}}" if lines else "CLASSES = {}"


def names_source(names: Names) -> str:
    """``NAMES`` as it is written."""
    return f"Names({', '.join(f'{field}={_quoted(value)}' for field, value in names._asdict().items())})"


def _quoted(text: str) -> str:
    return json.dumps(text)
