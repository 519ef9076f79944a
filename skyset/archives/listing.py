"""Listings of folders that web servers write as HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from skyset.archives.fetch import Fetcher, FetchError
from skyset.files import is_plain_name
from skyset.http import innermost


def listing(fetcher: Fetcher, url: str, suffix: str = "") -> list[str]:
    """Names of the files in the HTML index at `url` that end in `suffix`, each once, in the index's order.

    Only plain names in this very folder: links to other folders or hosts, or with a query, are left out.
    """
    parser = _Links()
    page = fetcher.text(url)
    try:
        parser.feed(page)
    except Exception as error:  # html.parser, of what is not quite HTML
        raise FetchError(url, f"not a listing: {innermost(error)}") from None
    names = (_name_in_folder(url, link) for link in parser.links)
    return list(dict.fromkeys(name for name in names if name and name.endswith(suffix)))


class _Links(HTMLParser):
    """Collects the targets of all links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _name_in_folder(url: str, link: str) -> str | None:
    """The plain file name that `link` on the page at `url` means, None if it leads elsewhere."""
    try:
        folder, target = urlsplit(urljoin(url, ".")), urlsplit(urljoin(url, link))
    except ValueError:  # such as http://[broken
        return None
    if target[:2] != folder[:2] or target.query or not target.path.startswith(folder.path):
        return None
    name = unquote(target.path.removeprefix(folder.path))
    return name if is_plain_name(name) else None
