"""The catalogue of SDSS Galaxy Zoo: the queries, and what services call its columns.

VizieR merges the release's tables 2 to 7, normal, mirrored and monochrome images side by side, under names of two or three
letters: six columns of votes are recognised by what VizieR's own TAP_SCHEMA says of each, and have to add up as votes do.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.archives.tap import SlicedQuery, fetch_slices
from skyset.building.cutouts.columns import Columns, Names
from skyset.building.cutouts.sources import RETRIES
from skyset.errors import UserError
from skyset.loaders.sdss_galaxy_zoo import CATALOG, CLASSES, PHOTOMETRY
from skyset.tables.slices import read_slices

#: Degrees by which a slice of photometry is wider than one of votes: two releases differ by fractions of an arcsec.
OVERLAP = 0.005
RADIUS_ARCSEC = 1.0
#: Columns that a source must have (beside an objid), and each of two sources.
VOTES_NEEDED, PHOTOMETRY_NEEDED = ("ra", "dec", "spiral", "elliptical"), ("ra", "dec", "petroR90_r")
#: Rows that can say whether votes add up.
FEWEST = 20

COLUMNS = Columns(
    CATALOG,
    key="objid",
    ids=("dr8objid", "dr7objid"),
    needed=(*VOTES_NEEDED, "petroR90_r"),
    missing=-9999,
    names={
        "dr8objid": ("objid_dr8", "objid", "bestobjid"),
        "dr7objid": ("objid_dr7",),
        "redshift": ("z_spec", "zsp", "specz"),
    },
)
_FRACTIONS = ("p_el", "p_cw", "p_acw", "p_edge", "p_dk", "p_mg", "p_cs", "p_el_debiased", "p_cs_debiased")
_PHOTOMETRY = ", ".join(
    f"p.{c.name.lower()} AS {c.name}" for c in PHOTOMETRY if c.name not in ("redshift", "clean", "flags")
)

_ZOOSPEC = f"""
SELECT z.objid AS dr8objid, z.dr7objid, z.ra, z.dec, z.nvote, {", ".join(f"z.{name}" for name in (*_FRACTIONS, *CLASSES))},
  {_PHOTOMETRY}, s.z AS redshift, p.clean, p.flags"""

#: One service that mirrors the SDSS tables ZooSpec, PhotoObj (here: of spectroscopic targets) and SpecObj.
ZOOSPEC = f"""{_ZOOSPEC}
FROM sdss_dr17.zoospec AS z JOIN sdss_dr17.photoplate AS p ON p.objid = z.objid
LEFT OUTER JOIN sdss_dr17.specobj AS s ON s.specobjid = z.specobjid
WHERE z.ra >= {{low}} AND z.ra < {{high}}"""

VIZIER = "J/MNRAS/410/166/galaxies"
#: Votes at VizieR (ids of data release 7), ...
VOTES = f'SELECT * FROM "{VIZIER}" WHERE "RAJ2000" >= {{low}} AND "RAJ2000" < {{high}}'
#: ... what it says of its columns (services differ in whether they quote names there), ...
DESCRIPTIONS = f"""SELECT column_name, description FROM TAP_SCHEMA.columns
WHERE table_name = '{VIZIER}' OR table_name = '"{VIZIER}"'"""
#: ... to be joined by position with photometry and redshifts at the Astro Data Lab.
TARGETS = f"""
SELECT p.objid AS dr8objid, p.ra, p.dec, {_PHOTOMETRY}, s.z AS redshift, p.clean, p.flags
FROM sdss_dr17.photoplate AS p JOIN sdss_dr17.specobj AS s ON s.bestobjid = p.objid
WHERE p.ra >= {{low}} - {OVERLAP} AND p.ra < {{high}} + {OVERLAP} AND s.scienceprimary = 1 AND p.petromag_r < 19"""

#: What SkyServer and CasJobs take; the answer, as CSV, is a ``--catalog``.
CASJOBS = f"""{_ZOOSPEC}
FROM ZooSpec AS z JOIN PhotoObj AS p ON p.objid = z.objid LEFT JOIN SpecObj AS s ON s.specobjid = z.specobjid"""

VIZIER_NAMES = {
    "dr7objid": ("objID",),
    "ra": ("RAJ2000",),
    "dec": ("DEJ2000",),
    "nvote": ("N",),
    "p_cw": ("pcS",),
    "p_acw": ("paS",),
    "p_dk": ("pDK",),
    "spiral": ("fS",),
    "elliptical": ("fE",),
    "uncertain": ("fU",),
}
#: Our columns that VizieR has under names which do not say what they are.
UNNAMED = ("p_el", "p_edge", "p_mg", "p_cs", "p_el_debiased", "p_cs_debiased")
#: Which of our columns the words of a description stand for, the first that are there; None where VizieR's name says it.
_MEANINGS = (
    (r"combined", "p_cs"),
    (r"clockwise|know", None),
    (r"edge", "p_edge"),
    (r"merg", "p_mg"),
    (r"spiral", "p_cs"),
    (r"ellip", "p_el"),
)
#: Columns of votes; but not those of the release's other tables: bias studies, confidence, all kinds of images together.
_VOTES, _OTHERS = r"vote|fraction|likelihood", r"mirror|monochrom|flag|number|confiden|classified|error|\btotal\b"


def vizier_names(url: str, sync: bool, folder: Path) -> Names:
    """VizieR's names of our columns; what it says of those whose names say little is asked for, and kept in ``folder``."""
    query = SlicedQuery(url, DESCRIPTIONS, slices=1)
    silent = SimpleNamespace(update=lambda _: None, set_postfix_str=lambda *_, **__: None)
    with contextlib.closing(fetch_slices(query, folder, sync=sync, retries=RETRIES, progress=silent)) as paths:
        described = read_slices(list(paths), ["column_name", "description"])
    names, texts = (described[name].fill_null("").to_pylist() for name in described.column_names)
    found = recognised(dict(zip(names, texts, strict=True)))
    return {**VIZIER_NAMES, **{ours: (theirs,) for ours, theirs in found.items()}}


