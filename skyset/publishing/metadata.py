"""The metadata of a dataset card, the YAML between its first two lines of dashes: read, and checked by the Hub's rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import yaml

from skyset.errors import UserError

_IDS = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0
openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma unknown other
"""
#: Licence ids that the Hub knows (huggingface.co/docs/hub/repositories-licenses).
LICENCES = frozenset(_IDS.split())
#: Rows below which a size category ends, and its name.
SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
)
LARGEST = "n>1T"
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(?P<yaml>.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LISTS_OF_TEXT = ("tags", "task_categories", "language", "size_categories")


def size_category(rows: int) -> str:
    """The Hub's name for about so many rows: ``10K<n<100K``."""
    return next((name for limit, name in SIZES if rows < limit), LARGEST)


def split_card(text: str) -> tuple[dict, str]:
    """A card's metadata, and its text after it; no metadata is an empty dict.

    Raises:
        UserError: the metadata is no YAML, or no mapping.
    """
    found = _FRONT.match(text)
    if found is None:
        return {}, text
    try:
        values = yaml.safe_load(found["yaml"]) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 2}" if mark else ""
        raise UserError(f"the card's metadata is no YAML{where}: {getattr(error, 'problem', error)}") from error
    if not isinstance(values, dict):
        raise UserError("the card's metadata is no mapping of names to values")
    return values, text[found.end() :]


def joined_card(values: dict, text: str) -> str:
    """A card of metadata and the text after it."""
    dumped = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{dumped}---\n{text}"


def problems(values: dict) -> list[str]:
    """What the Hub refuses in a card's metadata, a line each."""
    return [*_licence_problems(values), *_text_problems(values), *_config_problems(values)]


def _licence_problems(values: dict) -> Iterator[str]:
    given = values.get("license")
    ids = given if isinstance(given, list) else [] if given is None else [given]
    for name in ids:
        if name not in LICENCES:
            yield f'"license" must be one of the Hub\'s ids ("cc-by-4.0", "mit", ... or "other"), not {name!r}'
    if "other" in ids and not values.get("license_name"):
        yield '"license: other" needs a "license_name"'
    if (name := values.get("license_name")) is not None and not re.fullmatch(r"[a-z0-9._-]+", str(name)):
        yield f'"license_name" is of lower-case letters, digits, ".", "-" and "_", not {name!r}'
    if (link := values.get("license_link")) is not None and not re.match(r"https?://|LICEN[CS]E|[\w.-]+$", str(link)):
        yield f'"license_link" is an address or a file of the repository, not {link!r}'


def _text_problems(values: dict) -> Iterator[str]:
    if not isinstance(values.get("pretty_name", ""), str):
        yield '"pretty_name" must be a string'
    for name in _LISTS_OF_TEXT:
        given = values.get(name, [])
        if not all(isinstance(each, str) for each in (given if isinstance(given, list) else [given])):
            yield f'"{name}" must be a list of strings'
    sizes = values.get("size_categories", [])
    known = {name for _, name in SIZES} | {LARGEST, "other"}
    for size in sizes if isinstance(sizes, list) else [sizes]:
        if size not in known:
            yield f'"size_categories" has {size!r}, which is none of {", ".join(sorted(known))}'


def _config_problems(values: dict) -> Iterator[str]:
    configs = values.get("configs", [])
    if not isinstance(configs, list):
        yield '"configs" must be a list'
        return
    names = [each.get("config_name") if isinstance(each, dict) else None for each in configs]
    if any(not isinstance(name, str) for name in names) or len({*map(str, names)}) != len(names):
        yield '"configs" must each have a "config_name" of its own'
    if sum(isinstance(each, dict) and each.get("default") is True for each in configs) > 1:
        yield '"configs" has more than one default'
    for each in configs:
        files = each.get("data_files") if isinstance(each, dict) else None
        for path in _paths(files):
            if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                yield f'"data_files" has {path!r}, which is no path in the repository'


def _paths(files) -> Iterator:
    for each in files if isinstance(files, list) else [] if files is None else [files]:
        given = each.get("path") if isinstance(each, dict) else each
        yield from given if isinstance(given, list) else [given]
