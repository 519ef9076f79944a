"""How fast is a catalogue read, typed, filtered and written, and how much memory does it take?

    python benchmarks/catalog.py                            # 1,000,000 rows x 45 columns, 5 rounds, about half an hour
    python benchmarks/catalog.py --rows 100000 --rounds 1

The floor gunzips with isal, parses with Arrow's CSV reader, which guesses the types from the first block, and writes all
rows with Arrow's CSV writer and isal: nothing is judged and nothing filtered. The peers are pandas, as notebooks use it:
every column as text and then to numbers where that works, and plain ``read_csv``. Each is a process of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from skyset.tables import delimited_writer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BANDS = "ugriz"
MAGNITUDES = [f"{kind}_{band}" for kind in ("petroMag", "modelMag") for band in BANDS]
ERRORS = [f"{kind}_{band}" for kind in ("petroMagErr", "modelMagErr") for band in BANDS]
VOTES = ["p_el", "p_cw", "p_acw", "p_edge", "p_dk", "p_mg", "p_cs", "p_el_debiased", "p_cs_debiased"]


def make_catalogue(path: Path, rows: int) -> None:
    """45 columns of what a photometric catalogue holds: 64-bit ids, magnitudes, votes, flags, a class in words."""
    import numpy as np
    import pyarrow as pa

    from skyset.tables.delimited_writer import write_csv

    rng = np.random.default_rng(1)

    def block(start: int, stop: int) -> pa.RecordBatch:
        size = stop - start
        columns = {
            "dr7objid": 587722984435351614 + 7 * np.arange(start, stop),
            "dr8objid": 1237648720142401611 + 13 * np.arange(start, stop),
            "ra": rng.uniform(0, 360, size),
            "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, size))),
            **{name: np.where(rng.random(size) < 0.01, -9999, rng.normal(17.5, 1.2, size).round(5)) for name in MAGNITUDES},
            **{name: rng.exponential(0.02, size).round(7) for name in ERRORS},
            **{f"extinction_{band}": rng.exponential(0.1, size).round(6) for band in BANDS},
            "petroR90_r": rng.lognormal(1.8, 0.5, size).round(5) - 0.3,
            "petroR50_r": rng.lognormal(1.0, 0.5, size).round(5),
            "z": rng.exponential(0.1, size).round(6),
            "nvote": rng.integers(20, 80, size),
            **{name: rng.random(size).round(3) for name in VOTES},
            "flags": rng.integers(0, 2**52, size),
            "clean": rng.integers(0, 10, size) > 0,
            "type": rng.choice(["spiral", "elliptical", "uncertain"], size),
        }
        return pa.RecordBatch.from_pydict(columns)

    batches = (block(start, min(rows, start + 50_000)) for start in range(0, rows, 50_000))
    write_csv(path, batches, block(0, 1).schema)


def skyset_way(source: Path, target: Path) -> int:
    from skyset.tables import cuts
    from skyset.tables import open as catalog

    table = catalog.open_catalog(source)
    chosen = [
        cuts.on_sky(),
        cuts.equals("clean", 1),
        cuts.valid_magnitudes(MAGNITUDES),
        cuts.max_error(ERRORS, 0.15),
        cuts.positive("petroR90_r"),
        cuts.at_least(["p_el_debiased", "p_cs_debiased"], 0.5),
        cuts.unique("dr8objid"),
    ]
    return delimited_writer.write_csv(target, cuts.apply(chosen, table.batches(), cuts.Counts()), table.schema)


def floor_way(source: Path, target: Path) -> int:
    from isal import igzip_threaded
    from pyarrow import PythonFile, csv

    rows = 0
    with igzip_threaded.open(source, "rb") as file, igzip_threaded.open(target, "wb", compresslevel=2) as output:
        reader = csv.open_csv(PythonFile(file, "r"), csv.ReadOptions(block_size=8 << 20))
        with csv.CSVWriter(output, reader.schema) as writer:
            for batch in reader:
                rows += batch.num_rows
                writer.write_batch(batch)
    return rows


def pandas_text_way(source: Path, target: Path) -> int:
    import pandas as pd

    table = pd.read_csv(source, dtype=object)
    for name in table:
        try:
            table[name] = pd.to_numeric(table[name])
        except (ValueError, TypeError):
            continue
    return _pandas_filter(table, target)


def pandas_way(source: Path, target: Path) -> int:
    import pandas as pd

    return _pandas_filter(pd.read_csv(source), target)


def _pandas_filter(table, target: Path) -> int:
    keep = table["ra"].between(0, 360) & table["dec"].between(-90, 90) & (table["clean"] == 1)
    keep &= ((table[MAGNITUDES] > 0) & (table[MAGNITUDES] < 40)).all(axis=1)
    keep &= ((table[ERRORS] >= 0) & (table[ERRORS] <= 0.15)).all(axis=1)
    keep &= (table["petroR90_r"] > 0) & (table[["p_el_debiased", "p_cs_debiased"]] >= 0.5).any(axis=1)
    table = table[keep].drop_duplicates("dr8objid")
    table.to_csv(target, index=False)
    return len(table)


WAYS = {
    "floor: isal + Arrow, nothing judged or filtered": floor_way,
    "**skyset**: all rows settle the types, 7 counted cuts": skyset_way,
    "peer: pandas, text and then to_numeric": pandas_text_way,
    "peer: pandas.read_csv": pandas_way,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="ways whose names hold this word, the floor besides")
    parser.add_argument("--work", nargs=3, metavar=("WAY", "SOURCE", "TARGET"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        way, source, target = arguments.work
        print(WAYS[way](Path(source), Path(target)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    from benchmarks.measure import interleave, machine, ratios

    source = folder / "catalogue.csv.gz"
    make_catalogue(source, arguments.rows)
    base, *others = WAYS
    chosen = [base, *(name for name in others if not arguments.only or arguments.only in name)]

    def command(way: str) -> list[str]:
        return [sys.executable, __file__, "--work", way, str(source), str(folder / "filtered.csv.gz")]

    results = interleave({way: lambda way=way: command(way) for way in chosen}, arguments.rounds)
    print(
        f"\n{machine()}; {arguments.rows:,} rows x 45 columns, {source.stat().st_size / 1e6:.0f} MB gzipped, "
        f"{arguments.rounds} rounds\n"
    )
    print("| way | seconds | rows/s | speed to the floor | peak MB |\n|---|---|---|---|---|")
    for name, series in results.items():
        print(
            f"| {name} | {series.median:.1f} | {arguments.rows / series.median:,.0f} "
            f"| {ratios(series, results[base])} | {series.peak_process / 1e6:.0f} |"
        )


if __name__ == "__main__":
    main()