def recognised(descriptions: Mapping[str, str]) -> dict[str, str]:
    """Which column holds which fraction of the votes for normal images.

    Args:
        descriptions: by column name, as TAP_SCHEMA.columns has them; names may be quoted.

    Returns:
        their names of ours in `UNNAMED`, as far as just one column is said to be it.
    """
    found: dict[str, list[str]] = {}
    for name, text in descriptions.items():
        text = text.lower()
        if re.search(_VOTES, text) and not re.search(_OTHERS, text):
            ours = next((ours for words, ours in _MEANINGS if re.search(words, text)), None)
            found.setdefault(f"{ours}_debiased" if "bias" in text else str(ours), []).append(name.strip('"'))
    return {ours: names[0] for ours, names in found.items() if ours in UNNAMED and len(names) == 1}


def check_votes(table: pa.Table) -> None:
    """Refuse columns that do not add up as votes do, whatever their descriptions say.

    p_cs = p_cw + p_acw + p_edge; p_el + p_cs + p_dk + p_mg = 1; the flags are set where the debiased fractions exceed 0.8
    (Lintott et al. 2011, section 3; three decimals are published). One row in a hundred may break a rule, and rows without
    debiased fractions, of galaxies without a spectrum, follow none of the flags'.

    Args:
        table: votes under our names.

    Raises:
        UserError: they do not.
    """
    if table.num_rows < FEWEST:
        return
    votes = {name: pc.cast(table[name], pa.float64()).to_numpy() for name in (*_FRACTIONS, "elliptical", "spiral")}
    spirals = votes["p_cw"] + votes["p_acw"] + votes["p_edge"]
    every = votes["p_el"] + spirals + votes["p_dk"] + votes["p_mg"]
    rules = {
        "p_cw + p_acw + p_edge is not p_cs": np.abs(spirals - votes["p_cs"]) >= 0.01,
        "the six fractions do not add up to 1": np.abs(every - 1) >= 0.01,
    }
    for name, flag in (("p_el_debiased", "elliptical"), ("p_cs_debiased", "spiral")):
        broken = ((votes[name] > 0.8) != (votes[flag] == 1)) & (np.abs(votes[name] - 0.8) >= 0.0015)
        rules[f"{name} > 0.8 is not where {flag} is 1"] = broken & np.isfinite(votes[name])
    for words, broken in rules.items():
        if np.mean(broken) > 0.01:
            raise UserError(f"{VIZIER}: votes are not what their descriptions say: {words}; --source zoospec goes without")
