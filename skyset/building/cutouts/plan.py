"""The build of a survey of cutouts: list, images, objects."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from skyset.building.build import build
from skyset.building.cutouts.catalogue import listed_batches, listed_rows, write_list
from skyset.building.cutouts.configs import build_configs
from skyset.building.cutouts.declaration import Cutouts, ImageSource
from skyset.building.cutouts.download import archives_in, discard, download
from skyset.building.cutouts.samples import Samples, digest_of, read_archives, read_record
from skyset.building.options import Options
from skyset.building.script import Script
from skyset.building.task import Found, Item, Rejected
from skyset.errors import RecordError, UserError
from skyset.files import keep_inputs, short_digest
from skyset.messages import say
from skyset.sky import healpix_cell
from skyset.survey import Survey

#: The folder of what services have answered, and of the list until the build is complete.
ANSWERS = "catalog"


def script(description: str, cutouts: Cutouts, add_options: Callable[[argparse.ArgumentParser], object]) -> Script:
    """The build script of a survey: its docstring, its declaration, and what adds the options of `options` and its own."""
    return Script(description, cutouts.survey, functools.partial(build_cutouts, cutouts), add_options)


def build_cutouts(cutouts: Cutouts, asked: argparse.Namespace, options: Options, command: Sequence[str]) -> int:
    """Build what was asked for, or print the query; returns the exit status."""
    if asked.print_sql:
        print(cutouts.sql.strip())
        return 0
    find = functools.partial(find_archived if asked.from_tar else find_listed, cutouts, asked, options)
    if cutouts.configs:
        return build_configs(cutouts, asked.configs, find, options, command)
    read = functools.partial(read_record, cutouts=cutouts)
    return build(cutouts.survey, read, options, lambda *_: find(), command)


def find_archived(cutouts: Cutouts, asked: argparse.Namespace, options: Options) -> Found:
    """The objects in somebody's archives."""
    archives = sorted(asked.from_tar.glob("*.tar")) if asked.from_tar.is_dir() else []
    if not archives:
        raise UserError(f"no TAR archives in {asked.from_tar}")
    samples = read_archives(cutouts, archives, None)
    splits = cutouts.splits(samples.rows) if cutouts.splits else {}
    found = found_in(cutouts, samples, splits, options.limit, f"{asked.from_tar.absolute()}")
    return dataclasses.replace(found, sources=[str(asked.from_tar)])


def find_listed(cutouts: Cutouts, asked: argparse.Namespace, options: Options) -> Found:
    """Catalogue and images, then the objects in the archives."""
    source, images = cutouts.source(asked, options), cutouts.images(asked)
    path, final = options.output_dir / ANSWERS / cutouts.filtered, options.output_dir / cutouts.filtered
    for made in (path, final):
        keep_inputs(made, {"the catalogue": asked.catalog}, "choose another folder")
    counts, total = write_list(cutouts, source, path, options, asked)
    splits = cutouts.splits(listed_batches(cutouts, path)) if cutouts.splits else {}

    def rows() -> Iterator[tuple[str, dict]]:
        for key, row in listed_rows(cutouts, path):
            yield key, row | {"object_id": key} | cutouts.describe(row) | images.describe(row)

    wanted = {key: digest_of(row) for key, row in rows()}
    samples, failed = archived(cutouts, images, rows, total, wanted, options)
    missing = dict.fromkeys(wanted.keys() - samples.items.keys() - samples.damaged.keys(), "its archive is damaged")
    samples.rejected.extend(Rejected(key, "", reason) for key, reason in {**missing, **failed}.items())
    found = found_in(cutouts, samples, splits, None, json.dumps(images.settings))
    notes = {"cuts": counts.to_json(), "queries": list(source.queries), "images": dict(images.settings)}
    complete = functools.partial(os.replace, path, final)
    return dataclasses.replace(found, sources=[*source.addresses, images.address], notes=notes, complete=complete)


def archived(
    cutouts: Cutouts,
    images: ImageSource,
    rows: Callable[[], Iterator[tuple[str, dict]]],
    total: int,
    wanted: dict[str, int],
    options: Options,
) -> tuple[Samples, dict[str, str]]:
    """The samples wanted, downloaded where there are none; damaged archives are put aside and filled again, once.

    Returns:
        the samples, and why there is no image, by key.

    Raises:
        UserError: the archives were made from other rows.
    """
    folder = options.output_dir / cutouts.archives
    for attempt in range(2):
        failed = download(folder, images, rows(), total, cutouts.columns.key, options)
        samples = read_archives(cutouts, archives_in(folder), wanted)
        if samples.stale and not options.overwrite:
            raise UserError(
                f"{len(samples.stale)} galaxies, {samples.stale[0]} for one, have other values in the catalogue than when "
                f"their images were archived in {folder}: choose another folder, or --overwrite to download them again"
            )
        bad = {*samples.unreadable, *samples.damaged.values()}
        if attempt or not (samples.stale or bad):
            break
        if samples.stale:
            discard(folder)
            continue
        for archive in bad:
            say(f"{archive.name} is damaged and is put aside; its images are downloaded again", file=sys.stderr)
            archive.rename(archive.with_name(f"{archive.name}.damaged"))
    return samples, failed


def found_in(cutouts: Cutouts, samples: Samples, splits: Mapping[str, str], limit: int | None, made_of: str) -> Found:
    """The objects of the samples, or the first of them; the survey with images as the first readable one has them, unless
    its datasets are declared as they are built."""
    chosen = list(itertools.islice(samples.items.items(), limit))
    positions = np.array([place.position for _, place in chosen]).reshape(-1, 2)
    cells = healpix_cell(*positions.T).tolist()
    items = [
        Item(
            key,
            place.file,
            cell,
            address=place.address,
            split=splits.get(key, "train"),
            made_of=place.made_of if cutouts.configs else None,
        )
        for (key, place), cell in zip(chosen, cells, strict=True)
    ]
    if cutouts.configs:
        return Found(items, samples.rejected, made_of=short_digest(f"{made_of} {json.dumps(cutouts.settings)}"))
    survey = as_built(cutouts, items)
    shapes = " ".join(f"{survey.column(name).dtype} {survey.column(name).shape}" for name in survey.shaped_by_build)
    made_of = short_digest(f"{made_of} {shapes}")
    return Found(items, samples.rejected, survey, made_of=made_of)


def as_built(cutouts: Cutouts, items: Sequence[Item]) -> Survey:
    """The survey with images as the first readable sample has them."""
    survey = cutouts.survey
    for item in items[:100]:
        with contextlib.suppress(RecordError):
            record = read_record(Path(item.file), *(item.address or ()), cutouts=cutouts)
            images = {name: record[name] for name in survey.shaped_by_build}
            return survey.as_built(
                [
                    dataclasses.replace(survey.column(name), dtype=image.dtype.name, shape=image.shape)
                    for name, image in images.items()
                ]
            )
    return survey
