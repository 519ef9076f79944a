"""GalaxiesML's query and cuts: each condition takes the rows that it names, and no other."""

import argparse
import json
import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from skyset.archives import account
from skyset.build_scripts.galaxiesml import catalog
from skyset.building.cutouts.catalogue import listed_rows, write_list
from skyset.building.cutouts.columns import present
from skyset.building.cutouts.declaration import Cutouts
from skyset.building.cutouts.jobs import JobCatalogue
from skyset.building.cutouts.sources import FileCatalogue
from skyset.building.options import Options
from skyset.errors import UserError
from skyset.secrets import remember
from skyset.tables.cuts import Counts, apply
from skyset.tables.open import open_catalog
from skyset.testing.hsc_database import FLAGS, Database, encoded
from tests.archives.jobs_server import LOGIN, JobsServer, Sky

FIRST = Sky(1).columns["object_id"][0]


def with_bad(name, value):
    """Two galaxies of which the second has another value in a column."""
    sky = Sky(2)
    values = sky.columns.get(name, np.zeros(2, bool)).copy()
    values[1] = value
    sky.columns[name] = values
    return sky


def ids(sky, sql):
    return [row[0] for row in Database(sky.catalogue()).run(sql).rows]


# --- The query -------------------------------------------------------------------------------------------------------

FLAG_NAMES = [f"{band}_{flag}" for names in FLAGS.values() for flag in names for band in "grizy"]
CONDITIONS = [
    *[(name, True) for name in FLAG_NAMES],
    *[("specz_redshift", value) for value in (0.0, -9.0, 9.999, 9.9999, math.nan)],
    *[("specz_redshift_err", value) for value in (0.0, -9.0, 1.0, math.nan)],
]


def test_the_flags_are_those_of_the_paper():
    kinds = ("sdsscentroid_flag", "cmodel_flag", "edge", "interpolatedcenter", "saturatedcenter", "crcenter", "bad")
    assert len(FLAG_NAMES) == 5 * len(kinds) and all(any(kind in name for kind in kinds) for name in FLAG_NAMES)


@pytest.mark.parametrize(("name", "value"), CONDITIONS)
def test_every_condition_of_the_query(name, value):
    assert ids(with_bad(name, value), catalog.query()) == [FIRST]


@pytest.mark.parametrize(
    ("name", "value"), [("specz_redshift", 9.998), ("specz_redshift_err", 0.9999), ("g_cmodel_mag", 99)]
)
def test_the_query_keeps_the_rest(name, value):
    assert len(ids(with_bad(name, value), catalog.query())) == 2


def test_the_query_asks_for_our_columns_in_the_published_order():
    found = Database(Sky().catalogue()).run(catalog.query())
    assert found.names[:8] == [
        *("object_id", "specz_redshift_err", "specz_redshift", "specz_mag_i", "specz_name", "specz_ra", "specz_dec"),
        "specz_flag_homogeneous",
    ]
    assert found.names[8:12] == ["ra", "dec", "coord", "skymap_id"]
    assert found.names[12:17] == [f"{band}_cmodel_mag" for band in "grizy"]
    assert found.names[17:] == [f"{band}_cmodel_magsigma" for band in "grizy"]
    assert {*found.names} == {*catalog.COLUMNS.schema.names}
    assert "--" not in catalog.query() and "--" in catalog.PRINTED


def test_its_tables_are_real_ones(real):
    listed = open_catalog(real("hsc/pdr2_wide_tables.fits")).table()["object"].to_pylist()
    asked = re.findall(r"pdr2_wide\.(\w+)", catalog.query())
    assert asked == ["forced", "forced2", "specz"] and set(asked) <= set(listed)


def test_an_object_without_a_spectrum_is_joined_and_dropped_and_one_with_two_comes_twice():
    sky = Sky(3)
    sky.columns["specz_redshift"][0] = np.nan
    sky.columns["object_id"][2] = sky.columns["object_id"][1]
    assert ids(sky, catalog.query()) == [FIRST + 1, FIRST + 1]


def test_a_few_galaxies_are_not_waited_for_all():
    assert catalog.query(5) == f"{catalog.query()}\nLIMIT 1000" and catalog.query(500).endswith("LIMIT 5000")
    assert len(ids(Sky(4), catalog.query(1))) == 4


# --- The cuts --------------------------------------------------------------------------------------------------------


def rows_of(sky):
    """The rows as they come from the archive."""
    result = Database(sky.catalogue()).run("SELECT * FROM pdr2_wide.forced LEFT JOIN pdr2_wide.specz USING (object_id)")
    columns = {name: pa.array([row[place] for row in result.rows]) for place, name in enumerate(result.names)}
    return catalog.COLUMNS.standard(pa.table(columns), "here").to_batches(max_chunksize=5)


