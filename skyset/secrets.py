"""Logins and tokens: taken out of addresses where these come in, and out of every text that goes out.

    url = without_login("https://alice:pass@example.org/data/")   # https://example.org/data/; the login is kept in memory
    login_of("https://example.org/data/x.fits")                   # ("alice", "pass"): what sessions send to this host
    cookie_of("https://example.org/data/x.fits")                  # what they send in its place, once they have logged in
    redacted("https://example.org/x?token=12ab")                  # https://example.org/x?token=***

``without_login`` is the ``type`` of every option that takes an address, and the first step of every function that does.
`SkysetError` and ``manifest.json`` redact by themselves; what is printed or written otherwise goes through
``skyset.messages.plain``, which redacts too.
"""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import SplitResult, quote, quote_plus, unquote, urlsplit

HIDDEN = "***"
#: Passwords like this are hidden wherever they stand, not only in addresses; others would be found in ordinary text.
_TELLING = re.compile(r"(?=.*[^a-z]).{6,}")
#: Logins by where they are sent: scheme, host and port.
_logins: dict[tuple[str, str, int | None], tuple[str, str]] = {}
#: Cookies that stand for a login, by the same.
_cookies: dict[tuple[str, str, int | None], str] = {}
#: What is hidden wherever it stands, as patterns.
_words: set[str] = set()

_SECRET_NAMES = r"token|secret|passw|passphrase|signature|credential|api[-_.]?key|access[-_.]?key|access[-_.]?id|auth"
_WHOLE_NAMES = r"key|sig|pwd|pass|jwt|sid|session|sessionid"
_PATTERNS = [
    # http://user:password@host, also where Path has made one slash of two; up to the last @ before the path begins
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*:/{1,2})[^\s/?#\"'<>]*@"), rf"\1{HIDDEN}@"),
    # the same inside of another address
    (re.compile(r"(?i)(%3A%2F%2F)(?:(?!%2F|%40|&)\S)*(?:%40(?:(?!%2F|%40|&)\S)*)*%40"), rf"\1{HIDDEN}%40"),
    # user:password@host, where the scheme was forgotten
    (re.compile(r"(?<![\w@/:*.-])[\w.%+-]+:[^\s/@\"'<>]+@(?=[\w\[])"), rf"{HIDDEN}@"),
    # ?token=..., &X-Amz-Signature=...
    (
        re.compile(
            rf"(?i)((?:[?&;]|%3F|%26)(?:[\w.-]*(?:{_SECRET_NAMES})[\w.-]*|{_WHOLE_NAMES})(?:=|%3D))(?:(?!%26)[^\s&;#\"'<>])+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?)(?:\w+\s+)?[^\s\"',]+"), rf"\1{HIDDEN}"),
    # a token of the Hugging Face Hub
    (re.compile(r"\b(hf_|api_org_)[A-Za-z0-9]{30,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(Bearer\s+)(?=\S*\d)[\w+/=.~-]{8,}"), rf"\1{HIDDEN}"),
]


def without_login(url: str) -> str:
    """An address without the user and password in it, which ``login_of`` gives for this host from now on.

    A later login for the same scheme, host and port takes the place of an earlier one. What is no address comes back as
    it is.
    """
    parts = _split(url) if "@" in url else None
    if parts is None or "@" not in parts.netloc:
        return url
    userinfo, _, host = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    bare = parts._replace(netloc=host)
    remember(bare.geturl(), (unquote(user), unquote(password)))
    _hide(user, password)  # as they were typed
    return bare.geturl()


def remember(url: str, login: tuple[str, str] | None) -> None:
    """Keep a login, (user, password), for the host of an address, in this process; None forgets it."""
    parts = _split(url)
    where = parts and _origin(parts)
    if where is None:
        return
    if login is None:
        _logins.pop(where, None)
        return
    _logins[where] = login
    _hide(*login)


def login_of(url: str) -> tuple[str, str] | None:
    """(user, password) for an address: that of its scheme, host and port; http's also where a host has moved to https."""
    parts = _split(url)
    where = parts and _origin(parts)
    if where is None:
        return None
    plain = ("http", where[1], 80) if where[0] == "https" and where[2] == 443 else where
    return _logins.get(where) or _logins.get(plain)


def remember_cookie(url: str, name: str, value: str | None) -> None:
    """Keep a cookie that a login was answered with, for the host of an address, in this process; None forgets it."""
    parts = _split(url)
    where = parts and _origin(parts)
    if where is None:
        return
    if value is None:
        _cookies.pop(where, None)
        return
    _cookies[where] = f"{name}={value}"
    _hide("", value.strip('"'))


def cookie_of(url: str) -> str | None:
    """``name=value`` for an address: that of its scheme, host and port."""
    parts = _split(url)
    where = parts and _origin(parts)
    return _cookies.get(where) if where else None


def redacted(text: str) -> str:
    """A text with ``***`` in the place of user and password in addresses, tokens in queries, and known passwords."""
    for word in sorted(_words, key=len, reverse=True):  # the longest first: one may be part of another
        text = re.sub(word, HIDDEN, text)
    for pattern, hidden in _PATTERNS:
        text = pattern.sub(hidden, text)
    return text


def redacted_values(values):
    """JSON values, every text in them redacted; names of fields are kept."""
    if isinstance(values, str):
        return redacted(values)
    if isinstance(values, dict):
        return {name: redacted_values(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [redacted_values(value) for value in values]
    return values


def hide(token: str) -> None:
    """Hide a token wherever it stands, in this process."""
    _hide("", token)


def _hide(user: str, password: str) -> None:
    """Hide a password, or where there is none the user's name (a token), in the forms in which it may come back."""
    secret = password or user
    forms = {b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()}
    if _TELLING.fullmatch(secret):
        forms |= {secret, quote(secret, safe=""), quote_plus(secret)}
    _words.update(rf"(?<!\w){re.escape(form)}(?!\w)" for form in forms)


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None where it is none."""
    try:
        parts = urlsplit(str(url))
    except ValueError:  # such as http://[broken
        return None
    return parts if parts.scheme and parts.netloc else None


def _origin(parts: SplitResult) -> tuple[str, str, int | None] | None:
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
