"""A catalogue source: a query of the HSC archive's database, answered by a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from skyset.archives.hsc_jobs import Query, fetch_result
from skyset.building.cutouts.columns import Columns
from skyset.tables.open import open_catalog


@dataclass(frozen=True)
class JobCatalogue:
    """The rows of a query's result, which stays in the catalogue's folder.

    Args:
        columns: what they bring.
        url: of the archive.
        sql: without comments.
        release_version: what the service calls the release.
        keep_job: leave the job at the archive.
        sleep: is called with the seconds to wait for the job.
    """

    columns: Columns
    url: str
    sql: str
    release_version: str = "pdr2"
    keep_job: bool = False
    sleep: Callable[[float], object] = time.sleep

    @property
    def query(self) -> Query:
        return Query(self.url, self.sql, self.release_version)

    @property
    def addresses(self) -> list[str]:
        return [self.query.address]

    @property
    def queries(self) -> list[str]:
        return [" ".join(self.sql.split())]

    def batches(self, folder: Path, connections: int) -> Generator[pa.RecordBatch, None, None]:
        """See `declaration.CatalogueSource`."""
        path = fetch_result(self.query, folder, keep_job=self.keep_job, sleep=self.sleep)
        for batch in open_catalog(path).batches():
            yield self.columns.standard(batch, f"{self.query.address} ({path.name})")
