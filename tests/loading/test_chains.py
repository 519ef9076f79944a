"""Chains of steps on a stream, against stock `datasets` on the same rows: order, rows, columns, length, resuming."""

import contextlib
import functools
import json
from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import IterableDataset, concatenate_datasets, interleave_datasets, load_dataset
from datasets.distributed import split_dataset_by_node
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skyset.errors import UserError

pytestmark = pytest.mark.datasets3

COLUMNS = ["object_id", "healpix", "ra", "scale"]
IS_OLD = datasets.__version__.startswith("3.")


@functools.cache
def base(root: str) -> IterableDataset:
    return load_dataset("gz3d", data_dir=root, split="train", streaming=True).select_columns(COLUMNS)


@functools.cache
def rows_of(root: str) -> list[dict]:
    return list(base(root))


def stock(root: str) -> IterableDataset:
    """The same rows as a stream of `datasets` itself."""
    return IterableDataset.from_generator(lambda: iter(rows_of(root)), features=base(root).features)


# --- steps ------------------------------------------------------------------------------------------------


def longer(row: dict) -> dict:
    return {"more": len(row["object_id"])}


def counted(row: dict, index: int) -> dict:
    return {"index": index}


def twice(batch: dict) -> dict:
    return {name: [value for value in values for _ in range(2)] for name, values in batch.items()}


def is_odd(row: dict) -> bool:
    return int(row["healpix"]) % 2 == 1


def are_odd(batch: dict) -> list[bool]:
    return [int(value) % 2 == 1 for value in batch["healpix"]]


def not_third(row: dict, index: int) -> bool:
    return index % 3 != 0


async def slowly(row: dict) -> dict:
    return {"slow": row["object_id"]}


def with_stock(stream, **options):
    """A stream beside the rows of one of `datasets` itself, with the same columns."""
    other = IterableDataset.from_generator(_few, features=stream.features)
    return interleave_datasets([stream, other], **options)


def _few():
    return iter([{"object_id": f"other{n}", "healpix": n, "ra": n / 2, "scale": n / 4} for n in range(9)])


def parts(stream):
    return [stream.take(5), stream.skip(5).take(11), stream.skip(16)]


#: Steps that keep the columns; whether order, and then rows, may differ from stock's after it.
STEPS = {
    "map": lambda d: d.map(longer).remove_columns("more"),
    "map indices": lambda d: d.map(counted, with_indices=True, remove_columns=["index"]),
    "batched map": lambda d: d.map(twice, batched=True, batch_size=5, features=d.features),
    "filter": lambda d: d.filter(is_odd),
    "batched filter": lambda d: d.filter(are_odd, batched=True, batch_size=4),
    "filter indices": lambda d: d.filter(not_third, with_indices=True),
    "take": lambda d: d.take(17),
    "skip": lambda d: d.skip(3),
    "take none": lambda d: d.take(0),
    "shuffle": lambda d: d.shuffle(seed=3, buffer_size=7),
    "shuffle wide": lambda d: d.shuffle(seed=4, buffer_size=1000),
    "repeat": lambda d: d.repeat(2),
    "select": lambda d: d.select_columns(["object_id", "healpix", "ra", "scale"]),
    "rename": lambda d: d.rename_column("ra", "x").rename_column("x", "ra"),
    "cast": lambda d: d.cast_column("ra", datasets.Value("float64")).cast_column("ra", datasets.Value("float32")),
    "concatenate": lambda d: concatenate_datasets([d, d.take(6)]),
    "interleave": lambda d: interleave_datasets([d, d.skip(2)]),
    "interleave all": lambda d: interleave_datasets([d, d.take(7)], stopping_strategy="all_exhausted"),
    "interleave by chance": lambda d: interleave_datasets(
        parts(d), probabilities=[0.2, 0.6, 0.2], seed=42, stopping_strategy="all_exhausted"
    ),
    "with stock": lambda d: with_stock(d, stopping_strategy="all_exhausted"),
    "numpy": lambda d: d.with_format("numpy"),
    "torch": lambda d: d.with_format("torch"),
    "no format": lambda d: d.with_format(None),
}
#: Those that are last, for they change the columns, or functions would get tables after them.
LAST = {
    "nothing": lambda d: d.select_columns(COLUMNS),
    "batch": lambda d: d.batch(4),
    "batch, the last one dropped": lambda d: d.batch(4, drop_last_batch=True),
    "batch, then skip": lambda d: d.batch(3).skip(2),
    "add": lambda d: d.map(longer),
    "remove": lambda d: d.remove_columns(["ra", "scale"]),
    "rename all": lambda d: d.rename_columns({"ra": "x", "healpix": "y"}),
    "asynchronous": lambda d: d.map(slowly),
    "arrow": lambda d: d.with_format("arrow"),
    "arrow, then take": lambda d: d.with_format("arrow").take(10),
    "arrow, shuffled": lambda d: d.with_format("arrow").shuffle(seed=2, buffer_size=5),
    "pandas": lambda d: d.with_format("pandas"),
}
MIXES = {"shuffle", "shuffle wide", "arrow, shuffled"}
COUNTS_ROWS = {
    "map indices",
    "batched map",
    "filter indices",
    "take",
    "skip",
    "interleave",
    "interleave all",
    "interleave by chance",
    "with stock",
    "concatenate",
    "batch, then skip",
    "batch, the last one dropped",
    "arrow, then take",
}


