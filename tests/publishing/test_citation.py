"""CITATION.cff from BibTeX."""

import pytest
import yaml

from skyset.loading import registry
from skyset.publishing.citation import authors, bibtex_fields, citation_file, plain_text


def test_of_a_survey():
    values = yaml.safe_load(citation_file(registry.survey("gz3d"), "https://huggingface.co/datasets/a/b"))
    paper = values["preferred-citation"]
    assert values["authors"][0] == {"family-names": "Masters", "given-names": "Karen L"} and len(values["authors"]) == 18
    assert (paper["year"], paper["doi"], paper["start"], paper["end"]) == (2021, "10.1093/mnras/stab2282", "3923", "3935")
    assert paper["title"].startswith("Galaxy Zoo: 3D - crowdsourced")


@pytest.mark.parametrize("name", registry.surveys())
def test_every_survey_has_one(name):
    values = yaml.safe_load(citation_file(registry.survey(name), "https://example.org"))
    assert values["cff-version"] == "1.2.0" and values["authors"] and "*id" not in str(values)


def test_fields_in_braces_quotes_and_bare():
    text = '@book{key, title = {A {B} C}, author = "Jane Doe and Lee, Ann", year = 2020, note = {x = {y}}}'
    kind, fields = bibtex_fields(text)
    assert kind == "book" and fields["title"] == "A B C" and fields["year"] == "2020"
    assert authors(fields["author"]) == [
        {"family-names": "Doe", "given-names": "Jane"},
        {"family-names": "Lee", "given-names": "Ann"},
    ]
    assert bibtex_fields("cite us") == ("", {})


def test_accents():
    assert plain_text(r"M{\"u}ller and Garc{\'i}a, \v{S}koda, {\c c}a \& co") == "Müller and García, Škoda, ça & co"
