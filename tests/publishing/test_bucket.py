"""`skyset push --bucket`, and pushes that go by Xet: against a loopback Hub, with ``hf_xet`` itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi

import skyset
from skyset.errors import UserError
from skyset.publishing import client, plan, push
from skyset.publishing.contents import Form
from skyset.publishing.request import Request
from skyset.publishing.verify import verify_published
from skyset.testing.hub import HubServer
from tests.hub import TOKEN, environment, talking_to
from tests.processes import killed_once

pytest.importorskip("hf_xet", reason="buckets' bytes go by Xet alone")
pytest.importorskip("huggingface_hub", "2.0", reason="older ones know no buckets")
NAME = "sky/rings"
#: Prints rows of a bucket; nothing of skyset can be imported.
READ = """
import json, sys
sys.modules["skyset"] = None
import numpy as np
from datasets import load_dataset
rows = load_dataset("hf://buckets/sky/rings", split="train", streaming=True)
for row in rows.take(2):
    print(json.dumps([row["object_id"], row["ra"], np.asarray(row["image"]).sum().item()]))
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "BACKOFF", 0.01)
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")
    with HubServer(tmp_path / "hub") as server:
        server.add_user("alice", TOKEN, organisations=("sky",))
        with talking_to(server, xet=tmp_path / "xet"):
            yield server


@pytest.fixture
def folder(rings, tmp_path) -> Path:
    """A copy of the rings, to be changed."""
    return Path(shutil.copytree(rings, tmp_path / "rings"))


def pushed(folder: Path, work: Path, bucket: bool = True, shard_bytes: int = 1 << 16, **options) -> str:
    form = Form(shard_bytes=shard_bytes)
    return push.push(plan.planned(Request("gz_decals", folder, NAME, work_dir=work, form=form, bucket=bucket, **options)))


def data_files(hub: HubServer) -> dict[str, bytes]:
    return {path: content for path, content in hub.bucket(NAME).items() if path.startswith("data/")}


def test_a_bucket_is_read_by_everybody(hub, folder, tmp_path, capsys):
    assert pushed(folder, tmp_path / "work") == f"{hub.host}/buckets/{NAME}"
    files, sent, batches = hub.bucket(NAME), hub.xet.received, len(hub.batches)
    assert {"README.md", "CITATION.cff", "croissant.json", "manifest.json"} < set(files)
    assert not any(path.startswith(".") for path in files) and "hf://buckets/sky/rings" in files["README.md"].decode()
    pushed(folder, tmp_path / "another")  # without the journal: the bucket's list of files tells
    assert (hub.xet.received, len(hub.batches)) == (sent, batches) and "is up to date" in capsys.readouterr().out
    ours = {row["object_id"]: row for row in skyset.load("gz_decals", data_dir=f"hf://buckets/{NAME}", split="train")}
    local = {row["object_id"]: row for row in skyset.load("gz_decals", data_dir=str(folder), split="train")}
    assert ours.keys() == local.keys()
    assert list(verify_published(f"hf://buckets/{NAME}")) == []
    run = [sys.executable, "-c", READ]
    done = subprocess.run(run, env=environment(hub, tmp_path, xet=True), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    stock = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [[name, local[name]["ra"], np.asarray(local[name]["image"]).sum()] for name, *_ in stock] == stock
    assert len(stock) == 2


def test_a_killed_push_to_a_bucket_shows_nothing_and_goes_on(hub, folder, tmp_path):
    assert killed_once(lambda: len(hub.batches) > 3, lambda: pushed(folder, tmp_path / "work"))
    assert {path.partition("/")[0] for path in hub.bucket(NAME)} == {".skyset-push"}
    pushed(folder, tmp_path / "work")
    assert len(set(hub.xet.xorbs_sent)) == len(hub.xet.xorbs_sent)
    assert not any(path.startswith(".") for path in hub.bucket(NAME))
    assert len(data_files(hub)) == len(
        plan.planned(Request("gz_decals", folder, NAME, form=Form(shard_bytes=1 << 16))).items
    )


def test_what_others_put_into_a_bucket_stays(hub, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils.are_progress_bars_disabled", lambda *_: True)
    HfApi().create_bucket(NAME)
    HfApi().batch_bucket_files(NAME, add=[(b"mine", "notes.txt"), (b"{}", "manifest.json")])
    with pytest.raises(UserError, match=r"has manifest.json that no push of skyset put there"):
        pushed(folder, tmp_path / "work", shard_bytes=1 << 30)
    pushed(folder, tmp_path / "work", shard_bytes=1 << 30, overwrite=True)
    HfApi().batch_bucket_files(NAME, add=[(b"changed by hand", "CITATION.cff")])
    with pytest.raises(UserError, match=r"has CITATION.cff that no push of skyset put there, or that was changed since"):
        pushed(folder, tmp_path / "work", shard_bytes=1 << 30)
    assert hub.bucket(NAME)["notes.txt"] == b"mine"


def test_what_a_bucket_refuses_is_one_line(hub, folder, tmp_path):
    for pattern, kind, said in (
        ("POST /v1/xorbs/*", "500", "the Hub cannot be reached: .*; the same command goes on from here"),
        ("POST /v1/shards", "403", "the Hub refuses: .*403 Forbidden"),
        ("POST */batch", "400", "the Hub refuses"),
    ):
        hub.fault(pattern, kind)
        with pytest.raises(UserError, match=said):
            pushed(folder, tmp_path / "work", shard_bytes=1 << 30)
        hub.clear()


def test_a_bucket_has_no_branches(folder, tmp_path):
    for options in ({"revision": "new"}, {"gated": "manual"}):
        with pytest.raises(UserError, match="a storage bucket has neither branches"):
            pushed(folder, tmp_path / "work", **options)


def test_a_repository_is_pushed_by_xet(hub, folder, tmp_path):
    pushed(folder, tmp_path / "work", bucket=False, shard_bytes=1 << 30)
    assert hub.objects.sent == [] and hub.xet.received > 50_000 and len(hub.commits) == 1
    local = skyset.load("gz_decals", data_dir=str(folder), split="train")
    there = skyset.load("gz_decals", data_dir=f"hf://datasets/{NAME}", split="train")
    assert sorted(there["object_id"]) == sorted(local["object_id"])
