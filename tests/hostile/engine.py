"""One case: the file is made and read within limits, and what came of it is judged."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import re
import resource
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from skyset.errors import PartitionError, UserError
from skyset.partitions import partition as partitions
from skyset.partitions.layout import PIXELS_FROM, slabs
from skyset.partitions.partition import Partition
from skyset.survey import Column
from tests.hostile.cases import STRUCTURED
from tests.hostile.elsewhere import NAMES
from tests.hostile.good import COLUMNS, EXPECTED, IMAGE, ROWS, SIDE, make_bases
from tests.hostile.mutations import Mutator

#: Limits on one case: seconds, and bytes of memory that are touched above what the process had before it.
SECONDS = 60
MEMORY = 96 << 20  # a piece of 64 MB, and what is around it
ADDRESS_SPACE = 4 << 30
#: What lies in the files beside the partition, and in memory that was freed: neither may ever be among the values.
OUTSIDE = b"\xe7OUTSIDE"
MEMORY_MARK = b"\xf3MEMORY\xf5"
ALLOWED = ("right rows", "other values", "refused")


class Watch:
    """Tells whether somebody opened one of some files: Python (audit hook) or a library (inotify)."""

    IN_OPEN = 0x20

    def __init__(self, paths: Sequence[Path]):
        self._names = {str(path) for path in paths}
        self._seen: list[str] = []
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK)
        for path in paths:
            libc.inotify_add_watch(self._descriptor, os.fsencode(path), self.IN_OPEN)
        sys.addaudithook(self._hook)
        paths[0].read_bytes()
        if len(self.opened()) < 2:
            raise RuntimeError("the watch does not see what is opened")

    def _hook(self, event: str, arguments: tuple) -> None:
        if event == "open" and str(arguments[0]) in self._names:
            self._seen.append("python")

    def opened(self) -> list[str]:
        """Who opened one since the last call."""
        with contextlib.suppress(BlockingIOError):
            self._seen += ["library"] * bool(os.read(self._descriptor, 65536))
        seen, self._seen = self._seen, []
        return seen


class Bench:
    """A folder with the bases and the files that nobody may open; runs cases."""

    def __init__(self, folder: Path):
        self.bases = make_bases(folder)
        self.good = self.bases[0].content
        self.path = folder / "case.hdf5"
        outside = [folder / "outside.bin", folder / "outside.hdf5"]
        outside[0].write_bytes(OUTSIDE * (IMAGE.nbytes // len(OUTSIDE)))
        with h5py.File(outside[1], "w") as file:
            file["image"] = np.frombuffer(outside[0].read_bytes(), np.uint8).reshape(IMAGE.shape)
        self.watch = Watch(outside)
        self.unraisable: list[str] = []
        sys.unraisablehook = lambda hook: self.unraisable.append(f"{type(hook.exc_value).__name__}: {hook.exc_value}")

    def run(self, case: int | str) -> dict:
        """Outcome of one case, as ``{"case", "outcome", "detail", "steps"}``."""
        columns, ways, steps, expected = COLUMNS, [(case, None)], [], "any"
        partitions._layouts.clear()  # a file that is replaced within a tick of the clock would be taken for the last one
        if self.path.is_dir():
            self.path.rmdir()
        self.path.unlink(missing_ok=True)
        if isinstance(case, int):
            mutator = Mutator(case, self.bases)
            self.path.write_bytes(mutator.run())
            steps, ways = mutator.steps, [(case % 4 == 3, ROWS if case % 2 else None)]
        else:
            self.path.write_bytes(self.good)
            expected, make = STRUCTURED[case]
            make(self.path)
            self.watch.opened()
            ways = [(False, None), (False, ROWS), (True, ROWS)]
            if case.startswith("column:"):
                name = next(name for name in NAMES if case == f"column:{name!a}")
                try:
                    columns = (Column(name, "uint8", (SIDE, SIDE)),)
                except ValueError as error:
                    return {"case": case, "outcome": "refused", "detail": str(error), "steps": []}
        outcome, detail = self._worst([self._guarded(columns, *way) for way in ways], expected)
        return {"case": case, "outcome": outcome, "detail": detail, "steps": steps}

    @staticmethod
    def _worst(outcomes: list[tuple[str, str]], expected: str) -> tuple[str, str]:
        wrong = [outcome for outcome in outcomes if outcome[0] not in ALLOWED]
        unexpected = {"rows": lambda o: o != "right rows", "refused": lambda o: o != "refused"}.get(
            expected, lambda o: False
        )
        wrong += [(f"NOT {expected}", ": ".join(o)) for o in outcomes if not wrong and unexpected(o[0])]
        return wrong[0] if wrong else outcomes[0]

    def _guarded(self, columns: Sequence[Column], remote: bool, rows: int | None) -> tuple[str, str]:
        """Read the file within limits, and look at what that left behind."""
        before, memory = open_files(), peak_memory(reset=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            result = self._attempt(columns, remote, rows)
        finally:
            faulthandler.cancel_dump_traceback_later()
        grown = peak_memory() - memory
        if opened := self.watch.opened():
            return "FILE OUTSIDE OPENED", " ".join(opened)
        if grown > MEMORY:
            return "MEMORY", f"{grown >> 20} MB, and {result[0]}: {result[1]}"
        if open_files() > before and (gc.collect(), open_files())[1] > before:
            return "FILE LEFT OPEN", ": ".join(result)
        if self.unraisable:
            return "UNRAISABLE", self.unraisable.pop()
        return result

    def _attempt(self, columns: Sequence[Column], remote: bool, rows: int | None) -> tuple[str, str]:
        where = f"file://{self.path}" if remote else self.path
        try:
            values = read_all(where, columns, rows)
        except (PartitionError, UserError) as error:
            text = str(error)
            return ("refused", text.removeprefix(f"{where}: ")) if "\n" not in text else ("MESSAGE OF MANY LINES", text)
        except Exception as error:
            return f"EXCEPTION {type(error).__name__}", f"{error} {where_raised(error)}"
        return judge(columns, values)


def where_raised(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[1:]
    return f"[{' > '.join(f'{Path(frame.filename).name}:{frame.lineno} {frame.name}' for frame in frames)}]"


def peak_memory(reset: bool = False) -> int:
    """Most memory that this process has touched (since the last reset, where the kernel can)."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
    match = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(match[1]) << 10 if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def leave_marks_in_memory() -> None:
    """Fill memory of the sizes that reading takes, and free it: whoever hands out unset memory hands these out."""
    for size in (64, 128, 512, 1024, 2048, 4096, 4096 * ROWS):
        blocks = [bytearray(MEMORY_MARK * (size // len(MEMORY_MARK) - k % 3)) for k in range(12)]
        del blocks


def read_all(where: str | Path, columns: Sequence[Column], rows: int | None) -> dict[str, np.ndarray]:
    """All columns as skyset reads them: pixels by slabs (the first and the last ones) into one's own memory."""
    leave_marks_in_memory()
    values = {}
    with Partition(where, columns, trusted_rows=rows) as partition:
        for column in columns:
            if column.row_bytes < PIXELS_FROM or column.is_bytes:
                values[column.name] = partition.read(column.name)
                continue
            runs = list(slabs(min(partition.rows, 10**5), column.row_bytes))
            values[column.name] = np.concatenate([read_slab(partition, column, *run) for run in (runs[:1] + runs[1:][-1:])])
        if partition.rows:
            partition.record(partition.rows - 1)
    return values


def read_slab(partition: Partition, column: Column, start: int, stop: int) -> np.ndarray:
    """One slab twice: as a layer of a stack, and into memory of its own; both must say the same."""
    stack = np.frombuffer(bytearray(MEMORY_MARK * ((stop - start) * 2 * column.row_bytes // len(MEMORY_MARK))), column.dtype)
    layer = stack.reshape((stop - start, 2, *column.shape))[:, 1]
    partition.read(column.name, start, stop, out=layer)
    alone = partition.read(column.name, start, stop)
    if layer.tobytes() != alone.tobytes() and column.dtype == "uint8":
        raise AssertionError(f"{column.name} reads otherwise the second time")
    return alone


def judge(columns: Sequence[Column], values: dict[str, np.ndarray]) -> tuple[str, str]:
    for column in columns:
        array = values[column.name]
        if array.dtype != (np.uint8 if column.is_bytes else np.dtype(column.dtype)) or array.shape[1:] != column.shape:
            return "OTHER DTYPE", f"{column.name} is {array.dtype}{array.shape}"
        for mark in (OUTSIDE, MEMORY_MARK):
            if mark in array.tobytes():
                return "BYTES FROM OUTSIDE", f"{column.name} holds {mark!r}"
    same = [c.name in EXPECTED and values[c.name].tobytes() == EXPECTED[c.name].tobytes() for c in columns]
    return ("right rows", "") if all(same) else ("other values", columns[same.index(False)].name)
