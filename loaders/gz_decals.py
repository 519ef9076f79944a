"""Galaxy Zoo DECaLS: colour images of about 340,000 galaxies with volunteers' and automatic votes, and catalogues of rings.

424 x 424 pixel grz images of the DECam Legacy Survey (data release 5) of galaxies of the NASA-Sloan Atlas. Volunteers
answered the questions of a decision tree: 92,960 galaxies in the campaigns GZD-1 and GZD-2, 253,286 in GZD-5, most of the
latter by about five people; a network trained on their votes answered for all. Zenodo record 4573248, 104 GB of images in
four ZIP archives. Paper: Walmsley et al. 2022, MNRAS 509, 3966; rings and representations: Walmsley et al. 2022,
MNRAS 513, 1581.

Also a loading script for datasets 3: ``load_dataset("gz_decals.py", "rings_basic", trust_remote_code=True, ...)``.
"""

from dataclasses import replace

from skyset.builder import SurveyBuilder
from skyset.figures import plot_votes
from skyset.questions import Campaign
from skyset.questions import Measure
from skyset.questions import Question
from skyset.survey import HEALPIX
from skyset.survey import Column
from skyset.survey import Survey
from skyset.survey import plain_features

RECORD = 4573248
TABLES = tuple(f"gz_decals_{name}.parquet" for name in ("volunteers_5", "volunteers_1_and_2", "auto_posteriors"))
ARCHIVES = tuple(f"gz_decals_dr5_png_part{part}.zip" for part in (1, 2, 3, 4))

_FEATURED, _FACE_ON = "smooth-or-featured_featured-or-disk", "disk-edge-on_no"
_ANY_GALAXY = ("smooth-or-featured_smooth", _FEATURED)

#: What was asked in GZD-5 (Walmsley et al. 2022, figure 4).
DR5 = (
    Question("smooth-or-featured", "Is the galaxy simply smooth and rounded, with no sign of a disk?",
             ("smooth", "featured-or-disk", "artifact")),
    Question("disk-edge-on", "Could this be a disk viewed edge-on?", ("yes", "no"), (_FEATURED,)),
    Question("has-spiral-arms", "Is there any sign of a spiral arm pattern?", ("yes", "no"), (_FACE_ON,)),
    Question("bar", "Is there a bar feature through the centre of the galaxy?", ("strong", "weak", "no"), (_FACE_ON,)),
    Question("bulge-size", "How large is the galaxy's central bulge, compared with the galaxy?",
             ("dominant", "large", "moderate", "small", "none"), (_FACE_ON,)),
    Question("how-rounded", "How rounded is the galaxy?", ("round", "in-between", "cigar-shaped"),
             ("smooth-or-featured_smooth",)),
    Question("edge-on-bulge", "Does the galaxy have a bulge at its centre, and of what shape?", ("boxy", "none", "rounded"),
             ("disk-edge-on_yes",)),
    Question("spiral-winding", "How tightly wound do the spiral arms appear?", ("tight", "medium", "loose"),
             ("has-spiral-arms_yes",)),
    Question("spiral-arm-count", "How many spiral arms are there?", ("1", "2", "3", "4", "more-than-4", "cant-tell"),
             ("has-spiral-arms_yes",)),
    Question("merging", "Is the galaxy currently merging, or is there any sign of tidal debris or disturbance?",
             ("none", "minor-disturbance", "major-disturbance", "merger"), _ANY_GALAXY),
)

_EARLIER = {
    "bar": ("yes", "no"),
    "bulge-size": ("dominant", "obvious", "none"),
    "how-rounded": ("completely", "in-between", "cigar-shaped"),
    "spiral-arm-count": ("1", "2", "3", "4", "more-than-4"),
    "merging": ("neither", "tidal-debris", "both", "merger"),
}
#: What was asked in GZD-1 and GZD-2: other answers to five of the questions.
DR12 = tuple(Question(q.name, q.text, _EARLIER.get(q.name, q.answers), q.depends_on) for q in DR5)

