"""The loopback Hub's Xet storage, with ``hf_xet`` itself as the client; what it must not take it refuses."""

import re

import numpy as np
import pytest
import requests
from huggingface_hub import HfApi

from skyset.testing.hub import HubServer
from skyset.testing.hub.objects import Refused
from skyset.testing.hub.xet_format import TAG, chunks_of, read_shard, unpacked
from tests.hub import TOKEN, talking_to

hf_xet = pytest.importorskip("hf_xet", reason="the client of the Xet protocol")
NAME = "sky/files"
#: Of what compresses best by every fourth byte, as it is, and not at all.
FIRST = np.random.default_rng(0).normal(1, 0.01, 200_000).astype("<f4").tobytes() + b"a" * 200_000
FIRST += np.random.default_rng(1).integers(0, 256, 300_000).astype(np.uint8).tobytes()
SECOND = FIRST[:700_000] + b"a few bytes more" + FIRST[700_000:]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils.are_progress_bars_disabled", lambda *_: True)
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")
    with HubServer(tmp_path / "hub") as server:
        server.add_user("alice", TOKEN, organisations=("sky",))
        server.add_user("rita", "hf_rita0123456789", role="read", organisations=("sky",))
        yield server


def test_a_second_file_sends_what_is_new_and_comes_back_in_parts(hub, tmp_path):
    sent = []
    for number, content in enumerate((FIRST, SECOND)):  # the second from another machine, that has sent nothing yet
        with talking_to(hub, xet=tmp_path / f"xet{number}"):
            before, api = hub.xet.received, HfApi()
            api.create_bucket(NAME, exist_ok=True)
            api.batch_bucket_files(NAME, add=[(content, f"data/{number}.bin")])
            sent.append(hub.xet.received - before)
            api.download_bucket_files(NAME, [(f"data/{number}.bin", tmp_path / "back")])
            assert (tmp_path / "back").read_bytes() == content
    assert 700_000 < sent[0] < 1_000_000 and sent[1] < 200_000
    assert hub.bucket(NAME) == {"data/0.bin": FIRST, "data/1.bin": SECOND}
    login = {"Authorization": f"Bearer {TOKEN}"}
    file = hub.buckets[NAME].files["data/1.bin"]
    group = hf_xet.XetSession().new_download_stream_group(
        token_refresh_url=f"{hub.host}/api/buckets/{NAME}/xet-read-token", token_refresh_headers=login
    )
    for start, stop in ((0, 1), (699_990, 700_030), (650_000, 1_250_000), (len(SECOND) - 3, len(SECOND))):
        info = hf_xet.XetFileInfo(file.xet_hash, file.size)
        assert b"".join(group.download_stream(info, start=start, end=stop)) == SECOND[start:stop]


def test_who_may_use_the_xet_storage(hub):
    bearer = [{"Authorization": f"Bearer {token}"} for token in (TOKEN, "hf_rita0123456789")]
    assert requests.post(f"{hub.host}/api/buckets/{NAME}", headers=bearer[0], json={"visibility": "private"}).ok
    tokens = f"{hub.host}/api/buckets/{NAME}/xet-"
    asked = [(each, scope) for each in bearer for scope in ("read", "write")]
    answers = [requests.get(f"{tokens}{scope}-token", headers=each).status_code for each, scope in asked]
    assert answers == [200, 200, 200, 403]
    assert requests.get(f"{tokens}read-token").status_code == 401
    read = requests.get(f"{tokens}read-token", headers=bearer[1]).json()["accessToken"]
    for token, status in ((read, 403), ("xet_of_nobody", 401), (TOKEN, 401)):
        given = {"Authorization": f"Bearer {token}"}
        assert requests.post(f"{hub.cas}/v1/shards", headers=given, data=b"").status_code == status
    assert (
        requests.get(f"{hub.cas}/v1/reconstructions/{'0' * 64}", headers={"Authorization": f"Bearer {read}"}).status_code
        == 404
    )


def test_a_file_whose_chunks_do_not_make_it_is_refused(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("skyset.testing.hub.xet._hash_of", lambda path: "0" * 64)
    with talking_to(hub, xet=tmp_path / "xet"):
        HfApi().create_bucket(NAME)
        with pytest.raises(ConnectionError, match="400 Bad Request"):
            HfApi().batch_bucket_files(NAME, add=[(b"few bytes", "few.txt")])
    assert hub.bucket(NAME) == {} and hub.xet.files == {}


def test_a_batch_does_what_it_can(hub, tmp_path):
    with talking_to(hub, xet=tmp_path / "xet"):
        api = HfApi()
        api.create_bucket(NAME)
        api.batch_bucket_files(NAME, add=[(b"few bytes", "a/few.txt"), (b"", "empty.txt")])
        (few,) = api.get_bucket_paths_info(NAME, ["a/few.txt"])
        copies = [
            ("bucket", NAME, few.xet_hash, "b/few.txt"),
            ("bucket", NAME, few.xet_hash, "a"),
            ("bucket", NAME, "f" * 64, "c"),
        ]
        with pytest.raises(Exception, match=re.escape("a: a file and a folder of one name")) as failed:
            api.batch_bucket_files(NAME, copy=copies, delete=["a/none.txt"])
        assert sorted(each["path"] for each in failed.value.failures) == ["a", "a/none.txt", "c"]
        assert hub.bucket(NAME) == {"a/few.txt": b"few bytes", "b/few.txt": b"few bytes", "empty.txt": b""}
        assert sorted(each.path for each in api.list_bucket_tree(NAME)) == ["a", "b", "empty.txt"]
        assert [each.path for each in api.list_bucket_tree(NAME, "a", recursive=True)] == ["a/few.txt"]


@pytest.mark.parametrize("data", [b"", b"x" * 8, b"\0" + b"\xff\xff\xff\0\1\0\0" + b"x", b"\0\1\0\0\3\1\0\0x", b"XETBLOB"])
def test_what_is_no_xorb_is_refused(data):
    with pytest.raises(Refused):
        chunks_of(data)


def test_what_cannot_be_unpacked_is_refused():
    for scheme in (0, 1, 2):
        xorb = b"\0" + (5).to_bytes(3, "little") + bytes([scheme]) + (9).to_bytes(3, "little") + b"wrong"
        with pytest.raises(Refused):
            unpacked(xorb, chunks_of(xorb)[0])


@pytest.mark.parametrize(
    "data", [b"", b"x" * 200, TAG + (3).to_bytes(8, "little") + bytes(200), TAG + (2).to_bytes(8, "little") + bytes(20)]
)
def test_what_is_no_shard_is_refused(data):
    with pytest.raises(Refused):
        read_shard(data)
