"""The command ``skyset``: build, look at and check surveys from a terminal."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from skyset.command_line import main as exit_status
from skyset.errors import PartitionError, UserError
from skyset.files import keep_inputs, replacing
from skyset.loading import registry
from skyset.loading.places import looked_in
from skyset.messages import plain, say
from skyset.partitions.layout import MANIFEST
from skyset.secrets import without_login
from skyset.survey import Survey
from skyset.versions import __version__

if TYPE_CHECKING:
    from skyset.explore.report.sample import Build
    from skyset.partitions.manifest import Manifest


class _Commands(TyperGroup):
    """`--module` may stand anywhere on the line, as in `skyset show mine --module mine.py`."""

    def parse_args(self, context, arguments: list[str]) -> list[str]:
        modules: list[str] = []
        rest: list[str] = []
        waiting = iter(arguments)
        for argument in waiting:
            if argument == "--module":
                modules += [argument, *[value for value in [next(waiting, None)] if value is not None]]
            else:
                (modules if argument.startswith("--module=") else rest).append(argument)
        with _plain_usage():
            return super().parse_args(context, modules + rest)

    def invoke(self, context):
        with _plain_usage():  # the commands' own arguments are read here
            return super().invoke(context)


@contextlib.contextmanager
def _plain_usage() -> Iterator[None]:
    """Usage errors quote the command line, which may hold a login: they are printed as ``plain`` text."""
    try:
        yield
    except Exception as error:  # typer has a copy of Click's classes, or Click's own
        message = getattr(error, "message", None)
        if isinstance(message, str) and hasattr(error, "format_message"):
            vars(error)["message"] = plain(message)
        raise


app = typer.Typer(
    cls=_Commands,
    help="Galaxy surveys as Hugging Face datasets: build partitions from the archives, look at them, check them.",
    epilog="Start with: skyset build gz3d --tiny -o data/gz3d; skyset show gz3d -o galaxy.png",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # --data-dir is --data_dir
    context_settings={"token_normalize_func": lambda name: name.replace("-", "_"), "help_option_names": ["--help", "-h"]},
)
console = Console()


def _survey_names(incomplete: str) -> list[str]:
    return [name for name in registry.surveys() if name.startswith(incomplete)]


SurveyName = Annotated[
    str, typer.Argument(metavar="SURVEY", help="a name that `skyset surveys` lists", autocompletion=_survey_names)
]
Where = Annotated[
    str,
    typer.Argument(
        metavar="DIR|SURVEY",
        help="a folder of partitions, or a survey whose folder is found (`skyset surveys`)",
        autocompletion=_survey_names,
    ),
]


def partitions_of(given: str) -> str:
    """The folder of a survey's partitions: as it is given, or where a survey of this name is found.

    A folder whose datasets lie below it, each with a manifest, stands for the first of them; the others are told.

    Raises:
        UserError: there are none, and where they were looked for; or nothing of this name is known.
    """
    found = _named(given)
    below = {} if "://" in found or (Path(found) / MANIFEST).exists() else registry.folders_below(found)
    if len(below) > 1:
        first, *others = below.values()
        say(f"{first}; of the same survey: {', '.join(others)}", file=sys.stderr)
    return next(iter(below.values()), found)


def _manifest_of(folder: str | Path) -> Manifest:
    from skyset.partitions.manifest import Manifest

    return Manifest.load(folder)


def _published(given: str) -> tuple[str, Survey, Manifest] | None:
    """The first dataset of a folder of published files, which are read where they lie; the others are told."""
    from skyset.loading.in_place import lying_in

    if registry.is_known(given):
        return None
    lying = lying_in(given)
    first, *others = list(lying) if lying else [""]
    if others:
        say(f"{lying[first][2].survey} {first}; in the same folder: {', '.join(others)}", file=sys.stderr)
    return lying.get(first)


def _to_convert(manifest: Manifest) -> str:
    folder = manifest.sources[0]
    return f"`skyset build {manifest.survey} --local_data_path {folder} -o DIR` checks them and makes partitions of them"


def _named(given: str) -> str:
    folder = Path(given).expanduser()
    if registry.is_known(given) and folder.is_dir() and not (folder / MANIFEST).is_file():
        folder = folder / MANIFEST  # a folder of this name with something else in it, such as the survey's own loader
    if "://" in given or folder.is_dir() or not re.fullmatch(r"\w+", given):
        return given if "://" in given else str(folder)
    if not registry.is_known(given):
        known = ", ".join(registry.surveys())
        raise UserError(f"unknown survey {given!r}; known: {known}; and no manifest.json in {given}")
    registry.loader(given)
    root = registry.find_root(given)
    if root is None:
        raise UserError(
            f"no {given} partitions found: name their folder, or `{registry.how_to_make(given)}` first; {looked_in(given)}"
        )
    return root


def _end(run: Callable[[], int | None]) -> None:
    """Run a command's body; what the user can mend is one line and exit status 2."""
    raise typer.Exit(exit_status(run))


