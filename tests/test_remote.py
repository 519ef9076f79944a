"""Partitions on a server: logins, and servers that do not give parts of files."""

import pickle
import traceback

import pytest
from torch.utils.data import DataLoader

import skyset
from skyset import ranges, secrets
from skyset.errors import PartitionError, UserError
from skyset.loaders.gz3d import SURVEY
from skyset.loading.reader import Piece
from skyset.partitions.manifest import Manifest
from skyset.partitions.partition import Partition
from skyset.testing.server import ArchiveServer
from tests.test_secrets import BASIC, PASSWORD, QUOTED, with_login


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(secrets, "_logins", {})
    monkeypatch.setattr(secrets, "_words", set())
    monkeypatch.setattr(ranges, "BACKOFF", 0.001)


@pytest.fixture
def server(built):
    with ArchiveServer(built.parent) as running:
        yield running


def ids(rows):
    return [row["object_id"] for row in rows]


def test_a_login_logs_in_also_in_workers(server, built):
    server.login = f"alice:{PASSWORD}"
    wanted = ids(skyset.load("gz3d", str(built)).select_columns(["object_id"]))
    rows = skyset.load("gz3d", with_login(server.url) + "gz3d").select_columns(["object_id"])
    assert ids(rows) == wanted and set(server.authorizations) == {BASIC}
    loader = DataLoader(rows, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert ids(loader) == wanted


def test_a_piece_takes_the_login_along(monkeypatch):
    secrets.without_login("http://a:b@host/")
    piece = Piece("http://host/x.hdf5", 0, 3, 5, 100)
    sent = pickle.dumps([piece, Piece("/local/x.hdf5", 0, 3, 5)])
    monkeypatch.setattr(secrets, "_logins", {})
    assert pickle.loads(sent) == [piece, Piece("/local/x.hdf5", 0, 3, 5)]
    assert secrets.login_of("http://host/") == ("a", "b")


@pytest.mark.parametrize("status", ["401", "403", "404", "500"])
def test_nothing_of_a_login_is_in_what_goes_wrong(server, built, status):
    entry = Manifest.load(built).files[0]
    root = with_login(server.url) + "gz3d"
    server.fault("*", status)
    errors = []
    for call in (lambda: Manifest.load(root), lambda: Partition(f"{root}/{entry.path}", SURVEY.columns)):
        with pytest.raises((UserError, PartitionError)) as caught:
            call()
        errors.append(caught.value)
    server.clear()
    rows = skyset.load("gz3d", root)
    server.fault("*.hdf5", status)
    with pytest.raises(PartitionError) as caught:
        next(iter(rows))
    for error in (*errors, caught.value):
        text = "".join(traceback.format_exception(error)) + repr(error)
        assert not any(secret in text for secret in (PASSWORD, QUOTED, "S3cr3t", BASIC)), text
        assert status in str(error) or status == "404"


def test_a_login_never_follows_to_another_host(server, built, tmp_path):
    with ArchiveServer(tmp_path) as other:
        for path in ("gz3d/manifest.json", "gz3d/" + Manifest.load(built).files[0].path):
            other.redirects[path] = server.url.replace("127.0.0.1", "localhost") + path
        root = with_login(other.url) + "gz3d"
        Manifest.load(root)
        Partition(f"{root}/{Manifest.load(built).files[0].path}", SURVEY.columns).close()
        assert set(other.authorizations) == {BASIC} and set(server.authorizations) == {None}


def test_a_server_that_ignores_range_is_told_of_in_one_sentence(server, built):
    server.fault("*", "no-range")
    assert Manifest.load(server.url + "gz3d") == Manifest.load(built)  # is read whole anyway
    rows = skyset.load("gz3d", server.url + "gz3d")
    with pytest.raises(PartitionError, match=r"gives whole files only \(it ignores HTTP Range requests\), but rows"):
        next(iter(rows))


def test_a_server_that_begins_to_ignore_range_is_noticed(server, built):
    entry = Manifest.load(built).files[0]
    with Partition(f"{server.url}gz3d/{entry.path}", SURVEY.columns) as partition:
        server.fault("*", "no-range")
        with pytest.raises(PartitionError, match="the server gives whole files only"):
            partition.read("image" if "image" in partition.columns else "false_color", 0, 1)


def test_a_file_is_looked_at_once_at_both_ends(server, built):
    entry = Manifest.load(built).files[0]
    url = f"{server.url}gz3d/{entry.path}"
    for _ in range(2):
        Partition(url, SURVEY.columns, entry.rows, entry.bytes, digest=entry.sha256).close()
    assert len(server.requests) == 2 and server.body_bytes < 200_000
    for _ in range(2):  # nothing tells whether it is still the same file
        Partition(url, SURVEY.columns, entry.rows, entry.bytes).close()
    assert len(server.requests) == 6
    assert {request.status for request in server.requests} == {206}


def test_a_manifest_without_end_is_not_read(server, monkeypatch):
    monkeypatch.setattr("skyset.partitions.manifest.LARGEST", 1000)
    with pytest.raises(UserError, match="bytes, more than 1,000"):
        Manifest.load(server.url + "gz3d")
