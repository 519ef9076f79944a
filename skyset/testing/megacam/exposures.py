"""Files of simulated exposures, their labels, and what is true of them: `make_exposures`."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from astropy.io import fits

from skyset.errors import UserError
from skyset.extraction.engines import need_compiled
from skyset.testing.megacam import headers, pixels
from skyset.testing.megacam.conditions import LABELS, Conditions, draw
from skyset.testing.megacam.layout import detectors

SMALL = (512, 256)
SUFFIXES = (".fits.fz", ".fits", ".fits.gz")
#: CCDs in a file -> those simulated, and whether the amplifiers stand apart.
COUNTS = {4: (4, False), 8: (4, True), 36: (36, False), 40: (40, False), 72: (36, True)}
_TRUTH = (
    "id",
    "labels",
    "severity",
    "exptime",
    "filter",
    "seeing",
    "guiding",
    "length",
    "angle",
    "share",
    "background",
    "amplitude",
)


def make_exposures(
    folder: str | Path,
    exposures: int,
    *,
    kind: str = "o",
    ccds: int = 36,
    shape: tuple[int, int] = SMALL,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    suffix: str = ".fits.fz",
    density: float | None = None,
    said: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write exposures, ``labels.json`` (the public form: ids without letter) and ``truth.csv`` (conditions) to a folder.

    Args:
        folder: made where it is not there.
        exposures: how many; the same seed gives the same first ones.
        kind: ``o`` raw, ``p`` processed by Elixir.
        ccds: 36 (headers of 2008), 40 (of 2016), 72 amplifiers; 4 around the middle or their 8
            amplifiers, for tests.
        shape: rows and columns of a CCD's sky; ``layout.FULL`` for the real size.
        seed: another seed, other exposures.
        classes: first label of each exposure, over and over; default: each of `LABELS` in turn.
        suffix: ``.fits.fz`` (tiles in Rice's code), ``.fits`` or ``.fits.gz``.
        density: stars and galaxies, times what a field far from the Milky Way has.
        said: called with a line for each file.

    Returns:
        the files' paths.

    Raises:
        UserError: an argument that is none of these, or a file is there already.
        MissingPackage: numba is not installed.
    """
    if kind not in ("o", "p") or ccds not in COUNTS or suffix not in SUFFIXES:
        raise UserError(
            f"kind is o or p, ccds one of {', '.join(map(str, COUNTS))}, the suffix one of {', '.join(SUFFIXES)}"
        )
    if COUNTS[ccds][1] and kind == "p":
        raise UserError("amplifiers stand apart in raw files alone: kind o")
    if exposures < 1 or min(shape) < 64 or shape[1] % 2:
        raise UserError("at least one exposure, and CCDs of at least 64 rows and 64 columns, an even number of them")
    need_compiled("simulating exposures")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths, truth, annotations, before = [], [], {}, Counter[str]()
    for k in range(exposures):
        turn = (classes or LABELS)[k % len(classes or LABELS)]
        observation = observe(k, kind, ccds, shape, seed, turn, before[turn])
        before[turn] += 1
        path = folder / f"{observation.name}{suffix}"
        hdus = [fits.PrimaryHDU(header=headers.primary(observation))]
        if path.exists():
            raise UserError(f"{path} is there already: choose another folder")
        hdus += _hdus(observation, seed, k, ccds, density, suffix.endswith(".fz"))
        fits.HDUList(hdus).writeto(path, output_verify="silentfix")
        conditions = observation.conditions
        paths.append(path)
        annotations[str(observation.number)] = ", ".join(conditions.labels)
        truth.append([observation.name, ", ".join(conditions.labels), *_row(conditions)])
        if said:
            said(f"{path.name}  {annotations[str(observation.number)]:14} seeing {conditions.seeing:.2f} arcsec")
    info = {"description": "simulated MegaCam exposures", "year": 2026, "version": "1.0", "contributor": "skyset", "url": ""}
    labels = {"info": info, "images": list(annotations), "categories": list(LABELS), "annotations": annotations}
    (folder / "labels.json").write_text(json.dumps(labels, indent=1) + "\n")
    with open(folder / "truth.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([_TRUTH, *truth])
    return paths


def _row(conditions: Conditions) -> Iterator[str | float]:
    for key in _TRUTH[2:]:
        value = getattr(conditions, key)
        yield round(value, 4) if isinstance(value, float) else value


def observe(
    k: int, kind: str, ccds: int, shape: tuple[int, int], seed: int, label: str, nth: int = 0
) -> headers.Observation:
    """The ``k``-th exposure of a seed, the ``nth`` of its class: pointing, time and conditions.

    Severities of a class go by the golden ratio from a random start: evenly distributed, however few there are.
    """
    rng = np.random.default_rng([seed, k])
    first = np.random.default_rng([seed, 77, LABELS.index(label)]).random() if label in LABELS else 0.0
    conditions = draw(rng, label, severity=float((first + nth * (math.sqrt(5) - 1) / 2) % 1))
    simulated, apart = COUNTS[ccds]
    year = 2008 if simulated == 36 else 2016
    start = datetime(year, 3, 1) + timedelta(days=int(rng.integers(0, 80)), seconds=round(rng.uniform(20000, 55000)))
    airmass = 1 + 0.6 * rng.random() ** 2
    dimm = max(0.25, conditions.seeing * rng.uniform(0.6, 0.95))
    site = dimm, dimm * rng.uniform(0.5, 0.9), 0.3 * float(rng.random()) ** 4
    return headers.Observation(
        number=1_000_000 + 1000 * (seed % 9000) + k,
        kind=kind,
        year=year,
        ra=float(rng.uniform(0, 360)),
        dec=float(math.degrees(math.asin(rng.uniform(-0.4, 0.9)))),
        start=start,
        airmass=float(airmass),
        ccds=simulated,
        extensions=2 * simulated if apart else simulated,
        shape=shape,
        site=site,
        conditions=conditions,
    )


def _hdus(
    observation: headers.Observation, seed: int, k: int, ccds: int, density: float | None, compressed: bool
) -> Iterator[fits.ImageHDU | fits.CompImageHDU]:
    simulated, apart = COUNTS[ccds]
    for detector in detectors(simulated, observation.shape):
        fixed = pixels.amplifiers(detector)
        reading = pixels.read(observation.conditions, detector, (seed, k), density)
        header = headers.ccd(observation, detector, fixed)
        if apart:
            half = detector.frame[1] // 2
            for letter in "ba" if detector.turned else "ab":
                part = reading.raw[:, :half] if letter == "a" else reading.raw[:, half:][:, ::-1]
                yield _hdu(part, headers.amplifier(observation, detector, fixed, letter), compressed)
        elif observation.kind == "o":
            yield _hdu(reading.raw, header, compressed)
        else:
            yield _stretched(reading.processed, header, compressed)


def _hdu(stored: np.ndarray, header: fits.Header, compressed: bool) -> fits.ImageHDU | fits.CompImageHDU:
    """16-bit numbers as they are to be stored, or unsigned ones."""
    stored = np.ascontiguousarray(stored)
    made = fits.CompImageHDU(stored, header, compression_type="RICE_1") if compressed else fits.ImageHDU(stored, header)
    return made


def _stretched(adu: np.ndarray, header: fits.Header, compressed: bool) -> fits.ImageHDU | fits.CompImageHDU:
    scale, zero = header["BSCALE"], header["BZERO"]
    stored = np.clip(np.rint((adu - zero) / scale), -32768, 32767).astype(np.int16)
    del header["BSCALE"], header["BZERO"]
    made = _hdu(stored, header, compressed)
    made.header["BZERO"], made.header["BSCALE"] = zero, scale
    return made
