"""Logging in at CADC: a user's name and password become a cookie, which its services know for two days.

Nothing is asked for: an account is used where its password is in an address that was given, or in ``.netrc``, for the host
of the services or for that of the accounts (``ws-cadc.canfar.net``, as CADC's own tools have it). It is sent to the service
of accounts alone.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterable

from skyset.errors import UserError
from skyset.http import Client, innermost, login_for
from skyset.secrets import cookie_of, remember_cookie

COOKIE = "CADC_SSO"
PATIENCE = (10.0, 60.0)  # seconds for a connection, and for the answer
LARGEST = 1 << 16  # bytes of an answer


def log_in(accounts: str, services: Iterable[str]) -> bool:
    """Log in for services, where there is an account; whether there is one.

    Args:
        accounts: the address that takes user and password, ``https://ws-cadc.canfar.net/ac/login``.
        services: addresses of which the hosts get the cookie from now on.

    Raises:
        UserError: the account is not taken, or nobody answers.
    """
    services = list(services)
    if all(cookie_of(url) for url in services):
        return True
    login = next((found for url in (accounts, *services) if (found := login_for(url))), None)
    if login is None:
        return False
    token = _token(accounts, login)
    for url in services:
        remember_cookie(url, COOKIE, f'"{token}"')
    return True


def has_rights(url: str) -> bool:
    """Whether sessions send a login, of either form, to an address."""
    return cookie_of(url) is not None or login_for(url) is not None


def _token(accounts: str, login: tuple[str, str]) -> str:
    """What the service of accounts answers with."""
    form = dict(zip(("username", "password"), login, strict=True))
    problem = None
    with contextlib.closing(Client(threading.Event())) as client:
        try:
            with client.session.post(
                accounts, data=form, auth=lambda request: request, timeout=PATIENCE, stream=True, allow_redirects=False
            ) as response:
                status, body = response.status_code, response.raw.read(LARGEST, decode_content=True)
        except Exception as error:  # whatever the libraries let through; their texts would show the request
            problem = innermost(error)
    if problem is not None:
        raise UserError(f"cannot log in at {accounts}: {problem}")
    if status in (401, 403):
        raise UserError(f"{accounts} does not take the account of {login[0]}")
    token = body.decode("ascii", errors="replace").strip()
    if status != 200 or not re.fullmatch(r"[!#-+\--:<-\[\]-~]{8,4096}", token):  # what a cookie may be made of
        raise UserError(f"{accounts} does not answer as CADC's accounts do (status {status})")
    return token
