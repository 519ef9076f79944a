"""What a push would put into a repository: ``skyset push --dry_run`` prints it, and nothing is asked of the Hub."""

from __future__ import annotations

from dataclasses import dataclass

from skyset.building.downloads import RAW
from skyset.errors import UserError
from skyset.files import human_bytes
from skyset.messages import say
from skyset.publishing.beside import Beside
from skyset.publishing.client import Hub
from skyset.publishing.contents import (
    FORMATS,
    Item,
    check_hats,
    datasets_of,
    folder_items,
    hdf5_items,
    is_hats,
    parquet_items,
)
from skyset.publishing.request import Request
from skyset.publishing.source import Source

#: Those of the card, beside it.
FIGURES = "figures"


@dataclass(frozen=True)
class Plan:
    """What goes into the repository: the datasets by config (none of a HATS catalogue), and the files of data."""

    request: Request
    datasets: dict[str, Source]
    items: list[Item]

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    @property
    def commits(self) -> int:
        """About as many, of a first push."""
        if self.request.bucket:
            return 1
        return -(-(len(self.items) + len(Beside.NAMES)) // Hub.most_files)


def planned(request: Request) -> Plan:
    """What would be pushed.

    Raises:
        UserError: there is nothing of this survey in the folder, or no such format.
    """
    folder = request.folder
    if request.bucket and (request.gated or request.revision != "main"):
        raise UserError("--bucket: a storage bucket has neither branches (--revision) nor access by request (--gated)")
    if request.format not in FORMATS:
        raise UserError(f"--format {request.format}: it is one of {', '.join(FORMATS)}")
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    if request.format == "hats":
        check_hats(folder)
        datasets, items = {}, folder_items(folder, leave=("README.md", *Beside.NAMES))
    else:
        if is_hats(folder):
            raise UserError(f"{folder} is a HATS catalogue: --format hats")
        datasets = datasets_of(request.survey, folder)
        if request.format == "hdf5" and any(source.manifest.is_adopted for source in datasets.values()):
            raise UserError(
                f"{folder} is the index of somebody's files, and of use on this machine alone: --format parquet makes "
                "files of their rows for everybody; `hf upload` sends the files as they are"
            )
        items = parquet_items(datasets, request.form) if request.format == "parquet" else hdf5_items(datasets, folder)
    if request.format != "hats" and (folder / FIGURES).is_dir():
        items += folder_items(folder / FIGURES, f"{FIGURES}/")
    if request.raw:
        if not (folder / RAW).is_dir():
            raise UserError(f"--raw: there is no folder {folder / RAW}")
        items += folder_items(folder / RAW, f"{RAW}/")
    if not items:
        raise UserError(f"{folder} holds nothing to push")
    return Plan(request, datasets, items)


def tell(plan: Plan) -> None:
    """Print the files, their sizes and the commits of a plan."""
    what = "before compression" if plan.request.format == "parquet" else "as they are"
    for item in plan.items:
        rows = f"{item.rows:>9,} rows" if item.rows else ""
        say(f"{item.path}  {human_bytes(item.bytes)}  {rows}".rstrip())
    beside = Beside(plan.datasets, plan.request.format).names
    for name in beside:
        say(name)
    way = (
        "one batch"
        if plan.request.bucket
        else "one commit"
        if plan.commits == 1
        else f"{plan.commits} commits to a pull request, merged at the end"
    )
    say(f"{len(plan.items) + len(beside)} files, {human_bytes(plan.bytes)} {what}, {way}: {plan.request.place}")