def _print_version(asked: bool) -> None:
    if asked:
        print(f"skyset {__version__}")
        raise typer.Exit


@app.callback()
def _before(
    module: Annotated[
        list[str] | None,
        typer.Option(
            "--module",
            metavar="MODULE",
            help="a loader of your own to know too: an importable module, or a file such as mine.py; anywhere on the line",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="print the version")
    ] = False,
) -> None:
    def run() -> None:
        for each in module or []:
            registry.register_module(each)

    if status := exit_status(run):
        raise typer.Exit(status)


class _BuildOptions(TyperCommand):
    """Completes the options of the survey's build script, which this command hands on."""

    def shell_complete(self, context, incomplete: str) -> list:
        completed = super().shell_complete(context, incomplete)
        survey = context.params.get("survey")
        if survey not in registry.buildable() or not incomplete.startswith("-"):
            return completed
        from skyset.building.help import summary
        from skyset.building.options import with_underscores

        parser, begun = registry.build_script(survey).parser(f"skyset build {survey}"), with_underscores(incomplete)
        found = {name: action for action in parser._actions for name in action.option_strings if name.startswith(begun)}
        shown = [SimpleNamespace(value=name, type="plain", help=summary(parser, action)) for name, action in found.items()]
        return completed + shown


@app.command(
    cls=_BuildOptions,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Build a survey's partitions from its archive: `skyset build gz3d --help` lists the survey's options.",
    epilog="Examples:\n\nskyset build gz3d --tiny -o data/gz3d\n\nskyset build my_survey --module my_survey/my_survey.py",
)
def build(
    context: typer.Context,
    survey: Annotated[
        str | None, typer.Argument(metavar="SURVEY", help="a name that `skyset surveys` lists", autocompletion=_survey_names)
    ] = None,
) -> None:
    arguments = list(context.args)
    if survey is None or survey.startswith("-"):
        sys.stdout.write(context.get_help())  # nothing where typer prints it itself
        console.print(f" SURVEY is one of: {', '.join(registry.buildable())}\n", highlight=False)
        raise typer.Exit(0 if survey in (None, "--help", "-h") else 2)
    _end(lambda: registry.build_script(survey).main(arguments, program=f"skyset build {survey}"))


@app.command(
    help="Print what to type for a Dask cluster that builds run on: slurm, kubernetes, ssh (one host) or local. Nothing is "
    "started; what it prints is a shell script.",
    epilog="Examples:\n\nskyset cluster slurm --queue regular --nodes 16 > run.sh\n\nskyset cluster local | bash",
)
def cluster(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="slurm, kubernetes, ssh or local")],
    command: Annotated[
        str, typer.Option("--command", metavar="TEXT", help="what runs on it, without --scheduler")
    ] = "skyset build gz3d -o /shared/gz3d",
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="processes; of slurm and ssh on each node")] = 8,
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="jobs on slurm")] = 4,
    memory: Annotated[int, typer.Option("--memory", metavar="GB", help="of one process")] = 4,
    port: Annotated[int, typer.Option("--port", metavar="N", help="of the scheduler")] = 8786,
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="that ssh reaches")] = "HOST",
    queue: Annotated[str, typer.Option("--queue", metavar="NAME", help="slurm's partition")] = "QUEUE",
    walltime: Annotated[str, typer.Option("--walltime", metavar="TIME", help="of a job on slurm")] = "12:00:00",
    image: Annotated[str, typer.Option("--image", metavar="NAME", help="a container image with skyset in it")] = "IMAGE",
    claim: Annotated[str, typer.Option("--claim", metavar="NAME", help="kubernetes' claim to a shared volume")] = "CLAIM",
) -> None:
    def run() -> None:
        from skyset.building.cluster import Wanted, recipe

        wanted = Wanted(command, workers, nodes, memory, port, host, queue, walltime, image, claim)
        print(recipe(kind, wanted), end="")

    _end(run)


