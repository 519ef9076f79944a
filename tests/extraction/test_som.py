"""The map finds groups that are there, is the same however rows come, needs no memory for them, and says what it refuses."""

import json
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from skyset.errors import UserError
from skyset.extraction.som import SOM, sums
from skyset.extraction.som.grid import TOPOLOGIES

NAMES = ("AREA", "ELONGATION", "CLASS_STAR")


def catalogue(rows: int, seed: int = 0) -> np.ndarray:
    """Sources (rows, 3) with a long tail in the first feature and two kinds in the last."""
    rng = np.random.default_rng(seed)
    star = rng.random(rows) < 0.4
    shape = np.where(star, rng.gamma(2, 0.02, rows), rng.gamma(3, 0.2, rows))
    return np.stack([rng.lognormal(3, 1, rows), 1 + shape, np.where(star, 0.95, 0.1) + rng.normal(0, 0.03, rows)], 1)


def clusters(rows: int, topology: str = "rectangular") -> tuple[np.ndarray, np.ndarray]:
    """Compact groups that lie as the units of a map of 2 x 3 do, far from one another, and the group of each row."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 6, rows)
    across, down = group % 3, group // 3
    if topology == "hexagonal":
        across, down = across + 0.5 * down, down * np.sqrt(0.75)
    return 10 * np.stack([across, down], 1) + rng.normal(0, 0.3, (rows, 2)), group


def by_definition(som: SOM, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest and second nearest unit of each row and the distance, by all distances in float64 from public values alone."""
    centres = som.centres()
    values, units = data.astype(np.float64).copy(), centres.copy()
    for name in som.log:
        k = som.features.index(name)
        values[:, k], units[:, k] = np.log10(values[:, k]), np.log10(units[:, k])
    spread = values.std(0) if som.standardise else 1.0
    apart = np.linalg.norm((values[:, None] - units[None]) / spread, axis=2)
    order = np.argsort(apart, axis=1, kind="stable")
    return order[:, 0], order[:, 1], apart.min(1)


def same(one: SOM, other: SOM) -> bool:
    return one.weights.tobytes() == other.weights.tobytes() and one.training.hits.tobytes() == other.training.hits.tobytes()


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return catalogue(20_000)


@pytest.fixture(scope="module")
def trained(data) -> SOM:
    return SOM(4, 5, features=NAMES, log=("AREA",)).fit(data)


# --- What the map is ------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("device", [None, "cpu"])
def test_groups_that_are_there_are_found(topology, device):
    data, truth = clusters(6000, topology)
    som = SOM(2, 3, topology=topology, standardise=False, device=device).fit(data)
    found = som.predict(data)
    pairs = set(zip(truth.tolist(), found.tolist(), strict=True))
    assert len(pairs) == 6  # one group of the map for each, and for no other
    means = np.array([data[found == unit].mean(0) for unit in range(6)])
    # A neighbour one away weighs exp(-8).
    np.testing.assert_allclose(som.centres(), means, atol=0.02)
    # Clusters that are neighbours in the plane are neighbours on the map; on a mirrored hexagonal one some are not.
    assert som.training.topographic_error < (0.01 if topology == "rectangular" else 0.1)


