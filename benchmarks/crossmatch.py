"""How fast are two catalogues matched by position, and how much memory does it take?

    python benchmarks/crossmatch.py                # 340,000 x 240,000 objects at 1 arcsec, 7 rounds, 2 minutes
    python benchmarks/crossmatch.py --rounds 1

The floor: sorting the declinations of both. The peers: astropy's two matches, which need scipy (not one of skyset's
requirements: they are left out where it is not installed). Each way runs in a process of its own, in turn in one run, and
times its matching alone, without start-up and reading; the memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RADIUS_ARCSEC = 1.0
SCATTER_ARCSEC = 0.3
#: Share of the right catalogue's objects that are in the left one too.
COMMON = 0.6


def make_catalogues(folder: Path, left: int, right: int) -> Path:
    """Two surveys of one third of the sky, as arrays (2, n) of ra and dec in degrees."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    low, high = np.sin(np.radians([-5, 60]))

    def sky(count: int) -> np.ndarray:
        return np.stack([rng.uniform(100, 300, count), np.degrees(np.arcsin(rng.uniform(low, high, count)))])

    first, second = sky(left), sky(right)
    again = rng.choice(min(left, right), int(COMMON * min(left, right)), replace=False)
    shift = rng.normal(0, SCATTER_ARCSEC / 3600, (2, len(again)))
    second[:, again] = first[:, again] + shift / np.stack([np.cos(np.radians(first[1, again])), np.ones(len(again))])
    np.save(folder / "left.npy", first)
    np.save(folder / "right.npy", second)
    return folder


def way_floor(left: np.ndarray, right: np.ndarray):
    return lambda: len(np.sort(left[1])) + len(np.sort(right[1]))


def way_loaded(left: np.ndarray, right: np.ndarray):
    """Nothing is matched: the memory of a process that has imported skyset and read the positions."""
    import skyset.explore.catalogue  # noqa: F401

    return lambda: 0


def way_skyset(left: np.ndarray, right: np.ndarray):
    from skyset.tables.match import match_positions

    return lambda: len(match_positions(*left, *right, RADIUS_ARCSEC))


def way_skyset_nearest(left: np.ndarray, right: np.ndarray):
    from skyset.tables.match import match_positions, nearest

    return lambda: len(nearest(match_positions(*left, *right, RADIUS_ARCSEC)))


def way_search_around_sky(left: np.ndarray, right: np.ndarray):
    from astropy import units
    from astropy.coordinates import SkyCoord

    first, second = SkyCoord(*left, unit="deg"), SkyCoord(*right, unit="deg")
    return lambda: len(second.search_around_sky(first, RADIUS_ARCSEC * units.arcsec)[0])


def way_match_to_catalog_sky(left: np.ndarray, right: np.ndarray):
    from astropy.coordinates import SkyCoord

    first, second = SkyCoord(*left, unit="deg"), SkyCoord(*right, unit="deg")
    return lambda: int(np.count_nonzero(first.match_to_catalog_sky(second)[1].arcsec <= RADIUS_ARCSEC))


#: What each way's process runs, by its name in the table; the last two need scipy.
WAYS = {
    "floor: sort both": way_floor,
    "**skyset, all pairs**": way_skyset,
    "**skyset, nearest**": way_skyset_nearest,
    "astropy search_around_sky, all pairs": way_search_around_sky,
    "astropy match_to_catalog_sky, nearest": way_match_to_catalog_sky,
}


def work(way: str, folder: Path) -> None:
    """One measurement, appended to the folder's file of results."""
    prepare = way_loaded if way == "loaded" else WAYS[way]
    match = prepare(*(np.load(folder / f"{side}.npy") for side in ("left", "right")))
    start = time.perf_counter()
    pairs = match()
    seconds = time.perf_counter() - start
    with open(folder / "results.jsonl", "a") as file:
        file.write(json.dumps({"way": way, "seconds": seconds, "pairs": pairs}) + "\n")


def speed(folder: Path, arguments: argparse.Namespace) -> None:
    from benchmarks.measure import interleave, machine, ratios

    make_catalogues(folder, *arguments.rows)
    names = list(WAYS) if importlib.util.find_spec("scipy") else list(WAYS)[:3]
    results = interleave({name: lambda name=name: _command(name, folder) for name in names}, arguments.rounds)
    measured = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    left, right = arguments.rows
    print(f"\n{machine()}; {left:,} x {right:,} objects at {RADIUS_ARCSEC:g} arcsec, {arguments.rounds} rounds")
    print("" if len(names) == len(WAYS) else "scipy is not installed: astropy's matches were left out\n")
    print("| way | pairs | seconds | time to skyset's | peak MB |\n|---|---|---|---|---|")
    for name in names:  # the first, which warmed up, is not counted
        results[name].seconds = [each["seconds"] for each in measured if each["way"] == name][1:]
    ours = results["**skyset, all pairs**"]
    for name in names:
        pairs, series = {each["pairs"] for each in measured if each["way"] == name}, results[name]
        count = "" if name.startswith("floor") else f"{pairs.pop():,}"
        # ratios() compares speeds: the time of this way to ours is our speed to its.
        print(f"| {name} | {count} | {series.median:.3f} | {ratios(ours, series)} | {series.peak_process / 1e6:.0f} |")


def memory(folder: Path, arguments: argparse.Namespace) -> None:
    from benchmarks.measure import Series, run

    print("\n| objects | pairs | seconds | peak MB | of them before the match |\n|---|---|---|---|---|")
    for left, right in (tuple(arguments.rows), (1_000_000, 2_000_000)):
        place = make_catalogues(folder / f"{left}", left, right)
        before, series = Series(), Series()
        run(_command("loaded", place), before)
        run(_command("**skyset, all pairs**", place), series)
        last = json.loads((place / "results.jsonl").read_text().splitlines()[-1])
        print(
            f"| {left:,} x {right:,} | {last['pairs']:,} | {last['seconds']:.2f} | {series.peak_process / 1e6:.0f} "
            f"| {before.peak_process / 1e6:.0f} |"
        )


def _command(way: str, folder: Path) -> list[str]:
    return [sys.executable, __file__, "--work", way, str(folder)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs=2, type=int, default=(340_000, 240_000), metavar=("LEFT", "RIGHT"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", nargs=2, metavar=("WAY", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work[0], Path(arguments.work[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        speed(Path(folder) / "speed", arguments)
        memory(Path(folder), arguments)


if __name__ == "__main__":
    main()