@app.command(
    help="Write a survey of your own from a template: a folder with its loader, build script, test and card. Given images "
    "and a table, it declares the columns that it finds in them; you describe them.",
    epilog="Examples:\n\nskyset new my_survey --from photos --table catalogue.csv\n\nskyset new my_survey",
)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="what people will load it by: my_survey")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="the new folder (default: NAME, here)")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="your images: PNG, JPEG or FITS, one an object")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table", metavar="FILE", help="your table, a row an object: csv, fits, vot or parquet, each also .gz"
        ),
    ] = None,
    ids: Annotated[
        str,
        typer.Option(
            "--ids",
            metavar="COLUMN",
            help="the names of objects (default: object_id, id, ..., whichever is there, or the images' names)",
        ),
    ] = "",
    ra: Annotated[
        str,
        typer.Option(
            "--ra", metavar="COLUMN", help="right ascension, degrees (default: ra, RAJ2000, ..., whichever is there)"
        ),
    ] = "",
    dec: Annotated[str, typer.Option("--dec", metavar="COLUMN", help="declination, degrees")] = "",
) -> None:
    def run() -> None:
        from skyset.template.found import look
        from skyset.template.new import check_name, write

        check_name(name)
        if (images is None) != (table is None):
            raise UserError("--from and --table belong together: a folder of images, and the table that names them")
        found = None
        if images is not None and table is not None:
            found = look(images.expanduser(), table.expanduser(), ids, ra, dec)
            for line in found.notes:
                say(line)
            say(
                f"{found.rows} rows in {table}, {found.pictured} images of them in {images} (by the column "
                f"{found.names.image}); {len(found.columns)} columns, {len(found.classes)} of them of classes"
            )
        folder = output or Path(name)
        written = write(name, folder, found, images, table)
        say(f"wrote {folder}: {', '.join(written)}")
        module = f"--module {folder / name}.py"
        source = "" if found is not None else " --local_data_path DIR --table FILE"
        say(f"describe the columns in {folder / name}.py, then:")
        for line in (
            f"python -m pytest {folder}  # pip install pytest",
            f"skyset build {name} {module}{source}",
            f"skyset show {name} {module}",
            f"skyset card {name} {module}",
        ):
            say(f"  {line}")
        say(f'in Python: import skyset; skyset.register("{name}", "{folder / name}.py"); skyset.load("{name}")')

    _end(run)


@app.command(help="Rows, cells, bytes, sky coverage and columns of a folder of partitions.")
def info(
    where: Where,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="PNG", help="also draw the rows per cell")] = None,
    columns: Annotated[bool, typer.Option("--columns", help="the columns alone, a line each, nothing shortened")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="all of it for programs, as JSON")] = False,
) -> None:
    def run() -> None:
        import json

        from skyset.declaration import SurveyInfo, column_rows, lines_of
        from skyset.explore.info import facts, print_info, sky_figure

        if lying := _published(where):
            manifest = lying[2]
            if plot is not None:
                raise UserError(f"--plot: no positions are known of published files; {_to_convert(manifest)}")
        else:
            try:
                manifest = _manifest_of(partitions_of(where))
            except UserError as nothing:
                if as_json or plot is not None or not registry.is_known(where) or registry.find_root(where):
                    raise
                declared = registry.survey(where)
                print(
                    "\n".join(lines_of(column_rows(declared.columns), "column"))
                    if columns
                    else SurveyInfo(declared, registry.default_config(where), tuple(registry.configs(where)))
                )
                say(nothing, file=sys.stderr)
                return
        if plot is not None:
            save_figure(sky_figure(manifest), plot, sys.stderr if as_json else None)
        if as_json:
            print(json.dumps(facts(manifest), indent=1))
        elif columns:
            for line in lines_of(column_rows(manifest.columns), "column"):
                say(line)
        else:
            print_info(manifest, console)

    _end(run)


@app.command(
    help="Recompute every checksum and position of a folder and name each difference; exit status 1 if there is one. The "
    "folder holds partitions, Parquet that `skyset push` made (also hf://datasets/ORG/NAME), or a HATS catalogue; "
    "with --against also each value, column and row is looked at.",
    epilog="Examples:\n\nskyset verify data/gz3d\n\nskyset verify gz3d_hats --against data/gz3d\n\n"
    "skyset verify hf://datasets/ORG/gz3d",
)
def verify(
    where: Where,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="DIR",
            help="the partitions that pushed Parquet or HATS was made of: all values are compared, row by row",
        ),
    ] = None,
) -> None:
    def run() -> int:
        if lying := _published(where):
            raise UserError(f"{where} holds published files, of which no checksums are known; {_to_convert(lying[2])}")
        if not registry.is_known(where) and (
            "://" in where or registry.is_pushed(where) or registry.is_catalogue(Path(where).expanduser())
        ):
            return published()
        folder = _named(where)
        if against is not None:
            raise UserError(f"--against: {folder} holds no pushed Parquet and no HATS catalogue, whose values it is for")
        below = {} if (Path(folder) / MANIFEST).exists() else registry.folders_below(folder)
        return max([verified(Path(each)) for each in below.values() or [folder]])

    def published() -> int:
        from skyset.progress import progress_bar
        from skyset.publishing.verify import looked_at, verify_published

        progress = functools.partial(progress_bar, unit="file", desc="verify", leave=False)
        source = None if against is None else partitions_of(against) if registry.is_known(against) else against
        differences = 0
        for differences, line in enumerate(verify_published(where, source, progress), 1):  # noqa: B007
            say(line)
        if differences:
            say(f"{differences} differences in {where}; the command that wrote it makes it again", file=sys.stderr)
            return 1
        values = f", and every value as in {against}" if against is not None else ""
        say(f"OK: {where}: {looked_at(where)}{values}")
        return 0

    def verified(folder: Path) -> int:
        from skyset.partitions.verify import verify as find_differences
        from skyset.progress import progress_bar

        manifest = _manifest_of(folder)
        known = manifest.survey in registry.surveys()
        survey = registry.survey(manifest.survey, manifest.config) if known else None
        progress = functools.partial(progress_bar, unit="file", desc="verify", leave=False)
        differences = 0
        for differences, line in enumerate(find_differences(folder, survey, progress), 1):  # noqa: B007
            say(line)
        if differences:
            mends = "the command that built it mends damaged and missing partitions, with --recheck all of them"
            say(f"{differences} differences in {folder}; {mends}", file=sys.stderr)
            return 1
        which = "" if manifest.config == "default" else f"config {manifest.config}, "
        print(
            f"OK: {which}{manifest.rows} rows in {len(manifest.files)} partitions, every checksum and position as in the "
            "manifest"
        )
        return 0

    _end(run)


