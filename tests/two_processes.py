"""A training on two processes of this machine, as ``torchrun`` starts them, and which rows each of them read."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

from accelerate.state import AcceleratorState

from skyset.training.common.images import Rows
from tests.processes import forked, status_of


def rows_read(main: Callable[[list[str]], object], words: list[str], folder: Path) -> list[tuple[int, int]]:
    """Size of the dataset and number of the row, for each row that either process read."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def train(rank: int) -> None:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
        AcceleratorState._reset_state(reset_partial_state=True)
        seen, get = [], Rows.__getitems__
        Rows.__getitems__ = lambda self, rows: (seen.extend((len(self), int(row)) for row in rows), get(self, rows))[1]
        main(words)
        (folder / f"seen-{rank}.json").write_text(json.dumps(seen))

    children = [forked(lambda rank=rank: train(rank)) for rank in (0, 1)]
    assert [status_of(child) for child in children] == [0, 0]
    return [tuple(each) for rank in (0, 1) for each in json.loads((folder / f"seen-{rank}.json").read_text())]