def test_errors_hits_and_groups_are_what_they_say(data, trained):
    nearest, second, apart = by_definition(trained, data)
    found = trained.predict(data)
    assert found.dtype == np.int32
    assert np.mean(found == nearest) > 0.9999  # float32 may choose the other of two that are as near
    quality = trained.quality(data)
    np.testing.assert_array_equal(quality.hits, np.bincount(found, minlength=20).reshape(4, 5))
    assert quality.hits.dtype == np.int64
    assert quality.quantisation_error == pytest.approx(apart.mean(), rel=1e-5)
    steps = np.abs(nearest // 5 - second // 5), np.abs(nearest % 5 - second % 5)
    assert quality.topographic_error == pytest.approx(np.mean(np.maximum(*steps) > 1), abs=2e-4)
    assert quality.quantisation_error == trained.training.quantisation_error
    for unit in np.unique(found):
        mine = found == unit
        far = np.maximum(*steps)[mine] > 1
        assert quality.distances.ravel()[unit] == pytest.approx(apart[mine].mean(), rel=1e-3)
        assert quality.strays.ravel()[unit] == pytest.approx(far.mean(), abs=3e-3)
    none = trained.quality(data[:3])
    assert np.isnan(none.distances[none.hits == 0]).all() and np.isfinite(none.strays[none.hits > 0]).all()
    assert trained.quantisation_error(data) == quality.quantisation_error
    assert trained.topographic_error(data) == quality.topographic_error
    np.testing.assert_array_equal(trained.hits(data[:100]).ravel(), np.bincount(found[:100], minlength=20))


@pytest.mark.parametrize(("standardise", "device"), [(True, None), (False, None), (True, "cpu")])
def test_the_history_is_the_error_at_the_start_of_each_epoch(standardise, device):
    data, weights = catalogue(500), np.random.default_rng(1).uniform(0, 2, 500)
    options = {"standardise": standardise, "device": device}
    som = SOM(2, 3, epochs=2, sigma=(1.5, 0.75), **options).fit(data, weights)
    # the centres with which the second epoch starts are those that a training of one ends with
    start = SOM(2, 3, epochs=1, sigma=(1.5, 1.5), **options).fit(data, weights)
    mean = np.average(data, 0, weights)
    scale = np.sqrt(np.average((data - mean) ** 2, 0, weights)) if standardise else np.ones(data.shape[1])
    squares = (((data[:, None] - start.centres()[None]) / scale) ** 2).sum(-1).min(1)
    assert som.history.shape == (2,) and som.history[1] == pytest.approx(
        np.sqrt(np.average(squares, weights=weights)), rel=1e-4
    )
    assert som.history[0] == pytest.approx(start.history[0])


def test_topographic_error_of_a_hexagonal_map(data):
    som = SOM(4, 5, features=NAMES, log=("AREA",), topology="hexagonal").fit(data)
    nearest, second, _ = by_definition(som, data)
    # Neighbours of (r, c) in odd rows, which are shifted to the right, and in even ones.
    around = {
        0: [(0, -1), (0, 1), (-1, -1), (-1, 0), (1, -1), (1, 0)],
        1: [(0, -1), (0, 1), (-1, 0), (-1, 1), (1, 0), (1, 1)],
    }
    wrong = [(b // 5 - a // 5, b % 5 - a % 5) not in around[a // 5 % 2] for a, b in zip(nearest, second, strict=True)]
    assert som.training.topographic_error == pytest.approx(np.mean(wrong), abs=2e-4)


def test_an_epoch_is_the_equation():
    """Two epochs against the sums written out, from the start that one epoch less gives."""
    data = catalogue(500)
    sigma = (1.5, 0.75)
    start = SOM(2, 3, epochs=1, sigma=(1.5, 1.5)).fit(data)
    after = SOM(2, 3, epochs=2, sigma=sigma).fit(data)
    z = (data - data.mean(0)) / data.std(0)
    winner = start.predict(data)
    grid = np.stack(np.divmod(np.arange(6), 3), 1)
    near = np.exp(-((grid[:, None] - grid[winner][None]) ** 2).sum(2) / (2 * 0.75**2))  # (units, rows)
    np.testing.assert_allclose(after.weights, near @ z / near.sum(1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_map_is_better_than_its_start_and_ordered(data):
    som = SOM(4, 5, features=NAMES, log=("AREA",)).fit(data)
    one = SOM(4, 5, features=NAMES, log=("AREA",), epochs=1).fit(data)
    assert som.training.quantisation_error < 0.6 * one.training.quantisation_error
    assert som.training.topographic_error < 0.15


def test_weights_of_rows_count_as_repeated_rows():
    data = catalogue(3000)
    times = np.random.default_rng(1).integers(0, 4, len(data))
    weighted = SOM(3, 3, log=(0,)).fit(data, weights=times)
    repeated = SOM(3, 3, log=(0,)).fit(np.repeat(data, times, axis=0))
    np.testing.assert_allclose(weighted.weights, repeated.weights, atol=1e-4)
    assert weighted.training.hits.sum() == len(data)


def test_without_standardising_the_largest_feature_decides():
    data, _ = clusters(2000)
    data[:, 1] *= 1e-3
    som = SOM(1, 3, standardise=False).fit(data)
    assert set(som.predict(data)[data[:, 0] < 5]) != set(som.predict(data)[data[:, 0] > 15])
    nearest, _, apart = by_definition(som, data)
    np.testing.assert_array_equal(som.predict(data), nearest)
    assert som.training.quantisation_error == pytest.approx(apart.mean(), rel=1e-5)  # in the features' units
    huge = SOM(1, 3, standardise=False).fit(data * 1e30)
    np.testing.assert_array_equal(huge.predict(data * 1e30), nearest)


def test_centres_are_in_the_features_own_units(data, trained):
    found, centres = trained.predict(data), trained.centres()
    assert centres.shape == (20, 3)
    for unit in np.unique(found):
        typical = np.exp(np.log(data[found == unit, 0]).mean())
        assert centres[unit, 0] == pytest.approx(typical, rel=0.15)


# --- The same, however it comes -------------------------------------------------------------------


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9000), max_size=5), st.booleans())
def test_chunks_change_nothing(cuts, weighted):
    data = catalogue(17_000, seed=3)
    weights = np.random.default_rng(0).random(len(data)) if weighted else None
    whole = SOM(2, 3, epochs=3, log=(0,)).fit(data, weights)
    chunks = np.split(data, np.minimum(np.cumsum(cuts), len(data)).astype(int))
    pieces = SOM(2, 3, epochs=3, log=(0,)).fit(chunks, weights)
    assert same(whole, pieces)
    assert whole.training.quantisation_error == pieces.training.quantisation_error
    np.testing.assert_array_equal(whole.predict(data), pieces.predict(iter(chunks)))
    np.testing.assert_array_equal(whole.representatives(data), whole.representatives(chunks))


def test_a_row_gives_the_same_alone(data, trained):
    found = trained.predict(data[:300])
    assert [int(trained.predict(data[k : k + 1])[0]) for k in range(300)] == found.tolist()


def test_same_seed_same_map_in_another_process(data, tmp_path):
    np.save(tmp_path / "data.npy", data)
    code = (
        "import sys, numpy as np; from skyset.extraction.som import SOM; "
        "SOM(4, 5, seed=7, log=(0,)).fit(np.load(sys.argv[1], mmap_mode='r')).save(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "data.npy", tmp_path / "map.npz"], check=True)
    here = SOM(4, 5, seed=7, log=(0,)).fit(data)
    assert same(here, SOM.load(tmp_path / "map.npz"))
    assert not same(here, SOM(4, 5, seed=8, log=(0,)).fit(data))
    assert same(here, here.fit(data))  # training again starts again


def test_every_kind_of_data(data, tmp_path):
    rows = data[:2000]
    expected = SOM(2, 3, features=NAMES, log=("AREA",)).fit(rows)
    columns = dict(zip(NAMES, rows.T, strict=True))
    table = Table(columns | {"NAME": ["x"] * len(rows)})
    arrow = pa.table({"OTHER": ["x"] * len(rows)} | columns)
    parquet.write_table(arrow, tmp_path / "t.parquet")
    kinds = {
        "fortran": np.asfortranarray(rows),
        "big-endian": rows.astype(">f8"),
        "strided": np.repeat(rows, 2, axis=0)[::2],
        "structured": np.array(table)[list(NAMES)],
        "astropy": table,
        "quantities": QTable(columns),
        "pandas": pd.DataFrame(columns),
        "arrow": arrow,
        "arrow, pieces": pa.concat_tables([arrow[:900], arrow[900:]]),
        "batches": arrow.to_batches(700),
        "dict": columns,
        "parquet": lambda: parquet.ParquetFile(tmp_path / "t.parquet").iter_batches(333),
        "datasets": Dataset.from_dict(columns),
        "datasets, streamed": Dataset.from_dict(columns).to_iterable_dataset(),
    }
    for kind, given_data in kinds.items():
        som = SOM(2, 3, features=NAMES, log=("AREA",)).fit(given_data)
        assert same(expected, som), kind
        np.testing.assert_array_equal(som.predict(given_data), expected.predict(rows), err_msg=kind)
    assert SOM(2, 3).fit(columns).features == NAMES
    assert SOM(2, 3).fit(rows).features == ("feature 0", "feature 1", "feature 2")


@pytest.mark.parametrize("dtype", ["f2", "f4", "i2", ">i4", "u1", "u8", "?"])
def test_every_dtype(dtype):
    data = np.random.default_rng(0).integers(0, 100, (500, 2)).astype(dtype)
    assert same(SOM(2, 2).fit(data), SOM(2, 2).fit(data.astype(np.float64)))


def test_memory_does_not_grow_with_the_rows():
    def chunks(count):
        for seed in range(count):
            yield np.random.default_rng(seed).normal(size=(50_000, 4)).astype(np.float32)

    def peak(count):
        tracemalloc.start()
        SOM(2, 3, epochs=2).fit(lambda: chunks(count))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(1)
    small, large = peak(2), peak(12)
    assert large < small + 200_000
    assert large < 10e6


def test_real_catalogues(real):
    """Those of SExtractor as astropy reads them: big-endian, columns interleaved with others; one chunk a file."""
    names = ("ISOAREA_IMAGE", "ELONGATION", "ELLIPTICITY", "FLUX_RADIUS")
    paths = [real(f"megacam/ldac_decam_{kind}.fits") for kind in ("cat", "fullcat")]

    def chunks():
        for path in paths:
            with fits.open(path) as hdus:
                yield hdus["LDAC_OBJECTS"].data

    som = SOM(4, 5, features=names, log=names[:2], missing="drop")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        som.fit(chunks)
    table = np.concatenate([np.stack([chunk[name].astype(float) for name in names], 1) for chunk in chunks()])
    usable = np.isfinite(table).all(1) & (table[:, :2] > 0).all(1)
    assert som.training.dropped == np.count_nonzero(~usable)
    assert len(said) == bool(som.training.dropped)
    assert same(som, SOM(4, 5, features=names, log=names[:2]).fit(table[usable]))
    apart = by_definition(som, table[usable])[2]
    assert som.training.quantisation_error == pytest.approx(apart.mean(), rel=1e-5)
    logs = np.column_stack([np.log10(table[usable, :2]), table[usable, 2:]])
    alone = np.linalg.norm((logs - logs.mean(0)) / logs.std(0), axis=1).mean()
    assert som.training.quantisation_error < 0.5 * alone  # twenty groups describe it better than one


# --- torch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_torch_gives_the_same(data, topology):
    arguments = {"features": NAMES, "log": ("AREA",), "topology": topology}
    weights = np.random.default_rng(0).random(len(data))
    compiled = SOM(4, 5, **arguments).fit(data, weights)
    on_torch = SOM(4, 5, device="cpu", **arguments).fit(data, weights)
    np.testing.assert_allclose(on_torch.weights, compiled.weights, atol=2e-3)
    assert np.mean(on_torch.predict(data) == compiled.predict(data)) > 0.999
    # The same centres: the same answers, but for rows that are as near to two units.
    on_torch.weights = compiled.weights
    assert np.mean(on_torch.predict(data) == compiled.predict(data)) > 0.9999
    ours, theirs = compiled.quality(data), on_torch.quality(data)
    assert theirs.quantisation_error == pytest.approx(ours.quantisation_error, rel=1e-6)
    assert theirs.topographic_error == pytest.approx(ours.topographic_error, abs=2e-4)
    np.testing.assert_array_equal(SOM(1, 1, device="cpu").fit(data).training.hits, [[len(data)]])


def test_torch_rows_kept_on_the_device_change_nothing(data, monkeypatch):
    monkeypatch.setattr(sums, "_CORE_NUMBERS", 1)  # blocks of 1024 rows: 20 of them
    reads = []

    def source():
        reads.append(1)
        return data

    streamed = SOM(2, 3, device="cpu").fit(source)
    assert len(reads) == 23  # names, moments, 20 epochs, quality
    reads.clear()
    monkeypatch.setattr(sums, "_free_bytes", lambda device: 10**9)
    assert same(streamed, SOM(2, 3, device="cpu").fit(source))
    assert len(reads) == 4


def test_a_gpu_that_is_not_there(data):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="no GPU here"):
        SOM(device="cuda").fit(data)


# --- Representatives ------------------------------------------------------------------------------


def check_members(chosen: np.ndarray, found: np.ndarray) -> None:
    """A member of each group that has any; -1 for the others, such as units that lie between two clusters."""
    for unit, row in enumerate(chosen):
        assert found[row] == unit if np.any(found == unit) else row == -1


def test_representatives_are_members_drawn_alike(data, trained):
    found = trained.predict(data)
    chosen = trained.representatives(data)
    assert chosen.dtype == np.int64
    check_members(chosen, found)
    np.testing.assert_array_equal(chosen, trained.representatives(data))
    # Each of a small group's members about as often, over many seeds.
    few = data[np.concatenate([np.flatnonzero(found == 4)[:5], np.flatnonzero(found == 9)[:1]])]
    drawn = np.array([trained.representatives(few, seed=seed)[[4, 9]] for seed in range(1000)])
    assert np.all(np.abs(np.bincount(drawn[:, 0], minlength=5) - 200) < 60)  # 4.7 sigma
    assert np.all(drawn[:, 1] == 5)
    assert np.all(np.delete(trained.representatives(few), [4, 9]) == -1)


def test_nearest_representatives(data, trained):
    nearest, _, apart = by_definition(trained, data)
    chosen = trained.representatives(data, nearest=True)
    check_members(chosen, nearest)
    for unit, row in enumerate(chosen):
        if row >= 0:
            assert apart[row] <= apart[nearest == unit].min() * (1 + 1e-4) + 1e-6


# --- Rows that cannot be used ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "column", "says"),
    [
        (np.nan, 1, "row 12345: ELONGATION is nan, which cannot be used"),
        (np.inf, 2, "row 12345: CLASS_STAR is inf, which cannot be used"),
        (-np.inf, 0, "row 12345: AREA is -inf, which cannot be used"),
        (0.0, 0, "row 12345: AREA is 0, which has no logarithm"),
        (-3.0, 0, "row 12345: AREA is -3, which has no logarithm"),
    ],
)
def test_rows_that_cannot_be_used(data, trained, value, column, says):
    bad = data.copy()
    bad[12_345, column] = value
    with pytest.raises(UserError, match=says):
        SOM(4, 5, features=NAMES, log=("AREA",)).fit(bad)
    for ask in (trained.predict, trained.quality, trained.representatives):
        with pytest.raises(UserError, match=says):
            ask(bad)
    dropping = SOM(4, 5, features=NAMES, log=("AREA",), missing="drop")
    with pytest.warns(UserWarning, match="1 of 20,000 rows were left out"):
        dropping.fit(bad)
    without = SOM(4, 5, features=NAMES, log=("AREA",)).fit(np.delete(bad, 12_345, axis=0))
    assert same(dropping, without)
    assert dropping.training.dropped == 1
    with pytest.warns(UserWarning, match="1 of 20,000"):
        found = dropping.predict(bad)
    assert np.flatnonzero(found == -1).tolist() == [12_345]
    with pytest.warns(UserWarning, match="1 of 20,000"):
        check_members(dropping.representatives(bad), found)


def test_weights_belong_to_their_rows_when_others_are_dropped():
    data = catalogue(2000)
    weights = np.random.default_rng(0).random(len(data))
    bad = data.copy()
    bad[::7, 1] = np.nan
    good = np.isfinite(bad).all(1)
    with pytest.warns(UserWarning, match="286 of 2,000"):
        dropping = SOM(2, 3, missing="drop").fit(bad, weights)
    assert same(dropping, SOM(2, 3).fit(data[good], weights[good]))


def test_masked_values_are_missing(data):
    mask = np.arange(500) == 77
    columns = dict(zip(NAMES, data[:500].T, strict=True))
    tables = {
        "array": np.ma.MaskedArray(data[:500], np.repeat(mask[:, None], 3, axis=1)),
        "astropy": Table(columns | {"AREA": MaskedColumn(columns["AREA"], mask=mask)}),
        "astropy, integers": Table(columns | {"AREA": MaskedColumn(columns["AREA"].astype(int) + 1, mask=mask)}),
        "quantity": QTable(columns | {"AREA": Masked(columns["AREA"], mask=mask)}),
        "arrow": pa.table(columns | {"AREA": pa.array(columns["AREA"], mask=mask)}),
        "pandas": pd.DataFrame(columns | {"AREA": pd.array(columns["AREA"].astype(int) + 1, dtype="Int64")}),
    }
    tables["pandas"].loc[77, "AREA"] = pd.NA
    for kind, table in tables.items():
        with pytest.raises(UserError, match="row 77: AREA is nan"):
            SOM(2, 2, features=NAMES).fit(table)
        with pytest.warns(UserWarning, match="1 of 500"):
            found = SOM(2, 2, features=NAMES, missing="drop").fit(table).predict(table)
        assert np.flatnonzero(found == -1).tolist() == [77], kind


def test_constant_features_do_not_count(data):
    more = np.insert(data, 1, 0.1, axis=1)
    with pytest.warns(UserWarning, match="feature 1 is constant"):
        som = SOM(2, 3).fit(more)
    plain = SOM(2, 3).fit(data)
    assert np.mean(som.predict(more) == plain.predict(data)) > 0.95  # their noise at the start differs
    np.testing.assert_allclose(som.centres()[:, 1], 0.1)
    more[:, 1] = 55
    assert som.quantisation_error(more) == som.training.quantisation_error
    with pytest.raises(UserError, match="no feature varies: feature 0, feature 1"):
        SOM(2, 2).fit(np.full((100, 2), 3.7))


def test_a_map_of_one_unit_is_the_mean(data):
    som = SOM(1, 1).fit(data)
    np.testing.assert_allclose(som.centres()[0], data.mean(0), rtol=1e-6)
    assert som.training.hits.tolist() == [[20_000]]
    assert np.isnan(som.training.topographic_error)
    assert som.u_matrix().tolist() == [[0]]
    z = (data - data.mean(0)) / data.std(0)
    assert som.training.quantisation_error == pytest.approx(np.linalg.norm(z, axis=1).mean(), rel=1e-5)


def test_one_feature_gives_groups_in_order():
    data = np.random.default_rng(0).random((5000, 1))
    line = SOM(1, 6).fit(data)
    steps = np.diff(line.centres()[:, 0])
    assert np.all(steps > 0) or np.all(steps < 0)
    assert SOM(4, 5).fit(data).training.hits.min() > 0  # no two units stay at the same place


def test_few_distinct_rows_leave_groups_empty():
    som = SOM(2, 3).fit(np.repeat([[0.0, 1.0], [5.0, 2.0]], 50, axis=0))
    assert np.count_nonzero(som.training.hits) == 2
    assert np.count_nonzero(som.representatives(np.array([[0.0, 1.0]])) == -1) == 5
    assert np.isfinite(som.weights).all()


def test_extreme_rows_have_a_group(trained):
    far = np.array([[1e300, 1e300, 0], [1e-300, -1e300, 1e300]])
    assert np.all(trained.predict(far) >= 0)
    assert np.isfinite(trained.quantisation_error(far))


def test_no_rows(trained):
    empty = np.zeros((0, 3))
    assert trained.predict(empty).shape == (0,)
    assert trained.predict([]).shape == (0,)
    assert trained.hits(empty).tolist() == np.zeros((4, 5)).tolist()
    assert np.isnan(trained.quantisation_error(empty))
    assert np.all(trained.representatives(empty) == -1)
    for nothing in (empty, [], [empty]):
        with pytest.raises(UserError, match=r"0 rows are not enough for 20 groups|no rows in the data"):
            SOM().fit(nothing)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (catalogue(19), "19 rows are not enough for 20 groups"),
        (np.zeros(30), r"shape \(30,\)"),
        (np.zeros((30, 0)), "text, not"),
        ([[1.0, 2.0], [3.0, 4.0]], "not list"),
        (3.0, "not float"),
        ("catalogue.parquet", "not str"),
        (iter([catalogue(30)]), "give a function"),
        (np.full((30, 2), "x"), "feature 0 must be one number per row"),
        (catalogue(30).astype(complex), "feature 0 must be one number per row"),
        ({"a": np.zeros(30), "b": np.zeros(29)}, "b must be one number per row, 30"),
        ({"a": np.zeros((30, 2))}, "a must be one number per row"),
        ([catalogue(30), catalogue(30)[:, :2]], "have 2 features, the map 3"),
        (catalogue(30) * [1, 1, 1e250], "feature 2 has values too large"),
        (Dataset.from_dict({"a": [1.0]}), "features="),
    ],
)
def test_data_that_are_refused(data, says):
    with pytest.raises(UserError, match=says):
        SOM().fit(data)


