"""What somebody's images and table are declared as."""

from pathlib import Path

import pytest

from skyset.building.image_folder import Names, image_stem
from skyset.errors import UserError
from skyset.survey import Column
from skyset.template.found import look
from tests.template.test_new import cutouts, photos


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_csv_with_jpegs():
    photos()
    found = look(Path("photos"), Path("catalogue.csv"))
    assert found.names == Names("id", "RA", "Dec", "id") and (found.rows, found.pictured, found.notes) == (9, 8, ())
    assert found.columns[0].dtype == "S8" and found.columns[4].is_bytes
    assert found.columns[5:] == (
        Column("mag", "float64", (), "", "describe me"),
        Column("n_votes", "int64", (), "", "describe me; -1 where not given"),
        Column("kind", "int64", (), "", "describe me"),
        Column("seen", "bool", (), "", "describe me"),
        Column("note", "S8", (), "", "describe me"),
    )
    assert found.classes == {"kind": ("ring", "spiral")}


def test_a_fits_table_with_fits_images():
    """Units are taken over; the images' column is found by what it holds; a column of vectors is left out, aloud."""
    cutouts()
    found = look(Path("cutouts"), Path("table.fits"))
    assert found.names == Names("file", "RAJ2000", "DEJ2000", "file")  # nothing is called as names usually are
    assert found.columns[4].dtype == "float32" and found.columns[4].shape == (3, 8, 9)
    assert [column.name for column in found.columns[5:]] == ["source", "flux"]
    assert (found.columns[5].dtype, found.columns[6]) == ("int64", Column("flux", "float32", (), "nJy", "describe me"))
    assert len(found.notes) == 1 and "'lists' is left out" in found.notes[0]
    assert look(Path("cutouts"), Path("table.fits"), "source").names == Names("source", "RAJ2000", "DEJ2000", "file")


@pytest.mark.parametrize(
    ("folder", "table", "options", "told"),
    [
        ("nowhere", "catalogue.csv", {}, "nowhere: no such folder"),
        ("photos", "nothing.csv", {}, "nothing.csv: No such file or directory"),
        ("empty", "catalogue.csv", {}, "no images in it"),
        ("photos", "other.csv", {}, "names an image of photos, such as g0, g1, g2"),
        ("photos", "nameless.csv", {}, "which columns are the positions? --ra COLUMN --dec COLUMN"),
        ("photos", "bare.csv", {}, "bare.csv: no rows"),
        ("photos", "hours.csv", {}, "hours.csv: ra is text, 00:01:02.5; positions in decimal degrees are needed"),
        ("photos", "lossy.csv", {}, "identifiers that went through floating point"),
        ("photos", "catalogue.csv", {"object_id": "idd"}, "no column idd; did you mean id?"),
        ("photos", "catalogue.csv", {"ra": "mag"}, "--ra and --dec belong together"),
    ],
)
def test_what_cannot_be_a_survey_is_one_line(folder, table, options, told):
    photos(3)
    Path("empty").mkdir()
    Path("other.csv").write_text("id,ra,dec\na,1,2\n")
    Path("nameless.csv").write_text("id,x,y\ng0,1,2\n")
    Path("hours.csv").write_text("id,ra,dec\ng0,00:01:02.5,2\n")
    Path("lossy.csv").write_text("id,ra,dec,file\n5.87722984435352E+17,1,2,g0\n")
    Path("bare.csv").write_text("id,ra,dec\n")
    with pytest.raises(UserError) as refused:
        look(Path(folder), Path(table), **options)
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a", "a"),
        ("a.jpg", "a"),
        ("x/y/a.PNG", "a"),
        ("a.fits.gz", "a"),
        ("J0004.1+02.5", "J0004.1+02.5"),
        ("J0004.1+02.5.jpeg", "J0004.1+02.5"),
        ("a.tar.gz", "a.tar.gz"),
        ("", ""),
    ],
)
def test_the_stem_of_an_image(name, stem):
    assert image_stem(name) == stem
