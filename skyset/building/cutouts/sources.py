"""Catalogue sources: a file on this machine, a TAP service."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skyset.archives.tap import SlicedQuery, fetch_slices
from skyset.building.cutouts.columns import Columns, Names
from skyset.building.options import Options
from skyset.errors import UserError
from skyset.tables.open import open_catalog

#: Narrow slices where a few rows are wanted, so that nobody waits for five degrees of sky.
FEW_ROWS, NARROW_SLICES, SLICES = 1000, 3600, 72
CONNECTIONS, RETRIES = 4, 5


@dataclass(frozen=True)
class FileCatalogue:
    """The rows of a file."""

    columns: Columns
    path: Path

    @property
    def addresses(self) -> list[str]:
        return [str(self.path)]

    queries = ()

    def batches(self, folder: Path, connections: int) -> Generator[pa.RecordBatch, None, None]:
        """See `declaration.CatalogueSource`."""
        for batch in open_catalog(self.path).batches():
            yield self.columns.standard(batch, str(self.path))


@dataclass(frozen=True)
class Query:
    """A sliced query of a TAP service, and what its columns are called.

    Args:
        sliced: the query.
        sync: ask ``/sync``, without jobs.
        names: gives the service's names of our columns, which it asks for in the folder given; None: the usual ones.
        needed: the columns that its rows must have, where they need not have all.
        check: called with each slice of rows; UserError where they cannot be what their columns are said to be.
    """

    sliced: SlicedQuery
    sync: bool = False
    names: Callable[[Path], Names] | None = None
    needed: tuple[str, ...] = ()
    check: Callable[[pa.Table], object] = field(default=lambda table: None)

    @property
    def url(self) -> str:
        return self.sliced.url

    @property
    def text(self) -> str:
        """The ADQL in one line."""
        return " ".join(self.sliced.adql.split())

    def slices(self, folder: Path, connections: int, **options) -> Generator[Path, None, None]:
        """The slices' files, in order; to be closed."""
        connections = min(CONNECTIONS, connections)
        return fetch_slices(self.sliced, folder, connections=connections, retries=RETRIES, sync=self.sync, **options)

    def rows(self, columns: Columns, path: Path, names: Names | None) -> pa.Table:
        """The rows of a slice's file."""
        table = columns.standard(pq.read_table(path), self.url, names, self.needed)
        self.check(table)
        return table


@dataclass(frozen=True)
class TapCatalogue:
    """The rows of one TAP service, in slices of right ascension."""

    columns: Columns
    query: Query

    @property
    def addresses(self) -> list[str]:
        return [self.query.url]

    @property
    def queries(self) -> list[str]:
        return [self.query.text]

    def batches(self, folder: Path, connections: int) -> Generator[pa.RecordBatch, None, None]:
        """See `declaration.CatalogueSource`."""
        names = self.query.names(folder) if self.query.names else None
        with contextlib.closing(self.query.slices(folder, connections)) as paths:
            for path in paths:
                yield from self.query.rows(self.columns, path, names).to_batches()


def asked_query(asked: argparse.Namespace, options: Options, url: str, adql: str, **more) -> Query:
    """A query, sliced as the options say (``options.add_tap_options``)."""
    few = options.limit is not None and options.limit <= FEW_ROWS
    slices = asked.slices or (NARROW_SLICES if few else SLICES)
    return Query(SlicedQuery(url, adql, slices=slices, maxrec=asked.maxrec), asked.sync, **more)


def read_adql(path: Path) -> str:
    """The query in a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}") from error
