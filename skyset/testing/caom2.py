"""Files of exposures as CAOM2 knows them: from a folder, from the documents of real observations, as TAP's tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
from astropy.io import fits

PREFIX = "cadc:CFHT/"
PUBLIC = "2009-08-31T00:00:00.000"
NAME = re.compile(r"(([0-9]{1,8})([a-z]))\.fits(\.fz|\.gz)?")
#: Keywords of primary headers.
IN_HEADERS = {
    "mjd": "MJD-OBS",
    "exptime": "EXPTIME",
    "filter": "FILTER",
    "type": "OBSTYPE",
    "program": "RUNID",
    "data_release": "REL_DATE",
}


@dataclass(frozen=True)
class StoredFile:
    """A file that CAOM2 knows, with what its observation and its plane say; times are ISO's, UTC."""

    name: str
    bytes: int | None
    md5: str | None
    data_release: str | None = PUBLIC
    meta_release: str | None = PUBLIC
    program: str = "08AC14"
    filter: str = "r.MP9601"
    mjd: float | None = 54555.2608722
    exptime: float | None = 468.0
    type: str = "OBJECT"
    instrument: str = "MegaPrime"
    quality: str | None = None
    product_type: str = "science"

    @property
    def product(self) -> str:
        return self.name.split(".")[0].split("_")[0]

    @property
    def number(self) -> str:
        return self.product.rstrip("abcdefghijklmnopqrstuvwxyz")

    @property
    def publisher_id(self) -> str:
        return f"ivo://cadc.nrc.ca/CFHT?{self.number}/{self.product}"

    def is_proprietary(self) -> bool:
        return is_future(self.data_release)


def is_future(time: str | None) -> bool:
    return time is not None and datetime.fromisoformat(time).replace(tzinfo=UTC) > datetime.now(UTC)


def stored_files(folder: Path) -> list[StoredFile]:
    """The exposures of a folder, with their real sizes and MD5 sums, and what their headers say."""
    return [stored_file(path) for path in sorted(folder.iterdir()) if NAME.fullmatch(path.name)]


def stored_file(path: Path) -> StoredFile:
    """See `stored_files`; a file that is no FITS has an ordinary header."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    found = StoredFile(path.name, path.stat().st_size, digest)
    try:
        header = fits.getheader(path, 0)
    except OSError:
        return found
    told: dict[str, Any] = {name: header[key] for name, key in IN_HEADERS.items() if key in header}
    return replace(found, **told)


def caom2_files(document: bytes) -> list[StoredFile]:
    """The files that a CAOM2 document of a real observation tells of."""
    root = ElementTree.fromstring(document)
    space = root.tag.partition("}")[0] + "}"

    def text(element: ElementTree.Element, path: str) -> str | None:
        found = element.find("/".join(space + each for each in path.split("/")))
        return None if found is None else found.text

    def of(plane: ElementTree.Element, artifact: ElementTree.Element) -> StoredFile:
        band = next((each.text for each in plane.iter(f"{space}bandpassName")), "")
        exposure = next((each.text for each in plane.iter(f"{space}exposure")), None)
        return StoredFile(
            (text(artifact, "uri") or "").removeprefix(PREFIX),
            int(text(artifact, "contentLength") or 0),
            (text(artifact, "contentChecksum") or "").removeprefix("md5:"),
            text(plane, "dataRelease"),
            text(plane, "metaRelease"),
            text(root, "proposal/id") or "",
            band or "",
            exptime=float(exposure) if exposure else None,
            type=text(root, "type") or "",
            instrument=text(root, "instrument/name") or "",
            product_type=text(artifact, "productType") or "",
        )

    return [of(plane, artifact) for plane in root.iter(f"{space}plane") for artifact in plane.iter(f"{space}artifact")]


def caom2_tables(files: Sequence[StoredFile]) -> dict[str, pa.Table]:
    """Observation, Plane and Artifact as TAP has them: without what is not public even as metadata."""
    shown = [file for file in files if not is_future(file.meta_release)]
    of_plane = {file.product: file for file in reversed(shown)}
    observations = [
        {
            "obsID": f"obs-{file.number}",
            "observationURI": f"caom:CFHT/{file.number}",
            "collection": "CFHT",
            "observationID": file.number,
            "sequenceNumber": int(file.number),
            "type": file.type,
            "intent": "science" if file.type == "OBJECT" else "calibration",
            "metaRelease": file.meta_release,
            "proposal_id": file.program,
            "instrument_name": file.instrument,
        }
        for file in {file.number: file for file in reversed(shown)}.values()
    ]
    planes = [
        {
            "planeID": f"plane-{file.product}",
            "obsID": f"obs-{file.number}",
            "publisherID": file.publisher_id,
            "productID": file.product,
            "calibrationLevel": 2 if file.product[-1] == "p" else 1,
            "metaRelease": file.meta_release,
            "dataRelease": file.data_release,
            "dataProductType": "image",
            "energy_bandpassName": file.filter,
            "time_bounds_lower": file.mjd,
            "time_exposure": file.exptime,
            "quality_flag": file.quality,
        }
        for file in of_plane.values()
    ]
    previews = [
        replace(file, name=f"{file.product}_preview_256.jpg", bytes=2048, md5=None, product_type="thumbnail")
        for file in of_plane.values()
    ]
    artifacts = [
        {
            "artifactID": f"artifact-{file.name}",
            "planeID": f"plane-{file.product}",
            "uri": PREFIX + file.name,
            "productType": file.product_type,
            "releaseType": "data",
            "contentType": "image/jpeg" if file.name.endswith(".jpg") else "application/fits",
            "contentLength": file.bytes,
            "contentChecksum": None if file.md5 is None else f"md5:{file.md5}",
        }
        for file in [*shown, *previews]
    ]
    tables = {"Observation": (observations, OBSERVATION), "Plane": (planes, PLANE), "Artifact": (artifacts, ARTIFACT)}
    return {f"caom2.{name}": pa.Table.from_pylist(rows, schema) for name, (rows, schema) in tables.items()}


def _schema(texts: str, whole: str = "", real: str = "") -> pa.Schema:
    kinds = ((texts, pa.string()), (whole, pa.int64()), (real, pa.float64()))
    return pa.schema([pa.field(name, kind) for names, kind in kinds for name in names.split()])


OBSERVATION = _schema(
    "obsID observationURI collection observationID type intent metaRelease proposal_id instrument_name", "sequenceNumber"
)
PLANE = _schema(
    "planeID obsID publisherID productID metaRelease dataRelease dataProductType energy_bandpassName quality_flag",
    "calibrationLevel",
    "time_bounds_lower time_exposure",
)
ARTIFACT = _schema("artifactID planeID uri productType releaseType contentType contentChecksum", "contentLength")
