"""Image files in a tree of folders and ZIP archives, found by their stems, read and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from skyset.building import zips
from skyset.errors import RecordError
from skyset.files import short_digest
from skyset.pixels import ImageError, decode, kind_of
from skyset.raw import read_regular
from skyset.survey import MAX_VALUE_BYTES

SUFFIXES = (".png", ".jpg", ".jpeg")
KINDS = {"PNG": "png", "JPEG": "jpg"}


class Place(NamedTuple):
    """Where an image is: a file, or a member of a ZIP archive (-1 where the file is the image)."""

    path: Path
    member: int = -1


@dataclass
class Images:
    """The images of a folder.

    Attributes:
        places: by stem (``J000411.19+020924.0``), whatever the extension says.
        problems: (stem, file, why) of those that cannot be used.
        archives: (name, file, why) of ZIP archives that cannot be read.
        checksums: of files or archives whose contents are known by one.
        fetch: gets archives that are not there any more; None where nothing can.
    """

    places: dict[str, Place] = field(default_factory=dict)
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    archives: list[tuple[str, str, str]] = field(default_factory=list)
    checksums: dict[Path, str] = field(default_factory=dict)
    fetch: Callable[[set[Path]], object] | None = None

    def add(self, name: str, place: Place, problem: str | None = None) -> None:
        """Take an image unless it has a problem, or its stem is taken."""
        stem, where = stem_of(name), str(place.path) if place.member < 0 else f"{place.path}:{name}"
        if problem is None and stem in self.places:
            problem = f"a second image of this name; {self.places[stem].path} is used"
        if problem is not None:
            self.problems.append((stem, where, problem))
        else:
            self.places[stem] = place

    def add_archive(self, path: Path) -> None:
        try:
            for member in zips.members(path):
                if is_image(member.name):
                    self.add(member.name, Place(path, member.number), member.problem)
        except RecordError as error:
            self.archives.append((path.name, str(path), str(error)))


def stem_of(name: str) -> str:
    """``J000411.19+020924.0`` of ``J000/J000411.19+020924.0.png``."""
    return os.path.splitext(name.replace("\\", "/").rpartition("/")[2])[0]


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a tree, sorted; hidden ones are left out. Links to folders are followed, each folder is walked once."""
    seen = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=True):
        visible = [name for name in sorted(folders, reverse=True) if not name.startswith(".")]
        places = {os.path.realpath(os.path.join(parent, name)): name for name in visible}  # of two links the first
        folders[:] = sorted(name for place, name in places.items() if place not in seen)
        seen.update(places)
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def images_below(folder: Path) -> Images:
    """The images of a tree, and of the ZIP archives in it."""
    images = Images()
    for path in files_below(folder):
        if is_image(path.name):
            images.add(path.name, Place(path))
        elif path.suffix.lower() == ".zip":
            images.add_archive(path)
    return images


def fingerprint(images: Images, keys: Iterable[str]) -> str:
    """What changes with the images of these objects, without reading them."""
    places = [(images.places[key], key) for key in images.places.keys() & set(keys)]
    traits = [(key, *_traits(place)) for place, key in sorted(places)]  # archive by archive: few are kept open
    return short_digest(repr(sorted(traits)))


def _traits(place: Place) -> tuple[int, int]:
    """Size and time of a file; size and checksum of an archive's member."""
    try:
        if place.member >= 0:
            return zips.size_and_checksum(place.path, place.member)
        status = place.path.stat()
    except (OSError, RecordError):
        return -1, -1  # its row is rejected when it is read
    return status.st_size, status.st_mtime_ns


def read_image(place: Place) -> tuple[bytes, str]:
    """An image's bytes and its kind (``png``, ``jpg``): the content decides.

    Raises:
        RecordError: the file cannot be read, or is neither PNG nor JPEG.
    """
    try:
        member = place.member >= 0
        data = zips.read(place.path, place.member) if member else read_regular(place.path, MAX_VALUE_BYTES)
    except OSError as error:
        raise RecordError(f"{place.path.name}: {error.strerror or error}") from error
    found = kind_of(data)
    if found not in KINDS:
        raise RecordError(f"the image is {found or ('empty' if not data else 'no image')}, neither PNG nor JPEG")
    return data, KINDS[found]


def pixels_of(data: bytes, kind: str):
    """The pixels as RGB, uint8 (height, width, 3).

    Raises:
        RecordError: truncated or damaged.
    """
    try:
        return decode(data, kind)
    except ImageError as error:
        raise RecordError(str(error)) from error
