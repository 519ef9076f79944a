"""How near to the truth are the shapes that GalaxiesML has, and what does SExtractor say of the same pixels?

    python benchmarks/morphology_truth.py                                # 2,000 simulated galaxies, 5 bands, 4 minutes
    python benchmarks/morphology_truth.py --galaxies 300 --no_sextractor

Galaxies of known truth with neighbours, HSC's seeing, depth and noise, rendered by GalSim (``skyset.testing.galaxiesml``) as
20 arcsec cutouts, measured by ``skyset.extraction.morphology``; the PSF is the right one. Bias is the median of measured
minus true, scatter 1.4826 x the median absolute deviation; radii and indices are divided by the true ones. Ellipticities
and indices are of the galaxies that are one Sersic profile, angles of those with an axis ratio below 0.8. A galaxy counts
where it was detected within 5 pixels of the middle.

FLUX_RADIUS is not corrected for the PSF, so it is compared twice: with the radius of the circle that holds half of the
galaxy's light (``r50``), and with that of the same circle in the picture without noise (``r50 seen``).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measure import machine  # noqa: E402
from skyset.runner import executor  # noqa: E402
from skyset.testing.galaxiesml.colours import BANDS  # noqa: E402
from skyset.testing.galaxiesml.published import BLOCK, observe_block  # noqa: E402
from skyset.testing.galaxiesml.shapes import half_light_radii  # noqa: E402
from skyset.testing.galaxiesml.sky import GalSimSky  # noqa: E402
from skyset.testing.hsc_sky import window  # noqa: E402

EDGES = (14, 18, 19, 20, 21, 22, 23, 25)
THEIRS = {"FLUX_RADIUS": "half_light_radius", "ELLIPTICITY": "ellipticity", "THETA_IMAGE": "pos_angle"}
LEAST = 12  # galaxies of a bin


def measure_block(galaxies: int, seed: int, numbers: np.ndarray, sextractor: bool) -> dict[str, np.ndarray]:
    """Of some galaxies what is measured, ``seen_{band}`` (half-light radii in the picture) and SExtractor's columns in i."""
    sky, alone = GalSimSky(galaxies, seed), GalSimSky(galaxies, seed, neighbours=False, noise=False)
    _, found = observe_block(numbers, galaxies, seed, sersic=True)
    more: dict[str, list[float]] = {}
    for number in numbers:
        truth = sky.truth[number]
        where = window(truth["ra"], truth["dec"], 10 / 3600, 10 / 3600)
        x, y = where.wcs.all_world2pix([[truth["ra"], truth["dec"]]], 0)[0]
        picture = alone.light(BANDS, where.wcs, where.shape)
        values = {f"{band}_seen": seen_radius(picture[k], x, y, truth["flux"][k]) for k, band in enumerate(BANDS)}
        if sextractor:
            values |= sextracted(sky.render("i", where.wcs, where.shape)[0])
        for name, value in values.items():
            more.setdefault(name, []).append(value)
    return found | {name: np.array(values) for name, values in more.items()}


def seen_radius(picture: np.ndarray, x: float, y: float, flux: float) -> float:
    """Of the circle with half of the light of a picture without noise, pixels."""
    import sep

    radii = np.linspace(0.5, 60, 240)
    at = np.full(len(radii), x), np.full(len(radii), y)
    inside, _, _ = sep.sum_circle(np.ascontiguousarray(picture, np.float64), *at, radii, subpix=0)
    return float(np.interp(0.5, inside / flux, radii))


def sextracted(image: np.ndarray) -> dict[str, float]:
    """SExtractor's values of the object nearest the middle, with the configuration of the paper as we read it."""
    from skyset.extraction.morphology import GALAXIESML
    from tests.extraction.sextractor import run

    with tempfile.TemporaryDirectory() as folder:
        settings = dataclasses.replace(GALAXIESML, saturation=1e9, seeing=0.6)  # it wants both
        table, _ = run(image, Path(folder), settings, ("X_IMAGE", "Y_IMAGE", *THEIRS))
    values = {f"theirs_{name}": np.nan for name in THEIRS.values()}
    if table is not None and len(table):
        middle = np.array(image.shape[::-1]) / 2 + 0.5
        nearest = np.hypot(table["X_IMAGE"] - middle[0], table["Y_IMAGE"] - middle[1]).argmin()
        values = {f"theirs_{name}": float(np.ravel(table[theirs][nearest])[0]) for theirs, name in THEIRS.items()}
    return values