def chained(stream, names):
    for name in names:
        stream = (STEPS | LAST)[name](stream)
    return stream


def plain(row) -> tuple:
    """A row that can be compared with one of another format."""
    if isinstance(row, pa.Table):
        row = row.to_pylist()[0]
    elif hasattr(row, "to_dict"):
        row = row.to_dict("records")[0]
    return tuple((name, _plain(value)) for name, value in sorted(row.items()))


def _plain(value):
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return float(np.float32(value)) if isinstance(value, int | float) else value


def listed(stream) -> list[tuple]:
    return [plain(row) for row in stream]


# --- checks -----------------------------------------------------------------------------------------------


def check(root: str, names: list[str], every: int = 1) -> None:
    """All that holds of a chain."""
    try:
        data = chained(base(root), names)
    except UserError as error:
        assert "is not known after map()" in str(error) and "cast" in names
        return
    given = listed(data)
    against_stock(root, names, given)
    with contextlib.suppress(TypeError):
        assert len(data) == len(given)
    resumes(root, names, given, 0, every)
    data.set_epoch(1)
    second = listed(data)
    assert bool(MIXES & set(names)) or "interleave by chance" in names or second == given
    if not set(names) & (COUNTS_ROWS | {"batch"}):
        assert Counter(second) == Counter(given)
    resumes(root, names, second, 1, every=max(every, 5))


def against_stock(root: str, names: list[str], given: list[tuple]) -> None:
    if IS_OLD and "interleave by chance" in names and MIXES & set(names):
        return  # shuffling makes it choose others
    try:
        wanted = listed(chained(stock(root), names))
    except (NotImplementedError, AttributeError, TypeError, KeyError, ValueError, pa.ArrowInvalid):
        return  # more than this version of `datasets` can do
    mixed = [place for place, name in enumerate(names) if name in MIXES]
    if not mixed:
        assert given == wanted
    elif not set(names[mixed[0] :]) & COUNTS_ROWS and not any(name.startswith("batch") for name in names[mixed[0] :]):
        assert Counter(given) == Counter(wanted)


def resumes(root: str, names: list[str], given: list[tuple], epoch: int, every: int) -> None:
    data, again = chained(base(root), names), chained(base(root), names)
    data.set_epoch(epoch)
    again.set_epoch(epoch)
    states, source = [json.dumps(data.state_dict())], iter(data)
    for _ in given:
        next(source)
        states.append(json.dumps(data.state_dict()))
    for position in {*range(0, len(states), every), len(given)}:
        again.load_state_dict(json.loads(states[position]))
        half = position + (len(given) - position) // 2
        source = iter(again)
        head = [plain(next(source)) for _ in range(position, half)]
        assert head == given[position:half], f"resumed at {position}"
        middle = json.loads(json.dumps(again.state_dict()))
        again.load_state_dict(middle)  # resumed twice, and by the same object
        assert listed(again) == given[half:], f"resumed at {position}, then at {half}"
    assert listed(again) == given  # the pass after it is whole


CHAINS = st.tuples(st.lists(st.sampled_from(sorted(STEPS)), max_size=3), st.sampled_from(sorted(LAST)))


