"""Where samples are in an archive: those of other people's writers, and every kind of damage."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.building.tars.read import BLOCK, TarError, index, read_sample
from skyset.building.tars.sink import packed
from tests.samples import fill, members

# --- reading ------------------------------------------------------------------------------------------------

NAMES = st.text("abcdefgh_-", min_size=1, max_size=8)
FOLDERS = st.sampled_from(["", "deep/", "a.b/", "long" * 40 + "/", "ünï/"])
SAMPLES = st.dictionaries(
    st.builds(lambda folder, name: folder + name, FOLDERS, NAMES),
    st.dictionaries(st.sampled_from(["jpg", "json", "seg.png", "cls"]), st.binary(max_size=1500), min_size=1),
    max_size=6,
)


@given(samples=SAMPLES, form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
@settings(max_examples=100, deadline=None)
def test_archives_of_others(tmp_path_factory, samples, form):
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    with tarfile.open(path, "w", format=form) as tar:
        tar.addfile(folder_info("./"))
        for key, files in samples.items():
            for extension, data in files.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size, info.mtime = len(data), 1234.5678
                tar.addfile(info, io.BytesIO(data))
        tar.addfile(tarfile.TarInfo("README"), io.BytesIO())
    found = {sample.key: read_sample(path, sample.start, sample.length) for sample in index(path)}
    assert found == samples
    assert list(found) == list(samples)


def folder_info(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def test_offsets_are_those_of_tarfile(tmp_path):
    fill(tmp_path, range(4))
    path = tmp_path / "images-00000.tar"
    with tarfile.open(path) as tar:
        expected = [(member.name, member.offset_data, member.size) for member in tar]
    samples = list(index(path))
    assert [(f"{s.key}.{m.extension}", m.offset, m.size) for s in samples for m in s.members] == expected
    assert {sample.archive for sample in samples} == {path.name}
    assert read_sample(path, samples[2].start, samples[2].length) == members(2)
    for start, length in ((0, 100), (512, 512), (samples[0].start, samples[0].length + samples[1].length), (0, 10**6)):
        with pytest.raises(TarError):
            read_sample(path, start, length)


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar")
@pytest.mark.parametrize("form", ["gnu", "ustar", "pax", "v7"])
def test_archives_of_tar(tmp_path, form):
    for key in range(3):
        for extension, data in members(key).items():
            (tmp_path / f"{key}.{extension}").write_bytes(data)
    path = tmp_path / "x.tar"
    subprocess.run(
        ["tar", f"--format={form}", "-cf", path, "--sort=name", "--exclude=x.tar", "-C", tmp_path, "."], check=True
    )
    assert {s.key: read_sample(path, s.start, s.length) for s in index(path)} == {str(key): members(key) for key in range(3)}
    fill(tmp_path / "ours", range(3))
    listing = subprocess.run(
        ["tar", "-tf", tmp_path / "ours" / "images-00000.tar"], check=True, capture_output=True, text=True
    )
    assert listing.stdout.split() == [f"{key}.{kind}" for key in range(3) for kind in ("jpg", "json")]
    assert listing.stderr == ""


def odd(kind):
    """An archive with one thing that is not a plain sample."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        names = {"absolute": "/etc/a.jpg", "parent": "a/../../b.jpg", "again": "1.jpg", "same member": "2.jpg"}
        for name in ("1.jpg", "2.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        if kind in names:
            info = tarfile.TarInfo(names[kind])
        else:
            info = tarfile.TarInfo("3.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    return file.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
        "absolute",
        "parent",
        "again",
        "same member",
    ],
)
def test_odd_members(tmp_path, kind):
    path = tmp_path / "x.tar"
    path.write_bytes(odd(kind))
    with pytest.raises(TarError, match=r"x\.tar: at byte [12],\d{3}: "):
        list(index(path))


def test_sizes_beyond_the_file(tmp_path):
    path = tmp_path / "x.tar"
    info = tarfile.TarInfo("1.jpg")
    info.size = 10**9
    path.write_bytes(info.tobuf() + bytes(2 * BLOCK))
    with pytest.raises(TarError, match="at byte 0: truncated"):
        list(index(path))


@given(place=st.floats(0, 1), change=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=150, deadline=None)
def test_damage_is_named(tmp_path_factory, place, change, cut):
    """A changed header or a missing end never passes, and nothing but TarError is raised."""
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    data = bytearray(packed("1", members(1)) + packed("2", members(2)) + bytes(2 * BLOCK))
    whole = [("1", members(1)), ("2", members(2))]
    position = min(int(place * len(data)), len(data) - 2 * BLOCK - 1)
    data[position] ^= change
    path.write_bytes(data[:position] if cut else data)
    try:
        found = [(sample.key, read_sample(path, sample.start, sample.length)) for sample in index(path)]
    except TarError:
        return
    assert not cut
    changed = 0
    for (key, files), (wanted, contents) in zip(found, whole, strict=True):
        assert (key, list(files)) == (wanted, list(contents))
        changed += sum(a != b for name in files for a, b in zip(files[name], contents[name], strict=True))
    assert changed <= 1


def extended(kind, records, size=None):
    """An extended header, its size as stated."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, len(records) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + records + bytes(-len(records) % BLOCK)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (extended(tarfile.XHDTYPE, b"", 1 << 40), "a header of"),
        (extended(tarfile.XHDTYPE, b"", -5000), "a header of"),
        (extended(tarfile.XHDTYPE, b"12 size=abc\n"), "no size: 'abc'"),
        (extended(tarfile.XHDTYPE, b"13 size=9999\n"), "truncated"),
        (extended(tarfile.XHDTYPE, b"18 path=../../etc\n"), "leads out"),
        (extended(tarfile.XHDTYPE, b"22 GNU.sparse.map=0,3\n"), "of type"),
        (extended(tarfile.XGLTYPE, b"14 path=a.jpg\n"), "a global header"),
        (extended(tarfile.XHDTYPE, b"10 path=x\n") * 2000, "damaged"),
        (extended(tarfile.GNUTYPE_LONGNAME, b"\xff\xfe.jpg\0"), "damaged"),
    ],
    ids=["long", "negative", "no size", "size", "path", "sparse", "global", "many", "not text"],
)
def test_extended_headers_are_not_believed(tmp_path, header, reason):
    path = tmp_path / "x.tar"
    path.write_bytes(header + packed("1", members(1)) + bytes(2 * BLOCK))
    with pytest.raises(TarError, match=reason):
        list(index(path))


def test_what_is_before_the_damage_is_given_first(tmp_path):
    path, found = tmp_path / "x.tar", []
    data = packed("1", members(1)) + packed("2", members(2))
    path.write_bytes(data + b"x" * BLOCK + packed("3", members(3)) + bytes(2 * BLOCK))
    with pytest.raises(TarError, match=f"at byte {len(data):,}: damaged"):
        found.extend(index(path))
    assert [sample.key for sample in found] == ["1", "2"]


def test_tar_error_is_an_error_of_a_file():
    error = TarError(Path("a.tar"), 512, "why")
    assert str(error) == "a.tar: at byte 512: why"
