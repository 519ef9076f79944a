"""A dataset repository on the Hub as the root: ``data_dir="hf://datasets/USER/NAME"``, from a loopback Hub."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

import skyset

REPOSITORY = "someone/galaxies"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's API as reading files needs."""

    root: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(self.path.split("?")[0])
        if path.startswith(f"/api/datasets/{REPOSITORY}/tree/"):
            self.send_tree(path.split("/tree/")[1].partition("/")[2])
        elif path.startswith(f"/api/datasets/{REPOSITORY}"):
            self.answer(json.dumps({"id": REPOSITORY, "sha": COMMIT, "private": False, "siblings": []}).encode())
        elif path.startswith(f"/datasets/{REPOSITORY}/resolve/"):
            self.send_file(self.root / path.split("/resolve/")[1].partition("/")[2])
        else:
            self.answer(b"{}", 404)

    do_HEAD = do_GET

    def send_tree(self, folder: str):
        entries = [
            {
                "type": "directory" if file.is_dir() else "file",
                "path": file.relative_to(self.root).as_posix(),
                "size": file.stat().st_size,
                "oid": COMMIT,
            }
            for file in sorted((self.root / folder).iterdir())
        ]
        self.answer(json.dumps(entries).encode())

    def send_file(self, file: Path):
        if not file.is_file():
            self.answer(b"", 404, {"X-Error-Code": "EntryNotFound"})
            return
        data, status, headers = file.read_bytes(), 200, {"ETag": '"1"', "X-Repo-Commit": COMMIT}
        if "Range" in self.headers:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            last = min(int(last or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[int(first) : last + 1], 206
        self.answer(data, status, headers)

    def answer(self, body: bytes, status: int = 200, headers: dict | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(built):
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hub,), {"root": built}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


READ = """
import hashlib, skyset
from datasets import load_dataset
root = "hf://datasets/someone/galaxies"
rows = load_dataset("gz3d", data_dir=root, split="train", streaming=True).with_format("numpy")
for row in rows.take(6):
    print(row["object_id"], hashlib.sha256(row["image"].tobytes()).hexdigest())
"""


def test_streaming_from_a_repository_on_the_hub(endpoint, built):
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = skyset.load("gz3d", str(built)).take(6)
    expected = [f"{row['object_id']} {hashlib.sha256(row['image'].tobytes()).hexdigest()}" for row in rows]
    assert done.stdout.split("\n")[:6] == expected