def test_other_data_than_the_maps(data, trained):
    with pytest.raises(UserError, match="have 2 features, the map 3: AREA, ELONGATION, CLASS_STAR"):
        trained.predict(data[:, :2])
    with pytest.raises(UserError, match="no column CLASS_STAR; they have AREA, ELONGATION"):
        trained.hits({"AREA": data[:, 0], "ELONGATION": data[:, 1]})
    with pytest.raises(UserError, match="not trained"):
        SOM().predict(data)


def test_failed_training_leaves_the_map(data, trained):
    before, calls = trained.weights.copy(), []

    def fickle():
        calls.append(1)
        return data if len(calls) < 4 else data[:100]

    with pytest.raises(UserError, match="20000 rows at the first pass, and 100 at a later one"):
        trained.fit(fickle)
    np.testing.assert_array_equal(trained.weights, before)
    used_up = iter([data])
    with pytest.raises(UserError, match="rows"):
        SOM().fit(lambda: used_up)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (np.ones(10), "10 weights, but"),
        (np.ones(21_000), "21000 weights, but 20000 rows"),
        (np.full(20_000, np.nan), "finite"),
        (np.r_[np.ones(19_999), -1], "not negative"),
        (np.zeros(20_000), "all weights are 0"),
    ],
)
def test_weights_that_are_refused(data, weights, says):
    with pytest.raises(UserError, match=says):
        SOM().fit(data, weights)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rows": 0},
        {"epochs": 0},
        {"topology": "toroidal"},
        {"missing": "fill"},
        {"sigma": (1, 2)},
        {"sigma": (1, 0)},
        {"sigma": (np.inf, 1)},
        {"features": ()},
        {"features": ("a", "a")},
        {"features": (1, 2)},
        {"features": "AREA"},
        {"log": "AREA"},
    ],
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError):
        SOM(**arguments)


