"""Which of its files is which: Galaxy Zoo DECaLS' catalogues are told by their columns, and renamed to ours."""

import itertools
import re
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyset.building.imagefiles import files_below
from skyset.building.images_and_votes import SPLIT
from skyset.errors import RecordError
from skyset.errors import UserError
from skyset.loaders.gz_decals import DR5
from skyset.loaders.gz_decals import DR12
from skyset.loaders.gz_decals import LARGEST_EDGE_ON
from skyset.loaders.gz_decals import LARGEST_SMOOTH
from skyset.loaders.gz_decals import NO_RING_BELOW
from skyset.loaders.gz_decals import PHOTOMETRY
from skyset.loaders.gz_decals import RING_ABOVE
from skyset.loaders.gz_decals import RING_VOTES
from skyset.loaders.gz_decals import TAGS
from skyset.loaders.gz_decals import VOTES
from skyset.questions import tagged
from skyset.sky import is_name
from skyset.sky import position_of
from skyset.survey import Column
from skyset.tables.catalog import Catalog
from skyset.tables.catalog import check_ids
from skyset.tables.join import Joined
from skyset.tables.join import Source
from skyset.tables.join import join
from skyset.tables.open import open_catalog
from skyset.tables.representations import features_in

SUFFIXES = (".csv", ".tsv", ".parquet", ".fits", ".fit", ".vot", ".csv.gz", ".fits.gz", ".vot.gz")
KEYS = ("iauname", "id_str")
TAG = Column("ring", "int32", (), "", "1 where a volunteer tagged the galaxy as a ring, 0 where none did")
#: What the tables of rings call the votes, in the order of preference.
RING_NAMES = {
    "ring_fraction": ("rare-features_ring_fraction", "ring_fraction"),
    "ring_votes": ("rare-features_ring",),
    "ring_total-votes": ("rare-features_total", "rare-features_total-votes"),
}
POSITION = (Column("ra", "float64"), Column("dec", "float64"))
COLUMNS = {c.name: c for c in (*POSITION, *VOTES, *PHOTOMETRY, *RING_VOTES, TAG, SPLIT)}
#: Paths of images, row numbers of pandas: no facts about a galaxy.
IGNORED = re.compile(r"(?:file|png|local_png|jpg|fits)_loc|iauname|id_str|Unnamed: 0(?:\.\d+)?|__index_level_\d+__|index")


class NotOurs(UserError):
    """A table of something else."""


@dataclass(frozen=True)
class Found:
    """A catalogue that is one of this survey's: what it is (``kinds``), and its columns that are not used."""

    source: Source
    kinds: tuple[str, ...]
    left_out: tuple[str, ...]


def recognize(path: Path) -> Found:
    """What a file is, by its columns.

    Raises:
        NotOurs: it cannot be read, has no column of IAU names, or no votes.
        UserError: its identifiers went through floating point.
    """
    try:
        catalog = open_catalog(path)
    except UserError as error:
        raise NotOurs(str(error)) from error
    names = catalog.schema.names
    key = key_of(catalog)
    columns, kinds = {}, []
    campaign = campaign_of(names)
    if campaign:
        kinds.append({"dr5": "votes of GZD-5", "dr12": "votes of GZD-1 and GZD-2", "auto": "automatic votes"}[campaign])
        columns.update(vote_columns(names, campaign))
    if TAG.name in names:
        kinds.append("rings_basic")
        columns[TAG.name] = TAG.name
    rings = {ours: next((name for name in theirs if name in names), None) for ours, theirs in RING_NAMES.items()}
    if rings["ring_fraction"] or (rings["ring_votes"] and rings["ring_total-votes"]):
        kinds.append("rings_advanced")
        columns.update({ours: theirs for ours, theirs in rings.items() if theirs})
    if len(features_in(catalog.schema)) > 0:
        kinds.append("representations")
    columns.update({c.name: c.name for c in (*POSITION, *PHOTOMETRY, SPLIT) if c.name in names})
    if not kinds:
        raise NotOurs(f"{path.name}: no column of votes, rings or representations ({', '.join(names[:8])}, ...)")
    taken = {*columns.values(), *features_in(catalog.schema)}
    left_out = tuple(name for name in names if name not in taken and not IGNORED.fullmatch(name))
    return Found(Source(path, key, columns), tuple(kinds), left_out)


