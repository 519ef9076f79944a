"""Build Galaxy Zoo DECaLS: catalogues and images from Zenodo, or from a folder, to partitions.

    skyset build gz_decals --tiny -o data/gz_decals                       # 5 galaxies, read out of the remote archives
    skyset build gz_decals -o data/gz_decals                              # all: 104 GB, one archive after the other
    skyset build gz_decals --local_data_path ~/decals -o data/gz_decals   # catalogues, images and ZIP archives at hand
    skyset build gz_decals --configs rings_basic --catalog example_ring_catalog_basic.csv -o data/gz_decals

The folder holds `default`, all galaxies; folders below it, where a catalogue of theirs is given, `rings_basic`,
`rings_advanced` and `representations`, with the images and splits of `default`. Catalogues are recognised by their columns,
images by their names, whatever the extensions say. Stop it at any moment: the same command goes on from what is complete.
"""

import numpy as np

from skyset.building.images_and_votes.release import CutOut, Names, Record, Release, Selection
from skyset.building.images_and_votes.script import script
from skyset.building.images_and_votes.votes import labels, shares
from skyset.building.script import run_as_file
from skyset.loaders import gz_decals as decals
from skyset.sky import is_name, position_of
from skyset.survey import Column
from skyset.tables.join import Joined

TAG = Column("ring", "int32", (), "", "1 where a volunteer tagged the galaxy as a ring, 0 where none did")
VOTES, TOTAL, FRACTION = "ring_votes", "ring_total-votes", "ring_fraction"
#: What the tables of rings call the votes, the best first.
OTHER_NAMES = {
    FRACTION: ("rare-features_ring_fraction", "ring_fraction"),
    VOTES: ("rare-features_ring",),
    TOTAL: ("rare-features_total", "rare-features_total-votes"),
}
#: Paths of images, row numbers of pandas: no facts about a galaxy.
IGNORED = r"(?:file|png|local_png|jpg|fits)_loc|Unnamed: 0(?:\.\d+)?|__index_level_\d+__|index"


def basic_rings(joined: Joined) -> Selection:
    """The galaxies with a tag, and the network's shares of their votes; there are no cuts."""
    tags, tagged_as = joined.values[TAG.name], decals.NETWORK.tag
    values = {name.replace(tagged_as, ""): array for name, array in joined.values.items() if tagged_as in name}
    bad = np.flatnonzero(~np.isin(tags, (-1, 0, 1))).tolist()
    rejected = [(joined.keys[row], "", f"ring is {tags[row]}, not 0 or 1") for row in bad]
    values["label"] = tags.astype(np.int64)
    return Selection(Joined(joined.keys, values, rejected), np.flatnonzero((tags == 0) | (tags == 1)).tolist())


def advanced_rings(joined: Joined) -> Selection:
    """The galaxies that pass the cuts: their shares of votes, and the label that follows."""
    size = len(joined.keys)
    votes, total = (joined.values.get(name, np.full(size, -1)) for name in (VOTES, TOTAL))
    published = joined.values.get(FRACTION, np.full(size, np.nan))
    fraction = np.where(np.isnan(published), shares(votes, total), published)
    smooth, featured = (best(joined, "smooth-or-featured", answer) for answer in ("smooth", "featured-or-disk"))
    edge_on, face_on = (best(joined, "disk-edge-on", answer) for answer in ("yes", "no"))
    edge_on = np.where(np.isnan(edge_on), 1 - face_on, edge_on)  # two answers: their shares add up to 1
    with np.errstate(invalid="ignore"):
        is_disk = np.where(np.isnan(smooth), featured > 1 - decals.LARGEST_SMOOTH, smooth < decals.LARGEST_SMOOTH)
        is_face_on = edge_on < decals.LARGEST_EDGE_ON
    kept, cuts = np.isfinite(fraction), []
    for name, passes in (("ring votes", kept), ("not smooth", is_disk), ("not edge-on", is_face_on)):
        before, kept = kept, kept & passes
        cuts.append({"cut": name, "left": int(kept.sum()), "of": int(before.sum())})
    values = {"label": labels(fraction, decals.RING_ABOVE, decals.NO_RING_BELOW)}
    values |= {FRACTION: fraction, VOTES: votes, TOTAL: total}
    values |= {"smooth_fraction": smooth, "featured_fraction": featured, "edge_on_fraction": edge_on}
    return Selection(Joined(joined.keys, values), np.flatnonzero(kept).tolist(), cuts)


def best(joined: Joined, question: str, answer: str) -> np.ndarray:
    """The network's share of votes for an answer, the volunteers' where there is none."""
    found = np.full(len(joined.keys), np.nan, np.float32)
    for campaign in (decals.NETWORK, decals.GZD5, decals.GZD12):
        found = np.where(np.isnan(found), joined.values.get(f"{question}{campaign.tag}_{answer}_fraction", np.nan), found)
    return found


RELEASE = Release(
    configs=decals.CONFIGS,
    names=Names(("iauname", "id_str"), "IAU names", is_name, position_of),
    campaigns=decals.CAMPAIGNS,
    columns=(*decals.PHOTOMETRY, TAG, *(column for column in decals.RING_VOTES if column.name in OTHER_NAMES)),
    other_names=OTHER_NAMES,
    ignored=IGNORED,
    cuts={
        "rings_basic": CutOut(basic_rings, needs=((TAG.name,),)),
        "rings_advanced": CutOut(advanced_rings, needs=((FRACTION,), (VOTES, TOTAL))),
    },
    record=Record(decals.RECORD, decals.ARCHIVES, decals.TABLES),
)
SCRIPT = script(__doc__, RELEASE)
parser, main = SCRIPT.parser, SCRIPT.main

if __name__ == "__main__":
    run_as_file("skyset.build_scripts.gz_decals.build_parent_sample")
