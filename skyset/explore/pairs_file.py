"""A table of pairs as a file: Parquet, CSV, FITS or VOTable, with units where the format has them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import SkysetError, UserError
from skyset.explore.catalogue import unit_of
from skyset.files import replaced_by, replacing
from skyset.tables.match import is_text

#: What pairs are written as, by the ending of the file.
ENDINGS = (".parquet", ".csv", ".csv.gz", ".fits", ".vot")
#: How the column of separations is called, or begins.
_APART = "separation_arcsec"


def check_output(path: str | Path) -> str:
    """The ending of a file that pairs can be written to; before the work, rather than after it.

    Raises:
        UserError: another ending, or the file cannot be made there.
    """
    path = Path(path)
    ending = next((each for each in ENDINGS if path.name.lower().endswith(each)), None)
    if ending is None:
        raise UserError(f"{path}: pairs are written as {', '.join(ENDINGS)}")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    path = replaced_by(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: no permission for {path.parent}")
    return ending


def is_matches(path: Path) -> bool:
    """Whether a file is a table of matches, as ``write_pairs`` writes it: its columns say so."""
    from skyset.tables.open import column_names

    try:
        names = column_names(str(path))
    except SkysetError:
        return False
    return names[:1] in (["object_id_left"], ["object_id_1"]) and any(name.startswith(_APART) for name in names)


def write_pairs(table: pa.Table, path: str | Path) -> None:
    """Write a table as ``.parquet``, ``.fits``, ``.vot`` (these with units), ``.csv`` or ``.csv.gz``, whole or not at all.

    Raises:
        UserError: another ending, or the file cannot be written.
    """
    from skyset.tables.delimited_writer import write_csv
    from skyset.tables.parquet import write_parquet

    path, ending = Path(path), check_output(path)
    try:
        if ending in (".fits", ".vot"):
            _write_astropy(table, path, ending)
        else:
            write = write_parquet if ending == ".parquet" else write_csv
            write(path, table.to_batches(max_chunksize=1 << 16), table.schema)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error


def _write_astropy(table: pa.Table, path: Path, ending: str) -> None:
    """FITS and VOTable, nulls as each has them."""
    from astropy.io import fits
    from astropy.io.votable import from_table
    from astropy.table import Table

    columns = []
    for field, values in zip(table.schema, table.columns, strict=True):
        try:
            columns.append(_astropy_column(field, _plain_type(values)))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"{path}: column {field.name} is {field.type}, which does not fit in: {error}") from error
    made = Table(columns)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        if ending == ".fits":
            fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(made)]).writeto(file)
        else:
            from_table(made).to_xml(file, tabledata_format="binary2")


def _plain_type(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers, booleans and text as they are; dates, times and categories as text, decimals as float64.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: this is nothing of the kind.
    """
    kind = values.type
    if is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return values
    return pc.cast(values, pa.float64() if pa.types.is_decimal(kind) else pa.large_string())


def _astropy_column(field: pa.Field, values: pa.ChunkedArray):
    """A column of an astropy table: missing text is empty, a missing float NaN, a missing integer masked."""
    from astropy.table import Column, MaskedColumn

    about = {"name": field.name, "unit": unit_of(field) or None}
    if is_text(values.type):
        return Column(np.array(pc.cast(values, pa.large_string()).fill_null("").to_pylist(), str), **about)
    if pa.types.is_floating(values.type) or not values.null_count:
        return Column(values.to_numpy(), **about)
    return MaskedColumn(values.fill_null(0).to_numpy(), mask=values.is_null().to_numpy(), **about)