@app.command(
    help="Objects of two or more catalogues that belong together: folders of partitions, or csv, fits, vot or parquet "
    "files. As a stream with their images: skyset.crossmatch in Python.",
    epilog="Examples:\n\n"
    "skyset crossmatch data/gz_decals data/gz2 --radius 1 -o pairs.parquet\n\n"
    "skyset crossmatch data/gz3d mine.fits --ra RAJ2000:hour --dec DEJ2000 --how left -o all.csv\n\n"
    "skyset crossmatch gaia.parquet data/sdss_galaxy_zoo --pm --epochs 2016=2005 -o stars.fits\n\n"
    "What stands for each catalogue is written A=B, or once where all call it the same; --ra and --dec once: for the "
    "files, as partitions have ra and dec.",
)
def crossmatch(
    left: Annotated[str, typer.Argument(metavar="LEFT", help="a folder of partitions (or its URL), or a catalogue's file")],
    right: Annotated[str, typer.Argument(metavar="RIGHT", help="the same")],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MORE]...", help="further ones, each matched with LEFT", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help=".parquet, .csv, .csv.gz, .fits or .vot")
    ] = None,
    radius: Annotated[float, typer.Option("--radius", metavar="ARCSEC", help="largest separation")] = 1.0,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="COLUMN[=COLUMN]",
            help="match equal names instead of positions: iauname, id_str, left_name=right_name",
        ),
    ] = None,
    how: Annotated[
        str,
        typer.Option(
            "--how",
            metavar="HOW",
            help="inner: left objects that have a match; left: all of them; nearest: the nearest match alone",
        ),
    ] = "inner",
    best: Annotated[
        str,
        typer.Option(
            "--best", metavar="HOW", help="all pairs, the nearest of each left object, or mutual (nearest of each other)"
        ),
    ] = "all",
    ids: Annotated[
        str | None,
        typer.Option(
            "--ids",
            metavar="COLUMN[=COLUMN]",
            help="the names of objects (default: object_id, iauname, id, ..., whichever is there)",
        ),
    ] = None,
    ra: Annotated[
        str | None,
        typer.Option(
            "--ra",
            metavar="COLUMN[:UNIT][=COLUMN]",
            help="right ascension, unit deg, hour or rad (default: ra, RAJ2000, ALPHA_J2000, ..., whichever is there, in "
            "the table's unit or degrees)",
        ),
    ] = None,
    dec: Annotated[str | None, typer.Option("--dec", metavar="COLUMN[:UNIT][=COLUMN]", help="declination")] = None,
    pm: Annotated[
        bool,
        typer.Option("--pm", help="take objects with proper motions (pmra, pmdec) to the epoch of the catalogues without"),
    ] = False,
    epochs: Annotated[
        str | None,
        typer.Option(
            "--epochs", metavar="YEAR=YEAR", help="of the positions, for --pm (default: a column ref_epoch's, else 2000)"
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="A,B",
            help="further columns of any side for the table: mag_r becomes mag_r_left, mag_r_right; of three, mag_r_1 ...",
        ),
    ] = None,
    partitions: Annotated[
        Path | None,
        typer.Option(
            "--partitions", metavar="DIR", help='the pairs as partitions too: load_dataset("crossmatch", data_dir=DIR)'
        ),
    ] = None,
) -> None:
    def run() -> None:
        from skyset.explore.match_table import Asked

        if output is None and partitions is None:
            raise UserError("where to? -o pairs.parquet, or --partitions DIR")
        if partitions is not None and more:
            raise UserError("--partitions takes pairs, of two catalogues; -o FILE takes more")
        sources = tuple(without_login(each) for each in (left, right, *(more or ())))
        _crossmatch(Asked(sources, radius, key, how, best, ids, ra, dec, columns, pm, epochs), output, partitions)

    _end(run)


