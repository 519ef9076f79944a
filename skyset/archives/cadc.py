"""Exposures of MegaPrime, the camera of CFHT, from the Canadian Astronomy Data Centre (CADC).

    query = ExposureQuery(ids=("979412p", "1927963"), kind="p")
    with Fetcher() as fetcher:
        for file in find_exposures(query, folder / "catalog", fetcher=fetcher):
            path = fetch_exposure(file, folder / "raw", fetcher)  # RecordError: a line that says why there is none

Which files there are says the TAP service ``argus`` (CAOM2), with their sizes, MD5 sums and the dates on which they become
public; the bytes come from the data service (``raven``), which redirects to where they are stored, or from the addresses
that datalink gives. astroquery.cadc speaks to these services too; ours is used since it goes on where a killed run was,
passes the 2,000 rows at which /sync ends, compares MD5 sums, looks at datalink's error messages, and needs no further
package.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from skyset.archives.cadc_login import has_rights, log_in
from skyset.archives.cadc_query import ExposureQuery, queries, sliced
from skyset.archives.checksums import Checksum
from skyset.archives.datalink import Links, data_links
from skyset.archives.fetch import Fetcher, FetchError
from skyset.archives.tap import SlicedQuery, fetch_slices
from skyset.errors import RecordError, UserError
from skyset.messages import plain, say
from skyset.secrets import without_login
from skyset.tables.slices import iter_slices, slices_schema

HOST = "https://ws.cadc-ccda.hia-iha.nrc-cnrc.gc.ca"
ACCOUNTS = "https://ws-cadc.canfar.net"
NAME = re.compile(r"([0-9]{1,8}[a-z])\.fits(\.fz|\.gz)?")
#: Of several files of an exposure the first is taken: they have the same pixels, compressed without loss.
FORMS = (".fz", ".gz", None)
UNKNOWN = "CADC has no such exposure of MegaPrime, or does not show it before its release"
NEEDED = ("productid", "publisherid", "datarelease", "uri", "contentlength", "contentchecksum")
BATCH = 10_000  # rows looked at together
NAMED = 5  # exposures that a line about many names


class Services(NamedTuple):
    """Where CADC's services are."""

    tap: str
    datalink: str
    files: str
    accounts: str

    @classmethod
    def at(cls, url: str) -> Services:
        """Below a host, but for CADC's accounts; a login in its address is kept in memory (``skyset.secrets``)."""
        base = without_login(url).rstrip("/")
        accounts = ACCOUNTS if base == HOST else base
        return cls(f"{base}/argus", f"{base}/caom2ops/datalink", f"{base}/raven/files/", f"{accounts}/ac/login")


@dataclass(frozen=True)
class ExposureFile:
    """A file of an exposure at CADC.

    Attributes:
        fits_id: the product, ``979412p``.
        publisher_id: ``ivo://cadc.nrc.ca/CFHT?979412/979412p``.
        uri: of the file, ``cadc:CFHT/979412p.fits.fz``.
        url: where its bytes are had.
        bytes: its size, None where CADC does not say.
        md5: hex digits, None where CADC does not say.
        data_release: from when on it is public; None: it is.
        problem: why it cannot be had, "" if nothing is known against it. Without it the others may be empty.
    """

    fits_id: str
    publisher_id: str = ""
    uri: str = ""
    url: str = ""
    bytes: int | None = None
    md5: str | None = None
    data_release: datetime | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """``979412p.fits.fz``."""
        return self.uri.rpartition("/")[2]

    @property
    def checksum(self) -> str | None:
        """As `Fetcher.fetch` takes it."""
        return f"md5:{self.md5}" if self.md5 else None

    def is_proprietary(self, now: datetime | None = None) -> bool:
        """Whether it is not public yet."""
        return self.data_release is not None and self.data_release > (now or datetime.now(UTC))


