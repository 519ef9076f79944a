"""Morphology of the galaxy in the middle of a cutout, in each band: the columns of GalaxiesML (Do et al. 2024).

    from skyset.extraction.morphology import measure_cutout, measure_cutouts
    row = measure_cutout(image, "i", psf)                      # {"i_ellipticity": 0.31, "i_sersic_index": 1.2, ...}
    table = measure_cutouts(images, "grizy", psf)              # images: (count, bands, rows, columns)

Section 4 of the paper (data: doi:10.5281/zenodo.11117528) defines the columns, its appendix prints a configuration of
SExtractor. That does not run as printed: some of its parameters do not exist, and its PSF is not published. Here instead
(``GALAXIESML``): both thresholds 3 sigma, the least area, kernel, deblending and background as printed, 0.168 arcsec per
pixel (0.17 is printed) and the zero point 27.0 of HSC's coadds (with the 0.0 that is printed, surface brightnesses are
negative). Where the paper leaves a choice:

- The object is the detection whose X_IMAGE, Y_IMAGE are nearest the middle of the image, however far that is: where the
  galaxy itself is not detected these are another's values, and the ``central_image_pop`` columns are 0.
- ``central_image_pop_*``: detections, the central one included, with X_IMAGE, Y_IMAGE within the circle (section 3.4).
  The authors' notebook counts the labels of the segmentation map along one diagonal of the circle instead. The paper prints
  ``central_image_pol_15px_rad``; the published files have ``pop``, as here.
- ``major_axis`` and ``minor_axis``: A_IMAGE and B_IMAGE, rms lengths and not full ones. ``ellipticity`` has no unit (the
  paper's table says pixels).
- ``petro_rad``: in pixels, PETRO_RADIUS / 2 x A_IMAGE, the radius where the surface brightness is 0.2 of the mean within.
  The authors' catalogues have PETRO_RADIUS, twice that in units of A_IMAGE. It lies from 1.75 to some 5 A_IMAGE, as
  SExtractor looks at no other radii.
  As SExtractor compares a ring with a disc in steps of 0.33 A_IMAGE, it is above the radius of that definition: on bright
  round galaxies of r_e = 4 pixels by 7 % for n = 1, 20 % for n = 2.5 to 4, 20 to 34 % for n = 5.5.
- ``half_light_radius``: FLUX_RADIUS, of the Kron flux and with the PSF. Kron ellipses miss the wings: it is short of the
  circle with half of all light by 4 % for n = 1 and 2.5, 10 % for n = 4, 14 to 17 % for n = 5.5.
- ``sersic_index``: of a fit through the PSF (``sersic.py``), where the authors have SExtractor's SPHEROID_SERSICN. Other
  detections are masked, with 4 pixels around them: with less, wings of neighbours change n by 1 % at magnitude 20 to 22.

It is NaN where the fit did not converge, is not better than a point source by 3 sigma (``SersicFits.resolved``), or found a
centre at the limit of where it is looked for, or less than 3 sigma of light. Profiles flatter or more peaked than the fit
knows keep the index of its bound, 0.3 or 8.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from skyset.extraction.settings import Settings
from skyset.survey import Column

if TYPE_CHECKING:
    import pyarrow as pa

    from skyset.extraction.sersic import Gaussian, Moffat

#: SExtractor's ``gauss_1.5_3x3.conv``: a Gaussian of 1.5 pixels FWHM.
GAUSS_1_5 = np.outer([0.365325, 1, 0.365325], [0.365325, 1, 0.365325]).astype(np.float32)
#: How GalaxiesML's images are measured; for other data ``dataclasses.replace(GALAXIESML, zero_point=..., pixel_scale=...)``.
GALAXIESML = Settings(threshold=3.0, minarea=5, kernel=GAUSS_1_5, pixel_scale=0.168, zero_point=27.0, saturation=np.inf)
#: Median seeing (FWHM, arcsec) of the Wide layer of HSC's second data release: Aihara et al. 2019 (PASJ 71, 114).
HSC_SEEING = {"g": 0.77, "r": 0.76, "i": 0.58, "z": 0.68, "y": 0.68}
#: Radii (pixels) of the circles in which detections are counted.
RADII = (5, 10, 15)

_MEANINGS = {
    "ellipticity": ("", "1 - B/A of the central galaxy's isophote"),
    "half_light_radius": ("pix", "radius of the circle with half of the Kron flux, not corrected for the PSF"),
    "isophotal_area": ("pix2", "pixels above 3 sigma"),
    "major_axis": ("pix", "rms of the profile along the major axis"),
    "minor_axis": ("pix", "rms of the profile along the minor axis"),
    "peak_surface_brightness": ("mag.arcsec-2", "surface brightness of the brightest pixel above the background"),
    "petro_rad": ("pix", "Petrosian radius along the major axis"),
    "pos_angle": ("deg", "position angle of the major axis, from +x towards +y, -90 to 90"),
    "sersic_index": ("", "Sersic index of a fit through the PSF"),
    "total_galaxies": ("", "detections in the image"),
    **{f"central_image_pop_{r}px_rad": ("", f"detections within {r} pixels of the image's middle") for r in RADII},
}
#: What is measured in each band, without the band's name.
NAMES = tuple(_MEANINGS)
#: What else the fit of ``sersic_index`` finds.
_FITTED = {
    "sersic_r_e": ("pix", "half-light radius of the Sersic fit along the major axis, without the PSF"),
    "sersic_q": ("", "axis ratio of the Sersic fit, minor to major, without the PSF"),
    "sersic_pa": ("deg", "position angle of the Sersic fit's major axis, from +x towards +y, -90 to 90"),
    "sersic_n_err": ("", "error of sersic_index"),
    "sersic_r_e_err": ("pix", "error of sersic_r_e"),
    "sersic_chi2": ("", "reduced chi2 of the Sersic fit"),
    "sersic_flags": ("", "bits of skyset.extraction.sersic.SersicFlag; -1 where no fit was made"),
}
#: Their names without the band's: all but chi2 and flags are NaN where ``sersic_index`` is, the errors also at a bound.
FITTED = tuple(_FITTED)
#: Columns that are taken as SExtractor has them.
_SAME = {
    "ellipticity": "ELLIPTICITY",
    "half_light_radius": "FLUX_RADIUS",
    "isophotal_area": "ISOAREA_IMAGE",
    "major_axis": "A_IMAGE",
    "minor_axis": "B_IMAGE",
    "peak_surface_brightness": "MU_MAX",
    "pos_angle": "THETA_IMAGE",
}
_WANTED = (*_SAME.values(), "X_IMAGE_DBL", "Y_IMAGE_DBL", "PETRO_RADIUS")
#: An index is given where the galaxy differs from a point source by so many sigmas: one point source in a hundred does.
RESOLVED = 3.0
#: Pixels around other detections that fits leave out.
_MARGIN = 4
#: Cutouts that are read, and whose fits are made, together: enough for the CPU, and for a GPU.
_BLOCK, _GPU_BLOCK = 256, 4096


def columns(bands: Sequence[str], fitted: bool = False) -> tuple[Column, ...]:
    """The columns that are measured, as a survey declares them: float32, 13 for each band, NaN where not measured.

    ``fitted``: with those of `FITTED` behind each band's; ``sersic_flags`` is int32.
    """
    meanings = _MEANINGS | _FITTED if fitted else _MEANINGS
    return tuple(
        Column(f"{band}_{name}", "int32" if name == "sersic_flags" else "float32", (), unit, f"{meaning}, {band} band")
        for band in _bands(bands)
        for name, (unit, meaning) in meanings.items()
    )


def hsc_psf(band: str, pixel_scale: float = GALAXIESML.pixel_scale) -> Moffat:
    """A Moffat profile (beta 3.5) of a band's median seeing, for want of a better: the archive's PSF picker has real ones.

    Seeing that is 0.1 arcsec off brings a small galaxy's n from 6 to 8; where indices matter, give the PSF.

    Raises:
        ValueError: the band is none of g, r, i, z, y.
    """
    from skyset.extraction.sersic import Moffat

    if band not in HSC_SEEING:
        raise ValueError(f"there is no PSF for band {band!r}: only {', '.join(HSC_SEEING)} of HSC have one here; give psf=")
    return Moffat(HSC_SEEING[band] / pixel_scale)


def measure_cutout(
    image: np.ndarray,
    band: str,
    psf: np.ndarray | Moffat | Gaussian | None = None,
    *,
    mask: np.ndarray | None = None,
    settings: Settings = GALAXIESML,
    sersic: bool = True,
) -> dict[str, float]:
    """Measure the detection nearest the middle of an image.

    Args:
        image: (rows, columns), counts, of any size; NaN, infinite and masked pixels are not used.
        band: the columns' prefix.
        psf: image of the PSF, or ``sersic.Moffat``, ``sersic.Gaussian``; None: `hsc_psf` of the band.
        mask: bool (rows, columns), True where a pixel is bad.
        settings: how sources are found and measured.
        sersic: fit a profile; otherwise ``sersic_index`` is NaN, in a quarter of the time or less.

    Returns:
        ``{band}_{name}`` for each of `NAMES`, in that order. Where nothing is detected the counts are 0 and all else is NaN;
        where no pixel is usable, or all are alike, everything is NaN.

    Raises:
        ValueError: the image is not two-dimensional or not of numbers, the mask has another shape, the PSF is none, or is
            not given and the band is not HSC's.
    """
    image = image if isinstance(image, np.ma.MaskedArray) else np.asarray(image)
    if image.ndim != 2:
        raise ValueError(f"the image has shape {image.shape}: it must have two sides; for several, measure_cutouts")
    mask = None if mask is None else np.asarray(mask)[None, None]
    found = measure_cutouts(image[None, None], [band], psf, mask=mask, settings=settings, sersic=sersic)
    return {name: float(values[0]) for name, values in found.items()}


def measure_cutouts(
    images: np.ndarray,
    bands: Sequence[str],
    psf: np.ndarray | Moffat | Gaussian | Mapping | None = None,
    *,
    mask: np.ndarray | None = None,
    settings: Settings = GALAXIESML,
    sersic: bool = True,
    fitted: bool = False,
    device: str | None = None,
    output: str = "numpy",
) -> dict[str, np.ndarray] | pa.Table:
    """Measure the detection nearest the middle of each image, as `measure_cutout` does.

    Args:
        images: (count, bands, rows, columns), counts: an array, or what gives one for a slice of rows, as HDF5 datasets do.
        bands: their names in order, ``"grizy"`` or ``["g", "r", ...]``.
        psf: one for all: an image (rows, columns), ``sersic.Moffat`` or ``sersic.Gaussian``; an image a band, (bands, rows,
            columns), or one for each image, (count, bands, rows, columns); or by the band's name, each as
            `sersic.fit_sersic` takes it: (count, rows, columns) too, or ``Moffat(fwhm)`` with an FWHM (pixels) an object.
            None: `hsc_psf` of each band.
        mask: True where a pixel is bad, (rows, columns) for all images, or as ``images``.
        settings: how sources are found and measured.
        sersic: fit profiles, many at a time; otherwise ``sersic_index`` is NaN.
        fitted: give also what else the fits found, `FITTED`.
        device: where profiles are fitted: ``cpu`` or as torch names it, such as ``cuda``.
        output: ``"numpy"`` for a dict of arrays, ``"arrow"`` for a pyarrow.Table with units in its fields' metadata.

    Returns:
        (count,) for each of `columns`, in that order.

    Raises:
        ValueError: shapes that do not agree, else as `measure_cutout`.
    """
    bands = _bands(bands)
    if output not in ("numpy", "arrow"):
        raise ValueError(f"output is {output!r}: it is 'numpy' or 'arrow'")
    images = images if hasattr(images, "shape") else np.asarray(images)
    mask = mask if mask is None or hasattr(mask, "shape") else np.asarray(mask)
    count = _check_shapes(images, bands, mask)
    psfs = _psfs(psf, bands, count, settings.pixel_scale or 1.0) if sersic else {}
    settings = dataclasses.replace(settings, fractions=(0.5,))
    declared = columns(bands, fitted)
    found = {column.name: np.full(count, column.missing, column.dtype) for column in declared}
    step = _BLOCK if device in (None, "cpu") else _GPU_BLOCK
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        block = images[rows]
        block = block if isinstance(block, np.ma.MaskedArray) else np.asarray(block)
        bad = None if mask is None else np.asarray(mask if len(mask.shape) == 2 else mask[rows], bool)
        for place, band in enumerate(bands):
            here = {name: found[f"{band}_{name}"][rows] for name in NAMES}
            bad_here = bad if bad is None or bad.ndim == 2 else bad[:, place]
            with warnings.catch_warnings():
                # That there is nothing to see is said by NaN in every column.
                warnings.filterwarnings("ignore", "the .*: no sources", UserWarning)
                stamps = _measure(block[:, place], bad_here, settings, here, sersic)
            if stamps:
                indices = np.array([stamp.row for stamp in stamps])
                for name, values in _fit(stamps, _of_rows(psfs[band], start + indices), device).items():
                    if (column := found.get(f"{band}_{name}")) is not None:
                        column[start + indices] = values
    return found if output == "numpy" else _as_arrow(found, declared)


def _bands(bands: Sequence[str]) -> list[str]:
    bands = list(bands)
    if not bands or len(set(bands)) < len(bands) or not all(isinstance(band, str) and band for band in bands):
        raise ValueError(f"bands are {bands}: they must be names, each once")
    return bands


def _check_shapes(images, bands: list[str], mask) -> int:
    """How many cutouts there are."""
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != len(bands):
        raise ValueError(f"images have shape {shape}: (count, {len(bands)}, rows, columns) is needed for {len(bands)} bands")
    if 0 in shape[2:]:
        raise ValueError(f"images have shape {shape}: there are no pixels")
    if mask is not None and tuple(mask.shape) not in (shape, shape[2:]):
        raise ValueError(f"the mask has shape {tuple(mask.shape)}: it must be {shape[2:]} or that of the images, {shape}")
    return shape[0]


# --- The PSF --------------------------------------------------------------------------------------


def _psfs(psf, bands: list[str], count: int, pixel_scale: float) -> dict:
    """Each band's PSF, as `fit_sersic` takes it."""
    from skyset.extraction.sersic import Gaussian, Moffat

    if psf is None:
        return {band: hsc_psf(band, pixel_scale) for band in bands}
    if isinstance(psf, Mapping):
        if missing := [band for band in bands if band not in psf]:
            raise ValueError(f"there is no PSF for band {', '.join(missing)}")
        kinds = (Moffat, Gaussian)
        psfs = {band: psf[band] if isinstance(psf[band], kinds) else np.asarray(psf[band]) for band in bands}
    elif isinstance(psf, Moffat | Gaussian):
        psfs = dict.fromkeys(bands, psf)
    else:
        psf = np.asarray(psf)
        if psf.ndim == 2:
            psfs = dict.fromkeys(bands, psf)
        elif psf.ndim == 3 and len(psf) == len(bands):
            psfs = dict(zip(bands, psf, strict=True))
        elif psf.ndim == 4 and psf.shape[:2] == (count, len(bands)):
            psfs = {band: psf[:, place] for place, band in enumerate(bands)}
        else:
            raise ValueError(
                f"the PSF has shape {psf.shape}; (rows, columns), ({len(bands)}, rows, columns) a band or "
                f"({count}, {len(bands)}, rows, columns) an image are possible"
            )
    for band, one in psfs.items():
        many = np.size(one.fwhm) if isinstance(one, Moffat | Gaussian) else len(one) if np.ndim(one) == 3 else 1
        if many not in (1, count):
            raise ValueError(f"{many} PSFs in band {band} for {count} images")
    return psfs


