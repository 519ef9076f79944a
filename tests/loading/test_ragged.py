"""Rows of any length: written, read back, streamed in every format, trimmed of their padding, and batched."""

import dataclasses
import pickle

import datasets
import h5py
import numpy as np
import pyarrow as pa
import pytest

from skyset.errors import PartitionError, RecordError
from skyset.loading.padding import Collate, collate, has_ragged
from skyset.loading.partition_rows import PartitionRows
from skyset.loading.ragged import Ragged, padded, trim
from skyset.loading.reader import Piece
from skyset.loading.stream import SurveyStream, adopt
from skyset.partitions.partition import Partition, bounds_of
from skyset.partitions.writer import PartitionWriter
from skyset.survey import HEALPIX, Column, Feature, Layers, Survey, Trim

COLUMNS = (
    Column("object_id", "S8"),
    Column("ra", "float64"),
    Column("dec", "float64"),
    HEALPIX,
    Column("flux", "float32", (-1,)),
    Column("wave", "float32", (-1,)),
    Column("good", "bool", (-1,)),
    Column("cube", "int16", (-1, 2, 3)),
    Column("bands", "float64", (5, -1)),
    Column("names", "S2", (-1,)),
)
SPECTRUM = Layers("spectrum", (), "", {"flux": "flux", "lambda": "wave", "good": "good"})
FEATURES = (Feature("object_id", "object_id"), SPECTRUM, *(Feature(name, name) for name in ("cube", "bands", "names")))
SURVEY = Survey("long", "long rows", "", "", "", "", COLUMNS, FEATURES)
TRIMMED = dataclasses.replace(SURVEY, trims=(Trim(("flux", "wave", "good"), "wave", (-1.0,)),))
LENGTHS = (3, 0, 5, 1, 4, 2, 6)


