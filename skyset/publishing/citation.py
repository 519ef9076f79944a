"""``CITATION.cff`` of a survey, from its BibTeX entry: GitHub, Zenodo and the Hub read it."""

from __future__ import annotations

import re

import yaml

from skyset.survey import Survey

_ENTRY = re.compile(r"@(?P<kind>\w+)\s*\{\s*[^,\s]*\s*,(?P<fields>.*)\}", re.DOTALL)
_FIELD = re.compile(r"(\w+)\s*=\s*")
_MARKS = {
    "\\'": "\u0301",
    "\\`": "\u0300",
    '\\"': "\u0308",
    "\\^": "\u0302",
    "\\~": "\u0303",
    "\\v": "\u030c",
    "\\c": "\u0327",
}
_KINDS = {"article": "article", "book": "book", "inproceedings": "conference-paper", "phdthesis": "thesis"}
_NAMES = {"journal": "journal", "volume": "volume", "number": "issue", "doi": "doi", "url": "url"}


def bibtex_fields(text: str) -> tuple[str, dict[str, str]]:
    """The kind of the first entry, and its fields in plain text; an empty kind where there is none."""
    found = _ENTRY.search(text)
    if found is None:
        return "", {}
    body, fields, place = found["fields"], {}, 0
    while match := _FIELD.search(body, place):
        value, place = _value(body, match.end())
        fields[match[1].lower()] = plain_text(value)
    return found["kind"].lower(), fields


def _value(text: str, start: int) -> tuple[str, int]:
    """A value in braces, in quotes or bare, and where it ends."""
    if text[start : start + 1] == '"':
        end = text.index('"', start + 1) if '"' in text[start + 1 :] else len(text)
        return text[start + 1 : end], end + 1
    if text[start : start + 1] != "{":
        bare = re.match(r"[^,\s}]*", text[start:])
        return (bare[0], start + bare.end()) if bare else ("", start + 1)
    depth, place = 0, start
    while place < len(text):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        place += 1
        if depth == 0:
            return text[start + 1 : place - 1], place
    return text[start + 1 :], place


def plain_text(value: str) -> str:
    """BibTeX's text without braces and accents' commands."""
    import unicodedata

    for command, mark in _MARKS.items():
        value = re.sub(rf"{re.escape(command)}\s*\{{?(\w)\}}?", rf"\1{mark}", value)
    value = re.sub(r"\\[a-zA-Z]+\s*", "", value).replace("--", "-")
    return unicodedata.normalize("NFC", " ".join(re.sub(r"[{}]|\\(?=[&%_#$])", "", value).split()))


def authors(text: str) -> list[dict[str, str]]:
    """BibTeX's list of authors, as CITATION.cff has them."""
    people = []
    for name in re.split(r"\s+and\s+", text.strip()):
        family, comma, given = name.partition(",")
        if not comma and " " in name:
            given, _, family = name.rpartition(" ")
        if name:
            people.append({"family-names": family.strip()} | ({"given-names": given.strip()} if given.strip() else {}))
    return people


def citation_file(survey: Survey, url: str) -> bytes:
    """CITATION.cff: the dataset at ``url``, and the paper to cite for it."""
    kind, fields = bibtex_fields(survey.citation)

    def people() -> list[dict[str, str]]:  # anew each time: YAML would tell equal ones by an alias
        return authors(fields.get("author", "")) or [{"name": survey.title}]

    values: dict = {
        "cff-version": "1.2.0",
        "message": "If you use this dataset, cite the paper below.",
        "type": "dataset",
        "title": survey.title,
        "authors": people(),
        "url": url,
        "repository": survey.homepage,
    }
    if fields.get("title"):
        paper: dict = {"type": _KINDS.get(kind, "generic"), "title": fields["title"], "authors": people()}
        if fields.get("year", "").isdigit():
            paper["year"] = int(fields["year"])
        paper |= {ours: fields[theirs] for theirs, ours in _NAMES.items() if fields.get(theirs)}
        if pages := re.fullmatch(r"(\w+)\s*-+\s*(\w+)", fields.get("pages", "")):
            paper |= {"start": pages[1], "end": pages[2]}
        values["preferred-citation"] = paper
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100).encode()
