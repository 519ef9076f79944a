"""A small survey of images and votes, declared as its author would: a loader's columns and a build script in one file."""

import numpy as np

from skyset.building.images_and_votes.release import CutOut, Names, Record, Release, Selection
from skyset.building.images_and_votes.script import script
from skyset.building.images_and_votes.votes import labels, shares
from skyset.building.script import run_as_file
from skyset.questions import Campaign, Measure, Question
from skyset.sky import is_name, position_of
from skyset.survey import HEALPIX, Column, Survey, plain_features
from skyset.tables.join import Joined

RECORD, TABLE, ARCHIVES = 77, "votes.csv", ("a.zip", "b.zip", "c.zip")
TREE = (Question("shape", "Is it round?", ("round", "flat")), Question("ring", "Is there a ring?", ("yes", "no")))
CAMPAIGN = Campaign(
    "votes",
    TREE,
    (
        Measure("_count", "int32", "count", "volunteers; -1 where not given"),
        Measure("_fraction", "float32", "", "their share; NaN where not given"),
    ),
)
BASE = (Column("object_id", "S24"), Column("ra", "float64"), Column("dec", "float64"), HEALPIX)
IMAGE = Column("image", "bytes", typical_bytes=2000)
REDSHIFT, WARNING = Column("redshift", "float32"), Column("warning", "int32")
RINGS = (Column("label", "int64"), Column("ring_share", "float32"))
COLUMNS = (*BASE, IMAGE, *CAMPAIGN.columns, REDSHIFT, WARNING)
SURVEY = Survey(
    name="zoo",
    title="Zoo: galaxies of tests",
    homepage="",
    citation="",
    license="",
    base_url="",
    columns=COLUMNS,
    features=plain_features(COLUMNS, {}),
    image_axes={"image": 0},
    shaped_by_build=("image", "vector"),
    optional=tuple(column.name for column in (*CAMPAIGN.columns, REDSHIFT, WARNING)),
)
CONFIGS = {
    "default": SURVEY,
    "rings": SURVEY.variant("Zoo: rings", (*BASE, IMAGE, *RINGS), label=("no", "yes")),
    "representations": SURVEY.variant("Zoo: vectors", (*BASE, Column("vector", "float32", (8,)))),
}


def rings(joined: Joined) -> Selection:
    share = shares(joined.values["ring_yes_count"], joined.values["ring_yes_count"] + joined.values["ring_no_count"])
    chosen = np.flatnonzero(np.isfinite(share)).tolist()
    cuts = [{"cut": "votes", "left": len(chosen), "of": len(share)}]
    return Selection(Joined(joined.keys, {"label": labels(share, 0.5, 0.25), "ring_share": share}), chosen, cuts)


RELEASE = Release(
    configs=CONFIGS,
    names=Names(("name", "other_name"), "IAU names", is_name, position_of),
    campaigns=(CAMPAIGN,),
    columns=(REDSHIFT, WARNING),
    other_names={"redshift": ("z", "redshift")},
    ignored="file_loc",
    cuts={"rings": CutOut(rings, needs=(("ring_yes_count", "ring_no_count"),))},
    record=Record(RECORD, ARCHIVES, (TABLE,)),
)
SCRIPT = script(__doc__, RELEASE)
parser, main = SCRIPT.parser, SCRIPT.main

if __name__ == "__main__":
    run_as_file("tests.building.images_and_votes.zoo")
