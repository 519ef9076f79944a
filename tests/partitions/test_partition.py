"""What is written comes back value by value, and a file that is not what it should be is refused by name."""

import hashlib
import os

import astropy_healpix
import h5py
import numpy as np
import pytest
from astropy import units
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from skyset.errors import PartitionError, RecordError, UserError
from skyset.partitions.layout import COMPRESSIONS, cell_of_path, compression_options, object_path, partition_path
from skyset.partitions.partition import Partition, decoded
from skyset.partitions.writer import PartitionWriter
from skyset.sky import check_position, healpix_cell
from skyset.survey import Column

DTYPES = ("uint8", "int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64", "bool", "S7")
ROWS = 5
COLUMNS = (
    Column("id", "S8", (), "", "name"),
    Column("flux", "float32", (3,), "nJy", "flux in three bands"),
    Column("image", "uint8", (80, 80), "count", "pixels: large enough to be written as they come"),
)


def rows_of(count, columns=COLUMNS, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            c.name: np.asarray(f"row{k}".encode(), c.dtype) if c.is_text else rng.integers(0, 100, c.shape).astype(c.dtype)
            for c in columns
        }
        for k in range(count)
    ]


def write(path, records, columns=COLUMNS, planned=None, **options):
    with PartitionWriter(path, columns, planned or len(records), **options) as writer:
        for record in records:
            writer.append(record)
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "healpix=7" / "001-of-001.hdf5", rows_of(ROWS))


# --- writer and reader --------------------------------------------------------------------------------------


@st.composite
def tables(draw):
    """A table of columns of any dtype and shape, pixels among them, and rows for it."""
    shapes = arrays.array_shapes(min_dims=0, max_dims=3, max_side=4)
    columns = [
        Column(f"c{k}", draw(st.sampled_from(DTYPES)), draw(shapes), draw(st.sampled_from(["", "deg"])), f"column {k}")
        for k in range(draw(st.integers(1, 4)))
    ]
    columns.append(Column("pixels", draw(st.sampled_from(["uint8", "int16", "float64"])), (64, 65)))
    count = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    records = [{c.name: any_value(rng, c) for c in columns} for _ in range(count)]
    return columns, records


def any_value(rng, column):
    dtype = np.dtype(column.dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, column.shape).astype(bool)
    if dtype.kind == "S":
        return rng.choice([b"", b"a", b"seven_7"], column.shape).astype(dtype)
    return np.frombuffer(rng.bytes(column.row_bytes), dtype).reshape(column.shape)  # NaN and infinities too


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(COMPRESSIONS), st.integers(0, 3))
def test_what_is_written_comes_back_bit_by_bit(tmp_path_factory, table, compression, missing):
    columns, records = table
    path = tmp_path_factory.mktemp("any") / "healpix=0" / "001-of-001.hdf5"
    write(path, records, columns, planned=len(records) + missing, compression=compression)
    with Partition(path, columns, trusted_rows=len(records)) as partition:
        assert partition.rows == len(records)
        for column in columns:
            expected = np.array([record[column.name] for record in records])
            assert partition.read(column.name).dtype == np.dtype(column.dtype)
            assert partition.read(column.name).tobytes() == expected.astype(column.dtype).tobytes()
            assert partition.record(len(records) - 1)[column.name].tobytes() == expected[-1].tobytes()
    with h5py.File(path) as file:  # the same with nothing but h5py
        for column in columns:
            assert file[column.name][:].tobytes() == np.array([r[column.name] for r in records]).tobytes()
            assert dict(file[column.name].attrs) == {"unit": column.unit, "description": column.description}


def test_pixels_are_contiguous_unless_compressed(path, tmp_path):
    with h5py.File(path) as file:
        assert all(file[c.name].chunks is None and file[c.name].id.get_offset() for c in COLUMNS)
    for compression in COMPRESSIONS[1:]:
        with h5py.File(write(tmp_path / f"{compression}.hdf5", rows_of(ROWS), compression=compression)) as file:
            assert file["image"].chunks == (1, 80, 80)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_same_rows_give_the_same_bytes(tmp_path, compression):
    once = write(tmp_path / "a.hdf5", rows_of(ROWS), compression=compression)
    again = write(tmp_path / "b.hdf5", rows_of(ROWS), compression=compression)
    fewer = write(tmp_path / "c.hdf5", rows_of(ROWS), planned=ROWS + 3, compression=compression)
    assert sha256(once) == sha256(again)
    with Partition(fewer, COLUMNS) as partition:
        assert partition.rows == ROWS
    assert sha256(fewer) == sha256(write(tmp_path / "d.hdf5", rows_of(ROWS), planned=ROWS + 3, compression=compression))


