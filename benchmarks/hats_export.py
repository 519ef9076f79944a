"""What does a HATS collection cost: `skyset hats`, hats-import, and a plain writer as the floor, on the same partitions.

    python benchmarks/hats_export.py                        # 4,000 rows in the shape of GalaxiesML, 3 rounds
    python benchmarks/hats_export.py --cells 8 --rounds 1

Each way runs in processes of its own, in turn in one run: catalogue, margin of 5 arcsec and metadata, by two processes.
hats-import is handed the partitions' rows as Arrow tables by skyset's reader, which is the fastest way in, and has no other
file to read. The floor reads all rows into memory, sorts them, writes the same cells with pyarrow's defaults, and makes no
margin, no map, no checksum. Seconds are of the wall; CPU is of all processes together, which a busy machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # and not this folder: its modules' names are not for everybody

ROWS = 100  # a cell
MARGIN, MAX_ROWS = 5.0, 400


def make(folder: Path, cells: int) -> None:
    """Partitions in the shape of GalaxiesML, of smooth galaxies with noise, in neighbouring cells."""
    from benchmarks.galaxiesml_like import SURVEY
    from skyset.partitions.layout import partition_path
    from skyset.partitions.manifest import Manifest, describe_file
    from skyset.partitions.writer import PartitionWriter

    entries, spot = [], np.exp(-np.hypot(*np.mgrid[-32:32, -32:32]) / 4)
    for cell in range(cells):
        rng = np.random.default_rng(cell)
        ra, dec = inside(cell, rng)
        with PartitionWriter(folder / partition_path(cell), SURVEY.columns, ROWS) as writer:
            for row in range(ROWS):
                image = rng.normal(0, 0.05, (5, 64, 64)) + spot * rng.uniform(1, 20, (5, 1, 1))
                values = {"object_id": f"{cell}-{row}", "ra": ra[row], "dec": dec[row], "healpix": cell, "image": image}
                numbers = {c.name: rng.normal() for c in SURVEY.columns if c.name not in values}
                writer.append(SURVEY.record(values | numbers))
        entries.append(describe_file(folder, partition_path(cell), SURVEY, "train"))
    Manifest(SURVEY.name, list(SURVEY.columns), SURVEY.key, entries).save(folder)


def inside(cell: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions in a cell of nside 16, degrees."""
    from astropy_healpix import HEALPix

    longitude, latitude = HEALPix(16, order="nested").healpix_to_lonlat(
        np.full(ROWS, cell), dx=rng.uniform(0, 1, ROWS), dy=rng.uniform(0, 1, ROWS)
    )
    return longitude.deg, latitude.deg


def source_of(folder: Path):
    import skyset
    from skyset.publishing.source import sources

    skyset.register("galaxiesml_like", "benchmarks.galaxiesml_like")
    return next(iter(sources(str(folder)).values()))


def way_skyset(folder: Path, output: Path) -> None:
    from skyset.publishing.hats import Asked, export

    source_of(folder)
    export(str(folder), output, Asked(max_rows=MAX_ROWS, margin=MARGIN), processes=2)


def way_hats_import(folder: Path, output: Path) -> None:
    from dask.distributed import Client
    from hats_import.collection.arguments import CollectionArguments
    from hats_import.collection.run_import import run

    paths = [str(path) for path in sorted(folder.glob("healpix=*/*.hdf5"))]
    arguments = CollectionArguments(output_path=output.parent, output_artifact_name=output.name, progress_bar=False)
    arguments = arguments.catalog(
        input_file_list=paths,
        file_reader=reader(folder),
        ra_column="ra",
        dec_column="dec",
        pixel_threshold=MAX_ROWS,
        expected_total_rows=ROWS * len(paths),
    ).add_margin(margin_threshold=MARGIN, is_default=True)
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        run(arguments, client)


