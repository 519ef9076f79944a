"""Surveys of images: hsc, legacysurvey, ssl_legacysurvey, jwst, btsbot, gz10."""

from __future__ import annotations

import numpy as np

from skyset.testing.mmu.galaxies import Camera, as_rgb, colours, take_picture
from skyset.testing.mmu.layout import Layout, Storage
from skyset.testing.mmu.rows import Row, Spot

HSC_BANDS = "grizy"
HSC = Camera(0.168, 27.0, (0.79, 0.75, 0.61, 0.68, 0.68), (0.02, 0.03, 0.03, 0.06, 0.13))
LEGACY = Camera(0.262, 22.5, (1.5, 1.4, 1.3, 1.3), (0.002, 0.003, 0.006, 0.008))
STEIN = Camera(0.262, 22.5, (1.5, 1.4, 1.3), (0.002, 0.003, 0.008))
#: Full width at half maximum of NIRCam's filters, arcsec.
JWST_FWHM = {
    "f090w": 0.033,
    "f115w": 0.040,
    "f150w": 0.050,
    "f200w": 0.066,
    "f277w": 0.092,
    "f356w": 0.116,
    "f444w": 0.145,
}
#: What the galaxies beside one are called in numbers.
TYPES = ("PSF", "REX", "EXP", "DEV", "SER", "DUP")
#: Galaxies beside one that the Legacy Surveys' table has room for.
NEARBY = 20
#: Written file by file as they come, so that later runs can append.
APPENDED = Storage("gzip", resizable=True)


def image_columns(band_names: list[str], side_scale: float, fwhm: np.ndarray) -> Row:
    """The columns that all of them have beside pixels."""
    return {
        "image_band": np.array([name.encode() for name in band_names], "S5"),
        "image_psf_fwhm": fwhm,
        "image_scale": np.full(len(band_names), side_scale, np.float32),
    }


def hsc_row(spot: Spot) -> Row:
    rng, magnitudes = spot.rng, colours(spot.rng, 5, brightest=18.0, faintest=22.5)
    picture = take_picture(rng, spot.side, magnitudes, HSC)
    row: Row = {
        "object_id": np.int64(36411448540000000 + spot.number),
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "tract": np.int64(8000 + spot.cell),
        "patch": np.int64(rng.integers(0, 9) * 100 + rng.integers(0, 9)),
    }
    for band, magnitude in zip(HSC_BANDS, magnitudes, strict=True):
        row[f"a_{band}"] = np.float32(rng.uniform(0.02, 0.2))
        row[f"{band}_extendedness_value"] = np.float32(1)
        row[f"{band}_cmodel_mag"] = np.float32(magnitude)
        row[f"{band}_cmodel_magerr"] = np.float32(rng.uniform(0.001, 0.02))
    for band, fwhm in zip(HSC_BANDS, picture.fwhm, strict=True):
        psf = (float(fwhm) / 2.355) ** 2
        moments = {"psf_shape11": psf, "psf_shape22": psf, "psf_shape12": 0.0}
        moments |= {
            "shape11": psf + rng.uniform(0.1, 2),
            "shape22": psf + rng.uniform(0.1, 2),
            "shape12": rng.normal(0, 0.05),
        }
        row |= {f"{band}_sdssshape_{name}": np.float32(value) for name, value in moments.items()}
    bands = [f"hsc-{band}" for band in HSC_BANDS]
    row |= image_columns(bands, HSC.scale, picture.fwhm)
    return row | {"image_array": picture.flux, "image_ivar": picture.ivar, "image_mask": picture.good}


