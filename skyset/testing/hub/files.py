"""What a loopback Hub answers about files: how they are to be sent, what is there, and where it lies."""

from __future__ import annotations

import base64
import re
from urllib.parse import parse_qs, quote

from skyset.testing.hub.calls import NAME, OF, Call, Hub, answer, route
from skyset.testing.hub.cas import token_answer
from skyset.testing.hub.objects import Blob, Objects, Refused
from skyset.testing.hub.repositories import Commit, check_path, is_large
from skyset.testing.server import Answer

PAGE = 1000  # entries of a listing


@route("POST", f"{OF}/preupload/(?P<revision>[^/]+)")
def preupload(call: Call) -> Answer:
    tree = call.repository(write=True).commit(call.parts["revision"]).tree
    files = call.json()["files"]
    if len(files) > 256:
        raise Refused(413, "too many files")
    return answer({"files": [_preuploaded(file, tree) for file in files]})


def _preuploaded(file: dict, tree: dict[str, Blob]) -> dict:
    path = check_path(file["path"])
    large = is_large(path, file["size"], base64.b64decode(file["sample"]))
    known = tree.get(path)
    mode = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
    return mode | ({"oid": known.etag} if known else {})


@route("POST", rf"/(?:(?P<kind>dataset|space)s/)?{NAME}\.git/info/lfs/objects/batch")
def lfs_batch(call: Call) -> Answer:
    call = call._replace(parts={**call.parts, "kind": call.parts.get("kind") or "model"})
    call.repository(write=True)
    asked, objects = call.json(), call.hub.objects
    if asked.get("operation") != "upload" or asked.get("hash_algo") != "sha256":
        raise Refused(422, "unknown operation")
    return answer({"transfer": "basic", "objects": [_upload_actions(call.hub, each, objects) for each in asked["objects"]]})


def _upload_actions(hub: Hub, asked: dict, objects: Objects) -> dict:
    if not re.fullmatch(r"[0-9a-f]{64}", asked["oid"]):
        return {**asked, "error": {"code": 422, "message": "oid is no SHA-256"}}
    if objects.has(asked["oid"]):
        return asked
    signature, upload = objects.begin(asked["oid"], asked["size"])
    verify = {"href": f"{hub.host}/api/lfs/verify", "header": {}}
    if not upload.part_bytes:
        return {**asked, "actions": {"upload": {"href": f"{hub.storage}/put/{signature}/1", "header": {}}, "verify": verify}}
    parts = {str(part): f"{hub.storage}/put/{signature}/{part}" for part in range(1, upload.parts + 1)}
    header = {"chunk_size": str(upload.part_bytes), **parts}
    href = f"{hub.host}/api/complete_multipart?signature={signature}"
    return {**asked, "actions": {"upload": {"href": href, "header": header}, "verify": verify}}


@route("POST", "/api/complete_multipart")
def complete_multipart(call: Call) -> Answer:
    asked = call.json()
    call.hub.objects.complete(call.query["signature"], asked["oid"], asked["parts"])
    return answer({})


@route("POST", "/api/lfs/verify")
def verify(call: Call) -> Answer:
    asked, objects = call.json(), call.hub.objects
    if not call.user:
        raise Refused(401, "Invalid username or password.")
    if not objects.has(asked["oid"]) or objects.path(asked["oid"]).stat().st_size != asked["size"]:
        raise Refused(404, "the object is not there in this size")
    return answer({})