@pytest.mark.parametrize("planned", [ROWS, ROWS + 2])
def test_a_writer_that_fails_in_the_middle_leaves_what_was_there(path, planned):
    before = sha256(path)
    with pytest.raises(ZeroDivisionError), PartitionWriter(path, COLUMNS, planned) as writer:
        for record in rows_of(3, seed=1):
            writer.append(record)
        raise ZeroDivisionError
    assert sha256(path) == before
    assert os.listdir(path.parent) == [path.name]


def test_no_rows_make_no_file(tmp_path):
    with PartitionWriter(tmp_path / "x.hdf5", COLUMNS, 3):
        pass
    assert os.listdir(tmp_path) == []


def test_bytes_that_read_back_otherwise_never_get_the_name(tmp_path, monkeypatch):
    intact = Partition.read
    monkeypatch.setattr(
        Partition,
        "read",
        lambda self, name, *a, **k: intact(self, name, *a, **k) ^ 1 if name == "image" else intact(self, name, *a, **k),
    )
    with pytest.raises(PartitionError, match="image reads back otherwise than it was written"):
        write(tmp_path / "x.hdf5", rows_of(2))
    assert os.listdir(tmp_path) == []


def test_unknown_compression_names_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="unknown compression 'zip': choose one of none, gzip, blosc-lz4, bitshuffle-lz4"):
        write(tmp_path / "x.hdf5", rows_of(1), compression="zip")
    assert os.listdir(tmp_path) == []


def test_compression_without_its_plugin_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "hdf5plugin", None)
    with pytest.raises(UserError, match=r"blosc-lz4 needs hdf5plugin: pip install 'skyset-surveys\[compression\]'"):
        compression_options("blosc-lz4", (8, 8))


# --- reading into one's own array ---------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_read_into_a_layer_of_a_stack(tmp_path, compression):
    path = write(tmp_path / "x.hdf5", rows_of(ROWS), compression=compression)
    stack = np.zeros((ROWS, 4, 80, 80), np.uint8)
    with Partition(path, COLUMNS) as partition:
        answer = partition.read("image", 1, 4, out=stack[1:4, 2])
    expected = np.array([row["image"] for row in rows_of(ROWS)])
    assert np.shares_memory(answer, stack)
    np.testing.assert_array_equal(stack[1:4, 2], expected[1:4])
    stack[1:4, 2] = 0
    assert not stack.any()


@pytest.mark.parametrize("layout", ["every other", "transposed", "other dtype", "fortran"])
def test_any_array_of_the_right_shape_may_be_read_into(path, layout):
    expected = np.array([row["flux"] for row in rows_of(ROWS)])
    out = {
        "every other": np.zeros((2 * ROWS, 3), np.float32)[::2],
        "transposed": np.zeros((3, ROWS), np.float32).T,
        "other dtype": np.zeros((ROWS, 3), np.float64),
        "fortran": np.zeros((ROWS, 3), np.float32, order="F"),
    }[layout]
    with Partition(path, COLUMNS) as partition:
        partition.read("flux", out=out)
        with pytest.raises((ValueError, TypeError)):
            partition.read("flux", out=np.zeros((ROWS, 4), np.float32))
    np.testing.assert_array_equal(out, expected)


def test_scalars_into_a_strided_view_and_more_rows_than_one_system_call_takes(tmp_path):
    columns = (Column("n", "int64"), Column("v", "int32", (2,)))
    count = 3000
    records = [{"n": np.int64(k), "v": np.array([k, -k], np.int32)} for k in range(count)]
    path = write(tmp_path / "x.hdf5", records, columns)
    n, v = np.zeros((count, 2), np.int64), np.zeros((count, 3, 2), np.int32)
    with Partition(path, columns) as partition:
        partition.read("n", out=n[:, 1])
        partition.read("v", out=v[:, 1])
    assert n[:, 1].tolist() == list(range(count))
    assert v[:, 1].tolist() == [[k, -k] for k in range(count)]
    assert not v[:, ::2].any() and not n[:, 0].any()


