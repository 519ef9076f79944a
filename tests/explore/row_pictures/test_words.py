"""Units on axes."""

import pytest

from skyset.explore.row_pictures.words import axis_label, typeset, unit_in


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("Angstrom", r"$\mathrm{Å}$"),
        ("10**-17 erg / (s cm2 Angstrom)", r"$\mathrm{10^{-17}\,erg\,Å^{-1}\,s^{-1}\,cm^{-2}}$"),
        ("DN of mine", "DN of mine"),
        ("$x", r"\$x"),
        ("1/0", "1/0"),
        ("furlong per fortnight", "furlong per fortnight"),
    ],
)
def test_units_are_typeset_and_what_is_none_is_as_it_is_written(unit, text):
    assert typeset(unit) == text


def test_a_name_without_a_unit_stands_alone():
    assert axis_label("flux") == "flux" and axis_label("a$", "d") == r"a\$ ($\mathrm{d}$)"


def test_units_in_others():
    assert unit_in("nm", "Angstrom") == pytest.approx(10) and unit_in("s", "Angstrom") == unit_in("?", "Angstrom") == 0
