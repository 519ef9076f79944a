"""Commands that look at data: info, verify, show, report, similar, bench."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Annotated

import typer

from skyset.cli.app import app, console, end
from skyset.cli.pictures import picture_path, save_figure
from skyset.cli.places import (
    Where,
    build_of,
    how_to_convert,
    manifest_of,
    named,
    parquet_at,
    partitions_of,
    published_at,
    survey_names,
)
from skyset.cli.running import Processes, Scheduler, processes_of
from skyset.errors import UserError
from skyset.files import keep_inputs
from skyset.loading import registry
from skyset.messages import counted, say
from skyset.partitions.layout import MANIFEST


@app.command(
    help="Rows, cells, bytes, sky coverage and columns of a folder of partitions, an adopted tree, Parquet files or HATS."
)
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

        parquet = None
        if lying := published_at(where):
            manifest = lying[2]
            if plot is not None:
                raise UserError(f"--plot: no positions are known of published files; {how_to_convert(manifest)}")
        elif parquet := parquet_at(where):
            manifest = parquet[2]
            if plot is not None:
                raise UserError(
                    f"--plot: {where} holds Parquet, whose footers tell no cells: `skyset report {where}` draws it"
                )
        else:
            try:
                manifest = manifest_of(partitions_of(where))
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
            print(json.dumps(facts(manifest, in_cells=parquet is None), indent=1))
        elif columns:
            for line in lines_of(column_rows(manifest.columns), "column"):
                say(line)
        else:
            print_info(manifest, console, in_cells=parquet is None)

    end(run)


@app.command(
    help="Recompute every checksum and position of a folder and name each difference; exit status 1 if there is one. The "
    "folder holds partitions, Parquet that `skyset push` made (also hf://datasets/ORG/NAME), a HATS catalogue, or is an "
    "adopted tree or its index; "
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
    num_processes: Processes = None,
    scheduler: Scheduler = None,
) -> None:
    def run() -> int:
        if (status := adopted()) is not None:
            return status
        if lying := published_at(where):
            raise UserError(f"{where} holds published files, of which no checksums are known; {how_to_convert(lying[2])}")
        if not registry.is_known(where) and (
            "://" in where or registry.is_pushed(where) or registry.is_catalogue(Path(where).expanduser())
        ):
            return published()
        folder = named(where)
        if against is not None:
            raise UserError(f"--against: {folder} holds no pushed Parquet and no HATS catalogue, whose values it is for")
        below = {} if (Path(folder) / MANIFEST).exists() else registry.folders_below(folder)
        return max([verified(Path(each)) for each in below.values() or [folder]])

    def adopted() -> int | None:
        """The status of an index of an adopted tree, None where it is none."""
        if "://" in where or registry.is_known(where):
            return None
        from skyset.adopting.verify import index_at
        from skyset.adopting.verify import verify as verify_index
        from skyset.cli.adopting import tell_verified

        index = index_at(where)
        if index is None:
            return None
        if against is not None:
            raise UserError(f"--against: {where} is the index of an adopted tree, which nothing was made of")
        differences = broken = 0
        for each in verify_index(index, processes_of(num_processes), scheduler):
            differences += tell_verified(each)
            broken += each.broken
        if differences:
            told = counted(differences, "difference")
            say(f"{told} in {where}: `skyset adopt` with the same folder renews the index", file=sys.stderr)
        if broken:
            told = counted(broken, "file")
            say(f"{told} in {where} cannot be read: mend or replace, and adopt again", file=sys.stderr)
        return 1 if differences or broken else 0

    def published() -> int:
        from skyset.progress import progress_bar
        from skyset.publishing.verify import looked_at, verify_published

        progress = functools.partial(progress_bar, unit="file", desc="verify", leave=False)
        source = None if against is None else partitions_of(against) if registry.is_known(against) else against
        differences = 0
        found = verify_published(where, source, progress, processes_of(num_processes), scheduler)
        for differences, line in enumerate(found, 1):  # noqa: B007
            say(line)
        if differences:
            told = counted(differences, "difference")
            say(f"{told} in {where}; the command that wrote it makes it again", file=sys.stderr)
            return 1
        values = f", and every value as in {against}" if against is not None else ""
        say(f"OK: {where}: {looked_at(where)}{values}")
        return 0

    def verified(folder: Path) -> int:
        from skyset.partitions.verify import verify as find_differences
        from skyset.progress import progress_bar

        manifest = manifest_of(folder)
        known = manifest.survey in registry.surveys()
        survey = registry.survey(manifest.survey, manifest.config) if known else None
        progress = functools.partial(progress_bar, unit="file", desc="verify", leave=False)
        differences = 0
        found = find_differences(folder, survey, progress, processes_of(num_processes), scheduler)
        for differences, line in enumerate(found, 1):  # noqa: B007
            say(line)
        if differences:
            mends = "the command that built it mends damaged and missing partitions, with --recheck all of them"
            say(f"{counted(differences, 'difference')} in {folder}; {mends}", file=sys.stderr)
            return 1
        which = "" if manifest.config == "default" else f"config {manifest.config}, "
        print(
            f"OK: {which}{manifest.rows} rows in {len(manifest.files)} partitions, every checksum and position as in the "
            "manifest"
        )
        return 0

    end(run)


@app.command(
    help="Draw one object: its image with masks and their key, the votes, its bands, its spectrum or its light curve, by "
    "what the survey has."
)
def show(
    survey: Where,
    object_id: Annotated[str | None, typer.Option("--object", metavar="ID", help="object_id (default: the first)")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PNG", help="the picture")] = Path("object.png"),
    data_dir: Annotated[str | None, typer.Option("--data_dir", metavar="DIR", help="default: the usual places")] = None,
    image_size: Annotated[int | None, typer.Option("--image_size", metavar="N", help="centre crop, pixels")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, metavar="N", help="the first N rows on one sheet")] = 1,
) -> None:
    def run() -> None:
        from skyset.explore.objects import object_figure
        from skyset.loading.in_place import published_in

        if data_dir is not None:
            registry.loader(survey)  # an unknown name is worth more than a folder that is not there
            if found := published_in(survey, data_dir):
                root, declared, manifest = found
                save_figure(object_figure(declared, root, object_id, image_size, manifest, limit), output)
                return
        if data_dir is None and (found := published_at(survey) or parquet_at(survey)):
            root, declared, manifest = found
            save_figure(object_figure(declared, root, object_id, image_size, manifest, limit), output)
            return
        root = partitions_of(survey) if data_dir is None else registry.find_root(survey, data_dir) or data_dir
        manifest = manifest_of(root)
        declared = registry.survey(survey if data_dir is not None else manifest.survey, manifest.config)
        save_figure(object_figure(declared, root, object_id, image_size, limit=limit), output)

    end(run)


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
            help="a folder or URL of partitions, HATS, pushed Parquet or published files; or a survey whose folder is found",
            autocompletion=survey_names,
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
    scheduler: Scheduler = None,
) -> None:
    def run() -> int:
        from skyset.explore.report import command

        if (where is None) == (compare is None):
            raise UserError("of what? skyset report DIR, or skyset report --compare A B")
        builds = [build_of(each) for each in compare or [where or ""]]
        path = command.page_path(output)
        command.check_output(path, [build.root for build in builds], overwrite)
        most, count = rows or command.ROWS, command.PICTURES if images is None else images
        if compare is None:
            problems = command.write(builds[0], path, most, count, seed, scheduler)
        else:
            from skyset.explore.report.compare_page import write_comparison

            problems = write_comparison(builds[0], builds[1], path, most, seed, scheduler)
        print(f"wrote {path}")
        for line in problems[:20]:
            say(line, file=sys.stderr)
        if problems:
            told = counted(len(problems), "problem")
            say(f"{told}, named in the page; `skyset verify` looks at every byte", file=sys.stderr)
        return 1 if problems else 0

    end(run)


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

    end(run)


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

    end(run)
