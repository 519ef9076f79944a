"""A deterministic stream: the same order of rows for any number of nodes and workers, and from any place in it."""

from itertools import zip_longest

import numpy as np
import pytest
from datasets.distributed import split_dataset_by_node
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import skyset
from skyset.errors import UserError

pytestmark = pytest.mark.datasets3
EPOCH = 1


def stream(root, batch, seed=7, state=None, nodes=1, node=0):
    """The rows' names in windows of some five rows."""
    rows = skyset.load("gz_decals", data_dir=str(root), deterministic=True, batch_size=batch).select_columns(["object_id"])
    rows = rows if seed is None else rows.shuffle(seed=seed, buffer_bytes=5 * 24)
    rows = split_dataset_by_node(rows, node, nodes) if nodes > 1 else rows
    rows.set_epoch(EPOCH)
    if state is not None:
        rows.load_state_dict(state)
    return rows


def names(rows):
    return [row["object_id"] for row in rows]


def in_turns(parts):
    """What several hand out in turns; those that have no more are left out."""
    return [each for step in zip_longest(*parts) for each in step if each is not None]


def worker_of(rows, workers, index):
    """The rows of one worker of a loader, as `datasets` makes them in its process, but in this one."""
    source = rows._prepared()[1]
    if workers:
        source = source.shard_data_sources(num_shards=workers, index=index, contiguous=False)
        source._init_state_dict()
        if rows._starting_state_dict:
            source.load_state_dict(rows._starting_state_dict["examples_iterable"])
    return names(row for _, row in source)


def all_nodes(root, nodes, workers, batch, **options):
    """The rows of every step of all nodes, one after the other."""
    found = []
    for node in range(nodes):
        rows = stream(root, batch, nodes=nodes, node=node, **options)
        shares = [worker_of(rows, workers, worker) for worker in range(max(1, workers))]
        found.append(in_turns([share[k : k + batch] for k in range(0, len(share), batch)] for share in shares))
    return [name for part in in_turns(found) for name in part]


@given(st.integers(1, 4), st.integers(0, 4), st.integers(1, 7), st.sampled_from([None, 7]), st.data())
@settings(max_examples=25, deadline=None)
def test_the_order_is_that_of_one_process_and_goes_on_from_any_row(rings, nodes, workers, batch, seed, data):
    whole = names(stream(rings, 1, seed))
    assert all_nodes(rings, nodes, workers, batch, seed=seed) == whole
    done = data.draw(st.integers(0, len(whole)), "rows that were handed out before")
    state = stream(rings, 1, seed).state_after(done)
    assert all_nodes(rings, nodes, workers, batch, seed=seed, state=state) == whole[done:]


def test_it_is_the_order_of_the_survey_and_shuffled_in_every_epoch(rings):
    plain = skyset.load("gz_decals", data_dir=str(rings))
    assert names(stream(rings, 4, None)) == names(plain)
    shuffled = stream(rings, 4)
    first = names(shuffled)
    shuffled.set_epoch(EPOCH + 1)
    assert sorted(first) == sorted(names(plain)) and names(plain) != first != names(shuffled)


@pytest.mark.parametrize(("nodes", "workers"), [(1, 0), (1, 4), (2, 2), (4, 1)])
def test_loaders_of_any_shape_have_the_same_rows_in_every_step(rings, nodes, workers):
    """Eight rows a step, by real loaders and their processes; then three steps in this shape go on in one process."""
    whole, batch = names(stream(rings, 1)), 8 // nodes
    loaders = [DataLoader(stream(rings, batch, nodes=nodes, node=node), batch, num_workers=workers) for node in range(nodes)]
    steps = [[name for part in step if part for name in part["object_id"]] for step in zip_longest(*loaders)]
    assert steps == [whole[k : k + 8] for k in range(0, len(whole), 8)]
    assert len(loaders[0]) == len(list(loaders[0]))
    state = stream(rings, batch, nodes=nodes).state_after(24)
    assert names(stream(rings, 3, state=state)) == whole[24:]


def test_its_own_state_goes_on_where_it_was_and_with_workers(rings):
    whole = names(stream(rings, 1))
    rows = stream(rings, 2)
    seen = [row["object_id"] for _, row in zip(range(11), rows, strict=False)]
    assert seen == whole[:11]
    state = rows.state_dict()
    assert names(stream(rings, 5, state=state)) == whole[11:]
    assert all_nodes(rings, 2, 2, 3, state=state) == whole[11:], "one process's state is good for any number"


def test_one_nodes_state_is_good_for_that_node_alone(rings):
    one = stream(rings, 4, nodes=2, node=1)
    expected = names(one)
    rows = stream(rings, 4, nodes=2, node=1)
    assert [row["object_id"] for _, row in zip(range(6), rows, strict=False)] == expected[:6]
    state = rows.state_dict()
    assert names(stream(rings, 4, state=state, nodes=2, node=1)) == expected[6:]
    with pytest.raises(ValueError, match=r"one worker or node of several \(turn 1 of 2, 4 rows\).*state_after"):
        names(stream(rings, 4, state=state, nodes=4, node=1))


def test_pixels_and_functions_of_rows_go_with_it(rings):
    def rows(batch):
        loaded = skyset.load("gz_decals", data_dir=str(rings), deterministic=True, batch_size=batch).shuffle(seed=1)
        return loaded.map(lambda row: {"mean": float(row["image"].mean())})

    whole = [(row["object_id"], row["mean"], row["image"].tobytes()) for row in rows(1)]
    nodes = [list(split_dataset_by_node(rows(2), node, 2)) for node in range(2)]
    batches = in_turns([node[k : k + 2] for k in range(0, len(node), 2)] for node in nodes)
    assert [(row["object_id"], row["mean"], row["image"].tobytes()) for batch in batches for row in batch] == whole
    assert np.isfinite([mean for _, mean, _ in whole]).all()


def test_what_would_break_the_order_is_refused(rings):
    rows = stream(rings, 2)
    for step in (
        lambda: rows.filter(lambda row: True),
        lambda: rows.batch(2),
        lambda: rows.map(lambda row, k: row, with_indices=True),
        lambda: rows.take(3),
    ):
        with pytest.raises(UserError, match="goes row by row"):
            list(step())
    with pytest.raises(UserError, match="256 workers of a node at most, not 300"):
        worker_of(rows, 300, 0)
    with pytest.raises(UserError, match="comes first"):
        rows.map(lambda row: row).deterministic()
    for wrong in (0, 2.5, "x", True):
        with pytest.raises(UserError, match="a whole number of rows"):
            skyset.load("gz_decals", data_dir=str(rings), deterministic=True, batch_size=wrong)
    with pytest.raises(UserError, match="is for streams"):
        skyset.load("gz_decals", data_dir=str(rings), deterministic=True, streaming=False)
    with pytest.raises(UserError, match="deterministic=True"):
        skyset.load("gz_decals", data_dir=str(rings)).state_after(3)
    with pytest.raises(ValueError, match="pass seed="):
        list(split_dataset_by_node(skyset.load("gz_decals", data_dir=str(rings), deterministic=True).shuffle(), 0, 2))