def _crossmatch(asked, output: Path | None, partitions: Path | None) -> None:
    from skyset.explore.match_table import table_of_matches
    from skyset.explore.pairs import write_partitions
    from skyset.explore.pairs_file import check_output, write_pairs

    if output is not None:
        check_output(output)
        names = ["the left catalogue", "the right catalogue", *(f"catalogue {n}" for n in range(3, len(asked.sources) + 1))]
        keep_inputs(output, dict(zip(names, asked.sources, strict=True)))
    table, counts, alone = table_of_matches(asked)
    many = ", ".join(f"{count:,}" for count in counts[:-1]) + f" and {counts[-1]:,}"
    without = f"; {alone:,} of {counts[0]:,} have none" if asked.how == "left" else ""
    matches = "pairs" if len(counts) == 2 else "matches"
    rows = table.num_rows - (alone if asked.how == "left" and len(counts) == 2 else 0)
    console.print(f"{rows:,} {matches} of {many} objects{without}", highlight=False)
    if output is not None:
        write_pairs(table, output)
        print(f"wrote {output}")
    if partitions is not None:
        command = ["skyset", *sys.argv[1:]]
        write_partitions(table, partitions, registry.survey("crossmatch"), command, list(asked.sources))
        print(f"wrote {partitions}")


class _SExtractorOptions(TyperCommand):
    """`-DETECT_THRESH 3`, as SExtractor's users write it, is `--set DETECT_THRESH=3`."""

    def parse_args(self, context, arguments: list[str]) -> list[str]:
        rest, written = iter(arguments), []
        for argument in rest:
            if re.fullmatch(r"-[A-Z][A-Z0-9_]+", argument):
                written += ["--set", f"{argument[1:]}={next(rest, '')}"]
            else:
                written.append(argument)
        return super().parse_args(context, written)


@app.command(
    cls=_SExtractorOptions,
    help="Detect and measure the sources of a FITS image, or of every extension of a mosaic: SExtractor's quantities, names "
    "and configuration files. Works without a configuration too.",
    epilog="Examples:\n\n"
    "skyset extract image.fits -o sources.parquet\n\n"
    "skyset extract image.fits -c default.sex -o cat.ldac --check segmentation.fits,background.fits\n\n"
    "skyset extract image.fits -DETECT_THRESH 3 -MAG_ZEROPOINT 27 --columns X_IMAGE,Y_IMAGE,MAG_AUTO -o bright.csv\n\n"
    "skyset extract image.fits -o cat.ldac --plot sources.png\n\n"
    "skyset extract image.fits --engine sep -o sources.csv\n\n"
    "Any keyword of SExtractor may be given as -KEYWORD value. What is not honoured is said.",
)
def extract(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="a FITS file; every 2-D image of the sky in it is "
            "measured; image.fits\\[1], image.fits\\[SCI] and image.fits\\[SCI,2] are one of "
            "them, cube.fits\\[0]\\[2] a plane of a cube",
        ),
    ],
    config: Annotated[Path | None, typer.Option("-c", "--config", metavar="SEX", help="SExtractor's configuration")] = None,
    parameters: Annotated[
        Path | None,
        typer.Option(
            "-p", "--parameters", metavar="PARAM", help="the columns wanted, one a line (default: PARAMETERS_NAME)"
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B", help="instead of a .param file: X_IMAGE,Y_IMAGE,FLUX_RADIUS(2)")
    ] = None,
    skip_unknown: Annotated[
        bool,
        typer.Option(
            "--skip_unknown", help="leave out what is not measured here, and columns of the sky where an image has none"
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="the catalogue: .ldac, .fits, "
            ".parquet, .csv, .csv.gz, .vot (default: CATALOG_NAME, or IMAGE's name with "
            ".ldac)",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="ldac, fits, parquet, csv, ascii_head, ascii or votable (default: by the ending, then CATALOG_TYPE)",
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="FILES",
            help="check images, by their names (segmentation.fits,background.fits,rms.fits) or as TYPE=FILE",
        ),
    ] = None,
    weight: Annotated[
        Path | None,
        typer.Option("--weight", metavar="FITS", help="weights, such as both.fits\\[WHT] (default: WEIGHT_IMAGE)"),
    ] = None,
    flag: Annotated[Path | None, typer.Option("--flag", metavar="FITS", help="flag image (default: FLAG_IMAGE)")] = None,
    classifier: Annotated[
        Path | None,
        typer.Option("--classifier", metavar="NNW", help="SExtractor's default.nnw (default: STARNNW_NAME, else our own)"),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="what finds and measures: compiled, our own "
            "kernels, has every column and needs numba; sep, the package, has most and "
            "starts at once (default: compiled where numba is installed)",
        ),
    ] = None,
    seeing: Annotated[
        str | None,
        typer.Option(
            "--seeing",
            metavar="ARCSEC",
            help="FWHM of a star: CLASS_STAR "
            "needs it, and the WCS's or -PIXEL_SCALE's pixel (default: SEEING_FWHM); "
            "auto: from the stars of each image",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEYWORD=VALUE", help="instead of the configuration's value; the same as -KEYWORD VALUE"
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, metavar="N", help="extensions at once (default: one per core)")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="PNG", help="the image, each source in an ellipse")] = None,
) -> None:
    def run() -> None:
        from skyset.extraction import command

        inputs = {"the image": re.sub(r"\[[^]]*\]$", "", image), "the weights": weight, "the flag image": flag}
        inputs |= {"the configuration": config, "the list of columns": parameters, "the classifier": classifier}
        picture = None if plot is None else picture_path(plot)
        for each in (picture, output):
            keep_inputs(each, inputs)
        keep_inputs(picture, {"the catalogue": output})
        made = command.extract(
            image,
            config,
            parameters=parameters,
            columns=columns,
            skip_unknown=skip_unknown,
            overrides=[*(set_ or []), *([] if seeing is None else [f"SEEING_FWHM={seeing}"])],
            output=output,
            format=format,
            check=check,
            weight=weight,
            flag_image=flag,
            classifier=classifier,
            engine=engine,
            processes=processes,
            draw=picture is not None,
            plot=picture,
            tell=functools.partial(print, "skyset:", file=sys.stderr),
        )
        print(made)
        if picture is not None:
            save_figure(made.figure(), picture)

    _end(run)