def left(sky, which):
    counts = Counts()
    cuts = [chosen.cut for chosen in catalog.cuts(argparse.Namespace(cuts=which))]
    kept = [number for batch in apply(cuts, rows_of(sky), counts) for number in batch["object_id"].to_pylist()]
    return kept, {cut.name: cut.rows for cut in counts.cuts if cut.rows}


#: Column, value, the name of the cut that takes it away, and whether the paper's cuts do so too.
CUTS = [
    ("specz_flag_homogeneous", False, "secure", True),
    ("specz_redshift", 0.01, "redshift", True),
    ("specz_redshift", 4.0, "redshift", True),
    ("specz_redshift_err", 0.0, "error", True),
    ("specz_redshift_err", 1.0, "error", True),
    ("specz_redshift_err", math.inf, "error", True),
    ("specz_mag_i", 0.0, "specz_mag_i", False),
    ("specz_mag_i", -1.0, "specz_mag_i", False),
    ("specz_mag_i", 28.0, "specz_mag_i", False),
    ("specz_mag_i", math.nan, "specz_mag_i", False),
    *[
        (f"{band}_cmodel_mag", value, "cmodel", True)
        for band, value in zip("grizy", (0, 50, -99, -99.9, math.nan), strict=True)
    ],
]


@pytest.mark.parametrize(("name", "value", "cut", "in_paper"), CUTS)
def test_every_cut(name, value, cut, in_paper):
    sky = with_bad(name, value)
    assert left(sky, "authors") == ([FIRST], {cut: 1})
    assert left(sky, "paper") == (([FIRST], {cut: 1}) if in_paper else ([FIRST, FIRST + 1], {}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specz_redshift", 0.0101),
        ("specz_mag_i", 27.99),
        ("g_cmodel_mag", 49.9),
        ("g_cmodel_magsigma", -99),
        ("specz_ra", math.nan),
    ],
)
def test_the_cuts_keep_the_rest(name, value):
    assert left(with_bad(name, value), "authors") == ([FIRST, FIRST + 1], {})


@pytest.mark.parametrize(
    ("error", "authors", "paper"),
    [(0.004, True, False), (0.0069, True, False), (0.0071, False, False), (0.0035, True, True)],
)
def test_the_redshifts_error_grows_with_the_redshift_for_the_authors_and_shrinks_in_the_paper(error, authors, paper):
    sky = with_bad("specz_redshift_err", error)
    sky.columns["specz_redshift"][1] = 0.4  # 0.005 x 1.4 = 0.007 and 0.005 / 1.4 = 0.00357
    for which, kept in (("authors", authors), ("paper", paper)):
        assert left(sky, which) == (([FIRST, FIRST + 1], {}) if kept else ([FIRST], {"precise": 1}))


def test_of_a_repeated_object_the_authors_keep_none_and_the_paper_the_first():
    sky = Sky(6)
    sky.columns["specz_name"][3] = sky.columns["specz_name"][1]
    sky.columns["object_id"][5] = sky.columns["object_id"][4]
    number = sky.columns["object_id"]
    assert left(sky, "authors") == ([*number[:3]], {"first specz_name": 1, "object_id once": 2})
    assert left(sky, "paper") == ([*number[:3], number[4]], {"first specz_name": 1, "unique object_id": 1})


def test_rows_that_an_earlier_cut_takes_repeat_nothing():
    sky = Sky(2)
    sky.columns["object_id"][1] = sky.columns["object_id"][0]
    sky.columns["specz_name"][1] = sky.columns["specz_name"][0]
    sky.columns["specz_mag_i"][0] = -1
    assert left(sky, "authors") == ([FIRST], {"specz_mag_i": 1})


# --- From the archive, and from what it exports ----------------------------------------------------------------------


@pytest.fixture
def sky():
    """Twenty galaxies, some of which lack what a catalogue may lack."""
    sky = Sky(20)
    sky.columns["g_cmodel_mag"][[2, 3, 4]] = np.nan, np.inf, -99
    sky.columns["specz_mag_i"][5] = np.nan
    sky.columns["specz_flag_homogeneous"][6] = False
    sky.columns["specz_name"][7] = 'a, "b", c'
    return sky


def written(source, folder, limit=None):
    """What `write_list` leaves of a source: counts and rows by id."""
    made = Cutouts(None, catalog.COLUMNS, "list.csv.gz", None, catalog.cuts, None, None, None)
    options = Options(folder, limit=limit, max_connections=1)
    counts, rows = write_list(made, source, folder / "catalog" / "list.csv.gz", options, argparse.Namespace(cuts="authors"))
    found = dict(listed_rows(made, folder / "catalog" / "list.csv.gz"))
    assert len(found) == rows
    return counts.to_json(), found


def as_columns(sky):
    """What the rows have to be by the sky itself."""
    good = [number for number in range(20) if number not in (2, 3, 4, 5, 6)]
    made = {}
    for number in good:
        row = {name: sky.columns[name][number].item() for name in catalog.COLUMNS.schema.names}
        made[str(row["object_id"])] = row | {"skymap_id": str(row["skymap_id"])}
    return made


