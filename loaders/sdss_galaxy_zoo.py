"""SDSS Galaxy Zoo: Galaxy Zoo 1 votes for SDSS galaxies with spectra, their photometry, and a 64 x 64 colour image of each.

Volunteers said of 667,944 galaxies of the SDSS Main Galaxy Sample, about 39 each, whether they are elliptical, spiral
(clockwise, anticlockwise, edge-on), merging or a star. Votes: Lintott et al. 2008, MNRAS 389, 1179; 2011, MNRAS 410, 166.
Photometry: SDSS. Images: cutouts that hips2fits (CDS) makes of the SDSS9 colour HiPS; each is scaled to its galaxy.

The file is also a loading script for datasets 3: ``load_dataset("sdss_galaxy_zoo.py", trust_remote_code=True, ...)``.
"""

from skyset.builder import SurveyBuilder
from skyset.survey import HEALPIX
from skyset.survey import Column
from skyset.survey import Feature
from skyset.survey import Survey

TAP_URL = "https://datalab.noirlab.edu/tap"
VOTES_TAP_URL = "https://tapvizier.cds.unistra.fr/TAPVizieR/tap"
HIPS = "CDS/P/SDSS9/color"

#: Pixels a side of the cutouts; the field of view is 2 x petroR90_r x (1 + MARGIN).
SIZE = 64
MARGIN = 0.25
BANDS = "ugriz"
CLASSES = ("spiral", "elliptical", "uncertain")

_VOTES = "fraction of the volunteers' votes for "
_MISSING = "NaN where not measured"

VOTES = (
    Column("nvote", "int32", (), "count", "volunteers who classified the galaxy; -1 where not given"),
    Column("p_el", "float32", (), "", _VOTES + "elliptical"),
    Column("p_cw", "float32", (), "", _VOTES + "clockwise spiral"),
    Column("p_acw", "float32", (), "", _VOTES + "anticlockwise spiral"),
    Column("p_edge", "float32", (), "", _VOTES + "edge-on disc, or spiral whose sense cannot be seen"),
    Column("p_dk", "float32", (), "", _VOTES + "star, artefact or do not know"),
    Column("p_mg", "float32", (), "", _VOTES + "merger"),
    Column("p_cs", "float32", (), "", _VOTES + "spiral of any kind: p_cw + p_acw + p_edge"),
    Column("p_el_debiased", "float32", (), "", "p_el corrected for distance: faint, small galaxies look smooth"),
    Column("p_cs_debiased", "float32", (), "", "p_cs corrected for distance"),
    Column("spiral", "int32", (), "", "1 where the debiased votes say spiral (above 0.8), else 0"),
    Column("elliptical", "int32", (), "", "1 where the debiased votes say elliptical (above 0.8), else 0"),
    Column("uncertain", "int32", (), "", "1 where they say neither, else 0"),
)

PHOTOMETRY = (
    Column("petroR90_r", "float32", (), "arcsec", f"radius of 90 % of the Petrosian flux, r band; {_MISSING}"),
    Column("petroR50_r", "float32", (), "arcsec", f"radius of 50 % of the Petrosian flux, r band; {_MISSING}"),
    *(Column(f"petroMag_{b}", "float32", (), "mag", f"Petrosian magnitude, {b} band (asinh); {_MISSING}") for b in BANDS),
    *(Column(f"petroMagErr_{b}", "float32", (), "mag", f"error of petroMag_{b}; {_MISSING}") for b in BANDS),
    *(Column(f"modelMag_{b}", "float32", (), "mag", f"magnitude of the better of de Vaucouleurs and exponential fit in r, "
             f"{b} band (asinh); use for colours; {_MISSING}") for b in BANDS),
    *(Column(f"modelMagErr_{b}", "float32", (), "mag", f"error of modelMag_{b}; {_MISSING}") for b in BANDS),
    *(Column(f"extinction_{b}", "float32", (), "mag", f"Galactic extinction, {b} band (Schlegel et al. 1998); not yet "
             f"subtracted; {_MISSING}") for b in BANDS),
    Column("redshift", "float32", (), "", "spectroscopic redshift; NaN where there is none"),
    Column("clean", "int32", (), "", "1 where SDSS calls the photometry clean, 0 where not, -1 where not given"),
    Column("flags", "int64", (), "", "bits of PhotoObj.flags; -1 where not given"),
)

