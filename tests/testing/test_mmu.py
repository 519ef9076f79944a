"""Trees in MultimodalUniverse's layouts: what is in the files, read with h5py alone, is what the truth says."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from skyset.sky import healpix_cell
from skyset.testing.mmu import KINDS, LightCurve, write

#: Folders and files, as published: `n` is a cell.
PATHS = {
    "hsc": r"pdr3_dud_22.5/healpix=\d+/001-of-001.hdf5",
    "legacysurvey": r"dr10_south_21/healpix=\d+/001-of-001.hdf5",
    "ssl_legacysurvey": r"north/healpix=\d+/001-of-001.hdf5",
    "jwst": r"ceers/healpix=\d+/001-of-001.hdf5",
    "btsbot": r"data/healpix=\d{4}/(train|val|test)_001-of-001.hdf5",
    "gz10": r"datafiles/healpix=\d+/001-of-001.h5",
    "sdss": r"sdss/healpix=\d+/001-of-001.hdf5",
    "desi": r"edr_sv3/healpix=\d+/001-of-001.hdf5",
    "apogee": r"apogee/healpix=\d+/001-of-001.hdf5",
    "lamost": r"lamost/healpix=\d+/001-of-001.hdf5",
    "vipers": r"vipers_w1/healpix=\d+/001-of-001.h5",
    "galah": r"dr3/healpix=\d+/001-of-001.hdf5",
    "chandra": r"spectra/healpix=\d+/001-of-001.hdf5",
    "gaia": r"gaia/healpix=\d+/001-of-001.hdf5",
    "tess": r"spoc/s0064/healpix=\d+/001-of-001.hdf5",
    "kepler": r"kepler/healpix=\d+/001-of-001.hdf5",
    "desi_provabgs": r"datafiles/healpix=\d+/001-of-001.h5",
    "plasticc": r"data/healpix=\d+/(train|test)_\d\d.hdf5",
    "yse": r"yse_dr1/healpix=\d{4}/SN\w+.hdf5",
    "foundation": r"foundation_dr1/healpix=\d{4}/example_SN\w+.hdf5",
    "snls": r"snls/healpix=\d{4}/SN\w+.hdf5",
    "ps1": r"ps1_sne_ia/healpix=\d{4}/SN\w+.hdf5",
    "des_y3": r"des_y3_sne_ia/healpix=\d{4}/SN\w+.hdf5",
    "swift": r"swift_sne_ia/healpix=\d{4}/SN\w+.hdf5",
    "cfa": r"cfa3/healpix=\d{4}/SN\w+.hdf5",
    "csp": r"csp_dr3/healpix=\d{4}/example_SN\w+.hdf5",
    "manga": r"manga/healpix=\d+/0001-of-0001.hdf5",
}
#: Datasets by kind: dtype, and the shape of a row with S for the side of images and L for a length.
DATASETS = {
    "hsc": "object_id i8; ra f8; image_band S5 5; image_array f4 5,S,S; image_ivar f4 5,S,S; image_mask b1 5,S,S;"
    "image_psf_fwhm f4 5; image_scale f4 5; a_g f4; g_cmodel_mag f4; tract i8",
    "legacysurvey": "object_id S16; gid i8; RA f8; image_array f4 4,S,S; image_mask b1 S,S; image_rgb u1 S,S,3;"
    "blobmodel u1 S,S,3; object_mask u1 S,S; image_psf_fwhm f4 4; catalog_FLUX_G f4 20; TYPE S3; LC_FLUX_W1 f4 3",
    "ssl_legacysurvey": "object_id i8; inds i8; image_array f4 3,S,S; image_psf_fwhm f4 3; image_scale f4 3",
    "jwst": "object_id i8; image_flux f4 7,S,S; image_ivar f4 7,S,S; image_mask b1 7,S,S; image_band S5 7",
    "btsbot": "object_id i8; image_triplet f4 S,S,3; band S1; image_scale f4; is_SN b1",
    "gz10": "object_id i8; images u1 S,S,3; ans u1; redshift f8; pxscale f8",
    "sdss": "object_id S18; ra f8; spectrum_lambda f4 L; spectrum_flux f4 L; spectrum_ivar f4 L; spectrum_lsf_sigma f4 L;"
    "spectrum_mask b1 L; Z >f4; ZWARNING >i4; SPECTROFLUX >f4 5; PLUG_RA >f8",
    "desi": "object_id i8; HEALPIX i4; healpix i8; spectrum_flux f4 L; spectrum_mask b1 L; spectrum_lsf f4 11,L",
    "apogee": "spectrum_flux f4 L; spectrum_bitmask i8 L; teff f4",
    "lamost": "spectrum_norm_flux f4 L; spectrum_mask b1 L; teff f4",
    "vipers": "spectrum_flux f4 L; spectrum_wave f4 L; spectrum_noise f4 L; spectrum_mask f4 L",
    "galah": "object_id i8; spectrum_flux f4 L; spectrum_lambda f4 L; spectrum_B_ind_start i8; spectrum_I_ind_end i8",
    "gaia": "source_id i8; ra f8; coeff f4 110; coeff_error f4 110; parallax f8; ruwe f4",
    "tess": "RA f8; DEC f8; time f8 L; flux f4 L; flux_err f4 L",
    "kepler": "object_id i8; time f8 L; sap_flux f8 L; pdcsap_flux_err f8 L; cadence S12",
    "desi_provabgs": "object_id i8; PROVABGS_MCMC f8 100,13; PROVABGS_THETA_BF f8 13",
    "plasticc": "object_id i8; ra f8; lightcurve f8 6,3,L; obj_type i8; redshift f8",
}
#: What fills datasets up.
PADS = {
    "sdss": {"spectrum_lambda": -1, "spectrum_ivar": 0, "spectrum_mask": True},
    "galah": {"spectrum_lambda": -1, "spectrum_flux": 0, "spectrum_ivar": 0},
    "tess": {"time": 0, "flux": 0},
    "kepler": {"time": np.nan, "pdcsap_flux": np.nan},
}
COLUMNS = [kind for kind in KINDS if KINDS[kind].form == "columns"]
OBJECTS = [kind for kind in KINDS if KINDS[kind].form == "objects"]


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """One of each, written once."""
    root, made = tmp_path_factory.mktemp("mmu"), {}

    def tree(kind: str):
        if kind not in made:
            made[kind] = write(kind, root / kind, rows=4, cells=3)
        return made[kind]

    return tree


def opened(truth, name=None):
    return h5py.File(truth.folder / (name or next(iter(truth.files))), "r")


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_called_as_published(trees, kind):
    truth = trees(kind)
    locks = {f"{name}.lock" for name in truth.files} if kind in ("hsc", "legacysurvey", "jwst") else set()
    assert names_in(truth.folder) == set(truth.files) | locks
    assert all(re.fullmatch(PATHS[kind], name) for name in truth.files)
    assert sum(map(len, truth.files.values())) == len(truth.rows) == 12
    assert sum(path.stat().st_size for path in truth.folder.rglob("*") if path.is_file()) < 5e6


@pytest.mark.parametrize("kind", DATASETS)
def test_datasets_have_the_published_types_and_shapes(trees, kind):
    truth = trees(kind)
    with opened(truth) as file:
        for each in DATASETS[kind].split(";"):
            name, dtype, *shape = each.split()
            sizes = {"S": KINDS[kind].small[0], "L": file[name].shape[-1]}
            expected = tuple(sizes.get(size) or int(size) for size in shape[0].split(",")) if shape else ()
            assert file[name].shape[1:] == expected, name
            assert file[name].dtype == np.dtype(dtype), name


@pytest.mark.parametrize("kind", COLUMNS)
def test_rows_of_columns_are_those_of_the_truth(trees, kind):
    truth = trees(kind)
    for name, ids in truth.files.items():
        with opened(truth, name) as file:
            vlen = {column for column, data in file.items() if data.dtype == object}
            for index, object_id in enumerate(ids):
                row = truth.rows[object_id]
                key = file["source_id" if kind == "gaia" else "object_id"][index]
                assert (key.decode() if isinstance(key, bytes) else str(key)) == object_id
                assert set(row) == set(file)
                for column, value in row.items():
                    if not isinstance(value, LightCurve):
                        assert isinstance(value, bytes) or column in vlen or file[column].dtype == value.dtype
                        same(file[column][index], value, PADS.get(kind, {}).get(column))


def same(stored, value, pad) -> None:
    """A stored row is the truth, and beyond that padding."""
    if isinstance(value, bytes):
        assert stored == value
        return
    end = value.shape[-1] if np.ndim(value) else None
    np.testing.assert_array_equal(stored[..., :end] if np.ndim(value) else stored, value)
    if pad is not None:
        np.testing.assert_array_equal(stored[end:], np.full(len(stored) - end, pad))


@pytest.mark.parametrize("kind", PADS)
def test_lengths_differ_within_and_between_files(trees, kind):
    truth = trees(kind)
    column = next(iter(PADS[kind]))
    lengths = {object_id: len(row[column]) for object_id, row in truth.rows.items()}
    assert len(set(lengths.values())) > 3
    for name, ids in truth.files.items():
        with opened(truth, name) as file:
            assert file[column].shape[1] == max(lengths[object_id] for object_id in ids)


def test_edges_of_sdss_are_repeated(trees):
    truth = trees("sdss")
    for name, ids in truth.files.items():
        with opened(truth, name) as file:
            for index, object_id in enumerate(ids):
                for column in ("spectrum_flux", "spectrum_lsf_sigma"):
                    value, stored = truth.rows[object_id][column], file[column][index]
                    assert (stored[len(value) :] == value[-1]).all()


def test_light_curves_of_plasticc(trees):
    truth = trees("plasticc")
    for name, ids in truth.files.items():
        with opened(truth, name) as file:
            cubes = file["lightcurve"][:]
            assert "healpix" not in file
        for object_id, cube in zip(ids, cubes, strict=True):
            there = cube[:, 0] != 0
            flat = truth.rows[object_id]["lightcurve"].flat()
            for place, column in enumerate(("time", "flux", "flux_err")):
                np.testing.assert_array_equal(cube[:, place][there], flat[column])
            assert flat["band"].tolist() == [
                band for band, row in zip("ugrizY", there, strict=True) for _ in range(row.sum())
            ]
            assert there.any(axis=1).all(), "no band is empty unless it is asked for"


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_are_those_of_the_truth(trees, kind):
    truth = trees(kind)
    lengths = set()
    for name, (object_id,) in truth.files.items():
        row = dict(truth.rows[object_id])
        curve = row.pop("lightcurve")
        with opened(truth, name) as file:
            assert set(file) == {*row, "bands", *curve.points}
            assert file["object_id"][()].decode() == object_id
            for column, value in row.items():
                assert file[column].shape == ()
                assert file[column][()] == value
            bands = file["bands"][()]
            joined = kind not in ("cfa", "csp")
            assert (bands.decode().split(",") if joined else [band.decode() for band in bands]) == list(curve.bands)
            pad = -99 if joined else 0
            there = file["time"][:] != pad
            lengths.add(there.shape[1])
            for column in curve.points:
                assert file[column].dtype == np.float32
                np.testing.assert_array_equal(file[column][:][there], curve.flat()[column])
                assert (file[column][:][~there] == (pad if column == "time" else 0)).all()
    assert len(lengths) > 2


def test_magnitudes_have_bands_without_points(trees):
    for kind in ("cfa", "csp"):
        curves = [row["lightcurve"] for row in trees(kind).rows.values()]
        empty = [not len(times) for curve in curves for times in curve.points["time"]]
        assert 0 < sum(empty) < len(empty) / 2


def test_x_ray_spectra_are_of_any_length(trees):
    truth = trees("chandra")
    with opened(truth) as file:
        for name in ("spectrum_ene_lo", "spectrum_ene_hi", "spectrum_ene", "spectrum_flux", "spectrum_flux_err"):
            assert h5py.check_vlen_dtype(file[name].dtype) == np.float64
        assert len({len(row) for row in file["spectrum_ene"][:]}) > 1


def test_cubes_are_groups_of_compound_tables(trees):
    truth = trees("manga")
    side, length = KINDS["manga"].small
    with opened(truth) as file:
        assert dict(file.attrs) == {"project": "SDSS", "survey": "MaNGA", "release": "DR17"}
        assert list(file) == next(iter(truth.files.values()))
        group = next(iter(file.values()))
        row = truth.rows[group.name[1:]]
        assert group.attrs["z"] == group["z"][()] == row["z"]
        assert group["object_id"].asstr()[()] == group.name[1:]
        spaxels, maps = group["spaxels"], group["maps"][:]
        assert spaxels.shape == (side * side,)
        assert [spaxels.dtype[name].shape for name in ("flux", "ivar", "mask", "lsf_sigma", "lambda")] == [(length,)] * 5
        assert group["images"].dtype["image_array"].shape == (side, side)
        for name in ("spaxels", "images", "maps"):
            np.testing.assert_array_equal(group[name][:], row[name])
        outside = (spaxels["mask"] == 1024).all(axis=1)
        assert 0 < outside.sum() < side * side
        assert not spaxels["flux"][outside].any()
        assert (maps["mask"].reshape(len(maps), -1)[:, outside] == 1073741824).all()


@pytest.mark.parametrize(
    ("kind", "name", "compression", "chunks"),
    [
        ("hsc", "image_array", "gzip", True),
        ("legacysurvey", "image_array", "lzf", True),
        ("jwst", "image_flux", "gzip", True),
        ("ssl_legacysurvey", "image_array", None, None),
        ("sdss", "spectrum_flux", None, None),
        ("gaia", "coeff", None, None),
        ("kepler", "time", "gzip", (4, 1000)),
    ],
)
def test_storage_is_that_of_the_builders(trees, kind, name, compression, chunks):
    with opened(trees(kind)) as file:
        data = file[name]
        assert data.compression == compression
        assert data.chunks is not None if chunks is True else data.chunks == chunks
        assert data.maxshape[0] is None if kind in ("hsc", "legacysurvey", "jwst") else data.maxshape == data.shape
        assert chunks is not None or data.id.get_offset() is not None


@pytest.mark.parametrize("kind", KINDS)
def test_positions_lie_in_their_cells(trees, kind):
    truth = trees(kind)
    for name, ids in truth.files.items():
        cell = int(re.search(r"healpix=(\d+)", name)[1])
        for object_id in ids:
            row = truth.rows[object_id]
            ra, dec = (row.get("ra", row.get("RA")), row.get("dec", row.get("DEC")))
            assert healpix_cell(ra, dec) == cell == row.get("healpix", cell)


def test_splits_are_dealt(trees):
    for kind, splits in (("btsbot", {"train", "val", "test"}), ("plasticc", {"train", "test"})):
        truth = trees(kind)
        assert set(truth.splits.values()) == splits
        assert all(Path(name).name.startswith(f"{split}_") for name, split in truth.splits.items())


def test_pictures_spectra_and_curves_are_plausible(trees):
    for row in trees("hsc").rows.values():
        flux, ivar, good = row["image_array"], row["image_ivar"], row["image_mask"]
        middle = flux[:, 12:20, 12:20].mean(axis=(1, 2))
        assert (middle > flux[:, :4, :4].mean(axis=(1, 2))).all(), "a galaxy is in the middle"
        assert ((ivar > 0) == good).all()
        assert 0.5 < good.mean() < 1
    for row in trees("sdss").rows.values():
        assert 3700 < row["spectrum_lambda"][0] < row["spectrum_lambda"][-1] < 9300
        assert ((row["spectrum_ivar"] == 0) == row["spectrum_mask"]).all()
    for row in trees("yse").rows.values():
        curve = row["lightcurve"]
        for time, flux, error in zip(*curve.points.values(), strict=True):
            assert (np.diff(time) >= 0).all()
            late = flux[time > time[flux.argmax()] + 60]
            assert not len(late) or late.mean() < flux.max()
            assert (error > 0).all()


def real_file(name: str) -> Path:
    path = Path(__file__).parents[3] / "shared" / "data" / "mmu" / name
    if not path.exists():
        pytest.skip("the real files are not here")
    return path


@pytest.mark.parametrize(("kind", "name"), [("cfa", "SN2007bc.hdf5"), ("csp", "example_SN2004dt.hdf5")])
def test_structure_is_that_of_a_real_file(trees, kind, name):
    truth = trees(kind)
    with h5py.File(real_file(name)) as real, opened(truth) as made:
        assert set(made) == set(real)
        for column, data in real.items():
            mine = made[column]
            assert (mine.ndim, mine.dtype.kind, mine.chunks, mine.compression) == (data.ndim, data.dtype.kind, None, None)
            if data.dtype.kind == "S":
                assert mine.id.get_type().get_cset() == data.id.get_type().get_cset()
            else:
                assert mine.dtype == data.dtype
        np.testing.assert_array_equal(made["bands"][:], real["bands"][:])