def key_of(catalog: Catalog) -> str:
    """The column of IAU names; NotOurs if there is none, UserError where identifiers went through floating point.

    Most of its first values are names: single ones that are not are rows to be rejected.
    """
    first = next(catalog.batches(256), None)
    if first is None:
        raise NotOurs(f"{Path(catalog.path).name}: no rows")
    candidates = [name for name in KEYS if name in catalog.schema.names]
    for name in candidates:
        values = [str(value) for value in first[name].to_pylist() if value is not None]
        if sum(map(is_name, values)) > len(values) / 2:
            return name
    for name in candidates:
        check_ids(first, name)
    what = "no column iauname or id_str"
    if candidates:
        what = f"column {candidates[0]} holds no IAU names ({first[candidates[0]][0]})"
    raise NotOurs(f"{Path(catalog.path).name}: {what}")


def campaign_of(names: Iterable[str]) -> str | None:
    """The campaign whose votes a table holds; counts are volunteers', fractions alone are the network's."""
    names = set(names)
    counted = {key: sum(stem in names for q in tree for stem in q.stems) for key, tree in (("dr5", DR5), ("dr12", DR12))}
    if max(counted.values()):
        return max(counted, key=counted.get)
    return "auto" if any(f"{stem}_fraction" in names for q in DR5 for stem in q.stems) else None


def vote_columns(names: Iterable[str], campaign: str) -> dict[str, str]:
    """Their names by ours."""
    names, tree = set(names), DR12 if campaign == "dr12" else DR5
    pairs = {}
    for ours, theirs in zip(tagged(tree, TAGS[campaign]), tree, strict=True):
        pairs |= {
            f"{ours.name}{suffix}": f"{theirs.name}{suffix}" for suffix in ("_total-votes", "_proportion_volunteers_asked")
        }
        # What the release's description calls the totals.
        pairs |= {f"{ours.name}_total-votes": f"{theirs.name}_total"} if f"{theirs.name}_total" in names else {}
        for suffix in ("", "_fraction", "_debiased"):
            stems = zip(ours.stems, theirs.stems, strict=True)
            pairs |= {f"{our}{suffix}": f"{their}{suffix}" for our, their in stems}
    return {ours: theirs for ours, theirs in pairs.items() if theirs in names and ours in COLUMNS}


def catalogs_below(folder: Path) -> Iterator[Path]:
    return (path for path in files_below(folder) if path.name.lower().endswith(SUFFIXES))


def joined_of(found: Iterable[Found]) -> Joined:
    """The rows of all catalogues, each with a position: the catalogue's where it has one, else that of its name."""
    joined = join([each.source for each in found], COLUMNS)
    with_positions(joined)
    return joined


def with_positions(joined: Joined) -> None:
    for name in ("ra", "dec"):
        joined.values.setdefault(name, np.full(len(joined.keys), np.nan))
    ra, dec = joined.values["ra"], joined.values["dec"]
    for row in np.flatnonzero(np.isnan(ra) | np.isnan(dec)).tolist():
        try:
            ra[row], dec[row] = position_of(joined.keys[row])
        except RecordError:
            continue  # named when the rows are chosen


def positioned(keys: list[str], rejected: list[tuple[str, str, str]], known: Joined | None) -> Joined:
    """Objects of another table, at the catalogues' positions where these know them."""
    at = {} if known is None else {key: row for row, key in enumerate(known.keys)}
    values = {name: np.full(len(keys), np.nan) for name in ("ra", "dec")}
    pairs = [(row, at[key]) for row, key in enumerate(keys) if key in at]
    if pairs:
        ours, theirs = np.array(pairs).T
        for name, column in values.items():
            column[ours] = known.values[name][theirs]
    joined = Joined(keys, values, rejected)
    with_positions(joined)
    return joined