def _of_rows(psf, rows: np.ndarray):
    """A band's PSF for some of the images."""
    if hasattr(psf, "fwhm"):
        return dataclasses.replace(psf, fwhm=np.asarray(psf.fwhm)[rows]) if np.size(psf.fwhm) > 1 else psf
    return psf[rows] if np.ndim(psf) == 3 and len(psf) > 1 else psf


# --- One image ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Stamp:
    """What a fit starts from: the image's place in the block, its pixels, those not to use, and the detection's numbers."""

    row: int
    image: np.ndarray
    unused: np.ndarray
    noise: float
    x: float
    y: float
    half_light_radius: float
    axis_ratio: float
    pos_angle: float


def _measure(images: np.ndarray, mask: np.ndarray | None, settings: Settings, out: dict, sersic: bool) -> list[_Stamp]:
    """Fill ``out`` with all but Sersic indices; where they are wanted, what their fits need."""
    from skyset.extraction.detect import measure

    check = ("SEGMENTATION",) if sersic else ()
    stamps = []
    for row, image in enumerate(images):
        bad = mask if mask is None or mask.ndim == 2 else mask[row]
        found = measure(image, settings, _WANTED, mask=bad, check=check)
        if not found.rms > 0:
            continue
        x, y = found.columns["X_IMAGE_DBL"] - 1, found.columns["Y_IMAGE_DBL"] - 1
        away = np.hypot(x - (image.shape[1] - 1) / 2, y - (image.shape[0] - 1) / 2)
        out["total_galaxies"][row] = len(away)
        for radius in RADII:
            out[f"central_image_pop_{radius}px_rad"][row] = np.count_nonzero(away <= radius)
        if not len(away):
            continue
        nearest = int(away.argmin())
        values = _values({name: column[nearest] for name, column in found.columns.items()}, settings)
        for name, value in values.items():
            out[name][row] = value
        if sersic:
            unused = _others(found.check["SEGMENTATION"], nearest + 1)
            if bad is not None:
                unused |= bad
            stamps.append(
                _Stamp(
                    row,
                    image,
                    unused,
                    found.rms,
                    x[nearest],
                    y[nearest],
                    values["half_light_radius"],
                    values["minor_axis"] / values["major_axis"],
                    values["pos_angle"],
                )
            )
    return stamps


