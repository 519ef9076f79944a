"""Build Galaxy Zoo 2: tables of votes, with their images where there are any, to partitions.

    skyset build gz2 --tiny -o data/gz2                            # 5 galaxies, images read out of the remote archive
    skyset build gz2 -o data/gz2                                   # all: 3.4 GB of images from Zenodo
    skyset build gz2 --no_images -o data/gz2_votes                 # the votes alone
    skyset build gz2 --local_data_path ~/gz2 -o data/gz2           # tables, and images and ZIP archives, if any, at hand
    skyset build gz2 --catalog zoo2Stripe82Normal.fits.gz --no_images -o data/gz2_stripe82

A table is one of Galaxy Zoo 2 if it has its votes, and objid or dr7objid. Images are named by objid, or by the asset_id that
gz2_filename_mapping.csv gives it. The folder holds `default`, all galaxies; in folders below it, `rings`, and
`representations` where there are any. Stop it at any moment: the same command goes on from what is complete.
"""

import numpy as np

from skyset.building.images_and_votes.release import CutOut, ImageNames, Names, Record, Release, Selection
from skyset.building.images_and_votes.script import script
from skyset.building.images_and_votes.votes import labels, shares
from skyset.building.script import run_as_file
from skyset.loaders import gz2
from skyset.tables.join import Joined

RING, CLASSIFIED = "t08_odd_feature_a19_ring_count", "total_classifications"


def rings(joined: Joined) -> Selection:
    """The galaxies with votes: the share of all volunteers who saw a ring, and the label that follows."""
    votes, classified = joined.values[RING], joined.values[CLASSIFIED]
    fraction = shares(votes, classified)
    label = labels(fraction, gz2.RING_ABOVE, gz2.NO_RING_BELOW)
    values = {"label": label, "ring_fraction": fraction, "ring_votes": votes, CLASSIFIED: classified}
    return Selection(Joined(joined.keys, values), np.flatnonzero(np.isfinite(fraction)).tolist())


RELEASE = Release(
    configs=gz2.CONFIGS,
    names=Names(("objid", "dr7objid", "id_str")),
    campaigns=(gz2.CAMPAIGN,),
    columns=gz2.NAMES,
    cuts={"rings": CutOut(rings, needs=((RING, CLASSIFIED),))},
    catalog_url=gz2.CATALOG_URL,
    record=Record(gz2.RECORD, archives=(gz2.ARCHIVE,)),
    image_names=ImageNames(gz2.MAPPING, "objid", "asset_id"),
)
SCRIPT = script(__doc__, RELEASE)
parser, main = SCRIPT.parser, SCRIPT.main

if __name__ == "__main__":
    run_as_file("skyset.build_scripts.gz2.build_parent_sample")
