"""``skyset bench``: advice by value from made-up numbers, the ways of reading by what they hand out, the command itself."""

import dataclasses
import json
import shutil
from itertools import count

import datasets
import numpy as np
import pytest

from skyset.explore.bench import advice, machine, measure, run
from skyset.explore.bench.measure import Speed
from skyset.partitions.manifest import Manifest
from tests.test_cli import skyset

MB = 10**6


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "gz3d")


@pytest.fixture
def target(built):
    return measure.open_target(built)


# --- advice ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rates, number",
    [
        ({0: 100, 1: 190, 2: 390, 4: 400}, 2),
        ({0: 100, 1: 90, 2: 80}, 0),
        ({0: 91, 1: 95, 2: 100}, 0),
        ({0: 89, 1: 95, 2: 100}, 1),
        ({0: 5}, 0),
    ],
)
def test_fewest_workers_within_ten_percent_of_the_best(rates, number):
    assert advice.fewest_workers(rates) == number


def test_workers_advice():
    few, many = {0: 100, 1: 90}, {0: 100, 1: 150, 2: 1250}
    assert advice.workers_advice({"warm": few}).startswith("DataLoader: num_workers=0 (100 rows/s warm); workers do not")
    assert advice.workers_advice({"cold": many, "warm": many}) == (
        "DataLoader: num_workers=2 (1,250 rows/s cold, 1,250 rows/s warm); more do not help much."
    )
    assert advice.workers_advice({"cold": few, "warm": many}) == (
        "DataLoader: num_workers=0 cold (100 rows/s), num_workers=2 warm (1,250 rows/s)."
    )


@pytest.mark.parametrize(
    "cold, warm, floor, what, words",
    [
        (950, 1000, 5000, "processor", "faster disk would not help"),
        (1100, 1000, 900, "processor", "The processor is the limit"),
        (90, 1000, 100, "disk", "90 rows/s cold, 1,000 warm; reading files from end to end gives 100."),
        (50, 1000, 100, "waiting", "Workers of a DataLoader keep more reads under way"),
    ],
)
def test_what_limits(cold, warm, floor, what, words):
    assert advice.limit(cold, warm, floor) == what
    assert words in advice.limit_advice(cold, warm, floor)


def test_cold_rows_that_beat_the_floor_are_not_to_be_trusted():
    assert advice.trust_advice(120, 100) is None
    assert "measured first" in advice.trust_advice(140, 100)


def test_compression_advice():
    assert "--compression blosc-lz4" in advice.compression_advice("none", 120 * MB, 0.9)
    assert "120 MB/s" in advice.compression_advice("none", 120 * MB, 0.9)
    assert "uncompressed files are right" in advice.compression_advice("none", 600 * MB, 0.9)
    assert advice.compression_advice("gzip", None, 0.1).startswith("Decoding gzip is the limit: rows come at 10%")
    assert advice.compression_advice("gzip", 50 * MB, 0.9) is None
    assert advice.compression_advice("blosc-lz4", 50 * MB, 0.1) is None
    assert advice.compression_advice("none", None, 0.1) is None
    assert advice.compression_advice(None, 50 * MB, 0.1) is None


def test_batches_advice():
    assert advice.batches_advice(100, 250) == "iter(batch_size=32) gives 2.5 times as many rows/s as row by row."
    assert advice.batches_advice(300, 100) == "Row by row is 3.0 times as fast as iter(batch_size=32)."
    assert "about as fast" in advice.batches_advice(100, 110)


def test_memory_advice():
    assert "fits into memory (16 GB): from the second epoch on the warm" in advice.memory_advice(2 * 10**9, 16 * 10**9)
    assert "does not fit into memory (16 GB): the cold" in advice.memory_advice(58 * 10**9, 16 * 10**9)
    assert advice.batch_memory_advice(60 * MB, None, 10**9) == "A batch of 32 takes 60 MB."
    assert advice.batch_memory_advice(60 * MB, 4, 10**9) == (
        "A batch of 32 takes 60 MB. num_workers=4, with 2 batches ahead each, take 480 MB of shared memory (1 GB are free)."
    )