def find_exposures(
    query: ExposureQuery,
    folder: str | Path,
    archive_url: str = HOST,
    *,
    datalink: bool = False,
    sync: bool = False,
    fetcher: Fetcher | None = None,
    **options,
) -> list[ExposureFile]:
    """The files of the exposures that a query is about, one each, with what is known against them.

    Exposures that were named stand in their order, also those that CADC does not know; others by number. Answers are kept:
    the same question is asked once.

    Args:
        query: which.
        folder: where the answers of TAP are kept.
        archive_url: the host of all services.
        datalink: take the addresses that datalink gives, not those of the data service.
        sync: ask TAP at /sync, without jobs.
        fetcher: what speaks to datalink; default one of its own.
        options: of `fetch_slices`.

    Raises:
        TapError: TAP does not give the answer.
        UserError: datalink does not; or the account is not taken; or the rows of a query of one's own name no exposures.
    """
    services, folder = Services.at(archive_url), Path(folder)
    log_in(services.accounts, services[:3])

    if query.adql is not None:
        own = _own(_answer(sliced(services.tap, query.adql, sync), folder, sync=sync, **options))[: query.limit]
        if not own:
            return []
        query = replace(query, ids=tuple(own), adql=None)
    asked = list(queries(query, services.tap, sync))
    files = _chosen((row for each in asked for row in _answer(each, folder, NEEDED, sync=sync, **options)), services)
    names = (query.names() if query.ids else list(files))[: query.limit]
    found = [files.get(name) or ExposureFile(name, problem=UNKNOWN) for name in names]
    if any(file.problem for file in found):
        for each in asked:  # next time CADC may know it
            shutil.rmtree(folder / each.digest(), ignore_errors=True)
    found = [replace(file, problem=file.problem or _proprietary(file)) for file in found]
    _tell([file for file in found if file.is_proprietary() and file.problem], len(found))
    if not datalink:
        return found
    with contextlib.nullcontext(fetcher) if fetcher else Fetcher() as network:
        return _linked(found, services, network)


def fetch_exposure(file: ExposureFile, folder: str | Path, fetcher: Fetcher) -> Path:
    """Download a file, unless it is there already, and return its path, ``<folder>/979412p.fits.fz``.

    What is under the final name has CADC's MD5 sum; a download that was broken off goes on.

    Raises:
        RecordError: it cannot be had: proprietary, unknown, not what CADC says it is, or the service is down; one line.
        OSError: the disk is full, or the folder may not be written.
    """
    if file.problem:
        raise RecordError(file.problem)
    try:
        path = fetcher.fetch(file.url, Path(folder) / file.name, file.checksum, file.bytes)
    except FetchError as error:
        if error.reason[:3] not in ("401", "403"):
            raise RecordError(f"{error.url}: {error.reason}") from error
        told = f"CADC says it is public since {file.data_release:%Y-%m-%d}" if file.data_release else "no date is given"
        until = f"proprietary until {file.data_release:%Y-%m-%d}" if file.is_proprietary() else f"not given to us; {told}"
        raise RecordError(f"{file.url}: {error.reason}: {until}") from error
    if file.bytes is not None and path.stat().st_size != file.bytes:
        size = path.stat().st_size
        path.unlink()
        raise RecordError(f"{file.url}: {size:,} bytes, CADC says {file.bytes:,}")
    return path


def _proprietary(file: ExposureFile) -> str:
    """Why a file that is not public is not asked for: nobody here has a login for the service."""
    if not file.is_proprietary() or has_rights(file.url):
        return ""
    return f"proprietary until {file.data_release:%Y-%m-%d}; those who may have it log in (.netrc, or --archive_url)"


def _tell(files: Sequence[ExposureFile], total: int) -> None:
    """Say before anything is downloaded what will not be."""
    if not files:
        return
    each = [f"{file.fits_id} until {file.data_release:%Y-%m-%d}" for file in files[:NAMED]]
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    say(f"{len(files)} of {total} exposures are proprietary and are not asked for: {', '.join(each)}{more}", sys.stderr)


