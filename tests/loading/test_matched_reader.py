"""Matched rows are read where they lie: pixels of matched rows alone, from a disk and from a server, in every layout."""

import numpy as np
import pytest

import skyset
from skyset.errors import PartitionError, UserError
from skyset.partitions.remote_file import RemoteFile
from skyset.survey import Column
from skyset.testing.server import ArchiveServer
from tests.matched import cutouts, declared, write_survey

ROWS = 120
SURVEY = declared(
    "mixed",
    Column("image", "float32", (3, 40, 40)),
    Column("png", "bytes", (), "", "", 3000),
    *(Column(f"flux_{n}", "float64") for n in range(20)),
)
PIXELS = cutouts(ROWS)


def encoded(row):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(row).integers(0, 255, (12, 10 + row % 7, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


PNGS = [encoded(row) for row in range(ROWS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``whole`` in few files, ``few`` with every ninth object of it, ``packed`` as ``whole`` but compressed."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 1.0, ROWS), rng.uniform(0, 1.0, ROWS)
    values = {"image": PIXELS, "png": PNGS} | {f"flux_{n}": np.arange(ROWS) + 1000.0 * n for n in range(20)}
    write_survey(folder / "whole", SURVEY, ra, dec, 20, **values)
    write_survey(folder / "packed", SURVEY, ra, dec, compression="gzip", **values)
    few = declared("few", Column("number", "int64"))
    numbers = np.append(np.arange(0, ROWS, 9), 0)
    write_survey(folder / "few", few, ra[numbers], dec[numbers], number=numbers)
    return folder


def check(stream):
    numbers = []
    for row in stream:
        number = int(row["few.number"])
        numbers.append(number)
        assert np.array_equal(row["mixed.image"], PIXELS[number]) and row["mixed.image"].dtype == np.float32
        assert row["mixed.png"] == PNGS[number]
        assert row["mixed.flux_7"] == number + 7000 and row["mixed.object_id"] == f"mixed{number}"
    assert sorted(numbers) == sorted([*range(0, ROWS, 9), 0])
    return numbers


@pytest.mark.parametrize("name", ["whole", "packed"])
def test_every_layout_in_order_and_shuffled(folder, name):
    for sides in ((folder / name, folder / "few"), (folder / "few", folder / name)):
        stream = skyset.crossmatch(*sides, radius=0.1)
        assert check(stream.shuffle(seed=3)) != check(stream)


def test_from_a_server_pixels_of_matched_rows_alone_are_fetched(folder, monkeypatch):
    fetched = []
    whole = RemoteFile.read
    monkeypatch.setattr(
        RemoteFile, "read", lambda self, parts: fetched.extend(p[1].nbytes for p in parts) or whole(self, parts)
    )
    with ArchiveServer(folder) as server:
        stream = skyset.crossmatch(f"{server.url}whole", folder / "few", radius=0.1)
        assert max(fetched, default=0) <= ROWS * 8
        for each in (stream, stream.shuffle(seed=1)):
            fetched.clear()
            check(each)
            pixels = sum(size for size in fetched if size >= PIXELS[0].nbytes)
            assert pixels == len(range(0, ROWS, 9)) * PIXELS[0].nbytes
        server.latency = 0.05
        server.clear()
        check(stream)
        assert server.max_concurrent > 4, "rows are fetched at the same time"


def test_a_cache_keeps_what_a_server_gave(folder, tmp_path):
    with ArchiveServer(folder) as server:
        options = {"radius": 0.1, "cache_dir": str(tmp_path), "cache_limit": "20MB"}
        check(skyset.crossmatch(f"{server.url}whole", folder / "few", **options))
        server.clear()
        stream = skyset.crossmatch(f"{server.url}whole", folder / "few", **options)
        check(stream)
        check(stream.shuffle(seed=1))
        assert {request.path for request in server.requests} == {"/whole/manifest.json"}
        with pytest.raises(UserError, match="cache_limit must be"):
            skyset.crossmatch(f"{server.url}whole", folder / "few", cache_limit="much")
    assert (tmp_path / "skyset_blocks").is_dir()


def test_a_side_that_is_damaged_is_named_or_skipped(folder, tmp_path):
    import shutil

    shutil.copytree(folder / "whole", tmp_path / "whole")
    again = skyset.crossmatch(tmp_path / "whole", folder / "few", radius=0.1, on_bad_partition="skip")
    before = skyset.crossmatch(tmp_path / "whole", folder / "few", radius=0.1)
    first = next(row for row in before if row["few.number"] == 0)["mixed.healpix"]
    file = next((tmp_path / "whole").glob(f"healpix={first}/001-*"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(PartitionError, match=file.name):
        list(before)
    with pytest.warns(UserWarning, match="skipped"):
        rows = list(again)
    assert 0 < len(rows) < len(again) == len(rows) + sum(again.skipped.values())
    with pytest.raises(UserError, match=file.name):
        skyset.crossmatch(tmp_path / "whole", folder / "few", radius=0.1)
    with pytest.warns(UserWarning, match="skipped"):
        after = skyset.crossmatch(tmp_path / "whole", folder / "few", radius=0.1, on_bad_partition="skip")
    assert len(list(after)) == len(rows)
