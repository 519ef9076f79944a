"""What to do about a speed that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skyset.explore.bench.machine import PREFETCH, ahead_bytes, free_shared_memory, memory_bytes
from skyset.explore.bench.measure import (
    BATCH,
    BATCHES,
    COLD,
    FLOOR,
    ROWS,
    WARM,
    Results,
    Speed,
    Target,
    Way,
    stored_compression,
)
from skyset.files import human_bytes


def fewest_workers(rates: Mapping[int, float]) -> int:
    """The smallest number of workers within 10 % of the best rate."""
    return min(workers for workers, rate in rates.items() if rate >= 0.9 * max(rates.values()))


def workers_advice(rates: Mapping[str, Mapping[int, float]]) -> str:
    """How many workers a DataLoader should have; ``rates`` by phase and number of workers."""
    chosen = {phase: fewest_workers(by_number) for phase, by_number in rates.items()}
    told = [f"{rates[phase][number]:,.0f} rows/s {phase}" for phase, number in chosen.items()]
    if len(set(chosen.values())) > 1:
        told = [f"num_workers={number} {phase} ({rates[phase][number]:,.0f} rows/s)" for phase, number in chosen.items()]
        return f"DataLoader: {', '.join(told)}."
    number = next(iter(chosen.values()))
    if number:
        return f"DataLoader: num_workers={number} ({', '.join(told)}); more do not help much."
    return (
        f"DataLoader: num_workers=0 ({', '.join(told)}); workers do not make it faster. "
        "One is worth it if a model on another device computes meanwhile."
    )


def limit(cold: float, warm: float, cold_floor: float) -> str:
    """``"processor"`` if the disk hardly matters, ``"disk"`` if it gives all it can, ``"waiting"`` in between."""
    if cold >= 0.9 * warm:
        return "processor"
    return "disk" if cold >= 0.8 * cold_floor else "waiting"


def limit_advice(cold: float, warm: float, cold_floor: float, is_encoded: bool = False) -> str:
    """Whether a faster disk would help."""
    numbers = f"{cold:,.0f} rows/s cold, {warm:,.0f} warm"
    if is_encoded and limit(cold, warm, cold_floor) == "waiting":
        return f"Decoding is the limit where files are in memory, else partly the disk: {numbers}. Workers read and decode."
    return {
        "processor": f"The processor is the limit, not the disk: {numbers}. A faster disk would not help.",
        "disk": f"The disk is the limit: {numbers}; reading files from end to end gives {cold_floor:,.0f}.",
        "waiting": f"Reading waits for the disk without keeping it busy: {numbers}, where reading files from end to end "
        f"gives {cold_floor:,.0f}. Workers of a DataLoader keep more reads under way.",
    }[limit(cold, warm, cold_floor)]


def trust_advice(cold: float, cold_floor: float) -> str | None:
    """A warning where rows beat what should be the floor: the cold ways did not meet the same disk."""
    if cold < 1.3 * cold_floor:
        return None
    return (
        "Cold rows came faster than the floor, which is measured first: the disk was busy then, or what lies below the page "
        "cache (a virtual machine's host, a file server) remembered the files. Do not trust the cold numbers; measure again."
    )


def memory_advice(survey_bytes: int, memory: int) -> str:
    """Which numbers count: those from the disk or those from memory."""
    sizes = f"The survey ({human_bytes(survey_bytes)}) "
    if survey_bytes < 0.7 * memory:
        return sizes + f"fits into memory ({human_bytes(memory)}): from the second epoch on the warm numbers count."
    return sizes + f"does not fit into memory ({human_bytes(memory)}): the cold numbers count in every epoch."


def compression_advice(compression: str | None, cold_floor: float | None, share: float) -> str | None:
    """Whether another compression would pay.

    Args:
        compression: of the files, None if not known.
        cold_floor: bytes per second that the disk reads, None if not measured.
        share: of the warm floor that the best way reaches.
    """
    if compression == "gzip" and share < 0.8:
        return (
            f"Decoding gzip is the limit: rows come at {share:.0%} of the rate at which the files can be read. "
            "Built with --compression blosc-lz4 or none they decode faster."
        )
    if compression != "none" or cold_floor is None:
        return None
    speed = f"{human_bytes(cold_floor)}/s"
    if cold_floor < 500e6:
        return f"The disk reads {speed}: built with --compression blosc-lz4 there are fewer bytes to read (about half)."
    return f"The disk reads {speed}: uncompressed files are right for it."


def encoded_advice(times: float, share: float) -> str:
    """What images stored as JPEG or PNG cost.

    Args:
        times: how much larger a row is decoded.
        share: of the rate at which files can be read, reached by the best way.
    """
    text = "Images are stored as JPEG or PNG: --compression would not make them smaller."
    if share > 0.8:
        return text
    return text + (
        f" Decoding takes the time: rows come at {share:.0%} of the rate at which the files can be read. Built with "
        f"--decode there is nothing to decode, and the files are about {times:,.0f} times as large."
    )


def batches_advice(rows: float, batches: float) -> str:
    """Whether ``iter(batch_size=)`` is worth it."""
    if batches >= 1.2 * rows:
        return f"iter(batch_size={BATCH}) gives {batches / rows:.1f} times as many rows/s as row by row."
    if rows >= 1.2 * batches:
        return f"Row by row is {rows / batches:.1f} times as fast as iter(batch_size={BATCH})."
    return f"iter(batch_size={BATCH}) is about as fast as row by row: take what suits the code."


def batch_memory_advice(batch_bytes: int, workers: int | None, shared_bytes: int | None) -> str:
    """What batches take; ``workers`` None where there is no torch."""
    text = f"A batch of {BATCH} takes {human_bytes(batch_bytes)}."
    if not workers:
        return text
    text += (
        f" num_workers={workers}, with {PREFETCH} batches ahead each, take {human_bytes(ahead_bytes(workers, batch_bytes))}"
    )
    return text + (f" of shared memory ({human_bytes(shared_bytes)} are free)." if shared_bytes is not None else ".")


def advice(target: Target, all_ways: Sequence[Way], results: Results) -> list[str]:
    """All that can be said from what was measured, a sentence or two each."""
    cold, warm = (results.speeds.get(phase, {}) for phase in (COLD, WARM))
    rates = {phase: r for phase in (COLD, WARM) if len(r := results.of_workers(phase, all_ways)) > 1}
    told: list[str | None] = [workers_advice(rates)] if rates else []
    told.append(memory_advice(target.manifest.bytes, memory_bytes()))
    shared = set(cold) & set(warm) - {FLOOR}
    if shared and FLOOR in cold:
        best = max(shared, key=lambda name: cold[name].rows)
        told.append(
            limit_advice(cold[best].rows, max(warm[name].rows for name in shared), cold[FLOOR].rows, target.is_encoded)
        )
        told.append(trust_advice(cold[best].rows, cold[FLOOR].rows))
    told.append(_storage_advice(target, cold[FLOOR].bytes if FLOOR in cold else None, best_share(warm)))
    every = warm or cold
    if {ROWS, BATCHES} <= set(every):
        told.append(batches_advice(every[ROWS].rows, every[BATCHES].rows))
    workers = max(map(fewest_workers, rates.values()), default=None)
    told.append(batch_memory_advice(BATCH * target.row_bytes, workers, free_shared_memory()))
    return [text for text in told if text]


def _storage_advice(target: Target, cold_floor: float | None, share: float) -> str | None:
    if target.is_encoded:
        return encoded_advice(target.row_bytes / target.stored_row_bytes, share)
    return compression_advice(stored_compression(target.manifest), cold_floor, share)


def best_share(speeds: Mapping[str, Speed]) -> float:
    """Of the floor, reached by the fastest way; 1 if only the floor was measured."""
    others = [speed.rows for name, speed in speeds.items() if name != FLOOR]
    return max(others) / speeds[FLOOR].rows if others and FLOOR in speeds else 1.0
