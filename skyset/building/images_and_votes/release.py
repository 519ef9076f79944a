"""What was published of a survey of images and votes: the declaration that a build script is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from skyset.archives.zenodo import API_URL
from skyset.building.staged_rows import IMAGE
from skyset.questions import Campaign
from skyset.survey import Column, Survey
from skyset.tables.join import Joined

#: The dataset of all objects, and that of vectors.
ALL, VECTORS = "default", "representations"
POSITION = (Column("ra", "float64"), Column("dec", "float64"))
#: A column of catalogues that publish their splits.
SPLIT = Column("split", "S16", (), "", "train, validation or test")


@dataclass(frozen=True)
class Names:
    """How a release names its objects.

    Args:
        columns: of its tables that may hold the names; the first that does is taken.
        kind: what the user reads of them.
        is_name: whether text is one, where names have a form: a column that holds them is one most of whose first values
            are. Where they have none, they are numbers, and refused where they went through floating point.
        position_of: ra and dec in degrees that a name spells, RecordError where it is none; None where names say nothing.
    """

    columns: tuple[str, ...]
    kind: str = "names"
    is_name: Callable[[str], bool] | None = None
    position_of: Callable[[str], tuple[float, float]] | None = None


@dataclass(frozen=True)
class Record:
    """A record of Zenodo's.

    Args:
        number: its own, or that of all versions, which gives the newest.
        archives: ZIP archives of images in it.
        tables: catalogues in it.
        api_url: where it is asked for.
    """

    number: int
    archives: tuple[str, ...]
    tables: tuple[str, ...] = ()
    api_url: str = API_URL


class ImageNames(NamedTuple):
    """A table of the images' names: its file's name, its column of the objects' names, and that of the images'."""

    file: str
    key: str
    image: str


class Selection(NamedTuple):
    """Rows of the joined catalogues that become a dataset.

    Attributes:
        joined: keys, and values by the dataset's columns.
        rows: numbers of those that are taken.
        cuts: how many each cut left of how many, for the manifest.
    """

    joined: Joined
    rows: Sequence[int]
    cuts: Sequence[Mapping] = ()


@dataclass(frozen=True)
class CutOut:
    """A dataset that is cut out of the one of all objects, with images, positions and splits from there.

    Args:
        select: makes it of the joined catalogues.
        needs: our columns that catalogues must have, in any one of these sets.
    """

    select: Callable[[Joined], Selection]
    needs: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Release:
    """A survey of images and votes, as it was published.

    Args:
        configs: its datasets: ``default``, those of ``cuts``, and ``representations`` where it has any.
        names: how objects are named.
        campaigns: who was asked what; a table holds the votes of one of them.
        record: where the images are published.
        columns: what else is taken from tables, beside position, votes and split.
        other_names: what tables call our columns, the best first, where that is not the same.
        ignored: columns that are left out without a word: a pattern.
        cuts: the datasets cut out of ``default``, by name.
        catalog_url: a published table that is not in the record.
        image_names: the table of the images' names, where these are not the objects'.
    """

    configs: Mapping[str, Survey]
    names: Names
    campaigns: tuple[Campaign, ...]
    record: Record
    columns: tuple[Column, ...] = ()
    other_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: str = ""
    cuts: Mapping[str, CutOut] = field(default_factory=dict)
    catalog_url: str = ""
    image_names: ImageNames | None = None

    @property
    def survey(self) -> Survey:
        """The dataset of all objects."""
        return self.configs[ALL]

    @property
    def title(self) -> str:
        """The survey's name as people write it: what stands before the colon of its title."""
        return self.survey.title.partition(":")[0]

    @property
    def image(self) -> Column:
        return self.survey.column(IMAGE)

    @property
    def goes_without_images(self) -> bool:
        """Whether a catalogue of votes alone is a dataset too."""
        return IMAGE in self.survey.optional

    @property
    def taken(self) -> dict[str, Column]:
        """All columns that tables may have, by our names."""
        votes = (column for campaign in self.campaigns for column in campaign.columns)
        return {column.name: column for column in (*POSITION, *self.columns, *votes, SPLIT)}

    def called(self, ours: str) -> str:
        """What tables call a column of ours that is not one of votes."""
        return self.other_names.get(ours, (ours,))[0]
