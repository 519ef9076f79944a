"""Galaxy Zoo 2: volunteers' detailed morphology of 304,122 SDSS galaxies, with their images where they are at hand.

37 answers to 11 questions, a median of 44 volunteers per galaxy; of each answer the count, the sum of volunteers' weights,
both as fractions, a fraction debiased for redshift, and a flag where it is safe to call it so. Galaxies of the Main Galaxy
Sample brighter than 17 mag, and of Stripe 82. Votes: Willett et al. 2013, MNRAS 435, 2835; debiased again by Hart et al.
2016, MNRAS 461, 3663. Images, 424 x 424 JPEG: Zenodo record 3565489.

The file is also a loading script for datasets 3: ``load_dataset("gz2.py", "rings", trust_remote_code=True, ...)``.
"""

from skyset.builder import SurveyBuilder
from skyset.figures import plot_votes
from skyset.questions import Campaign
from skyset.questions import Measure
from skyset.questions import Question
from skyset.survey import HEALPIX
from skyset.survey import Column
from skyset.survey import Survey
from skyset.survey import plain_features

RECORD = 3565489
MAPPING = "gz2_filename_mapping.csv"
ARCHIVE = "images_gz2.zip"
CATALOG_URL = "https://gz2hart.s3.amazonaws.com/gz2_hart16.csv.gz"

_SMOOTH, _FEATURED = "t01_smooth_or_features_a01_smooth", "t01_smooth_or_features_a02_features_or_disk"
_FACE_ON, _SPIRAL = "t02_edgeon_a05_no", "t04_spiral_a08_spiral"

