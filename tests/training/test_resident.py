"""A split that lies on the device."""

import pytest
import torch

from skyset.errors import UserError
from skyset.training.common.batches import EpochBatches, EpochLoader
from skyset.training.common.resident import Resident, collate, fill


def test_a_loader_gets_whole_batches_in_the_order_of_the_epoch():
    rows = Resident({"pixel_values": torch.arange(20).view(10, 2).half(), "labels": torch.arange(10.0)})
    loader = EpochLoader(rows, batch_sampler=EpochBatches(10, 4, seed=0), collate_fn=collate)
    orders = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert [len(batch["labels"]) for batch in batches] == [4, 3, 3]
        labels = torch.cat([batch["labels"] for batch in batches])
        pixels = torch.cat([batch["pixel_values"] for batch in batches])
        assert torch.equal(pixels[:, 0].float(), 2 * labels) and pixels.dtype == torch.float16
        orders.append(labels.tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10)) and orders[0] != orders[1]
    assert torch.equal(collate([rows[3], rows[5]])["labels"], torch.tensor([3.0, 5.0])) and rows.bytes == 80


def test_it_is_filled_as_batches_come():
    parts = [torch.ones(3, 2), torch.zeros(2, 2)]
    filled = fill(5, (2,), iter(parts), torch.float16, "cpu", "rows")
    assert filled.dtype == torch.float16 and filled.sum() == 6
    with pytest.raises(UserError, match="rows: 3 of 5 rows came"):
        fill(5, (2,), iter(parts[:1]), torch.float16, "cpu", "rows")
    with pytest.raises(UserError, match="more than the 4 rows"):
        fill(4, (2,), iter(parts), torch.float16, "cpu", "rows")
    with pytest.raises(UserError, match=r"--resident needs .* GB on cpu"):
        fill(1 << 45, (1 << 10,), iter(()), torch.float16, "cpu", "rows")


def test_tensors_of_other_lengths_are_refused():
    with pytest.raises(UserError, match="other numbers of rows"):
        Resident({"a": torch.zeros(2), "b": torch.zeros(3)})
