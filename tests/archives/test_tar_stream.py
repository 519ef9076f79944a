"""TARs as they come: of all kinds, cut anywhere, of any length."""

import io
import tarfile
import tracemalloc

import pytest

from skyset.archives.tar_stream import Broken, members


def tar(*names, size=100, form=tarfile.GNU_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif name.endswith("link"):
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(member)
            else:
                member.size = size
                archive.addfile(member, io.BytesIO(name[:1].encode() * size))
    return file.getvalue()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_all_kinds_are_read(form):
    long = "a/" + "b" * 98 if form == tarfile.USTAR_FORMAT else "a" * 70 + "/" + "b" * 120 + "é"
    data = tar("f/", "f/1.fits", long, "2.fits", "alink", form=form)
    found = list(members(io.BufferedReader(io.BytesIO(data)), 1000))
    assert [name for name, _ in found] == ["f/1.fits", long, "2.fits", "alink (a link or device)"]
    assert [len(content) for _, content in found] == [100, 100, 100, 0]


@pytest.mark.parametrize("size", [0, 100, 512, 600, 1024, 1024 + 512, 2048])
def test_a_tar_that_ends_anywhere_before_its_end_mark_is_broken(size):
    data = tar("1.fits", "2.fits")[:size]
    with pytest.raises(Broken, match="ends in the middle"):
        list(members(io.BytesIO(data), 1000))


@pytest.mark.parametrize(
    "data, words",
    [
        (b"<!DOCTYPE html><html>".ljust(512), "an HTML page"),
        (b"x" * 512, "a damaged TAR"),
        (tar("1.fits", size=2000), r"1.fits has 2,000 bytes, more than 1,000"),
    ],
)
def test_what_is_no_tar_of_cutouts_is_broken(data, words):
    with pytest.raises(Broken, match=words):
        list(members(io.BytesIO(data), 1000))


def test_a_header_of_any_length_is_not_read():
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    with pytest.raises(Broken, match="more than 4,096"):
        list(members(io.BytesIO(member.tobuf(tarfile.GNU_FORMAT)), 1 << 50))


class Endless(io.RawIOBase):
    """A TAR of many members, made as it is read."""

    def __init__(self, count, size):
        header = tarfile.TarInfo("1-cutout-HSC-I-1-x.fits")
        header.size = size
        self.member = header.tobuf(tarfile.USTAR_FORMAT) + bytes(size + -size % 512)
        self.left, self.rest = count, b""

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self.rest:
            self.left -= 1
            self.rest = self.member if self.left >= 0 else bytes(10240)
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def test_memory_does_not_grow_with_the_answer():
    tracemalloc.start()
    try:
        count = sum(1 for _ in members(io.BufferedReader(Endless(3000, 66_240), 1 << 14), 1 << 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 3000  # 200 MB
    assert peak < 2 << 20
