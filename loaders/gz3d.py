"""Galaxy Zoo: 3D (GZ3D): crowd-drawn masks of the centre, foreground stars, spiral arms and bar of MaNGA galaxies.

Volunteers of the Zooniverse drew on SDSS colour cutouts of 29,813 targets of MaNGA, the integral-field survey of SDSS-IV;
about 15 of them saw each galaxy. A mask holds, for each pixel, how many put it into the class. Value-added catalogue
of SDSS data release 17, version 4_0_0, about 8 GB of FITS; paper: Masters et al. 2021, MNRAS 507, 3923.

The file is also a loading script for datasets 3: ``load_dataset("gz3d.py", trust_remote_code=True, ...)``.
"""

from skyset.builder import SurveyBuilder
from skyset.survey import HEALPIX
from skyset.survey import Column
from skyset.survey import Feature
from skyset.survey import Layers
from skyset.survey import Survey

BASE_URL = "https://data.sdss.org/sas/dr17/env/MANGA_MORPHOLOGY/galaxyzoo3d/v4_0_0/"
METADATA = "gz3d_metadata.fits"
CHECKSUMS = "manga_morphology_galaxyzoo3d_v4_0_0.sha1sum"

#: Pixels a side of the published cutouts, 0.099 arcsec each.
SIZE = 525
CLASSES = ("center", "star", "spiral", "bar")
#: Who drew each class onto a galaxy (Masters et al. 2021, section 2).
DRAWERS = 15

_COUNT = "how many of the about 15 volunteers put this pixel into "

COLUMNS = (
    Column("object_id", "S16", (), "", "MaNGA id; unique to a galaxy, but a galaxy may have been shown as two subjects"),
    Column("file_name", "S64", (), "", "name of the FITS file without prefix and extension; unique to a row"),
    Column("ra", "float32", (), "deg", "right ascension of the target (ICRS), as published"),
    Column("dec", "float32", (), "deg", "declination of the target (ICRS), as published"),
    HEALPIX,
    Column("false_color", "uint8", (SIZE, SIZE, 3), "", "RGB cutout that the volunteers saw; row 0 is north, east is left"),
    Column("center", "uint8", (SIZE, SIZE), "count", _COUNT + "the galaxy's centre (2-sigma ellipses of their points)"),
    Column("star", "uint8", (SIZE, SIZE), "count", _COUNT + "foreground stars (2-sigma ellipses of their points)"),
    Column("spiral", "uint8", (SIZE, SIZE), "count", _COUNT + "a spiral arm"),
    Column("bar", "uint8", (SIZE, SIZE), "count", _COUNT + "the bar"),
    Column("scale", "float64", (), "deg", "size of a pixel on the sky"),
    Column("vote_fraction", "float32", (4,), "", "votes for center, star, spiral, bar over gz_total_classifications; "
           "-1 where the class has no vote (center, star), -0.5 where nobody classified"),
    Column("gz_total_classifications", "int32", (), "count", "volunteers who said whether the galaxy has arms or a bar"),
    Column("gz_bar_votes", "int32", (), "count", "of these, said that it has a bar"),
    Column("gz_spiral_votes", "int32", (), "count", "of these, said that it has spiral arms"),
    Column("mangaid", "S16", (), "", "MaNGA id"),
    Column("iauname", "S32", (), "", "IAU name, from the NASA-Sloan Atlas"),
    Column("ifudesignsize", "int32", (), "", "number of fibres of the integral-field unit; -1 where not given"),
    Column("manga_tileid", "int64", (), "", "MaNGA tile; -1 where not given"),
    Column("nsa_id", "int64", (), "", "NASA-Sloan Atlas id; -1 where not given"),
    Column("explorer_link", "S160", (), "", "the target in the SDSS sky server"),
    Column("sample", "S64", (), "", "MaNGA sample the target belongs to"),
    Column("wcs_crpix", "float64", (2,), "pix", "TAN WCS: reference pixel (x, y), counted from 1"),
    Column("wcs_crval", "float64", (2,), "deg", "TAN WCS: right ascension and declination of the reference pixel"),
    Column("wcs_cd", "float64", (2, 2), "deg", "TAN WCS: CD matrix, degrees per pixel"),
)

FEATURES = (
    Feature("total_classifications", "gz_total_classifications"),
    Feature("healpix", "healpix"),
    Feature("ra", "ra"),
    Feature("dec", "dec"),
    Feature("object_id", "object_id"),
    Feature("image", "false_color"),
    Feature("scale", "scale"),
    Layers("segmentation", CLASSES, "class", {"vote_fraction": "vote_fraction", "array": CLASSES}),
)


def plot(row):
    """The cutout, and the cutout with its masks overlaid, in the colours of the key.

    Args:
        row: one row with numpy formatting.

    Returns:
        matplotlib.figure.Figure
    """
    from skyset.figures import overlay_figure

    votes = dict(zip(CLASSES, row["segmentation"]["vote_fraction"], strict=True))
    labels = [name if votes[name] < 0 else f"{name} ({votes[name]:.0%} of votes)" for name in CLASSES]
    number = row["total_classifications"]
    title = f"MaNGA {row['object_id']}: {number} classification{'' if number == 1 else 's'}"
    masks = row["segmentation"]["array"]
    return overlay_figure(row["image"], masks, labels, title, row["scale"] * 3600, origin="upper", volunteers=DRAWERS)


SURVEY = Survey(
    name="gz3d",
    title="Galaxy Zoo: 3D, crowd-drawn masks for MaNGA galaxies",
    homepage="https://www.sdss.org/dr17/data_access/value-added-catalogs/?vac_id=galaxy-zoo-3d",
    citation="""@article{masters2021galaxy,
  author = {Masters, Karen L and Krawczyk, Coleman and Shamsi, Shoaib and Todd, Alexander and Finnegan, Daniel and
    Bershady, Matthew and Bundy, Kevin and Cherinka, Brian and Fraser-McKelvie, Amelia and Krishnarao, Dhanesh and
    Kruk, Sandor and Lane, Richard R and Law, David and Lintott, Chris and Merrifield, Michael and Simmons, Brooke and
    Weijmans, Anne-Marie and Yan, Renbin},
  title = {{Galaxy Zoo: 3D} -- crowdsourced bar, spiral, and foreground star masks for {MaNGA} target galaxies},
  journal = {Monthly Notices of the Royal Astronomical Society},
  volume = {507}, number = {3}, pages = {3923--3935}, year = {2021}, doi = {10.1093/mnras/stab2282},
}""",
    license="SDSS data are public; acknowledge SDSS and cite the paper (https://www.sdss.org/collaboration/citing-sdss/)",
    base_url=BASE_URL,
    columns=COLUMNS,
    features=FEATURES,
    key="file_name",
    image_axes={"image": 0, "segmentation.array": 1},
    plot=plot,
)


class GZ3D(SurveyBuilder):
    """``load_dataset("gz3d", data_dir=..., split="train")`` after ``import skyset``; see the dataset card."""

    SURVEY = SURVEY
