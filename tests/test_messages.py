"""What is printed or written for people."""

import pytest

from skyset.archives.fetch import FetchError
from skyset.building.tars.read import TarError
from skyset.errors import PartitionError, RecordError, UserError
from skyset.messages import csv_cell, listed, plain, say
from skyset.pixels import ImageError

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\nb\tc\0d\x9be\u202ef\u2028g\x7f\udc80"
SPELT = r"a\x1b[31mred\x1b]0;title\x07 b c\x00d\x9be\u202ef g\x7f\udc80"


def test_nothing_that_a_terminal_obeys_is_left():
    assert plain(HOSTILE) == SPELT and plain(HOSTILE).isprintable()
    assert plain("Zürich  α Cen 10″") == "Zürich  α Cen 10″"
    assert plain(ValueError("x\ny")) == "x y"


def test_long_texts_are_cut():
    assert plain("x" * 3000) == "x" * 1996 + " ..." and plain("abcdefgh", 6) == "ab ..."
    assert len(plain("x\0" * 10_000_000)) == 2000


@pytest.mark.parametrize(
    "error",
    [
        UserError(HOSTILE),
        RecordError(HOSTILE),
        PartitionError(HOSTILE),
        ImageError(HOSTILE, passing=True),
        FetchError("http://h/", HOSTILE),
        FetchError(HOSTILE, "no"),
        TarError("x.tar", 512, HOSTILE),
    ],
)
def test_every_exception_of_ours_is_one_plain_line(error):
    assert SPELT in str(error) and str(error).isprintable()
    assert "http://u:Pa55word@h/" not in str(type(error)("http://u:Pa55word@h/", *error.args[1:]))


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "=cmd", "-"])
def test_a_cell_is_no_formula(text):
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-12.5", "+020924", "-1e-5", "J000411.19+020924.0", "1-106630_127", ""])
def test_a_cell_that_is_a_number_or_name_stays(text):
    assert csv_cell(text) == text


def test_of_many_names_the_first_are_listed():
    assert listed(["a", "b"]) == "a, b"
    assert listed([f"c{n}" for n in range(25)], 3) == "c0, c1, c2 and 22 more"


def test_say(capsys):
    say(HOSTILE)
    assert capsys.readouterr().out == SPELT + "\n"
