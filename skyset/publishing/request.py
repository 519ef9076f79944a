"""What ``skyset push`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from skyset.publishing.contents import Form


@dataclass(frozen=True)
class Request:
    """What ``skyset push`` is asked for.

    Args:
        survey: its name.
        folder: of its partitions, or a HATS catalogue.
        repository: ``ORG/NAME``.
        bucket: it is a storage bucket, not a repository.
        format: one of ``FORMATS``.
        revision: the branch.
        private, gated: of the repository; ``gated`` is empty, ``auto`` or ``manual``.
        raw: send the folder's raw files too.
        overwrite: replace files of the repository that no push put there.
        processes: that make Parquet files; 0: as many as are worth their start.
        work_dir: for the journal and the files that are about to be sent.
        form: of the Parquet files.
        scheduler: address of a Dask cluster that makes them, instead of processes here.
    """

    survey: str
    folder: Path
    repository: str
    format: str = "parquet"
    revision: str = "main"
    private: bool = False
    gated: str = ""
    raw: bool = False
    overwrite: bool = False
    processes: int = 0
    work_dir: Path | None = None
    form: Form = field(default_factory=Form)
    scheduler: str | None = None
    bucket: bool = False

    @property
    def place(self) -> str:
        """As the Hub's addresses, and ``hf://``, have it: ``datasets/ORG/NAME``."""
        return f"{'buckets' if self.bucket else 'datasets'}/{self.repository}"
