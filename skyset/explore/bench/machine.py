"""The machine that is measured: cores, memory, workers worth trying."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

PREFETCH = 2  # batches that a worker of a DataLoader makes ahead, torch's default


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of the machine, bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_shared_memory() -> int | None:
    """Bytes left in the folder through which workers hand out batches; None where there is no such folder."""
    shared = Path("/dev/shm")
    return shutil.disk_usage(shared).free if shared.is_dir() else None


def machine() -> dict:
    """What the numbers depend on, for the record."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"processor": model, "cores": core_count(), "memory_bytes": memory_bytes(), "system": platform.platform()}


def worker_counts(cores: int, batch_bytes: int, shared_bytes: int | None) -> list[int]:
    """0, 1, 2, 4, ... up to the cores, and no more than shared memory has room for the batches of."""
    counts = [0, *(2**power for power in range(cores.bit_length()))]
    return [n for n in counts if not n or shared_bytes is None or ahead_bytes(n, batch_bytes) <= shared_bytes]


def ahead_bytes(workers: int, batch_bytes: int) -> int:
    """Memory of the batches that workers have ready, bytes."""
    return workers * PREFETCH * batch_bytes
