"""The first pass: an exposure's frames, sources, LDAC file and cutouts, kept until the map is there; see `staged`."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from isal import igzip

from skyset.build_scripts.megacam_iqa.frames import SEEING, Ccd, ccds, exposure
from skyset.build_scripts.megacam_iqa.known import catalogue_of, extensions
from skyset.build_scripts.megacam_iqa.own import Own
from skyset.build_scripts.megacam_iqa.sources import ROW, CcdSources, How, measure_ccd
from skyset.build_scripts.megacam_iqa.staged import CATALOG, LDAC, STAGED, Staged, ldac_path, sources_path, stamps_path
from skyset.errors import RecordError
from skyset.extraction.image_headers import image_header
from skyset.extraction.images import Chosen
from skyset.extraction.ldac import write_ldac
from skyset.extraction.mosaic import Extension
from skyset.extraction.plan import Plan
from skyset.extraction.tables import as_table
from skyset.files import replacing, write_atomically
from skyset.runner import Pool, in_order


def stage(path: Path, root: Path, made_of: str, how: How, pool: Pool, ldac: Path | None = None) -> Staged:
    """Measure an exposure.

    Args:
        path: of its file.
        root: the build's folder.
        made_of: what tells its contents and the way in which it is measured.
        how: see `How`.
        pool: measures the CCDs.
        ldac: folder of catalogues that are taken where they are there.

    Raises:
        RecordError: the exposure cannot be used.
        UserError: it would replace a file that no build of this folder made.
    """
    for folder in (LDAC, STAGED, CATALOG):
        (root / folder).mkdir(exist_ok=True)
    said = exposure(path)
    catalogue, ldac_file = catalogue_of(ldac, said.fits_id), ldac_path(root, said.fits_id)
    Own(root).expect(stamps_path(root, said.fits_id), *([ldac_file] if catalogue is None else []))
    (root / CATALOG / f"{said.fits_id}.json").unlink(missing_ok=True)
    unpacked, ldac_bytes = _unpacked(path, root), None
    try:
        parts = ccds(unpacked)
        given = {} if catalogue is None else extensions(catalogue, parts)
        jobs = [
            (ccd, how, each.table, each.header) if (each := given.get(ccd.number)) else (ccd, how)
            for ccd in parts
            if catalogue is None or ccd.number in given
        ]
        if not jobs:
            raise RecordError(f"{catalogue}: of none of the exposure's CCDs")
        facts = _facts(said, parts)
        measured: list[np.ndarray] = []
        with replacing(stamps_path(root, said.fits_id)) as temporary, open(temporary, "wb") as stamps:
            results = _kept(_measured(jobs, pool), facts, measured, stamps)
            if catalogue is None:
                ldac_bytes = _write_ldac(ldac_file, path, results, how)
            for _ in results:
                pass
    finally:
        if unpacked != path:
            unpacked.unlink(missing_ok=True)
    if not any(ccd["usable"] for ccd in facts["ccds"]):
        raise RecordError(f"{path}: no CCD of it has any light")
    with replacing(sources_path(root, said.fits_id)) as temporary, open(temporary, "wb") as file:
        np.save(file, np.concatenate([np.zeros(0, ROW), *measured]))
    facts |= {"made_of": made_of, "ldac_bytes": ldac_bytes}
    write_atomically(root / CATALOG / f"{said.fits_id}.json", json.dumps(facts) + "\n")
    return Staged(root, facts)


def _facts(said, parts: list[Ccd]) -> dict[str, Any]:
    there = {ccd.number for ccd in parts}
    notes = list(said.notes)
    if missing := [number for number in said.expected if number not in there]:
        notes.append(f"{len(there)} of {len(said.expected)} CCDs: {', '.join(map(str, missing))} missing")
    return {
        "fits_id": said.fits_id,
        "exptime": said.exptime,
        "filter": said.filter,
        "mjd": said.mjd,
        "airmass": said.airmass,
        "seeing": {name: said.seeing[name] for name in SEEING},
        "notes": notes,
        "ccds": [],
        "pointing": [said.ra, said.dec],
    }


def _unpacked(path: Path, root: Path) -> Path:
    """The file, or a copy without gzip: each CCD is read by itself, which a stream cannot give."""
    if path.suffix != ".gz":
        return path
    plain = root / STAGED / path.stem
    Own(root).expect(plain)
    try:
        with igzip.open(path) as source, open(plain, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except (OSError, EOFError, ValueError) as error:
        plain.unlink(missing_ok=True)
        raise RecordError(f"{path}: cannot be unpacked: {error}") from None
    return plain


def _measured(jobs: list[tuple], pool: Pool) -> Iterator[CcdSources]:
    """What the CCDs gave, in their order; few wait in memory."""
    return (result for _, result in in_order(pool, _measure, jobs))


def _measure(job: tuple) -> CcdSources:
    return measure_ccd(*job)


def _kept(results: Iterator[CcdSources], facts: dict, measured: list, stamps) -> Iterator[CcdSources]:
    """The results, kept as they pass."""
    pointing = facts["pointing"]
    for each in results:
        ccd, rows = each.facts, each.rows
        if ccd["usable"] and not (math.isfinite(ccd["ra"]) and math.isfinite(ccd["dec"])):
            if not all(map(math.isfinite, pointing)):
                raise RecordError(f"ccd{ccd['ccd']:02d}: neither a WCS nor the telescope's position is in the headers")
            ccd["ra"], ccd["dec"] = pointing[0] % 360, pointing[1]
            ccd["notes"].append("no WCS: its position is the telescope's")
        for name in ("ra", "dec"):
            rows[name] = np.where(np.isfinite(rows[name]), rows[name], ccd.get(name, np.nan))
        ccd["notes"] += each.said
        facts["ccds"].append(ccd)
        measured.append(rows)
        stamps.write(each.stamps.tobytes())
        yield each


def _write_ldac(path: Path, image: Path, results: Iterator[CcdSources], how: How) -> int | None:
    """One FITS_LDAC file of the CCDs that can be used: its size, or None where there is none and so no file."""

    def tables() -> Iterator[tuple]:
        for number, each in enumerate(results, 1):
            if each.measured is None or each.settings is None:
                continue
            columns = tuple(name for name in how.columns if name in each.measured.columns)
            plan = Plan(image, Chosen(image, [], [], False, []), path, "ldac", columns, {})
            header = fits.Header([("SIMPLE", True), ("BITPIX", -32), *each.header.cards])  # PSFEx and SCAMP want these first
            extension = Extension(number, header, each.measured, each.settings)
            header = image_header(extension, how.configuration, plan, len(each.measured))
            yield header, as_table(each.measured.columns, columns, number)

    made = tables()
    first = next(made, None)
    if first is None:
        return None
    write_ldac(path, itertools.chain([first], made))
    return path.stat().st_size