def test_from_the_archive(sky, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(account.USER, LOGIN[0])
    monkeypatch.setenv(account.PASSWORD, LOGIN[1])
    with JobsServer(sky, queue=("waiting", "running")) as server:
        waited = []
        source = JobCatalogue(catalog.COLUMNS, server.url, catalog.query(), sleep=waited.append)
        counts, rows = written(source, tmp_path)
        remember(server.url, None)
        assert server.jobs.submitted == server.jobs.deleted and waited == [1, 2]
    assert rows == as_columns(sky)
    assert {step["name"]: step["removed"] for step in counts if step["removed"]} == {
        "secure": 1,
        "specz_mag_i": 1,
        "cmodel": 3,
    }
    assert source.addresses == [f"{server.url}/datasearch/api/catalog_jobs/"]
    assert source.queries == [" ".join(catalog.query().split())]
    said = "".join(capsys.readouterr()) + json.dumps(counts) + repr(source)
    assert LOGIN[1] not in said


@pytest.mark.parametrize("out_format", ["csv", "csv.gz", "fits", "sqlite3"])
@pytest.mark.parametrize("metainfo", [False, True])
def test_from_what_the_archive_exports(sky, tmp_path, out_format, metainfo):
    path = tmp_path / f"export.{out_format}"
    path.write_bytes(encoded(Database(sky.catalogue()).run(catalog.query()), out_format, metainfo))
    assert written(FileCatalogue(catalog.COLUMNS, path), tmp_path)[1] == as_columns(sky)


def test_an_export_without_the_mark_before_the_names(sky, tmp_path):
    data = encoded(Database(sky.catalogue()).run(catalog.query()), "csv")
    (tmp_path / "export.csv").write_bytes(data.removeprefix(b"# "))
    assert written(FileCatalogue(catalog.COLUMNS, tmp_path / "export.csv"), tmp_path)[1] == as_columns(sky)


def test_an_export_after_pandas(sky, tmp_path):
    (tmp_path / "export.csv").write_bytes(encoded(Database(sky.catalogue()).run(catalog.query()), "csv"))
    pd.read_csv(tmp_path / "export.csv").to_csv(tmp_path / "again.csv")  # with an index, "# object_id" and nan as nothing
    assert written(FileCatalogue(catalog.COLUMNS, tmp_path / "again.csv"), tmp_path)[1] == as_columns(sky)


def test_an_export_that_went_through_a_spreadsheet_is_refused(sky, tmp_path):
    data = encoded(Database(sky.catalogue()).run(catalog.query()), "csv").decode()
    for number, written_as in (("36407053045309822", "3.6e16"), ("36407053045309822", "36407053045309822.0")):
        (tmp_path / "export.csv").write_text(data.replace(number, written_as))
        with pytest.raises(UserError, match=r"column object_id (is double|holds 3.*in row 2).*cannot be repaired"):
            written(FileCatalogue(catalog.COLUMNS, tmp_path / "export.csv"), tmp_path)


def test_a_few_galaxies_are_the_first(sky, tmp_path):
    path = tmp_path / "export.csv"
    path.write_bytes(encoded(Database(sky.catalogue()).run(catalog.query()), "csv"))
    assert list(written(FileCatalogue(catalog.COLUMNS, path), tmp_path, limit=4)[1]) == list(as_columns(sky))[:4]


def test_what_a_catalogue_must_have_is_named(sky, tmp_path):
    sql = catalog.query().replace("specz_flag_homogeneous", "specz_original_flag")
    sky.columns["specz_original_flag"] = np.full(20, "A")
    path = tmp_path / "export.csv"
    path.write_bytes(encoded(Database(sky.catalogue()).run(sql), "csv"))
    with pytest.raises(UserError, match="no column specz_flag_homogeneous"):
        written(FileCatalogue(catalog.COLUMNS, path), tmp_path)


def test_which_source_and_cuts_are_asked_for(tmp_path):
    parser = argparse.ArgumentParser()
    catalog.add_options(parser.add_argument)
    asked = parser.parse_args([])
    asked.archive_url = "https://me:secret-1@archive.example.org/"
    source = catalog.source(asked, Options(tmp_path, limit=5))
    assert (
        source.addresses == ["https://archive.example.org/datasearch/api/catalog_jobs/"]
        and "LIMIT 1000" in source.queries[0]
    )
    assert asked.cuts == "authors" and not asked.keep_job and "secret-1" not in repr(source.query)
    remember(source.query.url, None)
    asked = parser.parse_args(["--catalog", "x.fits", "--cuts", "paper"])
    assert isinstance(catalog.source(asked, Options(tmp_path)), FileCatalogue) and len(catalog.cuts(asked)) == 8
    assert present(rows_of(Sky(1))[0]) == {*catalog.COLUMNS.schema.names}