def test_numbers_of_workers_go_up_to_the_cores_and_fit_into_shared_memory():
    assert machine.worker_counts(1, MB, None) == [0, 1]
    assert machine.worker_counts(12, MB, None) == [0, 1, 2, 4, 8]
    assert machine.worker_counts(16, MB, 100 * MB) == [0, 1, 2, 4, 8, 16]
    assert machine.worker_counts(16, 30 * MB, 130 * MB) == [0, 1, 2]
    assert machine.worker_counts(16, 64 * MB, 64 * MB) == [0]


def test_advice_from_cold_and_warm_numbers(target):
    all_ways = measure.ways(target, [0, 1, 2])
    loaders = {way.workers: way.name for way in all_ways if way.workers is not None}
    cold = {
        measure.FLOOR: Speed(100, 193 * MB),
        measure.ROWS: Speed(90, 174 * MB),
        loaders[0]: Speed(50, 96 * MB),
        loaders[1]: Speed(95, 183 * MB),
        loaders[2]: Speed(96, 185 * MB),
    }
    warm = {measure.FLOOR: Speed(4000, 7 * MB), measure.ROWS: Speed(1000, MB), measure.BATCHES: Speed(1500, MB)}
    text = " ".join(advice.advice(target, all_ways, measure.Results({"cold": cold, "warm": warm})))
    assert "num_workers=1 (95 rows/s cold)" in text
    assert "The disk is the limit: 90 rows/s cold, 1,000 warm; reading files from end to end gives 100." in text
    assert "The disk reads 193 MB/s: built with --compression blosc-lz4" in text
    assert "1.5 times" in text
    assert "num_workers=1, with 2 batches ahead each, take 123 MB" in text


def test_advice_on_a_part_of_the_numbers(target):
    """After Ctrl-C any number of them may be missing."""
    all_ways = measure.ways(target, [0, 1])
    every = {way.name: Speed(10, MB) for way in all_ways}
    for measured in range(len(all_ways) + 1):
        speeds = {way.name: Speed(10, MB) for way in all_ways[:measured]}
        for phases in ({"cold": speeds}, {"warm": speeds}, {"cold": every, "warm": speeds}):
            assert advice.advice(target, all_ways, measure.Results(phases))


# --- measuring -----------------------------------------------------------------------------------------------------------


def test_measure_counts_what_comes_while_the_clock_runs():
    buffer = np.zeros(1000, np.uint8)

    def speed(items: int, seconds: float, skipped: int = 0) -> Speed | None:
        clock = count()  # a second passes whenever somebody looks
        return measure.measure(iter([(2, [buffer])] * items), seconds, buffer, skipped, lambda: next(clock))

    assert speed(50, 4.5) == Speed(rows=5 * 2 / 6, bytes=5 * 1000 / 6)
    assert speed(3, 100) == Speed(rows=3 * 2 / 4, bytes=3 * 1000 / 4)  # there are no more
    assert speed(4, 9, skipped=2) == Speed(rows=2 * 2 / 3, bytes=2 * 1000 / 3)
    assert speed(2, 9, skipped=2) is None
    assert speed(0, 9) is None


def test_copy_out_copies_everything_in_parts():
    buffer, array = np.zeros(64, np.uint8), np.arange(48, dtype=np.float64).reshape(6, 8)
    measure.copy_out(array, buffer)
    assert buffer.view(np.float64).tolist() == array[-1].tolist()


def test_every_way_hands_out_every_row_once_a_pass(target):
    rows, pixel_bytes = 24, 525 * 525 * 7
    for way in measure.ways(target, [0, 1]):
        items = [(number, sum(a.nbytes for a in arrays)) for number, arrays in way.items(target.files, 2)]
        assert sum(number for number, _ in items) == pytest.approx(2 * rows)
        size = measure.total_bytes(target.files) if way.name == measure.FLOOR else rows * pixel_bytes
        assert sum(size for _, size in items) == 2 * size
    first = target.files[:1]
    assert sum(number for number, _ in measure.ways(target, [])[1].items(first, 1)) == first[0].rows


def test_sample_takes_the_first_files(target):
    files = target.files
    assert measure.sample(files) == files
    assert measure.sample(files, most_files=2) == files[:2]
    assert measure.sample(files, most_bytes=1) == files[:1]
    assert measure.sample(files, most_bytes=files[0].bytes + files[1].bytes) == files[:2]


