"""The account of the HSC archive: asked for once, kept in this process alone (``skyset.secrets``), shown to nobody."""

from __future__ import annotations

import getpass
import json
import os
import sys
from html import escape
from urllib.parse import quote, quote_plus, urlsplit

from skyset.errors import UserError
from skyset.http import login_for
from skyset.secrets import HIDDEN, login_of, remember, without_login

#: The names that the archive's users know (unagi has them too).
USER, PASSWORD = "SSP_PDR_USR", "SSP_PDR_PWD"
REGISTER = "https://hsc-release.mtk.nao.ac.jp/datasearch/"


def account_for(url: str) -> tuple[str, str]:
    """The account for an archive's address, of which sessions send the login from now on.

    The first of: a login in the address, the variables SSP_PDR_USR and SSP_PDR_PWD, the host's line in ``.netrc``, what is
    typed at a terminal.

    Args:
        url: any address at the archive's host.

    Returns:
        user and password.

    Raises:
        UserError: there is none, or half of one.
    """
    url = without_login(url)
    login = login_of(url) or _of_environment() or login_for(url) or _typed(url)
    if not all(login):
        raise UserError(f"the account for {urlsplit(url).hostname} has no {'password' if login[0] else 'user name'}")
    remember(url, login)
    return login


def forget_account(url: str) -> None:
    """The archive does not take the account: it is asked for anew next time."""
    remember(url, None)


def without_account(text: str, login: tuple[str, str]) -> str:
    """A server's words with ``***`` where they repeat the password, in whatever form, ordinary words among them too."""
    user, password = login
    forms = {password, json.dumps(password)[1:-1], json.dumps(password, ensure_ascii=False)[1:-1], escape(password)}
    forms |= {quote(password, safe=""), quote_plus(password), repr(password)[1:-1], f"{user}:{password}"}
    for form in sorted(forms - {""}, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text


def _of_environment() -> tuple[str, str] | None:
    user, password = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
    if not (user or password):
        return None
    if not (user and password):
        have, lack = (USER, PASSWORD) if user else (PASSWORD, USER)
        raise UserError(f"{have} is set and {lack} is not: the HSC archive wants both")
    return user, password


def _typed(url: str) -> tuple[str, str]:
    """What somebody types, the password unseen."""
    host = urlsplit(url).hostname
    if sys.stdin is None or sys.stderr is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(
            f"no account for {host}: set {USER} and {PASSWORD}, or write a line for it in ~/.netrc (free: {REGISTER})"
        )
    print(f"{host} wants an account (free: {REGISTER})", file=sys.stderr)
    try:
        print("user name: ", end="", file=sys.stderr, flush=True)
        user = sys.stdin.readline().strip()
        return user, getpass.getpass("password: ", sys.stderr)
    except EOFError:
        return "", ""
