"""Batches in a DataLoader: what default_collate makes of plain rows, by value, whatever anyone keeps or changes."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

import skyset
from skyset.loading.batches import Row

ROWS = 24


@pytest.fixture(scope="module", params=["numpy", "torch"])
def stream(built, request):
    return skyset.load("gz3d", str(built), format=request.param)


@pytest.fixture(scope="module")
def truth(built):
    """All rows as plain dicts of numpy arrays, by their place."""
    return list(skyset.load("gz3d", str(built), format="numpy"))


def assert_same(batch, expected):
    assert batch.keys() == expected.keys()
    for name, values in expected.items():
        if isinstance(values, dict):
            assert_same(batch[name], values)
        elif isinstance(values, torch.Tensor):
            assert batch[name].dtype == values.dtype
            assert torch.equal(batch[name], values), name
        else:
            assert batch[name] == values, name


def batches_of(rows, size):
    return [default_collate(rows[i : i + size]) for i in range(0, len(rows), size)]


@pytest.mark.parametrize("size", [1, 5, 7, 32])
def test_without_workers_as_default_collate_of_plain_rows(stream, truth, size):
    for batch, expected in zip(DataLoader(stream, batch_size=size), batches_of(truth, size), strict=True):
        assert_same(batch, expected)


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("seed", [None, 3])
def test_workers_hand_out_each_row_once_and_right(stream, truth, size, seed):
    by_place = {(row["object_id"], float(row["scale"]), float(row["ra"])): row for row in truth}
    some = stream if seed is None else stream.shuffle(seed=seed)
    seen = []
    for batch in DataLoader(some, batch_size=size, num_workers=2):
        keys = list(zip(batch["object_id"], batch["scale"].tolist(), batch["ra"].tolist(), strict=True))
        assert_same(batch, default_collate([by_place[key] for key in keys]))
        seen += keys
    assert sorted(seen) == sorted(by_place)


def test_batches_that_are_kept_never_change(stream, truth):
    """A worker uses shared memory again only when the last tensor of a batch is gone."""
    kept = list(DataLoader(stream.repeat(4), batch_size=4, num_workers=1))
    copies = [copy.deepcopy(batch) for batch in DataLoader(stream.repeat(4), batch_size=4, num_workers=1)]
    assert len(kept) == len(copies) == ROWS
    for batch, other in zip(kept, copies, strict=True):
        assert_same(batch, other)
    single = [batch["image"][1] for batch in DataLoader(stream, batch_size=4, num_workers=1)]  # a part keeps its batch
    assert all(torch.equal(image, torch.from_numpy(truth[4 * i + 1]["image"])) for i, image in enumerate(single))


def test_writing_into_a_batch_changes_no_other(stream, truth):
    for batch, expected in zip(DataLoader(stream, batch_size=4, num_workers=1), batches_of(truth, 4), strict=True):
        assert_same(batch, expected)
        batch["image"].zero_()


class Keeping(IterableDataset):
    """A user's dataset on top that keeps rows in the worker, and says whether they still are what they were."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        kept = []
        for row in self.rows:
            kept.append((row, copy.deepcopy(dict(row)) if len(kept) % 2 else None, np.array(row["image"])))
            assert all(np.array_equal(old["image"], image) for old, _, image in kept)
            yield row


def test_rows_that_a_worker_keeps_never_change(stream):
    assert sum(len(batch["ra"]) for batch in DataLoader(Keeping(stream), batch_size=4, num_workers=1)) == ROWS


class Changing(IterableDataset):
    """A user's dataset on top that puts something else into some of the rows."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        for number, row in enumerate(self.rows):
            if number % 3 == 0:
                row["ra"] = torch.tensor(-1.0)
            elif number % 3 == 1:
                row["segmentation"]["vote_fraction"] = torch.full((4,), 7.0)
            yield row


@pytest.mark.parametrize("workers", [0, 1])
def test_changes_to_rows_are_kept(built, workers):
    stream = skyset.load("gz3d", str(built), format="torch")
    loader = DataLoader(Changing(stream), batch_size=6, num_workers=workers)
    ra, votes = zip(*((batch["ra"], batch["segmentation"]["vote_fraction"]) for batch in loader), strict=True)
    assert (torch.cat(ra)[::3] == -1).all() and (torch.cat(ra)[1::3] > 0).all()
    assert (torch.cat(votes)[1::3] == 7).all() and (torch.cat(votes)[::3] <= 1).all()


def halved(rows):
    batch = default_collate(rows)
    batch["image"] = batch["image"][:, ::2]
    return batch


def test_changes_to_a_batch_in_a_worker_are_kept(stream, truth):
    batch = next(iter(DataLoader(stream, batch_size=4, num_workers=1, collate_fn=halved)))
    assert torch.equal(batch["image"], torch.from_numpy(np.stack([row["image"] for row in truth[:4]])[:, ::2]))


def test_a_collate_function_of_ones_own_sees_plain_rows(stream, truth):
    loader = DataLoader(
        stream, batch_size=4, num_workers=1, collate_fn=lambda rows: [sorted(row.items())[0] for row in rows]
    )
    assert [key for key, _ in next(iter(loader))] == ["dec"] * 4


@pytest.fixture
def row(built):
    row = next(iter(skyset.load("gz3d", str(built), format="torch")))
    assert type(row) is Row
    return row


def test_a_row_is_a_dict(row, truth):
    assert isinstance(row, dict)
    assert list(row) == list(truth[0]) and len(row) == len(truth[0])
    assert "image" in row and "nothing" not in row
    assert row["object_id"] == truth[0]["object_id"]
    with pytest.raises(KeyError):
        row["nothing"]
    assert row.get("nothing", 3) == 3


@pytest.mark.parametrize("look", [dict, lambda row: {**row}, copy.copy, lambda row: row.copy(), lambda row: row | {}])
def test_copies_are_plain_and_whole(row, truth, look):
    plain = look(row)
    assert plain.keys() == truth[0].keys()
    assert torch.equal(plain["image"], torch.from_numpy(truth[0]["image"]))


def test_a_row_pickles_as_a_plain_dict(row, truth):
    plain = pickle.loads(pickle.dumps(row))
    assert type(plain) is dict
    assert torch.equal(plain["segmentation"]["array"], torch.from_numpy(truth[0]["segmentation"]["array"]))


def test_what_was_put_into_a_row_stays(row):
    row["ra"] = 1
    row["mine"] = 2
    assert (row["ra"], row["mine"], len(row)) == (1, 2, 9)
    assert row.pop("mine") == 2 and "mine" not in row


def test_values_are_taken_once(row):
    assert row["image"] is row["image"]
    assert dict(row)["image"] is row["image"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seed", [None, 5])
def test_a_stateful_loader_resumes_exactly(built, workers, seed):
    """torchdata's StatefulDataLoader saves the state of each worker's stream."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader():
        stream = skyset.load("gz3d", str(built), format="torch")
        return stateful(stream if seed is None else stream.shuffle(seed=seed), batch_size=3, num_workers=workers)

    whole = [batch["object_id"] for batch in loader()]
    for stop in (1, 4, len(whole) - 1):
        first = loader()
        batches = iter(first)
        head = [next(batches)["object_id"] for _ in range(stop)]
        again = loader()
        again.load_state_dict(first.state_dict())
        assert head + [batch["object_id"] for batch in again] == whole
