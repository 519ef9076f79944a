"""MegaCam image quality: exposures of CFHT's MegaCam, each CCD as one representative image of its sources, with labels.

The sources of every CCD (SExtractor's quantities) are sorted into 20 groups by a self-organising map; a CCD is then 20
cutouts of 24 x 24 pixels, one a group, and 20 hits: how many of its sources are in each group (config ``representative``).
``sources`` has the sources themselves. An exposure is GOOD, of bad seeing, with a problem of its background, or badly or
really badly tracked. Paper: Teimoorinia et al. 2020, AJ 159, 170, arXiv:2003.01785. Exposures are of the Canadian Astronomy
Data Centre (CADC); training, validation and test never share one.

Also a loading script for datasets 3: ``load_dataset("megacam_iqa.py", "sources", trust_remote_code=True, ...)``.
"""

from skyset.builder import SurveyBuilder
from skyset.published.megacam_iqa import FEATURES
from skyset.survey import HEALPIX
from skyset.survey import Column
from skyset.survey import Survey
from skyset.survey import plain_features

ARCHIVE = "https://ws.cadc-ccda.hia-iha.nrc-cnrc.gc.ca/"
SPLITS = ("train", "validation", "test")
#: What a label can be: 0, 1, ...; -1 where an exposure has none.
CLASSES = ("GOOD", "B_SEEING", "BGP", "BT", "RBT")
MAP_FEATURES = FEATURES[:5]
#: The map: rows and columns of groups; pixels of a cutout's side.
MAP, STAMP = (4, 5), 24
GROUPS = MAP[0] * MAP[1]
#: Medians of the site's monitors during the exposure, by the header's keyword: unit and meaning.
SITE = {
    "WDSEEMED": ("arcsec", "seeing by the DIMM on the tower"),
    "WMSEEMED": ("arcsec", "seeing by the MASS on the tower, without the layer near the ground"),
    "DDSEEMED": ("arcsec", "seeing by the DIMM in the dome"),
    "SPOZPMED": ("mag", "absorption by SkyProbe"),
}

_OF_CCD = (
    Column("FITS_ID", "S12", (), "", "name of the exposure at CFHT: its number, and p for processed or o for raw"),
    Column("CCD_ID", "int32", (), "", "number of the CCD on the mosaic, 0 to 39"),
)
_LABELS = "0 GOOD, 1 B_SEEING (bad seeing), 2 BGP (background problem), 3 BT (bad tracking), 4 RBT (really bad tracking)"
_EXPTIME = Column("EXPTIME", "float32", (), "s", "exposure time; NaN where the header has none")

_MEASURED = (
    Column("ISO0", "float32", (), "pix2", "area above the detection threshold, ISO0 of SExtractor"),
    Column("ELONGATION", "float32", (), "", "major over minor axis, ELONGATION of SExtractor"),
    Column("ELLIPTICITY", "float32", (), "", "1 - minor over major axis, ELLIPTICITY of SExtractor"),
    Column("CLASS_STAR", "float32", (), "", "0 galaxy to 1 star, as CLASS_STAR of SExtractor"),
    Column("BACKGROUND", "float32", (), "", "background at the source minus the median of the CCD's sources, in units of "
           "1.4826 x their median absolute deviation"),
    Column("FWHM", "float32", (), "pix", "full width at half maximum, FWHM_IMAGE of SExtractor"),
)

REPRESENTATIVE = (
    Column("object_id", "S20", (), "", "name of the exposure and number of the CCD: 979412p_07"),
    *_OF_CCD,
    Column("ra", "float64", (), "deg", "right ascension (ICRS) of the CCD's centre, by its header"),
    Column("dec", "float64", (), "deg", "declination (ICRS) of the CCD's centre, by its header"),
    HEALPIX,
    Column("image", "float32", (MAP[0] * STAMP, MAP[1] * STAMP), "adu", "one source of each group in a cutout of 24 x 24 "
           "pixels, background subtracted, where the group is on the map; x runs west, y north; 0 where a group is empty, "
           "beyond the CCD's edge and in bad or saturated pixels"),
    Column("hits", "int32", (GROUPS,), "", "sources of the CCD in each group"),
    Column("hit_shares", "float32", (GROUPS,), "", "hits over their sum; 0 where the CCD has no source"),
    Column("empty", "bool", (GROUPS,), "", "whether the group has no source of this CCD"),
    Column("drawn", "int32", (GROUPS,), "", "number of the source in the cutout, as in the object_id of config sources; "
           "-1 where the group is empty"),
    Column("features", "float32", (GROUPS, len(FEATURES)), "", f"{', '.join(FEATURES)} of the source in the cutout; NaN "
           "where the group is empty or the value was none"),
    Column("feature_median", "float32", (len(FEATURES),), "", f"medians of {', '.join(FEATURES)} of the CCD's sources"),
    Column("feature_mad", "float32", (len(FEATURES),), "", "median absolute deviations from feature_median"),
    Column("n_sources", "int32", (), "", "sources of the CCD, also those without a group"),
    Column("label", "int64", (), "", f"of the exposure: {_LABELS}; -1 where it has none"),
    Column("label2", "int64", (), "", f"second label of the exposure: {_LABELS}; -1 where it has none"),
    _EXPTIME,
    Column("FILTER", "S16", (), "", "filter, such as r.MP9601"),
    Column("MJD", "float64", (), "d", "modified Julian date at the start; NaN where the header has none"),
    Column("AIRMASS", "float32", (), "", "airmass at the start; NaN where the header has none"),
    Column("background", "float32", (), "adu", "median background of the CCD"),
    Column("background_rms", "float32", (), "adu", "median noise of the background"),
    Column("gain", "float32", (), "", "electrons per ADU, mean of the two amplifiers"),
    Column("read_noise", "float32", (), "", "read noise, electrons"),
    Column("saturation", "float32", (), "adu", "level at which pixels are saturated, above the bias level"),
    *(Column(name, "float32", (), unit, f"{meaning}, median during the exposure; NaN where it was not measured")
      for name, (unit, meaning) in SITE.items()),
)

