"""Groups of sources: scaling that outliers do not rule, files, clusters; cutouts of sources."""

import numpy as np
import pytest

from skyset.errors import UserError
from skyset.extraction.som import SOM
from skyset.extraction.som.groups import CLIP, Groups, Scaling
from skyset.extraction.source_stamps import source_stamps


def catalogue(rows=3000, seed=0):
    """Four heaps of sources, far from each other, and some absurd ones."""
    rng = np.random.default_rng(seed)
    heap = rng.integers(0, 4, rows)
    size = 10.0 ** (1 + (heap % 2) + rng.normal(0, 0.05, rows))
    shape = heap // 2 + rng.normal(0, 0.05, rows)
    size[:5], shape[5:10] = 1e30, 1e6
    size[10], shape[11] = np.nan, np.inf
    size[12] = 0
    return {"size": size, "shape": shape}, heap


def test_scaling_is_by_medians_and_says_what_it_cannot_scale():
    columns, _ = catalogue()
    scaling = Scaling.fit(columns, ("size", "shape"), ("size",))
    values = np.log10(columns["size"][20:])
    low, middle, high = np.percentile(values, [15.87, 50, 84.13])
    assert scaling.centre[0] == pytest.approx(middle, abs=0.05) and scaling.scale[0] == pytest.approx(
        (high - low) / 2, rel=0.05
    )
    scaled = scaling(columns)
    assert np.isnan(scaled).any(axis=1).nonzero()[0].tolist() == [10, 11, 12]
    assert np.nanmax(scaled) == CLIP
    np.testing.assert_allclose(
        scaling.back(scaled)[20:], np.stack([columns[n][20:] for n in columns], 1), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(UserError, match="no source has a value of size"):
        Scaling.fit({"size": np.full(3, np.nan)}, ("size",), ())
    assert Scaling.fit({"size": np.ones(3)}, ("size",), ()).scale == 1


def make(shape=(2, 2), clusters=None):
    columns, heap = catalogue()
    scaling = Scaling.fit(columns, ("size", "shape"), ("size",))
    scaled = scaling(columns)
    return Groups.fit(lambda: (scaled[:1000], scaled[1000:]), scaling, shape, clusters, seed=3), columns, heap


def test_heaps_are_groups_and_absurd_rows_have_none():
    groups, columns, heap = make()
    found, away = groups.of(columns)
    assert {tuple(np.unique(found[20:][heap[20:] == k])) for k in range(4)} == {(0,), (1,), (2,), (3,)}
    assert (found[10:13] == -1).all() and np.isinf(away[10:13]).all() and (found[:10] >= 0).all()
    expected = np.linalg.norm(groups.scaling(columns)[20:] - groups.centres[found[20:]], axis=1)
    np.testing.assert_allclose(away[20:], expected, rtol=1e-5)


@pytest.mark.parametrize(("shape", "clusters"), [((2, 2), None), ((5, 6), 4)])
def test_the_same_again_from_its_file(tmp_path, shape, clusters):
    if clusters:
        pytest.importorskip("sklearn")
    groups, columns, heap = make(shape, clusters)
    groups.save(tmp_path / "som.npz")
    again = Groups.load(tmp_path / "som.npz")
    np.testing.assert_array_equal(again.of(columns)[0], groups.of(columns)[0])
    assert again.digest() == groups.digest() == make(shape, clusters)[0].digest()
    assert again.count == 4 and SOM.load(tmp_path / "som.npz").rows == shape[0]
    assert {tuple(np.unique(again.of(columns)[0][20:][heap[20:] == k])) for k in range(4)} == {(0,), (1,), (2,), (3,)}
    first = (tmp_path / "som.npz").read_bytes()
    again.save(tmp_path / "two.npz")
    assert (
        Groups.load(tmp_path / "two.npz").digest() == groups.digest() and len(first) == (tmp_path / "two.npz").stat().st_size
    )
    assert set(again.plots()) == {"hits", "errors", "u_matrix", "planes"} | ({"groups"} if clusters else set())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_is_none(tmp_path):
    columns, _ = catalogue()
    SOM(2, 2, missing="drop").fit({k: v[20:] for k, v in columns.items()}).save(tmp_path / "plain.npz")
    with pytest.raises(UserError, match="no map of groups"):
        Groups.load(tmp_path / "plain.npz")
    with pytest.raises(UserError, match="5 clusters of 2 x 2 units"):
        make((2, 2), 5)


def test_cutouts_are_centred_and_end_at_the_edge():
    image = np.arange(30 * 20, dtype=np.float32).reshape(30, 20)
    image[12, 9], image[13, 9] = np.nan, 1e9
    stamps = source_stamps(image, np.array([10.4, 1.0, 20.0]), np.array([14.6, 1.0, 30.0]), 6)
    assert stamps.dtype == np.float16 and stamps.shape == (3, 6, 6)
    expected = image[11:17, 6:12].copy()
    expected[1, 3], expected[2, 3] = 0, 65504
    np.testing.assert_array_equal(stamps[0], expected.astype(np.float16))
    assert stamps[1, 3, 3] == image[0, 0] and not stamps[1, :3].any() and not stamps[1, :, :3].any()
    assert stamps[2, 3, 3] == np.float16(image[29, 19]) and not stamps[2, 4:].any()
    assert source_stamps(image, np.zeros(0), np.zeros(0), 6).shape == (0, 6, 6)