def _others(segments: np.ndarray, number: int) -> np.ndarray:
    """Pixels of other detections and those around them, but none of ``number``'s own."""
    own = segments == number
    others = (segments != 0) & ~own
    if others.any():
        for _ in range(_MARGIN):
            grown = others.copy()
            grown[1:] |= others[:-1]
            grown[:-1] |= others[1:]
            grown[:, 1:] |= others[:, :-1]
            grown[:, :-1] |= others[:, 1:]
            others = grown
        others &= ~own
    return others


def _values(source: dict[str, float], settings: Settings) -> dict[str, float]:
    """A detection's numbers under GalaxiesML's names; NaN for what SExtractor marks by impossible ones."""
    values = {name: float(source[column]) for name, column in _SAME.items()}
    values["petro_rad"] = float(source["PETRO_RADIUS"]) / settings.petrosian[0] * values["major_axis"]
    for name in ("half_light_radius", "petro_rad"):
        if not values[name] > 0:
            values[name] = np.nan
    if values["peak_surface_brightness"] == 99:
        values["peak_surface_brightness"] = np.nan
    return values


def _fit(stamps: list[_Stamp], psf, device: str | None) -> dict[str, np.ndarray]:
    """Sersic indices, NaN where there is none, and `FITTED`."""
    from skyset.extraction.sersic import SersicFlag, fit_sersic

    def each(name: str) -> np.ndarray:
        return np.array([getattr(stamp, name) for stamp in stamps])

    fits = fit_sersic(
        [stamp.image for stamp in stamps],
        psf,
        x=each("x"),
        y=each("y"),
        r_e=each("half_light_radius"),
        q=each("axis_ratio"),
        pa=each("pos_angle"),
        sigma=each("noise"),
        mask=[stamp.unused for stamp in stamps],
        device=device,
    )
    none = SersicFlag.NOT_MEASURED | SersicFlag.NOT_CONVERGED | SersicFlag.POSITION_AT_BOUND
    none |= SersicFlag.R_E_AT_BOUND | SersicFlag.FAINT
    unknown = (fits.flags & int(none) != 0) | ~(fits.resolved > RESOLVED)
    found = {"sersic_index": fits.n, "sersic_r_e": fits.r_e, "sersic_q": fits.q, "sersic_pa": fits.pa}
    found |= {"sersic_n_err": fits.sigma("n"), "sersic_r_e_err": fits.sigma("r_e")}
    found = {name: np.where(unknown, np.nan, values) for name, values in found.items()}
    return found | {"sersic_chi2": fits.chi2, "sersic_flags": fits.flags}


def _as_arrow(found: dict[str, np.ndarray], declared: Sequence[Column]) -> pa.Table:
    import pyarrow as pa

    fields = [
        pa.field(
            column.name,
            pa.from_numpy_dtype(column.dtype),
            metadata={"unit": column.unit, "description": column.description},
        )
        for column in declared
    ]
    return pa.table([found[field.name] for field in fields], pa.schema(fields))
