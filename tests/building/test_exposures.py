"""The options that say which exposures are wanted."""

import argparse

import pytest

from skyset.archives.cadc import HOST
from skyset.archives.cadc_query import ExposureQuery
from skyset.building.exposures import add_cadc_options, exposures_asked
from skyset.errors import UserError
from skyset.secrets import login_of, remember


def asked(*arguments):
    parser = argparse.ArgumentParser()
    add_cadc_options(parser.add_argument)
    return parser.parse_args(arguments)


def test_what_is_asked_by_default():
    assert exposures_asked(asked(), limit=3) == ExposureQuery(limit=3)
    assert (asked().archive_url, asked().datalink, asked().sync) == (HOST, False, False)


def test_every_option_says_something(tmp_path):
    words = "--ids 979412p 979413 --kind o --program 08AC14 D3 --dates 2008-03-30 2008-04-01 --filter r i.MP9702 --type flat"
    assert exposures_asked(asked(*words.split())) == ExposureQuery(
        ids=("979412p", "979413"),
        kind="o",
        programs=("08AC14", "D3"),
        dates=("2008-03-30", "2008-04-01"),
        filters=("r", "i.MP9702"),
        type="flat",
    )
    path = tmp_path / "own.adql"
    path.write_text("SELECT productID FROM caom2.Plane")
    assert exposures_asked(asked("--adql", str(path))).adql == path.read_text()


def test_what_cannot_be_asked(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        exposures_asked(asked("--adql", str(tmp_path / "own.adql")))
    with pytest.raises(UserError, match="is no exposure"):
        exposures_asked(asked("--ids", "979412.fits"))


def test_a_login_is_no_part_of_the_address():
    assert asked("--archive_url", "http://somebody:W0rdpass@127.0.0.1:1").archive_url == "http://127.0.0.1:1"
    assert login_of("http://127.0.0.1:1/argus") == ("somebody", "W0rdpass")
    remember("http://127.0.0.1:1", None)