def test_compression_is_told_by_the_build_or_the_sizes(target):
    manifest = target.manifest
    assert measure.stored_compression(manifest) == "none"
    assert measure.stored_compression(dataclasses.replace(manifest, build={"compression": "gzip"})) == "gzip"
    assert measure.stored_compression(dataclasses.replace(manifest, build={})) == "none"
    small = [dataclasses.replace(entry, bytes=10) for entry in manifest.files]
    assert measure.stored_compression(dataclasses.replace(manifest, build={}, files=small)) is None


# --- the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_worker(monkeypatch):
    monkeypatch.setattr(run, "core_count", lambda: 1)


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setattr(datasets.config, "TORCH_AVAILABLE", False)


def test_prints_a_table_and_saves_numbers(built, tmp_path, one_worker):
    status, text = skyset("bench", built, "--seconds", 0.05, "--json", tmp_path / "b.json")
    assert status == 0
    for words in (measure.FLOOR, measure.BATCHES, "rows/s", "MB/s", "DataLoader, 1 worker", "A batch of 32 takes 61.7 MB"):
        assert words in text
    values = json.loads((tmp_path / "b.json").read_text())
    assert (values["survey"], values["rows"], values["compression"]) == ("gz3d", 24, "none")
    assert {"processor", "cores", "memory_bytes"} <= values["machine"].keys()
    assert {"skyset", "datasets", "torch", "python"} <= values["versions"].keys()
    warm = {speed["way"]: speed for speed in values["speeds"] if speed["phase"] == "warm"}
    assert len(warm) == 6
    assert all(speed["rows_per_second"] > 0 and speed["bytes_per_second"] > 0 for speed in warm.values())
    assert warm[measure.FLOOR]["share_of_floor"] == 1
    assert values["advice"]


def test_without_torch_and_without_a_way_to_drop_pages(built, tmp_path, no_torch, monkeypatch):
    monkeypatch.delattr("os.posix_fadvise", raising=False)
    status, text = skyset("bench", built, "--seconds", 0.05)
    assert status == 0
    assert "No DataLoader: torch is not installed." in text
    assert "No cold numbers: this system cannot drop files" in " ".join(text.split())
    assert "cold\n" not in text and measure.ROWS in text


def test_ctrl_c_shows_what_was_measured(built, tmp_path, no_torch, monkeypatch):
    calls, real = count(), measure.measure

    def interrupted(*args, **kwargs):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(measure, "measure", interrupted)
    monkeypatch.setattr(measure, "drop_pages", lambda paths: "")
    status, text = skyset("bench", built, "--seconds", 0.05, "--json", tmp_path / "b.json")
    assert status == 130
    assert "interrupted; what was measured so far:" in text
    values = json.loads((tmp_path / "b.json").read_text())
    assert values["interrupted"] is True
    assert [speed["way"] for speed in values["speeds"]] == [measure.FLOOR, measure.ROWS]


def test_what_cannot_be_measured_is_one_line_and_status_2(copy, tmp_path):
    def check(message, *arguments):
        status, text = skyset("bench", *arguments)
        assert (status, text.count("\n")) == (2, 1), text
        assert message in text

    check("no manifest.json in", tmp_path)
    check("no such folder", copy, "--json", tmp_path / "no" / "b.json")
    manifest = Manifest.load(copy)
    dataclasses.replace(manifest, survey="gz4d").save(copy)
    check("unknown survey 'gz4d'; known: ", copy)
    dataclasses.replace(manifest, files=[]).save(copy)
    check("has no rows to read", copy)


def test_a_missing_or_damaged_file_is_named(copy, no_torch):
    path = copy / Manifest.load(copy).files[0].path
    data = path.read_bytes()
    for spoil in (lambda: path.write_bytes(data[: len(data) // 2]), path.unlink):
        spoil()
        status, text = skyset("bench", copy, "--seconds", 0.05)
        assert (status, text.count("\n")) == (2, 1), text
        assert str(path) in text


def test_one_worker_that_fails_is_a_note(target):
    def broken(files, times):
        raise RuntimeError("Traceback\n  above\nDataLoader worker is killed by signal: Bus error.")
        yield

    way, results = measure.Way("DataLoader, 1 worker", broken, 1), measure.Results()
    measure._measure_way(way, "warm", way.items([], 1), 1, np.zeros(1, np.uint8), results)
    assert results.notes == ["DataLoader, 1 worker, warm: DataLoader worker is killed by signal: Bus error."]
