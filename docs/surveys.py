"""The pages of the surveys, each made from its declaration and its card; and those of the modules, from their docstrings."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from skyset.building.card import card_path, more_blocks, new_card, refreshed
from skyset.loading import registry

#: Of the last lines of a loader's docstring; here it stands in the card.
_SCRIPT = "The file is also a loading script"


def survey_page(name: str) -> str:
    """Markdown of one survey: facts, then its card, whose tables are written from the declaration at this moment."""
    survey, more, path = registry.survey(name), more_blocks(name), card_path(name)
    card = refreshed(path.read_text(), path, survey, more) if path.exists() else new_card(survey, more)
    front, title, rest = _taken_apart(card)
    del front  # for the Hub
    return f"# {title}\n\n{_about(name)}\n\n{_facts(name)}\n{rest}"


def _taken_apart(card: str) -> tuple[str, str, str]:
    """YAML, title and the rest of a card."""
    found = re.fullmatch(r"(---\n.*?\n---\n+)?# ([^\n]+)\n(.*)", card, re.DOTALL)
    return found[1] or "", found[2], found[3]


def _about(name: str) -> str:
    """What the loader says of its survey."""
    text = inspect.cleandoc(registry.loader(name).__doc__ or "")
    return "\n\n".join(part for part in text.split("\n\n") if not part.startswith(_SCRIPT)).replace("``", "`")


def _facts(name: str) -> str:
    survey = registry.survey(name)
    configs = registry.configs(name).items()
    rows = {
        "Load": f"`skyset.load({name!r})`",
        "Build": f"`{registry.how_to_make(name, f'-o data/{name}')}`",
        "Datasets": ", ".join(f"`{config}` ({len(each.columns)} columns)" for config, each in configs),
        "Read from": survey.base_url and f"<{survey.base_url}>",
        "Homepage": survey.homepage and f"<{survey.homepage}>",
        "Licence": survey.license,
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {label} | {text} |" for label, text in rows.items() if text)]) + "\n"


def survey_index() -> str:
    """Markdown of the table of all surveys."""
    lines = ["# Surveys", "", "| survey | what it is | datasets |", "|---|---|---|"]
    for name in registry.surveys():
        configs = ", ".join(f"`{config}`" for config in registry.configs(name))
        lines.append(f"| [`{name}`]({name}.md) | {registry.survey(name).title} | {configs} |")
    return "\n".join(lines) + "\n"


def reference_pages(package: Path) -> dict[str, str]:
    """Markdown by page, one per folder of ``package``: its modules, whose docstrings mkdocstrings fills in."""
    pages = {}
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        place = folder.relative_to(package.parent)
        modules = [f"{'.'.join(place.parts)}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"]
        name = ".".join(place.parts)
        if folder == package or (folder / "__init__.py").read_text().strip():
            modules.insert(0, name)
        pages[name] = "\n\n".join([f"# {name}", *(f"::: {module}" for module in modules)]) + "\n"
    return pages
