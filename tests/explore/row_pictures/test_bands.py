"""Filters by their names."""

import colorsys

import numpy as np
import pytest

from skyset.explore.row_pictures.bands import colours, in_order, of_colour_image, wavelength


@pytest.mark.parametrize(
    ("names", "bluest_first"),
    [
        (["y", "z", "i", "r", "g"], "grizy"),
        (["hsc-y", "hsc-g", "hsc-i", "hsc-r", "hsc-z"], ["hsc-g", "hsc-r", "hsc-i", "hsc-z", "hsc-y"]),
        (["DES-Z", "DES-G", "DES-R"], ["DES-G", "DES-R", "DES-Z"]),
        (
            ["B", "H", "J", "Jrc2", "V", "V0", "Y", "g", "i", "r", "u"],
            ["u", "B", "g", "V", "V0", "r", "i", "Y", "J", "Jrc2", "H"],
        ),
        (["i'", "V", "r'", "B", "U"], ["U", "B", "V", "r'", "i'"]),
        (["U", "UVW1", "UVM2", "UVW2", "V"], ["UVW2", "UVM2", "UVW1", "U", "V"]),
        (["f444w", "f090w", "F814W", "F606W", "f277w", "f115w"], ["F606W", "F814W", "f090w", "f115w", "f277w", "f444w"]),
        (["ztfi", "ztfg", "ztfr"], ["ztfg", "ztfr", "ztfi"]),
        (["clear", "r", "open", "g", "r"], ["g", "r", "clear", "open"]),
        (["RP", "G", "BP"], ["G", "BP", "RP"]),
        (["10", "2", "r", "x", "1"], ["r", "1", "2", "10", "x"]),
        ([], []),
    ],
)
def test_the_bluest_comes_first_however_surveys_name_it(names, bluest_first):
    assert in_order(names) == list(bluest_first)


@pytest.mark.parametrize("name", ["science", "", "  ", "-", "image1", "F", "f12w", "difference", "$x$", "g" * 300, "x_"])
def test_what_is_no_filter_has_no_wavelength(name):
    assert wavelength(name) is None


def test_filters_named_by_numbers_are_those_of_their_telescope():
    assert (wavelength("F444W"), wavelength("F435W"), wavelength("F160W"), wavelength("F1000W")) == (4440, 435, 1600, 10000)


@pytest.mark.parametrize(
    ("names", "empty", "chosen"),
    [
        ("grizy", "", "irg"),
        ("grizy", "i", "zrg"),
        ("grz", "", "zrg"),
        ("GRIZ", "", "IRG"),
        ("ugr", "", "rgu"),
        (["F444W", "F090W", "F200W", "F115W"], "", ["F444W", "F115W", "F090W"]),
        ("grizy", "g", "yir"),
        ("gr", "", None),
        ("grr", "", None),
        (["science", "reference", "difference"], "", None),
        ("gri", "gri", None),
    ],
)
def test_a_colour_image_is_of_these_bands(names, empty, chosen):
    places = of_colour_image(list(names), [name not in empty or not empty for name in names])
    assert (None if places is None else [names[place] for place in places]) == (None if chosen is None else list(chosen))


@pytest.mark.parametrize("count", [1, 2, 3, 6, 12, 40])
def test_colours_differ_and_run_from_blue_to_red(count):
    found = colours(count)
    assert len(set(found)) == count and all(len(colour) == 7 and colour[0] == "#" for colour in found)
    levels = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in found])
    first, last = levels[0], levels[-1]
    assert first[2] > first[0] and (count == 1 or last[0] > 2 * last[2])
    assert all(colorsys.rgb_to_hls(*level)[1] < 0.55 for level in levels)  # seen on white paper
