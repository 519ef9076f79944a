"""GalaxiesML: 286,401 galaxies of Hyper Suprime-Cam with grizy images, spectroscopic redshifts and shapes.

Galaxies of the Wide layer of HSC's second data release that have a secure spectroscopic redshift between 0.01 and 4: a
stamp of the coadd in each of five bands, put into a frame of 127 x 127 pixels of 0.168 arcsec (config ``127``) and its
middle 64 x 64 (``64``), the catalogue, and what was measured in each band; ``tabular`` is that without pixels. Made for
photometric redshifts. Paper: Do et al. 2024, arXiv:2410.00271; published files: Zenodo record 11117528, 116 GB of HDF5.
Partitions are rebuilt from HSC's archive or converted from those files, which are also read where they lie.

Also a loading script for datasets 3: ``load_dataset("galaxiesml.py", "64", trust_remote_code=True, ...)``.
"""

from dataclasses import replace

from skyset.builder import SurveyBuilder
from skyset.extraction.morphology import columns as morphology
from skyset.published.galaxiesml import find
from skyset.survey import HEALPIX
from skyset.survey import Column
from skyset.survey import Survey
from skyset.survey import plain_features

RECORD = 11117528
ARCHIVE = "https://hsc-release.mtk.nao.ac.jp/"
BANDS = "grizy"
SIZES = (127, 64)
SPLITS = ("train", "validation", "test")
#: Arcsec a pixel, and the AB magnitude of one count.
PIXEL_SCALE, ZERO_POINT = 0.168, 27.0

_NONE = "NaN where not measured"
#: Whose shapes they are: that of the target only where central_image_pop_5px_rad is above 0.
_NEAREST = "of the detection nearest the middle"
#: What is no shape of one object.
_COUNTS = ("total_galaxies", *(f"central_image_pop_{radius}px_rad" for radius in (5, 10, 15)))

BASE = (
    Column("object_id", "S20", (), "", "HSC's object_id of the second data release, an integer of 17 digits, as text"),
    Column("ra", "float64", (), "deg", "right ascension (ICRS), forced photometry of HSC"),
    Column("dec", "float64", (), "deg", "declination (ICRS), forced photometry of HSC"),
    HEALPIX,
)
CATALOG = (
    Column("coord", "S96", (), "", "position as HSC's database writes it: a unit vector"),
    Column("skymap_id", "S20", (), "", "HSC's number of tract and patch"),
    Column("specz_name", "S256", (), "", "names of the redshift in the surveys it is from, with commas between"),
    Column("specz_redshift", "float64", (), "", "spectroscopic redshift; the mean where several surveys have one"),
    Column("specz_redshift_err", "float64", (), "", "its error; a placeholder in GAMA and WiggleZ"),
    Column("specz_mag_i", "float64", (), "mag", "i magnitude in the redshift's own catalogue"),
    Column("specz_ra", "float64", (), "deg", "right ascension (ICRS) in the redshift's own catalogue"),
    Column("specz_dec", "float64", (), "deg", "declination (ICRS) in the redshift's own catalogue"),
    Column("specz_flag_homogeneous", "bool", (), "", "HSC calls the redshift secure: true of every row"),
    *(Column(f"{b}_cmodel_mag", "float32", (), "mag", f"CModel magnitude of HSC, AB, {b} band; Galactic extinction is not "
             "subtracted") for b in BANDS),
    *(Column(f"{b}_cmodel_magsigma", "float32", (), "mag", f"error of {b}_cmodel_mag") for b in BANDS),
)