def test_text_comes_back_as_str(path):
    with Partition(path, COLUMNS) as partition:
        assert partition.text("id") == ["row0", "row1", "row2", "row3", "row4"]
        assert partition.text("id", 3, 4) == ["row3"]
        assert partition.read("id", 2, 2).shape == (0,)


# --- what is refused ----------------------------------------------------------------------------------------


def refused(path, match, columns=COLUMNS, rows=None):
    with pytest.raises(PartitionError, match=match) as info, Partition(path, columns, trusted_rows=rows) as partition:
        for column in columns:
            partition.read(column.name)
    assert str(path) in str(info.value)
    assert "\n" not in str(info.value)


def replaced(path, name, make):
    """The file with column `name` deleted and `make(file)` called."""
    with h5py.File(path, "r+") as file:
        del file[name]
        make(file)
    return path


@pytest.fixture
def secret(tmp_path):
    """Another HDF5 file whose contents must not be reachable."""
    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["image"] = np.ones((ROWS, 80, 80), np.uint8)
    return tmp_path / "secret.hdf5"


def test_external_link_is_refused(path, secret):
    def make(file):
        file["image"] = h5py.ExternalLink(secret, "/image")

    refused(replaced(path, "image", make), "column image is a soft or external link: refused")


def test_soft_link_is_refused(path):
    def make(file):
        file["elsewhere"] = np.ones((ROWS, 80, 80), np.uint8)
        file["image"] = h5py.SoftLink("/elsewhere")

    refused(replaced(path, "image", make), "column image is a soft or external link: refused")


def test_external_storage_is_refused(path, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(ROWS * 80 * 80))

    def make(file):
        file.create_dataset("image", (ROWS, 80, 80), "u1", external=[(tmp_path / "raw", 0, ROWS * 80 * 80)])

    refused(replaced(path, "image", make), "column image keeps its data in another file: refused")


def test_virtual_dataset_is_refused(path, secret):
    def make(file):
        layout = h5py.VirtualLayout((ROWS, 80, 80), "u1")
        layout[:] = h5py.VirtualSource(secret, "image", (ROWS, 80, 80))
        file.create_virtual_dataset("image", layout)

    refused(replaced(path, "image", make), "column image keeps its data in another file: refused")


def test_missing_column_and_group_in_its_place(path):
    refused(replaced(path, "image", lambda file: None), "column image is missing")
    with h5py.File(path, "r+") as file:
        file.create_group("image")
    refused(path, "image is a Group, not a dataset")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.ones((ROWS, 80, 80), np.int16), r"column image is int16\(5, 80, 80\), not uint8\(rows, \*\(80, 80\)\)"),
        (np.ones((ROWS, 80, 81), np.uint8), r"column image is uint8\(5, 80, 81\)"),
        (np.ones((ROWS, 80), np.uint8), r"column image is uint8\(5, 80\)"),
        (np.uint8(1), r"column image is uint8\(\)"),
        (np.ones((ROWS + 1, 80, 80), np.uint8), r"columns have \[5, 6\] rows"),
    ],
)
def test_wrong_dtype_shape_and_rows(path, data, match):
    refused(replaced(path, "image", lambda file: file.create_dataset("image", data=data)), match)


def test_other_rows_than_the_manifest_says(path):
    refused(path, r"has 5 rows, the manifest says 4", rows=4)


@pytest.mark.parametrize("chunks", [None, (1, 80, 80)])
@pytest.mark.parametrize("rows", [ROWS, 10**12])
def test_declared_values_that_were_never_written(path, chunks, rows):
    """HDF5 answers zeros for them, as many as somebody cared to declare."""

    def make(file):
        file.create_dataset("image", (rows, 80, 80), "u1", chunks=chunks)

    refused(replaced(path, "image", make), "column image is not all there")