@app.command(
    help="Write a folder of partitions as a HATS collection (catalogue and margin), which LSDB and `datasets` both open; "
    "the same command goes on after an interruption.",
    epilog="Examples:\n\nskyset hats data/gz3d -o gz3d_hats\n\nskyset hats data/gz3d -o gz3d_hats --max_bytes 256MB "
    "--margin 10\n\npython -c \"import lsdb; print(len(lsdb.open_catalog('gz3d_hats')))\"",
)
def hats(
    where: Where,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="the collection: a new folder")],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="of the catalogue, a folder in OUT (default: the survey's)")
    ] = "",
    config: Annotated[
        str | None, typer.Option("--config", metavar="NAME", help="which of the survey's datasets (default: the first)")
    ] = None,
    images: Annotated[
        str,
        typer.Option(
            "--images",
            metavar="FORM",
            help="how pixels are stored: array, as datasets has them, opens everywhere; list, plain nested lists; tensor, "
            "Arrow's fixed-shape tensors, which LSDB 0.11 and datasets 5 do not open yet",
        ),
    ] = "array",
    max_bytes: Annotated[
        str,
        typer.Option("--max_bytes", metavar="SIZE", help="of a partition, before compression: 512MB; larger ones are cut"),
    ] = "512MB",
    threshold: Annotated[
        int | None, typer.Option("--threshold", min=1, metavar="ROWS", help="of a partition, too; larger ones are cut")
    ] = None,
    margin: Annotated[
        float, typer.Option("--margin", metavar="ARCSEC", help="how far the margin about a partition reaches; 0: no margin")
    ] = 5.0,
    compression: Annotated[
        str, typer.Option("--compression", metavar="NAME", help="zstd, lz4, snappy, gzip or none")
    ] = "zstd",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace what an earlier export of other rows or options left in OUT")
    ] = False,
    num_processes: Annotated[
        int | None, typer.Option("--num_processes", min=1, metavar="N", help="files at once (default: one per core)")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="ADDRESS", help="a Dask scheduler's, tcp://host:8786, instead of processes here"
        ),
    ] = None,
) -> None:
    def run() -> None:
        import os

        from skyset.files import bytes_of
        from skyset.progress import progress_bar
        from skyset.publishing.hats import Asked, export

        asked = Asked(name, images, bytes_of(max_bytes), threshold, margin, compression)
        processes = num_processes or os.cpu_count() or 1
        root, progress = _named(where), functools.partial(progress_bar, unit="file", desc="hats", leave=False)
        try:
            say(export(root, output, asked, config, overwrite, processes, scheduler, progress))
        except PartitionError as error:
            raise UserError(
                f"{error}; `skyset verify {root}` says more, what is written stays for the next attempt"
            ) from error

    _end(run)


@app.command(help="Measure in about a minute how fast rows come from this disk on this machine, and say what would help.")
def bench(
    where: Where,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, help="that each way of reading is measured, twice")] = 3,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also save all numbers")] = None,
) -> None:
    def run() -> int:
        from skyset.explore.bench.run import run as measure_and_show

        folder = Path(partitions_of(where))
        keep_inputs(output, {"the folder's manifest": folder / MANIFEST})
        return measure_and_show(folder, seconds, output, console)

    _end(run)


