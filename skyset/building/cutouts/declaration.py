"""What a survey of cutouts declares, and the two things that it is made of: a catalogue source and an image source."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from skyset.building.cutouts.columns import Columns
from skyset.building.options import Options
from skyset.errors import RecordError
from skyset.survey import Column, Survey
from skyset.tables.cuts import Cut


class CatalogueSource(Protocol):
    """Where the rows of the objects come from: a file, a service that is asked by TAP, by jobs of its own, or several.

    Attributes:
        addresses: where from, for the manifest and for messages.
        queries: what services are asked, one line each, for the manifest.
    """

    addresses: Sequence[str]
    queries: Sequence[str]

    def batches(self, folder: Path, connections: int) -> Generator[pa.RecordBatch, None, None]:
        """All rows, in bounded memory, as `Columns.standard` gives them. The caller closes the iterator.

        Whatever a service has answered, or a job that it is still busy with, is kept in ``folder``, so that the same command
        goes on from there. Jobs are deleted when their rows are there.

        Args:
            folder: the source's own, made before.
            connections: requests at a time, at most.

        Raises:
            UserError: the source refuses, is down, or is not a catalogue of this survey.
        """


@dataclass(frozen=True)
class Answer:
    """What came of an object: the files of its images by extension, or None and the ``reason`` in one line.

    ``status`` is the last HTTP status (None: no answer), ``url`` the address that gave it, ``tries`` counts all requests.
    """

    key: str
    members: Mapping[str, bytes] | None
    status: int | None = 200
    tries: int = 1
    url: str = ""
    reason: str | None = None


class ImageSource(Protocol):
    """A service that answers with the images of objects, asked one by one or by lists.

    Attributes:
        address: where from, for the manifest.
        settings: how the images are cut out, as JSON has it; a folder never holds images of two settings.
    """

    address: str
    settings: Mapping[str, object]

    def describe(self, row: Mapping) -> dict:
        """What is kept beside an object's images, such as their field of view, as JSON has it; always the same of a row."""

    def answers(self, wanted: Iterable[tuple[str, Mapping]], folder: Path) -> Generator[Answer, None, None]:
        """An answer for each object wanted, once, in the order in which they come. The caller closes the iterator.

        A service that is asked by lists takes as many of ``wanted`` ahead as a list has, keeps in ``folder`` what an object
        lacks other images for, and gives an object when all of its images are there.

        Args:
            wanted: key and row of the objects that no archive has yet.
            folder: where the archives are; files of the source's own in it have names that begin with a dot.

        Raises:
            UserError: the service is down, or takes no account.
        """


class Chosen(NamedTuple):
    """A cut that is made where the source has its columns; where an ``option`` asked for it, it is made or refused."""

    columns: Sequence[str]
    cut: Cut
    option: str = ""


@dataclass(frozen=True)
class Config:
    """One of several datasets of the same objects.

    Args:
        survey: its declaration, as this build makes it.
        cut: its columns' values out of those of any dataset before it, or of all that is read of an object; what else it
            gives is left out. Importable.
    """

    survey: Survey
    cut: Callable[[Mapping], Mapping] = dict


@dataclass(frozen=True)
class Cutouts:
    """A survey of cutouts.

    Args:
        survey: its declaration; one column of images is shaped by the build.
        columns: what the catalogue brings.
        filtered: name of the list of rows after the cuts.
        source: makes the catalogue source that was asked for.
        cuts: the cuts in their order, from what was asked for.
        images: makes the image source that was asked for.
        describe: what is made of a catalogue row beside its columns, as JSON has it.
        read: an object's other columns from its kept row (catalogue, ``describe``, the image source's ``describe``; types
            checked) and the files of its images by extension; RecordError where they cannot be used. Importable.
        sql: the query for those who export the catalogue by hand.
        archives: the folder of the archives, below the output folder.
        described: names of the columns that ``describe`` makes; None: all that are neither the catalogue's nor images.
        splits: the split of each object by key, from all rows of the list, with the columns of ``columns.schema``; None: all
            are for training.
        configs: the survey's datasets, each in a folder of its name; none: there is one, in the output folder itself.
        read_together: does the work of ``read`` for some objects at a time, at most ``together``: columns or a RecordError
            for each, in their order. Importable.
        settings: how ``read`` makes columns, as JSON has it, beside the images' settings; rows that were made in another way
            are made again.
        asked: the options that all of ``configs`` share, by name (``--pad``), as JSON has them; by default the settings.
    """

    survey: Survey
    columns: Columns
    filtered: str
    source: Callable[[argparse.Namespace, Options], CatalogueSource]
    cuts: Callable[[argparse.Namespace], Sequence[Chosen]]
    images: Callable[[argparse.Namespace], ImageSource]
    describe: Callable[[Mapping], dict]
    read: Callable[[Mapping, Mapping[str, bytes]], dict]
    sql: str = ""
    archives: str = "Images"
    described: Sequence[str] | None = None
    splits: Callable[[Iterable[pa.RecordBatch]], Mapping[str, str]] | None = None
    configs: Mapping[str, Config] = field(default_factory=dict)
    read_together: Callable[[Sequence[tuple[Mapping, Mapping[str, bytes]]]], Iterable[dict | RecordError]] | None = None
    together: int = 32
    settings: Mapping[str, object] = field(default_factory=dict)
    asked: Mapping[str, object] = field(default_factory=dict)

    @property
    def made(self) -> list[Column]:
        """The columns that `describe` makes."""
        if self.described is not None:
            return [self.survey.column(name) for name in self.described]
        catalogue = {column.name for column in self.columns.columns}
        images = {"healpix", self.survey.key, *self.survey.shaped_by_build}
        return [column for column in self.survey.columns if column.name not in catalogue | images]