@pytest.mark.parametrize("keep", [0, 7, 600, -1])
@pytest.mark.parametrize("compression", ["none", "gzip", "blosc-lz4", "bitshuffle-lz4"])
def test_truncated_file(tmp_path, keep, compression):
    path = write(tmp_path / "x.hdf5", rows_of(ROWS), compression=compression)
    with open(path, "r+b") as file:
        file.truncate(keep if keep >= 0 else path.stat().st_size - 1)
    refused(path, r"truncated|file signature not found|no such|eof|file is empty|file read failed|Unable|Can't")


@pytest.mark.parametrize("compression", ["gzip", "blosc-lz4", "bitshuffle-lz4"])
def test_damaged_chunk_is_refused(tmp_path, compression):
    records = [{**row, "image": row["image"] // 90} for row in rows_of(ROWS)]  # what does not shrink is stored as it is
    path = write(tmp_path / "x.hdf5", records, compression=compression)
    with h5py.File(path) as file:
        chunk = file["image"].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)
    refused(path, "column image, rows 0 to 5: ")


@pytest.mark.parametrize("content", [b"", b"<html>down for maintenance</html>", bytes(5000)])
def test_not_hdf5(tmp_path, content):
    (tmp_path / "x.hdf5").write_bytes(content)
    refused(tmp_path / "x.hdf5", "file signature not found|truncated")


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "x.hdf5", "no such file")
    refused(tmp_path, "not a regular file")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_anywhere_never_crash(tmp_path_factory, data):
    """Another value or a PartitionError, nothing else: no segmentation fault, no endless memory."""
    path = write(tmp_path_factory.mktemp("flip") / "x.hdf5", rows_of(2))
    content = bytearray(path.read_bytes())
    metadata = st.integers(0, 2200) | st.integers(len(content) - 3000, len(content) - 1)
    for place in data.draw(st.lists(metadata, min_size=1, max_size=6)):
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        with Partition(path, COLUMNS, trusted_rows=2) as partition:
            for column in COLUMNS:
                assert partition.read(column.name).shape == (2, *column.shape)
    except PartitionError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("dtype", ["O", "V8", "M8[s]", "U5", "c16"])
def test_a_column_cannot_be_of_a_dtype_that_is_not_plain_bytes(dtype):
    with pytest.raises(ValueError, match="column x cannot have dtype"):
        Column("x", dtype)


@pytest.mark.parametrize("shape", [(-2,), (-1, -1), (0,), (2.0,), ("3",)])
def test_a_column_cannot_have_a_shape_that_is_none(shape):
    with pytest.raises(ValueError, match=r"column x cannot have shape|^shape is"):
        Column("x", "u1", shape)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0b", "\ud800", "\u00e9", 5, None])
def test_a_column_cannot_have_a_name_that_leads_elsewhere(name):
    with pytest.raises(ValueError, match=r"^a column cannot be named|^name is"):
        Column(name, "u1")


# --- values -------------------------------------------------------------------------------------------------


def test_coerce_keeps_what_fits_and_refuses_the_rest():
    count = Column("n", "uint8")
    assert count.coerce(255.0) == 255 and count.coerce(255.0).dtype == np.uint8
    for value in (256, -1, 0.5, np.nan, np.inf):
        with pytest.raises(RecordError, match=rf"^n holds {value}, which uint8 cannot hold$"):
            count.coerce(value)
    with pytest.raises(RecordError, match=r"n has shape \(2,\), not \(\)"):
        count.coerce([1, 2])
    assert Column("t", "S4").coerce(" ab ").item() == b"ab"
    assert Column("t", "S4").coerce(b"abcd").item() == b"abcd"
    with pytest.raises(RecordError, match="t is longer than 4 characters: 'abcde'"):
        Column("t", "S4").coerce("abcde")
    with pytest.raises(RecordError, match="t is not ASCII"):
        Column("t", "S4").coerce("é")


@pytest.mark.parametrize("position", [(0, 0), (360, 90), (12.5, -90)])
def test_positions_on_the_sky(position):
    check_position(*position)


