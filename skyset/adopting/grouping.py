"""Columns grouped into features as MultimodalUniverse's loaders name them: ``image.flux``, ``spectrum.lambda``, ...

By their names: ``image_array`` is ``image.flux``, ``spectrum_wave`` is ``spectrum.lambda``. Notebooks that were written for
those loaders go on working; what is named otherwise keeps its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from skyset.survey import Column, Feature, Layers

IMAGE, SPECTRUM, LIGHTCURVE, CATALOG = "image", "spectrum", "lightcurve", "catalog"
#: Groups by what their columns' names begin with.
_PREFIXES = (IMAGE, SPECTRUM, LIGHTCURVE, CATALOG)
#: What a key is called in its group, by what follows the prefix.
_KEYS: Mapping[str, Mapping[str, str]] = {
    SPECTRUM: {"wave": "lambda", "wavelength": "lambda", "flux_ivar": "ivar"},
    "spaxels": {"lsf_sigma": "lsf"},
    "images": {
        "image_band": "filter",
        **{f"image_{what}{more}": what + more for what in ("array", "psf", "scale") for more in ("", "_units")},
    },
}
#: Of loaders that say ``image.array``: by a column that only those have beside their pixels.
_ARRAYS = ("image_rgb", "image_model", "blobmodel", "object_mask", "bit_mask", "image_view")
#: X-ray spectra run along energies.
_ENERGIES = {
    "ene": "ene_center_bin",
    "ene_hi": "ene_high_bin",
    "ene_lo": "ene_low_bin",
    "flux_err": "flux_error",
}
#: Columns of a prefix that are features by themselves.
_ALONE = {"image_rgb": "rgb", "image_model": "model_image"}
#: One number a row that belongs to a group of arrays all the same.
_SCALARS = {IMAGE: ("band", "scale", "psf_fwhm"), SPECTRUM: (), LIGHTCURVE: (), CATALOG: ()}
#: Where each arm of a spectrograph begins and ends in a spectrum of all.
_ARMS = re.compile(r"spectrum_([A-Z]+)_ind_(start|end)")
#: Light curves without a prefix: what the loaders hand out as flux, where nothing is called so.
_FLUXES = (("kspsap_flux", "kspsap_flux_err"), ("psf_flux", "psf_flux_err"))
#: Pictures of pixels that stand beside those in a group.
_PICTURES = ("rgb", "model_image", "blobmodel", "object_mask", "images", "image", "image_triplet", "rgb_image")
_LEAST_SIDE, _MOST_CHANNELS = 8, 4

_XP = ("coeff", "coeff_error")
_TEMPLATES = ("fe_h", "logg", "teff")
_CORRELATED = ("ra_dec", "ra_parallax", "ra_pmra", "ra_pmdec", "dec_parallax", "dec_pmra", "dec_pmdec", "parallax_pmra",
               "parallax_pmdec", "pmra_pmdec")  # fmt: skip
_FITTED = ("ag", "azero", "distance", "ebpminrp", "logg", "mh", "teff")
#: Gaia's columns have no prefixes; the loader groups them by these lists.
GAIA: Mapping[str, tuple[str, ...]] = {
    "spectral_coefficients": _XP,
    "photometry": (
        *(f"phot_{band}_mean_{what}" for band in ("g", "bp", "rp") for what in ("mag", "flux", "flux_error")),
        "phot_bp_rp_excess_factor", "bp_rp", "bp_g", "g_rp",
    ),
    "astrometry": (
        *(name + error for name in ("ra", "dec", "parallax", "pmra", "pmdec") for error in ("", "_error")),
        *(f"{pair}_corr" for pair in _CORRELATED),
    ),
    "radial_velocity": ("radial_velocity", "radial_velocity_error", *(f"rv_template_{each}" for each in _TEMPLATES)),
    "gspphot": tuple(f"{each}_gspphot{bound}" for each in _FITTED for bound in ("", "_lower", "_upper")),
    "flags": ("ruwe",),
    "corrections": (
        "ecl_lat", "ecl_lon", "nu_eff_used_in_astrometry", "pseudocolour", "astrometric_params_solved", "rv_template_teff",
        "grvs_mag",
    ),
}  # fmt: skip
#: They are handed out by themselves too.
_OURS = ("object_id", "ra", "dec", "healpix")


def features_of(
    columns: Sequence[Column],
    curves: Iterable[str] = (),
    spectra: Iterable[str] = (),
    paths: Mapping[str, str] | None = None,
) -> tuple[Feature | Layers, ...]:
    """What is handed out: groups where their first column stands, the other columns under their own names.

    Args:
        columns: in their order.
        curves, spectra: names of columns without a prefix that run along times or wavelengths together.
        paths: by column, the path of its dataset, of which the first folder is a group.
    """
    names = [column.name for column in columns]
    groups = _prefixed(columns, paths or {})
    if {*_XP, "phot_g_mean_mag"} <= set(names):
        groups |= {group: {name: name for name in keys if name in names} for group, keys in GAIA.items()}
    groups |= {} if LIGHTCURVE in groups else _along(LIGHTCURVE, list(curves))
    groups |= {} if SPECTRUM in groups else _along(SPECTRUM, list(spectra))
    inside = {source for fields in groups.values() for source in fields.values() if source not in _OURS}
    free = set(names) - inside
    groups = {name: fields for name, fields in groups.items() if name not in free and len(fields) > (name not in GAIA)}
    home = {source: group for group, fields in groups.items() for source in fields.values() if source not in _OURS}
    features: list[Feature | Layers] = []
    done: set[str] = set()
    for name in names:
        if name not in home:
            features.append(Feature(_free(_ALONE.get(name, name), name, {*names, *groups}), name))
        elif home[name] not in done:
            done.add(home[name])
            features.append(Layers(home[name], (), "", groups[home[name]]))
    features += [Layers(name, (), "", fields) for name, fields in groups.items() if name not in done]
    return tuple(features)


def _free(wanted: str, own: str, taken: set[str]) -> str:
    return own if wanted != own and wanted in taken else wanted


def _prefixed(columns: Sequence[Column], paths: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Groups by prefix, and by the folder that a dataset lies in."""
    groups: dict[str, dict[str, str]] = {}
    names = {column.name for column in columns}
    energies = "spectrum_ene" in names
    pixels = "array" if "image_flux" in names or not names.isdisjoint(_ARRAYS) else "flux"
    for column in columns:
        folder, _, rest = paths.get(column.name, column.name).partition("/")
        if rest and column.name not in _OURS:
            _put(groups.setdefault(folder, {}), _KEYS.get(folder, {}).get(rest, rest.replace("/", "_")), column.name)
        elif arm := _ARMS.fullmatch(column.name):
            groups.setdefault("filter_indices", {})[f"{arm[1]}_{arm[2]}"] = column.name
        elif prefix := next((each for each in _PREFIXES if column.name.startswith(f"{each}_")), ""):
            key = column.name[len(prefix) + 1 :]
            if column.name in _ALONE or not key or (not column.shape and key not in _SCALARS[prefix]):
                continue
            renamed = _ENERGIES if prefix == SPECTRUM and energies else _KEYS.get(prefix, {})
            renamed = {"array": pixels, "flux": pixels} if prefix == IMAGE else renamed
            _put(groups.setdefault(prefix, {}), renamed.get(key, key), column.name)
    shaped = {column.name for column in columns if column.shape}
    return {name: fields for name, fields in groups.items() if name == "filter_indices" or shaped & set(fields.values())}