@app.command(help="Draw one object with its masks and the colour key.")
def show(
    survey: Where,
    object_id: Annotated[str | None, typer.Option("--object", metavar="ID", help="object_id (default: the first)")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PNG", help="the picture")] = Path("object.png"),
    data_dir: Annotated[str | None, typer.Option("--data_dir", metavar="DIR", help="default: the usual places")] = None,
    image_size: Annotated[int | None, typer.Option("--image_size", metavar="N", help="centre crop, pixels")] = None,
) -> None:
    def run() -> None:
        from skyset.explore.objects import object_figure
        from skyset.loading.in_place import published_in

        if data_dir is not None:
            registry.loader(survey)  # an unknown name is worth more than a folder that is not there
            if found := published_in(survey, data_dir):
                root, declared, manifest = found
                save_figure(object_figure(declared, root, object_id, image_size, manifest), output)
                return
        if data_dir is None and (found := _published(survey)):
            root, declared, manifest = found
            save_figure(object_figure(declared, root, object_id, image_size, manifest), output)
            return
        root = partitions_of(survey) if data_dir is None else registry.find_root(survey, data_dir) or data_dir
        manifest = _manifest_of(root)
        declared = registry.survey(survey if data_dir is not None else manifest.survey, manifest.config)
        save_figure(object_figure(declared, root, object_id, image_size), output)

    _end(run)


@app.command(
    help="One web page on a dataset: sky map, pictures, columns and their distributions, cuts, rejected objects, "
    "provenance, checksums; or the differences of two builds. It needs no network. Exit status 1 where files are damaged.",
    epilog="Examples:\n\nskyset report data/gz3d -o report.html\n\nskyset report --compare data/gz3d data/new -o new.html",
)
def report(
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR|SURVEY",
            help="a folder of partitions or published files, or a survey whose folder is found",
            autocompletion=_survey_names,
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="HTML", help="the page")] = Path("report.html"),
    compare: Annotated[
        tuple[str, str] | None, typer.Option("--compare", metavar="A B", help="two builds: what is different in them")
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, metavar="N", help="of which the statistics are made, where there are more")
    ] = None,
    images: Annotated[int | None, typer.Option("--images", min=0, max=24, metavar="N", help="pictures (default: 6)")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="of the rows that are drawn")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a file that is no report")] = False,
) -> None:
    def run() -> int:
        from skyset.explore.report import command

        if (where is None) == (compare is None):
            raise UserError("of what? skyset report DIR, or skyset report --compare A B")
        builds = [_build_of(each) for each in compare or [where or ""]]
        path = command.page_path(output)
        command.check_output(path, [build.root for build in builds], overwrite)
        most, count = rows or command.ROWS, command.PICTURES if images is None else images
        if compare is None:
            problems = command.write(builds[0], path, most, count, seed)
        else:
            from skyset.explore.report.compare_page import write_comparison

            problems = write_comparison(builds[0], builds[1], path, most, seed)
        print(f"wrote {path}")
        for line in problems[:20]:
            say(line, file=sys.stderr)
        if problems:
            say(f"{len(problems)} problems, named in the page; `skyset verify` looks at every byte", file=sys.stderr)
        return 1 if problems else 0

    _end(run)


def _build_of(given: str) -> Build:
    """A dataset to report on: partitions, or published files where they lie."""
    from skyset.explore.report.sample import Build

    if found := _published(given):
        root, survey, manifest = found
        return Build(root, manifest, survey)
    root = partitions_of(given)
    manifest = _manifest_of(root)
    known = registry.is_known(manifest.survey) and manifest.config in registry.configs(manifest.survey)
    return Build(root, manifest, registry.survey(manifest.survey, manifest.config) if known else None)


@app.command(
    help="Find the objects that look most like one, and draw them: by a network's vectors, or by the images themselves."
)
def similar(
    where: Where,
    to: Annotated[str, typer.Option("--to", metavar="ID", help="object_id")],
    k: Annotated[int, typer.Option("--k", min=1, metavar="N", help="how many")] = 12,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PNG", help="the picture")] = Path("similar.png"),
    representations: Annotated[
        str | None,
        typer.Option(
            "--representations",
            metavar="FILE",
            help="parquet file or folder of vectors, as training/extract_representations.py writes (default: "
            "DIR/representations, or DIR_representations beside it; without any, a description made from the images, "
            "10 ms each)",
        ),
    ] = None,
) -> None:
    def run() -> None:
        from skyset.explore.objects import lookalikes_figure
        from skyset.progress import progress_bar

        progress = functools.partial(progress_bar, unit="image", desc="describing", leave=False)
        keep_inputs(picture_path(output), {"the representations": representations})
        root = str(Path(partitions_of(where)).absolute())
        figure, found, compared = lookalikes_figure(root, to, k, representations, progress)
        say(f"most like {to} by the {compared}:")
        for name, cosine in found:
            say(f"{cosine:.4f}  {name}")
        save_figure(figure, output)

    _end(run)


