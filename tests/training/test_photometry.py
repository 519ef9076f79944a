"""Tables of magnitudes: which columns, what is missing, and what a network is given of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

torch = pytest.importorskip("torch")

from skyset.errors import UserError
from skyset.training.common.photometry import (
    ZERO,
    Scaling,
    TableArguments,
    find_columns,
    flux_of,
    read_photometry,
    scaling_of,
)

RAIL = [f"{kind}_{band}_lsst" for kind in ("mag_err", "mag") for band in "girzuy"]


def columns(names, **asked):
    return find_columns(names, TableArguments(**asked), "t.csv")


def test_columns_are_found_by_their_usual_names():
    found = columns(["id", "redshift", *RAIL])
    assert found.bands == tuple("ugrizy") and found.redshift == "redshift"
    assert found.magnitudes[0] == "mag_u_lsst" and found.errors[-1] == "mag_err_y_lsst"
    hsc = columns(
        ["specz_redshift", "specz_redshift_err", "i_cmodel_mag", "g_cmodel_mag", "i_cmodel_magsigma", "g_cmodel_magsigma"]
    )
    assert hsc.bands == ("g", "i") and hsc.errors == ("g_cmodel_magsigma", "i_cmodel_magsigma")
    assert columns(["Z_SPEC", "MAG_AUTO_R", "MAG_AUTO_G", "MAGERR_AUTO_R", "MAGERR_AUTO_G"]).errors[0] == "MAGERR_AUTO_G"
    plain = columns(["z", "m475", "m814"], magnitudes="m{}", bands="814,475", redshift="z")
    assert plain.magnitudes == ("m814", "m475") and plain.errors == ()
    assert columns(["redshift", *RAIL], bands="i, r").bands == ("i", "r")
    assert columns(["redshift", *RAIL], magnitude_errors="none").errors == ()


@pytest.mark.parametrize(
    ("names", "asked", "match"),
    [
        (["redshift", "a"], {}, "no columns are named as magnitudes"),
        (["mag_g", "mag_r"], {}, "no column is named as redshifts"),
        (["redshift", "mag_g", "g_mag"], {}, "mag_g and g_mag are both magnitudes in g"),
        (["redshift", "mag_g", "mag_r", "mag_g_err"], {}, "no errors of the magnitudes in r"),
        (["redshift", "mag_g"], {"bands": "g,u"}, "no column u"),
        (["redshift", "mag_g"], {"bands": "g,g"}, "name each band once"),
        (["redshift", "mag_g"], {"magnitudes": "mag_{}"}, "--bands says which"),
        (["redshift", "mag_g"], {"magnitudes": "mag", "bands": "g"}, "a name with {}"),
        (["redshift", "mag_g"], {"magnitude_errors": "err"}, "a name with {}"),
        (["redshift", "mag_g"], {"redshift": "redshif"}, "did you mean redshift"),
    ],
)
def test_columns_that_cannot_be_told_are_one_line(names, asked, match):
    with pytest.raises(UserError, match=match):
        columns(names, **asked)


@pytest.fixture
def rows():
    """Three galaxies, one not detected in g, one not observed in r."""
    return {
        "redshift": np.array([0.5, np.nan, 1.0]),
        "mag_g": np.array([24.0, 99.0, 25.0], np.float32),
        "mag_r": np.array([23.0, 22.0, np.nan], np.float32),
        "mag_g_err": np.array([0.1, 1.0, 0.2], np.float32),
        "mag_r_err": np.array([0.05, -1, 0.3], np.float32),
    }


def test_every_kind_of_table_gives_the_same(tmp_path, rows):
    Table(rows).write(tmp_path / "t.fits")
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    with open(tmp_path / "t.csv", "w") as file:
        cells = (["" if np.isnan(value) else f"{value:.9g}" for value in row] for row in zip(*rows.values(), strict=True))
        file.write("\n".join(",".join(row) for row in ([*rows], *cells)) + "\n")
    found = [read_photometry(str(tmp_path / name), TableArguments()) for name in ("t.fits", "t.parquet", "t.csv")]
    assert len({each.digest for each in found}) == 1
    one = found[0]
    assert np.array_equal(one.magnitudes, np.array([[24, 23], [np.inf, 22], [25, np.nan]], np.float32), equal_nan=True)
    assert np.array_equal(np.isnan(one.errors), [[False, False], [True, True], [False, True]])
    assert one.redshifts[0] == 0.5 and np.isnan(one.redshifts[1])
    assert len(one.rows(np.array([0, 2]))) == 2
    unlike = read_photometry(str(tmp_path / "t.csv"), TableArguments(), one.columns, redshift=False)
    assert np.isnan(unlike.redshifts).all() and unlike.digest != one.digest


def test_tables_that_cannot_be_used_are_one_line(tmp_path, rows):
    pq.write_table(pa.table({**rows, "mag_g": ["a", "b", "c"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="mag_g is string, not numbers"):
        read_photometry(str(tmp_path / "t.parquet"), TableArguments())
    pq.write_table(pa.table(rows).slice(0, 0), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="has no rows"):
        read_photometry(str(tmp_path / "t.parquet"), TableArguments())
    pq.write_table(pa.table({**rows, "mag_r": [np.nan] * 3}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="no row has a magnitude in r"):
        scaling_of(read_photometry(str(tmp_path / "t.parquet"), TableArguments()))


def test_features_are_standard_and_missing_ones_are_the_mean(tmp_path):
    rng = np.random.default_rng(1)
    magnitudes = rng.normal([24, 23, 22], 1, (400, 3)).astype(np.float32)
    table = {f"mag_{band}": magnitudes[:, number] for number, band in enumerate("gri")}
    table |= {f"mag_{band}_err": np.full(400, 0.1, np.float32) for band in "gri"} | {"redshift": rng.uniform(0, 1, 400)}
    table["mag_g"] = np.where(np.arange(400) % 4, table["mag_g"], np.nan)
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    rows = read_photometry(str(tmp_path / "t.parquet"), TableArguments())
    scaling = Scaling(**{name: torch.tensor(values) for name, values in scaling_of(rows).items()})
    seen = [torch.from_numpy(rows.magnitudes), torch.from_numpy(rows.errors)]
    features = scaling.features(*seen)
    assert features.shape == (400, 11) and features.isfinite().all()
    assert features[:, :5].mean(0).abs().max() < 1e-4 and (features[:, 1:3].std(0) - 1).abs().max() < 0.01
    assert (features[::4, [0, 3]] == 0).all() and (features[::4, 5] == 1).all() and (features[1::4, 5:8] == 0).all()
    together = torch.cov(features[:, 8:].T)
    assert together.numpy() == pytest.approx(np.eye(3), abs=0.02)
    # noise of one error moves fluxes by a tenth, and nothing that was not observed
    draws = torch.ones(2, 400, 3)
    draws[1] = 0
    noisy = scaling.features(*seen, 1.0, draws)
    assert torch.equal(noisy[1], features) and (noisy[0, ::4, 0] == 0).all()
    assert (noisy[0, :, 2] < features[:, 2]).all() and not torch.equal(noisy[0], features)


def test_components_of_magnitudes_that_say_the_same_stay_small(tmp_path):
    table = {f"mag_{band}": np.array([24.0, 23.0]) for band in "gri"} | {"redshift": [0.5, 1.0]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    rows = read_photometry(str(tmp_path / "t.parquet"), TableArguments())
    scaling = Scaling(**{name: torch.tensor(values) for name, values in scaling_of(rows).items()})
    features = scaling.features(torch.from_numpy(rows.magnitudes), torch.from_numpy(rows.errors))
    assert scaling.axes.shape == (3, 3) and features[:, 8].abs().tolist() == pytest.approx([1, 1], rel=1e-3)
    assert features[:, 9:].abs().max() < 1e-3


def test_fluxes_have_the_errors_of_magnitudes():
    flux, error = flux_of(torch.tensor([ZERO, ZERO + 2.5, torch.inf, torch.nan]), torch.tensor([0.1, 0.1, torch.nan, 0.1]))
    assert flux.tolist() == pytest.approx([1, 0.1, 0, 0])
    assert error[:2].tolist() == pytest.approx([0.1 / 1.0857, 0.01 / 1.0857], rel=1e-4) and error[2].isnan()
