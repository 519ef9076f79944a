"""What stands beside the rows of a HATS collection: properties, lists of partitions, maps, footers, and the card.

The layout is that of the IVOA note on HATS, https://www.ivoa.net/documents/Notes/HATS/::

    OUT/README.md  collection.properties  skyset_hats.json
    OUT/<name>/hats.properties  partition_info.csv  skymap.fits
    OUT/<name>/dataset/_metadata  _common_metadata  Norder=<k>/Dir=<d>/Npix=<p>.parquet
    OUT/<name>_<margin>arcs/                       the same, of the rows about each partition

It is written by pyarrow and astropy alone: to import the package hats takes three seconds, and it wants pandas and MOCPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyset.building.card import citation, features_table
from skyset.files import replacing, write_atomically
from skyset.publishing.hats_plan import INDEX, INDEX_ORDER, Cell
from skyset.publishing.parquet import Written
from skyset.survey import Survey
from skyset.versions import __version__

DATASET, COLLECTION, PROPERTIES = "dataset", "collection.properties", "hats.properties"
#: Of the map of how many rows lie where, unless there are smaller partitions: 14 arcmin a side.
_SKYMAP_ORDER = 8


def write_catalogue(
    folder: Path,
    schema: pa.Schema,
    cells: Sequence[Cell],
    written: Sequence[Written],
    properties: Mapping[str, object],
    index: np.ndarray | None = None,
) -> None:
    """All that a catalogue's, or margin's, folder has beside its rows.

    Args:
        folder: has the files of all ``cells`` in its ``dataset``.
        schema: theirs.
        cells, written: the partitions, and what was written of each.
        properties: of this catalogue; those that follow from the files are added.
        index: ``_healpix_29`` of all rows, for the map of the sky; None for a margin, which has none.
    """
    _write_footers(folder / DATASET, schema, cells)
    listed = sorted((cell.order, cell.pixel) for cell in cells)
    write_atomically(folder / "partition_info.csv", "Norder,Npix\n" + "".join(f"{o},{p}\n" for o, p in listed))
    highest = max(cell.order for cell in cells)
    facts: dict[str, object] = {
        "hats_nrows": sum(each.rows for each in written),
        "hats_max_rows": max(each.rows for each in written),
        "hats_max_bytes": max(each.bytes for each in written),
        "hats_estsize": sum(each.bytes for each in written) // 1024,
        "hats_order": highest,
        "hats_col_healpix": INDEX,
        "hats_col_healpix_order": INDEX_ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_builder": f"skyset {__version__}",
        "moc_sky_fraction": f"{sum(1 / (12 * 4**cell.order) for cell in cells):.8g}",
    }
    if index is not None:
        order = max(highest, _SKYMAP_ORDER)
        _write_skymap(folder / "skymap.fits", index, order)
        facts["hats_skymap_order"] = order
    write_properties(folder / PROPERTIES, {**properties, **facts})


def _write_footers(folder: Path, schema: pa.Schema, cells: Sequence[Cell]) -> None:
    """``_common_metadata``, the schema; ``_metadata``, the footers of all files in the order of the sky."""
    footers = []
    for cell in cells:
        footer = pq.read_metadata(folder / cell.path)
        footer.set_file_path(cell.path)
        footers.append(footer)
    with replacing(folder / "_metadata") as temporary:
        pq.write_metadata(schema, temporary, metadata_collector=footers)
    with replacing(folder / "_common_metadata") as temporary:
        pq.write_metadata(schema, temporary)


def _write_skymap(path: Path, index: np.ndarray, order: int) -> None:
    """How many rows lie in each HEALPix cell that has some: a FITS table as the standard for HEALPix maps has it."""
    from astropy.io import fits

    pixels, counts = np.unique(index >> (2 * (INDEX_ORDER - order)), return_counts=True)
    columns = [fits.Column("PIXEL", "K", array=pixels), fits.Column("VALUE", "K", array=counts)]
    table = fits.BinTableHDU.from_columns(columns)
    said = {"PIXTYPE": "HEALPIX", "INDXSCHM": "EXPLICIT", "ORDERING": "NESTED", "COORDSYS": "C", "NSIDE": 2**order}
    table.header.update({**said, "OBS_NPIX": len(pixels), "CREATOR": f"skyset {__version__}"})
    with replacing(path) as temporary:
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(temporary, overwrite=True)


def write_properties(path: Path, values: Mapping[str, object]) -> None:
    """A file of ``key=value`` lines, as Java's properties are: backslashes and line breaks are spelt out."""
    lines = [f"{name}={_escaped(value)}\n" for name, value in values.items() if value not in (None, "")]
    write_atomically(path, "#HATS\n" + "".join(lines))


def _escaped(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace("\n", " ").replace("\r", " ")


_CARD = """---
pretty_name: "{title}"
license: other
license_name: see-card
tags:
- astronomy
- HATS
{features}configs:
- config_name: default
  description: "{rows:,} rows; digest {digest}"
  data_files:
  - split: train
    path: "{name}/dataset/Norder=*/Dir=*/Npix=*.parquet"
---

# {title}

{rows:,} rows in {cells:,} partitions of HEALPix order {lowest} to {highest}: a
[HATS](https://www.ivoa.net/documents/Notes/HATS/) collection of the catalogue `{name}`{margin},
written by skyset {version}. {homepage}

```python
import lsdb

catalog = lsdb.open_catalog("{folder}")
nearby = catalog.cone_search({ra:.4f}, {dec:.4f}, radius_arcsec=3600).compute()
```

`datasets` reads the same files, and no row of the margin; after `import skyset` in the columns' own dtypes.

```python
from datasets import load_dataset

rows = load_dataset("{folder}", split="train", streaming=True)
```

## Columns

`_healpix_29`, by which the rows ascend, is the HEALPix cell of order 29 (nested) that a position lies in.

{columns}
## Licence and citation

{license}

{citation}"""


def write_card(
    path: Path, survey: Survey, features: datasets.Features, images: str, cells: Sequence[Cell], margin: float, **facts
) -> None:
    """The collection's README.md, which tells `datasets` the files of the catalogue, and no others.

    Args:
        path: of the file.
        survey: the declaration of the rows.
        features: the catalogue's.
        images: how arrays are stored; plain lists need the features to be told.
        cells: the partitions.
        margin: arcsec, 0 where there is none.
        facts: ``name``, ``folder``, ``rows``, ``ra`` and ``dec`` of one row; ``digest`` of the files' bytes, without which
            `datasets` takes another catalogue of this name for the one that it has in its cache.
    """
    text = _CARD.format(
        **facts,
        cells=len(cells),
        margin=f", with the rows up to {margin:g} arcsec about each partition beside it" if margin else "",
        title=survey.title.replace('"', "'"),
        homepage=survey.homepage,
        lowest=min(cell.order for cell in cells),
        highest=max(cell.order for cell in cells),
        version=__version__,
        features=_features_yaml(features) if images == "list" else "",
        columns=features_table(survey),
        license=survey.license,
        citation=citation(survey) if survey.citation else "",
    )
    write_atomically(path, text)


def _features_yaml(features: datasets.Features) -> str:
    import yaml

    return yaml.safe_dump({"dataset_info": {"features": features._to_yaml_list()}}, sort_keys=False)