#: Where each shape comes from, and what the published files have where that is another thing.
_FROM = {
    "central_image_pop_5px_rad": "published: within 5 pixels, along one diagonal of the circle",
    "central_image_pop_10px_rad": "published: within 10 pixels, along one diagonal of the circle",
    "central_image_pop_15px_rad": "published: within 15 pixels, along one diagonal of the circle; 'pol' in the paper",
    "ellipticity": "ELLIPTICITY of SExtractor; the paper's table gives pixels",
    "half_light_radius": "FLUX_RADIUS of SExtractor",
    "isophotal_area": "ISOAREA_IMAGE of SExtractor",
    "major_axis": "A_IMAGE of SExtractor",
    "minor_axis": "B_IMAGE of SExtractor",
    "peak_surface_brightness": "MU_MAX of SExtractor at zero point 27; published with zero point 0",
    "petro_rad": "PETRO_RADIUS of SExtractor / 2 x major_axis; published in units of major_axis",
    "pos_angle": "THETA_IMAGE of SExtractor",
    "sersic_index": "published: SPHEROID_SERSICN of SExtractor",
    "total_galaxies": "in the paper, not in the published files",
}
SHAPES = tuple(
    replace(
        c,
        description="; ".join(
            [c.description, *([] if c.name[2:] in _COUNTS else [_NEAREST]), _FROM[c.name[2:]], _NONE]
        ).replace("of the central galaxy's isophote", "of the isophote"),
    )
    for c in morphology(BANDS)
)

#: Not in the published files: of the fits that sersic_index is from, and of the frame.
FITS = (
    *(Column(f"{b}_n_padded", "int32", (), "", f"pixels of the frame that HSC's stamp did not cover, {b} band")
      for b in BANDS),
    *(column for b in BANDS for column in (
        Column(f"{b}_sersic_r_e", "float32", (), "pix", f"half-light radius of the Sersic fit along the major axis, without "
               f"the PSF, {b} band; {_NONE}"),
        Column(f"{b}_sersic_q", "float32", (), "", f"axis ratio of the Sersic fit, {b} band; {_NONE}"),
        Column(f"{b}_sersic_pa", "float32", (), "deg", f"position angle of the Sersic fit, from +x towards +y, {b} band; "
               f"{_NONE}"),
        Column(f"{b}_sersic_n_err", "float32", (), "", f"error of {b}_sersic_index; {_NONE}"),
        Column(f"{b}_sersic_r_e_err", "float32", (), "pix", f"error of {b}_sersic_r_e; {_NONE}"),
        Column(f"{b}_sersic_chi2", "float32", (), "", f"reduced chi2 of the Sersic fit, {b} band; {_NONE}"),
        Column(f"{b}_sersic_flags", "int32", (), "", "bits of the fit: 1 index at bound, 2 radius at bound, 4 axis ratio "
               "at bound, 8 centre at bound, 16 not converged, 32 masked, 64 faint, 128 truncated, 256 not measured, 512 "
               f"undersampled; -1 where no fit was made, {b} band"),
    )),
)
#: Of the published files alone, as they have them.
RAW = (
    *(column for b in BANDS for column in (
        Column(f"{b}_x_image", "float64", (), "pix", f"X_IMAGE of SExtractor, {b} band: counted from 1 in HSC's stamp of "
               "about 120 pixels, before it was padded; x_coord, x_coord_x or x_coord_y there"),
        Column(f"{b}_y_image", "float64", (), "pix", f"Y_IMAGE of SExtractor, {b} band: counted from 1 in HSC's stamp of "
               "about 120 pixels, before it was padded; y_coord, y_coord_x or y_coord_y there"),
        Column(f"{b}_peak_surface_brightness_raw", "float64", (), "mag.arcsec-2", f"{b}_peak_surface_brightness as "
               "published: zero point 0"),
        Column(f"{b}_petro_rad_raw", "float64", (), "", f"{b}_petro_rad as published: PETRO_RADIUS, a factor of A_IMAGE"),
    )),
)