def _answer(query: SlicedQuery, folder: Path, needed: Collection[str] = (), **options) -> Iterator[dict]:
    """The rows of a query by lower-case names of columns, some of which it must have."""
    options = {"connections": 1, **options}
    with contextlib.closing(fetch_slices(query, folder, **options)) as slices:
        paths = list(slices)
    names = [name.lower() for name in slices_schema(paths).names]
    if lacking := set(needed) - set(names):
        shutil.rmtree(folder / query.digest())
        raise UserError(f"{query.url} was asked for columns that its answer has not: {', '.join(sorted(lacking))}")
    for table in iter_slices(paths):
        for batch in table.rename_columns(names).to_batches(BATCH):
            yield from batch.to_pylist()


def _own(rows: Iterable[dict]) -> list[str]:
    """The exposures that the rows of a query of one's own name, each once, in their order."""
    found: dict[str, None] = {}
    for row in rows:
        text = str(row.get("productid") or row.get("publisherid") or row.get("observationid") or row.get("uri") or "")
        name = re.sub(r"\.fits.*", "", re.split("[/?:]", text)[-1])
        if not re.fullmatch("[0-9]{1,8}[a-z]?", name):
            raise UserError(f"a row of the query names no exposure: {plain(dict(row), 200)}; productID would do")
        found[name] = None
    return list(found)


def _chosen(rows: Iterable[dict], services: Services) -> dict[str, ExposureFile]:
    """One file of each product, by the product's name."""
    of_product: dict[str, list[ExposureFile]] = {}
    for row in rows:
        file = _file(row, services)
        if file is not None:
            of_product.setdefault(file.fits_id, []).append(file)
    return {name: min(files, key=lambda file: _form(file.name)) for name, files in of_product.items()}


def _form(name: str) -> int:
    """How far down in `FORMS` a file is."""
    found = NAME.fullmatch(name)
    return FORMS.index(found[2] if found else None)


def _file(row: dict, services: Services) -> ExposureFile | None:
    """The file that a row of TAP is about; None if it is none of an exposure."""
    uri = str(row["uri"] or "")
    scheme, _, name = uri.rpartition("/")
    found = NAME.fullmatch(name)
    if found is None or found[1] != row["productid"] or scheme not in ("cadc:CFHT", "ad:CFHT"):
        return None
    return ExposureFile(
        found[1],
        str(row["publisherid"] or ""),
        uri,
        services.files + quote(f"cadc:CFHT/{name}", safe=":/"),
        _size(row["contentlength"]),
        _md5(row["contentchecksum"]),
        _date(row["datarelease"]),
    )


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _md5(value: object) -> str | None:
    """The digits of ``md5:<hex>``; None where there is no such sum."""
    with contextlib.suppress(ValueError):
        checksum = Checksum.parse(str(value or ""))
        return checksum.digest if checksum.algorithm == "md5" else None
    return None


def _date(value: object) -> datetime | None:
    """UTC, from ISO's form or a time of Arrow."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value.strip())
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _linked(files: Sequence[ExposureFile], services: Services, fetcher: Fetcher) -> list[ExposureFile]:
    """The files with the addresses that datalink gives; those that cannot be had are not asked for."""
    asked = [file.publisher_id for file in files if not file.problem]
    links = data_links(fetcher, services.datalink, asked)
    return [_with_link(file, links[file.publisher_id]) if file.publisher_id in links else file for file in files]


def _with_link(file: ExposureFile, links: Links) -> ExposureFile:
    named = {unquote(urlsplit(url).path).rpartition("/")[2].rpartition(":")[2]: url for url in links.urls}
    ours = [name for name in named if (found := NAME.fullmatch(name)) and found[1] == file.fits_id]
    if not ours:
        return replace(file, problem=links.problem or "datalink names no file of it")
    name = min(ours, key=_form)
    if name == file.name:
        return replace(file, url=named[name])
    return replace(file, uri=f"cadc:CFHT/{name}", url=named[name], bytes=None, md5=None)