#: Willett et al. 2013, table 2 and figure 1.
TREE = (
    Question("t01_smooth_or_features", "Is the galaxy simply smooth and rounded, with no sign of a disk?",
             ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")),
    Question("t02_edgeon", "Could this be a disk viewed edge-on?", ("a04_yes", "a05_no"), (_FEATURED,)),
    Question("t03_bar", "Is there a sign of a bar feature through the centre of the galaxy?", ("a06_bar", "a07_no_bar"),
             (_FACE_ON,)),
    Question("t04_spiral", "Is there any sign of a spiral arm pattern?", ("a08_spiral", "a09_no_spiral"), (_FACE_ON,)),
    Question("t05_bulge_prominence", "How prominent is the central bulge, compared with the rest of the galaxy?",
             ("a10_no_bulge", "a11_just_noticeable", "a12_obvious", "a13_dominant"), (_FACE_ON,)),
    Question("t06_odd", "Is there anything odd?", ("a14_yes", "a15_no"), (_SMOOTH, _FEATURED)),
    Question("t07_rounded", "How rounded is it?", ("a16_completely_round", "a17_in_between", "a18_cigar_shaped"),
             (_SMOOTH,)),
    Question("t08_odd_feature", "Is the odd feature a ring, or is the galaxy disturbed or irregular?",
             ("a19_ring", "a20_lens_or_arc", "a21_disturbed", "a22_irregular", "a23_other", "a24_merger", "a38_dust_lane"),
             ("t06_odd_a14_yes",)),
    Question("t09_bulge_shape", "Does the galaxy have a bulge at its centre? If so, what shape?",
             ("a25_rounded", "a26_boxy", "a27_no_bulge"), ("t02_edgeon_a04_yes",)),
    Question("t10_arms_winding", "How tightly wound do the spiral arms appear?", ("a28_tight", "a29_medium", "a30_loose"),
             (_SPIRAL,)),
    Question("t11_arms_number", "How many spiral arms are there?",
             ("a31_1", "a32_2", "a33_3", "a34_4", "a36_more_than_4", "a37_cant_tell"), (_SPIRAL,)),
)
QUESTIONS = {"gz2": TREE}

_NOT_GIVEN = "where not given"
MEASURES = (
    Measure("_count", "int16", "count", f"volunteers who gave this answer; -1 {_NOT_GIVEN}"),
    Measure("_weight", "float32", "count", f"sum of their weights, by how often they agree with others; NaN {_NOT_GIVEN}"),
    Measure("_fraction", "float32", "", f"share of the question's volunteers; NaN {_NOT_GIVEN}"),
    Measure("_weighted_fraction", "float32", "", f"share of the question's weights; NaN {_NOT_GIVEN}"),
    Measure("_debiased", "float32", "", f"weighted fraction, corrected for redshift; NaN {_NOT_GIVEN}"),
    Measure("_flag", "int16", "", f"1 where the galaxy is in the clean sample of this answer; -1 {_NOT_GIVEN}"),
)
CAMPAIGN = Campaign("votes", TREE, MEASURES, share="_weighted_fraction", voters="_count")
VOTES = CAMPAIGN.columns

#: Names in the several tables of the release; each table has some of them.
NAMES = (
    Column("objid", "int64", (), "", "SDSS objid of the table (data release 7); -1 where not given"),
    Column("dr7objid", "int64", (), "", "SDSS objid of data release 7; -1 where not given"),
    Column("dr8objid", "int64", (), "", "SDSS objid of data release 8; -1 where not given"),
    Column("specobjid", "uint64", (), "", "SDSS spectrum; 0 where not given"),
    Column("rastring", "S16", (), "", "right ascension as text, hours"),
    Column("decstring", "S16", (), "", "declination as text, degrees"),
    Column("sample", "S24", (), "", "the part of Galaxy Zoo 2 that the galaxy is of"),
    Column("gz2class", "S24", (), "", "class of the most common answers, as text"),
    Column("gz2_class", "S24", (), "", "the same in the table of Hart et al. 2016"),
    Column("total_classifications", "int16", (), "count", "volunteers who classified the galaxy; -1 where not given"),
    Column("total_votes", "int16", (), "count", "answers they gave; -1 where not given"),
)

BASE = (
    Column("object_id", "S20", (), "", "SDSS objid of data release 7 as text: objid, or dr7objid"),
    Column("ra", "float64", (), "deg", "right ascension (ICRS), as published"),
    Column("dec", "float64", (), "deg", "declination (ICRS), as published"),
    HEALPIX,
)
PICTURE = Column("image", "bytes", (), "", "gri colour image, JPEG as published; row 0 is north, east is left",
                 typical_bytes=15_000)
LABEL = Column("label", "int64", (), "", "0 no_ring, 1 ring, -1 uncertain")
CLASSES = ("no_ring", "ring")

#: A ring above, none below these shares of all the galaxy's volunteers; uncertain in between.
RING_ABOVE, NO_RING_BELOW = 0.25, 0.05
RING_VOTES = (
    Column("ring_fraction", "float32", (), "", "share of all the galaxy's volunteers who said that it is odd, and a ring"),
    Column("ring_votes", "int32", (), "count", "volunteers who did"),
    Column("total_classifications", "int16", (), "count", "volunteers who classified the galaxy"),
)
RING = Question("ring", "Is it odd, and a ring?", ("fraction",))
#: What figures show of a row, see `skyset.questions.answers_of`.
SHOWN = (Campaign("rings", (RING,), (), share="", voters="total_classifications"), CAMPAIGN)
REPRESENTATION = Column("representation", "float32", (1280,), "", "what a network's last layer but one made of the image")


def plot(row):
    """The image, beside the volunteers' answers down the tree of questions (weighted shares)."""
    return plot_votes(row, f"SDSS {row['object_id']}", SHOWN, CLASSES)


CITATION = """@article{willett2013galaxy,
  author = {Willett, Kyle W and Lintott, Chris J and Bamford, Steven P and Masters, Karen L and Simmons, Brooke D and
    Casteels, Kevin R V and Edmondson, Edward M and Fortson, Lucy F and Kaviraj, Sugata and Keel, William C and
    Melvin, Thomas and Nichol, Robert C and Raddick, M Jordan and Schawinski, Kevin and Simpson, Robert J and
    Skibba, Ramin A and Smith, Arfon M and Thomas, Daniel},
  title = {{Galaxy Zoo} 2: detailed morphological classifications for 304 122 galaxies from the {Sloan Digital Sky Survey}},
  journal = {Monthly Notices of the Royal Astronomical Society},
  volume = {435}, number = {4}, pages = {2835--2860}, year = {2013}, doi = {10.1093/mnras/stt1458},
}
@article{hart2016galaxy,
  author = {Hart, Ross E and Bamford, Steven P and Willett, Kyle W and Masters, Karen L and Cardamone, Carolin and
    Lintott, Chris J and Mackay, Robert J and Nichol, Robert C and Rosslowe, Christopher K and Simmons, Brooke D and
    Smethurst, Rebecca J},
  title = {{Galaxy Zoo}: comparing the demographics of spiral arm number and a new method for correcting redshift bias},
  journal = {Monthly Notices of the Royal Astronomical Society},
  volume = {461}, number = {4}, pages = {3663--3682}, year = {2016}, doi = {10.1093/mnras/stw1588},
}"""

COLUMNS = (*BASE, PICTURE, *NAMES, *VOTES)
SURVEY = Survey(
    name="gz2",
    title="Galaxy Zoo 2: volunteers' detailed morphology of SDSS galaxies",
    homepage="https://data.galaxyzoo.org/",
    citation=CITATION,
    license="Galaxy Zoo's data are free to use with citation; images: SDSS (https://www.sdss.org/collaboration/citing-sdss/)",
    base_url=f"https://zenodo.org/records/{RECORD}/",
    columns=COLUMNS,
    features=plain_features(COLUMNS, {}),
    image_axes={"image": 0},
    shaped_by_build=("image", "representation"),
    optional=tuple(column.name for column in (PICTURE, *NAMES, *VOTES)),
    plot=plot,
)
CONFIGS = {
    "default": SURVEY,
    "rings": SURVEY.variant("Galaxy Zoo 2: rings by the share of volunteers who saw one",
                            (*BASE, PICTURE, LABEL, *RING_VOTES), (PICTURE,), label=CLASSES),
    "representations": SURVEY.variant("Galaxy Zoo 2: what a network made of each image", (*BASE, REPRESENTATION)),
}


class GZ2(SurveyBuilder):
    """``load_dataset("gz2", config, data_dir=..., split="train")`` after ``import skyset``; see the dataset card."""

    SURVEY = SURVEY
    CONFIGS = CONFIGS
