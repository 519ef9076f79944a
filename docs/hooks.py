"""What mkdocs asks while it builds the site: pages that are made rather than written, and links of our own texts."""

from __future__ import annotations

import re
from pathlib import Path

import surveys  # beside this file, where mkdocs looks while it reads this one
from mkdocs.structure.files import File

from skyset.loading import registry

ROOT = Path(__file__).parents[1]

#: Texts of the repository that are pages too, by page.
TEXTS = {
    "index.md": "README.md",
    "train.md": "training/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}


def on_config(config):
    """The surveys and the modules take their places in the navigation."""
    config.extra["made"] = {
        "surveys/index.md": surveys.survey_index(),
        **{f"surveys/{name}.md": surveys.survey_page(name) for name in registry.surveys()},
        **{f"reference/{name}.md": text for name, text in surveys.reference_pages(ROOT / "skyset").items()},
        **{page: (ROOT / source).read_text() for page, source in TEXTS.items()},
    }
    for section in config.nav:
        for title, pages in section.items():
            if title in ("Surveys", "Reference"):
                pages[:] = [page for page in config.extra["made"] if page.startswith(f"{title.lower()}/")]
    return config


def on_files(files, config):
    """Pages that are made."""
    for page, text in config.extra["made"].items():
        files.append(File.generated(config, page, content=linked(text, page, config.repo_url)))
    return files


def linked(text: str, page: str, repository: str) -> str:
    """A text of the repository as a page: its links lead to pages where there are some, else to the repository's files."""
    source = TEXTS.get(page)
    if source is None:
        return text
    pages = {target: name for name, target in TEXTS.items()}

    def changed(match: re.Match) -> str:
        target, _, part = match[2].partition("#")
        place = (ROOT / source).parent.joinpath(target).resolve().relative_to(ROOT).as_posix()
        if place in pages:
            target = pages[place]
        elif place.startswith("docs/"):
            target = place.removeprefix("docs/")
        elif card := re.fullmatch(r"build_scripts/(\w+)/README\.md", place):
            target = f"surveys/{card[1]}.md"
        else:
            target = f"{repository}/blob/main/{place}"
        return f"{match[1]}({target}{'#' * bool(part)}{part})"

    return re.sub(r"(\[[^\]]*\])\((?!https?:|#|mailto:)([^)\s]+)\)", changed, text)
