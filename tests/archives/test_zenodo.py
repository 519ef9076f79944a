"""What Zenodo's API says of a record, and what it never says."""

import json

import pytest

from skyset.archives.fetch import Fetcher
from skyset.archives.zenodo import RecordFile, record_files
from skyset.errors import UserError
from skyset.testing.server import RawServer

MD5 = "md5:" + "12ab" * 8
FILE = {"key": "a.csv", "links": {"self": "https://host/a.csv"}, "size": 12, "checksum": MD5}


def asked(answer):
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer.encode())}\r\n\r\n"
    with RawServer.saying((head + answer).encode()) as server, Fetcher(retries=0, timeout=(20, 20)) as network:
        return record_files(network, 123, server.url)


def test_files_of_a_record():
    assert asked(json.dumps({"files": [FILE]})) == {"a.csv": RecordFile("a.csv", "https://host/a.csv", 12, MD5)}


def test_a_login_in_an_address_of_the_answer_is_no_part_of_it():
    (file,) = asked(json.dumps({"files": [FILE | {"links": {"self": "https://a:b@host/a.csv"}}]})).values()
    assert file.url == "https://host/a.csv"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"files": 3}',
        '{"files": [{}]}',
        "<html></html>",
        '{"files": [null]}',
        *(
            json.dumps({"files": [FILE | changes]})
            for changes in (
                {"size": float("inf")},
                {"size": float("nan")},
                {"size": -1},
                {"size": "many"},
                {"key": "../a"},
                {"key": "a\x1b[31m"},
                {"key": "a\\b"},
                {"key": ""},
                {"key": 3},
                {"links": {"self": "file:///etc/passwd"}},
                {"links": {"self": 3}},
                {"checksum": "md5:xyz"},
                {"checksum": "crc:12"},
                {"checksum": None},
                {"links": []},
            )
        ),
        '{"files": [{"size": ' + "9" * 5000 + "}]}",
    ],
)
def test_an_answer_of_another_kind_is_one_line(answer):
    with pytest.raises(UserError, match="does not answer as Zenodo's API does") as caught:
        asked(answer)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_an_answer_without_end(monkeypatch):
    monkeypatch.setattr("skyset.archives.zenodo.LARGEST_ANSWER", 1000)
    with pytest.raises(UserError, match="more than the 1,000 allowed"):
        asked(json.dumps({"files": [FILE] * 100}))