@settings(
    max_examples=12 if IS_OLD else 30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(chain=CHAINS)
def test_chains_are_as_stock_and_resume_exactly(built, chain):
    check(str(built), [*chain[0], chain[1]], every=7)


@pytest.mark.parametrize(
    "names",
    [
        ["interleave", "shuffle"],
        ["concatenate", "shuffle"],
        ["map", "take", "shuffle", "filter"],
        ["repeat", "skip", "shuffle", "batch"],
        ["shuffle", "shuffle wide", "batched map", "take"],
        ["with stock", "shuffle"],
        ["interleave by chance", "arrow, shuffled"],
        ["filter indices", "shuffle", "asynchronous"],
    ],
    ids=" ".join,
)
def test_shuffled_chains_resume_exactly_at_every_row(built, names):
    check(str(built), names, every=1 if not IS_OLD else 5)


def test_resuming_is_exact_where_others_rows_come_from_tables(built):
    def make():
        data = base(str(built))
        table = datasets.Dataset.from_list(list(_few()), features=data.features).to_iterable_dataset(num_shards=2)
        return concatenate_datasets([table.filter(is_odd), data]).shuffle(seed=1, buffer_size=6)

    data, again = make(), make()
    states, rows = [data.state_dict()], []
    for row in data:
        rows.append(plain(row))
        states.append(data.state_dict())
    assert len(rows) == 4 + 24
    for position, state in enumerate(states):
        again.load_state_dict(state)
        assert listed(again) == rows[position:]


def test_functions_of_tables_resume_exactly(built):
    def make():
        return base(str(built)).with_format("arrow").map(lambda table: table.slice(1), batched=True, batch_size=5)

    data, again = make(), make()
    states, rows = [data.state_dict()], []
    for row in data:
        rows.append(plain(row))
        states.append(json.loads(json.dumps(data.state_dict())))
    assert len(rows) == 24 - 5
    for position, state in enumerate(states):
        again.load_state_dict(state)
        assert listed(again) == rows[position:]


def test_a_shuffle_buffer_holds_no_more_rows_than_asked_for(built):
    data, taken = STEPS["concatenate"](base(str(built))), []
    data = data.map(lambda row: taken.append(1) or row).take(30).shuffle(seed=1, buffer_size=7)
    for number, _ in enumerate(data):
        assert len(taken) <= 7 * (number // 7 + 1) + 1


def test_a_state_of_other_steps_is_refused_in_one_line(built):
    data = base(str(built)).filter(is_odd)
    next(iter(data))
    for other in (STEPS["concatenate"](base(str(built))), base(str(built)).map(slowly), STEPS["repeat"](data)):
        other.load_state_dict(data.state_dict())
        with pytest.raises(ValueError, match="saved by another stream"):
            next(iter(other))


# --- workers and nodes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["map", "map indices", "batched map", "filter", "filter indices", "take", "skip", "shuffle", "repeat", "concatenate"],
)
def test_workers_hand_out_the_rows_of_one_process(built, name):
    data = STEPS[name](base(str(built)))
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2)
    assert Counter(map(plain, loader)) == Counter(listed(data))


@pytest.mark.parametrize("split", ["shard", "node"])
@pytest.mark.parametrize("name", ["map", "filter", "shuffle", "repeat", "concatenate", "map indices"])
def test_shares_are_complete_and_disjoint_and_know_their_length(built, name, split):
    data = STEPS[name](base(str(built)))
    shares = [data.shard(2, number) if split == "shard" else split_dataset_by_node(data, number, 2) for number in range(2)]
    rows = [listed(share) for share in shares]
    if (name, split) != ("map indices", "shard"):  # a shard's rows are counted from its first
        assert Counter(rows[0] + rows[1]) == Counter(listed(data))
    if name != "filter":
        assert [len(share) for share in shares] == [len(share) for share in rows]


