"""A loopback Zenodo, and small records for it that look like those of Galaxy Zoo DECaLS and Galaxy Zoo 2.

::

    galaxies = draw_decals(40, seed=1)
    write_decals(folder, galaxies, archives=2)
    with ZenodoServer(folder, record=4573248) as server:
        server.fault("*part1.zip*", "cut", times=1)
        requests.get(server.api_url + "4573248").json()["files"]

The record is made of the folder's files as they are at each request; the faults are those of `ArchiveServer`.
"""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from skyset.loaders.gz_decals import ARCHIVES, DR5, DR12, TABLES
from skyset.testing.server import Answer, ArchiveServer, Handler

SIDE = 24


class ZenodoServer(ArchiveServer):
    """The files of a folder as a record of Zenodo's API.

    Attributes:
        api_url: address of the records, ending in ``/``.
        number: the record's; the one before it is that of all versions, which redirects there.
        md5: checksums that the record claims, by name, in place of the true ones.
    """

    def __init__(self, folder: str | Path, record: int, latency: float = 0.0) -> None:
        super().__init__(folder, latency)
        self._http.RequestHandlerClass = type("Handler", (_ZenodoHandler,), {"archive": self})
        self.number = record
        self.md5: dict[str, str] = {}
        self.api_url = f"{self.url}api/records/"

    def answer_record(self) -> bytes:
        files = [self._file(path) for path in sorted(self.folder.iterdir()) if path.is_file()]
        return json.dumps({"id": self.number, "conceptrecid": str(self.number - 1), "files": files}).encode()

    def _file(self, path: Path) -> dict:
        digest = self.md5.get(path.name) or hashlib.md5(path.read_bytes()).hexdigest()
        address = f"{self.api_url}{self.number}/files/{path.name}/content"
        return {"key": path.name, "size": path.stat().st_size, "checksum": f"md5:{digest}", "links": {"self": address}}

    def downloads(self, name: str) -> int:
        """How often a file was asked for so far."""
        return sum(request.path.endswith(f"/{name}/content") for request in self.requests)


class _ZenodoHandler(Handler):
    def _answer(self, name, fault):
        parts = name.removeprefix("api/records/").split("/")
        if parts == [str(self.archive.number - 1)]:
            return Answer(302, b"", {"Location": f"{self.archive.api_url}{self.archive.number}"})
        if parts == [str(self.archive.number)] and fault is None:
            return Answer(200, self.archive.answer_record(), {"Content-Type": "application/json"})
        if len(parts) == 4 and parts[1] == "files" and parts[3] == "content":
            return super()._answer(parts[2], fault)
        return super()._answer("no such record", fault)


# --- Galaxy Zoo DECaLS --------------------------------------------------------------------------------------


@dataclass
class Decals:
    """Galaxies with positions (degrees), tables of votes by the release's names, and PNG images by name."""

    names: list[str]
    ra: np.ndarray
    dec: np.ndarray
    tables: dict[str, dict[str, np.ndarray]]
    images: dict[str, bytes]


def iau_name(ra: float, dec: float) -> str:
    """``Jhhmmss.ss+ddmmss.s``, truncated."""
    centiseconds, deciarcseconds = int(ra / 15 * 360000), int(abs(dec) * 36000)
    seconds, arcseconds = divmod(centiseconds, 100), divmod(deciarcseconds, 10)
    hms = f"{seconds[0] // 3600:02d}{seconds[0] // 60 % 60:02d}{seconds[0] % 60:02d}.{seconds[1]:02d}"
    dms = f"{arcseconds[0] // 3600:02d}{arcseconds[0] // 60 % 60:02d}{arcseconds[0] % 60:02d}.{arcseconds[1]}"
    return f"J{hms}{'-' if dec < 0 else '+'}{dms}"


def picture(seed: int, side: int = SIDE, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A noisy blob, encoded."""
    dice = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - side / 2
    blob = 220 * np.exp(-(x**2 + y**2) / (2 + side * dice.random()))
    pixels = np.clip(blob[..., None] * dice.random(3) + dice.integers(0, 30, (side, side, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) << 8)
    elif mode != "RGB":
        image = image.convert(mode)
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


def draw_decals(count: int, seed: int = 0) -> Decals:
    """Galaxies in a few patches of the sky: half are in GZD-1 and GZD-2, nine of ten in GZD-5, all have automatic votes."""
    dice = np.random.default_rng(seed)
    ra = np.round(150.5 + 3 * dice.integers(0, 2, count) + dice.random(count), 6)
    dec = np.round(4 * dice.integers(-1, 1, count) + dice.random(count), 6)
    names = [iau_name(*position) for position in zip(ra.tolist(), dec.tolist(), strict=True)]
    base = {"iauname": np.array(names), "ra": ra, "dec": dec, "redshift": dice.random(count) / 5}
    base |= {"wrong_size_warning": dice.random(count) < 0.1}
    dr5, dr12 = np.arange(count) % 10 != 9, np.arange(count) % 2 == 0
    tables = {
        "dr5": {name: column[dr5] for name, column in (base | votes(DR5, count, dice)).items()},
        "dr12": {name: column[dr12] for name, column in (base | votes(DR12, count, dice)).items()},
        "auto": base | predictions(count, dice),
    }
    return Decals(names, ra, dec, tables, {name: picture(k) for k, name in enumerate(names)})


def votes(tree, count: int, dice) -> dict[str, np.ndarray]:
    """Counts, shares (NaN where nobody was asked) and debiased shares, half of them missing."""
    columns = {}
    for question in tree:
        counts = dice.integers(0, 9, (len(question.answers), count)) * (dice.random(count) < 0.8)
        total = counts.sum(axis=0)
        columns[f"{question.name}_total-votes"] = total
        for stem, own in zip(question.stems, counts, strict=True):
            with np.errstate(invalid="ignore"):
                columns[stem], columns[f"{stem}_fraction"] = own, own / total
            columns[f"{stem}_debiased"] = np.where(dice.random(count) < 0.5, np.nan, dice.random(count))
    return columns


def predictions(count: int, dice) -> dict[str, np.ndarray]:
    columns = {}
    for question in DR5:
        columns[f"{question.name}_proportion_volunteers_asked"] = dice.random(count)
        shares = dice.dirichlet(np.ones(len(question.answers)), count)
        for number, stem in enumerate(question.stems):
            columns[f"{stem}_fraction"] = shares[:, number]
            columns[f"{stem}_concentration"] = dice.random((count, 3))
    return columns


def arrow_table(columns: dict) -> pa.Table:
    return pa.table({name: pa.array(list(values) if values.ndim > 1 else values) for name, values in columns.items()})


def write_decals(folder: Path, galaxies: Decals, archives: int = 4) -> None:
    """The record's files: three Parquet tables, and images by right ascension in ZIP archives."""
    for name, table in zip(TABLES, ("dr5", "dr12", "auto"), strict=True):
        pq.write_table(arrow_table(galaxies.tables[table]), folder / name)
    names = sorted(galaxies.images)
    for part in range(archives):
        own = names[part * len(names) // archives : (part + 1) * len(names) // archives]
        write_zip(folder / ARCHIVES[part], {f"{name[:4]}/{name}.png": galaxies.images[name] for name in own})


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
