"""The loopback Hub, as ``huggingface_hub`` sees it; it refuses what the real one refuses."""

import hashlib
import json
import time
from pathlib import Path

import pytest
import requests
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from skyset.testing.hub import HubServer
from skyset.testing.hub.objects import Refused
from skyset.testing.hub.repositories import Repository, git_blob
from tests.hub import TOKEN, talking_to

NAME = "sky/galaxies"
BINARY = bytes(range(256)) * 40


@pytest.fixture
def hub(tmp_path):
    with HubServer(tmp_path / "hub", part_from=8000, part_bytes=4000) as server:
        server.add_user("alice", TOKEN, organisations=("sky",))
        server.add_user("rita", "hf_rita0123456789", role="read", organisations=("sky",))
        server.add_user("bob", "hf_bob0123456789")
        with talking_to(server):
            yield server


@pytest.fixture
def api(hub):
    api = HfApi()
    api.create_repo(NAME, repo_type="dataset")
    return api


def commit(api: HfApi, files: dict[str, bytes | None], **options):
    """Add files, and delete those that are None."""
    operations = [CommitOperationDelete(p) if c is None else CommitOperationAdd(p, c) for p, c in files.items()]
    return api.create_commit(NAME, operations, commit_message="files", repo_type="dataset", **options)


def test_files_come_back_whole_and_in_parts(hub, api, tmp_path):
    commit(api, {"data/large.bin": BINARY, "small.bin": b"\0one", "README.md": b"---\nlicense: mit\n---\ntext"})
    assert hub.files(NAME)["data/large.bin"] == BINARY
    assert sorted(r.path.split("/")[-1] for r in hub.requests if r.method == "PUT") == ["1", "1", "2", "3"]
    assert sorted(api.list_repo_files(NAME, repo_type="dataset"))[1:] == ["README.md", "data/large.bin", "small.bin"]
    tree = {entry.path: entry for entry in api.list_repo_tree(NAME, repo_type="dataset", recursive=True)}
    assert tree["data/large.bin"].lfs.sha256 == hashlib.sha256(BINARY).hexdigest() and tree["README.md"].lfs is None
    (info,) = api.get_paths_info(NAME, ["data"], repo_type="dataset", expand=True)
    assert info.path == "data" and info.last_commit.title == "files"
    file = api.hf_hub_download(NAME, "data/large.bin", repo_type="dataset", cache_dir=tmp_path)
    assert Path(file).read_bytes() == BINARY
    system = HfFileSystem(skip_instance_cache=True)
    with system.open(f"datasets/{NAME}/data/large.bin", block_size=100) as file:
        file.seek(700)
        assert file.read(50) == BINARY[700:750]
    assert any(r.range and r.status == 206 for r in hub.requests)


def test_equal_files_are_sent_once(hub, api):
    commit(api, {"a.bin": BINARY})
    received = hub.objects.received
    commit(api, {"a.bin": BINARY, "b.bin": BINARY})
    assert hub.objects.received == received and hub.files(NAME)["b.bin"] == BINARY
    commit(api, {"a.bin": None})
    assert "a.bin" not in hub.files(NAME)


def test_a_pull_request_is_seen_when_it_is_merged(hub, api):
    made = commit(api, {"a.txt": b"a"}, create_pr=True)
    assert made.pr_revision == "refs/pr/1"
    commit(api, {"b.txt": b"b"}, revision=made.pr_revision)
    assert set(hub.files(NAME)) == {".gitattributes"} and set(hub.files(NAME, "refs/pr/1")) >= {"a.txt", "b.txt"}
    hub.interfere(f"/api/datasets/{NAME}/x", b"else", "main")
    api.merge_pull_request(NAME, made.pr_num, repo_type="dataset")
    assert {"a.txt", "b.txt"} < set(hub.files(NAME)) and len(hub.files(NAME)) == 4
    assert api.get_discussion_details(NAME, 1, repo_type="dataset").status == "merged"


def test_a_pull_request_that_clashes_is_not_merged(hub, api):
    made = commit(api, {"a.txt": b"a"}, create_pr=True)
    commit(api, {"a.txt": b"other"})
    with pytest.raises(HfHubHTTPError, match="conflicts"):
        api.merge_pull_request(NAME, made.pr_num, repo_type="dataset")
    assert hub.files(NAME)["a.txt"] == b"other"


def test_branches(hub, api):
    api.create_branch(NAME, branch="new", repo_type="dataset")
    commit(api, {"a.txt": b"a"}, revision="new")
    assert "a.txt" in hub.files(NAME, "new") and "a.txt" not in hub.files(NAME)
    assert {ref.name for ref in api.list_repo_refs(NAME, repo_type="dataset").branches} == {"main", "new"}
    with pytest.raises(RevisionNotFoundError):
        commit(api, {"a.txt": b"a"}, revision="none")
    assert [c.title for c in api.list_repo_commits(NAME, repo_type="dataset", revision="new")] == ["files", "initial commit"]


def test_listings_come_in_pages(hub, api):
    repository = hub.dataset(NAME)
    repository.add("refs/heads/main", {f"{n:05d}.txt": git_blob(b"x") for n in range(2300)}, "many", "alice")
    assert len(api.list_repo_files(NAME, repo_type="dataset")) == 2300