def test_added_columns_stay_with_their_rows(built):
    data = base(str(built)).add_column("number", list(range(24)))
    wanted = {row["object_id"]: row["number"] for row in data}
    assert {row["object_id"]: row["number"] for row in data.shuffle(seed=1)} == wanted
    loader = torch.utils.data.DataLoader(data.shuffle(seed=1), batch_size=None, num_workers=2)
    assert {row["object_id"]: row["number"] for row in loader} == wanted


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("names", [["concatenate", "shuffle"], ["map", "shuffle", "batched map"]], ids=" ".join)
def test_a_stateful_loader_resumes_chains_and_its_later_epochs_are_whole(built, names, workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader():
        data = chained(base(str(built)), names)
        return stateful(data, batch_size=4, num_workers=workers, collate_fn=list, persistent_workers=workers > 0)

    whole = [listed(batch) for batch in loader()]
    first = loader()
    batches = iter(first)
    head = [listed(next(batches)) for _ in range(3)]
    again = loader()
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert head + [listed(batch) for batch in again] == whole
    for _ in range(2):
        assert [listed(batch) for batch in again] == whole


def test_a_broken_off_epoch_after_resuming_costs_the_next_one_nothing(built):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader():
        return stateful(base(str(built)), batch_size=4, num_workers=1, collate_fn=list, persistent_workers=True)

    whole = [listed(batch) for batch in loader()]
    first = loader()
    next(iter(first))
    again = loader()
    again.load_state_dict(first.state_dict())
    next(iter(again))
    assert [listed(batch) for batch in again] == whole


# --- length -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(STEPS.keys() | LAST.keys()))
def test_length_is_what_is_handed_out_or_there_is_none(built, name):
    data = (STEPS | LAST)[name](base(str(built)))
    if name in {"filter", "batched filter", "filter indices", "batched map", "interleave by chance", "with stock"}:
        for holder in (data, torch.utils.data.DataLoader(data)):
            with pytest.raises(TypeError, match="known only once they are read"):
                len(holder)
    else:
        assert len(data) == len(list(data))
    assert data  # even one without rows, or without a length


def test_lengths_by_value(built):
    data = base(str(built))
    lengths = {
        "all": data,
        "select": data.select_columns("ra"),
        "take": data.take(9),
        "more than there are": data.take(99),
        "skip": data.skip(20),
        "skip all": data.skip(99),
        "map, take": data.map(longer).take(9),
        "repeat": data.repeat(3),
        "batch": data.batch(5),
        "batch, drop": data.batch(5, drop_last_batch=True),
        "shuffle": data.shuffle(seed=1),
        "shuffle, take": data.shuffle(seed=1).take(5),
        "rename": data.rename_column("ra", "x"),
        "remove": data.remove_columns("ra"),
        "torch": data.with_format("torch"),
        "arrow": data.with_format("arrow"),
        "concatenate": concatenate_datasets([data, data.take(2)]),
        "interleave": interleave_datasets([data, data.take(2)]),
        "node": split_dataset_by_node(data, 1, 5),
    }
    assert {name: len(stream) for name, stream in lengths.items()} == {
        "all": 24,
        "select": 24,
        "take": 9,
        "more than there are": 24,
        "skip": 4,
        "skip all": 0,
        "map, take": 9,
        "repeat": 72,
        "batch": 5,
        "batch, drop": 4,
        "shuffle": 24,
        "shuffle, take": 5,
        "rename": 24,
        "remove": 24,
        "torch": 24,
        "arrow": 24,
        "concatenate": 26,
        "interleave": 4,
        "node": len(list(lengths["node"])),
    }
    with pytest.raises(TypeError):
        len(data.repeat(None))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [1, 5, 24, None])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_length_of_a_loader_is_that_of_its_workers(built, workers, size, drop_last):
    if drop_last and size is None:
        pytest.skip("torch refuses it")
    data = base(str(built)).with_format("torch").skip(1)
    loader = torch.utils.data.DataLoader(data, batch_size=size, num_workers=workers, drop_last=drop_last)
    assert len(loader) == sum(1 for _ in loader)


def test_asking_for_the_length_leaves_the_state_alone(built):
    data = base(str(built))
    rows = iter(data)
    next(rows)
    state = data.state_dict()
    assert len(data) == 24 and data.state_dict() == state


class Level(torch.nn.Module):
    """One number for all rows."""

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))

    def forward(self, ra):
        return {"loss": ((ra - self.level) ** 2).mean()}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trainer_counts_epochs_by_the_length_and_wants_max_steps_without_one(built, workers, tmp_path):
    transformers = pytest.importorskip("transformers")
    data = base(str(built)).select_columns(["ra"]).with_format("torch")

    def trained(rows, **options):
        options |= {"dataloader_num_workers": workers, "per_device_train_batch_size": 5, "remove_unused_columns": False}
        arguments = transformers.TrainingArguments(
            str(tmp_path), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **options
        )
        return transformers.Trainer(Level(), arguments, train_dataset=rows).train().global_step

    steps = len(torch.utils.data.DataLoader(data, batch_size=5, num_workers=workers))
    assert trained(data, num_train_epochs=2) == 2 * steps
    assert trained(data.filter(lambda row: True), max_steps=3) == 3
    with pytest.raises(ValueError, match="max_steps"):
        trained(data.filter(lambda row: True), num_train_epochs=2)


