"""Options that say where a command's work is done."""

from __future__ import annotations

from typing import Annotated

import typer

from skyset.secrets import without_login

#: ``without_login`` as builds have it: an address in what is noted or told has none.
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        parser=without_login,
        help="of a Dask cluster that does the work instead of processes here, tcp://HOST:8786; its workers need skyset and "
        "the same files under the same names (`skyset cluster`)",
    ),
]
Processes = Annotated[
    int | None, typer.Option("--num_processes", min=1, metavar="N", help="files at once (default: one per core)")
]


def processes_of(asked: int | None) -> int:
    """How many processes: as many as were asked for, or one per core."""
    import os

    return asked or os.cpu_count() or 1
