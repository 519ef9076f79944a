"""``skyset new``: the folder that it writes is a survey whose test passes, from the example and from somebody's files."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image
from typer.testing import CliRunner

import skyset
from skyset.cli import app
from skyset.errors import UserError
from skyset.loading import registry
from skyset.survey import Column
from skyset.template.new import FILES, card, rendered, write


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory; what is registered and imported in it is forgotten afterwards."""
    monkeypatch.setattr(registry, "_modules", dict(registry._modules))
    monkeypatch.setattr("sys.path", list(sys.path))
    for name in ("my_survey", "build_my_survey"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("my_survey", "build_my_survey"):
        sys.modules.pop(name, None)


def photos(count=8, lacking=1):
    """JPEGs and a CSV of one row more than there are images."""
    Path("photos/deep").mkdir(parents=True)
    with open("catalogue.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "RA", "Dec", "mag", "n_votes", "kind", "seen", "note"])
        for n in range(count + lacking):
            name = f"g{n}"
            table.writerow([name, 150 + n, 2 + n / 8, 17.5 + n / 8, n or "", ["spiral", "ring"][n % 2], "true", f"note {n}"])
            if n < count:
                Image.new("RGB", (16, 12), (20 * n, 100, 200)).save(f"photos/deep/{name}.jpg", quality=95)


def cutouts(count=6):
    """FITS images of three bands, and a FITS table with units, named as VizieR names columns; files by a column."""
    Path("cutouts").mkdir()
    pixels = np.arange(3 * 8 * 9, dtype=">f4").reshape(3, 8, 9)
    for n in range(count):
        fits.writeto(f"cutouts/cut_{n}.5.fits.gz", pixels + n)
    every = np.arange(count)
    table = Table(
        {
            "source": 900 + every,
            "RAJ2000": 10.0 + every,
            "DEJ2000": -every / 4,
            "lists": np.zeros((count, 4)),
            "file": [f"some/where/cut_{n}.5.fits.gz" for n in every],
            "flux": every.astype("f4"),
        }
    )
    table["flux"].unit = "nJy"
    table.write("table.fits")


def test_the_tests_that_it_writes_pass_as_written(here):
    """Of the example, and of FITS images; one run of pytest, for the time that imports take."""
    cutouts()
    for arguments in (["plain_survey"], ["fits_survey", "--from", "cutouts", "--table", "table.fits", "--ids", "source"]):
        status, text = run("new", *arguments)
        assert status == 0 and f"python -m pytest {arguments[0]}" in text, text
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "plain_survey", "fits_survey"]
    tested = subprocess.run(command, capture_output=True, text=True)
    assert tested.returncode == 0 and "6 passed" in tested.stdout, tested.stdout + tested.stderr


def test_photos_and_a_csv_are_declared_built_and_loaded(here):
    photos()
    status, text = run("new", "my_survey", "--from", "photos", "--table", "catalogue.csv")
    assert status == 0, text
    assert "9 rows in catalogue.csv, 8 images of them in photos (by the column id); 10 columns, 1 of them of classes" in text
    arguments = ["--module", "my_survey/my_survey.py", "--num_processes", 1]
    assert run("build", "my_survey", *arguments)[0] == 1  # one row has no image
    assert "there is no image 'g8'" in Path("data/my_survey/rejected.csv").read_text()
    assert run("show", "my_survey", *arguments[:2], "-o", "one.png")[0] == 0  # its folder of code is not taken for its rows
    skyset.register("my_survey", "my_survey/my_survey.py")
    rows = {row["object_id"]: row for row in skyset.load("my_survey")}
    assert sorted(rows) == [f"g{n}" for n in range(8)]
    row = rows["g3"]
    assert (row["ra"], row["dec"], row["mag"], row["n_votes"], row["kind"]) == (153, 2.375, 17.875, 3, 0)
    assert rows["g0"]["n_votes"] == -1 and row["seen"].dtype == bool and row["note"] == "note 3"
    assert row["image"].shape == (12, 16, 3)
    assert skyset.info("my_survey").survey.features[7].classes == ("ring", "spiral")


def test_rows_are_made_again_where_table_or_image_changed(here):
    photos(4, 0)
    run("new", "my_survey", "--from", "photos", "--table", "catalogue.csv")
    arguments = ["build", "my_survey", "--module", "my_survey/my_survey.py", "--num_processes", 1]
    assert run(*arguments)[0] == 0
    text = Path("catalogue.csv").read_text()
    Path("catalogue.csv").write_text(text.replace("17.625", "11.5"))
    Image.new("RGB", (5, 5)).save("photos/deep/g2.jpg")
    assert run(*arguments)[0] == 0
    rows = {row["object_id"]: row for row in skyset.load("my_survey")}
    assert rows["g1"]["mag"] == 11.5 and rows["g2"]["image"].shape == (5, 5, 3)
    Path("catalogue.csv").write_text(text.replace("ring", "bar"))  # a word that is no class of the data sheet
    assert run(*arguments)[0] == 1
    assert "kind is 'bar', none of ring, spiral" in Path("data/my_survey/rejected.csv").read_text()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("my-survey", "a survey cannot be called 'my-survey', which is no name in Python; my_survey can"),
        ("2mass", "a survey cannot be called '2mass', which is no name in Python"),
        ("class", "a survey cannot be called 'class', which is no name in Python"),
        ("galaxíes", "a survey cannot be called 'galaxíes', which is no name in Python; galax_es can"),
        ("../up", "a survey cannot be called '../up', which is no name in Python; up can"),
        ("gz3d", "there is a survey gz3d already: choose another name"),
        ("GZ3D", "GZ3D would be taken for gz3d, which is a survey already: choose another name"),
        ("gz_decal", "gz_decal would be taken for gz_decals, which is a survey already: choose another name"),
        ("numpy", "there is a Python module numpy already: choose another name"),
        ("json", "there is a Python module json already: choose another name"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_one_line(here, name, told):
    status, text = run("new", name)
    assert (status, text) == (2, f"skyset: {told}\n")
    assert not list(here.iterdir())


def test_nothing_is_ever_overwritten(here):
    Path("my_survey").mkdir()
    assert run("new", "my_survey") == (2, "skyset: my_survey is there already: nothing was written\n")
    Path("link").symlink_to("nowhere")
    assert run("new", "my_survey", "-o", "link")[0] == 2
    assert not list(Path("my_survey").iterdir())
    status, text = run("new", "my_survey", "-o", "deeper/mine")
    assert status == 0 and "--module deeper/mine/my_survey.py" in text
    assert sorted(path.name for path in Path("deeper").iterdir()) == ["mine"]  # nothing of the making is left
    assert sorted(path.name for path in Path("deeper/mine").iterdir()) == sorted([*FILES, "README.md"])


def test_a_folder_that_cannot_be_written_is_one_line(here):
    Path("file").touch()
    with pytest.raises(UserError, match="cannot write file/my_survey"):
        write("my_survey", Path("file/my_survey"))


def test_the_files_of_the_template_name_nothing_of_skyset_s_own_place_for_them(here):
    for file in FILES:
        text = rendered(file, "other_survey", None, None, None)
        assert "skyset.template" not in text and "my_survey" not in text.lower() and "MySurvey" not in text
    assert "`mag_r` | float32" in card("other_survey", rendered("my_survey.py", "other_survey", None, None, None))


def test_odd_names_and_words_stay_what_they_are(here):
    """Quotes, backslashes and the template's own words in columns, classes and paths."""
    Path('my_survey "raw"').mkdir()
    for n in range(4):
        Image.new("RGB", (4, 4)).save(f'my_survey "raw"/MySurvey{n}.png')
    with open("My survey.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["name", "ra", "dec", 'a "quoted" \\ name', "skyset.template.x", "größe", "a/b", "image"])
        table.writerows([f"MySurvey{n}", n, n, n, ['my_survey, "x"', "\\"][n % 2], n, n, n] for n in range(4))
    status, text = run("new", "other", "--from", 'my_survey "raw"', "--table", "My survey.csv")
    assert status == 0, text
    for name, why in (("gr\\xf6\\xdfe", "cannot be named"), ("a/b", "cannot be named"), ("image", "of this name")):
        assert f"column '{name}' is left out" in text and why in text
    names = {"__name__": "other"}
    exec(Path("other/other.py").read_text(), names)
    assert names["COLUMNS"][5:] == (
        Column('a "quoted" \\ name', "int64", (), "", "describe me"),
        Column("skyset.template.x", "int64", (), "", "describe me"),
    )
    assert names["CLASSES"] == {"skyset.template.x": ("\\", 'my_survey, "x"')}
    assert """FOLDER, TABLE = "my_survey \\"raw\\"", "My survey.csv\"""" in Path("other/build_other.py").read_text()
