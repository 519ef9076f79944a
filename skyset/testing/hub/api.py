"""What a loopback Hub answers about repositories: who may do what, commits, branches, pull requests."""

from __future__ import annotations

import json
import secrets

from skyset.errors import UserError
from skyset.publishing.metadata import problems, split_card
from skyset.testing.hub.calls import OF, Call, answer, route
from skyset.testing.hub.objects import Refused
from skyset.testing.hub.repositories import ATTRIBUTES, Commit, Repository, check_name, committed, git_blob
from skyset.testing.server import Answer

#: Of all that has a date which nobody looks at.
DATE = "2026-01-01T00:00:00.000Z"


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> Answer:
    if not call.user:
        raise Refused(401, "Invalid credentials in Authorization header")
    organisations = [name for name, members in call.hub.accounts.organisations.items() if call.user in members]
    role = call.hub.accounts.tokens[call.token or ""][1]
    token = {"accessToken": {"displayName": "test", "role": role, "createdAt": DATE}}
    orgs = [{"type": "org", "name": name, "fullname": name, "roleInOrg": "write"} for name in organisations]
    user = {"type": "user", "name": call.user, "fullname": call.user}
    return answer({**user, "orgs": orgs, "auth": {"type": "access_token", **token}})


@route("POST", "/api/repos/create")
def create(call: Call) -> Answer:
    asked = call.json()
    if not call.user:
        raise Refused(401, "Invalid username or password.")
    namespace, kind = asked.get("organization") or call.user, asked.get("type", "model")
    check_name(asked["name"])
    if not call.hub.accounts.may_write(call.token, namespace):
        raise Refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    name = f"{namespace}/{asked['name']}"
    url = f"{call.hub.host}/{'' if kind == 'model' else f'{kind}s/'}{name}"
    if (kind, name) in call.hub.repositories:
        raise Refused(409, f"You already created this {kind} repo", url=url)
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    made = Repository(kind, name, private=private)
    made.add("refs/heads/main", {".gitattributes": git_blob(ATTRIBUTES)}, "initial commit", call.user)
    call.hub.repositories[kind, name] = made
    return answer({"url": url, "name": name})


@route("PUT", f"{OF}/settings")
def settings(call: Call) -> Answer:
    found, asked = call.repository(write=True), call.json()
    found.gated = asked.get("gated", found.gated)
    found.private = asked["visibility"] == "private" if "visibility" in asked else found.private
    return answer({"private": found.private, "gated": found.gated})


@route("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Answer:
    try:
        values, _ = split_card(call.json()["content"])
        wrong = problems(values)
    except UserError as error:
        values, wrong = {}, [str(error)]
    warnings = [] if values or wrong else [{"message": "empty or missing yaml metadata in repo card"}]
    errors = [{"message": text} for text in wrong]
    return answer({"errors": errors, "warnings": warnings}, 400 if wrong else 200)


@route("POST", f"{OF}/commit/(?P<revision>[^/]+)")
def commit(call: Call) -> Answer:
    found = call.repository(write=True)
    ref, pull = call.parts["revision"], None
    if call.query.get("create_pr"):
        title = json.loads(call.body.splitlines()[0])["value"]["summary"]
        pull = found.open_pull(title, call.user)
        ref = f"refs/pr/{pull.number}"
    made = committed(found, call.hub.objects, found.ref(ref), call.body, call.user)
    card = made.tree.get("README.md")
    if card is not None and (wrong := problems(split_card(card.content.decode())[0])):
        raise Refused(400, wrong[0])
    page = f"{call.hub.host}/{found.kind}s/{found.name}"
    url = f"{page}/discussions/{pull.number}" if pull else None
    return answer({"success": True, "commitOid": made.oid, "commitUrl": f"{page}/commit/{made.oid}", "pullRequestUrl": url})


@route("GET", rf"{OF}(?:/revision/(?P<revision>[^/]+))?")
def info(call: Call) -> Answer:
    found = call.repository()
    at = found.commit(call.parts.get("revision") or "main")
    blobs = call.query.get("blobs", "").lower() in ("true", "1")
    sizes = {path: {"size": blob.size, "blobId": blob.oid} if blobs else {} for path, blob in at.tree.items()}
    siblings = [{"rfilename": path, **size} for path, size in sizes.items()]
    facts = {"id": found.name, "author": found.name.partition("/")[0], "sha": at.oid, "lastModified": at.date}
    state: dict = {"private": found.private, "gated": found.gated, "disabled": False, "tags": []}
    return answer({**facts, **state, "siblings": siblings})


@route("GET", f"{OF}/refs")
def refs(call: Call) -> Answer:
    found = call.repository()
    heads = {"branches": "refs/heads/", "pullRequests": "refs/pr/"}
    listed = {
        kind: [
            {"name": ref.removeprefix("refs/heads/"), "ref": ref, "targetCommit": oid}
            for ref, oid in found.refs.items()
            if ref.startswith(start)
        ]
        for kind, start in heads.items()
    }
    return answer({**listed, "converts": [], "tags": []})


@route("GET", f"{OF}/commits/(?P<revision>[^/]+)")
def commits(call: Call) -> Answer:
    found = call.repository()
    at: Commit | None = found.commit(call.parts["revision"])
    listed = []
    while at is not None:
        authors = [{"user": at.author}]
        listed.append({"id": at.oid, "title": at.title, "message": "", "date": at.date, "authors": authors})
        at = found.commits.get(at.parent)
    return answer(listed)


@route("POST", f"{OF}/branch/(?P<branch>[^/]+)")
def create_branch(call: Call) -> Answer:
    found, ref = call.repository(write=True), f"refs/heads/{call.parts['branch']}"
    if ref in found.refs:
        raise Refused(409, "Reference already exists")
    found.refs[ref] = found.commit(call.json().get("startingPoint") or "main").oid
    return answer({})


@route("DELETE", f"{OF}/branch/(?P<branch>[^/]+)")
def delete_branch(call: Call) -> Answer:
    found, ref = call.repository(write=True), f"refs/heads/{call.parts['branch']}"
    if ref == "refs/heads/main" or ref not in found.refs:
        raise Refused(403 if ref in found.refs else 404, "this branch cannot be deleted")
    del found.refs[ref]
    return answer({})


@route("GET", rf"{OF}/discussions/(?P<number>\d+)")
def discussion(call: Call) -> Answer:
    pull = call.repository().pull(int(call.parts["number"]))
    return answer(
        {
            "title": pull.title,
            "num": pull.number,
            "isPullRequest": True,
            "author": {"name": pull.author},
            "createdAt": DATE,
            "repo": {"name": call.parts["name"], "type": call.parts["kind"]},
            "status": pull.status,
            "events": [],
            "filesWithConflicts": [],
            "changes": {"base": "refs/heads/main"},
            "diffUrl": None,
        }
    )


@route("POST", rf"{OF}/discussions/(?P<number>\d+)/merge")
def merge(call: Call) -> Answer:
    return answer({"oid": call.repository(write=True).merge(int(call.parts["number"]), call.user).oid})


@route("POST", rf"{OF}/discussions/(?P<number>\d+)/status")
def change_status(call: Call) -> Answer:
    pull, wanted = call.repository(write=True).pull(int(call.parts["number"])), call.json()["status"]
    if pull.status == "merged":
        raise Refused(400, "a merged pull request stays merged")
    pull.status = wanted
    event = {"id": secrets.token_hex(20), "type": "status-change", "createdAt": DATE, "author": {"name": call.user}}
    return answer({"newStatus": {**event, "data": {"status": wanted}}})
