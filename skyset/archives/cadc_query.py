"""What is asked of CADC's TAP service: which exposures of MegaPrime, as ADQL 2.0 over the tables of CAOM2.

CAOM2 has an Observation (``979412``) with a Plane for each product (``979412o`` as read out, ``979412p`` processed by
Elixir), and an Artifact for each file of it. Queries are sliced by the exposure's number, which every one has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from skyset.archives.tap import SlicedQuery
from skyset.errors import UserError

#: Exposures are counted from the telescope's first digital one on; in 2026 there are three million.
LAST = 10_000_000
SYNC_ROWS = 2000  # of an answer of /sync
BATCH = 200  # exposures asked for by name at a time
MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)
KINDS = {"o": 1, "p": 2}  # and their calibrationLevel
#: Where something may be out of the columns.
COLUMNS = (
    "o.observationID",
    "o.sequenceNumber",
    "p.productID",
    "p.publisherID",
    "p.dataRelease",
    "p.energy_bandpassName",
    "p.time_bounds_lower",
    "p.time_exposure",
    "a.uri",
    "a.contentLength",
    "a.contentChecksum",
)
TABLES = (
    "caom2.Observation AS o JOIN caom2.Plane AS p ON o.obsID = p.obsID JOIN caom2.Artifact AS a ON p.planeID = a.planeID"
)
OURS = ("o.collection = 'CFHT'", "o.instrument_name = 'MegaPrime'", "a.productType = 'science'")
SLICE = ("o.sequenceNumber >= {low}", "o.sequenceNumber < {high}")


@dataclass(frozen=True)
class ExposureQuery:
    """Which exposures are wanted: those of `ids`, of `adql`, or all that meet the other conditions.

    Attributes:
        ids: exposures, ``979412p`` or ``979412``; all else but `kind` says nothing about them.
        kind: ``p`` (processed by Elixir: detrended) or ``o`` (as read out), for those that do not say it themselves.
        programs: of observations, ``08AC14``.
        dates: the first and the last night, UTC dates, both included; ``2008-03-30``.
        filters: ``r`` (of any generation) or ``r.MP9601``.
        type: OBJECT, FLAT, BIAS, DARK.
        adql: a query of one's own of which the rows have a column productID, publisherID or observationID; it is asked
            whole, or with ``{low}`` and ``{high}`` for borders of o.sequenceNumber in slices.
        limit: exposures, the first ones; None: all.

    Raises:
        UserError: one of them cannot be what it should be.
    """

    ids: tuple[str, ...] = ()
    kind: str = "p"
    programs: tuple[str, ...] = ()
    dates: tuple[str, str] | None = None
    filters: tuple[str, ...] = ()
    type: str = "OBJECT"
    adql: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"exposures are of kind {' or '.join(KINDS)}, not {self.kind!r}")
        for word, words in (("exposure", self.ids), ("programme", self.programs), ("filter", self.filters)):
            for each in words:
                if not re.fullmatch(r"[0-9]{1,8}[a-z]?" if word == "exposure" else r"[\w.+-]{1,40}", each, re.ASCII):
                    like = {"exposure": "979412p or 979412", "programme": "08AC14", "filter": "r or r.MP9601"}[word]
                    raise UserError(f"{each!r} is no {word}: one looks like {like}")
        if not re.fullmatch("[A-Za-z-]{1,20}", self.type):
            raise UserError(f"{self.type!r} is no type of observation: one looks like OBJECT or FLAT")
        if self.ids and self.adql is not None:
            raise UserError("exposures are named, or found by a query: not both")
        self.conditions()

    def names(self) -> list[str]:
        """The product of each of `ids`, each once, in their order: ``979412p``."""
        return list(dict.fromkeys(each if each[-1].isalpha() else each + self.kind for each in self.ids))

    def conditions(self) -> list[str]:
        """What holds for all exposures that are wanted, where they are not named."""
        found = [f"o.type = {text(self.type.upper())}", f"p.calibrationLevel = {KINDS[self.kind]}"]
        found.append(f"p.productID LIKE '%{self.kind}'")
        found.append("(p.quality_flag IS NULL OR p.quality_flag <> 'junk')")
        if self.programs:
            written = dict.fromkeys(form for each in self.programs for form in (each, each.upper()))
            found.append(f"o.proposal_id IN ({', '.join(map(text, written))})")
        if self.dates:
            first, last = (modified_julian_date(date) for date in self.dates)
            if last < first:
                raise UserError(f"no night is from {self.dates[0]} to {self.dates[1]}")
            found.append(f"p.time_bounds_lower >= {first}.0 AND p.time_bounds_lower < {last + 1}.0")
        if self.filters:
            each = [name_of_filter(name) for name in self.filters]
            found.append(f"({' OR '.join(each)})")
        return found


def queries(wanted: ExposureQuery, url: str, sync: bool) -> Iterator[SlicedQuery]:
    """The queries that find all files of the exposures that are wanted, where these are named or meet conditions."""
    if wanted.ids:
        yield from by_name(wanted.names(), url, sync)
    else:
        yield sliced(url, select([*OURS, *wanted.conditions(), *SLICE], wanted.limit), sync)


def by_name(names: Sequence[str], url: str, sync: bool) -> Iterator[SlicedQuery]:
    """The queries for the files of products that are named, ``979412p``."""
    for start in range(0, len(names), BATCH):
        own = names[start : start + BATCH]
        numbers = dict.fromkeys(name.rstrip("abcdefghijklmnopqrstuvwxyz") for name in own)
        listed = [f"o.observationID IN ({', '.join(map(text, numbers))})", f"p.productID IN ({', '.join(map(text, own))})"]
        yield sliced(url, select([*OURS, *listed]), sync)


def sliced(url: str, adql: str, sync: bool) -> SlicedQuery:
    """A query, whole as long as the service gives that; /sync ends at 2,000 rows, whether or not it says so."""
    rows = SYNC_ROWS if sync else None
    return SlicedQuery(url, adql, 0, LAST, slices=1, maxrec=rows, unit="(o.sequenceNumber)")


def select(conditions: Sequence[str], limit: int | None = None) -> str:
    """The query for files of exposures that meet all conditions; of the first `limit` exposures, or of more."""
    top = f"TOP {4 * limit} " if limit is not None and 4 * limit < SYNC_ROWS else ""  # a product has up to two files
    where = "\n  AND ".join(conditions)
    return f"SELECT {top}{', '.join(COLUMNS)}\nFROM {TABLES}\nWHERE {where}\nORDER BY o.sequenceNumber, p.productID, a.uri"


def name_of_filter(name: str) -> str:
    """The condition for a filter: ``r`` is r.MP9601 and r.MP9602."""
    column = "p.energy_bandpassName"
    return f"{column} = {text(name)}" if "." in name else f"{column} LIKE {text(name + '.%')}"


def modified_julian_date(date: str) -> int:
    """Of the beginning of a day, from its ISO date."""
    try:
        day = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise UserError(f"{date!r} is no date: one looks like 2008-03-30") from None
    return (day - MJD_EPOCH) // timedelta(days=1)


def text(value: str) -> str:
    """A text of ADQL."""
    return "'" + value.replace("'", "''") + "'"