SOURCES = (
    Column("object_id", "S24", (), "", "name of the exposure, number of the CCD, number of the source: 979412p_07_00123"),
    *_OF_CCD,
    Column("ra", "float64", (), "deg", "right ascension (ICRS), by the exposure's header"),
    Column("dec", "float64", (), "deg", "declination (ICRS), by the exposure's header"),
    HEALPIX,
    Column("X", "float32", (), "pix", "X_IMAGE of SExtractor, on the CCD's 2048 columns; 1 is the first"),
    Column("Y", "float32", (), "pix", "Y_IMAGE of SExtractor, on the CCD's 4612 rows; 1 is the first"),
    *_MEASURED,
    Column("FLAGS", "int16", (), "", "FLAGS of SExtractor, without 1 and 16, which are of apertures"),
    _EXPTIME,
    Column("gt_label1", "int64", (), "", f"label of the exposure: {_LABELS}; -1 where it has none"),
    Column("gt_label2", "int64", (), "", f"second label of the exposure: {_LABELS}; -1 where it has none"),
    Column("unit", "int32", (), "", "group on the map, row by row; -1 where a value was none"),
)

CITATION = """@article{teimoorinia2020assessment,
  author = {Teimoorinia, Hossen and Kavelaars, J. J. and Gwyn, Stephen D. J. and Durand, Daniel and Rolston, Kimberly and
    Ouellette, Alexandre},
  title = {Assessment of astronomical images using combined machine-learning models},
  journal = {The Astronomical Journal},
  volume = {159}, number = {4}, pages = {170}, year = {2020}, doi = {10.3847/1538-3881/ab7938},
}"""


def plot(row):
    """One source of each group on the map, where empty groups are hatched, beside how many sources each group has."""
    from skyset.group_figures import groups_figure

    labels = [CLASSES[row[name]] for name in ("label", "label2") if row[name] >= 0]
    known = {
        "": str(row["FILTER"]),
        " s": f"{row['EXPTIME']:.0f}",
        " arcsec seeing by the tower's DIMM": f"{row['WDSEEMED']:.2f}",
    }
    note = ", ".join(value + unit for unit, value in known.items() if value not in ("", "nan"))
    return groups_figure(row, f"MegaCam {row['object_id']}: {' and '.join(labels) or 'no label'}", note)


def _survey(title, columns, classes, **more):
    return Survey(
        name="megacam_iqa",
        title=f"MegaCam image quality: {title}",
        homepage="https://doi.org/10.3847/1538-3881/ab7938",
        citation=CITATION,
        license="data of CFHT at the CADC: acknowledge both (https://www.cadc-ccda.hia-iha.nrc-cnrc.gc.ca)",
        base_url=ARCHIVE,
        columns=columns,
        features=plain_features(columns, dict.fromkeys(classes, CLASSES), images=()),
        beside=("LDAC", "som", "staged", "catalog", "objects_catalog.parquet"),
        train_folder=True,
        **more,
    )


CONFIGS = {
    "representative": _survey(
        "each CCD as a representative image and hits of 20 groups of its sources",
        REPRESENTATIVE,
        ("label", "label2"),
        shaped_by_build=("image", "hits", "hit_shares", "empty", "drawn", "features"),
        plot=plot,
    ),
    "sources": _survey("the sources of each CCD", SOURCES, ("gt_label1", "gt_label2")),
}
SURVEY = CONFIGS["representative"]


class MegaCamIqa(SurveyBuilder):
    """``load_dataset("megacam_iqa", "representative", data_dir=..., split="train")`` after ``import skyset``; see the
    dataset card."""

    SURVEY = SURVEY
    CONFIGS = CONFIGS
