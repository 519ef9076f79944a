"""Surveys of stars: gaia, tess, kepler; and desi_provabgs, a table of posteriors."""

from __future__ import annotations

import numpy as np

from skyset.testing.mmu.curves import star_curve
from skyset.testing.mmu.layout import Layout, Storage
from skyset.testing.mmu.rows import Row, Spot

#: Coefficients of BP and RP together.
COEFFICIENTS = 110
PAIRS = (
    *("ra_dec", "ra_parallax", "ra_pmra", "ra_pmdec", "dec_parallax", "dec_pmra", "dec_pmdec"),
    *("parallax_pmra", "parallax_pmdec", "pmra_pmdec"),
)
GSPPHOT = {"ag": 0.3, "azero": 0.4, "distance": 900.0, "ebpminrp": 0.15, "logg": 4.2, "mh": -0.3, "teff": 5600.0}


def gaia_row(spot: Spot) -> Row:
    rng, colour, g = spot.rng, spot.rng.uniform(0.5, 2.2), spot.rng.uniform(11, 17.6)
    scale = 10 ** (-0.4 * (g - 15)) * 1000 * np.repeat([1.0, 1.2], COEFFICIENTS // 2)
    order = np.tile(np.arange(COEFFICIENTS // 2), 2)
    coeff = scale * np.exp(-order / 4) * rng.normal(0.3, 1, COEFFICIENTS)
    row: Row = {
        "source_id": np.int64(_source_id(spot)),
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "coeff": coeff.astype(np.float32),
        "coeff_error": (0.01 * scale + 0.01 * np.abs(coeff)).astype(np.float32),
        "parallax": np.float64(rng.exponential(1.2)),
        "pmra": np.float64(rng.normal(0, 8)),
        "pmdec": np.float64(rng.normal(-3, 8)),
    }
    for name in ("ra", "dec", "parallax", "pmra", "pmdec"):
        row[f"{name}_error"] = np.float32(rng.uniform(0.01, 0.1))
    row |= {f"{pair}_corr": np.float32(rng.uniform(-0.5, 0.5)) for pair in PAIRS}
    for band, magnitude in (("g", g), ("bp", g + 0.4 * colour), ("rp", g - 0.6 * colour)):
        flux = 10 ** (-0.4 * (magnitude - 25.5))
        row[f"phot_{band}_mean_mag"] = np.float32(magnitude)
        row[f"phot_{band}_mean_flux"] = np.float32(flux)
        row[f"phot_{band}_mean_flux_error"] = np.float32(0.002 * flux)
    row |= {"bp_rp": np.float32(colour), "bp_g": np.float32(0.4 * colour), "g_rp": np.float32(0.6 * colour)}
    row["phot_bp_rp_excess_factor"] = np.float32(1.2)
    row |= {"radial_velocity": np.float32(rng.normal(0, 40)), "radial_velocity_error": np.float32(rng.uniform(0.2, 5))}
    row |= {f"rv_template_{name}": np.float32(value) for name, value in (("fe_h", 0), ("logg", 4.5), ("teff", 5500))}
    for name, typical in GSPPHOT.items():
        value = typical * rng.uniform(0.7, 1.3)
        row[f"{name}_gspphot"] = np.float32(value)
        row[f"{name}_gspphot_lower"] = np.float32(value - 0.1 * abs(value))
        row[f"{name}_gspphot_upper"] = np.float32(value + 0.1 * abs(value))
    row |= {"ruwe": np.float32(rng.uniform(0.9, 1.4)), "ecl_lat": np.float64(spot.dec), "ecl_lon": np.float64(spot.ra)}
    row |= {"nu_eff_used_in_astrometry": np.float32(1.5), "pseudocolour": np.float32(1.4), "grvs_mag": np.float32(g - 0.8)}
    row["astrometric_params_solved"] = np.int8(31)
    return row


def _source_id(spot: Spot) -> int:
    """As Gaia's: the HEALPix cell at level 12 from bit 35 on, then a number."""
    from skyset.sky import healpix_cell

    return (int(healpix_cell(spot.ra, spot.dec, 4096)) << 35) + spot.number % (1 << 25) + 1


def tess_row(spot: Spot) -> Row:
    rng = spot.rng
    curve = star_curve(rng, spot.length, start=2744.0, cadence=27.0 / spot.length, dtype=np.float64)
    return {
        "object_id": np.int64(25155000 + spot.number),
        "RA": np.float64(spot.ra),
        "DEC": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "sector": np.int64(64),
        "time": curve["time"],
        "flux": curve["flux"].astype(np.float32),
        "flux_err": curve["flux_err"].astype(np.float32),
        "quality": np.zeros(len(curve["time"]), np.float32),
    }


def kepler_row(spot: Spot) -> Row:
    rng, kid = spot.rng, 757000 + spot.number
    curve = star_curve(rng, spot.length, start=131.5, cadence=1400.0 / spot.length, dtype=np.float64)
    files = ",".join(f"kplr{kid:09d}-{year}{day:03d}_llc.fits" for year, day in ((2009, 131), (2009, 166), (2010, 78)))
    return {
        "object_id": np.int64(kid),
        "KID": np.int64(kid),
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "data_file_path": files.encode(),
        "cadence": b"long cadence",
        "time": curve["time"],
        "sap_flux": curve["raw"],
        "sap_flux_err": curve["flux_err"],
        "pdcsap_flux": curve["flux"],
        "pdcsap_flux_err": curve["flux_err"],
    }


def provabgs_row(spot: Spot) -> Row:
    rng = spot.rng
    best = np.array([rng.normal(10.5, 0.5), *rng.dirichlet(np.ones(4)), *rng.uniform(0, 1, 8)])
    row: Row = {
        "object_id": np.int64(39627000000000000 + spot.number),
        "TARGETID": np.int64(39627000000000000 + spot.number),
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "PROVABGS_MCMC": (best + 0.05 * rng.standard_normal((100, 13))).astype(np.float64),
        "PROVABGS_THETA_BF": best,
        "PROVABGS_LOGMSTAR_BF": np.float64(best[0]),
        "IS_BGS_BRIGHT": np.bool_(True),
        "IS_BGS_FAINT": np.bool_(False),
    }
    names: tuple[str, ...] = (
        "Z_HP",
        "Z_MW",
        "TAGE_MW",
        "AVG_SFR",
        "ZERR",
        "TSNR2_BGS",
        "MAG_G",
        "MAG_R",
        "MAG_Z",
        "MAG_W1",
        "FIBMAG_R",
    )
    names += ("HPIX_64", "PROVABGS_Z_MAX", "SCHLEGEL_COLOR", "PROVABGS_W_ZFAIL", "PROVABGS_W_FIBASSIGN")
    return row | {name: np.float64(rng.uniform(0.01, 1)) for name in names}


KEPLER_CURVES = ("time", "sap_flux", "sap_flux_err", "pdcsap_flux", "pdcsap_flux_err")

LAYOUTS = (
    Layout(
        name="gaia",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=gaia_row,
        key="source_id",
        configs=("gaia",),
        about="source_id and no object_id, XP coefficients (N, 110), some 65 numbers; contiguous",
    ),
    Layout(
        name="tess",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=tess_row,
        configs=("spoc/s0064", "spoc/s0065"),
        small=(0, 500),
        full=(0, 11000),
        about="light curves padded with 0 to the longest of their file; RA and DEC in capitals",
    ),
    Layout(
        name="kepler",
        form="columns",
        path="{config}/healpix={cell}/{part}.hdf5",
        row=kepler_row,
        configs=("kepler",),
        pads=dict.fromkeys(KEPLER_CURVES, np.nan),
        storage=Storage("gzip", 5, (100, 1000)),
        small=(0, 1500),
        full=(0, 65000),
        about="light curves padded with NaN; gzip 5 in chunks of 100 x 1000",
    ),
    Layout(
        name="desi_provabgs",
        form="columns",
        path="datafiles/healpix={cell}/{part}.h5",
        row=provabgs_row,
        about="posteriors (N, 100, 13) and numbers; .h5",
    ),
)
