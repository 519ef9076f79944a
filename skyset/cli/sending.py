"""Commands that hand data on: hats, push."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from skyset.cli.app import app, end
from skyset.cli.places import SurveyName, Where, named, not_found
from skyset.cli.running import Processes, Scheduler, processes_of
from skyset.errors import PartitionError, UserError
from skyset.loading import registry
from skyset.messages import say


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
    num_processes: Processes = None,
    scheduler: Scheduler = None,
) -> None:
    def run() -> None:
        from skyset.files import bytes_of
        from skyset.progress import progress_bar
        from skyset.publishing.hats import Asked, export

        asked = Asked(name, images, bytes_of(max_bytes), threshold, margin, compression)
        processes = processes_of(num_processes)
        root, progress = named(where), functools.partial(progress_bar, unit="file", desc="hats", leave=False)
        try:
            say(export(root, output, asked, config, overwrite, processes, scheduler, progress))
        except PartitionError as error:
            raise UserError(
                f"{error}; `skyset verify {root}` says more, what is written stays for the next attempt"
            ) from error

    end(run)


def _pushed_from(survey: str, data_dir: Path | None) -> tuple[str, Path]:
    """The survey and the folder of what is pushed; of an adopted tree, by its name or folder, the index."""
    from skyset.publishing.trees import index_for

    if data_dir is None and not registry.is_known(survey) and (index := index_for(survey)) is not None:
        return registry.ADOPTED, index
    if data_dir is not None and not registry.is_known(survey) and index_for(data_dir) is not None:
        raise UserError(f"{data_dir} is an adopted tree: `skyset push {data_dir} --repo ORG/NAME`, without --data_dir")
    registry.loader(survey)
    if survey == registry.ADOPTED and data_dir is not None:
        return survey, index_for(data_dir) or data_dir
    return survey, data_dir or Path(registry.find_root(survey) or not_found(survey))


@app.command(
    name="push",
    help="Put a survey's data into a repository or storage bucket of the Hugging Face Hub, whole or not at all: as Parquet "
    "that everybody reads with `datasets` alone, or the folder as it is. A second push sends what has changed.",
    epilog="Examples:\n\nskyset push gz3d --data_dir data/gz3d --repo ME/gz3d --dry_run\n\n"
    "skyset push gz3d --data_dir data/gz3d --repo ME/gz3d --private\n\n"
    "skyset push gz3d --data_dir data/gz3d --repo ME/gz3d --bucket\n\n"
    "skyset push mmu/sdss --repo ME/sdss      a folder that `skyset adopt` was shown, or its name: as Parquet\n\n"
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
    bucket: Annotated[
        bool, typer.Option("--bucket", help="ORG/NAME is a storage bucket: files that change often, no commits, no branches")
    ] = False,
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
            "--work_dir",
            metavar="DIR",
            help="for the journal and files on their way (default: in the user's cache); with --scheduler, a shared disk's",
        ),
    ] = None,
    scheduler: Scheduler = None,
) -> None:
    def run() -> None:
        from skyset.publishing.contents import Form
        from skyset.publishing.plan import planned, tell
        from skyset.publishing.push import push
        from skyset.publishing.request import Request

        name, folder = _pushed_from(survey, data_dir)
        form = Form(compression, not no_preview, every_column, shard_mb << 20)
        request = Request(
            name,
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
            scheduler,
            bucket,
        )
        plan = planned(request)
        if dry_run:
            tell(plan)
            return
        print(push(plan))

    end(run)
