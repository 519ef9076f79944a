"""Two surveys with images, matched by position and streamed: rows a second, bytes read, memory; us and LSDB.

    python benchmarks/match.py                 # 2,000 x 4,000 objects, 200 of them common; 3 rounds, some minutes
    python benchmarks/match.py --scale 0.3     # of so many
    python benchmarks/match.py --agreement     # 1,000,000 x 1,000,000 positions against astropy (needs scipy)
    python benchmarks/match.py --plan 100_000_000    # how long, and in how much memory, so many rows are planned

The peer is the way of MultimodalUniverse's users: HATS catalogues with images and margins, LSDB's cross-match of them, and
its stream of partitions as rows. All hold the same rows; LSDB's images are flat lists, which it reads fastest. Each way runs
in a process of its own, in turn in one run; of two passes the second is timed: planning, matching, all rows, no imports.
Bytes are those that system calls read (rchar), from loopback HTTP those that the server sent; the ideal is the pixels of
matched rows. Without lsdb the peer is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RADIUS = 1.0
LEFT, RIGHT, COMMON = 2_000, 4_000, 200
#: RGB pictures, and images in five bands.
SHAPES = {"left": ((96, 96, 3), np.uint8), "right": ((5, 64, 64), np.float32)}
#: Of HATS partitions; ours are HEALPix cells of order 4.
PARTITION_ROWS = 500


def positions(scale: float) -> dict[str, np.ndarray]:
    """ra and dec, (2, n), of a patch of 40 x 30 degrees; the first ``COMMON`` times ``scale`` are common to both sides."""
    rng = np.random.default_rng(0)
    low, high = np.sin(np.radians([0, 30]))
    sky = {
        side: np.stack([rng.uniform(100, 140, count), np.degrees(np.arcsin(rng.uniform(low, high, count)))])
        for side, count in (("left", round(LEFT * scale)), ("right", round(RIGHT * scale)))
    }
    common = round(COMMON * scale)
    sky["right"][:, :common] = sky["left"][:, :common] + rng.normal(0, 0.1 / 3600, (2, common))
    return sky


def make(folder: Path, scale: float) -> None:
    """The same rows as our partitions and, where lsdb is installed, as HATS catalogues."""
    for side, place in positions(scale).items():
        shape, dtype = SHAPES[side]
        rng = np.random.default_rng(len(side))
        pixels = rng.integers(0, 255, (place.shape[1], *shape), np.uint8).astype(dtype)
        make_ours(folder / side, side, place, pixels)
        if importlib.util.find_spec("lsdb"):
            make_hats(folder / f"{side}_hats", place, pixels)


def make_ours(root: Path, side: str, place: np.ndarray, pixels: np.ndarray) -> None:
    from skyset.partitions.layout import partition_path
    from skyset.partitions.manifest import Manifest, describe_file
    from skyset.partitions.writer import PartitionWriter
    from skyset.sky import healpix_cell
    from skyset.survey import HEALPIX, Column, Survey, plain_features

    columns = (
        Column("object_id", "S16"),
        Column("ra", "float64", (), "deg"),
        Column("dec", "float64", (), "deg"),
        HEALPIX,
        Column("image", pixels.dtype.name, pixels.shape[1:]),
    )
    survey = Survey(side, side, "", "", "", "", columns, plain_features(columns, {}, ()))
    cells, entries = healpix_cell(*place), []
    for cell in np.unique(cells).tolist():
        rows, path = np.flatnonzero(cells == cell), partition_path(cell)
        with PartitionWriter(root / path, columns, len(rows), {"survey": side, "healpix": cell}) as writer:
            for row in rows.tolist():
                values = {
                    "object_id": str(row),
                    "ra": place[0, row],
                    "dec": place[1, row],
                    "healpix": cell,
                    "image": pixels[row],
                }
                writer.append({column.name: column.coerce(values[column.name]) for column in columns})
        entries.append(describe_file(root, path, survey, "train"))
    Manifest(side, list(columns), "object_id", entries).save(root)


def make_hats(root: Path, place: np.ndarray, pixels: np.ndarray) -> None:
    import dask
    import lsdb
    import pandas as pd
    import pyarrow as pa

    flat = pa.ListArray.from_arrays(
        np.arange(len(pixels) + 1, dtype=np.int32) * pixels[0].size, pa.array(pixels.reshape(-1))
    )
    table = pd.DataFrame({"object_id": np.arange(len(pixels)), "ra": place[0], "dec": place[1]})
    table["image"] = pd.Series(flat, dtype=pd.ArrowDtype(flat.type))
    with dask.config.set(scheduler="synchronous"):
        lsdb.from_dataframe(table, partition_rows=PARTITION_ROWS, margin_threshold=5.0).write_catalog(root)


# --- The ways -----------------------------------------------------------------------------------


def ours(folder: Path, change=lambda stream: stream):
    import skyset
    from skyset.loading import stream  # noqa: F401  (imports are not timed)

    def rows():
        yield from change(skyset.crossmatch(folder / "left", folder / "right", radius=RADIUS, how="nearest"))

    return rows, lambda row: (row["left.object_id"], row["right.object_id"], row["left.image"], row["right.image"])


def way_ours(folder: Path):
    return ours(folder)


def way_shuffled(folder: Path):
    return ours(folder, lambda stream: stream.shuffle(seed=1))


def way_http(folder: Path):
    import skyset
    from skyset.loading import stream  # noqa: F401

    address = (folder / "address").read_text()

    def rows():
        yield from skyset.crossmatch(f"{address}left", f"{address}right", radius=RADIUS, how="nearest")

    return rows, lambda row: (row["left.object_id"], row["right.object_id"], row["left.image"], row["right.image"])


def lsdb_match(folder: Path):
    import lsdb

    sides = [lsdb.open_catalog(folder / f"{side}_hats") for side in ("left", "right")]
    return sides[0].crossmatch(
        sides[1], radius_arcsec=RADIUS, n_neighbors=1, suffixes=("_left", "_right"), suffix_method="all_columns"
    )


def lsdb_row(row: dict) -> tuple:
    return row["object_id_left"], row["object_id_right"], np.asarray(row["image_left"]), np.asarray(row["image_right"])


def way_lsdb_stream(folder: Path):
    import lsdb  # noqa: F401
    from lsdb.streams import CatalogStream

    def rows():
        for chunk in CatalogStream(catalog=lsdb_match(folder), partitions_per_chunk=2, shuffle=False):
            yield from chunk.to_dict("records")

    return rows, lsdb_row


def way_lsdb_batch(folder: Path):
    import lsdb  # noqa: F401

    return lambda: iter(lsdb_match(folder).compute().to_dict("records")), lsdb_row


WAYS = {
    "**skyset** rows": way_ours,
    "**skyset** rows, shuffled": way_shuffled,
    "**skyset** rows over HTTP": way_http,
    "LSDB, partitions streamed": way_lsdb_stream,
    "LSDB, whole result": way_lsdb_batch,
}


def work(way: str, folder: Path) -> None:
    """One measurement, appended to the folder's file of results."""
    rows, values = WAYS[way](folder)
    for _ in rows():  # imports, and what is kept from pass to pass
        pass
    before, start, first, pairs, checked = read_bytes(), time.perf_counter(), None, [], 0
    cpu = time.process_time()
    for row in rows():
        first = first or time.perf_counter() - start
        left, right, *images = values(row)
        checked += sum(int(image.reshape(-1)[:: image.size // 4][:4].sum()) for image in images)
        pairs.append((int(left), int(right)))
    result = {
        "way": way,
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "first": first,
        "pairs": len(pairs),
        "digest": [sum(a * 31 + b for a, b in pairs), checked],
        "bytes": read_bytes() - before,
    }
    with open(folder / "results.jsonl", "a") as file:
        file.write(json.dumps(result) + "\n")


def read_bytes() -> int:
    """That system calls of this process have read; 0 where the system does not say."""
    counts = Path("/proc/self/io")
    return int(counts.read_text().split()[1]) if counts.exists() else 0


def speed(folder: Path, rounds: int, scale: float) -> None:
    from benchmarks.measure import interleave, machine, ratios
    from skyset.testing.server import ArchiveServer

    make(folder, scale)
    names = [name for name in WAYS if "LSDB" not in name or importlib.util.find_spec("lsdb")]
    with ArchiveServer(folder) as server:
        (folder / "address").write_text(server.url)

        commands = {name: lambda name=name: [sys.executable, __file__, "--work", name, str(folder)] for name in names}
        results = interleave(commands, rounds)
        per_pass = server.body_bytes / (rounds + 1) / 2
    measured = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len({tuple(each["digest"]) for each in measured}) == 1, "the ways do not give the same rows"
    left, right, common = (round(count * scale) for count in (LEFT, RIGHT, COMMON))
    ideal = common * sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in SHAPES.values())
    print(f"\n{machine()}; {left:,} x {right:,} rows with images, {common} matched at {RADIUS:g} arcsec, {rounds} rounds")
    print(f"\nThe ideal: {ideal / 1e6:.1f} MB of pixels. Seconds are from planning to the last row.\n")
    print("| way | rows | rows/s | CPU s | rows/s of skyset's over it | first row, s | bytes to the ideal | peak MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        results[name].seconds = [each["seconds"] for each in measured if each["way"] == name][1:]
    for name in names:
        mine = [each for each in measured if each["way"] == name][1:]
        median = {key: float(np.median([each[key] for each in mine])) for key in ("seconds", "cpu", "first", "bytes")}
        read = per_pass if name.endswith("HTTP") else median["bytes"]
        print(
            f"| {name} | {mine[0]['pairs']} | {mine[0]['pairs'] / median['seconds']:.0f} | {median['cpu']:.2f} "
            f"| {ratios(results[names[0]], results[name])} | {median['first']:.2f} | {read / ideal:.2f} "
            f"| {results[name].peak_process / 1e6:.0f} |"
        )


# --- Positions alone ----------------------------------------------------------------------------


def adversarial(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (2, count) of two sides: anywhere, and around poles, RA = 0, borders of cells; the same; at the radius."""
    from astropy_healpix import HEALPix

    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    parts = np.array_split(rng.permutation(count), 10)
    dec[parts[0]] = 90 - np.abs(rng.normal(0, 0.1, len(parts[0])))
    dec[parts[1]] = -90 + np.abs(rng.normal(0, 0.1, len(parts[1])))
    ra[parts[2]] = rng.normal(0, 5 / 3600, len(parts[2])) % 360
    healpix = HEALPix(16, "nested")
    lon, lat = (x.deg.ravel() for x in healpix.boundaries_lonlat(rng.integers(0, healpix.npix, len(parts[3]) // 8 + 1), 2))
    ra[parts[3]], dec[parts[3]] = lon[: len(parts[3])], np.clip(lat[: len(parts[3])], -90, 90)
    others = ra.copy(), dec.copy()
    near = np.concatenate(parts[4:])
    others[1][near] = np.clip(dec[near] + rng.normal(0, 1.0 / 3600, len(near)), -90, 90)
    edge = parts[9]
    others[0][edge], others[1][edge] = ra[edge], np.clip(dec[edge] + RADIUS / 3600, -90, 90)
    border = parts[3]
    others[1][border] = np.clip(dec[border] + rng.choice([-1, 1], len(border)) * 0.3 / 3600, -90, 90)
    return np.stack([ra, dec]), np.stack(others)


def agreement(count: int) -> None:
    from astropy import units
    from astropy.coordinates import SkyCoord

    from benchmarks.measure import machine
    from skyset.explore.match_plan import pairs_within, places_of

    left, right = adversarial(count)
    start = time.process_time()
    pairs = pairs_within(places_of(*left), places_of(*right), RADIUS)
    ours = time.process_time() - start
    start = time.process_time()
    first, second = SkyCoord(*left, unit="deg"), SkyCoord(*right, unit="deg")
    theirs = second.search_around_sky(first, RADIUS * units.arcsec)
    astropy = time.process_time() - start
    keys = [np.sort(a.astype(np.int64) * count + b) for a, b in ((pairs.left, pairs.right), theirs[:2])]
    differing = np.setxor1d(*keys)
    a, b = (side[:, rows] for side, rows in ((left, differing // count), (right, differing % count)))
    from skyset.tables.match import separation_arcsec

    apart = np.abs(separation_arcsec(*a, *b) - RADIUS).max(initial=0)
    print(
        f"\n{machine()}\n\n{count:,} x {count:,} positions, adversarial ones among them, at {RADIUS:g} arcsec: "
        f"{len(pairs):,} pairs, astropy's {len(theirs[0]):,}; {len(differing):,} differ, all of them within {apart:.1e} "
        f"arcsec of the radius. CPU: {ours:.1f} s, astropy {astropy:.1f} s."
    )


def plan(rows: int) -> None:
    """All-sky surveys of so many rows, and of a hundredth of them, whose positions are drawn when they are asked for."""
    from benchmarks.measure import machine
    from skyset.explore.match_plan import Places, pairs_within

    files = 3072
    edges = np.degrees(np.arcsin(np.linspace(-1, 1, 49)))
    boxes = np.array([(i * 5.625, (i + 1) * 5.625, low, high) for low, high in pairwise(edges) for i in range(64)])

    def survey(count: int, seed: int) -> Places:
        def read(file: int):
            rng = np.random.default_rng((seed, file))
            west, east, south, north = boxes[file]
            return rng.uniform(west, east, count // files), rng.uniform(south, north, count // files)

        return Places([count // files] * files, boxes, read)

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    pairs = pairs_within(survey(rows // 100, 1), survey(rows, 2), RADIUS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"\n{machine()}\n\n{rows // 100:,} x {rows:,} rows in {files:,} files each planned: {len(pairs):,} pairs, "
        f"{time.process_time() - start:.0f} s of CPU, {peak / 1024:.0f} MB ({before / 1024:.0f} before)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, metavar="X")
    parser.add_argument("--agreement", type=int, nargs="?", const=1_000_000, metavar="N")
    parser.add_argument("--plan", type=int, metavar="N")
    parser.add_argument("--work", nargs=2, metavar=("WAY", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work[0], Path(arguments.work[1]))
    elif arguments.agreement:
        agreement(arguments.agreement)
    elif arguments.plan:
        plan(arguments.plan)
    else:
        with tempfile.TemporaryDirectory() as folder:
            speed(Path(folder), arguments.rounds, arguments.scale)


if __name__ == "__main__":
    main()