#: The trees by campaign; ``skyset.questions.table(QUESTIONS["dr5"])`` is one as rows (question, answer, depends_on, text).
QUESTIONS = {"dr5": DR5, "dr12": DR12}
COUNT = Measure("", "int32", "count", "volunteers who gave this answer; -1 where not given")
FRACTION = Measure("_fraction", "float32", "", "share of the question's volunteers; NaN where not given")
DEBIASED = Measure("_debiased", "float32", "", "share expected at redshift 0.02; NaN where not given")
#: The release's description calls it _total.
TOTAL = Measure("_total-votes", "int32", "count", "volunteers who answered the question; -1 where not given", ("_total",))
PREDICTED = Measure("_fraction", "float32", "", "share of volunteers that the network expects; NaN where not given")
ASKED = Measure("_proportion_volunteers_asked", "float32", "",
                "share of volunteers that the network expects to be asked this; NaN where not given")

#: One table holds both campaigns and the network's answers: tags behind the questions' names are what sets them apart.
GZD5 = Campaign("votes of GZD-5", DR5, (COUNT, FRACTION, DEBIASED), (TOTAL,), known_by=("",), voters="_total-votes")
GZD12 = replace(GZD5, name="votes of GZD-1 and GZD-2", tree=DR12, tag="-dr12")
NETWORK = Campaign("automatic votes", DR5, (PREDICTED,), (ASKED,), tag="-auto")
CAMPAIGNS = (GZD5, GZD12, NETWORK)
VOTES = tuple(column for campaign in CAMPAIGNS for column in campaign.columns)

#: From the NASA-Sloan Atlas.
PHOTOMETRY = (
    Column("redshift", "float32", (), "", "heliocentric redshift; NaN where not given"),
    Column("mag_r", "float32", (), "mag", "22.5 - 2.5 log10(sersic_nmgy_r), AB; NaN where not given"),
    Column("sersic_nmgy_r", "float32", (), "nmgy", "r flux of the Sersic fit, corrected for Galactic extinction; NaN where "
           "not given"),
    Column("elpetro_absmag_r", "float32", (), "mag", "absolute magnitude, r, elliptical Petrosian; NaN where not given"),
    Column("petro_theta", "float32", (), "arcsec", "Petrosian radius, r; NaN where not given"),
    Column("petro_th50", "float32", (), "arcsec", "radius of 50 % of the Petrosian flux, r; NaN where not given"),
    Column("petro_th90", "float32", (), "arcsec", "radius of 90 % of the Petrosian flux, r; NaN where not given"),
    Column("wrong_size_statistic", "float32", (), "pix", "mean distance of the source's pixels from the centre"),
    Column("wrong_size_warning", "int32", (), "", "1 where that is above 161: the field of view is probably too large; "
           "0 where not, -1 where not given"),
)

BASE = (
    Column("object_id", "S24", (), "", "IAU name (NASA-Sloan Atlas), unique to a galaxy"),
    Column("ra", "float64", (), "deg", "right ascension (ICRS); where the catalogue has none, from the name: truncated to "
           "0.01 s of time"),
    Column("dec", "float64", (), "deg", "declination (ICRS); where the catalogue has none, from the name: truncated to "
           "0.1 arcsec"),
    HEALPIX,
)
PICTURE = Column("image", "bytes", (), "", "grz colour image, PNG or JPEG as published; row 0 is north, east is left",
                 typical_bytes=300_000)
LABEL = Column("label", "int64", (), "", "0 no_ring, 1 ring; -1 uncertain, in rings_advanced alone")
CLASSES = ("no_ring", "ring")

#: W+22: galaxies that are neither smooth nor edge-on; a ring above, none below these shares of votes, -1 in between.
LARGEST_SMOOTH, LARGEST_EDGE_ON, RING_ABOVE, NO_RING_BELOW = 0.75, 0.25, 0.25, 0.05
RING_VOTES = (
    Column("ring_fraction", "float32", (), "", 'share of volunteers who saw a "ring" among the rare features'),
    Column("ring_votes", "int32", (), "count", "volunteers who did; -1 where not given"),
    Column("ring_total-votes", "int32", (), "count", "volunteers who were asked; -1 where not given"),
    Column("smooth_fraction", "float32", (), "", "share of votes (automatic where given) for smooth; NaN where not given"),
    Column("featured_fraction", "float32", (), "", "share of votes (automatic where given) for a disk; NaN where not given"),
    Column("edge_on_fraction", "float32", (), "", "share of votes (automatic where given) for an edge-on disk"),
)
#: rings_basic keeps the names of its catalogue: there they mean the network's shares.
UNTAGGED = replace(NETWORK, tag="")
PREDICTIONS = UNTAGGED.columns
RING = Question("ring", "Is it rare in some way: a ring?", ("fraction",))
#: What figures show of a row, see `skyset.questions.answers_of`.
SHOWN = (Campaign("rings", (RING,), (), share="", voters="_total-votes"), *CAMPAIGNS, UNTAGGED)
REPRESENTATION = Column("representation", "float32", (1280,), "", "what a network's last layer but one made of the image")


