"""What lists of cutouts have brought, kept until the galaxies that they are of are complete.

Files of a folder's ``.lists``, where ``00003`` is a group of galaxies and ``i`` or ``i.psf`` a list of it:

======================  =================================================================================
``00003.json``          the galaxies: key, right ascension, declination
``00003.i.data``        the FITS files that a list brought, one after the other, as they come
``00003.i.json``        where they are: written when the list is complete; a list without it is asked again
``no_data.jsonl``       galaxies that cannot be had, and why: they are not asked for again
======================  =================================================================================
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from skyset.archives.list_client import Answered
from skyset.files import clear_leftovers, write_atomically

FOLDER = ".lists"
NO_DATA = "no_data.jsonl"


class Galaxy(NamedTuple):
    """One of a group; its row in the group's lists is its place in the group. Degrees."""

    key: str
    ra: float
    dec: float


class Place(NamedTuple):
    """Where a file is among a list's data."""

    offset: int
    size: int
    crc32: int


@dataclass
class Listed:
    """A complete list: the files by row, and what came of other rows (`list_client.Answered`)."""

    path: Path
    places: dict[int, Place]
    absent: set[int]
    refused: dict[int, str]
    bad: dict[int, str]
    tries: int = 1

    def read(self, row: int) -> bytes:
        """A row's file."""
        place = self.places[row]
        with open(self.path, "rb") as file:
            return os.pread(file.fileno(), place.size, place.offset)


class ListWriter:
    """A list that is being answered; ``size`` is the bytes that have come."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._file = open(data, "wb")  # noqa: SIM115 (closed by the context)
        self._places: dict[int, Place] = {}
        self.size = 0

    def __enter__(self) -> ListWriter:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def add(self, row: int, data: bytes) -> None:
        """Keep a row's file."""
        self._file.write(data)
        self._places[row] = Place(self.size, len(data), zlib.crc32(data))
        self.size += len(data)

    def complete(self, answered: Answered) -> Listed:
        """From now on the list is not asked again."""
        self._file.flush()
        os.fsync(self._file.fileno())
        text = {
            "places": {str(row): place for row, place in self._places.items()},
            "absent": answered.absent,
            "refused": {str(row): words for row, words in answered.refused.items()},
            "bad": {str(row): words for row, words in answered.bad.items()},
            "tries": answered.tries,
        }
        write_atomically(self._data.with_suffix(".json"), json.dumps(text))
        return Listed(self._data, self._places, set(answered.absent), answered.refused, answered.bad, answered.tries)


@dataclass
class Group:
    """Galaxies that are asked for by the same lists.

    Attributes:
        path: its files' names up to the first dot.
        tract: of the galaxies.
        galaxies: all of them, in the order of the lists.
        wanted: keys of those that no archive has.
        lists: what is complete.
    """

    path: Path
    tract: int
    galaxies: Sequence[Galaxy]
    wanted: set[str] = field(default_factory=set)
    lists: dict[str, Listed] = field(default_factory=dict)

    def file(self, name: str, ending: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{name}.{ending}")

    def writer(self, name: str) -> ListWriter:
        """Begin a list."""
        return ListWriter(self.file(name, "data"))

    def remove(self, names: Sequence[str]) -> None:
        """Delete its files; the galaxies' last, which say what the others are."""
        for name in names:
            for ending in ("json", "data"):
                self.file(name, ending).unlink(missing_ok=True)
        self.path.with_name(f"{self.path.name}.json").unlink(missing_ok=True)


class Spool:
    """The groups of a folder.

    Args:
        folder: made if it is missing; one process at a time.
        settings: how the images are cut out; what was kept for others is deleted.
        names: of a group's lists.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], names: Sequence[str]) -> None:
        self.folder, self.names = folder / FOLDER, tuple(names)
        self.folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.folder)
        self._settings = json.loads(json.dumps(settings))
        self.groups = list(self._kept())
        self._next = 1 + max((int(group.path.name) for group in self.groups), default=-1)
        self._no_data = self._read_no_data()

    def group(self, tract: int, galaxies: Sequence[Galaxy]) -> Group:
        """Begin a group; all of it is wanted."""
        path = self.folder / f"{self._next:05d}"
        self._next += 1
        text = {"settings": self._settings, "tract": tract, "galaxies": galaxies}
        write_atomically(path.with_name(f"{path.name}.json"), json.dumps(text))
        return Group(path, tract, galaxies, {galaxy.key for galaxy in galaxies})

    def no_data(self, galaxy: Galaxy) -> str | None:
        """Why a galaxy cannot be had, if that is known."""
        ra, dec, reason = self._no_data.get(galaxy.key, (None, None, None))
        return reason if (ra, dec) == (galaxy.ra, galaxy.dec) else None

    def add_no_data(self, reasons: Mapping[Galaxy, str]) -> None:
        """Keep in mind that these cannot be had."""
        if not reasons:
            return
        lines = ({"settings": self._settings, "galaxy": galaxy, "reason": reason} for galaxy, reason in reasons.items())
        with open(self.folder / NO_DATA, "a") as file:
            file.write("\n" + "".join(f"{json.dumps(line)}\n" for line in lines))  # the last line may have been cut
            file.flush()
            os.fsync(file.fileno())
        self._no_data.update({galaxy.key: (galaxy.ra, galaxy.dec, reason) for galaxy, reason in reasons.items()})

    def close(self) -> None:
        """Leave no folder where nothing is kept."""
        with contextlib.suppress(OSError):  # something is
            self.folder.rmdir()

    def _kept(self) -> Iterator[Group]:
        """The groups that an earlier run left; files of nothing that is known are deleted."""
        known = set()
        for path in sorted(self.folder.glob("[0-9]*.json")):
            if not re.fullmatch(r"\d{5,}\.json", path.name):
                continue
            try:
                kept = json.loads(path.read_text())
                galaxies = [Galaxy(str(key), float(ra), float(dec)) for key, ra, dec in kept["galaxies"]]
                group = Group(path.with_suffix(""), int(kept["tract"]), galaxies)
            except (ValueError, KeyError, TypeError):
                continue
            if kept.get("settings") != self._settings:
                continue
            group.lists = {name: listed for name in self.names if (listed := _complete(group, name)) is not None}
            known.add(group.path.name)
            yield group
        for path in self.folder.iterdir():
            if path.name != NO_DATA and path.name.partition(".")[0] not in known:
                path.unlink()

    def _read_no_data(self) -> dict[str, tuple[float, float, str]]:
        found = {}
        with contextlib.suppress(FileNotFoundError), open(self.folder / NO_DATA) as file:
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that a kill has cut
                    kept = json.loads(line)
                    if kept["settings"] == self._settings:
                        key, ra, dec = kept["galaxy"]
                        found[key] = ra, dec, kept["reason"]
        return found


def _complete(group: Group, name: str) -> Listed | None:
    """A list, if it is complete and its data are what they were."""
    data = group.file(name, "data")
    try:
        kept = json.loads(group.file(name, "json").read_text())
        places = {int(row): Place(*place) for row, place in kept["places"].items()}
        refused, bad = ({int(row): words for row, words in kept[name].items()} for name in ("refused", "bad"))
        listed = Listed(data, places, set(kept["absent"]), refused, bad, kept["tries"])
        whole = all(zlib.crc32(listed.read(row)) == place.crc32 for row, place in places.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    rows = {*places, *listed.absent, *refused, *bad}
    return listed if whole and rows == set(range(len(group.galaxies))) else None