# --- rings --------------------------------------------------------------------------------------------------


def basic_rings(joined: Joined) -> tuple[Joined, list[int], list[dict]]:
    """The galaxies with a tag: their labels, their rows; there are no cuts."""
    tags = joined.values[TAG.name]
    values = {name: joined.values[name] for name in ("ra", "dec")} | {"label": tags.astype(np.int64)}
    tagged_as = TAGS["auto"]
    values |= {name.replace(tagged_as, ""): array for name, array in joined.values.items() if tagged_as in name}
    bad = np.flatnonzero(~np.isin(tags, (-1, 0, 1)))
    rejected = [(joined.keys[row], "", f"ring is {tags[row]}, not 0 or 1") for row in bad.tolist()]
    return Joined(joined.keys, values, rejected), np.flatnonzero((tags == 0) | (tags == 1)).tolist(), []


def advanced_rings(joined: Joined) -> tuple[Joined, list[int], list[dict]]:
    """The galaxies that pass the cuts: their labels and shares of votes, their rows, and how many each cut left."""
    values = dict(joined.values)
    size = len(joined.keys)
    votes, total = (values.get(name, np.full(size, -1)) for name in ("ring_votes", "ring_total-votes"))
    with np.errstate(divide="ignore", invalid="ignore"):
        counted = np.where((votes >= 0) & (total > 0), votes / np.maximum(total, 1), np.nan)
    fraction = values.get("ring_fraction", np.full(size, np.nan, np.float32))
    fraction = np.where(np.isnan(fraction), counted, fraction)
    smooth, featured = (best(values, "smooth-or-featured", answer) for answer in ("smooth", "featured-or-disk"))
    edge_on, face_on = (best(values, "disk-edge-on", answer) for answer in ("yes", "no"))
    edge_on = np.where(np.isnan(edge_on), 1 - face_on, edge_on)  # two answers: their shares add up to 1
    with np.errstate(invalid="ignore"):
        is_disk = np.where(np.isnan(smooth), featured > 1 - LARGEST_SMOOTH, smooth < LARGEST_SMOOTH)
        label = np.where(fraction > RING_ABOVE, 1, np.where(fraction < NO_RING_BELOW, 0, -1))
        kept, steps = np.isfinite(fraction), []
        for name, passes in (("ring votes", kept), ("not smooth", is_disk), ("not edge-on", edge_on < LARGEST_EDGE_ON)):
            before, kept = kept, kept & passes
            steps.append({"cut": name, "left": int(kept.sum()), "of": int(before.sum())})
    values |= {"label": label.astype(np.int64), "ring_fraction": fraction, "ring_votes": votes, "ring_total-votes": total}
    values |= {"smooth_fraction": smooth, "featured_fraction": featured, "edge_on_fraction": edge_on}
    return Joined(joined.keys, values), np.flatnonzero(kept).tolist(), steps


def best(values: dict, question: str, answer: str) -> np.ndarray:
    """The network's share of votes for an answer, the volunteers' where there is none."""
    nothing = np.full(len(values["ra"]), np.nan, np.float32)
    tags = (TAGS["auto"], TAGS["dr5"], TAGS["dr12"])
    tried = [values.get(f"{question}{tag}_{answer}_fraction", nothing) for tag in tags]
    return np.where(np.isnan(tried[0]), np.where(np.isnan(tried[1]), tried[2], tried[1]), tried[0])


def describe(found: Found) -> Iterator[str]:
    """What the user is told of a catalogue, a line each."""
    yield f"{found.source.path.name}: {', '.join(found.kinds)}, named by {found.source.key}"
    if found.left_out:
        shown = ", ".join(itertools.islice(found.left_out, 12))
        more = f" and {len(found.left_out) - 12} more" if len(found.left_out) > 12 else ""
        yield f"{found.source.path.name}: columns that are left out: {shown}{more}"
