"""Catalogues of any length, read from what archives hand out, with numbers as `skyset.tables.numeric_text` has them.

Rows come and go in Arrow record batches, so that memory does not grow with the file, and 64-bit identifiers never pass
through floating point. A CSV file is read twice: a column is numeric only if all its values in the whole file are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from skyset.errors import UserError
from skyset.raw import check_regular
from skyset.tables.catalog import Catalog, chosen_columns, explained, kind_of
from skyset.tables.delimited import DELIMITERS, csv_layout, open_csv
from skyset.tables.fits import open_fits
from skyset.tables.parquet import open_parquet, open_parquet_file
from skyset.tables.sqlite import open_sqlite


def open_catalog(path: str | Path | Sequence[str | Path], columns: Sequence[str] | None = None) -> Catalog:
    """Open a catalogue: ``.csv``, ``.tsv``, ``.fits``, ``.fit``, ``.vot``, ``.xml``, ``.parquet`` (each also ``.gz``),
    ``.sqlite3``, ``.sqlite``, ``.db``, ``.hdf5`` or ``.h5``.

    CSV, FITS, SQLite, HDF5 and Parquet are read in bounded memory; a VOTable is taken into memory whole. CSV columns get
    their types from all rows; missing in CSV text is nothing, ``null``, ``NULL`` or ``\\N``, unless in quotes. In FITS the
    first binary table is read (a compressed image and the LDAC_IMHEAD of SExtractor's catalogues are none), vectors as
    fixed-size lists; columns that Arrow has no plain type for are left out with a note. Of SQLite's tables see
    `skyset.tables.sqlite`, of HDF5's `skyset.tables.hdf5`.

    Args:
        path: a file, or several Parquet files with the same columns (the slices of a query).
        columns: names of the columns wanted, in this order; all by default.

    Raises:
        UserError: no such file or column, or the file is not what its name says.
    """
    if not isinstance(path, (str, Path)):
        return open_parquet([str(each) for each in path], columns)
    kind = kind_of(path)
    with explained(str(path)):
        if kind not in _OPENERS:
            packed, known = (", ".join(f".{each}" for each in kinds) for kinds in (_PACKED, _UNPACKED))
            raise UserError(f"{path}: unknown kind of catalogue (known: {packed}, all of these also .gz, {known})")
        check_regular(path)
        return _OPENERS[kind](str(path), columns)


def _open_votable(path: str, columns: Sequence[str] | None) -> Catalog:
    from skyset.tables.votable import votable_to_arrow

    if not Path(path).stat().st_size:
        raise UserError(f"{path}: the file is empty")
    try:
        table = votable_to_arrow(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if (table.schema.metadata or {}).get(b"query_status") == b"OVERFLOW":
        raise UserError(f"{path}: rows are missing: the service stopped at its limit (QUERY_STATUS is OVERFLOW)")
    table = table.select(chosen_columns(table.column_names, columns, path))
    return Catalog(path, table.schema, table.num_rows, lambda rows: iter(table.to_batches(max_chunksize=rows)))


def _open_hdf5(path: str, columns: Sequence[str] | None) -> Catalog:
    from skyset.tables.hdf5 import open_hdf5  # with h5py, which other catalogues do not need

    return open_hdf5(path, columns)


_Opener = Callable[[str, Sequence[str] | None], Catalog]
_PACKED: dict[str, _Opener] = {
    **{kind: partial(open_csv, delimiter=delimiter) for kind, delimiter in DELIMITERS.items()},
    "fits": open_fits,
    "fit": open_fits,
    "vot": _open_votable,
    "xml": _open_votable,
    "parquet": open_parquet_file,
}
_UNPACKED: dict[str, _Opener] = {
    **dict.fromkeys(("sqlite3", "sqlite", "db"), open_sqlite),
    **dict.fromkeys(("hdf5", "h5"), _open_hdf5),
}
_OPENERS = _PACKED | _UNPACKED

# --- Writing --------------------------------------------------------------------------------------


def column_names(path: str | Path) -> list[str]:
    """The columns that `open_catalog` would give; a delimited file is not read beyond its header for them.

    Raises:
        UserError: as `open_catalog`.
    """
    delimiter = DELIMITERS.get(kind_of(path))
    if delimiter is None:
        return open_catalog(path).schema.names
    with explained(str(path)):
        return csv_layout(str(path), delimiter).names
