"""Commands that make data and surveys: build, cluster, new, surveys, card."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import typer
from typer.core import TyperCommand

from skyset.cli.app import app, console, end
from skyset.cli.places import manifest_of, partitions_of, survey_names
from skyset.errors import UserError
from skyset.loading import registry
from skyset.loading.trees import adopted_trees
from skyset.messages import counted, say
from skyset.partitions.layout import MANIFEST


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
        str | None, typer.Argument(metavar="SURVEY", help="a name that `skyset surveys` lists", autocompletion=survey_names)
    ] = None,
) -> None:
    arguments = list(context.args)
    if survey is None or survey.startswith("-"):
        sys.stdout.write(context.get_help())  # nothing where typer prints it itself
        console.print(f" SURVEY is one of: {', '.join(registry.buildable())}\n", highlight=False)
        raise typer.Exit(0 if survey in (None, "--help", "-h") else 2)
    end(lambda: registry.build_script(survey).main(arguments, program=f"skyset build {survey}"))


@app.command(
    help="Print what to type for a Dask cluster to run on (--scheduler): slurm, kubernetes, ssh (one host) or local. "
    "Nothing is started; what it prints is a shell script.",
    epilog="Examples:\n\nskyset cluster slurm --queue regular --nodes 16 > run.sh\n\nskyset cluster local | bash",
)
def cluster(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="slurm, kubernetes, ssh or local")],
    command: Annotated[
        str,
        typer.Option(
            "--command",
            metavar="TEXT",
            help="what runs on it, without --scheduler (default: gz3d into /shared; with local a small one, here)",
        ),
    ] = "",
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

    end(run)


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

    end(run)


@app.command(
    help="The surveys that can be built and loaded, and where their partitions were found; then trees that were adopted."
)
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
        for tree in adopted_trees():
            say(f"{tree.name:16}  an adopted tree, {counted(tree.rows, 'row')}: {tree.folder}")

    end(run)


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
            autocompletion=survey_names,
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
            manifest = manifest_of(root)
            survey = registry.survey(manifest.survey)
            survey = survey if survey.of_build is None else survey.as_built(manifest.columns, manifest.build)
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

    end(run)
