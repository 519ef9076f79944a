"""How the columns of an adopted tree are made of what somebody else's files hold: ``TreeForm``, in memory and as JSON.

A tree is a folder of HDF5 that is never written to. Its files have one of three structures:

- ``columns``: one dataset a column, row = axis 0, many rows a file;
- ``objects``: one object a file, its datasets are scalars and arrays of any length;
- ``groups``: one object a group at the root of a file.

A dataset is named by its path within the object (or the file): ``flux``, ``maps/flux``; a member of a compound dataset is
one step further: ``spaxels/flux``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from skyset.survey import Column

COLUMNS, OBJECTS, GROUPS = "columns", "objects", "groups"
KINDS = (COLUMNS, OBJECTS, GROUPS)
#: How a column is made, see ``Source``.
STORED, TEXT, SCALED, PART, MOVED, REPEATED, MEMBER, LABELS, CELL, NAME = (
    "stored",
    "text",
    "scaled",
    "part",
    "moved",
    "repeated",
    "member",
    "labels",
    "cell",
    "name",
)
#: How many datasets each of these is made of.
_NEEDS = {
    STORED: (1,),
    TEXT: (1,),
    SCALED: (1,),
    PART: (1,),
    MOVED: (1,),
    REPEATED: (1,),
    MEMBER: (1,),
    LABELS: (0, 1),
    CELL: (0,),
    NAME: (0,),
}
_LONGEST, _LONGEST_PATH, _MOST_LABELS, _MOST_AXES = 1000, 4096, 10_000, 8
#: In ``Manifest.build``: the form of a tree; in that, once it is loaded, the folder of the manifest.
ADOPTED, INDEX = "adopted", "index"


@dataclass(frozen=True)
class Source:
    """What a column is made of.

    Args:
        of: names of datasets.
        how: ``"stored"``, as it is in another dtype at most; ``"text"``, integers as their digits, text as it is;
            ``"scaled"``, numbers times ``argument``; ``"part"``, one place of an axis, ``argument`` is (axis of a row,
            place); ``"moved"``, the axis ``argument`` of a row first; ``"repeated"``, the one value of a row in all
            places of the column; ``"member"``, of a compound dataset; ``"labels"``, a text for each value of the column
            ``like``, whose rows are (labels, any number) as they are stored: of a dataset of labels (texts, or one text with
            commas between) or of ``argument``, the same for all rows; ``"cell"``, the HEALPix cell of ``ra`` and ``dec``;
            ``"name"``, the name of the object's group or file, or ``<path of the file without its suffix>:<row>``.
        argument: see ``how``.
        like: see ``how``.

    Raises:
        ValueError: there is no such source. They also come from a manifest that anybody may have written.
    """

    of: tuple[str, ...] = ()
    how: str = STORED
    argument: Any = None
    like: str = ""

    def __post_init__(self):
        if self.how not in _NEEDS or len(self.of) not in _NEEDS[self.how]:
            raise ValueError(f"no column is made of {self.of!r} by {self.how!r}")
        for name in self.of:
            _check_path(name)
        if not _fits(self.how, self.argument, bool(self.of)):
            raise ValueError(f"{self.how} of {self.of!r} cannot have {self.argument!r}")
        if type(self.like) is not str or bool(self.like) != (self.how == LABELS) or len(self.like) > _LONGEST:
            raise ValueError(f"{self.how} of {self.of!r} cannot be like {self.like!r}")

    @property
    def dataset(self) -> str:
        """The dataset whose values are handed out; of a member, the compound one; ``""`` where there is none."""
        if not self.of:
            return ""
        return self.of[0].rpartition("/")[0] if self.how == MEMBER else self.of[0]

    @property
    def member(self) -> str:
        """The member of the dataset; ``""`` where all of it is meant."""
        return self.of[0].rpartition("/")[2] if self.how == MEMBER else ""

    def to_json(self) -> dict:
        values = {"of": list(self.of), "how": self.how, "argument": self.argument, "like": self.like}
        return {name: value for name, value in values.items() if value not in ([], None, "")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Source:
        """What somebody wrote; ValueError, LookupError or TypeError unless it is a source."""
        argument = values.get("argument")
        given = {**values, "of": tuple(values.get("of", ()))}
        return cls(**{**given, "argument": tuple(argument) if isinstance(argument, list) else argument})


def _check_path(name: object) -> None:
    """ValueError unless this can be the path of a dataset within its object."""
    if type(name) is not str or len(name) > _LONGEST or not name.isprintable():
        raise ValueError(f"{str(name)[:100]!r} is no dataset's name")
    if any(step in ("", ".", "..") for step in name.split("/")):
        raise ValueError(f"{name!r} is no path within an object")


def _fits(how: str, argument: Any, of_dataset: bool) -> bool:
    if how == SCALED:
        return type(argument) in (int, float) and math.isfinite(float(argument)) and argument != 0
    if how == PART:
        return _is_tuple(argument, int, 2) and 0 <= argument[0] < _MOST_AXES and argument[1] >= 0
    if how == MOVED:
        return type(argument) is int and 0 <= argument < _MOST_AXES
    if how == LABELS and not of_dataset:
        return isinstance(argument, tuple) and _is_tuple(argument, str, len(argument)) and 0 < len(argument) <= _MOST_LABELS
    return argument is None


def _is_tuple(value: object, kind: type, length: int) -> bool:
    return type(value) is tuple and len(value) == length and all(type(each) is kind for each in value)


def check_file(path: str) -> None:
    """ValueError unless this can be the path of a file below a tree."""
    if len(path) > _LONGEST_PATH or not path.isprintable() or "\\" in path:
        raise ValueError(f"{path[:100]!r} is no file of a tree")
    if any(step in ("", ".", "..") for step in path.split("/")):
        raise ValueError(f"{path[:100]!r} is no path below a tree")


@dataclass(frozen=True)
class TreeForm:
    """What the files of one folder of a tree hold.

    Args:
        tree: the folder that the files' paths begin at, absolute.
        kind: their structure, one of ``KINDS``.
        sources: what each column is made of.
        packed: rows are compressed, or of any length by HDF5's own means: those near each other are best read together.

    Raises:
        ValueError: there is no such form.
    """

    tree: str
    kind: str
    sources: Mapping[str, Source]
    packed: bool = False

    def __post_init__(self):
        if type(self.tree) is not str or not self.tree.startswith("/") or not self.tree.isprintable():
            raise ValueError(f"{str(self.tree)[:100]!r} is no absolute path of a folder")
        if self.kind not in KINDS or type(self.packed) is not bool:
            raise ValueError(f"there are no trees of {self.kind!r}")

    def check(self, columns: Iterable[Column]) -> None:
        """ValueError unless each of a manifest's columns has a source that fits it."""
        by_name = {column.name: column for column in columns}
        for name, column in by_name.items():
            if name not in self.sources:
                raise ValueError(f"column {name} has no source")
            source = self.sources[name]
            if source.how == LABELS and not self._run_along(column, by_name.get(source.like)):
                raise ValueError(f"column {name} cannot have labels for {source.like!r}")
            if (source.how in (TEXT, NAME) and not column.is_text) or (
                source.how == SCALED and column.stored_dtype.kind != "f"
            ):
                raise ValueError(f"column {name} of {column.dtype} is not made by {source.how!r}")
            if source.how in (MOVED, REPEATED) and (self.kind != COLUMNS or column.is_ragged):
                raise ValueError(f"column {name} of shape {column.shape} of {self.kind} is not made by {source.how!r}")
            if source.how in (CELL, NAME) and column.shape:
                raise ValueError(f"column {name} of shape {column.shape} is not made by {source.how!r}")

    def _run_along(self, column: Column, like: Column | None) -> bool:
        """Whether a column can have a label for each value of another one."""
        if like is None or not column.is_text or like.shape != column.shape or not like.shape:
            return False
        return self.sources[like.name].how in (STORED, SCALED, PART, REPEATED, MEMBER)

    def to_json(self) -> dict:
        sources = {name: source.to_json() for name, source in self.sources.items()}
        return {"tree": self.tree, "kind": self.kind, "packed": self.packed, "sources": sources}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TreeForm:
        """What somebody wrote; ValueError, LookupError, TypeError or AttributeError unless it is a form."""
        sources = {str(name): Source.from_json(each) for name, each in values["sources"].items()}
        return cls(values["tree"], values["kind"], sources, values.get("packed", False))


def form_of(build: Mapping[str, Any]) -> TreeForm:
    """The form that a manifest's ``build`` notes; ValueError, LookupError or TypeError unless it is one."""
    try:
        return TreeForm.from_json(build[ADOPTED])
    except AttributeError as error:
        raise ValueError(f"the form of a tree is {type(build[ADOPTED]).__name__}") from error
