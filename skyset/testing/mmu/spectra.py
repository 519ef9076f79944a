"""Surveys of spectra: sdss, desi, apogee, lamost, vipers, galah, chandra."""

from __future__ import annotations

import numpy as np

from skyset.testing.mmu.layout import Layout
from skyset.testing.mmu.lines import galaxy_spectrum, log_wavelengths, observe, star_spectrum
from skyset.testing.mmu.rows import Row, Spot

#: Rows of DESI's resolution matrix that are not 0.
DIAGONALS = 11
GALAH_BANDS = {"B": (4713.0, 4903.0), "G": (5648.0, 5873.0), "R": (6478.0, 6737.0), "I": (7585.0, 7887.0)}


def place(spot: Spot, *, single: bool = False) -> Row:
    """Position and cell."""
    dtype = np.float32 if single else np.float64
    return {"ra": dtype(spot.ra), "dec": dtype(spot.dec), "healpix": np.int64(spot.cell)}


def sdss_row(spot: Spot) -> Row:
    """Numbers of the catalogue are big-endian, as they are in the FITS file that it comes from."""
    rng, number = spot.rng, 299489677444933000 + spot.number
    length = int(rng.integers(int(0.86 * spot.length), spot.length + 1))
    redshift = rng.uniform(0.01, 0.6)
    wavelength = log_wavelengths(rng.uniform(3800, 3850), rng.uniform(9000, 9250), length)
    flux, ivar, bad = observe(rng, galaxy_spectrum(rng, wavelength, redshift), rng.uniform(3, 30))
    as_text = spot.config not in ("segue1", "segue2")
    flags = int(rng.choice([0, 0, 0, 4, 16]))
    row: Row = {
        "object_id": str(number).encode() if as_text else np.uint64(number),
        **place(spot),
        "SURVEY": spot.config.encode(),
        "SPECOBJID": str(number).encode(),
        "PLATE": _big(266 + spot.cell, "i4"),
        "MJD": _big(51602 + spot.cell, "i4"),
        "FIBERID": _big(spot.index % 640 + 1, "i4"),
        "PLUG_RA": _big(spot.ra, "f8"),
        "PLUG_DEC": _big(spot.dec, "f8"),
        "CLASS": b"GALAXY",
        "SUBCLASS": (b"", b"STARFORMING", b"AGN")[rng.integers(3)],
        "Z": _big(redshift, "f4"),
        "Z_ERR": _big(rng.uniform(1e-5, 1e-4), "f4"),
        "ZWARNING": _big(flags, "i4"),
        "VDISP": _big(rng.uniform(60, 350), "f4"),
        "VDISP_ERR": _big(rng.uniform(5, 30), "f4"),
        "SN_MEDIAN_ALL": _big(rng.uniform(3, 30), "f4"),
    }
    for name in ("SPECTROFLUX", "SPECTROFLUX_IVAR", "SPECTROSYNFLUX", "SPECTROSYNFLUX_IVAR"):
        row[name] = np.sort(rng.uniform(1, 80, 5)).astype(">f4")
    row["spectrum_lambda"], row["spectrum_flux"], row["spectrum_ivar"] = wavelength, flux, ivar
    row["spectrum_mask"] = bad
    row["spectrum_lsf_sigma"] = np.linspace(0.95, 1.25, length, dtype=np.float32)
    return row


def _big(value: float, dtype: str) -> np.ndarray:
    return np.array(value, f">{dtype}")