# --- casts and names --------------------------------------------------------------------------------------

FORMATS = [None, "numpy", "torch", "arrow", "pandas"]
BEFORE = {
    "at once": lambda d: d,
    "take": lambda d: d.shuffle(seed=1).take(24),
    "filter": lambda d: d.filter(lambda row: True),
    "concatenate": lambda d: concatenate_datasets([d.take(3), d.skip(3)]),
    "mapped": lambda d: d.map(lambda row: row, features=d.features),
}


def values_of(stream, name: str) -> list:
    def value(row):
        if isinstance(row, pa.Table):
            return row[name][0].as_py()
        if hasattr(row, "to_dict"):
            return row[name].iloc[0]
        return row[name]

    return [value(row) for row in stream]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("before", BEFORE)
def test_casts_change_values_in_every_format(built, before, format):
    data = BEFORE[before](base(str(built))).with_format(format)
    numbers = values_of(data.with_format(None), "healpix")
    text = data.cast_column("healpix", datasets.Value("string"))
    assert values_of(text, "healpix") == [str(number) for number in numbers]
    real = data.cast(datasets.Features({**data.features, "healpix": datasets.Value("float32")}))
    assert real.features["healpix"].dtype == "float32"
    given = values_of(real, "healpix")
    assert [float(number) for number in given] == numbers
    kinds = {None: float, "numpy": np.float32, "torch": torch.Tensor, "arrow": float, "pandas": np.float32}
    assert isinstance(given[0], kinds[format])
    if format == "torch":
        assert given[0].dtype == torch.float32
    with pytest.raises((UserError, pa.ArrowInvalid), match=r"string|parse|convert"):
        list(data.cast_column("object_id", datasets.Value("int32")))


@pytest.mark.parametrize("format", [None, "numpy", "torch", "arrow"])
def test_pixels_can_be_cast_too(built, format):
    data = load_dataset("gz3d", data_dir=str(built), split="train", streaming=True).select_columns(["image"]).take(2)
    new = data.cast_column("image", datasets.Array3D((525, 525, 3), "float32")).with_format(format)
    row, old = next(iter(new)), next(iter(data.with_format("numpy")))["image"]
    image = np.asarray(row["image"].to_pylist()[0]) if format == "arrow" else np.asarray(row["image"])
    assert np.array_equal(image, old) and (format == "arrow" or image.dtype == np.float32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.cast_column("image", datasets.Value("string")), "cannot cast image"),
        (lambda d: d.cast_column("image", datasets.Array3D((525, 525, 4), "uint8")), "cannot cast image"),
        (lambda d: d.cast_column("nothing", datasets.Value("string")), "no column nothing"),
        (lambda d: d.cast(datasets.Features({"ra": datasets.Value("float64")})), "a feature for each column"),
        (lambda d: d.map(longer).cast_column("ra", datasets.Value("float64")), "not known after map"),
        (lambda d: next(iter(d.cast_column("healpix", datasets.ClassLabel(names=["a"])))), "its 1 classes"),
        (
            lambda d: next(
                iter(
                    d.cast_column("total_classifications", datasets.Value("string")).cast_column(
                        "object_id", datasets.Value("float32")
                    )
                )
            ),
            "object_id cannot be cast",
        ),
    ],
)
def test_what_cannot_be_cast_is_one_clear_line(built, change, reason):
    data = load_dataset("gz3d", data_dir=str(built), split="train", streaming=True)
    with pytest.raises(UserError, match=reason) as raised:
        change(data)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("before", BEFORE)
def test_renaming_keeps_the_values_in_every_format(built, before, format):
    data = BEFORE[before](base(str(built))).with_format(format)
    for new in (data.rename_column("healpix", "cell"), data.rename_columns({"healpix": "cell", "ra": "x"})):
        assert "cell" in new.features and "healpix" not in new.features
        assert list(map(str, values_of(new, "cell"))) == list(map(str, values_of(data, "healpix")))


def test_a_column_whose_name_is_part_of_another_s_can_be_removed(built):
    data = base(str(built)).filter(is_odd).rename_column("scale", "rank").remove_columns("ra")
    assert list(data.features) == ["object_id", "healpix", "rank"] == list(next(iter(data)))