@pytest.mark.parametrize("position", [(-0.1, 0), (360.1, 0), (0, 90.1), (0, -90.1), (np.nan, 0), (0, np.nan), (np.inf, 0)])
def test_positions_off_the_sky(position):
    with pytest.raises(RecordError, match="position is not on the sky"):
        check_position(*position)


# --- cells and paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ra", "dec", "cell"),
    [
        (44.9, 89.99, 255),  # the north pole is the last cell of base pixel 0
        (44.9, -89.99, 8 * 256),  # the south pole is the first cell of base pixel 8
        (0.0, 0.0, 4 * 256 + 192),  # the middle of base pixel 4: first cell of its last quarter
        (90.0, 0.0, 5 * 256 + 192),
    ],
)
def test_cells_known_by_hand(ra, dec, cell):
    assert healpix_cell(ra, dec) == cell


def test_cells_of_the_equatorial_belt_from_the_definition():
    """Gorski et al. 2005, section 4.1 and 5.3, without any library: base pixel, then the bits of x and y in turn."""
    rng = np.random.default_rng(0)
    ra, z = rng.uniform(0, 360, 3000), rng.uniform(-2 / 3, 2 / 3, 3000)
    falling, rising = (np.floor(16 * (0.5 + ra / 90 + sign * 0.75 * z)).astype(int) for sign in (-1, 1))
    column, row = falling // 16, rising // 16
    base = np.where(column == row, column % 4 + 4, np.where(column < row, column, row + 8))
    x, y = rising % 16, 15 - falling % 16
    bits = sum(((x >> k & 1) << 2 * k) + ((y >> k & 1) << 2 * k + 1) for k in range(4))
    found = healpix_cell(ra, np.degrees(np.arcsin(z)))
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, 256 * base + bits)


def test_cells_everywhere_are_those_of_astropy():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 5000), np.degrees(np.arcsin(rng.uniform(-1, 1, 5000)))
    for nside in (1, 16, 64):
        grid = astropy_healpix.HEALPix(nside=nside, order="nested")
        expected = grid.lonlat_to_healpix(ra * units.deg, dec * units.deg)
        np.testing.assert_array_equal(healpix_cell(ra, dec, nside), expected)


def test_layout_is_that_of_multimodal_universe():
    assert partition_path(1234) == "healpix=1234/001-of-001.hdf5"
    assert partition_path(5, 2, 12, "test") == "test/healpix=5/002-of-012.hdf5"
    assert object_path(5, "1-106630_127_14715787") == "healpix=5/1-106630_127_14715787.hdf5"
    assert cell_of_path("healpix=1234/001-of-001.hdf5") == 1234
    assert cell_of_path("train/healpix=0/x.hdf5") == 0


@pytest.mark.parametrize(
    "path",
    [
        "../healpix=1/x.hdf5",
        "/healpix=1/x.hdf5",
        "healpix=1/../../x.hdf5",
        "a/b/healpix=1/x.hdf5",
        "healpix=x/y.hdf5",
        "healpix=1/x.h5",
        "",
        "/etc/passwd",
        "healpix=1/a/x.hdf5",
        "healpix=-1/x.hdf5",
    ],
)
def test_other_paths_are_refused(path):
    with pytest.raises(PartitionError, match="is not a partition's path"):
        cell_of_path(path)


@pytest.mark.parametrize("runs", [[], [1], [63], [64], [300], [40, 1, 60, 2], [1] * 200])
def test_texts_are_decoded_one_by_one_or_a_run_at_a_time(runs):
    texts = [f"b{number % 7}" for number, count in enumerate(runs) for _ in range(count)]
    assert decoded(np.array(texts, "S4")) == texts


def test_texts_of_rows_are_lists_of_lists():
    values = np.array([[[b"a", b"b"], [b"c", b""]], [[b"d", b"\xff"], [b"e", b"f"]], [[b"g", b"h"], [b"i", b"j"]]], "S1")
    assert decoded(values) == [[["a", "b"], ["c", ""]], [["d", "\ufffd"], ["e", "f"]], [["g", "h"], ["i", "j"]]]
    assert decoded(np.zeros((3, 0), "S1")) == [[], [], []]
    assert decoded(np.zeros((0, 3), "S1")) == []
    assert decoded(np.full((40, 70), b"deg")) == [["deg"] * 70] * 40