def test_who_may_do_what(hub, api, tmp_path):
    stranger, reader, wrong = HfApi(token="hf_bob0123456789"), HfApi(token="hf_rita0123456789"), HfApi(token="hf_none")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        wrong.whoami()
    for each in (stranger, reader):
        with pytest.raises(HfHubHTTPError, match="403"):
            commit(each, {"a.txt": b"a"})
        with pytest.raises(HfHubHTTPError, match="rights to create"):
            each.create_repo("sky/other", repo_type="dataset")
    api.update_repo_settings(NAME, repo_type="dataset", private=True)
    with pytest.raises(RepositoryNotFoundError):
        stranger.dataset_info(NAME)
    api.update_repo_settings(NAME, repo_type="dataset", private=False, gated="manual")
    commit(api, {"a.txt": b"a"})
    with pytest.raises(GatedRepoError):
        stranger.hf_hub_download(NAME, "a.txt", repo_type="dataset", cache_dir=tmp_path)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(NAME, repo_type="dataset")


def test_a_commit_on_an_old_head_is_refused(hub, api):
    head = api.dataset_info(NAME).sha
    commit(api, {"a.txt": b"a"}, parent_commit=head)
    with pytest.raises(HfHubHTTPError, match="412"):
        commit(api, {"b.txt": b"b"}, parent_commit=head)


def test_metadata_that_the_hub_refuses(hub, api):
    with pytest.raises(ValueError, match="license"):
        commit(api, {"README.md": b"---\nlicense: my own\n---\n"})
    with pytest.raises(ValueError, match="YAML"):
        commit(api, {"README.md": b"---\nlicense: [\n---\n"})


def batch(hub, content: bytes, **changes) -> dict:
    """The actions for an object."""
    asked = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)} | changes
    body = {"operation": "upload", "transfers": ["basic"], "objects": [asked], "hash_algo": "sha256"}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    given = requests.post(f"{hub.host}/datasets/{NAME}.git/info/lfs/objects/batch", json=body, headers=headers, timeout=9)
    return given.json()["objects"][0]["actions"]["upload"]


def test_bytes_that_are_not_the_objects_are_refused(hub, api):
    where = batch(hub, b"right")["href"]
    assert requests.put(where, data=b"wrong", timeout=9).status_code == 400
    assert requests.put(where, data=b"more than right", timeout=9).status_code == 400
    assert requests.put(where, data=b"right", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=9).status_code == 400
    assert requests.put(where.replace("/put/", "/put/0"), data=b"right", timeout=9).status_code == 403
    assert hub.objects.sent == []
    assert requests.put(where, data=b"right", timeout=9).status_code == 200
    assert hub.objects.sent == [hashlib.sha256(b"right").hexdigest()]


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("lfsFile", {"path": "a.bin", "algo": "sha256", "oid": "0" * 64, "size": 4}, "does not exist"),
        ("file", {"path": "../a", "content": "", "encoding": "base64"}, "Invalid path"),
        ("file", {"path": "a/.git/b", "content": "", "encoding": "base64"}, "Invalid path"),
        ("file", {"path": "a.bin", "content": "AAAA", "encoding": "base64"}, "binary"),
        ("deletedFile", {"path": "none.txt"}, "doesn't exist"),
        ("file", {"path": ".gitattributes/x", "content": "", "encoding": "base64"}, "a file and a folder"),
    ],
)
def test_commits_that_are_refused(hub, api, key, value, why):
    lines = [{"key": "header", "value": {"summary": "x", "description": ""}}, {"key": key, "value": value}]
    body = "\n".join(map(json.dumps, lines))
    url, headers = f"{hub.host}/api/datasets/{NAME}/commit/main", {"Authorization": f"Bearer {TOKEN}"}
    given = requests.post(url, data=body, headers=headers, timeout=9)
    assert given.status_code in (400, 404) and why in given.json()["error"]


def test_a_folder_of_too_many_files_is_refused():
    repository = Repository("dataset", NAME)
    with pytest.raises(Refused, match="more than 10000 entries"):
        repository.add("refs/heads/main", {f"d/{n}": git_blob(b"") for n in range(10_001)}, "many", "alice")


@pytest.mark.parametrize("kind", ["500", "hang-up", "lost"])
def test_an_object_is_sent_again_after_a_fault(hub, api, kind):
    hub.fault("PUT /put/*", kind, times=1)
    commit(api, {"a.bin": b"\0" + BINARY[:100]})
    assert hub.files(NAME)["a.bin"] == b"\0" + BINARY[:100]


def test_too_many_requests(hub, api):
    hub.fault("POST */preupload/*", "429", times=1, retry_after=1)
    began = time.monotonic()
    commit(api, {"a.txt": b"a"})
    assert time.monotonic() - began >= 1


def test_somebody_else_commits(hub, api):
    hub.fault("POST */commit/*", "conflict", times=1)
    with pytest.raises(HfHubHTTPError, match="412"):
        commit(api, {"a.txt": b"a"}, parent_commit=api.dataset_info(NAME).sha)
    commit(api, {"a.txt": b"a"}, parent_commit=api.dataset_info(NAME).sha)
    assert len(hub.files(NAME)) == 3
