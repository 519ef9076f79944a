"""A dataset repository on the Hub as the root: ``data_dir="hf://datasets/USER/NAME"``, from a loopback Hub."""

import hashlib
import subprocess
import sys

from huggingface_hub import HfApi

import skyset
from skyset.testing.hub import HubServer
from tests.hub import TOKEN, environment, talking_to

READ = """
import hashlib, skyset
from datasets import load_dataset
root = "hf://datasets/someone/galaxies"
rows = load_dataset("gz3d", data_dir=root, split="train", streaming=True).with_format("numpy")
for row in rows.take(6):
    print(row["object_id"], hashlib.sha256(row["image"].tobytes()).hexdigest())
"""


def test_streaming_from_a_repository_on_the_hub(built, tmp_path):
    with HubServer(tmp_path / "hub") as hub:
        hub.add_user("someone", TOKEN)
        with talking_to(hub):
            HfApi().create_repo("someone/galaxies", repo_type="dataset")
            HfApi().upload_folder(repo_id="someone/galaxies", folder_path=built, repo_type="dataset")
        command = [sys.executable, "-c", READ]
        done = subprocess.run(command, env=environment(hub, tmp_path), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = skyset.load("gz3d", str(built)).take(6)
    expected = [f"{row['object_id']} {hashlib.sha256(row['image'].tobytes()).hexdigest()}" for row in rows]
    assert done.stdout.split("\n")[:6] == expected
