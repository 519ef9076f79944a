"""Datalink: the addresses of a data set's files, from its identifier; many identifiers in a request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pyarrow as pa

from skyset.archives.fetch import Fetcher, FetchError
from skyset.errors import UserError
from skyset.messages import plain
from skyset.secrets import without_login
from skyset.tables.votable import VOTableError, votable_to_arrow

BATCH = 20  # identifiers of a request
LARGEST = 16 << 20  # bytes of an answer
#: Files that hold the data set itself. Others are previews, or ``#package``: all of them in a TAR.
THIS = "#this"


@dataclass
class Links:
    """What the service says of an identifier: the addresses of its files, and why there are none."""

    urls: list[str] = field(default_factory=list)
    problem: str = ""


def data_links(fetcher: Fetcher, service: str, ids: Sequence[str], batch: int = BATCH) -> dict[str, Links]:
    """The files of data sets, by their identifiers.

    Every identifier has an entry: one that the service says nothing about, or only an error, has no addresses and a problem.

    Args:
        fetcher: asks.
        service: its address, ``https://ws.cadc-ccda.hia-iha.nrc-cnrc.gc.ca/caom2ops/datalink``.
        ids: publisher identifiers, ``ivo://cadc.nrc.ca/CFHT?979412/979412p``.
        batch: identifiers of a request.

    Raises:
        UserError: the service does not answer, or not with links.
    """
    ids = list(dict.fromkeys(ids))
    found = {each: Links() for each in ids}
    for start in range(0, len(ids), batch):
        _ask(fetcher, service, ids[start : start + batch], found)
    for links in found.values():
        if not links.urls and not links.problem:
            links.problem = "datalink names no file of it"
    return found


def _ask(fetcher: Fetcher, service: str, ids: list[str], found: dict[str, Links]) -> None:
    """Ask about some identifiers at once, or, where that is refused for the sake of one of them, one by one."""
    query = urlencode([("ID", each) for each in ids] + [("REQUEST", "downloads-only")])
    try:
        table = votable_to_arrow(fetcher.content(f"{service}?{query}", LARGEST))
    except VOTableError as error:
        raise UserError(f"{service} does not answer with links: {error}") from error
    except FetchError as error:
        if not re.match("4[0-9][0-9]", error.reason):
            raise UserError(f"{service} does not answer: {error.reason}") from error
        if len(ids) == 1:
            found[ids[0]].problem = f"datalink: {error.reason}"
            return
        for each in ids:
            _ask(fetcher, service, [each], found)
        return
    for row in _rows(table, service):
        if (links := found.get(row["id"])) is None:
            continue  # of nobody who was asked about
        if row["error_message"]:
            links.problem = links.problem or plain(f"datalink: {row['error_message']}", 300)
        elif row["semantics"] == THIS and re.match("https?://", row["access_url"]):
            links.urls.append(without_login(row["access_url"]))


def _rows(table: pa.Table, service: str) -> list[dict[str, str]]:
    """The rows' texts by lower-case names; those that services leave out are empty."""
    columns = {name.lower(): table[name].to_pylist() for name in table.column_names}
    if lacking := {"id", "access_url", "semantics"} - columns.keys():
        raise UserError(f"{service} does not answer with links: no column {', '.join(sorted(lacking))}")
    nothing = [None] * table.num_rows
    names = ("id", "access_url", "semantics", "error_message")
    rows = zip(*(columns.get(name, nothing) for name in names), strict=True)
    return [dict(zip(names, (str(value or "").strip() for value in row), strict=True)) for row in rows]
