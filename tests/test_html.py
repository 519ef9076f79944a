"""Pages for people are recognised however they begin, and nothing else is; what is written as HTML is escaped."""

import gzip

import pytest

from skyset.html import HEAD_BYTES, Html, element, is_html

PAGES = [
    b"<html>down</html>",
    b"<!DOCTYPE html>\n<html>",
    b"  \r\n<!doctype HTML PUBLIC '-//W3C//DTD HTML 4.01//EN'>",
    b"\xef\xbb\xbf<HTML lang='en'>",
    b"<?xml version='1.0' encoding='UTF-8'?>\n<!DOCTYPE html>\n<html xmlns='http://www.w3.org/1999/xhtml'>",
    b"<!-- login -->\n<!-- please -->\n<html>",
    b"<html>" + bytes(2 * HEAD_BYTES),
]
OTHERS = [
    b"",
    b"SIMPLE  =                    T",
    b"<?xml version='1.0'?><VOTABLE xmlns='http://www.ivoa.net/xml/VOTable/v1.3'>",
    b"<!DOCTYPE svg><svg>",
    b"<htmlish>",
    b"name,comment\nJ1,<html>\n",
    b"<!-- " + b"x" * HEAD_BYTES,
    gzip.compress(b"<html>"),
]


@pytest.mark.parametrize("head", PAGES, ids=range(len(PAGES)))
def test_pages(head):
    assert is_html(head)


@pytest.mark.parametrize("head", OTHERS, ids=range(len(OTHERS)))
def test_what_is_none(head):
    assert not is_html(head)


def test_no_text_becomes_part_of_what_is_written():
    made = element("a", "<b>", ["x", Html("<i>y</i>")], None, 3, href='"><script>', hidden=True, title=False, data_id=2)
    assert made == '<a href="&quot;&gt;&lt;script&gt;" hidden data-id="2">&lt;b&gt;x<i>y</i>3</a>'
    assert element("p", "a\x1b[0m\nb", "http://me:secretpassword@h/") == "<p>a\\x1b[0m bhttp://***@h/</p>"
    assert element("br") == "<br>"