def rows() -> list[dict]:
    random = np.random.default_rng(3)
    made = []
    for number, length in enumerate(LENGTHS):
        wave = np.arange(length, dtype=np.float32)
        wave[length - length // 3 :] = -1
        made.append(
            {
                "object_id": f"o{number}",
                "ra": 0.1,
                "dec": 0.1,
                "healpix": 1,
                "flux": random.random(length, np.float32),
                "wave": wave,
                "good": random.random(length) > 0.5,
                "cube": random.integers(0, 99, (length, 2, 3), np.int16),
                "bands": random.random((5, length)),
                "names": np.array(["g", "rr", "i"] * 2)[:length],
            }
        )
    return made


ROWS = rows()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("ragged") / "healpix=1/001-of-001.hdf5"
    with PartitionWriter(path, COLUMNS, len(ROWS) + 2, {}) as writer:
        for row in ROWS[:4]:
            writer.append(SURVEY.record(row))
        rest = {column.name: [row[column.name] for row in ROWS[4:]] for column in COLUMNS}
        writer.append_rows(rest, [0] * len(ROWS[4:]))
    return path


def stream(path, survey=SURVEY, names=None) -> SurveyStream:
    made = PartitionRows(survey, [Piece(str(path), 0, len(ROWS), len(ROWS))], names or [f.name for f in survey.features])
    return SurveyStream(made, info=datasets.DatasetInfo(features=made.features), split="train")


def assert_row(got: dict, row: dict, length: int | None = None) -> None:
    n = slice(length)
    for key, name in SPECTRUM.fields.items():
        value = np.asarray(got["spectrum"][key])
        assert value.dtype == row[name].dtype
        np.testing.assert_array_equal(value, row[name][n])
    for name in ("cube", "bands"):
        assert np.asarray(got[name]).dtype == row[name].dtype
        np.testing.assert_array_equal(np.asarray(got[name]).reshape(row[name].shape), row[name])
    assert list(got["names"]) == row["names"].tolist()


def test_a_partition_gives_back_each_row(path):
    with Partition(path, COLUMNS, trusted_rows=len(ROWS)) as file:
        for number, row in enumerate(ROWS):
            record = file.record(number)
            for name in ("flux", "cube", "bands"):
                assert record[name].dtype == row[name].dtype
                np.testing.assert_array_equal(record[name], row[name])
        np.testing.assert_array_equal(file.ends("bands"), 5 * np.cumsum((0, *LENGTHS)))


def test_others_find_values_and_ends_in_the_file(path):
    with h5py.File(path) as file:
        ends = file["flux_end"][:]
        np.testing.assert_array_equal(ends, np.cumsum(LENGTHS))
        np.testing.assert_array_equal(file["flux"][ends[1] : ends[2]], ROWS[2]["flux"])
        assert file["cube"].attrs["row_shape"].tolist() == [-1, 2, 3]


@pytest.mark.datasets3
@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_a_stream_hands_out_rows_of_their_lengths(path, form):
    if form == "torch":
        pytest.importorskip("torch")
    for got, row in zip(stream(path).with_format(form), ROWS, strict=True):
        assert_row(got, row)


@pytest.mark.datasets3
def test_tables_and_arrow_have_them_too(path):
    rows = stream(path)
    table = pa.concat_tables(list(rows.with_format("arrow").iter(batch_size=3)))
    assert table.schema.field("spectrum").type.field("flux").type == pa.list_(pa.float32())
    assert table["bands"].to_pylist() == [row["bands"].tolist() for row in ROWS]
    made = adopt(datasets.Dataset(table, info=datasets.DatasetInfo(features=rows.features)))
    for got, row in zip(made.with_format("numpy"), ROWS, strict=True):
        assert_row(got, row)


def test_a_shuffled_stream_goes_on_where_it_was(path):
    whole = [row["object_id"] for row in stream(path).with_format("numpy").shuffle(seed=5)]
    first = stream(path).with_format("numpy").shuffle(seed=5)
    seen = []
    for row in first:
        seen.append(row["object_id"])
        assert_row(row, ROWS[int(row["object_id"][1:])])
        if len(seen) == 3:
            break
    second = stream(path).with_format("numpy").shuffle(seed=5)
    second.load_state_dict(first.state_dict())
    assert seen + [row["object_id"] for row in second] == whole
    assert sorted(whole) == [row["object_id"] for row in ROWS]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_batches_hold_lists_of_rows(path, size):
    numbers = iter(range(len(ROWS)))
    for batch in stream(path).with_format("numpy").iter(batch_size=size):
        for flux, cube in zip(batch["spectrum"]["flux"], batch["cube"], strict=True):
            row = ROWS[next(numbers)]
            np.testing.assert_array_equal(flux, row["flux"])
            np.testing.assert_array_equal(cube, row["cube"])
    assert next(numbers, None) is None


@pytest.mark.datasets3
@pytest.mark.parametrize("names", [None, ["spectrum"]])
def test_padding_is_left_out(path, names):
    for got, row in zip(stream(path, TRIMMED, names).with_format("numpy"), ROWS, strict=True):
        length = int((row["wave"] >= 0).sum())
        np.testing.assert_array_equal(got["spectrum"]["flux"], row["flux"][:length])
        np.testing.assert_array_equal(got["spectrum"]["lambda"], row["wave"][:length])


def test_padding_is_left_out_of_what_is_asked_for_alone(path):
    features = (Feature("flux", "flux"),)
    alone = dataclasses.replace(TRIMMED, features=features)
    for got, row in zip(stream(path, alone).with_format("numpy"), ROWS, strict=True):
        assert list(got) == ["flux"]
        np.testing.assert_array_equal(got["flux"], row["flux"][row["wave"] >= 0])


def ragged(rows: list, dtype="f8", shape=(-1,)) -> Ragged:
    flat = [np.asarray(row, dtype).reshape(-1) for row in rows]
    return Ragged(np.concatenate([np.zeros(0, dtype), *flat]), bounds_of(np.array([len(row) for row in flat])), shape=shape)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("at", ["anywhere", "end"])
def test_trimming_is_what_a_loop_would_do(seed, at):
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 6, 8) if seed % 2 else np.full(8, 5)
    times = [random.choice([1.0, 2.0, 0.0, -99.0, np.nan], length) for length in lengths]
    cubes = [random.random((length, 2)) for length in lengths]
    columns = {"time": ragged(times), "cube": ragged(cubes, shape=(-1, 2))}
    trim(columns, [Trim(("time", "cube"), "time", (0.0, -99.0, float("nan")), at)])
    for row, (time, cube) in enumerate(zip(times, cubes, strict=True)):
        good = np.isin(time, [1.0, 2.0])
        if at == "end":
            good = np.cumsum(good[::-1])[::-1] > 0
        np.testing.assert_array_equal(columns["time"][row], time[good])
        np.testing.assert_array_equal(columns["cube"][row], cube[good])
    packed = columns["cube"].compact()
    np.testing.assert_array_equal(packed.data, np.concatenate([np.zeros(0), *(part.ravel() for part in columns["cube"])]))
    twice = Ragged.joined([columns["cube"][:3], columns["cube"][3:]])
    for one, other in zip(twice, columns["cube"], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("at", ["anywhere", "end"])
def test_a_step_is_padding_where_all_of_it_is(at):
    mask = np.array([[[0, 1024], [1024, 1024], [7, 7], [1024, 1024]], [[1024, 1024], [1024, 1024], [1024, 0], [1024, 1024]]])
    flux = np.arange(8.0).reshape(2, 4)
    columns = {"mask": ragged(list(mask), "i4", (-1, 2)), "flux": ragged(list(flux))}
    trim(columns, [Trim(("mask", "flux"), "mask", (1024.0,), at)])
    kept = [[0, 2], [2]] if at == "anywhere" else [[0, 1, 2], [0, 1, 2]]
    for row, steps in enumerate(kept):
        np.testing.assert_array_equal(columns["flux"][row], flux[row][steps])
        np.testing.assert_array_equal(columns["mask"][row], mask[row][steps])


def test_padding_at_the_end_is_left_out_without_a_copy():
    flux = ragged([[1, 2, 0], [3, 0, 0]])
    columns = {"flux": flux}
    trim(columns, [Trim(("flux",), "flux", (0.0,))])
    assert [row.tolist() for row in columns["flux"]] == [[1, 2], [3]]
    assert columns["flux"].data is flux.data


def test_columns_of_other_lengths_are_named():
    columns = {"time": ragged([[1, 0], [1, 2]]), "flux": ragged([[1, 2], [3]])}
    with pytest.raises(PartitionError, match="row 1: flux and time have 1 and 2 values"):
        trim(columns, [Trim(("time", "flux"), "time", (0.0,))])


@pytest.mark.parametrize("value", [np.zeros((2, 2)), 1.0, [[1, 2], [3]], ["x"]])
def test_a_row_of_another_shape_is_refused(value):
    with pytest.raises(RecordError, match="flux"):
        Column("flux", "float32", (-1,)).coerce(value)


def test_a_row_with_other_fixed_axes_is_refused():
    with pytest.raises(RecordError, match="shape"):
        Column("cube", "int16", (-1, 2, 3)).coerce(np.zeros((4, 3, 2), np.int16))


@pytest.mark.parametrize("ends", [[4, 3, 9], [3, 5, 99], [-1, 3, 9], [3, 4, 9]])
def test_ends_that_cannot_be_are_damage(tmp_path, ends):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["cube"] = np.zeros(9, np.int16)
        file["cube_end"] = np.array(ends, np.int64)
    with pytest.raises(PartitionError, match="column cube"), Partition(path, [Column("cube", "int16", (-1, 3))]) as damaged:
        damaged.read("cube")


def test_declarations_that_cannot_be():
    with pytest.raises(ValueError, match="no padding by wave"):
        dataclasses.replace(SURVEY, trims=(Trim(("bands",), "wave", (-1.0,)),))
    with pytest.raises(ValueError, match="layers of a group cannot be ragged"):
        dataclasses.replace(SURVEY, features=(Layers("group", ("a",), "label", {"flux": "flux"}),))
    with pytest.raises(ValueError, match="has columns per layer and no labels"):
        Layers("group", (), "", {"flux": ("flux",)})


def test_padded_is_the_longest_and_the_shapes():
    whole, shapes = padded([np.ones((2, 3), np.float32), np.ones((0, 3), np.float32)], np.nan)
    assert whole.shape == (2, 2, 3)
    assert whole.dtype == np.float32
    assert np.isnan(whole[1]).all()
    assert shapes.tolist() == [[2, 3], [0, 3]]
    assert padded([np.ones(2, bool), np.ones(1, bool)], np.nan)[0].tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_lists_of_tensors_or_padded_ones(path, workers):
    torch = pytest.importorskip("torch")
    rows = stream(path).with_format("torch")
    (batch,) = torch.utils.data.DataLoader(rows, batch_size=7, num_workers=workers)
    assert [len(flux) for flux in batch["spectrum"]["flux"]] == list(LENGTHS)
    assert batch["cube"][2].tolist() == ROWS[2]["cube"].tolist()
    assert batch["names"][0] == ["g", "rr", "i"]
    (batch,) = torch.utils.data.DataLoader(rows, batch_size=7, num_workers=workers, collate_fn=collate(rows.features, -5))
    assert batch["spectrum"]["flux_length"].tolist() == list(LENGTHS)
    assert batch["bands_length"].tolist() == list(LENGTHS)
    assert batch["bands"].shape == (7, 5, 6)
    assert batch["spectrum"]["flux"].dtype == torch.float32
    assert (batch["spectrum"]["flux"][1] == -5).all()
    assert list(batch)[:2] == ["object_id", "spectrum"]


def test_nested_tensors_and_pickles(path):
    torch = pytest.importorskip("torch")
    rows = stream(path).with_format("torch")
    made = pickle.loads(pickle.dumps(Collate(rows.features, nested=True)))
    (batch,) = torch.utils.data.DataLoader(rows, batch_size=7, collate_fn=made)
    assert batch["spectrum"]["flux"].is_nested
    assert [len(part) for part in batch["spectrum"]["flux"].unbind()] == list(LENGTHS)


def test_what_is_ragged_follows_from_the_features(path):
    found = {name: has_ragged(feature) for name, feature in stream(path).features.items()}
    assert found == {"object_id": False, "spectrum": True, "cube": True, "bands": True, "names": True}


@pytest.mark.parametrize("width", [1, 3, 4])
def test_texts_that_repeat_are_those_that_are_stored(width):
    random = np.random.default_rng(width)
    lengths = random.integers(0, 40, 60)
    bounds = bounds_of(lengths) + 5
    data = np.repeat(
        random.choice([b"u", b"g", b"zz", b"Y"], bounds[-1]).astype(f"S{width}"), random.integers(1, 9, bounds[-1])
    )
    data = data[: bounds[-1]]
    stops = bounds[:-1] + random.integers(0, lengths + 1)
    for column in (Ragged(data, bounds), Ragged(data, bounds).with_changes(_stops=stops), Ragged(data, bounds)[10:31]):
        expected = [[text.decode() for text in column.raw(row).tolist()] for row in range(len(column))]
        assert list(column) == [column[row] for row in range(len(column))] == expected


def test_texts_of_no_rows_and_of_empty_ones():
    nothing = np.zeros(0, "S2")
    assert list(Ragged(nothing, bounds_of(np.zeros(0, np.int64)))) == []
    assert list(Ragged(nothing, bounds_of(np.zeros(2, np.int64)))) == [[], []]


def test_rows_of_numbers_are_the_same_one_by_one_and_all():
    data, bounds = np.arange(20.0), bounds_of(np.array([3, 0, 7, 10]))
    column = Ragged(data, bounds).with_changes(_stops=bounds[1:] - [1, 0, 2, 0])
    assert [row.tolist() for row in column] == [column[row].tolist() for row in range(4)]
    assert all(np.shares_memory(row, data) for row in column if len(row))