def legacysurvey_row(spot: Spot) -> Row:
    rng, magnitudes = spot.rng, colours(spot.rng, 4, brightest=16.5, faintest=20.5)
    picture = take_picture(rng, spot.side, magnitudes, LEGACY)
    fluxes = 10 ** (-0.4 * (magnitudes - 22.5))
    brick = f"{int(spot.ra * 10):04d}{'m' if spot.dec < 0 else 'p'}{int(abs(spot.dec) * 10):03d}"
    row: Row = {
        "object_id": f"{brick}-{spot.number % 10000000}".encode()[:16],
        "gid": np.int64(spot.index),
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "RELEASE": np.int32(10000),
        "BRICKNAME": brick.encode(),
        "OBJID": np.int32(spot.number % 10000000),
        "TYPE": TYPES[rng.integers(1, 5)].encode(),
        "RA": np.float64(spot.ra),
        "DEC": np.float64(spot.dec),
        "EBV": np.float32(rng.uniform(0.01, 0.15)),
        "MASKBITS": np.int16(0),
        "SHAPE_R": np.float32(rng.uniform(0.5, 4)),
        "LC_FLUX_W1": rng.uniform(1, 50, 3).astype(np.float32),
    }
    row |= {f"FLUX_{band}": np.float32(flux) for band, flux in zip("GRIZ", fluxes, strict=True)}
    row |= {f"FLUX_IVAR_{band}": np.float32(rng.uniform(50, 900)) for band in "GRIZ"}
    row |= {f"FLUX_W{band}": np.float32(fluxes[-1] * rng.uniform(0.5, 3)) for band in range(1, 5)}
    row |= {f"PSFSIZE_{band}": np.float32(fwhm) for band, fwhm in zip("GRIZ", picture.fwhm, strict=True)}
    row |= image_columns([f"des-{band}" for band in "griz"], LEGACY.scale, picture.fwhm)
    rgb = as_rgb(picture.flux[[0, 1, 3]], 0.02)
    radius = np.hypot(*np.indices((spot.side, spot.side)) - (spot.side - 1) / 2)
    row |= {
        "image_array": picture.flux,
        "image_ivar": picture.ivar,
        "image_mask": picture.good.all(axis=0),
        "image_rgb": rgb,
        "blobmodel": rgb // 2 * 2,
        "object_mask": np.where(radius < max(2, spot.side / 8), 3, 0).astype(np.uint8),
    }
    return row | _nearby(spot, fluxes)


def _nearby(spot: Spot, fluxes: np.ndarray) -> Row:
    """Galaxies around one, itself among them, filled up with zeros."""
    rng, count = spot.rng, int(spot.rng.integers(1, NEARBY))
    columns: Row = {name: np.zeros(NEARBY, np.float32) for name in ("SHAPE_R", "SHAPE_E1", "SHAPE_E2", "X", "Y")}
    for name in columns:
        columns[name][:count] = rng.uniform(0, spot.side, count) if len(name) == 1 else rng.normal(0, 0.3, count)
    kinds = np.zeros(NEARBY, np.int64)
    kinds[:count] = rng.integers(1, len(TYPES) + 1, count)
    columns["TYPE"] = kinds
    for band, flux in zip("GRIZ", fluxes, strict=True):
        columns[f"FLUX_{band}"] = np.zeros(NEARBY, np.float32)
        columns[f"FLUX_{band}"][:count] = np.sort(flux * rng.uniform(0.01, 1, count))
        columns[f"FLUX_IVAR_{band}"] = np.zeros(NEARBY, np.float32)
        columns[f"FLUX_IVAR_{band}"][:count] = rng.uniform(50, 900, count)
    for name, centre in (("RA", spot.ra), ("DEC", spot.dec)):
        columns[name] = np.zeros(NEARBY)
        columns[name][:count] = centre + rng.normal(0, 0.003, count)
    return {f"catalog_{name}": values for name, values in columns.items()}


def ssl_legacysurvey_row(spot: Spot) -> Row:
    rng, magnitudes = spot.rng, colours(spot.rng, 3, brightest=16.5, faintest=20.0)
    picture = take_picture(rng, spot.side, magnitudes, STEIN)
    row: Row = {
        "object_id": np.int64(spot.number),
        "inds": np.int64(spot.number),
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "ebv": np.float32(rng.uniform(0.01, 0.15)),
        "z_spec": np.float32(rng.uniform(0.02, 0.4)),
    }
    for band, magnitude in zip("grz", magnitudes, strict=True):
        row[f"flux_{band}"] = np.float32(10 ** (-0.4 * (magnitude - 22.5)))
        row[f"fiberflux_{band}"] = np.float32(row[f"flux_{band}"] * rng.uniform(0.2, 0.6))
        row[f"psfdepth_{band}"] = np.float32(rng.uniform(200, 2000))
    row |= image_columns([f"des-{band}" for band in "grz"], STEIN.scale, picture.fwhm)
    return row | {"image_array": picture.flux}


def jwst_row(spot: Spot) -> Row:
    filters = list(JWST_FWHM)[1:] if spot.config == "ngdeep" else list(JWST_FWHM)
    camera = Camera(0.04, 28.9, [JWST_FWHM[name] for name in filters], [0.003] * len(filters))
    rng, magnitudes = spot.rng, colours(spot.rng, len(filters), brightest=21.0, faintest=25.0)
    picture = take_picture(rng, spot.side, magnitudes, camera)
    row: Row = {
        "object_id": np.int64(spot.number + 1),
        "id": np.int64(spot.number + 1),
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "mag_auto": np.float32(magnitudes[-1]),
        "kron_radius": np.float32(rng.uniform(2.4, 6)),
        "flux_radius": np.float32(rng.uniform(2, 12)),
    }
    for name, magnitude in zip(filters, magnitudes, strict=True):
        row[f"{name}_flux_aper_0"] = np.float64(10 ** (-0.4 * (magnitude - 23.9)))
        row[f"{name}_fluxerr_aper_0"] = np.float64(rng.uniform(0.002, 0.01))
    row |= image_columns(filters, camera.scale, picture.fwhm)
    return row | {"image_flux": picture.flux, "image_ivar": picture.ivar, "image_mask": picture.good}


