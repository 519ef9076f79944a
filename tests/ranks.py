"""Two processes of one training, as `torchrun` starts them, without importing anything anew."""

import os
import socket
from collections.abc import Callable

from tests.processes import forked, status_of


def on_two_ranks(action: Callable[[int], None]) -> list[int]:
    """Run ``action(rank)`` in two forked processes that are told what ``torchrun`` tells; their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(rank: int) -> None:
        from accelerate.state import AcceleratorState

        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
        AcceleratorState._reset_state(reset_partial_state=True)  # other tests trained in this process
        action(rank)

    return [status_of(child) for child in [forked(lambda rank=rank: run(rank)) for rank in (0, 1)]]
