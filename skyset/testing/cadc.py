"""The Canadian Astronomy Data Centre to test with: TAP over CAOM2, datalink and the data service, with faults on demand.

::

    with CadcServer(folder) as server:  # of 979412p.fits.fz, 979413p.fits.fz, ...
        server.storage.fault("*/979412p.fits.fz", "cut", times=1)
        ...  # server.url takes the place of https://ws.cadc-ccda.hia-iha.nrc-cnrc.gc.ca

The data service redirects to another port, where the files are stored, by an address with a ticket in it. Faults of files
are those of `ArchiveServer` (``storage``), faults of queries those of `TapService` (``tap``). Of an exposure whose data are
not public, nobody but who logs in gets the file; where its metadata are not public either, TAP does not show it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

import pyarrow as pa

from skyset.testing.caom2 import PREFIX, StoredFile, caom2_tables, stored_files
from skyset.testing.server import Answer, ArchiveServer, Handler, status_of
from skyset.testing.tap import Form, Service, ServiceServer, TapService, votable

TAP, DATALINK, FILES, ACCOUNTS = "/argus", "/caom2ops/datalink", "/raven/files", "/ac/login"
SYNC_ROWS = 2000
#: The capabilities of argus: those of VOSI, and how one logs in.
STANDARDS = ("ivo://ivoa.net/std/VOSI#capabilities", "ivo://ivoa.net/std/VOSI#availability")
TABLES, TAP_STANDARD = "ivo://ivoa.net/std/VOSI#tables-1.1", "ivo://ivoa.net/std/TAP"
LOGINS = ("ivo://ivoa.net/sso#cookie", "ivo://ivoa.net/sso#tls-with-certificate")


class Argus(TapService):
    """TAP over CAOM2, ``/sync`` for 2,000 rows at most."""

    def capabilities(self, base: str) -> str:
        """As argus has them, in short."""
        of_vosi = "".join(
            f'<capability standardID="{name}"><interface xsi:type="vs:ParamHTTP" role="std">'
            f'<accessURL use="{"base" if name == TABLES else "full"}">{base}/{name.partition("#")[2].partition("-")[0]}'
            "</accessURL></interface></capability>"
            for name in (*STANDARDS, TABLES)
        )
        methods = "<securityMethod />" + "".join(f'<securityMethod standardID="{each}" />' for each in LOGINS)
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" '
            'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
            f'{of_vosi}<capability xmlns:tr="http://www.ivoa.net/xml/TAPRegExt/v1.0" standardID="{TAP_STANDARD}" '
            'xsi:type="tr:TableAccess"><interface xsi:type="vs:ParamHTTP" role="std" version="1.1">'
            f'<accessURL use="base">{base}</accessURL>{methods}</interface>'
            '<language><name>ADQL</name><version ivo-id="ivo://ivoa.net/std/ADQL#v2.0">2.0</version></language>'
            '<outputFormat ivo-id="ivo://ivoa.net/std/TAPRegExt#output-votable-td"><mime>application/x-votable+xml</mime>'
            "<alias>votable</alias></outputFormat><executionDuration><default>600</default><hard>600</hard>"
            '</executionDuration><outputLimit><default unit="byte">134217728</default></outputLimit></capability>'
            "</vosi:capabilities>\n"
        )


class CadcServer(ServiceServer):
    """All services on 127.0.0.1 while the ``with`` block runs.

    Args:
        folder: of the exposures, ``979412p.fits.fz``.
        files: what CAOM2 knows; default: what is in the folder, public, with true sizes and MD5 sums.
        login: user and password that proprietary files want, if anybody may have them.
        says_overflow: whether an answer of /sync that ends at its 2,000 rows says so.

    Attributes:
        url: of the host, without a slash at its end.
        tap, storage: the services to ask for faults.
        links: what datalink was asked: the identifiers of each request.
        errors: what datalink says of an identifier in place of its files.
        refused: a status in place of datalink's answer to requests with such an identifier.
    """

    def __init__(
        self,
        folder: str | Path,
        files: Iterable[StoredFile] | None = None,
        *,
        login: tuple[str, str] | None = None,
        says_overflow: bool = True,
        latency: float = 0.0,
        port: int = 0,
    ) -> None:
        self.files = list(stored_files(Path(folder)) if files is None else files)
        self.tap = Argus(caom2_tables(self.files), prefix=TAP, sync_limit=SYNC_ROWS, says_overflow=says_overflow)
        self.storage = Storage(folder, latency)
        services: dict[str, Service] = {
            TAP: self.tap,
            DATALINK: _Datalink(self),
            FILES: _Raven(self),
            ACCOUNTS: _Accounts(self),
        }
        super().__init__(services, latency, port)
        self.url = self.url.rstrip("/")
        self.account = login
        self.links: list[list[str]] = []
        self.errors: dict[str, str] = {}
        self.refused: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.storage.__enter__()
        return super().__enter__()

    def __exit__(self, *exc_info) -> None:
        super().__exit__(*exc_info)
        self.storage.__exit__(*exc_info)

    @property
    def token(self) -> str:
        """What a login is answered with."""
        return f"userID=somebody&signature={ticket(str(self.account))}"

    @property
    def cookie(self) -> str | None:
        """What opens proprietary files."""
        return f'CADC_SSO="{self.token}"' if self.account else None

    def downloads(self, name: str) -> int:
        """How often the data service was asked for a file."""
        return sum(request.path.endswith(f"/{name}") for request in list(self.requests))


class Storage(ArchiveServer):
    """Where files are stored: ``/minoc/files/preauth:<ticket>/cadc:CFHT/<name>``.

    Attributes:
        cookies: that each request had, None without one: nobody's login belongs here.
    """

    def __init__(self, folder: str | Path, latency: float) -> None:
        super().__init__(folder, latency)
        self._http.RequestHandlerClass = type("Handler", (_StorageHandler,), {"archive": self})
        self.cookies: list[str | None] = []

    def address(self, name: str) -> str:
        """Of a file, with the ticket that opens it."""
        return f"{self.url}minoc/files/preauth:{ticket(name)}/{PREFIX}{quote(name)}"


def ticket(name: str) -> str:
    """What lets its bearer have one file."""
    return hashlib.sha256(f"minoc {name}".encode()).hexdigest()[:32]


class _StorageHandler(Handler):
    def _answer(self, name, fault):
        self.archive.cookies.append(self.headers["Cookie"])
        found = re.fullmatch(rf"minoc/files/preauth:([0-9a-f]+)/{PREFIX}([^/]+)", name)
        if found is None:
            return status_of(404)
        return super()._answer(found[2], fault) if found[1] == ticket(found[2]) else status_of(403)


@dataclass(frozen=True)
class _Raven:
    """The data service: says where a file is, to those who may have it."""

    server: CadcServer

    def answer(self, method: str, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        name = unquote(path).removeprefix(f"{FILES}/{PREFIX}")
        file = next((file for file in self.server.files if file.name == name), None)
        if file is None or method not in ("GET", "HEAD"):
            return status_of(404)
        cookie = headers.get("Cookie")
        if file.is_proprietary() and (cookie is None or cookie != self.server.cookie):
            return status_of(403 if cookie else 401)
        return Answer(303, b"", {"Location": self.server.storage.address(name)})


@dataclass(frozen=True)
class _Accounts:
    """Answers a login with a token, which services take as a cookie."""

    server: CadcServer

    def answer(self, method: str, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        if method != "POST" or (form.get("username"), form.get("password")) != self.server.account:
            return status_of(401)
        return Answer(200, self.server.token.encode(), {"Content-Type": "text/plain"})


@dataclass(frozen=True)
class _Datalink:
    """Links of planes: rows for their files, for a package of them, and for previews unless only downloads are asked for."""

    server: CadcServer

    def answer(self, method: str, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        assert isinstance(form, Form)
        ids = form.every("ID")
        self.server.links.append(ids)
        status = next((self.server.refused[each] for each in ids if each in self.server.refused), None)
        if status is not None:
            return status_of(status)
        if not ids:
            return Answer(400, b"UsageFault: missing required parameter ID", {"Content-Type": "text/plain"})
        only = form.get("REQUEST") == "downloads-only"
        rows = [row for each in ids for row in self._rows(each, only)]
        names = ("ID", "access_url", "service_def", "error_message", "semantics", "content_type")
        fields = [pa.field(name, pa.string()) for name in names] + [pa.field("content_length", pa.int64())]
        return Answer(200, votable(fields, rows), {"Content-Type": "application/x-votable+xml;content=datalink"})

    def _rows(self, each: str, only: bool) -> list[tuple]:
        files = [file for file in self.server.files if file.publisher_id == each]
        if each in self.server.errors or not files:
            words = self.server.errors.get(each, f"NotFoundFault: {each}")
            return [(each, None, None, words, "#this", None, None)]
        base = f"{self.server.url}{FILES}/{PREFIX}"
        rows: list[tuple] = [(each, base + file.name, None, None, "#this", "application/fits", file.bytes) for file in files]
        package = f"{self.server.url}/caom2ops/pkg?ID={quote(each, safe='')}"
        rows.append((each, package, None, None, "#package", "application/x-tar", None))
        if not only:
            rows.append((each, None, "soda-1", None, "#cutout", None, None))
        return [*rows, (each, f"{base}{files[0].product}_preview_256.jpg", None, None, "#preview", "image/jpeg", 2048)]
