"""Raw files are read as far as their headers tell, and only files are."""

import gzip
import io
import os
import socket
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from skyset.errors import RecordError
from skyset.raw import MAX_BYTES, gunzip, open_fits, open_regular, read_header, read_regular


def fits_bytes(*hdus):
    with tempfile.NamedTemporaryFile(suffix=".fits") as file:  # in memory, astropy writes no groups
        fits.HDUList(list(hdus)).writeto(file.name, overwrite=True)
        return Path(file.name).read_bytes()


def cards(*lines, end=True):
    """A header of these cards, padded to whole blocks."""
    text = "".join(line.ljust(80) for line in (*lines, *(["END"] if end else [])))
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


PRIMARY = ("SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0")
TABLE = fits.BinTableHDU.from_columns([fits.Column("a", "PJ()", array=np.array([[1, 2], [3]], dtype=object))])
GROUPS = fits.GroupsHDU(fits.GroupData(np.ones((4, 3, 2), ">f4"), parnames=["p"], pardata=[np.arange(4.0)], bitpix=-32))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.fits.gz"


def peak(path) -> tuple[str, int]:
    """What reading a file ends in, and the most memory it took, MB."""
    tracemalloc.start()
    try:
        with open_fits(path):
            reason = ""
    except RecordError as error:
        reason = str(error)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return reason, most >> 20


@pytest.mark.parametrize(
    "hdus",
    [
        [fits.PrimaryHDU()],
        [fits.PrimaryHDU(np.arange(60, dtype=np.int16).reshape(3, 4, 5)), fits.ImageHDU(np.ones((7, 9)))],
        [fits.PrimaryHDU(), TABLE, fits.ImageHDU(np.ones((3, 3), np.float32))],
        [fits.PrimaryHDU(), fits.CompImageHDU(np.arange(10000, dtype=np.int32).reshape(100, 100))],
        [GROUPS],
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_all_hdus_of_every_kind_are_read(tmp_path, hdus, packed):
    data = fits_bytes(*hdus)
    path = tmp_path / f"x.fits{'.gz' * packed}"
    path.write_bytes(gzip.compress(data) if packed else data)
    with open_fits(path) as found, fits.open(io.BytesIO(data)) as wanted:
        assert len(found) == len(wanted)
        assert fits.FITSDiff(found, wanted).identical


def test_what_follows_the_last_hdu_is_not_taken(path):
    data = fits_bytes(fits.PrimaryHDU(np.ones((10, 10))))
    path.write_bytes(gzip.compress(data + bytes(200 << 20), 1))
    reason, most = peak(path)
    assert reason == "" and most < 10
    path.write_bytes(gzip.compress(data + bytes(300 << 20), 1))
    reason, most = peak(path)
    assert reason == f"unpacks to more than {MAX_BYTES} bytes" and most < 10


@pytest.mark.parametrize(
    "content, reason",
    [
        (bytes(300 << 20), f"unpacks to more than {MAX_BYTES} bytes"),
        (cards(*PRIMARY, *["COMMENT x"] * 20000, end=False), "not readable as FITS: a header without an END in its first"),
        (cards(*PRIMARY[:2], "NAXIS   = 2", "NAXIS1  = 99999999", "NAXIS2  = 99999999"), "its headers tell of 999999"),
        (cards(*PRIMARY[:2], "NAXIS   = 1", "NAXIS1  = 999999999999999999") + bytes(9 << 20), "its headers tell of 1000000"),
        (cards(*PRIMARY) + cards("XTENSION= 'IMAGE   '", "BITPIX  = 64", "NAXIS   = 1", "NAXIS1  = 99999999"), "its"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_bombs_take_no_memory(tmp_path, content, reason, packed):
    path = tmp_path / f"x.fits{'.gz' * packed}"
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    found, most = peak(path)
    assert found.startswith(reason if packed or "unpacks" not in reason else "not readable as FITS")
    assert most < 16


def test_a_large_file_that_is_none_is_refused_by_its_first_bytes(tmp_path):
    for name, reason in {"x.fits.gz": "not a gzip file", "x.fits": "not readable as FITS: "}.items():
        with open(tmp_path / name, "wb") as file:
            file.truncate(3 << 30)
        found, most = peak(tmp_path / name)
        assert found.startswith(reason) and most < 10


def test_gzip_data_in_many_members(path):
    data = fits_bytes(fits.PrimaryHDU(np.arange(10000.0)))
    path.write_bytes(b"".join(gzip.compress(data[at : at + 1000]) for at in range(0, len(data), 1000)) + bytes(100))
    with open_fits(path) as hdus:
        assert np.array_equal(hdus[0].data, np.arange(10000.0))
    assert gunzip(path.read_bytes()) == data


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, what in {"pipe": "named pipe", "folder": "folder", "device": "device", "socket": "socket"}.items():
            with pytest.raises(OSError, match=f"a {what}, not a regular file"):
                open_regular(tmp_path / name)
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"abc"
    assert read_regular(tmp_path / "file", 3) == b"abc"
    with pytest.raises(RecordError, match="3 bytes, more than 2"):
        read_regular(tmp_path / "file", 2)


def test_headers_of_many_blocks():
    long = cards(*PRIMARY, *[f"COMMENT {n}" for n in range(5000)])
    assert read_header(io.BytesIO(long + bytes(2880))) == long
    assert read_header(io.BytesIO(b"")) == b"" and read_header(io.BytesIO(bytes(9000))) == bytes(2880)
    assert read_header(io.BytesIO(long[:5000])) == long[:5000]
    with pytest.raises(RecordError, match="without an END in its first 28800 bytes"):
        read_header(io.BytesIO(long), 28800)
