"""What every build script can be asked for."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from skyset.building.downloads import RAW
from skyset.messages import plain
from skyset.partitions.layout import COMPRESSIONS, REJECTED
from skyset.secrets import without_login
from skyset.survey import Survey
from skyset.versions import install_command

TINY = 5


@dataclass(frozen=True)
class Options:
    """What every build script understands; ``add_arguments`` explains each to the user."""

    output_dir: Path
    local_data_path: Path | None = None
    base_url: str = ""
    limit: int | None = None
    keep_raw: bool = False
    num_processes: int = 1
    max_connections: int = 8
    scheduler: str | None = None
    files_per_object: bool = False
    compression: str = "none"
    strict: bool = False
    overwrite: bool = False
    recheck: bool = False

    @property
    def downloads(self) -> bool:
        """Whether each object has a raw file of its own in an archive."""
        return bool(self.base_url) and self.local_data_path is None

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Options:
        values = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(cls) if hasattr(arguments, f.name)}
        if "base_url" in values:
            values["base_url"] = values["base_url"].rstrip("/") + "/"
        if arguments.tiny:
            values["limit"] = min(TINY, values["limit"] or TINY)
        return cls(**values)


class BuildParser(argparse.ArgumentParser):
    """A build script's command line: the shared options, and `--output-dir` as well as `--output_dir`."""

    def __init__(
        self, program: str | None, description: str, survey: Survey, raw: str | None = None, tiny: str | None = None
    ):
        super().__init__(program, description=description)
        add_arguments(self, survey, raw, tiny)

    def print_help(self, file: Any = None) -> None:
        from skyset.building.help import print_help

        print_help(self)

    def format_usage(self) -> str:
        return f"Usage: {self.prog} [OPTIONS]\nTry '{self.prog} --help' for help.\n"

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))

    def parse_known_args(self, arguments=None, namespace=None):
        arguments = sys.argv[1:] if arguments is None else arguments
        return super().parse_known_args([with_underscores(argument) for argument in arguments], namespace)


def with_underscores(argument: str) -> str:
    """An option as it is declared: `--output-dir` is `--output_dir`."""
    if not argument.startswith("--"):
        return argument
    name, sign, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + sign + value


def add_arguments(parser: argparse.ArgumentParser, survey: Survey, raw: str | None = None, tiny: str | None = None) -> None:
    """Add the options that all build scripts share.

    ``raw`` names the survey's raw files (``"fits"``) where the archive has one per object; without it the survey itself
    asks where its data come from. ``tiny`` is what ``--tiny`` builds where it is not the first objects.
    """
    add = parser.add_argument
    add(
        "-o",
        "--output_dir",
        type=Path,
        default=Path("data") / survey.name,
        metavar="DIR",
        help="where the partitions go (default: %(default)s); an interrupted build goes on from what is there",
    )
    size = parser.add_argument_group("how much")
    size.add_argument("--tiny", action="store_true", help=tiny or f"the first {TINY} objects: to try things out")
    size.add_argument("--limit", type=positive_integer, metavar="N", help="the first N objects of the catalogue")
    source = parser.add_argument_group("where from")
    if raw is not None:
        _add_archive_arguments(source, survey, raw)
    source.add_argument(
        "--max_connections",
        type=positive_integer,
        default=8,
        metavar="N",
        help="downloads at a time (default: %(default)s); be kind to the archive",
    )
    run = parser.add_argument_group("how it runs")
    run.add_argument(
        "--num_processes",
        type=positive_integer,
        default=os.cpu_count(),
        metavar="N",
        help="local processes (default: all cores, %(default)s)",
    )
    run.add_argument(
        "--scheduler",
        type=without_login,
        metavar="ADDRESS",
        help="run on a Dask cluster instead (tcp://host:8786); its workers need skyset and the same disk",
    )
    run.add_argument(
        "--strict",
        action="store_true",
        help=f"stop at the first object that cannot be used (default: name it in {REJECTED}, go on)",
    )
    run.add_argument("--overwrite", action="store_true", help="replace what an earlier, different build left there")
    run.add_argument(
        "--recheck",
        action="store_true",
        help="read every partition that is there and build damaged ones again (default: only those changed since they were "
        "written, as their times tell)",
    )
    disk = parser.add_argument_group("on disk")
    disk.add_argument(
        "--compression",
        choices=COMPRESSIONS,
        default="none",
        help=f"none is the fastest to stream; blosc-lz4 about halves the size (needs: {install_command('compression')})",
    )
    disk.add_argument("--files_per_object", action="store_true", help="one HDF5 file per object instead of one per cell")


def _add_archive_arguments(source: argparse._ArgumentGroup, survey: Survey, raw: str) -> None:
    source.add_argument(
        "--base_url",
        type=without_login,
        default=survey.base_url,
        metavar="URL",
        help="the archive (default: %(default)s); https://user:password@host/ logs in, and is written nowhere",
    )
    source.add_argument(
        "--local_data_path", type=Path, metavar="DIR", help="read the archive's files from this folder and download nothing"
    )
    source.add_argument(
        f"--keep_{raw}",
        dest="keep_raw",
        action="store_true",
        help=f"keep the downloaded files in <output_dir>/{RAW}; "
        "by default each is deleted once its partition is written and read back, but for those that were there before",
    )


def positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value