def plot(row):
    """The image, beside the answers of the volunteers down the tree of questions, or else the network's predictions."""
    return plot_votes(row, row["object_id"], SHOWN, CLASSES, pixel_scale(row))


def pixel_scale(row):
    """Arcsec a pixel of the published images (Walmsley et al. 2022, section 2), or None where the radii are not given."""
    half, most = (float(row.get(name, "nan")) for name in ("petro_th50", "petro_th90"))
    return max(min(0.04 * half, 0.02 * most), 0.1) if half > 0 and most > 0 else None


CITATION = """@article{walmsley2022galaxy,
  author = {Walmsley, Mike and Lintott, Chris and G{\\'e}ron, Tobias and Kruk, Sandor and Krawczyk, Coleman and
    Willett, Kyle W and Bamford, Steven and Kelvin, Lee S and Fortson, Lucy and Gal, Yarin and Keel, William and
    Masters, Karen L and Mehta, Vihang and Simmons, Brooke D and Smethurst, Rebecca and Smith, Lewis and
    Baeten, Elisabeth M and Macmillan, Christine},
  title = {{Galaxy Zoo DECaLS}: detailed visual morphology measurements from volunteers and deep learning for
    314 000 galaxies},
  journal = {Monthly Notices of the Royal Astronomical Society},
  volume = {509}, number = {3}, pages = {3966--3988}, year = {2022}, doi = {10.1093/mnras/stab2093},
}
@article{walmsley2022practical,
  author = {Walmsley, Mike and Scaife, Anna M M and Lintott, Chris and Lochner, Michelle and Etsebeth, Verlon and
    G{\\'e}ron, Tobias and Dickinson, Hugh and Fortson, Lucy and Kruk, Sandor and Masters, Karen L and
    Mantha, Kameswara Bharadwaj and Simmons, Brooke D},
  title = {Practical galaxy morphology tools from deep supervised representation learning},
  journal = {Monthly Notices of the Royal Astronomical Society},
  volume = {513}, number = {2}, pages = {1581--1599}, year = {2022}, doi = {10.1093/mnras/stac525},
}"""

COLUMNS = (*BASE, PICTURE, *VOTES, *PHOTOMETRY)
SURVEY = Survey(
    name="gz_decals",
    title="Galaxy Zoo DECaLS: images of galaxies with volunteers' and automatic votes",
    homepage="https://doi.org/10.5281/zenodo.4196266",
    citation=CITATION,
    license="CC BY 4.0; the images are of the DESI Legacy Imaging Surveys (https://www.legacysurvey.org/acknowledgment/)",
    base_url=f"https://zenodo.org/records/{RECORD}/",
    columns=COLUMNS,
    features=plain_features(COLUMNS, {}),
    image_axes={"image": 0},
    shaped_by_build=("image", "representation"),
    optional=tuple(column.name for column in (*VOTES, *PHOTOMETRY)),
    plot=plot,
)
CONFIGS = {
    "default": SURVEY,
    "rings_basic": SURVEY.variant("Galaxy Zoo DECaLS: galaxies that volunteers tagged as rings, and others",
                                  (*BASE, PICTURE, LABEL, *PREDICTIONS), PREDICTIONS, label=CLASSES),
    "rings_advanced": SURVEY.variant("Galaxy Zoo DECaLS: rings by the share of volunteers who saw one",
                                     (*BASE, PICTURE, LABEL, *RING_VOTES), label=CLASSES),
    "representations": SURVEY.variant("Galaxy Zoo DECaLS: what a network made of each image", (*BASE, REPRESENTATION)),
}


class GZDecals(SurveyBuilder):
    """``load_dataset("gz_decals", config, data_dir=..., split="train")`` after ``import skyset``; see the dataset card."""

    SURVEY = SURVEY
    CONFIGS = CONFIGS
