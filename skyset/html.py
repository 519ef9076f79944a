"""Pages for people where data were asked for: what servers, proxies and logins send instead of a file."""

from __future__ import annotations

import re

#: A byte order mark, an XML declaration and comments may come before what makes it a page.
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S)
#: Of a file, enough to tell.
HEAD_BYTES = 4096


def is_html(head: bytes) -> bool:
    """Whether a file that begins so (`HEAD_BYTES` suffice) is an HTML page; XHTML too."""
    return _PAGE.match(head[:HEAD_BYTES]) is not None
