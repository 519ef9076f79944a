"""Images that are published under names of their own, by the names of their objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from skyset.building.imagefiles import Images
from skyset.building.images_and_votes.release import ImageNames
from skyset.tables.catalog import check_ids
from skyset.tables.open import open_catalog


def read_names(path: Path, table: ImageNames) -> dict[str, list[str]]:
    """The names that an object's image may have beside the object's own, in the table's order.

    Raises:
        UserError: it cannot be read, or the objects' names went through floating point.
    """
    found: dict[str, list[str]] = {}
    for batch in open_catalog(path, [table.key, table.image]).batches():
        check_ids(batch, table.key)
        for key, image in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            found.setdefault(str(key), []).append(str(image))
    return found


def by_object(images: Images, names: Mapping[str, Sequence[str]]) -> Images:
    """The images by the objects' names: an object has the first of its images that there is."""
    if not names:
        return images
    objects = {image: key for key, own in reversed(list(names.items())) for image in reversed(own)}
    problems = [(objects.get(stem, stem), file, reason) for stem, file, reason in images.problems]
    places = {}
    for key, own in names.items():
        if image := next((stem for stem in (key, *own) if stem in images.places), None):
            places[key] = images.places[image]
    used = set(places.values())
    rest = {stem: place for stem, place in images.places.items() if place not in used}
    return replace(images, places=rest | places, problems=problems)