@route("GET", rf"{OF}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
def tree(call: Call) -> Answer:
    found = call.repository().commit(call.parts["revision"])
    folder, recursive = call.parts.get("path") or "", call.query.get("recursive", "").lower() in ("true", "1")
    entries = _entries(found, folder, recursive)
    if not entries and folder:
        raise Refused(404, f"{folder} does not exist on {call.parts['revision']!r}", "EntryNotFound")
    start = int(call.query.get("cursor", 0))
    page, headers = entries[start : start + PAGE], {}
    if start + PAGE < len(entries):
        where = (
            f"{call.hub.host}/api/{call.parts['kind']}s/{call.parts['name']}/tree/{quote(call.parts['revision'], safe='')}"
        )
        where += f"/{quote(folder)}" if folder else ""
        headers["Link"] = f'<{where}?recursive={recursive}&cursor={start + PAGE}>; rel="next"'
    return answer([_entry(found, path, call.query) for path in page], headers=headers)


def _entries(found: Commit, folder: str, recursive: bool) -> list[str]:
    """Paths below a folder, those of folders with a slash at their end."""
    below, start = set(), f"{folder}/" if folder else ""
    for path in found.tree:
        if path.startswith(start):
            parts = path[len(start) :].split("/")
            names = [f"{start}{'/'.join(parts[:depth])}/" for depth in range(1, len(parts))] + [path]
            below |= {*(names if recursive else names[:1])}
    return sorted(below)


def _entry(found: Commit, path: str, query: dict) -> dict:
    more = {}
    if query.get("expand", "").lower() in ("true", "1"):
        more = {"lastCommit": {"id": found.oid, "title": found.title, "date": found.date}}
    if path.endswith("/"):
        return {"type": "directory", "oid": found.oid, "size": 0, "path": path[:-1], **more}
    blob = found.tree[path]
    lfs = {"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}} if blob.sha256 else {}
    return {"type": "file", "oid": blob.oid, "size": blob.size, "path": path, **lfs, **more}


@route("POST", f"{OF}/paths-info/(?P<revision>[^/]+)")
def paths_info(call: Call) -> Answer:
    found = call.repository().commit(call.parts["revision"])
    asked = parse_qs(call.body.decode())
    paths, query = asked.get("paths", []), {"expand": asked.get("expand", [""])[0]}
    if len(paths) > PAGE:
        raise Refused(413, "too many parameters")
    known = {path.rstrip("/"): path for path in _entries(found, "", recursive=True)}
    return answer([_entry(found, known[path], query) for path in map(str, paths) if path in known])


@route("GET", rf"{OF}/xet-(?P<scope>read|write)-token(?:/(?P<revision>[^/]+))?")
def xet_token(call: Call) -> Answer:
    """Leave to use the Xet storage; a new pull request has no revision yet: the client asks for ``None``."""
    scope, revision = call.parts["scope"], call.parts.get("revision", "main")
    found = call.repository(write=scope == "write")
    if not (scope == "write" and (revision == "None" or call.query.get("create_pr"))):
        found.commit(revision)
    return token_answer(call.hub, scope)


@route("GET", rf"/(?:(?P<kind>dataset|space)s/)?{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(call: Call) -> Answer:
    call = call._replace(parts={**call.parts, "kind": call.parts.get("kind") or "model"})
    found = call.repository()
    if found.gated and not call.hub.accounts.is_in(call.token, found.name.partition("/")[0]):
        raise Refused(403 if call.token else 401, f"Access to dataset {found.name} is restricted", "GatedRepo")
    at = found.commit(call.parts["revision"])
    blob = at.tree.get(call.parts["path"])
    if blob is None:
        raise Refused(404, "Entry not found", "EntryNotFound")
    headers = {"X-Repo-Commit": at.oid, "Accept-Ranges": "bytes"}
    if not blob.sha256:
        return Answer(200, blob.content, {**headers, "ETag": f'"{blob.oid}"', "Content-Type": "text/plain; charset=utf-8"})
    linked = {"X-Linked-Size": str(blob.size), "X-Linked-ETag": f'"{blob.sha256}"'}
    if xet_hash := call.hub.xet.hashes.get(blob.sha256):
        token = f"{call.hub.host}/api/{found.kind}s/{found.name}/xet-read-token/{at.oid}"
        linked |= {"X-Xet-Hash": xet_hash, "Link": f'<{token}>; rel="xet-auth"'}
    return Answer(302, b"Found", {**headers, **linked, "Location": f"{call.hub.storage}/get/{blob.sha256}"})
