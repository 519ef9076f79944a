"""A request to the loopback Hub, and the table of functions that answer: one for each address and method."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from skyset.testing.hub.objects import Objects, Refused
from skyset.testing.hub.repositories import Accounts, Bucket, Repository
from skyset.testing.hub.xet import Xet
from skyset.testing.server import Answer

JSON = {"Content-Type": "application/json; charset=utf-8"}


class Hub(Protocol):
    """What answers need to know of the server."""

    host: str
    storage: str
    cas: str
    accounts: Accounts
    repositories: dict[tuple[str, str], Repository]
    buckets: dict[str, Bucket]
    batches: list[tuple[str, int]]
    objects: Objects
    xet: Xet


class Call(NamedTuple):
    """One request: its parts of the address that the pattern named, its query, token, and body."""

    hub: Hub
    parts: dict[str, str]
    query: dict[str, str]
    token: str | None
    body: bytes

    def json(self) -> dict:
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            raise Refused(400, "the body is no JSON") from None

    @property
    def user(self) -> str:
        return self.hub.accounts.tokens.get(self.token or "", ("", ""))[0]

    def repository(self, write: bool = False) -> Repository:
        """The repository that is meant, if this user may see it, or with ``write`` change it."""
        accounts, namespace = self.hub.accounts, self.parts["name"].partition("/")[0]
        found = self.hub.repositories.get((self.parts["kind"], self.parts["name"]))
        if found is None or (found.private and not accounts.is_in(self.token, namespace)):
            raise Refused(404 if self.token else 401, "Repository not found", "RepoNotFound")
        if write and not self.token:
            raise Refused(401, "Invalid username or password.")
        if write and not accounts.may_write(self.token, namespace):
            raise Refused(403, f"You don't have write access to {found.name}; your token may lack the write permission")
        return found


ROUTES: list[tuple[str, re.Pattern, Callable[[Call], Answer]]] = []
NAME = r"(?P<name>[^/]+/[^/]+)"
OF = rf"/api/(?P<kind>dataset|model|space)s/{NAME}"


def route(method: str, pattern: str):
    """Answer requests of an address with the function below."""

    def known(function: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return known


def answer(values, status: int = 200, headers: dict | None = None) -> Answer:
    return Answer(status, json.dumps(values).encode(), {**JSON, **(headers or {})})
