"""What a loopback Hub answers at the address of its Xet storage, and how it lets clients in there."""

from __future__ import annotations

import re
from collections.abc import Mapping

from skyset.testing.hub.calls import Hub, answer
from skyset.testing.hub.objects import Refused
from skyset.testing.server import Answer

_HASH = r"([0-9a-f]{64})"
#: Method, address and scope of what is answered.
_ROUTES = (
    ("POST", rf"/v1/xorbs/default/{_HASH}", "write", "xorb"),
    ("POST", r"(?:/v1)?/shards", "write", "shard"),
    ("GET", rf"/v1/reconstructions/{_HASH}", "read", "file"),
    ("GET", rf"/v1/chunks/default(?:-merkledb)?/{_HASH}", "read", "chunk"),
)


def token_answer(hub: Hub, scope: str) -> Answer:
    """Leave to use the storage: ``read`` or ``write``."""
    token, until = hub.xet.new_token(scope)
    headers = {"X-Xet-Cas-Url": hub.cas, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(until)}
    return answer({"casUrl": hub.cas, "accessToken": token, "exp": until}, headers=headers)


def answered(hub: Hub, method: str, path: str, headers: Mapping[str, str | None], body: bytes) -> Answer:
    """The answer to a request of the storage.

    Raises:
        Refused: nothing is there, or the token or the body is not what it must be.
    """
    for wanted, pattern, scope, what in _ROUTES:
        if wanted == method and (found := re.fullmatch(pattern, path)):
            hub.xet.check((headers["Authorization"] or "").removeprefix("Bearer "), scope)
            if what == "xorb":
                return answer({"was_inserted": hub.xet.take_xorb(found[1], body)})
            if what == "shard":
                hub.xet.take_shard(body)
                return answer({"result": 1})
            if what == "file":
                return _reconstruction(hub, found[1], headers["Range"])
            return Answer(200, hub.xet.known_chunk(found[1]), {"Content-Type": "application/octet-stream"})
    raise Refused(404, "there is nothing")


def _reconstruction(hub: Hub, file: str, wanted: str | None) -> Answer:
    """Which bytes of which xorbs a file, or a range of it, is made of, and where they are fetched."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "")
    if wanted and asked is None:
        raise Refused(416, "Range Not Satisfiable")
    terms, before = hub.xet.terms_of(file, int(asked[1]) if asked else 0, int(asked[2]) + 1 if asked else None)
    fetch: dict[str, list[dict]] = {}
    listed = []
    for term in terms:
        chunks = {"start": term.start, "end": term.stop}
        first, last = hub.xet.bytes_of(term)
        place = {"url": f"{hub.storage}/xorb/{term.xorb}", "url_range": {"start": first, "end": last}}
        listed.append({"hash": term.xorb, "unpacked_length": term.bytes, "range": chunks})
        if (part := {"range": chunks, **place}) not in (parts := fetch.setdefault(term.xorb, [])):
            parts.append(part)
    return answer({"offset_into_first_range": before, "terms": listed, "fetch_info": fetch})
