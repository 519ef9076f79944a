"""Features as MultimodalUniverse's loaders name them."""

from skyset.adopting.grouping import features_of, image_axes
from skyset.survey import Column, Feature, Layers


def columns(*names, shape=(5,)):
    return [Column(name, "float32", shape) for name in names]


def told(features):
    return {f.name: dict(f.fields) if isinstance(f, Layers) else f.source for f in features}


def test_images_and_what_stands_beside_them():
    images = columns("image_array", "image_ivar", "image_mask", shape=(5, 16, 16)) + columns("image_band", "image_scale")
    others = columns("image_rgb", shape=(16, 16, 3)) + columns("image_id", "z", shape=())
    found = told(features_of(images + others))
    assert found == {
        "image": {"array": "image_array", "ivar": "image_ivar", "mask": "image_mask", "band": "image_band",
                  "scale": "image_scale"},
        "rgb": "image_rgb", "image_id": "image_id", "z": "z",
    }  # fmt: skip
    assert image_axes(images + others, features_of(images + others)) == {
        "image.array": 1, "image.ivar": 1, "image.mask": 1, "rgb": 0,
    }  # fmt: skip


def test_pixels_are_called_as_each_loader_does():
    jwst = told(features_of(columns("image_flux", "image_band")))
    assert jwst == {"image": {"array": "image_flux", "band": "image_band"}}
    hsc = told(features_of(columns("image_array", "image_band")))
    assert hsc == {"image": {"flux": "image_array", "band": "image_band"}}
    for beside in ("blobmodel", "object_mask", "image_rgb"):
        legacy = told(features_of([*columns("image_array", "image_band"), *columns(beside, shape=(16, 16))]))
        assert legacy["image"] == {"array": "image_array", "band": "image_band"}


def test_spectra():
    found = features_of(
        columns("spectrum_flux", "spectrum_wave", "spectrum_flux_ivar", shape=(-1,))
        + columns("spectrum_B_ind_start", "spectrum_B_ind_end", "spectrum_snr", shape=())
    )
    assert told(found) == {
        "spectrum": {"flux": "spectrum_flux", "lambda": "spectrum_wave", "ivar": "spectrum_flux_ivar"},
        "filter_indices": {"B_start": "spectrum_B_ind_start", "B_end": "spectrum_B_ind_end"},
        "spectrum_snr": "spectrum_snr",
    }
    energies = ("spectrum_ene", "spectrum_ene_lo", "spectrum_ene_hi", "spectrum_flux", "spectrum_flux_err")
    assert list(told(features_of(columns(*energies)))["spectrum"]) == [
        "ene_center_bin", "ene_low_bin", "ene_high_bin", "flux", "flux_error",
    ]  # fmt: skip


def test_light_curves_without_a_prefix():
    curves = ("time", "kspsap_flux", "kspsap_flux_err", "quality")
    found = told(features_of(columns("ra", shape=()) + columns(*curves), curves))
    assert found == {"ra": "ra", "lightcurve": {**{name: name for name in curves}, "flux": "kspsap_flux",
                                                "flux_err": "kspsap_flux_err"}}  # fmt: skip
    assert told(features_of(columns("time", "z"), ["time"])) == {"time": "time", "z": "z"}


def test_gaia_by_its_lists_where_a_key_is_a_groups_name():
    names = ("object_id", "ra", "dec", "ra_error", "phot_g_mean_mag", "bp_rp", "radial_velocity", "radial_velocity_error")
    found = told(features_of(columns(*names, shape=()) + columns("coeff", "coeff_error")))
    assert found["radial_velocity"] == {each: each for each in ("radial_velocity", "radial_velocity_error")}
    assert found["astrometry"] == {"ra": "ra", "ra_error": "ra_error", "dec": "dec"} and found["ra"] == "ra"
    assert found["spectral_coefficients"] == {"coeff": "coeff", "coeff_error": "coeff_error"}
    assert "flags" not in found


def test_folders_of_a_file_are_groups():
    paths = {
        "spaxels_flux": "spaxels/flux",
        "spaxels_lsf_sigma": "spaxels/lsf_sigma",
        "images_image_band": "images/image_band",
        "images_image_psf": "images/image_psf",
    }
    assert told(features_of(columns(*paths), paths=paths)) == {
        "spaxels": {"flux": "spaxels_flux", "lsf": "spaxels_lsf_sigma"},
        "images": {"filter": "images_image_band", "psf": "images_image_psf"},
    }


def test_a_column_of_a_groups_name_goes_before_it():
    found = told(features_of(columns("image", shape=(8, 8)) + columns("image_array", "image_ivar")))
    assert found == {"image": "image", "image_array": "image_array", "image_ivar": "image_ivar"}


def test_names_are_unique():
    found = features_of(columns("image_rgb", "rgb", "image_array", "image_flux"))
    names = [feature.name for feature in found]
    assert len(set(names)) == len(names)
    assert told(found)["image"] == {"array": "image_array", "image_flux": "image_flux"}
    assert Feature("image_rgb", "image_rgb") in found
