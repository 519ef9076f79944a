"""Interleaved rounds of whole commands with the peak memory of their processes; ratios that survive a busy machine."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psutil


@dataclass
class Series:
    """Seconds of each round, and the largest resident memory of one process and of all together, in bytes."""

    seconds: list[float] = field(default_factory=list)
    peak_process: int = 0
    peak_total: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def run(command: list[str], series: Series) -> None:
    """Run a command to its end; raise with its output if it fails."""
    start = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None:
        _sample(process, series)
        time.sleep(0.02)
    series.seconds.append(time.perf_counter() - start)
    output = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output}")


def _sample(process: psutil.Process, series: Series) -> None:
    try:
        sizes = [p.memory_info().rss for p in [process, *process.children(recursive=True)]]
    except psutil.NoSuchProcess:
        return
    series.peak_process = max(series.peak_process, *sizes)
    series.peak_total = max(series.peak_total, sum(sizes))


def interleave(commands: Mapping[str, Callable[[], list[str]]], rounds: int) -> dict[str, Series]:
    """Run each command once a round, in turn; one round of warming up is not counted."""
    results = {name: Series() for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            run(command(), results[name])
            print(f"  round {number}/{rounds}: {name}: {results[name].seconds[-1]:.2f} s", file=sys.stderr)
        if number == 0:
            for series in results.values():
                series.seconds.clear()
    return results


def ratios(of: Series, to: Series) -> str:
    """Median of the rounds' ratios of speed, with their range: ``0.93 (0.91 to 0.95)``."""
    values = sorted(b / a for a, b in zip(of.seconds, to.seconds, strict=True))
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"


def machine() -> str:
    """Where and when, for the head of a table."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{date.today()}, {os.cpu_count()} cores {model}, Python {platform.python_version()}"
