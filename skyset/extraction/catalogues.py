"""Catalogues in every format: FITS_LDAC extension by extension, the others as a single table."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import QTable, vstack

from skyset.errors import UserError
from skyset.extraction.columns import COLUMNS
from skyset.extraction.ldac import column_format, replacing, unit_text, write_ldac, write_table
from skyset.extraction.tables import as_arrow

#: Formats of catalogues; the first ones by CATALOG_TYPE.
CATALOGUE_TYPES = {
    "FITS_LDAC": "ldac",
    "FITS_1.0": "fits",
    "ASCII_HEAD": "ascii_head",
    "ASCII": "ascii",
    "ASCII_VOTABLE": "votable",
}
FORMATS = (*CATALOGUE_TYPES.values(), "parquet", "csv")
#: What the ending of a file's name says.
FORMAT_OF_ENDING = {
    ".ldac": "ldac",
    ".fits": "fits",
    ".fit": "fits",
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".vot": "votable",
    ".xml": "votable",
}


def ending_of(format: str) -> str:
    """The usual ending of a file of this format, without the dot."""
    return {"ascii": "cat", "ascii_head": "cat", "votable": "vot"}.get(format, format)


def write_catalogue(path: Path, kind: str, extensions: Iterable[tuple[fits.Header, QTable]]) -> None:
    """Write a catalogue: ``ldac`` extension by extension; any other format has the extensions in one table, one below the
    other, and says the tables' ``meta["engine"]`` where it has a place for that (FITS, VOTable, Parquet). UserError where
    the format cannot hold a column."""
    if kind == "ldac":
        write_ldac(path, extensions)
        return
    tables = [table for _, table in extensions]
    table = tables[0] if len(tables) == 1 else vstack(tables, metadata_conflicts="silent")
    with replacing(path) as file:
        writers: dict[str, Callable] = {
            "fits": _write_fits,
            "parquet": _write_parquet,
            "csv": _write_csv,
            "votable": _write_votable,
            "ascii": partial(_write_ascii, head=False),
            "ascii_head": _write_ascii,
        }
        writers[kind](file, table)


def _write_fits(file, table: QTable) -> None:
    said = [("SEXENGIN", table.meta["engine"], "What found and measured the sources")] if "engine" in table.meta else []
    fits.PrimaryHDU(header=fits.Header(said)).writeto(file)
    write_table(file, table, "OBJECTS")


def _write_parquet(file, table: QTable) -> None:
    from pyarrow import parquet

    parquet.write_table(as_arrow(table), file, compression="zstd")


def _write_csv(file, table: QTable) -> None:
    import pyarrow as pa
    from pyarrow import csv

    columns = {name: pa.array(values) for name, values in _flat(table, "csv")}
    # The name decides: a .csv.gz that holds plain text would be refused by whoever reads it.
    packed = (
        gzip.GzipFile(fileobj=file, mode="wb", mtime=0)
        if ".csv.gz" in Path(file.name).name
        else contextlib.nullcontext(file)
    )
    with packed as stream:
        csv.write_csv(pa.table(columns), stream, csv.WriteOptions(quoting_style="needed"))


def _write_votable(file, table: QTable) -> None:
    from astropy.io.votable import from_table

    made = from_table(table)
    if "engine" in table.meta:
        made.get_first_table().description = f"sources found and measured by engine {table.meta['engine']}"
    made.to_xml(file, tabledata_format="binary2")


def _write_ascii(file, table: QTable, head: bool = True) -> None:
    """As SExtractor's ASCII and ASCII_HEAD: columns of fixed width, vectors spread out."""
    if head:
        position = 1
        for name in table.colnames:
            unit = unit_text(getattr(table[name], "unit", None))
            line = f"#{position:4d} {name:<22.22s} {COLUMNS[name].meaning:<58.58s}{f' [{unit}]' if unit else ''}"
            file.write((line.rstrip() + "\n").encode())
            position += int(np.prod(table[name].shape[1:], dtype=int))
    flat = list(_flat(table, "ascii", spread=True))
    formats = [column_format(name.partition("[")[0], table[name.partition("[")[0]]) or "%s" for name, _ in flat]
    text = " ".join(formats) + "\n"
    values = [column.tolist() for _, column in flat]
    file.writelines((text % row).encode() for row in zip(*values, strict=True))


def _flat(table: QTable, kind: str, spread: bool = False) -> Iterator[tuple[str, np.ndarray]]:
    """Columns of numbers: a vector is NAME_1, NAME_2, ...; an image needs a format that can hold it, or ``spread``."""
    for name in table.colnames:
        values = np.asarray(getattr(table[name], "value", table[name]))
        if values.ndim > 2 and not spread:
            raise UserError(
                f"{name}: a row has {values.shape[1]} x {values.shape[2]} numbers, too many for {kind}: "
                "write ldac, fits or parquet"
            )
        if values.ndim == 1:
            yield name, values
            continue
        values = values.reshape(len(values), int(np.prod(values.shape[1:])))
        for index in range(values.shape[1]):
            yield (f"{name}[{index}]" if spread else f"{name}_{index + 1}"), values[:, index]
