"""Rows in one order for any number of nodes and workers: who hands out which row follows from its place in that order.

Nodes and workers take turns, a batch each: of N nodes with W workers, batch b is read by worker b // N % W of node b % N.
A loader takes its workers in turns, too, so that what all nodes see in one step is the next N batches of the order. Every
worker goes through all windows of pieces (their small columns), and reads the pixels of its own rows alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from numbers import Integral

import numpy as np
from datasets.iterable_dataset import RebatchedArrowExamplesIterable, _BaseExamplesIterable

from skyset.errors import UserError
from skyset.loading.ahead import NextWindow
from skyset.loading.partition_rows import PartitionRows
from skyset.loading.reader import PIECE_BYTES
from skyset.loading.steps import Replayed, goes_through, links

#: Workers of a node at most.
MOST_WORKERS = 256


class ElasticRows(PartitionRows):
    """``PartitionRows`` that are shared out by the rows' places in the whole order; their state is such a place.

    ``batch`` is the rows of a turn; of ``turns`` shares this is number ``turn``; ``nodes`` will share it out yet.
    """

    batch: int
    nodes, turns, turn = 1, 1, 0
    #: Places of the rows of the window that is being handed out, and how many of them were.
    _own: np.ndarray
    _done: int

    @classmethod
    def of(cls, rows: PartitionRows, batch: int) -> ElasticRows:
        """All of these rows, in turns of ``batch`` rows."""
        twin = object.__new__(cls)
        twin.__dict__.update(copy.copy(rows).__dict__)
        twin.batch = batch
        return twin

    def ordered(self, epoch: int, nodes: int = 1) -> PartitionRows:
        return super().ordered(epoch).with_changes(nodes=nodes)

    @property
    def num_shards(self) -> int:
        """As many as nodes and workers may be: `datasets` shares out by this number."""
        return self.nodes * MOST_WORKERS

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> PartitionRows:
        """One share of several, which take turns; UserError where they are more than `datasets` would ask for all of."""
        if num_shards > self.num_shards:
            raise UserError(f"a deterministic stream is read by {MOST_WORKERS} workers of a node at most, not {num_shards}")
        turns, turn = self.turns * num_shards, self.turn + self.turns * index
        return self.with_changes(nodes=max(1, self.nodes // num_shards), turns=turns, turn=turn)

    @property
    def total(self) -> int:
        cycles, rest = divmod(super().total, self.batch * self.turns)
        return cycles * self.batch + min(max(rest - self.turn * self.batch, 0), self.batch)

    def places(self, start: int, stop: int, origin: int) -> np.ndarray:
        """Places of this share's rows from ``start`` to ``stop``, where turns begin at ``origin``; int64 (rows,)."""
        every = np.arange(start, max(start, stop))
        return every[(every - origin) // self.batch % self.turns == self.turn]

    def _share(self) -> str:
        return f"turn {self.turn} of {self.turns}, {self.batch} rows" if self.turns > 1 else ""

    def _init_state_dict(self) -> dict:
        self._state_dict = {**super()._init_state_dict(), "origin": 0, "position": 0, "share": self._share()}
        return self._state_dict

    def _check_state(self) -> None:
        """Turns begin anew where a stream of all rows was, or one that said where all of its shares are."""
        super()._check_state()
        state = self._state_dict
        if state["share"] != self._share() and state["position"] != state["origin"]:
            if state["share"]:
                raise ValueError(
                    f"this state is of one worker or node of several ({state['share']}): another number of them goes on "
                    "from state_after(rows), rows being what all of them handed out"
                )
            state["origin"] = state["position"]
        state["share"] = self._share()

    def _advance(self, rows: int) -> None:
        self._done += rows
        own, done = self._own, self._done
        self._state_dict["position"] = int(own[done]) if done < len(own) else int(own[-1]) + 1

    def _slabs(self, rows: Callable[[], int | None], blocks: Callable | None = None) -> Iterator[dict]:
        self._check_state()
        state, first = self._state_dict, 0
        state["shard_idx"] = 0
        with self._reader(**({} if blocks is None else {"new_block": blocks})) as reader:
            windows = NextWindow(reader)
            while state["shard_idx"] < len(self.pieces):
                pieces = self._next_window()
                good = [piece for piece in pieces if self._opens(reader, piece)] if self.skip_bad else pieces
                count = sum(map(len, good))
                self._own, self._done = self.places(max(first, state["position"]), first + count, state["origin"]), 0
                if len(self._own):
                    order = self._window_order(count)[self._own - first]
                    read = self._reads_mixed(reader, good, order, windows)
                    while (done := self._done) < len(order):
                        size = rows() or max(1, PIECE_BYTES // self._row_bytes)
                        yield from self._readable(read, order[done : done + size])
                first += count
                state["position"] = max(state["position"], first)
                state["shard_idx"] += len(pieces)

    def _window_order(self, rows: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(rows)
        return np.random.default_rng((*self.seed, self._state_dict["shard_idx"])).permutation(rows)


def made_elastic(rows: _BaseExamplesIterable, batch: int) -> _BaseExamplesIterable:
    """A stream's one source made elastic; UserError where it is something else."""
    if not isinstance(rows, PartitionRows) or type(rows) not in (PartitionRows, ElasticRows):
        raise UserError("deterministic() comes first, before other steps, and is for the rows of one survey")
    if isinstance(batch, bool) or not isinstance(batch, Integral) or batch < 1:
        raise UserError(f"batch_size={batch!r}: it is a whole number of rows, 1 or more")
    return ElasticRows.of(rows, batch)


def check_steps(rows: _BaseExamplesIterable) -> None:
    """UserError where a step after elastic rows does not hand on each row that it gets, one by one."""
    chain = list(links(rows))
    if not any(isinstance(link, ElasticRows) for link in chain):
        return
    for link in chain:
        same = isinstance(link, ElasticRows | Replayed | RebatchedArrowExamplesIterable) or goes_through(link, False)
        if not same or getattr(link, "with_indices", False):
            raise UserError(
                f"a deterministic stream goes row by row: {type(link).__name__} changes which rows there are, or counts them"
            )