def pixels(size):
    """The columns of images: of a build, and those that it has with ``--planes`` and ``--psf``."""
    return (
        Column("image", "float32", (5, size, size), "", "coadd in g, r, i, z, y, counts of AB zero point 27.0; row 0 is "
               "south, east is left; the target is at pixel "
               f"({size // 2}, {size // 2}), counted from 0; 0 where HSC's stamp does not reach"),
        Column("mask", "int32", (5, size, size), "", "bits of HSC's mask planes in g, r, i, z, y"),
        Column("variance", "float32", (5, size, size), "", "variance of the image in g, r, i, z, y, counts squared"),
        Column("psf", "float32", (5, 41, 41), "", "point spread function at the target in g, r, i, z, y; sum 1"),
    )


TABLE = (*BASE, *CATALOG, *SHAPES, *FITS, *RAW)
CITATION = """@article{do2024galaxiesml,
  author = {Do, Tuan and Boscoe, Bernie and Jones, Evan and Li, Yun Qi and Alfaro, Kevin},
  title = {{GalaxiesML}: a dataset of galaxy images, photometry, redshifts, and structural parameters for machine
    learning},
  journal = {arXiv e-prints}, eprint = {2410.00271}, year = {2024}, doi = {10.48550/arXiv.2410.00271},
}
@article{aihara2019second,
  author = {Aihara, Hiroaki and AlSayyad, Yusra and Ando, Makoto and Armstrong, Robert and Bosch, James and others},
  title = {Second data release of the {Hyper Suprime-Cam} {Subaru} {Strategic} {Program}},
  journal = {Publications of the Astronomical Society of Japan},
  volume = {71}, number = {6}, pages = {114}, year = {2019}, doi = {10.1093/pasj/psz103},
}"""


def plot(row):
    """The five bands with what was measured on them, a colour image, and the Sersic model where it was fitted."""
    from skyset.band_figures import bands_figure

    title = f"GalaxiesML {row['object_id']}: z = {float(row['specz_redshift']):.4f}"
    models = {band: model for band in BANDS if (model := model_of(row, band)) is not None}
    return bands_figure(row, BANDS, title, PIXEL_SCALE, models)


def model_of(row, band):
    """The Sersic model that was fitted in a band, (H, W) in counts; None where there is none of the target.

    Through the row's ``psf`` where it has one, else through the band's median seeing: as it was fitted.
    """
    from skyset.extraction.fitted_picture import fitted_model
    from skyset.extraction.morphology import HSC_SEEING

    place = BANDS.index(band)
    psf = HSC_SEEING[band] / PIXEL_SCALE if row.get("psf") is None else row["psf"][place]
    return fitted_model(row, band, row["image"][place], psf)


def _survey(size):
    columns = (*TABLE[:4], *pixels(size), *TABLE[4:]) if size else TABLE
    certain = {c.name for c in (*BASE, *CATALOG)} | {"image"}
    return Survey(
        name="galaxiesml",
        title="GalaxiesML: galaxies of HSC with spectroscopic redshifts and shapes, "
        + (f"{size} x {size} pixel grizy images" if size else "without images"),
        homepage="https://doi.org/10.5281/zenodo.11117528",
        citation=CITATION,
        license="that of Zenodo record 11117528; images of HSC-SSP (https://hsc-release.mtk.nao.ac.jp/doc/): acknowledge it",
        base_url=ARCHIVE,
        columns=columns,
        features=plain_features(columns, {}, images=()),
        image_axes={"image": 1, "mask": 1, "variance": 1} if size else {},
        optional=tuple(c.name for c in columns if c.name not in certain),
        beside=("Images", "catalog"),
        plot=plot if size else None,
        published=find,
        train_folder=True,
    )


CONFIGS = {**{str(size): _survey(size) for size in SIZES}, "tabular": _survey(None)}
SURVEY = CONFIGS["127"]


class GalaxiesML(SurveyBuilder):
    """``load_dataset("galaxiesml", "64", data_dir=..., split="train")`` after ``import skyset``; see the dataset card."""

    SURVEY = SURVEY
    CONFIGS = CONFIGS
