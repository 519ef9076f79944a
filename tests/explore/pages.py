"""A report read as a browser reads it: its elements, tables and drawings, and what must be true of any page."""

import itertools
import re
from html.parser import HTMLParser

VOID = {"br", "hr", "img", "input", "meta", "col", "link"}
#: All that a page of ours is made of.
_KNOWN = """html head meta title style body header main footer nav section div p a ul li dl dt dd h1 h2 h3 button figure img
figcaption svg path g clippath text table caption thead tbody tr th td span b i code pre small details summary script wbr
use defs"""
KNOWN = set(_KNOWN.split())


class Page(HTMLParser):
    """``elements`` are (tag, attributes, text) in order; AssertionError where the page is not well formed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.source, self.elements, self.open = text, [], []
        assert text.startswith("<!doctype html>")
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {[self.elements[k][0] for k in self.open]}"

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"an attribute twice: {tag} {names}"
        self.elements.append((tag, dict(attributes), []))
        if tag not in VOID and tag != "wbr":
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag, attributes):
        raise AssertionError(f"<{tag}/> is not written here")

    def handle_endtag(self, tag):
        assert self.open and self.elements[self.open[-1]][0] == tag, f"</{tag}> ends nothing"
        self.open.pop()

    def handle_data(self, data):
        for place in self.open:
            self.elements[place][2].append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def texts(self, tag, **wanted):
        return [
            "".join(text) for name, attributes, text in self.elements if name == tag and wanted.items() <= attributes.items()
        ]

    def attributes(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]

    def rows(self, caption):
        """The cells of the table with this caption, row by row, the names of its columns first."""
        found, inside = [], False
        for tag, _, text in self.elements:
            if tag == "caption":
                inside = caption in "".join(text)
            elif inside and tag == "tr":
                found.append([])
            elif inside and tag in ("th", "td"):
                found[-1].append("".join(text))
        assert found, f"no table {caption!r}"
        return found


def check(text, most_bytes=5_000_000):
    """All that must be true of any page, whatever was written into names and reasons."""
    page = Page(text)
    assert len(text.encode()) < most_bytes
    tags = {tag for tag, *_ in page.elements}
    assert tags <= KNOWN, tags - KNOWN
    everything = [attributes for _, attributes, _ in page.elements]
    assert not [name for attributes in everything for name in attributes if name.startswith("on") or name == "style"]
    ids = [attributes["id"] for attributes in everything if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.attributes("a"):
        assert re.match(r"#|https?://", attributes["href"])
        assert not attributes["href"].startswith("#") or attributes["href"][1:] in ids
    assert all(
        attributes["aria-labelledby"] in ids for attributes in page.attributes("section") if "aria-labelledby" in attributes
    )
    assert all(
        attributes["src"].startswith("data:image/jpeg;base64,") and attributes["alt"]
        for attributes in page.attributes("img")
    )
    drawings = [a for a in page.attributes("svg") if a.get("role") == "img"]
    assert all(a["aria-label"] for a in drawings)
    (script,) = page.attributes("script")
    assert not script, "one script, in the page itself"
    (policy,) = [a["content"] for a in page.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    levels = [int(tag[1]) for tag, *_ in page.elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(a.get("lang") == "en" for a in page.attributes("html"))
    outside = re.sub(r'href="https?://[^"]*"', "", text)
    assert not re.search(r'(src|href|url\()\s*=?\s*["\']?(https?:)?//', outside)
    return page