@app.command(
    name="push",
    help="Put a survey's data into a repository of the Hugging Face Hub, whole or not at all: as Parquet that everybody "
    "reads with `datasets` alone, or the folder as it is. A second push sends what has changed.",
    epilog="Examples:\n\nskyset push gz3d --data_dir data/gz3d --repo ME/gz3d --dry_run\n\n"
    "skyset push gz3d --data_dir data/gz3d --repo ME/gz3d --private\n\n"
    "The login is that of `hf auth login`, or HF_TOKEN. After an interruption the same command goes on.",
)
def push_(
    survey: SurveyName,
    repo: Annotated[str, typer.Option("--repo", metavar="ORG/NAME", help="the repository; it is made if it is not there")],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data_dir",
            metavar="DIR",
            help="the partitions, or a HATS catalogue (default: where `skyset surveys` finds it)",
        ),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="parquet: for everybody; hdf5: the partitions as they are; hats: a catalogue that `skyset hats` made",
        ),
    ] = "parquet",
    private: Annotated[bool, typer.Option("--private", help="a new repository is seen by you, or your ORG, alone")] = False,
    gated: Annotated[bool, typer.Option("--gated", help="who wants to read it asks for access, which you grant")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="also the raw files, DIR/raw, with a table of them as a second config")
    ] = False,
    revision: Annotated[str, typer.Option("--revision", metavar="BRANCH", help="the branch; it is made too")] = "main",
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="print files, sizes and commits; ask nothing of the Hub")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files there that no push of skyset wrote")] = False,
    every_column: Annotated[
        bool, typer.Option("--every_column", help="parquet: also the columns that the loader does not hand out")
    ] = False,
    no_preview: Annotated[bool, typer.Option("--no_preview", help="parquet: no column of small pictures")] = False,
    compression: Annotated[
        str, typer.Option("--compression", metavar="NAME", help="parquet: zstd, lz4, snappy, gzip or none")
    ] = "zstd",
    shard_mb: Annotated[
        int, typer.Option("--shard_mb", metavar="MB", min=1, help="parquet: of the partitions of a file, about")
    ] = 256,
    num_processes: Annotated[
        int | None,
        typer.Option(
            "--num_processes", metavar="N", min=1, help="that make Parquet files (default: up to 4, of small data 1)"
        ),
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(
            "--work_dir", metavar="DIR", help="for the journal and files on their way (default: in the user's cache)"
        ),
    ] = None,
) -> None:
    def run() -> None:
        from skyset.publishing.contents import Form
        from skyset.publishing.plan import planned, tell
        from skyset.publishing.push import push
        from skyset.publishing.request import Request

        registry.loader(survey)
        folder = data_dir or Path(registry.find_root(survey) or _not_found(survey))
        form = Form(compression, not no_preview, every_column, shard_mb << 20)
        request = Request(
            survey,
            folder.expanduser().absolute(),
            repo,
            format_,
            revision,
            private,
            "manual" if gated else "",
            raw,
            overwrite,
            num_processes or 0,
            work_dir,
            form,
        )
        plan = planned(request)
        if dry_run:
            tell(plan)
            return
        print(push(plan))

    _end(run)


def _not_found(survey: str) -> str:
    raise UserError(f"no {survey} partitions found: name their folder with --data_dir; {looked_in(survey)}")


@app.command(help="The surveys that can be built and loaded, and where their partitions were found.")
def surveys() -> None:
    def run() -> None:
        for name in registry.surveys():
            try:
                title = registry.survey(name).title
            except UserError as error:  # somebody's package is broken: the others are there all the same
                title = str(error)
            say(f"{name:16}  {title}")
            if root := registry.find_root(name):
                say(f"{'':16}  found in {root}")

    _end(run)


@app.command(
    help="Write a survey's dataset card, or bring its tables and citation up to date with the declaration, and see to it "
    "that the Hub takes its metadata. Of a folder of partitions the card also shows what there is, in figures.",
    epilog="Examples:\n\nskyset card data/gz3d\n\nskyset card data/gz3d -o README.md --check\n\nskyset card gz3d",
)
def card(
    where: Annotated[
        str,
        typer.Argument(
            metavar="SURVEY|DIR",
            help="a name that `skyset surveys` lists, or a folder of partitions",
            autocompletion=_survey_names,
        ),
    ],
    file: Annotated[Path | None, typer.Argument(metavar="CARD", help="the same as -o")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="CARD", help="default: README.md beside a survey's build script, or in the folder"
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="write nothing: name what is not as it should be; exit status 1 if there is any")
    ] = False,
) -> None:
    def run() -> int:
        from skyset.building.card import card_path, more_blocks
        from skyset.explore.survey_card import SurveyCard

        if registry.is_known(where) and not (Path(where) / MANIFEST).is_file():
            path = output or file or card_path(where)
            the_card = SurveyCard(path, registry.survey(where), more_blocks(where))
        else:
            root = partitions_of(where)
            manifest = _manifest_of(root)
            survey = registry.survey(manifest.survey)
            above = Path(root) if manifest.config == "default" else Path(root).parent
            path, more = output or file or above / "README.md", more_blocks(manifest.survey)
            the_card = SurveyCard(path, survey, more, root)
        if check:
            wrong = the_card.wrong()
            for line in wrong:
                say(line)
            if not wrong:
                say(f"OK: {path}")
            return 1 if wrong else 0
        say(f"{path}: {the_card.write()}")
        return 0

    _end(run)


def picture_path(path: Path) -> Path:
    """Where a picture of this name is saved."""
    return path if path.suffix else path.with_suffix(".png")


def save_figure(figure, path: Path, told: TextIO | None = None) -> None:
    """Save a figure and say where it is; UserError if the format is unknown or the place cannot be written."""
    path = picture_path(path)
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {path.parent}")
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, format=path.suffix[1:].lower())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}") from error
    print(f"wrote {path}", file=told)


def main() -> None:
    def run() -> int:
        try:
            return app(prog_name="skyset") or 0
        except SystemExit as end:
            return int(end.code or 0)

    sys.exit(exit_status(run))


if __name__ == "__main__":
    main()
