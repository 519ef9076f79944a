"""What a reader needs for files that lie afar: lines to them, threads that wait for pieces of them, files that are open."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable

from skyset.crew import Crew
from skyset.partitions.partition import Partition
from skyset.ranges import CONNECTIONS, Lines

#: Pieces that are waited for at a time: more small files than this are not asked for.
MOST = 16
#: Files that are kept open, near or far: neighbouring pieces are of one file, those of a shuffled window of many.
MAX_OPEN = 128


def connections() -> int:
    """For one reader; the workers of a loader share them out."""
    torch = sys.modules.get("torch.utils.data")
    worker = torch.get_worker_info() if torch else None
    return max(2, CONNECTIONS // worker.num_workers) if worker else CONNECTIONS


class Far:
    """Every method may be called from any thread, ``close`` from one."""

    def __init__(self) -> None:
        self.pieces, self.windows = Crew(MOST, "pieces"), Crew(1, "windows")
        self.lines = Lines(connections())
        self._open: OrderedDict[str, Partition] = OrderedDict()
        self._opening: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def opened(self, path: str, opens: Callable[[Lines], Partition]) -> Partition:
        """The file of this path. Threads that want the same one wait for one of them to open it."""
        with self._lock:
            opening = self._opening.setdefault(path, threading.Lock())
        with opening:
            partition = self._open.get(path) or opens(self.lines)
            with self._lock:
                self._open[path] = partition
                self._open.move_to_end(path)
                if len(self._open) > MAX_OPEN:  # it is not closed: a thread may read from it
                    self._opening.pop(self._open.popitem(last=False)[0], None)
        return partition

    def close(self) -> None:
        """End what is under way; no thread is left."""
        self.lines.close()
        self.windows.close()
        self.pieces.close()
        while self._open:
            self._open.popitem()[1].close()