#: What the catalogue brings.
CATALOG = (
    Column("dr8objid", "int64", (), "", "SDSS objid since data release 8; -1 where not given"),
    Column("dr7objid", "int64", (), "", "SDSS objid of data release 7; -1 where not given"),
    Column("ra", "float64", (), "deg", "right ascension (ICRS)"),
    Column("dec", "float64", (), "deg", "declination (ICRS)"),
    *VOTES,
    *PHOTOMETRY,
)

COLUMNS = (
    Column("object_id", "S20", (), "", "dr8objid as text (dr7objid where it is not given)"),
    HEALPIX,
    Column("image", "uint8", (SIZE, SIZE, 3), "", "RGB cutout; row 0 is north, east is left"),
    Column("label", "int64", (), "", "the flag that is set: 0 spiral, 1 elliptical, 2 uncertain"),
    Column("fov", "float64", (), "deg", "field of view of the cutout's longer side: 2 x petroR90_r x (1 + margin)"),
    Column("pixel_scale", "float64", (), "deg", "size of a pixel on the sky"),
    *CATALOG,
)

FEATURES = (
    Feature("image", "image"),
    Feature("label", "label", CLASSES),
    *(Feature(c.name, c.name) for c in COLUMNS if c.name not in ("image", "label")),
)


def plot(row):
    """The cutout with a scale, its class and votes in the title.

    Args:
        row: one row with numpy formatting.

    Returns:
        matplotlib.figure.Figure
    """
    from skyset.figures import image_figure

    redshift = "" if row["redshift"] != row["redshift"] else f", z = {row['redshift']:.3f}"
    title = f"SDSS {row['object_id']}: {CLASSES[row['label']]}{redshift}"
    votes = f"{row['nvote']} volunteers: elliptical {row['p_el']:.0%}, spiral {row['p_cs']:.0%}, merger {row['p_mg']:.0%}"
    return image_figure(row["image"], title=title, note=votes, scale_arcsec=row["pixel_scale"] * 3600)


SURVEY = Survey(
    name="sdss_galaxy_zoo",
    title="SDSS Galaxy Zoo: spiral and elliptical galaxies with votes, photometry and colour images",
    homepage="https://data.galaxyzoo.org/",
    citation="""@article{lintott2008galaxy,
  author = {Lintott, Chris J and Schawinski, Kevin and Slosar, An{\\v{z}}e and Land, Kate and Bamford, Steven and
    Thomas, Daniel and Raddick, M Jordan and Nichol, Robert C and Szalay, Alex and Andreescu, Dan and Murray, Phil and
    Vandenberg, Jan},
  title = {{Galaxy Zoo}: morphologies derived from visual inspection of galaxies from the {Sloan Digital Sky Survey}},
  journal = {Monthly Notices of the Royal Astronomical Society},
  volume = {389}, number = {3}, pages = {1179--1189}, year = {2008}, doi = {10.1111/j.1365-2966.2008.13689.x},
}
@article{lintott2011galaxy,
  author = {Lintott, Chris and Schawinski, Kevin and Bamford, Steven and Slosar, An{\\v{z}}e and Land, Kate and
    Thomas, Daniel and Edmondson, Edd and Masters, Karen and Nichol, Robert C and Raddick, M Jordan and Szalay, Alex and
    Andreescu, Dan and Murray, Phil and Vandenberg, Jan},
  title = {{Galaxy Zoo} 1: data release of morphological classifications for nearly 900 000 galaxies},
  journal = {Monthly Notices of the Royal Astronomical Society},
  volume = {410}, number = {1}, pages = {166--178}, year = {2011}, doi = {10.1111/j.1365-2966.2010.17432.x},
}""",
    license="SDSS data are public; acknowledge SDSS (https://www.sdss.org/collaboration/citing-sdss/), Galaxy Zoo and CDS",
    base_url=TAP_URL,
    columns=COLUMNS,
    features=FEATURES,
    image_axes={"image": 0},
    shaped_by_build=("image",),
    beside=("Images", "catalog", "ZooSpecPhotoDR19_filtered.csv.gz"),
    plot=plot,
)


class SDSSGalaxyZoo(SurveyBuilder):
    """``load_dataset("sdss_galaxy_zoo", data_dir=..., split="train")`` after ``import skyset``; see the dataset card."""

    SURVEY = SURVEY