def _put(fields: dict[str, str], key: str, source: str) -> None:
    """Under a key that is free."""
    fields[key if key not in fields else source] = source


def _along(group: str, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Columns without a prefix as one group; of light curves without a ``flux`` also the loaders' choice under this name."""
    keys = {(_KEYS[SPECTRUM].get(name, name) if group == SPECTRUM else name): name for name in names}
    if group == LIGHTCURVE and "flux" not in keys:
        flux = next((pair for pair in _FLUXES if pair[0] in names), ())
        keys |= {key: name for key, name in zip(("flux", "flux_err"), flux, strict=False) if name in names}
    return {group: keys} if len(names) > 1 else {}


def image_axes(columns: Sequence[Column], features: Iterable[Feature | Layers]) -> dict[str, int]:
    """Where the two axes of pixels begin, of features that ``image_size`` can crop."""
    shapes = {column.name: column.shape for column in columns if not column.is_ragged}
    axes: dict[str, int] = {}
    for feature in features:
        if isinstance(feature, Layers):
            pairs = [(f"{feature.name}.{key}", str(source)) for key, source in feature.fields.items()]
            pairs = pairs if feature.name == IMAGE else []
        else:
            pairs = [(feature.name, feature.source)] if feature.name in _PICTURES else []
        for name, source in pairs:
            if (axis := _pixels(shapes.get(source, ()))) is not None:
                axes[name] = axis
    return axes


def _pixels(shape: tuple[int, ...]) -> int | None:
    """The first of two equal axes of pixels: the last ones, or those before one of channels; None where there are none."""
    for axis, rest in ((len(shape) - 2, ()), (len(shape) - 3, shape[-1:])):
        if axis >= 0 and shape[axis] == shape[axis + 1] >= _LEAST_SIDE and all(size <= _MOST_CHANNELS for size in rest):
            return axis
    return None