def desi_row(spot: Spot) -> Row:
    rng, redshift = spot.rng, spot.rng.uniform(0.01, 1.2)
    wavelength = np.linspace(3600, 9824, spot.length, dtype=np.float32)
    flux, ivar, bad = observe(rng, galaxy_spectrum(rng, wavelength, redshift), rng.uniform(2, 15))
    from skyset.sky import healpix_cell

    row: Row = {
        "object_id": np.int64(39627000000000000 + spot.number),
        **place(spot),
        "TARGETID": np.int64(39627000000000000 + spot.number),
        "HEALPIX": np.int32(healpix_cell(spot.ra, spot.dec, 64)),
        "TARGET_RA": np.float64(spot.ra),
        "TARGET_DEC": np.float64(spot.dec),
        "SPECTYPE": b"GALAXY",
        "Z": np.float64(redshift),
        "ZERR": np.float64(rng.uniform(1e-6, 1e-4)),
        "ZWARN": np.int64(rng.choice([0, 0, 0, 4])),
        "EBV": np.float32(rng.uniform(0.01, 0.1)),
    }
    for band in "GRZ":
        for name in ("FLUX", "FLUX_IVAR", "FIBERFLUX", "FIBERTOTFLUX"):
            row[f"{name}_{band}"] = np.float32(rng.uniform(1, 60))
    bell = np.exp(-0.5 * (np.arange(DIAGONALS) - DIAGONALS // 2) ** 2 / rng.uniform(0.8, 1.4) ** 2)
    return row | {
        "spectrum_lambda": wavelength,
        "spectrum_flux": flux,
        "spectrum_ivar": ivar,
        "spectrum_mask": bad,
        "spectrum_lsf_sigma": np.full(spot.length, 0.8, np.float32),
        "spectrum_lsf": np.repeat((bell / bell.sum())[:, None], spot.length, axis=1).astype(np.float32),
    }


def apogee_row(spot: Spot) -> Row:
    rng, temperature = spot.rng, spot.rng.uniform(3600, 6500)
    wavelength = log_wavelengths(15100, 17000, spot.length)
    flux, ivar, bad = observe(rng, 300 * star_spectrum(rng, wavelength, temperature), rng.uniform(40, 200))
    row: Row = {
        "object_id": f"2M{spot.number:016d}".encode(),
        **place(spot),
        "teff": np.float32(temperature),
        "logg": np.float32(rng.uniform(0.5, 4.8)),
        "m_h": np.float32(rng.normal(-0.2, 0.3)),
        "alpha_m": np.float32(rng.normal(0.05, 0.08)),
        "radial_velocity": np.float32(rng.normal(0, 60)),
        "restframe": np.bool_(True),
    }
    row |= {f"{name}_err": np.float32(rng.uniform(0.01, 0.1)) for name in ("teff", "logg", "m_h", "alpha_m")}
    return row | {
        "spectrum_lambda": wavelength,
        "spectrum_flux": flux,
        "spectrum_ivar": ivar,
        "spectrum_lsf_sigma": np.full(spot.length, 0.3, np.float32),
        "spectrum_bitmask": np.where(bad, 1, 0).astype(np.int64),
        "spectrum_pseudo_continuum_flux": (flux / np.median(flux)).astype(np.float32),
        "spectrum_pseudo_continuum_ivar": (ivar * np.median(flux) ** 2).astype(np.float32),
    }


def lamost_row(spot: Spot) -> Row:
    rng, temperature = spot.rng, spot.rng.uniform(4000, 8000)
    wavelength = log_wavelengths(3700, 9100, spot.length)
    flux, ivar, bad = observe(rng, 2000 * star_spectrum(rng, wavelength, temperature), rng.uniform(10, 80))
    level = float(np.median(flux))
    row: Row = {
        "object_id": str(100000000 + spot.number).encode(),
        **place(spot),
        "obsid": str(100000000 + spot.number).encode(),
        "designation": f"J{spot.ra:09.5f}{spot.dec:+09.5f}".encode(),
        "class": b"STAR",
        "subclass": (b"F5", b"G2", b"K1")[rng.integers(3)],
        "teff": np.float32(temperature),
        "restframe": np.bool_(False),
    }
    for name in (
        "snr",
        "mag_u",
        "mag_g",
        "mag_r",
        "mag_i",
        "mag_z",
        "logg",
        "feh",
        "rv",
        "teff_err",
        "logg_err",
        "feh_err",
        "rv_err",
    ):
        row[name] = np.float32(rng.uniform(1, 20))
    return row | {
        "spectrum_lambda": wavelength,
        "spectrum_flux": flux,
        "spectrum_ivar": ivar,
        "spectrum_mask": bad,
        "spectrum_norm_flux": (flux / level).astype(np.float32),
        "spectrum_norm_ivar": (ivar * level**2).astype(np.float32),
    }


def vipers_row(spot: Spot) -> Row:
    rng, redshift = spot.rng, spot.rng.uniform(0.45, 1.2)
    wavelength = np.linspace(5500, 9500, spot.length, dtype=np.float32)
    flux, ivar, bad = observe(rng, galaxy_spectrum(rng, wavelength, redshift), rng.uniform(2, 10))
    noise = 1 / np.sqrt(np.where(ivar > 0, ivar, ivar.max()))
    return {
        "object_id": np.int64(101000000 + spot.number),
        **place(spot),
        "REDSHIFT": np.float64(redshift),
        "REDFLAG": np.float64(rng.choice([2, 3, 4])),
        "EXPTIME": np.float64(2700),
        "MAG": np.float64(rng.uniform(19, 22.5)),
        "spectrum_flux": (1e-17 * flux).astype(np.float32),
        "spectrum_wave": wavelength,
        "spectrum_noise": (1e-17 * noise).astype(np.float32),
        "spectrum_mask": bad.astype(np.float32),
    }


def galah_row(spot: Spot) -> Row:
    """Four arms one after the other; the longest of a cell sets its length, the others end in zeros and -1."""
    rng, temperature, row = spot.rng, spot.rng.uniform(4200, 7000), {}
    arms, start = [], 0
    for band, (first, last) in GALAH_BANDS.items():
        pixels = int(rng.integers(max(2, spot.length // 4 - 3), spot.length // 4 + 1))
        arms.append(np.linspace(first, last, pixels, dtype=np.float32))
        row[f"spectrum_{band}_ind_start"], row[f"spectrum_{band}_ind_end"] = np.int64(start), np.int64(start + pixels - 1)
        start += pixels
    wavelength = np.concatenate(arms)
    flux, ivar, _ = observe(rng, 1e-15 * star_spectrum(rng, wavelength, temperature), rng.uniform(30, 120))
    level = float(np.median(flux))
    return {
        "object_id": np.int64(131116000000000 + spot.number),
        **place(spot),
        "timestamp": np.float32(57000 + rng.uniform(0, 900)),
        "teff": np.float32(temperature),
        "logg": np.float32(rng.uniform(1, 4.8)),
        "fe_h": np.float32(rng.normal(-0.2, 0.3)),
        **row,
        "spectrum_lambda": wavelength,
        "spectrum_flux": flux,
        "spectrum_ivar": ivar.astype(np.float32),
        "spectrum_lsf": np.full(start, 0.1, np.float32),
        "spectrum_lsf_sigma": np.full(start, 0.1, np.float32),
        "spectrum_norm_lambda": wavelength,
        "spectrum_norm_flux": (flux / level).astype(np.float32),
        "spectrum_norm_ivar": (ivar * np.float64(level) ** 2).astype(np.float32),
    }


def chandra_row(spot: Spot) -> Row:
    """Spectra in bins of some counts each: the brighter, the more bins; float64 of any length."""
    rng = spot.rng
    bins = int(rng.integers(max(2, spot.length // 8), spot.length + 1))
    edges = np.geomspace(0.5, 8.0, bins + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    flux = rng.uniform(1e-3, 1e-1) * middle ** -rng.uniform(1.2, 2.4) * np.exp(-rng.uniform(0.01, 0.3) * middle**-3)
    error = flux / np.sqrt(5)
    sign = "-" if spot.dec < 0 else "+"
    row: Row = {
        "object_id": np.int64(spot.number),
        "name": f"2CXO J{int(spot.ra * 10000 / 15):06d}{sign}{int(abs(spot.dec) * 10000):06d}".encode(),
        "obsid": np.int64(rng.integers(100, 25000)),
        **place(spot),
        "flux_aper_b": np.float64(10 ** rng.uniform(-15, -12)),
    }
    for name in ("flux_bb_aper_b", "flux_significance_b", "hard_hm", "hard_hs", "hard_ms", "var_index_b", "var_prob_b"):
        row[name] = np.float64(rng.random())
    return row | {
        "spectrum_ene_lo": edges[:-1],
        "spectrum_ene_hi": edges[1:],
        "spectrum_ene": middle,
        "spectrum_flux": flux + error * rng.standard_normal(bins),
        "spectrum_flux_err": error,
    }


LAYOUTS = (
    Layout(
        name="sdss",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=sdss_row,
        configs=("sdss", "segue1", "segue2", "boss", "eboss"),
        pads={"spectrum_lambda": -1, "spectrum_flux": "edge", "spectrum_lsf_sigma": "edge", "spectrum_mask": True},
        small=(0, 400),
        full=(0, 4600),
        masks=("spectrum_mask",),
        flags=("ZWARNING",),
        ivar="spectrum_ivar",
        about="spectra padded to the longest of their file: lambda -1, ivar 0, mask True (bad); contiguous",
    ),
    Layout(
        name="desi",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=desi_row,
        configs=("edr_sv3", "dr1_main"),
        small=(0, 500),
        full=(0, 7781),
        masks=("spectrum_mask",),
        flags=("ZWARN",),
        ivar="spectrum_ivar",
        about="spectra of one length, HEALPIX (nside 64) beside healpix; contiguous",
    ),
    Layout(
        name="apogee",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=apogee_row,
        configs=("apogee",),
        small=(0, 300),
        full=(0, 7514),
        ivar="spectrum_ivar",
        about="infrared spectra of stars, one length; contiguous",
    ),
    Layout(
        name="lamost",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=lamost_row,
        configs=("lamost",),
        small=(0, 300),
        full=(0, 3908),
        masks=("spectrum_mask",),
        ivar="spectrum_ivar",
        about="spectra of stars, one length; contiguous",
    ),
    Layout(
        name="vipers",
        form="columns",
        path="{config}/healpix={cell}/{part}.h5",
        row=vipers_row,
        configs=("vipers_w1", "vipers_w4"),
        small=(0, 200),
        full=(0, 557),
        about="spectra with noise, wave and a mask of floats; .h5",
    ),
    Layout(
        name="galah",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=galah_row,
        configs=("dr3",),
        pads={"spectrum_lambda": -1, "spectrum_norm_lambda": -1},
        small=(0, 320),
        full=(0, 16384),
        ivar="spectrum_ivar",
        about="four arms one after the other, padded to the longest of their cell: 0, lambda -1",
    ),
    Layout(
        name="chandra",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=chandra_row,
        configs=("spectra",),
        pads={f"spectrum_{name}": "vlen" for name in ("ene_lo", "ene_hi", "ene", "flux", "flux_err")},
        small=(0, 60),
        full=(0, 400),
        about="X-ray spectra of any length, HDF5's own variable-length float64",
    ),
)
