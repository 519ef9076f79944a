"""The options that the build scripts of surveys of images and votes share."""

from __future__ import annotations

import argparse
from pathlib import Path

from skyset.building.downloads import RAW
from skyset.building.images_and_votes.release import VECTORS, Release
from skyset.secrets import without_login


def add_options(release: Release, parser: argparse.ArgumentParser) -> None:
    """Add them to a parser, as far as they mean something for this release."""
    record, configs = release.record, release.configs
    published = "the published one" if release.catalog_url else "those in the record"
    parser.set_defaults(catalog_url="", mapping=None, no_images=False, representations=None, tables=())
    add = parser.add_argument_group("catalogues and images").add_argument
    add(
        "--local_data_path",
        type=Path,
        metavar="DIR",
        help="catalogues, images and ZIP archives below this folder, at any depth; nothing is downloaded",
    )
    add(
        "--catalog",
        type=Path,
        action="append",
        metavar="FILE",
        help="a catalogue (csv, fits, vot, each also .gz, or "
        f"parquet); may be given several times (default: those in the folder, or {published})",
    )
    if release.catalog_url:
        add(
            "--catalog_url",
            type=without_login,
            default=release.catalog_url,
            metavar="URL",
            help="the published table (default: %(default)s)",
        )
    if release.image_names:
        file, key, image = release.image_names
        add(
            "--mapping",
            type=Path,
            metavar="FILE",
            help=f"{key} and {image} of the images (default: {file} of the folder or of the record)",
        )
    if release.goes_without_images:
        add("--no_images", action="store_true", help="the votes alone")
    if VECTORS in configs:
        add(
            "--representations",
            type=Path,
            metavar="FILE",
            help=f"a catalogue of vectors that a network made of the images, by {' or '.join(release.names.columns)}",
        )
    add(
        "--configs",
        nargs="+",
        choices=tuple(configs),
        metavar="NAME",
        help=f"what to build: {', '.join(configs)} (default: all that the catalogues allow)",
    )
    add("--decode", action="store_true", help="store pixels, uint8 RGB, instead of the images' own PNG or JPEG bytes")
    add(
        "--api_url",
        type=without_login,
        default=record.api_url,
        metavar="URL",
        help="Zenodo's record API (default: %(default)s)",
    )
    add("--record", default=record.number, metavar="ID", help="Zenodo record (default: %(default)s)")
    if record.tables:
        add(
            "--tables",
            nargs="+",
            default=record.tables,
            metavar="NAME",
            help=f"catalogues of the record (default: {', '.join(record.tables)})",
        )
    add(
        "--archives",
        nargs="+",
        default=record.archives,
        metavar="NAME",
        help=f"image archives of the record (default: {', '.join(record.archives)})",
    )
    add(
        "--keep_archives",
        action="store_true",
        help=f"keep the downloaded archives in <output_dir>/{RAW}; by default "
        "each is deleted once its images are in the partitions",
    )