@pytest.mark.parametrize("log", [("MAG",), (3,), (-1,)])
def test_log_of_no_feature(data, log):
    with pytest.raises(UserError, match="none of the features"):
        SOM(features=NAMES, log=log).fit(data)


# --- Files and figures ----------------------------------------------------------------------------


@pytest.mark.parametrize("standardise", [True, False])
def test_saved_and_loaded(data, tmp_path, standardise):
    som = SOM(3, 4, features=NAMES, log=(0,), standardise=standardise, topology="hexagonal", seed=5, sigma=(2, 1)).fit(data)
    som.save(tmp_path / "map.npz")
    loaded = SOM.load(tmp_path / "map.npz")
    assert same(som, loaded)
    assert repr(loaded) == repr(som)
    assert loaded.features == NAMES and loaded.log == ("AREA",) and loaded.sigma == (2, 1)
    np.testing.assert_array_equal(loaded.predict(data), som.predict(data))
    np.testing.assert_array_equal(loaded.representatives(data), som.representatives(data))
    np.testing.assert_array_equal(loaded.centres(), som.centres())
    np.testing.assert_array_equal(loaded.history, som.history)
    for name in ("distances", "strays"):
        np.testing.assert_array_equal(getattr(loaded.training, name), getattr(som.training, name))
    assert loaded.training.quantisation_error == som.training.quantisation_error == loaded.quantisation_error(data)
    assert same(som, loaded.fit(data))


