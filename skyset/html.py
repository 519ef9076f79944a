"""HTML: told from data where a server sends a page instead of a file, and written so that no text becomes part of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from skyset.messages import LONGEST, plain

#: A byte order mark, an XML declaration and comments may come before what makes it a page.
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S)
#: Of a file, enough to tell.
HEAD_BYTES = 4096


def is_html(head: bytes) -> bool:
    """Whether a file that begins so (`HEAD_BYTES` suffice) is an HTML page; XHTML too."""
    return _PAGE.match(head[:HEAD_BYTES]) is not None


class Html(str):
    """Text that is HTML already. `element` writes every other text escaped."""

    __slots__ = ()


#: Elements that have neither content nor an end.
_VOID = ("br", "col", "hr", "img", "input", "link", "meta")


def element(name: str, /, *content: object, **attributes: object) -> Html:
    """An element: ``element("td", 3, class_="number")``.

    Args:
        name: its tag.
        content: `Html` as it is, lists and other iterables of content one after the other, nothing for None; anything else
            as text: in one line, without control characters (see `skyset.messages.plain`), escaped.
        attributes: an underscore at the end of a name is left out, others become hyphens. None and False are left out, True
            is written without a value.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    end = "" if name in _VOID else f"</{name}>"
    return Html(f"<{name}{given}>{joined(content)}{end}")


def joined(content: Iterable) -> Html:
    """Pieces of content one after the other, each as `element` takes it."""
    parts = []
    for each in content:
        if isinstance(each, str) or not isinstance(each, Iterable):
            parts.append("" if each is None else text(each))
        else:
            parts.append(joined(each))
    return Html("".join(parts))


def text(value: object, longest: int = LONGEST) -> Html:
    """A text that stands for itself, in content and in attributes with double quotes; `Html` as it is."""
    return value if isinstance(value, Html) else Html(escape(plain(value, longest)))
