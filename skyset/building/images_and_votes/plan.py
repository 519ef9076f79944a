"""Which datasets of a release are built, and of what."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skyset.archives.fetch import Fetcher
from skyset.archives.zenodo import RecordFile, need, record_files
from skyset.building.imagefiles import Images, files_below, fingerprint, images_below
from skyset.building.images_and_votes.image_names import by_object, read_names
from skyset.building.images_and_votes.making import Making, build_cut, build_pictured, build_vectors
from skyset.building.images_and_votes.positions import placed, with_positions
from skyset.building.images_and_votes.release import ALL, VECTORS, Release
from skyset.building.images_and_votes.tables import FOLDER, Table, find_tables
from skyset.building.images_and_votes.zip_by_zip import build_archives, build_few, fetched_file
from skyset.building.options import Options
from skyset.errors import UserError
from skyset.files import file_sha256
from skyset.messages import say
from skyset.tables.join import Joined, digest, join
from skyset.tables.representations import read_vectors

#: So few objects are read out of the remote archives, one by one.
FEW = 100
#: Bytes of the largest archive.
LARGEST = 1 << 40


def build(release: Release, asked: argparse.Namespace, options: Options, command: Sequence[str]) -> int:
    """Build the datasets that were asked for, else all that there are catalogues of.

    Returns:
        the worst exit status.

    Raises:
        UserError: nothing can be built as asked.
    """
    if asked.local_data_path and not asked.local_data_path.is_dir():
        raise UserError(f"--local_data_path {asked.local_data_path} is not a folder")
    with Fetcher(options.max_connections, max_bytes=LARGEST) as network:
        tables = find_tables(release, asked, network)
        configs = configs_of(release, asked.configs, tables)
        sources = [table.source for table in tables if table.has_objects]
        joined = with_positions(join(sources, release.taken), release.names) if sources else None
        plan = Plan(release, asked, options, command, tables, joined, network)
        return max([plan.build(config) for config in configs])


def configs_of(release: Release, wanted: Sequence[str] | None, tables: Sequence[Table]) -> list[str]:
    """The datasets that are built; UserError where there is no catalogue of one that is wanted, or none at all."""
    have = {ours for table in tables for ours in table.source.columns}
    objects = any(table.has_objects for table in tables)
    possible = {ALL} if objects else set()
    possible |= {name for name, cut in release.cuts.items() if any(have >= set(each) for each in cut.needs)}
    if any(VECTORS in table.kinds for table in tables) and (objects or release.names.position_of):
        possible.add(VECTORS)
    for name in wanted or ():
        if name not in possible:
            raise UserError(f"config {name} needs {_needed(release, name)}")
    if not possible:
        raise UserError(f"nothing to build: no catalogue of {release.title}")
    return [name for name in release.configs if name in (wanted or possible)]


def _needed(release: Release, config: str) -> str:
    if config == VECTORS:
        return "--representations FILE" + ("" if release.names.position_of else ", and a catalogue with ra and dec")
    what = "votes"
    if config in release.cuts:
        what = " and ".join(release.called(ours) for ours in release.cuts[config].needs[0])
    return f"a catalogue with {what}: --catalog FILE, or in --local_data_path"


@dataclass(frozen=True)
class Plan:
    """What is built of what.

    Args:
        release: the survey.
        asked: its options.
        options: those that all builds share.
        command: what the user typed.
        tables: the catalogues.
        joined: the rows of all that have objects, with positions; None where none has.
        network: fetches what is published.
    """

    release: Release
    asked: argparse.Namespace
    options: Options
    command: Sequence[str]
    tables: Sequence[Table]
    joined: Joined | None
    network: Fetcher

    @property
    def objects(self) -> Joined:
        """The joined rows, where there are some: what needs them was refused before."""
        assert self.joined is not None
        return self.joined

    def build(self, config: str) -> int:
        """Build a dataset; returns the exit status."""
        if config == VECTORS:
            return self.vectors()
        if config != ALL:
            selected = self.release.cuts[config].select(self.objects)
            root = self.options.output_dir
            return build_cut(self.release.configs[config], root, selected, self.making(config, [str(root)]))
        if self.asked.no_images:
            return self.votes_alone([str(table.source.path) for table in self.of(ALL)])
        return self.from_folder() if self.asked.local_data_path else self.from_record()

    def of(self, config: str) -> list[Table]:
        """The catalogues of a dataset."""
        return [table for table in self.tables if (table.has_objects if config == ALL else config in table.kinds)]

    def making(self, config: str, sources: Sequence[str], *more: str) -> Making:
        """How a dataset is made of its catalogues, and ``more`` that its rows depend on."""
        folder = self.options.output_dir
        notes: dict[str, object] = {"catalogs": [table.source.path.name for table in self.of(config)]}
        if config != ALL:
            folder, notes = folder / config, notes | {"config": config}
        # A row may have values of any catalogue that was joined.
        tables = [table for table in self.tables if table.has_objects or config == VECTORS]
        made_of = digest([table.source for table in tables], self.asked.decode, *more)
        return Making(replace(self.options, output_dir=folder), self.command, made_of, sources, notes, self.asked.decode)

    def votes_alone(self, sources: Sequence[str]) -> int:
        """All objects without images."""
        return build_pictured(self.release.survey, self.objects, None, self.making(ALL, sources))

    def from_folder(self) -> int:
        """All objects, with the images of a folder, if there are any or must be."""
        folder, table = self.asked.local_data_path, self.release.image_names
        there = (path for path in files_below(folder) if table and path.name == table.file)
        path = self.asked.mapping or next(there, None)
        images = by_object(images_below(folder), read_names(path, table) if path and table else {})
        if self.release.goes_without_images and not (images.places or images.problems or images.archives):
            say(f"no images in {folder}: a catalogue of votes alone")
            return self.votes_alone([str(folder)])
        traits = file_sha256(path) if path else "", fingerprint(images, self.objects.keys)
        return build_pictured(self.release.survey, self.objects, lambda: images, self.making(ALL, [str(folder)], *traits))

    def from_record(self) -> int:
        """All objects, with the images of the record: a few out of the remote archives, or archive after archive."""
        asked, options = self.asked, self.options
        files = record_files(self.network, asked.record, asked.api_url)
        archives = [need(files, name, asked.record) for name in asked.archives]
        path = self.published_names(files)
        table = self.release.image_names
        names = read_names(path, table) if path and table else {}
        making = self.making(ALL, [f"{asked.api_url.rstrip('/')}/{asked.record}"], file_sha256(path) if path else "")
        joined = self.objects
        rename = functools.partial(by_object, names=names)

        def build_images(images: Callable[[], Images], last: bool, overwrite: bool) -> int:
            once = replace(making, options=replace(options, overwrite=overwrite))
            return build_pictured(self.release.survey, joined, images, once, last)

        if options.limit and options.limit <= FEW:
            few = {stem for key in joined.keys for stem in (key, *names.get(key, ()))}
            where = options.output_dir, making.made_of, options.overwrite
            return build_few(archives, few, options.limit, *where, build_images, rename)
        joined = joined.head(options.limit)  # the same ones, whichever archives have come
        wanted = set(joined.keys) if options.limit else None
        how = self.network, asked.keep_archives, options.overwrite
        return build_archives(archives, options.output_dir, making.made_of, *how, build_images, wanted, rename)

    def published_names(self, files: Mapping[str, RecordFile]) -> Path | None:
        """The table of the images' names, where they have names of their own."""
        if self.asked.mapping or self.release.image_names is None:
            return self.asked.mapping
        file = need(files, self.release.image_names.file, self.asked.record)
        return fetched_file(self.network, file.url, self.options.output_dir / FOLDER / file.name, file.checksum)

    def vectors(self) -> int:
        """Vectors by the objects' names, at the positions that the catalogues know, or those that the names spell."""
        source = self.of(VECTORS)[0].source
        keys, vectors, rejected = read_vectors(source.path, source.key)
        rows = placed(keys, rejected, self.joined, self.release.names)
        return build_vectors(self.release.configs[VECTORS], rows, vectors, self.making(VECTORS, [str(source.path)]))
