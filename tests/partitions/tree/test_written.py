"""Times of a tree's files: those that were noted come back, whatever the paths are; damage is one line."""

import numpy as np
import pytest

from skyset.errors import PartitionError
from skyset.partitions.tree.written import WrittenFile, write_times


def test_times_by_path(tmp_path):
    times = {f"healpix={cell}/é {cell}.h5": cell * 10**9 - 5 for cell in range(-3, 1000)}
    write_times(tmp_path / "written.npy", times)
    file = WrittenFile(str(tmp_path / "written.npy"))
    assert {path: file.time_of(path) for path in times} == times
    assert file.time_of("") is file.time_of("healpix=5/é 6.h5") is None
    write_times(tmp_path / "written.npy", {})
    assert WrittenFile(str(tmp_path / "written.npy")).time_of("a") is None


@pytest.mark.parametrize(
    "damage", [b"", b"\x93NUMPY", np.zeros((2, 3)), np.zeros((3, 3), "<u8"), np.array(["a"], object), np.zeros(2, "<u8")]
)
def test_damage_is_one_line(tmp_path, damage):
    path = tmp_path / "written.npy"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        np.save(path, damage, allow_pickle=True)
    with pytest.raises(PartitionError, match=r"written.npy is damaged: .*: run `skyset adopt` again") as caught:
        WrittenFile(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_damaged(tmp_path):
    path = tmp_path / "written.npy"
    write_times(path, {f"{number}": number for number in range(100)})
    whole = path.read_bytes()
    for size in (1, 9, 60, 127, 129, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(PartitionError, match="damaged"):
            WrittenFile(str(path))
