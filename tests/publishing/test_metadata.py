"""A card's metadata, by the Hub's rules."""

import pytest

from skyset.building.card import new_card
from skyset.errors import UserError
from skyset.loading import registry
from skyset.publishing.metadata import joined_card, problems, size_category, split_card


@pytest.mark.parametrize("name", ["crossmatch", "galaxiesml", "gz2", "gz3d", "gz_decals", "megacam_iqa", "sdss_galaxy_zoo"])
def test_the_cards_of_all_surveys_pass(name):
    values, text = split_card(new_card(registry.survey(name)))
    assert problems(values) == [] and values["configs"] and text.startswith("\n# ")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"license": "CC BY 4.0"}, "ids"),
        ({"license": "other"}, "license_name"),
        ({"license": "other", "license_name": "My Own"}, "lower-case"),
        ({"license": "mit", "license_link": "see below!"}, "address"),
        ({"size_categories": ["10K"]}, "size_categories"),
        ({"tags": [1]}, "list of strings"),
        ({"pretty_name": 3}, "pretty_name"),
        ({"configs": {"a": 1}}, "list"),
        ({"configs": [{"config_name": "a"}, {"config_name": "a"}]}, "of its own"),
        ({"configs": [{"config_name": "a", "default": True}, {"config_name": "b", "default": True}]}, "default"),
        ({"configs": [{"config_name": "a", "data_files": [{"split": "train", "path": "../x"}]}]}, "path"),
        ({"configs": [{"config_name": "a", "data_files": "/etc/passwd"}]}, "path"),
    ],
)
def test_what_the_hub_refuses(values, why):
    assert why in " ".join(problems(values))


def test_a_card_comes_back():
    text = joined_card({"license": "mit", "tags": ["a"]}, "\n# Title\n---\nrest\n")
    assert split_card(text) == ({"license": "mit", "tags": ["a"]}, "\n# Title\n---\nrest\n")
    assert split_card("# no metadata") == ({}, "# no metadata")
    for broken in ("---\na: [\n---\n", "---\n- a\n---\n"):
        with pytest.raises(UserError, match="metadata"):
            split_card(broken)


@pytest.mark.parametrize(
    ("rows", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (29_813, "10K<n<100K"), (2 * 10**12, "n>1T")]
)
def test_size_categories(rows, name):
    assert size_category(rows) == name