def test_files_that_are_refused(data, trained, tmp_path):
    path = tmp_path / "map.npz"
    with pytest.raises(UserError, match="there is no file"):
        SOM.load(path)
    with pytest.raises(UserError, match="no folder"):
        trained.save(tmp_path / "none" / "map.npz")
    with pytest.raises(UserError, match="not trained"):
        SOM().save(path)
    trained.save(path)
    whole = path.read_bytes()
    with np.load(path) as file:
        good = dict(file)
    bad = {
        "cut": whole[: len(whole) // 2],
        "text": b"no map",
        "nothing": b"",
    }
    for content in bad.values():
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"is no map of skyset: it is no whole \.npz file$"):
            SOM.load(path)
    settings_ = json.loads(str(good["settings"]))
    changes = [
        {"weights": good["weights"][:5]},
        {"scale": good["scale"] * np.nan},
        {"format": "skyset self-organising map, 1"},
        {"history": good["history"][:3]},
        {"unit_errors": good["unit_errors"][0]},
        {"settings": "{"},
        {"settings": json.dumps(settings_ | {"rows": -4})},
        {"settings": json.dumps(settings_ | {"columns": 6})},
        {"settings": json.dumps(settings_ | {"surprise": 6})},
        {"weights": np.array([{}], dtype=object)},
        {"features": np.array([1, 2, 3])},
    ]
    for change in changes:
        np.savez(path, **(good | change))
        with pytest.raises(UserError, match="is no map of skyset"):
            SOM.load(path)
    np.savez(path, weights=good["weights"])
    with pytest.raises(UserError, match="is no map of skyset"):
        SOM.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["map.npz"]