def reader(folder: Path):
    """hats-import's reader of a partition: its rows as a table of plain nested lists."""
    from hats_import.catalog.file_readers import InputReader

    class PartitionReader(InputReader):
        def read(self, input_file, read_columns=None):
            import pyarrow as pa

            source = source_of(folder)
            (entry,) = (e for e in source.manifest.files if str(input_file).endswith(e.path))
            for batch in source.batches([entry]):
                columns = [c.storage if isinstance(c, pa.ExtensionArray) else c for c in batch.columns]
                table = pa.Table.from_arrays(columns, names=batch.schema.names)
                yield table.select(read_columns) if read_columns else table

    return PartitionReader()


def way_floor(folder: Path, output: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from skyset.publishing.hats_plan import cells_of, index_of

    source = source_of(folder)
    table = pa.Table.from_batches(list(source.batches(source.manifest.files, verify=False)))
    index = index_of(table["ra"].to_numpy(), table["dec"].to_numpy())
    order = np.argsort(index)
    footers = []
    for cell in cells_of(index[order], np.ones(len(order), int), 1 << 60, MAX_ROWS, 10):
        path = output / cell.path
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [column.take(pa.array(order[cell.start : cell.stop])) for column in map(storage, table.columns)]
        pq.write_table(pa.Table.from_arrays(rows, names=table.column_names), path, metadata_collector=footers)
        footers[-1].set_file_path(cell.path)
    pq.write_metadata(pq.read_schema(path), output / "_metadata", metadata_collector=footers)


def storage(column):
    """A column without `datasets`' extension, for which pyarrow cannot take rows."""
    import pyarrow as pa

    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks])


WAYS = {"**skyset hats**": way_skyset, "hats-import": way_hats_import, "floor: pyarrow, no margin": way_floor}


def work(way: str, folder: Path, output: Path) -> None:
    """One measurement, a line on standard output."""
    start = time.perf_counter()
    WAYS[way](folder, output)
    seconds = time.perf_counter() - start
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    files = [path for path in output.rglob("*.parquet") if path.is_file()]
    measured = {"way": way, "seconds": seconds, "cpu": sum(u.ru_utime + u.ru_stime for u in used), "files": len(files)}
    measured["bytes"] = sum(path.stat().st_size for path in files)
    with open(folder.parent / "results.jsonl", "a") as file:
        file.write(json.dumps(measured) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=40, help=f"of {ROWS} rows each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        way, folder, output = arguments.work
        work(way, Path(folder), Path(output))
        return
    with tempfile.TemporaryDirectory(prefix="skyset-hats-") as scratch:
        compare(Path(scratch), arguments.cells, arguments.rounds)


def compare(scratch: Path, cells: int, rounds: int) -> None:
    """Print the table."""
    from benchmarks.measure import interleave, machine, ratios

    make(scratch / "data", cells)
    count = iter(range(1000))

    def command(way: str) -> list[str]:
        return [
            sys.executable,
            "-W",
            "ignore",
            __file__,
            "--work",
            way,
            str(scratch / "data"),
            str(scratch / f"out{next(count)}"),
        ]

    results = interleave({way: lambda way=way: command(way) for way in WAYS}, rounds)
    measured = [json.loads(line) for line in (scratch / "results.jsonl").read_text().splitlines()]
    size = sum(path.stat().st_size for path in (scratch / "data").rglob("*.hdf5"))
    print(f"\n{machine()}; {cells * ROWS:,} rows, {size / 1e6:.0f} MB of partitions, {rounds} rounds\n")
    print("| way | seconds, all | speed to hats-import's | CPU s | files | MB | peak MB |\n|---|---|---|---|---|---|---|")
    for way, series in results.items():
        mine = [each for each in measured if each["way"] == way][1:]  # the first one warmed up
        cpu = statistics.median(each["cpu"] for each in mine)
        print(
            f"| {way} | {series.median:.1f} | {ratios(series, results['hats-import'])} | {cpu:.1f} | {mine[0]['files']} "
            f"| {mine[0]['bytes'] / 1e6:.0f} | {series.peak_total / 1e6:.0f} |"
        )


if __name__ == "__main__":
    main()
