"""What is noted of files comes back as it was; frames that are cut or damaged do not."""

import h5py
import numpy as np
import pytest

from skyset.adopting.journal import Journal, noted_stamps, stamp_of
from skyset.adopting.notes import packed, unpacked
from skyset.adopting.scan import Places, TreeFile, files_of
from skyset.adopting.worker import Asked, look_at
from skyset.errors import UserError
from skyset.testing.mmu import write


def looks_of(folder):
    places = Places(folder)
    files = [each for each in files_of(folder) if isinstance(each, TreeFile)]
    return look_at(Asked(str(folder)), [(each, places.of(each.path).cell) for each in files])


def same(one, other):
    """Whether two looks are alike, arrays by value."""
    assert repr(one) == repr(other)
    np.testing.assert_array_equal(one.digests, other.digests)
    assert one.digests.dtype == other.digests.dtype
    for a, b in zip(one.units, other.units, strict=True):
        assert a.arrays == b.arrays and a.values.keys() == b.values.keys()
        for name, value in a.values.items():
            assert value.dtype == b.values[name].dtype
            np.testing.assert_array_equal(value, b.values[name])


@pytest.mark.parametrize("kind", ["legacysurvey", "plasticc", "chandra", "yse", "csp", "manga"])
def test_notes_both_ways(tmp_path, kind):
    write(kind, tmp_path / kind, rows=3, cells=2)
    h5py.File(tmp_path / kind / "other.hdf5", "w").close()
    (tmp_path / kind / "broken.hdf5").write_text("x")
    looks = looks_of(tmp_path / kind)
    for one, other in zip(looks, unpacked(packed(looks)), strict=True):
        same(one, other)


def test_notes_with_faults_both_ways(tmp_path):
    write("gaia", tmp_path / "gaia", rows=5, cells=2, faults=["wrong_cell", "zero_rows", "nan_position"])
    looks = looks_of(tmp_path / "gaia")
    assert any(look.strays for look in looks) and any(look.found for look in looks)
    for one, other in zip(looks, unpacked(packed(looks)), strict=True):
        same(one, other)


def test_frames_are_found_by_their_files_and_by_names(tmp_path):
    write("gaia", tmp_path / "gaia", cells=3)
    looks = looks_of(tmp_path / "gaia")
    files = [look.file for look in looks]
    with Journal(tmp_path / "index") as journal:
        journal.append(looks[:2], None, False)
        journal.append(looks[2:], None, False)
    with Journal(tmp_path / "index") as journal:
        frame = journal.find(stamp_of(files[:2], None, False))
        assert frame is not None and [look.file for look in journal.read(frame)] == files[:2]
        assert journal.find(stamp_of(files[:2], None, True)) is None and journal.find(stamp_of(files, None, False)) is None
        changed = TreeFile(files[0].path, files[0].bytes, files[0].mtime + 1)
        assert set(journal.known([changed, *files[1:]], None, False)) == {each.path for each in files[1:]}
        assert journal.known(files, None, True) == {}
    assert noted_stamps(tmp_path / "index") == {each.path: each.stamp for each in files}


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_frame_that_was_cut_is_dropped(tmp_path, cut):
    write("gaia", tmp_path / "gaia", cells=3)
    looks = looks_of(tmp_path / "gaia")
    with Journal(tmp_path / "index") as journal:
        for look in looks:
            journal.append([look], None, False)
    path = tmp_path / "index/adopted.journal"
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(tmp_path / "index") as journal:
        assert len(journal.known([look.file for look in looks], None, False)) == 2
        journal.append(looks[2:], None, False)
        assert len(journal.known([look.file for look in looks], None, False)) == 3


def test_damaged_notes_are_not_believed(tmp_path):
    write("gaia", tmp_path / "gaia", cells=1)
    looks = looks_of(tmp_path / "gaia")
    with Journal(tmp_path / "index") as journal:
        journal.append(looks, None, False)
    path = tmp_path / "index/adopted.journal"
    data = bytearray(path.read_bytes())
    data[-10] ^= 255
    path.write_bytes(data)
    with Journal(tmp_path / "index") as journal:
        assert journal.known([look.file for look in looks], None, False) == {}
    path.write_bytes(b"something else")
    with Journal(tmp_path / "index") as journal:
        assert journal.find("x") is None


def test_what_is_not_of_the_tree_any_more_goes(tmp_path):
    write("gaia", tmp_path / "gaia", cells=1)
    looks = looks_of(tmp_path / "gaia")
    with Journal(tmp_path / "index") as journal:
        frames = [journal.append(looks, None, False) for _ in range(3000)]
        journal.tidy(frames[-1:])
        frame = journal.find(stamp_of([look.file for look in looks], None, False))
        assert frame is not None and [look.file for look in journal.read(frame)] == [look.file for look in looks]
    assert (tmp_path / "index/adopted.journal").stat().st_size < 10_000


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write"):
        Journal(tmp_path / "file/index")