def test_u_matrix_is_large_where_groups_part():
    data = np.concatenate([np.random.default_rng(0).normal(0, 1, (4000, 2)), np.full((400, 2), [40, 0])])
    som = SOM(1, 6).fit(data)
    alone = som.predict(data[-1:])[0]
    assert alone in (0, 5)
    assert som.u_matrix()[0].argmax() == alone
    centres = (som.centres() - data.mean(0)) / data.std(0)
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    np.testing.assert_allclose(som.u_matrix()[0], [steps[0], *(steps[1:] + steps[:-1]) / 2, steps[-1]], rtol=1e-5)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("shape", [(4, 5), (1, 1), (1, 4), (12, 12)])
def test_figures_show_the_maps_values(data, topology, shape, tmp_path):
    from matplotlib.collections import PolyCollection

    som = SOM(*shape, features=NAMES, log=("AREA",), topology=topology, epochs=2).fit(data)
    hits = som.hits(data[:1000])
    shown = {}
    for name, figure in {
        "u": som.plot_u_matrix(),
        "hits": som.plot_hits(),
        "some": som.plot_hits(hits),
        "components": som.plot_components(),
        "errors": som.plot_errors(),
        "all": som.plot(),
    }.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=30)
        drawn = [c for axes in figure.axes for c in axes.collections if isinstance(c, PolyCollection)]
        shown[name] = [c.get_array() for c in drawn if len(c.get_array()) == som.rows * som.columns]
    np.testing.assert_allclose(shown["u"][0], som.u_matrix().ravel())
    for drawn, values in zip(shown["errors"], (som.training.distances, som.training.strays), strict=True):
        np.testing.assert_array_equal(np.ma.filled(drawn, np.nan), values.ravel())
    [line] = [line for axes in som.plot_errors().axes for line in axes.lines]
    np.testing.assert_array_equal(line.get_ydata(), som.history)
    np.testing.assert_array_equal(shown["hits"][0], som.training.hits.ravel())
    np.testing.assert_array_equal(shown["some"][0], hits.ravel())
    for drawn in (shown["components"], shown["all"][2:5]):
        np.testing.assert_allclose(drawn[:3], som.centres().T)
    numbered = som.plot_hits().axes[0]
    first, last = (numbered.get_yticklabels()[0].get_text(), numbered.get_xticklabels()[-1].get_text())
    assert (first, last) == ("0", f"+{10 if shape[1] == 12 else shape[1] - 1}")
    labels = [text.get_text() for text in som.plot_hits().axes[0].texts]
    assert labels == ([f"{n:,}" for n in som.training.hits.ravel()] if len(som.weights) <= 120 else [])
    with pytest.raises(ValueError, match="hits have the shape"):
        som.plot_hits(np.zeros(3))