def btsbot_row(spot: Spot) -> Row:
    rng, side, band = spot.rng, spot.side, int(spot.rng.integers(1, 3))
    camera = Camera(1.01, 25.0, (2.2,), (1.0,))
    reference = take_picture(rng, side, [rng.uniform(15, 19)], camera).flux[0]
    radius = np.hypot(*np.indices((side, side)) - (side - 1) / 2)
    magnitude = rng.uniform(16.0, 19.5)
    new = 10 ** (-0.4 * (magnitude - 25.0)) * np.exp(-0.5 * (radius / 0.95) ** 2) / 5.6
    views = np.stack([reference + new, reference, new + rng.standard_normal((side, side))], axis=-1)
    return {
        "object_id": np.int64(1000000000000 + spot.number),
        "OBJECT_ID_": f"ZTF18a{_letters(spot.number)}".encode(),
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "jd": np.float64(2458300 + rng.uniform(0, 1500)),
        "fid": np.int64(band),
        "magpsf": np.float64(magnitude),
        "sigmapsf": np.float64(rng.uniform(0.02, 0.2)),
        "fwhm": np.float64(2.2),
        "age": np.float64(rng.uniform(0, 60)),
        "label": np.int64(rng.integers(0, 2)),
        "isdiffpos": np.bool_(True),
        "is_SN": np.bool_(rng.random() < 0.5),
        "source_set": (b"trues", b"dims", b"vars")[rng.integers(3)],
        "split": spot.split.encode(),
        "band": b"gr"[band - 1 : band],
        "image_scale": np.float32(1.01),
        "image_triplet": (views / np.linalg.norm(views, axis=(0, 1))).astype(np.float32),
    }


def gz10_row(spot: Spot) -> Row:
    rng = spot.rng
    picture = take_picture(rng, spot.side, colours(rng, 3, brightest=14.5, faintest=17.5), STEIN)
    return {
        "object_id": np.int64(spot.number),
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "ans": np.uint8(rng.integers(0, 10)),
        "redshift": np.float64(rng.uniform(0.01, 0.2)),
        "pxscale": np.float64(0.262),
        "images": as_rgb(picture.flux, 0.02),
    }


def _letters(number: int) -> str:
    """Seven letters that count."""
    out = ""
    for _ in range(7):
        number, rest = divmod(number, 26)
        out = chr(97 + rest) + out
    return out


LAYOUTS = (
    Layout(
        name="hsc",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=hsc_row,
        configs=("pdr3_dud_22.5",),
        storage=APPENDED,
        small=(32, 0),
        full=(160, 0),
        masks=("image_mask",),
        ivar="image_ivar",
        locks=True,
        about="images in five bands (N, 5, side, side), ivar, mask (True is good); gzip",
    ),
    Layout(
        name="legacysurvey",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=legacysurvey_row,
        configs=("dr10_south_21",),
        pads={"object_id": "S16", "BRICKNAME": "S8", "TYPE": "S3"},
        storage=Storage("lzf", resizable=True, encoding="utf-8"),
        small=(32, 0),
        full=(160, 0),
        masks=("image_mask",),
        ivar="image_ivar",
        locks=True,
        about="images in four bands, one mask for all of them, RGB, neighbours padded with 0; lzf",
    ),
    Layout(
        name="ssl_legacysurvey",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=ssl_legacysurvey_row,
        configs=("north", "south"),
        small=(32, 0),
        full=(152, 0),
        about="images in three bands, neither ivar nor mask; contiguous",
    ),
    Layout(
        name="jwst",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=jwst_row,
        configs=("ceers", "ngdeep", "primer-cosmos"),
        storage=APPENDED,
        small=(24, 0),
        full=(96, 0),
        masks=("image_mask",),
        ivar="image_ivar",
        locks=True,
        about="image_flux in seven bands, six in ngdeep; gzip",
    ),
    Layout(
        name="btsbot",
        form="columns",
        path="data/healpix={cell}/{split}_{part}.hdf5",
        row=btsbot_row,
        splits=("train", "val", "test"),
        storage=Storage(encoding="utf-8"),
        small=(21, 0),
        full=(63, 0),
        width=4,
        about="alerts, three views in the last axis; splits by the names of files, cells of four digits",
    ),
    Layout(
        name="gz10",
        form="columns",
        path="datafiles/healpix={cell}/{part}.h5",
        row=gz10_row,
        small=(64, 0),
        full=(256, 0),
        about="RGB images as uint8, labels of ten classes; .h5",
    ),
)
