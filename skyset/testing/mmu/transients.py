"""Surveys of transients: plasticc, and those of one object a file, yse to csp."""

from __future__ import annotations

from functools import partial

import numpy as np

from skyset.testing.mmu.curves import supernova
from skyset.testing.mmu.layout import Layout
from skyset.testing.mmu.rows import Row, Spot

#: Classes of PLAsTiCC as numbers: supernovae, TDE, kilonova, AGN.
CLASSES = (90, 67, 52, 42, 62, 95, 15, 64, 88)
#: Bands of each survey; those of the last two are magnitudes.
BANDS = {
    "yse": ("X", "Y", "g", "i", "r", "z"),
    "foundation": ("g", "i", "r", "z"),
    "snls": ("g", "i", "r", "z"),
    "ps1": ("g", "i", "r", "z"),
    "des_y3": ("g", "i", "r", "z"),
    "swift": ("B", "U", "UVM2", "UVW1", "UVW2", "V"),
    "cfa": ("B", "I", "R", "U", "V", "i'", "r'"),
    "csp": ("B", "H", "J", "Jrc2", "V", "V0", "Y", "Ydw", "g", "i", "r", "u"),
}
#: Configurations: folders below the survey's.
CONFIGS = {
    "yse": ("yse_dr1",),
    "foundation": ("foundation_dr1",),
    "snls": ("snls",),
    "ps1": ("ps1_sne_ia",),
    "des_y3": ("des_y3_sne_ia",),
    "swift": ("swift_sne_ia",),
    "cfa": ("cfa3", "cfa4", "cfa_SECCSN", "cfa_snII"),
    "csp": ("csp_dr3",),
}
#: Numbers that SNANA's headers carry beside the common ones, by survey: not all have all.
HEADERS = {
    "yse": ("PEAKMJD", "MWEBV", "VPEC", "REDSHIFT_HELIO"),
    "foundation": ("PEAKMJD", "MWEBV", "HOST_LOGMASS_ERR"),
    "snls": ("MWEBV", "REDSHIFT_CMB", "PEAKMJD"),
    "ps1": ("MWEBV", "REDSHIFT_CMB", "SEARCH_PEAKMJD"),
    "des_y3": ("MWEBV", "VPEC", "PEAKMJD"),
    "swift": ("MWEBV", "PEAKMJD"),
}


def plasticc_row(spot: Spot) -> Row:
    """All six bands have points here; the builder's fault, Y without any, is planted on request."""
    rng, redshift = spot.rng, spot.rng.uniform(0.02, 1.1)
    return {
        "object_id": np.int64(615 + spot.number),
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "hostgal_specz": np.float64(redshift),
        "hostgal_photoz": np.float64(max(0.01, redshift + rng.normal(0, 0.05))),
        "redshift": np.float64(redshift),
        "obj_type": np.int64(rng.choice(CLASSES)),
        "lightcurve": supernova(rng, "ugrizY", spot.length, dtype=np.float64, start=59750.0),
    }


def snana_row(spot: Spot, *, survey: str) -> Row:
    """A supernova from a file of SNANA's."""
    rng, name = spot.rng, name_of(spot)
    curve = supernova(rng, BANDS[survey], spot.length)
    row: Row = {
        "object_id": name.encode(),
        "ra": np.float32(spot.ra),
        "dec": np.float32(spot.dec),
        "healpix": np.int64(spot.cell),
        "redshift": np.float32(rng.uniform(0.005, 0.3)),
        "host_log_mass": np.float32(rng.normal(10.3, 0.6)),
    }
    row["spec_class" if survey == "foundation" else "obj_type"] = (b"SNIa", b"SNII", b"SNIbc")[rng.integers(3)]
    row |= {header: np.float32(_header(spot, header, float(row["redshift"]))) for header in HEADERS[survey]}
    row["FAKE"] = np.int64(0)
    return row | {"lightcurve": curve}


def _header(spot: Spot, name: str, redshift: float) -> float:
    """One number of SNANA's headers."""
    if name.startswith("REDSHIFT"):
        return redshift
    if name.endswith("PEAKMJD"):
        return 59000 + spot.rng.uniform(30, 60)
    return spot.rng.normal(0, 250) if name == "VPEC" else spot.rng.uniform(0.01, 0.2)


def magnitude_row(spot: Spot, *, survey: str) -> Row:
    """A supernova of CfA or CSP, in magnitudes; types of the scalars are those of the survey's own tables."""
    rng, name = spot.rng, name_of(spot)
    unseen = [band for band in BANDS[survey][1:] if rng.random() < 0.35]
    curve = supernova(rng, BANDS[survey], spot.length, start=54180.0, magnitudes=True, empty=unseen)
    row: Row = {
        "object_id": name.encode(),
        "ra": np.float32(spot.ra),
        "dec": np.float32(spot.dec),
        "healpix": np.int64(spot.cell),
    }
    if survey == "cfa":
        row |= {"redshift": np.int64(0), "obj_type": (b"?", b"Ia", b"II-P")[rng.integers(3)]}
    else:
        row |= {"redshift": np.float32(rng.uniform(0.004, 0.08)), "spec_class": b"SN Ia"}
    return row | {"lightcurve": curve}


def name_of(spot: Spot) -> str:
    """As supernovae are called: the year, and letters that count."""
    number, letters = divmod(spot.number, 16)
    year, out = 2001 + letters, ""
    while number or not out:
        number, rest = divmod(number, 26)
        out = chr(97 + rest) + out
    return f"SN{year}{out}"


def _snana(survey: str) -> Layout:
    # Published files are called either way.
    name = "example_{name}" if survey == "foundation" else "{name}"
    return Layout(
        name=survey,
        form="objects",
        path="{config}/healpix={cell}/" + name + ".hdf5",
        row=partial(snana_row, survey=survey),
        configs=CONFIGS[survey],
        pads={"bands": "joined", "time": -99.0},
        small=(0, 30),
        full=(0, 60),
        width=4,
        about="one object a file; bands one text joined by commas; time padded with -99, flux with 0",
    )


def _magnitudes(survey: str) -> Layout:
    name = "example_{name}" if survey == "csp" else "{name}"
    return Layout(
        name=survey,
        form="objects",
        path="{config}/healpix={cell}/" + name + ".hdf5",
        row=partial(magnitude_row, survey=survey),
        configs=CONFIGS[survey],
        small=(0, 25),
        full=(0, 50),
        width=4,
        about="one object a file; magnitudes, all padded with 0; bands without points; types differ by survey",
    )


LAYOUTS = (
    Layout(
        name="plasticc",
        form="columns",
        path="data/healpix={cell}/{split}_{number}.hdf5",
        row=plasticc_row,
        splits=("train", "test"),
        small=(0, 40),
        full=(0, 352),
        about="simulated light curves float64 (N, 6, 3, L), padded with 0; splits by the names of files",
    ),
    *map(_snana, HEADERS),
    _magnitudes("cfa"),
    _magnitudes("csp"),
)
