"""What a loopback Hub answers about storage buckets: files by path, no commits; their bytes come by Xet alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from skyset.testing.hub.calls import NAME, Call, Hub, answer, route
from skyset.testing.hub.cas import token_answer
from skyset.testing.hub.objects import Refused
from skyset.testing.hub.repositories import Bucket, BucketFile, check_name, check_path
from skyset.testing.server import Answer

PAGE = 1000  # entries of a listing
MOST_OPERATIONS = 1000  # of one batch
_IN = rf"/api/buckets/{NAME}"


def _date(milliseconds: float | None = None) -> str:
    when = datetime.now(UTC) if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _bucket(call: Call, write: bool = False) -> Bucket:
    """The bucket that is meant, if this user may see it, or with ``write`` change it."""
    found, accounts = call.hub.buckets.get(call.parts["name"]), call.hub.accounts
    namespace = call.parts["name"].partition("/")[0]
    if found is None or (found.private and not accounts.is_in(call.token, namespace)):
        raise Refused(404 if call.token else 401, "Bucket not found", "RepoNotFound")
    if write and not accounts.may_write(call.token, namespace):
        raise Refused(403 if call.token else 401, f"You don't have write access to {found.name}")
    return found


@route("POST", _IN)
def create_bucket(call: Call) -> Answer:
    if not call.user:
        raise Refused(401, "Invalid username or password.")
    namespace, _, short = call.parts["name"].partition("/")
    namespace = call.user if namespace == "me" else namespace
    check_name(short)
    if not call.hub.accounts.may_write(call.token, namespace):
        raise Refused(403, f'You don\'t have the rights to create a bucket under the namespace "{namespace}"')
    name = f"{namespace}/{short}"
    url = f"{call.hub.host}/buckets/{name}"
    if name in call.hub.buckets:
        raise Refused(409, "You already created this bucket", url=url)
    call.hub.buckets[name] = Bucket(name, call.json().get("visibility") == "private", _date())
    return answer({"url": url, "name": name})


@route("GET", _IN)
def bucket_info(call: Call) -> Answer:
    found = _bucket(call)
    size = sum(file.size for file in found.files.values())
    facts = {"id": found.name, "private": found.private, "createdAt": found.created}
    return answer({**facts, "size": size, "totalFiles": len(found.files)})


@route("GET", rf"{_IN}/xet-(?P<scope>read|write)-token")
def bucket_token(call: Call) -> Answer:
    _bucket(call, write=call.parts["scope"] == "write")
    return token_answer(call.hub, call.parts["scope"])


@route("POST", rf"{_IN}/batch")
def batch(call: Call) -> Answer:
    """Operations, each for itself: what fails is named, the others are done."""
    found = _bucket(call, write=True)
    try:
        operations = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    except ValueError:
        raise Refused(400, "no JSON value a line") from None
    if len(operations) > MOST_OPERATIONS:
        raise Refused(413, "too many operations")
    failed = []
    for operation in operations:
        try:
            _apply(call.hub, found, operation)
        except Refused as refused:
            failed.append({"path": operation["path"], "error": str(refused)})
    call.hub.batches.append((found.name, len(operations)))
    succeeded = len(operations) - len(failed)
    values = {"success": not failed, "processed": len(operations), "succeeded": succeeded, "failed": failed}
    return answer(values, 422 if failed and not succeeded else 200)


def _apply(hub: Hub, bucket: Bucket, operation: dict) -> None:
    path, kind = check_path(operation["path"]), operation["type"]
    if kind == "deleteFile":
        if bucket.files.pop(path, None) is None:
            raise Refused(404, "there is no such file")
    elif kind in ("addFile", "copyFile"):
        file = hub.xet.files.get(operation["xetHash"])
        if file is None:
            raise Refused(404, "the content was not sent")
        _check_place(bucket, path)
        bucket.files[path] = BucketFile(file.hash, file.size, _date(operation["mtime"]), _date())
    else:
        raise Refused(400, f"unknown operation {kind}")


def _check_place(bucket: Bucket, path: str) -> None:
    parts = path.split("/")
    above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    if above & bucket.files.keys() or any(each.startswith(f"{path}/") for each in bucket.files):
        raise Refused(409, "a file and a folder of one name")


def _entry(path: str, file: BucketFile) -> dict:
    dates = {"mtime": file.mtime, "uploadedAt": file.uploaded}
    return {"type": "file", "path": path, "size": file.size, "xetHash": file.xet_hash, **dates}


@route("POST", rf"{_IN}/paths-info")
def bucket_paths_info(call: Call) -> Answer:
    found, paths = _bucket(call), call.json()["paths"]
    if len(paths) > PAGE:
        raise Refused(413, "too many paths")
    return answer([_entry(path, found.files[path]) for path in paths if path in found.files])


@route("GET", rf"{_IN}/tree(?:/(?P<path>.+))?")
def bucket_tree(call: Call) -> Answer:
    found, prefix = _bucket(call), call.parts.get("path", "").rstrip("/")
    recursive = call.query.get("recursive", "").lower() in ("true", "1")
    start, folders, entries = f"{prefix}/" if prefix else "", set(), []
    for path, file in sorted(found.files.items()):
        if path == prefix or path.startswith(start):
            below = path[len(start) :].split("/") if path != prefix else [""]
            folders |= {
                f"{start}{'/'.join(below[:depth])}" for depth in range(1, len(below) if recursive else min(2, len(below)))
            }
            if recursive or len(below) == 1:
                entries.append(_entry(path, file))
    entries += [{"type": "directory", "path": folder, "uploadedAt": found.created} for folder in folders]
    entries.sort(key=lambda entry: entry["path"])
    first = int(call.query.get("cursor", 0))
    headers = {}
    if first + PAGE < len(entries):
        where = f"{call.hub.host}/api/buckets/{found.name}/tree" + (f"/{prefix}" if prefix else "")
        headers["Link"] = f'<{where}?recursive={recursive}&cursor={first + PAGE}>; rel="next"'
    return answer(entries[first : first + PAGE], headers=headers)


@route("GET", rf"/buckets/{NAME}/resolve/(?P<path>.+)")
def bucket_resolve(call: Call) -> Answer:
    found = _bucket(call)
    file = found.files.get(call.parts["path"])
    if file is None:
        raise Refused(404, "Entry not found", "EntryNotFound")
    token = f"{call.hub.host}/api/buckets/{found.name}/xet-read-token"
    linked = {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.xet_hash}"', "Accept-Ranges": "bytes"}
    xet = {"X-Xet-Hash": file.xet_hash, "Link": f'<{token}>; rel="xet-auth"'}
    return Answer(
        302, b"Found", {**linked, **xet, "Location": f"{call.hub.storage}/get/{call.hub.xet.sha256[file.xet_hash]}"}
    )