def measure(galaxies: int, seed: int, processes: int, sextractor: bool) -> dict[str, np.ndarray]:
    """`measure_block` of all galaxies, in order."""
    blocks = np.split(np.arange(galaxies), np.arange(BLOCK, galaxies, BLOCK))
    with executor(processes) as pool:
        running = [pool.submit(measure_block, galaxies, seed, numbers, sextractor) for numbers in blocks]
        parts = [future.result() for future in running]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# --- Differences ----------------------------------------------------------------------------------


def differences(truth: np.ndarray, found: dict[str, np.ndarray], band: str, of: str = "") -> dict[str, np.ndarray]:
    """Measured minus true by column title, NaN where there is none; ``of`` is a prefix of what was measured."""
    here = found[f"{band}_central_image_pop_5px_rad"] >= 1
    single = ~np.isnan(truth["n"])
    r50 = half_light_radii(truth)[:, BANDS.index(band)]
    axes = truth["q"] < 0.8

    def get(name: str) -> np.ndarray:
        return np.where(here, found[of + name if of else f"{band}_{name}"], np.nan)

    def turned(name: str) -> np.ndarray:
        return np.where(axes, (get(name) - truth["pa"] + 90) % 180 - 90, np.nan)

    titles = {
        "r50": get("half_light_radius") / r50 - 1,
        "r50 seen": get("half_light_radius") / found[f"{band}_seen"] - 1,
        "ellipticity": np.where(single, get("ellipticity") - (1 - truth["q"]), np.nan),
        "angle, deg": turned("pos_angle"),
    }
    if of:
        return titles
    return titles | {
        "Sersic n": get("sersic_index") / truth["n"] - 1,
        "Sersic r_e": np.where(single, get("sersic_r_e") / truth["r_e"] - 1, np.nan),
        "Sersic q": np.where(single, get("sersic_q") - truth["q"], np.nan),
        "Sersic angle, deg": turned("sersic_pa"),
    }


def bias_and_scatter(values: np.ndarray) -> str:
    """``+0.012 ± 0.034``, or a dash where few have a value."""
    values = values[np.isfinite(values)]
    if len(values) < LEAST:
        return "-"
    bias = np.median(values)
    scatter = 1.4826 * np.median(np.abs(values - bias))
    digits = 1 if scatter > 1.5 else 3
    return f"{bias:+.{digits}f} ± {scatter:.{digits}f}"


def table(rows: dict[str, dict[str, np.ndarray]], label: str) -> str:
    """Markdown: a line for each of ``rows``, a column for each title."""
    titles = list(dict.fromkeys(title for row in rows.values() for title in row if title != "galaxies"))
    lines = [f"| {label} | galaxies | " + " | ".join(titles) + " |", "|---" * (len(titles) + 2) + "|"]
    for name, row in rows.items():
        cells = [bias_and_scatter(row[title]) if title in row else "-" for title in titles]
        lines.append(f"| {name} | {np.isfinite(row['r50']).sum()} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_magnitude(truth: np.ndarray, titles: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The rows of each bin of the true i magnitude."""
    magnitude = 27 - 2.5 * np.log10(truth["flux"][:, BANDS.index("i")])
    rows = {}
    for low, high in itertools.pairwise(EDGES):
        chosen = (magnitude >= low) & (magnitude < high)
        rows[f"{low} to {high}"] = {title: values[chosen] for title, values in titles.items()}
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galaxies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--no_sextractor", action="store_true")
    options = parser.parse_args(argv)
    from tests.extraction.sextractor import PROGRAM

    sextractor = bool(PROGRAM) and not options.no_sextractor
    truth = GalSimSky(options.galaxies, options.seed).truth[: options.galaxies]
    found = measure(options.galaxies, options.seed, options.processes, sextractor)
    print(f"{machine()}; {options.galaxies} galaxies, seed {options.seed}; bias ± scatter\n")
    for band in BANDS:
        titles = differences(truth, found, band)
        print(f"### {band}\n\n{table(by_magnitude(truth, titles), 'i magnitude')}\n")
    if sextractor:
        titles = differences(truth, found, "i", of="theirs_")
        print(f"### i, SExtractor\n\n{table(by_magnitude(truth, titles), 'i magnitude')}\n")
    else:
        print("SExtractor is left out.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
